"""The benchmark: both trainers see the same tokens, and the parts of a step add up."""

import pytest

from vrft.cli.bench import read_shape
from vrft.errors import UserError
from vrft.progress import Reporter
from vrft.training.bench import PARTS, Shape, bench


def test_one_shape_is_timed_with_both_trainers():
    result = bench(Shape("tiny", 90, 6, group=4), steps=1, reporter=Reporter(quiet=True))
    assert (result["prompt"], result["completion"], result["group"]) == (90, 6, 4)
    for name in ("stock", "shared"):
        figures = result[name]
        assert all(figures[part] > 0 for part in ("rollout", "reward", "log_prob", "forward", "backward", "step"))
        assert sum(figures[part] for part in PARTS) == pytest.approx(figures["step"])
        assert figures["tokens_per_second"] == pytest.approx(4 * (90 + 6) / figures["step"])
        assert figures["peak_mb"] > 0
    passes = [result[name]["forward"] + result[name]["backward"] for name in ("stock", "shared")]
    assert result["training_pass_ratio"] == pytest.approx(passes[0] / passes[1])
    assert result["step_ratio"] == pytest.approx(result["stock"]["step"] / result["shared"]["step"])


def test_a_prompt_that_is_too_short_is_refused():
    with pytest.raises(UserError, match="a prompt of 10 tokens cannot be made"):
        bench(Shape("tiny", 10, 6, group=4), steps=1, reporter=Reporter(quiet=True))


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
def test_a_shape_that_is_none_is_told(text: str):
    with pytest.raises(UserError, match=r"expected MODEL:PROMPT/COMPLETION/GROUP"):
        read_shape(text)
