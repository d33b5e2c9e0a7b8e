"""Is a policy ready for RFT? pass@k, whether answers depend on the image, frames of boxes, and the verdict.

Pure functions of completions that were sampled and read; ``vrft.experiment.preflight`` samples them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrft.boxes import FRAMES, Size, rescale
from vrft.response import Reading
from vrft.rewards.overlap import overlap
from vrft.sample import Target
from vrft.tasks import Grading, Localization, TrainableTask

PASS_IOU = 0.5
"""The least mean IoU with which boxes pass."""

CODES = {
    "ready": "RFT can begin",
    "wrong_frame": "boxes fit another frame than the declared one",
    "truncated": "most completions are cut off",
    "saturated": "nearly everything is right already",
    "sft_first": "right answers are too rare, or do not depend on the image",
    "no_signal": "rewards hardly differ within groups",
}
"""The verdicts. The first that applies is given, in the order from ``wrong_frame`` on; else ``ready``."""


class Threshold(NamedTuple):
    """A limit of the verdict, and why it lies there."""

    value: float
    reason: str


THRESHOLDS = {
    "frame_margin": Threshold(
        0.1, "mean IoU between two readings of the same boxes differs by less than this by chance"
    ),
    "frame_ratio": Threshold(2.0, "a right frame gives a multiple of the IoU, where a better policy gives a part more"),
    "truncated": Threshold(
        0.5, "a completion that is cut has no closed answer, so most of the rewards measure the limit"
    ),
    "right": Threshold(0.95, "the rest is within the noise of labels, and RFT has nothing left to find"),
    "spread": Threshold(0.1, "so little is imprecision, which group scaling makes as large as a mistake"),
    "rare": Threshold(0.05, "at 5% a group of 8 holds a completion of the right form in one case of three"),
    "support": Threshold(0.1, "in nine of ten groups no answer is right, and steps are spent on nothing"),
    "unsupported": Threshold(0.5, "RFT would learn the few classes that it already answers, at the cost of the others"),
    "chance": Threshold(0.01, "a policy that guesses falls onto one answer under RFT, so a guess must be unlikely"),
    "open": Threshold(0.2, "a p below it is no sign of a guess either: more prompts decide"),
    "equal": Threshold(0.9, "nine of ten groups have no gradient, and cost as much as the others"),
    "partial": Threshold(
        0.5, "a reward of near misses that differs in every other group can lead to the first full one"
    ),
}
"""The limits of the verdict."""

LEAST_OF_CLASS = 3
"""Fewer prompts of a class without a pass do not show that it has none."""

CONFIDENCE_Z = 1.96
"""Standard deviations of a 95% interval."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that at least one of k completions passes, from n completions of which c pass.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374), in [0, 1]; k <= n.

    >>> pass_at_k(8, 2, 1), pass_at_k(8, 2, 4), pass_at_k(8, 0, 8)
    (0.25, 0.7857142857142857, 0.0)
    """
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def powers_up_to(n: int) -> list[int]:
    """1, 2, 4 and so on, and n itself.

    >>> powers_up_to(6)
    [1, 2, 4, 6]
    """
    return sorted({*(2**power for power in range(n.bit_length())), n})


def wilson(mean: float, n: int) -> tuple[float, float]:
    """The 95% Wilson interval of the mean of n values in [0, 1] (Wilson 1927).

    Exact in form for shares, and wide for values inside [0, 1], whose variance is at most that of a share.

    >>> tuple(round(end, 3) for end in wilson(0.0, 32))
    (0.0, 0.107)
    """
    z2 = CONFIDENCE_Z**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = CONFIDENCE_Z * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def support(passed: NDArray[np.bool_], k: int) -> dict[str, float]:
    """pass@k with its 95% interval over prompts.

    Args:
        passed: (prompts, G), which completions pass.
        k: at most G.
    """
    mean = float(np.mean([pass_at_k(passed.shape[1], int(row.sum()), k) for row in passed]))
    low, high = wilson(mean, len(passed))
    return {"value": mean, "low": low, "high": high}


def agreement(task: TrainableTask, row: Mapping[str, Any], target: Target, size: Size | None = None) -> float:
    """How well a prediction agrees with a target, which may be that of another sample, in [0, 1].

    A label agrees or does not; of grades 1 - d / (levels - 1) at a distance d; of boxes the mean IoU.

    Args:
        task: of the row.
        row: of ``vrft.evaluation.predictions``.
        target: in the form of ``check_target``.
        size: of boxes, width and height of the image of the target.
    """
    answer = row["answer"]
    if isinstance(task, Localization):
        assert isinstance(target, tuple)
        assert size is not None
        moved = tuple(rescale(box, size, tuple(row["image_size"])) for box in target)
        read = None if answer is None else tuple(map(tuple, answer))
        return overlap(Reading(read, (), row["stated"]), moved)
    if answer is None:
        return 0.0
    if isinstance(task, Grading):
        assert isinstance(target, int)
        return 1.0 - abs(answer - target) / (task.levels - 1)
    return float(answer == target)


def against_chance(scores: NDArray[np.float64], *, seed: int, draws: int = 2000) -> dict[str, float] | None:
    """A permutation test of whether answers depend on the image: targets are permuted between the prompts.

    Args:
        scores: (n, n), the mean agreement of the completions of prompt i with the target of prompt j.
        seed: of the permutations.
        draws: their number.

    Returns:
        ``score`` with the own targets, its mean ``shuffled``, ``p``, one-sided, and ``least_p``, the p of a policy that
        is always right, which is large where there are few prompts or nearly all targets are equal. None where all
        targets are equal, or no answer is read.

    >>> against_chance(np.eye(8), seed=0)["shuffled"] < 0.2
    True
    """
    if np.ptp(scores, axis=1).max() == 0.0:
        return None
    rng, rows = np.random.default_rng([seed, 0xC4A2]), np.arange(len(scores))
    orders = [rng.permutation(len(scores)) for _ in range(draws)]
    shuffled = np.array([scores[rows, order].mean() for order in orders])
    _, target = np.unique(scores, axis=1, return_inverse=True)  # equal columns are of equal targets
    unchanged = sum(bool((target == target[order]).all()) for order in orders)
    own = float(np.trace(scores) / len(scores))
    p, least = ((1 + int(count)) / (1 + draws) for count in ((shuffled >= own - 1e-12).sum(), unchanged))
    return {"score": own, "shuffled": float(shuffled.mean()), "p": p, "least_p": least}


def frame_scores(
    task: Localization, rows: Sequence[Mapping[str, Any]], processed_size: Callable[[Size], Size], prompt_end: str
) -> dict[str, float]:
    """Mean IoU of the same completions read in each frame, with x first and with y first.

    Args:
        task: whose frame is declared.
        rows: predictions with ``completion``, ``target`` and ``image_size``.
        processed_size: width and height of an image after the processor's resize.
        prompt_end: the beginning of the policy's turn that the chat template writes.

    Returns:
        Mean IoU by frame; with y first the name ends in ``, y first``.
    """
    scores: dict[str, float] = {}
    for y_first in (False, True):
        for frame in FRAMES:
            other = replace(task, frame=frame)
            total = 0.0
            for row in rows:
                size, target = tuple(row["image_size"]), tuple(map(tuple, row["target"]))
                made = processed_size(size)
                if y_first:  # as an image with its sides exchanged
                    size, made, target = size[::-1], made[::-1], tuple((b, a, d, c) for a, b, c, d in target)
                total += overlap(other.read(row["completion"], size, made, prompt_end=prompt_end), target)
            scores[frame + (", y first" if y_first else "")] = total / len(rows)
    return scores


# --- the verdict ------------------------------------------------------------------------------------------------------


def verdict(figures: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on the figures of a preflight: a key of ``CODES``, and one sentence.

    Args:
        figures: ``Preflight.figures``.
    """
    for code, check in _CHECKS.items():
        if sentence := check(figures):
            return code, sentence
    best, group = figures["pass_at_k"][str(figures["completions"])], figures["completions"]
    lacking = unsupported(figures)
    but = f", but not for {_names(lacking)}, of which none of {group} is right" if lacking else ""
    return "ready", (
        f"RFT can begin: {_right(figures)} among {group} completions in {_share(best)} of the prompts, and "
        f"{1 - figures['total']['zero_advantage']:.0%} of the groups have an advantage{but}."
    )


