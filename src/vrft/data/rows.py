"""Sources of rows: a row is an image, or several, with a label, a grade, boxes or an answer.

A reader (class folders, a table, a Hugging Face dataset, shards) yields rows; ``RowSource`` puts them into an index on
disk (``vrft.data.row_index``), shares them out over the splits, and gives samples one by one, so that a million rows
need no memory. No image is opened before it is used.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

from vrft.boxes import clip, has_area
from vrft.data.annotations import crop_region, format_counts, parse_number, question_of_boxes
from vrft.data.row_index import IndexedRow, RowIndex, Settings, reason_of
from vrft.data.splits import SPLITS, Shares, check_overlap, hashed, patient_in, plain_name
from vrft.data.tabular import as_text, is_empty
from vrft.errors import DataError, reading
from vrft.images import Axis, Window
from vrft.response import scale_of
from vrft.sample import Box, ImageFile, ImageSource, LazySamples, Sample, Target, size_of, slices_of, stored

Kind = Literal["classification", "grading", "localization", "vqa"]

MOST_GRADES = 100
"""A greater grade is taken as a fault (a year, a number of a patient), where the recipe does not give the levels."""


@dataclass(slots=True)
class Row:
    """A row as a reader gives it; of a row with a ``fault`` the other values do not count."""

    number: int
    """Of the row, for messages (``RowReader.place``)."""
    images: Sequence[str] = ()
    """References of its images, which ``RowReader.image`` takes."""
    target: Any = None
    """The label, the grade, the boxes or the answer as it is written."""
    question: str | None = None
    split: str | None = None
    """As it is written."""
    patient: str | None = None
    subgroup: str | None = None
    study: str | None = None
    """Rows of a study become one sample of several images."""
    id: str | None = None
    is_name: bool = False
    """The target is the name of a folder, so that ``none`` or ``na`` are classes and no empty cells."""
    fault: str = ""
    """Why the row cannot be used; empty where it can."""


class RowReader(Protocol):
    """The rows of a data set."""

    where: str
    """The file or folder, for messages."""

    @property
    def identity(self) -> Any:
        """Plain data that change when the rows do."""

    def rows(self) -> Iterator[Row]:
        """Yield all rows in a fixed order.

        Raises:
            DataError: the data cannot be read at all.
        """

    def place(self, number: int) -> str:
        """The place of a row in messages, such as ``labels.csv:17``."""

    def image(self, reference: str) -> ImageSource:
        """The image of a reference."""

    def name(self, reference: str) -> str:
        """The name of an image, for the names of samples and the pattern of patients."""


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """How rows become samples; the keys of the sections of row sources."""

    splits: Literal["auto", "own", "own+validation", "made", "hash"] = "auto"
    shares: Shares = field(default_factory=Shares)
    split_seed: int = 0
    patient: str | None = None
    """A regular expression with one group, searched in the names of images."""
    patient_overlap: Literal["refuse", "allow"] = "refuse"
    on_bad_sample: Literal["fail", "skip"] = "fail"
    hash_names: bool = False
    window: Window | None = None
    page: int | None = None
    slices: int | None = None
    axis: Axis = "axial"
    label_names: Mapping[str, str] = field(default_factory=dict)
    find: Sequence[str] = ()
    box_format: Literal["corners", "corner_and_size"] = "corners"
    region: Literal["crop", "box"] = "crop"
    margin: float = 0.25
    grades: Sequence[str] = ()
    """Grading: the names of the grades in the recipe, lowest first."""
    regions: bool = False
    """Classification and grading: each box of a row is a sample."""


class RowSource:
    """Samples of rows for one task; see ``vrft.data.Source``.

    Args:
        reader: yields the rows.
        kind: of the task.
        options: how rows become samples.
        graded: the recipe names the grades or gives their number, so that the data need not begin with grade 0.
    """

    def __init__(self, reader: RowReader, *, kind: Kind, options: RowOptions, graded: bool = False) -> None:
        self.reader, self.kind, self.options, self.graded = reader, kind, options, graded
        self._patient = re.compile(options.patient) if options.patient else None

    # --- the interface of a source ------------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str] | None:
        """All labels: in the order of ``find`` or ``label_names``, else sorted; None where targets are no labels."""
        if self.kind != "classification":
            return None
        found = [json.loads(text) for text in self.index.targets()]
        labels = {one["label"] if isinstance(one, dict) else one for one in found}
        order = [*self.options.find, *self.options.label_names.values()]
        return [label for label in dict.fromkeys(order) if label in labels] + sorted(labels - set(order), key=_natural)

    @property
    def levels(self) -> int | None:
        """The number of grades, where these are numbers; None where they are names, or no grades.

        Raises:
            DataError: the smallest grade is above 0, and the recipe tells nothing of the grades.
        """
        if self.kind != "grading":
            return None
        if self.options.grades:
            return len(self.options.grades)
        found = [json.loads(text) for text in self.index.targets()]
        grades = [one["label"] if isinstance(one, dict) else one for one in found]
        if not grades or not all(isinstance(grade, int) for grade in grades):
            if not self.graded:
                shown = ", ".join(sorted({str(grade) for grade in grades if not isinstance(grade, int)})[:5])
                raise DataError(
                    f"{self.reader.where}: the grades are names ({shown}); list them in task.levels, lowest first."
                )
            return None
        if max(grades) > MOST_GRADES and not self.graded:
            raise DataError(
                f"{self.reader.where}: the greatest grade is {max(grades)}, which is no grade of a usual scale; check "
                f"the column of the grade, or give the number of grades in task.levels."
            )
        if min(grades) > 0 and not self.graded:
            names = ", ".join(f"'{grade}'" for grade in range(min(grades), max(grades) + 1))
            raise DataError(
                f"{self.reader.where}: the grades are {min(grades)} to {max(grades)}, and a scale begins at 0; "
                f"set task.levels to [{names[:200]}], or to {max(grades) + 1} where 0 is a grade that does not occur."
            )
        return max(grades) + 1

    @property
    def question(self) -> str:
        """The question about each sample, where neither the recipe nor its row has one."""
        if self.options.regions or self.kind == "localization":
            return question_of_boxes(self.kind, self.options.region, self.options.find)
        several = self.index.has_several or self.options.slices not in (None, 1)
        shown = "do these images" if several else "does this image"
        return f"Which {'grade' if self.kind == 'grading' else 'class'} {shown} show?"

    def check(self) -> None:
        """Read all rows, unless their index is there already.

        Raises:
            DataError: a row is at fault and ``on_bad_sample`` is ``fail``, a patient is in two splits, or no row is
                left.
        """
        if not self.index.total:
            raise DataError(
                f"{self.reader.where}: has no row that can be used ({self.faults_in_words() or 'it is empty'})."
            )
        for split in SPLITS:
            samples = self.samples(split)
            if samples and self.options.on_bad_sample == "fail" and (image := stored(samples[0].images[0])):
                image.inspect(any_page=True)

    def samples(self, split: str) -> LazySamples:
        """The samples of a split in the order of the rows, made as they are used.

        Raises:
            DataError: as ``check``.
        """
        skips = self.options.on_bad_sample == "skip"
        return LazySamples(partial(self.sample, split), range(self.index.count(split)), skips=skips)

    def distinct_targets(self) -> list[tuple[Target, int, str]]:
        """Each different target of all splits, the number of its samples, and the place of the first of its rows."""
        return [
            (plain["label"] if isinstance(plain, dict) else plain, count, self.reader.place(first))
            for text, (count, first) in self.index.targets().items()
            for plain in [json.loads(text)]
        ]

    # --- what was found -----------------------------------------------------------------------------------------------

    @cached_property
    def index(self) -> RowIndex:
        """All rows, on disk."""
        settings = Settings(
            self.options.splits, self.options.shares, self.options.split_seed, self.options.on_bad_sample == "skip"
        )
        facts = [self.reader.identity, self.kind, repr(self.options)]
        with reading(self.reader.where):
            index = RowIndex.open(facts, self._rows, settings, self.reader.place, self.reader.where)
        self._check_patients(index)
        return index

    def annotation_counts(self) -> dict[str, dict[str, int]]:
        """The number of samples, of each class or grade, and of patients, by split."""
        found = self.index.counts()
        return {split: counts for split, counts in found.items() if counts}

    def faults_in_words(self) -> str:
        """The rows that were left out, by reason, in one line."""
        return format_counts(self.index.faults())

    def skipped(self) -> list[dict[str, Any]]:
        """The row and the fault of each row that was left out (at most 1,000), without names of files if need be."""
        found = self.index.faulty(1000)
        if self.options.hash_names:
            return [{"row": number, "fault": reason} for number, _, reason in found]
        return [{"row": number, "place": self.reader.place(number), "fault": fault} for number, fault, _ in found]

    def _check_patients(self, index: RowIndex) -> None:
        if self.options.patient_overlap == "allow":
            return
        count, total, splits = index.patients_in_two_splits()
        places = " and ".join(f"{self.reader.place(number)} ({split})" for split, number in splits[:2])
        check_overlap(self.reader.where, count, total, places)

    # --- from rows to the index ---------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[IndexedRow]:
        for row in self.reader.rows():
            fault, name = row.fault, ""
            targets: list[Any] = []
            if not fault and not row.images:
                fault = "names no image"
            if not fault:
                name = self.reader.name(row.images[0])
                try:
                    targets = self._targets(row.target, is_name=row.is_name)
                except ValueError as error:
                    fault = str(error)
            if not fault and self._patient is not None and row.patient is None:
                row.patient, fault = self._patient_of(name)
            if fault:
                yield IndexedRow(row.number, fault=reason_of(fault) if self.options.hash_names else fault)
                continue
            for part, target in enumerate(targets):
                yield IndexedRow(
                    row.number,
                    name=f"{plain_name(row.id or _stem(name))}{f'-{part}' if self.options.regions else ''}",
                    path=f"{name}-{part}" if self.options.regions else name,
                    is_named=row.id is not None,
                    images=_ENCODE(list(row.images)),
                    target=_ENCODE(target),
                    stratum=self._stratum(target),
                    question=row.question,
                    split=row.split,
                    patient=row.patient,
                    subgroup=row.subgroup,
                    study=row.study,
                    unit=row.patient or row.study or row.images[0],
                )

    def _patient_of(self, name: str) -> tuple[str | None, str]:
        assert self._patient is not None
        found = patient_in(self._patient, name)
        return found, "" if found else "has a name in which data.patient finds no patient"

    def _stratum(self, target: Any) -> str:
        if self.kind == "localization":
            return "with boxes" if target else "without boxes"
        if self.kind == "vqa":
            return ""
        return str(target["label"] if isinstance(target, dict) else target)

    def _targets(self, value: Any, *, is_name: bool) -> list[Any]:
        """The targets of a row, as plain data: one, or one for each box.

        Raises:
            ValueError: the value is no target; the message continues a sentence about the row.
        """
        if self.kind == "localization":
            return [
                [list(box) for label, box in self._boxes(value) if not self.options.find or label in self.options.find]
            ]
        if self.options.regions:
            found = [{"label": self._label(label), "box": list(box)} for label, box in self._boxes(value)]
            return [one for one in found if not self.options.find or one["label"] in self.options.find]
        return [self._label(value, is_name=is_name)]

    def _label(self, value: Any, *, is_name: bool = False) -> str | int:
        is_known = isinstance(value, str) and as_text(value) in self.options.label_names
        if is_empty(value) and not (is_known or is_name):
            what = "answer" if self.kind == "vqa" else "grade" if self.kind == "grading" else "label"
            cell = f" (its cell {value!r} counts as empty, unless data.label_names names it)"
            raise ValueError(f"has no {what}{cell if isinstance(value, str) and value.strip() else ''}")
        if isinstance(value, list | dict):
            raise ValueError(f"has {str(value)[:60]} where a single value is expected")
        text = as_text(value)
        text = self.options.label_names.get(text, text)
        if self.kind != "grading":
            return text
        if text in self.options.grades:
            return list(self.options.grades).index(text)
        if self.options.grades and not scale_of(len(self.options.grades), self.options.grades).by_index:
            raise ValueError(f"has the grade {text!r}, which is none of {', '.join(self.options.grades)[:200]}")
        return int(text) if _GRADE.fullmatch(text) else text

    def _boxes(self, value: Any) -> list[tuple[str, Box]]:
        """The labels and boxes of a cell; a list of boxes, of objects, or an object of lists.

        Raises:
            ValueError: the cell is none of these.
        """
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError(f"has boxes {value[:40]!r}, which are no JSON list [[x1, y1, x2, y2], ...]") from None
        if is_empty(value):
            return []
        if isinstance(value, dict):  # as Hugging Face datasets keep objects: an object of lists
            boxes, labels = (_first(value, names) for names in (_BOX_KEYS, _LABEL_KEYS))
            items: list[Any] = list(zip(labels or [""] * len(boxes or ()), boxes or (), strict=False))
        elif isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)):
            items = [("", value)]
        elif isinstance(value, list):
            items = [
                (_first(one, _LABEL_KEYS) or "", _first(one, _BOX_KEYS)) if isinstance(one, dict) else ("", one)
                for one in value
            ]
        else:
            raise ValueError(f"has boxes {str(value)[:40]}, which are no list [[x1, y1, x2, y2], ...]")
        return [(self._named(label), self._box(box)) for label, box in items]

    def _named(self, label: Any) -> str:
        return self.options.label_names.get(as_text(label), as_text(label))

    def _box(self, values: Any) -> Box:
        numbers = [parse_number(value) for value in values] if isinstance(values, list | tuple) else []
        if len(numbers) != 4 or any(number is None for number in numbers):
            raise ValueError(f"has a box {str(values)[:60]}, which is no list of four numbers")
        a, b, c, d = (float(number or 0) for number in numbers)
        if all(0 <= number <= 1 for number in (a, b, c, d)) and any(number % 1 for number in (a, b, c, d)):
            raise ValueError(f"has a box {str(values)[:60]} in shares of the image; expected pixels: multiply them")
        box = (a, b, c, d) if self.options.box_format == "corners" else (a, b, a + c, b + d)
        if not has_area(box):
            expected = "x1 < x2 and y1 < y2 (data.box_format: corner_and_size where they are x, y, width, height)"
            raise ValueError(f"has a box {str(values)[:60]} without area; expected {expected}")
        return box

    # --- from the index to samples ------------------------------------------------------------------------------------

    def sample(self, split: str, position: int) -> Sample:
        """The sample at a position of a split."""
        name, path, images, target, question, patient, subgroup, number = self.index.row(split, position)
        shown = hashed(name) if self.options.hash_names else name
        own = path.rpartition("-")[0] if self.options.regions else path
        sources = [self._source(reference, shown) for reference in json.loads(images)]
        opened = tuple(one for source in sources for one in self._slices(source))
        facts: dict[str, Any] = {"row": number, "image": hashed(own) if self.options.hash_names else own}
        region, plain = None, json.loads(target)
        if isinstance(plain, dict):
            size = size_of(opened[0])
            box = self._clipped(plain["box"], size, number)
            region = box if self.options.region == "box" else None
            if self.options.region == "crop":
                opened = (_cropped(opened[0], crop_region(box, self.options.margin, size)), *opened[1:])
            facts["box"] = box
            plain = plain["label"]
        elif self.kind == "localization":
            size = size_of(opened[0]) if plain else (0, 0)
            plain = tuple(dict.fromkeys(self._clipped(box, size, number) for box in plain))
        checked: Target = plain
        return Sample(
            id=shown,
            image=opened if len(opened) > 1 else opened[0],
            question=question or self.question,
            target=checked,
            split=split,
            facts=facts,
            region=region,
            patient=patient,
            subgroup=subgroup,
        )

    def _source(self, reference: str, shown: str) -> ImageSource:
        source = self.reader.image(reference)
        image = stored(source)
        if image is None:
            return source
        options = self.options
        name = shown if options.hash_names else image.name
        read = replace(image, window=options.window, page=options.page, axis=options.axis, name=name)
        return source if isinstance(source, Path) and read == ImageFile(source) else read

    def _slices(self, source: ImageSource) -> list[ImageSource]:
        """The image, or evenly spaced slices of it where ``slices`` says how many."""
        return [source] if self.options.slices is None else slices_of(source, self.options.slices)

    def _clipped(self, box: Sequence[float], size: tuple[int, int], number: int) -> Box:
        clipped = clip((box[0], box[1], box[2], box[3]), size)
        if not has_area(clipped):
            raise DataError(
                f"{self.reader.place(number)}: the box {list(box)} lies outside of its image of {size[0]} x {size[1]} "
                f"pixels; mend it or remove the row."
            )
        return clipped


_ENCODE = json.JSONEncoder(ensure_ascii=False).encode

_SUFFIX = re.compile(r"(\.nii\.gz|\.[A-Za-z][A-Za-z0-9]{0,4})$")

_GRADE = re.compile("[0-9]{1,4}")

_BOX_KEYS = ("bbox_2d", "bbox", "box", "boxes", "bboxes")
_LABEL_KEYS = ("label", "category", "class", "labels", "categories", "classes", "name")


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _natural(label: str) -> list[tuple[int, int, str]]:
    """The key of an order in which ``grade 2`` is before ``grade 10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", label) if part]


def _stem(name: str) -> str:
    """The name of an image without folders and suffix.

    >>> _stem("a/b/scan.01.nii.gz"), _stem("x/IM0001")
    ('scan.01', 'IM0001')
    """
    last = name.rstrip("/").rpartition("/")[2]
    return _SUFFIX.sub("", last) or last


def _cropped(source: ImageSource, region: tuple[int, int, int, int]) -> ImageSource:
    image = stored(source)
    if image is None:
        assert callable(source)
        return Crop(source, region)
    return replace(image, region=region)


@dataclass(frozen=True)
class Crop:
    """A part of an image that comes from no file."""

    image: Callable[[], Any]
    region: tuple[int, int, int, int]

    def __call__(self) -> Any:
        return self.image().crop(self.region)
