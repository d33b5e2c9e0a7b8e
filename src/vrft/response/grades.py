"""Reading a grade: one grade of the scale, however spelt.

An answer is a sequence of names, numbers and words of scales (``tokens.py``); whatever else stands in it makes it
unread, and all names and numbers in it must mean one and the same grade. Of a scale whose names hold no numerals a
number is the index of a grade, from 0. Where a name holds one (``PI-RADS 3``, ``II``, ``4A``), a number means the name
that holds it, and nothing where two do.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from vrft.response import vocabulary
from vrft.response.labels import Synonyms
from vrft.response.tokens import (
    HYPHENS,
    UNSETTLED,
    Phrases,
    Token,
    article_at,
    folded,
    is_loose,
    lead_ins,
    tokens_of,
    words_in,
)
from vrft.response.words import LONGEST, NEGATION, Reading

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
"""Between the numeral of a name and its words: ``2 - mild``, ``2: mild``, ``mild (2)``."""


class Scale:
    """What the grades of a scale are called.

    Args:
        levels: how many grades there are.
        names: their names, lowest first; without them grades are numbers alone.
        synonyms: pairs of a grade (its number written out, or its name) and further names of it.

    Raises:
        ValueError: two grades share a name or cannot be told apart.
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
        self._worded = len(set().union(*counted)) > 1 and sum(map(bool, counted)) > 1
        spelt = [self._spelt(name) for name in self.names]
        prefix = _prefix_of(spelt)
        shared = set.intersection(*map(set, spelt)) if len(spelt) > 1 else set()
        self.shared = {token for token in shared if token.isalpha()}
        """The words that all names have, such as the name of the scale; they may stand around a number."""
        self.prefix = Phrases([(prefix, 0)] if prefix else [])
        """What all names begin with, where that holds a number: the HER2 of ``HER2 1+``."""
        self.numerals = [self._numerals(name, len(prefix)) for name in self.names]
        self.by_index = not any(self.numerals)
        """Whether a number is the index of a grade."""
        own = [token for tokens in spelt for token in tokens if token.isalpha() and token not in self.shared]
        self.undeclared = all(len(token) <= 2 and token.isascii() for token in own)
        """Whether no name is a word, so that one word of severity may stand beside a number."""
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
        """``tokens.folded``, with the signs and the decimal commas of numbers where the names have such."""
        if self._signed:
            text = _SIGN.sub(" minus ", text)
        if self._decimal:
            text = _DECIMAL_COMMA.sub(".", text)
        return folded(text)

    def _words(self, text: str) -> list[str]:
        return [token.text for token in tokens_of(self.fold(text))]

    def _spelt(self, name: str) -> list[str]:
        """The tokens of a name, numerals in digits: ``Stage IIF`` is stage, 2, f."""
        spelt: list[str] = []
        for word in self._words(name):
            if word[0].isdecimal():
                spelt.append(_digits(word))
            elif word in _ROMANS and (self._roman or len(word) > 1):
                spelt.append(_ROMANS[word])
            elif word in _CARDINALS and self._worded:
                spelt.append(_CARDINALS[word])
            elif found := _ROMAN_WITH_LETTER.fullmatch(word) if self._roman else None:
                spelt += [_ROMANS[found[1]], found[2]]
            else:
                spelt.append(word)
        return spelt

    def _numerals(self, name: str, skipped: int) -> dict[str, bool]:
        """The numerals of the first part of a name that holds one, and whether each is a bound (``<5``).

        Args:
            name: of a grade.
            skipped: how many tokens at its beginning belong to the name of the scale.
        """
        for part in _SEPARATOR.split(name):
            tokens = self._spelt(part)
            numerals = {
                token: place > 0 and tokens[place - 1] in ("<", ">")
                for place, token in enumerate(tokens)
                if token[0].isdecimal() and place >= skipped
            }
            if numerals:
                return numerals
            skipped = 0
        return {}

    def _add(self, sequence: tuple[str, ...], grade: int, name: str) -> None:
        other = self._owners.setdefault(sequence, grade) if sequence else grade
        if other != grade:
            told = self.names[other] if self.names else str(other)
            raise ValueError(f"{name!r} and {told!r} cannot be told apart in an answer")

    def _add_shorter(self, spelt: Sequence[Sequence[str]]) -> None:
        """What names a grade in short: its name without the words that all share, its numeral or brackets."""
        shorter: dict[tuple[str, ...], set[int]] = {}
        for grade, name in enumerate(self.names):
            parts = [[one for one in tokens if one not in self.shared] for tokens in (spelt[grade], self._words(name))]
            parts += [part for text in _SEPARATOR.split(name) if _has_word(part := self._spelt(text))]
            untitled = [token for token in spelt[grade] if not _is_title([token], 0)]  # "Stage 4A" beside "none"
            parts += [untitled] if any(token[0].isdecimal() for token in untitled) else []
            for part in parts:
                shorter.setdefault(tuple(part), set()).add(grade)
        for sequence, grades in shorter.items():
            if sequence and len(grades) == 1:
                self._owners.setdefault(sequence, grades.pop())

    def named(self, words: Sequence[str], spelt: Sequence[str], place: int) -> tuple[int, int] | None:
        """The longest name that begins at a place, as it is written or with its numerals in digits: length, grade."""
        return max(self.phrases.at(words, place), self.phrases.at(spelt, place), key=_length)

    def grade_of(self, number: str) -> int | None:
        """The grade that a bare number means, written in digits; None where it means none, or could mean several."""
        if self.by_index:
            return int(number) if number.isdecimal() and len(number) < 7 and int(number) < self.levels else None
        held = [grade for grade, numerals in enumerate(self.numerals) if number in numerals]
        return held[0] if len(held) == 1 and not self.numerals[held[0]][number] else None

    def grade_called(self, owner: str) -> int | None:
        """The grade that the key of a synonym stands for: a name, or a number written out; None where it is neither."""
        named = self._owners.get(tuple(self._spelt(owner)))
        return self.grade_of(owner) if named is None else named

    def written(self, grade: int) -> str:
        """How a grade is written: its number, or its name where names hold numerals."""
        return str(grade) if self.by_index else self.names[grade]


