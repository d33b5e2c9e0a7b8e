"""From rewards to advantages, as TRL's trainer computes them: what each reward adds to the advantage of a completion.

Source: GRPO (arXiv 2402.03300) divides by the deviation in the group; GDPO (arXiv 2601.05242) normalises each reward
before the sum. It is computed once more here because a sum does not tell which reward moves the policy.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCALINGS = ("group", "batch", "none")
"""What a centred sum of rewards is divided by: its deviation in the group, in the step, or nothing."""

AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")
"""Whether rewards are weighed and added first, or each is normalised in its group first."""

SMALLEST = 1e-4
"""Added to a deviation before it divides, by TRL."""


def advantage_parts(
    rewards: Floats,
    weights: Floats,
    group_size: int,
    *,
    scale_rewards: str = "group",
    aggregation: str = "sum_then_normalize",
) -> Floats:
    """What each reward adds to each advantage; the sum over the rewards is the advantage.

    Args:
        rewards: (n, k), n completions by k rewards, the groups one after another; NaN where a reward does not apply.
        weights: (k,).
        group_size: completions in a group; divides n, 2 or more.
        scale_rewards: one of ``SCALINGS``; of ``sum_then_normalize``.
        aggregation: one of ``AGGREGATIONS``.

    Returns:
        (n, k); a reward that does not apply adds 0.

    All answers are right, and one of four recites. Under group scaling a weight of -0.01 moves the policy nearly as
    much as one of -1:

    >>> rewards = np.array([[1.0, 0.8], [1, 0], [1, 0], [1, 0]])
    >>> [advantage_parts(rewards, np.array([1.0, w]), 4)[0].round(2).tolist() for w in (-1, -0.01)]
    [[0.0, -1.5], [0.0, -1.46]]
    """
    if scale_rewards not in SCALINGS or aggregation not in AGGREGATIONS:
        raise ValueError(f"expected one of {SCALINGS} and one of {AGGREGATIONS}")
    groups = rewards.reshape(-1, group_size, weights.size)
    if aggregation == "sum_then_normalize":
        parts = _centred(np.nan_to_num(groups) * weights)
        total = parts.sum(axis=2, keepdims=True)
        if scale_rewards == "group":
            parts = parts / (total.std(axis=1, ddof=1, keepdims=True) + SMALLEST)
        elif scale_rewards == "batch":
            sums = np.nansum(groups * weights, axis=2)
            parts = parts / (sums.std(ddof=1) + SMALLEST)
        return parts.reshape(rewards.shape)
    applies = np.isfinite(groups)
    count = np.maximum(applies.sum(axis=1, keepdims=True), 1)
    centred = np.where(applies, groups - np.nansum(groups, axis=1, keepdims=True) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    parts = (centred / (deviation + SMALLEST) * weights).reshape(rewards.shape)
    return (parts - parts.mean(axis=0)) / (parts.sum(axis=1).std(ddof=1) + SMALLEST)


def _centred(groups: Floats) -> Floats:
    return groups - groups.mean(axis=1, keepdims=True)
