"""The reading of any image file: Pillow's formats, DICOM files and series, NIfTI volumes."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image

from vrft.images.dicom import SUFFIXES as DICOM_SUFFIXES
from vrft.images.dicom import burned_in_tag, inspect_dicom, is_dicom, read_dicom
from vrft.images.facts import Axis, ImageFacts, Region, check_page, open_file, read_part, unreadable
from vrft.images.greys import Window
from vrft.images.nifti import SUFFIXES as NIFTI_SUFFIXES
from vrft.images.nifti import inspect_nifti, is_nifti, read_nifti
from vrft.images.pillow import facts_of, large_images, opened, read_pillow
from vrft.images.quiet import damaged, quietly
from vrft.images.series import check_axis, slice_of, slices_in

Format = Literal["dicom", "nifti", "pillow"]

HEAD = 4096
"""The bytes of a file that tell its format."""


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
        path: of the file, or of a folder that holds the files of one DICOM series.
        region: the part to cut out of the upright image; the grey values are those of the whole image.
        window: of a file with more than 8 bits, the values that become 0 and 255; without it the window of a DICOM file
            or ``grey_range`` decides. Images of 8 bits are not changed.
        page: of a file with several pages, from 0: the frame of a DICOM file, the slice of a series or a volume.
        axis: of a volume, the plane of its slices. A DICOM series has slices in its own plane alone.
        part: the position and the length of the file in an archive at ``path``.
        name: the name of the file in messages; without it the path.

    Returns:
        The image, RGB with 8 bits a channel and upright. Text that is burned into its pixels is still there.

    Raises:
        DataError: the file is missing, damaged, cut off or no image, has more pixels than Pillow takes, or several
            pages and none is named; the message names the file.
        UserError: the package that reads such files is not installed.
    """
    data = None if part is None else read_part(path, part, name)
    return _read(path, data, Path(name) if name else path, region=region, window=window, page=page, axis=axis)


def read_image_bytes(
    data: bytes,
    name: str,
    *,
    region: Region | None = None,
    window: Window | None = None,
    page: int | None = None,
    axis: Axis = "axial",
) -> Image.Image:
    """As ``read_image``, of a file whose bytes are in memory.

    Args:
        data: the bytes of the file.
        name: the name of the file in messages, which may tell its format.
        region: as in ``read_image``.
        window: as in ``read_image``.
        page: as in ``read_image``.
        axis: as in ``read_image``.

    Raises:
        DataError: as ``read_image``.
        UserError: the package that reads such files is not installed.
    """
    return _read(Path(name), data, Path(name), region=region, window=window, page=page, axis=axis)


