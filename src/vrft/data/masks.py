"""Mask images: every connected region of a mask becomes a box.

::

    root/images/stem.jpg, root/masks/stem.png    or    root/stem.bmp, root/stem.png in one folder

What the pixels of a mask mean:

- A palette image holds numbers of classes, whatever its colours; more than 8 bits are whole numbers; 1 bit is 0 and 1,
  or 0 and 255 where the classes know 255 and not 1.
- 8-bit grey, and colours whose channels are equal, hold grey values. Where those of the classes are closer than 16 to
  each other or to 0, they are numbers of classes. Else they are levels: a pixel belongs to the nearest one, if that is
  nearer than a quarter of the way to the next; in a lossy format (JPEG, WebP) also beyond, since edges are blurred
  there. A mask without any pixel so near to a class has no blurred classes, and all its other values are strange.
- A mask drawn in transparency alone (one colour everywhere) is its alpha channel, and is counted. Other transparency is
  ignored where nothing lies below it, and refused elsewhere. Colours are refused; 0 is background.
- A value that no class has is background beside classes, and is counted by its name. A mask that holds no class and
  such values, or void, is no statement that nothing is there: its image is left out. One of 1 bit or grey that holds 0
  and 1 alone where classes are levels is refused, and so is a set in which, in whatever split, no mask has a class and
  some have others.
- A mask is turned by its own EXIF orientation; one of the size of the image as it is stored is turned with the image.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.data.annotations import Annotation, Counts, Record, share_out
from vrft.data.lookup import SUFFIXES, one_a_stem, parts_of
from vrft.errors import DataError, reading
from vrft.images import DEEP, TURNS, ImageFacts, inspect, is_blank, load_upright, opened

APART = 16
"""Grey values of classes that are nearer to each other, or to 0, are numbers of classes and not levels of grey."""

NAMED = 8
"""Of more undeclared values in one mask none is named."""

NEAR = 4
"""Nearer than this part of the way to the next level of grey a pixel is one of a class, whatever the format."""

LOSSY = {"JPEG": 10, "MPO": 10, "WEBP": 10}
"""How much the channels of grey may differ, by format; elsewhere they are equal."""

ONLY_STRANGE = "masks without a class, with other values"
"""Of these nobody says that nothing is there."""

Kind = Literal["bit", "exact", "grey", "lossy"]
"""How the values of a mask are meant: 0 and 1, whole numbers, or levels of grey, in a lossy format or not."""


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
        if not files:
            counts[f"no image in {self.images}"] += 1
        masks = self._masks_of(files)
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
            records.append(record)
        others = ((file, masks[file]) for file in masks.keys() - set(mine))
        if strange and not self._holds_a_class and not any(self._occurs(*pair) for pair in others):
            met = ", ".join(map(str, sorted(strange)[:NAMED])) + (", ..." if len(strange) > NAMED else "")
            raise DataError(
                f"{next(iter(strange.values()))}: holds none of the values of data.classes "
                f"({', '.join(map(str, self.classes))}), nor does any mask of another image; found {met}. "
                f"Set data.classes to the values that the masks hold."
            )
        return records

    def _record(self, file: Path, mask: Path, counts: Counts, strange: dict[int, Path]) -> Record:
        """An image and the boxes of its mask; it is unsure where that holds no class, and more than background."""
        facts = inspect(file, any_page=True)
        values, kind = read_mask(mask, facts, counts)
        values, known = self._classified(mask, values, kind, counts, strange)
        inside = known & np.isin(values, list(self.classes))
        if inside.any():
            self._holds_a_class = True
            annotations, specks = self._annotations(values, inside, counts)
            return Record(file, facts.size, tuple(annotations), left_out=tuple(specks))
        void = self.void is not None and bool((known & (values == self.void)).any())
        return Record(file, facts.size, unsure="only void" if void else "" if known.all() else ONLY_STRANGE)

    def _occurs(self, file: Path, mask: Path) -> bool:
        """Whether a class occurs in a mask, which may be one of another split."""
        with reading(mask):
            self._record(file, mask, Counts(), {})
        return self._holds_a_class

    def _masks_of(self, images: Sequence[Path]) -> dict[Path, Path]:
        """The mask of each image that has one: the file of the same stem, else of the stem in other letters.

        Raises:
            DataError: two masks could be that of an image, or a mask that of two images.
        """
        alone = self.images != self.masks
        every = sorted(self.masks.iterdir()) if self.masks.is_dir() else []
        exact, alike = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        for path in every:
            if path.suffix.lower() in (SUFFIXES if alone else (".png",)) and not path.name.startswith("."):
                exact[path.stem].append(path)
        stems = {image.stem for image in images}
        for stem, paths in exact.items():
            if stem not in stems:
                alike[_alike(stem)] += paths
        found, owner = dict[Path, Path](), dict[Path, Path]()
        for image in images:
            fitting = exact.get(image.stem) or alike.get(_alike(image.stem)) or []
            if len(fitting) > 1:
                told = f"{fitting[0].name} beside it could be the mask of {image.name} as well"
                raise DataError(f"{fitting[1]}: {told}; remove or rename one of them.")
            for mask in fitting:
                if (other := owner.setdefault(mask, image)) != image:
                    raise DataError(f"{mask}: could be the mask of {other.name} or of {image.name}; rename it.")
                found[image] = mask
        return found

    def _classified(
        self, path: Path, values: NDArray[np.int64], kind: Kind, counts: Counts, strange: dict[int, Path]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The declared value of each pixel, and whether it has one; values that none is are counted and kept.

        Raises:
            DataError: the mask holds numbers of classes, and the classes are levels of grey.
        """
        declared = np.array(sorted({0, *self.classes} | ({self.void} if self.void is not None else set())))
        if kind == "bit" and 255 in declared and 1 not in declared:
            values = values * 255
        levels = bool(np.diff(declared).min() >= APART)
        if levels and kind in ("bit", "grey") and values.max() == 1:
            told = (
                f"if 1 is a class, set data.classes to {{1: {next(iter(self.classes.values()))}}} (in all masks alike)"
            )
            raise DataError(
                f"{path}: holds no value but 0 and 1, and data.classes has {', '.join(map(str, self.classes))}; {told}."
            )
        if kind in ("bit", "exact") or not levels:
            belongs, known = values, np.isin(values, declared)
        else:
            nearest, distance = _nearest_level(declared)
            near = distance < 1 / NEAR
            met = np.unique(values)
            if (near[met] & (nearest[met] != 0)).any():
                taken = distance <= 1 / 2 if kind == "lossy" else near
            else:
                taken = distance == 0  # nothing is there of which the rest could be the edges
            belongs, known = nearest[values], taken[values]
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


