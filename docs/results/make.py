"""Re-create every figure and number of the measured ablations from their files: ``python docs/results/make.py``.

Of each folder here ``runs.json`` and ``predictions.parquet`` become ``ablation.json``, the tables and, with
``logs.parquet``, the page (``ablation.html``, which is not kept in the repository). The pages of ``docs/`` that quote
figures are written from their templates here, so that no number in them was typed by hand. A test fails when they are
stale.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vrft.experiment.summary import summarise_ablation, summary_of
from vrft.report import write_ablation_report
from vrft.report.ablation_words import p_in_words, signed
from vrft.runs import AblationDirectory, read_json

HERE = Path(__file__).parent


def folders() -> list[Path]:
    """The measured ablations."""
    return sorted(path.parent for path in HERE.glob("*/runs.json"))


def name_of(folder: Path) -> str:
    """What the templates call an ablation."""
    return folder.name.removeprefix("ablation-")


def summaries() -> dict[str, dict[str, Any]]:
    """The figures of each ablation, computed anew; nothing is written."""
    return {
        name_of(folder): summary_of(read_json(folder / "runs.json"), pd.read_parquet(folder / "predictions.parquet"))
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


def _row(rows: list[dict[str, Any]], key: str, name: str) -> dict[str, Any]:
    row = next((row for row in rows if row[key] == name), None)
    if row is None:
        raise KeyError(f"there is no {name!r}; there are {', '.join(row[key] for row in rows)}")
    return row


def _numbers(row: dict[str, Any]) -> str:
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def _effect(ablation: dict[str, Any], name: str) -> str:
    """An effect with its interval and corrected p."""
    row = _row(ablation["effects"], "name", name)
    p = p_in_words(row["p_holm"])
    return f"{_numbers(row)}, Holm p {p if p.startswith('<') else f'= {p}'}"


def _also(ablation: dict[str, Any], name: str, metric: str) -> str:
    """An effect in a metric beside the headline, outside the family of tests."""
    return _numbers(_row(ablation["also"][metric], "name", name))


def _told(ablation: dict[str, Any], name: str) -> str:
    """An effect and whether it was seen; if not, how large it must have been."""
    row = _row(ablation["effects"], "name", name)
    if row["seen"]:
        return f"**{_numbers(row)}, seen**"
    limit = f"{row['minimum_detectable_effect']:.3f}" if row["minimum_detectable_effect"] < 1 else "no size"
    return f"{_numbers(row)}, not seen [{limit}]"


def _minimum_effect(ablation: dict[str, Any], name: str) -> str:
    return f"{_row(ablation['effects'], 'name', name)['minimum_detectable_effect']:.3f}"


def _arm(ablation: dict[str, Any], name: str, metric: str | None = None) -> str:
    """A metric of an arm with its interval."""
    row = _row(ablation["arms"], "arm", name)["metrics"][metric or ablation["metric"]]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _seeds(ablation: dict[str, Any], name: str) -> str:
    """The headline metric of an arm, seed by seed."""
    return ", ".join(f"{value:.3f}" for value in _row(ablation["arms"], "arm", name)["per_seed"])


def _cost(ablation: dict[str, Any], name: str, key: str) -> str:
    """What an arm cost, the mean of a seed."""
    return f"{_row(ablation['arms'], 'arm', name)['cost'][key]:,.0f}"


def _cells(ablation: dict[str, Any]) -> str:
    cells = sum(arm["kind"] == "cell" for arm in ablation["arms"])
    return f"{cells}, {len(ablation['arms']) - cells}, {len(ablation['seeds'])}"


def _hours(ablation: dict[str, Any]) -> str:
    return f"{ablation['work_seconds'] / 3600:.1f}"


SAYINGS: dict[str, Callable[..., str]] = {
    "effect": _effect,
    "told": _told,
    "also": _also,
    "minimum_effect": _minimum_effect,
    "arm": _arm,
    "seeds": _seeds,
    "cost": _cost,
    "cells": _cells,
    "hours": _hours,
}
"""What the templates can say of an ablation, by name."""


def _logged(ablation: str, arm: str, figure: str, steps: int = 10) -> str:
    """The mean of a figure of the log over the last steps of an arm and over its seeds."""
    logs = pd.read_parquet(HERE / f"ablation-{ablation}" / "logs.parquet")
    own = logs[logs["arm"] == arm]
    last = own[own["step"] > own.groupby("seed")["step"].transform("max") - steps]
    return f"{last[figure].mean():.2f}"


def _say(found: dict[str, dict[str, Any]], say: Callable[..., str], ablation: str, *args: str) -> str:
    return say(found[ablation], *args)


def main() -> None:
    found = {}
    for folder in folders():
        directory = AblationDirectory(folder)
        found[name_of(folder)] = summarise_ablation(directory)
        write_ablation_report(directory)
    for name, text in pages(found).items():
        (HERE.parent / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
