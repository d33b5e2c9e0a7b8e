"""Tables with an image, or several, in each row, and a declared map of the columns (``vrft.data.tabular``)."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrft.data.lookup import ImageFiles
from vrft.data.rows import Row
from vrft.data.tabular import Column, TableFile, as_text, is_empty, open_table
from vrft.errors import DataError, nearest
from vrft.sample import ImageSource


@dataclass(frozen=True, kw_only=True)
class RowColumns:
    """The map of the columns, by their titles or their numbers from 0; ``target`` is the column of the task."""

    image: Column | Sequence[Column] = ()
    target: Column | Sequence[Column]
    id: Column | None = None
    question: Column | None = None
    split: Column | None = None
    patient: Column | None = None
    subgroup: Column | None = None
    study: Column | None = None

    def used(self) -> list[Column]:
        """All columns that are read."""
        single = (self.id, self.question, self.split, self.patient, self.subgroup, self.study)
        both = [*several(self.image), *several(self.target)]
        return list(dict.fromkeys([*both, *(column for column in single if column is not None)]))

    def row(self, number: int, values: Mapping[Column, Any], images: Sequence[str], fault: str = "") -> Row:
        """The row of the values of its columns.

        Args:
            number: of the row.
            values: of the used columns, without those of images.
            images: the references of its images.
            fault: of its images.
        """

        def text(column: Column | None) -> str | None:
            return None if column is None or is_empty(value := values[column]) else as_text(value)

        if isinstance(self.target, str | int):
            target = values[self.target]
        else:
            target, wrong = _named_column([values[column] for column in self.target], self.target)
            fault = fault or wrong
        row = Row(number, images, target, text(self.question), text(self.split), text(self.patient))
        row.subgroup, row.study, row.id = text(self.subgroup), text(self.study), text(self.id)
        row.fault = fault
        if not fault and self.patient is not None and row.patient is None:
            row.fault = f"names no patient (column {self.patient!r} is empty)"
        return row


class RowTableReader:
    """The rows of a table.

    Args:
        path: of the table.
        images: the folder of the images.
        columns: the map of the columns.
        file_name: how a cell becomes the name of an image, such as ``{:03}.bmp``.
        encoding: of a text file that is not UTF-8, where it is known.
    """

    def __init__(
        self,
        path: Path,
        images: Path,
        *,
        columns: RowColumns,
        file_name: str | None = None,
        encoding: str | None = None,
    ) -> None:
        self.path, self.images, self.columns, self.encoding = Path(path), Path(images), columns, encoding
        self.where, self.file_name = str(path), file_name
        self.counts = Counter[str]()
        self._files: ImageFiles | None = None
        self._folder = str(images)

    @property
    def identity(self) -> Any:
        """The table, its time of change, and the map of its columns."""
        if not self.path.is_file():
            return None
        stat = self.path.stat()
        place = [str(self.path.resolve()), str(self.images.resolve()), stat.st_size, stat.st_mtime_ns]
        return [*place, repr(self.columns), self.file_name, self.encoding]

    def table(self) -> TableFile:
        """The table in the file.

        Raises:
            DataError: it is missing, or of a kind that is not read.
        """
        return open_table(self.path, wanted=self.columns.used(), counts=self.counts, encoding=self.encoding)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; see ``RowReader.rows``."""
        table, used = self.table(), self.columns.used()
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images of {self.path}: set data.images.")
        self._check_titles(table)
        for number, cells in table.rows(used):
            values = dict(zip(used, cells, strict=True))
            images, fault = self._images([values[column] for column in several(self.columns.image)])
            yield self.columns.row(number, values, images, fault)

    def place(self, number: int) -> str:
        """The place of a row in messages."""
        return self.table().place(number)

    def image(self, reference: str) -> ImageSource:
        """The file of a reference."""
        return self.images / reference

    def name(self, reference: str) -> str:
        """The path of an image below the folder of the images."""
        return reference

    def _check_titles(self, table: TableFile) -> None:
        """Check that the declared columns are there, all together."""
        titles = table.titles
        if not isinstance(self.columns.target, str | int) or self.path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            return
        for column in self.columns.used():
            if isinstance(column, str) and column not in titles:
                near = nearest(column, titles)
                hint = f" Did you mean {near!r}?" if near else ""
                raise DataError(f"{self.path}: has no column {column!r}; it has {', '.join(titles)[:300]}.{hint}")

    def _images(self, cells: Sequence[Any]) -> tuple[list[str], str]:
        """The references of the images in some cells, and what is wrong with them."""
        names: list[Any] = []
        for cell in cells:
            names += cell if isinstance(cell, list | tuple) else [cell]
        found: list[str] = []
        for name in names:
            if is_empty(name):
                continue
            if not isinstance(name, str | int):
                return [], f"has {str(name)[:40]!r} where the name of an image is expected"
            wanted = self._file_name(as_text(name))
            reference = self._find(wanted)
            if reference is None:
                return [], f"names the image {wanted!r}, which is not in {self.images}"
            found.append(reference)
        return found, "" if found else "names no image"

    def _file_name(self, cell: str) -> str:
        if self.file_name is None:
            return cell
        before, inner, after = re.split(r"\{(.*?)\}", self.file_name)
        return f"{before}{cell.zfill(int(inner[2:])) if inner else cell}{after}"

    def _find(self, name: str) -> str | None:
        """The path of an image below the folder of the images, or None."""
        plain = name.strip().replace("\\", "/")
        if "://" in plain[:12]:
            return None
        try:
            if plain and os.path.exists(f"{self._folder}/{plain}") and ".." not in plain:
                return plain
        except (OSError, ValueError):  # of a name that is too long, or holds a zero byte
            return None
        if self._files is None:
            self._files = ImageFiles([self.images])
        file = self._files.find(name, self.counts)
        if file is None:
            return None
        return str(file.relative_to(self.images)) if file.is_relative_to(self.images) else str(file.absolute())


def several(column: Column | Sequence[Column]) -> list[Column]:
    """The columns of a column or a list of columns."""
    return [column] if isinstance(column, str | int) else list(column)


def _named_column(values: Sequence[Any], titles: Sequence[Column]) -> tuple[str | None, str]:
    """The title of the only column with a 1, and what is wrong where there is none or several."""
    set_ = [
        str(title)
        for title, value in zip(titles, values, strict=True)
        if as_text(value).lower() in ("1", "true", "yes")
    ]
    if len(set_) == 1:
        return set_[0], ""
    return None, f"has a 1 in {len(set_)} of the columns of classes; expected 1"
