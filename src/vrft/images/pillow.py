"""Image files that Pillow reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vrft.errors import DataError
from vrft.images.facts import ImageFacts, check_page, open_file, unreadable
from vrft.images.greys import NOT_FINITE, Window, grey_range, is_blank, scale
from vrft.images.quiet import without_warnings

if TYPE_CHECKING:
    from vrft.boxes import Size
    from vrft.sample import Box

Reopen = Callable[[], AbstractContextManager[Image.Image]]
"""Opens a file anew (``opened``)."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image of an EXIF orientation upright; 1 is upright."""

SWAPPING = (5, 6, 7, 8)
"""The orientations that swap width and height."""

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes of grey beyond 8 bits."""

FIRST_IS_WHOLE = ("MPO", "ICO", "ICNS", "PSD")
"""Formats whose first page is the whole image; further pages are previews, sizes or layers of it."""


@contextmanager
def opened(
    path: Path, page: int | None = None, data: bytes | None = None, shown: Path | None = None
) -> Iterator[Image.Image]:
    """Open a file with Pillow at its page; an error inside the block becomes a message with its name.

    Args:
        path: of the file.
        page: of a file with several pages, from 0.
        data: the bytes of the file, where they are in memory.
        shown: its name in messages; without it the path.

    Raises:
        DataError: the file cannot be used.
    """
    shown = shown or path
    try:
        # Not opened by its name: Pillow would map the file into memory, and shear a TIFF with an orientation.
        with open_file(path, data) as file, _opened(file) as image:
            pages = _pages(image)
            check_page(shown, pages, page)
            if page:
                with large_images():
                    image.seek(page)
            yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise all kinds of errors on damaged files
        raise unreadable(shown, error) from None


def _opened(file: IO[bytes]) -> Image.Image:
    with large_images():
        return Image.open(file)


@contextmanager
def large_images() -> Iterator[None]:
    """Silence Pillow's warning about an image of more than half of its limit."""
    with without_warnings(Image.DecompressionBombWarning):
        yield


def _pages(image: Image.Image) -> int:
    return 1 if image.format in FIRST_IS_WHOLE else int(getattr(image, "n_frames", 1))


def facts_of(image: Image.Image) -> ImageFacts:
    """The facts about a file that was opened and not loaded."""
    orientation, size = orientation_of(image), image.size
    swapped = (size[1], size[0]) if orientation in SWAPPING else size
    upright, stored = (size, swapped) if image.format == "TIFF" else (swapped, size)  # Pillow turns TIFFs itself
    has = {
        "beyond 8 bits": image.mode in DEEP or _deep_colour(image) is not None,
        "palette": image.mode in ("P", "PA"),
        "transparency": image.has_transparency_data,
        "1 bit": image.mode == "1",
        "CMYK": image.mode == "CMYK",
        "inverted": _white_is_zero(image),
        "turned by EXIF": orientation != 1,
        "one of several pages": _pages(image) > 1,
    }
    return ImageFacts(upright, stored, orientation, _pages(image), tuple(kind for kind, holds in has.items() if holds))


