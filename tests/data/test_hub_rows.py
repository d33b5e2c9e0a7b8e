"""Hugging Face datasets: saved, in folders, and cached from the hub."""

import io
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrft.data.hub_rows import HubReader
from vrft.data.rows import RowOptions, RowSource
from vrft.data.table_rows import RowColumns
from vrft.errors import DataError, UserError
from vrft.experiment.keys import samples_digest
from vrft.recipe import open_source, read_recipe
from vrft.sample import ImageBytes, ImageFile, open_image, read_as, size_of

datasets = pytest.importorskip("datasets")

BRAIN = Path(__file__).parents[3] / "shared" / "data" / "brain_mri_4class"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "vrft"))
    datasets.disable_progress_bars()


def image(value: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("L", size, value)


def png(pixels: Image.Image) -> bytes:
    file = io.BytesIO()
    pixels.save(file, "PNG")
    return file.getvalue()


def saved(folder: Path, rows: dict[str, Any], features: dict[str, Any], split: str | None = None) -> Path:
    """A dataset that ``save_to_disk`` wrote; of a split, beside the splits that are there."""
    types = datasets.Features({"image": datasets.Image()} | features)
    made = datasets.Dataset.from_dict(rows, features=types)
    (made if split is None else datasets.DatasetDict({split: made})).save_to_disk(folder)
    return folder


LABEL = {"label": datasets.ClassLabel(names=["normal", "tumour"])}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Six images with two named classes."""
    rows = {"image": [image(value) for value in range(0, 60, 10)], "label": [0, 1] * 3}
    return saved(tmp_path / "small", rows, LABEL)


def source(path: Path | str, kind: Any = "classification", **options: Any) -> RowSource:
    """A source of the dataset; options of ``RowColumns`` and ``HubReader`` are taken out."""
    names = ("image", "target", "question", "split", "patient", "subgroup", "study", "id")
    columns = {"image": "image", "target": "label"} | {name: options.pop(name) for name in names if name in options}
    if "pattern" in options:
        options["patient"] = options.pop("pattern")
    known = ("images", "name", "revision", "download", "ignore")
    reader = HubReader(
        str(path), columns=RowColumns(**columns), **{name: options.pop(name) for name in known if name in options}
    )
    return RowSource(reader, kind=kind, options=RowOptions(**options))


def all_samples(one: RowSource) -> list[Any]:
    return [sample for split in ("train", "validation", "test") for sample in one.samples(split)]


def test_a_saved_set_gives_its_images_and_the_names_of_its_classes(small: Path):
    found = source(small)
    found.check()
    assert found.labels == ["normal", "tumour"]
    assert {sample.id: sample.target for sample in all_samples(found)} == {
        f"train-{number}": ["tumour", "normal"][number % 2] for number in range(1, 7)
    }
    values = {sample.id: np.asarray(open_image(sample.image))[0, 0, 0] for sample in all_samples(found)}
    assert values == {f"train-{number}": 10 * (number - 1) for number in range(1, 7)}
    assert size_of(all_samples(found)[0].image) == (8, 6)


def test_the_order_is_the_same_each_time(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = [(sample.split, sample.id) for sample in all_samples(source(small))]
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "another"))
    assert [(sample.split, sample.id) for sample in all_samples(source(small))] == first


def test_no_image_is_read_while_the_rows_are(tmp_path: Path):
    rows = {"image": [{"bytes": b"no image", "path": f"{name}.png"} for name in "abcdef"], "label": [0, 1] * 3}
    found = source(saved(tmp_path / "set", rows, LABEL))
    assert sum(len(found.samples(split)) for split in ("train", "validation", "test")) == 6
    with pytest.raises(DataError, match=r"set \(train\)/[a-f]\.png: cannot be read as an image"):
        open_image(found.samples("train")[0].image)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_image_is_read_in_another_process(small: Path, method: str):
    first = source(small).samples("train")[0].image
    open_image(first)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(open_image, (first,)).tobytes() == open_image(first).tobytes()
    assert pickle.loads(pickle.dumps(first)) == first


def test_images_are_known_by_their_place_and_not_decoded_for_a_cache_key(small: Path, monkeypatch: pytest.MonkeyPatch):
    found = source(small)
    monkeypatch.setattr(ImageBytes, "__call__", lambda self: pytest.fail("an image was decoded"))
    digests = {samples_digest(found.samples(split), found) for split in ("train", "validation")}
    windowed = samples_digest(source(small, window=(0.0, 9.0)).samples("train"), found)
    assert len(digests | {windowed}) == 3
    assert len({read_as(sample.image) for sample in all_samples(found)}) == 6


def test_other_pixels_have_another_key(small: Path, tmp_path: Path):
    first = samples_digest(source(small).samples("train"), source(small))
    rows = {"image": [image(value + 1) for value in range(0, 60, 10)], "label": [0, 1] * 3}
    other = source(saved(tmp_path / "other" / "small", rows, LABEL))
    assert samples_digest(other.samples("train"), other) != first


def test_the_splits_of_a_set_are_used(tmp_path: Path):
    parts = {}
    for split, number in (("train", 3), ("valid", 2), ("test", 1), ("unsupervised", 4)):
        rows = {"image": [image(number)] * number, "label": [0] * number}
        parts[split] = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()} | LABEL))
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"'unsupervised' beside .*data\.ignore: \[unsupervised\]"):
        source(tmp_path / "set").check()
    found = source(tmp_path / "set", ignore=["unsupervised"])
    assert [len(found.samples(split)) for split in ("train", "validation", "test")] == [3, 2, 1]
    assert found.samples("validation")[1].id == "valid-2"
    assert np.asarray(open_image(found.samples("validation")[1].image))[0, 0, 0] == 2
    with pytest.raises(DataError, match="has no split 'unsupervsed'"):
        source(tmp_path / "set", ignore=["unsupervsed"]).check()


def test_a_row_is_named_by_its_split_and_number(tmp_path: Path):
    types = datasets.Features({"image": datasets.Image()} | LABEL)
    part = datasets.Dataset.from_dict({"image": [image(1), image(2)], "label": [0, -1]}, features=types)
    datasets.DatasetDict(train=part.select([0]), test=part).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"set: test row 2: has no label; mend it"):
        source(tmp_path / "set").check()
    found = source(tmp_path / "set", on_bad_sample="skip")
    assert [len(found.samples(split)) for split in ("train", "test")] == [1, 1]
    assert found.skipped() == [{"row": 2, "place": f"{tmp_path}/set: test row 2", "fault": "has no label"}]


def test_a_list_of_images_in_a_cell_and_several_columns(tmp_path: Path):
    rows = {
        "image": [image(1), image(2), None, None],
        "views": [[image(3), None, image(4)], [], [image(5)], None],
        "label": [0, 1, 0, 1],
    }
    path = saved(tmp_path / "set", rows, LABEL | {"views": datasets.List(datasets.Image())})
    found = source(path, image=["image", "views"], splits="made", on_bad_sample="skip")
    shown = {
        sample.facts["row"]: [int(np.asarray(open_image(one))[0, 0, 0]) for one in sample.images]
        for sample in all_samples(found)
    }
    assert shown == {1: [1, 3, 4], 2: [2], 3: [5]}
    assert found.faults_in_words() == "names no image 1"


@pytest.mark.parametrize("form", ["object of lists", "list of objects"])
def test_boxes_and_the_names_of_their_classes(tmp_path: Path, form: str):
    category = datasets.ClassLabel(names=["cell", "platelet"])
    box, boxes = datasets.List(datasets.Value("float32")), [[1, 2, 3, 2], [0, 0, 4, 4]]
    if form == "object of lists":
        features: Any = {"bbox": datasets.List(box), "category": datasets.List(category)}
        cells: list[Any] = [{"bbox": boxes, "category": [0, 1]}, {"bbox": [], "category": []}]
    else:
        features = datasets.List({"bbox": box, "category": category})
        cells = [[{"bbox": boxes[0], "category": 0}, {"bbox": boxes[1], "category": 1}], []]
    path = saved(tmp_path / "set", {"image": [image(1), image(2)], "objects": cells}, {"objects": features})
    options: dict[str, Any] = {"target": "objects", "box_format": "corner_and_size"}
    found = {sample.id: sample.target for sample in all_samples(source(path, "localization", **options))}
    assert found == {"train-1": ((1, 2, 4, 4), (0, 0, 4, 4)), "train-2": ()}
    only = all_samples(source(path, "localization", find=["platelet"], **options))
    assert {sample.id: sample.target for sample in only} == {"train-1": ((0, 0, 4, 4),), "train-2": ()}
    cropped = all_samples(source(path, regions=True, margin=0.0, **options))
    assert {(sample.target, size_of(sample.image)) for sample in cropped} == {("cell", (3, 2)), ("platelet", (4, 4))}


def test_the_columns_of_questions_patients_and_studies(tmp_path: Path):
    text = datasets.Value("string")
    names = ("question", "answer", "person", "site", "study")
    rows: dict[str, Any] = {"image": [image(value) for value in range(4)]}
    rows |= {"question": ["Where?", "Where?", "Why?", "Why?"], "answer": ["left", "left", "no", "no"]}
    rows |= {"person": ["p1", "p1", "p2", "p2"], "site": ["A", "A", "B", "B"], "study": ["s1", "s1", "s2", "s2"]}
    path = saved(tmp_path / "set", rows, dict.fromkeys(names, text))
    columns = {"target": "answer", "question": "question", "patient": "person", "subgroup": "site", "study": "study"}
    found = {sample.target: sample for sample in all_samples(source(path, "vqa", **columns))}
    assert {key: (one.question, one.patient, one.subgroup, len(one.images)) for key, one in found.items()} == {
        "left": ("Where?", "p1", "A", 2),
        "no": ("Why?", "p2", "B", 2),
    }


def test_images_of_any_kind_are_read_as_files_are(tmp_path: Path):
    deep = Image.fromarray(np.arange(2000, 2048, dtype=np.uint16).reshape(6, 8))
    turned = image(7)
    exif = turned.getexif()
    exif[274] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    (tmp_path / "deep.png").write_bytes(png(deep))
    cells = [{"bytes": png(deep), "path": "deep.png"}, {"bytes": file.getvalue(), "path": "turned.png"}]
    found = all_samples(source(saved(tmp_path / "set", {"image": cells, "label": [0, 1]}, LABEL)))
    by_name = {sample.id: sample.image for sample in found}
    assert open_image(by_name["deep"]).tobytes() == open_image(tmp_path / "deep.png").tobytes()
    assert size_of(by_name["turned"]) == open_image(by_name["turned"]).size == (6, 8)


@pytest.mark.parametrize("type_", ["string", "binary"])
def test_plain_columns_of_names_and_of_bytes(tmp_path: Path, type_: str):
    (tmp_path / "pictures").mkdir()
    image(9).save(tmp_path / "pictures" / "a.png")
    cell: Any = "a.png" if type_ == "string" else png(image(9))
    types = datasets.Features({"image": datasets.Value(type_)} | LABEL)
    made = datasets.Dataset.from_dict({"image": [cell], "label": [1]}, features=types)
    made.save_to_disk(tmp_path / "set")
    (sample,) = all_samples(source(tmp_path / "set", images=tmp_path / "pictures"))
    assert np.asarray(open_image(sample.image))[0, 0, 0] == 9
    if type_ == "string":
        assert sample.id == "a"
        with pytest.raises(DataError, match=r"row 1: names the image 'a\.png', which is not in"):
            source(tmp_path / "set", images=tmp_path / "set").check()


def test_a_folder_of_parquet_files(small: Path, tmp_path: Path):
    folder = tmp_path / "parquet"
    folder.mkdir()
    made = datasets.load_from_disk(str(small))
    made.select(range(4)).to_parquet(folder / "train-00000-of-00001.parquet")
    made.select(range(4, 6)).to_parquet(folder / "test-00000-of-00001.parquet")
    found = source(folder)
    assert [len(found.samples(split)) for split in ("train", "test")] == [4, 2]
    assert [int(np.asarray(open_image(one.image))[0, 0, 0]) for one in found.samples("test")] == [40, 50]


@pytest.mark.skipif(not BRAIN.is_dir(), reason="the real sets of images are not beside this checkout")
def test_real_images_in_folders_and_saved(tmp_path: Path):
    for split, name in (("train", "Training"), ("test", "Testing")):
        shutil.copytree(BRAIN / name, tmp_path / "brain" / split)
    folder = source(tmp_path / "brain", splits="own")
    found = all_samples(folder)
    assert len(found) == 63
    assert folder.labels == sorted(one.name for one in (BRAIN / "Training").iterdir() if one.is_dir())
    assert all(isinstance(sample.image, Path) for sample in found)
    datasets.load_dataset(str(tmp_path / "brain")).save_to_disk(tmp_path / "set")
    copied = {sample.facts["row"]: sample for sample in all_samples(source(tmp_path / "set", splits="own"))}
    for sample in found:
        other = copied[sample.facts["row"]]
        assert (sample.target, sample.split) == (other.target, other.split)
        assert open_image(sample.image).tobytes() == open_image(other.image).tobytes()


def test_hashed_names_replace_the_names_of_images(tmp_path: Path):
    cells = [{"bytes": b"no image", "path": f"Miller_{number}.png"} for number in range(3)]
    path = saved(tmp_path / "set", {"image": cells, "label": [0, 1, 0]}, LABEL)
    found = source(path, hash_names=True, pattern="^([A-Za-z]+)", patient_overlap="allow", splits="made")
    sample = all_samples(found)[0]
    with pytest.raises(DataError) as error:
        open_image(sample.image)
    assert "Miller" not in f"{error.value}{sample.id}{sample.facts}{sample.image}"
    assert sample.patient == "Miller"


def test_a_cached_set_of_the_hub_needs_no_network(small: Path, tmp_path: Path):
    root = tmp_path / "hub" / "datasets--org--scans"
    (root / "snapshots" / "abc").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    datasets.load_from_disk(str(small)).to_parquet(root / "snapshots" / "abc" / "data.parquet")
    assert len(all_samples(source("org/scans"))) == 6
    with pytest.raises(DataError, match="no dataset of this name at v2 is cached"):
        source("org/scans", revision="v2").check()


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("org/nothing", {}, "set data.download to true, or fetch it with: hf download --repo-type dataset org/nothing"),
        ("./nothing/at/all", {}, "no such folder; expected a folder of a dataset, or a name on the hub"),
        ("small", {"target": "lable"}, "has no column 'lable'; it has image, label. Did you mean 'label'?"),
        ("small", {"image": "label"}, "data.columns.image names a column of int64; expected images"),
        ("small", {"name": "x"}, "was written by save_to_disk, which knows no data.name"),
        ("small/state.json", {}, "is a file; expected a folder of a dataset"),
        ("empty", {}, "empty: cannot be loaded as a dataset"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_in_a_sentence(
    small: Path, monkeypatch: pytest.MonkeyPatch, path: str, options: dict[str, Any], words: str
):
    monkeypatch.chdir(small.parent)
    Path("empty").mkdir()
    with pytest.raises(DataError) as error:
        source(path, **options).check()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named_with_its_extra(small: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Hugging Face datasets needs datasets, pyarrow; pip install 'vrft\[data\]'"):
        source(small).check()


def test_a_recipe_names_a_dataset(small: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: small\ndata: {{source: huggingface, path: {small}, columns: {{image: image, label: label}}}}\n"
        "task: {kind: classification}\nstages: [{kind: sft, steps: 1}]\n"
    )
    found = open_source(read_recipe(recipe))
    assert found.labels == ["normal", "tumour"]
    assert not isinstance(next(iter(found.samples("train"))).image, ImageFile)
