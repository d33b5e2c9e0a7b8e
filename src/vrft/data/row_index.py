"""The rows of a data set in an SQLite file: splits, counts and single rows without a list of all rows in memory.

The file lies in the cache folder under a hash of the data and the options, so that the next run, and the other
processes of this run, find it. It holds names of files and patients, and is readable by its owner alone.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from vrft.caches import cache_folder
from vrft.data.splits import SPLITS, Shares, share_out, split_named
from vrft.errors import DataError

VERSION = 1
"""Raised when the same rows give another index."""

BATCH = 10_000
"""Rows that are written together."""


@dataclass(slots=True)
class IndexedRow:
    """A row as the index keeps it."""

    number: int
    name: str = ""
    """Of the sample, as far as it is unique."""
    path: str = ""
    """A longer name, for names that are not unique."""
    images: str = ""
    """References of its images, as JSON."""
    target: str = ""
    """As JSON."""
    stratum: str = ""
    """The class, for a split with equal shares of each."""
    question: str | None = None
    split: str | None = None
    patient: str | None = None
    subgroup: str | None = None
    study: str | None = None
    unit: str = ""
    """Rows with an equal unit stay in one split."""
    fault: str = ""


@dataclass(frozen=True)
class Settings:
    """How rows are shared out; see the keys of row sources."""

    splits: str
    shares: Shares
    seed: int
    skip: bool
    """Rows at fault are left out; else the first is an error."""


_RAW = """CREATE TABLE raw (n INTEGER, name TEXT, path TEXT, images TEXT, target TEXT, stratum TEXT, question TEXT,
          split TEXT, patient TEXT, subgroup TEXT, study TEXT, unit TEXT)"""
_SAMPLES = """CREATE TABLE samples (split TEXT, pos INTEGER, name TEXT, path TEXT, images TEXT, target TEXT,
              question TEXT, patient TEXT, subgroup TEXT, n INTEGER, PRIMARY KEY (split, pos)) WITHOUT ROWID"""


class RowIndex:
    """The rows of a data set by split.

    Args:
        path: of the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections: dict[int, sqlite3.Connection] = {}
        self._counts = dict(self._all("SELECT split, COUNT(*) FROM samples GROUP BY split"))

    @classmethod
    def open(
        cls,
        facts: Any,
        rows: Callable[[], Iterable[IndexedRow]],
        settings: Settings,
        place: Callable[[int], str],
        where: str,
    ) -> "RowIndex":
        """Open the index of a data set, and make it where it is missing.

        Args:
            facts: plain data that decide the rows.
            rows: yields them.
            settings: how they are shared out.
            place: the place of a row in messages.
            where: the data set in messages.

        Raises:
            DataError: a row is at fault and rows are not skipped, or the splits cannot be as ``settings`` says.
        """
        plain = json.dumps([VERSION, facts, repr(settings)], sort_keys=True, default=str)
        kept = cache_folder() / "tables" / f"{hashlib.sha256(plain.encode()).hexdigest()[:24]}.sqlite"
        if kept.is_file():
            with suppress(sqlite3.DatabaseError):
                return cls(kept)
        folder = tempfile.TemporaryDirectory()
        fresh = Path(folder.name) / "rows.sqlite"
        with closing(sqlite3.connect(fresh)) as base:
            base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;")
            _fill(base, rows(), settings, place)
            _share_out(base, settings, where)
            base.commit()
            faults = base.execute("SELECT COUNT(*) FROM faults").fetchone()[0]
        if not faults:  # an image that is missing now may be there next time
            with suppress(OSError):  # a cache that cannot be written is no reason to stop
                kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                moving = kept.with_suffix(f".{os.getpid()}")
                shutil.copyfile(fresh, moving)
                moving.chmod(0o600)
                os.replace(moving, kept)
                return cls(kept)
        index = cls(fresh)
        index._folder = folder
        return index

    _folder: Any = None
    """The temporary folder of an index that is not kept; it is deleted with the index."""

    def _connection(self) -> sqlite3.Connection:
        process = os.getpid()  # a connection must not be used in a forked process
        if process not in self._connections:
            address = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            self._connections[process] = sqlite3.connect(address, uri=True, check_same_thread=False)
        return self._connections[process]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_counts": self._counts, "_connections": {}}

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection().execute(query, values).fetchall()

    @property
    def total(self) -> int:
        """The number of samples."""
        return sum(self._counts.values())

    def count(self, split: str) -> int:
        """The number of samples of a split."""
        return int(self._counts.get(split, 0))

    @cached_property
    def has_several(self) -> bool:
        """Whether a sample has several images."""
        return bool(self._all("SELECT 1 FROM samples WHERE json_array_length(images) > 1 LIMIT 1"))

    def row(self, split: str, position: int) -> tuple[Any, ...]:
        """Name, path, images, target, question, patient, subgroup and row number of a sample."""
        found = self._all(
            """SELECT name, path, images, target, question, patient, subgroup, n FROM samples
               WHERE split = ? AND pos = ?""",
            *(split, position),
        )
        if not found:
            raise IndexError(position)
        return found[0]

    def targets(self) -> dict[str, tuple[int, int]]:
        """Each different target as JSON, with the number of its samples and the first of its rows."""
        return {target: (count, first) for target, count, first in self._all("SELECT target, c, first FROM targets")}

    def counts(self) -> dict[str, dict[str, int]]:
        """By split: ``samples``, ``patients``, and the samples of each class, as far as there are at most 100."""
        found: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        for split in SPLITS:
            if self.count(split):
                patients = self._all("SELECT COUNT(DISTINCT patient) FROM samples WHERE split = ?", split)[0][0]
                found[split] = {"samples": self.count(split)} | ({"patients": patients} if patients else {})
        for split, stratum, count in self._all("SELECT split, stratum, c FROM strata ORDER BY split, stratum"):
            found[split][stratum] = count
        return found

    def faults(self) -> dict[str, int]:
        """The number of rows that were left out, by reason without their values."""
        return dict(self._all("SELECT reason, COUNT(*) FROM faults GROUP BY reason ORDER BY 2 DESC LIMIT 20"))

    def faulty(self, most: int) -> list[tuple[int, str, str]]:
        """The number and the fault of rows that were left out, with the values of the row and without."""
        found = self._all("SELECT n, fault, reason FROM faults ORDER BY n LIMIT ?", most)
        return [(number, fault, reason) for number, fault, reason in found]

    def patients_in_two_splits(self) -> tuple[int, int, list[tuple[str, int]]]:
        """The number of patients in several splits, that of all patients, and for one the first row in each split."""
        total = self._all("SELECT COUNT(DISTINCT patient) FROM samples")[0][0]
        both = "SELECT patient FROM samples WHERE patient IS NOT NULL GROUP BY patient HAVING COUNT(DISTINCT split) > 1"
        count = self._all(f"SELECT COUNT(*) FROM ({both})")[0][0]
        if not count:
            return 0, total, []
        patient = self._all(f"{both} ORDER BY MIN(n) LIMIT 1")[0][0]
        rows = self._all("SELECT split, MIN(n) FROM samples WHERE patient = ? GROUP BY split ORDER BY 2", patient)
        return count, total, [(split, number) for split, number in rows]


