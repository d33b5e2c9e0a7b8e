"""From an image file to the picture that a policy sees: RGB, 8 bits a channel, upright.

What is done with each kind of file:

- 8-bit grey and colour stay as they are. ICC profiles are ignored.
- More than 8 bits and floats are scaled to 0 .. 255 by a declared window, else by ``grey_range``: one range for all
  channels of a picture. A TIFF in which 0 is white is inverted, of whatever depth.
- 1 bit is 0 and 255. A palette gives its colours.
- Transparency is dropped, since exports hold true pixels below it. Where these are one colour, the transparency is what
  is drawn, and it is laid over the opposite ground: white behind dark colours, black behind light ones.
- CMYK, YCbCr, LAB and HSV are converted by Pillow, which sees to the inverted CMYK of Adobe's JPEGs.
- The EXIF orientation is applied, and every size is the upright one. Of a PNG it is the one before the pixels.
- A file with several pages is refused unless its page is named. In a JPEG with several pictures (MPO) the first is the
  photograph, and is read.
- A file that is damaged or cut off is refused: half a picture is never shown.
- A picture of more than 179 million pixels is refused; one of half as many is read without the warning that Pillow has
  for it, since a whole slide or a mammogram may be that large.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from vrft.errors import DataError, first_line

if TYPE_CHECKING:
    from vrft.boxes import Size
    from vrft.sample import Box

Window = tuple[float, float]
"""The values that become black and white; those below and above them do too."""

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the upright picture."""

RULES = 1
"""Raised when the same file gives other pixels than before: what was kept of pictures is then made anew."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of an EXIF orientation upright; 1 is upright."""

SWAPPING = (5, 6, 7, 8)
"""The orientations of pictures that are stored on their side."""

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes of grey beyond 8 bits."""

FIRST_IS_WHOLE = ("MPO", "ICO", "ICNS", "PSD")
"""Formats whose first picture is the whole one, and what follows previews, sizes or layers of it."""

BLANK, NOT_FINITE = "blank_image", "pixels_not_finite"
"""A picture of one value only; pixels that were NaN or infinite (NaN is black)."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the head of an image file says."""

    size: Size
    """Width and height of the upright picture."""
    stored: Size
    """Width and height as they are stored, before the EXIF orientation is applied."""
    orientation: int
    """1 to 8, as EXIF counts; 1 is upright."""
    pages: int
    kinds: tuple[str, ...]
    """What is no plain 8-bit picture about it: ``beyond 8 bits``, ``palette``, ``transparency``, ``1 bit``, ``CMYK``,
    ``inverted``, ``turned by EXIF``, ``one of several pages``."""


def read_image(
    path: Path, *, region: Region | None = None, window: Window | None = None, page: int | None = None
) -> Image.Image:
    """Read an image file as the picture that a policy sees.

    Args:
        path: of the file.
        region: what is cut out of the upright picture; the grey values are those of the whole picture.
        window: of a file with more than 8 bits, the values that become 0 and 255; without it ``grey_range`` decides.
            Pictures of 8 bits are as they are.
        page: of a file with several, from 0.

    Returns:
        The picture, RGB with 8 bits a channel and upright.

    Raises:
        DataError: the file is missing, damaged, cut off or no image, has more pixels than Pillow takes, or several
            pages and none is named; the message names the file.
    """
    with opened(path, page) as image:
        stored = _deep_colour(image)
        picture = load_upright(image, lambda loaded: _rgb(path, loaded, stored, window, page))
    if region is not None:
        with _large_pictures():
            info, picture = picture.info, picture.crop(region)
        picture.info = info
    return picture


