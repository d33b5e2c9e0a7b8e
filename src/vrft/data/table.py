"""Tables of boxes: a CSV with one box a row, and a declared map of its columns."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrft.data.annotations import SPLITS, SUFFIXES, Annotation, Counts, Record, image_size, share_out
from vrft.errors import DataError
from vrft.sample import Box


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


NAMES = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing"},
}


class TableReader:
    """Reads a CSV of boxes.

    Args:
        path: of the CSV; a byte-order mark and any line ends are fine.
        images: the folder of the images; folders inside it are looked into.
        columns: the map of the columns.
        group: the part of a file name before this text is the group (the patient) that stays in one split.
        negatives: images in the folder that the table does not name are taken as images without a box; where the table
            has a split, they are shared out by the hash of their group, as sets without splits are.
    """

    def __init__(
        self, path: Path, images: Path, *, columns: Columns, group: str | None = None, negatives: bool = False
    ) -> None:
        self.path, self.images, self.columns = Path(path), Path(images), columns
        self.group, self.negatives = group, negatives

    def read(self, split: str, counts: Counts) -> list[Record]:
        files: dict[str, Path] = {}
        for path in sorted(self.images.rglob("*")):
            if path.suffix.lower() in SUFFIXES and files.setdefault(path.name, path) != path:
                raise DataError(f"{path}: {files[path.name]} has the same name, and the table tells no folder.")
        found: dict[str, list[Annotation]] = defaultdict(list)
        split_of: dict[str, str] = {}
        for number, row in self._rows():
            where = f"{self.path}:{number}"
            name = self._cell(row, self.columns.image, where)
            if name not in files:
                counts["row without image"] += split == SPLITS[0]  # counted once, not for every split
                continue
            found[name].append(Annotation(self._cell(row, self.columns.label, where), self._box(row, where)))
            if self.columns.split is not None:
                split_of[name] = self._split(row, where)
        names = sorted(files if self.negatives else found)
        if split == SPLITS[0]:
            counts["image without row"] += sum(name not in found for name in files)
        groups = [name.split(self.group)[0] if self.group else name for name in names]
        shared = share_out(groups, split)  # of what the table gives no split
        inside = [split_of[name] == split if name in split_of else one for name, one in zip(names, shared, strict=True)]
        mine = [name for name, taken in zip(names, inside, strict=True) if taken]
        return [Record(files[name], image_size(files[name]), tuple(found.get(name, ()))) for name in mine]

    def _rows(self) -> list[tuple[int, dict[str | int, str]]]:
        """The rows with their line numbers; each cell by title and by number."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file)
                titles = next(reader, [])
                rows = [(reader.line_num, row) for row in reader if any(row)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path}: cannot be read as a CSV table ({error}).") from None
        return [(n, {**dict(zip(titles, row, strict=False)), **dict(enumerate(row))}) for n, row in rows]

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

    def _box(self, row: dict[str | int, str], where: str) -> Box:
        columns = self.columns.corners or self.columns.corner_and_size or ()
        cells = [self._cell(row, column, where) for column in columns]
        try:
            a, b, c, d = map(float, cells)
        except ValueError:
            raise DataError(f"{where}: {cells} are no four numbers of a box.") from None
        return (a, b, c, d) if self.columns.corners else (a, b, a + c, b + d)
