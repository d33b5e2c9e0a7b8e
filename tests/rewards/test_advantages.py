"""From rewards to advantages: the parts add up to what the trainer uses, and small weights are not small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vrft.rewards import AGGREGATIONS, SCALINGS, advantage_parts

REWARDS = arrays(float, (12, 2), elements=st.sampled_from([0.0, 0.25, 1.0, np.nan]))
WAYS = [("sum_then_normalize", scaling) for scaling in SCALINGS] + [("normalize_then_sum", "group")]


@given(REWARDS, st.sampled_from(WAYS))
def test_advantages_of_a_group_sum_to_0_where_sums_are_normalised(rewards, way):
    aggregation, scaling = way
    parts = advantage_parts(rewards, np.array([1.0, -0.2]), 4, scale_rewards=scaling, aggregation=aggregation)
    assert np.isfinite(parts).all()
    assert np.allclose(parts.sum(axis=1).reshape(3, 4).sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize(("aggregation", "scaling"), WAYS)
def test_the_parts_add_up_to_the_advantages_of_the_formula(aggregation, scaling):
    rewards = np.random.default_rng(0).random((12, 3))
    weights = np.array([1.0, 0.5, -0.2])
    groups = rewards.reshape(3, 4, 3)
    if aggregation == "normalize_then_sum":
        each = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
        total = (each * weights).sum(2).ravel()
        wanted = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
    else:
        total = (groups * weights).sum(2)
        by = {"group": total.std(1, ddof=1, keepdims=True) + 1e-4, "batch": total.std(ddof=1) + 1e-4, "none": 1.0}
        wanted = ((total - total.mean(1, keepdims=True)) / by[scaling]).ravel()
    parts = advantage_parts(rewards, weights, 4, scale_rewards=scaling, aggregation=aggregation)
    assert np.allclose(parts.sum(axis=1), wanted, atol=1e-9)


@pytest.mark.parametrize("weight", [-0.01, -0.2, -1.0])
def test_where_all_answers_are_right_any_weight_of_recitation_decides_alone(weight):
    rewards = np.array([[1, 0.6], [1, 0.1], [1, 0.3], [1, 0.0]])
    grouped = advantage_parts(rewards, np.array([1.0, weight]), 4)
    plain = advantage_parts(rewards, np.array([1.0, weight]), 4, scale_rewards="none")
    assert np.abs(grouped[:, 0]).max() == 0
    assert np.abs(grouped[:, 1]).max() > 1
    assert np.abs(plain[:, 1]).max() == pytest.approx(0.35 * abs(weight))


def test_in_a_mixed_group_the_same_weight_hardly_counts():
    parts = advantage_parts(np.array([[1, 0.6], [0, 0.1], [1, 0.3], [0, 0.0]]), np.array([1.0, -0.01]), 4)
    assert np.abs(parts[:, 1]).sum() < 0.01 * np.abs(parts[:, 0]).sum()


def test_normalising_first_gives_a_weight_its_share_whatever_the_spread():
    rewards = np.array([[1, 0.06], [0, 0.01], [1, 0.00], [0, 0.04]])
    narrow = advantage_parts(rewards, np.array([1.0, -0.2]), 4, aggregation="normalize_then_sum")
    wide = advantage_parts(rewards * [1, 10], np.array([1.0, -0.2]), 4, aggregation="normalize_then_sum")
    assert np.allclose(narrow, wide, atol=0.02)


@pytest.mark.parametrize(("aggregation", "scaling"), WAYS)
def test_a_completion_that_no_reward_applies_to_has_no_advantage_and_changes_none(aggregation, scaling):
    rewards = np.array([[1.0], [np.nan], [0.0], [1.0], [0.0], [1.0], [0.0], [1.0]])
    parts = advantage_parts(rewards, np.ones(1), 4, scale_rewards=scaling, aggregation=aggregation)
    assert parts[1] == 0
    assert parts[[0, 2, 3], 0].sum() == pytest.approx(0, abs=1e-3)
    if (aggregation, scaling) == ("sum_then_normalize", "none"):
        assert parts[:4, 0] == pytest.approx([1 / 3, 0, -2 / 3, 1 / 3])
    assert not advantage_parts(np.full((4, 1), np.nan), np.ones(1), 4).any()


def test_unknown_names_are_errors():
    for wrong in ({"scale_rewards": "all"}, {"aggregation": "first"}):
        with pytest.raises(ValueError, match="expected one of"):
            advantage_parts(np.zeros((4, 1)), np.ones(1), 4, **wrong)
    assert len(AGGREGATIONS) == 2
