"""Reading boxes as models write them: JSON, Python literals, bare lists, box tokens, objects with one key or another.

The text is cut into tokens and nested groups, brackets of any kind alike; what is a box is decided on the groups.
Nothing is evaluated. Commas may be missing, the end may be cut off, and prose may stand around it.
"""

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from vrft.boxes import Size, clip, has_area, to_pixels
from vrft.response.words import LONGEST, Reading, normalise
from vrft.sample import Box

_KEYS = re.compile(
    r"(?:bbox|box|boundingbox|boundingboxes|bndbox|position|coordinate|coord|rect|rectangle|region|xyxy)(?:e?s)?(?:2d|xyxy)?"
)
"""Keys that hold a box, without underscores; where an object has one of them, its other keys hold none."""

_NO_BOX_KEYS = re.compile(
    r"(?:image|processed|original|img)?(?:size|shape|resolution|dimensions?)?|keypoints?(?:2d)?|points?2d|cent(?:er|re)"
    r"|colou?r|rgba?|\w*normali[sz]ed|(?:class)?(?:score|prob|probabilitie|probability|confidence|logit)s?"
)
"""Keys whose numbers are something else."""

_CORNERS = (
    *(("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax")),
    *(("left", "top", "right", "bottom"), ("minx", "miny", "maxx", "maxy")),
)
_SIDES = tuple(
    (x, y, *sides)
    for x, y in (("x", "y"), ("left", "top"), ("x1", "y1"), ("xmin", "ymin"))
    for sides in (("width", "height"), ("w", "h"))
)
_POINTS = (("topleft", "bottomright"), ("upperleft", "lowerright"), ("lefttop", "rightbottom"), ("start", "end"))

_COORDINATES = {name for names in (*_CORNERS, *_SIDES) for name in names}

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
_DEEPEST = 32

_SOME = (
    r"(?!(?:one )?(?:idea|doubt|answer|comment|way|clue|problem|longer|image|picture|access|data|information|yes)\b)"
)
_SOME += r"(?!(?:conclusion|diagnosis|decision|opinion|objection|reason|need|more|less|fewer|normal|clear)s?\b)"
_ABSENT = re.compile(
    r"(?:[a-z0-9 ]{1,40}[:=] ?|(?:the )?(?:final )?answer is |no[,.] ?(?=there|i ))?(?:an? )?(?:"
    r"(?:there(?: is|'s| are| was| were) |i (?:see|find|found|can see) )?"
    rf"(?:(?:no|zero|0|without|free of|not any) {_SOME}[a-z]+|none(?! of)|nothing(?! can| is certain))"
    r"|there (?:is|are|was|were)(?:n't| not) (?:any|an?) [a-z]+"
    r"|(?:the|this) [a-z]+ (?:(?:shows|contains|has|have) (?:no|none|nothing)\b|(?:is|are) free of)"
    r"|(?:the|this) [a-z]+ (?:does not|doesn't|do not|don't) (?:show|contain|have) (?:any|an?)\b"
    r"|(?:i )?(?:do not|don't|cannot|can't|could not|am unable to|unable to)"
    r" (?:see|find|detect|identify|locate) (?:any|an?)\b"
    r"|empty(?: list| array)?|n/a|na|null|nil|not applicable"
    r"|(?:(?!(?:the )?(?:image|picture|scan|photo)\b)[a-z ]{1,60} (?:(?:is|are|was|were) )?)?"
    r"(?:absent|not (?:found|present|visible|seen|detected))"
    r"|no ?objects?|(?:sin|ohne|pas d[e'’]) ?[^\W\d]+|なし|(?:keine?|aucune?|nessun[ao]?|ning[uú]n[ao]?)\b"
    r"|该?(?:图像?中?)?(?:没有|沒有|无|無|未见|未見|未发现)[^\d]{0,20}"
    r")\b[^0-9\[\]{}]{0,200}"
)
"""How an answer says that nothing is there."""

_CLAUSE = re.compile(r"[^,;.]{0,80}[,;.] ?(?=(?:no|without) )")
"""What may stand before it: "the lung is clear, no mass"."""

