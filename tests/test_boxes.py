"""Box geometry: frames there and back, overlaps, and the processor's own sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.boxes import FRAMES, clip, diou, from_pixels, giou, has_area, iou, smart_resize, to_pixels

SIDES = st.integers(28, 4000)
BOXES = st.tuples(*[st.floats(0, 1)] * 4)


@st.composite
def boxes_in(draw: st.DrawFn, width: int = 100, height: int = 100) -> tuple[float, float, float, float]:
    """A box that has an area, with whole numbers."""
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))


@given(st.sampled_from(FRAMES), SIDES, SIDES, BOXES)
def test_frames_round_trip_to_within_a_pixel(frame: str, width: int, height: int, shares: tuple):
    box = (shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
    try:
        processed = smart_resize((width, height))
    except ValueError:  # too long an image for any processor
        return
    there = from_pixels(box, frame, (width, height), processed)
    assert to_pixels(there, frame, (width, height), processed) == pytest.approx(box, abs=1e-6)
    if frame != "unit":  # a policy writes whole numbers
        step = 1.0 if frame == "pixel" else max(width, height) / (1000 if frame == "thousand" else min(processed))
        rounded = to_pixels(tuple(map(round, there)), frame, (width, height), processed)
        assert rounded == pytest.approx(box, abs=max(1.0, step / 2 + 1e-6))


def test_the_corners_of_the_image_are_the_corners_of_every_frame():
    ends = {"pixel": (640, 480), "resized": (644, 476), "thousand": (1000, 1000), "unit": (1, 1)}
    for frame, (width, height) in ends.items():
        assert to_pixels((0, 0, width, height), frame, (640, 480), (644, 476)) == (0, 0, 640, 480)


def test_an_unknown_frame_and_a_missing_size_are_refused():
    with pytest.raises(ValueError, match="expected one of pixel, resized, thousand, unit"):
        to_pixels((0, 0, 1, 1), "percent", (10, 10))
    with pytest.raises(ValueError, match="processed_size"):
        to_pixels((0, 0, 1, 1), "resized", (10, 10))


@given(boxes_in(), boxes_in())
def test_overlaps_are_symmetric_bounded_and_1_only_for_the_same_box(a: tuple, b: tuple):
    for measure, low in ((iou, 0), (giou, -1), (diou, -1)):
        (value,) = measure([a], [b])[0]
        assert low <= value <= 1
        assert value == pytest.approx(measure([b], [a])[0, 0])
        assert (value == 1) == (a == b)
    assert giou([a], [b])[0, 0] <= iou([a], [b])[0, 0] + 1e-12
    assert diou([a], [b])[0, 0] <= iou([a], [b])[0, 0] + 1e-12


@given(boxes_in())
def test_a_clipped_box_lies_inside_and_stays_where_it_was_inside(box: tuple):
    assert clip(box, (100, 100)) == box
    inside = clip(tuple(2 * number - 50 for number in box), (100, 100))
    assert all(0 <= number <= 100 for number in inside)


def test_a_box_without_area_has_none():
    assert not has_area((10, 10, 10, 20))
    assert not has_area((20, 10, 10, 20))
    assert not has_area((0, 0, 1e-200, 1e-200))


@given(SIDES, SIDES, st.sampled_from([28, 32]), st.sampled_from([28 * 28 * 16, 28 * 28 * 1280, 28 * 28 * 16384]))
def test_smart_resize_agrees_with_the_processor(width: int, height: int, multiple: int, max_pixels: int):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs

    options = {"min_pixels": 56 * 56, "max_pixels": max_pixels}
    high, wide = theirs(height, width, factor=multiple, **options)
    assert smart_resize((width, height), multiple=multiple, **options) == (wide, high)


def test_an_image_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="200 times"):
        smart_resize((28, 5700))


def test_an_image_of_200_to_1_is_resized_as_any_other():
    width, height = smart_resize((28, 5600))
    assert width % 28 == height % 28 == 0
