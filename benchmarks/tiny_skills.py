"""What the embedded policy can do: ``python benchmarks/tiny_skills.py [DIR] [--samples 1000] [--json]``.

Held-out lessons, greedy, skill by skill, with 95% intervals; see ``vrft.policies.tiny.examine`` for what is counted.
DIR is a pretrained policy; the shipped one without it.
"""

import argparse
import json
from pathlib import Path

from vrft.policies import TINY, load_policy
from vrft.policies.tiny.examine import examine

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
"""The least that the embedded policy is meant to reach; ``card_removed`` is meant to be chance, 0.5."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, nargs="?", default=TINY)
    parser.add_argument("--samples", type=int, default=1000, help="lessons a skill")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = examine(load_policy(str(options.policy)), samples=options.samples)
    if options.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        wanted = f"wanted {WANTED[name]:.3f}" if name in WANTED else ""
        interval = f"[{figure['low']:.3f}, {figure['high']:.3f}]"
        print(f"{name:14}{figure['value']:.3f}  {interval}  n {figure['n']:.0f}  {wanted}")


if __name__ == "__main__":
    main()
