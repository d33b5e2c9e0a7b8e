"""An ablation on the embedded policy: the same results in one process or many, here or on Ray, killed or not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from vrft.evaluation.summary import write_metrics
from vrft.experiment.design import Design, only, read_design
from vrft.experiment.run import carry_out
from vrft.experiment.runners import local_workers, ray_workers
from vrft.progress import Reporter
from vrft.report import write_report
from vrft.runs import RunDirectory, read_json

pytestmark = pytest.mark.slow

RECIPE = """\
name: small
data: {source: phantom, family: shifted, attributes: [size], samples: {train: 40, validation: 8, test: 12}}
task: {kind: classification}
policy: {model: tiny}
knowledge: {card: phantom, label_first: false}
stages:
  - kind: rft
    task: {kind: localization}
    data: {source: phantom, family: shifted, samples: {train: 40, validation: 8, test: 12}}
    rewards: {iou: 1.0, format: 0.5}
    steps: 4
    prompts_per_step: 2
    group_size: 4
    max_completion_tokens: 40
    save_every: 1
  - kind: rft
    rewards: {accuracy: 1.0, format: 0.5}
    steps: 3
    prompts_per_step: 2
    group_size: 4
    learning_rate: 2.0e-4
    temperature: 1.5
    max_completion_tokens: 16
ablation: {factors: [PA_p, PA_pi], controls: [majority, without], retries: 1}
evaluation: {batch_size: 4, bootstrap: 100}
seeds: [0]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """An ablation that nothing disturbed, in two processes of this machine."""
    directory = RunDirectory(tmp_path_factory.mktemp("whole") / "small")
    assert run(recipe, directory) == {}
    return directory


def run(recipe: Path, directory: RunDirectory, *overrides: str, reporter: Reporter | None = None) -> dict[str, str]:
    return ablate(read_design(recipe, overrides), directory, reporter or Reporter(quiet=True), workers=2)


def ablate(design: Design, directory: RunDirectory, reporter: Reporter, *, workers: int = 1) -> dict[str, str]:
    """Carry out a design in processes of this machine; returns the errors."""
    return on(design, directory, partial(local_workers, 1, None, workers), reporter)


def on(design: Design, directory: RunDirectory, workers: Any, reporter: Reporter) -> dict[str, str]:
    options: dict[str, Any] = {"resume": True, "same_recipe": False, "open_workers": workers}
    return carry_out(design, directory, reporter=reporter, **options).errors


def answers(directory: RunDirectory) -> pd.DataFrame:
    frame = pd.read_parquet(directory.predictions)
    return frame.sort_values(["arm", "seed", "sample"], ignore_index=True)


def written(directory: RunDirectory) -> dict[str, int]:
    """When each piece of work was done."""
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.default_store.glob("*/done.json")}


def test_every_arm_and_seed_is_in_the_files(whole: RunDirectory):
    frame = answers(whole)
    assert set(frame["arm"]) == {"rft", "rft+PA_pi", "rft+PA_p", "rft+PA_p+PA_pi", "majority", "without"}
    assert len(frame) == 6 * 12
    logs = pd.read_parquet(whole.logs)
    assert logs.groupby("arm")["step"].max().to_dict() == {
        "rft": 3, "rft+PA_pi": 7, "rft+PA_p": 3, "rft+PA_p+PA_pi": 7
    }  # fmt: skip
    costs = {row["arm"]: row["cost"]["steps"] for row in read_json(whole.records)["runs"]}
    assert (costs["rft"], costs["rft+PA_pi"], costs["majority"]) == (3, 7, 0)


def test_a_start_that_two_arms_share_is_trained_once(whole: RunDirectory):
    first = "stage-0-rft/policy/model.safetensors"
    one, other = (whole.arm(arm, 0).path / first for arm in ("rft+PA_pi", "rft+PA_p+PA_pi"))
    assert one.samefile(other)
    assert not (whole.arm("rft", 0).path / first).samefile(one)


def test_its_arms_can_be_asked_by_name(whole: RunDirectory):
    asked = subprocess.run(
        [sys.executable, "-m", "vrft", "predict", whole.path, "--arm", "rft+PA_p+PA_pi", "--split", "test"],
        capture_output=True,
        text=True,
        check=True,
    )
    frame = answers(whole)
    expected = frame[frame["arm"] == "rft+PA_p+PA_pi"].set_index("sample")["completion"].to_dict()
    rows = [json.loads(line) for line in asked.stdout.splitlines()]
    assert {row["image"]: row["completion"] for row in rows} == expected