_TAKEN_BACK = re.compile(
    r"\b(?:but|except|only|however|although|other than|unsure|uncertain|possibl\w+|maybe|might|sure|certain|think"
    r"|because|or (?:an?|one|some|the)|missing|determined)\b|(?<!no )\bthere (?:is|are) (?!no\b|not\b|none\b)"
)
_DENIED = re.compile(
    r"\b(?:not|no|none|nothing|never|neither|nor|without|instead|cannot|absent|except|outside|unlikely|ignore|false"
    r"|(?:rather|other) than|maybe|perhaps|possibly|kein\w*)\b|n['’]t\b|没有|未见|不在"
)
"""What, in the sentence before a box, denies or doubts it."""

_DENIED_AFTER = re.compile(
    r"\W*(?:\?|(?:(?:is|are|was|were)\s+)?(?:(?:not|no)\s+(?:mass|lesion|sure|certain|correct|right|an?|the|there)\b"
    r"|wrong|incorrect|unlikely|absent|normal\b|empty\b|clear\b)|(?:contains?|shows?|has|have|holds?)\s+(?:no|nothing)\b"
    r"|(?:does|do)\s+not\b|no\b\W*(?:\Z|wrong)|or not\b|.{0,40}\bbut\b.{0,40}\b(?:no|not|nothing)\b)"
)
"""What does so right behind it."""

_NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:objects?|findings?|lesions?|mass(?:es)?|box(?:es)?|targets?)\b[\w ]*\W*"
)


@dataclass(slots=True)
class _Group:
    """What stands inside one pair of brackets: values, each with the key before its colon."""

    bracket: str
    items: list[tuple[str | None, "_Value"]] = field(default_factory=list)
    closed: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    """A bare word, or a number with something attached to it."""

    text: str


_Value = _Group | _Word | str | float
_Claim = tuple[float, float, float, float] | None
"""What an answer states as a box: four numbers, or None where they are no four numbers."""


def read_boxes(
    answer: str | None,
    frame: str,
    image_size: Size,
    processed_size: Size | None = None,
    *,
    cut: bool = False,
) -> Reading:
    """Read the boxes of an answer, in pixels of the original image, clipped to it.

    A stated absence ("No objects", ``[]``) is read as no boxes. A box without area or outside the image is not among
    the boxes of the reading, but counts as stated.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        frame: the coordinates that the policy speaks, one of ``vrft.boxes.FRAMES``; x first.
        image_size: width and height of the original image.
        processed_size: width and height of what the processor made of it, for the frame ``resized``.
        cut: whether the answer ends where the completion does, so that an open list of numbers may lack digits.

    >>> read_boxes('```json\\n[{"bbox_2d": [250, 250, 750, 750]}]\\n```', "thousand", (640, 480)).answer
    ((160.0, 120.0, 480.0, 360.0),)
    >>> read_boxes("No objects.", "pixel", (640, 480)).answer
    ()
    >>> read_boxes("[300, 320, 100, 120]", "pixel", (640, 480))
    Reading(answer=None, problems=('degenerate_box',), stated=1)
    """
    if not answer:
        return Reading(None)
    if _says_absent(answer):
        return Reading(())
    problems: dict[str, None] = {}
    claims, absent = _claims(answer, cut, problems)
    if not claims:
        return Reading(()) if absent else Reading(None, ("unreadable_box", *problems))
    if "negated" in problems:
        return Reading(None, tuple(problems), len(claims))
    boxes: list[Box] = []
    for claim in claims:
        if claim is None:
            problems["unreadable_box"] = None
            continue
        box = to_pixels(claim, frame, image_size, processed_size)
        clipped = clip(box, image_size)
        if not has_area(box):
            problems["degenerate_box"] = None
        elif not has_area(clipped):
            problems["outside_image"] = None
        else:
            if clipped != box:
                problems["clipped"] = None
            boxes.append(clipped)
    if len(set(boxes)) < len(boxes):
        problems["duplicate_boxes"] = None
    numbers = [abs(number) for claim in claims if claim is not None for number in claim]
    if numbers and (max(numbers) > 2 if frame == "unit" else max(numbers) <= 1):
        problems["wrong_frame?"] = None
    return Reading(tuple(boxes) if boxes else None, tuple(problems), len(claims))


