"""Reading boxes as models write them: JSON, Python literals, bare lists, box tokens, objects with various keys.

The text is parsed into nested groups (``groups.py``); this module decides which of them are boxes. Prose may stand
around them (``prose.py``) unless it denies them.
"""

import re
from collections.abc import Iterator

from vrft.boxes import Size, clip, has_area, to_pixels
from vrft.response.groups import (
    BOX_KEYS,
    COORDINATES,
    CORNERS,
    OTHER_KEYS,
    SIDES,
    Group,
    Value,
    Word,
    brackets_for_tokens,
    is_parenthetical,
    is_unclosed,
    number_of,
    parse_groups,
    spoils_numbers,
    without_markup,
)
from vrft.response.prose import is_denied, prose_of, says_absent
from vrft.response.words import Reading
from vrft.sample import Box

_POINTS = (("topleft", "bottomright"), ("upperleft", "lowerright"), ("lefttop", "rightbottom"), ("start", "end"))

_Candidate = tuple[float, float, float, float] | None
"""A box that an answer states: four numbers, or None where it has other than four numbers."""


def read_boxes(
    answer: str | None,
    frame: str,
    image_size: Size,
    processed_size: Size | None = None,
    *,
    cut: bool = False,
) -> Reading:
    """Read the boxes of an answer, in pixels of the original image, clipped to it.

    A stated absence ("No objects", ``[]``) is read as an empty tuple. A box without area or outside the image is left
    out of ``answer``, but counts in ``stated``.

    Args:
        answer: the text inside the answer tags; None where there is none.
        frame: the coordinates that the policy writes, one of ``vrft.boxes.FRAMES``; x first.
        image_size: width and height of the original image.
        processed_size: width and height after the processor's resize, for the frame ``resized``.
        cut: whether the answer runs to the end of the completion, so that its last number may lack digits.

    >>> read_boxes('```json\\n[{"bbox_2d": [250, 250, 750, 750]}]\\n```', "thousand", (640, 480)).answer
    ((160.0, 120.0, 480.0, 360.0),)
    >>> read_boxes("No objects.", "pixel", (640, 480)).answer
    ()
    >>> read_boxes("[300, 320, 100, 120]", "pixel", (640, 480))
    Reading(answer=None, problems=('degenerate_box',), stated=1)
    """
    if not answer:
        return Reading(None)
    if says_absent(answer):
        return Reading(())
    problems: dict[str, None] = {}
    candidates, absent = _candidates(answer, cut, problems)
    if not candidates:
        return Reading(()) if absent else Reading(None, ("unreadable_box", *problems))
    if "negated" in problems:
        return Reading(None, tuple(problems), len(candidates))
    boxes: list[Box] = []
    for candidate in candidates:
        if candidate is None:
            problems["unreadable_box"] = None
            continue
        box = to_pixels(candidate, frame, image_size, processed_size)
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
    numbers = [abs(number) for candidate in candidates if candidate is not None for number in candidate]
    if numbers and (max(numbers) > 2 if frame == "unit" else max(numbers) <= 1):
        problems["wrong_frame?"] = None
    return Reading(tuple(boxes) if boxes else None, tuple(problems), len(candidates))


def _candidates(answer: str, cut: bool, problems: dict[str, None]) -> tuple[list[_Candidate], bool]:
    """The boxes that the answer states, and whether it states absence."""
    text = without_markup(answer, cut=cut)
    root = parse_groups(text)
    if root is None:  # nested too deeply
        return [], False
    if len(root.items) == 1 and isinstance(inner := root.items[0][1], str) and re.search("[0-9]", inner):
        text, root = inner, parse_groups(inner) or root  # the whole answer is a quoted text
    groups = [value for _, value in root.items if isinstance(value, Group) and not is_parenthetical(value)]
    prose = prose_of(root)
    if prose:
        problems["prose_around_answer"] = None
    if is_denied(root):
        problems["negated"] = None
    if is_unclosed(root):
        problems["truncated"] = None
    candidates: list[_Candidate]
    if not groups:
        candidates = list(_bare(text, root, cut))
    elif all(map(_is_point, groups)):  # (x1, y1), (x2, y2)
        incomplete = not groups[-1].closed and cut
        candidates = [] if incomplete else [_corners_of(groups)] if len(groups) == 2 else [None]
    else:
        candidates = [candidate for group in groups for candidate in _boxes_in(group, cut)]
        if prose and any(candidates):  # "in the image of size [640, 640]"
            candidates = [candidate for candidate in candidates if candidate is not None]
    no_other_words = not any(isinstance(value, (Word, str)) for _, value in root.items) or says_absent(prose)
    absent = not candidates and bool(groups) and all(map(_is_empty, groups)) and no_other_words
    return candidates, absent


