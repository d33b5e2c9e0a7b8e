"""Files of tables, row by row: CSV and TSV (also those of Excel), JSON lines, JSON lists and Parquet.

Rows are streamed, so that a file of a million rows needs no memory; a CSV that is not UTF-8, and a JSON list, are read
whole. The delimiter of a CSV is a comma, semicolon, tab or bar: it gives the declared columns, or a first line
``sep=;`` names it. A quote that is not closed is refused, since it would hide the rows below it.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

from vrft.errors import DataError, first_line, reading
from vrft.extras import need
from vrft.textfiles import open_text

Column = str | int
"""The title of a column, or its number from 0."""

DELIMITERS = (",", ";", "\t", "|")

SEPARATOR = re.compile(r"""\s*"?sep=([^\w\s"'.+-]|\t)"?[^\S\n]*(?:\n|$)""", re.IGNORECASE)
"""The first line of a table in which Excel names the delimiter."""

EMPTY = {"", "nan", "na", "n/a", "<na>", "none", "null", "nil", "-"}
"""The texts of empty cells, in lower case."""

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of files that are read as tables."""

_SEPARATORS = re.compile(r"[\s_,;:'\"()\[\]]+|(?<=[^\W\d])[-./](?=\w)|(?<=\w)[-./](?=[^\W\d])|[.!?]+$")

_WHOLE = re.compile(r"([+-]?\d+)\.0+")

_NAMES_OF_LISTS = ("data", "images", "annotations", "records", "rows", "items", "samples", "questions")


class TableFile(Protocol):
    """A table in a file."""

    path: Path

    @property
    def decimal_comma(self) -> bool:
        """Whether numbers may be written as ``2,5``."""

    @property
    def titles(self) -> list[str]:
        """The titles of the columns.

        Raises:
            DataError: the file is missing or no table.
        """

    def rows(self, columns: Sequence[Column]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the number of each row (``place``), and its values in the order of the columns.

        Raises:
            DataError: a column is missing, or a row cannot be read.
        """

    def place(self, number: int) -> str:
        """The place of a row in messages."""


def open_table(
    path: Path, *, wanted: Sequence[Column] = (), counts: Counter[str] | None = None, encoding: str | None = None
) -> TableFile:
    """Open a table by the suffix of its file.

    Args:
        path: of the file.
        wanted: columns that should be there, which show the delimiter of a CSV.
        counts: gets the encoding of a file that is not UTF-8.
        encoding: of a text file that is not UTF-8, where it is known.

    Raises:
        DataError: the file is missing, or of a kind that is not read.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: cannot be read as a table ({why}); set data.file to the table.")
    if suffix in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path}: is a workbook; save its sheet as CSV and set data.file to that.")
    if suffix == ".parquet":
        return ParquetTable(path)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return JsonTable(path, counts, encoding)
    return CsvTable(path, wanted, counts, encoding)


def is_empty(value: Any) -> bool:
    """Whether a cell is empty.

    >>> is_empty(None), is_empty(" NaN "), is_empty(float("nan")), is_empty(0), is_empty([])
    (True, True, True, False, True)
    """
    if isinstance(value, str):
        return value.strip().lower() in EMPTY
    return value is None or value != value or (isinstance(value, list | tuple | dict) and not value)


def folded_label(label: str, joint: str = "") -> str:
    """A label without letter case and separators, to find spellings of one label; signs and numbers stay as they are.

    Args:
        label: as it is written.
        joint: stands for separators inside.

    >>> [folded_label(label) for label in ("Non-small cell", "non_small  cell ", "HER2+", "HER2-", "-1", "1.5")]
    ['nonsmallcell', 'nonsmallcell', 'her2+', 'her2-', '-1', '1.5']
    """
    return joint.join(part for part in _SEPARATORS.split(label.casefold()) if part)


def as_text(value: Any) -> str:
    """A cell as text, its letters composed (NFC); whole numbers that pandas wrote beside empty cells (``2.0``) lose
    their fraction.

    >>> as_text(" 2.0"), as_text(2.0), as_text(True), as_text("a.0")
    ('2', '2', 'true', 'a.0')
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = normalize("NFC", str(value)).strip()
    if text.endswith("0") and (whole := _WHOLE.fullmatch(text)):
        return whole[1]
    return text


