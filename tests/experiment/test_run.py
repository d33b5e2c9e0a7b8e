"""A run from recipe to report; killed at any moment, it ends in the same weights and the same metrics."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from vrft.experiment.opened import Experiment
from vrft.experiment.results import write_gallery
from vrft.policies import decode, load_policy
from vrft.progress import Reporter
from vrft.recipe import build_task, open_knowledge, open_source, read_recipe
from vrft.runs import RunDirectory, read_json, read_jsonl, write_json
from vrft.sample import Sample, open_image

pytestmark = pytest.mark.slow

ADAPTER = "adapter_model.safetensors"

RECIPE = """\
name: small
data: {source: phantom, family: shifted, samples: {train: 10, validation: 8, test: 20}}
task: {kind: grading}
stages:
  - {kind: rft, steps: 7, prompts_per_step: 2, group_size: 4, learning_rate: 1.0e-4, temperature: 1.5, save_every: 3,
     max_completion_tokens: 20, rewards: {fuzzy: 1.0, format: 0.5}}
sft: {steps: 4, batch_size: 4}
evaluation: {batch_size: 8, bootstrap: 100}
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vrft", *map(str, arguments)]


def vrft(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def run_and_kill(recipe: Path, out: Path, moment: str) -> None:
    """Start a run, and kill it as soon as a file of its store is there and holds something."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command("run", recipe, "--out", out), **quiet)
    deadline = time.monotonic() + 240
    store = RunDirectory(out).default_store
    while not any(path.stat().st_size for path in store.glob(moment)) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path) -> RunDirectory:
    """A run that nobody disturbed."""
    result = vrft("run", recipe, "--out", recipe.parent / "whole")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("report.html")
    return RunDirectory(recipe.parent / "whole")


def weights(directory: RunDirectory, arm: str, stage: str) -> str:
    path = directory.arm(arm, 0).path / stage / "policy" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured(directory: RunDirectory) -> dict[str, Any]:
    """The metrics without time and memory."""
    metrics = read_json(directory.metrics)
    del metrics["work_seconds"]
    for arm in metrics["arms"].values():
        del arm["cost"]["seconds"], arm["cost"]["peak_mb"]
    return metrics


def test_a_run_leaves_what_the_contract_says(whole: RunDirectory):
    resolved = yaml.safe_load(whole.recipe.read_text())
    assert resolved["stages"][0]["loss"] == "grpo"
    assert {"libraries", "machine", "git_revision", "seeds"} <= set(read_json(whole.environment))
    metrics = read_json(whole.metrics)
    assert list(metrics["arms"]) == ["majority", "base", "sft", "rft"]
    for arm in metrics["arms"].values():
        assert arm["n"] == 20
        assert {"accuracy", "qwk", "mae", "format_rate", "read_rate"} <= set(arm)
        assert set(arm["cost"]) == {"seconds", "tokens", "steps", "peak_mb"}
    predictions = pd.read_parquet(whole.predictions)
    assert len(predictions) == 4 * 20
    assert {"arm", "seed", "sample", "target", "completion", "answer", "lenient"} <= set(predictions)


def test_the_log_and_the_rollouts_hold_every_step(whole: RunDirectory):
    (stage,) = whole.arm("rft", 0).stages()
    rows = read_jsonl(stage.log)
    assert [row["step"] for row in rows] == list(range(1, 8))
    for row in rows:
        assert {"reward", "kl", "entropy", "completion_tokens", "zero_advantage", "loss", "seconds"} <= set(row)
        for name in ("fuzzy", "format"):
            assert set(row["rewards"][name]) == {"mean", "std", "share"}
    rollouts = pd.read_parquet(stage.rollouts)
    assert len(rollouts) == 7 * 2 * 4
    groups = rollouts.groupby(["step", "group"])["sample"].nunique()
    assert (groups == 1).all()
    assert not list(stage.path.glob("checkpoint-*"))


def test_training_moves_the_weights_and_starts_from_the_shipped_ones(whole: RunDirectory):
    from vrft.policies import TINY

    shipped = hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest()
    assert len({shipped, weights(whole, "sft", "stage-0-sft"), weights(whole, "rft", "stage-0-rft")}) == 3
    (stage,) = whole.arm("rft", 0).stages()
    assert read_jsonl(stage.log)[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is where the stage starts


@pytest.mark.parametrize(
    "moment",
    ["*/log.jsonl", "*/checkpoint-3/whole.json"],  # of sft, and of rft
)
def test_a_killed_run_goes_on_to_the_same_weights_and_metrics(recipe: Path, whole: RunDirectory, moment: str):
    out = recipe.parent / f"killed-{moment.count('/')}" / "run"  # with a store of its own
    run_and_kill(recipe, out, moment)
    assert not (out / "metrics.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in out.parent.rglob("done.json")}

    refused = vrft("run", recipe, "--out", out)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    result = vrft("run", recipe, "--out", out, "--resume", "--quiet")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    killed = RunDirectory(out)
    for arm, stage in (("sft", "stage-0-sft"), ("rft", "stage-0-rft")):
        assert weights(killed, arm, stage) == weights(whole, arm, stage)
    assert measured(killed) == measured(whole)
    assert pd.read_parquet(killed.predictions).equals(pd.read_parquet(whole.predictions))
    (rolled,), (expected,) = killed.arm("rft", 0).stages(), whole.arm("rft", 0).stages()
    assert pd.read_parquet(rolled.rollouts).equals(pd.read_parquet(expected.rollouts))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # what was finished is not run again


def test_another_recipe_does_not_take_a_directory_over(recipe: Path, whole: RunDirectory):
    result = vrft("run", recipe, "--out", whole.path, "--resume", "--set", "stages.0.kl=0.5")
    assert result.returncode == 2
    assert "differs in stages" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_report_is_one_page_that_needs_no_network(whole: RunDirectory):
    page = whole.report.read_text(encoding="utf-8")
    body = page.replace(page[page.index("<script>") : page.index("</script>")], "", 1)  # the figures' library
    assert 'src="http' not in body
    assert 'href="http' not in body
    assert body.count("data:image/png;base64,") >= 6
    for words in ("majority", "base", "sft", "rft", "groups without advantage", "Confusion", "schedule: table"):
        assert words in body


def test_two_stages_with_adapters_and_two_seeds(tmp_path: Path):
    path = tmp_path / "stages.yaml"
    path.write_text(
        RECIPE.replace("stages:\n", "stages:\n  - {kind: sft, steps: 2, batch_size: 4}\n").replace(
            "steps: 7", "steps: 2"
        )
        + "policy: {model: tiny, lora: {rank: 4, alpha: 8.0, between_stages: merge}}\n"
        + "seeds: [0, 1]\narms: [base, rft]\n"
    )
    result = vrft("run", path, "--out", tmp_path / "run", "--quiet")
    assert result.returncode == 0, result.stderr
    run = RunDirectory(tmp_path / "run")
    metrics = json.loads(run.metrics.read_text())
    assert (metrics["arms"]["base"]["seeds"], metrics["arms"]["rft"]["seeds"]) == (1, 2)
    stages = run.arm("rft", 1).stages()
    assert [stage.path.name for stage in stages] == ["stage-0-sft", "stage-1-rft"]
    assert all((stage.policy / "model.safetensors").exists() for stage in stages)
    assert all((stage.adapter / "adapter_model.safetensors").exists() for stage in stages)
    assert not list(run.path.rglob("*.bin"))


def test_the_adapters_of_one_stage_go_on_in_the_next_through_a_kill(tmp_path: Path):
    path = tmp_path / "stages.yaml"
    path.write_text(
        RECIPE.replace(
            "stages:\n", "stages:\n  - {kind: sft, steps: 3, batch_size: 4, learning_rate: 1.0e-2}\n"
        ).replace("steps: 7", "steps: 5")
        + "policy: {model: tiny, lora: {rank: 4, alpha: 8.0, between_stages: continue}}\narms: [rft]\n"
    )
    whole, killed = RunDirectory(tmp_path / "a" / "whole"), RunDirectory(tmp_path / "b" / "killed")
    result = vrft("run", path, "--out", whole.path, "--quiet")
    assert result.returncode == 0, result.stderr
    first, second = whole.arm("rft", 0).stages()
    for stage in (first, second):
        assert {file.name for file in stage.policy.glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert (first.policy / ADAPTER).read_bytes() != (second.policy / ADAPTER).read_bytes()
    assert read_jsonl(second.log)[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference has the first stage's adapters
    adapted = load_file(first.policy / ADAPTER)
    assert (
        max(abs(value).max() for name, value in adapted.items() if "lora_B" in name) > 1e-3
    )  # far from the bare weights
    source = open_source(read_recipe(whole.recipe))
    sample = next(iter(source.samples("test")))
    policy, image = load_policy(str(second.policy)), open_image(sample.images[0])
    task = build_task(read_recipe(whole.recipe), source)
    (tokens,) = decode(policy, [task.prompt(sample.question)], [image], max_tokens=20)
    tested = read_jsonl(whole.arm("rft", 0).predictions)[0]["completion"]
    assert tested == policy.processor.decode(tokens, skip_special_tokens=True)  # the second stage's adapters are tested

    run_and_kill(path, killed.path, "*/checkpoint-3/whole.json")
    assert vrft("run", path, "--out", killed.path, "--resume", "--quiet").returncode == 0
    _, again = killed.arm("rft", 0).stages()
    assert (again.policy / ADAPTER).read_bytes() == (second.policy / ADAPTER).read_bytes()


BOXES = """\
name: boxes
data: {source: voc, root: ROOT, find: [WBC]}
task: {kind: localization}
stages:
  - {kind: rft, steps: 2, prompts_per_step: 2, group_size: 4, max_completion_tokens: 40,
     rewards: {iou: {measure: diou, threshold: [0.1, 0.6]}, format: 0.5}}
sft: {steps: 2, batch_size: 2}
evaluation: {batch_size: 4, bootstrap: 100, limit: 6}
"""


def test_boxes_go_the_same_way_on_real_images(tmp_path: Path, shared: Path):
    path = tmp_path / "boxes.yaml"
    path.write_text(BOXES.replace("ROOT", str(shared / "data" / "bccd")))
    result = vrft("run", path, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    directory = RunDirectory(tmp_path / "run")
    for arm in read_json(directory.metrics)["arms"].values():
        assert {"mean_iou", "f1_50", "precision50", "recall50", "read_rate"} <= set(arm)
    predictions = pd.read_parquet(directory.predictions)
    width, height = json.loads(predictions["image_size"][0])
    assert (width, height) == (640, 480)  # boxes are in pixels of the original image, whatever the policy sees
    for box in json.loads(predictions["target"][0]):
        assert 0 <= box[0] < box[2] <= width
    (stage,) = directory.arm("rft", 0).stages()
    assert {"iou", "format"} == set(read_jsonl(stage.log)[0]["rewards"])
    assert "mean IoU" in directory.report.read_text(encoding="utf-8")
    assert read_json(directory.data)["boxes"]["data"]["train"]["images"] == 205
    assert "data, train: images 205, boxes 2,8" in result.stderr


PERCEPTION = """\
name: perception
data: {source: phantom, family: shifted, samples: {train: 8, validation: 2, test: 6}}
task: {kind: classification}
stages:
  - {kind: rft, task: {kind: localization}, steps: 2, rewards: {iou: 1.0, format: 0.5}, prompts_per_step: 1,
     group_size: 4, max_completion_tokens: 40, save_every: 1}
  - {kind: rft, steps: 1, prompts_per_step: 1, group_size: 4, max_completion_tokens: 40}
arms: [base, PA_pi, rft, rft+PA_pi, rft+extra, rft+shuffled]
evaluation: {batch_size: 6, bootstrap: 100}
"""


def test_perception_first_goes_on_from_its_weights_and_its_controls_run(tmp_path: Path):
    path = tmp_path / "perception.yaml"
    path.write_text(PERCEPTION)
    result = vrft("run", path, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    directory = RunDirectory(tmp_path / "run")
    assert list(read_json(directory.metrics)["arms"]) == [
        "base",
        "PA_pi",
        "rft",
        "rft+PA_pi",
        "rft+extra",
        "rft+shuffled",
    ]
    perception = read_json(directory.metrics)["perception"]["arms"]
    assert list(perception) == ["majority", "PA_pi", "rft+shuffled"]  # rft+PA_pi shares its first stage with PA_pi
    assert all("mean_iou" in arm for arm in perception.values())
    first = weights(directory, "PA_pi", "stage-0-rft")
    assert weights(directory, "rft+PA_pi", "stage-0-rft") == first
    assert result.stderr.count("stage 1 (rft): prompts are encoded once a group") == 4  # PA_pi, rft, extra, shuffled
    assert weights(directory, "rft+shuffled", "stage-0-rft") != first
    # One step may teach nothing (all wrong, no advantage); where it starts from shows all the same.
    assert weights(directory, "rft+PA_pi", "stage-1-rft") != weights(directory, "rft", "stage-0-rft")


KNOWLEDGE = """\
name: knowledge
data: {source: phantom, samples: {train: 8, validation: 2, test: 6}}
task: {kind: classification}
knowledge: {card: phantom, label_first: false, irrelevant: bccd}
stages:
  - {kind: rft, steps: 1, prompts_per_step: 1, group_size: 4, max_completion_tokens: 40,
     rewards: {accuracy: 1.0, format: 0.5, recitation: {weight: -0.2, measure: rouge_l}}}
arms: [base, base+PA_p, rft, rft+PA_p, without, swapped, irrelevant, nothink, thinkafter]
evaluation: {batch_size: 6, bootstrap: 100}
"""


def test_what_is_known_goes_into_the_prompts_of_its_arms(tmp_path: Path):
    path = tmp_path / "knowledge.yaml"
    path.write_text(KNOWLEDGE)
    result = vrft("run", path, "--out", tmp_path / "run", "--quiet")
    assert result.returncode == 0, result.stderr
    run = RunDirectory(tmp_path / "run")
    for arm in ("without", "swapped", "irrelevant"):
        assert not run.arm(arm, 0).stages()  # they test the policy of rft+PA_p
    tokens = {arm: read_jsonl(run.arm(arm, 0).stages()[0].log)[0]["tokens"] for arm in ("rft", "rft+PA_p")}
    assert tokens["rft+PA_p"] > tokens["rft"]
    (row,) = read_jsonl(run.arm("rft+PA_p", 0).stages()[0].log)
    assert {"copied_span", "quotes_other", "self_bleu"} <= set(row["reasoning"])
    assert row["rewards"]["recitation"]["mean"] >= 0
    recipe = read_recipe(run.recipe)
    source = open_source(recipe)
    injection, (sample, *_) = open_knowledge(recipe, source), list(source.samples("test"))
    assert injection is not None
    policy = load_policy(str(run.arm("rft+PA_p", 0).stages()[0].policy))
    image, task = open_image(sample.images[0]), build_task(recipe, source)
    for arm in ("rft+PA_p", "without", "swapped", "irrelevant"):  # all with these weights, each with prompts of its own
        prompt = {"rft+PA_p": "card", "without": "none"}.get(arm, arm)
        lines = [f"- {text} {label}" for label, text in injection.texts_for(prompt).items()]  # type: ignore[arg-type]
        known = "\n".join(["What is known:", *lines]) if lines else ""
        (tokens,) = decode(policy, [task.prompt(sample.question, known)], [image], max_tokens=40)
        first = read_jsonl(run.arm(arm, 0).predictions)[0]
        assert first["completion"] == policy.processor.decode(tokens, skip_special_tokens=True), arm

    page = run.report.read_text(encoding="utf-8")
    assert "uses the content of the card" in page
    assert "quotes another class" in page

    pinned = read_json(run.knowledge)
    write_json(run.knowledge, pinned | {"label_first": True})
    again = vrft("run", path, "--out", run.path, "--resume")
    assert again.returncode == 2
    assert "the card says something else than when" in again.stderr


def test_a_card_that_is_too_long_is_refused_before_anything_is_trained(tmp_path: Path):
    path = tmp_path / "knowledge.yaml"
    path.write_text(KNOWLEDGE)
    result = vrft("run", path, "--out", tmp_path / "run", "--set", "knowledge.max_tokens=5")
    assert result.returncode == 2
    assert "tokens (card), and knowledge.max_tokens is 5" in result.stderr
    assert not list((tmp_path / "run").rglob("done.json"))


def test_shuffled_targets_are_those_of_other_images(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(PERCEPTION)
    recipe = read_recipe(tmp_path / "recipe.yaml", ["data.samples.train=40"])
    stage = recipe.stages_of("rft+shuffled")[0]
    plain = list(open_source(recipe, stage).samples("train"))
    source = open_source(recipe)
    experiment = Experiment(recipe, build_task(recipe, source), source, [], [], None, Reporter(quiet=True))
    _, shuffled = experiment.stage_dataset("rft+shuffled", stage, seed=0)
    assert [one.id for one in shuffled] == [one.id for one in plain]
    before, after = (np.array([one.target[0] for one in samples]).round(6) for samples in (plain, shuffled))
    assert sorted(before.tolist()) == sorted(after.tolist())
    assert (before == after).all(axis=1).mean() < 0.5


def test_the_region_that_was_asked_about_is_marked_in_the_gallery(tmp_path: Path):
    plain = Sample("one", lambda: Image.new("RGB", (90, 60), "red"), "Which?", "a", "test")
    write_gallery(RunDirectory(tmp_path / "run"), [plain, replace(plain, id="two", region=(20.0, 10.0, 60.0, 40.0))])
    one, two = (Image.open(tmp_path / "run" / "gallery" / f"{name}.png") for name in ("one", "two"))
    assert one.getcolors() == [(90 * 60, (255, 0, 0))]
    assert {colour for _, colour in two.getcolors()} == {(255, 0, 0), (255, 255, 255), (0, 0, 0)}
    assert two.getpixel((40, 25)) == two.getpixel((5, 5)) == (255, 0, 0)


def test_a_scale_whose_names_hold_numerals_is_asked_learnt_and_read_by_its_names(tmp_path: Path):
    path = tmp_path / "pirads.yaml"
    path.write_text("""
name: pirads
data: {source: phantom, samples: {train: 12, validation: 1, test: 8}}
task: {kind: grading, levels: [PI-RADS 1, PI-RADS 2, PI-RADS 3, PI-RADS 4, PI-RADS 5]}
stages: [{kind: sft, steps: 2, batch_size: 4, learning_rate: 1.0e-4}]
arms: [majority, base, sft]
evaluation: {bootstrap: 100, batch_size: 8}
""")
    result = vrft("run", path, "--out", tmp_path / "run", "--quiet")
    assert result.returncode == 0, result.stderr
    run = RunDirectory(tmp_path / "run")
    rows = read_jsonl(run.arm("majority", 0).predictions)
    assert {row["completion"][-23:] for row in rows} == {f"<answer>PI-RADS {rows[0]['answer'] + 1}</answer>"[-23:]}
    assert 0 < read_json(run.metrics)["arms"]["majority"]["accuracy"]["value"] < 1


def test_names_that_cannot_be_told_apart_are_refused_with_the_recipe(tmp_path: Path):
    path = tmp_path / "twice.yaml"
    path.write_text("""
name: twice
data: {source: phantom, samples: {train: 12, validation: 1, test: 8}}
task: {kind: grading, levels: [Stage 1, Stage 2, Stage II, Stage 3, Stage 4]}
stages: [{kind: sft, steps: 2}]
""")
    result = vrft("run", path, "--out", tmp_path / "run")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "'Stage II' and 'Stage 2' cannot be distinguished" in line
