"""Tar shards, on disk and at addresses."""

import base64
import gzip
import io
import json
import multiprocessing
import pickle
import re
import tarfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrft.data import remote_files
from vrft.data.rows import RowOptions, RowSource
from vrft.data.shards import Files, ShardReader
from vrft.data.table_rows import RowColumns
from vrft.errors import DataError, UserError
from vrft.experiment.keys import samples_digest
from vrft.recipe import open_source, read_recipe
from vrft.sample import ImageBytes, ImageFile, open_image, size_of

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "vrft"))
    monkeypatch.setattr(remote_files, "PAUSES", (0.0,))


def png(value: int, size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, members: dict[str, bytes | str | dict[str, Any]] | list[tuple[str, Any]]) -> Path:
    """A tar file of the members; objects are written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            data = json.dumps(content) if isinstance(content, dict) else content
            info = tarfile.TarInfo(name)
            raw = data if isinstance(data, bytes) else data.encode()
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def pairs(values: range) -> dict[str, Any]:
    """Members of samples with an image of a grey value, and a class."""
    return {f"{v}.{kind}": content for v in values for kind, content in (("png", png(v)), ("cls", str(v % 2)))}


def source(files: Files | dict[str, Files], kind: Any = "classification", **options: Any) -> RowSource:
    """A source of the shards; options of ``RowColumns`` are taken out."""
    names = ("image", "target", "question", "split", "person", "subgroup", "study", "id")
    columns = {"target": "cls"} | {name: options.pop(name) for name in names if name in options}
    if "person" in columns:
        columns["patient"] = columns.pop("person")
    reader = ShardReader(files, columns=RowColumns(**columns), hash_names=options.get("hash_names", False))
    return RowSource(reader, kind=kind, options=RowOptions(**options))


def all_samples(one: RowSource) -> list[Any]:
    return [sample for split in ("train", "validation", "test") for sample in one.samples(split)]


def greys(sample: Any) -> list[int]:
    return [int(np.asarray(open_image(one))[0, 0, 0]) for one in sample.images]


def test_members_of_a_name_are_a_sample(tmp_path: Path):
    found = source(str(shard(tmp_path / "train-000.tar", pairs(range(6)))), label_names={"0": "even", "1": "uneven"})
    found.check()
    assert found.labels == ["even", "uneven"]
    assert {sample.id: (sample.target, greys(sample)) for sample in all_samples(found)} == {
        str(value): (["even", "uneven"][value % 2], [value]) for value in range(6)
    }
    image = found.samples("train")[0].image
    assert isinstance(image, ImageFile)
    assert size_of(image) == (8, 6)


def test_json_and_text_hold_the_columns(tmp_path: Path):
    members = {}
    for number in range(4):
        facts = {"label": f"grade {number % 2}", "who": f"p{number // 2}", "site": "A", "split": "train", "more": [1]}
        members |= {f"d/{number}.jpg": png(number), f"d/{number}.json": facts, f"d/{number}.txt": f" Where {number}?\n"}
    path = str(shard(tmp_path / "a.tar", members))
    columns = {"question": "txt", "person": "who", "subgroup": "site", "split": "split"}
    found = all_samples(source(path, target="label", **columns))
    assert [(one.id, one.target, one.question, one.patient, one.subgroup) for one in found] == [
        (str(number), f"grade {number % 2}", f"Where {number}?", f"p{number // 2}", "A") for number in range(4)
    ]


def test_boxes_in_json(tmp_path: Path):
    boxes = [{"bbox": [1, 1, 4, 4], "label": "cell"}, {"bbox": [2, 2, 6, 5], "label": "platelet"}]
    members = {"a.png": png(1), "a.json": {"objects": boxes}, "b.png": png(2), "b.json": {"objects": []}}
    path = str(shard(tmp_path / "a.tar", members))
    found = {one.id: one.target for one in all_samples(source(path, "localization", target="objects"))}
    assert found == {"a": ((1, 1, 4, 4), (2, 2, 6, 5)), "b": ()}
    regions = all_samples(source(path, target="objects", regions=True, margin=0.0))
    assert sorted((one.target, size_of(one.image)) for one in regions) == [("cell", (3, 3)), ("platelet", (4, 3))]


def test_several_images_of_a_sample(tmp_path: Path):
    numbered = {f"a.{number}.png": png(number) for number in (10, 0, 2)} | {"a.cls": "1"}
    path = str(shard(tmp_path / "numbered.tar", numbered))
    assert greys(all_samples(source(path))[0]) == [0, 2, 10]
    named = {"a.front.png": png(1), "a.mask.png": png(2), "a.side.PNG": png(3), "a.cls": "1"}
    path = str(shard(tmp_path / "named.tar", named | {"b.front.png": png(4), "b.cls": "0"}))
    with pytest.raises(
        DataError, match=r"3 images that are not numbered: front\.png, mask\.png, side\.png; name those"
    ):
        source(path).check()
    found = {one.id: greys(one) for one in all_samples(source(path, image=["side.png", "front.png"]))}
    assert found == {"a": [3, 1], "b": [4]}


def test_braces_globs_folders_and_splits(tmp_path: Path):
    for number in range(4):
        shard(tmp_path / f"s-{number:03}.tar", pairs(range(10 * number, 10 * number + 2)))
    shard(tmp_path / "test" / "s-000.tar", pairs(range(100, 101)))
    files: dict[str, Any] = {"train": f"{tmp_path}/s-{{000..002}}.tar", "validation": [f"{tmp_path}/s-003.tar"]}
    found = source(files | {"test": f"{tmp_path}/test"})
    assert [len(found.samples(split)) for split in ("train", "validation", "test")] == [6, 2, 1]
    assert [greys(one)[0] for one in found.samples("train")] == [0, 1, 10, 11, 20, 21]
    assert len(all_samples(source(f"{tmp_path}/s-*.tar"))) == 8
    with pytest.raises(DataError, match=r"s-000\.tar: is named twice in data\.files \(in train and test\)"):
        source({"train": f"{tmp_path}/s-*.tar", "test": f"{tmp_path}/s-000.tar"}).check()


def test_the_order_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = str(shard(tmp_path / "a.tar", pairs(range(20))))
    first = [(sample.split, sample.id) for sample in all_samples(source(path))]
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "another"))
    assert [(sample.split, sample.id) for sample in all_samples(source(path))] == first


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_image_is_read_in_another_process(tmp_path: Path, method: str):
    first = source(str(shard(tmp_path / "a.tar", pairs(range(6))))).samples("train")[0].image
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(open_image, (first,)).tobytes() == open_image(first).tobytes()
    assert pickle.loads(pickle.dumps(first)) == first


def test_equal_names_in_two_shards_are_two_samples(tmp_path: Path):
    for name in ("a", "b"):
        shard(tmp_path / f"{name}.tar", pairs(range(2)))
    for hash_names in (False, True):
        found = all_samples(source(f"{tmp_path}/{{a,b}}.tar", hash_names=hash_names))
        assert len({sample.id for sample in found}) == 4


def test_the_patient_is_found_in_the_name(tmp_path: Path):
    members = {
        f"p{number}_x.{kind}": png(number) if kind == "png" else "1" for number in range(3) for kind in ("png", "cls")
    }
    found = all_samples(source(str(shard(tmp_path / "a.tar", members)), patient="/(p[0-9]+)_"))
    assert sorted(one.patient for one in found) == ["p0", "p1", "p2"]


def test_hashed_names_replace_the_names_of_members(tmp_path: Path):
    members = {"Miller_1.png": b"no image", "Miller_1.cls": "1", "Miller_2.png": png(1)}
    path = str(shard(tmp_path / "a.tar", members))
    sample = all_samples(source(path, hash_names=True, on_bad_sample="skip"))[0]
    with pytest.raises(DataError) as unreadable:
        open_image(sample.image)
    with pytest.raises(DataError, match=r"a\.tar: sample at byte 2048: has no \.\.\.") as incomplete:
        source(path, hash_names=True).check()
    assert "Miller" not in f"{unreadable.value}{incomplete.value}{sample.id}{sample.facts}"


FAULTS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "no image": ([("b.cls", "1")], "has no image beside cls; the members of a sample must lie side by side"),
    "no label": (
        [("b.png", png(1)), ("b.json", {"lable": 1})],
        r"has no 'cls', .* \(it has png, json \(json: lable\)\)",
    ),
    "empty label": ([("b.png", png(1)), ("b.cls", " ")], "has no label"),
    "two members": ([("b.png", png(1)), ("b.cls", "1"), ("b.png", png(2))], "has two members 'png'"),
    "two places": ([("a.json", {})], "has members in two places of the shard"),
    "no json": ([("b.png", png(1)), ("b.cls", "1"), ("b.json", "{")], "has a json that is no JSON"),
    "no text": ([("b.png", png(1)), ("b.cls", b"\xff\xfe")], "has a member 'cls' that is no text in UTF-8"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sample_at_fault_is_refused_or_left_out(tmp_path: Path, fault: str):
    members, words = FAULTS[fault]
    good = [("a.png", png(1)), ("a.cls", "0"), ("c.png", png(1)), ("c.cls", "0")]
    path = str(shard(tmp_path / "x.tar", [*good, *members]))
    with pytest.raises(DataError, match=rf"x\.tar: [ab]: {words}.*; mend it, or set data\.on_bad_sample to skip"):
        source(path).check()
    assert [one.id for one in all_samples(source(path, on_bad_sample="skip"))] == ["a", "c"]


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("in an image", r"x\.tar: 5: .*'png' that the shard, which was cut off, does not hold"),
        ("in a header", r"x\.tar: 5: .*damaged or cut off"),
        ("before the end mark", r"x\.tar: 5: .*damaged or cut off \(without an end mark\)"),
    ],
)
def test_a_shard_that_was_cut_off(tmp_path: Path, cut: str, words: str):
    path = shard(tmp_path / "x.tar", pairs(range(6)))
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        image = archive.getmember("5.png")
        label = archive.getmember("5.cls")
    ends = {"in an image": image.offset_data + 20, "in a header": label.offset + 100}
    path.write_bytes(data[: ends.get(cut, label.offset_data + 512)])
    with pytest.raises(DataError, match=words):
        source(str(path)).check()
    found = source(str(path), on_bad_sample="skip")
    assert sorted(one.id for one in all_samples(found)) == list("01234")
    assert len(found.skipped()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            gzip.compress(b"x", mtime=0),
            "is compressed, and a compressed shard cannot be read by position; unpack it with gunzip",
        ),
        (b"", "is no tar file"),
        (b"x" * 2000, "is no tar file"),
        (None, r"no such shard; set data\.files"),
    ],
)
def test_a_file_that_is_no_shard(tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "x.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.tar: {words}"):
        source(str(path)).check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"person": "patent"}, "no sample has 'patent'"),
        ({"question": "qestion"}, r"no sample has 'qestion', .*; the first has png, cls"),
        ({"image": "jpg"}, "no sample has 'jpg', .*; the first has png, cls"),
    ],
)
def test_a_column_that_no_sample_has(tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(DataError, match=words):
        source(str(shard(tmp_path / "x.tar", pairs(range(2)))), **options).check()


@pytest.mark.parametrize(
    ("files", "words"),
    [([], "names no shard"), ("a-{1}.tar", "the braces hold '1'"), ("none-*.tar", "no shard is there")],
)
def test_patterns_that_name_nothing(files: Any, words: str):
    with pytest.raises(DataError, match=words):
        source(files).check()


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="the real sets of images are not beside this checkout")
def test_real_images_with_boxes(tmp_path: Path):
    members: dict[str, Any] = {}
    for number, file in enumerate(sorted((SHARED / "bccd" / "Annotations").glob("*.xml"))[:30]):
        objects = [
            {"bbox": [int(one.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax")]}
            | {"label": one.findtext("name")}
            for one in ET.parse(file).iter("object")
        ]
        members[f"{file.stem}.jpg"] = (SHARED / "bccd" / "JPEGImages" / f"{file.stem}.jpg").read_bytes()
        members[f"{file.stem}.json"] = {"objects": objects, "split": ["train", "test"][number % 2]}
    path = shard(tmp_path / "bccd.tar", members)
    found = source(str(path), "localization", target="objects", split="split", find=["WBC"])
    found.check()
    assert [len(found.samples(split)) for split in ("train", "test")] == [15, 15]
    for sample in all_samples(found):
        original = SHARED / "bccd" / "JPEGImages" / f"{sample.id}.jpg"
        assert open_image(sample.image).tobytes() == open_image(original).tobytes()


@pytest.mark.skipif(not (SHARED / "nifti").is_dir(), reason="the real sets of images are not beside this checkout")
def test_slices_of_volumes_and_dicom_files(tmp_path: Path):
    pytest.importorskip("nibabel")
    pytest.importorskip("pydicom")
    volume = next(path for path in sorted((SHARED / "nifti").glob("*.nii*")) if "4d" not in path.name.lower())
    frame = next(path for path in sorted((SHARED / "dicom").rglob("*.dcm")) if path.name.startswith("CT_small"))
    packed = gzip.compress(volume.read_bytes()) if volume.suffix == ".nii" else volume.read_bytes()
    members = {"v.nii.gz": packed, "v.cls": "1", "d.dcm": frame.read_bytes(), "d.cls": "0"}
    path = str(shard(tmp_path / "a.tar", members))
    for hash_names in (False, True):
        found = source(path, slices=3, hash_names=hash_names)
        by_class = {sample.target: sample for sample in all_samples(found)}
        assert [len(by_class[target].images) for target in "10"] == [3, 1]
        assert open_image(by_class["0"].image).tobytes() == open_image(frame).tobytes()
        assert open_image(by_class["1"].images[1]).size == size_of(by_class["1"].images[1])


def test_a_recipe_names_shards(tmp_path: Path):
    shard(tmp_path / "a.tar", pairs(range(10)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: small\ndata: {{source: shards, files: {tmp_path}/*.tar, columns: {{label: cls}}}}\n"
        "task: {kind: classification}\nstages: [{kind: sft, steps: 1}]\n"
    )
    found = open_source(read_recipe(recipe))
    assert found.labels == ["0", "1"]
    assert sum(len(list(found.samples(split))) for split in ("train", "validation", "test")) == 10


# --- shards at addresses ----------------------------------------------------------------------------------------------


class Serving(BaseHTTPRequestHandler):
    """Gives files of a folder, in parts; a path that begins with /whole gives no parts, and /busy fails once."""

    folder: Path
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        path, wanted = self.path.partition("?")[0], self.headers.get("Range", "")
        busy = path.startswith("/busy") and not any(one[0] == path for one in self.asked)
        self.asked.append((path, wanted))
        file = self.folder / path.rpartition("/")[2]
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", f"/{file.name}")
            self.end_headers()
            return
        if busy or not file.is_file():
            self.send_error(503 if busy else 404)
            return
        data = file.read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        whole = path.startswith("/whole") or not part
        start, end = (0, len(data)) if whole or part is None else (int(part[1]), int(part[2]) + 1)
        self.send_response(200 if whole else 206)
        if not whole:
            self.send_header("Content-Range", f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}")
        self.send_header("ETag", f'"{hash(data)}"')
        self.end_headers()
        self.wfile.write(data[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a server of a folder, and the requests that it gets: path and range."""
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (Serving,), {"folder": folder, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_shards_over_http_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote_files, "BLOCK", 4096)
    for number in range(2):
        shard(tmp_path / f"s-{number}.tar", pairs(range(10 * number, 10 * number + 5)))
    with served(tmp_path) as (address, asked):
        found = source(f"{address}/s-{{0..1}}.tar?signature=secret")
        samples = all_samples(found)
        assert sorted(greys(one)[0] for one in samples) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
        image = samples[0].image
        assert isinstance(image, ImageBytes)
        assert size_of(image) == (8, 6)
        assert pickle.loads(pickle.dumps(image)) == image
        asked.clear()
        open_image(samples[1].image)
        assert size_of(samples[1].image) == (8, 6)
        assert len(asked) <= 1  # the header and the pixels are read once
        again = source(f"{address}/s-{{0..1}}.tar?signature=another")
        assert samples_digest(samples, found) == samples_digest(all_samples(again), again)
        assert {wanted for _, wanted in asked} - {"bytes=0-0"} <= {
            f"bytes={one.image.source.start}-{one.image.source.start + one.image.source.length - 1}" for one in samples
        }


