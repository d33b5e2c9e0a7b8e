"""Re-create every figure and number of the measured ablations from their files: ``python docs/results/make.py``.

Of each folder here ``runs.json`` and ``predictions.parquet`` become ``ablation.json``, the tables and, with
``logs.parquet``, the page (``ablation.html``, which is not kept in the repository). The pages of ``docs/`` that quote
figures are written from their templates here, so that no number in them was typed by hand. A test fails when they are
stale.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vrft.ablation.summary import summarise_ablation, summary_of
from vrft.report import write_ablation_report
from vrft.report.ablation_words import p_in_words, signed
from vrft.runs import AblationDirectory, read_json

HERE = Path(__file__).parent


def folders() -> list[Path]:
    """The measured ablations."""
    return sorted(path.parent for path in HERE.glob("*/runs.json"))


def summaries() -> dict[str, dict[str, Any]]:
    """The figures of each ablation, computed anew."""
    return {
        folder.name.removeprefix("ablation-"): summary_of(
            read_json(folder / "runs.json"), pd.read_parquet(folder / "predictions.parquet")
        )
        for folder in folders()
    }


def pages(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The pages of ``docs/`` that quote figures, by name."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    quoted = {"effect": _quoter(found, _effect), "arm": _quoter(found, _arm), "seen": _quoter(found, _seen)}
    quoted |= {"smallest": _quoter(found, _smallest), "also": _quoter(found, _also), "of": found}
    names = [path.name.removesuffix(".j2") for path in sorted(HERE.glob("*.md.j2"))]
    return {name: environment.get_template(f"{name}.j2").render(**quoted) for name in names}


def _quoter(found: dict[str, dict[str, Any]], say: Callable[..., str]) -> Callable[..., str]:
    return lambda ablation, *args: say(found[ablation], *args)


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


def _seen(ablation: dict[str, Any], name: str) -> str:
    return "seen" if _row(ablation["effects"], "name", name)["seen"] else "not seen"


def _smallest(ablation: dict[str, Any], name: str) -> str:
    return f"{_row(ablation['effects'], 'name', name)['smallest']:.3f}"


def _arm(ablation: dict[str, Any], name: str, metric: str | None = None) -> str:
    """A metric of an arm with its interval."""
    row = _row(ablation["arms"], "arm", name)["metrics"][metric or ablation["metric"]]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def main() -> None:
    for folder in folders():
        directory = AblationDirectory(folder)
        summarise_ablation(directory)
        write_ablation_report(directory)
    for name, text in pages(summaries()).items():
        (HERE.parent / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
