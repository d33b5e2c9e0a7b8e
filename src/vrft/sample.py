"""A sample: one image with a question and a target. Data only; what is asked and measured lives in ``tasks``."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vrft.images import RULES, Region, Window, inspect, read_image

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image."""

Target = str | int | tuple[Box, ...]
"""A label, a grade from 0, or boxes."""


@dataclass(frozen=True)
class Knowledge:
    """What is known about the classes, as it concerns one sample."""

    prompt: str
    """The lines that stand in the prompt; empty where the policy is told nothing."""
    card: str
    """What is known of all classes."""
    own: str
    """What is known of the class of the sample."""
    others: tuple[str, ...] = ()
    """What is known of each other class."""


@dataclass(frozen=True)
class Sample:
    """One image, the question asked about it, and the truth.

    ``image`` is a path or a function without arguments that returns the picture, so that a list of samples holds no
    pixels. ``target`` is a label (classification), a grade from 0 (grading) or boxes (localization). ``facts`` are
    further truths that a source knows (the attributes of a phantom); nothing is trained on them. ``region`` is the box
    that the question is about, where it is about one place; the policy is told it in the frame that it speaks.
    """

    id: str
    image: Path | Callable[[], Image.Image]
    question: str
    target: Target
    split: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    region: Box | None = None
    knowledge: Knowledge | None = None


@dataclass(frozen=True)
class ImageFile:
    """An image file that is read in a stated way when it is asked for: an ``image`` of a sample (``read_image``)."""

    path: Path
    region: Region | None = None
    """What is cut out: x1, y1, x2, y2 in pixels, inside the image."""
    window: Window | None = None
    """Of files with more than 8 bits: the values that become black and white."""
    page: int | None = None
    """Of files with several, from 0."""

    def __call__(self) -> Image.Image:
        return read_image(self.path, region=self.region, window=self.window, page=self.page)


@dataclass(frozen=True)
class Grey:
    """A grey picture as large as that of a sample: an ``image`` in which there is nothing to see."""

    sample: Sample

    def __call__(self) -> Image.Image:
        return Image.new("RGB", size_of(self.sample), (128, 128, 128))


def open_image(sample: Sample) -> Image.Image:
    """Return the picture of a sample in RGB, upright.

    Raises:
        DataError: the file is missing or is no readable image; the message names it.
    """
    return sample.image().convert("RGB") if callable(sample.image) else read_image(sample.image)


def file_of(sample: Sample) -> ImageFile | None:
    """The file that the picture of a sample is read from, and how; None where it comes from none."""
    if isinstance(sample.image, ImageFile):
        return sample.image
    return None if callable(sample.image) else ImageFile(sample.image)


def size_of(sample: Sample) -> tuple[int, int]:
    """Width and height of the picture of a sample, from the head of its file, or from the picture.

    Raises:
        DataError: the file is missing or is no image.
    """
    file = file_of(sample)
    if file is None:
        assert callable(sample.image)
        return sample.image().size
    if file.region is not None:
        x1, y1, x2, y2 = file.region
        return x2 - x1, y2 - y1
    return inspect(file.path, file.page).size


def read_as(sample: Sample) -> str:
    """How the picture of a sample is read, as a text that differs where the pixels may."""
    file = file_of(sample)
    if file is None:
        return json.dumps([RULES])
    try:
        size = file.path.stat().st_size
    except (OSError, ValueError):
        size = None
    return json.dumps([RULES, file.region, file.window, file.page, size])
