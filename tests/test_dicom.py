"""DICOM files and series: pixels, windows, frames, order, damage, and nothing of a header in any message."""

import csv
import logging
import os
import re
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from vrft.data.lookup import images_in
from vrft.errors import DataError, UserError
from vrft.images import burned_in, grey_range, inspect, read_image, scale
from vrft.sample import ImageFile, read_as

RAMP = np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50)

WITHOUT_PIXELS = {"no_meta", "ExplVR_LitEndNoMeta", "rtplan", "test-SR"}
"""Real files that hold none, or whose first byte is lost."""

FAULTS = {
    "MR_truncated": "cannot be decoded",
    "badVR": "NumberOfFrames .* is no whole number",
    "meta_missing_tsyntax": "lacks TransferSyntaxUID",
    "JPEG-lossy": "cannot be decoded",
}


def dicom(path: Path, values: NDArray[Any], *, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Path:
    """Write a DICOM file with values, (height, width) or (height, width, 3), and elements by their keywords.

    ``meta=False`` leaves the file meta information out; a value of None leaves its element out.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    colour = values.ndim > 2 and values.shape[-1] == 3
    height, width = values.shape[-3:-1] if colour else values.shape[-2:]
    header: dict[str, Any] = {"Rows": height, "Columns": width, "SamplesPerPixel": 3 if colour else 1}
    header |= {"PhotometricInterpretation": "RGB" if colour else "MONOCHROME2"}
    header |= {"PlanarConfiguration": 0} if colour else {}
    header |= {"BitsAllocated": values.itemsize * 8, "BitsStored": values.itemsize * 8}
    header |= {"HighBit": values.itemsize * 8 - 1, "PixelRepresentation": int(values.dtype.kind == "i")}
    whole_meta = elements.pop("meta", True)
    for keyword, value in (header | elements).items():
        if value is not None:
            setattr(file, keyword, value)
    big = syntax == ExplicitVRBigEndian
    file.PixelData = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    if values.size * values.itemsize % 2:
        file.PixelData += b"\0"
    file["PixelData"].VR = "OW" if values.itemsize > 1 else "OB"
    if syntax == RLELossless:
        file.compress(RLELossless, values, generate_instance_uid=False)
    if whole_meta:
        pydicom.dcmwrite(path, file, enforce_file_format=True)
    else:
        with path.open("wb") as out:
            stored = Dataset(file)
            del_meta = pydicom.filebase.DicomFileLike(out)
            del_meta.is_implicit_VR, del_meta.is_little_endian = syntax == ImplicitVRLittleEndian, not big
            pydicom.filewriter.write_dataset(del_meta, stored)
    return path


def grey(path: Path, **reading: Any) -> NDArray[np.uint8]:
    """One channel of an image, after a check that all are equal."""
    pixels = np.asarray(read_image(path, **reading))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def rows_of(shared: Path) -> list[dict[str, str]]:
    """The list of the real files, with the decoded values."""
    return list(csv.DictReader((shared / "data" / "dicom" / "index.csv").read_text().splitlines()))


# --- real files -------------------------------------------------------------------------------------------------------


def test_each_real_file_is_read_or_refused_in_a_sentence(shared: Path):
    for row in rows_of(shared):
        path = shared / "data" / "dicom" / row["file"]
        if path.stem in FAULTS or path.stem in WITHOUT_PIXELS:
            fault = FAULTS.get(path.stem, "without pixels|no DICOM image")
            with pytest.raises(DataError, match=f"{re.escape(path.name)}: .*({fault})"):
                read_image(path)
            continue
        facts = inspect(path, any_page=True)
        assert facts.size == (int(row["columns"]), int(row["rows"])), path.name
        assert facts.pages == int(row["frames"] or 1), path.name
        image = read_image(path, page=facts.pages - 1)
        assert (image.size, image.mode) == (facts.size, "RGB")
        assert np.ptp(np.asarray(image)) > 50, path.name


def test_eight_bits_are_the_decoded_values(shared: Path):
    for name in ("color-px", "color-pl", "image_dfl", "SC_rgb_small_odd", "JLSL_RGB_ILV2", "ExplVR_BigEnd"):
        path = shared / "data" / "dicom" / f"{name}.dcm"
        decoded = pixel_array(path) if name != "image_dfl" else pydicom.dcmread(path).pixel_array
        pixels = np.asarray(read_image(path))
        assert np.array_equal(pixels if decoded.ndim == 3 else pixels[..., 0], decoded), name


def test_one_image_in_seven_codings_is_the_same_image(shared: Path):
    paths = list((shared / "data" / "dicom").glob("MR_small*.dcm"))
    assert len(paths) == 7
    assert len({read_image(path).tobytes() for path in paths}) == 1


def test_colours_are_the_same_whatever_their_coding(shared: Path):
    """Bars of known colours: 8 and 16 bits, RGB and YBR, with and without loss."""
    folder = shared / "data" / "dicom"
    wanted = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255)]
    names = ("rgb_16bit", "rgb_rle_16bit", "rgb_jpeg_gdcm", "rgb_jpeg_dcmtk", "ybr_full_422_uncompressed")
    for name in names:
        pixels = np.asarray(read_image(folder / f"SC_{name}.dcm")).astype(int)
        assert np.abs(pixels[5:60:10, 50] - wanted).max() <= 5, name  # JPEG loses a little
    words = np.asarray(read_image(folder / "GDCMJ2K_TextGBR.dcm"))
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= set(map(tuple, words.reshape(-1, 3).tolist()))


def test_a_palette_gives_its_colours(shared: Path):
    path = shared / "data" / "dicom" / "OBXXXX1A_rle.dcm"
    header = pydicom.dcmread(path)
    table = np.frombuffer(header.RedPaletteColorLookupTableData, "<u2")
    assert inspect(path).kinds == ("palette",)
    assert np.abs(np.asarray(read_image(path))[..., 0] - (table[header.pixel_array] / 257)).max() <= 1


def test_the_radiograph_in_which_0_is_white_is_inverted(shared: Path):
    path = shared / "data" / "dicom" / "RG3_J2KI.dcm"
    values = pydicom.dcmread(path).pixel_array
    assert inspect(path).kinds == ("beyond 8 bits", "inverted")
    assert np.corrcoef(values[::16, ::16].ravel(), grey(path)[::16, ::16].ravel())[0, 1] < -0.9
    assert np.array_equal(grey(path, window=(0, 1023)), 255 - scale(values, (0, 1023)))


def test_a_ct_is_shown_in_the_declared_window_of_hounsfield_units(shared: Path):
    path = shared / "data" / "dicom" / "CT_small.dcm"
    stored = pydicom.dcmread(path).pixel_array.astype(int)
    assert np.array_equal(grey(path, window=(-160, 240)), scale(stored - 1024, (-160, 240)))
    assert np.array_equal(grey(path), scale(stored - 1024, grey_range(stored - 1024)))


def test_each_frame_is_a_page_and_alike_in_two_codings(shared: Path):
    plain, packed = (shared / "data" / "dicom" / f"emri_small{end}.dcm" for end in ("", "_jpeg_2k_lossless"))
    frames = [read_image(plain, page=page).tobytes() for page in range(10)]
    assert frames == [read_image(packed, page=page).tobytes() for page in range(10)]
    assert len(set(frames)) == 10
    with pytest.raises(DataError, match="holds 10 pages"):
        read_image(plain)
    with pytest.raises(DataError, match="has no page 10"):
        inspect(plain, 10)


# --- from stored values to greys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_values_are_scaled_to_those_of_the_modality_before_the_window(tmp_path: Path, syntax: str):
    path = dicom(tmp_path / "a.dcm", RAMP, syntax=syntax, RescaleSlope=2, RescaleIntercept=-100)
    assert np.array_equal(grey(path, window=(-500, 500)), scale(RAMP.astype(int) * 2 - 100, (-500, 500)))


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"WindowCenter": 100, "WindowWidth": 401}, lambda v: (v - 99.5) / 400 + 0.5),
        ({"WindowCenter": [100, 9], "WindowWidth": [401, 5]}, lambda v: (v - 99.5) / 400 + 0.5),
        ({"WindowCenter": 100, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, lambda v: (v - 100) / 400 + 0.5),
        (
            {"WindowCenter": 100, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
            lambda v: 1 / (1 + np.exp(-4 * (v - 100) / 400)),
        ),
    ],
)
def test_the_window_of_a_file_is_used_where_none_is_declared(
    tmp_path: Path, elements: dict[str, Any], expected: Callable[[Any], Any]
):
    path = dicom(tmp_path / "a.dcm", RAMP, **elements)
    assert np.abs(grey(path).astype(int) - np.clip(expected(RAMP.astype(float)), 0, 1) * 255).max() <= 0.5 + 1e-6
    assert np.array_equal(grey(path, window=(0, 100)), scale(RAMP, (0, 100)))


def table(first: int, entries: list[int], bits: int) -> Sequence:
    """A sequence of one table of values."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return Sequence([item])


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_lut_is_used_with_all_its_entries(tmp_path: Path, bits: int):
    top = 2**bits - 1
    curve = [round(top * (index / 1999) ** 2) for index in range(2000)]
    path = dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=table(-1000, curve, bits), WindowCenter=0, WindowWidth=10)
    assert np.abs(grey(path).ravel().astype(int) - np.array(curve) / top * 255).max() <= 0.5 + 1e-6


