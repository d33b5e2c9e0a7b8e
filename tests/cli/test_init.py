"""``vrft init``: what it guesses of real sets and of made layouts, and what it answers to junk."""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import vrft
from vrft.cli.main import app, main
from vrft.data.guess import find_guesses
from vrft.errors import UserError
from vrft.recipe import read_recipe
from vrft.recipe.draft import draft_recipe

REAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bccd": ("voc", "localization", {"find": ["WBC"]}),
    "bccd/test.csv": ("table", "localization", {"images": "JPEGImages", "find": ["WBC"]}),
    "brain_mri_4class": ("folder", "classification", {}),
    "brain_tumor_coco": ("coco", "localization", {"splits": "made"}),
    "brain_tumor_coco_polygons": ("coco", "localization", {"splits": "made"}),
    "brain_tumor_yolo": ("yolo", "localization", {}),
    "brixia_cxr": ("table", "grading", {"file": "public-annotations.csv"}),
    "brixia_cxr/image_licences.csv": ("table", "classification", {"images": "images"}),
    "dicom": ("table", "classification", {"on_bad_sample": "skip"}),
    "hyperkvasir_polyps": ("masks", "localization", {"classes": {255: "finding"}}),
    "lumbar_spine_obb": ("yolo", "localization", {"splits": "made"}),
    "medmnist": ("medmnist", "classification", {"dataset": "breastmnist"}),
    "medmnist/retinamnist.npz": ("medmnist", "grading", {}),
    "nih_cxr": ("table", "localization", {"file": "BBox_List_2017.csv"}),
    "rbc_coco": ("coco", "localization", {"find": ["wbc"], "splits": "made"}),
    "vqa_rad": ("table", "classification", {"images": "VQA_RAD Image Folder"}),
    "wbc_masks": ("table", "classification", {"file_name": "{:03}.bmp", "on_bad_sample": "skip"}),
    "wbc_masks/Dataset 1": ("masks", "localization", {"classes": {128: "class_128", 255: "class_255"}}),
}
"""Of each real set, or file of one: the source, the task and some of the keys that are guessed."""

WITHOUT_LABELS = ("nifti", "odd_images")


