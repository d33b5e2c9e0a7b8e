"""Tables of boxes: a CSV with one box a row, and a declared map of its columns.

Cells are parted by commas, semicolons, tabs or bars: by what makes the declared columns. A row whose four cells of the
box are empty states that its image holds nothing where its label says so (empty, 0, ``no finding``, ``ABSENT``) and has
no box in another row; any other label is a finding whose place is not told, and no statement that nothing is there.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrft.data.annotations import SPLITS, Annotation, Counts, Record, box_of, image_size, share_out
from vrft.data.lookup import ImageFiles, images_in
from vrft.errors import DataError, reading
from vrft.sample import Box
from vrft.textfiles import read_text


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, by their titles or their numbers from 0.

    Args:
        image: the name of the image file.
        label: what the box holds.
        corners: x1, y1, x2, y2 (pixels); or
        corner_and_size: x, y, width, height (pixels).
        split: the split, where the table has one: train, val or validation, test.
    """

    image: str | int
    label: str | int
    corners: Sequence[str | int] | None = None
    corner_and_size: Sequence[str | int] | None = None
    split: str | int | None = None

    def used(self) -> list[str | int]:
        """All columns that are read."""
        boxes = self.corners or self.corner_and_size or ()
        return [self.image, self.label, *boxes, *([] if self.split is None else [self.split])]


NAMES = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing"},
}

EMPTY = {"", "nan", "na", "n/a", "<na>", "none", "null", "nil", "-"}
"""What an empty cell holds, in small letters."""

ABSENT = {"0", "no", "false", "normal", "negative", "healthy", "background", "no finding", "no findings", "nothing"}
ABSENT |= {"正常", "阴性", "无"}
"""Labels that say that nothing is there, in small letters and beside the empty ones."""

DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Row:
    """One row: the name of an image, what it holds, and where; no box where the cells are empty."""

    where: str
    name: str
    label: str
    box: Box | None
    split: str | None


