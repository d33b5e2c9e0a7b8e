"""NIfTI volumes: planes, orientation, scaling, spacing, volumes of four dimensions, damage and privacy."""

import gzip
import io
import logging
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from vrft.data.annotations import BoxSource
from vrft.data.lookup import check_stems, images_in, stem_of
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError, UserError
from vrft.images import NOT_FINITE, Axis, grey_range, inspect, read_image, scale
from vrft.sample import ImageFile, open_image, read_as, size_of

AXES: list[Axis] = ["axial", "coronal", "sagittal"]

SHAPE = (10, 12, 14)
"""Voxels to the right, to the front and to the head."""

BLOB = (8, 9, 11)
"""A voxel on the right, in front and above the middle."""


def nifti(path: Path, values: NDArray[Any], affine: NDArray[Any] | None = None, **header: Any) -> Path:
    """Write a volume whose axes are those of an affine matrix, else right, front and head with a spacing of 1 mm."""
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def volume() -> NDArray[np.int16]:
    values = np.zeros(SHAPE, np.int16)
    values[BLOB] = 1000
    return values


def brightest(path: Path, page: int, axis: Axis) -> tuple[int, int]:
    """Column and row of the brightest pixel of a slice."""
    pixels = np.asarray(read_image(path, page=page, axis=axis, window=(0, 1000)))[..., 0]
    row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
    assert pixels.max() == 255
    return int(column), int(row)


