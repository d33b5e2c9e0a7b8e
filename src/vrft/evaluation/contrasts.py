"""PairedScores: figures and contrasts of arms, with an uncertainty that counts training seeds and test samples.

Notation: an experiment has arms, S training seeds of each arm and n test samples in G groups. A contrast is a linear
combination of the values of arms; a single arm is the contrast that weighs it with 1.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, nctdtrinc, stdtr, stdtridf, stdtrit

Metric = Callable[[NDArray[Any]], float]
"""From the results of some test samples (first axis) to a figure."""

VarianceComponent = tuple[float, float]
"""A component of the variance of a contrast that comes from the training seeds, and its degrees of freedom."""

POWER = 0.8

TINY = 1e-12
"""Differences below it are rounding."""


@dataclass(frozen=True)
class Estimate:
    """A contrast, its interval, and the smallest effect that the experiment can detect."""

    value: float
    low: float
    high: float
    se: float
    """Standard error over training seeds and test samples."""
    df: float
    """Degrees of freedom of the t distribution behind interval, p and minimum detectable effect."""
    p: float
    """Two-sided p-value of a contrast of zero; below 1 - confidence where the interval excludes zero."""
    minimum_detectable_effect: float
    """The smallest effect that this design detects with 80% power."""
    seeds: int
    seeds_counted: bool
    """False with one seed: then ``se`` does not include the variance between trainings."""


def resamples(groups: Sequence[Hashable], count: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Positions of samples, ``count`` times: as many groups as there are, drawn with replacement, each whole.

    Samples of a group (the cells of an image) are alike, so they are drawn together (Davison & Hinkley, 1997,
    section 3.8); where each sample is a group of its own this is the plain bootstrap.
    """
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    draws = np.random.default_rng([seed, 0xB007]).integers(len(members), size=(count, len(members)))
    if len(members) == len(groups):
        return list(draws)
    positions = [np.array(own, dtype=np.int64) for own in members.values()]
    return [np.concatenate([positions[i] for i in row]) for row in draws]


def pooled_seed_variance(
    values: Mapping[str, NDArray[np.float64]],
    starts: Mapping[str, Sequence[Hashable]],
    weights: Mapping[str, float],
) -> list[VarianceComponent]:
    """The variance of a contrast that comes from the training seeds, estimated from all cells of a factorial.

    The variance of one contrast over three seeds has 2 degrees of freedom only. A factorial has many cells, and each
    seed is a block of them: the mean square of the residuals of the cells, without the means of cell and of seed, is
    the variance between trainings (Montgomery, Design and Analysis of Experiments, section 4.1). Cells that continue
    from the same trained start share its deviation, and starts may themselves share a start, so there are nested
    strata, as in a split plot (the same, section 14.4). A stratum of K groups in J larger groups has (K - J)(S - 1)
    degrees of freedom, and a contrast has the variance of the strata that it lies in. Two assumptions: the variance
    is equal in all groups of a stratum, and apart from the strata a seed favours no level.

    Args:
        values: for each cell one value a seed, (S,), S > 1.
        starts: for each cell the start of its training, stage by stage, and anything else whose deviation cells may
            share; all of one length; None is no start.
        weights: of the contrast, of cells alone.

    Returns:
        the components of the variance of the mean over seeds, for ``estimate_from``.
    """
    arms = list(starts)
    table = np.array([values[arm] for arm in arms])  # (C, S)
    seeds = table.shape[1]
    weight = np.array([weights.get(arm, 0.0) for arm in arms])
    depth = len(starts[arms[0]])
    larger, count = np.broadcast_to(table.mean(axis=0), table.shape), 1
    weight_of_larger = np.full(len(arms), weight.mean())
    components = []
    for level in range(1, depth + 2):
        names = [(*starts[arm][:level], arm if level > depth else "") for arm in arms]
        group = np.array([[one == other for other in names] for one in names])  # (C, C): in the same group
        sizes = group.sum(axis=1)
        mean, weight_of_group = group @ table / sizes[:, None], group @ weight / sizes
        residual = mean - larger
        residual = residual - residual.mean(axis=1, keepdims=True)
        groups = len(set(names))
        df = (groups - count) * (seeds - 1)
        share = float(np.sum((weight_of_group - weight_of_larger) ** 2 * sizes))  # a group of n cells counts n times
        if df and share > TINY:
            components.append((share * float(np.sum(residual**2 / sizes[:, None])) / df / seeds, float(df)))
        larger, weight_of_larger, count = mean, weight_of_group, groups
    return components


