"""Annotated images: boxes with labels, as the sources of boxes read them, cleaned by one rule and turned into samples.

The rule, for every source: a box without area is dropped, and one whose corners are swapped; a box that leaves the
image is clipped to it, and dropped where nothing of it is inside; of equal boxes with equal labels one is kept.
Whatever is dropped or clipped is counted. An image of whose boxes none is left holds something that nobody can point
at: it is no sample, while an image that is stated to hold nothing is one without boxes. Nor is an image of which the
files say nothing that can be relied on (``Record.unsure``).
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from vrft.boxes import Size, clip, has_area, rescale
from vrft.data.lookup import SUFFIXES
from vrft.errors import DataError, reading
from vrft.images import ImageFacts, Region, Window, inspect, upright_box
from vrft.sample import Box, ImageFile, Sample

__all__ = [
    "FOLDERS",
    "SPLITS",
    "SUFFIXES",
    "Annotation",
    "BoxSource",
    "Counts",
    "Reader",
    "Record",
    "around",
    "clean",
    "image_size",
    "share_out",
]

SPLITS = ("train", "validation", "test")
FOLDERS = {"train": ("train",), "validation": ("valid", "val", "validation"), "test": ("test",)}
"""What exports call the folder of a split."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box and what it holds."""

    label: str
    box: Box


@dataclass(frozen=True)
class Record:
    """One image and its annotations; none, and none left out, is a statement that nothing is there."""

    image: Path
    size: Size
    annotations: tuple[Annotation, ...] = ()
    stated: Size | None = None
    """Width and height that the annotation states, which tell whether it knows of an EXIF orientation (``upright``)."""
    left_out: tuple[str, ...] = ()
    """The labels of what the file states and no box tells: what the rule dropped, or the source could not use."""
    unsure: str = ""
    """Why the annotation tells neither what is there nor that nothing is: the image is left out and counted by it."""


Counts = Counter[str]
"""What was met: ``images``, ``empty``, ``boxes`` (as written), ``kept``, ``clipped``, ``no area``, ``corners swapped``,
``outside``, ``duplicate``, ``no usable box`` (images); what ``Record.unsure`` says; and what a source cannot use:
``image missing``, ``not annotated``, ``size differs``, ..."""


class Reader(Protocol):
    """What a source of boxes offers: the records of its own splits."""

    def read(self, split: str, counts: Counts) -> list[Record]:
        """The records of a split as they are written, in a fixed order; oddities are counted."""


def clean(record: Record, counts: Counts) -> Record:
    """Apply the rule to the boxes of a record, and count what it meets."""
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
        elif (fault := fault_of(annotation.box)) or not has_area(clipped):
            counts[fault or "outside"] += 1
            dropped.append(annotation.label)
        else:
            counts["clipped"] += clipped != annotation.box
            kept[fitted] = None
    counts["kept"] += len(kept)
    return replace(record, annotations=tuple(kept), left_out=(*record.left_out, *dropped))


def fault_of(box: Box) -> str | None:
    """What is wrong with a box, wherever it lies: ``corners swapped``, ``no area`` or nothing."""
    if box[2] < box[0] or box[3] < box[1]:
        return "corners swapped"
    return None if has_area(box) else "no area"