def _alike(stem: str) -> str:
    return "/".join(parts_of(stem))


def _nearest_level(declared: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each grey value the nearest of some levels, and how far it is, as a share of the way to the next one."""
    grey = np.arange(256)
    at = np.abs(grey[:, None] - declared).argmin(axis=1)
    gaps = np.diff(declared)
    below, above = gaps[np.maximum(at - 1, 0)], gaps[np.minimum(at, len(gaps) - 1)]
    nearest = declared[at]
    return nearest, np.abs(grey - nearest) / np.where(grey < nearest, below, above)


def read_mask(path: Path, image: ImageFacts, counts: Counts) -> tuple[NDArray[np.int64], Kind]:
    """The values of a mask, (height, width) of its image upright, and how they are meant.

    A mask that is drawn in transparency alone is its alpha channel, and is counted.

    Raises:
        DataError: the file is missing or damaged, has colours or another size than its image, values that are not
            whole, or some below its transparency.
    """
    facts = inspect(path)
    with opened(path) as file:
        mode, lossy = file.mode, LOSSY.get(file.format or "", 0)
        if "beyond 8 bits" in facts.kinds and mode not in DEEP:
            raise DataError(f"{path}: has several channels of 16 bits; save the mask with one.")
        mask = load_upright(file, lambda loaded: _one_channel(path, loaded, counts))
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
    return values.astype(np.int64), "bit" if mode == "1" else "exact" if exact else "lossy" if lossy else "grey"


def _one_channel(path: Path, mask: Image.Image, counts: Counts) -> Image.Image:
    """Numbers or grey without transparency, or RGB of which the channels may be equal."""
    if mask.mode in (*DEEP, "1", "L", "P", "RGB"):
        return mask
    if mask.mode in ("LA", "PA", "RGBA"):
        alpha = mask.getchannel("A")
        colours = [mask.getchannel(name) for name in mask.getbands()[:-1]]
        plain = all(map(is_blank, colours))
        if plain and (not is_blank(alpha) or alpha.getpixel((0, 0)) == 0):
            counts["masks drawn in transparency"] += 1
            return alpha
        if not is_blank(alpha):
            clear = np.asarray(alpha) == 0
            if any(bool(np.asarray(colour)[clear].any()) for colour in colours):
                raise DataError(f"{path}: holds values below its transparency; save the mask without transparency.")
    if mask.mode == "PA":
        return mask.getchannel("P")
    return mask.getchannel("L") if mask.mode == "LA" else mask.convert("RGB")