def _read(
    path: Path,
    data: bytes | None,
    shown: Path,
    *,
    region: Region | None,
    window: Window | None,
    page: int | None,
    axis: Axis,
) -> Image.Image:
    if data is None and path.is_dir():
        check_axis(shown, axis)
        path, shown, page = slice_of(path, shown, page)
    kind = _format_of(path, data, shown)
    if kind == "pillow":
        image = read_pillow(path, window=window, page=page, data=data, shown=shown)
    else:
        with open_file(path, data) as file:
            if kind == "dicom":
                image = quietly(damaged(shown), read_dicom, file, shown, page=page, window=window)
            else:
                image = quietly(damaged(shown), read_nifti, file, shown, page=page, axis=axis, window=window)
    if region is None:
        return image
    with large_images():
        cropped = image.crop(region)
    cropped.info = image.info
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
        path: of the file, or of a folder that holds the files of one DICOM series.
        page: of a file with several pages, from 0.
        any_page: without a page the first of several is inspected, and no error is raised.
        axis: of a volume, the plane of its slices.
        part: the position and the length of the file in an archive at ``path``.
        name: the name of the file in messages; without it the path.

    Raises:
        DataError: the file is missing or no image, or has several pages and none is named.
        UserError: the package that reads such files is not installed.
    """
    shown = Path(name) if name else path
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:  # of a name that holds a zero byte
        raise unreadable(shown, error) from None
    facts = _inspected(path, stat.st_mtime_ns, stat.st_size, page or 0, axis, part, shown)
    if page is None and not any_page:
        check_page(shown, facts.pages, None)
    return facts


# Without a bound: the files of a source are inspected in turn, again and again, and a bound below their number would
# make the cache useless. An entry is small beside the sample of the file.
@cache
def _inspected(
    path: Path, _changed: int, _bytes: int, page: int, axis: Axis, part: tuple[int, int] | None, shown: Path
) -> ImageFacts:
    data = None if part is None else read_part(path, part, str(shown))
    return _shared(_facts(path, data, shown, page, axis))


@cache
def _shared(facts: ImageFacts) -> ImageFacts:
    """The same object for all equal facts, to save memory: the files of a source have few sizes."""
    return facts


def inspect_bytes(
    data: bytes, path: Path, page: int | None = None, axis: Axis = "axial", *, any_page: bool = False, name: str = ""
) -> ImageFacts:
    """The facts in the header of a file whose bytes are in memory; the other arguments are those of ``inspect``.

    Raises:
        DataError: the bytes are no image, or hold several pages and none is named.
    """
    shown = Path(name) if name else path
    facts = _facts(path, data, shown, page or 0, axis)
    if page is not None or not any_page:
        check_page(shown, facts.pages, page)
    return facts


def burned_in(path: Path, *, part: tuple[int, int] | None = None, name: str = "") -> bool | None:
    """Whether a DICOM file, or any of a series, says that text was burned into its pixels (BurnedInAnnotation).

    Nothing is removed from pixels: names and dates that are burned in stay in the images that a policy sees.

    Returns:
        True or False as the tag says; None where it is missing or the file is no DICOM.

    Raises:
        DataError: the file is missing or damaged.
    """
    shown = Path(name) if name else path
    if part is None and path.is_dir():
        tags = {burned_in(slice_) for slice_ in slices_in(path, shown)}
        return True if True in tags else None if None in tags else False
    data = None if part is None else read_part(path, part, name)
    if _format_of(path, data, shown) != "dicom":
        return None
    with open_file(path, data) as file:
        return quietly(damaged(shown), burned_in_tag, file, shown)


def is_medical(path: Path) -> bool:
    """Whether a file without a suffix that tells its format is a DICOM file or a NIfTI volume."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return is_dicom(head) or is_nifti(head)


def _facts(path: Path, data: bytes | None, shown: Path, page: int, axis: Axis) -> ImageFacts:
    """The facts about a page of a file, or of a series."""
    if data is None and path.is_dir():
        check_axis(shown, axis)
        slice_path, named, inner = slice_of(path, shown, page)
        facts = _facts(slice_path, None, named, inner or 0, axis)
        slices = len(slices_in(path, shown))
        return facts if slices == 1 else replace(facts, pages=slices, kinds=(*facts.kinds, "one of several pages"))
    kind = _format_of(path, data, shown)
    if kind == "pillow":
        with opened(path, page, data, shown) as image:
            return facts_of(image)
    with open_file(path, data) as file:
        if kind == "dicom":
            return quietly(damaged(shown), inspect_dicom, file, shown, page)
        return quietly(damaged(shown), inspect_nifti, file, shown, page, axis)


def _format_of(path: Path, data: bytes | None, shown: Path) -> Format:
    """The format of a file by its first bytes, else by its name.

    Raises:
        DataError: the file is missing.
    """
    try:
        with open_file(path, data) as file:
            head = file.read(HEAD)
    except (OSError, ValueError) as error:  # of a name that holds a zero byte
        raise unreadable(shown, error) from None
    if is_dicom(head):
        return "dicom"
    if is_nifti(head):
        return "nifti"
    names = path.name.lower(), shown.name.lower()
    if any(name.endswith(DICOM_SUFFIXES) for name in names):
        return "dicom"
    return "nifti" if any(name.endswith(NIFTI_SUFFIXES) for name in names) else "pillow"