def box_of(values: Iterable[object], where: str, expected: str) -> Box:
    """Four finite numbers of a box in pixels, as a file gives them.

    Raises:
        DataError: they are none, or shares of the image.
    """
    numbers = [number_of(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) != 4 or len(numbers) != 4:
        raise DataError(f"{where}; expected {expected}, four numbers in pixels.")
    if all(0 <= number <= 1 for number in known) and any(number % 1 for number in known):
        raise DataError(f"{where}, which are shares of the image; expected {expected} in pixels: multiply them.")
    return known[0], known[1], known[2], known[3]


def number_of(value: object) -> float | None:
    """A finite number, also one that is written as text; None for anything else.

    >>> number_of(" 2.5"), number_of("nan"), number_of("1_0"), number_of(True), number_of([1])
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


def upright(record: Record, facts: ImageFacts, counts: Counts) -> Record:
    """Give the boxes of a record the place that they have in its image, as it is shown.

    An image with an EXIF orientation is shown upright. The size that its annotation states tells which picture the
    boxes belong to, the upright one or the one that is stored; where it tells nothing (none is stated, or both pictures
    have it), they are taken to be upright, as tools that show images upright write them. Where another size of the same
    shape is stated, the picture was scaled after it was annotated, and its boxes are scaled as well. Of another shape
    they are taken as pixels of the file; where they are plainly not, the record is ``unsure``. What is odd about the
    file is counted.
    """
    counts.update(facts.kinds)
    if record.size != facts.size:
        raise DataError(
            f"{record.image}: the named page is {facts.size[0]} x {facts.size[1]}, the first one "
            f"{record.size[0]} x {record.size[1]}; save the page as a file of its own."
        )
    stated, boxes = record.stated, [one.box for one in record.annotations]
    if stated is None or stated == facts.size:
        return record
    meant: Size | None = facts.stored
    if stated != facts.stored:
        meant = next((size for size in (facts.size, facts.stored) if _same_shape(stated, size)), None)
        if meant is None or not _all_inside(boxes, stated):
            counts["size differs"] += 1
            lost = not _all_inside(boxes, facts.size) and _all_inside(boxes, stated)
            why = "boxes of a picture with another shape"
            return replace(record, unsure=record.unsure or why) if lost else record
        counts["boxes scaled"] += len(boxes)
        boxes = [rescale(box, stated, meant) for box in boxes]
    if meant != facts.size:
        counts["boxes turned by EXIF"] += len(boxes)
        boxes = [upright_box(box, facts.stored, facts.orientation) for box in boxes]
    moved = (replace(one, box=box) for one, box in zip(record.annotations, boxes, strict=True))
    return replace(record, annotations=tuple(moved))


def _same_shape(one: Size, other: Size) -> bool:
    """Whether a picture of one size scaled to the other keeps its shape, up to a rounding of its sides.

    >>> _same_shape((128, 96), (64, 48)), _same_shape((1023, 767), (512, 384)), _same_shape((100, 81), (100, 80))
    (True, True, False)
    """
    return 2 * abs(other[0] * one[1] - other[1] * one[0]) <= max(sum(one), sum(other))


def _all_inside(boxes: Iterable[Box], size: Size) -> bool:
    """Whether no box sticks out of a picture by more than a pixel."""
    return all(min(box) >= -1 and max(box[::2]) <= size[0] + 1 and max(box[1::2]) <= size[1] + 1 for box in boxes)


def image_size(path: Path) -> Size:
    """Width and height of the upright picture, from the head of an image file; of several pages, of the first.

    Raises:
        DataError: the file is missing or is no image.
    """
    return inspect(path, any_page=True).size


def stated_size(width: object, height: object) -> Size | None:
    """The size of an image as an annotation states it, in numbers or texts; None where it states none.

    >>> stated_size("640", 480.0), stated_size(None, 480)
    ((640, 480), None)
    """
    wide, high = number_of(width), number_of(height)
    return (round(wide), round(high)) if wide and high and min(wide, high) >= 1 else None


def share_out(groups: Sequence[str], split: str, seed: int = 0) -> list[bool]:
    """Which items belong to a split, for sets without splits of their own: 60% train, 20% validation, 20% test.

    Items of one group (one patient) fall into one split; which one depends on the group's name and the seed alone, so
    that a new image moves no other.
    """
    wanted = SPLITS.index(split)
    return [_place(group, seed) == wanted for group in groups]


def _place(group: str, seed: int) -> int:
    share = int.from_bytes(sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
    return 0 if share < 0.6 else 1 if share < 0.8 else 2


class BoxSource:
    """Samples of annotated images for one task.

    Args:
        reader: reads the records of a split.
        kind: ``localization`` (the boxes of ``find``), or ``classification`` (one sample a box: what is it?).
        find: the labels that are looked for or told apart; without it all.
        region: what a classification shows of a region: ``crop`` (it alone, with a margin) or ``box`` (the whole image,
            and the question tells the box).
        margin: of a crop, on each side, as a share of the longer side of its box.
        shared_out: all images are put together and shared out by a hash of their names, for sets that lack a split.
        window: of files with more than 8 bits: the values that become black and white.
        page: of files with several, from 0.
        unusable: what becomes of an image with findings that are looked for, of whose boxes none is left, and of one
            whose annotation cannot be relied on (``Record.unsure``): it is left out and counted (``skip``), or the data
            is refused (``refuse``).
    """

    levels: int | None = None

    def __init__(
        self,
        reader: Reader,
        *,
        kind: Literal["localization", "classification"],
        find: Sequence[str] | None = None,
        region: Literal["crop", "box"] = "crop",
        margin: float = 0.25,
        shared_out: bool = False,
        window: Window | None = None,
        page: int | None = None,
        unusable: Literal["skip", "refuse"] = "skip",
    ) -> None:
        self.reader, self.kind, self.find, self.shared_out = reader, kind, tuple(find or ()), shared_out
        self.region, self.margin, self.unusable = region, margin, unusable
        self.window, self.page = window, page
        self.counts: dict[str, Counts] = {}
        self._records: dict[str, list[Record]] = {}
        self._unsure: dict[str, Path] = {}
        """An image of each split of which the annotation tells nothing."""
        self._every: tuple[list[Record], Counts] | None = None

    def records(self, split: str) -> list[Record]:
        """The cleaned records of a split; ``counts[split]`` says what was met.

        Raises:
            DataError: a file cannot be read, or an image has no usable box and those are to be refused.
        """
        if split not in self._records:
            counts: Counts = Counter()
            usable = []
            for record in self._read(split, counts):
                if not record.unsure:
                    record = upright(record, inspect(record.image, self.page), counts)
                if record.unsure:
                    self._leave_out(record, split, counts)
                elif self._is_usable(record := clean(record, counts), counts):
                    usable.append(record)
            self._records[split] = usable
            self.counts[split] = counts
        return self._records[split]

    @property
    def _where(self) -> Path | str:
        """The folder of the data, as far as the reader has one."""
        found: Path | str = getattr(self.reader, "root", getattr(self.reader, "images", "the data"))
        return found

    @property
    def _met(self) -> Counts:
        """What was met in all splits together."""
        return sum(self.counts.values(), Counter())

    def _is_wanted(self, label: str) -> bool:
        return not self.find or label in self.find

    def _leave_out(self, record: Record, split: str, counts: Counts) -> None:
        if self.unusable == "refuse":
            told = "tells neither what is there nor that nothing is"
            raise DataError(
                f"{record.image}: its annotation {told} ({record.unsure}); mend it or remove the image, or set "
                f"data.unusable to skip."
            )
        counts[record.unsure] += 1
        self._unsure.setdefault(split, record.image)

    def _is_usable(self, record: Record, counts: Counts) -> bool:
        """Whether a finding that is looked for has a box, or none is stated."""
        lost = [label for label in record.left_out if self._is_wanted(label)]
        if not lost or any(self._is_wanted(one.label) for one in record.annotations):
            return True
        if self.unusable == "refuse":
            shown = ", ".join(sorted(set(lost)))
            raise DataError(
                f"{record.image}: is annotated ({shown}), and none of its boxes can be used (no area, corners swapped, "
                f"outside); mend its annotation or remove it, or set data.unusable to skip."
            )
        counts["no usable box"] += 1
        return False

    def _read(self, split: str, counts: Counts) -> list[Record]:
        with reading(self._where):
            if not self.shared_out:
                return self.reader.read(split, counts)
            if self._every is None:
                met: Counts = Counter()
                found = {record.image: record for own in SPLITS for record in self.reader.read(own, met)}
                self._every = list(found.values()), met
        every, met = self._every
        if split == SPLITS[0]:
            counts.update(met)  # once, not for every split
        inside = share_out([record.image.stem for record in every], split)
        return [record for record, taken in zip(every, inside, strict=True) if taken]

    @property
    def labels(self) -> list[str] | None:
        """All labels in alphabetical order, where the targets are labels."""
        if self.kind != "classification":
            return None
        found = {one.label for split in SPLITS for record in self.records(split) for one in record.annotations}
        return [label for label in self.find if label in found] or sorted(found)

    @property
    def question(self) -> str:
        if self.kind == "classification":
            where = "in the middle of" if self.region == "crop" else "in the given box of"
            return f"Which class is shown {where} this image?"
        return f"Where is every {' or '.join(self.find)}?" if self.find else "Where are the findings?"

    def counted(self) -> dict[str, dict[str, int]]:
        """For each split that has images what was met in it: ``Counts``, without what did not occur."""
        for split in SPLITS:
            self.records(split)
        return {split: {what: n for what, n in counts.items() if n} for split, counts in self.counts.items() if counts}

    def check(self) -> None:
        """Read the annotations of all splits.

        Raises:
            DataError: a file is missing or at fault, a label that is looked for occurs nowhere, or there is no label.
        """
        found = {one.label for split in SPLITS for record in self.records(split) for one in record.annotations}
        for label in self.find:
            if label not in found:
                known = ", ".join(sorted(found)) or "no boxes that can be used"
                raise DataError(f"no box has the label {label!r}; the data has {known}.")
        if not found and self.kind == "classification":
            raise DataError(f"{self._where}: holds no box to classify ({in_words(self._met) or 'no image'}).")

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the order of the files; no image is opened.

        Raises:
            DataError: there are images, and none of them can be used.
        """
        records = self.records(split)
        hints = [hint for key, hint in UNUSED.items() if self.counts[split][key]]
        if split in self._unsure:
            hints.append(f"mend the annotations of images such as {self._unsure[split]}.")
        if not records and hints:
            met = in_words(self.counts[split])
            raise DataError(f"the data has no image for {split} that can be used ({met}): {' '.join(hints)}")
        for record, name in zip(records, names_apart([record.image for record in records]), strict=True):
            wanted = [one for one in record.annotations if self._is_wanted(one.label)]
            if self.kind == "localization":
                target = tuple(one.box for one in wanted)
                yield Sample(name, self._shown(record.image), self.question, target, split)
                continue
            image = record.image.name if name == record.image.stem else name
            for index, one in enumerate(wanted):
                cut = around(one.box, self.margin, record.size) if self.region == "crop" else None
                yield Sample(
                    id=f"{name}-{index}",
                    image=self._shown(record.image, cut),
                    question=self.question,
                    target=one.label,
                    split=split,
                    facts={"image": image, "box": one.box},
                    region=one.box if self.region == "box" else None,
                )

    def _shown(self, path: Path, region: Region | None = None) -> Path | ImageFile:
        read = ImageFile(path, region, self.window, self.page)
        return path if read == ImageFile(path) else read


UNUSED = {
    "no usable box": "mend the boxes in the annotations.",
    "not annotated": "put the annotations where the source looks for them.",
}
"""Why an image is no sample, and what to do where none is one."""


def in_words(counts: Mapping[str, int]) -> str:
    """Counts in one line, without what did not occur."""
    return ", ".join(f"{what} {count:,}" for what, count in counts.items() if count)


def names_apart(images: Sequence[Path]) -> list[str]:
    """What to call the samples of some images: the stem, with folders and suffix where two share it.

    >>> names_apart([Path("x/1/a.png"), Path("x/2/a.png"), Path("x/2/b.png")])
    ['1_a', '2_a', 'b']
    """
    stems = Counter(image.stem for image in images)
    if len(stems) == len(images):
        return [image.stem for image in images]
    whole = [Path(os.path.abspath(image)) for image in images]  # some may be relative, others not
    roots = {path.anchor for path in whole}  # several where there are several drives
    base = Path(os.path.commonpath([path.parent for path in whole])) if len(roots) == 1 else None
    inner = [path.relative_to(base or path.anchor) for path in whole]
    longer = ["_".join(path.with_suffix("").parts) for path in inner]
    full = ["_".join(path.parts) for path in inner]
    names = [one if stems[image.stem] > 1 else image.stem for image, one in zip(images, longer, strict=True)]
    often = Counter(names)
    names = [whole if often[name] > 1 else name for name, whole in zip(names, full, strict=True)]
    often = Counter(names)
    return [f"{name}-{index}" if often[name] > 1 else name for index, name in enumerate(names)]


def around(box: Box, margin: float, size: Size) -> tuple[int, int, int, int]:
    """A box with a margin on each side, in whole pixels inside the image."""
    wide = margin * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = clip((box[0] - wide, box[1] - wide, box[2] + wide, box[3] + wide), size)
    return int(x1), int(y1), max(int(x1) + 1, round(x2)), max(int(y1) + 1, round(y2))
