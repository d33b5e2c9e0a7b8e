"""Advantages as TRL's trainer computes them, split into the contribution of each reward.

Source: GRPO (arXiv 2402.03300) divides by the deviation in the group; GDPO (arXiv 2601.05242) normalises each reward
before the sum. They are computed once more here because the sum does not show which reward moves the policy.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCALINGS = ("group", "batch", "none")
"""The divisor of a centred sum of rewards: its standard deviation in the group, in the step, or none."""

AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")
"""Whether rewards are weighted and added first, or each is normalised in its group first."""

EPSILON = 1e-4
"""TRL adds it to a standard deviation before it divides."""

ZERO_ADVANTAGE = 1e-6
"""An advantage of at most this size is rounding error."""


def advantage_parts(
    rewards: Floats,
    weights: Floats,
    group_size: int,
    *,
    scale_rewards: str = "group",
    aggregation: str = "sum_then_normalize",
) -> Floats:
    """The contribution of each reward to each advantage; the sum over the rewards is the advantage.

    Args:
        rewards: (n, k), n completions by k rewards, the groups one after another; NaN where a reward does not apply.
        weights: (k,), the weight of each reward.
        group_size: completions in a group; divides n, 2 or more.
        scale_rewards: one of ``SCALINGS``; used by ``sum_then_normalize``.
        aggregation: one of ``AGGREGATIONS``.

    Returns:
        (n, k); a reward that does not apply adds 0. A completion to which no reward applies is left out of its group.

    Raises:
        ValueError: the scaling or the aggregation is unknown.

    All answers are right, and one of four recites. Under group scaling a weight of -0.01 moves the policy nearly as
    much as one of -1:

    >>> rewards = np.array([[1.0, 0.8], [1, 0], [1, 0], [1, 0]])
    >>> [advantage_parts(rewards, np.array([1.0, w]), 4)[0].round(2).tolist() for w in (-1, -0.01)]
    [[0.0, -1.5], [0.0, -1.46]]
    """
    if scale_rewards not in SCALINGS or aggregation not in AGGREGATIONS:
        raise ValueError(f"expected one of {SCALINGS} and one of {AGGREGATIONS}")
    scored = np.logical_or.reduce(~np.isnan(rewards), axis=1)  # some reward applies
    if not scored.any():
        return np.zeros_like(rewards)
    shape = (-1, group_size, weights.size)
    if aggregation == "normalize_then_sum":
        groups = rewards.reshape(shape)
        parts = np.nan_to_num(_centred(groups) / (_deviation(groups) + EPSILON) * weights).reshape(rewards.shape)
        total = np.where(scored, parts.sum(axis=1), np.nan)
        parts = (parts - parts[scored].mean(axis=0)) / (_deviation(total[None])[0] + EPSILON)
    else:
        weighted = np.where(scored[:, None], np.nan_to_num(rewards) * weights, np.nan).reshape(shape)
        parts, total = _centred(weighted), weighted.sum(axis=2, keepdims=True)
        if scale_rewards == "group":
            parts = parts / (_deviation(total) + EPSILON)
        elif scale_rewards == "batch":
            parts = parts / (_deviation(total.reshape(1, -1, 1)) + EPSILON)
        parts = parts.reshape(rewards.shape)
    return np.where(scored[:, None], np.nan_to_num(parts), 0.0)


def _centred(groups: Floats) -> Floats:
    """(g, G, ...) minus the mean of each group, without NaN."""
    count = np.maximum(np.isfinite(groups).sum(axis=1, keepdims=True), 1)
    return groups - np.nansum(groups, axis=1, keepdims=True) / count


def _deviation(groups: Floats) -> Floats:
    """(g, 1, ...), the sample standard deviation (n - 1) of each group, without NaN."""
    count = np.isfinite(groups).sum(axis=1, keepdims=True)
    return np.sqrt(np.nansum(_centred(groups) ** 2, axis=1, keepdims=True) / np.maximum(count - 1, 1))
