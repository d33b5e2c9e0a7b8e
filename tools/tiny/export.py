"""Put a pretrained policy into the package, with a card: ``python tools/tiny/pretrain.py --out DIR --export``.

The card holds the settings, the cost, the curves of the skills over the training, the held-out evaluation, checksums,
and the logits of one input, which a test compares.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_skills import evaluate_skills
from PIL import Image

from vrft.data.phantom import FAMILIES, PIXELS
from vrft.policies import TINY, LoadedPolicy, load_policy, model_inputs
from vrft.runs import read_jsonl

LIMITS = [
    "It has seen generated phantoms alone, no medical image; do not use it for diagnosis.",
    "It names attributes, counts to five, points with one box and reads short cards; it knows no medicine.",
    f"It was never trained on the modality {', '.join(FAMILIES['shifted'])}.",
]


def logits(policy: LoadedPolicy) -> list[float]:
    """The first 8 logits after one question about one image; any change of weights or processing changes them."""
    pixels = np.arange(PIXELS * PIXELS * 3, dtype=np.uint32).reshape(PIXELS, PIXELS, 3).astype(np.uint8)
    image = Image.fromarray(pixels)
    inputs = model_inputs(policy, ["How many findings are there?"], [image])
    with torch.inference_mode():
        return [float(value) for value in policy.model(**inputs).logits[0, -1, :8]]


def hours(log: list[dict[str, Any]]) -> float:
    """Hours of training from the lines of its log, whose clock starts again with each resume."""
    seconds = [row["seconds"] for row in log]
    ends = [a for a, b in zip(seconds, [*seconds[1:], 0.0], strict=True) if b < a]
    return sum(ends) / 3600


def export(run: Path, *, samples: int) -> dict[str, Any]:
    """Copy the policy of a run into the package and write its card, which is returned.

    Args:
        run: the folder of a finished pretraining.
        samples: held-out examples of each skill in the evaluation.
    """
    config = json.loads((run / "config.json").read_text())
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
        "data": f"phantoms of the modalities {', '.join(FAMILIES['standard'])}, and cards without images",
        "limits": LIMITS,
        "command": " ".join(["python tools/tiny/pretrain.py", *made["options"], "--out DIR --export"]),
        "config": config,
        "samples": config["steps"] * config["batch"],
        "hours": round(spent, 2),
        "machine": made["machine"],
        "licence": "Apache-2.0",
        "evaluation": evaluate_skills(policy, samples=samples),
        "curves": curves,
        "logits": [round(value, 4) for value in logits(policy)],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    shutil.rmtree(TINY, ignore_errors=True)
    shutil.copytree(run / "policy", TINY)
    (TINY / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card
