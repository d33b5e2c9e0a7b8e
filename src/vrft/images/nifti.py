"""NIfTI volumes: from a slice to the image that a policy sees.

- The volume is turned to the nearest standard axes of the body by its affine matrix; a slice lies across the patient
  (axial), seen from the front (coronal) or from the side (sagittal).
- A slice is shown in the radiological convention: the right of the patient is on the left; front (axial) or head
  (coronal, sagittal) is up; in a sagittal slice the front is on the left.
- Page 0 is the lowest axial slice, the hindmost coronal slice, and the leftmost sagittal slice of the patient. In a
  volume of four dimensions the pages count the slices of all volumes in turn: volume * slices + slice.
- Values are scaled as the header says, and shown by the declared window, else by ``grey_range`` of the slice. 8-bit
  values without scaling stay as they are. NaN is black.
- Pixels are made square where the spacings in a plane differ by more than 1%: the side with the larger spacing is
  stretched. Boxes are those of the stretched image.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.errors import DataError
from vrft.extras import need
from vrft.images.facts import Axis, ImageFacts, check_page, check_pixels
from vrft.images.greys import NOT_FINITE, Window, grey_range, scale
from vrft.images.quiet import quietly

if TYPE_CHECKING:
    from vrft.boxes import Size

SUFFIXES = (".nii", ".nii.gz")

HEADER = 544
"""The bytes that the header of a NIfTI file takes at most."""

ACROSS: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis of the body that the slices of a plane follow: to the right, to the front, to the head."""

SQUARE = 1.01
"""Pixels whose sides differ by less than this factor are square."""


def is_nifti(head: bytes) -> bool:
    """Whether a file, also one that is compressed by gzip, begins as a NIfTI file.

    Args:
        head: its first bytes, some thousand of them.
    """
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(31).decompress(head, HEADER)
        except zlib.error:
            return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


@dataclass(frozen=True)
class _Plane:
    """The place of a slice in the stored array."""

    size: Size
    """Width and height of the image."""
    index: tuple[Any, ...]
    """Selects the slice in it."""
    stored: tuple[int, int]
    """The shape of the slice as it is stored."""
    turns: NDArray[np.float64]
    """Turns the slice to the axes of the body, as nibabel states orientations."""
    pages: int


def inspect_nifti(file: IO[bytes], shown: Path, page: int = 0, axis: Axis = "axial") -> ImageFacts:
    """The facts about a slice of a NIfTI file, from its header.

    Raises:
        DataError: the file is damaged or no volume, or has no such slice.
        UserError: nibabel is not installed.
    """
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    fault = f"{shown}: is no NIfTI file, or damaged; replace or remove it."
    head = quietly(fault, gzip.GzipFile(fileobj=file).read, HEADER) if packed else file.read(HEADER)
    header = _header(head, shown)
    plane = _plane(header, shown, page, axis)
    check_page(shown, plane.pages, page)
    kinds = {"beyond 8 bits": _is_deep(header), "one of several pages": plane.pages > 1}
    return ImageFacts(plane.size, plane.size, 1, plane.pages, tuple(kind for kind, holds in kinds.items() if holds))


