"""Annotated images: boxes with labels, read by a source of boxes, cleaned by one rule and turned into samples.

The rule, for every source: a box without area is dropped, and so is a box whose corners are swapped; a box that leaves
the image is clipped to it, and dropped where it lies outside; of equal boxes with equal labels one is kept. Dropped and
clipped boxes are counted. An image that loses all its boxes is no sample, since its findings have no place; an image
that is stated to be empty is a sample without boxes. An image whose annotation is unreliable (``Record.unsure``) is no
sample.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from vrft.boxes import Size, clip, has_area, rescale
from vrft.data.lookup import stem_of
from vrft.data.splits import SPLITS, Shares, check_overlap, hashed, patient_in, share_out
from vrft.errors import DataError, reading
from vrft.images import ImageFacts, Region, Window, inspect, upright_box
from vrft.sample import Box, ImageFile, Sample


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box and its label."""

    label: str
    box: Box


@dataclass(frozen=True)
class Record:
    """One image and its annotations; without any, and with none left out, the image is stated to be empty."""

    image: Path
    size: Size
    annotations: tuple[Annotation, ...] = ()
    stated: Size | None = None
    """Width and height in the annotation, which show whether its boxes belong to the upright image (``upright``)."""
    left_out: tuple[str, ...] = ()
    """The labels of findings without a box: dropped by the rule, or not usable by the source."""
    unsure: str = ""
    """Why the annotation shows neither findings nor that there are none; such an image is left out and counted."""
    patient: str | None = None
    """Whose image it is, where the annotation tells; else the pattern of the source may."""
    subgroup: str | None = None
    """A part of the data for which results are also given."""


Counts = Counter[str]
"""The counts of a split: ``images``, ``empty``, ``boxes`` (as written), ``kept``, ``clipped``, ``no area``,
``corners swapped``, ``outside``, ``duplicate``, ``no usable box`` (images); the texts of ``Record.unsure``; and the
problems of a source: ``image missing``, ``not annotated``, ``size differs``, ..."""


