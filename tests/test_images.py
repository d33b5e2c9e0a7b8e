"""Every kind of image file becomes the picture that a policy sees, and none becomes a blank one without a word."""

import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vrft.boxes import clip
from vrft.data.annotations import Annotation, BoxSource, Record, upright
from vrft.data.coco import COCOReader
from vrft.errors import DataError
from vrft.images import (
    BLANK,
    NOT_FINITE,
    TURNS,
    image_warnings,
    inspect,
    inspect_bytes,
    is_blank,
    read_image,
    scale,
    upright_box,
)
from vrft.sample import ImageFile, Sample, file_of, open_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def seen(path: Path, **options) -> np.ndarray:
    image = read_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_of(path: Path, **options) -> np.ndarray:
    pixels = seen(path, **options)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def oriented(path: Path, image: Image.Image, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def png(path: Path, width: int, height: int, colour_type: int, values: np.ndarray, *, bits: int = 16) -> Path:
    """A PNG that Pillow does not write: values of 16 bits, (height, width, channels)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.reshape(height, -1))
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def lesion(background: int, found: int, dtype: type = np.uint16, size: int = 100, side: int = 5) -> np.ndarray:
    """A noisy background with one lesion, a quarter of a percent of the pixels."""
    pixels = np.random.default_rng(1).integers(background - 20, background + 21, (size, size)).astype(dtype)
    pixels[10 : 10 + side, 20 : 20 + side] = found
    return pixels


# --- 8 bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.jpg", "a.webp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_eight_bits_stay_as_they_are(tmp_path, name, pixels):
    path = saved(tmp_path / name, pixels)
    with Image.open(path) as image:
        assert np.array_equal(seen(path), np.asarray(image.convert("RGB")))
    assert np.array_equal(seen(path, window=(50, 60)), seen(path))  # a window is of files with more than 8 bits


def test_a_palette_gives_its_colours_and_one_bit_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    for name, options in (("a.png", {}), ("b.png", {"transparency": 1}), ("c.png", {"transparency": b"\x00\x10\xff"})):
        image.save(tmp_path / name, **options)
        assert seen(tmp_path / name).tolist() == [[[0, 0, 0], [10, 20, 30]], [[200, 100, 50], [10, 20, 30]]]
    bits = saved(tmp_path / "bits.png", np.array([[True, False]]))
    assert grey_of(bits).tolist() == [[255, 0]]
    assert inspect(bits).kinds == ("1 bit",)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_what_lies_below_transparency_is_seen(tmp_path, alpha):
    for pixels in (GREY[..., None], COLOUR):
        covered = np.concatenate([pixels, np.full((6, 8, 1), alpha, np.uint8)], axis=2)
        path = saved(tmp_path / "a.png", covered)
        assert np.array_equal(seen(path), np.broadcast_to(pixels, (6, 8, 3)))
        assert inspect(path).kinds == ("transparency",)


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (20, 255)])
def test_what_is_drawn_by_transparency_alone_is_seen(tmp_path, ink, ground):
    alpha = np.zeros((6, 8), np.uint8)
    alpha[2:4, 3:5] = 255
    path = saved(tmp_path / "a.png", np.stack([np.full((6, 8), ink, np.uint8)] * 3 + [alpha], axis=2))
    grey = grey_of(path)
    assert (grey[2, 3], grey[0, 0]) == (ink, ground)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colours_are_converted(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode != "LAB" else "a.tif")
    red = Image.new("RGB", (16, 16), (220, 40, 30))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        red = ImageCms.profileToProfile(red, *profiles, outputMode="LAB")
    (red.convert("CMYK") if mode == "CMYK" else red).save(path)
    assert np.abs(seen(path).astype(int) - (220, 40, 30)).max() < 12
    assert ("CMYK" in inspect(path).kinds) == (mode == "CMYK")


# --- more than 8 bits -------------------------------------------------------------------------------------------------


def test_a_small_lesion_of_a_12_bit_image_is_brighter_than_all_around_it(tmp_path):
    grey = grey_of(saved(tmp_path / "a.png", lesion(900, 3000)))
    inside = grey[10:15, 20:25]
    outside = np.delete(grey.ravel(), [y * 100 + x for y in range(10, 15) for x in range(20, 25)])
    assert inside.min() == 255
    assert outside.max() < 150
    assert np.ptp(outside) > 80


def test_two_values_are_two_greys_however_few_pixels_hold_one(tmp_path):
    pixels = np.full((100, 100), 900, np.uint16)
    pixels[3, 4] = 3000
    grey = grey_of(saved(tmp_path / "a.png", pixels))
    assert (grey[3, 4], grey[0, 0]) == (255, 0)


def test_a_dead_pixel_does_not_take_the_contrast_of_the_rest(tmp_path):
    pixels = np.tile(np.arange(1000, 2000, dtype=np.uint16), (100, 1))
    pixels[0, 0] = 65535
    grey = grey_of(saved(tmp_path / "a.png", pixels))
    assert grey[1].max() - grey[1].min() >= 85
    assert grey[0, 0] == 255


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.int32), ("a.tif", np.float32), ("a.tif", ">u2")],
)
def test_a_declared_window_says_what_is_black_and_white(tmp_path, name, dtype):
    path = saved(tmp_path / name, np.array([[0, 100, 150, 200, 5000]], dtype))
    assert grey_of(path, window=(100, 200)).tolist() == [[0, 0, 128, 255, 255]]
    assert inspect(path).kinds == ("beyond 8 bits",)


def test_whole_numbers_that_need_8_bits_are_taken_as_they_are(tmp_path):
    for dtype in (np.uint16, np.int32, np.float32):
        assert grey_of(saved(tmp_path / "a.tif", np.array([[0, 7, 200]], dtype))).tolist() == [[0, 7, 200]]
    for values in ([0, 1, 1], [0, 2, 3]):  # a dark picture would look blank
        assert grey_of(saved(tmp_path / "a.tif", np.array([values], np.uint16))).max() == 255


def test_negative_and_fractional_values_are_scaled(tmp_path):
    assert grey_of(saved(tmp_path / "a.tif", np.array([[-1000, 0, 1000]], np.int32))).tolist() == [[0, 128, 255]]
    assert grey_of(saved(tmp_path / "b.tif", np.array([[0.25, 0.5, 0.75]], np.float32))).tolist() == [[0, 128, 255]]


def test_what_is_no_number_is_black_and_reported(tmp_path):
    path = saved(tmp_path / "a.tif", np.array([[np.nan, 0.0, 0.5, 1.0, np.inf, -np.inf]], np.float32))
    image = read_image(path, region=(0, 0, 6, 1))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]
    assert image_warnings(image) == [NOT_FINITE]
    nothing = read_image(saved(tmp_path / "b.tif", np.full((2, 2), np.nan, np.float32)))
    assert image_warnings(nothing) == [BLANK, NOT_FINITE]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_where_0_is_white_the_picture_is_inverted(tmp_path, dtype):
    image = Image.fromarray(np.array([[0, 100, 200]], dtype))
    image.save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entry = data.index(struct.pack("<HHI", 262, 3, 1))  # PhotometricInterpretation
    data[entry + 8 : entry + 10] = struct.pack("<H", 0)
    (tmp_path / "a.tif").write_bytes(data)
    assert grey_of(tmp_path / "a.tif").tolist() == [[255, 155, 55]]


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_all_16_bits_of_several_channels_count(tmp_path, colour_type, channels):
    values = np.full((20, 30, channels), 900, np.uint16)
    values[5:10, 5:15] = 3000
    if channels != 3:
        values[..., -1] = 65535
    path = png(tmp_path / "a.png", 30, 20, colour_type, values)
    assert "beyond 8 bits" in inspect(path).kinds
    grey = grey_of(path)
    assert (grey[7, 7], grey[0, 0]) == (255, 0)
    assert grey_of(path, window=(800, 1000))[0, 0] == 128


def test_the_channels_of_16_bit_colour_share_one_range(tmp_path):
    values = np.zeros((1, 3, 3), np.uint16)
    values[0] = [[0, 0, 0], [4000, 2000, 1000], [4000, 4000, 4000]]
    assert seen(png(tmp_path / "a.png", 3, 1, 2, values))[0, 1].tolist() == [255, 128, 64]


def test_a_scale_has_no_range_where_all_is_one_value():
    assert scale(np.array([900, 900]), (900, 900)).tolist() == [0, 0]
    assert scale(np.array([[-3.4e38, 3.4e38]], np.float32), (-3.4e38, 3.4e38)).tolist() == [[0, 255]]


# --- orientation ------------------------------------------------------------------------------------------------------


def corner(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A picture that looks different in all eight orientations."""
    image = Image.new("L", size)
    ImageDraw.Draw(image).rectangle((4, 6, 24, 14), fill=250)
    ImageDraw.Draw(image).rectangle((40, 30, 45, 33), fill=120)
    return image


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_and_so_is_its_size(tmp_path, name, orientation):
    path = oriented(tmp_path / name, corner(), orientation)
    image, facts = read_image(path), inspect(path)
    wanted = corner().transpose(TURNS[orientation]) if orientation > 1 else corner()
    assert image.size == facts.size == wanted.size
    assert (facts.stored, facts.orientation) == ((60, 40), orientation)
    assert ("turned by EXIF" in facts.kinds) == (orientation > 1)
    assert np.abs(np.asarray(image.convert("L")).astype(int) - np.asarray(wanted)).mean() < 4
    assert inspect_bytes(path.read_bytes(), path) == facts


def test_a_16_bit_picture_is_turned_too(tmp_path):
    for name in ("a.png", "a.tif"):
        path = oriented(tmp_path / name, Image.fromarray(lesion(900, 3000)[:, :60]), 6)
        grey = grey_of(path)
        assert grey.shape == (60, 100)
        assert (grey[20:25, 85:90] == 255).all()


@given(
    st.integers(1, 8),
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(1, 12), st.integers(1, 12)),
)
def test_a_box_that_is_turned_with_its_picture_covers_the_same_pixels(orientation, size, numbers):
    x1, y1, wide, high = numbers
    x1, y1, x2, y2 = map(int, clip((x1, y1, x1 + wide, y1 + high), size))
    stored = np.arange(size[0] * size[1], dtype=np.int32).reshape(size[1], size[0])
    picture = Image.fromarray(stored)
    turned = np.asarray(picture.transpose(TURNS[orientation]) if orientation > 1 else picture)
    a, b, c, d = map(int, upright_box((x1, y1, x2, y2), size, orientation))
    assert sorted(turned[b:d, a:c].ravel()) == sorted(stored[y1:y2, x1:x2].ravel())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_follow_the_size_that_their_annotation_states(tmp_path, orientation):
    path = oriented(tmp_path / "a.png", corner(), orientation)
    facts = inspect(path)
    box = (4, 6, 25, 15)  # of the stored picture
    for stated, given_box in ((facts.stored, box), (facts.size, upright_box(box, facts.stored, orientation))):
        if stated == facts.size and facts.size == facts.stored and stated == facts.stored and orientation > 1:
            given_box = upright_box(box, facts.stored, orientation)  # what could be both is upright
        counts: Counter[str] = Counter()
        record = Record(path, facts.size, (Annotation("x", given_box),), stated)
        (annotation,) = upright(record, facts, counts).annotations
        a, b, c, d = map(int, annotation.box)
        assert np.asarray(read_image(path).convert("L"))[b:d, a:c].min() == 250
        assert counts["boxes turned by EXIF"] == (stated != facts.size)
        assert counts["turned by EXIF"] == (orientation > 1)


