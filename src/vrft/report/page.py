"""One self-contained HTML page of a run: it opens from disk, without a network.

All that a model wrote is escaped by the template (Jinja2 with autoescape); pictures and scripts are inside the page.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, Template, select_autoescape
from plotly.offline import get_plotlyjs

from vrft.evaluation.box_metrics import HIT, tally
from vrft.image_log import warning_sentences
from vrft.report.curves import Line, draw_curves
from vrft.response import parse, scale_of
from vrft.runs import RunDirectory, read_json, read_jsonl, write_text
from vrft.tasks import LOWER_IS_BETTER

COLOURS = ("#5b6b7b", "#3572b0", "#d98324", "#2f8f5b", "#a4476b", "#6a53a8", "#8a6d3b", "#1f9ea3")
"""One for each arm, the same in every figure; told apart by people who see colours differently too."""

GALLERY = 12
"""Test images shown with the answers of all arms."""

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "macro_f1": "macro F1",
    "qwk": "quadratic kappa",
    "mae": "mean abs. error",
    "mean_iou": "mean IoU",
    "f1_50": "F1 at IoU 0.5",
    "precision50": "precision at 0.5",
    "recall50": "recall at 0.5",
    "format_rate": "format",
    "read_rate": "read",
}
"""How the table calls a metric."""


def write_report(directory: RunDirectory) -> Path:
    """Write ``report.html`` of a finished run and return its path."""
    metrics = read_json(directory.metrics)
    predictions = pd.read_parquet(directory.predictions)
    arms = list(metrics["arms"])
    colours = dict(zip(arms, COLOURS * (1 + len(arms) // len(COLOURS)), strict=False))
    recipe_text = directory.recipe.read_text(encoding="utf-8")
    data = read_json(directory.data) if directory.data.exists() else {}
    plan = yaml.safe_load(recipe_text)
    called = _grades_called(plan["task"])
    html = template("page.html.j2").render(
        plotly=get_plotlyjs(),
        plan=plan,
        metrics=metrics,
        columns=_columns(metrics),
        titles=TITLES,
        colours=colours,
        words=_in_words(metrics),
        comparisons=_comparisons(metrics),
        curves=draw_curves(_logs(directory, arms), {arm: Line(colours[arm]) for arm in arms}),
        confusions=_confusions(predictions, arms, called) if "accuracy" in next(iter(metrics["arms"].values())) else [],
        gallery=_gallery(directory, predictions, arms, colours, called),
        perception=_perception(metrics),
        data=data,
        odd=warning_sentences(data.get("pictures", {})),
        recipe=recipe_text,
        environment=read_json(directory.environment),
    )
    write_text(directory.report, html)
    return directory.report


def template(name: str) -> Template:
    """A template of this room; whatever is put into it is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=select_autoescape(default=True), trim_blocks=True).get_template(name)


def _grades_called(task: dict[str, Any]) -> dict[str, str]:
    """What the page calls grades instead of their index, where the names of a recipe's task hold numerals."""
    names = task["levels"] if isinstance(task.get("levels"), list) else task.get("names")
    if task["kind"] != "grading" or not names:
        return {}
    try:
        by_index = scale_of(len(names), names).by_index
    except ValueError:  # of an older run
        return {}
    return {} if by_index else {str(grade): name for grade, name in enumerate(names)}


def _columns(metrics: dict[str, Any]) -> list[str]:
    """The metrics of the table, in a fixed order; a lenient one stands where any arm has it."""
    first = next(iter(metrics["arms"].values()))
    strict = [key for key in first if key in TITLES]
    lenient = [f"{key}_lenient" for key in strict if any(f"{key}_lenient" in arm for arm in metrics["arms"].values())]
    return strict + lenient