def _boxes_in(group: Group, cut: bool) -> Iterator[_Candidate]:
    """The boxes stated in a group and in the groups inside it."""
    if len(rows := _rows_of(group)) > 1:
        for row in rows:
            yield from _boxes_in(row, cut)
        return
    corners = _from_coordinates(group) or _from_points(group)
    if corners is not None:
        if group.closed or not cut:  # the last number of an open group may lack digits
            yield corners
        return
    plain = [value for key, value in group.items if key is None]
    points = [value for value in plain if isinstance(value, Group)]
    if points and len(points) == len(group.items) and all(map(_is_point, points)):
        if points[-1].closed or not cut:
            yield _corners_of(points) if len(points) == 2 else None
        return
    numbers = [number for value in plain if (number := number_of(value)) is not None]
    spoilt = any(isinstance(value, Word) and spoils_numbers(value.text) for value in plain)
    if not any(isinstance(value, Group) for _, value in group.items) and (numbers or spoilt):
        if len(numbers) == 4 and not spoilt:
            if group.closed or not cut:
                yield numbers[0], numbers[1], numbers[2], numbers[3]
        elif group.closed:
            yield None
        return
    stated: dict[_Candidate, str] = {}  # box -> key; the same box under a second key of an object is not counted again
    for key, value in sorted(group.items, key=lambda item: not (item[0] and BOX_KEYS.fullmatch(item[0]))):
        if key is None:
            yield from _boxes_of(value, cut)
            continue
        known = BOX_KEYS.fullmatch(key)
        if known or not OTHER_KEYS.fullmatch(key):  # of an unknown key only a list of four numbers
            for candidate in _boxes_of(value, cut):
                if (known or candidate is not None) and stated.get(candidate, key) == key:
                    yield candidate
                    stated[candidate] = key


def _boxes_of(value: "Value", cut: bool) -> Iterator[_Candidate]:
    """The boxes stated in a value: a group, or a list in quotes."""
    if isinstance(value, str) and re.search(r"[0-9]\s{0,5}[,;\s]\s{0,5}[-+]?[0-9]", value):
        inner = parse_groups(brackets_for_tokens(value))
        if inner is not None and not prose_of(inner):
            yield from _boxes_in(inner, False)
    elif isinstance(value, Group) and not is_parenthetical(value):
        yield from _boxes_in(value, cut)


def _from_points(group: Group) -> _Candidate:
    """Two corners with a key each: ``{"top_left": [10, 20], "bottom_right": [30, 40]}``."""
    keyed = {key.removesuffix("corner"): value for key, value in group.items if key and isinstance(value, Group)}
    for names in _POINTS:
        first, second = (keyed.get(name) for name in names)
        if first is not None and second is not None:
            numbers = [number_of(value) for point in (first, second) for _, value in point.items]
            if len(numbers) == 4 and None not in numbers:
                return tuple(numbers)  # type: ignore[return-value]
    return None


def _rows_of(group: Group) -> list[Group]:
    """Split a group before each repeated coordinate: ``x1=1, y1=2, x2=3, y2=4; x1=5, ...`` are two boxes."""
    if sum(key in COORDINATES for key, _ in group.items) < 5:
        return [group]
    rows, seen = [Group(group.bracket, [], True)], set[str]()
    for key, value in group.items:
        if key in COORDINATES and key in seen:
            rows.append(Group(group.bracket, [], True))
            seen.clear()
        if key in COORDINATES:
            seen.add(str(key))
        rows[-1].items.append((key, value))
    rows[-1].closed = group.closed
    return rows


def _from_coordinates(group: Group) -> _Candidate:
    """Four numbers with a key each: two corners, or a corner and the sides."""
    keyed = {key: number for key, value in group.items if key and (number := number_of(value)) is not None}
    if len(keyed) < 4:
        return None
    for names in (*CORNERS, *SIDES):
        if all(name in keyed for name in names):
            x, y, a, b = (keyed[name] for name in names)
            return (x, y, a, b) if names in CORNERS else (x, y, x + a, y + b)
    return None


_FOUR = r"(?:\s{0,5}[,;]\s{0,5}|\s{1,5})".join([r"([-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?(?:e[-+]?[0-9]{1,2})?)"] * 4)
_BARE_LINE = re.compile(rf"([^\d\[\](){{}}+.-]{{0,80}}?)\s{{0,20}}{_FOUR}\s{{0,20}}[.,]?")


def _bare(text: str, root: Group, cut: bool) -> Iterator[_Candidate]:
    """Boxes without brackets: four numbers on a line, or four coordinates with their names."""
    rows = [_from_coordinates(row) for row in _rows_of(root)]
    if any(rows) and not cut:
        yield from rows
        return
    lines = [stripped for line in re.split(r"\n|;(?=\s*\S)", text) if (stripped := line.strip(" \t\r[]()"))]
    if lines and re.fullmatch(r"x1\W+y1\W+x2\W+y2", lines[0], re.IGNORECASE):
        lines = lines[1:]
    matches = [_BARE_LINE.fullmatch(line) if len(line) <= 200 else None for line in lines]
    if lines and not cut and all(matches):
        for match in matches:
            if match:
                yield float(match[2]), float(match[3]), float(match[4]), float(match[5])


def _is_point(group: Group) -> bool:
    return len(group.items) == 2 and all(key is None and number_of(value) is not None for key, value in group.items)


def _corners_of(points: list[Group]) -> _Candidate:
    (a, b), (c, d) = ([number_of(value) for _, value in point.items] for point in points)
    assert a is not None and b is not None and c is not None and d is not None  # noqa: PT018
    return a, b, c, d


def _is_empty(value: "Value") -> bool:
    """Whether a value is an absence: empty, null, a statement, or a group whose box keys (or any key) hold such."""
    if not isinstance(value, Group):
        text = value.text if isinstance(value, Word) else str(value)
        return text.lower() in ("", "null", "none") or (isinstance(value, str) and says_absent(text))
    named = [inner for key, inner in value.items if key and BOX_KEYS.fullmatch(key)]
    if named:
        return value.closed and all(map(_is_empty, named))
    inner = [item for key, item in value.items if key or isinstance(item, Group) or len(value.items) == 1]
    return value.closed and (not value.items or any(map(_is_empty, inner)))