def test_a_modality_lut_is_used(tmp_path: Path):
    values = np.arange(8, dtype=np.uint8).reshape(2, 4)
    path = dicom(tmp_path / "a.dcm", values, ModalityLUTSequence=table(0, [0, 1000, 100, 200, 300, 400, 500, 600], 16))
    assert grey(path, window=(0, 1000))[0].tolist() == [0, 255, 26, 51]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_not_part_of_the_range(tmp_path: Path, kind: str):
    values = np.concatenate([RAMP[10:30], np.full((10, 50), -2000, np.int16)])
    path = dicom(tmp_path / "a.dcm", values, PixelPaddingValue=-2000, PhotometricInterpretation=kind)
    inside = scale(RAMP[10:30], grey_range(RAMP[10:30]))
    assert np.array_equal(grey(path)[:20], inside if kind == "MONOCHROME2" else 255 - inside)
    assert not grey(path)[20:].any()
    ranged = dicom(tmp_path / "b.dcm", values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-200)
    assert not grey(ranged)[values <= -200].any()
    assert grey(ranged)[values > -200].min() == 0 < np.median(grey(ranged)[values > -200])


@pytest.mark.parametrize(("stored", "values"), [(8, [0, 9, 100]), (1, [0, 1, 1]), (4, [0, 15, 3])])
def test_eight_bits_and_less_without_a_window_are_not_stretched(tmp_path: Path, stored: int, values: list[int]):
    path = dicom(tmp_path / "a.dcm", np.array([values] * 2, np.uint8), BitsStored=stored, HighBit=stored - 1)
    assert grey(path)[0].tolist() == [round(value * 255 / (2**stored - 1)) for value in values]
    assert np.array_equal(grey(path), grey(path, window=(0, 5)))


