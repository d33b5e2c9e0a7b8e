"""What a folder or file of a user seems to hold: the sources that would read it, the likeliest first.

Nothing is decided here for good: a guess holds the keys of a section ``data``, the sentences that say why, and what
else may be meant. ``vrft.recipe.draft`` makes a recipe of it, which the user reads and changes.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vrft.data.lookup import is_hidden, is_image
from vrft.data.splits import split_named
from vrft.data.tabular import TABLES
from vrft.errors import DataError, UserError
from vrft.images import inspect

MOST_FILES = 300_000
"""Files beyond these are not seen, and the guess says so."""

PATTERNS = (r"(?i)(?:^|/)((?:patient|subject|subj|pat|sub|case|p)[-_ ]?[0-9]+)[-_/]", r"(?:^|/)([0-9]+)[-_][0-9]+")
"""Patterns that find a patient in the path of an image, tried in this order."""

KINDS = ("classification", "grading", "localization")
"""The kinds of task of a recipe."""

TABLE_TO_WRITE = """\
  image,label
  scan-001.png,normal
  scan-002.png,pneumonia"""
"""An example of a table that says what images show."""


@dataclass
class Guess:
    """A section ``data`` and a task for it, with the reasons."""

    source: str
    kind: str
    """Of the task, one of ``KINDS``."""
    score: float
    """How likely it is meant, for the order among guesses; 0 to 100."""
    what: str
    """The layout in a few words, such as ``class folders``."""
    data: dict[str, Any]
    """The keys of the section, without ``source``."""
    task: dict[str, Any] = field(default_factory=dict)
    """Further keys of the section ``task``."""
    why: list[str] = field(default_factory=list)
    """Sentences: what was seen, what was guessed of it and why."""
    notes: dict[str, str] = field(default_factory=dict)
    """A comment for a key of ``data``."""
    options: list[str] = field(default_factory=list)
    """Keys of ``data`` that are not switched on, each a line ``key: value  # comment``."""
    boxes: int = 1
    """Of a localization: the boxes of an image with many, for the length of an answer."""
    kinds: tuple[str, ...] = ()
    """The kinds of task that the data allows; ``kind`` is the first."""

    @property
    def place(self) -> str:
        """The file or folder that it reads."""
        if "files" in self.data:
            files = self.data["files"]
            first = next(iter(files.values())) if isinstance(files, dict) else files
            return first if isinstance(first, str) else str(Path(first[0]).parent)
        if "path" in self.data:
            return str(self.data["path"])
        file = f"{self.data['dataset']}.npz" if self.source == "medmnist" else self.data.get("file", "")
        return str(Path(self.data.get("root", "."), file))


