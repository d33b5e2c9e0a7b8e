"""MedMNIST: official files are read directly; faults are reported in one line."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrft.data import medmnist
from vrft.data.medmnist import FACTS, MedMNISTSource, single_label_datasets
from vrft.errors import DataError
from vrft.sample import open_image


def write(path: Path, *, size: int = 28, channels: tuple[int, ...] = (3,), classes: int = 5, **changes: Any) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for prefix, n in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{prefix}_images"] = rng.integers(0, 256, (n, size, size, *channels), dtype=np.uint8)
        arrays[f"{prefix}_labels"] = (np.arange(n) % classes).astype(np.uint8).reshape(-1, 1)
    np.savez(path, **(arrays | changes))


@pytest.mark.parametrize(("dataset", "sizes"), [("retinamnist", (1080, 120, 400)), ("breastmnist", (546, 78, 156))])
def test_the_real_files_hold_the_official_splits(shared: Path, dataset: str, sizes: tuple[int, ...]):
    kind = "grading" if dataset == "retinamnist" else "classification"
    source = MedMNISTSource(dataset, kind=kind, root=shared / "data" / "medmnist")
    counts = tuple(len(list(source.samples(split))) for split in ("train", "validation", "test"))
    assert counts == sizes == tuple(FACTS[dataset]["samples"][split] for split in ("train", "val", "test"))
    assert open_image(next(source.samples("test")).images[0]).size == (28, 28)


def test_the_positive_class_is_told_by_name_not_by_number(shared: Path):
    source = MedMNISTSource("breastmnist", kind="classification", root=shared / "data" / "medmnist")
    labels = [sample.target for sample in source.samples("test")]
    assert (labels.count("malignant"), labels.count("normal, benign")) == (42, 114)


@pytest.mark.parametrize("size", [28, 64, 128, 224])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_edition_is_read(tmp_path: Path, size: int, channels: tuple[int, ...]):
    write(tmp_path / ("pathmnist.npz" if size == 28 else f"pathmnist_{size}.npz"), size=size, channels=channels)
    source = MedMNISTSource("pathmnist", kind="classification", root=tmp_path, size=size)
    samples = list(source.samples("train"))
    image = open_image(samples[0].images[0])
    assert (image.size, image.mode, len(samples)) == ((size, size), "RGB", 6)
    assert samples[0].target == "adipose"


def test_a_missing_file_tells_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match=r"octmnist_64\.npz: no such file; set data\.root .* or data\.download"):
        MedMNISTSource("octmnist", kind="classification", root=tmp_path, size=64).check()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "octmnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"octmnist\.npz: is no MedMNIST archive"):
        list(MedMNISTSource("octmnist", kind="classification", root=tmp_path).samples("test"))


def test_pickled_arrays_are_refused(tmp_path: Path):
    write(tmp_path / "octmnist.npz", test_labels=np.array([{"a": 1}] * 3, dtype=object))
    with pytest.raises(DataError, match="is no MedMNIST archive"):
        list(MedMNISTSource("octmnist", kind="classification", root=tmp_path).samples("test"))


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path):
    write(tmp_path / "pneumoniamnist.npz", channels=(), classes=5)
    with pytest.raises(DataError, match="holds label 2, but pneumoniamnist has only 2 classes"):
        list(MedMNISTSource("pneumoniamnist", kind="classification", root=tmp_path).samples("test"))


def test_multi_label_sets_are_refused_with_the_ones_that_work():
    with pytest.raises(DataError, match=r"several labels an image.*pathmnist"):
        MedMNISTSource("chestmnist", kind="classification", root=Path("."))
    assert len(single_label_datasets()) == 11


def test_a_download_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    origin = tmp_path / "origin.npz"
    write(origin, classes=4)
    monkeypatch.setattr(medmnist, "URL", origin.as_uri() + "#{name}")
    source = MedMNISTSource("octmnist", kind="classification", root=tmp_path / "data", download=True)
    with pytest.raises(DataError, match="the download was discarded"):
        list(source.samples("test"))
    assert list((tmp_path / "data").iterdir()) == []
    source.md5 = hashlib.md5(origin.read_bytes()).hexdigest()
    assert len(list(source.samples("test"))) == 3