# --- orientation ------------------------------------------------------------------------------------------------------


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a file that was opened and not loaded, 1 to 8; 1 where there is none."""
    try:
        # The method of a PNG file would read all pixels to find a block that may follow them.
        stated = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return stated if stated in TURNS else 1
    except MemoryError:
        raise
    except Exception:  # damaged metadata are no reason to refuse an image
        return 1


def load_upright(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """Load an opened file, convert it where a function is given, and turn it upright."""
    turn = None if image.format == "TIFF" else TURNS.get(orientation_of(image))  # Pillow turns TIFFs while it loads
    image.load()
    converted = convert(image) if convert else image
    if turn is None:
        return converted
    upright = converted.transpose(turn)
    upright.info = converted.info
    return upright


def upright_box(box: Box, stored_size: Size, orientation: int) -> Box:
    """Convert a box of the stored image to the upright image.

    Args:
        box: x1, y1, x2, y2 in pixels of the image as it is stored.
        stored_size: width and height of the image as it is stored.
        orientation: 1 to 8, as EXIF counts.

    >>> upright_box((10, 20, 30, 25), (64, 48), 6)
    (23, 10, 28, 30)
    """
    (x1, y1, x2, y2), (width, height) = box, stored_size
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if orientation in SWAPPING else (x1, y1, x2, y2)


# --- pixels -----------------------------------------------------------------------------------------------------------


def read_pillow(
    path: Path, *, window: Window | None, page: int | None, data: bytes | None = None, shown: Path | None = None
) -> Image.Image:
    """Read a file as ``read_image`` does; the arguments are those of ``opened``.

    Raises:
        DataError: the file cannot be used.
    """
    shown = shown or path
    with opened(path, page, data, shown) as image:
        stored = _deep_colour(image)
        reopen = partial(opened, path, page, data, shown)
        return load_upright(image, lambda loaded: _rgb(shown, loaded, stored, window, reopen))


def _rgb(path: Path, image: Image.Image, stored: str | None, window: Window | None, reopen: Reopen) -> Image.Image:
    """A loaded file in RGB with 8 bits a channel; ``stored`` is how its colours were stored (``_deep_colour``)."""
    if image.mode not in DEEP and stored is None:
        return _eight_bits(image)
    alpha = None
    if stored is None:
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="))
    else:
        values, alpha = _sixteen_bits(path, stored, reopen)
    grey = scale(values, window or grey_range(values))
    if stored is None and _white_is_zero(image):
        grey = 255 - grey
    rgb = Image.fromarray(grey).convert("RGB")
    if alpha is not None and is_blank(rgb):
        rgb = _over_background(rgb, alpha)
    if values.dtype.kind == "f" and (lost := int((~np.isfinite(values)).sum())):
        rgb.info[NOT_FINITE] = lost
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBa", "La"):  # multiplied by alpha
        image = image.convert(image.mode.upper())
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    if image.has_transparency_data and is_blank(rgb):
        return _over_background(rgb, image.convert("RGBA").getchannel("A"))
    return rgb


def _over_background(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """An image of one colour, drawn by its transparency over black or white, whichever differs more."""
    light = int(np.asarray(image)[0, 0].sum()) >= 3 * 128
    return Image.composite(image, Image.new("RGB", image.size, "black" if light else "white"), alpha)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF beyond 8 bits states that 0 is white; Pillow itself inverts the others."""
    return image.format == "TIFF" and image.mode in DEEP and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]


def _deep_colour(image: Image.Image) -> str | None:
    """How a file, opened and not loaded, stores several channels of 16 bits (``RGB;16B``); None of others."""
    if image.mode in DEEP:
        return None
    stored = [one[3][0] if isinstance(one[3], tuple) else one[3] for one in getattr(image, "tile", ())]
    return next((raw for raw in stored if isinstance(raw, str) and ";16" in raw), None)


def _sixteen_bits(path: Path, stored: str, reopen: Reopen) -> tuple[NDArray[np.uint16], Image.Image | None]:
    """All 16 bits of each channel, (height, width) or (height, width, 3), and the transparency in 8 bits.

    Pillow gives one byte of two, and the other byte when it reads in the other byte order.
    """
    if stored == "LA;16B":  # four bytes a pixel, as RGBA has them: grey and transparency, each high byte first
        both = np.asarray(_decoded_as(reopen, "RGBA")).astype(np.uint16)
        return both[..., 0] * 256 + both[..., 1], Image.fromarray(both[..., 2].astype(np.uint8))
    kind, order = stored.split(";16", 1)
    if kind not in ("RGB", "RGBX", "RGBA") or order not in ("B", "L", "N"):
        raise DataError(f"{path}: holds 16 bits a channel as {stored}, which cannot be read; save it with 8 bits.")
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    high = np.asarray(_decoded_as(reopen, stored))
    low = np.asarray(_decoded_as(reopen, f"{kind};16{'L' if big else 'B'}"))
    values = high[..., :3].astype(np.uint16) * 256 + low[..., :3]
    return values, Image.fromarray(np.ascontiguousarray(high[..., 3])) if high.shape[-1] == 4 else None


def _decoded_as(reopen: Reopen, stored: str) -> Image.Image:
    """A file decoded as if its pixels were stored so."""
    with reopen() as image:
        whole: Any = image  # of a format that has tiles, see ``_deep_colour``
        whole.tile = [
            one._replace(args=(stored, *one.args[1:]) if isinstance(one.args, tuple) else stored) for one in whole.tile
        ]
        image.load()
        return image.copy()
