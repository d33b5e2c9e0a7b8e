"""From an image file to the image that a policy sees: RGB, 8 bits a channel, upright.

How each kind of file is converted:

- 8-bit grey and colour stay as they are. ICC profiles are ignored.
- More than 8 bits and floats are scaled to 0 .. 255 by a declared window, else by ``grey_range``: one range for all
  channels of an image. A TIFF in which 0 is white is inverted, of whatever depth.
- 1 bit is 0 and 255. A palette gives its colours.
- Transparency is dropped, since exports hold true pixels below it. Where these have one colour, the drawing is in the
  transparency, which is laid over a background: white behind dark colours, black behind light colours.
- CMYK, YCbCr, LAB and HSV are converted by Pillow, also the inverted CMYK of Adobe's JPEGs.
- The EXIF orientation is applied, and every size is that of the upright image. In a PNG only an orientation before the
  pixels counts.
- A file with several pages is refused unless its page is named. In a JPEG with several images (MPO) the first is the
  photograph, and is read.
- A file that is damaged or cut off is refused: half an image is never shown.
- An image of more than 179 million pixels is refused. Pillow's warning about half as many is silenced, since a whole
  slide or a mammogram may be that large.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from vrft.errors import DataError, first_line

if TYPE_CHECKING:
    from vrft.boxes import Size
    from vrft.sample import Box

Window = tuple[float, float]
"""The values that become black and white; so do those below and above them."""

Axis = Literal["axial", "coronal", "sagittal"]
"""The plane of the slices of a volume."""

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the upright image."""

RULES = 1
"""A version number, raised when the same file gives other pixels than before; caches of images are then rebuilt."""

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

BLANK, NOT_FINITE = "blank_image", "pixels_not_finite"
"""Warnings: an image of one value only; pixels that were NaN or infinite (NaN becomes black)."""


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


def read_image(
    path: Path,
    *,
    region: Region | None = None,
    window: Window | None = None,
    page: int | None = None,
    axis: Axis = "axial",
    part: tuple[int, int] | None = None,
    name: str = "",
) -> Image.Image:
    """Read an image file as the image that a policy sees.

    Args:
        path: of the file.
        region: the part to cut out of the upright image; the grey values are those of the whole image.
        window: of a file with more than 8 bits, the values that become 0 and 255; without it ``grey_range`` decides.
            Images of 8 bits are not changed.
        page: of a file with several pages, from 0.
        axis: of a volume, the plane of its slices.
        part: the position and the length of the file in an archive at ``path``.
        name: the name of the file in messages; without it the path.

    Returns:
        The image, RGB with 8 bits a channel and upright.

    Raises:
        DataError: the file is missing, damaged, cut off or no image, has more pixels than Pillow takes, or several
            pages and none is named; the message names the file.
    """
    data = None if part is None else read_part(path, part, name)
    shown = Path(name) if name else path
    with opened(path, page, data, shown) as image:
        stored = _deep_colour(image)
        reopen = partial(opened, path, page, data, shown)
        upright = load_upright(image, lambda loaded: _rgb(shown, loaded, stored, window, reopen))
    if region is None:
        return upright
    with _large_images():
        cropped = upright.crop(region)
    cropped.info = upright.info
    return cropped


def inspect(
    path: Path,
    page: int | None = None,
    *,
    any_page: bool = False,
    axis: Axis = "axial",
    part: tuple[int, int] | None = None,
    name: str = "",
) -> ImageFacts:
    """The facts in the header of a file, without reading pixels.

    Args:
        path: of the file.
        page: of a file with several pages, from 0.
        any_page: without a page the first of several is inspected, and no error is raised.
        axis: of a volume, the plane of its slices.
        part: the position and the length of the file in an archive at ``path``.
        name: the name of the file in messages; without it the path.

    Raises:
        DataError: the file is missing or no image, or has several pages and none is named.
    """
    shown = Path(name) if name else path
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:  # of a name that holds a zero byte
        raise _unreadable(shown, error) from None
    facts = _inspected(path, stat.st_mtime_ns, stat.st_size, page or 0, part, shown)
    if page is None and not any_page:
        _check_page(shown, facts.pages, None)
    return facts


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
        raise _unreadable(Path(name) if name else path, error) from None
    if len(data) < length:
        raise DataError(f"{path}: the archive ends inside {name or 'a file'}; copy it again.")
    return data


# Without a bound: the files of a source are inspected in turn, again and again, and a bound below their number would
# make the cache useless. An entry is small beside the sample of the file.
@cache
def _inspected(
    path: Path, _changed: int, _bytes: int, page: int, part: tuple[int, int] | None, shown: Path
) -> ImageFacts:
    data = None if part is None else read_part(path, part, str(shown))
    with opened(path, page, data, shown) as image:
        return _shared(_facts(image))


@cache
def _shared(facts: ImageFacts) -> ImageFacts:
    """The same object for all equal facts, to save memory: the files of a source have few sizes."""
    return facts


def inspect_bytes(data: bytes, path: Path, page: int | None = None) -> ImageFacts:
    """The facts in the header of a file whose bytes are in memory; the path is for messages.

    Raises:
        DataError: the bytes are no image, or hold several pages and none is named.
    """
    with opened(path, page, data) as image:
        return _facts(image)


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
        with path.open("rb") if data is None else io.BytesIO(data) as file, _opened(file) as image:
            pages = _pages(image)
            _check_page(shown, pages, page)
            if page:
                with _large_images():
                    image.seek(page)
            yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise all kinds of errors on damaged files
        raise _unreadable(shown, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    """The message for a file that Pillow or the system cannot read."""
    why = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        why = "no format that Pillow knows"
    remedy = "make it smaller" if isinstance(error, Image.DecompressionBombError) else "replace or remove it"
    return DataError(f"{path}: cannot be read as an image ({why}); {remedy}.")


def _opened(file: IO[bytes]) -> Image.Image:
    with _large_images():
        return Image.open(file)


@contextmanager
def _large_images() -> Iterator[None]:
    """Silence Pillow's warning about an image of more than half of its limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _pages(image: Image.Image) -> int:
    return 1 if image.format in FIRST_IS_WHOLE else int(getattr(image, "n_frames", 1))


def _check_page(path: Path, pages: int, page: int | None) -> None:
    if page is None and pages > 1:
        raise DataError(
            f"{path}: holds {pages} pages, and a sample is one image; name a page from 0 to {pages - 1} "
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


def is_blank(image: Image.Image) -> bool:
    """Whether an image holds one value only, in each channel."""
    extrema: Any = image.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in channels)


def image_warnings(image: Image.Image) -> list[str]:
    """The warnings about an image that ``read_image`` gave: ``BLANK``, ``NOT_FINITE``, both or none."""
    return [BLANK] * is_blank(image) + [NOT_FINITE] * bool(image.info.get(NOT_FINITE))


def grey_range(values: NDArray[Any]) -> Window:
    """The values of an image beyond 8 bits that become black and white, where no window is declared.

    Whole numbers in 0 .. 255 of which some reach 128 are 8-bit values, and are not changed. Otherwise the range is that
    of the middle 99% of the finite values, extended on both sides by its own width as far as there are values: so a
    small lesion is brighter than its surroundings, and a dead pixel leaves the rest at least a third of the contrast.
    Where 99% of the values are equal, the range is that of all values.

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
