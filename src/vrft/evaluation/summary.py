"""From the records and predictions of a run or an ablation to ``metrics.json``: a pure function, the same for both.

Every interval and p-value counts training seeds and test samples (``vrft.evaluation.contrasts``). The design fixes the
family of tests, which Holm's correction is over: the effects of the factorial and the planned pairs of arms on the
headline metric, with those that failed or are not estimable. Pairs are compared on the other metrics too; these
comparisons are descriptive, and corrected within their metric.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vrft.errors import RunError
from vrft.evaluation.box_metrics import BOX_METRICS, tally
from vrft.evaluation.contrasts import Estimate, PairedScores, holm, mcnemar_p, minimum_detectable_effect
from vrft.evaluation.factorial import effects
from vrft.evaluation.metrics import METRICS, UNREAD
from vrft.runs import RunDirectory, read_json, write_json
from vrft.tasks import Localization, TrainableTask

Figures = dict[str, Any]
Counts = NDArray[np.float64]
"""(n, c): the strict reading of n samples, the lenient reading, whether the envelope is right, an answer was read."""

HEADLINE = {"grading": "qwk", "localization": "mean_iou"}
"""The metric of the planned tests, where it is not accuracy."""

COMPARED = METRICS | BOX_METRICS
READINGS = ("answer", "lenient")
ENDS = ("value", "low", "high")


def write_metrics(directory: RunDirectory) -> Figures:
    """Compute ``metrics.json`` from the other files of a run or an ablation, write it and return it.

    Raises:
        RunError: no arm is done.
    """
    perception = pd.read_parquet(directory.perception) if directory.perception.exists() else None
    metrics = summarise(read_json(directory.records), pd.read_parquet(directory.predictions), perception)
    write_json(directory.metrics, metrics)
    return metrics


def summarise(records: Mapping[str, Any], predictions: pd.DataFrame, perception: pd.DataFrame | None = None) -> Figures:
    """The content of ``metrics.json``.

    Args:
        records: of ``records.json``: ``task``, ``design``, ``statistics``, and in ``runs`` each arm and seed.
        predictions: one row a test sample, for each arm and seed, in the same order of samples.
        perception: the same of the stages that have a task of their own; ``records["perception"]`` has their task.

    Raises:
        RunError: no arm is done.
    """
    design, section, runs = records["design"], records["statistics"], records["runs"]
    sweep = design["sweep"]
    starts = {arm["arm"]: arm["starts"] for arm in design["arms"] if arm["kind"] == "cell"}
    results = _Results(records["task"], section, predictions, starts)
    arms = [arm for arm in design["arms"] if arm["arm"] in results.counts]
    if not arms:
        raise RunError("no arm is done; the errors stand in the folder failed.")
    cells = {arm["arm"]: arm["levels"] for arm in arms if arm["kind"] == "cell"}
    factors = {name: tuple(levels) for name, levels in design["factors"].items()}
    pairs = [(a, b) for a, b in design["pairs"] if results.comparable([a, b])]
    lacking = [f"{a} - {b}" for a, b in design["pairs"] if (a, b) not in pairs]
    tested, missing = _effects(results, cells, factors)
    comparisons, alpha = list[Figures](), 1 - section["confidence"]
    for metric in sorted(results.compared, key=lambda name: name != results.headline):
        rows = [_pair(results, a, b, metric) for a, b in pairs]
        if metric == results.headline:
            _correct([*tested, *rows], len(missing) + len(lacking), alpha)
        else:
            _correct(rows, len(lacking), alpha)
        comparisons += rows
    for row in [*tested, *comparisons] if len(records["seeds"]) > 1 else ():
        trained = "a" not in row or not {row["a"], row["b"]} <= results.untrained
        row["detected"] = row["detected"] and (
            row["seeds_counted"] or not trained
        )  # one seed that is left shows nothing
    also = "accuracy" if results.headline != "accuracy" and "accuracy" in results.compared else None
    learnt = _perception(records, perception)
    return {
        "name": records["name"],
        "task": records["task"]["kind"],
        "metric": results.headline,
        "split": section["split"],
        "n": results.n_samples,
        "groups": len(set(results.groups)),
        "seeds": records["seeds"],
        "confidence": section["confidence"],
        "factors": design["factors"],
        "fraction": design["fraction"],
        "budget": design["budget"],
        "work_seconds": records["work_seconds"],
        "arms": {
            arm["arm"]: {key: arm[key] for key in ("kind", "levels", "what")} | results.figures(arm["arm"], runs)
            for arm in arms
        },
        "comparisons": comparisons,
        "effects": tested,
        "also": {also: _effects(results, cells, factors, also)[0]} if also and cells else {},
        "interactions": _interactions(results, cells, factors),
        "not_estimable": [*missing, *lacking],
        "planned": len(tested) + len(pairs) + len(missing) + len(lacking),
        "sweep": sweep and {**sweep, "points": [point for point in sweep["points"] if point["arm"] in results.counts]},
        "subgroups": _subgroups(records["task"], section, predictions),
        "failed": [{key: run[key] for key in ("arm", "seed", "error")} for run in runs if run["error"] is not None],
        "images": records.get("images") or {},
    } | ({"perception": learnt} if learnt else {})


def _subgroups(task: Mapping[str, Any], section: Mapping[str, Any], predictions: pd.DataFrame) -> Figures:
    """The headline metric of each arm in each subgroup, where the data names subgroups; intervals are not corrected."""
    found: Figures = {}
    if "subgroup" in predictions:
        for name, frame in predictions.groupby("subgroup", sort=True):
            results = _Results(task, section, frame, {})
            figures = {arm: results.figures(arm, ())[results.headline] for arm in results.counts}
            found[str(name)] = {"n": results.n_samples, "groups": len(set(results.groups)), "arms": figures}
    return found


def figures_of(task: TrainableTask, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Every metric of the predictions of one policy, strictly read."""
    classes = None if isinstance(task, Localization) else [str(target) for target in task.classes]
    counts = _counted(rows, classes)
    return {name: _metric(name, classes)(counts) for name in task.metrics}


