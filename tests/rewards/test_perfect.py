"""A right answer, written as a completion, earns everything."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vrft.response import ORDERS
from vrft.rewards import perfect as module
from vrft.rewards.columns import prompt_ends
from vrft.rewards.perfect import perfect, read_back
from vrft.sample import Grey, ImageFile, Sample, Target, size_of
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
    assert read_back(task, [sample_of(target) for target in task.classes]).unpaid == []


def test_names_that_hold_numerals_are_written_as_they_are():
    task = Grading(3, ("PI-RADS 1", "PI-RADS 2", "PI-RADS 3"))
    assert perfect(task, sample_of(0)) == "<think>x</think><answer>PI-RADS 1</answer>"
    assert "PI-RADS 1\nPI-RADS 2\nPI-RADS 3\n" in task.prompt("What?")
    assert "from 0" not in task.prompt("What?")


def test_a_target_that_is_read_as_another_is_reported():
    (fault,) = read_back(Classification(("A", "a")), [sample_of("a"), sample_of("a")]).unpaid
    assert "written as '<think>x</think><answer>a</answer>', is not read back" in str(fault)


@given(st.tuples(*[st.floats(0, 0.999)] * 2, *[st.floats(1e-4, 1)] * 2), st.sampled_from(["pixel", "thousand", "unit"]))
def test_boxes_of_any_size_are_read_back(drawn: tuple[float, float, float, float], frame: str):
    x, y, width, height = drawn
    box = (x * SIZE[0], y * SIZE[1], min(1, x + width) * SIZE[0], min(1, y + height) * SIZE[1])
    if box[2] - box[0] < 0.01 or box[3] - box[1] < 0.01:
        return
    assert read_back(Localization(frame), [sample_of((box,))]).unpaid == []


def test_the_loss_from_rounding_is_reported():
    small, large = sample_of(((10.0, 10.0, 13.0, 13.0),)), sample_of(((0.0, 0.0, 2000.0, 1500.0),))
    task = Localization("thousand")
    assert read_back(task, [large]).share == read_back(task, []).share == 1
    assert 0 < (least := read_back(task, [small]).share) < 0.9
    assert read_back(task, [small, small, small, large]).share == pytest.approx((3 * least + 1) / 4)


def test_equal_targets_are_written_once(monkeypatch):
    written = []
    monkeypatch.setattr(module, "perfect", lambda *given: written.append(given) or perfect(*given))
    boxes = sample_of(((0.0, 0.0, 2000.0, 1500.0),))
    assert read_back(Localization("thousand"), [boxes, boxes, sample_of(())]).unpaid == []
    assert len(written) == 2


def test_the_size_is_read_from_the_head_of_a_file(tmp_path: Path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", "Where?", ((1.0, 2.0, 3.0, 4.0),), "train")
    assert perfect(Localization("thousand"), sample, (20, 10)).endswith('[{"bbox_2d":[50,200,150,400]}]</answer>')
    assert read_back(Localization("thousand"), [sample]).unpaid == []
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20])  # of which nothing but the head is read
    cut = replace(sample, image=ImageFile(tmp_path / "a.png", (5, 0, 20, 10)))
    assert [size_of(one.images[0]) for one in (sample, cut, replace(sample, image=Grey(cut.images[0])))] == [
        (20, 10),
        (15, 10),
        (15, 10),
    ]


def test_the_end_of_a_prompt_may_be_missing_in_a_table():
    assert prompt_ends(float("nan"), 2) == prompt_ends(None, 2) == ["", ""]
    assert prompt_ends(["<think>", float("nan"), None], 3) == ["<think>", "", ""]
    with pytest.raises(ValueError, match="prompt_end is 3"):
        prompt_ends([3], 1)
