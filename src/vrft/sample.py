"""A sample: an image with a question and a target. Data only; prompts, readings and metrics are in ``tasks``."""

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
    """The knowledge about the classes for one sample."""

    prompt: str
    """The lines in the prompt; may be empty."""
    card: str
    """The descriptions of all classes."""
    own: str
    """The description of the class of the sample."""
    others: tuple[str, ...] = ()
    """The description of each other class."""


@dataclass(frozen=True)
class Sample:
    """An image, a question about it, and the target.

    ``image`` is a path or a function without arguments that returns the image, so that a list of samples holds no
    pixels. ``target`` is a label (classification), a grade from 0 (grading) or boxes (localization). ``facts`` are
    further properties from the source (the attributes of a phantom), which are not trained on. ``region`` is the box of
    a question about one place; the prompt holds it in the frame of the policy.
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
    """An ``image`` of a sample that is read from a file with the given options on each call (``read_image``)."""

    path: Path
    region: Region | None = None
    """The part to cut out: x1, y1, x2, y2 in pixels, inside the image."""
    window: Window | None = None
    """Of files with more than 8 bits: the values that become black and white."""
    page: int | None = None
    """Of files with several pages, from 0."""

    def __call__(self) -> Image.Image:
        return read_image(self.path, region=self.region, window=self.window, page=self.page)


@dataclass(frozen=True)
class Grey:
    """A grey ``image`` of the size of a sample's own image, for the control without image content."""

    sample: Sample

    def __call__(self) -> Image.Image:
        return Image.new("RGB", size_of(self.sample), (128, 128, 128))


def open_image(sample: Sample) -> Image.Image:
    """Return the image of a sample in RGB, upright.

    Raises:
        DataError: the file is missing or is no readable image; the message names it.
    """
    return sample.image().convert("RGB") if callable(sample.image) else read_image(sample.image)


def file_of(sample: Sample) -> ImageFile | None:
    """The file of the image of a sample, with its reading options; None where the image comes from no file."""
    if isinstance(sample.image, ImageFile):
        return sample.image
    return None if callable(sample.image) else ImageFile(sample.image)


def size_of(sample: Sample) -> tuple[int, int]:
    """Width and height of the image of a sample, from the header of its file, or from the image.

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
    """The reading options of the image of a sample and the size of its file, as a text: other pixels, another text."""
    file = file_of(sample)
    if file is None:
        return json.dumps([RULES])
    try:
        size = file.path.stat().st_size
    except (OSError, ValueError):
        size = None
    return json.dumps([RULES, file.region, file.window, file.page, size])
