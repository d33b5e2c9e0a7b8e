"""Answers as tokens, and the rule of closed answers: they may contain nothing but names and listed words.

Tokens are runs of letters, runs of digits, and single signs; in scripts without spaces every letter is a token. A name
or a listed phrase is a sequence of tokens, and the longest match is taken. Time is linear in the length of the answer,
which ``MAX_CHARACTERS`` bounds.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from vrft.response import vocabulary
from vrft.response.words import normalise, unambiguous

T = TypeVar("T")

_UNSPACED = "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u1100-\u11ff\uac00-\ud7af\u0e00-\u0e7f"
"""Scripts in which each letter is a token: Han, kana, Hangul, Thai."""

_TOKEN = re.compile(rf"\d+(?:\.\d+)?|(?:(?![{_UNSPACED}])[^\W\d_])+|\S")
_SEPARATORS = frozenset(".,:;=#()[]{}。、・'—")
"""Signs that may stand anywhere between words; so may a hyphen with spaces around it."""

_IS = re.compile(r"\b[éè]\b")
_RANGE = re.compile(r"(?<=\d)%? ?[-‐‑–—−] ?(?=\d)")
_ACCENTS = re.compile("([^\\W\\d_])[\u0300-\u0333\u0339-\u036f]+")
_KOREAN = re.compile(rf"[{vocabulary.SINO_KOREAN}](?= ?(?:등급|단계|급|기|도))")
HYPHENS = "−‐‑–－"
"""Characters for a hyphen or a minus, besides ``-``."""

_PLAIN_HYPHENS = str.maketrans(dict.fromkeys(HYPHENS, "-"))
_WRITTEN = {
    **{"º": "°", "№": "#", "®": "", "™": "", "\\%": "%", "&lt;": "<", "&gt;": ">", "$": ""},
    **{"≤": "<=", "≥": ">=", "\\leq": "<=", "\\geq": ">="},
}


class Token(NamedTuple):
    """One token of an answer."""

    text: str
    glued: bool
    """Whether no space stands between the token before and this token."""

    @property
    def is_number(self) -> bool:
        """Whether the token begins with a digit."""
        return self.text[0].isdecimal()

    @property
    def is_word(self) -> bool:
        """Whether the token begins with a letter."""
        return self.text[0].isalpha()


def fold_accents(text: str) -> str:
    """``normalise``, and remove accents from letters; the Portuguese and Italian *é* (is) becomes ``est``, not ``e``.

    >>> fold_accents("Réponse : Étape 2")
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
    """Sequences of tokens and what they stand for; the longest phrase that begins at a position is found.

    Args:
        phrases: nonempty sequences, and their values.
    """

    def __init__(self, phrases: Iterable[tuple[Sequence[str], T]]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], T]]] = {}
        for sequence, value in phrases:
            self._by_first.setdefault(sequence[0], []).append((tuple(sequence), value))
        for found in self._by_first.values():
            found.sort(key=lambda item: -len(item[0]))

    def at(self, tokens: Sequence[str], index: int) -> tuple[int, T] | None:
        """The length and the value of the longest phrase that begins at a position; None where there is none."""
        for sequence, value in self._by_first.get(tokens[index], ()):
            if tuple(tokens[index : index + len(sequence)]) == sequence:
                return len(sequence), value
        return None


def words_in(text: str) -> list[str]:
    """The tokens of a text, folded, as texts."""
    return [token.text for token in tokens_of(fold_accents(text))]


@lru_cache(maxsize=1)
def listed_phrases() -> Phrases[str]:
    """The phrases that may stand around closed answers, with their kinds: ``title``, ``before`` (a preceding title),
    ``article``, ``scale`` (which may stand around grades only) or ``other``.
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


def is_separator(tokens: Sequence[Token], index: int) -> bool:
    """Whether a sign only separates words and has no meaning of its own."""
    token = tokens[index]
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if token.text == "-":  # not a minus, and not an open range
        return index > 0 and after is not None and not after.glued
    if token.text == "—":
        return index > 0 and after is not None
    if token.text == "." and after is not None and after.glued and after.is_number:  # ".5"
        return False
    return token.text in _SEPARATORS


def is_article(tokens: Sequence[Token], index: int) -> bool:
    """Whether a word is used as an article: a word or a number follows, and no number stands directly before it."""
    follows = index + 1 < len(tokens) and (tokens[index + 1].is_word or tokens[index + 1].is_number)
    return follows and not (tokens[index].glued and tokens[index - 1].is_number)


UNDECIDED = re.compile(r"\.\s?\.|…|\[\s?\]|☐|[:;]-?[()](?=\s|\Z)|[²³¹⁰-₎]")
"""Signs of an undecided answer: dots, an empty check box, a face; and raised digits, which belong to no number."""


@lru_cache(maxsize=4096)
def find_names(answer: str, names: Phrases[T]) -> tuple[frozenset[T], bool]:
    """Return what an answer names, and whether it consists of names and lead-ins only; cached, since answers repeat.

    >>> names = Phrases([(["benign"], 0), (["malignant"], 1)])
    >>> find_names("The answer is: benign.", names), find_names("vielleicht benign", names)
    ((frozenset({0}), True), (frozenset({0}), False))
    """
    tokens = tokens_of(fold_accents(answer))
    texts = [token.text for token in tokens]
    found: set[T] = set()
    index, complete = 0, not UNDECIDED.search(answer) and texts[:1] != ["is"]  # a question
    while index < len(tokens):
        name, listed = names.at(texts, index), listed_phrases().at(texts, index)
        if name and (listed is None or listed[0] <= name[0]):
            found.add(name[1])
            index += name[0]
            if texts[index - 1] == "no" and index < len(tokens) and texts[index].isascii() and tokens[index].is_word:
                complete = complete and names.at(texts, index) is not None  # "No answer" is no answer
        elif listed and _introduces(listed[1], tokens, index, bool(found)):
            index += listed[0]
        else:
            complete = complete and is_separator(tokens, index)
            index += 1
    return frozenset(found), complete


def _introduces(kind: str, tokens: Sequence[Token], index: int, after_name: bool) -> bool:
    """Whether a listed phrase may stand at this position of an answer that is no grade."""
    if kind == "article":
        return is_article(tokens, index)
    return kind != "scale" and not (kind == "before" and after_name)


def phrases_of(names: Mapping[str, T]) -> Phrases[T]:
    """The phrases of names with their values; a phrase of two values is left out."""
    return Phrases(unambiguous((tuple(words_in(name)), value) for name, value in names.items()).items())
