"""The weighted sum of the rewards, for trainers that call a single scoring function with a ground truth."""

import json
from collections.abc import Mapping
from typing import Any

from vrft.rewards import APPLIES
from vrft.rewards.scoring import ROW_KEYS, RowScorer

WEIGHTS = {
    "classification": {"accuracy": 1.0, "format": 0.5},
    "grading": {"fuzzy": 1.0, "format": 0.5},
    "localization": {"iou": 1.0, "format": 0.5},
    "vqa": {"accuracy": 1.0, "format": 0.5},
}
"""The default weights, by the kind of task."""


def weighted_score(
    completion: str,
    ground_truth: Any,
    extra: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    **defaults: Any,
) -> tuple[float, dict[str, float]]:
    """Return the weighted sum of the rewards of one completion, and the rewards.

    Args:
        completion: the text of the policy.
        ground_truth: the target; or a row without ``completion`` (``{"target": ..., "task": ..., ...}``); either may
            be written as JSON, since some trainers keep texts only.
        extra: more keys of the row, such as ``task``, ``image_size`` and ``prompt_end``; None and NumPy arrays
            are accepted, since parquet files yield them.
        weights: the weight of each reward; by default those of ``WEIGHTS``.
        defaults: keys of a row that the other arguments leave out.

    Returns:
        The weighted sum, and the rewards that apply, by name.

    Raises:
        ValueError: the ground truth is not valid, or no weighted reward applies to the task.

    >>> weighted_score("<think>x</think><answer>Stage II</answer>", "2", {"task": {"kind": "grading", "levels": 5}})
    (1.5, {'format': 1.0, 'accuracy': 1.0, 'fuzzy': 1.0})
    """
    scorer = _scorer(defaults)
    truth = _plain(ground_truth)
    row = {**_plain(extra or {}), **(_row_in(truth) or {"target": truth})}
    if isinstance(task := row.get("task"), str) and task.lstrip().startswith("{"):
        row["task"] = json.loads(task)
    if isinstance(row["target"], str) and scorer.kind_of(row) == "localization":
        row["target"] = _from_json(row["target"])
    scores = scorer.score({**row, "completion": completion})
    rewards = {name: scores[name] for name in APPLIES if name in scores}
    used = WEIGHTS[scorer.kind_of(row)] if weights is None else weights
    if not any(name in rewards for name in used):
        raise ValueError(f"none of the weights {', '.join(used)} applies; this task has {', '.join(rewards)}")
    return sum(weight * rewards.get(name, 0.0) for name, weight in used.items()), rewards


_scorers: dict[str, RowScorer] = {}


def _scorer(defaults: Mapping[str, Any]) -> RowScorer:
    """The scorer for a set of defaults, which caches tasks; other options of a trainer are ignored."""
    known = {key: defaults[key] for key in ROW_KEYS if key in defaults}
    key = repr(known)
    if key not in _scorers:
        _scorers[key] = RowScorer(_plain(known))
    return _scorers[key]


def _row_in(truth: Any) -> dict[str, Any] | None:
    """The row in a ground truth, which may be JSON; None where the ground truth is a bare target."""
    if isinstance(truth, str) and truth.lstrip().startswith("{"):
        truth = _from_json(truth)
    return truth if isinstance(truth, dict) and "target" in truth else None


def _from_json(text: str) -> Any:
    """The value of a text in JSON; the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    """Arrays as lists, without the None that parquet writes where a mapping lacks a key."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