def inspect(path: Path, page: int | None = None, *, any_page: bool = False) -> ImageFacts:
    """What the head of a file says, without reading pixels.

    Args:
        path: of the file.
        page: of a file with several, from 0.
        any_page: of a file with several pages the first is looked at where none is named.

    Raises:
        DataError: the file is missing or no image, or has several pages and none is named.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:  # of a name that holds a zero byte
        told = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{path}: cannot be read as an image ({told}); replace or remove it.") from None
    facts = _inspected(path, stat.st_mtime_ns, stat.st_size, page or 0)
    if page is None and not any_page:
        _check_page(path, facts.pages, None)
    return facts


# Without a bound: all files of a source are asked for in turn, again and again, and one more than a bound would have
# every head read anew. An entry is small beside the sample that a source holds of each file.
@cache
def _inspected(path: Path, _changed: int, _bytes: int, page: int) -> ImageFacts:
    with opened(path, page) as image:
        return _only_one(_facts(image))


@cache
def _only_one(facts: ImageFacts) -> ImageFacts:
    """One object for all equal facts: the files of a source have few sizes."""
    return facts


def inspect_bytes(data: bytes, path: Path, page: int | None = None) -> ImageFacts:
    """What the head of a file says whose bytes are at hand; the path is for messages.

    Raises:
        DataError: as ``inspect``.
    """
    with opened(path, page, data) as image:
        return _facts(image)


@contextmanager
def opened(path: Path, page: int | None = None, data: bytes | None = None) -> Iterator[Image.Image]:
    """A file opened by Pillow at its page; every fault of it inside the block is told with its name.

    Args:
        path: of the file.
        page: of a file with several, from 0.
        data: the bytes of the file, where they are at hand.

    Raises:
        DataError: the file cannot be used.
    """
    try:
        # Pillow maps files that it opens by name into memory, and then shears TIFFs that are to be turned.
        with path.open("rb") if data is None else io.BytesIO(data) as file, _opened(file) as image:
            pages = _pages(image)
            _check_page(path, pages, page)
            if page:
                with _large_pictures():
                    image.seek(page)
            yield image
    except (DataError, MemoryError):  # the end of the memory is no fault of the file
        raise
    except UnidentifiedImageError:
        told = "no format that Pillow knows"
        raise DataError(f"{path}: cannot be read as an image ({told}); replace or remove it.") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: cannot be read as an image ({first_line(error)}); make it smaller.") from None
    except Exception as error:  # Pillow's readers raise all kinds of errors on damaged files
        told = (error.strerror if isinstance(error, OSError) else None) or first_line(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({told}); replace or remove it.") from None


def _opened(file: IO[bytes]) -> Image.Image:
    with _large_pictures():
        return Image.open(file)


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Keep Pillow's warning of a picture that is half as large as the limit off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _pages(image: Image.Image) -> int:
    return 1 if image.format in FIRST_IS_WHOLE else int(getattr(image, "n_frames", 1))


def _check_page(path: Path, pages: int, page: int | None) -> None:
    if page is None and pages > 1:
        raise DataError(
            f"{path}: holds {pages} pages, and a sample is one picture; name one from 0 to {pages - 1} "
            f"(data.page of a recipe, --page of vrft predict), or save each as a file of its own."
        )
    if page is not None and page >= pages:
        raise DataError(f"{path}: has no page {page}; it holds {pages}, and the first is page 0.")


def _facts(image: Image.Image) -> ImageFacts:
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
    """The EXIF orientation of a file that was opened and not loaded, 1 to 8; 1 where there is none to be read."""
    try:
        # The method of a PNG file would read all pixels in search of a block that may follow them.
        stated = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return stated if stated in TURNS else 1
    except MemoryError:
        raise
    except Exception:  # damaged metadata are no reason to refuse a picture
        return 1


def load_upright(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """Load an opened file, convert it where a function is given, and turn it upright."""
    turn = None if image.format == "TIFF" else TURNS.get(orientation_of(image))  # Pillow turns TIFFs while it loads
    image.load()
    picture = convert(image) if convert else image
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info = picture.info
    return turned


def upright_box(box: Box, stored_size: Size, orientation: int) -> Box:
    """Where a box of the stored picture lies in the upright one.

    Args:
        box: x1, y1, x2, y2 in pixels of the picture as it is stored.
        stored_size: width and height of the picture as it is stored.
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


def is_blank(image: Image.Image) -> bool:
    """Whether a picture holds one value only, in each channel."""
    extrema: Any = image.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in channels)


def oddities(image: Image.Image) -> list[str]:
    """What is odd about the pixels of a picture that ``read_image`` gave: ``BLANK``, ``NOT_FINITE``, or nothing."""
    return [BLANK] * is_blank(image) + [NOT_FINITE] * bool(image.info.get(NOT_FINITE))