@pytest.mark.parametrize("stated", [None, (48, 64), (64, 48), (7, 7)])
def test_a_coco_set_with_a_turned_image(tmp_path, stated):
    image = Image.new("L", (64, 48))
    ImageDraw.Draw(image).rectangle((10, 20, 29, 39), fill=255)
    (tmp_path / "train").mkdir()
    oriented(tmp_path / "train" / "a.jpg", image, 6)
    upright_xywh, stored_xywh = [8, 10, 20, 20], [10, 20, 20, 20]
    size = {} if stated is None else {"width": stated[0], "height": stated[1]}
    content = {
        "categories": [{"id": 1, "name": "mass"}],
        "images": [{"id": 1, "file_name": "a.jpg", **size}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": stored_xywh if stated == (64, 48) else upright_xywh}
        ],
    }
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    source = BoxSource(COCOReader(tmp_path), kind="localization")
    (sample,) = source.samples("train")
    assert sample.target == ((8, 10, 28, 30),)
    assert np.asarray(open_image(sample.images[0]).convert("L"))[10:30, 8:28].mean() > 240
    assert source.counts["train"]["size differs"] == (stated == (7, 7))


# --- files ------------------------------------------------------------------------------------------------------------


def pages(path: Path, count: int = 3) -> Path:
    first, *others = (Image.new("L", (10, 8), 40 * number + 10) for number in range(count))
    first.save(path, save_all=True, append_images=others)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_several_pages_are_refused_unless_one_is_named(tmp_path, name):
    path = pages(tmp_path / name)
    for look in (read_image, inspect):
        with pytest.raises(DataError, match=rf"{name}: holds 3 pages.* from 0 to 2 .*data\.page"):
            look(path)
        with pytest.raises(DataError, match="has no page 3; it holds 3"):
            look(path, page=3)
    means = [grey_of(path, page=page).mean() for page in range(3)]
    assert np.abs(np.array(means) - (10, 50, 90)).max() < 4
    assert inspect(path, any_page=True).kinds[-1] == "one of several pages"


