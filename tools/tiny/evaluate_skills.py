"""Evaluate the embedded policy skill by skill: ``python tools/tiny/evaluate_skills.py [DIR] [--samples N] [--json]``.

Greedy answers to held-out examples, with 95% intervals (Wilson for shares). DIR is a pretrained policy; without it the
shipped one. The figures: ``format`` over all skills; each attribute as it is named in the think block; ``count``,
``extent`` and ``attribute`` as answers; ``listed``, whether an answer about labels without a meaning is among those in
the prompt; ``card2`` and ``card4``, labels of two and four classes that only a card in the prompt explains;
``card_removed``, the same as ``card2`` without the card; ``mean_iou`` and ``iou50``, one box.
"""

import argparse
import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

from curriculum import HELD_OUT, Example, make_example

from vrft.data.phantom import ATTRIBUTES, PIXELS, Phantom, draw
from vrft.policies import TINY, LoadedPolicy, decode, load_policy
from vrft.response import parse
from vrft.rewards.overlap import overlap
from vrft.tasks import Localization

EVALUATED = ("count", "extent", "attribute", "code", "box", "card2", "card4", "card_removed")
"""The skills that are evaluated; ``reading`` without an image is only a step on the way to cards."""

WANTED = {
    "format": 0.998,
    "brightness": 0.99,
    "size": 0.99,
    "shape": 0.9,
    "margin": 0.9,
    "count": 0.95,
    "mean_iou": 0.85,
    "iou50": 0.95,
    "card2": 0.9,
    "card4": 0.75,
}
"""The least that the embedded policy should reach; ``card_removed`` should be chance, 0.5."""

BOXES = Localization("pixel")


def evaluate_skills(policy: LoadedPolicy, *, samples: int = 500, batch_size: int = 100) -> dict[str, dict[str, float]]:
    """Evaluate a policy on held-out examples.

    Args:
        policy: a policy that answers at 112 x 112 pixels.
        samples: examples of each skill.
        batch_size: examples that are decoded together.

    Returns:
        for each figure ``value``, ``low``, ``high`` (each in [0, 1]) and ``n``.
    """
    hits: dict[str, list[bool]] = {}
    overlaps: list[float] = []
    policy.model.eval()
    for skill in EVALUATED:
        examples = [make_example(HELD_OUT, 0, index, skill) for index in range(samples)]
        for first in range(0, samples, batch_size):
            batch = examples[first : first + batch_size]
            images = [draw(phantom_of(example)) for example in batch]
            tokens = decode(policy, [example.prompt for example in batch], images, max_tokens=56)
            texts = policy.processor.batch_decode(tokens, skip_special_tokens=True)
            for example, text in zip(batch, texts, strict=True):
                envelope, phantom = parse(text), phantom_of(example)
                hits.setdefault("format", []).append(not envelope.problems)
                if phantom.findings and skill != "extent":  # there a finding is larger than "large"
                    named = (envelope.think or "").partition(",")[0].split()
                    for name in ATTRIBUTES:
                        hits.setdefault(name, []).append(phantom.attributes[name] in named)
                if skill == "box":
                    reading = BOXES.read_answer(envelope, (PIXELS, PIXELS))
                    overlaps.append(overlap(reading, phantom.boxes()))
                elif skill == "code":
                    hits.setdefault("listed", []).append(envelope.answer in example.prompt.split("\n")[2:-1])
                else:
                    hits.setdefault(skill, []).append(envelope.answer == example.answer)
    figures = {name: _wilson(values) for name, values in hits.items()}
    figures["iou50"] = _wilson([overlap > 0.5 for overlap in overlaps])
    mean = sum(overlaps) / len(overlaps)
    error = 1.96 * sqrt(sum((o - mean) ** 2 for o in overlaps) / len(overlaps) ** 2)
    figures["mean_iou"] = {"value": mean, "low": mean - error, "high": mean + error, "n": len(overlaps)}
    return {name: {key: round(value, 4) for key, value in figure.items()} for name, figure in figures.items()}


def phantom_of(example: Example) -> Phantom:
    """The phantom of an example that has an image."""
    assert example.phantom is not None
    return example.phantom


def _wilson(hits: Sequence[bool], z: float = 1.96) -> dict[str, float]:
    """A share with its Wilson score interval (Wilson, 1927)."""
    n, share = len(hits), sum(hits) / len(hits)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"value": share, "low": centre - half, "high": centre + half, "n": n}


def main() -> None:
    """Print the figures of a policy, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, nargs="?", default=TINY, help="a folder; the shipped policy without it")
    parser.add_argument("--samples", type=int, default=500, help="examples of each skill")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = evaluate_skills(load_policy(str(options.policy)), samples=options.samples)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, figure in figures.items():
        wanted = f"wanted {WANTED[name]:.3f}" if name in WANTED else ""
        interval = f"[{figure['low']:.3f}, {figure['high']:.3f}]"
        print(f"{name:14}{figure['value']:.3f}  {interval}  n {figure['n']:.0f}  {wanted}")


if __name__ == "__main__":
    main()
