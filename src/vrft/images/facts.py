"""The facts about an image file, and the checks that all formats share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from PIL import Image, UnidentifiedImageError

from vrft.errors import DataError, first_line

if TYPE_CHECKING:
    from vrft.boxes import Size

Axis = Literal["axial", "coronal", "sagittal"]
"""The plane of the slices of a volume."""

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the upright image."""

RULES = 1
"""A version number, raised when the same file gives other pixels than before; caches of images are then rebuilt."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The facts in the header of an image file."""

    size: Size
    """Width and height of the upright image."""
    stored: Size
    """Width and height as they are stored, before the EXIF orientation is applied."""
    orientation: int
    """1 to 8, as EXIF counts; 1 is upright."""
    pages: int
    kinds: tuple[str, ...]
    """How it differs from a plain 8-bit image: ``beyond 8 bits``, ``palette``, ``transparency``, ``1 bit``, ``CMYK``,
    ``inverted``, ``turned by EXIF``, ``one of several pages``."""


def open_file(path: Path, data: bytes | None) -> IO[bytes]:
    """A file, or its bytes where they are in memory, to read from."""
    return path.open("rb") if data is None else io.BytesIO(data)


def check_pixels(path: Path, size: Size) -> None:
    """Check a size against the limit of Pillow, before memory is taken.

    Raises:
        DataError: the image has more pixels, or none.
    """
    width, height = size
    if min(size) < 1:
        raise DataError(f"{path}: states a size of {width} x {height} pixels; replace or remove it.")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise DataError(f"{path}: has {width} x {height} pixels, which are too many for one image; make it smaller.")


def read_part(path: Path, part: tuple[int, int], name: str = "") -> bytes:
    """The bytes of a file in an archive.

    Raises:
        DataError: the archive is missing or ends before.
    """
    start, length = part
    try:
        with path.open("rb") as archive:
            archive.seek(start)
            data = archive.read(length)
    except OSError as error:
        raise unreadable(Path(name) if name else path, error) from None
    if len(data) < length:
        raise DataError(f"{path}: the archive ends inside {name or 'a file'}; copy it again.")
    return data


def unreadable(path: Path, error: Exception) -> DataError:
    """The message for a file that Pillow or the system cannot read."""
    why = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        why = "no format that Pillow knows"
    remedy = "make it smaller" if isinstance(error, Image.DecompressionBombError) else "replace or remove it"
    return DataError(f"{path}: cannot be read as an image ({why}); {remedy}.")


def check_page(path: Path, pages: int, page: int | None) -> None:
    """Check that a page is named where there are several, and that it is there.

    Raises:
        DataError: the page is missing.
    """
    if page is None and pages > 1:
        raise DataError(
            f"{path}: holds {pages} pages, and a sample is one image; name a page from 0 to {pages - 1} "
            f"(data.page of a recipe, --page of vrft predict), show several (data.slices of rows), or save each as a "
            f"file of its own."
        )
    if page is not None and page >= pages:
        raise DataError(f"{path}: has no page {page}; it holds {pages}, and the first is page 0.")


def check_axis(path: Path, axis: Axis) -> None:
    """Check that no other plane than the stored one is asked of a file that is no volume.

    Raises:
        DataError: the axis is not the default.
    """
    if axis != "axial":
        raise DataError(
            f"{path}: has slices in its own plane alone, and the axis is {axis}; leave the axis out, or convert a "
            f"DICOM series to NIfTI (dcm2niix)."
        )
