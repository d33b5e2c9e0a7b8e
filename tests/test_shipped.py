"""The shipped recipes: listed, copied, in the wheel, and those of the sources run on real data."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vrft
from vrft.cli.main import app
from vrft.errors import UserError
from vrft.recipe import parse_recipe
from vrft.recipe.shipped import FOLDER, copy_recipe, shipped_recipes

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "recipes" / "sources").glob("*.yaml"))

SETS: dict[str, tuple[str, list[str]]] = {
    "folder": ("brain_mri_4class", []),
    "labels": (
        "wbc_masks",
        [
            "data.file=Class Labels of Dataset 1.csv",
            "data.images=Dataset 1",
            "data.columns={image: image ID, label: class label}",
            "data.file_name='{:03}.bmp'",
            "data.on_bad_sample=skip",  # the table has more rows than the copy has images
        ],
    ),
    "grades": ("brixia_cxr", ["data.file=public-annotations.csv", "data.columns={image: filename, grade: S-Global}"]),
    "boxes": (
        "nih_cxr",
        [
            "data.file=BBox_List_2017.csv",
            "data.columns={image: Image Index, label: Finding Label, corner_and_size: ['Bbox [x', y, w, 'h]']}",
        ],
    ),
    "coco": ("rbc_coco", ["data.splits=made", "data.find=[wbc]"]),
    "yolo": ("brain_tumor_yolo", []),
    "masks": ("hyperkvasir_polyps", []),
    "dicom": ("", []),
    "huggingface": ("", []),
    "nifti": ("", []),
    "views": ("", []),
}
"""The set of each recipe, and what differs there from the recipe; the test writes tables for those without a set."""


def folder_of(name: str, shared: Path, tmp_path: Path) -> Path:
    """A set of real data, or a folder in which a table names files of one."""
    data = shared / "data"
    if SETS[name][0]:
        return data / SETS[name][0]
    table = tmp_path / "data"
    if name == "huggingface":
        import datasets  # takes seconds

        datasets.load_dataset("imagefolder", data_dir=str(data / "brain_mri_4class")).save_to_disk(table)
        return table
    table.mkdir()
    if name == "dicom":
        names = ["CT_small.dcm", "MR_small.dcm", "RG3_J2KI.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"]
        rows = [f"{one},{'mr' if 'MR' in one else 'other'}" for one in names]
        files = [data / "dicom" / one for one in names]
    elif name == "nifti":
        files = sorted((data / "nifti").glob("*.nii*"))
        rows = [f"{file.name},{label}" for file, label in zip(files, ["a", "b", "a", "b"], strict=True)]
    else:
        files = sorted((data / "nih_cxr").glob("*/*.png"))[:12]
        rows = [
            f"{one.name},{two.name},{'a' if at % 2 else 'b'}"
            for at, (one, two) in enumerate(zip(files[::2], files[1::2], strict=True))
        ]
    for file in files:
        shutil.copy(file, table)
    titles = "frontal,lateral,label" if name == "views" else "file,label"
    (table / "labels.csv").write_text("\n".join([titles, *rows]) + "\n")
    return table


def test_every_recipe_of_a_source_has_a_set():
    assert {path.stem for path in SOURCES} == set(SETS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_recipe_of_a_source_runs_on_real_data(path: Path, shared: Path, tmp_path: Path):
    root = folder_of(path.stem, shared, tmp_path)
    key = "path" if path.stem == "huggingface" else "root"
    own = [f"data.{key}={root}", *SETS[path.stem][1], "arms=[majority]", "evaluation.bootstrap=100"]
    if path.stem == "nifti":
        own += ["data.shares={train: 0.5, validation: 0.0, test: 0.5}"]
    done = vrft.run(path, tmp_path / "run", overrides=own, reporter=vrft.Reporter(quiet=True))
    assert done.metrics["arms"]["majority"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_recipe_of_a_source_begins_with_its_command_and_says_what_it_costs(path: Path):
    lines = path.read_text().split("\n")
    assert re.fullmatch(rf"# vrft run recipes/sources/{path.name} --set data\.(root|path)=DIR", lines[0])
    assert "minutes on two cores" in " ".join(line.removeprefix("# ") for line in lines)
    assert parse_recipe(path).name == path.stem
    assert max(map(len, lines)) <= 120


def test_the_list_has_every_recipe_with_its_source():
    result = CliRunner().invoke(app, ["recipes", "list"])
    assert result.exit_code == 0
    lines = result.output.strip().split("\n")
    assert len(lines) == len(list(FOLDER.rglob("*.yaml"))) == len(shipped_recipes())
    assert any(line.split()[:2] == ["sources/folder", "folder"] for line in lines)
    assert any(line.split()[:2] == ["quickstart", "phantom"] for line in lines)


def test_a_recipe_is_copied_with_its_command_and_never_over_a_file(tmp_path: Path):
    path = copy_recipe("folder", tmp_path)
    assert path == tmp_path / "folder.yaml"
    assert path.read_text().startswith(f"# vrft run {path} --set data.root=DIR")
    path.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        copy_recipe("sources/folder", tmp_path)
    assert path.read_text() == "mine"
    assert copy_recipe("sources/folder", tmp_path, force=True) == path
    assert path.read_text() != "mine"


def test_a_wrong_name_is_answered_with_the_nearest(tmp_path: Path):
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        copy_recipe("quikstart", tmp_path)


def test_the_wheel_holds_the_recipes():
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert target["force-include"] == {"recipes": "vrft/shipped_recipes"}
    assert FOLDER == ROOT / "recipes"
