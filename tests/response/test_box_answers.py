"""Boxes as models write them."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.response import read_boxes

ONE = ((10, 20, 30, 40),)
TWO = ((10, 20, 30, 40), (50, 60, 70, 80))
SIZE = (100, 100)

PIECES = st.lists(
    st.one_of(
        st.sampled_from(["10", "20", "30.5", "-4", "1e9", "bbox_2d", "x1", "no objects", "None", "[10, 20, 30, 40]"]),
        st.sampled_from(["[", "]", "{", "}", "(", ")", ",", ":", '"', "'", "\\", "%", " ", "\n", "，", "\ud800"]),
        st.sampled_from(["```json", "<|box_start|>", "<|box_end|>", "<ref>"]),
    ),
    max_size=20,
).map("".join)

ABSENT = """No Objects|none.|[]|```json\n[]\n```|{}|{"boxes": []}|[{"bbox_2d": null, "label": "none"}]|No objects: []
There are no polyps in the image.|No abnormality detected.|nothing|N/A|The lesion is not visible."""

ADVERSARIAL = {
    "brackets": "[" * 200_000,
    "pairs": "[]{}" * 100_000,
    "escapes": '"\\' * 200_000,
    "quotes": "'" * 400_000,
    "spaced quotes": " '" * 200_000,
    "open quotes": ",'a" * 130_000,
    "apostrophes": "a'" * 200_000,
    "digits": "1" * 400_000,
    "floats": "1.1e1" * 80_000,
    "numbers": "1," * 200_000,
    "boxes": "[1,2,3,4]," * 40_000,
    "points": "(1,2)," * 60_000,
    "keys": "x1=1 " * 80_000,
    "colons": ":" * 400_000,
    "prose": "mass: [1, 2, 30, 40]\n" * 20_000,
    "many keys": "{" + ",".join(f'"k{n}": [{n % 90},2,{n % 90 + 5},4]' for n in range(20_000)) + "}",
    "tokens": "<ref>" * 80_000,
    "words": "no " * 130_000,
    "lines": ("1 " * 95 + "\n" + " " * 180 + "\n") * 1000,
}


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ('[{"bbox_2d": [10, 20, 30, 40], "label": "mass"}]', ONE),
        ('{"bbox": [10, 20, 30, 40]}', ONE),
        ('{"BoundingBox": [10, 20, 30, 40]}', ONE),
        ('{"boxes": [[10, 20, 30, 40], [50, 60, 70, 80]]}', TWO),
        ('{"left lung": [10, 20, 30, 40], "right lung": [50, 60, 70, 80]}', TWO),
        ('{"objects": [{"name": "mass", "coordinates": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}]}', ONE),
        ('{"bbox": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}}', ONE),
        ('{"x": 10, "y": 20, "width": 20, "height": 20}', ONE),
        ('{"bbox_2d": "10, 20, 30, 40"}', ONE),
        ('{"bbox_2d": ["10", "20", "30", "40"]}', ONE),
        ('{"bbox_2d": [[10, 20], [30, 40]]}', ONE),
        ('{"bbox_2d": [10, 20, 30, 40], "image_size": [100, 100, 3, 8], "point_2d": [1, 2]}', ONE),
        ("[{'bbox_2d': (10, 20, 30, 40), 'label': 'the patient's lung'}]", ONE),
        ('{"bbox_2d": [10, 20, 30, 40]}\n{"bbox_2d": [50, 60, 70, 80]}', TWO),
        ('[{"bbox_2d": [10, 20, 30, 40]} {"bbox_2d": [50, 60, 70, 80]}]', TWO),
        ('[{"bbox_2d": [10, 20, 30, 40]},]', ONE),
        ('```json\n[{"bbox_2d": [10, 20, 30, 40]}]\n```', ONE),
        ('json\n[{"bbox_2d": [10, 20, 30, 40]}]', ONE),
        ("10, 20, 30, 40", ONE),
        ("[10 20 30 40]", ONE),
        ("[１０，２０，３０，４０]", ONE),
        ("(10, 20), (30, 40)", ONE),
        ("x1=10, y1=20, x2=30, y2=40", ONE),
        ("<box>[[10, 20, 30, 40]]</box>", ONE),
        ("<ref>mass</ref><box>(10,20),(30,40)</box>", ONE),
        ("<|ref|>mass<|/ref|><|det|>[[10, 20, 30, 40], [50, 60, 70, 80]]<|/det|>", TWO),
        ('"[10, 20, 30, 40]"', ONE),
    ],
)
def test_a_box_is_read_however_it_is_written(answer: str, boxes: tuple):
    assert (read_boxes(answer, "pixel", SIZE).answer, read_boxes(answer, "pixel", SIZE).problems) == (boxes, ())


@pytest.mark.parametrize(
    ("answer", "boxes", "problem"),
    [
        ("The patient's mass (3 cm) is at [10, 20, 30, 40].", ONE, "prose_around_answer"),
        ("from (10, 20) to (30, 40)", ONE, "prose_around_answer"),
        ('[{"bbox_2d": [10, 20, 30, 40]}, {"bbox_2d": [50, 60', ONE, "truncated"),
        ("[[10, 20, 30, 40], [10, 20, 30, 40]]", ONE * 2, "duplicate_boxes"),
        ("[[10, 20, 30, 40], [30, 40, 10, 20]]", ONE, "degenerate_box"),
        ("[[10, 20, 30, 40], [1, 2, 3]]", ONE, "unreadable_box"),
        ("[[10, 20, 30, 40], [200, 200, 300, 300]]", ONE, "outside_image"),
        ("[0.1, 0.2, 0.3, 0.4]", ((0.1, 0.2, 0.3, 0.4),), "wrong_frame?"),
        ("There is no mass at [10, 20, 30, 40].", None, "negated"),
        ("It isn't at [10, 20, 30, 40].", None, "negated"),
        ("[10, 20, 30, 40, 50, 60, 70, 80]", None, "unreadable_box"),
        ("[10-20, 30-40]", None, "unreadable_box"),
        ("[10px, 20px, 30px, 40px]", None, "unreadable_box"),
        ("[NaN, 20, 30, 40]", None, "unreadable_box"),
        ("[10, 20, 30, 1e999]", None, "unreadable_box"),
        ('[{"label": "mass"}]', None, "unreadable_box"),
        ("__import__('os').getcwd()", None, "unreadable_box"),
        ("normal", None, "unreadable_box"),
    ],
)
def test_irregular_boxes_have_a_problem_code(answer: str, boxes: tuple | None, problem: str):
    reading = read_boxes(answer, "pixel", SIZE)
    assert reading.answer == boxes
    assert problem in reading.problems


def test_a_box_that_is_none_counts_as_stated():
    assert read_boxes("[[10, 20, 30, 40], [30, 40, 10, 20], [1, 2, 3]]", "pixel", SIZE).stated == 3


@pytest.mark.parametrize("answer", re.split(r"\||\n(?=There)", ABSENT))
def test_a_stated_absence_is_read_as_no_boxes(answer: str):
    assert read_boxes(answer, "pixel", SIZE).answer == ()


@pytest.mark.parametrize("answer", ["No idea", "normal", "[", '[{"label": "mass"}]', "nothing but [1, 2]", "?", "..."])
def test_what_states_no_absence_is_none(answer: str):
    assert read_boxes(answer, "pixel", SIZE, cut=True).answer is None


@pytest.mark.parametrize(
    "answer", ["[10, 20, 30, 4", "10, 20, 30, 4", '{"x1": 10, "y1": 20, "x2": 30, "y2": 4', "(1,2),(3,4"]
)
def test_a_number_at_the_cut_end_of_a_completion_is_not_trusted(answer: str):
    assert read_boxes(answer, "pixel", SIZE, cut=True).answer is None
    assert read_boxes(answer, "pixel", SIZE, cut=True).stated == 0


def test_frames_are_converted_to_pixels_of_the_original_image():
    for frame, answer in (
        ("thousand", "[100, 200, 300, 400]"),
        ("unit", "[0.1, 0.2, 0.3, 0.4]"),
        ("resized", "[20, 80, 60, 160]"),
    ):
        (box,) = read_boxes(answer, frame, SIZE, (200, 400)).answer
        assert box == pytest.approx((10, 20, 30, 40))


@given(st.one_of(PIECES, st.text()), st.booleans())
def test_no_text_makes_the_reading_fail(answer: str, cut: bool):
    reading = read_boxes(answer, "pixel", SIZE, cut=cut)
    boxes = reading.answer or ()
    assert reading.stated >= len(boxes)
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= 100
        assert 0 <= y1 < y2 <= 100


@given(
    st.lists(st.tuples(*[st.integers(0, 99)] * 2, *[st.integers(1, 100)] * 2), min_size=1, max_size=5), st.booleans()
)
def test_json_and_python_literals_are_read_alike(boxes: list[tuple[int, int, int, int]], tight: bool):
    items = [{"bbox_2d": list(box), "label": "mass"} for box in boxes]
    written = json.dumps(items, separators=(",", ":") if tight else None)
    assert read_boxes(written, "pixel", SIZE) == read_boxes(repr(items), "pixel", SIZE)
    valid = tuple(box for box in boxes if box[0] < box[2] and box[1] < box[3])
    assert (read_boxes(written, "pixel", SIZE).answer or ()) == valid


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_time_is_linear_in_the_length_of_an_answer(kind: str, is_linear: Callable[..., bool]):
    assert is_linear(lambda text: read_boxes(text, "pixel", SIZE), ADVERSARIAL[kind])


@pytest.mark.parametrize(
    "answer",
    [
        "[[10, 20, 30, 40; 50, 60, 70, 80]]",
        "[10 20 30 40\n 50 60 70 80]",
        "x1=10, y1=20, x2=30, y2=40; x1=50, y1=60, x2=70, y2=80",
        "x1: 10, y1: 20, x2: 30, y2: 40\nx1: 50, y1: 60, x2: 70, y2: 80",
    ],
)
def test_every_row_of_several_boxes_counts(answer: str):
    assert read_boxes(answer, "pixel", (100, 100)).answer == ((10, 20, 30, 40), (50, 60, 70, 80))
