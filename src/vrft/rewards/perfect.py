"""Whether a right answer earns everything: each target is written as a completion, and read back."""

from collections.abc import Iterable
from dataclasses import dataclass

from vrft.boxes import Size
from vrft.response import parse, render
from vrft.rewards.accuracy import accuracy
from vrft.rewards.overlap import overlap
from vrft.sample import Box, Sample, size_of
from vrft.tasks import Localization, Task

ROUNDING = {"pixel": 1.0, "resized": 1.0, "thousand": 0.001, "unit": 0.0001}
"""By how much the writing of a coordinate may move it: in pixels, or as a share of the image's side."""


@dataclass(frozen=True)
class Unpaid:
    """A target whose perfect completion does not earn everything."""

    sample: Sample
    completion: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        found = f" ({', '.join(self.problems)})" if self.problems else ""
        return f"the target of {self.sample.id}, written as {self.completion!r}, is not read back{found}"


@dataclass(frozen=True)
class ReadBack:
    """What right answers to samples earn."""

    unpaid: list[Unpaid]
    """The samples of which a right answer does not earn everything, one for each target."""
    share: float
    """What right answers earn on average: 1, but for the rounding of boxes; 1 where there are no samples."""


def perfect(task: Task, sample: Sample, size: Size | None = None) -> str:
    """The completion that answers a sample rightly.

    Args:
        task: what is asked.
        sample: one of its samples.
        size: width and height of the image, where the task needs it.
    """
    return render("x", task.written(sample.target, size, size), task.order)


def read_back(task: Task, samples: Iterable[Sample]) -> ReadBack:
    """Write the target of each sample as a right answer, and read it back; equal targets once.

    A box must be read back but for the rounding of its coordinates, which costs small boxes of large images some
    overlap.
    """
    faults: list[Unpaid] = []
    paid: dict[object, float] = {}
    total = count = 0.0
    for sample in samples:
        size = size_of(sample) if isinstance(task, Localization) else None
        key = (sample.target, size)
        if key not in paid:
            fault, paid[key] = _read_back(task, sample, size)
            faults += [fault] if fault else []
        total, count = total + paid[key], count + 1
    return ReadBack(faults, total / count if count else 1.0)


def _read_back(task: Task, sample: Sample, size: Size | None) -> tuple[Unpaid | None, float]:
    """What is wrong with a target, and what share of the reward a right answer earns."""
    completion = perfect(task, sample, size)
    envelope = parse(completion, task.order)
    reading = task.read_answer(envelope, size, size)
    if isinstance(task, Localization):
        share = overlap(reading, sample.target if isinstance(sample.target, tuple) else ())
        paid = _is_near(reading.answer, sample.target, task.frame, size)
    else:
        share = accuracy(task, reading, task.check_target(sample.target))
        paid = share == 1.0
    problems = (*envelope.problems, *reading.problems)
    return None if paid and not envelope.problems else Unpaid(sample, completion, problems), share


def _is_near(answer: object, target: object, frame: str, size: Size | None) -> bool:
    """Whether boxes are the true ones but for rounding; a target that leaves its image is clipped to it."""
    if not (isinstance(answer, tuple) and isinstance(target, tuple) and size) or len(answer) != len(target):
        return False
    sides = size if frame in ("thousand", "unit") else (1, 1)
    slack: Box = tuple(ROUNDING[frame] * sides[axis % 2] + 1e-6 for axis in range(4))  # type: ignore[assignment]
    return all(
        all(abs(a - b) <= most for a, b, most in zip(read, true, slack, strict=True))
        for read, true in zip(answer, target, strict=True)
    )
