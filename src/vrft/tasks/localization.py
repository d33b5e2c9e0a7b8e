"""Localization: boxes around the findings.

A prompt, and a completion that earns full reward, for one true box and a policy that writes pixels::

    Where is the finding?
    Answer with a JSON list of boxes in pixels of the image, like [{"bbox_2d":[x1,y1,x2,y2]}].
    Think inside <think></think>, then give only the answer inside <answer></answer>.

    <think>A dense shadow in the lower lobe.</think><answer>[{"bbox_2d":[100,120,300,320]}]</answer>
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vrft.boxes import Size, clip, from_pixels, has_area
from vrft.response import INSTRUCTIONS, Reading, parse, read_boxes
from vrft.sample import Box, Target
from vrft.tasks.base import NO_CONTEXT, ReadContext, Task, prompt_lines

_MAX_COORDINATE = 1e7
"""Pixels; no image is larger."""


def _is_coordinate(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= _MAX_COORDINATE  # NaN is not


FRAMES_IN_WORDS = {
    "pixel": "in pixels of the image",
    "resized": "in pixels of the image",
    "thousand": "in thousandths of the image's width and height (0 to 1000)",
    "unit": "in shares of the image's width and height (0 to 1)",
}
"""How a prompt describes a frame. For models of the frame ``resized``, the resized image is the image."""


def frame_in_words(frame: str, *, several: bool = False) -> str:
    """How a prompt describes a frame; boxes are in the first of several images.

    >>> frame_in_words("pixel", several=True)
    'in pixels of the first image'
    """
    return FRAMES_IN_WORDS[frame].replace("the image", "the first image" if several else "the image")


def write_boxes(boxes: Sequence[Box], frame: str, image_size: Size, processed_size: Size | None = None) -> str:
    """Write boxes in pixels as a JSON list in a frame: whole numbers, or shares with four digits.

    A box that would have no area after rounding is written one unit wide.

    >>> write_boxes([(160, 120, 480, 360)], "thousand", (640, 480))
    '[{"bbox_2d":[250,250,750,750]}]'
    """
    converted = [from_pixels(box, frame, image_size, processed_size) for box in boxes]
    items = [",".join(map(str, _rounded(box, 4 if frame == "unit" else None))) for box in converted]
    return "[" + ",".join(f'{{"bbox_2d":[{item}]}}' for item in items) + "]"


def _rounded(box: Box, digits: int | None) -> list[float]:
    """The coordinates of a box, rounded; sides that would become equal are rounded outwards."""
    numbers = [round(number, digits) for number in box]
    unit = 10 ** (digits or 0)
    for low, high in ((0, 2), (1, 3)):
        if numbers[low] == numbers[high]:
            sides = math.floor(box[low] * unit) / unit, math.ceil(box[high] * unit) / unit
            numbers[low], numbers[high] = sides if digits else map(int, sides)
    return numbers


def pointing_question(
    question: str,
    region: Box,
    frame: str,
    image_size: Size,
    processed_size: Size | None = None,
    *,
    several: bool = False,
) -> str:
    """A question about one region of the image, or of the first of several, given as a box in the frame of the policy.

    >>> print(pointing_question("Which cell is this?", (160, 120, 480, 360), "pixel", (640, 480)))
    Which cell is this?
    It lies in [{"bbox_2d":[160,120,480,360]}], in pixels of the image.
    """
    written = write_boxes([region], frame, image_size, processed_size)
    return f"{question}\nIt lies in {written}, {frame_in_words(frame, several=several)}."


def localization_prompt(
    question: str,
    frame: str,
    known: str = "",
    order: str = "think-answer",
    *,
    absence: bool = False,
    several: bool = False,
) -> str:
    """The text of the prompt: the question, the form and frame of boxes, the knowledge, the envelope."""
    where = frame_in_words(frame, several=several)
    form = f'Answer with a JSON list of boxes {where}, like [{{"bbox_2d":[x1,y1,x2,y2]}}].'
    if absence:
        form += " Where there is none, the list is empty: []."
    return prompt_lines(question, form, known, INSTRUCTIONS[order])


@dataclass(frozen=True)
class Localization(Task):
    """Boxes of the findings, of which there may be none.

    Args:
        frame: the coordinates that the policy writes, one of ``vrft.boxes.FRAMES``; x first.
        absence: the prompt says how to answer where there is no finding.
    """

    frame: str
    absence: bool = False

    kind: ClassVar[str] = "localization"
    metrics: ClassVar[tuple[str, ...]] = (
        *("mean_iou", "f1_50", "precision50", "recall50", "format_rate", "read_rate"),
    )

    @property
    def columns(self) -> dict[str, Any]:
        """``frame``, for the rewards."""
        return {"frame": self.frame}

    def prompt(self, question: str, known: str = "", *, several: bool = False) -> str:
        """The text of the prompt for a question about an image, or several; ``known`` is the knowledge in it."""
        return localization_prompt(question, self.frame, known, self.order, absence=self.absence, several=several)

    def written(self, target: Target, image_size: Size | None = None, processed_size: Size | None = None) -> str:
        """A JSON list of boxes in the frame of the policy.

        Raises:
            ValueError: the size of the image is missing.
        """
        if image_size is None or not isinstance(target, tuple):
            raise ValueError("boxes need image_size, [width, height] of the original image")
        return write_boxes(target, self.frame, image_size, processed_size)

    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read boxes (``vrft.response.read_boxes``); raise ValueError where the size of the image is missing."""
        if context.image_size is None:
            raise ValueError("boxes need image_size, [width, height] of the original image")
        return read_boxes(answer, self.frame, context.image_size, context.processed_size, cut=context.cut)

    def read_leniently(
        self, completion: str, image_size: Size, processed_size: Size | None = None
    ) -> tuple[Box, ...] | None:
        """The lenient reading: the strict reading, or else boxes anywhere in the text."""
        envelope = parse(completion)
        reading = self.read_answer(envelope, image_size, processed_size)
        if reading.answer is None and envelope.answer is None:
            reading = read_boxes(completion, self.frame, image_size, processed_size, cut=True)
        return reading.answer if isinstance(reading.answer, tuple) else None

    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return the boxes as a tuple, clipped to the image where its size is given.

        Raises:
            ValueError: the target is no list of boxes, or a box has no area inside the image.
        """
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
