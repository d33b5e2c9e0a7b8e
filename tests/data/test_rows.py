import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vrft.data.class_folders import FolderReader
from vrft.data.rows import RowOptions, RowSource
from vrft.data.splits import SPLITS, Shares, share_out
from vrft.data.table_rows import RowColumns, RowTableReader
from vrft.errors import DataError
from vrft.sample import ImageFile, Sample, open_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def image(path: Path, size: tuple[int, int] = (40, 30), grey: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)
    return path


def table(root: Path, text: str, *images: str, name: str = "t.csv") -> Path:
    for one in images:
        image(root / "images" / one)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def source(
    root: Path, kind: Any = "classification", *, name: str = "t.csv", target: Any = "label", **options: Any
) -> RowSource:
    names = ("id", "question", "split", "patient", "subgroup", "study", "image")
    columns: dict[str, Any] = {"image": "image"} | {key: options.pop(key) for key in names if key in options}
    if "pattern" in options:
        options["patient"] = options.pop("pattern")
    reader = RowTableReader(root / name, root / "images", columns=RowColumns(target=target, **columns))
    return RowSource(reader, kind=kind, options=RowOptions(**options))


def every(one: RowSource) -> list[Sample]:
    return [sample for split in SPLITS for sample in one.samples(split)]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_of_labels_with_its_own_splits(tmp_path: Path):
    rows = "image,label,part\na.png,normal,train\nb.png,mass,train\nc.png,mass,val\nd.png,normal,TEST\n"
    table(tmp_path, rows, "a.png", "b.png", "c.png", "d.png")
    found = source(tmp_path, split="part")
    found.check()
    assert found.labels == ["mass", "normal"]
    assert [(one.id, one.target, one.split) for one in every(found)] == [
        ("a", "normal", "train"),
        ("b", "mass", "train"),
        ("c", "mass", "validation"),
        ("d", "normal", "test"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "\ufeffimage;label\r\na.png;x\r\nb.png;y\r\n"),
        ("t.tsv", "image\tlabel\na.png\tx\nb.png\ty\n"),
        ("t.csv", "sep=|\nimage|label\na.png|x\nb.png|y\n"),
        ("t.jsonl", '{"image": "a.png", "label": "x"}\n\n{"image": "b.png", "label": "y"}\n'),
        ("t.json", '[{"image": "a.png", "label": "x"}, {"image": "b.png", "label": "y"}]'),
        ("t.json", '{"info": 1, "rows": [{"image": "a.png", "label": "x"}, {"image": "b.png", "label": "y"}]}'),
    ],
)
def test_tables_of_all_kinds_give_the_same_samples(tmp_path: Path, name: str, text: str):
    table(tmp_path, text, "a.png", "b.png", name=name)
    assert {(one.id, one.target) for one in every(source(tmp_path, name=name))} == {("a", "x"), ("b", "y")}


