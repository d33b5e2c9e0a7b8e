"""What the test of several processes runs in each of them: small stages of every mode, one after another.

    torchrun --nproc_per_node 2 tests/training/processes.py FOLDER [--fsdp] [MODE ...]

``--fsdp`` shares weights out by FSDP2. accelerate offers that on accelerators alone, and is told here that the
processor is one; the rest is its own code, over gloo.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from vrft.data import PhantomSource
from vrft.policies import load_policy
from vrft.policies.of_recipe import lora_config
from vrft.processes import join_processes
from vrft.progress import Reporter
from vrft.recipe import Policy, RftStage, SftStage
from vrft.runs import StageDirectory
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


def train(mode: str, place: StageDirectory) -> None:
    kind, options, adapters = MODES[mode]
    stage = kind(kind=kind.model_fields["kind"].annotation.__args__[0], steps=STEPS, learning_rate=1e-4, **options)
    samples = list(PhantomSource("grading", sizes={"train": 16, "validation": 0, "test": 0}).samples("train"))
    lora = lora_config(Policy.model_validate({"lora": LORA})) if adapters else None
    policy = load_policy("tiny", training=True, lora=lora)
    place.path.mkdir(parents=True, exist_ok=True)
    run: Any = train_rft if kind is RftStage else train_sft
    run(policy, stage, Grading(5), samples, place, seed=0, reporter=Reporter(quiet=True), label=mode)


def folder_of(mode: str) -> str:
    return mode.replace(", ", "-").replace(" ", "_")


def share_weights_out() -> None:
    """Let accelerate use FSDP2 between processes without a GPU."""
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    }
    begin = AcceleratorState.__init__

    def begin_with_fsdp(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.FSDP
            self._shared_state["fsdp_plugin"] = options.get("fsdp_plugin") or FullyShardedDataParallelPlugin()

    AcceleratorState.__init__ = begin_with_fsdp


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    wanted = sys.argv[2:]
    if "--fsdp" in wanted:
        wanted.remove("--fsdp")
        share_weights_out()
    join_processes()
    for mode in wanted or MODES:
        train(mode, StageDirectory(Path(sys.argv[1]) / folder_of(mode)))
