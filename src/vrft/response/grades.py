"""Reading a grade: one integer of the scale, however spelt."""

import re
import unicodedata
from collections.abc import Sequence

from vrft.response.labels import Synonyms
from vrft.response.words import LONGEST, NEGATION, Reading, mentioned, normalise

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ROMANS = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
_TITLE = r"grade|stage|level|score|class|category|severity|grading|staging"
_PREFIX = (
    r"(?:(?:so|thus|therefore|hence),?\s*)?(?:(?:the|this|it|final|overall|my|answer|diagnosis|disease|severity|dr|kl|isup"
    r"|predicted|estimated|kellgren lawrence|diabetic retinopathy)\b\s*)*(?:(?:is|was)\b\s*)?[:=]?\s*(?:a\s+)?"
)
_BEFORE = rf"{_PREFIX}(?P<title>(?:{_TITLE})\b\s*)?(?:(?:is|of)\b\s*)?[:=#]?\s*[(\[]?"
_NUMBER = rf"(?P<digits>\d{{1,6}})(?:\.0+)?|(?P<word>{'|'.join(_WORDS)})|(?P<roman>{'|'.join(_ROMANS)})"
_GRADE = re.compile(
    rf"{_BEFORE}(?:{_NUMBER})(?:(?!\w)|(?=[级期度]))(?P<closed>[)\]级期度])*(?P<rest>\s*[(\[,:;=—].*|\.(?:\s.*)?|\s+[-–]\s.*|(?P<more>\s+\D.*)|)",
    re.DOTALL,
)
_NAMED = re.compile(rf"{_BEFORE}(?P<name>.*?)[)\]]?", re.DOTALL)
_PLAIN = re.compile(r"\s*([0-9]{1,2})\s*")

_NUMBERS = re.compile(rf"\d+|\b(?:{'|'.join(_WORDS + _ROMANS)})\b")
_TAKEN_BACK = re.compile(
    r"\b(?:or|not|to|between|than|but|wait|least|most|higher|lower|wrong|incorrect|false|plus|minus)\b"
    r"|\b(?:maybe|possibl\w+|unlikely|uncertain|unsure|perhaps|could|might)\b|\?|n't\b|[:,;]\s*no\b\W*$"
)
"""What withdraws or doubts a grade when it stands behind it."""

_SIGNED = re.compile(r"\d\s*[-‐‑–—~/+](?!\s*[^\W\d]{3})|(?<!\w)[-–—−+]\s*\d|[~/<>≤≥]\s*\d")
"""Ranges, fractions, signs and bounds; ``2 - moderate`` and ``grade-2`` are none of them."""


def read_grade(
    answer: str | None, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> Reading:
    """Read one grade of 0 .. levels - 1, however spelt: ``2``, ``2.0``, ``Grade 2``, ``Stage II``, ``grade three``.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        levels: how many grades the scale has.
        names: the names of the grades, lowest first; an answer that is one of them counts.
        synonyms: further names, by the grade's number written out or by its name.

    A range, a value off the scale, and a number whose name disagrees with it are no grade.

    >>> [read_grade(text, 5).answer for text in ("2 (moderate)", "Stage IV", "2-3", "2.5", "7")]
    [2, 4, None, None, None]
    """
    if not answer:
        return Reading(None)
    if plain := _PLAIN.fullmatch(answer):
        grade = int(plain[1])
        return Reading(grade) if grade < levels else Reading(None, ("not_a_grade",))
    grade_ = None if len(answer) > LONGEST else _grade(answer, levels, _named(names, synonyms))
    return Reading(None, ("not_a_grade",)) if grade_ is None else Reading(grade_)


def _grade(answer: str, levels: int, named: dict[str, int]) -> int | None:
    if _SIGNED.search(answer if answer.isascii() else unicodedata.normalize("NFKC", answer)):
        return None
    folded = normalise(answer if "`" in answer else re.sub(r"[.\s]*\n\s*", ". ", answer.strip())).strip("{}")
    if folded in named:
        return named[folded]
    if named and (match := _NAMED.fullmatch(folded)) and match["name"] in named:
        return named[match["name"]]
    match = _GRADE.fullmatch(_name_last(folded, named))
    if match is None or (match["more"] and not (match["title"] or match["closed"])):
        # "2 lesions" is no grade; "grade 2 disease" and "2) moderate" are
        return None
    if match["roman"] and len(match["roman"]) == 1 and not match["title"]:
        return None  # a single letter without "grade" or "stage" before it
    grade = _value(match["digits"] or match["word"] or match["roman"])
    said, rest = mentioned(match["rest"], {name: str(value) for name, value in named.items()})
    other = {_value(number) for number in _NUMBERS.findall(rest)} - {grade}
    return None if grade >= levels or said - {str(grade)} or other or _TAKEN_BACK.search(rest) else grade


def _named(names: Sequence[str] | None, synonyms: Synonyms) -> dict[str, int]:
    """Folded name -> grade."""
    named = {normalise(name): grade for grade, name in enumerate(names or ())}
    for owner, others in (synonyms or {}).items():
        grade = named.get(normalise(owner), int(owner) if owner.isdecimal() else None)
        if grade is not None:
            named |= {normalise(name): grade for name in others or ()}
    return named


def _value(number: str) -> int:
    if number in _WORDS:
        return _WORDS.index(number)
    return _ROMANS.index(number) + 1 if number in _ROMANS else int(number[:7])


def _name_last(folded: str, named: dict[str, int]) -> str:
    """``moderate (grade 2)`` and ``2 moderate`` as ``grade 2 (moderate)``; other texts as they are."""
    for name in sorted(named, key=len, reverse=True):
        if name and folded.startswith(name) and (number := re.fullmatch(r"\W+([^()]*?)\W*", folded[len(name) :])):
            return f"{number[1]} ({name})"
        if name and folded.endswith(f" {name}"):
            return f"{folded[: -len(name) - 1]} ({name})"
    return folded


def mentioned_grade(
    text: str, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> int | None:
    """The lenient reading: the only grade that a text names as one (``grade N``), where no other number stands.

    >>> mentioned_grade("I would call this grade 3 retinopathy.", 5)
    3
    >>> mentioned_grade("Grade 2 or 3.", 5) is None
    True
    """
    folded = normalise(text[-LONGEST:])
    whole = read_grade(text.strip(), levels, names, synonyms).answer
    if isinstance(whole, int):
        return whole
    titled = {int(number) for number in re.findall(rf"\b(?:{_TITLE})\s*[:=]?\s*(?:is\s+)?(\d{{1,6}})(?![\w.])", folded)}
    numbers = {int(number) for number in re.findall(r"(?<![\w.])(\d{1,6})(?![\w.])", folded)}
    spelt = re.search(rf"\b(?:{'|'.join(_WORDS)})\b", folded)
    doubted = _SIGNED.search(text[-LONGEST:]) or NEGATION.search(folded)
    if len(titled) == 1 and numbers == titled and not spelt and not doubted:
        (grade,) = titled
        return grade if grade < levels else None
    return None
