"""One self-contained HTML page of a run or an ablation: it opens from disk, without a network.

All text in it is escaped, by the template (Jinja2 with autoescape) or, where it goes into a figure, in ``figures``;
pictures and scripts are inside the page.
"""

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, select_autoescape
from plotly.offline import get_plotlyjs

from vrft.image_log import warning_sentences
from vrft.report.curves import Line, draw_curves
from vrft.report.figures import COLOURS, interactions, sweep_of
from vrft.report.gallery import STROKES, confusions, gallery, grade_names
from vrft.report.sentences import in_words, samples_in_words, title_of
from vrft.report.tables import KINDS, by_kind, difference_table, latex_tables, markdown_tables, metrics_of
from vrft.runs import RunDirectory, read_json, write_text
from vrft.tasks import LOWER_IS_BETTER

FOREST = 190
"""Pixels of a drawn interval."""

VISIBLE, EXAMPLES = 6, 8
"""Arms of an ablation whose curves are drawn at first, and whose answers are shown: more are hard to tell apart."""

DESCRIPTIVE = ("accuracy", "qwk", "mean_iou", "f1_50")
"""Metrics beside the headline on which the page compares arms; ``metrics.json`` has them all."""

MATCHES = {
    "stages": "Every arm is trained with the stages of the recipe that it has; an arm with more stages trains longer",
    "steps": "Every arm is trained for the same number of steps",
    "tokens": "Every arm is trained until it has passed the same number of tokens, up to a logged step",
    "seconds": "Every arm is trained for the same time",
}
"""The quantity that a budget holds equal."""


def write_report(directory: RunDirectory) -> Path:
    """Write the page of a finished run or ablation, whose path is returned, and beside it the tables.

    ``report.html`` is made of ``metrics.json`` and the other files of the directory, ``report.md`` and ``report.tex``
    of ``metrics.json`` alone.
    """
    metrics = read_json(directory.metrics)
    write_text(directory.report.with_suffix(".md"), markdown_tables(metrics))
    write_text(directory.report.with_suffix(".tex"), latex_tables(metrics))
    write_text(directory.report, _page(directory, metrics))
    return directory.report


def _page(directory: RunDirectory, metrics: dict[str, Any]) -> str:
    recipe_text = directory.recipe.read_text(encoding="utf-8") if directory.recipe.exists() else ""
    recipe = yaml.safe_load(recipe_text) or {}
    predictions = pd.read_parquet(directory.predictions)
    logs = pd.read_parquet(directory.logs) if directory.logs.exists() else pd.DataFrame(columns=["arm"])
    cells = sorted(by_kind(metrics).get("cell", []), key=lambda name: _changed(metrics, name))
    leading, names = _leading(metrics, cells), grade_names(recipe.get("task") or {})
    lines = _lines(metrics, leading, set(logs["arm"]))
    logged = {arm: line for arm, line in lines.items() if arm in set(logs["arm"])}
    perception = metrics.get("perception")
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, autoescape=select_autoescape(default=True), trim_blocks=True)
    return page.get_template("report.html.j2").render(
        plotly=get_plotlyjs(),
        metrics=metrics,
        subject=_subject(recipe, metrics),
        words=in_words(metrics),
        title=title_of(metrics["metric"]),
        titles={name: title_of(name) for name in metrics_of(metrics)},
        groups=_groups(metrics),
        base=next((name for name in cells if _changed(metrics, name) == 0), None),
        lines=lines,
        differences=_differences(metrics),
        interactions=interactions(metrics),
        sweep=sweep_of(metrics),
        perception=perception,
        perceived={name: title_of(name) for name in metrics_of(perception)} if perception else {},
        curves=draw_curves(logs, logged, mean=bool(metrics["factors"])) if logged else "",
        logged=logged,
        gallery=gallery(directory, predictions, {arm: lines[arm] for arm in leading}, names),
        confusions=confusions(predictions, leading, names) if "accuracy" in metrics["arms"][leading[0]] else [],
        budget=_budget(metrics),
        images=warning_sentences(metrics["images"]),
        data=read_json(directory.data) if directory.data.exists() else {},
        audit=read_json(directory.audit) if directory.audit.exists() else None,
        recipe=recipe_text,
        environment=read_json(directory.environment) if directory.environment.exists() else {},
    )


