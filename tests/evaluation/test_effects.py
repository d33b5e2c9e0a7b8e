"""Intervals of contrasts count seeds and samples, and contrasts of a factorial are those of the textbooks."""

import json
import math
from itertools import product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest

from vrft.evaluation.contrasts import PairedScores, estimate_from, holm, mcnemar_p, pooled_seed_variance, resamples
from vrft.evaluation.factorial import effects, fraction_of

N = 150


def mean(rows: np.ndarray) -> float:
    return float(np.mean(rows))


def expected(logit: float, spread: float) -> float:
    """The chance of a right answer on average over samples and trainings, by quadrature."""
    at, weight = np.polynomial.hermite_e.hermegauss(80)
    return float(np.sum(weight * expit(logit + spread * at)) / np.sum(weight))


def coverage(seeds: int, hard: float, own: float, training: float, count: int = 2000, draws: int = 250) -> dict:
    """How often the intervals of a difference of two arms and of one arm hold the truth.

    The logit of a right answer is that of the arm, plus the difficulty of the sample for all (standard deviation
    ``hard``) and for that arm (``own``), plus the deviation of the training (``training``).
    """
    rng, logits = np.random.default_rng(0), np.array([0.7, 0.3])
    spread = math.hypot(hard, own, training)
    truth = {"difference": expected(0.7, spread) - expected(0.3, spread), "one": expected(0.7, spread)}
    held = dict.fromkeys(truth, 0)
    for _ in range(10):  # other resamples in each round
        shape = (count // 10, 2, seeds, N)
        logit = logits[:, None, None] + rng.normal(0, hard, (shape[0], 1, 1, N))
        logit = logit + rng.normal(0, own, (shape[0], 2, 1, N)) + rng.normal(0, training, (*shape[:3], 1))
        right = (rng.random(shape) < expit(logit)).astype(float)
        times = rng.multinomial(N, np.ones(N) / N, size=draws) / N
        for name, contrast in {"difference": right[:, 0] - right[:, 1], "one": right[:, 0]}.items():
            for whole, resampled in zip(contrast.mean(axis=-1), contrast @ times.T, strict=True):
                estimate = estimate_from(whole, resampled, N)
                held[name] += estimate.low <= truth[name] <= estimate.high
    return {name: one / count for name, one in held.items()}


@pytest.mark.parametrize(
    ("seeds", "hard", "own", "training"),
    [(3, 1.5, 0, 0.6), (3, 1.5, 1.5, 1), (3, 3, 1, 1), (5, 1.5, 1.5, 0.6), (5, 1.5, 0, 1), (5, 3, 1, 1)],
)
def test_with_seeds_that_differ_an_interval_covers_the_truth_as_often_as_it_says(seeds, hard, own, training):
    for share in coverage(seeds, hard, own, training).values():
        assert 0.93 <= share <= 0.97


@pytest.mark.parametrize(
    ("seeds", "hard", "own", "training"),
    [(3, 1.5, 0, 0), (3, 1.5, 1.5, 0), (3, 1.5, 1.5, 0.15), (3, 3, 1, 0.6), (5, 1.5, 0, 0), (5, 1.5, 1.5, 0.15)],
)
def test_with_few_seeds_that_hardly_differ_an_interval_errs_to_the_safe_side(seeds, hard, own, training):
    for share in coverage(seeds, hard, own, training).values():
        assert 0.94 <= share <= 0.993


def factorial_coverage(contrast: str, *, first: float, second: float, cell: float, count: int = 2000) -> float:
    """How often intervals of a contrast hold the truth, 0, where cells share two nested starts and three seeds.

    ``first`` is the standard deviation of the stage that PA_pi adds, ``second`` that of the next, which is
    trained for each level of PA_p and PA_pi, ``cell`` that of the last.
    """
    factors = {"PA_p": ("off", "on"), "PA_pi": ("off", "on"), "recite": ("0", "-", "+")}
    cells = {"".join(levels): dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())}
    weights = next(one.weights for one in effects(cells, factors)[0] if one.name == contrast)
    starts = {arm: (levels["PA_pi"], levels["PA_p"] + levels["PA_pi"]) for arm, levels in cells.items()}
    lucky = [np.array([[starts[arm][i] == start for start in sorted({s[i] for s in starts.values()})] for arm in cells])
             for i in (0, 1)]  # fmt: skip
    rng, held, of_samples = np.random.default_rng(7), 0, 0.01
    weight = np.array([weights.get(arm, 0) for arm in cells])
    for _ in range(count):
        table = lucky[0] @ (rng.normal(0, first, (2, 3)) * [[0], [1]]) + lucky[1] @ rng.normal(0, second, (4, 3))
        table = table + rng.normal(0, cell, (12, 3)) + rng.normal(0, 0.2, 3)
        whole = weight @ table + rng.normal(0, of_samples)
        parts = pooled_seed_variance(dict(zip(cells, table, strict=True)), starts, weights)
        estimate = estimate_from(whole, whole[:, None] + rng.normal(0, of_samples, 100), 200, seed_variance=parts)
        held += estimate.low <= 0 <= estimate.high
    return held / count