# --- samples as numbers -----------------------------------------------------------------------------------------------


def _counted(rows: Iterable[Mapping[Any, Any]], classes: Sequence[str] | None) -> Counts:
    """The numbers that all metrics are made of; without ``classes`` the answers are boxes."""
    rows = list(rows)
    if classes is None:
        keys = ("target", *READINGS)
        read = [{"stated": row.get("stated", 0)} | {key: _boxes(row[key]) for key in keys} for row in rows]
        strict = tally(read, "answer")
        same = all(row["answer"] == row["lenient"] for row in read)
        readings = [strict, strict if same else tally(read, "lenient")]
    else:
        where: dict[str | None, int] = {name: index for index, name in enumerate(classes)} | {None: UNREAD}
        texts = ([None if row[key] is None else str(row[key]) for key in ("target", *READINGS)] for row in rows)
        position = [[where.get(text, UNREAD) for text in line] for line in texts]
        true, *given = np.array(position, dtype=np.float64).reshape(-1, 3).T
        readings = [np.stack([true, answer], axis=1) for answer in given]
    rates = [[row["well_formed"], row["answer"] is not None] for row in rows]
    return np.hstack([*readings, np.array(rates, dtype=np.float64).reshape(-1, 2)])


def _boxes(value: Any) -> Any:
    """Boxes as a table holds them (JSON) or as they were read; None is an answer that was not read."""
    return json.loads(value) if isinstance(value, str) else value


def _metric(name: str, classes: Sequence[str] | None) -> Callable[[Counts], float]:
    """A metric as a function of counts; of names that end in ``_lenient`` that of the lenient reading."""
    base = name.removesuffix("_lenient")
    if base in ("format_rate", "read_rate"):
        column = -2 if base == "format_rate" else -1
        return lambda counts: float(counts[:, column].mean())
    width = 4 if classes is None else 2
    first = 0 if base == name else width
    if classes is None:
        return lambda counts: BOX_METRICS[base](counts[:, first : first + width])
    return lambda counts: METRICS[base](*counts[:, first : first + width].T.astype(np.int64), classes=len(classes))