@pytest.mark.parametrize("bits", [10, 12, 16, 32])
@pytest.mark.parametrize("signed", [False, True])
def test_all_depths_are_read(tmp_path: Path, bits: int, signed: bool):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = np.dtype(f"{'i' if signed else 'u'}{4 if bits > 16 else 2}")
    values = np.linspace(low, high, 12).astype(np.int64).astype(kind).reshape(3, 4)
    path = dicom(tmp_path / "a.dcm", values, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(grey(path, window=(low, high)), scale(values, (low, high)))
    assert inspect(path).kinds == ("beyond 8 bits",)


def test_the_functional_groups_of_an_enhanced_file_hold_its_scale_and_window(tmp_path: Path):
    values = np.stack([RAMP, RAMP + 1000])

    def group(slope: float, center: float) -> Dataset:
        scaling, window, whole = Dataset(), Dataset(), Dataset()
        scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = slope, 0, "US"
        window.WindowCenter, window.WindowWidth = center, 1001
        whole.PixelValueTransformationSequence, whole.FrameVOILUTSequence = Sequence([scaling]), Sequence([window])
        return whole

    groups = Sequence([group(1, 0), group(0.5, 400)])
    path = dicom(tmp_path / "a.dcm", values, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    assert np.array_equal(grey(path, page=0), scale(values[0], (-500.5, 499.5)))
    assert np.array_equal(grey(path, page=1), scale(values[1] * 0.5, (-100.5, 899.5)))


def test_files_without_meta_information_are_read_where_the_suffix_says_dicom(tmp_path: Path):
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        path = dicom(tmp_path / "a.IMA", RAMP, syntax=syntax, meta=False)
        assert np.array_equal(grey(path), scale(RAMP, grey_range(RAMP)))
    (tmp_path / "plain").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="no format that Pillow knows"):
        read_image(tmp_path / "plain")


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    for name in ("IM0001", "1.2.840.7", "a.png"):
        path.rename(path := tmp_path / name)
        assert np.array_equal(grey(path), scale(RAMP, grey_range(RAMP)))
        assert list(images_in(tmp_path)) == [path]
    archive = tmp_path / "shard.tar"
    archive.write_bytes(b"x" * 100 + path.read_bytes() + b"y" * 50)
    part = (100, path.stat().st_size)
    assert np.array_equal(grey(archive, part=part, name="hidden"), grey(path))
    assert inspect(archive, part=part, name="hidden").size == (50, 40)


def test_crops_and_options_are_those_of_any_file(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    file = ImageFile(path, region=(10, 5, 30, 15), window=(0, 500))
    assert np.array_equal(np.asarray(file())[..., 0], scale(RAMP, (0, 500))[5:15, 10:30])
    assert read_as(file) != read_as(ImageFile(path, region=(10, 5, 30, 15), window=(0, 400)))


# --- damage -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_half_an_image_is_never_shown(tmp_path: Path, shared: Path, data: st.DataObject):
    names = [
        "CT_small",
        "MR_small_RLE",
        "SC_rgb_jpeg_dcmtk",
        "MR_small_jpeg_ls_lossless",
        "emri_small_jpeg_2k_lossless",
    ]
    names += ["JPEGLSNearLossless_16", "liver_1frame", "image_dfl", "SC_rgb_rle_2frame", "SC_rgb_jpeg_gdcm"]
    path = shared / "data" / "dicom" / f"{data.draw(st.sampled_from(names))}.dcm"
    page = inspect(path, any_page=True).pages - 1
    whole, cut = path.read_bytes(), tmp_path / "cut.dcm"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        image = read_image(cut, page=page)
    except DataError:
        return
    assert image.tobytes() == read_image(path, page=page).tobytes()  # what follows the pixels was cut off


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_is_never_a_traceback(tmp_path: Path, changes: list[tuple[int, int]]):
    path = dicom(tmp_path / "a.dcm", RAMP, WindowCenter=5, WindowWidth=9, RescaleSlope=1, RescaleIntercept=4)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    with suppress(DataError):
        read_image(path)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Rows": None}, "holds no DICOM image|without pixels"),
        ({"Columns": None}, "lacks Columns"),
        ({"BitsAllocated": None}, "lacks BitsAllocated"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation .* none that is read"),
        ({"Columns": 51}, "cannot be decoded"),
        ({"NumberOfFrames": -2}, "NumberOfFrames .* negative"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "WindowWidth .* declare a window"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CURVE"}, "VOILUTFunction .* declare a window"),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, None),
        ({"WindowCenter": "", "WindowWidth": ""}, None),
    ],
)
def test_wrong_metadata_are_named_or_read(tmp_path: Path, elements: dict[str, Any], words: str | None):
    path = dicom(tmp_path / "a.dcm", RAMP, **elements)
    if words is None:
        assert np.array_equal(grey(path), scale(RAMP, grey_range(RAMP)))
    else:
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*({words})"):
            read_image(path)


def test_a_large_image_is_refused_before_it_is_decoded(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP, Rows=60000, Columns=60000)
    with pytest.raises(DataError, match="60000 x 60000 pixels, which are too many"):
        inspect(path)


def test_the_packages_are_named_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = dicom(tmp_path / "a.dcm", RAMP)
    monkeypatch.setattr("vrft.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^reading DICOM files needs pydicom; pip install 'vrft\[dicom\]'\.$"):
        read_image(path)


# --- series -----------------------------------------------------------------------------------------------------------


def series(folder: Path, heights: list[float], **elements: Any) -> Path:
    """A folder with a slice at each height, in this order of names; its pixels hold the height."""
    folder.mkdir(exist_ok=True)
    for index, height in enumerate(heights):
        pixels = np.full((4, 6), round(height), np.int16)
        pixels[0, 0] = 1000
        given = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        given |= {"ImagePositionPatient": [0, 0, height], "InstanceNumber": index + 1}
        dicom(folder / f"{index:03d}", pixels, **(given | elements))
    return folder


def heights_of(folder: Path) -> list[int]:
    pages = inspect(folder, any_page=True).pages
    return [int(grey(folder, page=page, window=(0, 255))[1, 1]) for page in range(pages)]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 200), min_size=2, max_size=6, unique=True))