def _fill(
    base: sqlite3.Connection, rows: Iterable[IndexedRow], settings: Settings, place: Callable[[int], str]
) -> None:
    """Write all rows, those at fault aside, and put the rows of a study together."""
    base.execute(_RAW)
    base.execute("CREATE TABLE faults (n INTEGER, fault TEXT, reason TEXT)")
    found, studies = iter(rows), False
    while batch := list(islice(found, BATCH)):
        good = []
        for row in batch:
            split = None if row.fault or row.split is None else split_named(row.split)
            if split is None and row.split is not None and not row.fault:
                row.fault = f"has the split {row.split!r}; expected train, validation or test"
            if row.fault:
                if not settings.skip:
                    advice = "mend it, or set data.on_bad_sample to skip"
                    raise DataError(f"{place(row.number)}: {row.fault}; {advice}.")
                base.execute("INSERT INTO faults VALUES (?, ?, ?)", (row.number, row.fault, _reason(row.fault)))
                continue
            studies = studies or row.study is not None
            values = (row.number, row.name, row.path, row.images, row.target, row.stratum, row.question)
            good.append((*values, split, row.patient, row.subgroup, row.study, row.unit))
        base.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", good)
    if studies:
        _join_studies(base, settings, place)


def _reason(fault: str) -> str:
    """A fault without the values of its row, so that equal faults are counted together.

    >>> _reason("names the image 'a.png', which is not in images")
    'names the image ..., which is not in images'
    """
    return re.sub(r"'[^']*'|\[[^\]]*\]", "...", fault).split(";")[0]


