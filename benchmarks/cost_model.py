"""How near the cost model comes to measured steps: ``python benchmarks/cost_model.py [SHAPE ...] [--json]``.

Each shape is timed by ``vrft bench`` with TRL's trainer (stock) and with the shared prefix, and predicted for this
machine. Of memory, what ``vrft bench`` counts is compared: what a step adds to weights and reference.
"""

import argparse
import json
import warnings
from typing import Any

import torch
from transformers import AutoConfig

from vrft.cli.bench import read_shape
from vrft.policies import TINY, quiet_libraries
from vrft.progress import Reporter
from vrft.training.cost import Lengths, Step, architecture, empty_model, step_cost
from vrft.training.devices import device_for
from vrft.training.throughput import Shape, bench, mid_config

SEEN = ("tiny:300/60/8", "mid:150/40/4", "tiny:-/24/8x8", "tiny:150/40/4x2", "tiny:200/100/4", "mid:100/20/8")
"""Shapes whose figures were known when the constants of a CPU were chosen."""
UNSEEN = ("tiny:120/30/16", "tiny:400/20/4x4", "tiny:250/80/6x2", "mid:200/60/4")
"""Shapes that were first measured when the constants stood: only these are a check."""
IMAGE_TOKENS = 16
"""Of a phantom, in both models."""


def predicted(result: dict[str, Any], name: str) -> dict[str, float]:
    """Seconds of the parts and of the step, and MB, of one trainer on the shape of a result of ``bench``."""
    one = architecture(empty_model(mid_config() if result["model"] == "mid" else AutoConfig.from_pretrained(TINY)))
    step = Step(result["prompts"], result["group"], shared=name == "shared", kl=True, rollouts=True)
    lengths = Lengths(result["prompt"], IMAGE_TOKENS, result["completion"])
    cost = step_cost(one, device_for(None), step, lengths, 4)
    seconds = {"log_prob" if part == "reference" else part: value for part, value in cost.seconds.items()}
    seconds.pop("update")  # `bench` times the step without the optimiser
    memory = cost.memory
    added = memory.peak - memory.weights - memory.reference
    return seconds | {"step": sum(seconds.values()), "peak_mb": added / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=(*UNSEEN, *SEEN))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    warnings.filterwarnings("ignore")
    rows = []
    for text in options.shapes:
        result = bench(Shape(**read_shape(text)), steps=options.steps, reporter=Reporter(quiet=True))
        for name in ("stock", "shared"):
            told = predicted(result, name)
            pairs = {key: [told[key], result[name][key]] for key in told if key != "other"}
            rows.append({"shape": text, "trainer": name, "predicted_measured": pairs})
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}))
        return
    for row in rows:
        pairs = row["predicted_measured"].items()
        told = "  ".join(f"{key} {a:.3g}/{b:.3g} ({a / b:.2f})" for key, (a, b) in pairs)
        print(f"{row['shape']:18}{row['trainer']:8}{told}")


if __name__ == "__main__":
    main()
