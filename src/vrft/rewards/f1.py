"""The F1 reward: precision and recall of the boxes at a threshold of IoU."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from vrft.boxes import iou
from vrft.response import Reading
from vrft.rewards.columns import Completion, score_boxes
from vrft.rewards.overlap import match, reward_of_absence
from vrft.sample import Box


def f1(reading: Reading, target: Sequence[Box], *, threshold: float = 0.5) -> float:
    """2 hits / (stated + true), in [0, 1], with the most hits that one-to-one matching allows."""
    if not (isinstance(reading.answer, tuple) and reading.answer and target):
        return reward_of_absence(reading, target)
    return 2 * hits(reading.answer, target, threshold) / (reading.stated + len(target))


def hits(read: Sequence[Box], target: Sequence[Box], threshold: float) -> float:
    """The largest number of pairs whose IoU reaches the threshold, each box in one pair; neither list is empty."""
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
    """Reward the F1 score of the boxes at a threshold: 2 TP / (boxes stated + true boxes).

    A true positive is a pair of the one-to-one matching whose IoU is at least the threshold (IoU >= 0.5: PASCAL VOC,
    Everingham et al. 2010, section 4.2). Where there is no true box, a stated absence earns 1.

    Args:
        completions: texts or chat messages, length n.
        target: the true boxes, one list or n, each box [x1, y1, x2, y2] in pixels of the original image.
        frame: the coordinates that the policy writes: ``pixel``, ``resized``, ``thousand`` or ``unit``; x first.
        image_size: width and height of the original image.
        processed_size: width and height after the processor's resize, for the frame ``resized``.
        f1_threshold: the smallest IoU of a true positive.
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n.
        columns: further columns, not used.

    Returns:
        n rewards in [0, 1]; None for a sample without ``frame`` or without a target.

    Raises:
        ValueError: a target is no list of boxes, or a size is missing.

    >>> two = ["<answer>[[0, 0, 10, 10], [50, 50, 60, 60]]</answer>"]
    >>> f1_reward(two, [[0, 0, 10, 9]], frame="pixel", image_size=[100, 100])
    [0.6666666666666666]
    """
    options = {"frame": frame, "image_size": image_size, "processed_size": processed_size, "prompt_end": prompt_end}
    return score_boxes(completions, target, partial(f1, threshold=f1_threshold), **options)
