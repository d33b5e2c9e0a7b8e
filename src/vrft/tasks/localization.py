"""Localization: where is it?

A completion that earns everything, where the truth is one box and the policy speaks pixels::

    <think>A dense shadow in the lower lobe.</think><answer>[{"bbox_2d": [100, 120, 300, 320]}]</answer>
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vrft.boxes import Size, clip, has_area
from vrft.response import Reading, parse, read_boxes
from vrft.sample import Box, Target
from vrft.tasks.base import Task

_FARTHEST = 1e7
"""Pixels; no image is larger."""


def _is_coordinate(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= _FARTHEST  # NaN is not


@dataclass(frozen=True)
class Localization(Task):
    """Boxes of what is asked for; there may be none.

    Args:
        frame: the coordinates that the policy speaks, one of ``vrft.boxes.FRAMES``; x first.
    """

    frame: str

    kind: ClassVar[str] = "localization"

    @property
    def columns(self) -> dict[str, Any]:
        """What the rewards need to know of this task."""
        return {"frame": self.frame}

    def read_text(
        self,
        answer: str | None,
        image_size: Size | None = None,
        processed_size: Size | None = None,
        *,
        cut: bool = False,
    ) -> Reading:
        if image_size is None:
            raise ValueError("boxes need image_size, [width, height] of the original image")
        return read_boxes(answer, self.frame, image_size, processed_size, cut=cut)

    def read_leniently(
        self, completion: str, image_size: Size, processed_size: Size | None = None
    ) -> tuple[Box, ...] | None:
        """What a patient reader would take the answer to be: the strict reading, else boxes anywhere in the text."""
        envelope = parse(completion)
        reading = self.read_answer(envelope, image_size, processed_size)
        if reading.answer is None and envelope.answer is None:
            reading = read_boxes(completion, self.frame, image_size, processed_size, cut=True)
        return reading.answer if isinstance(reading.answer, tuple) else None

    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        expected = "expected a list of boxes [x1, y1, x2, y2] in pixels of the original image"
        if not isinstance(target, Sequence) or isinstance(target, str):
            raise ValueError(f"the target {target!r} is no list; {expected}")
        boxes: list[Box] = []
        for box in target:
            if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_coordinate, box)):
                raise ValueError(f"the target holds {box!r}; {expected}")
            x1, y1, x2, y2 = map(float, box)
            boxes.append(clip((x1, y1, x2, y2), image_size) if image_size else (x1, y1, x2, y2))
            if not has_area(boxes[-1]):
                raise ValueError(f"the box {list(box)} of the target has no area inside the image")
        return tuple(boxes)
