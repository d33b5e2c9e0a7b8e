"""Statistics: bootstrap intervals of a metric, and paired differences between arms on the same samples.

Both resample the test samples, the same ones for every arm and every seed, so that what makes a sample hard for all
arms cancels in a difference. The value of an arm is the mean over its seeds.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.int64]], float]
"""From the positions of the samples to use (with repetitions) to a figure."""


TINY = 1e-12
"""Differences below it are rounding."""


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float


def resamples(groups: Sequence[Hashable], count: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Positions of samples, ``count`` times: as many groups as there are, drawn with replacement, each whole.

    Samples of one group (the cells of one image) are alike, so they come and go together (Davison & Hinkley, 1997,
    section 3.8); where each sample is a group of its own this is the plain bootstrap.
    """
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    draws = np.random.default_rng([seed, 0xB007]).integers(len(members), size=(count, len(members)))
    if len(members) == len(groups):
        return list(draws)
    own = [np.array(positions, dtype=np.int64) for positions in members.values()]
    return [np.concatenate([own[i] for i in row]) for row in draws]


def bootstrap(
    statistic: Statistic, n_samples: int, draws: Sequence[NDArray[np.int64]], *, confidence: float = 0.95
) -> Interval:
    """Percentile interval of a figure (Efron & Tibshirani, 1993, chapter 13).

    Args:
        statistic: the figure as a function of sample positions.
        n_samples: how many samples there are.
        draws: of ``resamples``.
        confidence: of the interval.
    """
    values = np.array([statistic(row) for row in draws])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(statistic(np.arange(n_samples)), float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b with its interval, and the p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def paired_difference(
    a: Statistic, b: Statistic, n_samples: int, draws: Sequence[NDArray[np.int64]], *, confidence: float = 0.95
) -> Difference:
    """Paired bootstrap of a difference; p is twice the smaller tail of the resampled differences at zero.

    p = 2 min(P(d* <= 0), P(d* >= 0)), with one added to counts and draws so that it is never 0 (Davison & Hinkley,
    1997, equation 4.11), and at most 1.
    """
    values = np.array([a(row) - b(row) for row in draws])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    below, above = (np.sum(values <= 0) + 1) / (len(values) + 1), (np.sum(values >= 0) + 1) / (len(values) + 1)
    whole = np.arange(n_samples)
    return Difference(float(a(whole) - b(whole)), float(low), float(high), float(min(1.0, 2 * min(below, above))))
