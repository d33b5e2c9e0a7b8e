"""Sources of boxes: on small files of every layout, and on the real sets with the counts of their notes."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrft.data.annotations import Annotation, BoxSource, Record, clean, crop_region
from vrft.data.coco import COCOReader
from vrft.data.masks import MaskReader
from vrft.data.splits import SPLITS, in_split
from vrft.data.table import Columns, TableReader
from vrft.data.voc import VOCReader
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError
from vrft.sample import open_image

ROOT = Path(__file__).parents[2]


def picture(path: Path, size: tuple[int, int] = (100, 80), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def totals(source: BoxSource) -> Counter[str]:
    source.check()
    return sum((source.counts[split] for split in SPLITS), Counter())


def test_boxes_are_dropped_or_clipped_by_one_rule_and_counted():
    boxes = [
        (0, 0, 5, 5),
        (0, 0, 5, 5),
        (-5, -5, 5, 5),
        (3, 3, 3, 9),
        (9, 9, 4, 4),
        (200, 0, 210, 5),
        (90, 70, 120, 90),
    ]
    counts: Counter[str] = Counter()
    record = clean(Record(Path("a.png"), (100, 80), tuple(Annotation("x", box) for box in boxes)), counts)
    assert [one.box for one in record.annotations] == [(0, 0, 5, 5), (90, 70, 100, 80)]
    assert counts == {"images": 1, "boxes": 7, "kept": 2, "duplicate": 2, "no area": 1, "outside": 1, "clipped": 1} | {
        "corners swapped": 1,
        "empty": 0,
    }


def test_a_group_stays_in_one_split_and_new_items_move_none():
    groups = [f"patient{n // 3}" for n in range(300)]
    inside = {split: in_split(groups, split) for split in SPLITS}
    assert all(sum(flags) == 1 for flags in zip(*inside.values(), strict=True))
    assert all(len({inside[split][n] for n in range(3 * g, 3 * g + 3)}) == 1 for split in SPLITS for g in range(100))
    assert in_split(groups[:50], "test") == inside["test"][:50]
    assert 40 < sum(inside["test"]) < 80


def test_the_splits_by_hash_are_60_20_and_20_percent():
    names = [f"image{n}" for n in range(5000)]
    shares = [sum(in_split(names, split)) / len(names) for split in SPLITS]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.02)


def test_voc(tmp_path: Path):
    picture(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    size = "<size><width>100</width><height>81</height></size>"
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation>{size}<object><name>WBC</name>{box}</object></annotation>"
    )
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, stems in (("train", "a\nmissing\n"), ("val", ""), ("test", "")):
        (lists / f"{name}.txt").write_text(stems)
    source = BoxSource(VOCReader(tmp_path), kind="localization", find=["WBC"])
    assert totals(source) == Counter({"images": 1, "boxes": 1, "kept": 1, "size differs": 1, "image missing": 1}) | {
        f"no image in {lists / name}.txt": 1 for name in ("val", "test")
    }
    (sample,) = source.samples("train")
    assert sample.target == ((1, 2, 30, 40),)
    assert sample.question == "Where is every WBC?"
    with pytest.raises(DataError, match="no box has the label 'RBC'; the data has WBC"):
        BoxSource(VOCReader(tmp_path), kind="localization", find=["RBC"]).check()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation>\n<object>")
    with pytest.raises(DataError, match=r"a\.xml:2: is no XML"):
        BoxSource(VOCReader(tmp_path), kind="localization").check()


def test_voc_without_lists_is_shared_out(tmp_path: Path):
    for index in range(20):
        picture(tmp_path / "JPEGImages" / f"{index}.jpg")
        xml = tmp_path / "Annotations" / f"{index}.xml"
        xml.parent.mkdir(exist_ok=True)
        xml.write_text("<annotation></annotation>")
    splits = [VOCReader(tmp_path).read(split, Counter()) for split in SPLITS]
    assert sum(map(len, splits)) == 20
    assert all(splits)
    with pytest.raises(DataError, match="neither ImageSets/Main nor"):
        VOCReader(tmp_path / "JPEGImages").read("train", Counter())


def test_yolo_with_the_splits_inside_images_and_labels(tmp_path: Path):
    (tmp_path / "data.yaml").write_text("names: [mass]")
    picture(tmp_path / "images" / "val" / "a.png")
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (record,) = YOLOReader(tmp_path).read("validation", Counter())
    assert record.annotations == (Annotation("mass", (25.0, 20.0, 75.0, 60.0)),)
    assert YOLOReader(tmp_path).read("train", Counter()) == []


def test_all_images_can_be_shared_out_anew(tmp_path: Path):
    (tmp_path / "data.yaml").write_text("names: [mass]")
    for split, count in (("val", 20), ("test", 20)):
        for index in range(count):
            picture(tmp_path / split / "images" / f"{split}{index}.png")
    own, anew = (BoxSource(YOLOReader(tmp_path), kind="localization", splits=splits) for splits in ("own", "hash"))
    for source in (own, anew):
        with pytest.raises(
            DataError, match=r"val0\.png: none of the 40 images has a file of labels, such as .*val0\.txt"
        ):
            source.check()
    for split in ("val", "test"):
        (tmp_path / split / "labels").mkdir()
        for index in range(20):
            (tmp_path / split / "labels" / f"{split}{index}.txt").write_text("")
    anew = BoxSource(YOLOReader(tmp_path), kind="localization", splits="hash")
    names = [{record.image.stem for record in anew.records(split)} for split in SPLITS]
    assert sum(map(len, names)) == len(set().union(*names)) == 40
    assert len(names[0]) > len(names[1]) > 0


def test_a_table_tells_splits_that_are_none_and_names_that_are_two(tmp_path: Path):
    picture(tmp_path / "a.png")
    table = tmp_path / "boxes.csv"
    columns = Columns("image", "label", corners=["x1", "y1", "x2", "y2"], split="split")
    table.write_text("image,label,x1,y1,x2,y2,split\na.png,mass,1,1,5,5,holdout\n")
    with pytest.raises(DataError, match=r"boxes\.csv:2: the split is 'holdout'; expected one of dev"):
        TableReader(table, tmp_path, columns=columns).read("train", Counter())
    table.write_text("image,label,x1,y1,x2,y2,split\na.png,mass,1,1,5,5,test\n")
    for index in range(20):
        picture(tmp_path / f"empty{index}.png")
    splits = [TableReader(table, tmp_path, columns=columns, negatives=True).read(split, Counter()) for split in SPLITS]
    assert sum(map(len, splits)) == 21
    picture(tmp_path / "more" / "a.png")
    with pytest.raises(DataError, match="has the same name"):
        TableReader(table, tmp_path, columns=columns).read("train", Counter())


def test_coco_boxes_polygons_and_images_without_annotations(tmp_path: Path):
    for name in "ab":
        picture(tmp_path / "train" / f"{name}.png")
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 7,
        "bbox": [10, 20, 30, 40.5],
        "segmentation": [[10, 20, 35, 50, 12, 30]],
    }
    content = {
        "categories": [{"id": 0, "name": "group"}, {"id": 7, "name": "cell"}],
        "images": [
            {"id": n, "file_name": f"{name}.png", "width": 100, "height": 80} for n, name in enumerate("abc", 1)
        ],
        "annotations": [annotation, annotation | {"id": 2, "image_id": 99}],
    }
    file = tmp_path / "train" / "_annotations.coco.json"
    file.write_text(json.dumps(content))
    source = BoxSource(COCOReader(tmp_path), kind="localization")
    counts = totals(source)
    assert (counts["image missing"], counts["not annotated"], counts["annotation without image"], counts["empty"]) == (
        1,
        1,
        1,
        0,
    )
    assert counts["not annotated, while 1 annotations refer to no image, such as image_id 99"] == 1
    assert [sample.target for sample in source.samples("train")] == [((10, 20, 40, 60.5),)]
    hull = BoxSource(COCOReader(tmp_path, boxes="polygon", unannotated="skip"), kind="localization")
    assert [sample.target for sample in hull.samples("train")] == [((10, 20, 35, 50),)]
    content["annotations"] = [annotation | {"category_id": 3}]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="annotation 1 has category 3"):
        BoxSource(COCOReader(tmp_path), kind="localization").check()


def test_yolo_boxes_polygons_oriented_boxes_and_empty_files(tmp_path: Path):
    lines = {"a": "1 0.5 0.5 0.2 0.5", "b": "0 0.1 0.1 0.3 0.1 0.2 0.4", "c": "", "d": "10 10 30 10 30 20 10 20 disc 0"}
    (tmp_path / "data.yaml").write_text("names: [object, tumor]")
    for name, line in lines.items():
        picture(tmp_path / "valid" / "images" / f"{name}.png")
        (tmp_path / "valid" / "labels").mkdir(exist_ok=True)
        (tmp_path / "valid" / "labels" / f"{name}.txt").write_text(line)
    picture(tmp_path / "valid" / "images" / "e.png")
    source = BoxSource(YOLOReader(tmp_path), kind="localization")
    counts = totals(source)
    assert (counts["polygon"], counts["oriented"], counts["empty"], counts["not annotated"]) == (1, 1, 1, 1)
    targets = [sample.target for sample in source.samples("validation")]
    assert [[round(v, 6) for box in target for v in box] for target in targets] == [
        [40, 20, 60, 60],
        [10, 8, 30, 32],
        [],
        [10, 10, 30, 20],
    ]
    (tmp_path / "valid" / "labels" / "a.txt").write_text("7 0.5 0.5 0.2 0.5")
    with pytest.raises(DataError, match=r"a\.txt:1: class 7 is not in names"):
        BoxSource(YOLOReader(tmp_path), kind="localization").check()


def test_masks_become_the_boxes_of_their_connected_regions(tmp_path: Path):
    mask = np.zeros((80, 100), np.uint8)
    mask[10:20, 30:50], mask[12:15, 35:40], mask[40:60, 5:15], mask[70, 90] = 120, 250, 131, 128
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    reader = MaskReader(
        tmp_path / "images", tmp_path / "masks", classes={128: "cytoplasm", 255: "nucleus"}, merge="cell"
    )
    source = BoxSource(reader, kind="localization")
    assert totals(source)["speck"] == 1
    (sample,) = (sample for split in SPLITS for sample in source.samples(split))
    assert sample.target == ((30, 10, 50, 20), (5, 40, 15, 60))
    picture(tmp_path / "images" / "a.jpg", (50, 50))
    with pytest.raises(DataError, match="is 100 x 80, but its image is 50 x 50"):
        BoxSource(reader, kind="localization").check()


def test_a_table_with_a_map_of_its_columns(tmp_path: Path):
    for name in ("1_a.png", "1_b.png", "2_a.png"):
        picture(tmp_path / "images" / name)
    table = tmp_path / "boxes.csv"
    table.write_bytes(
        "\ufeffFile,Finding,Bbox [x,y,w,h]\r\n1_a.png,mass,1,2,3.5,4\r\n3_a.png,mass,1,2,3,4\r\n".encode()
    )
    columns = Columns("File", "Finding", corner_and_size=(2, 3, 4, 5))
    reader = TableReader(table, tmp_path / "images", columns=columns, patient="^([^_]+)_", negatives=True)
    source = BoxSource(reader, kind="localization")
    counts = totals(source)
    assert (counts["images"], counts["empty"], counts["row without image"], counts["image without row"]) == (3, 2, 1, 2)
    targets = {sample.id: (sample.target, split) for split in SPLITS for sample in source.samples(split)}
    assert targets["1_a"][0] == ((1, 2, 4.5, 6),)
    assert targets["1_a"][1] == targets["1_b"][1]  # one patient, one split
    table.write_text("File,Finding\n1_a.png,mass\n")
    with pytest.raises(DataError, match=r"boxes\.csv:1: has no column 2; it has File, Finding"):
        BoxSource(TableReader(table, tmp_path / "images", columns=columns), kind="localization").check()


def test_all_images_of_a_patient_in_a_table_are_in_one_split(tmp_path: Path):
    names = [f"p{patient}_{view}.png" for patient in range(8) for view in range(4)]
    for name in names:
        picture(tmp_path / "images" / name, (10, 8))
    table = tmp_path / "boxes.csv"
    table.write_text("file,label,x1,y1,x2,y2\n" + "".join(f"{name},mass,1,2,3,4\n" for name in names))
    columns = Columns("file", "label", corners=("x1", "y1", "x2", "y2"))
    source = BoxSource(
        TableReader(table, tmp_path / "images", columns=columns, patient="^([^_]+)_"), kind="localization"
    )
    found = {split: {sample.id.split("_")[0] for sample in source.samples(split)} for split in SPLITS}
    assert sum(map(len, found.values())) == 8
    assert len([split for split in SPLITS if found[split]]) > 1


def test_regions_are_cut_out_with_a_margin(tmp_path: Path):
    assert crop_region((10, 20, 30, 40), 0.25, (100, 80)) == (5, 15, 35, 45)
    assert crop_region((20, 30, 40, 34), 0.25, (100, 80)) == (15, 25, 45, 39)  # a share of the longer side
    assert crop_region((0, 0, 0.2, 0.2), 0, (100, 80)) == (0, 0, 1, 1)


class OneImage:
    """A reader of one image with two cells."""

    def __init__(self, path: Path) -> None:
        self.record = Record(path, (100, 80), (Annotation("RBC", (0, 0, 9, 9)), Annotation("WBC", (20, 20, 60, 60))))

    def read(self, split: str, counts: Counter[str]) -> list[Record]:
        return [self.record] if split == "train" else []


@pytest.mark.parametrize(("region", "size"), [("crop", (60, 60)), ("box", (100, 80))])
def test_a_region_is_cut_out_or_told(tmp_path: Path, region: str, size: tuple[int, int]):
    reader = OneImage(picture(tmp_path / "a.png"))
    source = BoxSource(reader, kind="classification", region=region, margin=0.25)  # type: ignore[arg-type]
    _, cell = source.samples("train")
    assert (cell.target, open_image(cell.images[0]).size) == ("WBC", size)
    assert cell.region == ((20, 20, 60, 60) if region == "box" else None)


def test_real_sets_have_the_counts_of_their_notes(shared: Path):
    command = [sys.executable, str(ROOT / "benchmarks" / "box_sets.py"), str(shared / "data"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stderr, result.returncode) == ("", 0)
    table = json.loads(result.stdout)
    assert len(table) == 9
    assert all(row["read"][key] == count for row in table.values() for key, count in row["notes"].items())


def test_single_cells_are_samples_of_their_own(shared: Path):
    source = BoxSource(VOCReader(shared / "data" / "bccd"), kind="classification")
    assert source.labels == ["Platelets", "RBC", "WBC"]
    images = {split: {sample.facts["image"] for sample in source.samples(split)} for split in SPLITS}
    assert not images["train"] & images["test"]
    first = next(iter(source.samples("test")))
    x1, _, x2, _ = first.facts["box"]
    assert open_image(first.images[0]).size[0] >= x2 - x1
    assert first.target in source.labels


def test_a_single_coco_file_without_the_name_of_a_split_is_shared_out(tmp_path: Path):
    names = [f"{index}.png" for index in range(10)]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("L", (40, 30)).save(tmp_path / "images" / name)
    content = {
        "images": [{"id": index, "file_name": name, "width": 40, "height": 30} for index, name in enumerate(names)],
        "categories": [{"id": 1, "name": "mass"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(10)],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    source = BoxSource(COCOReader(tmp_path), kind="localization", splits="made")
    assert [len(list(source.samples(split))) for split in SPLITS] == [6, 2, 2]


def test_images_of_one_name_in_several_folders_are_shared_out_each(tmp_path: Path):
    rows = ["image,label,x1,y1,x2,y2"]
    for case in range(10):
        path = tmp_path / f"case{case}" / "image.png"
        path.parent.mkdir()
        Image.new("L", (40, 30)).save(path)
        rows.append(f"case{case}/image.png,mass,1,1,9,9")
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    columns = Columns(image="image", label="label", corners=("x1", "y1", "x2", "y2"))
    source = BoxSource(TableReader(tmp_path / "t.csv", tmp_path, columns=columns), kind="localization", splits="made")
    assert [len(list(source.samples(split))) for split in SPLITS] == [6, 2, 2]
