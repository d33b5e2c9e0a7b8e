"""Folders of images, a folder for each class, with or without folders of splits above them.

Read are ``ROOT/CLASS/...`` and ``ROOT/SPLIT/CLASS/...``, where a split has a name in ``SPLIT_NAMES`` in any case of
letters; images may lie in further folders inside a class (of patients, of series).
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from vrft.data.lookup import is_hidden, is_image
from vrft.data.rows import Row
from vrft.data.splits import SPLIT_NAMES, split_named
from vrft.errors import DataError
from vrft.sample import ImageSource


class FolderReader:
    """The images of class folders, as rows.

    Args:
        root: the folder of the data set.
        series: each folder without folders inside it is a sample, such as a DICOM series; without it each file is.
        hash_names: messages do not hold the names of images.
    """

    def __init__(self, root: Path, *, series: bool = False, hash_names: bool = False) -> None:
        self.root, self.series, self.hash_names = Path(root), series, hash_names
        self.where = str(root)

    @cached_property
    def base(self) -> Path:
        """The folder of the splits or classes: the root, or the only folder in it.

        Raises:
            DataError: there is no such folder, or it holds no folders.
        """
        base = self.root
        if not base.is_dir():
            why = "is a file" if base.exists() else "no such folder"
            raise DataError(f"{base}: {why}; set data.root to the folder that holds a folder for each class.")
        while len(inner := _folders(base)) == 1 and not _images(base) and _folders(base / inner[0]):
            base = base / inner[0]
        if not _folders(base):
            raise DataError(
                f"{base}: holds no folders; expected a folder for each class, with its images, or for each split "
                f"({', '.join(names[0] for names in SPLIT_NAMES.values())}) with a folder for each class inside."
            )
        return base

    @cached_property
    def splits(self) -> dict[str, str]:
        """The split of each folder of a split; empty where folders are classes.

        Raises:
            DataError: some folders have names of splits, others not.
        """
        folders = _folders(self.base)
        found = {name: split for name in folders if (split := split_named(name))}
        if found and (others := [name for name in folders if name not in found and _has_image(self.base / name)]):
            raise DataError(
                f"{self.base}: {next(iter(found))!r} is the name of a split and {others[0]!r} is none; expected "
                f"folders of splits alone, or of classes alone."
            )
        return found

    @property
    def identity(self) -> Any:
        """The names of all folders and files."""
        return [str(self.base.resolve()), self.series, sorted(self.splits), _stamp(self.base)]

    def rows(self) -> Iterator[Row]:
        """Yield the images, split by split and class by class, in the order of their names.

        Raises:
            DataError: no class has an image.
        """
        number = 0
        for folder, label in self._classes():
            for image in self._inside(folder, label):
                number += 1
                if label is None:
                    fault = "lies in no folder of a class; move it into the folder of its class"
                    yield Row(number, (image,), fault=fault)
                else:
                    yield Row(number, (image,), label, split=folder or None, is_name=True)
        if not number:
            raise DataError(f"{self.base}: its folders hold no image; expected files such as CLASS/image.png.")

    def _classes(self) -> Iterator[tuple[str, str | None]]:
        """The folder of a split, or "", and each folder in it; None stands for the images beside these."""
        for folder in [*self.splits] or [""]:
            yield folder, None
            for label in _folders(self.base / folder):
                yield folder, label

    def _inside(self, folder: str, label: str | None) -> Iterator[str]:
        """The images of a class, or those beside the classes, below the base."""
        if label is not None:
            yield from self._walk(f"{folder}/{label}" if folder else label)
            return
        for image in _images(self.base / folder):
            yield f"{folder}/{image}" if folder else image

    @cached_property
    def _first(self) -> list[tuple[int, str, str | None]]:
        """The number of the first row of each class, and the class."""
        first, found = 1, []
        for folder, label in self._classes():
            found.append((first, folder, label))
            first += sum(1 for _ in self._inside(folder, label))
        return found

    def _walk(self, inner: str) -> Iterator[str]:
        folder = self.base / inner
        folders = _folders(folder)
        if self.series and not folders:
            if any(True for _ in os.scandir(folder)):
                yield inner
            return
        for name in _images(folder):
            yield f"{inner}/{name}"
        for name in folders:
            yield from self._walk(f"{inner}/{name}")

    def place(self, number: int) -> str:
        """The image of a row, or with ``hash_names`` its class and its number there, from 1."""
        first, folder, label = self._first[bisect_right(self._first, number, key=lambda one: one[0]) - 1]
        if self.hash_names:
            return f"{self.base / folder / (label or '')}: image {number - first + 1}"
        image = next(islice(self._inside(folder, label), number - first, None))
        return str(self.base / image).encode("utf-8", "backslashreplace").decode()

    def image(self, reference: str) -> ImageSource:
        """The file of a reference."""
        return self.base / reference

    def name(self, reference: str) -> str:
        """The path of an image below the root."""
        return reference


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if one.is_dir() and not is_hidden(one.name))


def _images(folder: Path) -> list[str]:
    """The names of the images in a folder."""
    with os.scandir(folder) as entries:
        files = [one.name for one in entries if not is_hidden(one.name) and one.is_file()]
    return sorted(name for name in files if is_image(folder / name))


def _has_image(folder: Path) -> bool:
    return bool(_images(folder)) or any(_has_image(folder / name) for name in _folders(folder))


def _stamp(folder: Path) -> list[Any]:
    """The times of change of a folder and of all folders in it: they change when a file comes or goes."""
    found = [(path, os.stat(path).st_mtime_ns) for path, _, _ in os.walk(folder, followlinks=True)]
    return sorted(found)
