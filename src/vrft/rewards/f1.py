"""The F1 reward: how many of the boxes hit, and how many of the true ones are hit?"""

from collections.abc import Sequence
from typing import Any

from vrft.boxes import iou
from vrft.response import Reading
from vrft.rewards.columns import Completion, localizations_of, pay, spread_boxes
from vrft.rewards.overlap import match, without_boxes
from vrft.sample import Box, Target
from vrft.tasks import Task


def f1(reading: Reading, target: Sequence[Box], *, threshold: float = 0.5) -> float:
    """2 hits / (stated + true), with as many hits as one-to-one matching allows."""
    if not (isinstance(reading.answer, tuple) and reading.answer and target):
        return without_boxes(reading, target)
    return 2 * hits(reading.answer, target, threshold) / (reading.stated + len(target))


def hits(read: Sequence[Box], target: Sequence[Box], threshold: float) -> float:
    """How many pairs of boxes reach the threshold at most, each box in one pair; both lists hold boxes."""
    reached = (iou(read, target) >= threshold).astype(float)
    return float(reached[match(reached)].sum())


def f1_reward(
    completions: Sequence[Completion],
    target: Any,
    *,
    frame: str | Sequence[str] | None = None,
    image_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    processed_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    f1_threshold: float = 0.5,
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Pay the F1 score of the boxes at a threshold: 2 TP / (boxes stated + true boxes).

    A true positive is a pair of the one-to-one matching whose IoU is at least the threshold (IoU >= 0.5: PASCAL VOC,
    Everingham et al. 2010, section 4.2). Where nothing is to be found, a stated absence earns 1.

    Args:
        completions: texts or chat messages, length n.
        target: the true boxes, one list for all or n lists, each [x1, y1, x2, y2] in pixels of the original image.
        frame: the coordinates that the policy speaks: ``pixel``, ``resized``, ``thousand`` or ``unit``; x first.
        image_size: width and height of the original image.
        processed_size: width and height of what the processor made of it, for the frame ``resized``.
        f1_threshold: the least IoU of a hit.
        prompt_end: what the chat template opens the assistant's turn with, one text or n (``format_reward``).
        columns: further columns, not used.

    Returns:
        n rewards in [0, 1]; None for a sample without ``frame`` or without a target.

    Raises:
        ValueError: a target is no list of boxes, or a size is missing.

    >>> two = ["<answer>[[0, 0, 10, 10], [50, 50, 60, 60]]</answer>"]
    >>> f1_reward(two, [[0, 0, 10, 9]], frame="pixel", image_size=[100, 100])
    [0.6666666666666666]
    """
    n = len(completions)
    tasks, sizes = localizations_of(n, frame=frame, image_size=image_size, processed_size=processed_size)

    def reward(_: int, task: Task, reading: Reading, boxes: Target) -> float:
        assert isinstance(boxes, tuple)
        return f1(reading, boxes, threshold=f1_threshold)

    return pay(completions, spread_boxes(target, n), tasks, reward, sizes, prompt_end)