def test_a_parquet_table(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    image(tmp_path / "images" / "a.png")
    pandas.DataFrame({"image": ["a.png"], "label": [2.0]}).to_parquet(tmp_path / "t.parquet")
    (one,) = every(source(tmp_path, "grading", name="t.parquet"))
    assert one.target == 2


def test_a_column_for_each_label_has_a_single_1(tmp_path: Path):
    table(tmp_path, "image,mass,normal\na.png,1,0\nb.png,0,1.0\n", "a.png", "b.png")
    assert {one.id: one.target for one in every(source(tmp_path, target=("mass", "normal")))} == {
        "a": "mass",
        "b": "normal",
    }
    table(tmp_path, "image,mass,normal\na.png,1,1\n", "a.png")
    with pytest.raises(DataError, match=r"t\.csv:2: has a 1 in 2 of the columns of classes; expected 1"):
        source(tmp_path, target=("mass", "normal")).check()


def test_questions_and_names_by_row(tmp_path: Path):
    table(tmp_path, "image,q,label,n\na.png,Is it?,yes,7\na.png,Was it?,no,8\n", "a.png")
    found = source(tmp_path, question="q", id="n")
    assert sorted((one.id, one.question, one.target) for one in every(found)) == [
        ("7", "Is it?", "yes"),
        ("8", "Was it?", "no"),
    ]
    assert len({one.split for one in every(found)}) == 1  # rows of an image stay together


def test_rows_of_an_image_have_names_of_their_own(tmp_path: Path):
    table(tmp_path, "image,label\na.png,x\na.png,x\ns/a.png,y\n", "a.png", "s/a.png")
    names = [one.id for one in every(source(tmp_path))]
    assert len(set(names)) == 3


def test_several_images_from_columns_a_list_or_a_study(tmp_path: Path):
    table(tmp_path, "image,side,label,study\na.png,b.png,x,1\nc.png,,y,2\n", "a.png", "b.png", "c.png")
    two = {one.target: len(one.images) for one in every(source(tmp_path, image=["image", "side"]))}
    assert two == {"x": 2, "y": 1}
    (tmp_path / "t.jsonl").write_text('{"image": ["a.png", "b.png", "c.png"], "label": "x"}\n', encoding="utf-8")
    (one,) = every(source(tmp_path, name="t.jsonl"))
    assert [path.name for path in one.images if isinstance(path, Path)] == ["a.png", "b.png", "c.png"]
    table(tmp_path, "image,label,study\na.png,x,1\nc.png,y,2\nb.png,x,1\n")
    joined = {
        one.target: [Path(str(path)).name for path in one.images] for one in every(source(tmp_path, study="study"))
    }
    assert joined == {"x": ["a.png", "b.png"], "y": ["c.png"]}


def test_rows_of_a_study_that_contradict_each_other(tmp_path: Path):
    table(tmp_path, "image,label,study\na.png,x,1\nb.png,y,1\nc.png,x,2\n", "a.png", "b.png", "c.png")
    with pytest.raises(DataError, match=r"t\.csv:3: has another label than .*t\.csv:2, which is of the same study"):
        source(tmp_path, study="study").check()
    assert [one.id for one in every(source(tmp_path, study="study", on_bad_sample="skip"))] == ["c"]


def test_boxes_in_a_cell(tmp_path: Path):
    rows = [
        {"image": "a.png", "boxes": [[1, 2, 11, 12], [1, 2, 11, 12], [30, 20, 60, 50]]},
        {"image": "b.png", "boxes": []},
        {"image": "c.png", "boxes": [{"bbox": [3, 3, 9, 9], "label": "mass"}]},
    ]
    table(tmp_path, "\n".join(map(json.dumps, rows)), "a.png", "b.png", "c.png", name="t.jsonl")
    found = {one.id: one.target for one in every(source(tmp_path, "localization", name="t.jsonl", target="boxes"))}
    assert found == {"a": ((1, 2, 11, 12), (30, 20, 40, 30)), "b": (), "c": ((3, 3, 9, 9),)}


def test_a_cell_of_boxes_gives_regions_to_classify_and_to_grade(tmp_path: Path):
    cell = '{"bbox": [[10, 10, 10, 10], [20, 5, 5, 5]], "category": ["1", "3"]}'
    (tmp_path / "t.jsonl").write_text(f'{{"image": "a.png", "boxes": {cell}}}', encoding="utf-8")
    image(tmp_path / "images" / "a.png")
    options: dict[str, Any] = {"name": "t.jsonl", "target": "boxes", "regions": True, "box_format": "corner_and_size"}
    crops = every(source(tmp_path, "grading", margin=0.0, **options))
    assert [(one.id, one.target, open_image(one.images[0]).size) for one in crops] == [
        ("a-0", 1, (10, 10)),
        ("a-1", 3, (5, 5)),
    ]
    boxed = every(source(tmp_path, region="box", label_names={"1": "low", "3": "high"}, **options))
    assert [(one.target, one.region) for one in boxed] == [("low", (10, 10, 20, 20)), ("high", (20, 5, 25, 10))]


# --- what is refused, and what is left out ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("a.png,", "has no label"),
        (",x", "names no image"),
        ("nowhere.png,x", "names the image 'nowhere.png', which is not in"),
        ("a.png,x,middle", "has the split 'middle'; expected train, validation or test"),
        ("https://host/a.png,x", "names the image 'https://host/a.png', which is not in"),
    ],
)
def test_a_row_at_fault_is_named_or_left_out(tmp_path: Path, row: str, fault: str):
    table(tmp_path, f"image,label,part\n{row}{',train' * (row.count(',') < 2)}\nb.png,y,train\n", "a.png", "b.png")
    with pytest.raises(DataError) as error:
        source(tmp_path, split="part").check()
    assert str(error.value).startswith(f"{tmp_path / 't.csv'}:2: {fault}")
    assert "on_bad_sample" in str(error.value)
    skipping = source(tmp_path, split="part", on_bad_sample="skip")
    assert [one.id for one in every(skipping)] == ["b"]
    assert [(one["row"], one["fault"][:10]) for one in skipping.skipped()] == [(2, fault[:10])]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("[[1, 2, 3]]", "is no list of four numbers"),
        ("[[0.1, 0.2, 0.3, 0.4]]", "in shares of the image; expected pixels"),
        ("[[9, 9, 1, 1]]", "without area; expected x1 < x2"),
        ('"[[1"', "which are no JSON list"),
        ("7", "which are no list"),
        ("[[1, 2, 1e999, 4]]", "is no list of four numbers"),
    ],
)
def test_a_cell_of_boxes_at_fault(tmp_path: Path, cell: str, fault: str):
    (tmp_path / "t.jsonl").write_text(f'{{"image": "a.png", "boxes": {cell}}}', encoding="utf-8")
    image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"t\.jsonl:1: has") as error:
        source(tmp_path, "localization", name="t.jsonl", target="boxes").check()
    assert fault in str(error.value)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path):
    table(tmp_path, "image,lable\na.png,x\n", "a.png")
    with pytest.raises(DataError, match=r"t\.csv: has no column 'label'; it has image, lable\. Did you mean 'lable'\?"):
        source(tmp_path).check()
    table(tmp_path, '{"image": "a.png", "klass": 1}', name="t.jsonl")
    with pytest.raises(DataError, match=r"t\.jsonl: no row has the key 'label'; they have image, klass"):
        source(tmp_path, name="t.jsonl").check()