def _says_absent(answer: str) -> bool:
    if len(answer) > 400:
        return False
    folded = normalise(answer).strip("(). ").removeprefix("# ")
    folded = folded if _ABSENT.fullmatch(folded) else _CLAUSE.sub("", folded, count=1)
    return _ABSENT.fullmatch(folded) is not None and not _TAKEN_BACK.search(folded)


# --- from text to groups --------------------------------------------------------------------------------------------


def _claims(answer: str, cut: bool, problems: dict[str, None]) -> tuple[list[_Claim], bool]:
    """What the answer states as boxes, and whether it states that there are none."""
    text = answer if answer.isascii() else answer.translate(_FULL_WIDTH)
    if cut:
        text = _HALF_TOKEN.sub("", text)
    text = _NUMBER_TOKENS.sub(r" \1 ", _CLOSE_TOKENS.sub("] ", _OPEN_TOKENS.sub(" [", _NAMED.sub(" ", text))))
    text = _FENCES.sub(" ", re.sub(r"\\(?=[\[\](){}])|\\boxed\s{0,3}\{\s{0,3}\}", " ", text))
    root = _tree(text)
    if root is None:  # nested beyond anything that a model means
        return [], False
    if len(root.items) == 1 and isinstance(inner := root.items[0][1], str) and re.search("[0-9]", inner):
        text, root = inner, _tree(inner) or root  # the whole answer is a quoted text
    groups = [value for _, value in root.items if isinstance(value, _Group) and not _is_remark(value)]
    prose = _prose(root)
    if prose:
        problems["prose_around_answer"] = None
    if _is_denied(root):
        problems["negated"] = None
    if _open_end(root):
        problems["truncated"] = None
    claims: list[_Claim]
    if not groups:
        claims = list(_bare(text, root, cut))
    elif all(map(_is_point, groups)):  # (x1, y1), (x2, y2)
        lost = not groups[-1].closed and cut
        claims = [] if lost else [_corners_of(groups)] if len(groups) == 2 else [None]
    else:
        claims = [claim for group in groups for claim in _boxes_in(group, cut)]
        if prose and any(claims):  # "in the image of size [640, 640]"
            claims = [claim for claim in claims if claim is not None]
    unsaid = not any(isinstance(value, (_Word, str)) for _, value in root.items) or _says_absent(prose)
    absent = not claims and bool(groups) and all(map(_is_void, groups)) and unsaid
    return claims, absent


def _tree(text: str) -> _Group | None:
    """The groups of a text below one root; None where they are nested too deeply. Time is linear in the length."""
    root = _Group("", closed=True)
    stack: list[_Group] = [root]
    keys: list[str | None] = [None]  # of each open group, the key that waits for its value
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
            if group.items and not isinstance(group.items[-1][1], _Group) and group.items[-1][0] is None:
                keys[-1] = _key(group.items.pop()[1])
            continue
        value: _Value
        if kind == "open":
            if len(stack) > _DEEPEST:
                return None
            value = _Group(written)
        elif kind == "number" and len(written) <= 40 and math.isfinite(number := float(written)):
            value = number
        elif kind == "string":
            value = written[1:-1]
        else:
            value = _Word(written)
        group.items.append((keys[-1], value))
        keys[-1] = None
        if isinstance(value, _Group):
            stack.append(value)
            keys.append(None)
    return root


def _key(value: "_Value") -> str:
    text = value.text if isinstance(value, _Word) else str(value)
    return re.sub(r"[\W_]", "", text[:40]).lower()


# --- from groups to boxes -------------------------------------------------------------------------------------------