def read_nifti(
    file: IO[bytes], shown: Path, *, page: int | None = None, axis: Axis = "axial", window: Window | None = None
) -> Image.Image:
    """Read a slice of a NIfTI file, in RGB with 8 bits a channel.

    Args:
        file: at its beginning. Where it is not compressed, only the slice is read.
        shown: the name of the file in messages.
        page: the slice, from 0; needed where there are several.
        axis: the plane of the slices.
        window: the values that become black and white; without it ``grey_range`` of the slice.

    Raises:
        DataError: the file is damaged, cut off or no volume of one value a voxel, or has several slices and none is
            named.
        UserError: nibabel is not installed.
    """
    damaged = f"{shown}: its voxels cannot be read (damaged or cut off); replace or remove it."
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if packed:
        file = io.BytesIO(quietly(damaged, gzip.decompress, file.read()))
    header = _header(file.read(HEADER), shown)
    plane = _plane(header, shown, page, axis)
    check_page(shown, plane.pages, page)
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.orientations import apply_orientation

    voxels = ArrayProxy(file, header, mmap=False)
    values: NDArray[Any] = quietly(damaged, lambda: np.asanyarray(voxels[plane.index]).reshape(plane.stored))
    values = apply_orientation(values, plane.turns)[::-1, ::-1].swapaxes(0, 1)
    lost = 0
    if values.dtype.names:
        grey = np.stack([values[name] for name in "RGB"], axis=-1)
    elif _is_deep(header):
        values = values.astype(values.dtype.newbyteorder("="))
        grey = scale(values, window or grey_range(values))
        lost = int((~np.isfinite(values)).sum())
    else:
        grey = np.ascontiguousarray(values)
    image = Image.fromarray(grey).convert("RGB")
    if image.size != plane.size:
        image = image.resize(plane.size, Image.Resampling.BILINEAR)
    if lost:
        image.info[NOT_FINITE] = lost
    return image


def _is_deep(header: Any) -> bool:
    """Whether values need a range of grey: all but unscaled bytes and colours."""
    dtype, (slope, intercept) = header.get_data_dtype(), header.get_slope_inter()
    return not dtype.names and (dtype != np.uint8 or (slope or 1, intercept or 0) != (1, 0))


def _header(head: bytes, shown: Path) -> Any:
    """The header in the first bytes of a file. Extensions, which may hold a DICOM header, are not read."""
    need("reading NIfTI files", ("nibabel",), "nifti")
    from nibabel import Nifti1Header, Nifti2Header

    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise DataError(f"{shown}: is the header of a pair of files, .hdr and .img; save the volume as one .nii file.")
    kind = Nifti2Header if head[4:7] == b"n+2" else Nifti1Header

    def read() -> Any:
        header = kind(head[: kind.template_dtype.itemsize])
        header.get_data_shape(), header.get_data_dtype(), header.get_slope_inter(), header.get_best_affine()
        return header

    header = quietly(f"{shown}: is no NIfTI file, or damaged; replace or remove it.", read)
    if header.get_data_dtype().kind == "c":
        raise DataError(f"{shown}: holds complex numbers; save their magnitude.")
    return header


def _plane(header: Any, shown: Path, page: int | None, axis: Axis) -> _Plane:
    """The place of a slice; without a page, of the first."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    whole = shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise DataError(f"{shown}: has {len(shape)} dimensions; expected a volume of 3, or several volumes in 4.")
    volumes, shape = (shape[3] if len(shape) == 4 else 1), (*shape, 1)[:3]
    fault = f"{shown}: its affine matrix states no axes of the body; replace or remove it."
    turns = quietly(fault, io_orientation, header.get_best_affine())
    if not np.isfinite(turns).all():
        raise DataError(fault)
    stored = int(np.flatnonzero(turns[:, 0] == ACROSS[axis])[0])
    slices = shape[stored]
    number, place = divmod(page or 0, slices)
    index: list[Any] = [slice(None)] * 3
    index[stored] = place if turns[stored, 1] > 0 else slices - 1 - place
    inside = [one for one in range(3) if one != stored]
    in_plane = turns[inside]
    in_plane[:, 0] = np.argsort(np.argsort(in_plane[:, 0]))
    # first the axis that becomes the rows of the array of nibabel, which are the columns of the image
    first, second = (inside[int(np.flatnonzero(in_plane[:, 0] == one)[0])] for one in (0, 1))
    spacing = voxel_sizes(header.get_best_affine())[[first, second]]
    size = shape[first], shape[second]
    if spacing.max() > SQUARE * spacing.min():
        size = tuple(round(count * side / spacing.min()) for count, side in zip(size, spacing, strict=True))
    check_pixels(shown, size)
    extra = len(whole) - 3
    index += ([number] + [0] * (extra - 1)) if extra > 0 else []
    stored_shape = shape[inside[0]], shape[inside[1]]
    return _Plane(size, tuple(index[: len(whole)]), stored_shape, in_plane, volumes * slices)
