"""MedMNIST v2: the official npz files, read directly (the ``medmnist`` package would import torch).

``medmnist.json`` beside this file holds the facts of each 2D set: its task, its class names in the order of the label
numbers, its question, the md5 of each edition. An npz file is opened with ``allow_pickle=False``, and its checksum is
verified after a download. Source: Yang et al., "MedMNIST v2", Scientific Data 10:41 (2023).
"""

import hashlib
import json
import os
import urllib.request
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.data.splits import SPLIT_NAMES
from vrft.errors import DataError, reading
from vrft.sample import Sample

FACTS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "medmnist.json").read_text(encoding="utf-8"))
"""Facts of every 2D set by its name."""

DATASETS = tuple(FACTS)
SIZES = (28, 64, 128, 224)
URL = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"


class MedMNISTSource:
    """Samples of one MedMNIST set.

    Args:
        dataset: a name in ``FACTS``; a multi-label set is refused.
        kind: ``classification`` (the targets are labels), or ``grading`` (grades) of an ordinal set.
        root: the folder of the npz files.
        size: pixels a side: 28 (``NAME.npz``) or 64, 128, 224 (``NAME_SIZE.npz``).
        download: fetch a missing file and verify its checksum; without it a missing file is an error.

    Raises:
        DataError: the set is multi-label, or has no grades.
    """

    def __init__(
        self,
        dataset: str,
        *,
        kind: Literal["classification", "grading"],
        root: Path,
        size: int = 28,
        download: bool = False,
    ) -> None:
        facts = FACTS[dataset]
        if facts["task"].startswith("multi-label"):
            raise DataError(
                f"{dataset} has several labels an image, and there is no task for that yet; "
                f"choose one of {', '.join(single_label_datasets())}."
            )
        self.name = dataset if size == 28 else f"{dataset}_{size}"
        self.dataset, self.path = dataset, Path(root) / f"{self.name}.npz"
        self.md5, self.may_download = facts["md5"][str(size)], download
        if kind == "grading" and facts["task"] != "ordinal-regression":
            raise DataError(f"{dataset} has classes without an order; task.kind must be classification.")
        self.labels: list[str] | None = None if kind == "grading" else facts["labels"]
        self.levels: int | None = len(facts["labels"]) if kind == "grading" else None
        self.question: str = facts["question"]

    def check(self) -> None:
        """Check that the file exists or may be downloaded.

        Raises:
            DataError: neither.
        """
        if not self.path.is_file() and not self.may_download:
            raise DataError(
                f"{self.path}: no such file; set data.root to the folder that holds {self.path.name}, "
                f"or data.download to true to fetch it."
            )

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the order of the file.

        Raises:
            DataError: the file is missing, damaged, or cannot be downloaded.
        """
        with reading(self.path):
            images, targets = self._arrays(split)
        for index, (pixels, target) in enumerate(zip(images, targets, strict=True)):
            yield Sample(
                id=f"{self.name}-{split}-{index:05d}",
                image=partial(Image.fromarray, pixels),
                question=self.question,
                target=int(target) if self.labels is None else self.labels[int(target)],
                split=split,
            )

    def _arrays(self, split: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Images (n, size, size) or (n, size, size, 3) and labels (n,) of a split."""
        self.check()
        if not self.path.is_file():
            download(URL.format(name=self.name), self.path, md5=self.md5)
        prefix = SPLIT_NAMES[split][0]
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                images, labels = arrays[f"{prefix}_images"], arrays[f"{prefix}_labels"]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path}: is no MedMNIST archive ({error}); delete it and fetch it again (md5 {self.md5})."
            ) from None
        labels = labels.reshape(len(labels), -1)
        if labels.shape[1] != 1 or len(labels) != len(images) or images.dtype != np.uint8:
            raise DataError(f"{self.path}: {prefix}_labels has shape {labels.shape}; expected one label an image.")
        known = len(FACTS[self.dataset]["labels"])
        if int(labels.max(initial=0)) >= known:
            raise DataError(f"{self.path}: holds label {labels.max()}, but {self.dataset} has only {known} classes.")
        return images, labels[:, 0]


def single_label_datasets() -> list[str]:
    """The names of the sets with one label an image."""
    return [name for name, facts in FACTS.items() if not facts["task"].startswith("multi-label")]


def download(url: str, path: Path, *, md5: str) -> None:
    """Download a file to a temporary name, verify its checksum, then rename it.

    Args:
        url: of the file.
        path: where to save it.
        md5: the expected checksum, in hexadecimal digits.

    Raises:
        DataError: the host cannot be reached, or the checksum differs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(".part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=60) as response, partial_file.open("wb") as file:
            while block := response.read(1 << 20):
                digest.update(block)
                file.write(block)
    except OSError as error:
        partial_file.unlink(missing_ok=True)
        raise DataError(f"{url}: cannot be downloaded ({error}); fetch it by hand and save it as {path}.") from None
    if digest.hexdigest() != md5:
        partial_file.unlink()
        raise DataError(f"{url}: has md5 {digest.hexdigest()}, expected {md5}; the download was discarded, try again.")
    os.replace(partial_file, path)
