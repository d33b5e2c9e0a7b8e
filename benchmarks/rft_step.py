"""Where the seconds of an RFT step go: ``python benchmarks/rft_step.py [--steps 30] [--json]``.

Runs the first steps of the quickstart's RFT stage with the stock TRL trainer, and times what each step is made of:
``rollout`` (sampling), ``reward`` (all reward functions), ``prepare`` (processing images and prompts, and the
reference's log-probabilities), ``backward`` (forward, loss and backward of the policy), ``other`` (optimiser, logging,
data).
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from trl import GRPOTrainer

from vrft.policies import load_policy
from vrft.progress import Reporter
from vrft.recipe import RftStage, build_task, open_source, read_recipe
from vrft.runs import StageDirectory, read_jsonl
from vrft.training import train_rft

PARTS = {
    "rollout": "_generate_single_turn",
    "reward": "_calculate_rewards",
    "score": "_generate_and_score_completions",
    "train": "training_step",
}
"""Part -> the method of the trainer that is timed; ``score`` holds rollout and reward, ``train`` holds ``score``."""


def timed(method: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = method(*args, **kwargs)
        times.append(time.perf_counter() - began)
        return result

    return wrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for part, name in PARTS.items():
        setattr(GRPOTrainer, name, timed(getattr(GRPOTrainer, name), times[part]))
    path = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
    recipe = read_recipe(path, [f"stages.0.steps={options.steps}", f"stages.0.save_every={options.steps}"])
    source = open_source(recipe)
    stage = recipe.stages[0]
    assert isinstance(stage, RftStage)
    with tempfile.TemporaryDirectory() as folder:
        directory = StageDirectory(Path(folder))
        samples = list(source.samples("train"))
        train_rft(
            load_policy("tiny"),
            stage,
            build_task(recipe, source),
            samples,
            directory,
            seed=0,
            reporter=Reporter(quiet=True),
        )
        seconds = [row["seconds"] for row in read_jsonl(directory.log)]
    warm = len(times["train"]) // 4
    mid = {part: median(values[warm:]) for part, values in times.items()}
    step = median(b - a for a, b in zip(seconds[warm:], seconds[warm + 1 :], strict=False))
    parts = {
        "rollout": mid["rollout"],
        "reward": mid["reward"],
        "prepare": mid["score"] - mid["rollout"] - mid["reward"],
        "backward": mid["train"] - mid["score"],
        "other": step - mid["train"],
    }
    result = {
        "step": step,
        **parts,
        "prompts": stage.prompts_per_step,
        "group": stage.group_size,
        "steps": options.steps,
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"one step of {stage.prompts_per_step} x {stage.group_size}: {step:.3f} s (median of {options.steps - warm})")
    for part, value in parts.items():
        print(f"  {part:9}{value:7.3f} s {value / step:6.1%}")


if __name__ == "__main__":
    main()