def grey_range(values: NDArray[Any]) -> Window:
    """Which values of a picture beyond 8 bits become black and white, where no window is declared.

    Whole numbers in 0 .. 255 of which some reach 128 are 8-bit values, and stay as they are. Else the range is that of
    the middle 99% of the finite values, and goes on below and above it by as much again where the values do: so a small
    lesion is brighter than all around it, and a dead pixel leaves the rest at least a third of the contrast. Where 99%
    are one value the range is that of all.

    >>> grey_range(np.array([900] * 999 + [3000]))
    (900.0, 3000.0)
    >>> grey_range(np.append(np.arange(1000), 65535))
    (0.0, 1985.0)
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0.0, 0.0
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and 128 <= most <= 255 and (values.dtype.kind != "f" or bool((finite == np.rint(finite)).all())):
        return 0.0, 255.0
    low = float(np.percentile(finite, 0.5, method="lower"))
    high = float(np.percentile(finite, 99.5, method="higher"))
    if low == high:
        return least, most
    return max(least, low - (high - low)), min(most, high + (high - low))


def scale(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Values as 0 .. 255: at and below the lower end of the window 0, at and above the upper one 255, NaN 0.

    >>> scale(np.array([-5, 0, 50, 100, 900]), (0, 100)).tolist()
    [0, 0, 128, 255, 255]
    """
    low, high = window
    if values.dtype == np.uint16:
        return scale(np.arange(2**16, dtype=np.int32), window)[values]
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    grey = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.rint(np.nan_to_num(grey, nan=0.0)).astype(np.uint8)


def _rgb(path: Path, image: Image.Image, stored: str | None, window: Window | None, page: int | None) -> Image.Image:
    """A loaded file, whose colours were stored so (``_deep_colour``), in RGB with 8 bits a channel."""
    if image.mode not in DEEP and stored is None:
        return _eight_bits(image)
    alpha = None
    if stored is None:
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="))
    else:
        values, alpha = _sixteen_bits(path, stored, page)
    grey = scale(values, window or grey_range(values))
    if stored is None and _white_is_zero(image):
        grey = 255 - grey
    picture = Image.fromarray(grey).convert("RGB")
    if alpha is not None and is_blank(picture):
        picture = _over_ground(picture, alpha)
    if values.dtype.kind == "f" and (lost := int((~np.isfinite(values)).sum())):
        picture.info[NOT_FINITE] = lost
    return picture


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBa", "La"):  # multiplied by alpha
        image = image.convert(image.mode.upper())
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    picture = image.convert("RGB")
    if image.has_transparency_data and is_blank(picture):
        return _over_ground(picture, image.convert("RGBA").getchannel("A"))
    return picture


def _over_ground(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """A picture of one colour, as its transparency draws it over the opposite ground."""
    light = int(np.asarray(picture)[0, 0].sum()) >= 3 * 128
    return Image.composite(picture, Image.new("RGB", picture.size, "black" if light else "white"), alpha)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF beyond 8 bits states that 0 is white; Pillow itself inverts the others."""
    return image.format == "TIFF" and image.mode in DEEP and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]


def _deep_colour(image: Image.Image) -> str | None:
    """How a file stores several channels of 16 bits, such as ``RGB;16B``, of which Pillow reads 8; None of others.

    The file must be opened and not loaded.
    """
    if image.mode in DEEP:
        return None
    stored = [one[3][0] if isinstance(one[3], tuple) else one[3] for one in getattr(image, "tile", ())]
    return next((raw for raw in stored if isinstance(raw, str) and ";16" in raw), None)


def _sixteen_bits(path: Path, stored: str, page: int | None) -> tuple[NDArray[np.uint16], Image.Image | None]:
    """All 16 bits of each channel, (height, width) or (height, width, 3), and the transparency in 8 bits.

    Pillow gives one byte of two. The other one is what it gives in the other order of bytes.
    """
    if stored == "LA;16B":  # four bytes a pixel, as RGBA has them: grey and transparency, each high byte first
        both = np.asarray(_decoded_as(path, "RGBA", page)).astype(np.uint16)
        return both[..., 0] * 256 + both[..., 1], Image.fromarray(both[..., 2].astype(np.uint8))
    kind, order = stored.split(";16", 1)
    if kind not in ("RGB", "RGBX", "RGBA") or order not in ("B", "L", "N"):
        raise DataError(f"{path}: holds 16 bits a channel as {stored}, which cannot be read; save it with 8 bits.")
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    high = np.asarray(_decoded_as(path, stored, page))
    low = np.asarray(_decoded_as(path, f"{kind};16{'L' if big else 'B'}", page))
    values = high[..., :3].astype(np.uint16) * 256 + low[..., :3]
    return values, Image.fromarray(np.ascontiguousarray(high[..., 3])) if high.shape[-1] == 4 else None


def _decoded_as(path: Path, stored: str, page: int | None) -> Image.Image:
    """A file decoded as if its pixels were stored so."""
    with opened(path, page) as image:
        whole: Any = image  # of a format that has tiles, see ``_deep_colour``
        whole.tile = [
            one._replace(args=(stored, *one.args[1:]) if isinstance(one.args, tuple) else stored) for one in whole.tile
        ]
        image.load()
        return image.copy()
