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


@given(st.text(), st.sampled_from(sorted(REWARDS)))
def test_every_reward_is_finite_and_in_its_range(text: str, name: str):
    (paid,) = REWARDS[name]([text], target=2, levels=5)
    assert paid is not None
    assert math.isfinite(paid)
    assert 0 <= paid <= 1


@pytest.mark.parametrize(
    "module", ["vrft.rewards", "vrft.recipe", "vrft.data", "vrft.tasks", "vrft.runs", "vrft.cli.main"]
)
def test_the_lower_floors_work_without_torch(module: str):
    heavy = "{'torch', 'transformers', 'medmnist', 'datasets'} & set(sys.modules)"
    check = f"import sys, {module}; assert not {heavy}, {heavy}"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