def init(path: Path, out: Path, *options: str) -> dict[str, Any]:
    """The recipe that is written, as plain data."""
    result = CliRunner().invoke(app, ["init", str(path), "--out", str(out), *options])
    assert result.exception is None, result.exception
    assert f"vrft run {out}" in result.output
    return yaml.safe_load(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", REAL)
def test_the_recipe_of_a_real_set_runs_as_it_is(name: str, shared: Path, tmp_path: Path):
    out = tmp_path / "recipe.yaml"
    plain = init(shared / "data" / name, out)
    source, kind, keys = REAL[name]
    assert (plain["data"]["source"], plain["task"]["kind"]) == (source, kind)
    assert {key: plain["data"].get(key) for key in keys} == keys
    assert max(map(len, [line for line in out.read_text().split("\n") if line.startswith("#")])) <= 300
    own = ["arms=[majority]", "evaluation.bootstrap=100"]
    done = vrft.run(out, tmp_path / "run", overrides=own, reporter=vrft.Reporter(quiet=True))
    assert done.metrics["arms"]["majority"]


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_images_without_labels_are_answered_with_a_table_to_write(name: str, shared: Path, tmp_path: Path):
    with pytest.raises(UserError, match="nothing that says what they show") as error:
        draft_recipe(shared / "data" / name, out=tmp_path / "x.yaml")
    assert "image,label" in str(error.value)


# --- made layouts -----------------------------------------------------------------------------------------------------


def image(path: Path, size: tuple[int, int] = (20, 16), value: int = 90, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def table(folder: Path, text: str, name: str = "labels.csv") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def guess_of(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The plain recipe that is guessed of a folder, after a check."""
    out = folder.parent / "guess.yaml"
    draft = draft_recipe(folder, out=out, kind=kind)
    out.write_text(draft.text)
    read_recipe(out)
    return yaml.safe_load(draft.text)


def rows(folder: Path, cells: str, count: int = 12) -> str:
    """Lines of a table, formatted by the number of the row, and an image for each."""
    for number in range(count):
        image(folder / "images" / f"scan_{number}.png")
    return "".join(cells.format(n=number, k=number % 3, b=number % 2) + "\n" for number in range(count))


def test_folders_of_classes_below_folders_of_splits(tmp_path: Path):
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            for number in range(3):
                image(tmp_path / "d" / split / label / f"{split}{number}.png")
    plain = guess_of(tmp_path / "d")
    assert plain["data"] == {"source": "folder", "root": str(tmp_path / "d")}
    assert plain["stages"][0]["rewards"] == {"accuracy": 1.0, "format": 0.5}


def test_folders_that_are_numbers_from_0_are_grades(tmp_path: Path):
    for grade in "012":
        for number in range(6):
            image(tmp_path / "d" / grade / f"{grade}{number}.png")
    plain = guess_of(tmp_path / "d")
    assert plain["task"] == {"kind": "grading"}
    assert plain["stages"][0]["rewards"] == {"fuzzy": 1.0, "format": 0.5}
    assert guess_of(tmp_path / "d", "classification")["task"] == {"kind": "classification"}


def test_numbers_in_names_that_repeat_are_patients(tmp_path: Path):
    for number in range(12):
        image(tmp_path / "d" / "ab"[number % 2] / f"{number // 4:05}_{number}.png")
    plain = guess_of(tmp_path / "d")
    assert plain["data"]["patient"] == r"(?:^|/)([0-9]+)[-_][0-9]+"
    assert "taken for patients" in (tmp_path / "guess.yaml").read_text()


def test_patients_in_two_splits_have_the_splits_made_anew(tmp_path: Path):
    for split in ("train", "test"):
        for number in range(12):
            image(tmp_path / "d" / split / "ab"[number % 2] / f"{number // 2:05}_{number}{split[0]}.png")
    plain = guess_of(tmp_path / "d")
    assert plain["data"]["splits"] == "made"
    assert "more than one split" in (tmp_path / "guess.yaml").read_text().replace("\n#   ", " ")


def test_a_table_of_excel_with_split_patient_and_hospital(tmp_path: Path):
    text = "\ufeffBild;Bild Datei;Diagnosis;Split;Patient ID;Hospital\n"
    text += rows(tmp_path / "d", "{n};scan_{n}.png;c{k};{{}};P{n};H{b}").replace("{}", "train")
    for number in (9, 10, 11):
        text = text.replace(f"scan_{number}.png;c{number % 3};train", f"scan_{number}.png;c{number % 3};test")
    table(tmp_path / "d", text)
    plain = guess_of(tmp_path / "d")
    columns = {"image": "Bild Datei", "split": "Split", "patient": "Patient ID", "subgroup": "Hospital"}
    assert plain["data"]["columns"] == columns | {"label": "Diagnosis"}
    assert plain["data"]["images"] == "images"
    assert plain["task"] == {"kind": "classification"}


@pytest.mark.parametrize(("least", "task"), [(0, {"kind": "grading"}), (1, {"kind": "grading", "levels": 4})])
def test_whole_numbers_below_the_title_level_are_grades(least: int, task: dict[str, Any], tmp_path: Path):
    lines = rows(tmp_path / "d", "scan_{n},{k}").split("\n")
    moved = [f"{line[:-1]}{int(line[-1]) + least}" for line in lines if line]
    table(tmp_path / "d", "\n".join(["image,level", *moved]))
    plain = guess_of(tmp_path / "d")
    assert plain["task"] == task
    assert plain["data"]["file_name"] == "{}.png"
    assert plain["data"]["columns"] == {"image": "image", "grade": "level"}


def test_numbers_without_zeros_become_names_with_zeros(tmp_path: Path):
    for number in range(1, 13):
        image(tmp_path / "d" / f"{number:04}.jpg")
    table(tmp_path / "d", "id,class\n" + "".join(f"{number},{'ab'[number % 2]}\n" for number in range(1, 13)))
    assert guess_of(tmp_path / "d")["data"]["file_name"] == "{:04}.jpg"


def test_columns_of_which_one_holds_a_1_are_the_labels(tmp_path: Path):
    text = "image,mel,nv,bcc\n" + rows(tmp_path / "d", "scan_{n},{k}")
    for code, flags in enumerate(("1,0,0", "0,1,0", "0,0,1")):
        text = text.replace(f",{code}\n", f",{flags}\n")
    table(tmp_path / "d", text)
    assert guess_of(tmp_path / "d")["data"]["columns"]["label"] == ["mel", "nv", "bcc"]


def test_boxes_by_their_titles_and_as_what_fits(tmp_path: Path):
    text = "file,finding,x1,y1,x2,y2\n" + rows(tmp_path / "d", "scan_{n}.png,mass,2,3,10,12")
    table(tmp_path / "d", text)
    assert guess_of(tmp_path / "d")["data"]["columns"]["corners"] == ["x1", "y1", "x2", "y2"]
    table(tmp_path / "d", text.replace("2,3,10,12", "12,10,5,4"))
    assert guess_of(tmp_path / "d")["data"]["columns"]["corner_and_size"] == ["x1", "y1", "x2", "y2"]


def test_boxes_in_a_cell_of_json_lines(tmp_path: Path):
    rows(tmp_path / "d", "")
    for boxes, expected in (([[2, 3, 10, 12]], None), ([[12, 10, 5, 4]], "corner_and_size")):
        lines = [json.dumps({"image": f"scan_{n}.png", "boxes": boxes}) for n in range(12)]
        table(tmp_path / "d", "\n".join(lines), "boxes.jsonl")
        plain = guess_of(tmp_path / "d")
        assert plain["task"]["kind"] == "localization"
        assert plain["data"].get("box_format") == expected


def test_closed_questions_become_a_classification(tmp_path: Path):
    rows(tmp_path / "d", "")
    lines = [{"image": f"scan_{n}.png", "question": f"Is it {n}?", "answer": ["yes", "no"][n % 2]} for n in range(12)]
    table(tmp_path / "d", json.dumps(lines), "vqa.json")
    columns = {"image": "image", "label": "answer", "question": "question"}
    assert guess_of(tmp_path / "d")["data"]["columns"] == columns


def test_two_columns_of_images_are_shown_together(tmp_path: Path):
    text = "frontal_image,lateral_image,label\n" + rows(tmp_path / "d", "scan_{n}.png,side_{n}.png,{b}x")
    for number in range(12):
        image(tmp_path / "d" / "images" / f"side_{number}.png")
    table(tmp_path / "d", text)
    assert guess_of(tmp_path / "d")["data"]["columns"]["image"] == ["frontal_image", "lateral_image"]


def test_spellings_of_one_label_are_merged(tmp_path: Path):
    text = rows(tmp_path / "d", "scan_{n}.png,{k}")
    for code, label in enumerate(("normal", "Normal ", "mass")):
        text = text.replace(f",{code}\n", f",{label}\n")
    table(tmp_path / "d", f"image,label\n{text}")
    assert guess_of(tmp_path / "d")["data"]["label_names"] == {"normal": "Normal"}


def test_the_best_of_several_tables_is_taken_and_the_others_are_named(tmp_path: Path):
    table(tmp_path / "d", "image,label\n" + rows(tmp_path / "d", "scan_{n}.png,c{b}"))
    table(tmp_path / "d", "image,licence\nscan_1.png,CC0\n", "licences.csv")
    table(tmp_path / "d", "image,finding\n" + "".join(f"scan_{n}.png,f{n % 2}\n" for n in range(12)), "metadata.csv")
    plain = guess_of(tmp_path / "d")
    assert plain["data"]["file"] == "labels.csv"
    text = (tmp_path / "guess.yaml").read_text()
    assert "not taken" in text
    assert "metadata.csv" in text


def test_a_table_beside_the_folder_of_its_images(tmp_path: Path):
    text = "image,label\n" + rows(tmp_path / "d", "scan_{n}.png,c{b}")
    table(tmp_path / "d" / "tables", text)
    draft = draft_recipe(tmp_path / "d" / "tables" / "labels.csv", out=tmp_path / "x.yaml")
    assert draft.guess.data["file"] == "tables/labels.csv"
    assert draft.guess.data["images"] == "images"
    assert sum(draft.samples.values()) == 12


def test_masks_name_the_values_that_were_found(tmp_path: Path):
    for number in range(10):
        image(tmp_path / "d" / "images" / f"{number}.jpg")
        mask = Image.new("L", (20, 16), 0)
        mask.paste(2, (3, 3, 12, 12))
        (tmp_path / "d" / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "d" / "masks" / f"{number}.png")
    plain = guess_of(tmp_path / "d")
    assert plain["data"]["classes"] == {2: "finding"}
    assert plain["task"]["kind"] == "localization"


def dataset(folder: Path, *, parquet: bool = False) -> None:
    """A small dataset with named classes, saved as Arrow or as Parquet files."""
    import datasets

    images = [Image.new("RGB", (9, 8), (n, 0, 0)) for n in range(12)]
    plain = {"image": images, "label": [n % 2 for n in range(12)], "note": [f"n{n}" for n in range(12)]}
    names = datasets.ClassLabel(names=["normal", "mass"])
    features = datasets.Features({"image": datasets.Image(), "label": names, "note": datasets.Value("string")})
    made = datasets.Dataset.from_dict(plain, features=features)
    made.to_parquet(folder / "train.parquet") if parquet else made.save_to_disk(folder)


@pytest.mark.parametrize("parquet", [False, True])
def test_a_dataset_with_images_inside(parquet: bool, tmp_path: Path):
    (tmp_path / "d").mkdir()
    dataset(tmp_path / "d", parquet=parquet)
    plain = guess_of(tmp_path / "d")
    columns = {"image": "image", "label": "label"}
    assert plain["data"] == {"source": "huggingface", "path": str(tmp_path / "d"), "columns": columns}
    assert "normal 6, mass 6" in (tmp_path / "guess.yaml").read_text()


def test_tar_shards_by_the_members_of_their_samples(tmp_path: Path):
    (tmp_path / "d").mkdir()
    image(tmp_path / "a.png")
    for split in ("train", "test"):
        with tarfile.open(tmp_path / "d" / f"{split}-000.tar", "w") as archive:
            for number in range(8):
                archive.add(tmp_path / "a.png", f"{number}.png")
                (tmp_path / "x").write_text(json.dumps({"grade": number % 3}))
                archive.add(tmp_path / "x", f"{number}.json")
    (guess,) = find_guesses(tmp_path / "d")
    assert (guess.source, guess.kind) == ("shards", "grading")
    files = {split: [str(tmp_path / "d" / f"{split}-000.tar")] for split in ("test", "train")}
    assert guess.data == {"files": files, "columns": {"grade": "grade"}}


def test_another_task_is_written_where_the_data_allow_it(shared: Path, tmp_path: Path):
    draft = draft_recipe(shared / "data" / "bccd", out=tmp_path / "x.yaml", kind="classification")
    assert draft.guess.kind == "classification"
    assert sum(draft.samples.values()) > 4000
    with pytest.raises(UserError, match="allows no grading; found COCO"):
        draft_recipe(shared / "data" / "brain_tumor_coco", out=tmp_path / "x.yaml", kind="grading")


def test_faults_are_listed_and_the_recipe_is_written(tmp_path: Path):
    for label in ("no", "normal", "not normal"):
        for number in range(6):
            image(tmp_path / "d" / label / f"{label[:3]}{number}.png")
    out = tmp_path / "x.yaml"
    result = CliRunner().invoke(app, ["init", str(tmp_path / "d"), "--out", str(out), "--name", "a b"])
    assert isinstance(result.exception, UserError)
    assert "name" in str(result.exception)
    assert out.is_file()


def test_a_recipe_is_never_replaced_without_force(tmp_path: Path):
    for number in range(12):
        image(tmp_path / "d" / "ab"[number % 2] / f"{number}.png")
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "d"), "--out", str(out)])
    assert "is there already" in str(result.exception)
    assert out.read_text() == "mine"
    assert init(tmp_path / "d", out, "--force")["name"] == "d"


def test_a_policy_of_the_hub_has_adapters(tmp_path: Path):
    for number in range(12):
        image(tmp_path / "d" / "ab"[number % 2] / f"{number}.png")
    plain = init(tmp_path / "d", tmp_path / "x.yaml", "--policy", "Qwen/Qwen2.5-VL-3B-Instruct")
    assert plain["policy"] == {"model": "Qwen/Qwen2.5-VL-3B-Instruct", "lora": {"rank": 16}}


# --- junk -------------------------------------------------------------------------------------------------------------


def junk(folder: Path) -> dict[str, Path]:
    """Folders and files of which no task can be made."""
    for name in ("empty", "text", "table", "broken", "plain"):
        (folder / name).mkdir()
    (folder / "text" / "notes.txt").write_text("hello")
    (folder / "table" / "labels.csv").write_text("image,label\nc.png,x\nd.png,y\n")
    (folder / "broken" / "labels.csv").write_bytes(b'image,label\n"a.png,x\n')
    (folder / "binary.bin").write_bytes(bytes(range(256)))
    (folder / "book.xlsx").write_bytes(b"PK\x03\x04")
    image(folder / "plain" / "a.png")
    names = ("empty", "text", "table", "broken", "plain", "binary.bin", "book.xlsx", "missing")
    more = {"a text": folder / "text" / "notes.txt", "a table": folder / "table" / "labels.csv"}
    return {name: folder / name for name in names} | more | {"an image": folder / "plain" / "a.png"}


WORDS = {
    "empty": "is empty",
    "text": "holds no image",
    "table": "holds no image",
    "broken": "holds no image",
    "plain": "nothing that says what they show",
    "binary.bin": "is no data that vrft reads",
    "book.xlsx": "save its sheet as CSV",
    "missing": "no such file or folder",
    "a text": "notes.txt",
    "a table": "no column names images that are in",
    "an image": "is an image",
}


@pytest.mark.parametrize("name", WORDS)
def test_junk_is_answered_with_a_sentence_and_exit_code_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "junk").mkdir()
    path = junk(tmp_path / "junk")[name]
    monkeypatch.setattr(sys, "argv", ["vrft", "init", str(path), "--out", str(tmp_path / "x.yaml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert WORDS[name] in error
    assert "Traceback" not in error
    assert not (tmp_path / "x.yaml").exists()


NAMES = st.sampled_from(
    ["train", "test", "images", "masks", "labels", "Annotations", "a", "b", "0", "1", "2", "JPEGImages", "x.y", "é"]
)
FILES = st.sampled_from(
    [
        *("a.png", "b.jpg", "a.txt", "1.png", "labels.csv", "data.yaml", "a.xml", "x.json", "a.dcm", "v.nii.gz", "IM1"),
        *("t.parquet", "retinamnist.npz", "r.jsonl", "train.txt", "_annotations.coco.json", "s.tar", "x.xlsx"),
        *("dataset_dict.json", "dataset_info.json", "state.json"),
    ]
)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b550000000a49444154789c6360000000020001"
    "48afa4710000000049454e44ae426082"
)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            PNG,
            b"image,label\na.png,x\nb.jpg,y\n",
            b"image;grade\na;0\nb;1\n",
            b'{"images": [], "annotations": []}',
            b'{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1}], "categories": []}',
            b'[{"image": "a.png", "boxes": [[1, 2]]}, 3]',
            b"names: [a]\n",
            b"0 0.5 0.5 0.1 0.1\n",
            b"<annotation><object/></annotation>",
            b"x,y,w,h,image,label\n1,2,,4,a.png,q\n",
            b"\x00" * 128 + b"DICM",
        ]
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(files=st.dictionaries(st.tuples(st.lists(NAMES, max_size=3).map(tuple), FILES), CONTENTS, max_size=8))
def test_any_tree_of_files_gives_a_recipe_or_an_error_of_the_user(
    files: dict[tuple[tuple[str, ...], str], bytes], tmp_path_factory: pytest.TempPathFactory
):
    root = tmp_path_factory.mktemp("tree")
    for (folders, name), content in files.items():
        folder = root.joinpath(*folders)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        draft = draft_recipe(root, out=root / "out.yaml")
    except UserError:
        return
    assert yaml.safe_load(draft.text)["data"]["source"] == draft.guess.source
