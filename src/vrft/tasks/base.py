"""The common part of all tasks: a completion is parsed, its answer is read and compared with the target."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from vrft.boxes import Size
from vrft.response import Envelope, Reading, parse
from vrft.sample import Target


def prompt_lines(*lines: str) -> str:
    """Join the lines of a prompt; empty lines are left out."""
    return "\n".join(line for line in lines if line)


class ReadContext(NamedTuple):
    """Context that the reading of boxes needs besides the answer."""

    image_size: Size | None = None
    """Width and height of the original image."""
    processed_size: Size | None = None
    """Width and height after the processor's resize."""
    cut: bool = False
    """Whether the answer ends where the completion does."""


NO_CONTEXT = ReadContext()


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """The prompt of a question, the reading of its answer, and the comparison with the target.

    Args:
        order: the order of the envelope, a key of ``vrft.response.ORDERS``, which prompts ask for.
    """

    order: str = "think-answer"

    kind: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """The task as keyword arguments of the rewards (``vrft.rewards``)."""

    @abstractmethod
    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read the text of an answer; ``answer`` is None where the completion has none."""

    def read_answer(
        self, envelope: Envelope, image_size: Size | None = None, processed_size: Size | None = None
    ) -> Reading:
        """Read the answer of a parsed completion; the problems are those of the answer alone."""
        if envelope.answer is None and 1 < len(envelope.answers) <= 10 and all(envelope.answers):
            context = ReadContext(image_size, processed_size)
            readings = [self.read_text(answer, context) for answer in envelope.answers]
            if all(reading.answer == readings[0].answer for reading in readings):
                return readings[0]  # the same answer in other words
        return self.read_text(envelope.answer, ReadContext(image_size, processed_size, envelope.cut))

    def read(
        self,
        completion: str,
        image_size: Size | None = None,
        processed_size: Size | None = None,
        *,
        prompt_end: str = "",
    ) -> Reading:
        """The strict reading, which rewards and main metrics use; its problems include those of the envelope.

        ``prompt_end`` is the beginning of the assistant's turn that the chat template writes (``vrft.response.parse``).
        """
        envelope = parse(completion, self.order, prompt_end)
        reading = self.read_answer(envelope, image_size, processed_size)
        return Reading(reading.answer, envelope.problems + reading.problems, reading.stated)

    @abstractmethod
    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return a target in the form of an answer.

        Raises:
            ValueError: the target is not valid for this task; the message says which values are.
        """

    def written(self, target: Target, image_size: Size | None = None, processed_size: Size | None = None) -> str:
        """The text of a right answer, as the policy should write it."""
        return str(target)

    def matches(self, answer: Any, target: Target) -> bool:
        """Whether the answer that was read equals the target in the form of ``check_target``."""
        return bool(answer == target)