class _Results:
    """The predictions of all arms as numbers, and their paired scores, metric by metric.

    ``starts`` are those of the training of each cell of a factorial.
    """

    def __init__(
        self,
        task: Mapping[str, Any],
        section: Mapping[str, Any],
        predictions: pd.DataFrame,
        starts: Mapping[str, Sequence[str | None]],
    ) -> None:
        self.section, self.starts = section, starts
        self.headline = HEADLINE.get(task["kind"], "accuracy")
        self.metrics: list[str] = list(task["metrics"])
        self.compared = [name for name in self.metrics if name in COMPARED]
        self.classes: list[str] | None = None if task["kind"] == "localization" else task["classes"]
        self.untrained = {arm for arm, untrained in task["untrained"].items() if untrained}
        self.counts: dict[str, dict[int, Counts]] = {}
        self.groups: list[str] = []
        columns = [name for name in ("target", *READINGS, "well_formed", "stated") if name in predictions]
        for (arm, seed), frame in predictions.groupby(["arm", "seed"], sort=False):
            self.groups = self.groups or list(frame["group"])
            rows = frame[columns].astype(object).where(frame[columns].notna(), None).to_dict("records")
            self.counts.setdefault(str(arm), {})[int(seed)] = _counted(rows, self.classes)  # type: ignore[call-overload]
        self.n_samples = len(self.groups)
        self._scores: dict[tuple[str, tuple[int, ...]], PairedScores] = {}

    def in_common(self, arms: Sequence[str]) -> set[Any]:
        """The seeds that these arms have in common; None for arms that are not trained, which pair with each."""
        trained = [set(self.counts[arm]) for arm in arms if arm not in self.untrained]
        return set.intersection(*trained) if trained else {None}

    def comparable(self, arms: Sequence[str]) -> bool:
        """Whether all these arms have results, with a seed in common, on two groups of samples or more."""
        return set(arms) <= set(self.counts) and bool(self.in_common(arms)) and len(set(self.groups)) > 1

    def scores(self, arms: Sequence[str], metric: str | None = None) -> PairedScores:
        """The paired scores over the seeds that these arms have in common."""
        name = metric or self.headline
        seeds = tuple(sorted(self.in_common(arms) - {None}))
        if (name, seeds) not in self._scores:
            rows = {
                arm: list(of.values()) if arm in self.untrained else [of[seed] for seed in seeds]
                for arm, of in self.counts.items()
                if arm in self.untrained or set(seeds) <= set(of)
            }
            options = {"draws": self.section["bootstrap"], "confidence": self.section["confidence"]}
            self._scores[name, seeds] = PairedScores(rows, _metric(name, self.classes), self.groups, **options)
        return self._scores[name, seeds]

    def estimate(self, weights: Mapping[str, float], metric: str | None = None, *, pooled: bool = False) -> Estimate:
        """A contrast over the seeds that all its arms have.

        Of cells alone (``pooled``) all cells together inform the variance between trainings.
        """
        scores = self.scores(list(weights), metric)
        starts = {arm: start for arm, start in self.starts.items() if arm in scores.rows}
        return scores.estimate(weights, starts if pooled else None)

    def figures(self, arm: str, runs: Iterable[Mapping[str, Any]]) -> Figures:
        """The metrics of an arm with intervals, its headline metric seed by seed, and the mean cost of a seed."""
        seeds = sorted(self.counts[arm])
        half = 4 if self.classes is None else 2
        names = list(self.metrics)
        if any(not np.array_equal(c[:, :half], c[:, half : 2 * half]) for c in self.counts[arm].values()):
            names += [f"{name}_lenient" for name in self.compared]
        measured = {}
        for name in names:
            least, most = self._range(name)
            if self.comparable([arm]):
                one = self.estimate({arm: 1.0}, name)
                ends = one.value, max(one.low, least), min(one.high, most)
            else:  # one image says nothing of others
                values = [_metric(name, self.classes)(self.counts[arm][seed]) for seed in seeds]
                ends = float(np.mean(values)), least, most
            measured[name] = dict(zip(ENDS, ends, strict=True))
        headline = _metric(self.headline, self.classes)
        costs = [run["cost"] for run in runs if run["arm"] == arm and run["cost"]]
        mean = {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]} if costs else {}
        return {"n": self.n_samples, "seeds": len(seeds), **measured} | {
            "per_seed": [headline(self.counts[arm][seed]) for seed in seeds],
            "seed_list": seeds,
            "cost": mean,
        }

    def _range(self, metric: str) -> tuple[float, float]:
        """The least and the greatest value that a metric can have."""
        base = metric.removesuffix("_lenient")
        if base == "mae":
            return 0.0, len(self.classes or ()) - 1.0
        return (-1.0 if base == "qwk" else 0.0), 1.0


