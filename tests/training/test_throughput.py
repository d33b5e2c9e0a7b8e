"""The benchmark: both trainers see the same tokens, take turns, and the parts of a step add up."""

from itertools import pairwise
from math import comb
from statistics import median
from threading import Timer

import numpy as np
import pytest

from vrft.cli.bench import read_shape
from vrft.errors import UserError
from vrft.progress import Reporter
from vrft.training.throughput import (
    PARTS,
    TRAINERS,
    Measurement,
    Shape,
    TrainerProcess,
    alternate,
    bench,
    median_interval,
    summarise,
)

pytestmark = pytest.mark.slow

SHAPE = Shape("tiny", 90, 6, group=4)
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def measured() -> dict[str, Measurement]:
    return alternate(SHAPE, steps=3, reporter=QUIET)


def test_one_shape_is_timed_with_both_trainers(measured: dict[str, Measurement]):
    result = summarise(SHAPE, measured)
    assert (result["prompt"], result["completion"], result["group"]) == (90, 6, 4)
    for name in TRAINERS:
        one = result[name]
        assert all(one[part] > 0 for part in ("rollout", "reward", "log_prob", "forward", "backward", "step"))
        assert sum(one[part] for part in PARTS) == pytest.approx(one["step"])
        assert one["tokens_per_second"] == pytest.approx(4 * (90 + 6) / one["step"])
        assert one["peak_mb"] > 0
        assert len(one["steps"]) == 3
        assert (one["step_min"], one["step_median"]) == (min(one["steps"]), median(one["steps"]))
    passes = [result[name]["forward"] + result[name]["backward"] for name in TRAINERS]
    assert result["training_pass_ratio"] == pytest.approx(passes[0] / passes[1])
    assert result["step_ratio"] == pytest.approx(result["stock"]["step"] / result["shared"]["step"])
    assert result["memory_ratio"] == pytest.approx(result["stock"]["peak_mb"] / result["shared"]["peak_mb"])


def test_the_trainers_take_turns(measured: dict[str, Measurement]):
    spans = [
        (began, began + step["step"], name)
        for name, one in measured.items()
        for began, step in zip(one.began, one.steps, strict=True)
    ]
    spans.sort()
    assert [name for _, _, name in spans] == ["shared", "stock", "stock", "shared", "shared", "stock"]
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


def _measured(steps: list[float], forward: list[float]) -> Measurement:
    parts = [
        dict.fromkeys((*PARTS, "step"), 0.0) | {"step": s, "forward": f} for s, f in zip(steps, forward, strict=True)
    ]
    return Measurement(parts, [], 10.0, 5)


def test_a_slow_phase_of_the_machine_does_not_turn_the_ratio_of_pairs():
    slow = np.array([1, 1, 1, 7, 1, 1, 1, 1, 1, 1])
    stock, shared = _measured(2 * slow, 3 * slow), _measured(list(slow[::-1]), [1.0] * 10)
    result = summarise(SHAPE, {"stock": stock, "shared": shared})
    assert (result["step_ratio_median"], result["step_ratio_low"], result["step_ratio_high"]) == (2, 2, 2)
    assert (result["step_ratio_min"], result["interval_coverage"]) == (2, pytest.approx(0.979, abs=1e-3))
    assert (result["training_pass_ratio_median"], result["training_pass_ratio_min"]) == (3, 3)
    assert (result["training_pass_ratio_low"], result["training_pass_ratio_high"]) == (3, 3)
    assert result["training_pass_ratio"] == pytest.approx(4.8)


def test_an_interval_holds_the_median_of_its_values_and_has_its_level_where_it_can():
    rng = np.random.default_rng(0)
    for count in range(1, 60):
        values = list(rng.lognormal(size=count))
        low, high, coverage = median_interval(values)
        assert min(values) <= low <= median(values) <= high <= max(values)
        assert (coverage >= 0.95) == (count >= 6)
        inner = sum(comb(count, k) for k in range(sorted(values).index(low) + 2)) / 2**count
        assert 1 - 2 * inner < 0.95  # the next narrower one has not


def test_as_many_intervals_hold_the_true_median_as_they_say():
    draws = np.random.default_rng(0).exponential(size=(4000, 10))
    intervals = [median_interval(list(row)) for row in draws]
    held = np.mean([low < np.log(2) < high for low, high, _ in intervals])
    assert held == pytest.approx(intervals[0][2], abs=0.01)


def test_a_prompt_that_is_too_short_is_refused():
    with pytest.raises(UserError, match="a prompt of 10 tokens cannot be built"):
        bench(Shape("tiny", 10, 6, group=4), steps=1, reporter=QUIET)


def test_what_a_trainer_fails_with_is_raised_with_its_traceback(tmp_path):
    other = TrainerProcess("stock", Shape("tiny", None, 6, group=0), tmp_path, 1, 0, False)
    try:
        with pytest.raises(RuntimeError, match=r"(?s)Traceback.*group_size"):
            other.step()
    finally:
        other.end()


def test_a_process_that_is_killed_is_one_error_and_no_hang(tmp_path):
    other = TrainerProcess("shared", SHAPE, tmp_path, 1, 0, True)
    timer = Timer(0.2, other.process.kill)
    timer.start()
    try:
        for _ in range(2):  # while it has the turn, and when it should get one
            with pytest.raises(UserError, match=r"the shared trainer was killed or .* \(exit code -9\)"):
                other.step()
    finally:
        timer.join()
        other.end()


def test_shapes_are_read_with_names_that_hold_colons_and_slashes():
    assert read_shape("org/model:300/150/8x2") == {
        "model": "org/model",
        "prompt": 300,
        "completion": 150,
        "group": 8,
        "prompts": 2,
    }
    assert read_shape("a:b:-/24/8")["prompt"] is None


@pytest.mark.parametrize(
    "text", ["tiny", "tiny:1/2", ":1/2/3", "tiny:0/2/3", "tiny:1/2/1", "tiny:1/2/3x0", "tiny:a/2/3"]
)
def test_an_invalid_shape_is_an_error(text: str):
    with pytest.raises(UserError, match=r"expected MODEL:PROMPT/COMPLETION/GROUP"):
        read_shape(text)
