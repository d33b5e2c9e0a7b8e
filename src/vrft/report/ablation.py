"""One self-contained HTML page of an ablation, made from the files in its directory alone.

Read are ``ablation.json``, ``logs.parquet``, ``recipe.yaml`` and ``environment.json``. All text in them is escaped, by
the template or, where it goes into a figure, in ``ablation_figures``.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from vrft.image_log import warning_sentences
from vrft.report.ablation_figures import forests, interactions, sweep_of
from vrft.report.ablation_words import in_words, p_in_words, signed, title_of
from vrft.report.curves import Line, draw_curves
from vrft.report.page import COLOURS, template
from vrft.report.tables import base_of, metrics_of, write_tables
from vrft.runs import RunDirectory, read_json, write_json, write_text

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Line styles, the next one where the colours are used up."""

STROKES = {"solid": "", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "9 3", "longdashdot": "9 3 2 3"}
"""The same for the samples of lines beside the names."""

VISIBLE = 6
"""Arms whose curves are drawn at first: more lines than this cannot be told apart."""

ARM_KINDS = {"cell": "Cells of the factorial", "control": "Controls", "sweep": "Sweep"}

MATCHES = {
    "stages": "Every arm is trained with the stages of the recipe that it has; one with more stages trains longer",
    "steps": "Every arm is trained for the same number of steps",
    "tokens": "Every arm is trained on the same number of tokens",
    "seconds": "Every arm is trained for the same time",
}
"""What a budget holds equal."""


def write_ablation_report(directory: RunDirectory) -> Path:
    """Write the words into ``ablation.json``, then the tables and the page, whose path is returned."""
    ablation = read_json(directory.summary)
    write_json(directory.summary, {**ablation, "words": in_words(ablation)})
    write_tables(directory.path)
    return write_ablation_page(directory.path)


def write_ablation_page(directory: Path) -> Path:
    """Write ``ablation.html`` from the files of an ablation and return its path."""
    ablation = read_json(directory / "ablation.json")
    recipe, environment, logs = (directory / name for name in ("recipe.yaml", "environment.json", "logs.parquet"))
    base = base_of(ablation)
    logged = pd.read_parquet(logs) if logs.exists() else pd.DataFrame(columns=["arm"])
    lines = _lines(ablation, base, logged)
    html = template("ablation.html.j2").render(
        plotly=get_plotlyjs(),
        ablation=ablation,
        words=ablation.get("words") or in_words(ablation),
        title=title_of(ablation["metric"]),
        titles={metric: title_of(metric) for metric in metrics_of(ablation)},
        arms=_arms(ablation),
        base=base,
        forests=forests(ablation),
        effects=ablation["effects"],
        interactions=interactions(ablation),
        sweep=sweep_of(ablation),
        budget=_budget(ablation),
        odd=warning_sentences(ablation.get("pictures", {})),
        curves=draw_curves(logged, lines, mean=True, legend=False) if lines else "",
        lines=[{"arm": arm, "line": line, "stroke": STROKES[line.dash]} for arm, line in lines.items()],
        p=p_in_words,
        signed=signed,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        environment=read_json(environment) if environment.exists() else {},
    )
    path = directory / "ablation.html"
    write_text(path, html)
    return path


# --- the table of arms ------------------------------------------------------------------------------------------------


def _arms(ablation: dict[str, Any]) -> list[dict[str, Any]]:
    """The arms by kind, each with its levels and with its headline figure as shares of the scale of its kind."""
    metric = ablation["metric"]
    groups = []
    for kind, heading in ARM_KINDS.items():
        arms = [arm for arm in ablation["arms"] if arm["kind"] == kind]
        ends = [end for arm in arms for end in _ends(arm, metric)] or [0.0]
        low, width = min(ends), (max(ends) - min(ends)) or 1.0

        def share(value: float, low: float = low, width: float = width) -> float:
            return 100 * (value - low) / width

        rows = []
        for arm in arms:
            figure = arm["metrics"].get(metric)
            strip = figure and {key: share(figure[key]) for key in ("low", "value", "high")}
            dots = [share(value) for value in arm["per_seed"] or [] if value is not None]
            rows.append({**arm, "strip": strip, "dots": dots, "cost": arm.get("cost") or {}})
        if rows:
            groups.append({"kind": kind, "heading": heading, "rows": rows})
    return groups


def _ends(arm: dict[str, Any], metric: str) -> list[float]:
    figure = arm["metrics"].get(metric) or {}
    return [value for value in (figure.get("low"), figure.get("high"), *(arm["per_seed"] or [])) if value is not None]


# --- training ---------------------------------------------------------------------------------------------------------


def _lines(ablation: dict[str, Any], base: str | None, logs: pd.DataFrame) -> dict[str, Line]:
    """How the curves of each arm are drawn: at first the base, the fullest cell and some controls alone."""
    logged = set(logs["arm"])
    arms = {arm["arm"]: arm for arm in ablation["arms"] if arm["arm"] in logged}
    first = {name: levels[0] for name, levels in ablation["factors"].items()}

    def fullness(name: str) -> int:
        return sum(level != first.get(factor) for factor, level in (arms[name]["levels"] or {}).items())

    cells = [name for name, arm in arms.items() if arm["kind"] == "cell"]
    leading = [name for name in (base, max(cells, key=fullness, default=None)) if name in arms]
    leading += [name for name, arm in arms.items() if arm["kind"] == "control"]
    shown = list(dict.fromkeys(leading))[:VISIBLE]
    colours = shown + [name for name in arms if name not in shown]  # those first seen have a colour of their own
    styles = {
        name: Line(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)], name in shown)
        for i, name in enumerate(colours)
    }
    return {name: styles[name] for name in arms}


# --- words ------------------------------------------------------------------------------------------------------------


def _budget(ablation: dict[str, Any]) -> str:
    """What the arms had in common, and what the cells then cost."""
    budget = ablation["budget"]
    match, amount = budget["match"], budget.get("amount")
    said = MATCHES.get(match, f"Every arm is trained with the same {match}")
    costs = [arm["cost"] for arm in ablation["arms"] if arm["kind"] == "cell" and arm.get("cost")]
    spent = []
    for key, unit, divisor in (("steps", "steps", 1), ("tokens", "tokens", 1), ("seconds", "minutes", 60)):
        values = [cost[key] / divisor for cost in costs if cost.get(key) is not None]
        if values:
            low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
            spent.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    told = f"; the cells took {', '.join(spent)} each" if spent else ""
    return f"{said}{f' ({amount:,.0f})' if amount else ''}{told}."
