"""Loggers show every figure of the log, under its name, in runs that are called after arm and seed."""

import sqlite3
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vrft.api import run
from vrft.errors import RecipeError
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.runs import RunDirectory, read_jsonl
from vrft.training.callback import flatten_metrics

SHORT = ["stages.0.steps=2", "sft.steps=2", "arms=[sft, rft]", "validate={every: 1, samples: 2}"]


def test_tensorboard_holds_every_figure_of_the_log(small_recipe: Path, tmp_path: Path):
    directory = RunDirectory(tmp_path / "run")
    recipe = read_recipe(small_recipe, [*SHORT, "report_to=[tensorboard]"])
    run(recipe, directory.path, reporter=Reporter(quiet=True))
    for arm, stage in (("sft", "stage-0-sft"), ("rft", "stage-0-rft")):
        place = directory.path / "arms" / arm / "seed-0" / stage
        events = EventAccumulator(str(place / "tensorboard"))
        events.Reload()
        rows = read_jsonl(place / "log.jsonl")
        assert {f"train/{name}" for row in rows for name in flatten_metrics(row)} <= set(events.Tags()["scalars"])
        for name in ("loss", "validation.accuracy"):
            shown = {one.step: one.value for one in events.Scalars(f"train/{name}")}
            assert shown == pytest.approx({row["step"]: flatten_metrics(row)[name] for row in rows})


def test_trackio_holds_every_figure_of_the_log_in_a_local_file(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    directory = RunDirectory(tmp_path / "run")
    recipe = read_recipe(small_recipe, [*SHORT, "arms=[rft]", "report_to=[trackio]"])
    run(recipe, directory.path, reporter=Reporter(quiet=True))
    (file,) = (tmp_path / "trackio").glob("*.db")
    assert file.stem == recipe.name
    with sqlite3.connect(file) as database:
        kept = database.execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in kept} == {"rft-seed-0"}
    rows = read_jsonl(directory.path / "arms" / "rft" / "seed-0" / "stage-0-rft" / "log.jsonl")
    written = " ".join(str(metrics) for _, metrics in kept)
    for name in {name for row in rows for name in flatten_metrics(row)}:
        assert f"train/{name}" in written


def test_a_logger_that_is_not_installed_is_a_fault_of_the_recipe(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.recipe.checking.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(RecipeError, match=r"report_to has wandb, which is not installed; install vrft\[wandb\]"):
        read_recipe(small_recipe, ["report_to=[wandb]"])
