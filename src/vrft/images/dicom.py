"""DICOM files: from the header and the pixels of a frame to the image that a policy sees.

- The stored values become those of the modality (Hounsfield units of a CT) by the modality LUT, or the rescale slope
  and intercept.
- Then comes the declared window, else the VOI LUT of the file, else the first of its windows (LINEAR, LINEAR_EXACT or
  SIGMOID), else ``grey_range``. 8 bits and less without a rescaling are shown by the window of the file or unchanged.
- MONOCHROME1 is inverted. A palette and YBR become RGB.
- Padding (PixelPaddingValue) is black, and not part of the range.
- A file of several frames has a page for each. Overlays, ICC profiles and pixel aspect ratios are ignored.

Nothing of a header stands in a message but keywords such as NumberOfFrames. Pixels are not cleaned: a name that is
burned into the image stays there (``burned_in``).
"""

from __future__ import annotations

from io import SEEK_END
from pathlib import Path
from struct import unpack
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.errors import DataError
from vrft.extras import need
from vrft.images.facts import ImageFacts, check_page, check_pixels
from vrft.images.greys import NOT_FINITE, Window, grey_range, scale
from vrft.images.quiet import quietly

SUFFIXES = (".dcm", ".dicom", ".ima")
"""Of files that are read as DICOM even without the mark of a DICOM file."""

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

SIZE = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PlanarConfiguration"),
)
"""Elements that say how pixels are stored."""