def test_page_0_of_a_file_with_one_is_that_file(tmp_path):
    path = saved(tmp_path / "a.tif", GREY)
    assert np.array_equal(seen(path, page=0), seen(path))
    with pytest.raises(DataError, match="has no page 1; it holds 1"):
        seen(path, page=1)


def test_of_a_jpeg_with_several_pictures_the_first_is_read(tmp_path):
    first, second = (Image.fromarray(COLOUR).resize((64, 48)), Image.new("RGB", (8, 8)))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    path = (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read_image(path).size == (64, 48)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp"])
def test_a_file_that_is_cut_off_is_refused_and_named(tmp_path, name):
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / name, pixels)
    whole = path.read_bytes()
    for length in (0, 1, 20, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"{name}: cannot be read as an image"):
            read_image(path)


def test_damaged_files_are_named_whatever_pillow_raises(tmp_path):
    rng = np.random.default_rng(3)
    for suffix in ("png", "jpg", "tif", "gif", "webp"):
        buffer = io.BytesIO()
        image = Image.fromarray(COLOUR).resize((40, 30))
        image.save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(0, len(data), 5):
                data[place] = rng.integers(256)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(data)
            for look in (read_image, inspect):
                try:
                    look(path)
                except DataError as error:
                    assert path.name in str(error)  # noqa: PT017