@pytest.mark.parametrize("name", ["t.xlsx", "t.parquet", "t.jsonl", "t.json", "t.csv"])
def test_junk_is_one_sentence(tmp_path: Path, name: str):
    (tmp_path / "images").mkdir()
    (tmp_path / name).write_bytes(b"PK\x03\x04\x00\xff\xfe\x00junk{")
    with pytest.raises(DataError, match=rf"{name}"):
        source(tmp_path, name=name).check()


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_table_or_a_sentence(data: bytes):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("t.csv", "t.jsonl", "t.json"):
            (Path(folder) / name).write_bytes(data)
            reader = RowTableReader(Path(folder) / name, Path(folder), columns=RowColumns(image="a", target="b"))
            with pytest.raises(DataError):
                RowSource(reader, kind="classification", options=RowOptions()).check()


def test_grades_must_begin_at_0_or_be_named(tmp_path: Path):
    table(tmp_path, "image,label\na.png,1\nb.png,5.0\n", "a.png", "b.png")
    with pytest.raises(DataError, match=r"grades are 1 to 5, and a scale begins at 0; set task.levels to \['1', '2'"):
        _ = source(tmp_path, "grading").levels
    table(tmp_path, "image,label\na.png,mild\nb.png,severe\n")
    with pytest.raises(DataError, match=r"the grades are names \(mild, severe\); list them in task.levels"):
        _ = source(tmp_path, "grading").levels


def test_an_image_that_is_there_next_time_is_found_next_time(tmp_path: Path):
    table(tmp_path, "image,label\na.png,x\nb.png,y\n", "a.png")
    assert len(every(source(tmp_path, on_bad_sample="skip"))) == 1
    image(tmp_path / "images" / "b.png")
    assert len(every(source(tmp_path, on_bad_sample="skip"))) == 2


# --- class folders ----------------------------------------------------------------------------------------------------


def folder(root: Path, kind: Any = "classification", *, series: bool = False, **options: Any) -> RowSource:
    return RowSource(FolderReader(root, series=series), kind=kind, options=RowOptions(**options))


def test_class_folders_with_splits_in_any_case_of_letters(tmp_path: Path):
    for name in ("Training/mass/a.png", "Training/normal/p1/b.png", "Testing/mass/c.png", "Testing/normal/d.png"):
        image(tmp_path / "set" / name)
    found = folder(tmp_path)  # the only folder in it is entered
    assert found.labels == ["mass", "normal"]
    assert [(one.id, one.target, one.split) for one in every(found)] == [
        ("a", "mass", "train"),
        ("b", "normal", "train"),
        ("c", "mass", "test"),
        ("d", "normal", "test"),
    ]


