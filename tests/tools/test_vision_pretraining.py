"""The dense targets of the vision tower: each cell has the finding that lies there."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vision_pretraining import (
    ATTRIBUTES,
    CELLS,
    CENTRE,
    INSIDE,
    SIDES,
    by_token,
    cell_loss,
    cell_targets,
    random_phantom,
)

from vrft.data.phantom import Finding, Phantom

ONE = Phantom("stain", "large", "bright", "round", "sharp", 3, 60.0, (Finding(49.0, 35.0, 14.0, 0.0),), 0)


def test_the_centre_lies_in_one_cell_and_the_sides_are_measured_from_each_cell_inside():
    cells = cell_targets(ONE)  # the box is 35, 21, 63, 49
    assert np.argwhere(cells[..., CENTRE]).tolist() == [[2, 3]]
    assert {tuple(cell) for cell in np.argwhere(cells[..., INSIDE])} == {(r, c) for r in (2,) for c in (3,)} | {
        (r, c) for r in (1, 2, 3) for c in (2, 3, 4) if 21 < 14 * r + 7 < 49 and 35 < 14 * c + 7 < 63
    }
    assert (cells[2, 3, SIDES] * 28).tolist() == pytest.approx([14, 14, 14, 14])
    assert cells[2, 3, ATTRIBUTES].tolist() == [1, 1, 0, 1, 0, 0]


@given(st.integers(0, 10_000))
def test_every_finding_has_a_centre_and_every_side_leads_back_to_a_box(seed: int):
    phantom = random_phantom(np.random.default_rng(seed))
    cells = cell_targets(phantom)
    assert cells[..., CENTRE].sum() == len(phantom.findings)
    for r, c in np.argwhere(cells[..., INSIDE]):
        x, y, sides = 14 * c + 7, 14 * r + 7, cells[r, c, SIDES] * 28
        found = (x - sides[0], y - sides[1], x + sides[2], y + sides[3])
        assert any(np.allclose(found, box, atol=1e-3) for box in phantom.boxes())


def test_cells_go_to_the_image_token_that_covers_them():
    numbered = torch.arange(CELLS * CELLS, dtype=torch.float32).view(1, CELLS, CELLS, 1)
    assert by_token(numbered)[1, :, 0].tolist() == [2, 3, 10, 11]


def test_a_perfect_answer_costs_nothing():
    truth = by_token(torch.from_numpy(cell_targets(ONE))[None])
    predicted = torch.where(truth > 0.5, 50.0, -50.0)
    predicted[..., SIDES] = truth[..., SIDES]
    assert cell_loss(predicted, truth).item() < 1e-6 < cell_loss(-predicted, truth).item()
