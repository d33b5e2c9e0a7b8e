"""Annotated images: boxes with labels, as the sources of boxes read them, cleaned by one rule and turned into samples.

The rule, for every source: a box without area is dropped; a box that leaves the image is clipped to it, and dropped
where nothing of it is inside; of equal boxes with equal labels one is kept. Whatever is dropped or clipped is counted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from vrft.boxes import Size, clip, has_area
from vrft.errors import DataError
from vrft.images import ImageFacts, Region, Window, inspect, upright_box
from vrft.sample import Box, ImageFile, Sample

SPLITS = ("train", "validation", "test")
FOLDERS = {"train": ("train",), "validation": ("valid", "val", "validation"), "test": ("test",)}
"""What exports call the folder of a split."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
"""Of images beside annotations."""


@dataclass(frozen=True)
class Annotation:
    """One box and what it holds."""

    label: str
    box: Box


@dataclass(frozen=True)
class Record:
    """One image and its annotations; none is a statement that nothing is there."""

    image: Path
    size: Size
    annotations: tuple[Annotation, ...] = ()
    stated: Size | None = None
    """Width and height that the annotation states, which tell whether it knows of an EXIF orientation (``upright``)."""


Counts = Counter[str]
"""What was met: ``images``, ``empty``, ``boxes`` (as written), ``kept``, ``clipped``, ``no area``, ``outside``,
``duplicate``; and what a source cannot use: ``image missing``, ``not annotated``, ``size differs``, ..."""


class Reader(Protocol):
    """What a source of boxes offers: the records of its own splits."""

    def read(self, split: str, counts: Counts) -> list[Record]:
        """The records of a split as they are written, in a fixed order; oddities are counted."""


def clean(record: Record, counts: Counts) -> Record:
    """Apply the rule to the boxes of a record, and count what it meets."""
    counts["images"] += 1
    counts["empty"] += not record.annotations
    counts["boxes"] += len(record.annotations)
    kept: dict[Annotation, None] = {}
    for annotation in record.annotations:
        clipped = clip(annotation.box, record.size)
        fitted = replace(annotation, box=clipped)
        if not has_area(annotation.box):
            counts["no area"] += 1
        elif not has_area(clipped):
            counts["outside"] += 1
        elif fitted in kept:
            counts["duplicate"] += 1
        else:
            counts["clipped"] += clipped != annotation.box
            kept[fitted] = None
    counts["kept"] += len(kept)
    return replace(record, annotations=tuple(kept))


def upright(record: Record, facts: ImageFacts, counts: Counts) -> Record:
    """Turn the boxes of a record with its image where they are those of the picture as it is stored.

    An image with an EXIF orientation is shown upright. The size that its annotation states tells which picture the
    boxes belong to; where it tells nothing (none is stated, or both pictures have it), they are taken to be upright, as
    tools that show images upright write them. What is odd about the file is counted.
    """
    counts.update(facts.kinds)
    if record.size != facts.size:
        raise DataError(
            f"{record.image}: the named page is {facts.size[0]} x {facts.size[1]}, the first one "
            f"{record.size[0]} x {record.size[1]}; save the page as a file of its own."
        )
    if record.stated in (None, facts.size):
        return record
    if record.stated != facts.stored:
        counts["size differs"] += 1
        return record
    counts["boxes turned by EXIF"] += len(record.annotations)
    turned = (replace(one, box=upright_box(one.box, facts.stored, facts.orientation)) for one in record.annotations)
    return replace(record, annotations=tuple(turned))


def image_size(path: Path) -> Size:
    """Width and height of the upright picture, from the head of an image file; of several pages, of the first.

    Raises:
        DataError: the file is missing or is no image.
    """
    return inspect(path, any_page=True).size


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
    ) -> None:
        self.reader, self.kind, self.find, self.shared_out = reader, kind, tuple(find or ()), shared_out
        self.region, self.margin = region, margin
        self.window, self.page = window, page
        self.counts: dict[str, Counts] = {}
        self._records: dict[str, list[Record]] = {}
        self._every: tuple[list[Record], Counts] | None = None

    def records(self, split: str) -> list[Record]:
        """The cleaned records of a split; ``counts[split]`` says what was met."""
        if split not in self._records:
            counts: Counts = Counter()
            self._records[split] = [
                clean(upright(record, inspect(record.image, self.page), counts), counts)
                for record in self._read(split, counts)
            ]
            self.counts[split] = counts
        return self._records[split]

    def _read(self, split: str, counts: Counts) -> list[Record]:
        if not self.shared_out:
            return self.reader.read(split, counts)
        if self._every is None:
            met: Counts = Counter()
            self._every = [record for own in SPLITS for record in self.reader.read(own, met)], met
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
            DataError: a file is missing or at fault, or a label that is looked for occurs nowhere.
        """
        found = {one.label for split in SPLITS for record in self.records(split) for one in record.annotations}
        for label in self.find:
            if label not in found:
                raise DataError(f"no box has the label {label!r}; the data has {', '.join(sorted(found))}.")

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the order of the files; no image is opened."""
        for record in self.records(split):
            wanted = [one for one in record.annotations if not self.find or one.label in self.find]
            if self.kind == "localization":
                target = tuple(one.box for one in wanted)
                yield Sample(record.image.stem, self._shown(record.image), self.question, target, split)
                continue
            for index, one in enumerate(wanted):
                cut = around(one.box, self.margin, record.size) if self.region == "crop" else None
                yield Sample(
                    id=f"{record.image.stem}-{index}",
                    image=self._shown(record.image, cut),
                    question=self.question,
                    target=one.label,
                    split=split,
                    facts={"image": record.image.name, "box": one.box},
                    region=one.box if self.region == "box" else None,
                )

    def _shown(self, path: Path, region: Region | None = None) -> Path | ImageFile:
        read = ImageFile(path, region, self.window, self.page)
        return path if read == ImageFile(path) else read


def around(box: Box, margin: float, size: Size) -> tuple[int, int, int, int]:
    """A box with a margin on each side, in whole pixels inside the image."""
    wide = margin * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = clip((box[0] - wide, box[1] - wide, box[2] + wide, box[3] + wide), size)
    return int(x1), int(y1), max(int(x1) + 1, round(x2)), max(int(y1) + 1, round(y2))
