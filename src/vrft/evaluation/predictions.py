"""Predictions: every sample of a split, decoded greedily, or answered by a constant."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from vrft.boxes import Size
from vrft.evaluation.box_metrics import constant_box, mean_iou, tally
from vrft.policies import LoadedPolicy, decode
from vrft.processes import all_of, from_main, is_main, process_count, process_index
from vrft.progress import Reporter
from vrft.response import assistant_turn, parse, render
from vrft.runs import read_jsonl, write_jsonl
from vrft.sample import Box, Sample, Target, size_of
from vrft.tasks import ClosedTask, Localization, TrainableTask


def predict(
    policy: LoadedPolicy,
    task: TrainableTask,
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
    padding changes, however many processes share the batches out. The first process writes; all get all rows.
    """
    done = from_main(lambda: _whole_batches(path, len(samples), batch_size))
    reporter.start(label, len(samples), len(done))
    with path.open("a", encoding="utf-8") if is_main() else nullcontext() as file:
        for rows in answers(policy, task, samples[len(done) :], batch_size=batch_size, max_tokens=max_tokens):
            if file is not None:
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                file.flush()
            done += rows
            reporter.advance(len(done), so_far(task, done))
    reporter.stop()
    return done


def _whole_batches(path: Path, count: int, batch_size: int) -> list[dict[str, Any]]:
    """The rows of a file that need not be made again; others are taken out of it."""
    done = read_jsonl(path)
    done = done[: len(done) - (len(done) % batch_size if len(done) < count else 0)]
    write_jsonl(path, done)
    return done


def answers(
    policy: LoadedPolicy, task: TrainableTask, samples: Sequence[Sample], *, batch_size: int, max_tokens: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows of samples in order, decoded greedily: a batch for each process at a time, given to all of them."""
    policy.model.eval()
    batches = [samples[first : first + batch_size] for first in range(0, len(samples), batch_size)]
    for first in range(0, len(batches), process_count()):
        own = batches[first + process_index() :][:1]
        yield all_of(row for batch in own for row in _decoded(policy, task, batch, max_tokens))


def _decoded(
    policy: LoadedPolicy, task: TrainableTask, batch: Sequence[Sample], max_tokens: int
) -> list[dict[str, Any]]:
    images, sizes = zip(*(policy.open(sample) for sample in batch), strict=True)
    firsts = [of_sample[0] for of_sample in sizes]
    prompts = [policy.prompt(task, sample, size) for sample, size in zip(batch, firsts, strict=True)]
    tokens = decode(policy, prompts, images, max_tokens=max_tokens)
    texts, end = policy.processor.batch_decode(tokens, skip_special_tokens=True), policy.prompt_end
    return [
        prediction(task, sample, text, len(ids), size, policy.processed_size(size), prompt_end=end)
        for sample, text, ids, size in zip(batch, texts, tokens, firsts, strict=True)
    ]


def so_far(task: TrainableTask, rows: Sequence[dict[str, Any]]) -> str:
    """The headline figure of the predictions that are done."""
    if isinstance(task, Localization):
        return f"mean IoU {mean_iou(tally(rows, 'answer')):.3f}"
    return f"right {sum(row['answer'] == row['target'] for row in rows) / len(rows):.3f}"


def prediction(
    task: TrainableTask,
    sample: Sample,
    completion: str,
    tokens: int,
    image_size: Size | None = None,
    processed_size: Size | None = None,
    *,
    prompt_end: str = "",
) -> dict[str, Any]:
    """One row of the predictions: what was written, and what both readings make of it.

    Where the chat template opens a block of the envelope, the row holds ``prompt_end`` too.
    """
    envelope, turn = parse(completion, task.order, prompt_end), assistant_turn(completion, prompt_end)
    opened = {"prompt_end": prompt_end} if prompt_end else {}
    reading = task.read_answer(envelope, image_size, processed_size)
    problems, well_formed = [*envelope.problems, *reading.problems], not envelope.problems
    if isinstance(task, Localization):
        assert image_size is not None
        lenient = task.read_leniently(turn, image_size, processed_size)
        return {
            "sample": sample.id,
            "target": _lists(task.check_target(sample.target, image_size)),
            "completion": completion,
            "answer": _lists(reading.answer),
            "lenient": _lists(lenient),
            "problems": problems,
            "well_formed": well_formed,
            "tokens": tokens,
            "stated": reading.stated,
            "image_size": list(image_size),
        } | opened
    return {
        "sample": sample.id,
        "target": sample.target,
        "completion": completion,
        "answer": reading.answer,
        "lenient": task.read_leniently(turn),
        "problems": problems,
        "well_formed": well_formed,
        "tokens": tokens,
    } | opened


def _lists(boxes: Any) -> list[list[float]] | None:
    """Boxes as JSON holds them."""
    return None if boxes is None else [list(box) for box in boxes]


def constant_answer(task: ClosedTask, targets: Sequence[Target]) -> Target:
    """The answer of the arm ``majority``: the most frequent label, or the median grade, of the training split.

    >>> from vrft.tasks import Grading
    >>> constant_answer(Grading(5), [0, 0, 3, 4, 4])
    3
    """
    if task.ordinal:
        grades = sorted(target for target in targets if isinstance(target, int))
        return grades[math.ceil(len(grades) / 2) - 1]
    counts = Counter(targets)
    return max(task.classes, key=lambda label: counts[label])


def predict_majority(task: TrainableTask, train: Sequence[Sample], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The rows of the arm that gives the same answer to every sample, fitted on the training split."""
    thought = "The same answer for every image."
    if not isinstance(task, Localization):
        constant = constant_answer(task, [sample.target for sample in train])
        completion = render(thought, task.written(constant), task.order)
        return [prediction(task, sample, completion, 0) for sample in samples]
    boxes = [(_target_boxes(sample), size_of(sample.images[0])) for sample in train]
    fitted = [{"bbox_2d": list(constant_box(boxes))}] if any(true for true, _ in boxes) else []
    unit = Localization("unit", order=task.order)
    completion = render(thought, json.dumps(fitted), task.order)
    return [prediction(unit, sample, completion, 0, size_of(sample.images[0])) for sample in samples]


def _target_boxes(sample: Sample) -> tuple[Box, ...]:
    assert isinstance(sample.target, tuple)
    return sample.target
