"""Tables of boxes: a file (``vrft.data.tabular``) with a box in each row, and a declared map of its columns.

A row with an empty box states that nothing
is in its image where the label says so (empty, 0, ``no finding``, ``ABSENT``) and has no box in another row; any other
label is a finding without a place. The labels ``no finding`` and those of ``absent`` state an absence whatever the
cells of the box hold; ``0``, ``normal`` and similar labels where all their boxes are blank, such as ``0,0,1,1``.
"""

import re
import reprlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vrft.data.annotations import Annotation, Counts, Record, image_size, parse_box
from vrft.data.lookup import ImageFiles, parts_of
from vrft.data.splits import SPLIT_NAMES, SPLITS, in_split, patient_in, split_named
from vrft.data.tabular import EMPTY, as_text, is_empty, open_table
from vrft.errors import DataError, reading
from vrft.sample import Box


@dataclass(frozen=True)
class Columns:
    """The map of the columns, by their titles or their numbers from 0.

    Args:
        image: the name of the image file.
        label: of the box.
        corners: x1, y1, x2, y2 (pixels); or
        corner_and_size: x, y, width, height (pixels).
        split: the split, where the table has it, by a name in ``SPLIT_NAMES``.
        patient: whose image it is.
        subgroup: a part of the data for which results are also given.
    """

    image: str | int
    label: str | int
    corners: Sequence[str | int] | None = None
    corner_and_size: Sequence[str | int] | None = None
    split: str | int | None = None
    patient: str | int | None = None
    subgroup: str | int | None = None

    def used(self) -> list[str | int]:
        """All columns that are read."""
        boxes = self.corners or self.corner_and_size or ()
        further = (self.split, self.patient, self.subgroup)
        return [self.image, self.label, *boxes, *(column for column in further if column is not None)]


ABSENT = {"0", "no", "false", "normal", "negative", "healthy", "background", "no finding", "no findings", "nothing"}
ABSENT |= {"正常", "阴性", "无"}
"""Labels that state an absence, in lower case; so do empty labels."""

ALWAYS_ABSENT = {"no finding", "no findings", "nothing"}
"""Labels that cannot be the label of a box."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row without the name of its image; ``box`` is None where the cells of the box are empty."""

    line: int
    label: str
    box: Box | None
    split: str | None
    patient: str | None = None
    subgroup: str | None = None


@dataclass(frozen=True)
class Table:
    """All rows, by the images that exist."""

    rows: dict[Path, list[Row]]
    images: list[Path]
    """All images in the folder, also those without a row."""
    boxed: set[str]
    """The labels of boxes."""
    unsure: str
    """Why images without a row may hold findings; empty where they are stated to be empty."""
    counts: Counts


