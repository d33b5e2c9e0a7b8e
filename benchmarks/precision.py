"""The loss of precision with float32 weights under bfloat16 autocast, and with bfloat16 weights.

    python benchmarks/precision.py [--json]

On the embedded policy, with this project's own stages: the loss of 50 steps of SFT in float32 and under autocast; the
share of weights that three steps of AdamW at 1e-5 move, in float32 and in pure bfloat16; and how much
of the update of adapters is lost where they are merged into bfloat16 weights, after 20 steps.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel

from vrft.data import PhantomSource
from vrft.policies import LoadedPolicy, load_policy, quiet_libraries
from vrft.policies.from_recipe import lora_config
from vrft.progress import Reporter
from vrft.recipe import Policy, SftStage
from vrft.runs import StageDirectory, read_jsonl
from vrft.tasks import Grading
from vrft.training import train_sft

BATCH = 8


def sft(folder: Path, policy: LoadedPolicy, steps: int, rate: float) -> list[float]:
    """Train a policy for some steps at a learning rate; returns the loss of each step."""
    samples = list(
        PhantomSource("grading", family="shifted", sizes={"train": 256, "validation": 0, "test": 0}).samples("train")
    )
    stage = SftStage(kind="sft", steps=steps, batch_size=BATCH, learning_rate=rate, save_every=steps)
    directory = StageDirectory(folder)
    directory.path.mkdir(parents=True)
    train_sft(policy, stage, Grading(5), samples, directory, seed=0, reporter=Reporter(quiet=True))
    return [row["loss"] for row in read_jsonl(directory.log)]


def losses(folder: Path) -> dict[str, float]:
    """The mean loss of the last ten of 50 steps, in both precisions."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        curve = sft(folder / dtype, load_policy("tiny", training=True, dtype=dtype), 50, 3e-4)
        found[dtype] = sum(curve[-10:]) / 10
    return found | {"relative_difference": abs(found["bfloat16"] / found["float32"] - 1)}


def moved(folder: Path) -> dict[str, float]:
    """The share of weights that three steps at 1e-5 change: master weights under autocast, and pure bfloat16."""
    shares = {}
    for name, dtype in (("master", torch.float32), ("pure_bfloat16", torch.bfloat16)):
        policy = load_policy("tiny", training=True, dtype="bfloat16")
        if dtype == torch.bfloat16:  # loaded without master weights, and trained without autocast
            policy.model.to(dtype)
            policy.compute = torch.float32
        before = {key: weight.detach().clone() for key, weight in policy.model.named_parameters()}
        sft(folder / f"moved-{name}", policy, 3, 1e-5)
        changed = sum(int((weight != before[key]).sum()) for key, weight in policy.model.named_parameters())
        shares[name] = changed / sum(weight.numel() for weight in before.values())
    return shares


def lost_in_merging(folder: Path, rate: float) -> float:
    """For adapters after 20 steps: the norm of the loss from rounding to bfloat16 over the norm of their update."""
    lora = lora_config(Policy.model_validate({"lora": {"rank": 16}}))
    policy = load_policy("tiny", training=True, dtype="bfloat16", lora=lora)
    sft(folder / f"merged-{rate}", policy, 20, rate)
    assert isinstance(policy.model, PeftModel)
    layers = [
        layer for layer in policy.model.modules() if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight")
    ]
    updates = [
        (layer.base_layer.weight.detach().bfloat16(), layer.get_delta_weight("default").detach()) for layer in layers
    ]
    lost = sum(
        float((((base.float() + delta).bfloat16().float() - base.float()) - delta).norm() ** 2)
        for base, delta in updates
    )
    return (lost / sum(float(delta.norm() ** 2) for _, delta in updates)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    quiet_libraries()
    with TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, Any] = {
            "loss_of_50_steps": losses(folder),
            "weights_moved_by_3_steps_at_1e-5": moved(folder),
            "adapters_lost_in_bfloat16": {f"{rate:g}": lost_in_merging(folder, rate) for rate in (1e-5, 1e-4)},
        }
    if options.json:
        print(json.dumps(result))
        return
    for title, values in result.items():
        print(f"{title}: {', '.join(f'{key} {value:.4g}' for key, value in values.items())}")


if __name__ == "__main__":
    main()