GREYS = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(
        f"{colour}PaletteColorLookupTable{what}"
        for colour in ("Red", "Green", "Blue")
        for what in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""Elements that say how pixels are shown."""

OF_FRAME = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
"""Functional groups of an enhanced file that hold elements of ``GREYS``."""

MARKS = tuple(
    code if little else code[1::-1] + code[:1:-1]
    for code in (b"\xe0\x7f\x10\x00", b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00")
    for little in (True, False)
)
"""The tags of ``PIXELS`` in both byte orders."""

END_OF_IMAGE = b"\xff\xd9"
"""The last bytes of a frame of JPEG, JPEG-LS or JPEG 2000."""

JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""The first bytes of a JPEG 2000 frame inside a file format of its own."""

YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Colours that the decoders convert to RGB."""

AGAIN = "export it again, or remove it"


def is_dicom(head: bytes) -> bool:
    """Whether a file has the mark of a DICOM file.

    Args:
        head: its first 132 bytes or more.
    """
    return head[128:132] == b"DICM"


def header_of(file: IO[bytes], shown: Path, keywords: tuple[str, ...]) -> Any:
    """Read elements of a header, up to the pixels.

    Args:
        file: at its beginning; it stays open.
        shown: the name of the file in messages.
        keywords: of the elements to read; others are skipped, so that a header is read fast and nothing of a patient
            is in memory.

    Returns:
        A data set of pydicom.

    Raises:
        DataError: the file is no DICOM file.
        UserError: pydicom is not installed.
    """
    need("reading DICOM files", ("pydicom",), "dicom")
    from pydicom import dcmread

    fault = f"{shown}: cannot be read as DICOM (no DICOM file, damaged or cut off); {AGAIN}."
    options = {"stop_before_pixels": True, "force": True, "specific_tags": [*keywords]}
    return quietly(fault, dcmread, file, **options)


def inspect_dicom(file: IO[bytes], shown: Path, page: int = 0) -> ImageFacts:
    """The facts about a frame of a DICOM file.

    Raises:
        DataError: the file holds no pixels, or its header is damaged.
        UserError: pydicom is not installed.
    """
    header = header_of(file, shown, SIZE)
    return _checked(file, header, shown, page)


def _checked(file: IO[bytes], header: Any, shown: Path, page: int | None) -> ImageFacts:
    """The facts in a header that was just read from a file, and which holds ``SIZE``."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if header.preamble and not syntax:
        raise DataError(f"{shown}: its DICOM header lacks TransferSyntaxUID, and so the coding of its pixels; {AGAIN}.")
    fault = f"{shown}: TransferSyntaxUID of its DICOM header is none that pydicom knows; {AGAIN}."
    deflated = quietly(fault, lambda: bool(syntax) and syntax.is_deflated)
    if not header.preamble and "Rows" not in header:
        raise DataError(f"{shown}: has the suffix of a DICOM file, but holds no DICOM image; replace or remove it.")
    if "Rows" not in header or not (deflated or file.read(4) in MARKS):
        raise DataError(
            f"{shown}: is DICOM without pixels (a plan, a report or another document), or cut off before them; "
            f"remove it."
        )
    size = _whole(header, "Columns", shown), _whole(header, "Rows", shown)
    check_pixels(shown, size)
    pages = _whole(header, "NumberOfFrames", shown, 1) or 1
    if pages < 1:
        raise DataError(f"{shown}: NumberOfFrames of its DICOM header is negative; {AGAIN}.")
    check_page(shown, pages, page)
    kind, bits = _text(header, "PhotometricInterpretation", shown), _bits(header, shown)
    has = {
        "beyond 8 bits": bits > 8,
        "palette": kind == "PALETTE COLOR",
        "1 bit": bits == 1,
        "inverted": kind == "MONOCHROME1",
        "one of several pages": pages > 1,
    }
    return ImageFacts(size, size, 1, pages, tuple(name for name, holds in has.items() if holds))


def read_dicom(file: IO[bytes], shown: Path, *, page: int | None = None, window: Window | None = None) -> Image.Image:
    """Read a frame of a DICOM file, in RGB with 8 bits a channel.

    Args:
        file: at its beginning.
        shown: the name of the file in messages.
        page: the frame, from 0; needed where there are several.
        window: the values of the modality that become black and white; without it the file or ``grey_range`` decides.

    Raises:
        DataError: the file holds no pixels, is damaged, cut off or compressed in an unknown way, or has several frames
            and none is named.
        UserError: pydicom is not installed.
    """
    header = header_of(file, shown, (*SIZE, *GREYS))
    facts = _checked(file, header, shown, page)
    kind = _text(header, "PhotometricInterpretation", shown)
    if kind not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", *YBR):
        raise DataError(f"{shown}: PhotometricInterpretation of its DICOM header is none that is read; {AGAIN} as RGB.")
    values = _decoded(file, header, shown, page or 0)
    samples = (3,) if kind == "RGB" or kind in YBR else ()
    if values.shape != (*facts.size[::-1], *samples):
        raise DataError(f"{shown}: its DICOM header and its pixels disagree about their size; {AGAIN}.")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        fault = f"{shown}: the palette in its DICOM header is damaged; {AGAIN}."
        values = quietly(fault, apply_color_lut, values, header)[..., :3]
        return Image.fromarray(scale(values, (0, np.iinfo(values.dtype).max)))
    if samples:
        deep = values.dtype != np.uint8
        return Image.fromarray(scale(values, window or grey_range(values)) if deep else np.ascontiguousarray(values))
    grey = _grey(values, _of_frame(header, shown, page or 0), window, shown)
    image = Image.fromarray(grey).convert("RGB")
    if values.dtype.kind == "f" and (lost := int((~np.isfinite(values)).sum())):
        image.info[NOT_FINITE] = lost
    return image


def burned_in_tag(file: IO[bytes], shown: Path) -> bool | None:
    """Whether the header says that a text was burned into the pixels (BurnedInAnnotation); None where it is silent.

    Raises:
        DataError: the file is no DICOM file.
        UserError: pydicom is not installed.
    """
    header = header_of(file, shown, ("BurnedInAnnotation",))
    return {"YES": True, "NO": False}.get(_text(header, "BurnedInAnnotation", shown).upper())


def _decoded(file: IO[bytes], header: Any, shown: Path, page: int) -> NDArray[Any]:
    """The stored values of a frame, (rows, columns) or (rows, columns, 3), where YBR is RGB."""
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    fault = (
        f"{shown}: its pixels cannot be decoded (damaged, cut off, or compressed in a way that no installed decoder "
        f"reads); export it again without compression, or remove it."
    )
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax:
        decoder = quietly(fault, get_decoder, syntax)
        if not decoder.is_available:
            need("reading compressed DICOM files", ("pylibjpeg", "libjpeg", "openjpeg", "jpeg_ls"), "dicom")
            raise DataError(fault)
        if not syntax.is_deflated:
            quietly(fault, _check_complete, file, syntax, page, _whole(header, "NumberOfFrames", shown, 1))
            file.seek(0)
            return quietly(fault, pixel_array, file, index=page)
    file.seek(0)
    whole = quietly(fault, dcmread, file, force=True, specific_tags=[*SIZE, *PIXELS])
    if not syntax:  # no file meta information: the encoding is guessed from the elements
        if any(whole[one].is_undefined_length for one in PIXELS if one in whole):
            raise DataError(f"{shown}: is compressed, and its DICOM header lacks the TransferSyntaxUID; {AGAIN}.")
        implicit, little = whole.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        whole.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return quietly(fault, pixel_array, whole, index=page)


def _check_complete(file: IO[bytes], syntax: Any, page: int, pages: int) -> None:
    """Check that pixels end where they should: decoders give half an image of a file that is cut off.

    Args:
        file: behind the tag of the pixels, where ``_checked`` leaves it.
        syntax: the transfer syntax.
        page: the frame that is read.
        pages: the number of frames.

    Raises:
        ValueError: they do not; other exceptions where the structure is damaged.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    order = "<L" if syntax.is_little_endian else ">L"
    (length,) = unpack(order, file.read(4 if syntax.is_implicit_VR else 8)[-4:])
    if not syntax.is_encapsulated:
        start = file.tell()
        if file.seek(0, SEEK_END) - start < length:
            raise ValueError
    elif syntax != RLELossless:  # of which the decoder checks the lengths
        frame = get_frame(file, page, number_of_frames=pages)
        if END_OF_IMAGE not in frame[-8:]:  # padding may follow
            raise ValueError
        if frame.startswith(JP2):  # pydicom would never end at an empty box before that of the image
            place = len(JP2)
            while frame[place + 4 : place + 8] != b"jp2c":
                (box,) = unpack(">L", frame[place : place + 4])  # fails behind the last
                if box == 0:
                    raise ValueError
                place += box


def _of_frame(header: Any, shown: Path, page: int) -> Any:
    """The header with the elements of the functional groups of a frame in it."""

    def merge() -> None:
        shared = header.get("SharedFunctionalGroupsSequence") or []
        frames = header.get("PerFrameFunctionalGroupsSequence") or []
        for group in (*shared[:1], *frames[page : page + 1]):
            for sequence in OF_FRAME:
                for item in (group.get(sequence) or [])[:1]:
                    header.update(item)

    quietly(f"{shown}: the functional groups in its DICOM header are damaged; {AGAIN}.", merge)
    return header


def _grey(values: NDArray[Any], header: Any, window: Window | None, shown: Path) -> NDArray[np.uint8]:
    """Grey levels of the stored values of a frame, (height, width)."""
    from pydicom.pixels import apply_modality_lut

    padding = _padding(values, header, shown)
    slope, intercept = number_of(header, "RescaleSlope", shown), number_of(header, "RescaleIntercept", shown)
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        if value is None and keyword in header:  # empty
            delattr(header, keyword)
    rescaled = bool(header.get("ModalityLUTSequence")) or (
        None not in (slope, intercept) and (slope, intercept) != (1, 0)
    )
    bits = _bits(header, shown)
    deep = rescaled or bits > 8 or values.dtype.kind != "u"
    if values.dtype.kind != "f":
        values = values.astype(np.int64)  # a table is looked up in the type of the values, which may be too small
    fault = f"{shown}: ModalityLUTSequence, RescaleSlope or RescaleIntercept of its DICOM header is damaged; {AGAIN}."
    values = quietly(fault, apply_modality_lut, values, header)
    if window and deep:
        grey = scale(values, window)
    elif (shown_by_file := _voi(values, header, shown)) is not None:
        grey = shown_by_file
    else:
        grey = scale(values, grey_range(values[~padding]) if deep else (0, 2**bits - 1))
    if _text(header, "PhotometricInterpretation", shown) == "MONOCHROME1":
        grey = 255 - grey
    grey[padding] = 0
    return grey


def _padding(values: NDArray[Any], header: Any, shown: Path) -> NDArray[np.bool_]:
    """Which of the stored values are padding: those of a value, or of a range."""
    first = number_of(header, "PixelPaddingValue", shown)
    if first is None:
        return np.zeros(values.shape, np.bool_)
    last = number_of(header, "PixelPaddingRangeLimit", shown)
    low, high = sorted((first, first if last is None else last))
    return np.asarray((values >= low) & (values <= high))


def _voi(values: NDArray[Any], header: Any, shown: Path) -> NDArray[np.uint8] | None:
    """Values as the VOI LUT of a file or its first window shows them; None where it has neither."""
    from pydicom import Dataset
    from pydicom.pixels import apply_voi, apply_windowing

    if header.get("VOILUTSequence"):

        def table() -> NDArray[np.uint8]:
            item = header.VOILUTSequence[0]
            entries, first, bits = item.LUTDescriptor
            last = first + (entries or 2**16) - 1
            item.LUTDescriptor = [entries, first, 16]  # pydicom looks up in the type of the table, which may be 8 bits
            inside = np.clip(np.rint(np.nan_to_num(values)), first, last).astype(np.int64)
            return scale(apply_voi(inside, header), (0, 2**bits - 1))

        fault = f"{shown}: VOILUTSequence of its DICOM header is damaged; declare a window (data.window), or remove it."
        return quietly(fault, table)
    center, width = number_of(header, "WindowCenter", shown), number_of(header, "WindowWidth", shown)
    if center is None or width is None:
        return None
    function = _text(header, "VOILUTFunction", shown).upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width <= 0 or (function == "LINEAR" and width < 1):
        raise DataError(
            f"{shown}: WindowWidth or VOILUTFunction of its DICOM header is none that DICOM allows; declare a window "
            f"(data.window of a recipe, --window of vrft predict)."
        )
    # Of 8 bits without a rescaling, so that pydicom gives 0 .. 255
    window = Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    fault = f"{shown}: WindowCenter or WindowWidth of its DICOM header is damaged; declare a window (data.window)."
    grey = quietly(fault, apply_windowing, values, window)
    return np.rint(np.nan_to_num(grey)).astype(np.uint8)


# --- values of elements, which must not stand in a message ------------------------------------------------------------


def _first(header: Any, keyword: str) -> Any:
    """The first value of an element; None where it is missing or empty."""
    value = header.get(keyword)
    if not isinstance(value, str) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None
    return None if value == "" else value


def _whole(header: Any, keyword: str, shown: Path, missing: int | None = None) -> int:
    def read() -> int | None:
        value = _first(header, keyword)
        return missing if value is None else int(value)

    value = quietly(f"{shown}: {keyword} of its DICOM header is no whole number; {AGAIN}.", read)
    if value is None:
        raise DataError(f"{shown}: its DICOM header lacks {keyword}; {AGAIN}.")
    return value


def number_of(header: Any, keyword: str, shown: Path) -> float | None:
    """The first number of an element; None where it is missing or empty.

    Raises:
        DataError: it is no finite number.
    """

    def read() -> float | None:
        value = _first(header, keyword)
        return None if value is None else float(value)

    value = quietly(f"{shown}: {keyword} of its DICOM header is no number; {AGAIN}.", read)
    if value is not None and not np.isfinite(value):
        raise DataError(f"{shown}: {keyword} of its DICOM header is no finite number; {AGAIN}.")
    return value


def _text(header: Any, keyword: str, shown: Path) -> str:
    return quietly(
        f"{shown}: {keyword} of its DICOM header is damaged; {AGAIN}.",
        lambda: str(_first(header, keyword) or "").strip(),
    )


def _bits(header: Any, shown: Path) -> int:
    allocated = _whole(header, "BitsAllocated", shown)
    return _whole(header, "BitsStored", shown, allocated)
