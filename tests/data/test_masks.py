"""Masks keep their integers: palettes, 16 bits, 1 bit, grey and lossy ones, void, and values that no class has."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrft.data.annotations import BoxSource, Record
from vrft.data.masks import MaskReader
from vrft.data.splits import SPLITS, in_split
from vrft.data.table import Columns, TableReader
from vrft.errors import DataError

LIVER, TUMOUR = (5, 4, 15, 14), (20, 8, 30, 18)
CLASSES = {1: "liver", 2: "tumour"}


def values(*pairs: tuple[int, tuple[int, int, int, int]], dtype: type = np.uint8) -> np.ndarray:
    """A mask of 40 x 30 with rectangles of values."""
    mask = np.zeros((30, 40), dtype)
    for value, (x1, y1, x2, y2) in pairs:
        mask[y1:y2, x1:x2] = value
    return mask


def palette(mask: np.ndarray) -> Image.Image:
    """The colours of VOC, none of whose grey values is the number of its class."""
    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [224, 224, 192] * 252)
    return image


def pair(folder: Path, mask: Image.Image, image: Image.Image | None = None, name: str = "a.png", **options) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(exist_ok=True)
    (image or Image.new("RGB", mask.size)).save(folder / "images" / "a.jpg", **options)
    mask.save(folder / "masks" / name)
    return folder


def records(folder: Path, **options) -> tuple[list[Record], Counter[str]]:
    reader = MaskReader(folder / "images", folder / "masks", **({"classes": CLASSES} | options))
    counts: Counter[str] = Counter()
    return [record for split in SPLITS for record in reader.read(split, counts)], counts


def boxes(folder: Path, **options) -> dict[str, tuple[float, ...]]:
    (record,), _ = records(folder, **options)
    return {one.label: one.box for one in record.annotations}


BOTH = values((1, LIVER), (2, TUMOUR))


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (palette(BOTH), "a.png"),
        (palette(BOTH), "a.tif"),
        (Image.fromarray(BOTH), "a.png"),
        (Image.fromarray(BOTH.astype(np.uint16)), "a.png"),
        (Image.fromarray(BOTH.astype(np.int32)), "a.tif"),
        (Image.fromarray(BOTH.astype(np.float32)), "a.tif"),
        (Image.fromarray(np.stack([BOTH] * 3, axis=2)), "a.png"),
        (Image.fromarray(np.stack([BOTH, np.full_like(BOTH, 255)], axis=2)), "a.png"),
        (Image.fromarray(np.stack([BOTH] * 3 + [np.full_like(BOTH, 255)], axis=2)), "a.png"),
    ],
    ids=["palette", "palette-tiff", "grey", "16-bit", "32-bit", "float", "rgb", "grey-alpha", "rgba"],
)
def test_a_mask_holds_numbers_of_classes_however_it_is_saved(tmp_path, mask, name):
    assert boxes(pair(tmp_path, mask, name=name)) == {"liver": LIVER, "tumour": TUMOUR}


def test_16_bit_values_are_kept(tmp_path):
    mask = values((300, LIVER), (1000, TUMOUR), dtype=np.uint16)
    assert boxes(pair(tmp_path, Image.fromarray(mask)), classes={300: "liver", 1000: "tumour"}) == {
        "liver": LIVER,
        "tumour": TUMOUR,
    }


@pytest.mark.parametrize("value", [1, 255])
def test_1_bit_is_the_class_1_or_255(tmp_path, value):
    folder = pair(tmp_path, Image.fromarray(values((1, LIVER)).astype(bool)))
    assert boxes(folder, classes={value: "liver"}) == {"liver": LIVER}


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_levels_of_grey_may_be_lossy(tmp_path, name):
    mask = values((120, LIVER), (250, TUMOUR))
    mask[5, 6], mask[0, 0] = 133, 9
    folder = pair(tmp_path, Image.fromarray(mask), name=name)
    found = boxes(folder, classes={128: "liver", 255: "tumour"}, least_area=40)
    assert list(found) == ["liver", "tumour"]
    assert np.abs(np.subtract(found["liver"], LIVER)).max() <= 1


def test_a_declared_void_is_neither_class_nor_background(tmp_path):
    mask = values((255, (4, 3, 16, 15)), (1, LIVER), (255, (19, 7, 31, 19)), (2, TUMOUR), (255, (24, 8, 25, 18)))
    for number, image in enumerate((palette(mask), Image.fromarray(mask), Image.fromarray(mask.astype(np.uint16)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (record,), counts = records(pair(folder, image), void=255)
        assert [one.box for one in record.annotations] == [LIVER, (20, 8, 24, 18), (25, 8, 30, 18)]
        assert not [what for what in counts if "no class" in what]


def test_an_image_of_void_alone_is_no_statement_that_nothing_is_there(tmp_path):
    (record,), _ = records(pair(tmp_path, palette(values((255, LIVER)))), void=255)
    assert record.unsure == "only void"
    (record,), _ = records(pair(tmp_path, palette(values())), void=255)
    assert (record.annotations, record.left_out, record.unsure) == ((), (), "")


def test_void_is_no_value_of_a_class(tmp_path):
    with pytest.raises(DataError, match=r"data\.void is 1, the value of the class 'liver'"):
        MaskReader(tmp_path, tmp_path, classes=CLASSES, void=1)


def test_values_that_no_class_has_are_counted_by_name(tmp_path):
    mask = values((1, LIVER), (3, TUMOUR))
    mask[0, 0] = 255
    for image in (palette(mask), Image.fromarray(mask)):
        (record,), counts = records(pair(tmp_path, image))
        assert [one.label for one in record.annotations] == ["liver"]
        assert counts == {"masks with 3, which no class has": 1, "masks with 255, which no class has": 1}
    many = values((1, LIVER))
    many[20, :30] = np.arange(10, 40)
    assert records(pair(tmp_path, palette(many)))[1] == {"masks with more than 8 values that no class has": 1}


def test_a_level_far_above_the_highest_class_is_none(tmp_path):
    (record,), counts = records(
        pair(tmp_path, Image.fromarray(values((60, LIVER), (255, TUMOUR)))), classes={64: "liver"}
    )
    assert [one.label for one in record.annotations] == ["liver"]
    assert counts == {"masks with 255, which no class has": 1}


def test_masks_without_any_class_and_with_other_values_are_refused(tmp_path):
    folder = pair(tmp_path, Image.fromarray(values((255, LIVER))))
    with pytest.raises(DataError, match=r"a\.png: holds none of the values of data\.classes \(1, 2\).* found 255\."):
        records(folder)


def test_a_small_split_without_any_class_is_no_fault(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    stems = {split: [f"s{i}" for i in range(40) if in_split([f"s{i}"], split)[0]][:2] for split in SPLITS}
    for split, names in stems.items():
        for name in names:
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{name}.jpg")
            palette(values((1 if split == "train" else 2, LIVER))).save(tmp_path / "masks" / f"{name}.png")
    reader = MaskReader(tmp_path / "images", tmp_path / "masks", classes={1: "liver"})
    for split in ("validation", "train", "test"):  # also where the splits with the class are read later
        counts = Counter()
        found = reader.read(split, counts)
        assert [bool(record.annotations) for record in found] == [split == "train"] * 2
        assert [bool(record.unsure) for record in found] == [split != "train"] * 2
        assert counts["masks with 2, which no class has"] == (0 if split == "train" else 2)
    with pytest.raises(DataError, match=r"holds none of the values of data\.classes \(7\), nor does any mask .*found"):
        MaskReader(tmp_path / "images", tmp_path / "masks", classes={7: "liver"}).read("validation", Counter())


def test_whatever_goes_wrong_with_a_mask_or_a_table_names_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyError("unforeseen")

    folder = pair(tmp_path, palette(BOTH))
    monkeypatch.setattr("vrft.data.masks.read_mask", fail)
    with pytest.raises(DataError, match=r"masks/a\.png: could not be read \(KeyError: 'unforeseen'\)"):
        BoxSource(MaskReader(folder / "images", folder / "masks", classes=CLASSES), kind="localization").check()
    monkeypatch.setattr("vrft.data.table.image_size", fail)
    (tmp_path / "t.csv").write_text("image,label,x1,y1,x2,y2\na.jpg,liver,1,1,9,9\n")
    columns = Columns("image", "label", corners=["x1", "y1", "x2", "y2"])
    with pytest.raises(DataError, match=r"t\.csv: could not be read \(KeyError: 'unforeseen'\)"):
        BoxSource(TableReader(tmp_path / "t.csv", folder / "images", columns=columns), kind="localization").check()


def test_specks_are_findings_without_a_box(tmp_path):
    folder = pair(tmp_path, palette(values((2, (3, 3, 5, 5)))))
    (record,), counts = records(folder)
    assert (record.annotations, record.left_out, counts["speck"]) == ((), ("tumour",), 1)
    source = BoxSource(MaskReader(folder / "images", folder / "masks", classes=CLASSES), kind="localization")
    assert all(not source.records(split) for split in SPLITS)


def test_colours_and_fractions_are_refused(tmp_path):
    colours = np.stack([values((255, LIVER)), values((128, TUMOUR)), values()], axis=2)
    with pytest.raises(DataError, match=r"a\.png: is a mask in colours"):
        records(pair(tmp_path, Image.fromarray(colours)))
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.tif: holds values that are no whole numbers"):
        records(pair(tmp_path, Image.fromarray(BOTH.astype(np.float32) / 2), name="a.tif"))


def test_a_broken_mask_and_one_with_another_size_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: is 40 x 30, but its image is 30 x 40"):
        records(pair(tmp_path, palette(BOTH), Image.new("RGB", (30, 40))))
    (tmp_path / "masks" / "a.png").write_text("no pixels")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        records(tmp_path)


def test_where_no_image_has_a_mask_it_is_said_where_they_were_looked_for(tmp_path):
    folder = pair(tmp_path, palette(BOTH), name="b.png")
    with pytest.raises(DataError, match=r"masks: holds the mask of none of the 1 images .* looked for a\.png"):
        records(folder)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mask_is_turned_with_its_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    wanted = {1: LIVER, 3: (25, 16, 35, 26), 6: (16, 5, 26, 15), 8: (4, 25, 14, 35)}[orientation]
    stored = palette(values((1, LIVER)))
    upright = stored.transpose(turn[orientation]) if orientation > 1 else stored
    assert boxes(pair(tmp_path, upright, Image.new("RGB", (40, 30)), exif=exif)) == {"liver": wanted}
    if orientation in (6, 8):  # drawn on the picture as it is stored
        assert boxes(pair(tmp_path, stored, Image.new("RGB", (40, 30)), exif=exif)) == {"liver": wanted}


def masks_of(folder: Path, **masks: Image.Image) -> Path:
    """A set with these masks, which are all shown whatever their split."""
    for name, mask in masks.items():
        picture = folder / "images" / f"{name}.jpg"
        picture.parent.mkdir(exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(picture)
        mask.save(folder / "masks" / f"{name}.png")
    return folder


def read_folder(folder: Path, **options) -> tuple[dict[str, int], Counter[str]]:
    """The number of boxes of each image that is a sample, and the counts."""
    reader = MaskReader(folder / "images", folder / "masks", classes=options.pop("classes", {255: "liver"}))
    source = BoxSource(reader, kind="localization", **options)
    found = {record.image.stem: len(record.annotations) for split in SPLITS for record in source.records(split)}
    return found, +sum((source.counts[split] for split in SPLITS), Counter())


def grey(*pairs: tuple[int, tuple[int, int, int, int]]) -> Image.Image:
    return Image.fromarray(values(*pairs))


@pytest.mark.parametrize("kind", ["localization", "classification"])
@pytest.mark.parametrize(
    ("mask", "classes", "message"),
    [
        (grey((1, LIVER)), {255: "liver"}, r"a\.png: holds no value but 0 and 1, .* set data\.classes to {1: liver}"),
        (
            grey((1, LIVER), (2, TUMOUR)),
            {128: "a", 255: "b"},
            r"holds none of the values .*\(128, 255\).* found 1, 2\.",
        ),
        (grey((100, LIVER)), {255: "liver"}, r"holds none of the values .*\(255\).* found 100\."),
        (palette(values((1, LIVER))), {255: "liver"}, r"holds none of the values .*\(255\).* found 1\."),
    ],
    ids=["0-1", "1-2", "0-100", "palette"],
)
def test_numbers_of_classes_are_no_dark_levels_of_grey(tmp_path, kind, mask, classes, message):
    folder = masks_of(tmp_path, a=mask, b=mask)
    with pytest.raises(DataError, match=message):
        BoxSource(MaskReader(folder / "images", folder / "masks", classes=classes), kind=kind).check()


def test_a_mask_that_holds_other_values_alone_is_left_out_or_refused(tmp_path):
    folder = masks_of(tmp_path, a=grey((255, LIVER)), b=grey((100, LIVER)), c=grey(), d=grey((2, LIVER), (3, TUMOUR)))
    found, counts = read_folder(folder)
    assert found == {"a": 1, "c": 0}
    assert (
        counts["masks without a class, with other values"],
        counts["empty"],
        counts["masks with 100, which no class has"],
    ) == (
        2,
        1,
        1,
    )
    with pytest.raises(DataError, match=r"b\.jpg: its annotation tells neither .*with other values"):
        read_folder(masks_of(tmp_path, d=grey()), unusable="refuse")
    with pytest.raises(DataError, match=r"b\.png: holds no value but 0 and 1"):
        read_folder(masks_of(tmp_path, b=grey((1, LIVER))))


def test_beside_classes_a_value_between_them_is_none(tmp_path):
    found, counts = read_folder(masks_of(tmp_path, a=grey((255, LIVER), (100, TUMOUR))))
    assert (found, counts["masks with 100, which no class has"]) == ({"a": 1}, 1)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0)])
def test_a_mask_drawn_in_transparency_alone_is_its_alpha(tmp_path, colour):
    drawn = Image.new("RGBA", (40, 30), colour)
    drawn.putalpha(grey((255, LIVER)))
    found, counts = read_folder(masks_of(tmp_path, a=drawn))
    assert (found, counts["masks drawn in transparency"]) == ({"a": 1}, 1)
    drawn.putalpha(grey())
    found, counts = read_folder(masks_of(tmp_path, b=drawn))
    assert (found, counts["masks drawn in transparency"]) == ({"a": 1, "b": 0}, 2)
    below = np.dstack([np.full((30, 40, 3), 255, np.uint8), values((255, LIVER))])
    below[4:14, 5:15, :3] = 0
    with pytest.raises(DataError, match=r"a\.png: holds values below its transparency"):
        read_folder(masks_of(tmp_path, a=Image.fromarray(below)))


def test_two_masks_of_one_image_are_refused(tmp_path):
    folder = masks_of(tmp_path, a=grey((255, LIVER)))
    grey().save(folder / "masks" / "a.bmp")
    with pytest.raises(DataError, match=r"masks/a\.png: a\.bmp beside it could be the mask of a\.jpg as well"):
        read_folder(folder)


def test_a_mask_is_found_in_other_letters_where_one_can_be_meant(tmp_path):
    folder = masks_of(tmp_path, i0=grey((255, LIVER)))
    (folder / "masks" / "i0.png").rename(folder / "masks" / "I0.PNG")
    assert read_folder(folder)[0] == {"i0": 1}
    masks_of(folder, I0=grey()).joinpath("masks", "I0.png").unlink()  # another image has this mask
    assert read_folder(folder)[0] == {"I0": 1}
    (folder / "images" / "I0.jpg").unlink()
    (folder / "masks" / "I0.PNG").rename(folder / "masks" / "I0.png")
    grey().save(folder / "masks" / "I0.bmp")
    with pytest.raises(DataError, match=r"I0\.png: I0\.bmp beside it could be the mask of i0\.jpg as well"):
        read_folder(folder)


def test_a_region_of_the_least_area_is_no_speck(tmp_path):
    mask = values((1, (2, 2, 5, 5)), (1, (20, 2, 22, 6)))
    (record,), counts = records(pair(tmp_path, palette(mask)), least_area=9)
    assert [one.box for one in record.annotations] == [(2, 2, 5, 5)]
    assert counts["speck"] == 1


def test_pixels_that_touch_at_a_corner_are_one_region(tmp_path):
    mask = values((1, (2, 2, 6, 6)), (1, (6, 6, 10, 10)))
    assert boxes(pair(tmp_path, palette(mask))) == {"liver": (2, 2, 10, 10)}
    (record,), _ = records(tmp_path)
    assert len(record.annotations) == 1
