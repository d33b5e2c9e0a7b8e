"""Check that a right answer earns full reward: each target is written as a completion and read back."""

from collections.abc import Iterable
from dataclasses import dataclass

from vrft.boxes import Size
from vrft.response import parse, render
from vrft.rewards.accuracy import accuracy
from vrft.rewards.overlap import overlap
from vrft.sample import Box, Sample, size_of
from vrft.tasks import Localization, Task

ROUNDING = {"pixel": 1.0, "resized": 1.0, "thousand": 0.001, "unit": 0.0001}
"""The largest rounding error of a written coordinate: in pixels, or as a share of the image's side."""


@dataclass(frozen=True)
class Unpaid:
    """A target whose perfect completion does not earn full reward."""

    sample: Sample
    completion: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        found = f" ({', '.join(self.problems)})" if self.problems else ""
        return f"the target of {self.sample.id}, written as {self.completion!r}, is not read back{found}"


@dataclass(frozen=True)
class ReadBack:
    """The rewards of right answers to samples."""

    unpaid: list[Unpaid]
    """Samples whose right answer does not earn full reward, one for each distinct target."""
    share: float
    """The mean reward of right answers: 1 apart from the rounding of boxes; 1 without samples."""


def perfect(task: Task, sample: Sample, size: Size | None = None) -> str:
    """Write the right answer to a sample as a completion; boxes need ``size``, width and height of the image."""
    return render("x", task.written(sample.target, size, size), task.order)


def read_back(task: Task, samples: Iterable[Sample]) -> ReadBack:
    """Write the target of each sample as a right answer and read it back; equal targets are checked once.

    A box must be read back up to the rounding of its coordinates, which costs small boxes of large images some overlap.
    """
    unpaid: list[Unpaid] = []
    rewards: dict[object, float] = {}
    total = count = 0.0
    for sample in samples:
        size = size_of(sample.images[0]) if isinstance(task, Localization) else None
        key = (sample.target, size)
        if key not in rewards:
            fault, rewards[key] = _read_back(task, sample, size)
            unpaid += [fault] if fault else []
        total, count = total + rewards[key], count + 1
    return ReadBack(unpaid, total / count if count else 1.0)


def _read_back(task: Task, sample: Sample, size: Size | None) -> tuple[Unpaid | None, float]:
    """The fault of a target, if any, and the share of the reward that its right answer earns."""
    completion = perfect(task, sample, size)
    envelope = parse(completion, task.order)
    reading = task.read_answer(envelope, size, size)
    if isinstance(task, Localization):
        share = overlap(reading, sample.target if isinstance(sample.target, tuple) else ())
        is_right = _is_near(reading.answer, sample.target, task.frame, size)
    else:
        share = accuracy(task, reading, task.check_target(sample.target))
        is_right = share == 1.0
    problems = (*envelope.problems, *reading.problems)
    return None if is_right and not envelope.problems else Unpaid(sample, completion, problems), share


def _is_near(answer: object, target: object, frame: str, size: Size | None) -> bool:
    """Whether boxes equal the true boxes up to rounding; the coordinates of the target are in pixels."""
    if not (isinstance(answer, tuple) and isinstance(target, tuple) and size) or len(answer) != len(target):
        return False
    sides = size if frame in ("thousand", "unit") else (1, 1)
    tolerance: Box = tuple(ROUNDING[frame] * sides[axis % 2] + 1e-6 for axis in range(4))  # type: ignore[assignment]
    return all(
        all(abs(a - b) <= most for a, b, most in zip(read, true, tolerance, strict=True))
        for read, true in zip(answer, target, strict=True)
    )
