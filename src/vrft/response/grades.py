"""Reading a grade: one integer of the scale, however spelt.

The numbers of the folded answer are found first, whether digits, words or Roman numerals; all must be one and the same.
What stands before the number must introduce it (``the final answer is``, ``WHO grade``), what stands behind must
explain it (``(moderate)``, ``: several haemorrhages``), and neither may deny or doubt it.
"""

import re
import unicodedata
from collections.abc import Sequence

from vrft.response.labels import Synonyms
from vrft.response.words import LONGEST, NEGATION, Reading, mentioned, normalise, one_line, unwrapped

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ROMANS = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
_HAN = "零一二三四五六七八九十"
_UNITS = "级期度"
_VALUES = {name: value for value, name in enumerate(_WORDS)} | {name: value for value, name in enumerate(_HAN)}
_VALUES |= {name: value for value, name in enumerate(_ROMANS, start=1)}

_TITLE = (
    r"(?:grad(?:e|o|ing)?|sta(?:ge|de|ging)|level|score|class|category|severity|rating|degree|group"
    r"|bi ?rads|pi ?rads|ti ?rads|分级|级别|等级|第)"
)
_TITLED = re.compile(rf"(?:\b|(?<=[{_UNITS}])){_TITLE}\s*(?:(?:is|of|as|no|number)\b\.?\s*)?[:=#]?\s*[(\[]?\s*\Z")
_SHORT_ROMAN = re.compile(rf"({_TITLE}[\s:=#(\[]*)({'|'.join(_ROMANS)})\b")
_NUMBER = re.compile(
    rf"(?<![\w.])\d+(?:\.\d+)?(?![a-z0-9_])|(?<={_UNITS[0]})\d+|(?<=第)\d+|\b(?:{'|'.join(_WORDS)})\b"
    rf"|\b(?:{'|'.join(roman for roman in _ROMANS if len(roman) > 1)})(?=\b|[{_UNITS}])|[{_HAN}](?=\s*[{_UNITS}]|\Z)"
)
_PREFIX = re.compile(
    r"(?:(?:so|thus|therefore|hence),?\s*)?(?:(?:the|this|it|final|overall|my|answer|diagnosis|disease|severity|dr|kl|isup"
    r"|predicted|estimated|kellgren lawrence)\b\s*)*(?:(?:is|was|it's)\b\s*)?[:=#]?\s*(?:a\s+)?[(\[]?\s*"
)
_EXPLAINS = re.compile(rf"[)\]{_UNITS}\s]*(?:\Z|[(\[,:;=—.]|[-–]\s)|\s*[)\]{_UNITS}]")
_PLAIN = re.compile(r"\s*([0-9]{1,2})\s*")

_DENIED = re.compile(
    r"\b(?:not?|non|never|neither|nor|without|than|least|most|between|either|or|to|up|above|below|under|over|less|more"
    r"|higher|lower|worse|better|if|from|may|might|could|maybe|possibl\w+|perhaps|probably|likely|unlikely|uncertain|unsure"
    r"|exclud\w+|rul\w+ out|den(?:y|ies|ied)|false|wrong)\b|n't\b|\?"
)
"""What, before a grade, denies or doubts it."""

_TAKEN_BACK = re.compile(
    r"\b(?:or|to|between|than|wait|least|most|higher|lower|wrong|incorrect|false|plus|minus|think|believe|guess)\b"
    rf"|\b(?:not|but)\b(?=\W*(?:\d|sure|certain|quite|really|maybe|could|might|possibly|not\b|i\b|{'|'.join(_WORDS)}|\Z))"
    r"|\b(?:maybe|possibl\w+|probably|likely|unlikely|uncertain|unsure|perhaps|could|might)\b|\?|n't\b|[:,;]\s*no\b\W*\Z"
)
"""What, behind a grade, withdraws or doubts it."""

_SIGNED = re.compile(r"\d\s*[-‐‑–—~/+](?!\s*[^\W\d]{2}|\s+I\s)|(?<!\w)[-–—−+]\d|[~/<>≤≥]\s*\d")
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
        found: int | None = int(plain[1])
    else:
        found = None if len(answer) > LONGEST else _grade(answer, _named(names, synonyms))
    return Reading(found) if found is not None and found < levels else Reading(None, ("not_a_grade",))


def _grade(answer: str, named: dict[str, int]) -> int | None:
    answer = answer if answer.isascii() else unicodedata.normalize("NFKC", answer)
    if _SIGNED.search(re.sub(r"</?[a-z]{1,6}>", "", answer)):
        return None
    folded = normalise(re.sub(r"(?<=\d)[-–](?=[^\W\d])", " - ", one_line(unwrapped(answer))))
    if folded in named:
        return named[folded]
    folded = _SHORT_ROMAN.sub(lambda found: f"{found[1]}{_VALUES[found[2]]}", folded)
    folded = re.sub(rf"({_TITLE})(?=\d)", r"\1 ", folded)
    numbers = list(_NUMBER.finditer(folded))
    if not numbers:
        introduced = _PREFIX.sub("", re.sub(rf"\b{_TITLE}\s*[:=]?\s*", "", folded, count=1), count=1)
        return named.get(introduced)
    values = {_value(number.group()) for number in numbers}
    grade = values.pop()
    before, behind = folded[: numbers[0].start()], folded[numbers[0].end() :]
    called = mentioned(folded, {name: str(value) for name, value in named.items()})[0]
    if values or grade is None or called - {str(grade)}:
        return None
    for name in named:  # "no DR" and "moderate" are no words that deny
        before, behind = before.replace(name, " "), behind.replace(name, " ()")
    titled = _TITLED.search(before)
    bracketed = re.search(r"[^\W\d]\s*[(\[]\s*\Z", before) and behind.strip()[:1] in (")", "]")
    introduced_ = titled or bracketed or _PREFIX.fullmatch(before) or not before.strip(" -–—,")
    before = before[: titled.start()] if titled else before
    if _DENIED.search(before) or not introduced_ or not (titled or _EXPLAINS.match(behind)):
        return None
    return None if _TAKEN_BACK.search(behind) else grade


def _value(number: str) -> int | None:
    """The integer that a number is; None for one with a fraction."""
    if number in _VALUES:
        return _VALUES[number]
    whole, _, fraction = number.partition(".")
    return None if fraction.strip("0") else int(whole[:7])


def _named(names: Sequence[str] | None, synonyms: Synonyms) -> dict[str, int]:
    """Folded name -> grade, the longest names first."""
    named = {normalise(name): grade for grade, name in enumerate(names or ())}
    for owner, others in (synonyms or {}).items():
        grade = named.get(normalise(owner), int(owner) if owner.isdecimal() else None)
        if grade is not None:
            named |= {normalise(name): grade for name in others or ()}
    return {name: named[name] for name in sorted(named, key=len, reverse=True) if name}


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
    titled = {int(n) for n in re.findall(rf"\b{_TITLE}\s*[:=]?\s*(?:is\s+)?(\d{{1,6}})(?![\w.])", folded)}
    numbers = {int(number) for number in re.findall(r"(?<![\w.])(\d{1,6})(?![\w.])", folded)}
    spelt = re.search(rf"\b(?:{'|'.join(_WORDS)})\b", folded)
    doubted = _SIGNED.search(text[-LONGEST:]) or NEGATION.search(folded)
    if len(titled) == 1 and numbers == titled and not spelt and not doubted:
        (grade,) = titled
        return grade if grade < levels else None
    return None
