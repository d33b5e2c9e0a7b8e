"""Rewards: pure functions from completions to numbers, in the signature that TRL calls.

``reward(completions, **columns) -> list[float | None]``: a completion is a text or a list of chat messages; a column is
one value for all completions or a list with a value for each. None means that the reward does not apply to a sample,
0.0 that the policy failed. Nothing here imports torch, except a ``recite_model``, which sentence-transformers loads.
"""

from collections.abc import Callable

from vrft.rewards.accuracy import accuracy_reward
from vrft.rewards.advantages import AGGREGATIONS, SCALINGS, advantage_parts
from vrft.rewards.f1 import f1_reward
from vrft.rewards.format import format_reward
from vrft.rewards.fuzzy import FUZZY_SCHEDULES, fuzzy_reward
from vrft.rewards.overlap import OVERLAPS, iou_reward
from vrft.rewards.recitation import RECITATIONS, missing_for, recitation_reward

REWARDS: dict[str, Callable[..., list[float | None]]] = {
    "format": format_reward,
    "accuracy": accuracy_reward,
    "fuzzy": fuzzy_reward,
    "iou": iou_reward,
    "f1": f1_reward,
    "recitation": recitation_reward,
}
"""Every reward by its name in a recipe."""

APPLIES = {
    "format": ("classification", "grading", "localization", "vqa"),
    "accuracy": ("classification", "grading", "vqa"),
    "fuzzy": ("grading",),
    "iou": ("localization",),
    "f1": ("localization",),
    "recitation": ("classification", "grading", "localization", "vqa"),
}
"""The kinds of task that each reward applies to."""

__all__ = [
    "AGGREGATIONS",
    "APPLIES",
    "FUZZY_SCHEDULES",
    "OVERLAPS",
    "RECITATIONS",
    "REWARDS",
    "SCALINGS",
    "accuracy_reward",
    "advantage_parts",
    "f1_reward",
    "format_reward",
    "fuzzy_reward",
    "iou_reward",
    "missing_for",
    "recitation_reward",
]