def test_slices_follow_their_positions_in_the_body(tmp_path_factory: pytest.TempPathFactory, heights: list[int]):
    assert heights_of(series(tmp_path_factory.mktemp("s") / "a", list(heights))) == sorted(heights)


def test_slices_without_positions_follow_their_numbers_then_their_names(tmp_path: Path):
    folder = series(tmp_path / "a", [30, 10, 20], ImagePositionPatient=None)
    assert heights_of(folder) == [30, 10, 20]
    for path, number in zip(sorted(folder.iterdir()), (3, 2, 1), strict=True):
        header = pydicom.dcmread(path)
        header.InstanceNumber = number
        header.save_as(path)
    os.utime(folder, ns=(1, 1))  # as if files had been added
    assert heights_of(folder) == [20, 10, 30]
    assert heights_of(series(tmp_path / "b", [30, 10, 20], ImagePositionPatient=None, InstanceNumber=None)) == [
        30,
        10,
        20,
    ]


def test_a_series_is_inspected_as_a_file_of_pages(tmp_path: Path):
    folder = series(tmp_path / "a", [30, 10])
    (folder / "notes.txt").write_text("no image")
    (folder / ".DS_Store").write_bytes(b"\0")
    facts = inspect(folder, 1)
    assert (facts.size, facts.pages, facts.kinds) == ((6, 4), 2, ("beyond 8 bits", "one of several pages"))
    with pytest.raises(DataError, match="holds 2 pages"):
        inspect(folder)
    with pytest.raises(DataError, match="has no page 2"):
        read_image(folder, page=2)
    with pytest.raises(DataError, match="slices in its own plane alone"):
        read_image(folder, page=0, axis="coronal")


