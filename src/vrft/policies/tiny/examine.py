"""The held-out examination of the embedded policy: ``python -m vrft.policies.tiny.examine [DIR] [--samples N]``.

Greedy answers to lessons that pretraining never showed, skill by skill, with 95% intervals (Wilson for shares). What is
counted: ``format`` over all skills; each attribute as it is named in the think block; ``count``, ``extent`` and
``attribute`` as answers; ``listed``, whether an answer about labels without a meaning is one of those in the prompt;
``card2`` and ``card4``, labels of two and four classes that only a card in the prompt explains; ``card_removed``, the
same as ``card2`` without the card; ``mean_iou`` and ``iou50``, one box.
"""

import argparse
import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from vrft.data.phantom import ATTRIBUTES, PIXELS, Phantom, draw
from vrft.policies import TINY, LoadedPolicy, decode, load_policy
from vrft.policies.tiny.lessons import HELD_OUT, Lesson, lesson
from vrft.response import parse
from vrft.rewards.overlap import overlap
from vrft.tasks import Localization

EXAMINED = ("count", "extent", "attribute", "code", "box", "card2", "card4", "card_removed")
"""The skills that are examined; ``reading`` without a picture is only a step on the way to cards."""

BOXES = Localization("pixel")


def examine(policy: LoadedPolicy, *, samples: int = 500, batch_size: int = 100) -> dict[str, dict[str, float]]:
    """Return for each figure ``value``, ``low``, ``high`` and ``n``."""
    hits: dict[str, list[bool]] = {}
    overlaps: list[float] = []
    policy.model.eval()
    for skill in EXAMINED:
        lessons = [lesson(HELD_OUT, 0, index, skill) for index in range(samples)]
        for first in range(0, samples, batch_size):
            batch = lessons[first : first + batch_size]
            tokens = decode(policy, [one.prompt for one in batch], [draw(shown(one)) for one in batch], max_tokens=56)
            texts = policy.processor.batch_decode(tokens, skip_special_tokens=True)
            for made, text in zip(batch, texts, strict=True):
                envelope, phantom = parse(text), shown(made)
                hits.setdefault("format", []).append(not envelope.problems)
                if phantom.findings and skill != "extent":  # there a finding is larger than "large"
                    said = (envelope.think or "").partition(",")[0].split()
                    for name in ATTRIBUTES:
                        hits.setdefault(name, []).append(phantom.attributes[name] in said)
                if skill == "box":
                    reading = BOXES.read_answer(envelope, (PIXELS, PIXELS))
                    overlaps.append(overlap(reading, phantom.boxes()))
                elif skill == "code":
                    hits.setdefault("listed", []).append(envelope.answer in made.prompt.split("\n")[2:-1])
                else:
                    hits.setdefault(skill, []).append(envelope.answer == made.answer)
    figures = {name: _wilson(values) for name, values in hits.items()}
    figures["iou50"] = _wilson([overlap > 0.5 for overlap in overlaps])
    mean = sum(overlaps) / len(overlaps)
    error = 1.96 * sqrt(sum((o - mean) ** 2 for o in overlaps) / len(overlaps) ** 2)
    figures["mean_iou"] = {"value": mean, "low": mean - error, "high": mean + error, "n": len(overlaps)}
    return {name: {key: round(value, 4) for key, value in figure.items()} for name, figure in figures.items()}


def shown(made: Lesson) -> Phantom:
    """The phantom of a lesson that has a picture."""
    assert made.phantom is not None
    return made.phantom


def _wilson(hits: Sequence[bool], z: float = 1.96) -> dict[str, float]:
    """A share with its Wilson score interval (Wilson, 1927)."""
    n, share = len(hits), sum(hits) / len(hits)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"value": share, "low": centre - half, "high": centre + half, "n": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, nargs="?", default=TINY, help="a folder; the shipped policy without it")
    parser.add_argument("--samples", type=int, default=500, help="lessons a skill")
    options: Any = parser.parse_args()
    print(json.dumps(examine(load_policy(str(options.policy)), samples=options.samples), indent=1))


if __name__ == "__main__":
    main()
