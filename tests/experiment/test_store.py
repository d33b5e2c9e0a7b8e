"""The store: a recipe finds the stages that another recipe has trained, and a run directory is whole without it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from vrft.data import PhantomSource
from vrft.errors import RunError
from vrft.experiment.design import design_of_run
from vrft.experiment.jobs import Job, drop_policies, jobs_of, missing_jobs, restore
from vrft.experiment.keys import CacheKeys, machine_facts, samples_digest
from vrft.experiment.opened import open_experiment
from vrft.experiment.run import carry_out
from vrft.progress import Reporter
from vrft.recipe import Recipe, read_recipe
from vrft.runs import KEPT_BY, RunDirectory, Store, read_json, write_json
from vrft.sample import ImageFile, Sample

RECIPE = """\
name: first
data: {source: phantom, samples: {train: 8, validation: 2, test: 6}}
task: {kind: grading}
stages: [{kind: sft, steps: 1, batch_size: 4}]
arms: [sft]
evaluation: {batch_size: 6, bootstrap: 100}
"""


def recipe_of(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return read_recipe(path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("runs")
    directory = RunDirectory(folder / "first")
    carry_out(design_of_run(recipe_of(folder, RECIPE)), directory, reporter=Reporter(quiet=True))
    return directory


def test_a_second_recipe_finds_the_stage_that_it_shares(first: RunDirectory, told: Any):
    text = RECIPE.replace("name: first", "name: second").replace("arms: [sft]", "arms: [majority, base, sft]")
    second = RunDirectory(first.path.parent / "second")
    carry_out(design_of_run(recipe_of(first.path.parent, text)), second, reporter=told)
    assert "second: 3 jobs, 2 to be done, 1 found" in told.lines
    weights = "arms/sft/seed-0/stage-0-sft/policy/model.safetensors"
    assert (first.path / weights).samefile(second.path / weights)
    assert read_json(second.metrics)["arms"]["sft"] == read_json(first.metrics)["arms"]["sft"]


def test_a_run_without_its_store_is_gone_on_with_and_trains_nothing(first: RunDirectory, tmp_path: Path, told: Any):
    copied = RunDirectory(tmp_path / "copied")
    shutil.copytree(first.path, copied.path)
    recipe = read_recipe(copied.recipe)
    carry_out(design_of_run(recipe), copied, resume=True, reporter=told)
    assert "first: 1 jobs, 0 to be done, 1 found" in told.lines
    assert len(list(copied.default_store.glob("*/done.json"))) == 2


def keys_of(recipe: Recipe) -> CacheKeys:
    return CacheKeys(open_experiment(recipe, Reporter(quiet=True)), machine_facts(1), matched=False)


def test_an_edited_reward_of_the_user_is_trained_anew(tmp_path: Path):
    reward = tmp_path / "rewards.py"
    text = RECIPE.replace("{kind: sft, steps: 1, batch_size: 4}", "{kind: rft, steps: 1, rewards: {mine: 1.0}}")
    text = text.replace("arms: [sft]", "arms: [sft, rft]") + f"custom: {{mine: '{reward}:mine'}}\n"
    keys = []
    for value in (0.0, 1.0):
        reward.write_text(f"def mine(completions, **columns):\n    return [{value}] * len(completions)\n")
        of_recipe = keys_of(recipe_of(tmp_path, text))
        keys.append([of_recipe.stages(arm, 0) for arm in ("rft", "sft")])
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1]


def test_a_run_and_an_ablation_have_the_same_keys_where_arms_and_machine_agree(tmp_path: Path):
    recipe = recipe_of(tmp_path, RECIPE)
    experiment = open_experiment(recipe, Reporter(quiet=True))
    run, ablation = (CacheKeys(experiment, machine_facts(1), matched=matched) for matched in (False, True))
    assert run.stages("sft", 0) == ablation.stages("sft", 0)
    assert run.evaluation("sft", 0) == ablation.evaluation("sft", 0)


def test_a_job_whose_results_are_there_is_not_missing(first: RunDirectory):
    recipe = read_recipe(first.recipe)
    keys = CacheKeys(
        open_experiment(recipe, Reporter(quiet=True)),
        machine_facts(read_json(first.environment)["threads"]),
        matched=False,
    )
    jobs = jobs_of(keys)
    assert missing_jobs(jobs, Store(first.default_store)) == []
    assert missing_jobs(jobs, Store(first.path / "elsewhere")) == jobs


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda path: (path / "store").mkdir(), "holds an ablation of an older version"),
        (lambda path: write_json(path / "runs.json", {}), "holds an ablation of an older version"),
        (lambda path: (path / "notes.txt").write_text("mine"), "is not empty and holds no run"),
    ],
)
def test_a_directory_of_something_else_is_refused(tmp_path: Path, made: Any, words: str):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    made(directory.path)
    with pytest.raises(RunError, match=words):
        directory.open("name: x\n", resume=True)


def test_weights_that_a_run_keeps_are_not_dropped_from_the_store(first: RunDirectory, tmp_path: Path):
    store, key = Store(tmp_path / "store"), "a" * 20
    for name in ("policy/model.safetensors", "done.json"):
        path = store.stage(key).path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    job = Job("rft", 0, (key,), 0, "b" * 20)
    kept = RunDirectory(tmp_path / "run").arm("rft", 0).stage(0, "rft")
    store.link_stage(key, kept)
    drop_policies(store, [job], [])
    assert store.stage(key).policy.exists()
    store.link_stage(key, kept, keep_policy=False)
    drop_policies(store, [job], [])
    assert not store.stage(key).policy.exists()
    assert store.stage(key).done.exists()


def test_a_found_stage_without_weights_leaves_those_of_a_run_alone(tmp_path: Path):
    store, key = Store(tmp_path / "store"), "a" * 20
    write_json(store.stage(key).done, {"seconds": 1.0})
    write_json(store.stage(key).policy / "config.json", {})
    kept = RunDirectory(tmp_path / "run").arm("rft", 0).stage(0, "rft")
    store.link_stage(key, kept)
    store.stage(key).drop_policy()
    store.link_stage(key, kept)
    assert (kept.policy / "config.json").exists()
    restore(store, {key: kept.path}, [Job("rft", 0, (key,), 0, None)])
    assert (store.stage(key).policy / "config.json").exists()


def test_results_under_another_key_are_replaced_with_their_marker_last(tmp_path: Path):
    store, place = Store(tmp_path / "store"), RunDirectory(tmp_path / "run").arm("rft", 0)
    for key, text in (("a", "old"), ("b", "new")):
        write_json(store.evaluation(key).done, {"seconds": 1.0})
        store.evaluation(key).predictions.write_text(text)
        store.link_evaluation(key, place)
    assert (place.predictions.read_text(), read_json(place.done)["key"]) == ("new", "b")
    assert RunDirectory(tmp_path / "run").finished() == {"b": place.path}


def test_another_crop_of_the_same_file_is_another_sample(tmp_path: Path):
    image = tmp_path / "a.png"
    image.write_bytes(b"pixels")
    source = PhantomSource("classification", sizes={})
    crops = [ImageFile(image, region=(0, 0, side, side)) for side in (4, 5)]
    digests = [samples_digest([Sample("a", crop, "?", "x", "train")], source) for crop in crops]
    assert digests[0] != digests[1]


def test_an_ablation_does_not_take_over_the_directory_of_something_else(tmp_path: Path):
    directory = RunDirectory(tmp_path / "run")
    plain = "{name: one, data: {source: voc}, task: {kind: grading}}"
    for text in (plain, plain.replace("}}", "}, seeds: [1]}")):
        directory.open(text, resume=True, same_recipe=False)
        write_json(directory.environment, KEPT_BY)
    with pytest.raises(RunError, match="differs in name"):
        directory.open(plain.replace("one", "two"), resume=True, same_recipe=False)