def test_a_folder_of_one_file_is_that_file(tmp_path: Path):
    (tmp_path / "a").mkdir()
    path = dicom(tmp_path / "a" / "x", np.stack([RAMP, -RAMP]), NumberOfFrames=2)
    assert np.array_equal(grey(tmp_path / "a", page=1), grey(path, page=1))
    assert inspect(tmp_path / "a", 1).pages == 2


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"SeriesInstanceUID": "1.2.4"}, "holds 2 DICOM series in 3 files"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "holds 2 directions of slices in 3 files"),
        ({"Columns": 3, "Rows": 8}, "holds 2 sizes of slices in 3 files"),
    ],
)
def test_a_folder_of_several_series_is_refused(tmp_path: Path, elements: dict[str, Any], words: str):
    folder = series(tmp_path / "a", [1, 2, 3])
    header = pydicom.dcmread(folder / "001")
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    header.save_as(folder / "001")
    with pytest.raises(DataError, match=words):
        inspect(folder, 0)


def test_a_folder_without_images_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="is a folder without DICOM images"):
        inspect(tmp_path, 0)


# --- nothing of a header in a message ---------------------------------------------------------------------------------

PLANTED = "ZZPLANTED"


def plant(path: Path, **elements: Any) -> Path:
    """Write a file whose header holds planted values wherever a person or a date stands, and further elements."""
    uid = "1.2.77777"
    block = {"PatientName": f"{PLANTED}^NAME", "PatientID": f"{PLANTED}ID", "StudyDescription": f"{PLANTED} TEXT"}
    block |= {"SeriesInstanceUID": f"{uid}.1", "StudyInstanceUID": f"{uid}.2", "SOPInstanceUID": f"{uid}.3"}
    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings(action="ignore"):
        return dicom(path, RAMP, **(block | elements))


