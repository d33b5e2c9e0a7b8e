"""How rewards pay on real completions: ``python benchmarks/reward_cases.py --cases CASES.jsonl [--json] [--write]``.

Each case holds a completion, its task and target, and what a careful reader wants it to earn. Ours are compared with
the rewards that ship with TRL (``accuracy_reward``, ``think_format_reward``) and with the substring match that many
public trainers use. ``--write`` puts the table into docs/reward_cases.md.

TRL's accuracy reward verifies mathematics; it is here because trainers of vision-language models use it for labels,
grades and boxes as well. It is given the target as its text, the way such trainers do.
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
SLACK = 1e-3
LONGEST = 10_000
"""Characters; TRL's verifier takes minutes on a completion that never ends, so longer ones are left out for all."""

Case = dict[str, Any]
Reward = Callable[[Case], float | None]


def read_cases(path: Path) -> list[Case]:
    """The cases, each with its completion written out."""
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for case in cases:
        if isinstance(written := case["completion"], dict):
            body = written["repeat"] * written["times"]
            case["completion"] = written.get("prefix", "") + body + written.get("suffix", "")
    return cases


def message(case: Case) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": case["completion"]}]]


def text_of_target(case: Case) -> str:
    return case["target"] if isinstance(case["target"], str) else json.dumps(case["target"])


def answer_name(case: Case) -> str | None:
    """The reward that judges the answer in this case."""
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


def tally(cases: list[Case], reward: Reward, wanted: Callable[[Case], float]) -> dict[str, int]:
    """How often a reward pays what is wanted, too much, too little, or does not judge."""
    counts = {"cases": len(cases), "right": 0, "too much": 0, "too little": 0, "none": 0}
    for case in cases:
        paid, want = reward(case), wanted(case)
        if paid is None:
            counts["none"] += 1
        elif abs(paid - want) <= SLACK:
            counts["right"] += 1
        else:
            counts["too much" if paid > want else "too little"] += 1
    return counts


def compare(cases: list[Case]) -> dict[str, dict[str, dict[str, int]]]:
    """The tallies by what is judged (the answers by kind of task, the format) and by reward."""
    cases = [case for case in cases if len(case["completion"]) <= LONGEST]
    results: dict[str, dict[str, dict[str, int]]] = {}
    for kind in dict.fromkeys(case["task"]["kind"] for case in cases):
        judged = [case for case in cases if case["task"]["kind"] == kind and answer_name(case)]
        results[kind] = {
            name: tally(judged, reward, lambda case: case["want"][str(answer_name(case))])
            for name, reward in ANSWER.items()
        }
    judged = [case for case in cases if "format" in case["want"]]
    results["format"] = {
        name: tally(judged, reward, lambda case: case["want"]["format"]) for name, reward in FORMAT.items()
    }
    return results


def table(results: dict[str, dict[str, dict[str, int]]]) -> str:
    columns = ["cases", "right", "too much", "too little", "none"]
    lines = [f"| judged | reward | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for judged, rewards in results.items():
        for name, counts in rewards.items():
            lines.append(f"| {judged} | {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    return "\n".join(lines)


def page(results: dict[str, dict[str, dict[str, int]]]) -> str:
    return f"""# What rewards pay on real completions

Written by `benchmarks/reward_cases.py`. Completions of the kinds that vision-language models write (fenced boxes,
Python literals, negated labels, ranges of grades, two envelopes, ...), each with what a careful reader wants it to
earn.

- **right**: the reward pays what is wanted (to {SLACK}); **too much** and **too little** say how it errs; **none**: it
  does not judge the case.
- *vrft* pays by task: `accuracy` for labels and questions, `fuzzy` for grades, `iou` for boxes.
- *TRL `accuracy_reward`* verifies mathematical answers; it is given the target as text, as trainers do that use it for
  everything. *substring* pays 1 where the target stands anywhere in the completion.
- Completions longer than {LONGEST:,} characters are left out for all.

The cases are those that this project's own rewards were built on, so *right everywhere* says that the conventions
are kept, not that no completion can be misread.

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
