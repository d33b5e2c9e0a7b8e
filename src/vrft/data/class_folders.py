"""Folders of images, a folder for each class, with or without folders of splits above them.

Read are ``ROOT/CLASS/...`` and ``ROOT/SPLIT/CLASS/...``, where a split has a name in ``SPLIT_NAMES`` in any case of
letters; images may lie in further folders inside a class (of patients, of series).
"""

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from vrft.data.lookup import is_image
from vrft.data.rows import Row
from vrft.data.splits import SPLIT_NAMES, split_named
from vrft.errors import DataError
from vrft.sample import ImageSource


class FolderReader:
    """The images of class folders, as rows.

    Args:
        root: the folder of the data set.
        series: each folder without folders inside it is a sample, such as a DICOM series; without it each file is.
    """

    def __init__(self, root: Path, *, series: bool = False) -> None:
        self.root, self.series = Path(root), series
        self.where = str(root)

    @cached_property
    def base(self) -> Path:
        """The folder of the splits or classes: the root, or the only folder in it.

        Raises:
            DataError: there is no such folder, or it holds no folders.
        """
        base = self.root
        if not base.is_dir():
            raise DataError(f"{base}: no such folder; set data.root to the folder that holds a folder for each class.")
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
        for folder in [*self.splits] or [""]:
            for image in _images(self.base / folder):
                number += 1
                name = f"{folder}/{image}" if folder else image
                yield Row(number, (name,), fault="lies in no folder of a class; move it into the folder of its class")
            for label in _folders(self.base / folder):
                for image in self._walk(f"{folder}/{label}" if folder else label):
                    number += 1
                    yield Row(number, (image,), label, split=folder or None)
        if not number:
            raise DataError(f"{self.base}: its folders hold no image; expected files such as CLASS/image.png.")

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
        """The image of a row."""
        row = next(islice(self.rows(), number - 1, number))
        return str(self.base / row.images[0])

    def image(self, reference: str) -> ImageSource:
        """The file of a reference."""
        return self.base / reference

    def name(self, reference: str) -> str:
        """The path of an image below the root."""
        return reference


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if one.is_dir() and not _is_hidden(one.name))


def _images(folder: Path) -> list[str]:
    """The names of the images in a folder."""
    with os.scandir(folder) as entries:
        files = [one.name for one in entries if not _is_hidden(one.name) and one.is_file()]
    return sorted(name for name in files if is_image(folder / name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _has_image(folder: Path) -> bool:
    return bool(_images(folder)) or any(_has_image(folder / name) for name in _folders(folder))


def _stamp(folder: Path) -> list[Any]:
    """The times of change of a folder and of all folders in it: they change when a file comes or goes."""
    found = [(str(path), os.stat(path).st_mtime_ns) for path, _, _ in os.walk(folder)]
    return sorted(found)
