"""Checks of rewards: the right answer to each sample earns everything, the answers to other samples do not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vrft.auditing.box_checks import BoxFaults
from vrft.auditing.collected import Collected, DataSection
from vrft.auditing.findings import Finding, Vision, examples, plural
from vrft.boxes import Size, rescale
from vrft.data.splits import SPLITS
from vrft.recipe import FuzzyReward, IouReward, RftStage
from vrft.response import Reading
from vrft.rewards.accuracy import accuracy
from vrft.rewards.f1 import f1
from vrft.rewards.fuzzy import fuzzy
from vrft.rewards.overlap import overlap, threshold_at
from vrft.rewards.perfect import perfect, read_back
from vrft.sample import Box, Sample, Target
from vrft.tasks import Localization, Task, TrainableTask

BLIND = 0.9
"""A policy that sees nothing earns so much of the rewards for answers: a warning."""

PAIRS, CLASSES = 1000, 200
"""Samples with boxes whose targets are shuffled; classes whose answers are compared, the most frequent."""

AnswerReward = Callable[[Task, Reading, Any], float]


def answer_rewards(section: DataSection, task: Task) -> dict[str, tuple[float, AnswerReward]]:
    """The weight and the function of each reward for answers in the stages of a section, by name.

    Format, recitation and the user's own rewards are left out: they do not depend on the target alone.
    """
    found: dict[str, tuple[float, AnswerReward]] = {}
    for stage in section.stages:
        for name, reward in stage.rewards.named().items() if isinstance(stage, RftStage) else ():
            if name == "accuracy":
                found[name] = reward.weight, accuracy
            elif isinstance(reward, FuzzyReward):
                found[name] = reward.weight, _fuzzy(reward.schedule)
            elif isinstance(reward, IouReward):
                found[name] = reward.weight, _overlap(reward)
            elif name == "f1":
                found[name] = reward.weight, lambda task, reading, target: f1(reading, target)
    if not found:
        boxes = isinstance(task, Localization)
        found = {"iou": (1.0, _overlap(IouReward()))} if boxes else {"accuracy": (1.0, accuracy)}
    return found


def _fuzzy(schedule: str) -> AnswerReward:
    return lambda task, reading, target: fuzzy(reading, target, schedule)


def _overlap(reward: IouReward) -> AnswerReward:
    least = threshold_at(reward.threshold, 0.0)
    return lambda task, reading, target: overlap(reading, target, measure=reward.measure, threshold=least)


def check_targets(
    section: DataSection, task: TrainableTask, found: Collected, sizes: list[Size | None], vision: Vision
) -> tuple[dict[str, Any], list[Finding]]:
    """Check each target, its boxes, and what its right answer earns; then what shuffled targets earn.

    Returns:
        The figures of ``Audit.rewards``, and the findings.
    """
    boxes, unpaid, unlisted = BoxFaults(), dict[object, tuple[int, str]](), defaultdict[str, list[int]](list)
    checked: dict[object, str] = {}
    counted: dict[str, Counter[Target]] = {split: Counter() for split in SPLITS}
    of_target: dict[Target, Sample] = {}
    with_boxes: list[tuple[int, Size, tuple[Box, ...]]] = []
    shares: list[float] = []
    place = 0
    for number in range(len(found)):
        sample = found.sample(number)
        size = sizes[place]
        place += len(sample.images)
        if isinstance(task, Localization):
            if size is None:
                continue
            if isinstance(sample.target, tuple):
                boxes.add(number, sample.target, size, vision)
            key: object = number
        else:
            key = repr(sample.target)
        if key not in checked:
            checked[key] = ""
            try:
                target = task.check_target(sample.target, size if isinstance(task, Localization) else None)
                result = read_back(task, [sample])
                shares.append(result.share)
                if result.unpaid:
                    unpaid[key] = number, str(result.unpaid[0])
                elif not isinstance(task, Localization):
                    of_target[target] = sample
            except ValueError as error:
                checked[key] = str(error)
        if checked[key]:
            unlisted[checked[key]].append(number)
            continue
        if isinstance(task, Localization):
            if SPLITS[found.split[number]] == "train" and size is not None and isinstance(sample.target, tuple):
                with_boxes.append((number, size, sample.target))
        else:
            counted[SPLITS[found.split[number]]][task.check_target(sample.target)] += 1
    findings = list(boxes.findings(found))
    for why, numbers in unlisted.items() if not isinstance(task, Localization) else ():
        message = (
            f"{plural(len(numbers), 'sample')} whose target the task does not have: {why}. List it in the task, rename "
            f"it (data.label_names), or remove the samples."
        )
        findings.append(Finding("unlisted_target", "error", message, found.names(numbers), len(numbers)))
    if unpaid:
        message = (
            f"{plural(len(unpaid), 'target')} whose right answer does not earn the full reward, since it is not read "
            f"back; rename labels or grades that cannot be distinguished, or mend the boxes."
        )
        where = examples(f"{found.name(number)}: {why}" for number, why in unpaid.values())
        findings.append(Finding("unpaid_target", "error", message, where, len(unpaid)))
    rewards = answer_rewards(section, task)
    if isinstance(task, Localization):
        figures = _of_boxes(task, rewards, with_boxes, float(np.mean(shares)) if shares else 1.0)
    else:
        usable = counted["train"] or sum(counted.values(), Counter())
        figures = _of_classes(task, rewards, Counter({t: n for t, n in usable.items() if t in of_target}), of_target)
    return figures, findings + list(_blind(rewards, figures))


def _of_classes(
    task: Task, rewards: dict[str, tuple[float, AnswerReward]], counts: Counter[Target], of: dict[Target, Sample]
) -> dict[str, Any]:
    """The mean rewards of right, shuffled and constant answers, from the shares of the classes."""
    if not counts:
        return {}
    classes = [target for target, _ in counts.most_common(CLASSES)]
    share = np.array([counts[target] for target in classes], dtype=np.float64)
    share /= share.sum()
    readings = [task.read(perfect(task, of[target])) for target in classes]
    figures = {}
    for name, (_, reward) in rewards.items():
        table = np.array([[reward(task, reading, target) for target in classes] for reading in readings])
        constant = table @ share
        best = int(constant.argmax())
        figures[name] = {
            "right": float((np.diag(table) * share).sum()),
            "shuffled": float(share @ table @ share),
            "constant": float(constant[best]),
            "answer": task.written(classes[best]),
        }
    return figures


def _of_boxes(
    task: Task,
    rewards: dict[str, tuple[float, AnswerReward]],
    samples: list[tuple[int, Size, tuple[Box, ...]]],
    right: float,
) -> dict[str, Any]:
    """The mean rewards of right, shuffled and constant boxes, over some samples."""
    if not samples:
        return {}
    chosen = np.random.default_rng(0).permutation(len(samples))[:PAIRS]
    figures: dict[str, Any] = {}
    for name, (_, reward) in rewards.items():
        shuffled = []
        for here, other in zip(chosen, np.roll(chosen, 1), strict=True):
            (_, size, target), (_, there, boxes) = samples[here], samples[other]
            moved = tuple(rescale(box, there, size) for box in boxes)
            shuffled.append(reward(task, Reading(moved, stated=len(moved)), target))
        constant = {"no boxes": Reading(()), "the whole image": None}
        means = {}
        for answer, reading in constant.items():
            values = [
                reward(task, reading or Reading(((0, 0, *samples[i][1]),), stated=1), samples[i][2]) for i in chosen
            ]
            means[answer] = float(np.mean(values))
        best = max(means, key=lambda answer: means[answer])
        figures[name] = {
            "right": right if name == "iou" else 1.0,
            "shuffled": float(np.mean(shuffled)),
            "constant": means[best],
            "answer": best,
        }
    return figures


def _blind(rewards: dict[str, tuple[float, AnswerReward]], figures: dict[str, Any]) -> Iterator[Finding]:
    """A warning where an answer that is the same for all samples earns nearly everything."""
    paid = {name: weight for name, (weight, _) in rewards.items() if weight > 0 and name in figures}
    most = sum(weight * figures[name]["right"] for name, weight in paid.items())
    if not most:
        return
    best = max(sum(w * figures[n][kind] for n, w in paid.items()) for kind in ("constant", "shuffled")) / most
    if best >= BLIND:
        answer = next(iter(figures.values()))["answer"]
        message = (
            f"a policy that sees nothing earns {best:.0%} of the rewards for answers ({answer!r} for every sample): "
            f"most groups have no advantage, and little is learnt from images; set balance: true, or take harder "
            f"samples."
        )
        yield Finding("blind_reward", "warning", message, [f"{n}: {figures[n]['constant']:.3f}" for n in paid])
