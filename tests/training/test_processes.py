"""Several processes train and evaluate what one does: the same loss, the same weights, the same answers."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from vrft.runs import read_json, read_jsonl

pytestmark = pytest.mark.slow

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "processes.py"))
MODES, SHARDED, differences, folder_of = (BENCH[name] for name in ("MODES", "SHARDED", "differences", "folder_of"))

LOSS, WEIGHTS = 1e-5, 2e-3
"""Tolerances: of the loss, absolute; of the weights, the norm of their difference over that of the update. AdamW's
first steps are as large for a gradient of 1e-9 as for one of 1, so rounding shows in weights before it does in losses.
"""


def torchrun(*arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if wait:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-4000:]
    return process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages of all modes, trained by one process, by two, and by two with weights in shares."""
    place = tmp_path_factory.mktemp("processes")
    BENCH["launch"](place / "two")
    BENCH["launch"](place / "fsdp", "--fsdp", *SHARDED)
    threads = torch.get_num_threads()
    BENCH["train_all"](place / "one", list(MODES))
    torch.set_num_threads(threads)
    return place


def assert_equal(one: Path, other: Path) -> None:
    """Losses and weights within the tolerances; what is counted exactly."""
    between = differences(one, other)
    assert between["loss"] <= LOSS
    assert between["weights"] <= WEIGHTS
    for row, twin in zip(read_jsonl(one / "log.jsonl"), read_jsonl(other / "log.jsonl"), strict=True):
        assert (row["step"], row["tokens"]) == (twin["step"], twin["tokens"])
        assert row.get("reward") == pytest.approx(twin.get("reward"))
        assert row.get("zero_advantage") == twin.get("zero_advantage")


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_train_what_one_does(folder: Path, mode: str):
    assert_equal(folder / "one" / folder_of(mode), folder / "two" / folder_of(mode))


@pytest.mark.parametrize("mode", SHARDED)
def test_weights_that_are_shared_out_train_to_the_same(folder: Path, mode: str):
    assert_equal(folder / "one" / folder_of(mode), folder / "fsdp" / folder_of(mode))


def test_processes_write_the_rollouts_of_all_in_order(folder: Path):
    import pandas as pd

    place = Path(folder_of("rft, shared prefix, kl")) / "rollouts.parquet"
    one, two = (pd.read_parquet(folder / name / place) for name in ("one", "two"))
    assert len(one) == 3 * 16
    pd.testing.assert_frame_equal(one, two)


RECIPE = """
name: two
data: {source: phantom, samples: {train: 16, validation: 8, test: 24}}
task: {kind: grading}
stages:
  - {kind: rft, steps: STEPS, prompts_per_step: 2, group_size: 4, learning_rate: 1.0e-4, kl: 0.01, temperature: 1.5,
     max_completion_tokens: 16, save_every: 2}
validate: {every: 2, samples: 8}
evaluation: {bootstrap: 100, batch_size: 8}
arms: [majority, base, rft]
"""


def run_alone(*arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "vrft", "run", *arguments, "--quiet"], check=True, env=environment)


def test_a_killed_process_ends_the_run_with_one_line_and_one_process_goes_on_to_the_same_result(tmp_path: Path):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(RECIPE.replace("STEPS", "12"))
    run = torchrun("-m", "vrft", "run", str(recipe), "--out", str(tmp_path / "killed"), wait=False)
    stage = tmp_path / "killed" / "arms" / "rft" / "seed-0" / "stage-0-rft"
    deadline = time.monotonic() + 120
    while not (found := list((tmp_path / "_store").glob("*/checkpoint-4/whole.json"))):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[0][-4000:]
        time.sleep(0.05)
    second = [one for one in psutil.Process(run.pid).children() if one.environ().get("RANK") == "1"]
    second[0].send_signal(signal.SIGKILL)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    (line,) = [line for line in output.splitlines() if line.startswith("vrft: ")]
    assert "one of the 2 processes was ended" in line
    assert "--resume" in line
    assert len(read_jsonl(found[0].parents[1] / "log.jsonl")) < 12
    run_alone(str(recipe), "--out", str(tmp_path / "killed"), "--resume")
    run_alone(str(recipe), "--out", str(tmp_path / "whole"))
    assert_equal(tmp_path / "whole" / "arms" / "rft" / "seed-0" / "stage-0-rft", stage)
    killed, whole = (read_json(tmp_path / name / "metrics.json")["arms"] for name in ("killed", "whole"))
    for arm in killed:
        assert killed[arm]["accuracy"] == whole[arm]["accuracy"]
        assert killed[arm]["cost"]["tokens"] == whole[arm]["cost"]["tokens"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--set", "stages.0.prompts_per_step=3", "--set", "stages.0.group_size=3"], "cannot share evenly"),
        (["--set", "stages.0.dynamic_sampling=1"], "training runs in several processes; set it to 0"),
        (["--set", "data.source=nowhere"], "expected one of"),
    ],
)
def test_what_processes_cannot_do_is_reported_once(tmp_path: Path, changes: list[str], words: str):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(RECIPE.replace("STEPS", "2"))
    run = torchrun("-m", "vrft", "run", str(recipe), "--out", str(tmp_path / "run"), *changes, wait=False)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    (line,) = [line for line in output.splitlines() if line.startswith("vrft: ")]
    assert words in line


def test_other_commands_take_one_process():
    run = torchrun("-m", "vrft", "ablate", "none.yaml", wait=False)
    output, _ = run.communicate(timeout=120)
    assert output.count("vrft ablate takes one process") == 1


def test_shipped_configurations_are_read_by_accelerate():
    from accelerate.commands.config.config_args import load_config_from_file

    shipped = sorted((Path(__file__).parents[2] / "launch").glob("*.yaml"))
    assert [path.stem for path in shipped] == ["ddp", "fsdp2", "zero2", "zero3"]
    for path in shipped:
        assert load_config_from_file(str(path)).num_processes == 8
        assert json.dumps(load_config_from_file(str(path)).to_dict(), default=str)