def test_class_folders_without_splits_are_shared_out_alike(tmp_path: Path):
    for index in range(50):
        image(tmp_path / ("rare" if index < 10 else "common") / f"{index}.png")
    counts = folder(tmp_path).annotation_counts()
    assert {split: counts[split]["rare"] for split in SPLITS} == {"train": 6, "validation": 2, "test": 2}
    assert {split: counts[split]["samples"] for split in SPLITS} == {"train": 30, "validation": 10, "test": 10}


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ([], "no such folder"),
        (["a.png"], "holds no folders; expected a folder for each class"),
        (["train/x/a.png", "other/b.png"], "'train' is the name of a split and 'other' is none"),
        (["x/a.txt", "y/b.txt"], "its folders hold no image"),
        (["a.png", "x/b.png", "y/c.png"], "lies in no folder of a class"),
    ],
)
def test_folders_at_fault(tmp_path: Path, files: list[str], fault: str):
    for name in files:
        image(tmp_path / "set" / name) if name.endswith("png") else (
            (tmp_path / "set" / name).parent.mkdir(parents=True),
            (tmp_path / "set" / name).touch(),
        )
    with pytest.raises(DataError) as error:
        folder(tmp_path / "set").check()
    assert fault in str(error.value)


def test_a_new_file_is_seen(tmp_path: Path):
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "y" / "b.png")
    assert len(every(folder(tmp_path))) == 2
    image(tmp_path / "y" / "c.png")
    assert len(every(folder(tmp_path))) == 3


def test_grades_from_the_names_of_folders(tmp_path: Path):
    for grade in (0, 1, 2):
        image(tmp_path / str(grade) / f"{grade}.png")
    found = folder(tmp_path, "grading")
    assert (found.levels, sorted(one.target for one in every(found))) == (3, [0, 1, 2])


# --- splits and patients ----------------------------------------------------------------------------------------------


def test_a_patient_stays_in_one_split_and_seeds_differ(tmp_path: Path):
    for index in range(60):
        image(tmp_path / f"class{index % 2}" / f"p{index // 3:02d}_{index}.png")
    first, again, other = (folder(tmp_path, patient=r"(p\d+)_", split_seed=seed) for seed in (0, 0, 1))
    where: dict[str, set[str]] = {}
    for one in every(first):
        where.setdefault(str(one.patient), set()).add(one.split)
    assert len(where) == 20
    assert all(len(splits) == 1 for splits in where.values())
    assert [one.id for one in every(first)] == [one.id for one in every(again)]
    assert [one.id for one in every(first)] != [one.id for one in every(other)]


def test_a_patient_in_two_splits_is_refused_unless_allowed(tmp_path: Path):
    rows = "image,label,part,who\na.png,x,train,Anna Q\nb.png,y,test,Anna Q\nc.png,y,test,Bert\n"
    table(tmp_path, rows, "a.png", "b.png", "c.png")
    with pytest.raises(DataError, match=r"1 of 2 patients are in more than one split, such as that of") as error:
        source(tmp_path, split="part", patient="who").check()
    assert "t.csv:2 (train)" in str(error.value)
    assert "Anna" not in str(error.value)
    source(tmp_path, split="part", patient="who", patient_overlap="allow").check()
    made = source(tmp_path, split="part", patient="who", splits="made", shares=Shares(0.5, 0.0, 0.5))
    made.check()
    assert {one.patient: one.split for one in every(made)}.keys() == {"Anna Q", "Bert"}


def test_a_row_without_a_patient_is_at_fault(tmp_path: Path):
    table(tmp_path, "image,label,who\na.png,x,\n", "a.png")
    with pytest.raises(DataError, match=r"t\.csv:2: names no patient"):
        source(tmp_path, patient="who").check()
    with pytest.raises(DataError, match=r"t\.csv:2: has a name in which data.patient finds no patient"):
        source(tmp_path, pattern="(p[0-9]+)_").check()