def test_a_missing_file_and_one_with_too_many_pixels_are_named(tmp_path, monkeypatch):
    for look in (read_image, inspect):
        with pytest.raises(DataError, match=r"a\.png: cannot be read as an image \(No such file or directory\)"):
            look(tmp_path / "a.png")
    path = saved(tmp_path / "b.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"b\.png: .*exceeds limit.*make it smaller"):
        read_image(path)


def test_damaged_exif_is_no_reason_to_refuse_a_picture(tmp_path):
    path = tmp_path / "a.jpg"
    corner().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(path).size == inspect(path).size == (60, 40)


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_one_value_in_each_channel_is_a_blank_picture():
    assert is_blank(Image.new("RGB", (4, 4), (10, 20, 30)))
    picture = Image.new("RGB", (4, 4))
    picture.putpixel((1, 2), (0, 0, 1))
    assert not is_blank(picture)
    assert not is_blank(Image.fromarray(GREY))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_large_picture_is_read_without_a_word_and_a_larger_one_refused(tmp_path, monkeypatch, recwarn):
    path = saved(tmp_path / "a.png", GREY)
    pixels = int(np.prod(GREY.shape))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels - 1)
    assert read_image(path, region=(0, 0, GREY.shape[1], GREY.shape[0])).size == inspect(path).size
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels // 2 - 1)
    with pytest.raises(DataError, match="make it smaller"):
        read_image(path)


def test_the_end_of_the_memory_is_no_fault_of_a_file(tmp_path, monkeypatch):
    def end(*_):
        raise MemoryError

    path = saved(tmp_path / "a.png", GREY)
    monkeypatch.setattr("vrft.images.pillow._rgb", end)
    with pytest.raises(MemoryError):
        read_image(path)


@pytest.mark.parametrize("read", [inspect, read_image])
def test_a_name_with_a_zero_byte_is_reported(read):
    with pytest.raises(DataError, match=r"cannot be read as an image .*null"):
        read(Path("a\0.png"))


def test_a_sample_tells_its_file_and_how_it_is_read(tmp_path):
    path = saved(tmp_path / "a.tif", np.array([[0, 500, 1000]], np.uint16))
    read = ImageFile(path, (1, 0, 3, 1), window=(0, 1000))
    sample = Sample("a", read, "What?", "x", "train")
    assert np.asarray(open_image(sample.images[0]))[0, :, 0].tolist() == [128, 255]
    assert file_of(sample.images[0]) == read
    assert file_of(Sample("a", path, "What?", "x", "train").images[0]) == ImageFile(path)
    assert file_of(Sample("a", lambda: Image.new("L", (1, 1)), "What?", "x", "train").images[0]) is None


def test_the_unusual_files_of_pillow_are_read_or_named(shared: Path):
    folder = shared / "data" / "odd_images"
    broken = {"broken.png", "broken_data_stream.png", "truncated_end_chunk.png", "truncated_image.png"}
    broken.add("truncated_jpeg.jpg")
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".png", ".jpg", ".tif"):
            continue
        if path.name in broken:
            with pytest.raises(DataError, match=path.name):
                read_image(path)
        else:
            assert np.ptp(seen(path)) >= 100, path.name
