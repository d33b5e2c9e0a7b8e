"""Runs on class folders and tables: images that cannot be read, rows at fault, patients, and resampling."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vrft.api import run
from vrft.errors import DataError, RecipeError
from vrft.experiment.opened import open_experiment
from vrft.image_log import UNREADABLE
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report import write_report
from vrft.runs import RunDirectory, read_json

RECIPE = """
name: own
data: {{source: folder, root: {root}, patient: '(p[0-9]+)_'}}
task: {{kind: classification}}
policy: {{model: tiny, image_cache_gb: 0}}
stages: [{{kind: rft, rewards: {{accuracy: 1.0, format: 0.5}}, steps: 2, group_size: 2, prompts_per_step: 4}}]
sft: {{steps: 2, batch_size: 4}}
arms: [{arms}]
evaluation: {{bootstrap: 100}}
"""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for index in range(count):
            path = tmp_path / "set" / split / ("bright", "dark")[index % 2] / f"p{split[1]}{index // 2}_{index}.png"
            path = path.with_name(f"p{(split == 'test') * 50 + index // 2}_{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(path)
    return tmp_path / "set"


def damage(path: Path) -> Path:
    """Cut a file off in its pixels; its header stays whole."""
    path.write_bytes(path.read_bytes()[:200])
    return path


def recipe(root: Path, *overrides: str, arms: str = "majority") -> Any:
    path = root.parent / "recipe.yaml"
    path.write_text(RECIPE.format(root=root, arms=arms), encoding="utf-8")
    return read_recipe(path, list(overrides))


def test_an_image_that_cannot_be_read_stops_a_run_unless_it_is_skipped(images: Path, tmp_path: Path):
    damage(images / "test" / "bright" / "p51_2.png")
    with pytest.raises(DataError, match=r"p51_2\.png: cannot be read"):
        run(recipe(images, arms="base"), tmp_path / "run", reporter=Reporter(quiet=True))
    done = run(
        recipe(images, "data.on_bad_sample=skip", arms="base"), tmp_path / "other", reporter=Reporter(quiet=True)
    )
    assert done.metrics["arms"]["base"]["n"] == 7
    facts = read_json(RunDirectory(tmp_path / "other").data)
    assert facts["images"][UNREADABLE] == {"count": 1, "example": "p51_2"}
    assert facts["boxes"]["data"]["test"] == {"samples": 8, "patients": 4, "bright": 4, "dark": 4}


@pytest.mark.slow
def test_training_goes_on_with_the_next_sample_that_can_be_read(images: Path, tmp_path: Path):
    for path in sorted((images / "train" / "dark").iterdir())[:3]:
        damage(path)
    with pytest.raises(DataError, match="cannot be read as an image"):
        run(recipe(images, arms="sft"), tmp_path / "run", reporter=Reporter(quiet=True))
    done = run(
        recipe(images, "data.on_bad_sample=skip", arms="sft, rft"), tmp_path / "other", reporter=Reporter(quiet=True)
    )
    assert done.metrics["arms"]["rft"]["n"] == 8
    assert read_json(RunDirectory(tmp_path / "other").data)["images"][UNREADABLE]["count"] == 3


def test_predictions_are_grouped_by_patient_without_naming_one(images: Path, tmp_path: Path):
    run(recipe(images), tmp_path / "run", reporter=Reporter(quiet=True))
    table = pd.read_parquet(RunDirectory(tmp_path / "run").predictions)
    assert sorted(table["group"].value_counts().items()) == [(f"patient {n}", 2) for n in range(1, 5)]


def test_results_by_subgroup_stand_in_metrics_and_report(images: Path, tmp_path: Path):
    rows = [
        f"{path.relative_to(images)},{path.parent.name},{path.parents[1].name},{'AB'[path.stem[-1] in '0123']}"
        for path in sorted(images.rglob("*.png"))
    ]
    (images / "t.csv").write_text("\n".join(["image,label,part,site", *rows]), encoding="utf-8")
    columns = "{image: image, label: label, split: part, subgroup: site}"
    checked = recipe(images, f"data={{source: table, root: {images}, file: t.csv, columns: {columns}}}")
    done = run(checked, tmp_path / "run", reporter=Reporter(quiet=True))
    found = done.metrics["subgroups"]
    assert {name: of["n"] for name, of in found.items()} == {"A": 4, "B": 4}
    assert found["A"]["arms"]["majority"]["value"] == 0.5
    page = write_report(RunDirectory(tmp_path / "run")).read_text(encoding="utf-8")
    assert "By subgroup" in page


def test_rows_that_are_skipped_are_listed_in_the_run(images: Path, tmp_path: Path):
    rows = "image,label\n" + "".join(f"{path.name},{path.parent.name}\n" for path in sorted(images.rglob("*.png")))
    (images / "t.csv").write_text(rows + "gone.png,dark\n", encoding="utf-8")
    columns = "data={source: table, root: %s, file: t.csv, columns: {image: image, label: label}%s}"
    with pytest.raises(RecipeError, match=r"t\.csv:22: names the image 'gone\.png'"):
        recipe(images, columns % (images, ""))
    for hides in ("false", "true"):
        checked = recipe(images, columns % (images, f", on_bad_sample: skip, hash_names: {hides}"))
        run(checked, tmp_path / hides, reporter=Reporter(quiet=True))
        (skipped,) = read_json(RunDirectory(tmp_path / hides).data)["skipped"]["data"]
        assert (skipped["row"], "gone.png" in str(skipped)) == (22, hides == "false")


def test_samples_of_rows_stay_lazy_in_an_experiment(images: Path):
    opened = open_experiment(recipe(images, arms="majority, base"), Reporter(quiet=True))
    assert type(opened.train_samples).__name__ == "LazySamples"
    assert len(opened.train_samples) == 12
    assert {sample.target for sample in opened.train_samples} == {"bright", "dark"}


def test_a_label_that_the_task_does_not_list_is_named_with_its_file(images: Path):
    with pytest.raises(RecipeError, match="dark"):
        open_experiment(recipe(images, "task.labels=[bright, grey]"), Reporter(quiet=True))


def test_an_image_of_a_box_set_without_a_header_is_refused_or_left_out(tmp_path: Path):
    for split in ("train", "test"):
        for name in "ab":
            path = tmp_path / "set" / split / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 9).save(path)
            label = tmp_path / "set" / split / "labels" / f"{name}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text("0 .5 .5 .2 .2\n", encoding="utf-8")
    (tmp_path / "set" / "data.yaml").write_text("names: [mass]\n", encoding="utf-8")
    (tmp_path / "set" / "test" / "images" / "b.png").write_bytes(b"no image")
    section = "data={source: yolo, root: %s%s}"
    task = ("task={kind: localization}", "stages.0.rewards={iou: 1.0}")
    with pytest.raises(RecipeError, match=r"b\.png: cannot be read as an image"):
        recipe(tmp_path / "set", section % (tmp_path / "set", ""), *task)
    opened = open_experiment(
        recipe(tmp_path / "set", section % (tmp_path / "set", ", on_bad_sample: skip"), *task), Reporter(quiet=True)
    )
    assert [sample.id for sample in opened.test_samples] == ["a"]
