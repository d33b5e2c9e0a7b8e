"""A sample: one image with a question and a target. Data only; what is asked and measured lives in ``tasks``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from vrft.errors import DataError

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
class FileRegion:
    """What a region of an image file shows: an ``image`` of a sample that is cut out when it is asked for."""

    path: Path
    region: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels, inside the image."""

    def __call__(self) -> Image.Image:
        return read_image(self.path).crop(self.region)


@dataclass(frozen=True)
class Grey:
    """A grey picture as large as that of a sample: an ``image`` in which there is nothing to see."""

    sample: Sample

    def __call__(self) -> Image.Image:
        return Image.new("RGB", open_image(self.sample).size, (128, 128, 128))


def open_image(sample: Sample) -> Image.Image:
    """Return the picture of a sample in RGB.

    Raises:
        DataError: the file is missing or is no readable image; the message names it.
    """
    return sample.image().convert("RGB") if callable(sample.image) else read_image(sample.image)


def read_image(path: Path) -> Image.Image:
    """Read an image file in RGB.

    Raises:
        DataError: the file is missing or is no readable image; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove it.") from None
