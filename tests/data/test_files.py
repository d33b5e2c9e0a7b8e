"""Small unusual data sets, made after reports of users: each is run unchanged, and its predictions are checked."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrft.cli.main import main

SHARED = Path(__file__).parents[3] / "shared" / "cases"
LISTED = SHARED / "files.jsonl"
SETS = [json.loads(line) for line in LISTED.read_text(encoding="utf-8").splitlines()] if LISTED.is_file() else []


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """The exit code of ``vrft run recipe.yaml`` in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["vrft", "run", "recipe.yaml"])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


def predictions(folder: Path) -> list[dict[str, Any]]:
    (file,) = (folder / "runs").rglob("majority/**/predictions.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def spread(picture: Path) -> int:
    """How many grey values there are between the darkest and the brightest pixel."""
    grey = np.asarray(Image.open(picture).convert("L")).astype(int)
    return int(grey.max() - grey.min())


@pytest.mark.skipif(not SETS, reason="the folder of shared cases is not beside this checkout")
@pytest.mark.parametrize("case", SETS, ids=lambda case: f"{case['id']}-{case['folder']}")
def test_a_small_unusual_set(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, want = tmp_path / case["folder"], case["want"]
    shutil.copytree(SHARED / "files" / case["folder"], folder)
    code = run(folder, monkeypatch)
    error = capsys.readouterr().err
    if "refused" in want or (code == 2 and "or_refused" in want):
        assert code == 2
        assert any(word in error for word in want.get("refused", want.get("or_refused")))
        assert len(error.strip().splitlines()) == 1
        return
    assert code == 0, error
    rows = predictions(folder)
    targets = {row["sample"]: row["target"] for row in rows}
    for name, target in want.get("targets", {}).items():
        expected = pytest.approx(np.array(target), abs=0.5) if isinstance(target, list) else target
        assert (np.array(targets[name]) if isinstance(target, list) else targets[name]) == expected
    assert not set(want.get("absent", ())) & set(targets)
    if "targets_set" in want:
        assert set(targets.values()) == set(want["targets_set"])
    if want.get("no_empty"):
        assert all(targets.values())
    assert len(rows) == want.get("count", len(rows))
    if "distinct" in want:
        (picture,) = (folder / "runs").rglob(f"{want['distinct']}.png")
        assert spread(picture) >= 30
        if "bright" in want.get("note", ""):
            ((x1, y1, x2, y2),) = targets[want["distinct"]]
            grey = np.asarray(Image.open(picture).convert("L")).astype(float)
            inside = np.zeros(grey.shape, bool)
            inside[round(y1) : round(y2), round(x1) : round(x2)] = True
            assert grey[inside].mean() > grey[~inside].mean() + 30
