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
_RANGE = re.compile(r"(?<=\d) ?[-‐‑–—−] ?(?=\d)")
_ACCENTS = re.compile("[\u0300-\u036f]")


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
    text = _RANGE.sub(" ", _IS.sub("est", normalise(text.replace("º", "°").replace("№", "#"))))
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


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
    """The phrases that may stand around closed answers; the value says ``title``, ``article``, ``scale`` or ``other``.

    Names of scales may stand around grades alone.
    """
    listed: dict[tuple[str, ...], str] = {}
    for kind, text in (
        ("scale", vocabulary.SCALES),
        ("other", vocabulary.LEAD_INS),
        ("title", vocabulary.TITLES),
        ("article", vocabulary.ARTICLES),
    ):
        listed |= {tuple(words_in(word)): kind for word in text.split()}
    return Phrases(listed.items())


def is_loose(tokens: Sequence[Token], place: int) -> bool:
    """Whether a sign separates, and says nothing itself."""
    token = tokens[place]
    behind = tokens[place + 1] if place + 1 < len(tokens) else None
    if token.text in ("-", "–"):  # not a minus, and not an open range
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


ELLIPSIS = re.compile(r"\.\s?\.|…")


@lru_cache(maxsize=4096)
def named_in(answer: str, names: Phrases[T]) -> tuple[frozenset[T], bool]:
    """What an answer names, and whether nothing but names and lead-ins stands in it; answers come again and again.

    >>> names = Phrases([(["benign"], 0), (["malignant"], 1)])
    >>> named_in("The answer is: benign.", names), named_in("vielleicht benign", names)
    ((frozenset({0}), True), (frozenset({0}), False))
    """
    tokens = tokens_of(folded(answer))
    texts = [token.text for token in tokens]
    found: set[T] = set()
    place, whole = 0, not ELLIPSIS.search(answer)
    while place < len(tokens):
        name, listed = names.at(texts, place), lead_ins().at(texts, place)
        if name and (listed is None or listed[0] <= name[0]):
            found.add(name[1])
            place += name[0]
        elif listed and listed[1] != "scale" and (listed[1] != "article" or article_at(tokens, place)):
            place += listed[0]
        else:
            whole = whole and is_loose(tokens, place)
            place += 1
    return frozenset(found), whole


def phrases_of(names: Mapping[str, T]) -> Phrases[T]:
    """The phrases of names, by what they name; one that two of them would have is none."""
    owners: dict[tuple[str, ...], set[T]] = {}
    for name, value in names.items():
        owners.setdefault(tuple(words_in(name)), set()).add(value)
    return Phrases((words, next(iter(values))) for words, values in owners.items() if words and len(values) == 1)
