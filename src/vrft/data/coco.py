"""COCO: one JSON a split, with boxes [x, y, width, height] or polygons.

::

    root/{train,valid or val,test}/_annotations.coco.json, the images beside it
    root/annotations/instances_{train,val,test}*.json, the images in root/{train,val,test}*
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from vrft.boxes import hull
from vrft.data.annotations import FOLDERS, Annotation, Counts, Record, image_size
from vrft.errors import DataError


class COCOReader:
    """Reads COCO JSON files.

    Args:
        root: the folder that holds a folder a split.
        boxes: ``bbox`` takes the boxes as they are written, ``polygon`` the hull of each segmentation.
        unannotated: what an image without annotations is: ``empty`` (nothing is there), or to ``skip`` (nobody looked).
    """

    def __init__(
        self,
        root: Path,
        *,
        boxes: Literal["bbox", "polygon"] = "bbox",
        unannotated: Literal["empty", "skip"] = "empty",
    ) -> None:
        self.root, self.boxes, self.unannotated = Path(root), boxes, unannotated

    def read(self, split: str, counts: Counts) -> list[Record]:
        path = self._file(split)
        if path is None:
            return []
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            names = {category["id"]: category["name"] for category in content["categories"]}
            images, annotations = content["images"], content["annotations"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: is no COCO file ({error!r}); expected images, annotations, categories.") from None
        of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in annotations:
            of_image[annotation.get("image_id")].append(annotation)
        counts["annotation without image"] += sum(
            len(found) for image_id, found in of_image.items() if image_id not in {image["id"] for image in images}
        )
        records = []
        for image in images:
            found = of_image[image["id"]]
            file = self._image(path, image["file_name"])
            if file is None:
                counts["image missing"] += 1
                continue
            if not found:
                counts["not annotated"] += 1
                if self.unannotated == "skip":
                    continue
            size = image_size(file)
            if (image.get("width"), image.get("height")) != size:
                counts["size differs"] += 1
            records.append(Record(file, size, tuple(self._annotation(path, one, names, counts) for one in found)))
        return records

    def _file(self, split: str) -> Path | None:
        for folder in FOLDERS[split]:
            if (path := self.root / folder / "_annotations.coco.json").is_file():
                return path
            if found := sorted((self.root / "annotations").glob(f"instances_{folder}*.json")):
                return found[0]
        if not any((self.root / folder).is_dir() for folders in FOLDERS.values() for folder in folders):
            raise DataError(f"{self.root}: holds no train, valid or test folder with _annotations.coco.json.")
        return None

    def _image(self, path: Path, name: str) -> Path | None:
        folders = [path.parent, path.parent / "images", *sorted(self.root.glob(f"{path.stem.split('_')[-1]}*"))]
        return next((file for folder in folders if (file := folder / name).is_file()), None)

    def _annotation(self, path: Path, one: dict[str, Any], names: dict[Any, str], counts: Counts) -> Annotation:
        where = f"{path}: annotation {one.get('id')}"
        if one.get("category_id") not in names:
            raise DataError(f"{where} has category {one.get('category_id')!r}, which categories does not list.")
        try:
            if self.boxes == "polygon" and one.get("segmentation"):
                corners = [float(v) for ring in one["segmentation"] for v in ring]
                if len(corners) < 6 or len(corners) % 2:
                    raise ValueError("no polygon")
                box = hull(corners)
            else:
                if self.boxes == "polygon":
                    counts["no polygon"] += 1
                x, y, width, height = map(float, one["bbox"])
                box = (x, y, x + width, y + height)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where} has no bbox [x, y, width, height] and no polygon.") from None
        return Annotation(names[one["category_id"]], box)
