"""Prior knowledge: what each class of a data set looks like, in words whose sources can be looked up."""

from vrft.knowledge.card import Card, ClassCard, card_names, check_against, read_card

__all__ = ["Card", "ClassCard", "card_names", "check_against", "read_card"]
