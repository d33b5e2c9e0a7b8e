"""Reading a grade: one grade of a scale, in any spelling.

An answer is a sequence of names, numbers and words of scales (``tokens.py``). With anything else in it the answer is
not read, and all its names and numbers must mean the same grade. On a scale whose names contain no numerals a number is
the index of a grade, from 0. Where a name contains a numeral (``PI-RADS 3``, ``II``, ``4A``), a number means the name
that contains it, and nothing where two names do.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from vrft.response import vocabulary
from vrft.response.labels import Synonyms
from vrft.response.tokens import (
    HYPHENS,
    UNDECIDED,
    Phrases,
    Token,
    fold_accents,
    is_article,
    is_separator,
    listed_phrases,
    tokens_of,
    words_in,
)
from vrft.response.words import MAX_CHARACTERS, NEGATION, Reading, unambiguous

_CARDINALS = {words_in(word)[0]: str(n) for n, words in enumerate(vocabulary.CARDINALS) for word in words.split()}
_NONE = frozenset(vocabulary.NONE.split())
_ROMANS = {roman: str(n) for n, roman in enumerate(vocabulary.ROMANS, start=1)}
_ORDINALS = frozenset(word for ordinal in vocabulary.ORDINALS.split() for word in words_in(ordinal))
_ROMAN_WITH_LETTER = re.compile(r"(x|x?(?:i{1,3}|iv|vi{0,3}|ix))([a-f])")
_GLUED_ROMAN = re.compile(rf"\b(gra[dun]\w?|sta[dg]\w+?|class|level|type)(?=(?:{'|'.join(vocabulary.ROMANS)})\b)")
_PLAIN = re.compile(r"\s*([0-9]{1,2})\s*")
_SIGNED_NAME = re.compile(rf"\s*[-{HYPHENS}]\s?\d")
_SIGN = re.compile(rf"[-{HYPHENS}](?=\s?\d)")
_DECIMAL_NAME = re.compile(r"\d\.\d")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_SEPARATOR = re.compile(r"\s+[-–—:=]\s+|[:=]\s*|\s*[()]")
"""Separates the numeral of a name from its words: ``2 - mild``, ``2: mild``, ``mild (2)``."""


class Scale:
    """The names of the grades of a scale.

    Args:
        levels: the number of grades.
        names: their names, lowest first; without names grades are numbers.
        synonyms: pairs of a grade (its number as text, or its name) and further names of it.

    Raises:
        ValueError: two grades share a name or cannot be distinguished.
    """

    def __init__(
        self, levels: int, names: Sequence[str] | None = None, synonyms: Sequence[tuple[str, Sequence[str]]] = ()
    ) -> None:
        self.levels, self.names = levels, tuple(names or ())
        self._signed = any(_SIGNED_NAME.match(name) for name in self.names)
        self._decimal = any(_DECIMAL_NAME.search(name) for name in self.names)
        words = [self._words(name) for name in self.names]
        self._roman = any(word in _ROMANS and len(word) > 1 for name in words for word in name)
        counted = [{_CARDINALS[word] for word in name if word in _CARDINALS} for name in words]
        self._number_words = len(set().union(*counted)) > 1 and sum(map(bool, counted)) > 1
        spelt = [self._spelt(name) for name in self.names]
        prefix = _prefix_of(spelt)
        shared = set.intersection(*map(set, spelt)) if len(spelt) > 1 else set()
        self.shared = {token for token in shared if token.isalpha()}
        """The words that all names share, such as the name of the scale; they may stand around a number."""
        self.prefix = Phrases([(prefix, 0)] if prefix else [])
        """The common beginning of all names, where it contains a number: the HER2 of ``HER2 1+``."""
        self.numerals = [self._numerals(name, len(prefix)) for name in self.names]
        self.by_index = not any(self.numerals)
        """Whether a number is the index of a grade."""
        own = [token for tokens in spelt for token in tokens if token.isalpha() and token not in self.shared]
        self.names_are_codes = all(len(token) <= 2 and token.isascii() for token in own)
        """Whether no name is a word; then a word of severity may stand beside a number."""
        self._owners: dict[tuple[str, ...], int] = {}
        for grade, name in enumerate(self.names):
            self._add(tuple(spelt[grade]), grade, name)
            self._add(tuple(words[grade]), grade, name)
        for owner, others in synonyms:
            named = self.grade_called(owner)
            if named is None:
                continue
            for other in others:
                self._add(tuple(self._spelt(other)), named, other)
                self._add(tuple(self._words(other)), named, other)
        self._add_shorter([tokens[len(prefix) :] for tokens in spelt])
        self.phrases = Phrases(self._owners.items())
        self.sums = [_sum_of(tokens[len(prefix) :]) for tokens in spelt]

    def fold(self, text: str) -> str:
        """Fold a text, and keep signs and decimal commas of numbers where the names of the scale have such."""
        if self._signed:
            text = _SIGN.sub(" minus ", text)
        if self._decimal:
            text = _DECIMAL_COMMA.sub(".", text)
        return fold_accents(text)

    def _words(self, text: str) -> list[str]:
        return [token.text for token in tokens_of(self.fold(text))]

    def _spelt(self, name: str) -> list[str]:
        """The tokens of a name, with numerals in digits: ``Stage IIF`` becomes stage, 2, f."""
        spelt: list[str] = []
        for word in self._words(name):
            if word[0].isdecimal():
                spelt.append(_digits(word))
            elif word in _ROMANS and (self._roman or len(word) > 1):
                spelt.append(_ROMANS[word])
            elif word in _CARDINALS and self._number_words:
                spelt.append(_CARDINALS[word])
            elif found := _ROMAN_WITH_LETTER.fullmatch(word) if self._roman else None:
                spelt += [_ROMANS[found[1]], found[2]]
            else:
                spelt.append(word)
        return spelt

    def _numerals(self, name: str, skipped: int) -> dict[str, bool]:
        """The numerals of the first part of a name that contains any, and whether each is a bound (``<5``).

        ``skipped`` is the number of tokens at the beginning that belong to the name of the scale.
        """
        for part in _SEPARATOR.split(name):
            tokens = self._spelt(part)
            numerals = {
                token: index > 0 and tokens[index - 1] in ("<", ">")
                for index, token in enumerate(tokens)
                if token[0].isdecimal() and index >= skipped
            }
            if numerals:
                return numerals
            skipped = 0
        return {}

    def _add(self, sequence: tuple[str, ...], grade: int, name: str) -> None:
        other = self._owners.setdefault(sequence, grade) if sequence else grade
        if other != grade:
            conflict = self.names[other] if self.names else str(other)
            raise ValueError(f"{name!r} and {conflict!r} cannot be distinguished in an answer")

    def _add_shorter(self, spelt: Sequence[Sequence[str]]) -> None:
        """Add short forms: a name without the words that all names share, or without its numeral or brackets."""
        shorter: list[tuple[tuple[str, ...], int]] = []
        for grade, name in enumerate(self.names):
            parts = [[word for word in words if word not in self.shared] for words in (spelt[grade], self._words(name))]
            parts += [part for text in _SEPARATOR.split(name) if _has_word(part := self._spelt(text))]
            untitled = [token for token in spelt[grade] if not _is_title([token], 0)]  # "Stage 4A" beside "none"
            parts += [untitled] if any(token[0].isdecimal() for token in untitled) else []
            shorter += [(tuple(part), grade) for part in parts]
        self._owners = unambiguous(shorter) | self._owners

    def named(self, words: Sequence[str], spelt: Sequence[str], index: int) -> tuple[int, int] | None:
        """The longest name that begins at a position, as written or with numerals in digits: (length, grade)."""
        return max(self.phrases.at(words, index), self.phrases.at(spelt, index), key=_length)

    def grade_of(self, number: str) -> int | None:
        """The grade that a bare number (in digits) means; None where it means no grade or is ambiguous."""
        if self.by_index:
            return int(number) if number.isdecimal() and len(number) < 7 and int(number) < self.levels else None
        owners = [grade for grade, numerals in enumerate(self.numerals) if number in numerals]
        return owners[0] if len(owners) == 1 and not self.numerals[owners[0]][number] else None

    def grade_called(self, owner: str) -> int | None:
        """The grade that the key of a synonym means: a name, or a number as text; None where it is neither."""
        named = self._owners.get(tuple(self._spelt(owner)))
        return self.grade_of(owner) if named is None else named

    def written(self, grade: int) -> str:
        """Write a grade: its number, or its name where names contain numerals."""
        return str(grade) if self.by_index else self.names[grade]


def _prefix_of(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The word and number that all names begin with, where each name continues after them; else ()."""
    first = tuple(names[0][:2]) if len(names) > 1 else ()
    is_prefix = len(first) == 2 and first[0].isalpha() and first[1].isdecimal()
    return first if is_prefix and all(tuple(name[:2]) == first and len(name) > 2 for name in names) else ()