@pytest.mark.parametrize(
    ("first", "second", "cell"), [(0.0, 0.0, 0.05), (0.05, 0.05, 0.03), (0.05, 0.02, 0.02), (0.0, 0.05, 0.02)]
)
@pytest.mark.parametrize("contrast", ["PA_p", "PA_pi", "PA_p x PA_pi", "recite=-", "PA_p x recite=+"])
def test_effects_of_a_factorial_whose_cells_share_starts_are_covered_as_often_as_their_intervals_say(
    contrast, first, second, cell
):
    assert 0.93 <= factorial_coverage(contrast, first=first, second=second, cell=cell) <= 0.985


@pytest.mark.parametrize("contrast", ["PA_p", "PA_p x PA_pi"])
def test_the_variance_of_a_start_that_counts_for_some_cells_alone_is_counted_where_it_is_named(contrast):
    """A localization that counts without the card and not with it: the prompt is a stratum of its own."""
    factors = {"PA_p": ("off", "on"), "PA_pi": ("off", "on"), "recite": ("0", "-", "+")}
    cells = {"".join(levels): dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())}
    weights = next(one.weights for one in effects(cells, factors)[0] if one.name == contrast)
    weight = np.array([weights.get(arm, 0) for arm in cells])
    lucky = np.array([levels["PA_pi"] == "on" and levels["PA_p"] == "off" for levels in cells.values()])
    held = {"named": 0, "not named": 0}
    rng, count, of_samples = np.random.default_rng(7), 1000, 0.01
    for _ in range(count):
        table = rng.normal(0, 0.03, (12, 3)) + np.outer(lucky, rng.normal(0, 0.08, 3))
        whole = weight @ table + rng.normal(0, of_samples)
        resampled = whole[:, None] + rng.normal(0, of_samples, 100)
        for name, of_prompt in {"named": ("PA_p",), "not named": ()}.items():
            starts = {arm: (levels["PA_pi"], *(levels[one] for one in of_prompt)) for arm, levels in cells.items()}
            parts = pooled_seed_variance(dict(zip(cells, table, strict=True)), starts, weights)
            estimate = estimate_from(whole, resampled, 200, seed_variance=parts)
            held[name] += estimate.low <= 0 <= estimate.high
    assert held["named"] / count > 0.9
    assert held["not named"] / count < 0.85


def test_of_one_seed_the_interval_is_that_of_the_test_samples():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.7
    one = PairedScores({"a": [right]}, mean, range(400)).estimate({"a": 1})
    assert one.se == pytest.approx(right.std(ddof=1) / 20, rel=0.06)
    assert (one.seeds, one.seeds_counted, one.df) == (1, False, 399)


@pytest.mark.parametrize(("seeds", "training"), [(1, 0), (5, 0.1), (5, 0.03)])
def test_the_minimum_effect_is_detected_in_about_80_percent_of_experiments(seeds, training):
    rng = np.random.default_rng(1)
    shared, own, chance = rng.normal(size=(600, 1, N)), rng.normal(size=(600, seeds, N)), rng.normal(size=(600, seeds))
    contrast = 0.5 * shared + 0.3 * own + training * chance[..., None]
    times = rng.multinomial(N, np.ones(N) / N, size=250) / N
    pairs = list(zip(contrast.mean(axis=-1), contrast @ times.T, strict=True))
    least = np.mean([estimate_from(whole, drawn, N).minimum_detectable_effect for whole, drawn in pairs])
    detected = np.mean([estimate_from(whole + least, drawn + least, N).p < 0.05 for whole, drawn in pairs])
    assert 0.7 <= detected <= 0.9


