"""Rows that could be read wrongly in silence: columns, names, spellings, and indexes that others make as well."""

import os
from collections import Counter
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from PIL import Image
from pydantic import TypeAdapter

from vrft.caches import cache_folder
from vrft.data.class_folders import FolderReader
from vrft.data.rows import RowOptions, RowSource
from vrft.data.splits import SPLITS, Shares
from vrft.data.table_rows import RowColumns, RowTableReader
from vrft.errors import DataError, RecipeError
from vrft.recipe import read_recipe
from vrft.recipe.opening import _box_source as box_source
from vrft.recipe.sections import TableData
from vrft.sample import Sample


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))


def images(root: Path, *names: str) -> None:
    for grey, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 30), grey).save(root / name)


def table(root: Path, text: str, kind: Any = "classification", target: Any = "label", **options: Any) -> RowSource:
    (root / "t.csv").write_text(text, encoding="utf-8")
    given = {key: options.pop(key) for key in ("id", "split", "patient") if key in options}
    reader = RowTableReader(root / "t.csv", root, columns=RowColumns(image="image", target=target, **given))
    return RowSource(reader, kind=kind, options=RowOptions(**options))


def folder(root: Path, **options: Any) -> RowSource:
    reader = FolderReader(root, hash_names=options.get("hash_names", False))
    return RowSource(reader, kind="classification", options=RowOptions(**options))


def every(source: RowSource) -> list[Sample]:
    return [sample for split in SPLITS for sample in source.samples(split)]


def test_an_image_in_two_spellings_stays_in_one_split(tmp_path: Path):
    names = [f"{n}.png" for n in range(12)]
    images(tmp_path, *names)
    rows = [f"{before}{name},A" for name in names for before in ("", "./", ".//")]
    found = every(table(tmp_path, "image,label\n" + "\n".join(rows)))
    assert len({(sample.facts["image"], sample.split) for sample in found}) == 12


@pytest.mark.parametrize("target", [0, [0, 1, 2]])
def test_a_number_that_is_the_title_of_another_column_is_refused(tmp_path: Path, target: Any):
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match="has a column with the title '0', and column 0 counted from 0 is 'image'"):
        table(tmp_path, "image,0,1,2\na.png,1,0,0\nb.png,0,1,0\n", target=target).check()


def test_composed_and_decomposed_letters_are_the_same_patient_and_label(tmp_path: Path):
    images(tmp_path, "a.png", "b.png")
    rows = [f"{name},{normalize(form, 'ä')},{normalize(form, 'Mü')},{split}" for name, form, split in
            (("a.png", "NFC", "train"), ("b.png", "NFD", "test"))]  # fmt: skip
    text = "image,label,who,part\n" + "\n".join(rows)
    with pytest.raises(DataError, match="1 of 1 patients are in more than one split"):
        table(tmp_path, text, split="part", patient="who").check()
    assert table(tmp_path, text, split="part").labels == ["ä"]


def test_a_label_none_is_a_class_where_the_recipe_or_a_folder_says_so(tmp_path: Path):
    images(tmp_path / "set", "none/a.png", "mild/b.png")
    assert folder(tmp_path / "set").labels == ["mild", "none"]
    images(tmp_path, "a.png", "b.png")
    text = "image,label\na.png,none\nb.png,mild\n"
    with pytest.raises(DataError, match=r"t.csv:2: has no label \(its cell 'none' counts as empty"):
        table(tmp_path, text).check()
    assert table(tmp_path, text, label_names={"none": "no finding"}).labels == ["no finding", "mild"]


def test_a_year_is_no_grade(tmp_path: Path):
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match="the greatest grade is 2023"):
        _ = table(tmp_path, "image,label\na.png,0\nb.png,2023\n", "grading").levels


def test_names_of_samples_are_names_of_files_in_one_folder(tmp_path: Path):
    images(tmp_path / "set", "a.png", "b.png")
    images(tmp_path / "other", "x/a.png", "y/a.png")
    named = every(table(tmp_path / "set", f"image,label,n\na.png,A,../../x\nb.png,B,{'y' * 400}\n", id="n"))
    assert {sample.id for sample in named} >= {".._.._x"}
    assert max(len(sample.id) for sample in named) < 200
    elsewhere = every(table(tmp_path / "set", "image,label\n../other/x/a.png,A\n../other/y/a.png,B\n"))
    assert {sample.id for sample in elsewhere} == {"other_x_a.png", "other_y_a.png"}


def test_a_file_name_that_is_no_unicode_is_a_row_at_fault(tmp_path: Path):
    images(tmp_path / "set", "A/a.png", "B/b.png")
    os.rename(tmp_path / "set" / "A" / "a.png", os.fsencode(tmp_path / "set" / "A") + b"/\xff.png")
    with pytest.raises(DataError, match=r"xff.png: holds|udcff.png: holds a name or a text that is no valid Unicode"):
        folder(tmp_path / "set").check()
    assert [sample.id for sample in every(folder(tmp_path / "set", on_bad_sample="skip"))] == ["b"]


