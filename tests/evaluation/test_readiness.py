"""pass@k, intervals, the test against chance, frames of boxes, and the verdict on synthetic figures."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrft.boxes import FRAMES
from vrft.evaluation.readiness import (
    CODES,
    THRESHOLDS,
    against_chance,
    agreement,
    frame_scores,
    pass_at_k,
    powers_up_to,
    support,
    verdict,
    wilson,
)
from vrft.tasks import Classification, Grading, Localization
from vrft.tasks.localization import write_boxes

SIZE, MADE = (640, 480), (224, 168)


def brute_force(n: int, c: int, k: int) -> float:
    """The share of all choices of k completions that hold one of the first c."""
    choices = list(combinations(range(n), k))
    return sum(any(place < c for place in choice) for choice in choices) / len(choices)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_choices_with_a_pass(n: int):
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert pass_at_k(n, c, k) == pytest.approx(brute_force(n, c, k))


def test_support_is_the_mean_over_prompts():
    passed = np.array([[True, False, False, False], [False] * 4])
    assert support(passed, 1)["value"] == pytest.approx(1 / 8)
    assert support(passed, 4)["value"] == pytest.approx(1 / 2)
    assert powers_up_to(4) == [1, 2, 4]


def test_wilsons_interval_holds_the_mean_and_is_never_empty():
    for mean in (0.0, 0.3, 1.0):
        low, high = wilson(mean, 10)
        assert 0 <= low <= mean <= high <= 1
        assert high - low > 0.2


def test_the_same_answer_to_every_image_is_no_better_than_chance():
    targets = [0, 1, 0, 1, 1, 0, 1, 0]
    constant = np.array([[float(target == 1) for target in targets] for _ in targets])
    found = against_chance(constant, seed=0)
    assert found is not None
    assert found["p"] == 1.0
    right = np.array([[float(own == other) for other in targets] for own in targets])
    found = against_chance(right, seed=0)
    assert found is not None
    assert found["p"] < 0.05
    assert against_chance(np.ones((4, 4)), seed=0) is None


def test_one_different_target_is_too_little_to_show_anything():
    targets = [1] + [0] * 31
    right = np.array([[float(own == other) for other in targets] for own in targets])
    found = against_chance(right, seed=0)
    assert found is not None
    assert found["p"] == found["least_p"] == pytest.approx(1 / 32, rel=0.5)


def test_agreement_of_each_task():
    assert agreement(Classification(["a", "b"]), {"answer": "a"}, "a") == 1.0
    assert agreement(Classification(["a", "b"]), {"answer": None}, "a") == 0.0
    assert agreement(Grading(5), {"answer": 1}, 3) == 0.5
    row = {"answer": [[0.0, 0.0, 10.0, 10.0]], "stated": 1, "image_size": [100, 100]}
    assert agreement(Localization("pixel"), row, ((0, 0, 20, 20),), (200, 200)) == 1.0  # half the image in both


def written(frame: str, *, y_first: bool = False) -> list[dict[str, Any]]:
    """Perfect boxes in a frame, as rows of the predictions."""
    rows = []
    for box in ((30.0, 40.0, 300.0, 200.0), (400.0, 100.0, 600.0, 460.0)):
        answer = write_boxes((box,), frame, SIZE, MADE)
        if y_first:
            turned = (box[1], box[0], box[3], box[2])
            answer = write_boxes((turned,), frame, SIZE[::-1], MADE[::-1])
        text = f"<think>x</think><answer>{answer}</answer>"
        rows.append({"completion": text, "target": [list(box)], "image_size": list(SIZE)})
    return rows


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("y_first", [False, True])
def test_boxes_fit_the_frame_that_they_are_written_in(frame: str, y_first: bool):
    scores = frame_scores(Localization("pixel"), written(frame, y_first=y_first), lambda _: MADE, "")
    assert max(scores, key=scores.__getitem__) == frame + (", y first" if y_first else "")
    assert max(scores.values()) > 0.95


def figures(**changed: Any) -> dict[str, Any]:
    """The figures of a policy that is ready, some of them changed."""
    one = {"value": 0.8, "low": 0.6, "high": 0.9}
    of_class = {"prompts": 16, "pass_at_k": {"1": one, "8": one}}
    ready: dict[str, Any] = {
        "task": "classification",
        "prompts": 32,
        "completions": 8,
        "pass_at_k": {"1": {"value": 0.4, "low": 0.3, "high": 0.5}, "8": one},
        "by_class": {"benign": of_class, "malignant": of_class},
        "answers": {"read_rate": 0.9, "format_rate": 0.9},
        "chance": {"score": 0.6, "shuffled": 0.4, "p": 0.001, "least_p": 0.0005},
        "total": {"zero_advantage": 0.4},
        "task_reward": {"equal_groups": 0.4, "within_group_sd": 0.3, "shaped": False},
        "tokens": {"truncated": 0.0, "limit": 64},
        "frames": None,
    }
    return ready | changed


def none_of(*names: str) -> dict[str, Any]:
    zero = {"value": 0.0, "low": 0.0, "high": 0.2}
    by_class = figures()["by_class"]
    return by_class | {name: by_class[name] | {"pass_at_k": {"1": zero, "8": zero}} for name in names}


ALL = {"value": 0.99, "low": 0.9, "high": 1.0}
RARE = {"value": 0.05, "low": 0.01, "high": 0.2}
SHAPED = {"equal_groups": 0.1, "within_group_sd": 0.3, "shaped": True}
GUESS = {"score": 0.5, "shuffled": 0.5, "p": 0.4, "least_p": 0.0005}
FRAME = {"declared": "resized", "key": "task.frame"}


@pytest.mark.parametrize(
    ("code", "words", "changed"),
    [
        ("ready", "RFT can begin: a right answer is among 8 completions in 80% [60%, 90%]", {}),
        ("ready", "but not for malignant", {"by_class": none_of("malignant"), "prompts": 48}),
        ("ready", "RFT can begin", {"chance": None}),
        ("ready", "RFT can begin", {"chance": GUESS | {"least_p": 0.04}}),
        ("sft_first", "2% of the completions can be read", {"answers": {"read_rate": 0.02, "format_rate": 0.9}}),
        ("sft_first", "1% of the completions have the form", {"answers": {"read_rate": 0.5, "format_rate": 0.01}}),
        ("sft_first", "in 5% [1%, 20%] of the prompts", {"pass_at_k": {"1": RARE, "8": RARE}}),
        ("sft_first", "benign (50% of the prompts) are never", {"by_class": none_of("benign")}),
        ("sft_first", "nothing shows that answers", {"chance": GUESS}),
        ("sft_first", "a --prompts of 128 may show it", {"chance": GUESS | {"p": 0.05}}),
        ("ready", "", {"pass_at_k": {"1": RARE, "8": RARE}, "task_reward": SHAPED}),
        (
            "saturated",
            "99% of the completions are right already",
            {"pass_at_k": {"1": ALL, "8": ALL}, "task_reward": SHAPED | {"within_group_sd": 0.05}},
        ),
        ("ready", "", {"pass_at_k": {"1": ALL, "8": ALL}, "task_reward": SHAPED}),
        ("no_signal", "in 95% of the groups", {"total": {"zero_advantage": 0.95}}),
        ("no_signal", "in 95% of the groups", {"task_reward": SHAPED | {"equal_groups": 0.95}}),
        ("truncated", "80% of the completions are cut at 64", {"tokens": {"truncated": 0.8, "limit": 64}}),
        (
            "wrong_frame",
            "set task.frame: thousand",
            {"frames": FRAME | {"mean_iou": {"resized": 0.05, "thousand": 0.6}}, "tokens": {"truncated": 0.8}},
        ),
        ("wrong_frame", "y first", {"frames": FRAME | {"mean_iou": {"resized": 0.05, "resized, y first": 0.6}}}),
        ("ready", "", {"frames": FRAME | {"mean_iou": {"resized": 0.4, "thousand": 0.6}}}),
        ("ready", "", {"frames": FRAME | {"mean_iou": {"resized": 0.01, "thousand": 0.1}}}),
    ],
)
def test_the_verdict_follows_from_the_figures(code: str, words: str, changed: dict[str, Any]):
    found, sentence = verdict(figures(**changed))
    assert found == code
    assert words in sentence
    assert found in CODES
    assert sentence.endswith(".")


def test_every_threshold_has_a_reason():
    assert all(0 < one.value <= 2 and len(one.reason) > 20 for one in THRESHOLDS.values())


def test_the_page_has_each_verdict_and_threshold():
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"| `{code}` |" not in page] == []
    assert [
        name for name, one in THRESHOLDS.items() if f"| `{name}` | {one.value:g} | {one.reason} |" not in page
    ] == []