def _sum_of(tokens: Sequence[str]) -> str | None:
    """The sum of a name such as ``3+4``, which may be written after the name."""
    signs, numbers = tokens[1::2], tokens[0::2]
    is_sum = len(tokens) % 2 and len(tokens) > 1 and set(signs) == {"+"} and all(map(str.isdecimal, numbers))
    return str(sum(map(int, numbers))) if is_sum else None


def _has_word(tokens: Sequence[str]) -> bool:
    return any(token[0].isalpha() for token in tokens)


def _digits(number: str) -> str:
    """A number without leading zeros and without a zero fraction; digits of any script become 0 to 9."""
    integer, _, fraction = number.partition(".")
    integer = "".join(str(int(digit)) for digit in integer[:20]).lstrip("0") or "0"
    fraction = "".join(str(int(digit)) for digit in fraction[:20]).rstrip("0")
    return f"{integer}.{fraction}" if fraction else integer


@lru_cache(maxsize=256)
def _scale(levels: int, names: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> Scale:
    return Scale(levels, names, synonyms)


def scale_of(levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None) -> Scale:
    """Return the scale of a task; scales are cached.

    Raises:
        ValueError: two grades share a name or cannot be distinguished.
    """
    further = tuple((owner, tuple(others or ())) for owner, others in synonyms.items()) if synonyms else ()
    return _scale(levels, tuple(names or ()), further)


@lru_cache(maxsize=1)
def _severities() -> Phrases[str]:
    return Phrases((tuple(words_in(word)), word) for word in vocabulary.SEVERITIES.split())


def read_grade(
    answer: str | None, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> Reading:
    """Read one grade in any spelling: ``2``, ``2.0``, ``Grade 2``, ``Stage II``, ``grade three``, ``2级``.

    Args:
        answer: the text inside the answer tags; None where there is none.
        levels: the number of grades.
        names: the names of the grades, lowest first.
        synonyms: the number (as text) or the name of a grade -> further names.

    A range, a value off the scale, a doubt in any language, and a number beside the name of another grade are no grade.

    >>> [read_grade(text, 5).answer for text in ("2 (moderate)", "Stage IV", "2-3", "2.5", "7", "2, vielleicht")]
    [2, 4, None, None, None, None]
    >>> read_grade("PI-RADS 3", 5, [f"PI-RADS {grade}" for grade in (1, 2, 3, 4, 5)]).answer
    2
    """
    if not answer:
        return Reading(None)
    scale = scale_of(levels, names, synonyms)
    if scale.by_index and (plain := _PLAIN.fullmatch(answer)):
        found = scale.grade_of(_digits(plain[1]))
    else:
        found = None if len(answer) > MAX_CHARACTERS or UNDECIDED.search(answer) else _grade(answer, scale)
    return Reading(found) if found is not None else Reading(None, ("not_a_grade",))


@lru_cache(maxsize=4096)
def _grade(answer: str, scale: Scale) -> int | None:
    """The only grade in an answer without other words; cached, since answers repeat."""
    tokens = tokens_of(_GLUED_ROMAN.sub(r"\1 ", scale.fold(answer)))
    words = [token.text for token in tokens]
    if words[:1] == ["is"]:  # a question
        return None
    spelt = [_numeral(word) for word in words]
    grades: set[int | None] = set()
    severities: set[str] = set()
    totals: set[str] = set()
    index, titled = 0, False
    while index < len(tokens):
        length = 1
        listed = listed_phrases().at(words, index)
        if words[index] in _ROMANS and len(words[index]) == 1 and (titled or _is_title(words, index + 1)):
            spelt[index] = _ROMANS[words[index]]
        named = scale.named(words, spelt, index)
        if named and _length(named) >= _length(listed):
            length = named[0]
            grades.add(named[1])
            titled = False
        elif prefix := scale.prefix.at(spelt, index):
            length, titled = prefix[0], True
        elif spelt[index][0].isdecimal():
            meant = scale.grade_of(spelt[index])
            if meant is None and spelt[index] in scale.sums:
                totals.add(spelt[index])
            else:
                grades.add(meant)
            titled = False
        elif words[index] in scale.shared:
            titled = True
        elif (
            scale.names_are_codes
            and (severity := _severities().at(words, index))
            and _length(severity) > (_length(listed) if listed and listed[1] in ("title", "before") else 0)
        ):
            length, word = severity
            severities.add(word)
            titled = False
        elif listed and (listed[1] != "article" or is_article(tokens, index)):
            length, kind = listed
            if kind == "before" and grades:
                return None
            titled = kind in ("title", "before") or (titled and kind != "article")
        elif titled and words[index] in ("no", "nr", "n") and _is_abbreviated(tokens, index):
            length = 2
        elif words[index] in _ORDINALS and index and tokens[index - 1].is_number:
            pass
        elif not is_separator(tokens, index) or _is_decimal(tokens, index):
            return None
        index += length
    (grade,) = grades if len(grades) == 1 else (None,)
    if grade is None or len(severities) > 1 or totals - {scale.sums[grade] if scale.sums else None}:
        return None
    return None if any((word in _NONE) != (grade == 0) for word in severities) else grade


def _is_decimal(tokens: Sequence[Token], index: int) -> bool:
    """Whether a comma stands between two numbers: ``2,2``."""
    between = 0 < index < len(tokens) - 1 and tokens[index - 1].is_number and tokens[index + 1].is_number
    return between and tokens[index].text == ","


def _numeral(word: str) -> str:
    """A numeral in digits; other words, and the letters I, V and X, unchanged."""
    if word[0].isdecimal():
        return _digits(word)
    return _CARDINALS.get(word) or (_ROMANS.get(word) if len(word) > 1 else None) or word


def _length(phrase: tuple[int, object] | None) -> int:
    return phrase[0] if phrase else 0


def _is_title(words: Sequence[str], index: int) -> bool:
    """Whether a word is a title of grades, which may stand after a number: the 级 of Ⅱ级."""
    listed = listed_phrases().at(words, index) if index < len(words) else None
    return listed is not None and listed[1] == "title"


def _is_abbreviated(tokens: Sequence[Token], index: int) -> bool:
    """Whether *No.* introduces a number."""
    return index + 2 < len(tokens) and tokens[index + 1].text in (".", "°") and tokens[index + 2].is_number


def mentioned_grade(
    text: str, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> int | None:
    """The lenient reading: the only grade that a text names (``grade N``), where it has no other number.

    >>> mentioned_grade("I would call this grade 3 retinopathy.", 5)
    3
    >>> mentioned_grade("Grade 2 or 3.", 5) is None
    True
    """
    strict = read_grade(text.strip(), levels, names, synonyms).answer
    if isinstance(strict, int):
        return strict
    scale = scale_of(levels, names, synonyms)
    text = fold_accents(text[-MAX_CHARACTERS:])
    if NEGATION.search(text) or _SIGNED.search(text):
        return None
    tokens = tokens_of(text)
    words = [token.text for token in tokens]
    spelt = [_numeral(word) for word in words]
    found: set[int | None] = set()
    index, titled = 0, False
    while index < len(tokens):
        length = 1
        named = scale.named(words, spelt, index)
        listed = listed_phrases().at(words, index)
        if not scale.by_index and named and (named[0] > 1 or titled):
            length, grade = named
            found.add(grade)
        elif spelt[index][0].isdecimal():
            found.add(scale.grade_of(spelt[index]) if titled else None)
        elif listed and not is_separator(tokens, index):
            length = listed[0]
        titled = (words[index] in scale.shared or bool(listed and listed[1] == "title")) or (
            titled and (is_separator(tokens, index) or words[index] == "is")
        )
        index += length
    return found.pop() if len(found) == 1 else None


_SIGNED = re.compile(r"\d\s?[-–—~/+]|(?<!\w)[-–—−+]\d|[~/<>≤≥]\s?\d")
"""Ranges, fractions, signs and bounds."""