def unsupported(figures: Mapping[str, Any]) -> list[str]:
    """Classes of which no completion passed, with prompts enough to say so."""
    last = str(figures["completions"])
    return [
        name
        for name, one in figures["by_class"].items()
        if one["prompts"] >= LEAST_OF_CLASS and one["pass_at_k"][last]["value"] == 0
    ]


def best_frame(figures: Mapping[str, Any]) -> str | None:
    """The frame that fits clearly better than the declared one; None where there is none."""
    frames = figures["frames"]
    if not frames:
        return None
    scores, own = frames["mean_iou"], frames["mean_iou"][frames["declared"]]
    best = max(scores, key=scores.__getitem__)
    better = scores[best] - own > _at("frame_margin") and scores[best] >= _at("frame_ratio") * own
    return best if better else None


def _at(name: str) -> float:
    return THRESHOLDS[name].value


def _right(figures: Mapping[str, Any]) -> str:
    return f"boxes of a mean IoU of {PASS_IOU:g} are" if figures["task"] == "localization" else "a right answer is"


def _share(one: Mapping[str, float]) -> str:
    return f"{one['value']:.0%} [{one['low']:.0%}, {one['high']:.0%}]"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _wrong_frame(figures: Mapping[str, Any]) -> str | None:
    best = best_frame(figures)
    if best is None:
        return None
    frames, scores = figures["frames"], figures["frames"]["mean_iou"]
    found = f"boxes fit {best!r} (mean IoU {scores[best]:.2f}) far better than {frames['declared']!r}"
    found += f" ({scores[frames['declared']]:.2f})"
    if best in FRAMES:
        return f"Wrong frame: {found}: set {frames['key']}: {best}."
    return (
        f"Wrong frame: {found}; no frame has y first, so ask for x first in {frames['key'][:-5]}question, or SFT first."
    )


