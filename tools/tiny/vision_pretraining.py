"""Dense supervision that pretrains the vision tower, before any text: a target for every cell of the image.

A linear head on the image tokens predicts, for each cell of one patch, whether it holds the centre of a finding,
whether it is inside a finding, the distances to the sides of the finding (as in FCOS, arXiv 1904.01355), and the
attributes. So an image has 64 targets, where a completion has a few words. The head is thrown away; its information
stays in the image tokens, where the text layers can read it.
"""

import numpy as np
from curriculum import is_large
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import smooth_l1_loss

from vrft.data.phantom import EXTENT_RADII, MAX_COUNT, PIXELS, Phantom, compose

PATCH, MERGED = 14, 2
CELLS = PIXELS // PATCH
CENTRE, INSIDE, SIDES, ATTRIBUTES = 0, 1, slice(2, 6), slice(6, 12)
CHANNELS = 12


def random_phantom(rng: np.random.Generator) -> Phantom:
    """Zero to ``MAX_COUNT`` findings, or one of any extent."""
    if rng.random() < 0.2:
        return compose(rng, radius=float(rng.uniform(*EXTENT_RADII)))
    return compose(rng, count=int(rng.choice([0, 1, 1, 1, 2, 3, 4, MAX_COUNT])))


def attribute_targets(phantom: Phantom) -> list[float]:
    """Large, bright, blurred, and the outline (round, three corners or four corners); 0 or 1 each."""
    sides = 0 if phantom.shape == "round" else phantom.sides
    values = (
        bool(phantom.findings) and is_large(phantom),
        phantom.brightness == "bright",
        phantom.margin == "blurred",
        *(sides == number for number in (0, 3, 4)),
    )
    return [float(value) for value in values]


def cell_targets(phantom: Phantom) -> NDArray[np.float32]:
    """The targets of the cells, [CELLS, CELLS, CHANNELS] from the top left.

    Sides are the distances in image tokens (28 pixels) from the middle of the cell to x1, y1, x2 and y2 of the finding,
    positive inside. Sides and attributes count only where ``INSIDE`` is 1.
    """
    cells = np.zeros((CELLS, CELLS, CHANNELS), np.float32)
    middles = (np.arange(CELLS, dtype=np.float32) + 0.5) * PATCH
    for x1, y1, x2, y2 in phantom.boxes():
        column, row = (min(CELLS - 1, int((low + high) / 2 / PATCH)) for low, high in ((x1, x2), (y1, y2)))
        cells[row, column, CENTRE] = 1
        across, down = (middles > x1) & (middles < x2), (middles > y1) & (middles < y2)
        across[column], down[row] = True, True  # a finding smaller than a cell is inside the cell of its centre
        for r in np.flatnonzero(down):
            for c in np.flatnonzero(across):
                x, y = middles[c], middles[r]
                cells[r, c, INSIDE] = 1
                cells[r, c, SIDES] = np.array([x - x1, y - y1, x2 - x, y2 - y]) / (MERGED * PATCH)
                cells[r, c, ATTRIBUTES] = attribute_targets(phantom)
    return cells


class CellHead(nn.Linear):
    """Image tokens [N, hidden] to the cells that they cover [N, MERGED * MERGED, CHANNELS]."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, MERGED * MERGED * CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the logits and distances of the cells of each token."""
        return super().forward(tokens).unflatten(-1, (MERGED * MERGED, CHANNELS))


def by_token(cells: Tensor) -> Tensor:
    """Cells [B, CELLS, CELLS, C] in the order of image tokens: [B * tokens, MERGED * MERGED, C]."""
    across = CELLS // MERGED
    split = cells.unflatten(2, (across, MERGED)).unflatten(1, (across, MERGED))  # B, rows, 2, columns, 2, C
    return split.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def cell_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """The loss of predicted cells, both [..., CHANNELS]: centre and inside in every cell, the rest inside findings."""
    inside = truth[..., INSIDE] > 0.5
    loss = 4 * cross_entropy(predicted[..., CENTRE], truth[..., CENTRE])
    loss = loss + cross_entropy(predicted[..., INSIDE], truth[..., INSIDE])
    if inside.any():
        loss = loss + 2 * smooth_l1_loss(predicted[inside][:, SIDES], truth[inside][:, SIDES], beta=0.1)
        loss = loss + 2 * cross_entropy(predicted[inside][:, ATTRIBUTES], truth[inside][:, ATTRIBUTES])
    return loss
