"""Mask images: every connected region of a mask becomes a box.

::

    root/images/stem.jpg, root/masks/stem.png    or    root/stem.bmp, root/stem.png in one folder

The meaning of the pixels of a mask:

- A palette image holds class indices, whatever its colours; more than 8 bits are whole numbers; 1 bit is 0 and 1, or 0
  and 255 where 255 is a class and 1 is not.
- 8-bit grey, and colours with equal channels, hold grey values. Where the classes are closer than 16 to each other or
  to 0, grey values are class indices. Otherwise they are levels: a pixel belongs to the nearest level, if its distance
  is less than a quarter of the way to the next; in a lossy format (JPEG, WebP) also at a greater distance, since edges
  are blurred. In a mask without any pixel so near to a class no class can be blurred, and other values are unknown.
- A mask drawn in transparency alone (one colour everywhere) is its alpha channel, and is counted. Other transparency is
  ignored where nothing lies below it, and refused elsewhere. Colours are refused; 0 is background.
- An unknown value beside classes is background, and is counted. A mask with unknown values or void and without a class
  does not state that nothing is there: its image is left out. Refused are a mask of 1 bit or grey that holds 0 and 1
  alone where classes are levels, and a set in which no mask of any split has a class and some have unknown values.
- A mask is turned by its own EXIF orientation; a mask of the size of the image as it is stored is turned with the
  image.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.data.annotations import Annotation, Counts, Record
from vrft.data.lookup import PLAIN, SUFFIXES, check_stems, parts_of, stem_of, suffix_of
from vrft.data.splits import in_split
from vrft.errors import DataError, reading
from vrft.images import DEEP, TURNS, ImageFacts, inspect, is_blank, load_upright, opened

APART = 16
"""Grey values of classes that are closer than this, or to 0, are class indices and not levels of grey."""

NAMED = 8
"""The greatest number of unknown values of a mask that are counted by their names."""

NEAR = 4
"""A pixel within 1 / NEAR of the way to the next level belongs to a level of grey, whatever the format."""

LOSSY = {"JPEG": 10, "MPO": 10, "WEBP": 10}
"""The greatest difference between the channels of a grey pixel, by format; elsewhere 0."""

ONLY_UNKNOWN = "masks without a class, with other values"
"""``Record.unsure`` of such a mask, which does not state that nothing is there."""

Kind = Literal["bit", "exact", "grey", "lossy"]
"""The meaning of the values of a mask: 0 and 1, whole numbers, or levels of grey, in a lossy format or not."""


class MaskReader:
    """Reads pairs of images and masks; the split of a pair is the hash of its stem (``in_split``).

    Args:
        images: the folder of the images.
        masks: the folder of the masks, which have the stems of the images; in the same folder masks are PNG files.
        classes: the value of each class, such as ``{128: "cytoplasm", 255: "nucleus"}`` or ``{1: "liver"}``.
        merge: a label for all classes together, where an object consists of several classes.
        least_area: in pixels; smaller regions are dropped and counted as specks, and an image with specks alone has
            findings without a box.
        void: the value of pixels that are neither a class nor background: regions end there, and an image whose mask
            holds it and no class is left out.

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
        self._class_found = False
        """Whether any mask so far, of any split, holds a class."""
        if void in self.classes:
            raise DataError(f"data.void is {void}, the value of the class {self.classes[void]!r}; leave one out.")

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the pairs of a split; see ``Reader.read``."""
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images.")
        suffixes = set(SUFFIXES) - ({".png"} if self.images == self.masks else set())
        files = check_stems(sorted(path for path in self.images.iterdir() if suffix_of(path) in suffixes))
        if not files:
            counts[f"no image in {self.images}"] += 1
        masks = self._masks_of(files)
        if files and not masks:
            raise DataError(
                f"{self.masks}: holds the mask of none of the {len(files)} images in {self.images}; "
                f"looked for {stem_of(files[0])}.png and other suffixes (data.masks names the folder)."
            )
        inside = in_split([stem_of(file) for file in files], split)
        own = [file for file, taken in zip(files, inside, strict=True) if taken]
        records = []
        unknown: dict[int, Path] = {}  # the first mask with each value that no class has
        for file in own:
            mask = masks.get(file)
            if mask is None:
                counts["not annotated"] += 1
                continue
            with reading(mask):
                records.append(self._record(file, mask, counts, unknown))
        others = masks.keys() - set(own)
        if unknown and not self._class_found and not any(self._has_class(file, masks[file]) for file in others):
            values = ", ".join(map(str, sorted(unknown)[:NAMED])) + (", ..." if len(unknown) > NAMED else "")
            raise DataError(
                f"{next(iter(unknown.values()))}: holds none of the values of data.classes "
                f"({', '.join(map(str, self.classes))}), nor does any mask of another image; found {values}. "
                f"Set data.classes to the values that the masks hold."
            )
        return records

    def _record(self, file: Path, mask: Path, counts: Counts, unknown: dict[int, Path]) -> Record:
        """An image and the boxes of its mask; it is unsure where the mask holds other values and no class."""
        facts = inspect(file, any_page=True)
        values, kind = read_mask(mask, facts, counts)
        values, known = self._classified(mask, values, kind, counts, unknown)
        inside = known & np.isin(values, list(self.classes))
        if inside.any():
            self._class_found = True
            annotations, specks = self._annotations(values, inside, counts)
            return Record(file, facts.size, tuple(annotations), left_out=tuple(specks))
        void = self.void is not None and bool((known & (values == self.void)).any())
        return Record(file, facts.size, unsure="only void" if void else "" if known.all() else ONLY_UNKNOWN)

    def _has_class(self, file: Path, mask: Path) -> bool:
        """Whether a mask, of any split, holds a class."""
        with reading(mask):
            self._record(file, mask, Counts(), {})
        return self._class_found

    def _masks_of(self, images: Sequence[Path]) -> dict[Path, Path]:
        """The mask of each image that has one: the file of the same stem, else of the stem in another letter case.

        Raises:
            DataError: an image has two masks, or a mask two images.
        """
        suffixes = PLAIN if self.images != self.masks else (".png",)
        exact, folded = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        for path in sorted(self.masks.iterdir()) if self.masks.is_dir() else ():
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                exact[path.stem].append(path)
        stems = {stem_of(image) for image in images}
        for stem, paths in exact.items():
            if stem not in stems:
                folded[_folded(stem)] += paths
        found, owner = dict[Path, Path](), dict[Path, Path]()
        for image in images:
            fitting = exact.get(stem_of(image)) or folded.get(_folded(stem_of(image))) or []
            if len(fitting) > 1:
                raise DataError(
                    f"{fitting[1]}: {fitting[0].name} beside it could be the mask of {image.name} as well; remove or "
                    f"rename one of them."
                )
            for mask in fitting:
                if (other := owner.setdefault(mask, image)) != image:
                    raise DataError(f"{mask}: could be the mask of {other.name} or of {image.name}; rename it.")
                found[image] = mask
        return found

    def _classified(
        self, path: Path, values: NDArray[np.int64], kind: Kind, counts: Counts, unknown: dict[int, Path]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The declared value of each pixel, and whether it has a declared value; unknown values are counted and kept.

        Raises:
            DataError: the mask holds class indices, and the classes are levels of grey.
        """
        declared = np.array(sorted({0, *self.classes} | ({self.void} if self.void is not None else set())))
        if kind == "bit" and 255 in declared and 1 not in declared:
            values = values * 255
        levels = bool(np.diff(declared).min() >= APART)
        if levels and kind in ("bit", "grey") and values.max() == 1:
            raise DataError(
                f"{path}: holds no value but 0 and 1, and data.classes has {', '.join(map(str, self.classes))}; "
                f"if 1 is a class, set data.classes to {{1: {next(iter(self.classes.values()))}}} (in all masks alike)."
            )
        if kind in ("bit", "exact") or not levels:
            belongs, known = values, np.isin(values, declared)
        else:
            nearest, distance = _nearest_level(declared)
            near = distance < 1 / NEAR
            present = np.unique(values)
            if (near[present] & (nearest[present] != 0)).any():
                taken = distance <= 1 / 2 if kind == "lossy" else near
            else:
                taken = distance == 0  # no class is present whose blurred edges the rest could be
            belongs, known = nearest[values], taken[values]
        others = np.unique(values[~known]).tolist()
        for value in others:
            unknown.setdefault(value, path)
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


