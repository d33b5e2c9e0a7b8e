"""The folding of words before they are compared, and the result of a reading."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vrft.sample import Box

MAX_CHARACTERS = 2000
"""Longer answers in words are not read: Unicode normalisation is quadratic on runs of accents."""

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
"""A translation table that removes invisible characters."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading a completion.

    Args:
        answer: a label, a grade, a letter, a text or boxes; None where nothing is read.
        problems: short codes of irregularities, or why nothing is read; a code that ends in ``?`` is a suspicion.
        stated: the number of boxes in the answer, invalid boxes included.
    """

    answer: str | int | tuple[Box, ...] | None
    problems: tuple[str, ...] = ()
    stated: int = 0


_LATEX = re.compile(r"\\(?:boxed|text(?:bf|it|rm)?|math(?:bf|it|rm)|emph)\s{0,3}\{([^{}]*)\}|\\[()\[\]]")
_FENCE = re.compile(r"```[A-Za-z]*\n(.*?)\n?```", re.DOTALL)
_EMPHASIS = re.compile(r"""[*`"“”«»「」『』《》【】]+|<\|(?:begin|end)_of_box\|>|</?(?:b|i|u|em|strong)>""")
_GLUE = re.compile(r"(?<=\w)[-‐‑–−](?=\w)|[_\s]+")
_AROUND = re.compile(r" ?([,;/]) ?")


def normalise(text: str, *, keep_case: bool = False) -> str:
    """Fold the variable parts of an answer: case, width, spaces, hyphens, underscores, emphasis, final stop, LaTeX box.

    >>> normalise("**Non-Small_Cell** carcinoma."), normalise(r"\\boxed{２}")
    ('non small cell carcinoma', '2')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(INVISIBLE).replace("’", "'")
    text = text.strip()
    if "\\" in text:  # \boxed{\text{benign}}: two layers at most
        text = _LATEX.sub(r"\1", _LATEX.sub(r"\1", text))
    if text.startswith("```") and (fenced := _FENCE.fullmatch(text)):
        text = fenced[1]
    text = _AROUND.sub(r"\1", _GLUE.sub(" ", _EMPHASIS.sub("", text)))
    text = _without_stop(_without_stop(text.strip("$'‘ ")).strip("$'‘ "))
    return text if keep_case else text.casefold()


def _without_stop(text: str) -> str:
    """A text without the full stop at its end; an ellipsis stays."""
    text = text.rstrip("!")
    return text[:-1] if text.endswith((".", "。")) and not text[:-1].rstrip().endswith((".", "。")) else text


def one_line(answer: str) -> str:
    """Join lines, with a full stop in place of each line break."""
    return answer if "`" in answer else re.sub(r"[.\s]*\n\s*", ". ", answer.strip())


DOUBT = re.compile(
    r"\b(?:possibly|probably|maybe|perhaps|unsure|uncertain|unlikely|unless|wait)\b"
    r"|\b(?:not|cannot)(?: be)? (?:sure|certain)\b|\?"
)
"""Words after an answer that weaken it."""

NEGATION = re.compile(
    r"\b(?:not|no|non|neither|nor|without|never|unlikely|instead|cannot|absence|absent|or|negative|free of)\b|n't\b"
    r"|\b(?:den(?:y|ies|ied)|rul\w+ (?:it )?out|exclud\w+|lack\w*|possibl\w+|may|might|maybe|could|unclear|uncertain)\b"
)
"""Words that deny or doubt the words beside them."""


def folded_names(names: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    """Return folded name -> owner; a name with two owners is left out.

    >>> folded_names([("benign", ["Benign", "harmless"]), ("malignant", ["harmless"])])
    {'benign': 'benign'}
    """
    return unambiguous((normalise(name), owner) for owner, others in names for name in others)


K = TypeVar("K")
V = TypeVar("V")


def unambiguous(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    """Return the keys with a single value, in order; empty keys are left out."""
    values: dict[K, set[V]] = {}
    for key, value in pairs:
        values.setdefault(key, set()).add(value)
    return {key: found.pop() for key, found in values.items() if key and len(found) == 1}


def mentioned(folded: str, names: Mapping[str, str]) -> tuple[set[str], str]:
    """Return the owners whose names a text contains as whole words, longest first, and the text without them."""
    found: set[str] = set()
    for name in sorted(names, key=len, reverse=True):
        if name and name in folded:
            folded, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", "\0", folded)
            if count:
                found.add(names[name])
    return found, folded