def test_p_and_interval_agree_on_zero():
    rng = np.random.default_rng(2)
    for seeds in (1, 2, 3, 5):
        for shift in np.linspace(0, 0.5, 25):
            whole = shift + rng.normal(0, 0.05, seeds)
            estimate = estimate_from(whole, whole[:, None] + rng.normal(0, 0.05, (seeds, 100)), 40)
            assert (estimate.low > 0 or estimate.high < 0) == (estimate.p < 0.05)


def test_seeds_that_agree_by_chance_do_not_make_the_interval_narrower_than_the_test_samples_do():
    resampled = np.random.default_rng(3).normal(0, 0.05, (3, 500))
    estimate = estimate_from(np.zeros(3), resampled, 100)
    assert estimate.se >= np.std(resampled.mean(axis=0))


@pytest.fixture
def arms() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(4)
    return {
        "a": [rng.random(60) < 0.8 for _ in range(3)],
        "b": [rng.random(60) < 0.6 for _ in range(3)],
        "untrained": [rng.random(60) < 0.5],
        "five": [rng.random(60) < 0.5 for _ in range(5)],
    }


def test_a_contrast_is_the_weighted_sum_of_the_means_over_seeds(arms):
    scores = PairedScores(arms, mean, range(60), draws=100)
    contrast = scores.estimate({"a": 0.5, "b": 0.5, "untrained": -1})
    assert contrast.value == pytest.approx((np.mean(arms["a"]) + np.mean(arms["b"])) / 2 - np.mean(arms["untrained"]))
    assert (contrast.seeds, contrast.seeds_counted) == (3, True)


def test_arms_with_other_numbers_of_seeds_have_no_contrast(arms):
    scores = PairedScores(arms, mean, range(60), draws=10)
    with pytest.raises(ValueError, match=r"same number of seeds; got \[3, 5\]"):
        scores.estimate({"a": 1, "five": -1})
    with pytest.raises(ValueError, match="got c"):
        scores.estimate({"c": 1})
    with pytest.raises(ValueError, match="got none"):
        scores.estimate({"a": 0})
    with pytest.raises(ValueError, match="same test samples"):
        PairedScores(arms, mean, range(59))