def _subject(recipe: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The task, the data, the policy and the size of the comparison."""
    data, policy = recipe.get("data") or {}, recipe.get("policy") or {}
    source = " ".join(str(part) for part in (data.get("source"), data.get("dataset") or data.get("root")) if part)
    what = f"{'Ablation: ' if metrics['factors'] else ''}{metrics['task']}{f' on {source}' if source else ''}"
    model = f", policy {policy['model']}" if "model" in policy else ""
    return f"{what}{model}; {samples_in_words(metrics)}"


# --- differences ------------------------------------------------------------------------------------------------------


def _differences(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A table for each kind of difference, with its heading; main effects and interactions have a common scale."""
    effects, metric = metrics["effects"], metrics["metric"]
    tables = [
        {"heading": heading, "table": _forest(rows, effects, metric), "tested": True}
        for kind, heading in (("main", "Main effects"), ("interaction", "Interactions"))
        if (rows := [row for row in effects if row["kind"] == kind])
    ]
    for name in dict.fromkeys(row["metric"] for row in metrics["comparisons"]):
        rows = [row for row in metrics["comparisons"] if row["metric"] == name]
        if name == metric or name in DESCRIPTIVE:
            heading = f"Pairs of arms in {title_of(name)}"
            tables.append({"heading": heading, "table": _forest(rows, rows, name), "tested": name == metric})
    return tables


def _forest(rows: list[dict[str, Any]], scale: list[dict[str, Any]], metric: str) -> str:
    """Differences as a table with their intervals drawn; a band is where the power is below 80%."""
    ends = [0.0] + [row[key] for row in scale for key in ("low", "high")]
    reached = 1.3 * max(map(abs, ends)) or 1.0  # a band may go on beyond the drawing, which is made for the intervals
    bands = [min(row["minimum_detectable_effect"], reached) for row in scale if not row["detected"]]
    low, high = min([*ends, *(-band for band in bands)]), max([*ends, *bands])

    def at(value: float) -> float:
        return 8 + (FOREST - 16) * (min(max(value, low), high) - low) / (high - low or 1.0)

    drawn = []
    for row in rows:
        band = 0.0 if row["detected"] else row["minimum_detectable_effect"]
        start, end, left, right = at(-band), at(band), at(row["low"]), at(row["high"])
        drawn.append(
            f'<svg class="forest{" detected" if row["detected"] else ""}" viewBox="0 0 {FOREST} 20">'
            f'<rect x="{start:.1f}" width="{end - start:.1f}" height="20"/><path d="M{at(0):.1f} 0v20" class="zero"/>'
            f'<path d="M{left:.1f} 10H{right:.1f}"/><circle cx="{at(row["difference"]):.1f}" cy="10" r="4"/></svg>'
        )
    frame = difference_table(rows).map(escape)
    frame.insert(1, f"better to the {'left' if metric in LOWER_IS_BETTER else 'right'}", drawn)
    return frame.to_html(index=False, escape=False, border=0, classes="sortable")


# --- arms -------------------------------------------------------------------------------------------------------------


def _changed(metrics: dict[str, Any], arm: str) -> int:
    """How many factors of a cell are not at their first level; the base has none."""
    levels = metrics["arms"][arm]["levels"]
    return sum(level != metrics["factors"][factor][0] for factor, level in levels.items())


def _leading(metrics: dict[str, Any], cells: list[str]) -> list[str]:
    """The arms whose answers are shown: all of a run; of an ablation the base, the fullest cell and the controls."""
    if not metrics["factors"]:
        return list(metrics["arms"])
    chosen = [*cells[:1], *cells[-1:], *by_kind(metrics).get("control", [])] or metrics["arms"]
    return list(dict.fromkeys(chosen))[:EXAMPLES]


def _lines(metrics: dict[str, Any], leading: list[str], logged: set[str]) -> dict[str, Line]:
    """The style of each arm in all figures; the leading arms come first and have a colour of their own."""
    shown = [name for name in leading if name in logged][: VISIBLE if metrics["factors"] else None]
    return {
        name: Line(COLOURS[i % len(COLOURS)], STROKES[i // len(COLOURS) % len(STROKES)], name in shown)
        for i, name in enumerate(dict.fromkeys([*leading, *metrics["arms"]]))
    }


def _groups(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The arms by kind, each with its headline figure as shares of the scale of its kind."""
    groups = []
    for kind, names in by_kind(metrics).items():
        figures = {name: metrics["arms"][name][metrics["metric"]] for name in names}
        seeds = {name: metrics["arms"][name]["per_seed"] for name in names}
        ends = [end for name in names for end in (figures[name]["low"], figures[name]["high"], *seeds[name])]
        low, width = min(ends), (max(ends) - min(ends)) or 1.0
        rows = [
            metrics["arms"][name]
            | {"arm": name, "dots": [100 * (value - low) / width for value in seeds[name]]}
            | {"strip": {key: 100 * (value - low) / width for key, value in figures[name].items()}}
            for name in names
        ]
        groups.append({"kind": kind, "heading": KINDS[kind], "rows": rows})
    return groups


def _budget(metrics: dict[str, Any]) -> str:
    """The quantity that the arms had in common, and the cost of the arms then."""
    match, amount = metrics["budget"]["match"], metrics["budget"].get("amount")
    said = MATCHES.get(match, f"Every arm is trained with the same {match}")
    kind = "cell" if metrics["factors"] else "arm"
    costs = [arm["cost"] for arm in metrics["arms"].values() if arm["kind"] == kind]
    spent = []
    for key, unit, divisor in (("steps", "steps", 1), ("tokens", "tokens", 1), ("seconds", "minutes", 60)):
        if values := [cost[key] / divisor for cost in costs if cost.get(key)]:
            low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
            spent.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    took = f"; the trained {kind}s took {', '.join(spent)} each" if spent else ""
    return f"{said}{f' ({amount:,.0f})' if amount else ''}{took}."