# --- contrasts --------------------------------------------------------------------------------------------------------


def _row(name: str, one: Estimate, **more: Any) -> Figures:
    """A contrast as plain data."""
    return {"name": name, "difference": one.value} | {k: v for k, v in vars(one).items() if k != "value"} | more


def _effects(
    results: _Results,
    cells: Mapping[str, Mapping[str, str]],
    factors: Mapping[str, Sequence[str]],
    metric: str | None = None,
) -> tuple[list[Figures], list[str]]:
    """The main effects and two-way interactions that the cells can estimate, and the names of the others."""
    found, missing = effects(cells, factors) if cells and factors else ([], [])
    rows = [
        _row(one.name, results.estimate(one.weights, metric, pooled=True), kind=one.kind)
        | {"of": [list(map(str, step)) for step in one.of], "confounded": one.confounded}
        for one in found
        if results.comparable(list(one.weights))
    ]
    return rows, missing + [one.name for one in found if not results.comparable(list(one.weights))]


def _pair(results: _Results, a: str, b: str, metric: str) -> Figures:
    """The comparison of two arms; on the headline metric with the test of these very policies on the same samples."""
    estimate = results.estimate({a: 1.0, b: -1.0}, metric, pooled={a, b} <= set(results.starts))
    p, test = _paired_test(results, a, b) if metric == results.headline else (None, None)
    return _row(f"{a} - {b}", estimate, a=a, b=b, metric=metric, p_paired=p, paired_test=test)


def _paired_test(results: _Results, a: str, b: str) -> tuple[float, str]:
    """The p-value that two policies are equally good on the headline metric, and the name of its test."""
    scores = results.scores([a, b])
    one, other = scores.rows[a], scores.rows[b]
    alone = len(one) == len(other) == 1 and len(set(results.groups)) == len(results.groups)
    if alone and results.headline == "accuracy":
        right = [rows[0][:, 0] == rows[0][:, 1] for rows in (one, other)]
        return mcnemar_p(*right), "mcnemar"
    return scores.paired_p(a, b, results.section["bootstrap"]), "permutation"


def _correct(rows: Sequence[Figures], missing: int, alpha: float) -> None:
    """Add Holm's correction to contrasts; planned tests that are ``missing`` count as tests that detect nothing."""
    p_values = [row["p"] for row in rows] + [1.0] * missing
    for row, corrected in zip(rows, holm(p_values), strict=False):
        row["p_holm"], row["detected"] = corrected, bool(corrected < alpha)
        # at the level of Holm's first step
        row["minimum_detectable_effect"] = minimum_detectable_effect(row["se"], row["df"], alpha / len(p_values))


def _interactions(
    results: _Results, cells: Mapping[str, Mapping[str, str]], factors: Mapping[str, Sequence[str]]
) -> list[Figures]:
    """For each two factors the mean of the cells at each combination of their levels that was run."""
    plots = []
    for one, other in combinations(factors, 2):
        lines, sizes = [], set[int]()
        for level in factors[one]:
            points = []
            for at in factors[other]:
                members = [arm for arm, levels in cells.items() if levels[one] == level and levels[other] == at]
                sizes.add(len(members))
                if members and results.comparable(members):
                    mean = results.estimate(dict.fromkeys(members, 1 / len(members)))
                    points.append({"level": at} | {key: getattr(mean, key) for key in ENDS})
            if len(points) > 1:
                lines.append({"level": level, "points": points})
        if len(lines) > 1 and len(sizes - {0}) == 1:  # else the means are of other combinations of the other factors
            plots.append({"factors": [one, other], "lines": lines})
    return plots


def _perception(records: Mapping[str, Any], predictions: pd.DataFrame | None) -> Figures | None:
    """The figures of the stages that have a task of their own; None without predictions of two groups or more."""
    if predictions is None or not records.get("perception") or predictions["group"].nunique() < 2:
        return None
    section = records["perception"]
    results = _Results({"untrained": {"majority": True}} | section["task"], records["statistics"], predictions, {})
    return {
        "task": section["task"]["kind"],
        "metric": results.headline,
        "n": results.n_samples,
        "groups": len(set(results.groups)),
        "arms": {arm: results.figures(arm, ()) for arm in results.counts},
    }