def _boxes_in(group: _Group, cut: bool) -> Iterator[_Claim]:
    """The claims of a group and of the groups inside it."""
    corners = _from_coordinates(group) or _from_points(group)
    if corners is not None:
        if group.closed or not cut:  # the last number of an open group may lack digits
            yield corners
        return
    plain = [value for key, value in group.items if key is None]
    points = [value for value in plain if isinstance(value, _Group)]
    if points and len(points) == len(group.items) and all(map(_is_point, points)):
        if points[-1].closed or not cut:
            yield _corners_of(points) if len(points) == 2 else None
        return
    numbers = [number for value in plain if (number := _number(value)) is not None]
    odd = any(isinstance(value, _Word) and _is_odd(value.text) for value in plain)
    if not any(isinstance(value, _Group) for _, value in group.items) and (numbers or odd):
        if len(numbers) == 4 and not odd:
            if group.closed or not cut:
                yield numbers[0], numbers[1], numbers[2], numbers[3]
        elif group.closed:
            yield None
        return
    stated: dict[_Claim, str] = {}  # under the keys of one object; the same box under a second key is no second box
    for key, value in sorted(group.items, key=lambda item: not (item[0] and _KEYS.fullmatch(item[0]))):
        if key is None:
            yield from _boxes_of(value, cut)
            continue
        known = _KEYS.fullmatch(key)
        if known or not _NO_BOX_KEYS.fullmatch(key):  # of an unusual key only what holds four numbers
            for claim in _boxes_of(value, cut):
                if (known or claim is not None) and stated.get(claim, key) == key:
                    yield claim
                    stated[claim] = key


def _boxes_of(value: "_Value", cut: bool) -> Iterator[_Claim]:
    """The claims of one value: those of a group, or of a list that is written as a text."""
    if isinstance(value, str) and re.search(r"[0-9]\s{0,5}[,;\s]\s{0,5}[-+]?[0-9]", value):
        inner = _tree(_CLOSE_TOKENS.sub("] ", _OPEN_TOKENS.sub(" [", value)))
        if inner is not None and not _prose(inner):
            yield from _boxes_in(inner, False)
    elif isinstance(value, _Group) and not _is_remark(value):
        yield from _boxes_in(value, cut)


def _is_odd(word: str) -> bool:
    """Whether a bare word spoils the numbers beside it: a unit, a sign, a number with something attached."""
    if word in _COORDINATES:
        return False
    return (
        bool(re.search("[0-9%]", word))
        or not re.search(r"\w", word)
        or word in ("to", "percent", "px", "pixels", "cm", "mm")
    )


def _from_points(group: _Group) -> _Claim:
    """Two corners with a key each: ``{"top_left": [10, 20], "bottom_right": [30, 40]}``."""
    keyed = {key.removesuffix("corner"): value for key, value in group.items if key and isinstance(value, _Group)}
    for names in _POINTS:
        first, second = (keyed.get(name) for name in names)
        if first is not None and second is not None:
            numbers = [_number(value) for point in (first, second) for _, value in point.items]
            if len(numbers) == 4 and None not in numbers:
                return tuple(numbers)  # type: ignore[return-value]
    return None


def _from_coordinates(group: _Group) -> _Claim:
    """Four numbers with a key each: two corners, or a corner and the sides."""
    keyed = {key: number for key, value in group.items if key and (number := _number(value)) is not None}
    if len(keyed) < 4:
        return None
    for a, b, c, d in _CORNERS:
        if a in keyed and b in keyed and c in keyed and d in keyed:
            return keyed[a], keyed[b], keyed[c], keyed[d]
    for a, b, c, d in _SIDES:
        if a in keyed and b in keyed and c in keyed and d in keyed:
            return keyed[a], keyed[b], keyed[a] + keyed[c], keyed[b] + keyed[d]
    return None


_FOUR = r"(?:\s{0,5}[,;]\s{0,5}|\s{1,5})".join([r"([-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?(?:e[-+]?[0-9]{1,2})?)"] * 4)
_BARE_LINE = re.compile(rf"([^\d\[\](){{}}+.-]{{0,80}}?)\s{{0,20}}{_FOUR}\s{{0,20}}[.,]?")


