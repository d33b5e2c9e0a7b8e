"""Answers as tokens, and the one rule of closed answers: nothing may stand there but names and words that are listed.

Tokens are runs of letters, runs of digits, and single signs; of scripts that are written without spaces every letter is
one. A name or a listed word is a sequence of tokens, and the longest that fits is taken. Time is linear in the length
of the answer, which ``LONGEST`` bounds.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from vrft.response import vocabulary
from vrft.response.words import normalise

T = TypeVar("T")

_UNSPACED = "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u1100-\u11ff\uac00-\ud7af\u0e00-\u0e7f"
"""Scripts of which each letter is a token: Han, kana, Hangul, Thai."""

_TOKEN = re.compile(rf"\d+(?:\.\d+)?|(?:(?![{_UNSPACED}])[^\W\d_])+|\S")
_LOOSE = frozenset(".,:;=#()[]{}。、・'—")
"""Signs that may stand anywhere between words; a hyphen may where spaces are around it."""

_IS = re.compile(r"\b[éè]\b")
_RANGE = re.compile(r"(?<=\d)%? ?[-‐‑–—−] ?(?=\d)")
_ACCENTS = re.compile("([^\\W\\d_])[\u0300-\u0333\u0339-\u036f]+")
_KOREAN = re.compile(rf"[{vocabulary.SINO_KOREAN}](?= ?(?:등급|단계|급|기|도))")
HYPHENS = "−‐‑–－"
"""What is written for a hyphen or a minus, besides the plain one."""

_PLAIN_HYPHENS = str.maketrans(dict.fromkeys(HYPHENS, "-"))
_WRITTEN = {
    **{"º": "°", "№": "#", "®": "", "™": "", "\\%": "%", "&lt;": "<", "&gt;": ">", "$": ""},
    **{"≤": "<=", "≥": ">=", "\\leq": "<=", "\\geq": ">="},
}


class Token(NamedTuple):
    """One token of an answer."""

    text: str
    glued: bool
    """Whether the token before it stands right before it, without a space."""

    @property
    def is_number(self) -> bool:
        return self.text[0].isdecimal()

    @property
    def is_word(self) -> bool:
        return self.text[0].isalpha()


def folded(text: str) -> str:
    """``normalise``, without accents on letters; the Portuguese and Italian *is* stays apart from the letter E.

    >>> folded("Réponse : Étape 2")
    'reponse : etape 2'
    """
    for written, meant in _WRITTEN.items():
        if written in text:
            text = text.replace(written, meant)
    text = _RANGE.sub(" ", _IS.sub("est", normalise(text)))
    if text.isascii():
        return text
    text = _ACCENTS.sub(r"\1", unicodedata.normalize("NFD", text))
    return _KOREAN.sub(_digit_of, unicodedata.normalize("NFC", text)).translate(_PLAIN_HYPHENS)


def _digit_of(numeral: re.Match[str]) -> str:
    return str(vocabulary.SINO_KOREAN.index(numeral[0]) + 1)


def tokens_of(text: str) -> list[Token]:
    """The tokens of a folded text.

    >>> [token.text for token in tokens_of("grade2级 (3+4)")]
    ['grade', '2', '级', '(', '3', '+', '4', ')']
    """
    found: list[Token] = []
    end = 0
    for match in _TOKEN.finditer(text):
        found.append(Token(match[0], match.start() == end and bool(found)))
        end = match.end()
    return found


class Phrases(Generic[T]):
    """Sequences of tokens and what they stand for; the longest that begins at a place is found.

    Args:
        phrases: sequences that are not empty, and their values.
    """

    def __init__(self, phrases: Iterable[tuple[Sequence[str], T]]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], T]]] = {}
        for sequence, value in phrases:
            self._by_first.setdefault(sequence[0], []).append((tuple(sequence), value))
        for found in self._by_first.values():
            found.sort(key=lambda item: -len(item[0]))

    def at(self, tokens: Sequence[str], place: int) -> tuple[int, T] | None:
        """The length and the value of the longest phrase that begins at a place."""
        for sequence, value in self._by_first.get(tokens[place], ()):
            if tuple(tokens[place : place + len(sequence)]) == sequence:
                return len(sequence), value
        return None


def words_in(text: str) -> list[str]:
    """The texts of the tokens of a text that is not folded yet."""
    return [token.text for token in tokens_of(folded(text))]


@lru_cache(maxsize=1)
def lead_ins() -> Phrases[str]:
    """The phrases that may stand around closed answers; the value says ``title``, ``before`` (a title), ``article``,
    ``scale`` or ``other``.

    Names of scales may stand around grades alone.
    """
    listed: dict[tuple[str, ...], str] = {}
    for kind, text in (
        ("scale", vocabulary.SCALES),
        ("other", vocabulary.LEAD_INS),
        ("title", vocabulary.TITLES),
        ("article", vocabulary.ARTICLES),
        ("before", vocabulary.BEFORE),
    ):
        listed |= {tuple(words_in(word)): kind for word in text.split()}
    return Phrases(listed.items())


def is_loose(tokens: Sequence[Token], place: int) -> bool:
    """Whether a sign separates, and says nothing itself."""
    token = tokens[place]
    behind = tokens[place + 1] if place + 1 < len(tokens) else None
    if token.text == "-":  # not a minus, and not an open range
        return place > 0 and behind is not None and not behind.glued
    if token.text == "—":
        return place > 0 and behind is not None
    if token.text == "." and behind is not None and behind.glued and behind.is_number:  # ".5"
        return False
    return token.text in _LOOSE


def article_at(tokens: Sequence[Token], place: int) -> bool:
    """Whether an article is one: a word or a number follows, and no number stands right before it."""
    follows = place + 1 < len(tokens) and (tokens[place + 1].is_word or tokens[place + 1].is_number)
    return follows and not (tokens[place].glued and tokens[place - 1].is_number)


UNSETTLED = re.compile(r"\.\s?\.|…|\[\s?\]|☐|[:;]-?[()](?=\s|\Z)|[²³¹⁰-₎]")
"""What leaves an answer open: dots, a box that is not ticked, a face; and raised digits, which are none of a number."""


@lru_cache(maxsize=4096)
def named_in(answer: str, names: Phrases[T]) -> tuple[frozenset[T], bool]:
    """What an answer names, and whether nothing but names and lead-ins stands in it; cached, since answers repeat.

    >>> names = Phrases([(["benign"], 0), (["malignant"], 1)])
    >>> named_in("The answer is: benign.", names), named_in("vielleicht benign", names)
    ((frozenset({0}), True), (frozenset({0}), False))
    """
    tokens = tokens_of(folded(answer))
    texts = [token.text for token in tokens]
    found: set[T] = set()
    place, whole = 0, not UNSETTLED.search(answer) and texts[:1] != ["is"]  # a question
    while place < len(tokens):
        name, listed = names.at(texts, place), lead_ins().at(texts, place)
        if name and (listed is None or listed[0] <= name[0]):
            found.add(name[1])
            place += name[0]
            if texts[place - 1] == "no" and place < len(tokens) and texts[place].isascii() and tokens[place].is_word:
                whole = whole and names.at(texts, place) is not None  # "No answer" is none
        elif listed and _introduces(listed[1], tokens, place, bool(found)):
            place += listed[0]
        else:
            whole = whole and is_loose(tokens, place)
            place += 1
    return frozenset(found), whole


def _introduces(kind: str, tokens: Sequence[Token], place: int, behind: bool) -> bool:
    """Whether a listed phrase may stand at a place of an answer that is no grade; ``behind`` a name, or before all."""
    if kind == "article":
        return article_at(tokens, place)
    return kind != "scale" and not (kind == "before" and behind)


def phrases_of(names: Mapping[str, T]) -> Phrases[T]:
    """The phrases of names, by what they name; one that two of them would have is none."""
    owners: dict[tuple[str, ...], set[T]] = {}
    for name, value in names.items():
        owners.setdefault(tuple(words_in(name)), set()).add(value)
    return Phrases((words, next(iter(values))) for words, values in owners.items() if words and len(values) == 1)
