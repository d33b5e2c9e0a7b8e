"""Prior knowledge: a description of each class of a data set, each sentence with its source."""

from vrft.knowledge.card import Attribute, Card, ClassCard, card_names, check_against, read_card
from vrft.knowledge.inject import UNRELATED, Injection, PromptKnowledge

__all__ = [
    "UNRELATED",
    "Attribute",
    "Card",
    "ClassCard",
    "Injection",
    "PromptKnowledge",
    "card_names",
    "check_against",
    "read_card",
]
