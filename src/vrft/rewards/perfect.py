"""Whether a right answer earns everything: each target is written as a completion, and read back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vrft.boxes import Size
from vrft.images import inspect
from vrft.response import parse, render
from vrft.rewards.accuracy import accuracy
from vrft.rewards.overlap import overlap
from vrft.sample import Box, Sample, file_of, open_image
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


def perfect(task: Task, sample: Sample, size: Size | None = None) -> str:
    """The completion that answers a sample rightly.

    Args:
        task: what is asked.
        sample: one of its samples.
        size: width and height of the image, where the task needs it.
    """
    return render("x", task.written(sample.target, size, size), task.order)


def unpaid(task: Task, samples: Iterable[Sample]) -> Iterator[Unpaid]:
    """The samples of which a right answer does not earn everything, one for each target.

    A box must be read back but for the rounding of its coordinates, which costs small boxes of large images some
    overlap (``attainable``).
    """
    seen: set[object] = set()
    for sample in samples:
        size = size_of(sample) if isinstance(task, Localization) else None
        if (sample.target, size) in seen:
            continue
        seen.add((sample.target, size))
        completion = perfect(task, sample, size)
        envelope = parse(completion, task.order)
        reading = task.read_answer(envelope, size, size)
        if isinstance(task, Localization):
            paid = _is_near(reading.answer, sample.target, task.frame, size)
        else:
            paid = accuracy(task, reading, task.check_target(sample.target)) == 1.0
        if envelope.problems or not paid:
            yield Unpaid(sample, completion, (*envelope.problems, *reading.problems))


def attainable(task: Localization, samples: Iterable[Sample]) -> float:
    """The mean overlap that right answers earn: 1 but for the rounding of coordinates; 1 where there are no samples."""
    values = []
    for sample in samples:
        size = size_of(sample)
        reading = task.read_answer(parse(perfect(task, sample, size), task.order), size, size)
        values.append(overlap(reading, sample.target if isinstance(sample.target, tuple) else ()))
    return sum(values) / len(values) if values else 1.0


def size_of(sample: Sample) -> Size:
    """Width and height of the picture of a sample, from the head of its file, or from the picture."""
    file = file_of(sample)
    if file is None:
        return open_image(sample).size
    if file.region is not None:
        x1, y1, x2, y2 = file.region
        return x2 - x1, y2 - y1
    return inspect(file.path, file.page).size


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
