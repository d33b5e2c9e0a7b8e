"""YOLO: one text file an image; boxes, polygons and oriented boxes.

::

    root/{train,valid or val,test}/images/stem.jpg   .../labels/stem.txt   root/data.yaml with names
    root/images/{train,val,test}/stem.jpg            root/labels/{train,val,test}/stem.txt

Of a line, ``class cx cy w h`` is a box and ``class x1 y1 x2 y2 x3 y3 ...`` a polygon, both in shares of the image;
``x1 y1 ... x4 y4 name difficult`` (DOTA, in ``labelTxt``) is an oriented box in pixels. Polygons and oriented boxes
become the box around them. An empty file says that nothing is there; a missing one that nobody looked.
"""

import math
from pathlib import Path

import yaml

from vrft.boxes import Size, hull
from vrft.data.annotations import FOLDERS, SUFFIXES, Annotation, Counts, Record, image_size
from vrft.errors import DataError


class YOLOReader:
    """Reads YOLO and DOTA text files.

    Args:
        root: the folder that holds a folder a split and ``data.yaml``; paths inside that file are not followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        path = self.root / "data.yaml"
        try:
            names = yaml.safe_load(path.read_text(encoding="utf-8-sig"))["names"]
            self.names = list(map(str, names.values() if isinstance(names, dict) else names))
        except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise DataError(f"{path}: cannot be read ({error}); expected names: [first class, ...].") from None

    def read(self, split: str, counts: Counts) -> list[Record]:
        places = [(self.root / name / "images", self.root / name) for name in FOLDERS[split]]
        places += [(self.root / "images" / name, self.root) for name in FOLDERS[split]]
        images, around = next((place for place in places if place[0].is_dir()), (None, self.root))
        if images is None:
            return []
        inner = images.name if images.parent.name == "images" else ""
        records = []
        for image in sorted(p for p in images.iterdir() if p.suffix.lower() in SUFFIXES):
            files = (around / name / inner / f"{image.stem}.txt" for name in ("labels", "labelTxt"))
            labels = [file for file in files if file.is_file()]
            if not labels:
                counts["not annotated"] += 1
                continue
            size = image_size(image)
            lines = labels[0].read_text(encoding="utf-8-sig").splitlines()
            annotations = []
            for number, line in enumerate(lines, start=1):
                if line.strip() and not line.startswith(("imagesource:", "gsd:")):
                    annotations.append(self._annotation(line.split(), size, f"{labels[0]}:{number}", counts))
            records.append(Record(image, size, tuple(annotations)))
        return records

    def _annotation(self, parts: list[str], size: Size, where: str, counts: Counts) -> Annotation:
        numbers = [_number(part) for part in parts]
        if len(parts) in (9, 10) and None not in numbers[:8] and (numbers[8] is None or len(parts) == 10):
            counts["oriented"] += 1  # DOTA: corners in pixels, then the class by its name
            return Annotation(parts[8], hull([n for n in numbers[:8] if n is not None]))
        values = [number for number in numbers if number is not None]
        if len(values) != len(parts) or len(parts) < 5 or len(parts) == 6 or len(parts) % 2 == 0:
            raise DataError(
                f"{where}: expected class cx cy w h, or class x1 y1 x2 y2 x3 y3 ..., found {' '.join(parts)!r}."
            )
        kind = int(values[0])
        if kind != values[0] or not 0 <= kind < len(self.names):
            raise DataError(f"{where}: class {parts[0]} is not in names of data.yaml, which has {len(self.names)}.")
        if len(values) == 5:
            x, y, width, height = values[1:]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            counts["polygon"] += 1
            box = hull(values[1:])
        wide, high = size
        return Annotation(self.names[kind], (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
