"""The speed of ``vrft score``: ``python benchmarks/score_lines.py [--lines 100000] [--json]``.

Times the command (start included, one process) on lines of text tasks, then the rewards in one process compared with
TRL's rewards on the same completions, and the growth of time with the length of a completion (4 times the length should
take 4 times as long).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from trl.rewards import accuracy_reward as trl_accuracy
from trl.rewards import think_format_reward as trl_format

from vrft.rewards import accuracy_reward, format_reward
from vrft.rewards.scoring import RowScorer

WORDS = ["the", "shadow", "is", "dense", "and", "lies", "in", "lower", "lobe", "right", "lung", "margin", "so", "i"]
TASKS: list[tuple[dict[str, Any], list[str], list[Any]]] = [
    (
        {"kind": "classification", "labels": ["normal", "pneumonia", "lung opacity"]},
        ["normal", "Pneumonia.", "**lung opacity**", "not pneumonia", "normal or pneumonia"],
        ["normal", "pneumonia", "lung opacity"],
    ),
    ({"kind": "grading", "levels": 5}, ["2", "Grade 3", "Stage II", "grade: 2 (moderate)", "2-3"], [0, 1, 2, 3, 4]),
    ({"kind": "vqa", "answers": "yes_no"}, ["yes", "No.", "No, there is no evidence of it."], ["yes", "no"]),
]
LONG = {
    "classification": ({"kind": "classification", "labels": ["normal", "pneumonia"]}, "normal", "pneumonia or normal "),
    "grading": ({"kind": "grading", "levels": 5}, 2, "grade 2 or 3, "),
    "localization": ({"kind": "localization", "frame": "pixel"}, [[1, 2, 3, 4]], '{"bbox_2d": [1, 2, 30, 40]}, '),
    "brackets": ({"kind": "localization", "frame": "pixel"}, [[1, 2, 3, 4]], "[[(,"),
    "tags": ({"kind": "classification", "labels": ["normal", "pneumonia"]}, "normal", "</think><answer>"),
}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Completions of about 60 tokens, some right, some wrong, some unreadable."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        task, answers, targets = TASKS[index % len(TASKS)]
        think = " ".join(rng.choices(WORDS, k=40))
        completion = f"<think>{think}</think>\n<answer>{rng.choice(answers)}</answer>"
        made.append({"id": index, "task": task, "completion": completion, "target": rng.choice(targets)})
    return made


def command_speed(count: int) -> float:
    """Lines per second of the command."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(count)), encoding="utf-8")
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "vrft", "score", str(file)], stdout=subprocess.DEVNULL, check=True)
        return count / (time.perf_counter() - began)


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """The median seconds of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return median(times)


def against_trl(count: int) -> dict[str, float]:
    """The time of TRL's rewards divided by ours, on the same completions as messages."""
    graded = [row for row in rows(3 * count) if row["task"]["kind"] == "grading"]
    messages = [[{"role": "assistant", "content": row["completion"]}] for row in graded]
    targets = [row["target"] for row in graded]
    ours = seconds(lambda: accuracy_reward(messages, targets, levels=5))
    theirs = seconds(lambda: trl_accuracy(messages, [str(target) for target in targets]))
    ours_format = seconds(lambda: format_reward(messages))
    theirs_format = seconds(lambda: trl_format(messages))
    return {"accuracy": theirs / ours, "format": theirs_format / ours_format}


def growth(characters: int) -> dict[str, float]:
    """The time of a completion of 4 times the length, divided by 4 times the time of the shorter: 1 is linear."""
    scorer = RowScorer()
    ratios = {}
    for name, (task, target, unit) in LONG.items():
        row = {"task": task, "target": target, "image_size": [100, 100]}

        def score(length: int, row: dict[str, Any] = row, unit: str = unit) -> Any:
            text = unit * (length // len(unit))
            return scorer.score({**row, "completion": f"<think>{text}</think><answer>{text}"})

        short, long = (seconds(lambda n=n: score(n), 3) for n in (characters, 4 * characters))
        ratios[name] = long / (4 * short)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--characters", type=int, default=250_000, help="of the shorter completion")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {
        "lines_a_second": command_speed(arguments.lines),
        "times_as_fast_as_trl": against_trl(2000),
        "growth": growth(arguments.characters),
    }
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"vrft score, {arguments.lines:,} lines of text tasks: {results['lines_a_second']:,.0f} lines a second")
    for name, ratio in results["times_as_fast_as_trl"].items():
        print(f"the {name} reward takes 1/{ratio:.1f} of the time of TRL's on the same completions")
    for name, ratio in results["growth"].items():
        print(f"4 times as long a completion ({name}): {4 * ratio:.2f} times the time")


if __name__ == "__main__":
    main()