def test_a_validation_split_is_taken_from_the_training_split(tmp_path: Path):
    for index in range(20):
        image(tmp_path / ("train" if index < 16 else "test") / f"class{index % 2}" / f"{index}.png")
    counts = folder(tmp_path, splits="own+validation").annotation_counts()
    assert {split: counts[split]["samples"] for split in SPLITS} == {"train": 12, "validation": 4, "test": 4}


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=80),
    st.tuples(*[st.sampled_from([0.0, 0.1, 0.2, 0.5])] * 2),
    st.integers(0, 5),
)
def test_shares_are_kept_up_to_the_largest_unit(sizes: list[int], shares: tuple[float, float], seed: int):
    wanted = {"train": 1 - sum(shares) or 1.0, "validation": shares[0], "test": shares[1]}
    given_ = list(share_out(((str(n), size) for n, size in enumerate(sizes)), wanted, seed))
    assert [unit for unit, _ in given_] == [str(n) for n in range(len(sizes))]
    for split, share in wanted.items():
        got = sum(size for (_, where), size in zip(given_, sizes, strict=True) if where == split)
        assert abs(got - share / sum(wanted.values()) * sum(sizes)) <= 2 * max(sizes)
        assert share > 0 or got == 0


def test_splits_by_hash_do_not_move_when_images_come(tmp_path: Path):
    for index in range(30):
        image(tmp_path / "x" / f"{index}.png")
    image(tmp_path / "y" / "y.png")
    before = {one.id: one.split for one in every(folder(tmp_path, splits="hash"))}
    for index in range(30, 40):
        image(tmp_path / "x" / f"{index}.png")
    after = {one.id: one.split for one in every(folder(tmp_path, splits="hash"))}
    assert before.items() <= after.items()


# --- images, names and processes --------------------------------------------------------------------------------------


def test_hashed_names_hold_no_name_of_a_file(tmp_path: Path):
    image(tmp_path / "x" / "DOE^JANE_1.png")
    image(tmp_path / "y" / "ROE^RICHARD_2.png")
    (tmp_path / "y" / "DAMAGED^NAME.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = folder(tmp_path, hash_names=True)
    messages = []
    for one in every(found):
        assert isinstance(one.images[0], ImageFile)
        assert "^" not in one.id + json.dumps(one.facts) + one.images[0].name
        try:
            open_image(one.images[0])
        except DataError as error:
            messages.append((one.id, str(error)))
    ((name, message),) = messages
    assert name in message
    assert "DAMAGED" not in message


def test_slices_of_a_file_with_pages_are_evenly_spaced(tmp_path: Path):
    (tmp_path / "x").mkdir()
    pages = [Image.new("L", (8, 8), grey) for grey in range(0, 100, 10)]
    pages[0].save(tmp_path / "x" / "a.tif", save_all=True, append_images=pages[1:])
    image(tmp_path / "y" / "b.png")
    found = {one.id: one for one in every(folder(tmp_path, slices=3))}
    assert [int(np.asarray(open_image(one))[0, 0, 0]) for one in found["a"].images] == [10, 50, 80]
    assert len(found["b"].images) == 1


def test_samples_can_be_used_in_another_process(tmp_path: Path):
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "y" / "b.png")
    found = folder(tmp_path)
    found.check()
    copied = pickle.loads(pickle.dumps(found))
    assert [one.id for one in every(copied)] == [one.id for one in every(found)]


def test_the_index_is_private_and_found_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    image(tmp_path / "set" / "x" / "a.png")
    image(tmp_path / "set" / "y" / "b.png")
    every(folder(tmp_path / "set"))
    (file,) = (cache / "tables").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    calls: list[Any] = []
    rows: Callable[..., Any] = FolderReader.rows
    monkeypatch.setattr(FolderReader, "rows", lambda self: calls.append(1) or rows(self))
    assert len(every(folder(tmp_path / "set"))) == 2
    assert calls == []


def test_a_file_name_pattern_fills_zeros(tmp_path: Path):
    table(tmp_path, "image,label\n1,x\n12,y\n", "001.png", "012.png", "001.bmp")
    reader = RowTableReader(
        tmp_path / "t.csv",
        tmp_path / "images",
        columns=RowColumns(image="image", target="label"),
        file_name="{:03}.png",
    )
    found = RowSource(reader, kind="classification", options=RowOptions())
    assert {one.id: one.target for one in every(found)} == {"001": "x", "012": "y"}