def estimate_from(
    whole: NDArray[np.float64],
    resampled: NDArray[np.float64],
    n_groups: int,
    *,
    confidence: float = 0.95,
    seed_variance: Sequence[VarianceComponent] | None = None,
) -> Estimate:
    """A contrast with the uncertainty of both training seeds and test samples.

    The contrast of seed s is y_s = mu + u_s + v + e_s with u the deviation of a training, v that of the test samples,
    which all seeds share, and e the rest, of both together. So Var(mean y) = (Var(u) + Var(e)) / S + Var(v). The
    variance over seeds, s2 (ddof 1), estimates Var(u) + Var(e); the covariance between seeds over resamples of the
    test samples, C, estimates Var(v) (at least 0). V = s2 / S + C therefore counts each source once.

    With few seeds s2 is itself uncertain. The half width is h^2 = t_{S-1}^2 s2 / S + t_{G-1}^2 C (Banerjee, 1960,
    Sankhya 22, "Approximate confidence interval for linear functions of means of k populations when the population
    variances are not equal"), which has at least its nominal coverage whatever the share of the two variances;
    Satterthwaite's degrees of freedom, estimated from three seeds, cover 91 to 95% instead of 95. It is never below
    t_{G-1} times the standard error with the seeds held fixed, as three seeds may agree by chance. ``df`` is then that
    of the t distribution with h = t_df se, so that interval, p and minimum detectable effect agree.

    Args:
        whole: the contrast of each seed on all test samples, (S,).
        resampled: the contrast of each seed on each resample of the groups, (S, B), the same resamples for all seeds.
        n_groups: how many groups there are, at least 2.
        confidence: of the interval, in (0, 1).
        seed_variance: of ``pooled_seed_variance``, where other contrasts inform the variance between trainings; it
            replaces s2 / S with its S - 1 degrees of freedom.
    """
    seeds, value, upper = len(whole), float(np.mean(whole)), 1 - (1 - confidence) / 2
    # a bootstrap of G groups has (G - 1) / G of the variance of the figure (Efron & Tibshirani, 1993, equation 5.12)
    covariance = np.atleast_2d(np.cov(resampled)) * n_groups / (n_groups - 1)
    of_samples = max(0.0, float(covariance.mean()))  # rounding can make it negative
    variance, half, least = of_samples, 0.0, n_groups - 1.0
    if seeds > 1:
        components = seed_variance or [(float(np.var(whole, ddof=1)) / seeds, float(seeds - 1))]
        shared = max(0.0, float((covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))))
        variance = max(sum(part for part, _ in components) + shared, of_samples)
        components = [*components, (shared, n_groups - 1.0)]
        half = float(np.sqrt(sum(stdtrit(df, upper) ** 2 * part for part, df in components)))
        least = min(df for _, df in components)
    se = float(np.sqrt(max(variance, 0.0)))
    most = max(seeds - 1.0, n_groups - 1.0, least)
    if se < TINY:  # neither seeds nor samples vary
        p = 1.0 if abs(value) < TINY else 0.0
        return Estimate(value, value, value, 0.0, float(least), p, 0.0, seeds, seeds > 1)
    half = max(half, float(stdtrit(n_groups - 1, upper) * np.sqrt(of_samples)))
    df = _df_of(upper, half / se, least, most)
    t = float(stdtrit(df, upper))
    p, least_effect = float(2 * stdtr(df, -abs(value) / se)), minimum_detectable_effect(se, df, 1 - confidence)
    return Estimate(value, value - t * se, value + t * se, se, df, p, least_effect, seeds, seeds > 1)


def minimum_detectable_effect(se: float, df: float, alpha: float) -> float:
    """The smallest effect that is detected with 80% power where p must be below ``alpha``, in (0, 1).

    It is the effect whose t, noncentral with effect / se, passes its bound (Cohen, 1988, section 2.4; Bloom, 1995,
    Evaluation Review 19(5)).
    """
    return float(nctdtrinc(df, 1 - POWER, stdtrit(df, 1 - alpha / 2))) * se


def _df_of(upper: float, t: float, least: float, most: float) -> float:
    """The degrees of freedom, ``least`` to ``most``, for which t is the quantile at ``upper``."""
    if stdtrit(most, upper) < t < stdtrit(least, upper):
        return float(np.clip(stdtridf(upper, t), least, most))
    return most if t <= stdtrit(most, upper) else least


