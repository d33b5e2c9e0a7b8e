"""What all tasks have in common: a completion is taken apart, its answer is read, and compared with the target."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from vrft.boxes import Size
from vrft.response import Envelope, Reading, parse
from vrft.sample import Target


class Task(ABC):
    """What is asked, how an answer is read, and which target it is compared with."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """What the rewards need to know of this task."""

    @abstractmethod
    def read_text(
        self,
        answer: str | None,
        image_size: Size | None = None,
        processed_size: Size | None = None,
        *,
        cut: bool = False,
    ) -> Reading:
        """Read the text of an answer.

        Args:
            answer: what stands inside the answer tags; None where nothing does.
            image_size: width and height of the original image; only boxes need it.
            processed_size: width and height of what the processor made of it; only boxes need it.
            cut: whether the text ends where the completion does.
        """

    def read_answer(
        self, envelope: Envelope, image_size: Size | None = None, processed_size: Size | None = None
    ) -> Reading:
        """Read the answer of a completion that was taken apart; the problems are those of the answer alone."""
        if envelope.answer is None and 1 < len(envelope.answers) <= 10 and all(envelope.answers):
            readings = [self.read_text(answer, image_size, processed_size) for answer in envelope.answers]
            if all(reading.answer == readings[0].answer for reading in readings):
                return readings[0]  # the same answer in other words
        return self.read_text(envelope.answer, image_size, processed_size, cut=envelope.cut)

    def read(self, completion: str, image_size: Size | None = None, processed_size: Size | None = None) -> Reading:
        """The strict reading, which rewards and headline metrics use; its problems are those of the envelope too."""
        envelope = parse(completion)
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
