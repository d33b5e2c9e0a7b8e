"""The table of mutations fits the code; the mutations themselves are run by hand (``python tools/mutations.py``)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "tools" / "mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_applies_to_the_present_code(tool: ModuleType):
    assert tool.stale_rows(tool.read_table()) == []


def test_every_row_names_tests_that_exist(tool: ModuleType):
    named = {path for one in tool.read_table() for path in one.tests.partition(" -k ")[0].split()}
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_mutated_python_file_still_compiles(tool: ModuleType):
    for one in tool.read_table():
        text = (ROOT / tool.SOURCE / one.file).read_text(encoding="utf-8")
        compile(text.replace(one.old, one.new), one.file, "exec")


def test_a_text_that_does_not_occur_once_is_stale(tool: ModuleType, tmp_path: Path):
    (tmp_path / tool.SOURCE).mkdir(parents=True)
    (tmp_path / tool.SOURCE / "a.py").write_text("x = 1\ny = 1\n")
    rows = [tool.Mutation("lowest", "a.py", old, "2", "") for old in ("x", "1", "z")]
    assert len(tool.stale_rows(rows, tmp_path)) == 2


def test_a_mutation_is_taken_back(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / tool.SOURCE / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n")
    seen: list[str] = []
    monkeypatch.setattr(tool, "passes", lambda tree, tests: bool(seen.append(path.read_text())))
    assert not tool.survives(tmp_path, tool.Mutation("lowest", "a.py", "1", "2", "tests"))
    assert seen == ["x = 2\n"]
    assert path.read_text() == "x = 1\n"


def test_shares_count_the_caught_of_each_layer(tool: ModuleType):
    rows = [{"layer": "a", "caught": True}, {"layer": "a", "caught": False}, {"layer": "b", "caught": True}]
    assert tool.shares(rows) == {"a": (1, 2), "b": (1, 1)}
