"""A sample: an image, or several, with a question and a target. Data only; prompts and metrics are in ``tasks``."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, overload

from PIL import Image

from vrft.errors import DataError
from vrft.images import (
    RULES,
    Axis,
    ImageFacts,
    Region,
    Window,
    inspect,
    inspect_bytes,
    read_image,
    read_image_bytes,
)

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image."""

ImageSource = Path | Callable[[], Image.Image]
"""A file, or a function without arguments that returns an image."""

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
    """An image, or several, a question about it, and the target.

    ``image`` is a path or a function without arguments that returns the image, so that samples hold no pixels; or a
    tuple of these (views, earlier images, slices), in the order in which they are shown. Boxes and ``region`` are those
    of the first image. ``target`` is a label (classification), a grade from 0 (grading) or boxes (localization).
    ``facts`` are further properties from the source (the attributes of a phantom), which are not trained on. ``region``
    is the box of a question about one place; the prompt holds it in the frame of the policy.
    """

    id: str
    image: ImageSource | tuple[ImageSource, ...]
    question: str
    target: Target
    split: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    region: Box | None = None
    knowledge: Knowledge | None = None
    patient: str | None = None
    """Whose image it is, where that is known; the samples of a patient are resampled together. Never written down."""
    subgroup: str | None = None
    """A part of the data for which results are also given, such as a hospital or a scanner."""

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """All images, in order."""
        return self.image if isinstance(self.image, tuple) else (self.image,)


class LazySamples(Sequence[Sample]):
    """Samples that are made when they are used, so that a million of them need no memory.

    Args:
        make: gives the sample at a position.
        positions: of the samples, in order.
        skips: leave samples that cannot be made out of an iteration; else it raises their error.
    """

    def __init__(self, make: Callable[[int], Sample], positions: Sequence[int], *, skips: bool = False) -> None:
        self.make, self.positions, self.skips = make, positions, skips

    def __iter__(self) -> Iterator[Sample]:
        for position in self.positions:
            try:
                yield self.make(position)
            except DataError:
                if not self.skips:
                    raise

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "LazySamples": ...
    def __getitem__(self, index: int | slice) -> "Sample | LazySamples":
        if isinstance(index, slice):
            return LazySamples(self.make, self.positions[index], skips=self.skips)
        return self.make(self.positions[index])


def map_samples(function: Callable[[Sample], Sample], samples: Sequence[Sample]) -> Sequence[Sample]:
    """Apply a function to each sample: at once, or, to lazy samples, when they are used."""
    if not isinstance(samples, LazySamples):
        return [function(sample) for sample in samples]
    make = samples.make
    return LazySamples(lambda position: function(make(position)), samples.positions, skips=samples.skips)


@dataclass(frozen=True)
class ImageFile:
    """An ``image`` of a sample that is read from a file with the given options on each call (``read_image``)."""

    path: Path
    """A file, or a folder that holds the files of one DICOM series."""
    region: Region | None = None
    """The part to cut out: x1, y1, x2, y2 in pixels, inside the image."""
    window: Window | None = None
    """Of files with more than 8 bits: the values that become black and white."""
    page: int | None = None
    """Of files with several pages (frames, slices), from 0."""
    axis: Axis = "axial"
    """Of a volume: the plane of its slices."""
    part: tuple[int, int] | None = None
    """Where the file lies in an archive at ``path``: the position of its first byte, and its length."""
    name: str = ""
    """Its name in messages, in place of the path."""

    def __call__(self) -> Image.Image:
        return read_image(
            self.path,
            region=self.region,
            window=self.window,
            page=self.page,
            axis=self.axis,
            part=self.part,
            name=self.name,
        )

    def inspect(self, *, any_page: bool = False) -> ImageFacts:
        """The facts in the header of the file; see ``vrft.images.inspect``."""
        return inspect(self.path, self.page, any_page=any_page, axis=self.axis, part=self.part, name=self.name)


