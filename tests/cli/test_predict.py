"""``vrft predict``: JSON lines, drawings, and mistakes told in one line."""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from vrft.cli.main import app, main
from vrft.data import PhantomSource
from vrft.sample import open_image

WHERE = ["--task", "localization", "--question", "Where is the finding?"]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    (sample,) = PhantomSource("localization", sizes={"train": 0, "validation": 0, "test": 1}).samples("test")
    open_image(sample.images[0]).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def test_a_line_of_json_and_a_drawing_for_each_image(scan: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["predict", "tiny", str(scan), str(scan), *WHERE, "--draw", str(tmp_path / "d")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(row["drawing"]).name for row in rows] == ["scan.png", "scan-2.png"]
    assert rows[0]["boxes"] == rows[1]["boxes"] != []
    assert {"image", "answer", "reasoning", "confidence", "problems", "completion", "image_size"} <= set(rows[0])
    assert Image.open(rows[0]["drawing"]).width == 336


def test_images_together_are_one_sample_with_one_drawing(scan: Path, tmp_path: Path):
    Image.new("RGB", (50, 100), "navy").save(tmp_path / "prior.png")
    together = [str(scan), str(tmp_path / "prior.png"), "--together"]
    result = CliRunner().invoke(app, ["predict", "tiny", *together, *WHERE, "--draw", str(tmp_path / "d")])
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert row["images"] == together[:2]
    assert "image" not in row
    assert row["image_size"] == [112, 112]
    assert Image.open(row["drawing"]).width == 336 + 8 + 168


def test_a_slice_of_a_volume_and_one_of_a_series_are_images(tmp_path: Path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((60, 70, 80), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    sizes = []
    for axis in ("axial", "coronal"):
        line = ["predict", "tiny", str(tmp_path / "a.nii.gz"), *WHERE, "--page", "3", "--axis", axis]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        sizes.append(json.loads(result.stdout)["image_size"])
    assert sizes == [[60, 70], [60, 80]]


def test_a_folder_is_asked_about_as_a_series(shared: Path, tmp_path: Path):
    for number in (1, 2):
        header = pydicom.dcmread(shared / "data" / "dicom" / "CT_small.dcm")
        header.ImagePositionPatient = [0, 0, number]
        header.save_as(tmp_path / f"{number}.dcm")
    line = ["predict", "tiny", str(tmp_path), *WHERE]
    result = CliRunner().invoke(app, [*line, "--page", "1"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["image_size"] == [128, 128]
    assert "holds 2 pages" in str(CliRunner().invoke(app, line).exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*WHERE, "--split", "test"], "--split needs a run directory"),
        (WHERE, "name image files"),
        ([*WHERE, "--together"], "--together needs image files"),
        (["nowhere.png", *WHERE], "nowhere.png: there is no such file"),
        (["SCAN", "--task", "localization"], "give --question"),
        (["SCAN", *WHERE, "--window", "5", "5"], "--window is 5 5; the first value must be below the second"),
        (["SCAN", *WHERE, "--draw", "FOLDER"], "would write over"),
        (["BROKEN", *WHERE], "broken.png: cannot be read as an image"),
        (["SCAN", "--task", "grading", "--levels", "3", "--question", "?", "--draw", "d"], "only boxes can be drawn"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = scan.parent / "broken.png"
    broken.write_bytes(b"no image")
    names = {"SCAN": str(scan), "FOLDER": str(scan.parent), "BROKEN": str(broken)}
    monkeypatch.setattr(sys, "argv", ["vrft", "predict", "tiny", *(names.get(one, one) for one in arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (2, 1), error
    assert words in error
