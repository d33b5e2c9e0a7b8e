"""Re-create every figure and number of the measured ablations from their files: ``python docs/results/make.py``.

In each folder here ``records.json`` and ``predictions.parquet`` become ``metrics.json``, the tables and, with
``logs.parquet``, the page (``report.html``, which is not kept in the repository). The pages of ``docs/`` that quote
figures are written from their templates here, so that no number in them was typed by hand. A test fails when they are
stale.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vrft.evaluation.summary import summarise, write_metrics
from vrft.report import write_report
from vrft.report.sentences import interval, p_in_words, pairs_of
from vrft.runs import RunDirectory, read_json

HERE = Path(__file__).parent


def folders() -> list[Path]:
    """The measured ablations."""
    return sorted(path.parent for path in HERE.glob("*/records.json"))


def name_of(folder: Path) -> str:
    """The name of an ablation in the templates."""
    return folder.name.removeprefix("ablation-")


def summaries() -> dict[str, dict[str, Any]]:
    """The figures of each ablation, computed anew; nothing is written."""
    return {
        name_of(folder): summarise(read_json(folder / "records.json"), pd.read_parquet(folder / "predictions.parquet"))
        for folder in folders()
    }


def pages(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The pages of ``docs/`` that quote figures, by name."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    quoted: dict[str, Any] = {name: partial(_say, found, say) for name, say in SAYINGS.items()}
    quoted |= {"of": found, "logged": _logged}
    names = [path.name.removesuffix(".j2") for path in sorted(HERE.glob("*.md.j2"))]
    return {name: environment.get_template(f"{name}.j2").render(**quoted) for name in names}


def _row(metrics: dict[str, Any], name: str, metric: str | None = None) -> dict[str, Any]:
    """An effect or a comparison of two arms on the headline metric, or an effect on another metric."""
    rows = metrics["also"][metric] if metric else [*metrics["effects"], *pairs_of(metrics)]
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
        raise KeyError(f"there is no {name!r}; there are {', '.join(row['name'] for row in rows)}")
    return row


def _effect(metrics: dict[str, Any], name: str) -> str:
    """An effect with its interval and corrected p."""
    row = _row(metrics, name)
    p = p_in_words(row["p_holm"])
    return f"{interval(row)}, Holm p {p if p.startswith('<') else f'= {p}'}"


def _also(metrics: dict[str, Any], name: str, metric: str) -> str:
    """An effect in a metric beside the headline, outside the family of tests."""
    return interval(_row(metrics, name, metric))


def _verdict(metrics: dict[str, Any], name: str) -> str:
    """An effect and whether it was detected; if not, the minimum detectable effect."""
    row = _row(metrics, name)
    if row["detected"]:
        return f"**{interval(row)}, detected**"
    limit = f"{row['minimum_detectable_effect']:.3f}" if row["minimum_detectable_effect"] < 1 else "no size"
    return f"{interval(row)}, not detected [{limit}]"


def _minimum_effect(metrics: dict[str, Any], name: str) -> str:
    return f"{_row(metrics, name)['minimum_detectable_effect']:.3f}"


def _arm(metrics: dict[str, Any], name: str, metric: str | None = None) -> str:
    """A metric of an arm with its interval."""
    row = metrics["arms"][name][metric or metrics["metric"]]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _seeds(metrics: dict[str, Any], name: str) -> str:
    """The headline metric of an arm, seed by seed."""
    return ", ".join(f"{value:.3f}" for value in metrics["arms"][name]["per_seed"])


def _cost(metrics: dict[str, Any], name: str, key: str) -> str:
    """The cost of an arm, the mean of a seed."""
    return f"{metrics['arms'][name]['cost'][key]:,.0f}"


def _cell_count(metrics: dict[str, Any]) -> int:
    return sum(arm["kind"] == "cell" for arm in metrics["arms"].values())


def _cells(metrics: dict[str, Any]) -> str:
    cells = _cell_count(metrics)
    return f"{cells}, {len(metrics['arms']) - cells}, {len(metrics['seeds'])}"


def _hours(metrics: dict[str, Any]) -> str:
    return f"{metrics['work_seconds'] / 3600:.1f}"


SAYINGS: dict[str, Callable[..., Any]] = {
    "effect": _effect,
    "verdict": _verdict,
    "also": _also,
    "minimum_effect": _minimum_effect,
    "arm": _arm,
    "seeds": _seeds,
    "cost": _cost,
    "cells": _cells,
    "cell_count": _cell_count,
    "hours": _hours,
}
"""The figures of an ablation that the templates can quote, by name."""


def _logged(ablation: str, arm: str, figure: str, steps: int = 10) -> str:
    """The mean of a figure of the log over the last steps of an arm and over its seeds."""
    logs = pd.read_parquet(HERE / f"ablation-{ablation}" / "logs.parquet")
    own = logs[logs["arm"] == arm]
    last = own[own["step"] > own.groupby("seed")["step"].transform("max") - steps]
    return f"{last[figure].mean():.2f}"


def _say(found: dict[str, dict[str, Any]], say: Callable[..., Any], ablation: str, *args: str) -> Any:
    return say(found[ablation], *args)


def main() -> None:
    found = {}
    for folder in folders():
        directory = RunDirectory(folder)
        found[name_of(folder)] = write_metrics(directory)
        write_report(directory)
    for name, text in pages(found).items():
        (HERE.parent / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