class PairedScores:
    """The results of all arms on the same test samples.

    Args:
        rows: for each arm one array a training seed, each with n test samples on its first axis, in the same order of
            seeds in all arms. An arm that is not trained has one array, which pairs with each seed of the others.
        metric: the figure of some of these rows.
        groups: the group of each test sample, length n: samples of a group are resampled together.
        draws: resamples of the groups, the same for every arm and seed, so that all is paired.
        confidence: of the intervals.
        seed: of the resamples and exchanges.

    Raises:
        ValueError: arms or groups differ in their number of samples, or there are fewer than two groups.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[NDArray[Any]]],
        metric: Metric,
        groups: Sequence[Hashable],
        *,
        draws: int = 2000,
        confidence: float = 0.95,
        seed: int = 0,
    ):
        sizes = {len(groups)} | {len(one) for seeds in rows.values() for one in seeds}
        if len(sizes) > 1:
            raise ValueError(f"arms and groups must have the same test samples; got {sorted(sizes)} of them.")
        number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        if len(number) < 2:
            raise ValueError("the test samples must come in at least two groups.")
        self.rows, self.metric, self.confidence, self.seed = rows, metric, confidence, seed
        self._group = np.array([number[group] for group in groups])
        self._n_groups = len(number)
        self._draws = resamples(groups, draws, seed)
        self._known: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def estimate(
        self, weights: Mapping[str, float], starts: Mapping[str, Sequence[Hashable]] | None = None
    ) -> Estimate:
        """The contrast: the mean over seeds of sum_a weights[a] metric(arm a, that seed); see ``estimate_from``.

        Args:
            weights: of the arms.
            starts: for a contrast of the cells of a factorial, the start of the training of each cell; the variance
                between trainings is then estimated from all cells (``pooled_seed_variance``).

        Raises:
            ValueError: an arm is not known, no weight differs from zero, or trained arms differ in their seeds.
        """
        arms = {arm: weight for arm, weight in weights.items() if weight != 0}
        self._seeds_of(arms)
        parts = [(weight, *self._values(arm)) for arm, weight in arms.items()]
        # an arm with one array pairs with each seed of the others by broadcasting
        whole = np.asarray(sum(weight * one for weight, one, _ in parts))
        resampled = np.asarray(sum(weight * one for weight, _, one in parts))
        pooled = None
        if starts is not None and len(whole) > 1:
            pooled = pooled_seed_variance({arm: self._values(arm)[0] for arm in starts}, starts, arms)
        return estimate_from(whole, resampled, self._n_groups, confidence=self.confidence, seed_variance=pooled)

    def paired_p(self, a: str, b: str, draws: int = 2000) -> float:
        """Permutation p-value that these very policies are equally good; it does not generalise to other trainings.

        The answers of the two arms change places in each group with probability 1/2, in the same groups for all seeds;
        p = (1 + #{|difference| >= observed}) / (1 + draws), which is never 0 (Phipson & Smyth, 2010; Davison & Hinkley,
        1997, equation 4.11).
        """
        seeds = self._seeds_of([a, b])
        pairs = [(self.rows[a][s % len(self.rows[a])], self.rows[b][s % len(self.rows[b])]) for s in range(seeds)]
        flips = np.random.default_rng([self.seed, 0xF11B]).random((draws, self._n_groups)) < 0.5

        def difference(flip: NDArray[np.bool_]) -> float:
            total = 0.0
            for one, other in pairs:
                swap = flip[self._group].reshape(-1, *[1] * (one.ndim - 1))
                total += self.metric(np.where(swap, other, one)) - self.metric(np.where(swap, one, other))
            return abs(total) / seeds

        observed = difference(np.zeros(self._n_groups, dtype=bool))
        return (1 + sum(difference(flip) >= observed - TINY for flip in flips)) / (1 + draws)

    def _seeds_of(self, arms: Sequence[str] | Mapping[str, float]) -> int:
        unknown = [arm for arm in arms if arm not in self.rows]
        if unknown or not arms:
            raise ValueError(f"a contrast needs arms of {', '.join(self.rows)}; got {', '.join(unknown) or 'none'}.")
        counts = {len(self.rows[arm]) for arm in arms} - {1}
        if len(counts) > 1:
            raise ValueError(f"trained arms of a contrast must have the same number of seeds; got {sorted(counts)}.")
        return counts.pop() if counts else 1

    def _values(self, arm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The metric of each seed on all samples (S,) and on the resamples (S, B); computed once an arm."""
        if arm not in self._known:
            whole = np.array([self.metric(one) for one in self.rows[arm]])
            drawn = np.array([[self.metric(one.take(at, axis=0)) for at in self._draws] for one in self.rows[arm]])
            if not (np.isfinite(whole).all() and np.isfinite(drawn).all()):
                raise ValueError(f"the metric of {arm} must be finite on every resample of the test samples.")
            self._known[arm] = whole, drawn
        return self._known[arm]


def mcnemar_p(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value of McNemar (1947): two policies are right equally often on the same samples.

    For accuracy with one seed and samples without groups. 1.0 where they are right on the same samples.

    Args:
        right_a: whether the first is right, (n,).
        right_b: whether the second is right, (n,).
    """
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by the step-down method of Holm (1979); the order stays.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    raised = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return [float(p) for p in np.minimum(raised, 1)[np.argsort(order)]]
