"""Put a pretrained policy into the package: ``python -m vrft.policies.tiny.ship RUN [--samples 1000]``.

Copies the policy of a finished pretraining to ``weights`` and writes its card: the plan, what it cost, the curves of
the skills over the training, the held-out examination, checksums, and the logits of one input, which a test compares.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vrft.data.phantom import FAMILIES, PIXELS
from vrft.policies import TINY, LoadedPolicy, load_policy, model_inputs
from vrft.policies.tiny.examine import examine
from vrft.runs import read_jsonl

LIMITS = [
    "It has seen generated phantoms alone, no medical image; do not use it for diagnosis.",
    "It names attributes, counts to five, points with one box and reads short cards; it knows no medicine.",
    f"The looks {', '.join(FAMILIES['shifted'])} were never shown to it.",
]


def logits(policy: LoadedPolicy) -> list[float]:
    """The first logits behind one question about one picture; any change of weights or processing changes them."""
    pixels = np.arange(PIXELS * PIXELS * 3, dtype=np.uint32).reshape(PIXELS, PIXELS, 3).astype(np.uint8)
    image = Image.fromarray(pixels)
    inputs = model_inputs(policy, ["How many findings are there?"], [image])
    with torch.inference_mode():
        return [float(value) for value in policy.model(**inputs).logits[0, -1, :8]]


def hours(log: list[dict[str, Any]]) -> float:
    """Hours of training; the clock of the log starts anew with each resume."""
    seconds = [row["seconds"] for row in log]
    ends = [a for a, b in zip(seconds, [*seconds[1:], 0.0], strict=True) if b < a]
    return sum(ends) / 3600


def _without_out(arguments: list[str]) -> list[str]:
    """The options of a command without the place where it writes."""
    at = arguments.index("--out")
    return arguments[:at] + arguments[at + 2 :]


def ship(run: Path, *, samples: int) -> dict[str, Any]:
    """Copy the policy and write its card, which is returned."""
    plan = json.loads((run / "plan.json").read_text())
    curves = [
        {
            "samples": row["samples"],
            **{name: figure["value"] for name, figure in row.items() if isinstance(figure, dict)},
        }
        for row in read_jsonl(run / "curves.jsonl")
    ]
    made = json.loads((run / "machine.json").read_text())
    spent = hours(read_jsonl(run / "log.jsonl"))
    policy = load_policy(str(run / "policy"), dtype="float32")
    files = sorted(path for path in (run / "policy").iterdir() if path.is_file())
    card = {
        "name": "tiny",
        "architecture": type(policy.model).__name__,
        "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "data": f"phantoms of the looks {', '.join(FAMILIES['standard'])}, and cards without pictures",
        "limits": LIMITS,
        "command": " ".join(["python -m vrft.policies.tiny.pretrain", *_without_out(made["arguments"]), "--out DIR"]),
        "plan": plan,
        "samples": plan["steps"] * plan["batch"],
        "hours": round(spent, 2),
        "machine": made["machine"],
        "licence": "Apache-2.0",
        "examination": examine(policy, samples=samples),
        "curves": curves,
        "logits": [round(value, 4) for value in logits(policy)],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    shutil.rmtree(TINY, ignore_errors=True)
    shutil.copytree(run / "policy", TINY)
    (TINY / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished pretraining")
    parser.add_argument("--samples", type=int, default=1000, help="lessons a skill in the examination")
    options = parser.parse_args()
    card = ship(options.run, samples=options.samples)
    print(json.dumps({key: card[key] for key in ("parameters", "samples", "hours", "examination")}, indent=1))


if __name__ == "__main__":
    main()