@pytest.mark.parametrize("order", ["RAS", "LAS", "LPS", "RPI", "SAR", "PIR", "ASL", "IPL"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_place_of_the_body_is_where_radiologists_expect_it(tmp_path: Path, order: str, suffix: str):
    """However the axes are stored: the right of the patient on the left, front and head up."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order))
    stored = nibabel.apply_orientation(volume(), turn)
    path = nifti(tmp_path / f"a{suffix}", stored, np.eye(4) @ inv_ornt_aff(turn, SHAPE))
    right, front, up = BLOB
    assert brightest(path, up, "axial") == (SHAPE[0] - 1 - right, SHAPE[1] - 1 - front)
    assert brightest(path, front, "coronal") == (SHAPE[0] - 1 - right, SHAPE[2] - 1 - up)
    assert brightest(path, right, "sagittal") == (SHAPE[1] - 1 - front, SHAPE[2] - 1 - up)
    for axis, pages in zip(AXES, (14, 12, 10), strict=True):
        assert inspect(path, 0, axis=axis).pages == pages
    with pytest.raises(DataError, match="has no page 14; it holds 14"):
        read_image(path, page=14)
    with pytest.raises(DataError, match="holds 14 pages"):
        inspect(path)


def test_the_nearest_axes_of_an_oblique_volume_are_used(tmp_path: Path):
    angle = np.radians(20)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = nifti(tmp_path / "a.nii", volume(), turned)
    assert brightest(path, BLOB[2], "axial") == (SHAPE[0] - 1 - BLOB[0], SHAPE[1] - 1 - BLOB[1])


def test_a_header_without_orientation_counts_as_stored_from_right_to_left(tmp_path: Path):
    path = nifti(tmp_path / "a.nii", volume())
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    assert brightest(path, BLOB[2], "axial") == (BLOB[0], SHAPE[1] - 1 - BLOB[1])


@pytest.mark.parametrize(("axis", "size"), [("axial", (10, 12)), ("coronal", (10, 42)), ("sagittal", (12, 42))])
def test_pixels_are_made_square(tmp_path: Path, axis: Axis, size: tuple[int, int]):
    path = nifti(tmp_path / "a.nii", volume(), np.diag([1, 1, 3, 1]))
    assert inspect(path, 0, axis=axis).size == read_image(path, page=0, axis=axis).size == size
    assert size_of(ImageFile(path, page=0, axis=axis)) == size
    nearly = nifti(tmp_path / "b.nii", volume(), np.diag([1, 1, 1.005, 1]))
    assert inspect(nearly, 0, axis="coronal").size == (10, 14)


def test_a_stretched_blob_stays_where_it_is(tmp_path: Path):
    path = nifti(tmp_path / "a.nii", volume(), np.diag([1, 1, 3, 1]))
    pixels = np.asarray(read_image(path, page=BLOB[1], axis="coronal", window=(0, 1000)))[..., 0]
    rows, columns = np.nonzero(pixels > 100)
    assert set(columns) == {SHAPE[0] - 1 - BLOB[0]}
    assert rows.mean() == 3 * (SHAPE[2] - 1 - BLOB[2]) + 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    st.sampled_from([(None, None), (2.5, -100)]),
    st.sampled_from(["<", ">"]),
    st.integers(0, 4),
    st.sampled_from(AXES),
)
def test_values_are_scaled_as_the_header_says(
    tmp_path: Path, kind: Any, scaling: tuple[Any, Any], order: str, page: int, axis: Axis
):
    stored = np.random.default_rng(0).integers(-120, 120, (5, 6, 7)).astype(kind)
    header = nibabel.Nifti1Image(stored, np.eye(4), nibabel.Nifti1Header(endianness=order)).header
    header.set_data_dtype(kind)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    if scaling[0] is not None:
        header["scl_slope"], header["scl_inter"] = scaling
    path = tmp_path / "a.nii"
    path.write_bytes(
        header.binaryblock + b"\0" * 4 + stored.astype(stored.dtype.newbyteorder(order)).tobytes(order="F")
    )
    values = stored.astype(float) * (scaling[0] or 1) + (scaling[1] or 0)
    across = {"sagittal": 0, "coronal": 1, "axial": 2}[axis]
    plane = values.take(page, axis=across)[::-1, ::-1].T
    pixels = np.asarray(read_image(path, page=page, axis=axis, window=(-300, 200)))[..., 0]
    assert np.array_equal(pixels, scale(plane, (-300, 200)))
    own = np.asarray(read_image(path, page=page, axis=axis))[..., 0]
    assert np.abs(own.astype(int) - scale(plane, grey_range(plane))).max() <= 1


def test_bytes_are_not_stretched_and_colours_stay(tmp_path: Path):
    path = nifti(tmp_path / "a.nii", (np.arange(24, dtype=np.uint8) * 4).reshape(2, 3, 4))
    assert np.asarray(read_image(path, page=3, window=(0, 9)))[..., 0].max() == 92
    assert inspect(path, 0).kinds == ("one of several pages",)
    colours = np.zeros((2, 3, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours[1, 2, 0] = (10, 20, 30)  # right and in front
    path = nifti(tmp_path / "b.nii", colours)
    assert np.asarray(read_image(path))[0, 0].tolist() == [10, 20, 30]


def test_values_that_are_no_numbers_are_black_and_counted(tmp_path: Path):
    values = volume().astype(np.float32)
    values[0, 0, 3] = np.nan
    image = read_image(nifti(tmp_path / "a.nii", values), page=3)
    assert image.info == {NOT_FINITE: 1}
    assert image.getpixel((SHAPE[0] - 1, SHAPE[1] - 1)) == (0, 0, 0)


def test_the_pages_of_several_volumes_are_counted_in_turn(tmp_path: Path):
    values = np.stack([volume(), np.roll(volume(), 2, axis=0)], axis=3)
    path = nifti(tmp_path / "a.nii.gz", values)
    assert inspect(path, 0).pages == 28
    assert inspect(path, 0, axis="sagittal").pages == 20
    assert brightest(path, BLOB[2], "axial")[0] == SHAPE[0] - 1 - BLOB[0]
    assert brightest(path, 14 + BLOB[2], "axial")[0] == SHAPE[0] - 1 - (BLOB[0] + 2) % SHAPE[0]


@pytest.mark.parametrize("shape", [(10, 12), (10, 12, 1), (10, 12, 1, 1, 1)])
def test_a_single_slice_needs_no_page(tmp_path: Path, shape: tuple[int, ...]):
    path = nifti(tmp_path / "a.nii", np.arange(120, dtype=np.int16).reshape(shape))
    assert inspect(path).size == read_image(path).size == (10, 12)
    assert read_image(path, page=11, axis="coronal").size == (10, 1)


@pytest.mark.parametrize(
    ("values", "header", "words"),
    [
        (np.zeros((2, 2, 2, 2, 3), np.int16), {}, "has 5 dimensions"),
        (np.zeros((2, 2, 2), np.complex64), {}, "complex numbers"),
        (np.zeros((2, 2, 2), np.int16), {"magic": b"ni1"}, r"pair of files"),
        (np.zeros((2, 2, 2), np.int16), {"datatype": 999}, "no NIfTI file, or damaged"),
        (np.zeros((2, 2, 2), np.int16), {"dim": [3, -1, 2, 2, 1, 1, 1, 1]}, "damaged|dimensions"),
        (np.zeros((2, 2, 2), np.int16), {"srow_x": [0, 0, 0, 0]}, "states no axes"),
        (np.zeros((2, 2, 2), np.int16), {"srow_x": [np.nan] * 4}, "states no axes"),
    ],
)
def test_unusable_volumes_are_named(tmp_path: Path, values: Any, header: dict[str, Any], words: str):
    path = nifti(tmp_path / "a.nii", values)
    changed = nibabel.load(path).header.copy()
    for key, value in header.items():
        changed[key] = value
    path.write_bytes(changed.binaryblock + path.read_bytes()[348:])
    for act in (inspect, read_image):
        with pytest.raises(DataError, match=f"a.nii: .*({words})"):
            act(path, page=0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".nii", ".nii.gz"]), st.sampled_from(AXES), st.floats(0, 0.999))
def test_a_volume_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, axis: Axis, share: float):
    path = tmp_path / f"a{suffix}"
    if not path.exists():
        nifti(path, np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16))
    cut, whole = tmp_path / f"cut{suffix}", path.read_bytes()
    cut.write_bytes(whole[: int(share * len(whole))])
    last = inspect(path, any_page=True, axis=axis).pages - 1
    with pytest.raises(DataError, match="cut"):
        read_image(cut, page=last, axis=axis)


def test_only_the_slice_is_read_where_a_file_is_not_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = nifti(tmp_path / "a.nii", np.zeros((50, 50, 50), np.int16))
    taken = list[int]()

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            taken.append(super().readinto(buffer) or 0)
            return taken[-1]

        def read(self, size: int = -1) -> bytes:
            taken.append(len(data := super().read(size)))
            return data

    monkeypatch.setattr("vrft.images.reading.open_file", lambda path, _: Counting(path))
    read_image(path, page=20)
    slice_bytes = 50 * 50 * 2
    assert slice_bytes <= sum(taken) < 3 * slice_bytes


def test_names_lose_both_suffixes(tmp_path: Path):
    path = nifti(tmp_path / "a.nii.gz", volume())
    assert list(images_in(tmp_path)) == [path]
    assert (stem_of(path), stem_of(Path("b.1.NII.GZ")), stem_of(Path("c.tar.gz"))) == ("a", "b.1", "c.tar")
    with pytest.raises(DataError, match=r"a\.png: a\.nii\.gz beside it has the same stem"):
        check_stems([path, tmp_path / "a.png"])


def test_labels_of_yolo_lie_beside_a_compressed_volume(tmp_path: Path):
    for part in ("images", "labels"):
        (tmp_path / "train" / part).mkdir(parents=True)
    nifti(tmp_path / "train" / "images" / "a.nii.gz", volume()[:, :, 11:12])
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("names: [mass]")
    source = BoxSource(YOLOReader(tmp_path), kind="localization", window=(0, 1000))
    (sample,) = source.samples("train")
    assert (sample.id, sample.target) == ("a", ((2.5, 3.0, 7.5, 9.0),))
    assert np.asarray(open_image(sample.images[0])).max() == 255


def test_a_volume_is_known_by_its_content(tmp_path: Path):
    path = nifti(tmp_path / "a.nii.gz", volume())
    pixels = read_image(path, page=BLOB[2]).tobytes()
    (tmp_path / "b.nii").write_bytes(gzip.decompress(path.read_bytes()))
    for name, content in (
        ("c", path.read_bytes()),
        ("d.nii", path.read_bytes()),
        ("e", (tmp_path / "b.nii").read_bytes()),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_image(tmp_path / name, page=BLOB[2]).tobytes() == pixels
    archive, part = tmp_path / "x.tar", (7, path.stat().st_size)
    archive.write_bytes(b"x" * 7 + path.read_bytes() + b"y")
    assert read_image(archive, part=part, name="hidden", page=BLOB[2]).tobytes() == pixels


def test_another_axis_is_another_image(tmp_path: Path):
    path = nifti(tmp_path / "a.nii", volume())
    one, other = (ImageFile(path, page=5, axis=axis) for axis in ("axial", "coronal"))
    assert read_as(one) != read_as(other)
    assert one().size != other().size


def test_the_real_volumes_are_read(shared: Path):
    pages = {"anatomical.nii": 25, "functional.nii": 60, "example4d.nii.gz": 48, "example_nifti2.nii.gz": 24}
    for name, count in pages.items():
        path = shared / "data" / "nifti" / name
        assert inspect(path, any_page=True).pages == count
        canonical = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(canonical.dataobj)
        values = values.reshape(*values.shape[:3], -1)
        for axis, across in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
            page = inspect(path, any_page=True, axis=axis).pages - 1
            plane = values[..., -1].take(-1, axis=across)[::-1, ::-1].T
            window = float(values.min()), float(values.max())
            image = read_image(path, page=page, axis=axis, window=window)
            if image.size == plane.shape[::-1]:
                assert np.array_equal(np.asarray(image)[..., 0], scale(plane, window)), (name, axis)
            else:
                assert abs(float(np.asarray(image).mean()) - float(scale(plane, window).mean())) < 3, (name, axis)


@pytest.mark.parametrize("spoilt", ["", "qfac", "datatype", "cut"])
def test_nothing_of_a_header_is_in_a_message(
    tmp_path: Path, spoilt: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    planted = "ZZPLANTED"
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header["descrip"] = image.header["db_name"] = image.header["aux_file"] = planted
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", planted.encode()))
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    changes: dict[str, Callable[[], None]] = {
        "qfac": lambda: content.__setitem__(slice(76, 80), b"\0\0\x40\x40"),
        "datatype": lambda: content.__setitem__(slice(70, 72), b"\xff\x0f"),
        "cut": lambda: content.__delitem__(slice(500, None)),
    }
    changes.get(spoilt, lambda: None)()
    path.write_bytes(content)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    said = list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for act in (inspect, read_image):
            try:
                said.append(repr(getattr(act(path, page=3), "info", "")))
            except UserError as error:
                said += ["".join(traceback.format_exception(error)), repr(error.__context__), repr(error.__cause__)]
    said += [str(one.message) for one in caught] + caplog.messages + list(capfd.readouterr())
    assert not any(planted in text for text in said)
    assert not caplog.messages
    assert not caught
