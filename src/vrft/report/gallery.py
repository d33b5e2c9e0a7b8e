"""The answers of the arms beside the images, and the counts of truth by answer."""

import base64
import json
from typing import Any

import pandas as pd
from PIL import Image

from vrft.evaluation.box_metrics import HIT, tally
from vrft.montage import FIRST_SHARE, SAMPLE
from vrft.report.curves import Line
from vrft.response import parse, scale_of
from vrft.runs import RunDirectory

SHOWN = 12
"""Test images shown with the answers of the arms."""

STROKES = ("", "6 3", "2 3", "8 3 2 3", "4 4", "1 4")
"""Line styles of the arms' boxes, beside their colours; the truth is a thick white line on a dark one."""


def grade_names(task: dict[str, Any]) -> dict[str, str]:
    """The names of grades by index, where the names of a recipe's task hold numerals; else empty."""
    names = task["levels"] if isinstance(task.get("levels"), list) else task.get("names")
    if task.get("kind") != "grading" or not names:
        return {}
    try:
        by_index = scale_of(len(names), names).by_index
    except ValueError:  # of an older run
        return {}
    return {} if by_index else {str(grade): name for grade, name in enumerate(names)}


def confusions(predictions: pd.DataFrame, arms: list[str], names: dict[str, str]) -> list[dict[str, Any]]:
    """For each arm the counts of truth by answer over all its seeds, with their share of the row.

    The last column is for answers that were not read.
    """
    classes = sorted(predictions["target"].unique(), key=lambda t: (not t.isdigit(), int(t) if t.isdigit() else 0, t))
    answers = [*classes, *sorted(set(predictions["answer"].dropna()) - set(classes)), "unread"]
    tables = []
    for arm in arms:
        rows = predictions[predictions["arm"] == arm]
        counts = pd.crosstab(rows["target"], rows["answer"].fillna("unread"))
        counts = counts.reindex(index=classes, columns=answers, fill_value=0)
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        cells = [list(zip(*pair, strict=True)) for pair in zip(counts.to_numpy(), shares.to_numpy(), strict=True)]
        heads = {key: [names.get(one, one) for one in of] for key, of in (("rows", classes), ("columns", answers))}
        tables.append({"arm": arm, "cells": cells, **heads})
    return tables


def gallery(
    directory: RunDirectory, predictions: pd.DataFrame, lines: dict[str, Line], names: dict[str, str]
) -> list[dict[str, Any]]:
    """Test samples with the reasoning and the answer of each arm of ``lines`` (its first seed) side by side."""
    first = predictions.groupby("arm")["seed"].transform("min") == predictions["seed"]
    rows = {(row["sample"], row["arm"]): row for row in predictions[first].to_dict("records")}
    items: list[dict[str, Any]] = []
    for path in sorted(directory.gallery.glob("*.png")):
        with Image.open(path) as picture:
            # of an older run there are no texts
            sample, share = str(picture.info.get(SAMPLE, path.stem)), float(picture.info.get(FIRST_SHARE, 1))
        found = [(arm, rows[sample, arm]) for arm in lines if (sample, arm) in rows]
        if not found or len(items) == SHOWN:
            continue
        truth = found[0][1]
        size = json.loads(truth["image_size"]) if isinstance(truth.get("image_size"), str) else None
        answers = [_answer(row, names, size) | {"arm": arm} for arm, row in found]
        for place, answer in enumerate(answers):
            answer |= {"colour": lines[answer["arm"]].colour, "stroke": STROKES[place % len(STROKES)]}
        item = {"sample": sample, "target": names.get(truth["target"], truth["target"]), "answers": answers}
        item |= {"picture": base64.b64encode(path.read_bytes()).decode("ascii")}
        item |= {"ratio": size and size[0] / size[1] / share, "first": 100 * share}
        item |= {"truth": _shares(truth["target"], size)}
        items.append(item)
    return items


def _answer(row: dict[Any, Any], names: dict[str, str], size: list[int] | None) -> dict[str, Any]:
    """The completion of a row in its parts, the answer that was read, and whether it is right."""
    end = row.get("prompt_end")  # only of policies whose chat template opens a block
    envelope = parse(row["completion"], prompt_end=end if isinstance(end, str) else "")
    read, right = None if pd.isna(row["answer"]) else row["answer"], row["answer"] == row["target"]
    if read is not None and size:  # boxes are right where their overlap reaches one half
        boxes = json.loads(read)
        reached = tally([{"target": json.loads(row["target"]), "answer": boxes}], "answer")[0, 0]
        listed = "; ".join("[" + ", ".join(f"{number:.0f}" for number in box) + "]" for box in boxes[:4])
        more = f" and {len(boxes) - 4} more" if len(boxes) > 4 else ""
        read, right = f"IoU {reached:.2f}: {listed or 'no box'}{more}", reached >= HIT
    return {
        "think": envelope.think,
        "answer": envelope.answer,
        "raw": None if row["well_formed"] else row["completion"],
        "read": names.get(read, read) if read is not None else None,
        "right": bool(right),
        "boxes": _shares(row["answer"], size),
    }


def _shares(text: Any, size: list[int] | None) -> list[dict[str, float]]:
    """Boxes in per cent of the image; empty where the answers are no boxes, or nothing was read."""
    if not size or not isinstance(text, str):
        return []
    width, height = size
    return [
        {"x": 100 * a / width, "y": 100 * b / height, "w": 100 * (c - a) / width, "h": 100 * (d - b) / height}
        for a, b, c, d in json.loads(text)
    ]