def _perception(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The table of what the stages with a task of their own have learnt; None where there are none."""
    measured = metrics.get("perception")
    return measured and {"arms": measured["arms"], "columns": _columns(measured)}


def _comparisons(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Paired differences on the headline metric: kappa on ordinal grades, else accuracy; and accuracy always."""
    return [row for row in metrics["comparisons"] if row["metric"] in ("accuracy", "qwk", "mean_iou", "f1_50")]


def _in_words(metrics: dict[str, Any]) -> list[str]:
    """Sentences made of the numbers alone: what RFT changed against the other arms, and whether knowledge is used."""
    arms, sentences = metrics["arms"], []
    metric = next(name for name in ("qwk", "mean_iou", "accuracy") if name in next(iter(arms.values())))
    for row in metrics["comparisons"]:
        if row["metric"] != metric or not row["a"].startswith(("rft", "PA_pi")) or row["b"] in TOLD:
            continue
        better = "higher" if (row["difference"] > 0) != (metric in LOWER_IS_BETTER) else "lower"
        seen = row["low"] > 0 or row["high"] < 0
        change = _change(row)
        if seen:
            sentences.append(f"{row['a']} has a {better} {TITLES[metric]} than {row['b']}: {change}.")
        else:
            sentences.append(
                f"Between {row['a']} and {row['b']} no difference in {TITLES[metric]} could be seen: {change}."
            )
    return sentences + _use_of_knowledge(metrics, metric)


def _change(row: dict[str, Any]) -> str:
    """A paired difference in words."""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p = {row['p']:.3g}"


def _use_of_knowledge(metrics: dict[str, Any], metric: str) -> list[str]:
    """Whether the policy that was told about the classes does worse when it is told nothing, or something wrong."""
    sentences = []
    for row in metrics["comparisons"]:
        if row["metric"] != metric or row["b"] != "rft+PA_p" or row["a"] not in TOLD:
            continue
        change = _change(row)
        worse = row["low"] > 0 if metric in LOWER_IS_BETTER else row["high"] < 0
        if not worse:
            verdict = "no loss could be seen, so nothing shows that it uses what it is told"
        elif row["a"] == "swapped":
            verdict = "it uses what it is told"
        else:
            verdict = "it needs lines in their place, which alone does not show that it uses what they say"
        sentences.append(
            f"Tested {TOLD[row['a']]}, the policy of rft+PA_p changes in {TITLES[metric]} by {change}: {verdict}."
        )
    return sentences


TOLD = {
    "without": "without the card",
    "swapped": "with descriptions exchanged between the classes",
    "irrelevant": "with as many words about something else",
}
"""What the prompts hold in the arms that test the policy of rft+PA_p otherwise."""


# --- figures --------------------------------------------------------------------------------------------------------


def _logs(directory: RunDirectory, arms: list[str]) -> pd.DataFrame:
    """The logs of all arms and seeds, one row a logged step with its stages one after another; dotted columns."""
    logs: list[dict[str, Any]] = []
    for arm in arms:
        for seed in sorted((directory.path / "arms" / arm).glob("seed-*")):
            number = int(seed.name.split("-")[1])
            step = 0
            for stage in directory.arm(arm, number).stages():
                offset = step
                for row in read_jsonl(stage.log):
                    step = row["step"] + offset
                    logs.append(row | {"arm": arm, "seed": number, "step": step})
    return pd.json_normalize(logs)


def _confusions(predictions: pd.DataFrame, arms: list[str], called: dict[str, str]) -> list[dict[str, Any]]:
    """For each arm the counts of truth by answer, over all its seeds; the last column is what was not read."""
    classes = sorted(predictions["target"].unique(), key=lambda t: (not t.isdigit(), int(t) if t.isdigit() else 0, t))
    answers = [*classes, *sorted(set(predictions["answer"].dropna()) - set(classes)), "unread"]
    tables = []
    for arm in arms:
        rows = predictions[predictions["arm"] == arm]
        counts = pd.crosstab(rows["target"], rows["answer"].fillna("unread"))
        counts = counts.reindex(index=classes, columns=answers, fill_value=0)
        shares = counts.to_numpy() / np.maximum(counts.to_numpy().sum(axis=1, keepdims=True), 1)
        cells = [list(zip(c, s, strict=True)) for c, s in zip(counts.to_numpy().tolist(), shares.tolist(), strict=True)]
        heads = {key: [called.get(one, one) for one in of] for key, of in (("rows", classes), ("columns", answers))}
        tables.append({"arm": arm, **heads, "cells": cells})
    return tables


def _judged(row: dict[Any, Any]) -> tuple[str | None, bool]:
    """What was read, in words, and whether it is right; boxes are where their overlap reaches one half."""
    if pd.isna(row["answer"]):
        return None, False
    if not isinstance(row.get("image_size"), str):
        return row["answer"], row["answer"] == row["target"]
    boxes = json.loads(row["answer"])
    reached = tally([{"target": json.loads(row["target"]), "answer": boxes}], "answer")[0, 0]
    listed = "; ".join("[" + ", ".join(f"{number:.0f}" for number in box) + "]" for box in boxes[:4])
    more = f" and {len(boxes) - 4} more" if len(boxes) > 4 else ""
    return f"IoU {reached:.2f}: {listed or 'no box'}{more}", reached >= HIT


DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 4", "1 4")
"""Line styles of the arms' boxes, beside their colours; the truth is a thick white line on a dark one."""


def _drawn(rows: list[Any], arms: list[str], colours: dict[str, str]) -> dict[str, Any]:
    """The boxes of the truth and of each arm in shares of the picture, where the answers are boxes."""
    size = rows[0].get("image_size")
    if not isinstance(size, str):
        return {"boxes": []}
    width, height = json.loads(size)

    def shares(text: Any) -> list[dict[str, float]]:
        boxes = json.loads(text) if isinstance(text, str) else []
        return [
            {"x": 100 * a / width, "y": 100 * b / height, "w": 100 * (c - a) / width, "h": 100 * (d - b) / height}
            for a, b, c, d in boxes
        ]

    drawn = [{"boxes": shares(rows[0]["target"]), "colour": None, "dash": ""}]
    for arm, row, dash in zip(arms, rows, DASHES * (1 + len(arms) // len(DASHES)), strict=False):
        drawn.append({"boxes": shares(row["answer"]), "colour": colours[arm], "dash": dash})
    return {"boxes": drawn, "ratio": width / height}


def _gallery(
    directory: RunDirectory,
    predictions: pd.DataFrame,
    arms: list[str],
    colours: dict[str, str],
    called: dict[str, str],
) -> list[dict[str, Any]]:
    """Test images with the reasoning and the answer of each arm (its first seed) side by side."""
    items = []
    first = predictions.groupby("arm")["seed"].transform("min") == predictions["seed"]
    rows = {(row["sample"], row["arm"]): row for row in predictions[first].to_dict("records")}
    for path in sorted(directory.gallery.glob("*.png"))[:GALLERY]:
        answers = []
        for arm in arms:
            row = rows[path.stem, arm]
            end = row.get("prompt_end")  # only of policies whose chat template opens a block
            envelope = parse(row["completion"], prompt_end=end if isinstance(end, str) else "")
            read, right = _judged(row)
            answers.append(
                {
                    "arm": arm,
                    "think": envelope.think,
                    "answer": envelope.answer,
                    "raw": None if row["well_formed"] else row["completion"],
                    "read": called.get(read, read) if read is not None else None,
                    "right": right,
                }
            )
        picture = base64.b64encode(path.read_bytes()).decode("ascii")
        drawn = _drawn([rows[path.stem, arm] for arm in arms], arms, colours)
        target = called.get(row["target"], row["target"])
        items.append({"sample": path.stem, "target": target, "picture": picture, "answers": answers, **drawn})
    return items
