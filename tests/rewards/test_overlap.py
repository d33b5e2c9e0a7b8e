"""Rewards of boxes: what they pay, and what cannot be gained by playing."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vrft.boxes import iou
from vrft.rewards import OVERLAPS, f1_reward, iou_reward

SIZE = [100, 100]
GIVEN = {"frame": "pixel", "image_size": SIZE}
Box = tuple[int, int, int, int]


def written(boxes: object) -> str:
    return f"<think>x</think><answer>{json.dumps(boxes)}</answer>"


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(st.integers(0, 99)), draw(st.integers(0, 99))
    return x1, y1, draw(st.integers(x1 + 1, 100)), draw(st.integers(y1 + 1, 100))


LISTS = st.lists(boxes(), min_size=1, max_size=5)


@given(LISTS, LISTS, st.randoms(), st.sampled_from(sorted(OVERLAPS)))
def test_permuting_boxes_changes_nothing(read: list[Box], true: list[Box], random, measure: str):
    before = iou_reward([written(read)], [true], measure=measure, **GIVEN), f1_reward([written(read)], [true], **GIVEN)
    random.shuffle(read)
    random.shuffle(true)
    after = iou_reward([written(read)], [true], measure=measure, **GIVEN), f1_reward([written(read)], [true], **GIVEN)
    assert after[0] == pytest.approx(before[0])
    assert after[1] == pytest.approx(before[1])


@given(LISTS, LISTS, boxes())
def test_adding_a_wrong_box_never_helps(read: list[Box], true: list[Box], wrong: Box):
    assume(not iou([wrong], true).any())
    for reward in (iou_reward, f1_reward):
        assert reward([written([*read, wrong])], [true], **GIVEN)[0] <= reward([written(read)], [true], **GIVEN)[0]


JUNK = ["[]", "[1, 2, 3]", "[9, 9, 9, 9]", "[200, 200, 300, 300]", "[5%, 5%, 9%, 9%]"]


@given(LISTS, st.lists(st.sampled_from(JUNK)))
def test_boxes_that_are_none_never_help(true: list[Box], junk: list[str]):
    right = json.dumps(true)[1:-1]
    text = f"<answer>[{', '.join([right, *junk])}]</answer>"
    stated = sum(piece != "[]" for piece in junk)
    assert iou_reward([text], [true], **GIVEN)[0] == pytest.approx(len(true) / (len(true) + stated))


@given(LISTS)
def test_the_true_boxes_earn_everything_and_their_doubles_half(true: list[Box]):
    for reward in (iou_reward, f1_reward):
        assert reward([written(true)], [true], **GIVEN)[0] == pytest.approx(1)
    assert iou_reward([written(true * 2)], [true], **GIVEN)[0] == pytest.approx(0.5)


def test_matching_maximises_the_total():
    # Taking the best pair first (9/10) leaves 6/12 for the other; the best total is 8/9 + 8/12.
    true, read = [(0, 0, 10, 10), (0, 0, 8, 10)], [(0, 0, 9, 10), (2, 0, 12, 10)]
    assert iou_reward([written(read)], [true], **GIVEN)[0] == pytest.approx((8 / 9 + 8 / 12) / 2)


def test_too_few_boxes_cost_as_much_as_too_many():
    one, two = [(0, 0, 10, 10)], [(0, 0, 10, 10), (50, 50, 60, 60)]
    assert iou_reward([written(one)], [two], **GIVEN) == iou_reward([written(two)], [one], **GIVEN) == [0.5]


def test_nothing_to_find_is_earned_by_saying_so():
    texts = [
        written([]),
        "<answer>No findings.</answer>",
        written([[1, 1, 9, 9]]),
        "<answer></answer>",
        "<answer>?</answer>",
    ]
    assert iou_reward(texts, [], **GIVEN) == [1, 1, 0, 0, 0]
    assert f1_reward(texts, [], **GIVEN) == [1, 1, 0, 0, 0]
    assert iou_reward([written([])], [[(0, 0, 5, 5)]], **GIVEN) == [0]


@pytest.mark.parametrize("measure", ["giou", "diou"])
def test_generalised_overlaps_tell_near_from_far(measure: str):
    texts = [written([[x, 0, x + 10, 10]]) for x in (0, 20, 60)]
    near_to_far = iou_reward(texts, [(0, 0, 10, 10)], measure=measure, **GIVEN)
    assert near_to_far[0] == 1
    assert near_to_far[0] > near_to_far[1] > near_to_far[2] > 0
    assert iou_reward(texts, [(0, 0, 10, 10)], **GIVEN) == [1, 0, 0]


def test_an_overlap_below_the_threshold_earns_nothing():
    texts = [written([[0, 0, 10, 10]]), written([[0, 0, 10, 4]])]
    assert iou_reward(texts, [(0, 0, 10, 8)], threshold=0.6, **GIVEN) == [0.8, 0]
    assert iou_reward(texts, [(0, 0, 10, 8)], threshold=0.5, **GIVEN) == [0.8, 0.5]


def test_the_threshold_tightens_over_training():
    def paid(step: int) -> float | None:
        state = SimpleNamespace(global_step=step, max_steps=100)
        options = {"threshold": (0.2, 0.8), "trainer_state": state, **GIVEN}
        return iou_reward([written([[0, 0, 10, 5]])], [(0, 0, 10, 10)], **options)[0]

    assert [paid(0), paid(50), paid(51), paid(100)] == [0.5, 0.5, 0, 0]
    with pytest.raises(ValueError, match="needs progress"):
        iou_reward([written([])], [(0, 0, 1, 1)], threshold=(0.2, 0.8), **GIVEN)


def test_columns_may_hold_one_value_for_each_completion():
    texts = [written([[25, 25, 75, 75]]), written([[0.25, 0.25, 0.75, 0.75]]), "<answer>none</answer>"]
    columns = {"frame": ["pixel", "unit", "pixel"], "image_size": [SIZE, [200, 200], SIZE]}
    targets = [[[25, 25, 75, 75]], [[50, 50, 150, 150]], []]
    assert iou_reward(texts, targets, **columns) == [1, 1, 1]
    assert f1_reward(texts, targets, **columns, prompts=["", "", ""]) == [1, 1, 1]


def test_a_reward_without_frame_or_target_does_not_apply():
    assert iou_reward([written([])], [[]], image_size=SIZE) == [None]
    assert iou_reward([written([])], None, **GIVEN) == [None]
    assert f1_reward([written([])], None, **GIVEN) == [None]


@pytest.mark.parametrize(
    ("target", "columns", "message"),
    [
        ([[[1, 2, 3]]], GIVEN, "expected a list of boxes"),
        ([[[5, 5, 2, 2]]], GIVEN, "no area"),
        ([[[200, 200, 300, 300]]], GIVEN, "no area inside the image"),
        (["no"], GIVEN, "expected a list of boxes"),
        ([[[1, 2, 3, 4]]], {"frame": "pixel"}, "image_size"),
        ([[[1, 2, 3, 4]]], {"frame": "resized", "image_size": SIZE}, "processed_size"),
    ],
)
def test_a_wrong_truth_is_refused(target: object, columns: dict, message: str):
    with pytest.raises(ValueError, match=message):
        iou_reward([written([[1, 2, 3, 4]])], target, **columns)


def test_an_overlap_of_exactly_the_threshold_is_a_hit():
    assert f1_reward([written([[0, 0, 10, 5]])], [[[0, 0, 10, 10]]], **GIVEN) == [1.0]
    assert f1_reward([written([[0, 0, 10, 4]])], [[[0, 0, 10, 10]]], **GIVEN) == [0.0]
    assert iou_reward([written([[0, 0, 10, 5]])], [[[0, 0, 10, 10]]], threshold=0.5, **GIVEN) == [0.5]


def test_a_box_without_area_counts_as_stated_in_f1():
    read = written([[0, 0, 10, 10], [9, 9, 9, 9]])
    assert f1_reward([read], [[[0, 0, 10, 10]]], **GIVEN) == pytest.approx([2 / 3])
