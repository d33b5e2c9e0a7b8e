"""What a run was made by and with: going on under other rules is refused, and every target that is used is checked."""

from pathlib import Path

import numpy as np
import pytest

from vrft.api import run
from vrft.data import MedMNISTSource
from vrft.data.medmnist import FACTS
from vrft.errors import RunError
from vrft.experiment.opened import open_experiment
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report import write_report
from vrft.runs import FORMAT, RunDirectory, read_json, write_json

QUIET = Reporter(quiet=True)

RECIPE = """
name: going
data: {source: phantom, samples: {train: 4, validation: 2, test: 4}}
task: {kind: grading, question: "Größe?"}
stages: [{kind: rft, steps: 1}]
arms: [majority]
evaluation: {bootstrap: 100}
"""


@pytest.mark.parametrize("older", [{}, {"format": FORMAT - 1, "images": 1}, {"format": FORMAT, "images": 0}])
def test_a_run_of_other_rules_is_not_gone_on_with_and_has_its_report(tmp_path: Path, older: dict[str, int]):
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe, directory = read_recipe(tmp_path / "recipe.yaml", []), RunDirectory(tmp_path / "run")
    run(recipe, directory.path, reporter=QUIET)
    run(recipe, directory.path, resume=True, reporter=QUIET)
    facts = {key: value for key, value in read_json(directory.environment).items() if key not in ("format", "images")}
    write_json(directory.environment, facts | older)
    with pytest.raises(RunError, match=r"begun by another version of vrft \(environment\.json there: .*another --out"):
        run(recipe, directory.path, resume=True, reporter=QUIET)
    assert write_report(directory).is_file()


def test_a_run_that_had_not_begun_is_begun(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe, directory = read_recipe(tmp_path / "recipe.yaml", []), RunDirectory(tmp_path / "run")
    directory.open(recipe.dump(), resume=False)  # and then its data was not there
    assert run(recipe, directory.path, resume=True, reporter=QUIET).metrics["arms"]


# --- targets ----------------------------------------------------------------------------------------------------------

VALIDATED = """
name: both
data: {source: phantom, samples: {train: 4, validation: 4, test: 4}}
task: {kind: grading}
validate: {every: 1, samples: 2}
stages:
  - {kind: rft, task: {kind: localization}, rewards: {iou: 1.0}, steps: 1}
  - {kind: rft, steps: 1}
arms: [majority, rft, rft+PA_pi, rft+shuffled]
evaluation: {limit: 3}
"""


def checked(monkeypatch: pytest.MonkeyPatch, path: Path) -> dict[str, list[str]]:
    """The ids of the samples whose targets are checked, by the kind of the task."""
    found: dict[str, list[str]] = {}
    monkeypatch.setattr(
        "vrft.experiment.opened._check_targets",
        lambda task, samples, _: found.setdefault(task.kind, []).extend(f"{one.split}" for one in samples),
    )
    open_experiment(read_recipe(path, []), QUIET)
    return found


def test_all_targets_that_are_used_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "recipe.yaml"
    path.write_text(VALIDATED)
    plain = ["train"] * 4 + ["test"] * 3 + ["validation"] * 2
    assert checked(monkeypatch, path) == {"grading": plain, "localization": plain}


def test_a_split_is_read_once_however_many_stages_are_validated_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = len(FACTS["retinamnist"]["labels"])
    arrays = {
        f"{split}_{name}": np.zeros((6, 28, 28, 3) if name == "images" else (6, 1), np.uint8) + (name != "images")
        for split in ("train", "val", "test")
        for name in ("images", "labels")
    }
    assert labels > 1
    np.savez(tmp_path / "retinamnist.npz", **arrays)
    (tmp_path / "recipe.yaml").write_text(f"""
name: medmnist
data: {{source: medmnist, dataset: retinamnist, root: {tmp_path}}}
task: {{kind: grading}}
validate: {{every: 1, samples: 3}}
stages: [{{kind: sft, steps: 1}}, {{kind: rft, steps: 1}}]
arms: [base, sft, rft]
""")
    read: list[str] = []
    arrays_of = MedMNISTSource._arrays
    monkeypatch.setattr(MedMNISTSource, "_arrays", lambda self, split: read.append(split) or arrays_of(self, split))
    experiment = open_experiment(read_recipe(tmp_path / "recipe.yaml", []), QUIET)
    assert read == ["train", "test", "validation"]
    assert [len(experiment.validation_samples(stage)) for stage in experiment.recipe.stages] == [3, 3]