def _bare(text: str, root: _Group, cut: bool) -> Iterator[_Claim]:
    """Boxes without brackets: four numbers on a line, or four coordinates with their names."""
    corners = _from_coordinates(root)
    if corners is not None and not cut:
        yield corners
        return
    lines = [stripped for line in re.split(r"\n|;(?=\s*\S)", text) if (stripped := line.strip(" \t\r[]()"))]
    if lines and re.fullmatch(r"x1\W+y1\W+x2\W+y2", lines[0], re.IGNORECASE):
        lines = lines[1:]
    matches = [_BARE_LINE.fullmatch(line) if len(line) <= 200 else None for line in lines]
    if lines and not cut and all(matches):
        for match in matches:
            if match:
                yield float(match[2]), float(match[3]), float(match[4]), float(match[5])


def _number(value: "_Value") -> float | None:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s{0,5}[-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?\s{0,5}", value):
        return float(value)
    return None


def _is_point(group: _Group) -> bool:
    return len(group.items) == 2 and all(key is None and _number(value) is not None for key, value in group.items)


def _corners_of(points: list[_Group]) -> _Claim:
    (a, b), (c, d) = ([_number(value) for _, value in point.items] for point in points)
    assert a is not None and b is not None and c is not None and d is not None  # noqa: PT018
    return a, b, c, d


def _is_remark(group: _Group) -> bool:
    """Words or one number in parentheses are prose."""
    values = [value for _, value in group.items]
    if group.bracket != "(" or any(isinstance(value, _Group) for value in values):
        return False
    return len(values) == 1 or any(isinstance(value, _Word) and not _is_odd(value.text) for value in values)


def _is_void(value: "_Value") -> bool:
    """Nothing, an empty group, a stated absence, or a group whose keys for boxes (or some key) hold that."""
    if not isinstance(value, _Group):
        text = value.text if isinstance(value, _Word) else str(value)
        return text.lower() in ("", "null", "none") or (isinstance(value, str) and _says_absent(text))
    named = [inner for key, inner in value.items if key and _KEYS.fullmatch(key)]
    if named:
        return value.closed and all(map(_is_void, named))
    inner = [one for key, one in value.items if key or isinstance(one, _Group) or len(value.items) == 1]
    return value.closed and (not value.items or any(map(_is_void, inner)))


def _open_end(group: _Group) -> bool:
    """Whether a bracket is still open at the end of the text."""
    last = group.items[-1][1] if group.items else None
    return isinstance(last, _Group) and not last.closed


def _is_denied(root: _Group) -> bool:
    """Whether the words before a box in its sentence, or right behind it, deny it, or a sentence says there is none."""
    sentence: deque[str] = deque(maxlen=40)
    nothing = False
    boxes = 0
    for position, (key, value) in enumerate(root.items):
        if key and not _KEYS.fullmatch(key):
            sentence.append(key)
        if isinstance(value, _Group) and not _is_remark(value):
            boxes += 1
            behind: list[str] = []
            for word in _words(root.items[position + 1 : position + 12]):
                behind.append(word.lower())
                if word.endswith((".", "!", "?")):
                    break
            if nothing or _DENIED.search(" ".join(sentence).lower()) or _DENIED_AFTER.match(" ".join(behind)):
                return True
        for word in _words([(None, value)]):
            sentence.append(word)
            if word.endswith((".", "!", "?")):
                nothing = nothing or _NOTHING.fullmatch(" ".join(sentence).lower()) is not None
                sentence.clear()
    return not boxes and bool(_DENIED.search(" ".join(sentence).lower()))


def _words(items: list[tuple[str | None, "_Value"]]) -> list[str]:
    """The words of values outside brackets and of remarks."""
    words: list[str] = []
    for _, value in items:
        if isinstance(value, (_Word, str)):
            words.append(value.text if isinstance(value, _Word) else value)
        elif isinstance(value, _Group) and _is_remark(value):
            words += [inner.text if isinstance(inner, _Word) else str(inner) for _, inner in value.items]
    return words


def _prose(root: _Group) -> str:
    """The words outside all brackets, keys for boxes and coordinates excepted."""
    words: list[str] = []
    for key, value in root.items:
        if key and key not in _COORDINATES and not _KEYS.fullmatch(key):
            words.append(key)
        words += _words([(None, value)])
    return " ".join(word for word in words if re.search(r"[^\W\d]", word))[:LONGEST].lower()
