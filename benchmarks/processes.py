"""The differences of loss and weights between one process, two, and two with sharded weights (FSDP2).

    python benchmarks/processes.py [--json]
    torchrun --nproc_per_node 2 benchmarks/processes.py --work FOLDER [--fsdp] [MODE ...]

The first command trains small stages of every mode three times, over gloo, and prints a line for each; it starts the
second in each process. accelerate offers FSDP2 only on accelerators, so its state is patched for the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from vrft.data import PhantomSource
from vrft.policies import TINY, load_policy
from vrft.policies.from_recipe import lora_config
from vrft.processes import join_processes
from vrft.progress import Reporter
from vrft.recipe import Policy, RftStage, SftStage
from vrft.runs import StageDirectory, read_jsonl
from vrft.tasks import Grading
from vrft.training import train_rft, train_sft

STEPS = 3
SFT: dict[str, Any] = {"batch_size": 8}
RFT: dict[str, Any] = {"prompts_per_step": 4, "group_size": 4, "max_completion_tokens": 16, "temperature": 2.0}
LORA = {"rank": 4, "alpha": 8.0}
MODES: dict[str, tuple[type, dict[str, Any], bool]] = {
    "sft": (SftStage, SFT, False),
    "sft, accumulated": (SftStage, SFT | {"micro_batch": 2}, False),
    "sft, adapters": (SftStage, SFT, True),
    "rft, shared prefix, kl": (RftStage, RFT | {"kl": 0.1}, False),
    "rft, shared prefix": (RftStage, RFT | {"kl": 0.0}, False),
    "rft, repeated prompts, kl": (RftStage, RFT | {"kl": 0.1, "shared_prefix": False}, False),
    "rft, repeated prompts": (RftStage, RFT | {"kl": 0.0, "shared_prefix": False}, False),
    "rft, adapters, shared prefix, kl": (RftStage, RFT | {"kl": 0.1}, True),
    "rft, adapters, repeated prompts": (RftStage, RFT | {"kl": 0.0, "shared_prefix": False}, True),
    "rft, dapo, two updates": (RftStage, RFT | {"kl": 0.0, "loss": "dapo", "updates_per_batch": 2}, False),
    "rft, rejection": (RftStage, RFT | {"kl": 0.0, "loss": "rejection"}, False),
    "rft, no advantage": (RftStage, RFT | {"kl": 0.0, "rewards": {"format": 1.0}, "temperature": 0.01}, False),
}


SHARDED = ["sft", "sft, adapters", "rft, shared prefix, kl", "rft, repeated prompts, kl"]
"""Modes that are also tried with FSDP2."""


def train(mode: str, directory: StageDirectory) -> None:
    """Train a stage of a mode."""
    kind, options, adapters = MODES[mode]
    stage = kind(kind=kind.model_fields["kind"].annotation.__args__[0], steps=STEPS, learning_rate=1e-4, **options)
    samples = list(PhantomSource("grading", sizes={"train": 16, "validation": 0, "test": 0}).samples("train"))
    lora = lora_config(Policy.model_validate({"lora": LORA})) if adapters else None
    policy = load_policy("tiny", training=True, lora=lora)
    directory.path.mkdir(parents=True, exist_ok=True)
    run: Any = train_rft if kind is RftStage else train_sft
    run(policy, stage, Grading(5), samples, directory, seed=0, reporter=Reporter(quiet=True), label=mode)


def folder_of(mode: str) -> str:
    """The folder name of a mode."""
    return mode.replace(", ", "-").replace(" ", "_")


def patch_accelerate_for_fsdp() -> None:
    """Let accelerate use FSDP2 between processes without a GPU."""
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    }
    original = AcceleratorState.__init__

    def init_with_fsdp(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.FSDP
            self._shared_state["fsdp_plugin"] = options.get("fsdp_plugin") or FullyShardedDataParallelPlugin()

    AcceleratorState.__init__ = init_with_fsdp


def train_all(folder: Path, modes: list[str]) -> None:
    """Train modes one after another in this process."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    join_processes()
    for mode in modes:
        train(mode, StageDirectory(folder / folder_of(mode)))


def launch(folder: Path, *options: str) -> None:
    """Train in two processes.

    Raises:
        RuntimeError: they failed; the message is the end of their output.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", __file__, "--work", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=environment, check=False, **output)
    if done.returncode:
        raise RuntimeError(done.stdout[-4000:])


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    """The weights or adapters that a stage has saved."""
    adapters = directory / "policy" / "adapter_model.safetensors"
    return load_file(adapters if adapters.exists() else directory / "policy" / "model.safetensors")


def differences(one: Path, other: Path) -> dict[str, float]:
    """The largest difference of a logged loss, and the norm of the difference of weights over that of the update."""
    start = load_file(TINY / "model.safetensors")
    ours, theirs = weights_of(one), weights_of(other)
    if set(ours) != set(theirs):
        raise RuntimeError(f"{other} holds other weights than {one}: {sorted(set(ours) ^ set(theirs))}")
    moved = sum(float(((ours[name] - start.get(name, 0)) ** 2).sum()) for name in ours) ** 0.5
    between = sum(float(((ours[name] - theirs[name]) ** 2).sum()) for name in ours) ** 0.5
    rows = zip(read_jsonl(one / "log.jsonl"), read_jsonl(other / "log.jsonl"), strict=True)
    losses = [abs(row["loss"] - twin["loss"]) for row, twin in rows]
    return {"loss": max(losses), "weights": between / moved if moved else between}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", type=Path, help="train in this process")
    parser.add_argument("--fsdp", action="store_true", help="with --work: shard the weights")
    parser.add_argument("modes", nargs="*", help="with --work: which; without any all")
    given = parser.parse_args()
    if given.work:
        if given.fsdp:
            patch_accelerate_for_fsdp()
        train_all(given.work, given.modes or list(MODES))
        return
    with TemporaryDirectory() as folder:
        one, two, shares = (Path(folder) / name for name in ("one", "two", "fsdp"))
        launch(two)
        launch(shares, "--fsdp", *SHARDED)
        train_all(one, list(MODES))
        table = {}
        for mode in MODES:
            place = folder_of(mode)
            last = read_jsonl(one / place / "log.jsonl")[-1]["loss"]
            table[mode] = {"loss": last, "two": differences(one / place, two / place)}
            if mode in SHARDED:
                table[mode]["fsdp2"] = differences(one / place, shares / place)
    if given.json:
        print(json.dumps({"torch": torch.__version__, "steps": STEPS, "modes": table}, indent=1))
        return
    print(f"{'mode':36}{'last loss':>12}{'two: loss':>12}{'weights':>10}{'FSDP2: loss':>14}{'weights':>10}")
    for mode, row in table.items():
        values = [(row.get(kind), key) for kind in ("two", "fsdp2") for key in ("loss", "weights")]
        cells = [f"{pair[key]:.1e}" if pair else "" for pair, key in values]
        print(f"{mode:36}{row['loss']:12.5f}{cells[0]:>12}{cells[1]:>10}{cells[2]:>14}{cells[3]:>10}")


if __name__ == "__main__":
    main()
