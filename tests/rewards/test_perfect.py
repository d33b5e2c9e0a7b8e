"""A right answer, written as a completion, earns everything."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vrft.response import ORDERS
from vrft.rewards.perfect import attainable, perfect, unpaid
from vrft.sample import Sample, Target
from vrft.tasks import Classification, Grading, Localization

SIZE = (4000, 3000)


def sample_of(target: Target) -> Sample:
    return Sample("a", lambda: Image.new("RGB", SIZE), "What?", target, "train")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "task",
    [
        Classification(("No Finding", "normal, benign", "T2/FLAIR", "4A", "<5%", "a", "肺炎")),
        Grading(5),
        Grading(5, ("none", "mild", "moderate", "severe", "proliferative")),
        Grading(3, ("PI-RADS 1", "PI-RADS 2", "PI-RADS 3")),
        Grading(5, ("I", "II", "IIF", "III", "IV")),
        Grading(4, ("<5%", "5-33%", "34-66%", ">66%")),
        Grading(4, ("-", "+", "++", "+++")),
    ],
    ids=str,
)
def test_every_target_is_read_back(task: Classification | Grading, order: str):
    task = type(task)(**{**vars(task), "order": order})
    assert list(unpaid(task, [sample_of(target) for target in task.classes])) == []


def test_names_that_hold_numerals_are_written_as_they_are():
    task = Grading(3, ("PI-RADS 1", "PI-RADS 2", "PI-RADS 3"))
    assert perfect(task, sample_of(0)) == "<think>x</think><answer>PI-RADS 1</answer>"
    assert "PI-RADS 1\nPI-RADS 2\nPI-RADS 3\n" in task.prompt("What?")
    assert "from 0" not in task.prompt("What?")


def test_a_target_that_is_read_as_another_is_told():
    (fault,) = unpaid(Classification(("A", "a")), [sample_of("a"), sample_of("a")])
    assert "written as '<think>x</think><answer>a</answer>', is not read back" in str(fault)


@given(st.tuples(*[st.floats(0, 0.999)] * 2, *[st.floats(1e-4, 1)] * 2), st.sampled_from(["pixel", "thousand", "unit"]))
def test_boxes_of_any_size_are_read_back(drawn: tuple[float, float, float, float], frame: str):
    x, y, width, height = drawn
    box = (x * SIZE[0], y * SIZE[1], min(1, x + width) * SIZE[0], min(1, y + height) * SIZE[1])
    if box[2] - box[0] < 0.01 or box[3] - box[1] < 0.01:
        return
    assert list(unpaid(Localization(frame), [sample_of((box,))])) == []


def test_what_rounding_costs_is_told():
    small, large = sample_of(((10.0, 10.0, 13.0, 13.0),)), sample_of(((0.0, 0.0, 2000.0, 1500.0),))
    assert attainable(Localization("thousand"), [large]) == 1
    assert 0 < attainable(Localization("thousand"), [small]) < 0.9
    assert attainable(Localization("thousand"), []) == 1


def test_the_size_is_read_from_the_head_of_a_file(tmp_path: Path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", "Where?", ((1.0, 2.0, 3.0, 4.0),), "train")
    assert perfect(Localization("thousand"), sample, (20, 10)).endswith('[{"bbox_2d":[50,200,150,400]}]</answer>')
    assert list(unpaid(Localization("thousand"), [sample])) == []
