"""One number of several rewards, for trainers that call a single scoring function with a ground truth."""

import json
from collections.abc import Mapping
from typing import Any

from vrft.rewards import APPLIES
from vrft.rewards.scoring import RowScorer

WEIGHTS = {
    "classification": {"accuracy": 1.0, "format": 0.5},
    "grading": {"fuzzy": 1.0, "format": 0.5},
    "localization": {"iou": 1.0, "format": 0.5},
    "vqa": {"accuracy": 1.0, "format": 0.5},
}
"""What is paid for what, by the kind of task, where no weights are given."""

_ROW_KEYS = ("target", "task", "image_size", "processed_size", "schedule", "order")


def weighted_score(
    completion: str,
    ground_truth: Any,
    extra: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    **defaults: Any,
) -> tuple[float, dict[str, float]]:
    """Score one completion.

    Args:
        completion: the text of the policy.
        ground_truth: the target; or a row without ``completion`` (``{"target": ..., "task": ..., ...}``); either may
            be written as JSON, since some trainers keep texts only.
        extra: more keys of the row, such as ``task`` and ``image_size``; None and NumPy arrays are understood, as
            they come out of parquet files.
        weights: of each reward; without them those of ``WEIGHTS``.
        defaults: what neither says: keys of a row.

    Returns:
        The weighted sum, and the rewards that apply, by name.

    Raises:
        ValueError: the ground truth is at fault, or no weighted reward applies to the task.

    >>> weighted_score("<think>x</think><answer>Stage II</answer>", "2", {"task": {"kind": "grading", "levels": 5}})
    (1.5, {'format': 1.0, 'accuracy': 1.0, 'fuzzy': 1.0})
    """
    given = _plain(extra or {})
    truth = _decoded(_plain(ground_truth))
    row = {key: given[key] for key in _ROW_KEYS if isinstance(given, dict) and given.get(key) is not None}
    row |= {key: truth[key] for key in _ROW_KEYS if key in truth} if isinstance(truth, dict) else {"target": truth}
    scorer = _scorer(defaults)
    row["target"] = _as_text_needs(row.get("target"), scorer.kind_of(row), ground_truth)
    scores = scorer.score({**row, "completion": completion})
    rewards = {name: scores[name] for name in APPLIES if name in scores}
    paid = weights or WEIGHTS[scorer.kind_of(row)]
    if not any(name in rewards for name in paid):
        raise ValueError(f"none of the weights {', '.join(paid)} applies; this task has {', '.join(rewards)}")
    return sum(weight * rewards.get(name, 0.0) for name, weight in paid.items()), rewards


_scorers: dict[str, RowScorer] = {}


def _scorer(defaults: Mapping[str, Any]) -> RowScorer:
    """One scorer for each set of defaults, since it remembers tasks."""
    key = repr(defaults)
    if key not in _scorers:
        _scorers[key] = RowScorer(_plain(defaults))
    return _scorers[key]


def _decoded(truth: Any) -> Any:
    """A JSON object, list or number written as a text; other texts as they are."""
    if isinstance(truth, str) and truth.strip()[:1] in ("{", "["):
        try:
            return json.loads(truth)
        except (ValueError, RecursionError):
            return truth
    return truth


def _as_text_needs(target: Any, kind: str, ground_truth: Any) -> Any:
    """A grade that came as a text becomes a number; a label stays the text that it was."""
    if kind == "grading" and isinstance(target, str) and target.strip().isdecimal():
        return int(target)
    if kind in ("classification", "vqa") and isinstance(ground_truth, str) and not isinstance(target, str):
        return target if isinstance(_decoded(ground_truth), dict) else ground_truth
    return target


def _plain(value: Any) -> Any:
    """Arrays as lists, without the None that parquet puts where a mapping lacks a key."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
