"""Rewards of real completions: ``python benchmarks/reward_cases.py --cases CASES.jsonl [--json] [--write]``.

Each case has a completion, its task and target, and the expected reward. Our rewards are compared with TRL's rewards
(``accuracy_reward``, ``think_format_reward``) and with the substring match that many public trainers use. ``--write``
writes the table to docs/reward_cases.md.

TRL's accuracy reward verifies mathematics; it is included because trainers of vision-language models use it for labels,
grades and boxes as well. It receives the target as text, as in such trainers.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trl.rewards import accuracy_reward as trl_accuracy
from trl.rewards import think_format_reward as trl_format

from vrft.rewards.scoring import RowScorer

PAGE = Path(__file__).parents[1] / "docs" / "reward_cases.md"
TOLERANCE = 1e-3
MAX_CHARACTERS = 10_000
"""Longer completions are left out for all rewards, since TRL's verifier takes minutes on them."""

Case = dict[str, Any]
Reward = Callable[[Case], float | None]


def read_cases(path: Path) -> list[Case]:
    """Read the cases, with repeated parts of completions expanded."""
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for case in cases:
        if isinstance(written := case["completion"], dict):
            body = written["repeat"] * written["times"]
            case["completion"] = written.get("prefix", "") + body + written.get("suffix", "")
    return cases


def message(case: Case) -> list[list[dict[str, str]]]:
    """The completion as a batch of one conversation."""
    return [[{"role": "assistant", "content": case["completion"]}]]


def text_of_target(case: Case) -> str:
    """The target as text; boxes as JSON."""
    return case["target"] if isinstance(case["target"], str) else json.dumps(case["target"])


def answer_name(case: Case) -> str | None:
    """The reward of the answer in this case; None where only the format is checked."""
    return next((name for name in ("accuracy", "fuzzy", "iou") if name in case["want"]), None)


SCORER = RowScorer()

ANSWER: dict[str, Reward] = {
    "vrft": lambda case: SCORER.score(case)[answer_name(case) or "format"],
    "TRL `accuracy_reward`": lambda case: trl_accuracy(message(case), [text_of_target(case)])[0],
    "substring": lambda case: float(text_of_target(case).lower() in case["completion"].lower()),
}
FORMAT: dict[str, Reward] = {
    "vrft `format`": lambda case: SCORER.score(case)["format"],
    "TRL `think_format_reward`": lambda case: trl_format(message(case))[0],
}


def count_outcomes(cases: list[Case], reward: Reward, expected: Callable[[Case], float]) -> dict[str, int]:
    """The number of cases with the expected reward, too much, too little, or no reward."""
    counts = {"cases": len(cases), "right": 0, "too much": 0, "too little": 0, "none": 0}
    for case in cases:
        earned, want = reward(case), expected(case)
        if earned is None:
            counts["none"] += 1
        elif abs(earned - want) <= TOLERANCE:
            counts["right"] += 1
        else:
            counts["too much" if earned > want else "too little"] += 1
    return counts


def compare(cases: list[Case]) -> dict[str, dict[str, dict[str, int]]]:
    """The counts by kind of task (answers) or ``format``, and by reward."""
    cases = [case for case in cases if len(case["completion"]) <= MAX_CHARACTERS]
    results: dict[str, dict[str, dict[str, int]]] = {}
    for kind in dict.fromkeys(case["task"]["kind"] for case in cases):
        checked = [case for case in cases if case["task"]["kind"] == kind and answer_name(case)]
        results[kind] = {
            name: count_outcomes(checked, reward, lambda case: case["want"][str(answer_name(case))])
            for name, reward in ANSWER.items()
        }
    checked = [case for case in cases if "format" in case["want"]]
    results["format"] = {
        name: count_outcomes(checked, reward, lambda case: case["want"]["format"]) for name, reward in FORMAT.items()
    }
    return results


def table(results: dict[str, dict[str, dict[str, int]]]) -> str:
    """The counts as a table in Markdown."""
    columns = ["cases", "right", "too much", "too little", "none"]
    lines = [f"| checked | reward | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for checked, rewards in results.items():
        for name, counts in rewards.items():
            lines.append(f"| {checked} | {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    return "\n".join(lines)


def page(results: dict[str, dict[str, dict[str, int]]]) -> str:
    """The page docs/reward_cases.md."""
    return f"""# Rewards of real completions

Written by `benchmarks/reward_cases.py`. Completions of the kinds that vision-language models write (fenced boxes,
Python literals, negated labels, ranges of grades, two envelopes, ...), each with its expected reward.

- **right**: the reward is as expected (to {TOLERANCE}), or **too much**, or **too little**; **none**: the reward
  does not apply to the case.
- *vrft* is `accuracy` for labels and questions, `fuzzy` for grades, and `iou` for boxes.
- *TRL `accuracy_reward`* verifies mathematical answers; it receives the target as text, as in trainers that use it for
  all tasks. *substring* is 1 where the completion contains the target.
- Completions longer than {MAX_CHARACTERS:,} characters are left out for all rewards.

The rewards of this project were developed on these cases, so *right* for all cases shows that the conventions hold, not
that no completion can be misread.

{table(results)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="JSON lines with completion, task, target and want")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name}")
    arguments = parser.parse_args()
    results = compare(read_cases(arguments.cases))
    print(json.dumps(results) if arguments.json else table(results))
    if arguments.write:
        PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
