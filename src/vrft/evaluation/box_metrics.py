"""Metrics of boxes: pure functions of what was read and what is true, sample by sample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft.boxes import iou
from vrft.response import Reading
from vrft.rewards.f1 import hits
from vrft.rewards.overlap import overlap
from vrft.sample import Box

HIT = 0.5
"""The least IoU of a hit."""

COLUMNS = ("overlap", "hits", "stated", "true")
"""The counts of a sample: overlap of the matched boxes, hits, boxes stated, true boxes."""

Tally = NDArray[np.float64]
"""(n, 4): the ``COLUMNS`` of n samples."""


def tally(rows: Sequence[Mapping[str, Any]], key: str) -> Tally:
    """Count a column of the predictions; None is an answer that was not read, and states nothing."""
    counted = [_counted(_boxes(row["target"]), row[key], row.get("stated", 0)) for row in rows]
    return np.array(counted, dtype=np.float64).reshape(-1, len(COLUMNS))


def _boxes(values: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in values)


def _counted(true: tuple[Box, ...], answer: Any, stated: int) -> tuple[float, float, float, float]:
    if answer is None:
        return 0.0, 0.0, float(stated), float(len(true))
    boxes = _boxes(answer)
    stated = max(stated, len(boxes))
    hit = hits(boxes, true, HIT) if boxes and true else 0.0
    return overlap(Reading(boxes, (), stated), true), hit, float(stated), float(len(true))


def mean_iou(counts: Tally) -> float:
    """Mean over samples of the total IoU of matched boxes / max(stated, true); 1 for a right absence. 0 to 1."""
    return float(counts[:, 0].mean())


def precision50(counts: Tally) -> float:
    """Hits / boxes stated, over all samples; 0 where none is stated. 0 to 1."""
    return float(counts[:, 1].sum() / max(counts[:, 2].sum(), 1))


def recall50(counts: Tally) -> float:
    """Hits / true boxes, over all samples; 0 where there are none. 0 to 1."""
    return float(counts[:, 1].sum() / max(counts[:, 3].sum(), 1))


def f1_50(counts: Tally) -> float:
    """2 hits / (boxes stated + true boxes), over all samples. 0 to 1."""
    return float(2 * counts[:, 1].sum() / max(counts[:, 2].sum() + counts[:, 3].sum(), 1))


BOX_METRICS: dict[str, Callable[[Tally], float]] = {
    "mean_iou": mean_iou,
    "f1_50": f1_50,
    "precision50": precision50,
    "recall50": recall50,
}
"""Metrics of boxes by name. A hit is a pair of the one-to-one matching with IoU >= 0.5."""


def constant_box(samples: Sequence[tuple[tuple[Box, ...], tuple[int, int]]], *, candidates: int = 300) -> Box:
    """The one box, in shares of the image, that as an answer to every sample has the greatest mean IoU.

    Args:
        samples: the true boxes of each sample, and width and height of its image.
        candidates: how many true boxes are tried, evenly spread, besides their medians.

    Raises:
        ValueError: no sample has a box.
    """
    shares = [
        np.array(boxes, dtype=np.float64).reshape(-1, 4) / np.array([*size, *size], dtype=np.float64)
        for boxes, size in samples
    ]
    every = np.concatenate(shares)
    if not len(every):
        raise ValueError("no sample has a box")
    tried = np.concatenate([every[:: max(1, len(every) // candidates)], np.median(every, axis=0)[None]])
    tried = tried[(tried[:, 2] > tried[:, 0]) & (tried[:, 3] > tried[:, 1])]
    earned = np.zeros(len(tried))
    for boxes in shares:
        if len(boxes):
            earned += iou(list(map(tuple, tried)), list(map(tuple, boxes))).max(axis=1) / len(boxes)
    x1, y1, x2, y2 = map(float, tried[int(earned.argmax())])
    return x1, y1, x2, y2
