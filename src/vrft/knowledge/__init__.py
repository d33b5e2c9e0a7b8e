"""Prior knowledge: what each class of a data set looks like, in words whose sources can be looked up."""

from vrft.knowledge.card import Attribute, Card, ClassCard, card_names, check_against, read_card
from vrft.knowledge.inject import ELSEWHERE, Injection, Told

__all__ = [
    "ELSEWHERE",
    "Attribute",
    "Card",
    "ClassCard",
    "Injection",
    "Told",
    "card_names",
    "check_against",
    "read_card",
]
