"""What all tasks have in common: a completion is taken apart, its answer is read, and compared with the target."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from vrft.boxes import Size
from vrft.response import Envelope, Reading, parse
from vrft.sample import Target


def prompt_lines(*lines: str) -> str:
    """The lines of a prompt; empty ones are left out."""
    return "\n".join(line for line in lines if line)


class ReadContext(NamedTuple):
    """What a reading may need to know besides the answer; only boxes do."""

    image_size: Size | None = None
    """Width and height of the original image."""
    processed_size: Size | None = None
    """Width and height of what the processor made of it."""
    cut: bool = False
    """Whether the answer ends where the completion does."""


NO_CONTEXT = ReadContext()


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is asked, how an answer is read, and which target it is compared with.

    Args:
        order: of the envelope, one of ``vrft.response.ORDERS``; it decides what is asked for and what is well formed.
    """

    order: str = "think-answer"

    kind: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """What the rewards need to know of this task."""

    @abstractmethod
    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read the text of an answer; None where there is none."""

    def read_answer(
        self, envelope: Envelope, image_size: Size | None = None, processed_size: Size | None = None
    ) -> Reading:
        """Read the answer of a completion that was taken apart; the problems are those of the answer alone."""
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
        """The strict reading, which rewards and headline metrics use; its problems are those of the envelope too.

        ``prompt_end`` is what the chat template opens the assistant's turn with (``vrft.response.parse``).
        """
        envelope = parse(completion, self.order, prompt_end)
        reading = self.read_answer(envelope, image_size, processed_size)
        return Reading(reading.answer, envelope.problems + reading.problems, reading.stated)

    @abstractmethod
    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return a target in the form of an answer.

        Raises:
            ValueError: it is no target of this task; the message says what was expected.
        """

    def written(self, target: Target, image_size: Size | None = None, processed_size: Size | None = None) -> str:
        """The text of a right answer, as the policy is to write it."""
        return str(target)

    def matches(self, answer: Any, target: Target) -> bool:
        """Whether what was read is the target (as ``check_target`` returns it)."""
        return bool(answer == target)