def test_an_image_that_comes_into_a_linked_folder_is_seen(tmp_path: Path):
    images(tmp_path / "set", "A/a.png")
    images(tmp_path / "elsewhere", "b.png")
    (tmp_path / "set" / "B").symlink_to(tmp_path / "elsewhere")
    assert folder(tmp_path / "set").index.total == 2
    images(tmp_path / "elsewhere", "c.png")
    assert folder(tmp_path / "set").index.total == 3


def test_messages_about_folders_hold_no_names_of_images_where_these_are_hashed(tmp_path: Path):
    images(tmp_path / "set", "train/A/DOE_p1.png", "test/A/DOE_p1.png")
    for pattern in ("(p1)", "(q)"):
        with pytest.raises(DataError, match="A: image 1") as error:
            folder(tmp_path / "set", patient=pattern, hash_names=True).check()
        assert "DOE" not in str(error.value)


def test_the_place_of_a_row_is_its_image(tmp_path: Path):
    images(tmp_path / "set", "train/A/1.png", "train/A/2.png", "train/B/3.png", "test/A/4.png", "test/5.png")
    source = folder(tmp_path / "set", on_bad_sample="skip")
    rows = {row.number: row.images[0] for row in source.reader.rows()}
    assert {n: source.reader.place(n) for n in rows} == {n: str(tmp_path / "set" / name) for n, name in rows.items()}


def test_a_damaged_index_is_made_again_and_nothing_else_is_left(tmp_path: Path):
    images(tmp_path / "set", "A/a.png", "B/b.png")
    assert folder(tmp_path / "set").index.total == 2
    (kept,) = (cache_folder() / "tables").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:200])
    assert folder(tmp_path / "set").index.total == 2
    assert list((cache_folder() / "tables").iterdir()) == [kept]
    assert kept.stat().st_size > 200


def test_shares_and_seed_hold_for_splits_by_hash(tmp_path: Path):
    shares = Shares(train=0.5, validation=0.0, test=0.5)
    images(tmp_path, *(f"A/{n}.png" for n in range(200)))
    found = [every(folder(tmp_path, splits="hash", shares=shares, split_seed=seed)) for seed in (0, 1)]
    counts = [Counter(sample.split for sample in samples) for samples in found]
    assert all(set(of_split) == {"train", "test"} and 70 < of_split["train"] < 130 for of_split in counts)
    assert {sample.id for sample in found[0] if sample.split == "test"} != {
        sample.id for sample in found[1] if sample.split == "test"
    }


def section(**options: Any) -> Any:
    columns = {"image": "image", "label": "label", "corners": ["x1", "y1", "x2", "y2"]}
    return TypeAdapter(TableData).validate_python({"source": "table", "file": "t.csv", "columns": columns} | options)


def test_a_table_of_boxes_without_splits_gets_the_shares_of_the_recipe(tmp_path: Path):
    images(tmp_path, *(f"{n}.png" for n in range(20)))
    rows = "".join(f"{n}.png,A,1,1,9,9\n" for n in range(20))
    (tmp_path / "t.csv").write_text("image,label,x1,y1,x2,y2\n" + rows, encoding="utf-8")
    data = section(root=str(tmp_path), shares={"train": 0.9, "validation": 0.0, "test": 0.1})
    source = box_source(data, "localization")
    assert [len(list(source.samples(split))) for split in SPLITS] == [18, 0, 2]
    with pytest.raises(DataError, match=r"data.columns names no split, and data.splits is own; expected made"):
        box_source(section(root=str(tmp_path), splits="own"), "localization")


@pytest.mark.parametrize("unused", ["shares={train: 0.5, validation: 0.0, test: 0.5}", "split_seed=1"])
def test_shares_and_seed_without_effect_are_refused(tmp_path: Path, unused: str):
    images(tmp_path / "set", "train/A/a.png", "test/A/b.png")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: x\ndata: {{source: folder, root: {tmp_path / 'set'}, splits: own}}\ntask: {{kind: classification}}\n"
        "policy: {model: tiny}\nstages: [{kind: sft, steps: 1}]\narms: [majority]\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError, match="has no effect on splits of the data's own"):
        read_recipe(path, [f"data.{unused}"])


def test_a_yaml_truth_value_names_the_truth_values_of_files():
    assert section(label_names={True: "yes", 2.0: "two"}).label_names == {"True": "yes", "true": "yes", "2": "two"}


def test_messages_about_boxes_hold_no_names_of_images_where_these_are_hashed(tmp_path: Path):
    images(tmp_path, "DOE_1.png", "DOE_2.png")
    (tmp_path / "DOE_2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = "image,label,x1,y1,x2,y2\nDOE_1.png,A,1,1,9,9\nDOE_2.png,A,1,1,9,9\n"
    (tmp_path / "t.csv").write_text(rows, encoding="utf-8")
    for options, message in (({}, "cannot be read as an image"), ({"patient": "(q)"}, "data.patient finds no patient")):
        with pytest.raises(DataError, match=message) as error:
            box_source(section(root=str(tmp_path), hash_names=True, **options), "localization").check()
        assert "DOE" not in str(error.value)
