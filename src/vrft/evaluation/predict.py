"""Predictions: every sample of a split, decoded greedily, or answered by a constant."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vrft.policies import LoadedPolicy, decode
from vrft.progress import Reporter
from vrft.response import render
from vrft.runs import read_jsonl, write_jsonl
from vrft.sample import Sample, Target, open_image
from vrft.tasks import ClosedTask


def predict(
    policy: LoadedPolicy,
    task: ClosedTask,
    samples: Sequence[Sample],
    path: Path,
    *,
    batch_size: int,
    max_tokens: int,
    reporter: Reporter,
    label: str = "evaluation",
) -> list[dict[str, Any]]:
    """Predict all samples in order, and append each batch to ``path`` as it is done.

    After a kill only the missing batches are decoded; a batch always holds the same samples, so that nothing about its
    padding changes.
    """
    policy.model.eval()
    done = read_jsonl(path)
    done = done[: len(done) - (len(done) % batch_size if len(done) < len(samples) else 0)]
    write_jsonl(path, done)
    reporter.start(label, len(samples), len(done))
    with path.open("a", encoding="utf-8") as file:
        for first in range(len(done), len(samples), batch_size):
            batch = samples[first : first + batch_size]
            prompts = [task.prompt(sample.question) for sample in batch]
            tokens = decode(policy, prompts, [open_image(sample) for sample in batch], max_tokens=max_tokens)
            texts = policy.processor.batch_decode(tokens, skip_special_tokens=True)
            rows = [
                prediction(task, sample, text, len(ids)) for sample, text, ids in zip(batch, texts, tokens, strict=True)
            ]
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            done += rows
            right = sum(row["answer"] == row["target"] for row in done) / len(done)
            reporter.advance(len(done), f"right {right:.3f}")
    reporter.stop()
    return done


def prediction(task: ClosedTask, sample: Sample, completion: str, tokens: int) -> dict[str, Any]:
    """One row of the predictions: what was written, and what both readings make of it."""
    reading = task.read(completion)
    return {
        "sample": sample.id,
        "target": sample.target,
        "completion": completion,
        "answer": reading.answer,
        "lenient": task.read_leniently(completion),
        "problems": list(reading.problems),
        "tokens": tokens,
    }


def constant_answer(task: ClosedTask, targets: Sequence[Target]) -> Target:
    """What the ``majority`` arm always says: the most frequent label, or the median grade, of the training split.

    >>> from vrft.tasks import Grading
    >>> constant_answer(Grading(5), [0, 0, 3, 4, 4])
    3
    """
    if task.ordinal:
        grades = sorted(target for target in targets if isinstance(target, int))
        return grades[math.ceil(len(grades) / 2) - 1]
    counts = Counter(targets)
    return max(task.classes, key=lambda label: counts[label])


def predict_constant(task: ClosedTask, answer: Target, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The rows of an arm that gives the same answer to every sample."""
    completion = render("The same answer for every image.", str(answer))
    return [prediction(task, sample, completion, 0) for sample in samples]