def _truncated(figures: Mapping[str, Any]) -> str | None:
    tokens = figures["tokens"]
    if tokens["truncated"] <= _at("truncated"):
        return None
    return (
        f"Truncated: {tokens['truncated']:.0%} of the completions are cut at {tokens['limit']} tokens: raise "
        f"max_completion_tokens; if they are still cut, SFT first."
    )


def _saturated(figures: Mapping[str, Any]) -> str | None:
    right, spread = figures["pass_at_k"]["1"]["value"], figures["task_reward"]["within_group_sd"]
    if right < _at("right") or spread > _at("spread"):
        return None
    return (
        f"Saturated: {right:.0%} of the completions are right already, and what the answers of a group earn differs "
        f"by a standard deviation of {spread:.2f}; harder samples are needed."
    )


def _sft_first(figures: Mapping[str, Any]) -> str | None:
    reason = _no_support(figures)
    return f"SFT first: {reason}." if reason else None


def _no_support(figures: Mapping[str, Any]) -> str | None:
    """Why RFT has nothing to begin with; None where it has."""
    answers, best, chance = figures["answers"], figures["pass_at_k"][str(figures["completions"])], figures["chance"]
    for name, verb in (("read_rate", "can be read"), ("format_rate", "have the form that was asked for")):
        if answers[name] < _at("rare"):
            return f"{answers[name]:.0%} of the completions {verb}"
    guesses = chance is not None and chance["p"] > _at("chance") >= chance["least_p"]
    task = figures["task_reward"]
    partial = task["shaped"] and task["equal_groups"] <= 1 - _at("partial") and not guesses
    if best["value"] < _at("support") and not partial:
        return f"{_right(figures)} among {figures['completions']} completions in {_share(best)} of the prompts"
    lacking = unsupported(figures)
    share = sum(figures["by_class"][name]["prompts"] for name in lacking) / figures["prompts"]
    if share >= _at("unsupported") and not partial:
        return f"{_names(lacking)} ({share:.0%} of the prompts) are never answered rightly"
    if guesses:
        open_yet = chance["p"] < _at("open")
        more = f"; a --prompts of {4 * figures['prompts']} may show it, so try that first" if open_yet else ""
        return (
            f"nothing shows that answers depend on the image: they agree with their targets by {chance['score']:.2f}, "
            f"with those of other images by {chance['shuffled']:.2f} (p = {chance['p']:.2g}){more}"
        )
    return None


def _no_signal(figures: Mapping[str, Any]) -> str | None:
    equal = max(figures["total"]["zero_advantage"], figures["task_reward"]["equal_groups"])
    if equal < _at("equal"):
        return None
    return (
        f"No signal: in {equal:.0%} of the groups all completions earn the same: raise temperature or group_size, or "
        f"pay near misses (rewards fuzzy, iou)."
    )


_CHECKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "wrong_frame": _wrong_frame,
    "truncated": _truncated,
    "saturated": _saturated,
    "sft_first": _sft_first,
    "no_signal": _no_signal,
}