def test_an_arm_without_training_has_a_page_of_its_own(recipe: Path, tmp_path: Path):
    directory = RunDirectory(tmp_path / "small")
    design = only(read_design(recipe), ["majority"])
    assert ablate(design, directory, Reporter(quiet=True)) == {}
    assert write_metrics(directory)["effects"] == []
    assert "majority" in write_report(directory).read_text()


ODD = """
name: odd
data: {source: yolo, root: ROOT, window: [0, 1000]}
task: {kind: localization}
stages:
  - {kind: rft, task: {kind: localization}, rewards: {iou: 1.0}, steps: 1}
  - {kind: rft, rewards: {iou: 1.0}, steps: 1}
evaluation: {bootstrap: 100}
"""


def test_odd_pictures_are_told_as_they_are_read_now_and_stand_on_the_page(deep_images: Path, tmp_path: Path, told: Any):
    path, directory = tmp_path / "recipe.yaml", RunDirectory(tmp_path / "out")
    path.write_text(ODD.replace("ROOT", str(deep_images)))
    for window, blank in (("[0, 1000]", "b"), ("[2000, 3000]", "a")):
        design = only(read_design(path, [f"data.window={window}"]), ["majority"])
        told.lines.clear()
        assert ablate(design, directory, told) == {}
        sentence = (
            f"1 of the pictures that were opened show one value only, so that there is nothing to see, such as {blank}."
        )
        assert [line.strip() for line in told.lines if "pictures" in line] == [sentence]
        assert write_metrics(directory)["images"] == {"blank_image": {"count": 1, "example": blank}}
        assert sentence in write_report(directory).read_text(encoding="utf-8")


def test_done_again_it_does_nothing_and_its_figures_stay(whole: RunDirectory, recipe: Path):
    before, figures = written(whole), write_metrics(whole)

    def refuse() -> None:
        raise AssertionError("no process is needed")

    assert on(read_design(recipe), whole, refuse, Reporter(quiet=True)) == {}
    assert written(whole) == before
    assert write_metrics(whole) == figures


def test_a_further_seed_runs_alone(whole: RunDirectory, recipe: Path, tmp_path: Path):
    directory = copy_of(whole, tmp_path)
    before = written(directory)
    assert run(recipe, directory, "seeds=[0, 1]", "ablation.factors=[PA_p]") == {}
    after = written(directory)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 2 * 2 + 1  # two trainings, their evaluations, and the test without the card
    frame = answers(directory)
    same = frame[frame["seed"] == 0].reset_index(drop=True)
    first = answers(whole)
    pd.testing.assert_frame_equal(same, first[first["arm"].isin(set(same["arm"]))].reset_index(drop=True))


def copy_of(directory: RunDirectory, to: Path) -> RunDirectory:
    subprocess.run(["cp", "-rp", directory.path, directory.default_store, to], check=True)
    return RunDirectory(to / directory.path.name)


def test_weights_that_are_not_kept_are_trained_anew_when_an_arm_needs_them(
    whole: RunDirectory, recipe: Path, tmp_path: Path
):
    directory = RunDirectory(tmp_path / "small")
    less = ["ablation.keep_policies=false", "ablation.controls=[majority]"]
    assert run(recipe, directory, "ablation.factors=[PA_pi]", *less) == {}
    assert not any(directory.default_store.glob("*/policy"))
    assert run(recipe, directory, *less) == {}
    expected = answers(whole)
    expected = expected[expected["arm"] != "without"].reset_index(drop=True)
    pd.testing.assert_frame_equal(answers(directory), expected)


def test_killed_in_mid_run_it_goes_on_to_the_same_answers(whole: RunDirectory, recipe: Path, tmp_path: Path):
    directory = RunDirectory(tmp_path / "small")
    command = [sys.executable, "-m", "vrft", "ablate", recipe, "--out", directory.path, "--workers", "2", "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: any(directory.default_store.glob("*/checkpoint-*/whole.json")))
    own = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in own))
    before = written(directory)
    assert len(before) < len(written(whole))
    assert run(recipe, directory) == {}
    assert before.items() <= written(directory).items()
    pd.testing.assert_frame_equal(answers(directory), answers(whole))