def test_another_shard_at_an_address_has_another_key(tmp_path: Path):
    digests = set()
    with served(tmp_path) as (address, _):
        for value in (1, 2):
            shard(tmp_path / "a.tar", {"a.png": png(value), "a.cls": "1"})
            found = source(f"{address}/a.tar")
            digests.add(samples_digest(all_samples(found), found))
    assert len(digests) == 2


@pytest.mark.parametrize("kind", ["moved", "busy"])
def test_a_shard_that_was_moved_or_fails_for_a_moment(tmp_path: Path, kind: str):
    shard(tmp_path / "a.tar", pairs(range(4)))
    with served(tmp_path) as (address, _):
        assert len(all_samples(source(f"{address}/{kind}/a.tar"))) == 4


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.tar", r"missing\.tar: cannot be read \(HTTP 404\); check the address"),
        ("whole/a.tar", r"a\.tar: the server gives no parts of files"),
        ("*.tar", "files cannot be listed over HTTP"),
    ],
)
def test_an_address_that_cannot_be_read(tmp_path: Path, path: str, words: str):
    shard(tmp_path / "a.tar", pairs(range(4)))
    with served(tmp_path) as (address, _), pytest.raises(DataError, match=words) as error:
        source(f"{address.replace('//', '//me:secret@')}/{path}").check()
    assert "secret" not in str(error.value)