class TableReader:
    """Reads a CSV of boxes.

    Args:
        path: of the CSV; a byte-order mark and any line ends are fine.
        images: the folder of the images; folders inside it are looked into.
        columns: the map of the columns.
        group: the part of a file name before this text is the group (the patient) that stays in one split.
        negatives: images in the folder that the table does not name are taken as images without a box; where the table
            has a split, they are shared out by the hash of their group, as sets without splits are.
        absent: further labels that say that nothing is there.
        encoding: of a file that is not UTF-8, where it is known.
    """

    def __init__(
        self,
        path: Path,
        images: Path,
        *,
        columns: Columns,
        group: str | None = None,
        negatives: bool = False,
        absent: Sequence[str] = (),
        encoding: str | None = None,
    ) -> None:
        self.path, self.images, self.columns = Path(path), Path(images), columns
        self.group, self.negatives, self.encoding = group, negatives, encoding
        self.absent = EMPTY | ABSENT | {label.strip().lower() for label in absent}

    def read(self, split: str, counts: Counts) -> list[Record]:
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images of {self.path}: set data.images.")
        met: Counts = Counts()
        with reading(self.path):
            found = self._of_images(met)
        if split == SPLITS[0]:
            counts.update(met)  # once, not for every split
        every = {path: found.get(path, []) for path in images_in(self.images)} if self.negatives else found
        if split == SPLITS[0]:
            counts["image without row"] += sum(path not in found for path in images_in(self.images))
        files = sorted(every, key=lambda path: (path.name, path))
        groups = [file.name.split(self.group)[0] if self.group else file.name for file in files]
        shared = share_out(groups, split)  # of what the table gives no split
        boxed = {row.label for rows in found.values() for row in rows if row.box}
        if not boxed:
            raise DataError(f"{self.path}: no row of an image that is there has a box; see data.columns.")
        records = []
        for file, taken in zip(files, shared, strict=True):
            rows = every[file]
            stated = _split_of(rows)
            if not (taken if stated is None else stated == split):
                continue
            boxes = tuple(Annotation(row.label, row.box) for row in rows if row.box)
            without = [row.label for row in rows if row.box is None]
            left_out = tuple(one for one in without if one in boxed or one.lower() not in self.absent)
            counts["finding without box"] += len(left_out)
            counts["empty row beside boxes"] += len(without) - len(left_out) if boxes else 0
            records.append(Record(file, image_size(file), boxes, left_out=left_out))
        return records

    def _of_images(self, counts: Counts) -> dict[Path, list[Row]]:
        """The rows of each image that is there."""
        rows = self._rows(counts)
        files = ImageFiles([self.images], bare=False)
        found: dict[Path, list[Row]] = defaultdict(list)
        of_name: dict[str, Path | None] = {}
        for row in rows:
            if row.name not in of_name:
                of_name[row.name] = files.find(row.name, counts)
            if file := of_name[row.name]:
                found[file].append(row)
            else:
                counts["row without image"] += 1
        files.check_found(self.path)
        return dict(found)

    def _rows(self, counts: Counts) -> list[Row]:
        """All rows, with their line numbers."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: cannot be read as a CSV table (no such file); set data.file to the table.")
        text = read_text(self.path, counts, self.encoding)
        delimiter, titles = self._titles(text)
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=delimiter != "\t")
        try:
            cells = [(reader.line_num, row) for row in reader if any(map(str.strip, row))][1:]
        except csv.Error as error:
            raise DataError(f"{self.path}:{reader.line_num}: is no CSV table ({error}).") from None
        for line, row in cells:
            if more := [cell for cell in row[len(titles) :] if cell.strip()]:
                told = f"has {len(row)} cells, and the first row {len(titles)} titles ({more[0]!r} has none)"
                raise DataError(f"{self.path}:{line}: {told}; put texts that hold a {delimiter!r} in quotes.")
        rows = [{**dict(zip(titles, row, strict=False)), **dict(enumerate(row))} for _, row in cells]
        decimal_comma = delimiter != ","
        return [
            self._row(row, f"{self.path}:{line}", decimal_comma) for (line, _), row in zip(cells, rows, strict=True)
        ]

    def _titles(self, text: str) -> tuple[str, list[str]]:
        """What parts the cells, and the titles: those in which all declared ones are."""
        first = next((line for line in text.split("\n") if line.strip()), "")
        wanted = [column for column in self.columns.used() if isinstance(column, str)]
        rated: list[tuple[int, int, int, str, list[str]]] = []
        for delimiter in DELIMITERS:
            try:
                cells = next(csv.reader([first], delimiter=delimiter, skipinitialspace=delimiter != "\t"), [])
            except csv.Error:
                continue
            titles = [cell.strip() for cell in cells]
            rated.append((sum(one in titles for one in wanted), len(titles), -len(rated), delimiter, titles))
        if not rated:
            raise DataError(f"{self.path}:1: is no CSV table; expected a row of titles.")
        _, _, _, delimiter, titles = max(rated)
        for title in wanted:
            if titles.count(title) != 1:
                many = "has several columns" if title in titles else "has no column"
                raise DataError(f"{self.path}:1: {many} {title!r}; it has {', '.join(titles)[:300]}.")
        return delimiter, titles

    def _row(self, row: dict[str | int, str], where: str, decimal_comma: bool) -> Row:
        name = self._cell(row, self.columns.image, where)
        label = self._cell(row, self.columns.label, where)
        columns = self.columns.corners or self.columns.corner_and_size or ()
        cells = [self._cell(row, column, where) for column in columns]
        if name.lower() in EMPTY:
            raise DataError(f"{where}: names no image (the cell is {name!r}); fill it in or remove the row.")
        box = None if all(cell.lower() in EMPTY for cell in cells) else self._box(cells, where, decimal_comma)
        if box is not None and label.lower() in EMPTY:
            raise DataError(
                f"{where}: has a box without a label (the cell is {label!r}); fill it in or remove the row."
            )
        whole = re.fullmatch(r"([+-]?\d+)\.0+", label)  # a whole number that pandas wrote beside empty cells
        split = None if self.columns.split is None else self._split(row, where)
        return Row(where, name, whole[1] if whole else label, box, split)

    def _split(self, row: dict[str | int, str], where: str) -> str:
        assert self.columns.split is not None
        stated = self._cell(row, self.columns.split, where)
        found = next((split for split, names in NAMES.items() if stated.lower() in names), None)
        if found is None:
            expected = ", ".join(sorted(set().union(*NAMES.values())))
            raise DataError(f"{where}: the split is {stated!r}; expected one of {expected}.")
        return found

    def _cell(self, row: dict[str | int, str], column: str | int, where: str) -> str:
        if column not in row:
            titles = ", ".join(key for key in row if isinstance(key, str))
            raise DataError(f"{where}: has no column {column!r}; it has {titles}.")
        return row[column].strip()

    def _box(self, cells: list[str], where: str, decimal_comma: bool) -> Box:
        if decimal_comma:
            cells = [re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell) for cell in cells]
        named = "x1, y1, x2, y2" if self.columns.corners else "x, y, width, height"
        if empty := [cell for cell in cells if cell.lower() in EMPTY]:
            told = f"{len(empty)} of the {len(cells)} cells of the box are empty"
            raise DataError(f"{where}: {told}; expected {named}, or none of them where the image holds nothing.")
        a, b, c, d = box_of(cells, f"{where}: {cells} are no four numbers of a box", named)
        return (a, b, c, d) if self.columns.corners else (a, b, a + c, b + d)


def _split_of(rows: Sequence[Row]) -> str | None:
    """The split of an image, where its rows state one."""
    for row in rows:
        if row.split != rows[0].split:
            raise DataError(
                f"{row.where}: {row.name} is in {row.split} here and in {rows[0].split} before; choose one."
            )
    return rows[0].split if rows else None
