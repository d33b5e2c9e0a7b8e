"""Rewards under the contract that TRL calls: texts and messages, single values and columns, None and 0."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.rewards import FUZZY_SCHEDULES, REWARDS, accuracy_reward, format_reward, fuzzy_reward


def written(answer: object) -> str:
    return f"<think>x</think><answer>{answer}</answer>"


def messages(text: str) -> list[dict]:
    return [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": [{"type": "text", "text": text}]}]


def test_messages_earn_what_their_text_earns():
    texts = [written("benign"), "benign", written("malignant")]
    for reward, columns in (
        (format_reward, {}),
        (accuracy_reward, {"target": "benign", "labels": ["benign", "malignant"]}),
    ):
        assert reward([messages(text) for text in texts], **columns) == reward(texts, **columns)


def test_the_prompt_in_a_message_list_earns_nothing():
    conversation = [{"role": "user", "content": written("benign")}, {"role": "assistant", "content": "benign"}]
    assert format_reward([conversation]) == [0.0]


def test_columns_may_hold_one_value_for_each_completion():
    texts = [written("a"), written("d"), written(2)]
    columns = {"target": ["a", "c", 2], "labels": [["a", "b"], ["c", "d"], None], "levels": [None, None, 5]}
    assert accuracy_reward(texts, **columns, prompts=["", "", ""], trainer_state=None) == [1.0, 0.0, 1.0]


def test_a_reward_that_does_not_apply_is_none():
    assert accuracy_reward(["x"], ["a"]) == [None]
    assert fuzzy_reward(["x"], ["a"]) == [None]


def test_columns_may_lack_a_value_for_some_samples():
    texts = [written("y"), written(1)]
    labels = {"labels": [None, ["a"]], "synonyms": [None, {"a": ["y"], "b": None}]}
    assert accuracy_reward(texts[::-1], [1, "a"], **labels, levels=[5, None], names=[None, None]) == [1.0, 1.0]
    assert fuzzy_reward([written(1)] * 2, [1, None], levels=5, names=[None, None]) == [1.0, None]


def test_a_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 values for 3 completions"):
        accuracy_reward(["x"] * 3, ["a", "b"], labels=["a", "b"])


@pytest.mark.parametrize("schedule", FUZZY_SCHEDULES)
def test_a_nearer_grade_never_earns_less(schedule: str):
    paid = fuzzy_reward([written(grade) for grade in range(5)], 0, levels=5, schedule=schedule)
    assert paid == sorted(paid, reverse=True)
    assert paid[0] == 1.0


@pytest.mark.parametrize(
    ("schedule", "rewards"),
    [("table", [1.0, 0.25, 0.1, 0.0, 0.0]), ("geometric", [1.0, 0.25, 0.0625, 0.015625, 0.00390625])],
)
def test_a_grade_earns_by_its_distance(schedule: str, rewards: list[float]):
    assert fuzzy_reward([written(grade) for grade in range(5)], 0, levels=5, schedule=schedule) == rewards


TASKS = {
    "classification": {"target": "b", "labels": ["a", "b"]},
    "grading": {"target": 2, "levels": 5},
    "localization": {"target": [[1, 2, 3, 4]], "frame": "pixel", "image_size": [10, 10]},
    "yes_no": {"target": "no", "answers": "yes_no"},
    "choice": {"target": "B", "answers": "choice", "choices": {"A": "a b", "B": "b"}},
    "open": {"target": ["left lung", "the left lung"], "answers": "open"},
}
PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "a",
    "b",
    "2",
    "[1, 2, 3, 4]",
    "no",
    ".",
    " ",
    "\n",
    "II",
    "\ud800",
]
ANY = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@given(ANY, st.sampled_from(sorted(TASKS)))
def test_every_reward_is_none_or_finite_and_in_its_range(text: str, kind: str):
    columns = TASKS[kind] | {"target": [TASKS[kind]["target"]]}
    for wrapped in (text, f"<answer>{text}</answer>"):
        for name, reward in REWARDS.items():
            (paid,) = reward([wrapped], **columns)
            assert paid is None or (math.isfinite(paid) and 0 <= paid <= 1), name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner),
    max_leaves=8,
)


@given(JSON)
def test_no_completion_of_any_shape_makes_a_reward_fail(completion: object):
    (paid,) = format_reward([completion])  # type: ignore[list-item]
    assert paid in (0.0, 1.0)


def test_answers_to_questions_are_paid():
    assert accuracy_reward([written("No, there is no mass."), written("yes or no")], "no", answers="yes_no") == [
        1.0,
        0.0,
    ]
    choices = {"A": "benign", "B": "malignant"}
    assert accuracy_reward([written("B."), written("B. benign")], "B", choices=choices) == [1.0, 0.0]
    opened = [written("Left-Lung."), written("right lung")]
    assert accuracy_reward(opened, [["left lung", "left"], ["left lung"]], answers="open") == [1.0, 0.0]


def test_whole_grades_as_tables_write_them_are_grades():
    written_2 = [written("2")] * 3
    assert accuracy_reward(written_2, [2.0, float("nan"), 1.0], levels=5.0) == [1.0, None, 0.0]
    assert fuzzy_reward([written("PI-RADS 3")], 2.0, names=[f"PI-RADS {n}" for n in range(1, 6)]) == [1.0]


@pytest.mark.parametrize(
    ("target", "columns", "message"),
    [
        ("c", {"labels": ["a", "b"]}, "none of the labels"),
        (7, {"levels": 5}, "no grade from 0 to 4"),
        (True, {"levels": 5}, "no grade"),
        ("maybe", {"answers": "yes_no"}, "neither 'yes' nor 'no'"),
        ("D", {"choices": {"A": "a", "B": "b"}}, "none of the choices"),
    ],
)
def test_a_target_that_no_answer_could_match_is_refused(target: object, columns: dict, message: str):
    with pytest.raises(ValueError, match=message):
        accuracy_reward([written("a")], [target], **columns)


def test_the_format_reward_knows_three_orders():
    texts = [written("a"), "<answer>a</answer><think>x</think>", "<answer>a</answer>"]
    for index, order in enumerate(["think-answer", "answer-think", "no-think"]):
        assert format_reward(texts, order=order) == [float(place == index) for place in range(3)]


@pytest.mark.parametrize(
    "module", ["vrft.rewards", "vrft.recipe", "vrft.data", "vrft.tasks", "vrft.runs", "vrft.cli.main"]
)
def test_the_lower_floors_work_without_torch(module: str):
    heavy = "{'torch', 'transformers', 'medmnist', 'datasets'} & set(sys.modules)"
    check = f"import sys, {module}; assert not {heavy}, {heavy}"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# --- thinking models: the chat template opens <think> ---------------------------------------------------------------

THINKING = ["A round mass.</think><answer>2</answer>", "<think>A round mass.</think><answer>2</answer>"]


def test_the_end_of_the_prompt_is_one_text_or_one_a_completion():
    assert format_reward(THINKING) == [0.0, 1.0]
    assert format_reward(THINKING, prompt_end="<think>\n") == [1.0, 0.0]
    assert format_reward(THINKING, prompt_end=["<think>\n", ""]) == [1.0, 1.0]
    assert format_reward(THINKING, prompt_end=["<think>\n", None]) == [1.0, 1.0]  # a column in which some are missing
    with pytest.raises(ValueError, match="holds 1 values for 2 completions"):
        format_reward(THINKING, prompt_end=["<think>\n"])
    with pytest.raises(ValueError, match="prompt_end is 5; expected a text"):
        format_reward(THINKING, prompt_end=[5, 5])


def test_every_reward_that_reads_knows_the_end_of_the_prompt():
    completion = ["I may say <answer>1</answer>, a round mass.</think><answer>2</answer>"]
    options = {"target": [2], "levels": 5, "knowledge": "a round mass"}
    boxes = ["No <answer>[]</answer>?</think><answer>[1, 2, 3, 4]</answer>"]
    framed = {"target": [[[1, 2, 3, 4]]], "frame": "pixel", "image_size": [10, 10]}
    for name in ("accuracy", "fuzzy", "recitation", "iou", "f1"):
        texts, columns = (boxes, framed) if name in ("iou", "f1") else (completion, options)
        (without,), (paid,) = REWARDS[name](texts, **columns), REWARDS[name](texts, prompt_end="<think>\n", **columns)
        assert without == 0.0 < paid