class Tree:
    """The files of a folder and the folders inside it, without hidden ones.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[Path, list[str]] = {}
        """The names of the files in each folder, sorted; folders in the order of a walk from the top."""
        self.complete = True
        total = 0
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            self.files[Path(folder)] = sorted(name for name in names if not is_hidden(name))
            total += len(names)
            if total > MOST_FILES:
                self.complete = False
                break

    def images_in(self, folder: Path) -> list[str]:
        """The names of the images in a folder, among them DICOM files and volumes."""
        if folder not in self._images:
            self._images[folder] = [name for name in self.files.get(folder, ()) if is_image(folder / name)]
        return self._images[folder]

    @cached_property
    def _images(self) -> dict[Path, list[str]]:
        return {}

    @cached_property
    def images(self) -> list[Path]:
        """All images."""
        return [folder / name for folder in self.files for name in self.images_in(folder)]

    def folders_in(self, folder: Path) -> list[Path]:
        """The folders directly in a folder."""
        return self._inside.get(folder, [])

    @cached_property
    def _inside(self) -> dict[Path, list[Path]]:
        found = defaultdict[Path, list[Path]](list)
        for folder in self.files:
            if folder != self.root:  # "." is its own parent
                found[folder.parent].append(folder)
        return found

    def named(self, *suffixes: str) -> Iterator[Path]:
        """The files whose names end so, the topmost first."""
        for folder, names in self.files.items():
            yield from (folder / name for name in names if name.lower().endswith(suffixes))


def find_guesses(path: Path) -> list[Guess]:
    """The guesses about a folder or a file, the likeliest first.

    Raises:
        UserError: there is nothing of which a task could be made; the message says what is missing.
    """
    from vrft.data.guess_boxes import guess_boxes, guess_masks  # they need what is defined here
    from vrft.data.guess_packed import guess_packed
    from vrft.data.guess_tables import guess_table

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give the folder of your data, or its table.")
    if path.is_file():
        return _guess_file(path)
    tree = Tree(path)
    if not any(tree.files.values()):
        raise UserError(f"{path}: is empty; give a folder with images and their labels.")
    found: list[Guess] = []
    faults: list[str] = []
    for guesses in (guess_packed, guess_boxes, guess_masks, guess_classes, guess_medmnist):
        found += _without_faults(guesses, tree, faults)
    for file in list(tree.named(*(suffix for suffix in TABLES if suffix != ".txt")))[:100]:
        found += _without_faults(partial(guess_table, file), tree, faults)
    if not found:
        raise UserError(_nothing(tree, faults))
    if not tree.complete:
        found[0].why.append(f"More than {MOST_FILES:,} files are there; the others were not seen.")
    return sorted(found, key=lambda guess: -guess.score)


def _without_faults(guesses: Callable[[Tree], Sequence[Guess]], tree: Tree, faults: list[str]) -> Sequence[Guess]:
    try:
        return guesses(tree)
    except UserError as error:
        faults.append(str(error))
        return ()


def _guess_file(path: Path) -> list[Guess]:
    from vrft.data.guess_tables import guess_table

    if path.suffix.lower() == ".npz":
        tree = Tree(path.parent)
        tree.files = {path.parent: [path.name]}
        if found := guess_medmnist(tree):
            return found
        raise UserError(
            f"{path}: has not the name of a MedMNIST set (such as retinamnist.npz); save its images as files."
        )
    if path.suffix.lower() == ".json" and isinstance(content := read_json(path), dict) and "annotations" in content:
        raise UserError(f"{path}: is a file of COCO; give the folder of the set, such as vrft init {path.parent}.")
    if path.suffix.lower() in (*TABLES, ".xlsx", ".xls", ".ods"):
        return guess_table(path, Tree(path.parent), asked=True)
    if is_image(path):
        raise UserError(f"{path}: is an image; give the folder of your data, or a table that names images.")
    raise UserError(
        f"{path}: is no data that vrft reads; expected a folder, or a table ({', '.join(TABLES)}) that names images."
    )


def _nothing(tree: Tree, faults: list[str]) -> str:
    """What is missing in a folder of which no task can be made."""
    images = tree.images
    if not images:
        hint = f" {faults[0]}" if faults else ""
        return f"{tree.root}: holds no image, and no data set that vrft reads.{hint}{_parent(tree.root)}"
    kinds = Counter(one.suffix.lower() or "no suffix" for one in images)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3))
    example = TABLE_TO_WRITE.replace("scan-001.png", str(images[0].relative_to(tree.root)))
    example = example.replace("scan-002.png", str(images[min(1, len(images) - 1)].relative_to(tree.root)))
    if faults:
        return f"{tree.root}: holds {len(images):,} images ({shown}). {faults[0]}{_parent(tree.root)}"
    return (
        f"{tree.root}: holds {len(images):,} images ({shown}) and nothing that says what they show. Put each into the "
        f"folder of its class, or write a table such as labels.csv there, then call vrft init again:\n{example}"
    )


def _parent(folder: Path) -> str:
    """The hint for a folder that may be a part of a set."""
    return f" If it is a part of a set, give the whole: vrft init {folder.absolute().parent}."


# --- class folders ----------------------------------------------------------------------------------------------------

NO_CLASSES = re.compile(
    r"(?i)(images?|imgs?|jpegimages|pictures?|photos?|masks?|labels?|labeltxt|annotations?|segmentations?"
    r"|segmentationclass|imagesets|ground.?truth|gt|data|dicom|dcm|nifti|raw|files?)(_?(tr|ts|train|test|val))?"
)
"""Names of folders that are no classes."""


def guess_classes(tree: Tree) -> list[Guess]:
    """Class folders, at the top or further inside."""
    for folder in tree.files:
        inner = tree.folders_in(folder)
        splits = [one for one in inner if split_named(one.name)]
        holders = (
            splits if splits and len(splits) == len([one for one in inner if _has_images(tree, one)]) else [folder]
        )
        counts = Counter[str]()
        for holder in holders:
            for one in tree.folders_in(holder):
                counts[one.name] += sum(1 for _ in _images_below(tree, one))
        classes = {name: count for name, count in counts.items() if count}
        if len(classes) < 2 or any(NO_CLASSES.fullmatch(name) or split_named(name) for name in classes):
            continue
        if tree.images_in(folder) or len(classes) > max(20, sum(classes.values()) // 2):
            continue  # a folder for each patient rather than for each class
        return [_of_classes(tree, folder, [one.name for one in holders if one != folder], classes)]
    return []


def _of_classes(tree: Tree, folder: Path, splits: list[str], classes: dict[str, int]) -> Guess:
    images = [
        image for name in classes for holder in splits or [""] for image in _images_below(tree, folder / holder / name)
    ]
    series = _series(tree, images, {folder / holder / name for name in classes for holder in splits or [""]})
    samples = list(dict.fromkeys(image.parent for image in images)) if series else images
    if series:
        classes = Counter(sample.relative_to(folder).parts[1 if splits else 0] for sample in samples)
    total = len(samples)
    numbers = sorted(int(name) for name in classes if re.fullmatch("[0-9]{1,2}", name))
    grades = len(numbers) == len(classes) >= 3 and numbers == list(range(len(numbers)))
    shown = ", ".join(f"{name} {count:,}" for name, count in sorted(classes.items())[:12])
    guess = Guess(
        "folder",
        "grading" if grades else "classification",
        70,
        "class folders",
        {"root": str(folder)},
        why=[f"{len(classes)} folders of classes with {total:,} {'series' if series else 'images'}: {shown}."],
        kinds=("grading", "classification") if numbers and len(numbers) == len(classes) else ("classification",),
    )
    if split_named(folder.absolute().name):
        guess.why.append(
            f"{folder.absolute().name} is the name of a split; {folder.absolute().parent} may hold all of the set."
        )
    if splits:
        guess.why.append(f"Above them are folders of splits: {', '.join(splits)}.")
    if grades:
        guess.why.append(
            "The classes are numbers from 0, so they were taken for grades; else set task.kind to classification."
        )
    if series:
        guess.data["series"] = True
        guess.notes["series"] = "each innermost folder holds several DICOM files: one sample"
        guess.data["slices"] = 4
        guess.notes["slices"] = "of each series, evenly spaced, shown together"
    elif any(image.name.lower().endswith((".nii", ".nii.gz")) for image in images):
        guess.data["slices"] = 3
        guess.notes["slices"] = "of each volume, evenly spaced, shown together; or page: N for one"
        guess.options.append("axis: coronal  # or sagittal; axial without it")
    inner = "[^/]+/" * (2 if splits else 1)
    add_patients(guess, [str(one.relative_to(folder)) for one in samples], (*PATTERNS, f"^{inner}([^/]+)/"))
    return guess


def _series(tree: Tree, images: Sequence[Path], classes: set[Path]) -> bool:
    """Whether images are DICOM files, several in each innermost folder, of which none is that of a class, and the
    first of these folders can be read as a series."""
    if not all(image.suffix.lower() in ("", ".dcm", ".dicom", ".ima") for image in images):
        return False
    sizes = Counter(image.parent for image in images)
    if classes & set(sizes) or min(sizes.values()) < 2 or any(tree.folders_in(folder) for folder in sizes):
        return False
    try:
        inspect(images[0].parent, any_page=True)
    except DataError:
        return False
    return True


def _has_images(tree: Tree, folder: Path) -> bool:
    return next(_images_below(tree, folder), None) is not None


def _images_below(tree: Tree, folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in tree.images_in(folder))
    for inner in tree.folders_in(folder):
        yield from _images_below(tree, inner)


def add_patients(guess: Guess, names: Sequence[str], patterns: Sequence[str] = PATTERNS) -> None:
    """Add a pattern of patients to a guess, where one fits all names and finds the same patient in several.

    Args:
        guess: gets ``data.patient``.
        names: the paths of all images below the root.
        patterns: tried in this order.
    """
    for pattern in patterns:
        found = [match[1] for name in names if (match := re.search(pattern, name.replace(os.sep, "/")))]
        sizes = Counter(found)
        if (
            len(found) < len(names)
            or not 3 <= len(sizes) < len(names)
            or max(sizes.values()) > max(20, len(names) // 5)
        ):
            continue
        guess.data["patient"] = pattern
        guess.notes["patient"] = f"guessed: {len(names):,} names, {len(sizes):,} patients; remove it if that is wrong"
        guess.why.append(
            f"The paths of {len(names):,} samples hold {len(sizes):,} names or numbers that repeat, which were taken "
            f"for patients: each stays in one split."
        )
        return


# --- MedMNIST ---------------------------------------------------------------------------------------------------------


def guess_medmnist(tree: Tree) -> list[Guess]:
    """The npz files of MedMNIST, by their names."""
    from vrft.data.medmnist import FACTS, single_label_datasets

    found: list[Guess] = []
    for file in tree.named(".npz"):
        match = re.fullmatch(r"([a-z]+mnist)(?:_(64|128|224))?", file.stem)
        if match is None or match[1] not in single_label_datasets():
            continue
        facts = FACTS[match[1]]
        ordinal = facts["task"] == "ordinal-regression"
        guess = Guess(
            "medmnist",
            "grading" if ordinal else "classification",
            60,
            "MedMNIST",
            {"dataset": match[1], "root": str(file.parent), "size": int(match[2] or 28)},
            why=[f"{file.name} is a MedMNIST set: {', '.join(facts['labels'])[:200]}; it has splits of its own."],
            kinds=("grading", "classification") if ordinal else ("classification",),
        )
        found.append(guess)
    return found


def read_json(path: Path) -> Any:
    """The content of a JSON file of at most 500 MB; None where it is none, or larger."""
    with suppress(OSError, ValueError, RecursionError, DataError):
        if path.stat().st_size <= 500_000_000:
            return json.loads(path.read_bytes())
    return None
