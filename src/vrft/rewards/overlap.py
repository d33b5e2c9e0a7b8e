"""The overlap reward: the IoU of the boxes with the true boxes, matched one to one."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft.boxes import diou, giou, iou
from vrft.response import Reading
from vrft.rewards.columns import Completion, score_boxes
from vrft.sample import Box

Overlap = Callable[[Sequence[Box], Sequence[Box]], NDArray[np.float64]]

OVERLAPS: dict[str, Overlap] = {
    "iou": iou,
    "giou": lambda a, b: (1 + giou(a, b)) / 2,
    "diou": lambda a, b: (1 + diou(a, b)) / 2,
}
"""How the overlap of two boxes is measured, in [0, 1]."""


def match(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match rows to columns one to one so that the total value is largest (Hungarian matching).

    Args:
        values: (n, m).

    Returns:
        The rows and the columns of the min(n, m) matched pairs.
    """
    if min(values.shape) == 1:  # avoids a slow import where a maximum is enough
        row, column = np.unravel_index([values.argmax()], values.shape)
        return row, column
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(values, maximize=True)
    return rows, columns


def reward_of_absence(reading: Reading, target: Sequence[Box]) -> float:
    """The reward where no box was read or none is true: 1 for a right statement of absence, else 0."""
    return 1.0 if reading.answer == () and not target and not reading.stated else 0.0


def overlap(reading: Reading, target: Sequence[Box], *, measure: str = "iou", threshold: float = 0.0) -> float:
    """The total overlap of the matched boxes divided by the larger of the two counts, in [0, 1]."""
    if not (isinstance(reading.answer, tuple) and reading.answer and target):
        return reward_of_absence(reading, target)
    values = OVERLAPS[measure](reading.answer, target)
    values = np.where(values >= threshold, values, 0.0)
    total = float(values[match(values)].sum())
    return min(1.0, max(0.0, total / max(reading.stated, len(target))))


def threshold_at(threshold: float | Sequence[float], progress: float | None) -> float:
    """The threshold at one point of the training.

    Args:
        threshold: one value for the whole training, or the first and the last value of a linear rise.
        progress: the share of the training that is done, in [0, 1].

    Raises:
        ValueError: the threshold rises, and ``progress`` is None.

    >>> threshold_at(0.5, None), threshold_at((0.2, 0.8), 0.5)
    (0.5, 0.5)
    """
    if isinstance(threshold, (int, float)):
        return float(threshold)
    if progress is None:
        raise ValueError("a threshold that rises needs progress: pass trainer_state or progress, a share in [0, 1]")
    first, last = threshold
    return float(first + min(1.0, max(0.0, progress)) * (last - first))


def iou_reward(
    completions: Sequence[Completion],
    target: Any,
    *,
    frame: str | Sequence[str] | None = None,
    image_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    processed_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    measure: str = "iou",
    threshold: float | Sequence[float] = 0.0,
    progress: float | None = None,
    trainer_state: Any = None,
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Reward the overlap of the boxes with the true boxes: sum over matched pairs / max(stated, true).

    Boxes are converted from the policy's frame to pixels of the original image, clipped to it, and matched one to one
    so that the total is largest. Too many boxes cost as much as too few: an invalid box (no area, outside the image,
    not four numbers) counts as stated. Where there is no true box, a stated absence earns 1.

    Source: the IoU reward of Visual-RFT (arXiv 2503.01785, section 3.2) with one-to-one matching; GIoU arXiv
    1902.09630, DIoU arXiv 1911.08287; a threshold that rises follows Vision-R1 (arXiv 2503.18013) in that the
    criterion tightens, here linearly: start + progress * (end - start).

    Args:
        completions: texts or chat messages, length n.
        target: the true boxes, one list or n, each box [x1, y1, x2, y2] in pixels of the original image.
        frame: the coordinates that the policy writes: ``pixel``, ``resized``, ``thousand`` or ``unit``; x first.
        image_size: width and height of the original image.
        processed_size: width and height after the processor's resize, for the frame ``resized``.
        measure: ``iou``; or ``giou`` or ``diou``, mapped to [0, 1] by (1 + x) / 2, which also differ where boxes do
            not touch (distant boxes earn nearly 0, boxes that share a side up to 1/2).
        threshold: an overlap below it earns 0; two values rise from the first to the second over the training.
        progress: the share of the training that is done, for a threshold that rises; else taken from
            ``trainer_state`` (``global_step / max_steps``), which TRL and ms-swift pass.
        trainer_state: the state that TRL passes.
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n.
        columns: further columns, not used.

    Returns:
        n rewards in [0, 1]; None for a sample without ``frame`` or without a target.

    Raises:
        ValueError: a target is no list of boxes, or a size or the progress is missing.

    >>> boxes = ['<answer>[{"bbox_2d": [250, 250, 750, 750]}]</answer>', "<answer>No objects</answer>"]
    >>> iou_reward(boxes, [[160, 120, 480, 360]], frame="thousand", image_size=[640, 480])
    [1.0, 0.0]
    >>> iou_reward(boxes, [], frame="thousand", image_size=[640, 480])
    [0.0, 1.0]
    """
    if progress is None and trainer_state is not None:
        progress = trainer_state.global_step / max(1, trainer_state.max_steps)
    lowest = threshold_at(threshold, progress)
    options = {"frame": frame, "image_size": image_size, "processed_size": processed_size, "prompt_end": prompt_end}
    return score_boxes(completions, target, partial(overlap, measure=measure, threshold=lowest), **options)