class CsvTable:
    """A text file with a row of titles.

    Args:
        path: of the file, with or without a byte-order mark, with any line ends.
        wanted: columns that should be there, which show the delimiter.
        counts: gets the encoding of a file that is not UTF-8.
        encoding: of a file that is not UTF-8, where it is known.
    """

    def __init__(
        self,
        path: Path,
        wanted: Sequence[Column] = (),
        counts: Counter[str] | None = None,
        encoding: str | None = None,
    ) -> None:
        self.path, self.wanted, self.encoding = path, wanted, encoding
        self.counts = Counter[str]() if counts is None else counts

    @property
    def titles(self) -> list[str]:
        """The titles of the columns; see ``TableFile``."""
        return self._layout[2]

    @property
    def decimal_comma(self) -> bool:
        """Whether numbers may be written as ``2,5``."""
        return self._layout[1] != ","

    def place(self, number: int) -> str:
        """The file and the line on which a row begins."""
        return f"{self.path}:{number}"

    def rows(self, columns: Sequence[Column]) -> Iterator[tuple[int, list[str]]]:
        """The line and the stripped cells of each row; see ``TableFile.rows``."""
        first, delimiter, titles = self._layout
        positions = [_position(self.path, column, titles, first) for column in columns]
        least, width = max(positions, default=0) + 1, len(titles)
        for line, cells in islice(self._cells(self._open(), delimiter), 1, None):
            if len(cells) > width and (more := [cell for cell in cells[width:] if cell.strip()]):
                fault = f"has {len(cells)} cells, and the first row {width} titles ({more[0]!r} has none)"
                raise DataError(f"{self.path}:{line}: {fault}; put texts that hold a {delimiter!r} in quotes.")
            if len(cells) < least:
                fault = f"has {len(cells)} of {width} cells"
                raise DataError(
                    f"{self.path}:{line}: {fault}; fill in the others, which may be empty, or remove the row."
                )
            yield line, [cells[at].strip() for at in positions]

    def _open(self) -> io.TextIOBase:
        return open_text(self.path, Counter(), self.encoding)

    @cached_property
    def _layout(self) -> tuple[int, str, list[str]]:
        """The line of the titles, the delimiter, and the titles.

        The delimiter is the one that gives most declared titles, then most titles.
        """
        with reading(self.path), open_text(self.path, self.counts, self.encoding) as file:
            head = "".join(islice(file, 50))
        stated = SEPARATOR.match(head)
        wanted = [column for column in self.wanted if isinstance(column, str)]
        candidates: list[tuple[int, int, int, int, str, list[str]]] = []
        fault = DataError(f"{self.path}:1: is no CSV table; expected a row of titles.")
        for delimiter in (stated[1],) if stated else DELIMITERS:
            try:
                line, cells = next(self._cells(io.StringIO(head), delimiter))
            except StopIteration:
                continue
            except DataError as error:
                fault = error
                continue
            titles = [cell.strip() for cell in cells]
            declared, rank = sum(title in titles for title in wanted), -len(candidates)
            candidates.append((declared, len(titles), rank, line, delimiter, titles))
        if not candidates:
            raise fault
        return max(candidates)[3:]

    def _cells(self, file: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """The line on which each row begins, and its cells; empty rows, and Excel's ``sep=;``, are left out."""
        lines = iter(file)
        before: list[str] = []
        for first in lines:
            before.append(first)
            if first.strip():
                break
        skipped = len(before) if before and SEPARATOR.fullmatch(before[-1]) else 0
        rest = chain(before[skipped:], lines)
        reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
        line = skipped + 1
        try:
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield line, cells
                line = skipped + reader.line_num + 1
        except csv.Error as error:
            fault = f"is no CSV table ({error}): a quote on this line is not closed, or text follows the closing quote"
            raise DataError(f"{self.path}:{line}: {fault}; write a quote inside a text twice.") from None


class JsonTable:
    """JSON lines, or a JSON list of objects, each a row.

    Args:
        path: of the file.
        counts: gets the encoding of a file that is not UTF-8.
        encoding: of a file that is not UTF-8, where it is known.
    """

    decimal_comma = False

    def __init__(self, path: Path, counts: Counter[str] | None = None, encoding: str | None = None) -> None:
        self.path, self.encoding, self.counts = path, encoding, Counter[str]() if counts is None else counts

    @cached_property
    def titles(self) -> list[str]:
        """The keys of the first rows; see ``TableFile``."""
        found = list(dict.fromkeys(key for _, row in islice(self._objects(), 100) for key in row))
        if not found:
            raise DataError(f"{self.path}: holds no rows; expected an object {{...}} for each.")
        return found

    @cached_property
    def _is_list(self) -> bool:
        with reading(self.path), open_text(self.path, self.counts, self.encoding) as file:
            first, second = (next((line for line in file if line.strip()), "") for _ in range(2))
        try:
            is_object = isinstance(json.loads(first or "0"), dict)
        except (ValueError, RecursionError):
            return self.path.suffix.lower() == ".json"  # an object over several lines
        return not is_object or (self.path.suffix.lower() == ".json" and not second)

    def place(self, number: int) -> str:
        """The file and the line, or the number of the item in a list."""
        return f"{self.path}: item {number}" if self._is_list else f"{self.path}:{number}"

    def rows(self, columns: Sequence[Column]) -> Iterator[tuple[int, list[Any]]]:
        """The number and the values of each row, None where it has no such key; see ``TableFile.rows``."""
        titles = self.titles
        names = [titles[_position(self.path, one, titles, 1)] if isinstance(one, int) else one for one in columns]
        missing = set(names)
        for number, row in self._objects():
            if missing:
                missing -= row.keys()
            yield number, [row.get(name) for name in names]
        for name in missing:
            raise DataError(f"{self.path}: no row has the key {name!r}; they have {', '.join(titles)[:300]}.")

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        numbered = self._items() if self._is_list else self._lines()
        for number, row in numbered:
            if not isinstance(row, dict):
                raise DataError(f"{self.place(number)}: is {str(row)[:40]!r}; expected an object {{...}} of keys.")
            yield number, row

    def _lines(self) -> Iterator[tuple[int, Any]]:
        with open_text(self.path, Counter(), self.encoding) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{self.path}:{number}: is no JSON ({first_line(error)}).") from None

    def _items(self) -> Iterator[tuple[int, Any]]:
        with open_text(self.path, Counter(), self.encoding) as file:
            try:
                content = json.load(file)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self.path}: is no JSON ({first_line(error)}).") from None
        if isinstance(content, dict):
            lists = {key: value for key, value in content.items() if isinstance(value, list)}
            named = [key for key in _NAMES_OF_LISTS if key in lists] or list(lists)
            content = lists[named[0]] if len(lists) == 1 and named else None
        if not isinstance(content, list):
            raise DataError(f"{self.path}: holds no list of rows; expected [{{...}}, ...], or an object on each line.")
        return enumerate(content, start=1)