def test_all_arms_are_resampled_alike(arms):
    same = PairedScores({"a": arms["a"], "b": arms["a"]}, mean, range(60), draws=50).estimate({"a": 1, "b": -1})
    assert (same.value, same.low, same.high, same.se, same.p, same.minimum_detectable_effect) == (0, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("n_groups", [2, 5, 100])
def test_the_variance_of_the_bootstrap_is_corrected_for_the_number_of_groups(n_groups: int):
    resampled = np.random.default_rng(0).normal(size=(1, 50))
    found = estimate_from(np.array([0.5]), resampled, n_groups)
    assert found.se**2 == pytest.approx(np.var(resampled, ddof=1) * n_groups / (n_groups - 1))


def test_samples_of_a_group_are_drawn_together():
    groups = ["a"] * 3 + ["b"] + ["c"] * 2
    for row in resamples(groups, 50):
        drawn = [groups[i] for i in row]
        assert drawn.count("a") % 3 == 0
        assert drawn.count("c") % 2 == 0
        assert drawn.count("a") / 3 + drawn.count("b") + drawn.count("c") / 2 == 3


def test_cells_of_one_image_make_the_interval_wider():
    values = np.repeat(np.random.default_rng(5).random(20), 30)
    alone = PairedScores({"a": [values]}, mean, range(600), draws=300).estimate({"a": 1})
    together = PairedScores({"a": [values]}, mean, np.repeat(range(20), 30).tolist(), draws=300).estimate({"a": 1})
    assert together.se > 3 * alone.se
    assert together.df == 19


def test_estimates_are_numbers_that_json_knows_whatever_the_answers():
    never, always = [np.zeros(10)] * 3, [np.ones(10)] * 3
    scores = PairedScores({"never": never, "always": always}, mean, range(10), draws=20)
    for weights in ({"never": 1}, {"always": 1}, {"always": 1, "never": -1}, {"always": 1e-9}):
        json.dumps(vars(scores.estimate(weights)), allow_nan=False)
    assert scores.estimate({"always": 1, "never": -1}).p == 0


def test_a_metric_without_a_value_is_said():
    with pytest.raises(ValueError, match="must be finite"):
        PairedScores({"a": [np.ones(5)]}, lambda rows: math.nan, range(5), draws=5).estimate({"a": 1})


def test_equal_policies_differ_significantly_as_rarely_as_the_p_value_of_an_exchange_says():
    rng, detected = np.random.default_rng(6), 0
    for _ in range(500):
        hard = rng.random((1, 80)).repeat(2, axis=1)  # two cells an image
        a, b = (list(rng.random((2, 160)) < hard) for _ in range(2))
        scores = PairedScores({"a": a, "b": b}, mean, np.repeat(range(80), 2).tolist(), draws=1)
        detected += scores.paired_p("a", "b", draws=99) <= 0.05
    assert 0.025 <= detected / 500 <= 0.075


def test_a_difference_of_policies_is_detected_and_its_p_value_is_never_zero(arms):
    scores = PairedScores(arms, mean, range(60), draws=1)
    assert scores.paired_p("a", "untrained", draws=200) == 1 / 201
    assert scores.paired_p("a", "a", draws=20) == 1


def test_mcnemar_is_the_binomial_test_of_what_only_one_has_right():
    rng = np.random.default_rng(7)
    a, b = rng.random(100) < 0.8, rng.random(100) < 0.6
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    assert mcnemar_p(a, b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert mcnemar_p(a, a) == 1


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


FACTORS = {"PA_p": ["off", "on"], "recite": [0, -0.2], "fuzzy": ["off", "table", "geometric"]}


def grid(factors: dict) -> dict[str, dict]:
    rows = product(*factors.values())
    return {"/".join(map(str, row)): dict(zip(factors, row, strict=True)) for row in rows}


CELLS = grid(FACTORS)


def test_in_a_full_factorial_a_main_effect_is_a_difference_of_means():
    found = {effect.name: effect for effect in effects(CELLS, FACTORS)[0]}
    assert found["PA_p"].weights == pytest.approx({a: (1 if c["PA_p"] == "on" else -1) / 6 for a, c in CELLS.items()})
    sign = {"geometric": 1, "off": -1}
    expected = {a: sign[c["fuzzy"]] / 4 for a, c in CELLS.items() if c["fuzzy"] in sign}
    assert found["fuzzy=geometric"].weights == pytest.approx(expected)
    assert not any(effect.confounded for effect in found.values())


def test_in_a_full_factorial_an_interaction_is_a_difference_of_differences():
    found = {effect.name: effect for effect in effects(CELLS, FACTORS)[0]}
    sign = {"on": 1, "off": -1, -0.2: 1, 0: -1}
    expected = {a: sign[c["PA_p"]] * sign[c["recite"]] / 3 for a, c in CELLS.items()}
    assert found["PA_p x recite=-0.2"].weights == pytest.approx(expected)
    sign = {"table": 1, "off": -1}
    expected = {
        a: sign[c["fuzzy"]] * (1 if c["PA_p"] == "on" else -1) / 2 for a, c in CELLS.items() if c["fuzzy"] in sign
    }
    assert found["PA_p x fuzzy=table"].weights == pytest.approx(expected)


def test_every_effect_of_a_full_factorial_has_its_name_and_parts():
    found, missing = effects(CELLS, FACTORS)
    assert [effect.name for effect in found] == [
        "PA_p",
        "recite=-0.2",
        "fuzzy=table",
        "fuzzy=geometric",
        "PA_p x recite=-0.2",
        "PA_p x fuzzy=table",
        "PA_p x fuzzy=geometric",
        "recite=-0.2 x fuzzy=table",
        "recite=-0.2 x fuzzy=geometric",
    ]
    assert missing == []
    assert (found[4].kind, found[4].of) == ("interaction", (("PA_p", "on"), ("recite", -0.2)))


def value(cell: dict) -> float:
    """A truth without three-way interaction."""
    on, recited = cell["PA_p"] == "on", cell["recite"] == -0.2
    return (
        0.5
        + 0.1 * on
        + 0.03 * recited
        + {"off": 0, "table": 0.02, "geometric": -0.04}[cell["fuzzy"]]
        + 0.05 * (on and recited)
    )


def test_with_a_missing_cell_least_squares_still_finds_the_effects():
    cells = {arm: cell for arm, cell in CELLS.items() if arm != "on/-0.2/table"}
    found, missing = effects(cells, FACTORS)
    assert missing == []
    measured = {e.name: sum(w * value(cells[arm]) for arm, w in e.weights.items()) for e in found}
    assert measured["PA_p"] == pytest.approx(0.1 + 0.05 / 2)
    assert measured["fuzzy=geometric"] == pytest.approx(-0.04)
    assert measured["PA_p x recite=-0.2"] == pytest.approx(0.05)
    assert measured["recite=-0.2 x fuzzy=table"] == pytest.approx(0)


def test_an_interaction_that_was_never_run_is_left_out_and_its_main_effects_are_confounded():
    cells = {arm: cell for arm, cell in CELLS.items() if not (cell["PA_p"] == "on" and cell["recite"] == -0.2)}
    found, missing = effects(cells, FACTORS)
    assert missing == ["PA_p x recite=-0.2"]
    assert {e.name for e in found if e.confounded} == {"PA_p", "recite=-0.2"}


def test_factors_that_always_come_together_have_no_effect_of_their_own():
    factors = {"a": ["off", "on"], "b": ["off", "on"]}
    cells = {"base": {"a": "off", "b": "off"}, "both": {"a": "on", "b": "on"}}
    assert effects(cells, factors) == ([], ["a", "b", "a x b"])


def test_a_level_that_its_factor_has_not_is_said():
    with pytest.raises(ValueError, match="PA_p of x must be one of off, on; got half"):
        effects({"x": {"PA_p": "half", "recite": 0, "fuzzy": "off"}}, FACTORS)


@pytest.mark.parametrize("extra", [{}, {"order": ["off", "on"]}])
def test_a_fraction_is_balanced_and_holds_the_base(extra):
    factors = FACTORS | extra
    cells = grid(factors)
    arms = fraction_of(cells, factors, 2)
    assert len(arms) == len(cells) / 2
    assert next(iter(cells)) in arms
    for factor, levels in factors.items():
        times = [sum(cells[arm][factor] == level for arm in arms) for level in levels]
        assert len(set(times)) == 1


def test_a_fraction_finds_all_main_effects_where_nothing_interacts():
    arms = fraction_of(CELLS, FACTORS, 2)
    found, missing = effects({arm: CELLS[arm] for arm in arms}, FACTORS)
    main = {effect.name: effect for effect in found if effect.kind == "main"}
    assert set(main) == {"PA_p", "recite=-0.2", "fuzzy=table", "fuzzy=geometric"}
    assert main["PA_p"].confounded
    assert all(" x " in name for name in missing)
    truth = {arm: {"off": 0, "table": 0.2, "geometric": 0.3}[CELLS[arm]["fuzzy"]] for arm in arms}
    measured = {name: sum(w * truth[arm] for arm, w in effect.weights.items()) for name, effect in main.items()}
    assert measured == pytest.approx({"PA_p": 0, "recite=-0.2": 0, "fuzzy=table": 0.2, "fuzzy=geometric": 0.3})


@pytest.mark.parametrize(("reduction", "why"), [(1, "at least 2"), (3, "fewer than the 5"), (50, "too large")])
def test_a_fraction_that_is_not_possible_is_refused(reduction, why):
    with pytest.raises(ValueError, match=f"not possible: .*{why}"):
        fraction_of(CELLS, FACTORS, reduction)


def test_a_fraction_needs_its_arms():
    with pytest.raises(ValueError, match="no arm has"):
        fraction_of({"off/0/off": CELLS["off/0/off"]}, FACTORS, 2)
