"""EasyR1: ``worker.reward.reward_function`` is ``PATH_OF_THIS_FILE:compute_score``."""

from collections.abc import Mapping, Sequence
from typing import Any

from vrft.rewards.adapters.weighted import weighted_score

REWARD_NAME = "vrft"
REWARD_TYPE = "batch"


def compute_score(
    reward_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    weights: Mapping[str, float] | None = None,
    **defaults: Any,
) -> dict[str, float] | list[dict[str, float]]:
    """Score a batch (``reward_type=batch``) or one completion (``sequential``), as EasyR1's reward managers call it.

    Args:
        reward_inputs: each with ``response``, ``response_length`` and ``ground_truth``: the target, or a row written
            as JSON (``{"target": ..., "task": ..., "image_size": ...}``), since EasyR1 passes nothing else.
        weights: the weight of each reward, from ``worker.reward.reward_function_kwargs``.
        defaults: further keys of the row, such as ``task`` and ``prompt_end``, from the same place.

    Returns:
        For each input ``overall``, which is trained on, and every reward that applies.

    >>> compute_score({"response": "<answer>3</answer>", "response_length": 9, "ground_truth": "2"},
    ...               task={"kind": "grading", "levels": 5})
    {'overall': 0.25, 'format': 0.0, 'accuracy': 0.0, 'fuzzy': 0.25}
    """
    if isinstance(reward_inputs, Mapping):
        response, truth = reward_inputs["response"], reward_inputs["ground_truth"]
        total, rewards = weighted_score(response, truth, weights=weights, **defaults)
        return {"overall": total, **rewards}
    scores = [compute_score(reward_input, weights=weights, **defaults) for reward_input in reward_inputs]
    return [score for score in scores if isinstance(score, dict)]
