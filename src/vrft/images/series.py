"""DICOM series: a folder whose files are the slices of one series, as pages in the order of the body.

The order is that of the positions along the normal of the slices (ImagePositionPatient, ImageOrientationPatient): of
axial slices, page 0 is the one nearest to the feet. Where these are missing, or positions occur twice (several time
points), InstanceNumber and then the name of the file decide. Files without pixels and files that are no DICOM are
skipped.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vrft.errors import DataError
from vrft.images.dicom import SUFFIXES, header_of, is_dicom, number_of
from vrft.images.facts import Axis, check_page, unreadable
from vrft.images.quiet import damaged, quietly

KEYWORDS = (
    *("SeriesInstanceUID", "Rows", "Columns", "NumberOfFrames", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
)
"""Elements that order and check a series."""

ALIKE = 1e-3
"""Directions of slices that differ by less in each number are equal."""


class _Slice(NamedTuple):
    path: Path
    series: str
    size: tuple[int, int]
    frames: int
    number: float | None
    position: tuple[float, ...] | None
    direction: tuple[float, ...] | None


def slices_in(folder: Path, shown: Path) -> tuple[Path, ...]:
    """The files of the series in a folder, in order. Their headers are read once, until files are added or removed.

    Args:
        folder: holds the files of one series.
        shown: its name in messages.

    Raises:
        DataError: the folder holds no DICOM file with pixels, several series, or slices of several sizes or directions.
        UserError: pydicom is not installed.
    """
    try:
        changed = os.stat(folder).st_mtime_ns
    except OSError as error:
        raise unreadable(shown, error) from None
    return _ordered(folder, changed, shown)


def slice_of(folder: Path, shown: Path, page: int | None) -> tuple[Path, Path, int | None]:
    """The file of a page, its name in messages, and the page in it: that of a frame, where there is one file alone.

    Raises:
        DataError: see ``slices_in``; or there are several slices and no page is named.
    """
    files = slices_in(folder, shown)
    if len(files) > 1:
        check_page(shown, len(files), page)
    file, inner = (files[page or 0], None) if len(files) > 1 else (files[0], page)
    return file, shown / file.name if shown == folder else shown, inner


def check_axis(shown: Path, axis: Axis) -> None:
    """Check that no other plane than the stored one is asked of a series.

    Raises:
        DataError: the axis is not the default.
    """
    if axis != "axial":
        raise DataError(
            f"{shown}: is a DICOM series, which has slices in its own plane alone, and the axis is {axis}; leave the "
            f"axis out, or convert the series to NIfTI (dcm2niix)."
        )


@cache
def _ordered(folder: Path, _changed: int, shown: Path) -> tuple[Path, ...]:
    files = [one for one in sorted(folder.iterdir()) if not one.name.startswith(".") and one.is_file()]
    slices = [found for one in files if (found := quietly(damaged(shown), _slice, one, shown)) is not None]
    if not slices:
        raise DataError(f"{shown}: is a folder without DICOM images; name an image file, or the folder of one series.")
    for what, differing in (
        ("DICOM series", {one.series for one in slices}),
        ("sizes of slices", {one.size for one in slices}),
        ("directions of slices", _directions(slices)),
    ):
        if len(differing) > 1:
            raise DataError(
                f"{shown}: holds {len(differing)} {what} in {len(slices)} files, and an image is one series; put each "
                f"series (localizers too) into a folder of its own, or name a file."
            )
    if len(slices) > 1 and (several := sum(one.frames > 1 for one in slices)):
        raise DataError(
            f"{shown}: {several} of its {len(slices)} DICOM files hold several frames; name one of the files."
        )
    positions = _positions(slices)
    numbered = all(one.number is not None for one in slices)
    ordered = sorted(
        zip(positions, slices, strict=True),
        key=lambda pair: (pair[0], pair[1].number if numbered else 0, pair[1].path.name),
    )
    return tuple(one.path for _, one in ordered)


def _slice(path: Path, shown: Path) -> _Slice | None:
    """The facts about a file that order it in a series; None of a file that is no DICOM image."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(shown, error) from None
    named = shown / path.name if shown == path.parent else shown
    with file:
        if not is_dicom(file.read(132)) and not path.name.lower().endswith(SUFFIXES):
            return None
        file.seek(0)
        header = header_of(file, named, KEYWORDS)
    if "Rows" not in header:
        return None

    def vector(keyword: str, length: int) -> tuple[float, ...] | None:
        values = tuple(float(one) for one in header.get(keyword) or ())
        return values if len(values) == length and np.isfinite(values).all() else None

    fault = f"{named}: {{}} of its DICOM header is damaged; export it again, or remove it."
    position, direction = (
        quietly(fault.format(keyword), vector, keyword, length)
        for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    )
    size = [int(number_of(header, one, named) or 0) for one in ("Columns", "Rows", "NumberOfFrames")]
    series = quietly(fault.format("SeriesInstanceUID"), lambda: str(header.get("SeriesInstanceUID", "")))
    number = number_of(header, "InstanceNumber", named)
    return _Slice(path, series, (size[0], size[1]), size[2] or 1, number, position, direction)


def _directions(slices: list[_Slice]) -> set[Any]:
    """The different directions of slices, as far as they are stated."""
    found: list[tuple[float, ...]] = []
    for one in slices:
        if one.direction and not any(np.allclose(one.direction, other, rtol=0, atol=ALIKE) for other in found):
            found.append(one.direction)
    return set(found)


def _positions(slices: list[_Slice]) -> list[float]:
    """The positions of slices along their normal, in mm; all 0 where any is missing."""
    direction = slices[0].direction
    if direction is None or any(one.position is None or one.direction is None for one in slices):
        return [0.0] * len(slices)
    normal = np.cross(direction[:3], direction[3:])
    return [round(float(np.dot(normal, one.position)), 3) for one in slices if one.position]
