"""Mask images: every connected region of a mask becomes a box.

::

    root/images/stem.jpg, root/masks/stem.png    or    root/stem.bmp, root/stem.png in one folder

What the pixels of a mask mean:

- A palette image holds numbers of classes, whatever its colours; more than 8 bits are whole numbers; 1 bit is 0 and 1,
  or 0 and 255 where the classes know 255 and not 1.
- 8-bit grey, and colours whose channels are equal, hold grey values. Where those of the classes are at least 16 apart,
  a pixel belongs to the nearest one, since lossy masks hold values in between; closer ones are numbers of classes.
- Other colours are refused, transparency is ignored, 0 is background.
- A value that no class has is background too, and is counted by its name; where no mask of the set, in whatever split,
  has a class and some have such values, they are refused.
- A mask is turned by its own EXIF orientation; one of the size of the image as it is stored is turned with the image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.data.annotations import Annotation, Counts, Record, share_out
from vrft.data.lookup import SUFFIXES, one_a_stem
from vrft.errors import DataError, reading
from vrft.images import DEEP, TURNS, ImageFacts, inspect, load_upright, opened

APART = 16
"""Grey values of classes that are nearer to each other, or to 0, are numbers of classes and not levels of grey."""

NAMED = 8
"""Of more undeclared values in one mask none is named."""

LOSSY = {"JPEG": 10, "MPO": 10, "WEBP": 10}
"""How much the channels of grey may differ, by format; elsewhere they are equal."""

Kind = Literal["bit", "exact", "grey"]
"""How the values of a mask are meant: 0 and 1, whole numbers, or levels of grey."""


class MaskReader:
    """Reads pairs of images and masks; the split of a pair follows from its stem (``share_out``).

    Args:
        images: the folder of the images.
        masks: the folder of the masks, which have the stems of the images; it may be the same, with another suffix.
        classes: the value of each class, such as ``{128: "cytoplasm", 255: "nucleus"}`` or ``{1: "liver"}``.
        merge: all classes become one with this label, where one object has several parts.
        least_area: smaller regions, in pixels, are dropped and counted as specks; an image that holds nothing else has
            findings without a box.
        void: the value of what is neither a class nor background: regions end there, and an image whose mask holds it
            and no class is left out, since nobody says that nothing is there.

    Raises:
        DataError: void is the value of a class.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        *,
        classes: Mapping[int, str],
        merge: str | None = None,
        least_area: int = 9,
        void: int | None = None,
    ) -> None:
        self.images, self.masks = Path(images), Path(masks)
        self.classes, self.merge, self.least_area, self.void = dict(classes), merge, least_area, void
        self._holds_a_class = False
        """Whether a class occurred in any mask so far, of whatever split."""
        if void in self.classes:
            raise DataError(f"data.void is {void}, the value of the class {self.classes[void]!r}; leave one out.")

    def read(self, split: str, counts: Counts) -> list[Record]:
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images.")
        files = sorted(p for p in self.images.iterdir() if p.suffix.lower() in SUFFIXES)
        if self.images == self.masks:
            files = [p for p in files if p.suffix.lower() != ".png"]
        files = one_a_stem(files)
        masks = {file: mask for file in files if (mask := self._mask(file)) is not None}
        if files and not masks:
            raise DataError(
                f"{self.masks}: holds the mask of none of the {len(files)} images in {self.images}; "
                f"looked for {files[0].stem}.png and other suffixes (data.masks names the folder)."
            )
        mine = [file for file, inside in zip(files, share_out([f.stem for f in files], split), strict=True) if inside]
        records = []
        strange: dict[int, Path] = {}  # where each value of no class occurs first
        for file in mine:
            mask = masks.get(file)
            if mask is None:
                counts["not annotated"] += 1
                continue
            with reading(mask):
                record = self._record(file, mask, counts, strange)
            records += [record] if record else []
        others = ((file, masks[file]) for file in masks.keys() - set(mine))
        if strange and not self._holds_a_class and not any(self._occurs(*pair) for pair in others):
            met = ", ".join(map(str, sorted(strange)[:NAMED])) + (", ..." if len(strange) > NAMED else "")
            raise DataError(
                f"{next(iter(strange.values()))}: holds none of the values of data.classes "
                f"({', '.join(map(str, self.classes))}), nor does any mask of another image; found {met}."
            )
        return records

    def _record(self, file: Path, mask: Path, counts: Counts, strange: dict[int, Path]) -> Record | None:
        """An image and the boxes of its mask, or None where the mask is void alone."""
        facts = inspect(file, any_page=True)
        values, known = self._classified(mask, *read_mask(mask, facts), counts, strange)
        inside = known & np.isin(values, list(self.classes))
        self._holds_a_class = self._holds_a_class or bool(inside.any())
        annotations, specks = self._annotations(values, inside, counts)
        if not inside.any() and self.void is not None and (known & (values == self.void)).any():
            counts["only void"] += 1
            return None
        return Record(file, facts.size, tuple(annotations), left_out=tuple(specks))

    def _occurs(self, file: Path, mask: Path) -> bool:
        """Whether a class occurs in a mask, which may be one of another split."""
        with reading(mask):
            self._record(file, mask, Counts(), {})
        return self._holds_a_class

    def _mask(self, image: Path) -> Path | None:
        places = (self.masks / f"{image.stem}{suffix}" for suffix in (".png", *SUFFIXES))
        return next((place for place in places if place.is_file() and place != image), None)

    def _classified(
        self, path: Path, values: NDArray[np.int64], kind: Kind, counts: Counts, strange: dict[int, Path]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The declared value of each pixel, and whether it has one; values that none is are counted and kept."""
        declared = np.array(sorted({0, *self.classes} | ({self.void} if self.void is not None else set())))
        if kind == "bit" and 255 in declared and 1 not in declared:
            values = values * 255
        if kind != "grey" or np.diff(declared).min() < APART:
            belongs, known = values, np.isin(values, declared)
        else:
            belongs = declared[np.abs(np.arange(256)[:, None] - declared).argmin(axis=1)][values]
            known = values <= declared[-1] + (declared[-1] - declared[-2]) / 2
        others = np.unique(values[~known]).tolist()
        for value in others:
            strange.setdefault(value, path)
        if len(others) > NAMED:
            counts[f"masks with more than {NAMED} values that no class has"] += 1
        else:
            counts.update(f"masks with {value}, which no class has" for value in others)
        return belongs, known

    def _annotations(
        self, values: NDArray[np.int64], inside: NDArray[np.bool_], counts: Counts
    ) -> tuple[list[Annotation], list[str]]:
        """The boxes of the regions, and the labels of those that are too small."""
        from scipy.ndimage import find_objects, label  # slow to import

        named = {value: inside & (values == value) for value in self.classes}
        regions = [(self.merge, inside)] if self.merge else [(self.classes[value], one) for value, one in named.items()]
        found, specks = list[Annotation](), list[str]()
        for name, region in regions:
            numbered, _ = label(region, structure=np.ones((3, 3)))
            for index, (rows, columns) in enumerate(find_objects(numbered), start=1):
                if (numbered[rows, columns] == index).sum() < self.least_area:
                    counts["speck"] += 1
                    specks.append(str(name))
                    continue
                found.append(Annotation(str(name), (columns.start, rows.start, columns.stop, rows.stop)))
        return found, specks


def read_mask(path: Path, image: ImageFacts) -> tuple[NDArray[np.int64], Kind]:
    """The values of a mask, (height, width) of its image upright, and how they are meant.

    Raises:
        DataError: the file is missing or damaged, has colours or another size than its image, or values that are not
            whole.
    """
    facts = inspect(path)
    with opened(path) as file:
        mode, lossy = file.mode, LOSSY.get(file.format or "", 0)
        if "beyond 8 bits" in facts.kinds and mode not in DEEP:
            raise DataError(f"{path}: has several channels of 16 bits; save the mask with one.")
        mask = load_upright(file, _one_channel)
    if mask.size not in (image.size, image.stored):
        told = " x ".join(map(str, image.size))
        raise DataError(f"{path}: is {mask.size[0]} x {mask.size[1]}, but its image is {told}.")
    if mask.size != image.size:
        mask = mask.transpose(TURNS[image.orientation])
    values = np.asarray(mask)
    if values.ndim == 3:
        if int(np.ptp(values, axis=2).max()) > lossy:
            raise DataError(
                f"{path}: is a mask in colours; save the numbers of the classes, as a palette image or in grey."
            )
        values = values[..., 1]
    if values.dtype.kind == "f" and not bool((np.isfinite(values) & (values == np.rint(values))).all()):
        raise DataError(f"{path}: holds values that are no whole numbers; save the numbers of the classes.")
    exact = mode in DEEP or mode in ("P", "PA")
    return values.astype(np.int64), "bit" if mode == "1" else "exact" if exact else "grey"


def _one_channel(mask: Image.Image) -> Image.Image:
    """Numbers or grey without transparency, or RGB of which the channels may be equal."""
    if mask.mode in (*DEEP, "1", "L", "P", "RGB"):
        return mask
    if mask.mode == "PA":
        return mask.getchannel("P")
    return mask.getchannel("L") if mask.mode == "LA" else mask.convert("RGB")
