"""Files of users in each format: what is read as its maker meant it, and what is refused by name."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask

from vrft.data.annotations import BoxSource, Reader, clean, unique_names
from vrft.data.coco import COCOReader
from vrft.data.lookup import ImageFiles, images_in
from vrft.data.splits import SPLITS
from vrft.data.table import Columns, TableReader
from vrft.data.tabular import open_table
from vrft.data.voc import Pairs, VOCReader
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError, UserError, reading
from vrft.textfiles import decode, read_text

SIZE = (64, 48)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(reader: Reader, split: str = "train", **options: Any) -> tuple[dict[str, Any], Counter[str]]:
    """The targets of a split by the ids of its samples, and what was counted."""
    source = BoxSource(reader, kind="localization", **options)
    targets = {
        sample.id: [tuple(round(v, 3) for v in box) for box in sample.target] for sample in source.samples(split)
    }  # type: ignore[union-attr]
    return targets, +source.counts[split]


# --- a folder of each format with one image --------------------------------------------------------------------------


def voc(root: Path, objects: str = "", stem: str = "a", *, image: str | None = None, listed: str | None = None) -> Path:
    picture(root / "JPEGImages" / (image or f"{stem}.jpg"))
    write(root / "Annotations" / f"{stem}.xml", f"<annotation>{objects}</annotation>")
    write(root / "ImageSets" / "Main" / "train.txt", listed or stem)
    return root


def thing(x1: float, y1: float, x2: float, y2: float, name: str = "mass") -> str:
    sides = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"


def coco(root: Path, **changed: Any) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 12, 20, 15]}],
        "categories": [{"id": 1, "name": "mass"}],
    } | changed
    picture(root / "train" / "a.jpg")
    write(root / "train" / "_annotations.coco.json", json.dumps(content))
    return root


def yolo(root: Path, lines: str = "", data: str = "names: [mass]", *, image: str = "a.jpg") -> Path:
    picture(root / "train" / "images" / image)
    write(root / "train" / "labels" / f"{Path(image).stem}.txt", lines)
    write(root / "data.yaml", data)
    return root


COLUMNS = Columns("image", "label", corners=["x1", "y1", "x2", "y2"], split="split")
TITLES = "image,label,x1,y1,x2,y2,split\n"


def table(root: Path, text: str | bytes, *images: str, **options: Any) -> TableReader:
    for name in images or ("a.png",):
        picture(root / "images" / name)
    return TableReader(write(root / "t.csv", text), root / "images", columns=options.pop("columns", COLUMNS), **options)


# --- an annotated image never becomes one in which nothing is there --------------------------------------------------


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((30, 10, 20, 30), "corners swapped"),
        ((10, 30, 20, 10), "corners swapped"),
        ((10, 10, 10, 20), "no area"),
        ((70, 10, 80, 20), "outside"),
    ],
)
def test_an_image_whose_boxes_were_all_dropped_is_left_out_and_counted(tmp_path: Path, box: Any, why: str):
    voc(tmp_path, thing(*box))
    voc(tmp_path, thing(5, 5, 20, 20), "b", listed="a\nb")
    targets, counted = read(VOCReader(tmp_path))
    assert targets == {"b": [(5, 5, 20, 20)]}
    assert (counted[why], counted["no usable box"], counted["empty"]) == (1, 1, 0)
    with pytest.raises(DataError, match=r"a\.jpg: is annotated \(mass\), and none of its boxes can be used"):
        read(VOCReader(tmp_path), unusable="refuse")


def test_what_is_left_out_depends_on_what_is_looked_for(tmp_path: Path):
    voc(tmp_path, thing(5, 5, 20, 20, "mass") + thing(30, 10, 20, 30, "nodule"))
    assert read(VOCReader(tmp_path))[0] == {"a": [(5, 5, 20, 20)]}
    assert read(VOCReader(tmp_path), find=["mass"])[0] == {"a": [(5, 5, 20, 20)]}
    with pytest.raises(DataError, match=r"no image for train that can be used .*no usable box 1"):
        read(VOCReader(tmp_path), find=["nodule"])
    assert read(VOCReader(tmp_path), find=["cyst"])[0] == {"a": []}


def test_a_stated_absence_is_a_negative(tmp_path: Path):
    assert read(VOCReader(voc(tmp_path / "voc")))[0] == {"a": []}
    assert read(YOLOReader(yolo(tmp_path / "yolo", "\n")))[0] == {"a": []}
    assert read(COCOReader(coco(tmp_path / "coco", annotations=[])))[0] == {"a": []}


@pytest.mark.parametrize("line", ["0 32 24 10 8", "0 0.5 0.5 20 10", "0 10 10 30 10 20 30", "0 -1 0.5 0.1 0.1"])
def test_pixels_in_a_yolo_file_are_refused(tmp_path: Path, line: str):
    with pytest.raises(DataError, match=r"a\.txt:1: .* is no share of the image.*divide pixels"):
        read(YOLOReader(yolo(tmp_path, line)))


def test_a_share_that_rounding_put_outside_is_clipped(tmp_path: Path):
    targets, counted = read(YOLOReader(yolo(tmp_path, "0 0.5 0.5 1.01 1.001")))
    assert (targets, counted["clipped"]) == ({"a": [(0, 0, 64, 48)]}, 1)


@pytest.mark.parametrize("form", ["voc", "coco", "table"])
def test_shares_where_pixels_are_expected_are_refused(tmp_path: Path, form: str):
    readers: dict[str, Any] = {
        "voc": lambda: VOCReader(voc(tmp_path, thing(0.1, 0.2, 0.5, 0.6))),
        "coco": lambda: COCOReader(
            coco(tmp_path, annotations=[{"image_id": 1, "category_id": 1, "bbox": [0.1, 0.2, 0.5, 0.6]}])
        ),
        "table": lambda: table(tmp_path, TITLES + "a.png,mass,0.1,0.2,0.5,0.6,train"),
    }
    with pytest.raises(DataError, match="are shares of the image"):
        read(readers[form]())


# --- YOLO ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "kind", "label"),
    [
        ("{1: RBC, 2: WBC}", 1, "RBC"),
        ('{"0": RBC, "7": WBC}', 7, "WBC"),
        ("[yes, no]", 1, "no"),
        ("\n  - a b\n  - 1.0", 1, "1.0"),
    ],
)
def test_the_class_of_a_line_is_a_key_or_a_position(tmp_path: Path, names: str, kind: int, label: str):
    (record,) = YOLOReader(yolo(tmp_path, f"{kind} .5 .5 .2 .2", f"names: {names}")).read("train", Counter())
    assert record.annotations[0].label == label


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("names: {a: 0}", "names has the key 'a'"),
        ("names: tumour", "names holds no list"),
        ("names: [[a]]", "the name of class 0"),
        ("names: []", "names holds no list"),
        ("nc: 3", "has no names"),
        ("- a", "has no names"),
        ("names: [a", r"data\.yaml:\d+: is no YAML"),
        ("names: &a [*a]", "is no YAML"),
        ("names: [a]\nkpt_shape: 17", "kpt_shape is 17"),
    ],
)
def test_a_faulty_data_yaml_is_named(tmp_path: Path, data: str, message: str):
    with pytest.raises(DataError, match=rf"data\.yaml.*{message}|{message}"):
        YOLOReader(yolo(tmp_path, "0 .5 .5 .2 .2", data))


@pytest.mark.parametrize(
    ("line", "data", "count"),
    [
        ("0 .5 .5 .25 .25 .45 .45 2 .55 .55 0", "names: [a]\nkpt_shape: [2, 3]", "keypoints"),
        ("0 .5 .5 .25 .25 .45 .45 .55 .55", "names: [a]\nkpt_shape: [2, 2]", "keypoints"),
        ("0 .5 .5 .25 .25", "names: [a]\nkpt_shape: [2, 2]", None),
        ("0 .375 .375 .625 .375 .625 .625 .375 .625", "names: [a]", "polygon"),
        ("0\t.5\t.5\t.25\t.25\r\n\r\n# a comment", "names: [a]", None),
        ("24 18 40 18 40 30 24 30 a 0", "names: [a]", "oriented"),
    ],
)
def test_each_kind_of_line_gives_its_box(tmp_path: Path, line: str, data: str, count: str | None):
    targets, counted = read(YOLOReader(yolo(tmp_path, line, data)))
    assert targets == {"a": [(24, 18, 40, 30)]}
    assert count is None or counted[count] == 1


@pytest.mark.parametrize(
    ("line", "data", "message"),
    [
        ("0 .5 .5 .2 .2 .45 .45 2 .55 .55 2", "names: [a]", "looks like a box with keypoints; set kpt_shape"),
        ("0 .5 .5 .2 .2 .45 .45 2", "names: [a]", "looks like a box with keypoints; set kpt_shape"),
        ("0 .5 .5 .2 .2 .9 .9 .9 .8 .8 .8", "names: [a]\nkpt_shape: [3, 3]", "14 in all, found 11"),
        ("0 .5 .5 .2 .2 .93", "names: [a]", "confidence of a prediction"),
        ("0 .1 .1 .2 .1 .2 .2 .1 .2 .93", "names: [a]", "expected class cx cy w h"),
        ("3 .5 .5 .2 .2", "names: {1: a, 2: b}", "class 3 is not in names of data.yaml, which has 1, 2"),
        ("a .5 .5 .2 .2", "names: [a]", "expected class cx cy w h"),
        ("0 .5 .5 nan .2", "names: [a]", "expected class cx cy w h"),
        ("0,.5,.5,.2,.2", "names: [a]", "expected class cx cy w h"),
        ("0 .5 .5", "names: [a]", "expected class cx cy w h"),
    ],
)
def test_a_line_that_could_mean_something_else_is_refused(tmp_path: Path, line: str, data: str, message: str):
    with pytest.raises(DataError, match=rf"a\.txt:1: .*{message}"):
        read(YOLOReader(yolo(tmp_path, line, data)))


KEYPOINTS = "0 0.3125 0.40625 0.3125 0.3125 0.3 0.4 0.35 0.45"


def test_a_line_that_may_be_a_polygon_or_keypoints_is_refused_unless_others_tell(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.txt:2: .*may be a box with keypoints x, y or a polygon; .*kpt_shape"):
        read(YOLOReader(yolo(tmp_path, f"0 .5 .5 .2 .2\n{KEYPOINTS}")))
    assert read(YOLOReader(tmp_path, polygons=True))[1]["polygon"] == 1
    assert read(YOLOReader(yolo(tmp_path, KEYPOINTS, "names: [a]\nkpt_shape: [2, 2]")))[1]["keypoints"] == 1
    yolo(tmp_path, KEYPOINTS)
    write(tmp_path / "valid" / "labels" / "b.txt", "0 .1 .1 .2 .1 .2 .2 .1 .2 .1 .15")
    picture(tmp_path / "valid" / "images" / "b.jpg")
    assert read(YOLOReader(tmp_path))[1]["polygon"] == 1


@pytest.mark.parametrize(
    "line", [".5 .5 .51 .5 .51 .51 .5 .51", ".5 .5 .52 .51 .51 .53 .49 .52", ".5 .5 .6 .5 .6 .6 .5 .6 .5 .5"]
)
def test_an_oriented_box_or_a_closed_polygon_is_no_box_with_keypoints(tmp_path: Path, line: str):
    assert read(YOLOReader(yolo(tmp_path, f"0 {line}")))[1]["polygon"] == 1


def test_shares_in_a_dota_file_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.txt:1: the corners of 'mass' are .*shares of the image; expected x1 y1"):
        read(YOLOReader(yolo(tmp_path, "0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4 mass 0")))


@pytest.mark.parametrize(
    ("data", "image", "label"),
    [
        ("train: set/images/one", "set/images/one/a.jpg", "set/labels/one/a.txt"),
        ("path: set\ntrain: images/one", "set/images/one/a.jpg", "set/labels/one/a.txt"),
        ("path: /nowhere\ntrain: ../pictures", "pictures/a.jpg", "pictures/a.txt"),
        ("train: [x/images, y/images]", "x/images/a.jpg", "x/labels/a.txt"),
        ("train: ''", "train/images/deep/er/a.jpg", "train/labels/deep/er/a.txt"),
        ("train: ''", "train/a.jpg", "train/a.txt"),
    ],
)
def test_images_are_where_data_yaml_says(tmp_path: Path, data: str, image: str, label: str):
    write(tmp_path / "data.yaml", f"names: [a]\n{data}")
    picture(tmp_path / image)
    write(tmp_path / label, "0 .5 .5 .25 .25")
    assert read(YOLOReader(tmp_path))[0] == {"a": [(24, 18, 40, 30)]}


def test_a_list_of_images_is_followed(tmp_path: Path):
    yolo(tmp_path, "0 .5 .5 .25 .25").joinpath("train").rename(tmp_path / "obj")
    write(tmp_path / "train.txt", "obj/images/a.jpg\r\n./obj\\images\\a.jpg\n/home/me/obj/images/b.jpg\n")
    targets, counted = read(YOLOReader(tmp_path))
    assert targets == {"a": [(24, 18, 40, 30)]}
    assert (counted["listed twice"], counted["image missing"]) == (1, 1)
    write(tmp_path / "train.txt", "obj/images/x.jpg\nobj/images/y.jpg")
    with pytest.raises(
        DataError, match=r"train\.txt: 2 of 2 images are missing, such as 'obj/images/x\.jpg'; looked in"
    ):
        read(YOLOReader(tmp_path))


def test_labels_without_images_are_missing_images(tmp_path: Path):
    yolo(tmp_path, "0 .5 .5 .25 .25")
    write(tmp_path / "train" / "labels" / "b.txt", "0 .5 .5 .25 .25")
    assert read(YOLOReader(tmp_path))[1]["image missing"] == 1
    (tmp_path / "train" / "images" / "a.jpg").rename(tmp_path / "train" / "images" / "a.jp2")
    with pytest.raises(DataError, match="2 of 2 images are missing"):
        read(YOLOReader(tmp_path))


def test_two_images_of_one_stem_are_refused(tmp_path: Path):
    picture(yolo(tmp_path, "") / "train" / "images" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a\.jpg beside it has the same stem"):
        read(YOLOReader(tmp_path))


def test_a_folder_without_images_is_named(tmp_path: Path):
    write(tmp_path / "data.yaml", "names: [a]")
    with pytest.raises(DataError, match="has no images: expected train/images or images/train"):
        read(YOLOReader(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: {0: a, 0: b}", r"data\.yaml:1: '0' is given twice"),
        ("names:\n  0: a\n  1: b\n  '0': c", r"data\.yaml:4: '0' is given twice"),
        ("names: [a]\ntrain: x\ntrain: y", r"data\.yaml:3: 'train' is given twice"),
        ("names: {0: a, 00: b}", r"data\.yaml: names has the class 0 twice"),
    ],
)
def test_a_class_that_is_named_twice_is_refused(tmp_path: Path, names: str, message: str):
    with pytest.raises(DataError, match=message):
        YOLOReader(yolo(tmp_path, "0 .5 .5 .2 .2", names))


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_whole_and_relative_names_of_one_image_are_one_image(in_folder: Path):
    root = Path("set")
    yolo(root, "0 .5 .5 .25 .25").joinpath("train").rename(root / "obj")
    picture(in_folder / "other" / "images" / "a.jpg")
    write(in_folder / "other" / "labels" / "a.txt", "")
    whole, other = in_folder / "set/obj/images/a.jpg", in_folder / "other/images/a.jpg"
    write(root / "train.txt", f"{whole}\nobj/images/a.jpg\nobj/../obj/images/a.jpg\n{other}\n")
    source = BoxSource(YOLOReader(root), kind="localization")
    assert {sample.id: sample.target for sample in source.samples("train")} == {
        "set_obj_images_a": ((24.0, 18.0, 40.0, 30.0),),
        "other_images_a": (),
    }
    assert source.counts["train"]["listed twice"] == 2
    assert [record.image for record in source.records("train")] == [root / "obj/images/a.jpg", other]


def test_a_root_that_is_a_link_is_where_its_images_are(in_folder: Path):
    yolo(in_folder / "set", "0 .5 .5 .25 .25").joinpath("train").rename(in_folder / "set" / "obj")
    (in_folder / "link").symlink_to(in_folder / "set")
    write(in_folder / "set" / "train.txt", f"obj/images/a.jpg\n{in_folder}/set/obj/images/a.jpg")
    (record,) = YOLOReader(Path("link")).read("train", Counter())
    assert record.image == Path("link/obj/images/a.jpg")


# --- COCO ------------------------------------------------------------------------------------------------------------

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 12, 20, 15]}
FOUND = {"a": [(10, 12, 30, 27)]}


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({"images": [IMAGE | {"id": "1"}]}, "id of another type"),
        ({"annotations": [BOX | {"image_id": "0001"}]}, "id of another type"),
        ({"annotations": [BOX | {"category_id": "1"}]}, "id of another type"),
        ({"images": [IMAGE, IMAGE]}, "listed twice"),
        ({"images": [IMAGE, IMAGE | {"id": 2, "file_name": "./a.jpg"}]}, "listed twice"),
        ({"images": [IMAGE | {"file_name": "a"}]}, "found by stem"),
        ({"images": [IMAGE | {"file_name": "a.dcm"}]}, "found by stem"),
        ({"images": [IMAGE | {"file_name": "C:\\data\\train\\A.JPG"}]}, None),
        ({"images": [IMAGE | {"file_name": "https://host/x/train/a.jpg?v=1"}]}, None),
        ({"annotations": [BOX, BOX | {"image_id": 9}]}, "annotation without image"),
        ({"annotations": [BOX, BOX | {"iscrowd": 1, "bbox": [0, 0, 60, 40]}]}, "crowd"),
        ({"annotations": [BOX | {"iscrowd": 1}]}, "crowd as box"),
        ({"images": [IMAGE | {"width": None, "height": "?"}]}, None),
        ({"images": [IMAGE | {"width": 640}]}, "size differs"),
        ({"annotations": [BOX | {"bbox": ["10", "12", 20.0, 15]}]}, None),
    ],
)
def test_a_coco_file_is_read_as_it_is_meant(tmp_path: Path, changed: dict[str, Any], count: str | None):
    targets, counted = read(COCOReader(coco(tmp_path, **changed)))
    assert targets == FOUND
    assert count is None or counted[count] == 1


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": [without(IMAGE, "id")]}, r"images\[0\] \(a\.jpg\) has no id"),
        ({"images": [without(IMAGE, "file_name")]}, r"images\[0\] has the file_name None"),
        ({"images": [IMAGE | {"file_name": 3}]}, r"images\[0\] has the file_name 3"),
        ({"images": [IMAGE | {"id": [1]}]}, r"has the id \[1\]; expected a number or a text"),
        ({"images": [IMAGE, IMAGE | {"file_name": "b.jpg"}]}, r"images\[1\] \(b\.jpg\) has the id 1 of a\.jpg"),
        ({"images": {"a": 1}}, "images is .*expected a list of records"),
        ({"images": ["a.jpg"]}, r"images\[0\] is 'a\.jpg'; expected a record"),
        ({"images": [IMAGE | {"file_name": "x.jpg"}]}, "1 of 1 images are missing, such as 'x.jpg'; looked in"),
        ({"annotations": [without(BOX, "image_id")]}, r"annotations\[0\] has no image_id"),
        ({"annotations": [without(BOX, "bbox")]}, "annotation 1 has the bbox None; expected"),
        ({"annotations": [BOX | {"bbox": {"x": 1}}]}, "annotation 1 has the bbox .*; expected"),
        ({"annotations": [BOX | {"bbox": [1, 2, 3]}]}, "annotation 1 has the bbox .*; expected"),
        ({"annotations": [BOX | {"bbox": [1, 2, 3, float("nan")]}]}, "annotation 1 has the bbox .*; expected"),
        ({"annotations": [BOX | {"bbox": [1, 2, 3, 10**400]}]}, "annotation 1 has the bbox .*; expected"),
        ({"annotations": [BOX | {"category_id": 9}]}, "annotation 1 has category 9"),
        ({"annotations": [BOX | {"image_id": 9}]}, "none of its 1 annotations refers to an image"),
        ({"annotations": None}, "annotations is None"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has the name None"),
        ({"categories": [{"name": "mass"}]}, r"categories\[0\] has no id"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, r"categories\[1\] has the id 1 of 'a'"),
    ],
)
def test_a_coco_record_that_lacks_something_is_named(tmp_path: Path, changed: dict[str, Any], message: str):
    with pytest.raises(DataError, match=rf"_annotations\.coco\.json.*{message}") as caught:
        read(COCOReader(coco(tmp_path, **changed)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"images": []}', "[" * 100_000, '{"images": 1e', "\xff"])
def test_what_is_no_coco_file_is_named(tmp_path: Path, text: str):
    write(coco(tmp_path) / "train" / "_annotations.coco.json", text)
    with pytest.raises(DataError, match=r"_annotations\.coco\.json"):
        read(COCOReader(tmp_path))


def test_ids_that_could_mean_two_images_are_refused(tmp_path: Path):
    picture(tmp_path / "train" / "b.jpg")
    two = [IMAGE | {"id": "1"}, IMAGE | {"id": "01", "file_name": "b.jpg"}]
    with pytest.raises(DataError, match="refers to 1, which could be '1' or '01'"):
        read(COCOReader(coco(tmp_path, images=two)))


def test_a_crowd_alone_is_no_negative_and_can_be_asked_for(tmp_path: Path):
    picture(tmp_path / "train" / "b.jpg")
    coco(
        tmp_path,
        images=[IMAGE, IMAGE | {"id": 2, "file_name": "b.jpg"}],
        annotations=[BOX, BOX | {"image_id": 2, "iscrowd": 1}],
    )
    assert read(COCOReader(tmp_path))[0] == FOUND
    assert read(COCOReader(tmp_path, crowd="box"))[0] == FOUND | {"b": FOUND["a"]}


def test_an_rle_gives_the_box_around_it_or_leaves_it_to_the_bbox(tmp_path: Path):
    pixels = np.zeros((48, 64), np.uint8, order="F")
    pixels[12:27, 10:30] = 1
    written = mask.encode(pixels)["counts"].decode()
    flat, runs, previous = pixels.flatten(order="F"), [0], 0
    for value in flat:
        if value != previous:
            runs.append(0)
        runs[-1] += 1
        previous = value
    for counts, key in (
        (written, "RLE"),
        (runs, "RLE"),
        ([492, 15], "RLE without hull"),
        ("P", "RLE without hull"),
    ):
        other = [0, 0, 1, 1] if key == "RLE" else [10, 12, 20, 15]
        segmented = BOX | {"bbox": other, "segmentation": {"size": [48, 64], "counts": counts}}
        targets, counted = read(COCOReader(coco(tmp_path, annotations=[segmented]), boxes="polygon"))
        assert (targets, counted[key]) == (FOUND, 1)
    broken = without(BOX, "bbox") | {"segmentation": {"size": [48, 64], "counts": "P"}}
    with pytest.raises(DataError, match="annotation 1 has the bbox None"):
        read(COCOReader(coco(tmp_path, annotations=[broken]), boxes="polygon"))


def test_images_of_another_folder_are_not_taken_for_the_named_ones(tmp_path: Path):
    picture(tmp_path / "train" / "p2" / "a.jpg")
    coco(tmp_path, images=[IMAGE | {"file_name": "p1/a.jpg"}]).joinpath("train", "a.jpg").unlink()
    with pytest.raises(DataError, match="1 of 1 images are missing"):
        read(COCOReader(tmp_path))


def test_an_annotations_folder_with_images_by_split(tmp_path: Path):
    coco(tmp_path).joinpath("train", "_annotations.coco.json").rename(tmp_path / "instances_train2017.json")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "instances_train2017.json").rename(tmp_path / "annotations" / "instances_train2017.json")
    (tmp_path / "train").rename(tmp_path / "train2017")
    assert read(COCOReader(tmp_path))[0] == FOUND
    write(tmp_path / "annotations" / "instances_train2014.json", "{}")
    with pytest.raises(DataError, match="leave one file for the split train"):
        read(COCOReader(tmp_path))


def test_images_without_annotations_are_no_negatives_while_annotations_reach_no_image(tmp_path: Path):
    picture(tmp_path / "train" / "b.jpg")
    images = [IMAGE | {"id": "1"}, IMAGE | {"id": "img2", "file_name": "b.jpg"}]
    coco(tmp_path, images=images, annotations=[BOX, BOX | {"image_id": 2}])
    targets, counted = read(COCOReader(tmp_path))
    assert targets == FOUND
    assert counted["not annotated, while 1 annotations refer to no image, such as image_id 2"] == 1
    with pytest.raises(DataError, match=r"b\.jpg: its annotation tells neither .*such as image_id 2"):
        read(COCOReader(tmp_path), unusable="refuse")


@pytest.mark.parametrize(
    ("stated", "box", "found", "count"),
    [
        ((128, 96), (20, 24, 40, 30), FOUND, "boxes scaled"),
        ((32, 24), (5, 6, 10, 7.5), FOUND, "boxes scaled"),
        ((32, 24), (10, 12, 30, 15), {"a": [(10, 12, 40, 27)]}, "size differs"),  # pixels of the file all the same
        ((128, 48), (10, 12, 20, 15), FOUND, "size differs"),
        ((128, 48), (70, 12, 20, 15), {}, "boxes of a picture with another shape"),
        ((48, 64), (20, 45, 20, 15), {}, "boxes of a picture with another shape"),
    ],
)
@pytest.mark.parametrize("form", ["coco", "voc"])
def test_boxes_of_a_scaled_picture_are_scaled(tmp_path: Path, form: str, stated: Any, box: Any, found: Any, count: str):
    (wide, high), (x, y, width, height) = stated, box
    if form == "coco":
        picture(tmp_path / "train" / "b.jpg")
        images = [IMAGE | {"width": wide, "height": high}, IMAGE | {"id": 2, "file_name": "b.jpg"}]
        make: Reader = COCOReader(coco(tmp_path, images=images, annotations=[BOX | {"bbox": box}]))
    else:
        size = f"<size><width>{wide}</width><height>{high}</height></size>"
        voc(tmp_path, size + thing(x, y, x + width, y + height))
        make = VOCReader(voc(tmp_path, "", "b", listed="a\nb"))
    targets, counted = read(make)
    assert (targets, counted[count]) == (found | {"b": []}, 1)


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_an_image_of_a_type_that_is_not_read_is_named(tmp_path: Path, form: str):
    if form == "coco":
        images = [IMAGE, IMAGE | {"id": 2, "file_name": "b.gif"}]
        make, folder = lambda: COCOReader(coco(tmp_path, images=images)), "train"
    elif form == "voc":
        make, folder = lambda: VOCReader(voc(tmp_path, thing(5, 5, 9, 9), listed="a\nb")), "JPEGImages"
        write(tmp_path / "Annotations" / "b.xml", "<annotation/>")
    else:
        make, folder = lambda: YOLOReader(yolo(tmp_path, "0 .5 .5 .2 .2")), "train/images"
        write(tmp_path / "train" / "labels" / "b.txt", "")
    reader = make()
    picture(tmp_path / folder / "b.gif")
    _, counted = read(reader)
    assert (counted["image missing"], counted["image of a type that is not read (.gif)"]) == (1, 1)
    (tmp_path / folder / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 2 images are missing.*b\.gif is there, and its type is not read"):
        read(type(reader)(tmp_path))


def test_an_empty_list_is_named(tmp_path: Path):
    for make in (
        COCOReader(coco(tmp_path / "coco", images=[], annotations=[])),
        VOCReader(voc(tmp_path / "voc", listed=" ")),
    ):
        source = BoxSource(make, kind="localization")
        assert [key for key in source.annotation_counts()["train"] if key.startswith(f"no image in {tmp_path}")]
        with pytest.raises(DataError, match=rf"{tmp_path}.*holds no box to classify .*no image in"):
            BoxSource(make, kind="classification").check()


# --- VOC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "line"),
    [
        ("patient 1", "patient 1"),
        ("a", "a  1"),
        ("a", "a -1"),
        ("patient 1", "patient 1 -1"),
        ("a", "a.jpg"),
        ("a", "JPEGImages/a.jpg"),
        ("a", "D:\\set\\JPEGImages\\a.jpg"),
        ("a", "JPEGImages/a.jpg Annotations/a.xml"),
        ("a.b", "a.b"),
        ("图1", "图1"),
    ],
)
def test_a_line_of_a_list_names_a_stem(tmp_path: Path, stem: str, line: str):
    assert read(VOCReader(voc(tmp_path, thing(5, 5, 20, 20), stem, listed=line)))[0] == {stem: [(5, 5, 20, 20)]}


@pytest.mark.parametrize("image", ["a.tif", "a.TIFF", "a.bmp", "a.PNG", "a.JPG"])
def test_the_suffix_of_an_image_is_free(tmp_path: Path, image: str):
    assert list(read(VOCReader(voc(tmp_path, thing(5, 5, 20, 20), image=image)))[0]) == ["a"]


def test_two_images_of_one_stem_are_distinguished_by_the_annotation_or_refused(tmp_path: Path):
    voc(tmp_path, thing(5, 5, 20, 20))
    picture(tmp_path / "JPEGImages" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a\.jpg has the same stem, and .*a\.xml names None"):
        read(VOCReader(tmp_path))
    voc(tmp_path, "<filename>a.png</filename>" + thing(5, 5, 20, 20))
    (sample,) = BoxSource(VOCReader(tmp_path), kind="localization").samples("train")
    assert sample.image == tmp_path / "JPEGImages" / "a.png"


def test_the_image_that_an_annotation_names_is_found(tmp_path: Path):
    voc(tmp_path, "<filename>scan_7.jpg</filename>" + thing(5, 5, 20, 20), "001", image="scan_7.jpg")
    targets, counted = read(VOCReader(tmp_path))
    assert (targets, counted["filename differs"]) == ({"scan_7": [(5, 5, 20, 20)]}, 1)


def test_a_named_image_is_found_among_thousands(tmp_path: Path):
    pairs = Pairs(tmp_path, tmp_path)
    pairs.__dict__["images_of"] = {(str(number),): [tmp_path / f"scan_{number}.jpg"] for number in range(4000)}
    began = time.process_time()
    found = [pairs.image_of(("x",), tmp_path, f"scan_{number}.JPG", Counter()) for number in range(4000)]
    assert time.process_time() - began < 3
    assert found == [tmp_path / f"scan_{number}.jpg" for number in range(4000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations/>", "is no annotation of Pascal VOC"),
        ("", "is no XML"),
        ("<annotation>", "is no XML"),
        ("<annotation><object/></annotation>", "an object has no name"),
        ("<annotation><object><name>a</name></object></annotation>", "the box of 'a' is .*expected xmin"),
        (f"<annotation>{thing(1, 2, 3, float('nan'))}</annotation>", "the box of 'mass' is"),
        ("<annotation>&x;</annotation>", "is no XML"),
    ],
)
def test_a_faulty_xml_is_named(tmp_path: Path, text: str, message: str):
    write(voc(tmp_path) / "Annotations" / "a.xml", text)
    with pytest.raises(DataError, match=rf"a\.xml:?\d*: .*{message}"):
        read(VOCReader(tmp_path))


def test_an_xml_with_a_namespace_is_read_and_difficult_objects_are_counted(tmp_path: Path):
    objects = thing(5, 5, 20, 20).replace("</name>", "</name><difficult>1</difficult>")
    write(voc(tmp_path) / "Annotations" / "a.xml", f'<annotation xmlns="http://x/y">{objects}</annotation>')
    targets, counted = read(VOCReader(tmp_path))
    assert (targets, counted["difficult"]) == ({"a": [(5, 5, 20, 20)]}, 1)


def test_lists_that_are_missing_are_counted_or_named(tmp_path: Path):
    voc(tmp_path, thing(5, 5, 20, 20))
    source = BoxSource(VOCReader(tmp_path), kind="localization")
    assert list(source.samples("validation")) == []
    assert source.counts["validation"]["list missing"] == 1
    (tmp_path / "ImageSets" / "Main" / "train.txt").rename(tmp_path / "ImageSets" / "Main" / "trainval.txt")
    with pytest.raises(DataError, match=r"has no train\.txt, but trainval\.txt"):
        read(VOCReader(tmp_path))


def test_all_images_of_a_list_are_missing(tmp_path: Path):
    voc(tmp_path, listed="x\ny 2")
    with pytest.raises(DataError, match=r"train\.txt: 2 of 2 images are missing, such as 'x'; looked in"):
        read(VOCReader(tmp_path))


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["", "nan", "NA", "None", " "])
@pytest.mark.parametrize("label", ["0", "", "No finding", "NaN"])
def test_a_row_of_four_empty_cells_states_that_nothing_is_there(tmp_path: Path, empty: str, label: str):
    text = f"{TITLES}a.png,1,5,5,20,20,train\nb.png,{label},{empty},{empty},{empty},{empty},train\n"
    assert read(table(tmp_path, text, "a.png", "b.png"))[0] == {"a": [(5, 5, 20, 20)], "b": []}


def test_a_finding_without_a_box_is_no_negative(tmp_path: Path):
    text = TITLES + "a.png,mass,5,5,20,20,train\nb.png,mass,,,,,train\nc.png,14,,,,,train\n"
    targets, counted = read(table(tmp_path, text, "a.png", "b.png", "c.png"))
    assert (list(targets), counted["finding without box"]) == (["a"], 2)
    assert list(read(table(tmp_path, text, absent=["14"]))[0]) == ["a", "c"]


@pytest.mark.parametrize("name", ["a", "a.png", "images/a.png", "D:\\x\\images\\a.png", "a.dcm", "A.PNG"])
def test_the_name_of_an_image_leads_to_it(tmp_path: Path, name: str):
    assert read(table(tmp_path, f"{TITLES}{name},mass,5,5,20,20,train\n"))[0] == {"a": [(5, 5, 20, 20)]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str):
    text = (TITLES + '"a.png",mass,5,5.0,20,20,train\n').replace(",", delimiter)
    assert read(table(tmp_path, text))[0] == {"a": [(5, 5, 20, 20)]}


def test_a_decimal_comma_beside_semicolons(tmp_path: Path):
    text = TITLES.replace(",", ";") + "a.png;mass;5,5;5;20;20;train"
    assert read(table(tmp_path, text))[0] == {"a": [(5.5, 5, 20, 20)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,mass,5,,20,20,train", r"t\.csv:2: 1 of the 4 cells of the box are empty"),
        ("a.png,mass,5,x,20,20,train", r"t\.csv:2: .*are no four numbers of a box"),
        ("a.png,mass,5,inf,20,20,train", r"t\.csv:2: .*are no four numbers of a box"),
        ("a.png,,5,5,20,20,train", r"t\.csv:2: has a box without a label"),
        (",mass,5,5,20,20,train", r"t\.csv:2: names no image"),
        ("a.png,mass,5,5,20,20,train,more", r"t\.csv:2: has 8 cells"),
        ("a.png,mass,5,5,20", r"t\.csv:2: has 5 of 7 cells"),
        ("x.png,mass,5,5,20,20,train", "1 of 1 images are missing, such as 'x.png'; looked in"),
        ("a.png,mass,,,,,train", "no row of an image that is there has a box"),
        ("a.png,mass,5,5,20,20,train\na.png,mass,6,6,20,20,test", r"t\.csv:3: a\.png is in test here and in train"),
    ],
)
def test_a_faulty_row_is_named(tmp_path: Path, row: str, message: str):
    with pytest.raises(DataError, match=message):
        read(table(tmp_path, TITLES + row, negatives=True))


@pytest.mark.parametrize("row", ['a.png,"mass,5,5,20,20,train', 'a.png,"mass" or so,5,5,20,20,train'])
@pytest.mark.parametrize("rest", ["", '\na.png,"cyst",5,5,20,20,train'])
def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path, row: str, rest: str):
    rows = ["a.png,mass,5,5,20,20,train\n"] * 3
    text = TITLES + "".join(rows) + row + rest + "\n" + "".join(rows)
    with pytest.raises(DataError, match=r"t\.csv:5: is no CSV table .*a quote on this line is not closed"):
        read(table(tmp_path, text, negatives=True))
    with pytest.raises(DataError, match=r"t\.csv:1: is no CSV table"):
        read(table(tmp_path, '"' + TITLES + "a.png,mass,5,5,20,20,train\n"))


def test_a_quoted_text_may_hold_delimiters_quotes_and_lines(tmp_path: Path):
    text = TITLES + 'a.png,"a ""b"", c\nd",5,5,20,20,train\na.png,x,,1,2,3,train'
    with pytest.raises(DataError, match=r"t\.csv:4: 1 of the 4 cells"):
        read(table(tmp_path, text))
    (record,) = table(tmp_path, text.rpartition("\n")[0]).read("train", Counter())
    assert record.annotations[0].label == 'a "b", c\nd'


@pytest.mark.parametrize("first", ["sep=;", "SEP=; ", '"sep=;"', "\ufeffsep=;\r"])
def test_the_line_in_which_excel_names_the_delimiter_is_no_title(tmp_path: Path, first: str):
    text = f"{first}\n{TITLES}a.png,mass,5,5,20,20,train\n".replace(",", ";")
    assert read(table(tmp_path, text))[0] == {"a": [(5, 5, 20, 20)]}
    with pytest.raises(DataError, match=r"t\.csv:4: has 2 of 7 cells"):
        read(table(tmp_path, text + "a.png;mass"))
    with pytest.raises(DataError, match=r"t\.csv:2: has no column 'image'; it has image,label"):
        read(table(tmp_path, text.replace(";", ",").replace("=,", "=:")))


@pytest.mark.parametrize("number", ["1_0", "inf", "-Infinity", "1e400"])
def test_what_only_python_takes_for_a_number_is_none(tmp_path: Path, number: str):
    with pytest.raises(DataError, match=r"t\.csv:2: .*are no four numbers"):
        read(table(tmp_path / "table", f"{TITLES}a.png,mass,{number},5,20,20,train"))
    with pytest.raises(DataError, match=r"a\.txt:1: expected class"):
        read(YOLOReader(yolo(tmp_path / "yolo", f"0 .5 .5 .2 {number}")))


def test_a_table_is_read_and_its_folder_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: Counter[str] = Counter()
    for name, whole, where in (("open_table", open_table, "table"), ("images_in", images_in, "lookup")):
        where = f"vrft.data.{where}.{name}"
        monkeypatch.setattr(
            where, lambda *args, name=name, whole=whole, **options: calls.update([name]) or whole(*args, **options)
        )
    source = BoxSource(
        table(tmp_path, TITLES + "a.png,mass,5,5,20,20,train\n", "a.png", "b.png", negatives=True), kind="localization"
    )
    source.check()
    assert calls == {"open_table": 1, "images_in": 1}
    assert sum(counts["image without row"] for counts in source.counts.values()) == 1


def test_columns_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"t\.csv:1: has no column 'x1'; it has image, label"):
        read(table(tmp_path, TITLES.replace("x1", "xmin") + "a.png,mass,5,5,20,20,train"))
    with pytest.raises(DataError, match=r"t\.csv:1: has several columns 'x1'"):
        read(table(tmp_path, TITLES.replace("y1", "x1") + "a.png,mass,5,5,20,20,train"))


def test_whole_numbers_that_pandas_wrote_as_floats_are_one_label(tmp_path: Path):
    (record,) = table(tmp_path, TITLES + "a.png,1.0,5,5,20,20,train\na.png,1,6,6,20,20,train").read("train", Counter())
    assert {one.label for one in record.annotations} == {"1"}


def test_a_name_that_could_be_two_images_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="has the same name"):
        read(table(tmp_path, TITLES + "a,mass,5,5,20,20,train", "a.png", "a.jpg"))


@pytest.mark.parametrize("cells", ["0,0,1,1", "0,0,0,0", "-1,-1,-1,-1", ",,,", "?,,,"])
def test_no_finding_is_a_negative_whatever_its_cells_hold(tmp_path: Path, cells: str):
    text = f"{TITLES}a.png,mass,5,5,20,20,train\nb.png,No finding,{cells},train\n"
    targets, counted = read(table(tmp_path, text, "a.png", "b.png"))
    assert (targets, counted["box of an absence"]) == ({"a": [(5, 5, 20, 20)], "b": []}, cells != ",,,")
    assert read(table(tmp_path, text.replace("No finding", "free"), absent=["free"]))[0] == targets


def test_a_label_that_may_be_one_of_boxes_states_absence_where_all_its_boxes_are_blanks(tmp_path: Path):
    text = f"{TITLES}a.png,1,5,5,20,20,train\nb.png,0,0,0,1,1,train\n"
    assert read(table(tmp_path, text, "a.png", "b.png"))[0] == {"a": [(5, 5, 20, 20)], "b": []}
    text += "c.png,0,5,5,9,9,train"
    assert read(table(tmp_path, text, "c.png"))[0] == {
        "a": [(5, 5, 20, 20)],
        "b": [(0, 0, 1, 1)],
        "c": [(5, 5, 9, 9)],
    }
    text = f"{TITLES}a.png,1,20,5,5,20,train\nb.png,0,20,5,5,20,train\nc.png,1,5,5,9,9,train\n"
    assert list(read(table(tmp_path, text))[0]) == ["c"]  # swapped corners are no blank box


@pytest.mark.parametrize(
    ("named", "there", "negatives"),
    [
        ("IMG_7.png", "7.png", False),
        ("7.png", "007.png", False),
        ("8.png", "7.png", True),  # a set that is shared in part
        ("scan7.png", "3.png", False),
        ("0f0e0d0c0b0a09080706050403020100", "00000000aaaaaaaa11111111bbbbbbbb.png", True),
    ],
)
def test_images_without_a_row_are_no_negatives_where_rows_mean_others(
    tmp_path: Path, named: str, there: str, negatives: bool
):
    columns = Columns("image", "label", corners=["x1", "y1", "x2", "y2"])
    text = TITLES.replace(",split", "") + f"1.png,mass,5,5,20,20\n{named},mass,5,5,20,20\n"
    reader = table(tmp_path, text, "1.png", there, negatives=True, columns=columns)
    source = BoxSource(reader, kind="localization", splits="hash")
    found = {record.image.stem for split in SPLITS for record in source.records(split)}
    assert found == ({"1", Path(there).stem} if negatives else {"1"})
    key = f"image without row, while rows name others that are not there, such as {named!r}"
    assert sum(counts[key] for counts in source.counts.values()) == (not negatives)
    if not negatives:
        with pytest.raises(DataError, match=rf"{there}: its annotation tells neither .*image without row"):
            BoxSource(reader, kind="localization", unusable="refuse").check()


# --- names, encodings, the last resort -------------------------------------------------------------------------------


def test_two_names_do_not_lead_to_one_file_in_silence(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    files = ImageFiles([tmp_path])
    assert files.find("p1/a.jpg", Counter()) == tmp_path / "a.jpg"
    with pytest.raises(DataError, match=r"p1/a\.jpg and p2/a\.jpg would both be this file"):
        files.find("p2/a.jpg", Counter())
    with pytest.raises(DataError, match=r"p1/a\.jpg and home/p2/a\.jpg would both be this file"):
        files.find("/home/p2/a.jpg", Counter())
    assert files.find(str(tmp_path / "a.jpg"), Counter()) == tmp_path / "a.jpg"


def test_thousands_of_files_of_one_name_are_found_in_a_second(tmp_path: Path):
    for number in range(4000):
        place = tmp_path / "set" / f"p{number}" / "jpeg"
        place.mkdir(parents=True)
        (place / "1-1.png").touch()
    files, began = ImageFiles([tmp_path / "set"], bare=False), time.process_time()
    for number in range(4000):  # the first folder is not here; other cases; no suffix; contradicted by all files
        found = [files.find(name, Counter()) for name in (f"x/P{number}/jpeg/1-1.png", f"x\\p{number}\\JPEG\\1-1")]
        assert found == [tmp_path / "set" / f"p{number}" / "jpeg" / "1-1.png"] * 2
        assert files.find(f"q{number}/1-1.png", Counter()) is None
    assert time.process_time() - began < 8  # about 1; a comparison with every file would take hours
    for name in ("1-1.png", "elsewhere/jpeg/1-1.png"):
        with pytest.raises(DataError, match="has the same name"):
            files.find(name, Counter())


def test_of_namesakes_the_one_with_most_of_the_folders_is_taken(tmp_path: Path):
    inner = [picture(tmp_path / place / "a.png") for place in ("x/1", "y/1", "y/2", "1", "")]
    files = ImageFiles([tmp_path, tmp_path / "y"])
    for name, file in {"h/X/1/a": inner[0], "h/y/1/A.png": inner[1], "2/a.PNG": inner[2], "q/A.png": inner[4]}.items():
        assert files.find(name, Counter()) == file
    picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"has the same name, and 'a' does not tell which"):
        ImageFiles([tmp_path]).find("a", Counter())


def test_samples_of_one_stem_have_names_of_their_own():
    images = [Path("x/1/a.png"), Path("x/2/a.png"), Path("x/2/a.jpg"), Path("x/b.png")]
    names = unique_names(images)
    assert names == ["1_a", "2_a.png", "2_a.jpg", "b"]
    assert unique_names([Path("x/a.png"), Path("y/a.png").absolute()]) == ["x_a", "y_a"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("names: [肺炎, 结节]", "utf-8"),
        ("names: [肺炎, 结节]", "utf-8-sig"),
        ("names: [肺炎, 结节]", "utf-16"),
        ("names: [mass, cyst]", "utf-16-le"),
        ("names: [肺炎, 结节]", "gb18030"),
        ("names: [嗜酸性粒细胞, 淋巴细胞]", "gbk"),
        ("names: [Läsion, Größe, Übergang]", "latin-1"),
        ("names: [lésion à gauche, cœur, naïve]", "cp1252"),
        ("names: [INFLAMAÇÃO]", "latin-1"),
    ],
)
def test_a_text_is_read_in_the_encoding_that_it_has(text: str, encoding: str):
    assert decode(text.encode(encoding)) is not None
    assert decode(text.encode(encoding))[0] == text  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("종양, 결절", "euc_kr"),
        ("腫瘍, 結節, ポリープ", "shift_jis"),
        ("腫瘍, 結節", "euc_jp"),
        ("腫瘤, 結節", "big5"),
        ("Опухоль, узел", "cp1251"),
        ("УЗЕЛ", "cp1251"),
        ("узел", "koi8-r"),
        ("όγκος", "cp1253"),
        ("złośliwy guz", "cp1250"),
        ("lezyon sağ", "cp1254"),
    ],
)
def test_a_text_of_an_unknown_encoding_is_refused_unless_it_is_stated(tmp_path: Path, text: str, encoding: str):
    path = write(tmp_path / "a.txt", text.encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt: is not UTF-8, .*save it as UTF-8, or set data\.encoding"):
        read_text(path, Counter())
    counted: Counter[str] = Counter()
    assert read_text(path, counted, encoding) == text
    assert sum(counted.values()) == 1


def test_two_of_three_characters_must_be_common_chinese():
    assert decode("肺炎肿瘤痂瘢".encode("gb18030")) == ("肺炎肿瘤痂瘢", "gb18030")  # 4 common, 2 rare
    assert decode("上皮瘢痂".encode("gb18030")) is None


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "euc-kr", "ISO-8859-1", "UTF-16"])
def test_the_encoding_that_an_xml_file_declares_is_believed(tmp_path: Path, encoding: str):
    name = {"gb2312": "一", "shift_jis": "腫瘍", "euc-kr": "종양"}.get(encoding, "Läsion")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>{thing(5, 5, 20, 20, name)}</annotation>'
    write(voc(tmp_path) / "Annotations" / "a.xml", text.encode(encoding))
    (record,) = VOCReader(tmp_path).read("train", Counter())
    assert record.annotations[0].label == name


def test_a_wrong_declaration_does_not_spoil_utf8():
    text = '<?xml version="1.0" encoding="gb2312"?><a>肺炎</a>'
    assert decode(text.encode())[0] == text  # type: ignore[index]
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><a>Läsion</a>'
    assert decode(text.encode())[0] == text  # type: ignore[index]


def test_a_workbook_is_no_table(tmp_path: Path):
    with pytest.raises(DataError, match=r"t\.csv: is no text but binary data"):
        read(table(tmp_path, b"PK\x03\x04" + bytes(range(256))))


def test_the_last_resort_names_the_file_and_lets_the_rest_pass():
    with pytest.raises(DataError, match=r"^a: could not be read \(KeyError: 3\); please report"), reading("a"):
        raise KeyError(3)
    with pytest.raises(DataError, match=r"^b: cannot be read \(No such file"), reading("a"):
        Path("b").read_bytes()
    for error in (KeyboardInterrupt, MemoryError, DataError):
        with pytest.raises(error), reading("a"):
            raise error


# --- whatever stands in a file, it is read or refused ----------------------------------------------------------------

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["a.jpg", "1", 1])
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
RECORD = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["id", "image_id", "category_id", "file_name", "name", "bbox", "segmentation", "iscrowd"], JSON
    )
    | {
        "bbox": st.lists(LEAVES, max_size=5),
        "segmentation": JSON | st.fixed_dictionaries({"counts": JSON, "size": JSON}),
    },
)
IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def is_read_or_refused(make: Any) -> None:
    """The records can be cleaned, or the refusal is one line that a reader foresaw."""
    message = ""
    try:
        for record in make().read("train", Counter()):
            clean(record, Counter())
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert "please report" not in message


@IN_A_FOLDER
@given(st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), st.lists(RECORD, max_size=3) | JSON))
def test_any_structure_in_a_coco_file_is_read_or_refused(tmp_path: Path, changed: dict[str, Any]):
    for boxes in ("bbox", "polygon"):
        is_read_or_refused(lambda boxes=boxes: COCOReader(coco(tmp_path, **changed), boxes=boxes))


@IN_A_FOLDER
@given(st.lists(RECORD.map(lambda one: BOX | one), max_size=3))
def test_any_annotation_in_a_coco_file_is_read_or_refused(tmp_path: Path, annotations: list[Any]):
    is_read_or_refused(lambda: COCOReader(coco(tmp_path, annotations=annotations), boxes="polygon"))


@IN_A_FOLDER
@given(st.binary(max_size=60) | st.text(alphabet="01 .-#\t\nae", max_size=60).map(str.encode), st.sampled_from("yd"))
def test_any_bytes_in_a_yolo_file_are_read_or_refused(tmp_path: Path, data: bytes, which: str):
    yolo(tmp_path)
    write(tmp_path / ("data.yaml" if which == "d" else "train/labels/a.txt"), data)
    is_read_or_refused(lambda: YOLOReader(tmp_path))


@IN_A_FOLDER
@given(JSON)
def test_any_structure_in_data_yaml_is_read_or_refused(tmp_path: Path, names: Any):
    is_read_or_refused(
        lambda: YOLOReader(yolo(tmp_path, "0 .5 .5 .2 .2", json.dumps({"names": names, "train": names})))
    )


@IN_A_FOLDER
@given(st.binary(max_size=60) | st.text(max_size=20).map(lambda text: thing(1, 2, 3, 4, text).encode()), st.booleans())
def test_any_bytes_in_a_voc_file_are_read_or_refused(tmp_path: Path, data: bytes, is_list: bool):
    voc(tmp_path)
    write(tmp_path / ("ImageSets/Main/train.txt" if is_list else "Annotations/a.xml"), data)
    is_read_or_refused(lambda: VOCReader(tmp_path))


@IN_A_FOLDER
@given(
    st.binary(max_size=80)
    | st.lists(
        st.lists(st.sampled_from(["a.png", "a", "1", "", '"', "nan", "-3.5", "mass"]), max_size=8), max_size=5
    ).map(lambda rows: (TITLES + "\n".join(map(",".join, rows))).encode())
)
def test_any_table_is_read_or_refused(tmp_path: Path, data: bytes):
    is_read_or_refused(lambda: table(tmp_path, data))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_text_or_none(data: bytes):
    assert decode(data) is None or isinstance(decode(data)[0], str)  # type: ignore[index]
