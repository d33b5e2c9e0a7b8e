"""Intervals cover what they should, and a paired difference sees what an unpaired one would miss."""

import numpy as np
import pytest

from vrft.evaluation.statistics import bootstrap, paired_difference, resamples
from vrft.evaluation.summary import summarise
from vrft.tasks import Grading


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = resamples(range(200), 400)
    covered = 0
    for _ in range(300):
        sample = rng.random(200) < 0.7
        interval = bootstrap(lambda at, s=sample: float(s[at].mean()), 200, draws)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_small_paired_difference_is_seen():
    hard = np.random.default_rng(1).random(300) < 0.5
    better = hard.copy()
    better[np.flatnonzero(~hard)[:15]] = True
    draws = resamples(range(300), 1000)
    seen = paired_difference(lambda at: float(better[at].mean()), lambda at: float(hard[at].mean()), 300, draws)
    assert seen.difference == pytest.approx(0.05)
    assert seen.low > 0
    assert seen.p < 0.01


def test_no_difference_has_an_interval_of_zero_and_p_of_one():
    draws = resamples(range(50), 200)
    none = paired_difference(lambda at: 1.0, lambda at: 1.0, 50, draws)
    assert (none.difference, none.low, none.high, none.p) == (0, 0, 0, 1)


def row(target: int, answer: int | None, lenient: int | None) -> dict:
    return {"target": target, "answer": answer, "lenient": lenient, "completion": "x", "well_formed": False}


def test_the_summary_follows_the_contract():
    task = Grading(3)
    good = [row(t, t, t) for t in (0, 1, 2, 1)]
    loose = [row(t, None, t) for t in (0, 1, 2, 1)]
    cost = {"seconds": 1.0, "tokens": 2, "peak_mb": 3.0}
    summary = summarise(task, {"a": [good], "b": [loose, loose]}, {"a": cost, "b": cost}, draws=100, confidence=0.95)
    assert set(summary) == {"arms", "comparisons"}
    a, b = summary["arms"]["a"], summary["arms"]["b"]
    assert (a["n"], a["seeds"], b["seeds"], a["cost"]) == (4, 1, 2, cost)
    assert set(a["accuracy"]) == {"value", "low", "high"}
    assert (a["accuracy"]["value"], a["qwk"]["value"], a["mae"]["value"]) == (1.0, 1.0, 0.0)
    assert "accuracy_lenient" not in a
    assert (b["accuracy"]["value"], b["accuracy_lenient"]["value"], b["read_rate"]["value"]) == (0.0, 1.0, 0.0)
    difference = next(one for one in summary["comparisons"] if one["metric"] == "accuracy")
    assert (difference["a"], difference["b"], difference["difference"]) == ("b", "a", -1.0)
    assert set(difference) == {"a", "b", "metric", "difference", "low", "high", "p"}


def test_samples_of_one_image_are_drawn_together():
    groups = ["a"] * 3 + ["b"] + ["c"] * 2
    for row in resamples(groups, 50):
        drawn = [groups[i] for i in row]
        assert drawn.count("a") % 3 == 0
        assert drawn.count("c") % 2 == 0
        assert drawn.count("a") / 3 + drawn.count("b") + drawn.count("c") / 2 == 3


def test_alike_samples_of_few_images_have_a_wider_interval():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random(20), 30)  # 20 images of 30 equal cells
    alone = bootstrap(lambda at: float(values[at].mean()), 600, resamples(range(600), 400))
    together = bootstrap(
        lambda at: float(values[at].mean()), 600, resamples(np.repeat(np.arange(20), 30).tolist(), 400)
    )
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert together.value == alone.value