class ParquetTable:
    """A Parquet file, read with pyarrow in batches.

    Args:
        path: of the file.
    """

    decimal_comma = False

    def __init__(self, path: Path) -> None:
        need(f"reading {path.name}", ("pyarrow",), "data")
        self.path = path

    @cached_property
    def titles(self) -> list[str]:
        """The names of the columns; see ``TableFile``."""
        return list(self._file().schema_arrow.names)

    def place(self, number: int) -> str:
        """The file and the number of a row, from 1."""
        return f"{self.path}: row {number}"

    def rows(self, columns: Sequence[Column]) -> Iterator[tuple[int, list[Any]]]:
        """The number and the values of each row; see ``TableFile.rows``."""
        positions = [_position(self.path, column, self.titles, 1) for column in columns]
        names = [self.titles[at] for at in positions]
        number = 0
        for batch in self._file().iter_batches(batch_size=10_000, columns=list(dict.fromkeys(names))):
            values = {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in set(names)}
            for row in zip(*(values[name] for name in names), strict=True):
                number += 1
                yield number, list(row)

    def _file(self) -> Any:
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: is no Parquet file ({first_line(error)[:100]}).") from None


def _position(path: Path, column: Column, titles: Sequence[str], line: int) -> int:
    """The position of a column in a row."""
    if isinstance(column, int):
        if not 0 <= column < len(titles):
            raise DataError(f"{path}:{line}: has no column {column}; it has {', '.join(titles)[:300]}.")
        if (title := str(column)) in titles and titles[column] != title:
            fault = f"has a column with the title {title!r}, and column {title} counted from 0 is {titles[column]!r}"
            raise DataError(f"{path}:{line}: {fault}; name the one that is meant by its title, in quotes.")
        return column
    if titles.count(column) != 1:
        many = "has several columns" if column in titles else "has no column"
        raise DataError(f"{path}:{line}: {many} {column!r}; it has {', '.join(titles)[:300]}.")
    return titles.index(column)