def _join_studies(base: sqlite3.Connection, settings: Settings, place: Callable[[int], str]) -> None:
    """Make one row of all rows of a study: their images in order, and the values that they share."""
    base.execute("CREATE TABLE firsts AS SELECT study, MIN(n) f FROM raw WHERE study IS NOT NULL GROUP BY study")
    base.execute("CREATE INDEX of_study ON firsts (study)")
    base.execute(_RAW.replace("raw", "joined"))
    rows = base.execute(
        "SELECT raw.*, COALESCE(f, n) o FROM raw LEFT JOIN firsts ON firsts.study = raw.study ORDER BY o, n"
    )
    for _, group in groupby(rows, key=lambda row: row[-1]):
        members = [row[:-1] for row in group]
        first = members[0]
        fault = ""
        for member in members[1:]:
            for at, what in ((4, "label"), (6, "question"), (7, "split"), (8, "patient")):
                if member[at] != first[at] and not fault:
                    fault = f"has another {what} than {place(first[0])}, which is of the same study"
                    if not settings.skip:
                        raise DataError(f"{place(member[0])}: {fault}; mend it, or leave columns.study out.")
        if fault:
            base.execute("INSERT INTO faults VALUES (?, ?, ?)", (first[0], fault, "rows of a study differ"))
            continue
        images = json.dumps([one for member in members for one in json.loads(member[3])], ensure_ascii=False)
        base.execute("INSERT INTO joined VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*first[:3], images, *first[4:]))
    base.executescript("DROP TABLE raw; ALTER TABLE joined RENAME TO raw;")


def _share_out(base: sqlite3.Connection, settings: Settings, where: str) -> None:
    """Give each row its split, and make the tables that are read later."""
    stated = dict(base.execute("SELECT split, COUNT(*) FROM raw GROUP BY split").fetchall())
    named = {split for split in stated if split}
    mode = settings.splits
    if mode == "auto":
        mode = "own" if named else "made"
    if mode.startswith("own"):
        if not named:
            raise DataError(f"{where}: names no split, and data.splits is {mode}; expected made, which makes them.")
        if None in stated:
            fault = f"{stated[None]:,} rows name no split while others do"
            raise DataError(f"{where}: {fault}; fill them in, or set data.splits to made.")
    base.execute("CREATE TABLE units (unit TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID")
    if mode in ("made", "hash"):
        _make(base, settings, "1", SPLITS, by_hash=mode == "hash")
    elif mode == "own+validation":
        if "validation" in named:
            raise DataError(f"{where}: has a validation split, and data.splits is own+validation; expected own.")
        _make(base, settings, "split = 'train'", ("train", "validation"))
    base.execute(_SAMPLES)
    base.execute(
        f"""INSERT INTO samples SELECT s, ROW_NUMBER() OVER (PARTITION BY s ORDER BY o) - 1, name, path, images, target,
            question, patient, subgroup, n FROM (SELECT COALESCE(units.split, raw.split) s, raw.rowid o, raw.*
            FROM raw LEFT JOIN units ON units.unit = raw.unit {"AND raw.split = 'train'" if "+" in mode else ""})"""
    )
    _make_names_unique(base)
    base.execute("CREATE TABLE targets AS SELECT target, COUNT(*) c, MIN(n) first FROM raw GROUP BY target ORDER BY 3")
    few = base.execute("SELECT COUNT(DISTINCT stratum) FROM raw").fetchone()[0] <= 100
    base.execute("CREATE TABLE strata (split TEXT, stratum TEXT, c INTEGER)")
    if few:
        base.execute(
            """INSERT INTO strata SELECT COALESCE(units.split, raw.split) s, stratum, COUNT(*) FROM raw
               LEFT JOIN units ON units.unit = raw.unit WHERE stratum <> '' GROUP BY s, stratum"""
        )
    base.execute("CREATE INDEX of_patient ON samples (patient, split)")
    base.executescript("DROP TABLE raw;")


def _make(
    base: sqlite3.Connection, settings: Settings, condition: str, splits: Sequence[str], *, by_hash: bool = False
) -> None:
    """Share the units of some rows out over splits, class by class; a unit counts for its rarest class."""
    shares = {split: getattr(settings.shares, split) for split in splits}
    base.create_function(
        "draw", 1, lambda unit: hashlib.sha256(f"{settings.seed}:{unit}".encode()).hexdigest(), deterministic=True
    )
    base.execute("CREATE TABLE classes AS SELECT stratum, COUNT(*) c FROM raw GROUP BY stratum")
    base.execute("CREATE INDEX of_stratum ON classes (stratum)")
    units = base.execute(
        f"""SELECT unit, COUNT(*), MIN(c * 1000000000 + classes.rowid) r FROM raw
            JOIN classes ON classes.stratum = raw.stratum WHERE {condition} GROUP BY unit ORDER BY r, draw(unit)"""
    )
    given = share_out(((str(unit), int(size)) for unit, size, _ in units), shares, settings.seed, by_hash=by_hash)
    for batch in iter(lambda: list(islice(given, BATCH)), []):
        base.executemany("INSERT INTO units VALUES (?, ?)", batch)


def _make_names_unique(base: sqlite3.Connection) -> None:
    """Where names of samples repeat, use the longer ones, and number those that still repeat."""
    total = base.execute("SELECT COUNT(*) FROM samples").fetchone()[0]

    def different(column: str) -> bool:
        return bool(base.execute(f"SELECT COUNT(DISTINCT {column}) FROM samples").fetchone()[0] == total)

    if different("name"):
        return
    base.execute("UPDATE samples SET name = REPLACE(path, '/', '_') WHERE path <> ''")
    if not different("name"):
        base.execute(
            """UPDATE samples SET name = name || '-' || n WHERE name IN
               (SELECT name FROM samples GROUP BY name HAVING COUNT(*) > 1)"""
        )
    if not different("name"):
        base.execute("UPDATE samples SET name = name || '-' || split || pos")