class Reader(Protocol):
    """The records of a source of boxes, by its own splits."""

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the records of a split as they are written, in a fixed order, and count the problems.

        Raises:
            DataError: a file is missing, cannot be read, or is ambiguous.
        """


def clean(record: Record, counts: Counts) -> Record:
    """Apply the rule of this module to the boxes of a record, and count the cases."""
    counts["images"] += 1
    counts["empty"] += not record.annotations and not record.left_out
    counts["boxes"] += len(record.annotations)
    kept: dict[Annotation, None] = {}
    dropped: list[str] = []
    for annotation in record.annotations:
        clipped = clip(annotation.box, record.size)
        fitted = replace(annotation, box=clipped)
        if fitted in kept:
            counts["duplicate"] += 1
        elif (fault := _fault_of(annotation.box)) or not has_area(clipped):
            counts[fault or "outside"] += 1
            dropped.append(annotation.label)
        else:
            counts["clipped"] += clipped != annotation.box
            kept[fitted] = None
    counts["kept"] += len(kept)
    return replace(record, annotations=tuple(kept), left_out=(*record.left_out, *dropped))


def _fault_of(box: Box) -> str | None:
    if box[2] < box[0] or box[3] < box[1]:
        return "corners swapped"
    return None if has_area(box) else "no area"


def parse_box(values: Iterable[object], where: str, expected: str) -> Box:
    """Convert four values of a file to a box in pixels.

    Args:
        values: numbers or texts.
        where: the beginning of the message: the place in the file and the values.
        expected: the names of the four values.

    Raises:
        DataError: they are no four finite numbers, or fractions of the image.
    """
    numbers = [parse_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) != 4 or len(numbers) != 4:
        raise DataError(f"{where}; expected {expected}, four numbers in pixels.")
    if all(0 <= number <= 1 for number in known) and any(number % 1 for number in known):
        raise DataError(f"{where}, which are shares of the image; expected {expected} in pixels: multiply them.")
    return known[0], known[1], known[2], known[3]


def parse_number(value: object) -> float | None:
    """A finite number, also from text; None for anything else.

    >>> parse_number(" 2.5"), parse_number("nan"), parse_number("1_0"), parse_number(True), parse_number([1])
    (2.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:
        return None  # Python reads 1_0 as 10, and no other program does
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_size(width: object, height: object) -> Size | None:
    """The size of an image in an annotation, from numbers or texts; None where it has none.

    >>> parse_size("640", 480.0), parse_size(None, 480)
    ((640, 480), None)
    """
    wide, high = parse_number(width), parse_number(height)
    return (round(wide), round(high)) if wide and high and min(wide, high) >= 1 else None


def upright(record: Record, facts: ImageFacts, counts: Counts) -> Record:
    """Convert the boxes of a record to the upright image.

    The size in the annotation shows whether its boxes belong to the upright image or to the image as it is stored;
    without a size, or where both have this size, they are taken as upright, since most tools show images upright.
    Another size of the same shape means that the image was scaled after it was annotated: its boxes are scaled as well.
    With a size of another shape the boxes are taken as pixels of the file; where they cannot be, the record is
    ``unsure``. Properties of the file and changes of boxes are counted.

    Raises:
        DataError: the record was read from another page than the facts.
    """
    counts.update(facts.kinds)
    if record.size != facts.size:
        raise DataError(
            f"{record.image}: the named page is {facts.size[0]} x {facts.size[1]}, the first page "
            f"{record.size[0]} x {record.size[1]}; save the page as a file of its own."
        )
    stated, boxes = record.stated, [annotation.box for annotation in record.annotations]
    if stated is None or stated == facts.size:
        return record
    annotated: Size | None = facts.stored
    if stated != facts.stored:
        annotated = next((size for size in (facts.size, facts.stored) if _same_shape(stated, size)), None)
        if annotated is None or not _all_inside(boxes, stated):
            counts["size differs"] += 1
            if _all_inside(boxes, facts.size) or not _all_inside(boxes, stated):
                return record
            return replace(record, unsure=record.unsure or "boxes of a picture with another shape")
        counts["boxes scaled"] += len(boxes)
        boxes = [rescale(box, stated, annotated) for box in boxes]
    if annotated != facts.size:
        counts["boxes turned by EXIF"] += len(boxes)
        boxes = [upright_box(box, facts.stored, facts.orientation) for box in boxes]
    moved = (replace(annotation, box=box) for annotation, box in zip(record.annotations, boxes, strict=True))
    return replace(record, annotations=tuple(moved))


def _same_shape(one: Size, other: Size) -> bool:
    """Whether an image of one size scaled to the other keeps its shape, up to a rounding of its sides.

    >>> _same_shape((128, 96), (64, 48)), _same_shape((1023, 767), (512, 384)), _same_shape((100, 81), (100, 80))
    (True, True, False)
    """
    return 2 * abs(other[0] * one[1] - other[1] * one[0]) <= max(sum(one), sum(other))


def _all_inside(boxes: Iterable[Box], size: Size) -> bool:
    """Whether no box leaves an image by more than a pixel."""
    return all(min(box) >= -1 and max(box[::2]) <= size[0] + 1 and max(box[1::2]) <= size[1] + 1 for box in boxes)


def image_size(path: Path) -> Size:
    """Width and height of the upright image, from the header of a file; of several pages, of the first.

    Of a file that cannot be read (0, 0): ``BoxSource`` refuses it, or leaves it out.
    """
    try:
        return inspect(path, any_page=True).size
    except DataError:
        return 0, 0


class BoxSource:
    """Samples of annotated images for one task.

    Args:
        reader: reads the records of a split.
        kind: ``localization`` (the target is the boxes of ``find``), or ``classification`` and ``grading`` (a sample a
            box, whose target is the label or the grade).
        find: the labels to locate or to classify; without it all.
        region: the image of a classification: ``crop`` (the region alone, with a margin) or ``box`` (the whole image,
            and the question holds the box).
        margin: of a crop, on each side, as a fraction of the longer side of its box.
        splits: ``own``; or all images are shared out anew: ``made`` (equal shares of each label), ``hash`` (by a hash
            of the patient or the image, so that a new image moves no other), or ``own+validation``, which takes a
            validation split from the training split.
        shares: of the splits that are made.
        split_seed: of the splits that are made.
        patient: a regular expression with one group, searched in the path of an image below the root; a patient stays
            in one split.
        patient_overlap: a patient in two splits is refused, or allowed.
        on_bad_sample: an image file that cannot be read is refused, or left out and counted.
        hash_names: names of samples do not hold those of files (``vrft.data.splits.hashed``).
        window: of files with more than 8 bits: the values that become black and white.
        page: of files with several pages, from 0.
        unusable: the treatment of an image with findings to locate of which none has a usable box, and of an image with
            an unreliable annotation (``Record.unsure``): left out and counted (``skip``), or an error (``refuse``).
    """

    def __init__(
        self,
        reader: Reader,
        *,
        kind: Literal["localization", "classification", "grading"],
        find: Sequence[str] | None = None,
        region: Literal["crop", "box"] = "crop",
        margin: float = 0.25,
        splits: Literal["own", "own+validation", "made", "hash"] = "own",
        shares: Shares | None = None,
        split_seed: int = 0,
        patient: str | None = None,
        patient_overlap: Literal["refuse", "allow"] = "refuse",
        on_bad_sample: Literal["fail", "skip"] = "fail",
        hash_names: bool = False,
        window: Window | None = None,
        page: int | None = None,
        unusable: Literal["skip", "refuse"] = "skip",
    ) -> None:
        self.reader, self.kind, self.find = reader, kind, tuple(find or ())
        self.splits, self.shares, self.split_seed = splits, shares or Shares(), split_seed
        self.patient_overlap, self.on_bad_sample, self.hash_names = patient_overlap, on_bad_sample, hash_names
        self._patient = re.compile(patient) if patient else None
        self.region, self.margin, self.unusable = region, margin, unusable
        self.window, self.page = window, page
        self.counts: dict[str, Counts] = {}
        self._records: dict[str, list[Record]] = {}
        self._unsure: dict[str, Path] = {}
        """An image of each split whose annotation is unreliable."""
        self._made: dict[str, list[Record]] | None = None

    def records(self, split: str) -> list[Record]:
        """The cleaned records of a split, read once; their counts are in ``counts[split]``.

        Raises:
            DataError: a file cannot be read, or an image is unusable and ``unusable`` is ``refuse``.
        """
        if split not in self._records:
            counts, usable = Counts(), []
            for record in self._read(split, counts):
                try:
                    facts = (
                        None if record.unsure else inspect(record.image, self.page, name=self._shown(record.image, ""))
                    )
                except DataError:
                    if self.on_bad_sample == "fail":
                        raise
                    counts["unreadable"] += 1
                    continue
                if facts is not None:
                    record = upright(record, facts, counts)
                if not record.unsure:
                    record = clean(record, counts)
                if self._is_usable(record, split, counts):
                    usable.append(record)
            self._records[split], self.counts[split] = usable, counts
        return self._records[split]

    @property
    def _where(self) -> Path | str:
        """The folder of the data, as far as the reader has one."""
        found: Path | str = getattr(self.reader, "root", getattr(self.reader, "images", "the data"))
        return found

    def _shown(self, image: Path, plain: str | None = None) -> str:
        """An image in messages: its path, or ``plain``; with ``hash_names`` a hash of its name."""
        if self.hash_names:
            return f"image {hashed(stem_of(image))}"
        return str(image) if plain is None else plain

    def _is_wanted(self, label: str) -> bool:
        return not self.find or label in self.find

    def _is_usable(self, record: Record, split: str, counts: Counts) -> bool:
        """Whether the annotation is reliable, and a wanted finding has a box or there is none."""
        lost = {label for label in record.left_out if self._is_wanted(label)}
        if record.unsure:
            self._unsure.setdefault(split, record.image)
            reason, mend = record.unsure, "mend it or remove the image"
            fault = f"its annotation tells neither what is there nor that nothing is ({reason})"
        elif lost and not any(self._is_wanted(annotation.label) for annotation in record.annotations):
            reason, mend = "no usable box", "mend its annotation or remove it"
            why = "none of its boxes can be used (no area, corners swapped, outside)"
            fault = f"is annotated ({', '.join(sorted(lost))}), and {why}"
        else:
            return True
        if self.unusable == "refuse":
            raise DataError(f"{self._shown(record.image)}: {fault}; {mend}, or set data.unusable to skip.")
        counts[reason] += 1
        return False

    def _read(self, split: str, counts: Counts) -> list[Record]:
        with reading(self._where):
            if self.splits == "own" and self._patient is None:
                return self.reader.read(split, counts)
            if self._made is None:
                counts_of_all = Counts()
                own = {name: self.reader.read(name, counts_of_all) for name in SPLITS}
                counts.update(counts_of_all)  # once, not for every split
                self._made = self._share_out(own)
        return self._made[split]

    def _share_out(self, own: dict[str, list[Record]]) -> dict[str, list[Record]]:
        """The records by the splits that the recipe asks for, each with its patient."""
        known = {split: [self._with_patient(record) for record in records] for split, records in own.items()}
        if self.splits == "own":
            return known
        again, kept = SPLITS, dict[str, list[Record]]()
        if self.splits == "own+validation":
            if known["validation"]:
                raise DataError(f"{self._where}: has a validation split; expected data.splits: own.")
            again, kept = ("train", "validation"), {"test": known["test"]}
            known = {"train": known["train"]}
        found = {record.image: record for records in known.values() for record in records}  # some are in two splits
        by_hash = self.splits == "hash"  # of the bare name, so that a folder that is moved changes nothing
        own_name = {image: stem_of(image) if by_hash else self._inner(image) for image in found}
        units = {image: record.patient or own_name[image] for image, record in found.items()}
        often = Counter(one.label for record in found.values() for one in record.annotations)
        strata: dict[str, tuple[int, str]] = {}
        for image, record in found.items():
            rarest = min(((often[one.label], one.label) for one in record.annotations), default=(1 << 60, ""))
            strata[units[image]] = min(rarest, strata.get(units[image], rarest))
        sizes = Counter(units.values())
        ordered = sorted(sizes, key=lambda unit: (strata[unit], sha256(f"{self.split_seed}:{unit}".encode()).digest()))
        shares = {split: getattr(self.shares, split) for split in again}
        named = ((unit, sizes[unit]) for unit in ordered)
        given = dict(share_out(named, shares, self.split_seed, by_hash=by_hash))
        made: dict[str, list[Record]] = {split: [] for split in SPLITS} | kept
        for image, record in found.items():
            made[given[units[image]]].append(record)
        return made

    def _inner(self, path: Path) -> str:
        """The path of an image below the folder of the data."""
        return path.relative_to(self._where).as_posix() if path.is_relative_to(self._where) else path.name

    def _with_patient(self, record: Record) -> Record:
        if self._patient is None or record.patient is not None:
            return record
        path, inner = record.image, self._inner(record.image)
        patient = patient_in(self._patient, inner)
        if patient is None:
            where = "its name" if self.hash_names else repr(inner)
            raise DataError(
                f"{self._shown(path)}: data.patient finds no patient in {where}; expected a pattern with one group "
                f"that every name has."
            )
        return replace(record, patient=patient)

    def check_patients(self) -> None:
        """Check that no patient is in two splits.

        Raises:
            DataError: some are, and ``patient_overlap`` is ``refuse``.
        """
        of: dict[str, tuple[str, Path]] = {}
        both: dict[str, tuple[Path, Path]] = {}
        for split in SPLITS:
            for record in self.records(split):
                if record.patient is not None:
                    first = of.setdefault(record.patient, (split, record.image))
                    if first[0] != split:
                        both.setdefault(record.patient, (first[1], record.image))
        if both and self.patient_overlap == "refuse":
            one, other = (self._shown(image, image.name) for image in next(iter(both.values())))
            check_overlap(self._where, len(both), len(of), f"{one} and {other}")

    def _labels_found(self) -> set[str]:
        return {one.label for split in SPLITS for record in self.records(split) for one in record.annotations}

    @property
    def labels(self) -> list[str] | None:
        """All labels in the order of ``find``, else in alphabetical order; None where targets are no labels."""
        return self._labels_in_order() if self.kind == "classification" else None

    @property
    def levels(self) -> int | None:
        """The number of grades, where all labels are numbers; None where they are names, or no grades."""
        if self.kind != "grading":
            return None
        grades = [int(label) if re.fullmatch("[0-9]{1,3}", label) else None for label in self._labels_found()]
        return None if None in grades else max((grade or 0) for grade in grades) + 1

    def _labels_in_order(self) -> list[str]:
        found = self._labels_found()
        return [label for label in self.find if label in found] or sorted(found)

    @property
    def question(self) -> str:
        """The question about each sample, where the recipe has none."""
        return question_of_boxes(self.kind, self.region, self.find)

    def annotation_counts(self) -> dict[str, dict[str, int]]:
        """The ``Counts`` of each split that has images, without zeros."""
        for split in SPLITS:
            self.records(split)
        return {split: {key: n for key, n in counts.items() if n} for split, counts in self.counts.items() if counts}

    def check(self) -> None:
        """Read the annotations of all splits.

        Raises:
            DataError: a file is missing or at fault, a label of ``find`` has no box, or there is no label.
        """
        found = self._labels_found()
        for label in self.find:
            if label not in found:
                known = ", ".join(sorted(found)) or "no boxes that can be used"
                raise DataError(f"no box has the label {label!r}; the data has {known}.")
        if not found and self.kind != "localization":
            counts = format_counts(sum(self.counts.values(), Counts())) or "no image"
            raise DataError(f"{self._where}: holds no box to classify ({counts}).")
        self.check_patients()

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the order of the files; no image is opened.

        Raises:
            DataError: there are images, and none of them can be used.
        """
        records = self.records(split)
        hints = [hint for key, hint in HINTS.items() if self.counts[split][key]]
        if split in self._unsure:
            hints.append(f"mend the annotations of images such as {self._shown(self._unsure[split])}.")
        if not records and hints:
            counts = format_counts(self.counts[split])
            raise DataError(f"the data has no image for {split} that can be used ({counts}): {' '.join(hints)}")
        names = unique_names([record.image for record in records])
        for record, name in zip(records, names, strict=True):
            if self.hash_names:
                name = hashed(name)
            wanted = [annotation for annotation in record.annotations if self._is_wanted(annotation.label)]
            if self.kind == "localization":
                target = tuple(annotation.box for annotation in wanted)
                sample = Sample(name, self._image_of(record.image, name), self.question, target, split)
                yield replace(sample, patient=record.patient, subgroup=record.subgroup)
                continue
            image = record.image.name if name == stem_of(record.image) else name
            for index, annotation in enumerate(wanted):
                box = annotation.box
                region = crop_region(box, self.margin, record.size) if self.region == "crop" else None
                yield Sample(
                    id=f"{name}-{index}",
                    image=self._image_of(record.image, name, region),
                    question=self.question,
                    target=annotation.label,
                    split=split,
                    facts={"image": image, "box": box},
                    region=box if self.region == "box" else None,
                    patient=record.patient,
                    subgroup=record.subgroup,
                )

    def _image_of(self, path: Path, name: str, region: Region | None = None) -> Path | ImageFile:
        file = ImageFile(path, region, self.window, self.page, name=name if self.hash_names else "")
        return path if file == ImageFile(path) else file


HINTS = {
    "no usable box": "mend the boxes in the annotations.",
    "not annotated": "put the annotations where the source looks for them.",
}
"""The remedy for each reason why an image is no sample."""


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts in one line, without zeros."""
    return ", ".join(f"{key} {count:,}" for key, count in counts.items() if count)


def unique_names(images: Sequence[Path]) -> list[str]:
    """A name for each image: the stem, with folders and suffix where two images share it.

    >>> unique_names([Path("x/1/a.png"), Path("x/2/a.png"), Path("x/2/b.png")])
    ['1_a', '2_a', 'b']
    """
    names = [stem_of(image) for image in images]
    if len(set(names)) == len(names):
        return names
    absolute = [Path(os.path.abspath(image)) for image in images]  # some may be relative, others not
    drives = {path.anchor for path in absolute}
    base = Path(os.path.commonpath([path.parent for path in absolute])) if len(drives) == 1 else None
    inner = [path.relative_to(base or path.anchor) for path in absolute]
    folders = ["_".join(path.with_name(stem_of(path)).parts) for path in inner]
    for longer in (folders, ["_".join(path.parts) for path in inner]):
        often = Counter(names)
        names = [whole if often[name] > 1 else name for name, whole in zip(names, longer, strict=True)]
    often = Counter(names)
    return [f"{name}-{index}" if often[name] > 1 else name for index, name in enumerate(names)]


def question_of_boxes(kind: str, region: str, find: Sequence[str]) -> str:
    """The question about boxes: where they are, or the class or grade of each (``BoxSource`` has the arguments)."""
    if kind == "localization":
        return f"Where is every {' or '.join(find)}?" if find else "Where are the findings?"
    where = "in the middle of" if region == "crop" else "in the given box of"
    return f"Which {'grade' if kind == 'grading' else 'class'} is shown {where} this image?"


def crop_region(box: Box, margin: float, size: Size) -> Region:
    """A box with a margin on each side, in whole pixels inside the image.

    Args:
        box: x1, y1, x2, y2 in pixels.
        margin: a fraction of the longer side of the box.
        size: width and height of the image.
    """
    wide = margin * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = clip((box[0] - wide, box[1] - wide, box[2] + wide, box[3] + wide), size)
    return int(x1), int(y1), max(int(x1) + 1, round(x2)), max(int(y1) + 1, round(y2))