def test_a_process_that_is_killed_is_replaced_and_goes_on_from_the_checkpoint(
    whole: RunDirectory, recipe: Path, tmp_path: Path, told: Any
):
    directory = RunDirectory(tmp_path / "small")

    def kill() -> None:
        wait_for(lambda: any(directory.default_store.glob("*/checkpoint-2/whole.json")))
        (worker,) = (one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline()))
        worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    design = only(read_design(recipe, ["stages.1.save_every=1"]), ["rft"])
    assert ablate(design, directory, told) == {}
    killer.join()
    assert any("its process was killed; begun again from its last checkpoint" in line for line in told.lines)
    expected = answers(whole)
    pd.testing.assert_frame_equal(answers(directory), expected[expected["arm"] == "rft"].reset_index(drop=True))


def wait_for(happened: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_an_arm_that_fails_is_told_and_the_others_are_done(recipe: Path, tmp_path: Path):
    broken = yaml.safe_load(recipe.read_text())
    # so many tokens are spent by the localization alone that nothing is left for what comes after it
    broken["ablation"] = {"factors": ["PA_pi"], "controls": ["majority"], "budget": {"match": "steps", "amount": 4}}
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(broken))
    result = subprocess.run(
        [sys.executable, "-m", "vrft", "ablate", path, "--out", tmp_path / "out", "--workers", "1", "--quiet"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "rft+PA_pi, seed 0: the stages before the last spend 4 steps, and the budget is 4" in result.stderr
    assert result.stdout.strip().endswith("report.html")
    summary = read_json(tmp_path / "out" / "metrics.json")
    assert list(summary["arms"]) == ["rft", "majority"]
    assert summary["arms"]["rft"]["cost"]["steps"] == 4
    assert [one["arm"] for one in summary["failed"]] == ["rft+PA_pi"]
    assert "the stages before the last" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("match", ["tokens", "seconds"])
def test_arms_can_be_matched_by_what_plain_rft_spends(recipe: Path, tmp_path: Path, match: str):
    directory = RunDirectory(tmp_path / "small")
    overrides = ["ablation.controls=[sft]", "ablation.factors=[PA_p]", f"ablation.budget.match={match}"]
    assert run(recipe, directory, *overrides, "stages.1.steps=6") == {}
    costs = {row["arm"]: row["cost"] for row in read_json(directory.records)["runs"]}
    assert costs["rft"]["steps"] == 6
    logs = pd.read_parquet(directory.logs)
    for arm in ("rft+PA_p", "sft"):
        passed = logs.loc[logs["arm"] == arm, match].to_list()
        assert passed[-1] >= costs["rft"][match] * 0.99
        assert all(before < costs["rft"][match] for before in passed[:-1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray cluster of two workers with one core each, on this machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made.address
    ray.shutdown()
    made.shutdown()


def on_ray(recipe: Path, directory: RunDirectory, address: str, reporter: Reporter) -> dict[str, str]:
    return on(read_design(recipe), directory, partial(ray_workers, 1, 0, address), reporter)


def test_on_a_ray_cluster_of_two_workers_one_of_which_is_killed_the_answers_are_the_same(
    whole: RunDirectory, recipe: Path, tmp_path: Path, cluster: str, told: Any
):
    directory = RunDirectory(tmp_path / "small")
    killed: list[int] = []

    def kill() -> None:
        """The worker that trains the localization, when it has written a checkpoint."""
        wait_for(lambda: any(directory.default_store.glob("*/checkpoint-2/whole.json")))
        for process in psutil.process_iter(["pid", "cmdline"]):
            if any("PA_pi" in part and part.startswith("ray::") for part in process.info["cmdline"] or ()):
                process.kill()
                killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    errors = on_ray(recipe, directory, cluster, told)
    killer.join()
    assert errors == {}
    assert killed
    assert any("its process was killed; begun again from its last checkpoint" in line for line in told.lines)
    pd.testing.assert_frame_equal(answers(directory), answers(whole))


def test_a_cluster_without_the_resources_is_refused(recipe: Path, tmp_path: Path, cluster: str):
    from vrft.errors import UserError

    with (
        pytest.raises(UserError, match="needs 1 cores and 8 GPUs, and the Ray cluster has 2 cores"),
        ray_workers(1, 8, cluster),
    ):
        pass
