"""Parse the text of an answer into nested groups: brackets of any kind, and values with the keys before their colons.

Box tokens of several families become brackets; fences, names and LaTeX around an answer become spaces. Commas may be
missing, and the end may be cut off. Nothing is evaluated, and time is linear in the length of the text.
"""

import math
import re
from dataclasses import dataclass, field

BOX_KEYS = re.compile(
    r"(?:bbox|box|boundingbox|boundingboxes|bndbox|position|coordinate|coord|rect|rectangle|region|xyxy)(?:e?s)?(?:2d|xyxy)?"
)
"""Keys of boxes, without underscores."""

OTHER_KEYS = re.compile(
    r"(?:image|processed|original|img)?(?:size|shape|resolution|dimensions?)?|keypoints?(?:2d)?|points?2d|cent(?:er|re)"
    r"|colou?r|rgba?|\w*normali[sz]ed|(?:class)?(?:score|prob|probabilitie|probability|confidence|logit)s?"
)
"""Keys whose numbers are no box."""

CORNERS = (
    *(("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax")),
    *(("left", "top", "right", "bottom"), ("minx", "miny", "maxx", "maxy")),
)
SIDES = tuple(
    (x, y, *sides)
    for x, y in (("x", "y"), ("left", "top"), ("x1", "y1"), ("xmin", "ymin"))
    for sides in (("width", "height"), ("w", "h"))
)
COORDINATES = {name for names in (*CORNERS, *SIDES) for name in names}

_FULL_WIDTH = {0xFF01 + offset: 0x21 + offset for offset in range(94)}
_FULL_WIDTH |= dict(zip(map(ord, "、【】−。"), map(ord, ",[]-."), strict=True))
_NAMED = re.compile(
    r"<\|object_ref_start\|>[^<]{0,300}<\|object_ref_end\|>|<ref>[^<]{0,300}</ref>|<\|ref\|>[^<]{0,300}<\|/ref\|>"
)
_OPEN_TOKENS = re.compile(r"<\|box_start\|>|<b?box>|<\|det\|>|<\|begin_of_box\|>")
_CLOSE_TOKENS = re.compile(r"<\|box_end\|>|</b?box>|<\|/det\|>|<\|end_of_box\|>")
_NUMBER_TOKENS = re.compile(r"<([0-9]{1,4})>")
_HALF_TOKEN = re.compile(r"<[|/]?[a-z_]{0,12}\|?\Z")
_FENCES = re.compile(r"```\s{0,3}[A-Za-z]{0,10}\b|`|\A\s*json\b|\\boxed\b")
_TOKEN = re.compile(
    r"""(?P<open>[\[({])|(?P<close>[\])}])|(?P<colon>[:=])|(?P<comma>[,;])
    |(?P<string>(?:\A|(?<=[\[({,:=])|(?<=[\[({,:=]\s))(?:
        "(?:[^"\\]|\\.|"(?![ \n]{0,3}(?:[,:\]})]|\Z))){0,200}+"
        |'(?:[^'\\]|\\.|'(?![ \n]{0,3}(?:[,:\]})]|\Z))){0,200}+'))
    |(?P<number>[-+]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+(?![\w%.°/*+~-]))
    |(?P<word>(?:[^\s\[\](){},;:="']|(?<=\w)'(?=\w))++)""",
    re.VERBOSE | re.DOTALL,
)
_MAX_DEPTH = 32

