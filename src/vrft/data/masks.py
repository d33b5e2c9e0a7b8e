"""Mask images: every connected region of a mask becomes a box.

::

    root/images/stem.jpg, root/masks/stem.png    or    root/stem.bmp, root/stem.png in one folder
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vrft.data.annotations import SUFFIXES, Annotation, Counts, Record, image_size, share_out
from vrft.errors import DataError


class MaskReader:
    """Reads pairs of images and masks; the split of a pair follows from its stem (``share_out``).

    Args:
        images: the folder of the images.
        masks: the folder of the masks, which have the stems of the images; it may be the same, with another suffix.
        classes: the least grey value of each class, such as ``{128: "cytoplasm", 255: "nucleus"}``; a pixel belongs to
            the class with the nearest value, 0 is background. Lossy masks hold values in between.
        merge: all classes become one with this label, where one object has several parts.
        least_area: smaller regions, in pixels, are dropped and counted as specks.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        *,
        classes: Mapping[int, str],
        merge: str | None = None,
        least_area: int = 9,
    ) -> None:
        self.images, self.masks = Path(images), Path(masks)
        self.classes, self.merge, self.least_area = dict(classes), merge, least_area

    def read(self, split: str, counts: Counts) -> list[Record]:
        if not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder; it holds the images.")
        files = sorted(p for p in self.images.iterdir() if p.suffix.lower() in SUFFIXES)
        if self.images == self.masks:
            files = [p for p in files if p.suffix.lower() != ".png"]
        mine = [file for file, inside in zip(files, share_out([f.stem for f in files], split), strict=True) if inside]
        records = []
        for file in mine:
            mask = next(
                (m for s in (".png", *SUFFIXES) if (m := self.masks / f"{file.stem}{s}").is_file() and m != file), None
            )
            if mask is None:
                counts["not annotated"] += 1
                continue
            size = image_size(file)
            records.append(Record(file, size, tuple(self._annotations(mask, size, counts))))
        return records

    def _annotations(self, path: Path, size: tuple[int, int], counts: Counts) -> list[Annotation]:
        from scipy.ndimage import find_objects, label  # slow to import

        try:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as a mask ({error}).") from None
        if grey.shape[::-1] != size:
            raise DataError(f"{path}: is {grey.shape[1]} x {grey.shape[0]}, but its image is {size[0]} x {size[1]}.")
        values = np.array([0, *self.classes])
        nearest = values[np.abs(grey[..., None].astype(int) - values).argmin(axis=-1)]
        regions = {self.merge: nearest > 0} if self.merge else {n: nearest == v for v, n in self.classes.items()}
        found = []
        for name, region in regions.items():
            numbered, _ = label(region, structure=np.ones((3, 3)))
            for index, (rows, columns) in enumerate(find_objects(numbered), start=1):
                if (numbered[rows, columns] == index).sum() < self.least_area:
                    counts["speck"] += 1
                    continue
                found.append(Annotation(str(name), (columns.start, rows.start, columns.stop, rows.stop)))
        return found
