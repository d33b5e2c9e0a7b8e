"""Guesses about annotations in files of their own: Pascal VOC, COCO, YOLO and DOTA, and mask images.

A folder is tried with the reader of its format (``vrft.data.annotations.Reader``), so that a guess never says more than
what a run would read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from vrft.data.annotations import Counts, Reader, Record
from vrft.data.coco import COCOReader
from vrft.data.guess import Guess, Tree, add_patients, read_json
from vrft.data.masks import read_mask
from vrft.data.splits import SPLIT_NAMES, SPLITS
from vrft.data.voc import VOCReader
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError, UserError, first_line
from vrft.images import inspect

MASKS = re.compile(
    r"(?i)(masks?|labels?|annotations?|segmentations?|segmentationclass|ground.?truth|gt)(_?(tr|train|png))?"
)
"""Names of folders of masks."""

READ = 40
"""Masks that are read to know their values."""


def guess_boxes(tree: Tree) -> list[Guess]:
    """The guesses about folders in the layouts of Pascal VOC, COCO and YOLO.

    Raises:
        DataError: a folder seems to be one and cannot be read, and there is no other.
    """
    found: list[Guess] = []
    faults: list[UserError] = []
    layouts: tuple[tuple[str, str, Callable[[Path], Reader], Iterator[Path]], ...] = (
        ("voc", "Pascal VOC", VOCReader, _voc_roots(tree)),
        ("coco", "COCO", COCOReader, _coco_roots(tree)),
        ("yolo", "YOLO", YOLOReader, _yolo_roots(tree)),
    )
    for source, title, reader, roots in layouts:
        for root in dict.fromkeys(roots):
            try:
                records = {split: _read(reader(root), split) for split in SPLITS}
            except UserError as error:
                faults.append(error)
                continue
            if any(records.values()):
                found.append(_of_records(source, title, root, records))
                break
    if faults and not found:
        raise DataError(f"It seems to hold annotations, which cannot be read: {first_line(faults[0])}")
    return found


def _read(reader: Reader, split: str) -> list[Record]:
    return reader.read(split, Counts())


def _voc_roots(tree: Tree) -> Iterator[Path]:
    for file in tree.named(".xml"):
        with suppress(OSError):
            if b"<annotation" in file.read_bytes()[:2000]:
                folder = file.parent
                named = {name for names in SPLIT_NAMES.values() for name in names}
                inner = folder.name.lower() in {"annotations", "xml", "xmls", *named}
                yield folder.parent if inner and folder != tree.root else folder
                return


def _coco_roots(tree: Tree) -> Iterator[Path]:
    for file in list(tree.named(".json"))[:200]:
        content = read_json(file)
        if isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content:
            yield from (folder for folder in (file.parent.parent, file.parent) if folder.is_relative_to(tree.root))


def _yolo_roots(tree: Tree) -> Iterator[Path]:
    for file in tree.named("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names"):
        yield file.parent
    for folder in tree.files:
        if folder.name in ("labelTxt", "labels") and any(name.endswith(".txt") for name in tree.files[folder]):
            yield from (one for one in (folder.parent.parent, folder.parent) if one.is_relative_to(tree.root))


def _of_records(source: str, title: str, root: Path, records: dict[str, list[Record]]) -> Guess:
    """The guess about annotations that were read."""
    every = [record for one in records.values() for record in one]
    boxes = Counter(annotation.label for record in every for annotation in record.annotations)
    splits = ", ".join(f"{split} {len(one):,}" for split, one in records.items() if one)
    labels = ", ".join(f"{label} {count:,}" for label, count in boxes.most_common(12))
    guess = Guess(
        source,
        "localization",
        90,
        title,
        {"root": str(root)},
        why=[f"{title} with {len(every):,} images ({splits}) and {boxes.total():,} boxes: {labels or 'none'}."],
        kinds=("localization", "classification"),
    )
    add_patients(guess, [_below(record.image, root) for record in every])
    return guess


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def choose_labels(guess: Guess, records: Sequence[Record]) -> None:
    """Where images hold many boxes, choose the label of which most hold a single one; and say whether some hold none.

    Args:
        guess: of a localization; gets ``find`` and the number of boxes of an image.
        records: of all splits.
    """
    per_image = [Counter(annotation.label for annotation in record.annotations) for record in records]
    totals = sorted(count.total() for count in per_image)
    labels = sorted({label for count in per_image for label in count})
    if totals and totals[len(totals) // 2] > 3 and len(labels) > 1:
        chosen = max(labels, key=lambda label: sum(count[label] == 1 for count in per_image))
        guess.data["find"] = [chosen]
        guess.notes["find"] = f"of {', '.join(labels)}; remove it to find all"
        guess.why.append(
            f"Half of the images hold {totals[len(totals) // 2]} boxes or more, so {chosen!r} alone was chosen to be "
            f"found, of which most images hold a single one."
        )
        totals = sorted(count[chosen] for count in per_image)
    guess.boxes = max(1, totals[int(0.9 * (len(totals) - 1))] if totals else 1)
    if empty := sum(not total for total in totals):
        guess.task["absence"] = True
        guess.why.append(f"Nothing is there in {empty:,} images, so the prompt says that an empty list means this.")


# --- masks ------------------------------------------------------------------------------------------------------------


def guess_masks(tree: Tree) -> list[Guess]:
    """Folders of images beside folders of masks, or pairs in one folder."""
    for folder in tree.files:
        for masks in [one for one in tree.folders_in(folder) if MASKS.fullmatch(one.name)]:
            stems = {Path(name).stem.lower(): masks / name for name in tree.images_in(masks)}
            for images in [folder, *tree.folders_in(folder)]:
                own = {Path(name).stem.lower(): images / name for name in tree.images_in(images)}
                pairs = [(own[stem], stems[stem]) for stem in own if stem in stems] if images != masks else []
                if len(pairs) >= 2 and (guess := _of_masks(folder, images, masks, pairs)):
                    return [guess]
        names = tree.images_in(folder)
        own = {Path(name).stem.lower(): folder / name for name in names if not name.lower().endswith(".png")}
        pairs = [
            (own[stem], folder / name)
            for name in names
            if (stem := Path(name).stem.lower()) in own and name.lower().endswith(".png")
        ]
        if len(pairs) >= 2 and 2 * len(pairs) > len(own) and (guess := _of_masks(folder, folder, folder, pairs)):
            return [guess]
    return []


def _of_masks(root: Path, images: Path, masks: Path, pairs: list[tuple[Path, Path]]) -> Guess | None:
    """The guess about pairs of images and masks; None where the second are no masks."""
    values, lossy = Counter[int](), False
    for image, mask in pairs[:READ]:
        try:
            found, kind = read_mask(mask, inspect(image, any_page=True), Counts())
        except UserError:
            return None
        lossy = lossy or kind == "lossy"
        for value, count in zip(*np.unique(found, return_counts=True), strict=True):
            values[int(value)] += int(count)
    total = values.total()
    classes = sorted(value for value, count in values.items() if value and (not lossy or count > total / 100))
    if lossy and classes and max(classes) > 200:
        classes = [max(classes)]
    if not classes or len(classes) > 30:
        return None
    named = {value: "finding" if len(classes) == 1 else f"class_{value}" for value in classes}
    relative = [str(folder.relative_to(root)) for folder in (images, masks)]
    guess = Guess(
        "masks",
        "localization",
        65,
        "masks",
        {"root": str(root), "images": relative[0], "masks": relative[1], "classes": named},
        why=[
            f"{len(pairs):,} images in {images} have masks in {masks}; these hold the values 0 "
            f"(background) and {', '.join(map(str, classes))}{' (in a lossy format)' if lossy else ''}."
        ],
        notes={"classes": "the values found; their names are unknown: write them"},
        kinds=("localization", "classification") if len(classes) > 1 else ("localization",),
    )
    guess.why.append("Each connected region of a class becomes a box.")
    if len(classes) > 1:
        guess.options.append("merge: finding  # where an object consists of several classes")
    guess.boxes = 2
    add_patients(guess, [image.name for image, _ in pairs])
    return guess
