"""Teach the vision tower to see before anything is said: every cell of the picture tells what lies there.

A linear head on the image tokens says, for each cell of one patch, whether a finding's centre lies in it, whether it is
inside a finding, where the finding's sides are from here (as in FCOS, arXiv 1904.01355), and what it is like. So a
picture teaches 64 places at once, where a completion teaches a handful of words. The head is thrown away; what it read
stays in the image tokens, for the text layers to find.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import smooth_l1_loss

from vrft.data.phantom import EXTENT_RADII, MAX_COUNT, PIXELS, Phantom, compose
from vrft.policies.tiny.lessons import is_large

PATCH, MERGED = 14, 2
CELLS = PIXELS // PATCH
CENTRE, INSIDE, SIDES, KINDS = 0, 1, slice(2, 6), slice(6, 12)
CHANNELS = 12


def seen_phantom(rng: np.random.Generator) -> Phantom:
    """Zero to ``MAX_COUNT`` findings, or one of any extent."""
    if rng.random() < 0.2:
        return compose(rng, radius=float(rng.uniform(*EXTENT_RADII)))
    return compose(rng, count=int(rng.choice([0, 1, 1, 1, 2, 3, 4, MAX_COUNT])))


def kinds_of(phantom: Phantom) -> list[float]:
    """Large, bright, blurred, and the outline one of three: round, three corners, four corners; 0 or 1 each."""
    round_ = phantom.shape == "round"
    told = (
        bool(phantom.findings) and is_large(phantom),
        phantom.brightness == "bright",
        phantom.margin == "blurred",
        round_,
        not round_ and phantom.sides == 3,
        not round_ and phantom.sides == 4,
    )
    return [float(value) for value in told]


def cells_of(phantom: Phantom) -> NDArray[np.float32]:
    """What each cell should tell, [CELLS, CELLS, CHANNELS] from the top left.

    Sides are the distances in image tokens (28 pixels) from the middle of the cell to x1, y1, x2 and y2 of the finding,
    positive inside. Sides and kinds count only where ``INSIDE`` is 1.
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
                cells[r, c, KINDS] = kinds_of(phantom)
    return cells


class SeeingHead(nn.Linear):
    """Image tokens [N, hidden] to the cells that they cover [N, MERGED * MERGED, CHANNELS]."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, MERGED * MERGED * CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).unflatten(-1, (MERGED * MERGED, CHANNELS))


def by_token(cells: Tensor) -> Tensor:
    """Cells [B, CELLS, CELLS, C] in the order of image tokens: [B * tokens, MERGED * MERGED, C]."""
    across = CELLS // MERGED
    split = cells.unflatten(2, (across, MERGED)).unflatten(1, (across, MERGED))  # B, rows, 2, columns, 2, C
    return split.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def seeing_loss(told: Tensor, truth: Tensor) -> Tensor:
    """Centres and insides in every cell; sides and kinds inside findings."""
    inside = truth[..., INSIDE] > 0.5
    loss = 4 * cross_entropy(told[..., CENTRE], truth[..., CENTRE]) + cross_entropy(
        told[..., INSIDE], truth[..., INSIDE]
    )
    if inside.any():
        loss = loss + 2 * smooth_l1_loss(told[inside][:, SIDES], truth[inside][:, SIDES], beta=0.1)
        loss = loss + 2 * cross_entropy(told[inside][:, KINDS], truth[inside][:, KINDS])
    return loss
