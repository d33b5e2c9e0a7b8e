"""From the predictions of all arms to ``metrics.json``."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft.evaluation.box_metrics import BOX_METRICS, tally
from vrft.evaluation.metrics import METRICS, UNREAD, Classes
from vrft.evaluation.statistics import Statistic, bootstrap, paired_difference, resamples
from vrft.tasks import ClosedTask, Localization, TrainableTask

Rows = Sequence[Mapping[str, Any]]
"""The predictions of one arm with one seed, in the order of the split."""


def summarise(
    task: TrainableTask,
    arms: Mapping[str, Sequence[Rows]],
    costs: Mapping[str, Mapping[str, float]],
    *,
    draws: int,
    confidence: float,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Metrics of every arm with intervals, and the paired difference of every two arms.

    Args:
        task: says which metrics there are.
        arms: for each arm its predictions, one list a seed.
        costs: for each arm ``seconds``, ``tokens``, ``peak_mb``.
        draws: resamples behind each interval.
        confidence: of the intervals.
        groups: the image of each sample, where samples share one; they are resampled together.
    """
    n_samples = len(next(iter(arms.values()))[0])
    rows = resamples(groups or range(n_samples), draws)
    summary: dict[str, Any] = {"arms": {}, "comparisons": []}
    strict: dict[str, dict[str, Statistic]] = {}
    compared = {**METRICS, **BOX_METRICS}
    for name, seeds in arms.items():
        strict[name] = _statistics(task, seeds, "answer")
        figures = dict(strict[name])
        if any(row["answer"] != row["lenient"] for seed in seeds for row in seed):
            lenient = _statistics(task, seeds, "lenient")
            figures |= {f"{metric}_lenient": lenient[metric] for metric in compared if metric in lenient}
        measured = {key: vars(bootstrap(s, n_samples, rows, confidence=confidence)) for key, s in figures.items()}
        summary["arms"][name] = {"n": n_samples, "seeds": len(seeds), **measured, "cost": dict(costs[name])}
    for a, b in combinations(arms, 2):
        for metric in task.metrics:
            if metric in compared:
                difference = paired_difference(
                    strict[b][metric], strict[a][metric], n_samples, rows, confidence=confidence
                )
                summary["comparisons"].append({"a": b, "b": a, "metric": metric, **vars(difference)})
    return summary


def figures_of(task: TrainableTask, rows: Rows) -> dict[str, float]:
    """Every metric of one policy's predictions, strictly read."""
    everything = np.arange(len(rows))
    return {name: statistic(everything) for name, statistic in _statistics(task, [rows], "answer").items()}


def positions(task: ClosedTask, rows: Rows, key: str) -> Classes:
    """The class positions of a column of the predictions; ``UNREAD`` for None."""
    where = {target: index for index, target in enumerate(task.classes)}
    return np.array([UNREAD if row[key] is None else where[row[key]] for row in rows], dtype=np.int64)


def _statistics(task: TrainableTask, seeds: Sequence[Rows], reading: str) -> dict[str, Statistic]:
    """Every metric of an arm as a function of sample positions: the mean over its seeds."""
    well_formed = np.mean([[row["well_formed"] for row in rows] for rows in seeds], axis=0)
    read = np.mean([[row["answer"] is not None for row in rows] for rows in seeds], axis=0)

    def share(values: NDArray[np.float64]) -> Statistic:
        return lambda at: float(values[at].mean())

    shares = {"format_rate": share(well_formed), "read_rate": share(read)}
    measured = _of_boxes(seeds, reading) if isinstance(task, Localization) else _of_classes(task, seeds, reading)
    return {metric: measured[metric] if metric in measured else shares[metric] for metric in task.metrics}


def _of_classes(task: ClosedTask, seeds: Sequence[Rows], reading: str) -> dict[str, Statistic]:
    true, classes = positions(task, seeds[0], "target"), len(task.classes)
    predicted = [positions(task, rows, reading) for rows in seeds]

    def statistic(function: Callable[..., float]) -> Statistic:
        return lambda at: float(np.mean([function(true[at], one[at], classes=classes) for one in predicted]))

    return {name: statistic(function) for name, function in METRICS.items()}


def _of_boxes(seeds: Sequence[Rows], reading: str) -> dict[str, Statistic]:
    counts = [tally(rows, reading) for rows in seeds]

    def statistic(function: Callable[..., float]) -> Statistic:
        return lambda at: float(np.mean([function(one[at]) for one in counts]))

    return {name: statistic(function) for name, function in BOX_METRICS.items()}