def test_a_user_and_password_in_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard(tmp_path / "a.tar", pairs(range(4)))
    answered = Serving.do_GET

    def guarded(self: Serving) -> None:
        known = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'me:s@cret').decode()}"
        answered(self) if known else self.send_error(401)

    monkeypatch.setattr(Serving, "do_GET", guarded)
    with served(tmp_path) as (address, _):
        assert len(all_samples(source(f"{address.replace('//', '//me:s%40cret@')}/a.tar"))) == 4
        with pytest.raises(DataError, match="HTTP 401"):
            source(f"{address}/a.tar").check()


def test_a_server_that_went_away_is_one_sentence(tmp_path: Path):
    shard(tmp_path / "a.tar", pairs(range(4)))
    with served(tmp_path) as (address, _):
        image = all_samples(source(f"{address}/a.tar"))[0].image
    with pytest.raises(DataError, match=r"a\.tar: cannot be read \(.*refused.*\)"):
        open_image(image)


def test_shards_of_a_file_system_of_fsspec(tmp_path: Path):
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for number in range(2):
        files.pipe(
            f"/scans/s-{number}.tar", shard(tmp_path / "a.tar", pairs(range(10 * number, 10 * number + 3))).read_bytes()
        )
    try:
        found = source("memory://scans/s-*.tar")
        assert sorted(greys(one)[0] for one in all_samples(found)) == [0, 1, 2, 10, 11, 12]
        with pytest.raises(DataError, match=r"memory://scans/none\.tar: cannot be read"):
            source("memory://scans/none.tar").check()
        with pytest.raises(DataError, match="no shard is there"):
            source("memory://scans/none-*.tar").check()
    finally:
        files.rm("/scans", recursive=True)


def test_an_address_whose_package_is_missing():
    pytest.importorskip("fsspec")
    with pytest.raises(UserError, match=r"dropbox://a/b\.tar: cannot be read: .*[Ii]nstall"):
        source("dropbox://a/b.tar").check()