class ByteSource(Protocol):
    """Where the bytes of an image lie that is no file of its own, such as a cell of a data set.

    It is a frozen dataclass of plain values, so that it can be hashed and sent to other processes.
    """

    @property
    def identity(self) -> list[Any]:
        """Plain data that change when the bytes do, without a name of this machine."""

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: they cannot be read.
        """

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class ImageBytes:
    """An ``image`` of a sample whose bytes lie elsewhere than in a file of this machine; read anew on each call."""

    source: ByteSource
    region: Region | None = None
    """As of ``ImageFile``, and so are the following."""
    window: Window | None = None
    page: int | None = None
    axis: Axis = "axial"
    name: str = ""
    """In messages."""

    @property
    def identity(self) -> list[Any]:
        """Plain data that decide the pixels, in place of the pixels themselves."""
        return [self.source.identity, self.region, self.window, self.page, self.axis]

    def __call__(self) -> Image.Image:
        options: dict[str, Any] = {"region": self.region, "window": self.window, "page": self.page, "axis": self.axis}
        return read_image_bytes(self.source.read(), self.name, **options)

    def inspect(self, *, any_page: bool = False) -> ImageFacts:
        """The facts in the header of the image file.

        Raises:
            DataError: the bytes cannot be read or are no image, or hold several pages and none is named.
        """
        return _inspected(self.source, self.name, self.page, self.axis, any_page)


@cache
def _inspected(source: ByteSource, name: str, page: int | None, axis: Axis, any_page: bool) -> ImageFacts:
    return inspect_bytes(source.read(), Path(name), page, axis, any_page=any_page)


@dataclass(frozen=True)
class Grey:
    """A grey ``image`` of the size of another, for the control without image content."""

    image: ImageSource

    def __call__(self) -> Image.Image:
        return Image.new("RGB", size_of(self.image), (128, 128, 128))


def patient_code(patient: str) -> str:
    """A code in place of a patient's name or id, 8 hexadecimal digits of its SHA-256, for messages and files."""
    return sha256(patient.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def in_grey(sample: Sample) -> Sample:
    """The sample with a grey image in place of each of its images."""
    return replace(sample, image=tuple(Grey(image) for image in sample.images))


def open_image(image: ImageSource) -> Image.Image:
    """Return an image of a sample in RGB, upright.

    Raises:
        DataError: the file is missing or is no readable image; the message names it.
    """
    return image().convert("RGB") if callable(image) else read_image(image)


def file_of(image: ImageSource) -> ImageFile | None:
    """The file of an image, with its reading options; None where the image comes from no file."""
    if isinstance(image, ImageFile):
        return image
    return None if callable(image) else ImageFile(image)


def stored(image: ImageSource) -> ImageFile | ImageBytes | None:
    """An image with its reading options, which ``dataclasses.replace`` changes; None where a function draws it."""
    return image if isinstance(image, ImageBytes) else file_of(image)


def size_of(image: ImageSource) -> tuple[int, int]:
    """Width and height of an image, from the header of its file, or from the image.

    Raises:
        DataError: the file is missing or is no image.
    """
    read = stored(image)
    if read is None:
        assert callable(image)
        return image().size
    if read.region is not None:
        x1, y1, x2, y2 = read.region
        return x2 - x1, y2 - y1
    return read.inspect().size


def identity_of(image: ImageSource) -> Any:
    """Plain data that an image without a file is known by: its attribute ``identity``; None where it has none."""
    return getattr(image, "identity", None)


def read_as(image: ImageSource) -> str:
    """The reading options of an image and the size of its file, as a text: other pixels, another text."""
    file = file_of(image)
    if file is None:
        return json.dumps([RULES, *([identity] if (identity := identity_of(image)) else [])])
    try:
        size = file.path.stat().st_size
    except (OSError, ValueError):
        size = None
    return json.dumps([RULES, file.region, file.window, file.page, file.axis, file.part, size])
