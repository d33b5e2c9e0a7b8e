"""The think/answer envelope, and the reading of answers.

The rule of all readings: an answer is read only where it is unambiguous. A broken envelope costs the format reward, not
the answer. A closed answer is read where it consists of declared names and listed words (``vocabulary.py``) only; two
different answers, a negation, a doubt or a range are no answer. Texts are parsed, never evaluated, in linear time.
"""

from vrft.response.answers import read_choice, read_open, read_yes_no, same_text
from vrft.response.box_answers import read_boxes
from vrft.response.envelope import (
    ENVELOPE_INSTRUCTION,
    INSTRUCTIONS,
    ORDERS,
    Envelope,
    assistant_turn,
    envelope_conflict,
    parse,
    render,
)
from vrft.response.grades import Scale, mentioned_grade, read_grade, scale_of
from vrft.response.labels import mentioned_label, read_label
from vrft.response.words import Reading, normalise

__all__ = [
    "ENVELOPE_INSTRUCTION",
    "INSTRUCTIONS",
    "ORDERS",
    "Envelope",
    "Reading",
    "Scale",
    "assistant_turn",
    "envelope_conflict",
    "mentioned_grade",
    "mentioned_label",
    "normalise",
    "parse",
    "read_boxes",
    "read_choice",
    "read_grade",
    "read_label",
    "read_open",
    "read_yes_no",
    "render",
    "same_text",
    "scale_of",
]
