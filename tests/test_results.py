"""The measured ablations: their figures and the pages that quote them are what their files give."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from vrft.runs import read_json

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / "docs"


def load_make() -> Any:
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "results" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = load_make()


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    return MAKE.summaries()


def close(one: Any, other: Any) -> None:
    """Equal, numbers up to rounding on another machine."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    else:
        assert one == other


def test_there_are_the_two_ablations(found: dict[str, Any]):
    assert {"phantom", "retinamnist"} <= set(found)


def test_the_figures_are_what_the_predictions_give(found: dict[str, dict[str, Any]]):
    for folder in MAKE.folders():
        close(read_json(folder / "metrics.json"), found[MAKE.name_of(folder)])


def test_the_pages_quote_these_figures(found: dict[str, dict[str, Any]]):
    pages = MAKE.pages(found)
    assert {"claims.md", "heuristics.md"} <= set(pages)
    for name, text in pages.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "run python docs/results/make.py"
