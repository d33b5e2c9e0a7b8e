"""The reference pages say what the code says."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from vrft.recipe.sections import Data, TaskSection

DOCS = Path(__file__).parents[1] / "docs"


def generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


PAGES = generated()


@pytest.mark.parametrize("page", PAGES)
def test_a_reference_page_is_not_stale(page: str):
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert written == PAGES[page].rstrip() + "\n", "run make docs"


@pytest.mark.parametrize(
    "page", [page.name for page in DOCS.glob("*.md") if ">>> " in page.read_text(encoding="utf-8")]
)
def test_the_examples_of_a_page_give_what_it_says(page: str):
    failures, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert tried
    assert not failures


def test_the_sections_of_the_page_about_data_are_right():
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    sections = []
    for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL):
        starts = re.split(r"(?m)^(?=data:|task:)", block)
        sections += [yaml.safe_load(part) for part in starts if part.strip()]
    assert len(sections) >= 8
    for section in sections:
        ((key, plain),) = section.items()
        TypeAdapter({"data": Data, "task": TaskSection}[key]).validate_python(plain)
