"""From the files of an ablation to ``ablation.json``: a pure function of ``runs.json`` and ``predictions.parquet``.

Every figure counts two sources of chance, training seeds and test samples (``vrft.evaluation.contrasts``). The family
of tests, which Holm's correction is over, is fixed by the design: the effects of the factorial and the planned pairs,
with those that failed or cannot be told.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vrft.errors import RunError
from vrft.evaluation.box_metrics import BOX_METRICS, tally
from vrft.evaluation.contrasts import Estimate, PairedScores, holm, mcnemar_p
from vrft.evaluation.factorial import effects
from vrft.evaluation.metrics import METRICS, UNREAD
from vrft.runs import AblationDirectory, read_json, write_json

Rows = NDArray[np.float64]
"""(n, c): what is measured of n samples; the last two columns are whether the envelope is right, and an answer read."""

HEADLINE = {"grading": "qwk", "localization": "mean_iou"}
"""The metric of the planned tests, where it is not accuracy."""


def summarise_ablation(directory: AblationDirectory) -> dict[str, Any]:
    """Compute ``ablation.json`` from the other files, write it and return it.

    Raises:
        RunError: no arm is done.
    """
    summary = summary_of(read_json(directory.records), pd.read_parquet(directory.predictions))
    write_json(directory.summary, summary)
    return summary


def summary_of(records: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    """What ``ablation.json`` holds.

    Args:
        records: of ``runs.json``: ``task``, ``design``, ``statistics`` and one of ``runs`` for each arm and seed.
        predictions: one row a test sample, for each arm and seed.

    Raises:
        RunError: no arm is done.
    """
    design, task, section = records["design"], records["task"], records["statistics"]
    starts = {arm["arm"]: arm["starts"] for arm in design["arms"] if arm["kind"] == "cell"}
    results = _Results(task, section, predictions, starts)
    arms = [arm for arm in design["arms"] if arm["arm"] in results.rows]
    if not arms:
        raise RunError("no arm is done; the errors stand in the folder failed.")
    measured, done = results.headline, [arm["arm"] for arm in arms]
    cells = {arm["arm"]: arm["levels"] for arm in arms if arm["kind"] == "cell"}
    factors = {name: tuple(levels) for name, levels in design["factors"].items()}
    runs = [run for run in records["runs"] if run["error"] is None]
    tested, not_estimable = _of_factors(results, cells, factors)
    for a, b in design["pairs"]:
        if results.in_common([arm for arm in (a, b) if arm in done]) and a in done and b in done:
            tested.append(_pair(results, a, b))
        else:
            not_estimable.append(f"{a} - {b}")
    found, alpha = [row for row, _ in tested], 1 - section["confidence"]
    # what was planned and cannot be told counts in the family as a test that sees nothing
    planned = [row["p"] for row in found] + [1.0] * len(not_estimable)
    for (row, one), corrected in zip(tested, holm(planned), strict=False):
        row["p_holm"] = corrected
        row["seen"] = bool(corrected < alpha)
        row["minimum_detectable_effect"] = one.minimum_detectable_effect_at(
            alpha / len(planned)
        )  # at the level of Holm's first step
    pictures = records.get("pictures")  # which the records of older ablations do not have
    return ({"pictures": pictures} if pictures else {}) | {
        "name": records["name"],
        "task": task["kind"],
        "metric": measured,
        "split": section["split"],
        "n": results.n_samples,
        "groups": len(set(results.groups)),
        "seeds": records["seeds"],
        "confidence": section["confidence"],
        "factors": design["factors"],
        "fraction": design["fraction"],
        "budget": design["budget"],
        "work_seconds": records["work_seconds"],
        "arms": [arm | results.figures(arm["arm"]) | {"cost": _cost(runs, arm["arm"])} for arm in arms],
        "effects": found,
        "also": _also(results, cells, factors),
        "interactions": _interactions(results, cells, factors),
        "not_estimable": not_estimable,
        "planned": len(planned),
        "sweep": _sweep(design["sweep"], done),
        "failed": [
            {key: run[key] for key in ("arm", "seed", "error")} for run in records["runs"] if run["error"] is not None
        ],
    }


def _boxes(text: Any) -> list[list[float]] | None:
    """Boxes as the table holds them; an answer that was not read is no text."""
    boxes: list[list[float]] | None = json.loads(text) if isinstance(text, str) else None
    return boxes


class _Results:
    """The predictions of all arms as arrays, and the trials over them, metric by metric.

    ``starts`` is what the training of each cell goes on from.
    """

    def __init__(
        self,
        task: Mapping[str, Any],
        section: Mapping[str, Any],
        predictions: pd.DataFrame,
        starts: Mapping[str, Sequence[str | None]],
    ) -> None:
        self.task, self.section, self.starts = task, section, starts
        self.rows: dict[str, dict[int, Rows]] = {}
        for (arm, seed), frame in predictions.groupby(["arm", "seed"], sort=False):
            self.rows.setdefault(str(arm), {})[int(seed)] = self._array(frame)  # type: ignore[call-overload]
        first = predictions.iloc[:0] if not self.rows else next(f for _, f in predictions.groupby(["arm", "seed"]))
        self.groups = list(first["group"])
        self.n_samples = len(first)
        self.headline = HEADLINE.get(task["kind"], "accuracy")
        self.untrained = {arm for arm, untrained in task["untrained"].items() if untrained}
        self._trials: dict[tuple[str, tuple[int, ...]], PairedScores] = {}

    def _array(self, frame: pd.DataFrame) -> Rows:
        shares = frame[["well_formed"]].assign(read=frame["answer"].notna()).to_numpy(dtype=np.float64)
        if self.task["kind"] == "localization":
            keys = ("target", "answer", "stated")
            rows = [dict(zip(keys, row, strict=True)) for row in frame[list(keys)].itertuples(index=False)]
            read = [row | {key: _boxes(row[key]) for key in ("target", "answer")} for row in rows]
            return np.hstack([tally(read, "answer"), shares])
        where = {str(target): index for index, target in enumerate(self.task["classes"])}
        true = frame["target"].map(where).to_numpy(dtype=np.float64)
        answered = frame["answer"].map(where).fillna(UNREAD).to_numpy(dtype=np.float64)
        return np.hstack([np.stack([true, answered], axis=1), shares])

    def metric(self, name: str) -> Callable[[Rows], float]:
        """A metric as a function of rows."""
        if name in ("format_rate", "read_rate"):
            column = -2 if name == "format_rate" else -1
            return lambda rows: float(rows[:, column].mean())
        if name in BOX_METRICS:
            return lambda rows: BOX_METRICS[name](rows[:, :4])
        classes = len(self.task["classes"])
        return lambda rows: METRICS[name](rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), classes=classes)

    def range_of(self, metric: str) -> tuple[float, float]:
        """The least and the greatest value that a metric can have."""
        if metric == "mae":
            return 0.0, len(self.task["classes"]) - 1.0
        return (-1.0 if metric == "qwk" else 0.0), 1.0

    def estimate(self, weights: Mapping[str, float], metric: str | None = None) -> Estimate:
        """A contrast over the seeds that all its arms have."""
        return self.trials(list(weights), metric).estimate(weights)

    def effect(self, weights: Mapping[str, float], metric: str | None = None) -> Estimate:
        """A contrast of cells, whose luck of training is told by all cells together."""
        trials = self.trials(list(weights), metric)
        starts = {arm: start for arm, start in self.starts.items() if arm in trials.rows}
        return trials.estimate(weights, starts)

    def in_common(self, arms: Sequence[str]) -> set[Any]:
        """The seeds that these arms have in common; None for arms that are not trained, which pair with each."""
        trained = [set(self.rows[arm]) for arm in arms if arm not in self.untrained]
        return set.intersection(*trained) if trained else {None}

    def trials(self, arms: Sequence[str], metric: str | None = None) -> PairedScores:
        """The trials over the seeds that these arms have in common."""
        name = metric or self.headline
        seeds = tuple(sorted(self.in_common(arms) - {None}))
        if (name, seeds) not in self._trials:
            rows = {
                arm: list(of.values()) if arm in self.untrained else [of[seed] for seed in seeds]
                for arm, of in self.rows.items()
                if arm in self.untrained or set(seeds) <= set(of)
            }
            options = {"draws": self.section["bootstrap"], "confidence": self.section["confidence"]}
            self._trials[name, seeds] = PairedScores(rows, self.metric(name), self.groups, **options)
        return self._trials[name, seeds]

    def figures(self, arm: str) -> dict[str, Any]:
        """The metrics of an arm with intervals, and its headline metric seed by seed."""
        measured = {}
        for name in self.task["metrics"]:
            one, (least, most) = self.estimate({arm: 1.0}, name), self.range_of(name)
            ends = (one.value, max(one.low, least), min(one.high, most))  # no share lies beyond 0 and 1
            measured[name] = dict(zip(_ENDS, ends, strict=True))
        return {
            "seeds": sorted(self.rows[arm]),
            "metrics": measured,
            "per_seed": [self.metric(self.headline)(self.rows[arm][seed]) for seed in sorted(self.rows[arm])],
        }


_ENDS = ("value", "low", "high")


def _row(name: str, kind: str, one: Estimate, **more: Any) -> dict[str, Any]:
    """A tested contrast as plain data."""
    facts = {
        key: getattr(one, key)
        for key in ("low", "high", "se", "df", "p", "minimum_detectable_effect", "seeds", "seeds_counted")
    }
    empty: dict[str, Any] = {"of": None, "a": None, "b": None, "p_paired": None, "paired_test": None}
    return {"name": name, "kind": kind, "difference": one.value, **facts, **empty, "confounded": False, **more}


def _of_factors(
    results: _Results,
    cells: Mapping[str, Mapping[str, str]],
    factors: Mapping[str, Sequence[str]],
    metric: str | None = None,
) -> tuple[list[tuple[dict[str, Any], Estimate]], list[str]]:
    """The main effects and two-way interactions that the cells can tell."""
    if not cells:
        return [], []
    found, missing = effects(cells, factors)
    rows = []
    for one in found:
        if not results.in_common(list(one.weights)):
            missing.append(one.name)
            continue
        weights = {arm: weight for arm, weight in one.weights.items() if abs(weight) > 1e-12}
        of = [list(map(str, step)) for step in one.of]
        estimate = results.effect(weights, metric)
        rows.append((_row(one.name, one.kind, estimate, of=of, confounded=one.confounded), estimate))
    return rows, missing


def _pair(results: _Results, a: str, b: str) -> tuple[dict[str, Any], Estimate]:
    """A planned comparison of two arms, and the test of these very policies on the same samples."""
    trials = results.trials([a, b])
    more: dict[str, Any] = {"a": a, "b": b}
    one, other = trials.rows[a], trials.rows[b]
    alone = len(one) == len(other) == 1 and len(set(results.groups)) == len(results.groups)
    if alone and results.headline == "accuracy":
        right = [rows[0][:, 0] == rows[0][:, 1] for rows in (one, other)]
        more |= {"p_paired": mcnemar_p(*right), "paired_test": "mcnemar"}
    else:
        more |= {"p_paired": trials.paired_p(a, b, results.section["bootstrap"]), "paired_test": "permutation"}
    weights = {a: 1.0, b: -1.0}
    estimate = results.effect(weights) if {a, b} <= set(results.starts) else trials.estimate(weights)
    return _row(f"{a} - {b}", "control", estimate, **more), estimate


def _also(
    results: _Results, cells: Mapping[str, Mapping[str, str]], factors: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
    """The effects of the factorial in accuracy, where that is not the headline metric; outside the family of tests."""
    if results.headline == "accuracy" or "accuracy" not in results.task["metrics"]:
        return {}
    return {"accuracy": [row for row, _ in _of_factors(results, cells, factors, "accuracy")[0]]}


def _interactions(
    results: _Results, cells: Mapping[str, Mapping[str, str]], factors: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """For each two factors the mean of the cells at each combination of their levels that was run."""
    plots = []
    for one, other in combinations(factors, 2):
        lines, sizes = [], set[int]()
        for level in factors[one]:
            points = []
            for at in factors[other]:
                members = [arm for arm, levels in cells.items() if levels[one] == level and levels[other] == at]
                sizes.add(len(members))
                if results.in_common(members) and members:
                    mean = results.estimate(dict.fromkeys(members, 1 / len(members)))
                    points.append({"level": at} | {key: getattr(mean, key) for key in _ENDS})
            if len(points) > 1:
                lines.append({"level": level, "points": points})
        if len(lines) > 1 and len(sizes - {0}) == 1:  # else the means are of other combinations of the other factors
            plots.append({"factors": [one, other], "lines": lines})
    return plots


def _cost(runs: Sequence[Mapping[str, Any]], arm: str) -> dict[str, float]:
    """The mean cost of a seed of an arm."""
    costs = [run["cost"] for run in runs if run["arm"] == arm]
    return {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]}


def _sweep(sweep: Mapping[str, Any] | None, done: Sequence[str]) -> dict[str, Any] | None:
    """The sweep with the points that are done."""
    if sweep is None:
        return None
    return {**sweep, "points": [point for point in sweep["points"] if point["arm"] in done]}
