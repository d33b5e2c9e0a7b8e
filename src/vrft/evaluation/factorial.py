"""Factorials: what a factor adds, and what two add together, as contrasts of the arms that were run.

The contrasts are estimated, with their uncertainty, by ``vrft.evaluation.contrasts``.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from pyDOE3 import gsd

from vrft.evaluation.contrasts import TINY

Level = Hashable
Cells = Mapping[str, Mapping[str, Level]]
"""For each arm the level of each factor."""
Factors = Mapping[str, Sequence[Level]]
"""For each factor its levels; the first is the base, where the factor is off."""


@dataclass(frozen=True)
class Effect:
    """What a level of a factor adds, or what two add together beyond their sum, as a contrast of arms."""

    name: str
    kind: str
    """``main`` or ``interaction``."""
    of: tuple[tuple[str, Level], ...]
    """The factor and level; two of them for an interaction."""
    weights: dict[str, float]
    confounded: bool = False
    """A main effect that holds only if there are no interactions, as the cells cannot tell them apart."""


def effects(cells: Cells, factors: Factors) -> tuple[list[Effect], list[str]]:
    """Main effects and two-way interactions as contrasts of the arms, and the names of those not estimable.

    With m the mean over all combinations of the other factors, the main effect of level l is m(l) - m(base), and the
    interaction of levels l and k is [m(l, k) - m(base, k)] - [m(l, base) - m(base, base)], a difference of differences
    (with two levels twice the interaction of Box, Hunter & Hunter, 2005, section 5.5, who halve it).

    The weights are those of least squares under a model of main effects and two-way interactions, so cells may be
    missing. An effect is estimable if it lies in the row space of the model of the observed cells (Searle, 1971,
    section 5.4). In a full factorial the weights are the differences of means above. A main effect that this model
    cannot estimate comes from the model of main effects alone, if that can: it is then confounded with interactions.

    Args:
        cells: for each arm the level of each factor.
        factors: for each factor its levels, the base first.

    Raises:
        ValueError: a cell lacks a factor or has a level that the factor has not.
    """
    for arm, cell in cells.items():
        for factor, levels in factors.items():
            if cell.get(factor) not in levels:
                known = ", ".join(map(str, levels))
                raise ValueError(f"{factor} of {arm} must be one of {known}; got {cell.get(factor)}.")
    grid = [dict(zip(factors, row, strict=True)) for row in product(*factors.values())]
    steps = [((factor, level),) for factor, levels in factors.items() for level in levels[1:]]
    pairs = [(*a, *b) for a, b in combinations(steps, 2) if a[0][0] != b[0][0]]
    found, missing = [], []
    for of in [*steps, *pairs]:
        kind = "main" if len(of) == 1 else "interaction"
        name = " x ".join(factor if level == "on" else f"{factor}={level}" for factor, level in of)
        contrast = _full_factorial_contrast(of, grid, factors)
        weights = _weights(contrast, [*steps, *pairs], cells, grid)
        confounded = weights is None and kind == "main"
        if confounded:
            weights = _weights(contrast, steps, cells, grid)
        if weights is None:
            missing.append(name)
        else:
            found.append(Effect(name, kind, of, weights, confounded))
    return found, missing


Terms = Sequence[tuple[tuple[str, Level], ...]]


def _full_factorial_contrast(
    of: tuple[tuple[str, Level], ...], grid: Sequence[Mapping[str, Level]], factors: Factors
) -> NDArray[np.float64]:
    """The weights of the cells of the full factorial: +1 at the level, -1 at the base, 0 elsewhere, multiplied."""
    weights = np.ones(len(grid))
    for factor, level in of:
        base = factors[factor][0]
        weights *= [float(cell[factor] == level) - float(cell[factor] == base) for cell in grid]
    return weights / (np.sum(weights != 0) / 2 ** len(of))


def _model(terms: Terms, cells: Sequence[Mapping[str, Level]]) -> NDArray[np.float64]:
    """A row a cell; the columns are 1 and, for each term, whether the cell has all its levels."""
    rows = [[1.0, *(float(all(cell[f] == level for f, level in term)) for term in terms)] for cell in cells]
    return np.array(rows)


def _weights(
    contrast: NDArray[np.float64], terms: Terms, cells: Cells, grid: Sequence[Mapping[str, Level]]
) -> dict[str, float] | None:
    """Weights of the arms for a contrast of the full factorial under a model; None where it is not estimable."""
    observed = _model(terms, list(cells.values()))
    of_parameters = contrast @ _model(terms, grid)
    weights = of_parameters @ np.linalg.pinv(observed)
    if not np.allclose(weights @ observed, of_parameters, atol=1e-9):
        return None
    return {arm: float(weight) for arm, weight in zip(cells, weights, strict=True) if abs(weight) > TINY}


def fraction_of(cells: Cells, factors: Factors, reduction: int) -> list[str]:
    """Arms of a balanced fraction of the full factorial, about one in ``reduction``, the all-base cell among them.

    A generalized subset design (Surowiec et al., 2017, Analytical Chemistry 89(12), 6491-6497): each level of each
    factor occurs equally often, as far as the numbers of levels allow. All its main effects are estimable, though some
    only if there are no interactions (``Effect.confounded``).

    Args:
        cells: for each arm of the full factorial the level of each factor.
        factors: for each factor its levels, the base first.
        reduction: how many times fewer cells, at least 2.

    Raises:
        ValueError: there is no such fraction, it cannot estimate all main effects, or an arm of it is missing.
    """
    impossible = f"a fraction of one in {reduction} of these {len(cells)} cells is not possible"
    varied = {factor: list(levels) for factor, levels in factors.items() if len(levels) > 1}
    if reduction < 2:
        raise ValueError(f"{impossible}: the reduction must be at least 2.")
    if len(varied) < 2:
        raise ValueError(f"{impossible}: it takes two factors or more.")
    try:
        design = gsd([len(levels) for levels in varied.values()], reduction)
    except ValueError as error:
        raise ValueError(f"{impossible}: {error}.") from error
    arms = {tuple(cell[factor] for factor in varied): arm for arm, cell in reversed(list(cells.items()))}
    rows = [tuple(levels[i] for levels, i in zip(varied.values(), row, strict=True)) for row in design]
    absent = [row for row in rows if row not in arms]
    if absent:
        raise ValueError(f"{impossible}: no arm has {dict(zip(varied, absent[0], strict=True))}.")
    parameters = 1 + sum(len(levels) - 1 for levels in varied.values())
    if len(rows) < parameters:
        raise ValueError(f"{impossible}: its {len(rows)} cells are fewer than the {parameters} main effects and mean.")
    if tuple(levels[0] for levels in varied.values()) not in rows:
        raise ValueError(f"{impossible}: it lacks the cell where all factors are at their base.")
    chosen = {arms[row]: cells[arms[row]] for row in rows}
    lost = [name for name in effects(chosen, varied)[1] if " x " not in name]
    if lost:
        raise ValueError(f"{impossible}: it cannot tell {', '.join(lost)} from the other main effects.")
    return [arm for arm in cells if arm in chosen]
