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
    def read_answer(
        self, envelope: Envelope, image_size: Size | None = None, processed_size: Size | None = None
    ) -> Reading:
        """Read what stands inside the answer tags; the problems are those of the answer alone.

        Args:
            envelope: the completion, taken apart.
            image_size: width and height of the original image; only boxes need it.
            processed_size: width and height of what the processor made of it; only boxes need it.
        """

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

    def matches(self, answer: Any, target: Target) -> bool:
        """Whether what was read is the target (as ``check_target`` returns it)."""
        return bool(answer == target)