def _prefix_of(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What all names begin with: a word and a number, where each name goes on behind them."""
    first = tuple(names[0][:2]) if len(names) > 1 else ()
    holds = len(first) == 2 and first[0].isalpha() and first[1].isdecimal()
    return first if holds and all(tuple(name[:2]) == first and len(name) > 2 for name in names) else ()


def _sum_of(tokens: Sequence[str]) -> str | None:
    """Of a name such as ``3+4`` the sum, which may be written behind it."""
    signs, numbers = tokens[1::2], tokens[0::2]
    is_sum = len(tokens) % 2 and len(tokens) > 1 and set(signs) == {"+"} and all(one.isdecimal() for one in numbers)
    return str(sum(map(int, numbers))) if is_sum else None


def _has_word(tokens: Sequence[str]) -> bool:
    return any(token[0].isalpha() for token in tokens)


def _digits(number: str) -> str:
    """A number without leading zeros and without a fraction of zeros; digits of any script become 0 to 9."""
    whole, _, fraction = number.partition(".")
    whole = "".join(str(int(digit)) for digit in whole[:20]).lstrip("0") or "0"
    fraction = "".join(str(int(digit)) for digit in fraction[:20]).rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


@lru_cache(maxsize=256)
def _scale(levels: int, names: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> Scale:
    return Scale(levels, names, synonyms)


def scale_of(levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None) -> Scale:
    """The scale of a task; one that was made before is found again.

    Raises:
        ValueError: two grades share a name or cannot be told apart.
    """
    further = tuple((owner, tuple(others or ())) for owner, others in synonyms.items()) if synonyms else ()
    return _scale(levels, tuple(names or ()), further)


@lru_cache(maxsize=1)
def _severities() -> Phrases[str]:
    return Phrases((tuple(words_in(word)), word) for word in vocabulary.SEVERITIES.split())


def read_grade(
    answer: str | None, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> Reading:
    """Read one grade, however spelt: ``2``, ``2.0``, ``Grade 2``, ``Stage II``, ``grade three``, ``2级``.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        levels: how many grades the scale has.
        names: the names of the grades, lowest first; an answer that is one of them counts.
        synonyms: further names, by the grade's number written out or by its name.

    A range, a value off the scale, a doubt in any language, and a number whose name disagrees with it are no grade.

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
        found = None if len(answer) > LONGEST or UNSETTLED.search(answer) else _grade(answer, scale)
    return Reading(found) if found is not None else Reading(None, ("not_a_grade",))


@lru_cache(maxsize=4096)
def _grade(answer: str, scale: Scale) -> int | None:
    """The only grade in an answer, where nothing else stands in it; cached, since answers repeat."""
    tokens = tokens_of(_GLUED_ROMAN.sub(r"\1 ", scale.fold(answer)))
    words = [token.text for token in tokens]
    if words[:1] == ["is"]:  # a question
        return None
    spelt = [_numeral(word) for word in words]
    grades: set[int | None] = set()
    severities: set[str] = set()
    totals: set[str] = set()
    place, titled = 0, False
    while place < len(tokens):
        length = 1
        listed = lead_ins().at(words, place)
        if words[place] in _ROMANS and len(words[place]) == 1 and (titled or _is_title(words, place + 1)):
            spelt[place] = _ROMANS[words[place]]
        named = scale.named(words, spelt, place)
        if named and _length(named) >= _length(listed):
            length = named[0]
            grades.add(named[1])
            titled = False
        elif prefix := scale.prefix.at(spelt, place):
            length, titled = prefix[0], True
        elif spelt[place][0].isdecimal():
            meant = scale.grade_of(spelt[place])
            if meant is None and spelt[place] in scale.sums:
                totals.add(spelt[place])
            else:
                grades.add(meant)
            titled = False
        elif words[place] in scale.shared:
            titled = True
        elif (
            scale.undeclared
            and (severity := _severities().at(words, place))
            and _length(severity) > (_length(listed) if listed and listed[1] in ("title", "before") else 0)
        ):
            length, word = severity
            severities.add(word)
            titled = False
        elif listed and (listed[1] != "article" or article_at(tokens, place)):
            length, kind = listed
            if kind == "before" and grades:
                return None
            titled = kind in ("title", "before") or (titled and kind != "article")
        elif titled and words[place] in ("no", "nr", "n") and _is_abbreviated(tokens, place):
            length = 2
        elif words[place] in _ORDINALS and place and tokens[place - 1].is_number:
            pass
        elif not is_loose(tokens, place) or _is_decimal(tokens, place):
            return None
        place += length
    (grade,) = grades if len(grades) == 1 else (None,)
    if grade is None or len(severities) > 1 or totals - {scale.sums[grade] if scale.sums else None}:
        return None
    return None if any((word in _NONE) != (grade == 0) for word in severities) else grade


def _is_decimal(tokens: Sequence[Token], place: int) -> bool:
    """Whether a comma stands between two numbers: ``2,2``."""
    between = 0 < place < len(tokens) - 1 and tokens[place - 1].is_number and tokens[place + 1].is_number
    return between and tokens[place].text == ","


def _numeral(word: str) -> str:
    """A number in digits; other words, and the letters I, V and X, as they are."""
    if word[0].isdecimal():
        return _digits(word)
    return _CARDINALS.get(word) or (_ROMANS.get(word) if len(word) > 1 else None) or word


def _length(phrase: tuple[int, object] | None) -> int:
    return phrase[0] if phrase else 0


def _is_title(words: Sequence[str], place: int) -> bool:
    """Whether a word names a place on a scale, behind its number: the 级 of Ⅱ级."""
    listed = lead_ins().at(words, place) if place < len(words) else None
    return listed is not None and listed[1] == "title"


def _is_abbreviated(tokens: Sequence[Token], place: int) -> bool:
    """Whether *No.* introduces a number."""
    return place + 2 < len(tokens) and tokens[place + 1].text in (".", "°") and tokens[place + 2].is_number


def mentioned_grade(
    text: str, levels: int, names: Sequence[str] | None = None, synonyms: Synonyms = None
) -> int | None:
    """The lenient reading: the only grade that a text names as one (``grade N``), where no other number stands.

    >>> mentioned_grade("I would call this grade 3 retinopathy.", 5)
    3
    >>> mentioned_grade("Grade 2 or 3.", 5) is None
    True
    """
    whole = read_grade(text.strip(), levels, names, synonyms).answer
    if isinstance(whole, int):
        return whole
    scale = scale_of(levels, names, synonyms)
    text = folded(text[-LONGEST:])
    if NEGATION.search(text) or _SIGNED.search(text):
        return None
    tokens = tokens_of(text)
    words = [token.text for token in tokens]
    spelt = [_numeral(word) for word in words]
    found: set[int | None] = set()
    place, titled = 0, False
    while place < len(tokens):
        length = 1
        named = scale.named(words, spelt, place)
        listed = lead_ins().at(words, place)
        if not scale.by_index and named and (named[0] > 1 or titled):
            length, grade = named
            found.add(grade)
        elif spelt[place][0].isdecimal():
            found.add(scale.grade_of(spelt[place]) if titled else None)
        elif listed and not is_loose(tokens, place):
            length = listed[0]
        titled = (words[place] in scale.shared or bool(listed and listed[1] == "title")) or (
            titled and (is_loose(tokens, place) or words[place] == "is")
        )
        place += length
    return found.pop() if len(found) == 1 else None


_SIGNED = re.compile(r"\d\s?[-–—~/+]|(?<!\w)[-–—−+]\d|[~/<>≤≥]\s?\d")
"""Ranges, fractions, signs and bounds."""