_FOUR = r"(?:[ \t]{0,5},[ \t]{0,5}|[ \t]{1,5})".join([r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?"] * 4)
_ROW_END = r"[ \t]{0,5}[;\n]\s{0,5}"
_ROWS = re.compile(rf"[\[({{]\s{{0,5}}{_FOUR}(?:{_ROW_END}{_FOUR}){{1,500}}")
"""Several boxes in one pair of brackets, one a row: ``[1, 2, 3, 4; 5, 6, 7, 8]``."""


@dataclass(slots=True)
class Group:
    """The content of a pair of brackets: values, each with the key before its colon."""

    bracket: str
    items: list[tuple[str | None, "Value"]] = field(default_factory=list)
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word, or a number with letters or signs attached."""

    text: str


Value = Group | Word | str | float


def without_markup(answer: str, *, cut: bool) -> str:
    """The answer with box tokens as brackets, without fences, names and LaTeX.

    Args:
        answer: the text.
        cut: whether the answer runs to the end of the completion, so that its last token may be incomplete.
    """
    text = answer if answer.isascii() else answer.translate(_FULL_WIDTH)
    if cut:
        text = _HALF_TOKEN.sub("", text)
    text = _NUMBER_TOKENS.sub(r" \1 ", brackets_for_tokens(_NAMED.sub(" ", text)))
    if ";" in text or "\n" in text:
        text = _ROWS.sub(_bracket_rows, text)
    return _FENCES.sub(" ", re.sub(r"\\(?=[\[\](){}])|\\boxed\s{0,3}\{\s{0,3}\}", " ", text))


def _bracket_rows(rows: re.Match[str]) -> str:
    """A pair of brackets for each row."""
    return rows[0][0] + re.sub(r"[;\n]\s{0,5}(?=[-+0-9])", "],[", rows[0][1:].lstrip())


def brackets_for_tokens(text: str) -> str:
    """Replace box tokens by brackets."""
    return _CLOSE_TOKENS.sub("] ", _OPEN_TOKENS.sub(" [", text))


def parse_groups(text: str) -> Group | None:
    """The groups of a text below a root group; None where they are nested too deeply. Time is linear."""
    root = Group("", closed=True)
    stack: list[Group] = [root]
    keys: list[str | None] = [None]  # the key without a value so far, for each open group
    for token in _TOKEN.finditer(text):
        kind, written = token.lastgroup, token.group()
        group = stack[-1]
        if kind == "close":
            if len(stack) > 1:
                stack.pop().closed = True
                keys.pop()
            continue
        if kind == "comma":
            keys[-1] = None
            continue
        if kind == "colon":
            if group.items and not isinstance(group.items[-1][1], Group) and group.items[-1][0] is None:
                keys[-1] = _key(group.items.pop()[1])
            continue
        value: Value
        if kind == "open":
            if len(stack) > _MAX_DEPTH:
                return None
            value = Group(written)
        elif kind == "number" and len(written) <= 40 and math.isfinite(number := float(written)):
            value = number
        elif kind == "string":
            value = written[1:-1]
        else:
            value = Word(written)
        group.items.append((keys[-1], value))
        keys[-1] = None
        if isinstance(value, Group):
            stack.append(value)
            keys.append(None)
    return root


def _key(value: "Value") -> str:
    text = value.text if isinstance(value, Word) else str(value)
    return re.sub(r"[\W_]", "", text[:40]).lower()


def number_of(value: "Value") -> float | None:
    """The number of a value, which may be in quotes; None where it is no number."""
    if isinstance(value, float):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s{0,5}[-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?\s{0,5}", value):
        return float(value)
    return None


def spoils_numbers(word: str) -> bool:
    """Whether the numbers beside a bare word are no coordinates: a unit, a sign, a number with a suffix."""
    if word in COORDINATES:
        return False
    return (
        bool(re.search("[0-9%]", word))
        or not re.search(r"\w", word)
        or word in ("to", "percent", "px", "pixels", "cm", "mm")
    )


def is_parenthetical(group: Group) -> bool:
    """Whether a group is a remark in parentheses, with words or a single number, and no box."""
    values = [value for _, value in group.items]
    if group.bracket != "(" or any(isinstance(value, Group) for value in values):
        return False
    return len(values) == 1 or any(isinstance(value, Word) and not spoils_numbers(value.text) for value in values)


def is_unclosed(group: Group) -> bool:
    """Whether a bracket is still open at the end of the text."""
    last = group.items[-1][1] if group.items else None
    return isinstance(last, Group) and not last.closed