def _folded(stem: str) -> str:
    return "/".join(parts_of(stem))


def _nearest_level(declared: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest level of each grey value, and its distance as a fraction of the gap to the next; each (256,)."""
    grey = np.arange(256)
    at = np.abs(grey[:, None] - declared).argmin(axis=1)
    gaps = np.diff(declared)
    below, above = gaps[np.maximum(at - 1, 0)], gaps[np.minimum(at, len(gaps) - 1)]
    nearest = declared[at]
    return nearest, np.abs(grey - nearest) / np.where(grey < nearest, below, above)


def read_mask(path: Path, image: ImageFacts, counts: Counts) -> tuple[NDArray[np.int64], Kind]:
    """Read the values of a mask.

    A mask that is drawn in transparency alone is its alpha channel, and is counted.

    Args:
        path: of the mask.
        image: the facts of its image.
        counts: gets the count.

    Returns:
        the values, (height, width) of the upright image, and their meaning.

    Raises:
        DataError: the file is missing or damaged, has colours or another size than its image, values that are not
            whole, or values below its transparency.
    """
    facts = inspect(path)
    with opened(path) as file:
        mode, lossy = file.mode, LOSSY.get(file.format or "", 0)
        if "beyond 8 bits" in facts.kinds and mode not in DEEP:
            raise DataError(f"{path}: has several channels of 16 bits; save the mask with one.")
        mask = load_upright(file, lambda loaded: _one_channel(path, loaded, counts))
    if mask.size not in (image.size, image.stored):
        (width, height), (wide, high) = mask.size, image.size
        raise DataError(f"{path}: is {width} x {height}, but its image is {wide} x {high}.")
    if mask.size != image.size:
        mask = mask.transpose(TURNS[image.orientation])
    values = np.asarray(mask)
    if values.ndim == 3:
        if int(np.ptp(values, axis=2).max()) > lossy:
            remedy = "save the numbers of the classes, as a palette image or in grey"
            raise DataError(f"{path}: is a mask in colours; {remedy}.")
        values = values[..., 1]
    if values.dtype.kind == "f" and not bool((np.isfinite(values) & (values == np.rint(values))).all()):
        raise DataError(f"{path}: holds values that are no whole numbers; save the numbers of the classes.")
    exact = mode in (*DEEP, "P", "PA")
    return values.astype(np.int64), "bit" if mode == "1" else "exact" if exact else "lossy" if lossy else "grey"


def _one_channel(path: Path, mask: Image.Image, counts: Counts) -> Image.Image:
    """Class indices or grey without transparency, or RGB, whose channels may be equal."""
    if mask.mode in (*DEEP, "1", "L", "P", "RGB"):
        return mask
    if mask.mode in ("LA", "PA", "RGBA"):
        alpha = mask.getchannel("A")
        colours = [mask.getchannel(name) for name in mask.getbands()[:-1]]
        if all(map(is_blank, colours)) and (not is_blank(alpha) or alpha.getpixel((0, 0)) == 0):
            counts["masks drawn in transparency"] += 1
            return alpha
        if not is_blank(alpha):
            clear = np.asarray(alpha) == 0
            if any(bool(np.asarray(colour)[clear].any()) for colour in colours):
                raise DataError(f"{path}: holds values below its transparency; save the mask without transparency.")
    if mask.mode == "PA":
        return mask.getchannel("P")
    return mask.getchannel("L") if mask.mode == "LA" else mask.convert("RGB")