class TableReader:
    """Reads a CSV of boxes.

    Args:
        path: of the CSV file, with or without a byte-order mark, with any line ends.
        images: the folder of the images; the folders inside it are searched too.
        columns: the map of the columns.
        patient: a regular expression with one group, which finds the patient in the name of an image; without a split
            in the table, a patient stays in one split.
        negatives: images in the folder without a row are images without a box; where the table has a split, theirs is
            the hash of their group. They are left out where rows name missing images whose names may mean them.
        absent: further labels that state an absence, whatever the cells of the box hold.
        encoding: of a file that is not UTF-8, where it is known.
    """

    def __init__(
        self,
        path: Path,
        images: Path,
        *,
        columns: Columns,
        patient: str | None = None,
        negatives: bool = False,
        absent: Sequence[str] = (),
        encoding: str | None = None,
    ) -> None:
        self.path, self.images, self.columns = Path(path), Path(images), columns
        self.patient = re.compile(patient) if patient else None
        self.negatives, self.encoding = negatives, encoding
        self.always_absent = ALWAYS_ABSENT | {label.strip().lower() for label in absent}
        self.absent = EMPTY | ABSENT | self.always_absent

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the records of a split; see ``Reader.read``."""
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images of {self.path}: set data.images.")
        with reading(self.path):
            return self._records(self._table, split, counts)

    def _records(self, table: Table, split: str, counts: Counts) -> list[Record]:
        if split == SPLITS[0]:
            counts.update(table.counts)  # once, not for every split
            counts["image without row"] += sum(path not in table.rows for path in table.images)
        files = sorted(table.images if self.negatives else table.rows, key=lambda path: (path.name, path))
        groups = [self._patient_of(file, table.rows.get(file, [])) or file.name for file in files]
        inside = in_split(groups, split)  # for images without a split in the table
        if not table.boxed:
            raise DataError(f"{self.path}: no row of an image that is there has a box; see data.columns.")
        records = []
        for file, taken in zip(files, inside, strict=True):
            rows = table.rows.get(file, [])
            stated = self._split_of(file, rows)
            if not (taken if stated is None else stated == split):
                continue
            if not rows and table.unsure:
                records.append(Record(file, image_size(file), unsure=table.unsure))
                continue
            boxes = tuple(Annotation(row.label, row.box) for row in rows if row.box)
            without = [row.label for row in rows if row.box is None]
            left_out = tuple(one for one in without if one in table.boxed or one.lower() not in self.absent)
            counts["finding without box"] += len(left_out)
            counts["empty row beside boxes"] += len(without) - len(left_out) if boxes else 0
            whose, part = self._patient_of(file, rows), rows[0].subgroup if rows else None
            records.append(Record(file, image_size(file), boxes, left_out=left_out, patient=whose, subgroup=part))
        return records

    def _patient_of(self, file: Path, rows: Sequence[Row]) -> str | None:
        """The patient of an image, from its rows or from its name, where either is declared."""
        if self.columns.patient is not None and rows:
            if other := next((row for row in rows if row.patient != rows[0].patient), None):
                raise DataError(f"{self.path}:{other.line}: {file.name} has another patient here; choose one.")
            return rows[0].patient
        if self.patient is None:
            return None
        found = patient_in(self.patient, file.name)
        if found is None:
            where = f"{self.path}:{rows[0].line}: in the name of its image" if rows else f"{file}: in its name"
            raise DataError(f"{where} data.patient finds no patient; expected a pattern that all have.")
        return found

    @cached_property
    def _table(self) -> Table:
        """The table, read once for all splits."""
        counts: Counts = Counts()
        files = ImageFiles([self.images], bare=False)
        found: dict[Path, list[Row]] = defaultdict(list)
        of_name: dict[str, Path | None] = {}
        for name, row in self._rows(counts):
            if name not in of_name:
                of_name[name] = files.find(name, counts)
            if file := of_name[name]:
                found[file].append(row)
            else:
                counts["row without image"] += 1
        files.check_found(self.path, counts)
        self._blank_absences(found, counts)
        boxed = {row.label for rows in found.values() for row in rows if row.box}
        unnamed = [path for path in files.files if path not in found] if self.negatives else []
        return Table(dict(found), files.files, boxed, _unsure(files.missing, unnamed, files.files), counts)

    def _blank_absences(self, found: dict[Path, list[Row]], counts: Counts) -> None:
        """Remove the boxes of labels that state an absence, where all boxes of the label are blank."""
        every = [row for rows in found.values() for row in rows if row.box and row.label.lower() in ABSENT]
        real = {row.label for row in every if row.box and max(map(abs, row.box)) > 2}
        for rows in found.values():
            for index, row in enumerate(rows):
                if row.box and row.label.lower() in ABSENT and row.label not in real:
                    counts["box of an absence"] += 1
                    rows[index] = replace(row, box=None)

    def _split_of(self, file: Path, rows: Sequence[Row]) -> str | None:
        """The split of an image, where its rows state one."""
        for row in rows:
            if row.split != rows[0].split:
                fault = f"{file.name} is in {row.split} here and in {rows[0].split} before; choose one."
                raise DataError(f"{self.path}:{row.line}: {fault}")
        return rows[0].split if rows else None

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _rows(self, counts: Counts) -> Iterator[tuple[str, Row]]:
        """The name of the image of each row, and the row."""
        used = self.columns.used()
        table = open_table(self.path, wanted=used, counts=counts, encoding=self.encoding)
        for number, values in table.rows(used):
            cells = ("" if value is None else str(value).strip() for value in values)
            taken = dict(zip(used, cells, strict=True))
            yield self._row(taken, table.place(number), number, counts, decimal_comma=table.decimal_comma)

    def _row(
        self, row: dict[str | int, str], where: str, line: int, counts: Counts, *, decimal_comma: bool
    ) -> tuple[str, Row]:
        name, label = row[self.columns.image], row[self.columns.label]
        cells = [row[column] for column in self.columns.corners or self.columns.corner_and_size or ()]
        if name.lower() in EMPTY:
            raise DataError(f"{where}: names no image (the cell is {name!r}); fill it in or remove the row.")
        box = None
        if any(cell.lower() not in EMPTY for cell in cells):
            if label.lower() in self.always_absent:
                counts["box of an absence"] += 1
            else:
                box = self._box(cells, where, decimal_comma)
        if box is not None and label.lower() in EMPTY:
            fault = f"has a box without a label (the cell is {label!r})"
            raise DataError(f"{where}: {fault}; fill it in or remove the row.")
        split = None if self.columns.split is None else self._split(row, where)
        found = [None if column is None else row[column] for column in (self.columns.patient, self.columns.subgroup)]
        whose = [None if is_empty(cell) else as_text(cell) for cell in found]
        if self.columns.patient is not None and not whose[0]:
            raise DataError(f"{where}: names no patient (column {self.columns.patient!r} is empty); fill it in.")
        return name, Row(line, sys.intern(as_text(label)), box, split, *whose)

    def _split(self, row: dict[str | int, str], where: str) -> str:
        assert self.columns.split is not None
        stated = row[self.columns.split]
        found = split_named(stated)
        if found is None:
            expected = ", ".join(sorted(name for names in SPLIT_NAMES.values() for name in names))
            raise DataError(f"{where}: the split is {stated!r}; expected one of {expected}.")
        return found

    def _box(self, cells: list[str], where: str, decimal_comma: bool) -> Box:
        if decimal_comma:
            cells = [re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell) for cell in cells]
        named = "x1, y1, x2, y2" if self.columns.corners else "x, y, width, height"
        if empty := [cell for cell in cells if cell.lower() in EMPTY]:
            fault = f"{len(empty)} of the {len(cells)} cells of the box are empty"
            raise DataError(f"{where}: {fault}; expected {named}, or none of them where the image holds nothing.")
        a, b, c, d = parse_box(cells, f"{where}: the box is {cells}", named)
        return (a, b, c, d) if self.columns.corners else (a, b, a + c, b + d)


def _unsure(missing: Sequence[str], unnamed: Sequence[Path], files: Sequence[Path]) -> str:
    """Why images without a row may be meant by rows without an image; empty where names of one form exclude it.

    In a set that is published in part, the names of missing and existing images are equal but for their digits.
    """
    if not missing or not unnamed:
        return ""
    shapes, bare = {_shape(path.stem) for path in files}, {_bare(path.stem) for path in unnamed}
    for name in missing:
        stem = re.sub(r"\.[a-z][a-z0-9]{1,4}$", "", (parts_of(name) or ("",))[-1])
        if _shape(stem) not in shapes or _bare(stem) in bare:
            return f"image without row, while rows name others that are not there, such as {reprlib.repr(name)}"
    return ""


def _shape(stem: str) -> str:
    """The form of a name: equal for names that differ in their digits alone.

    >>> _shape("IMG_012-a"), _shape("0ab1c2d3e4f56789")
    ('img_0-a', 'hexadecimal')
    """
    stem = stem.casefold()
    return "hexadecimal" if re.fullmatch(r"[0-9a-f-]{16,}", stem) else re.sub(r"\d+", "0", stem)


def _bare(stem: str) -> str:
    """A name without zeros in front of numbers and without separators.

    >>> _bare("IMG-007_b")
    'img7b'
    """
    return re.sub(r"(?<!\d)0+(?=\d)|[\W_]+", "", stem.casefold())
