"""verl: ``custom_reward_function.path`` is this file, ``.name`` is ``compute_score`` or ``compute_score_batch``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vrft.rewards.adapters.weighted import WEIGHTS, weighted_score


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    **defaults: Any,
) -> dict[str, float]:
    """Score one completion, as verl's reward managers call it.

    Args:
        data_source: the name of the data set, not used.
        solution_str: the text of the policy.
        ground_truth: the target, or a row written as JSON.
        extra_info: further keys of the row, such as ``task``, ``image_size`` and, for thinking models, ``prompt_end``.
        weights: the weight of each reward, from ``custom_reward_function.reward_kwargs``.
        defaults: further keys of the row, from the same place; other options of verl are ignored.

    Returns:
        ``score``, which is trained on, and each weighted reward for the log: NaN where it does not apply, since verl
        expects the same keys for every sample.

    >>> extra = {"task": {"kind": "classification", "labels": ["benign", "malignant"]}}
    >>> compute_score("lesions", "<think>x</think><answer>benign</answer>", "benign", extra)
    {'score': 1.5, 'accuracy': 1.0, 'format': 1.0, 'fuzzy': nan, 'iou': nan}
    """
    total, rewards = weighted_score(solution_str, ground_truth, extra_info, weights=weights, **defaults)
    names = dict.fromkeys(name for kind in WEIGHTS.values() for name in kind) if weights is None else weights
    return {"score": total, **{name: rewards.get(name, math.nan) for name in names}}


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    **options: Any,
) -> list[dict[str, float]]:
    """Score a batch, as verl's ``batch`` reward manager calls it; the options are those of ``compute_score``."""
    rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    return [compute_score(*row, **options) for row in rows]