FAULTY: list[dict[str, Any]] = [
    {},
    {"PatientBirthDate": f"{PLANTED}DATE", "StudyDate": f"{PLANTED}DATE"},
    {"SpecificCharacterSet": f"{PLANTED}SET"},
    {"PhotometricInterpretation": f"{PLANTED}"},
    {"VOILUTFunction": PLANTED, "WindowCenter": 4, "WindowWidth": 9},
    {"BurnedInAnnotation": PLANTED},
    {"NumberOfFrames": PLANTED},
    {"WindowCenter": PLANTED, "WindowWidth": 9},
    {"RescaleSlope": PLANTED, "RescaleIntercept": 0},
    {"InstanceNumber": PLANTED, "ImagePositionPatient": [PLANTED] * 3, "ImageOrientationPatient": [PLANTED] * 6},
    {"SeriesInstanceUID": PLANTED, "Columns": 51},
    {"PatientName": b"\xff\xfe" + PLANTED.encode()},
]


@pytest.mark.parametrize("elements", FAULTY, ids=lambda one: "-".join(one) or "valid")
def test_nothing_of_a_header_is_in_a_message(
    tmp_path: Path, elements: dict[str, Any], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with warnings.catch_warnings(action="ignore"):
        path = planted_file(tmp_path / "s" / "a.dcm", elements)
        planted_file(tmp_path / "s" / "b.dcm", elements | {"Rows": 20, "Columns": 100})
    content = path.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[: len(content) // 2])
    (tmp_path / "short.dcm").write_bytes(content[:300])
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    capfd.readouterr()
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for file in (path, tmp_path / "s", tmp_path / "cut.dcm", tmp_path / "short.dcm"):
            for act in (inspect, read_image, burned_in):
                try:
                    result = act(file)
                    said.append(repr(getattr(result, "info", result)))
                except UserError as error:
                    said += ["".join(traceback.format_exception(error)), repr(error.__context__), repr(error.__cause__)]
    said += [str(one.message) for one in caught] + [record.getMessage() for record in caplog.records]
    said += list(capfd.readouterr())
    assert said
    for text in said:
        assert PLANTED not in text
        assert "77777" not in text


def planted_file(path: Path, elements: dict[str, Any]) -> Path:
    """A file with elements whose values need not be valid."""
    path = plant(path)
    header = pydicom.dcmread(path)
    header.private_block(0x0011, PLANTED, create=True).add_new(1, "LO", f"{PLANTED} PRIVATE")
    for keyword, value in elements.items():
        if not isinstance(value, (str, bytes, list)):
            setattr(header, keyword, value)
            continue
        # as bytes, which are not checked
        tag = pydicom.tag.Tag(keyword)
        raw = (
            "\\".join(value).encode()
            if isinstance(value, list)
            else value
            if isinstance(value, bytes)
            else value.encode()
        )
        raw += b" " * (len(raw) % 2)
        kind = pydicom.datadict.dictionary_VR(tag)
        header[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(raw), raw, 0, False, True, True)
    header.save_as(path)
    return path


def test_the_log_of_pydicom_is_silent_only_while_a_file_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    read_image(dicom(tmp_path / "a.dcm", RAMP))
    logging.getLogger("pydicom").warning("of the user's own")
    assert caplog.messages == ["of the user's own"]


def test_the_image_keeps_nothing_of_the_header(tmp_path: Path):
    assert read_image(plant(tmp_path / "a.dcm")).info == {}


@pytest.mark.parametrize(("tag", "expected"), [("YES", True), ("NO", False), (None, None), ("", None)])
def test_burned_in_text_is_known_by_its_tag(tmp_path: Path, tag: str | None, expected: bool | None):
    assert burned_in(dicom(tmp_path / "a.dcm", RAMP, BurnedInAnnotation=tag)) is expected


def test_a_series_has_burned_in_text_where_a_slice_has(tmp_path: Path):
    folder = series(tmp_path / "a", [1, 2], BurnedInAnnotation="NO")
    assert burned_in(folder) is False
    header = pydicom.dcmread(folder / "001")
    header.BurnedInAnnotation = "YES"
    header.save_as(folder / "001")
    assert burned_in(folder) is True


def test_the_decoder_is_that_of_pydicom(shared: Path):
    """16 bits of all codings without loss, in a window of the whole range, are the decoded values."""
    for name in ("JPEG-LL", "JLSL_16_15_1_1F", "JPEGLSNearLossless_16", "MR_small_padded"):
        path = shared / "data" / "dicom" / f"{name}.dcm"
        values = pixel_array(path)
        window = float(values.min()), float(values.max())
        assert np.array_equal(grey(path, window=window), scale(values, window)), name
