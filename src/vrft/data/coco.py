"""COCO: a JSON file for each split, with boxes [x, y, width, height], polygons or RLE masks.

::

    root/{train,valid or val,test}/_annotations.coco.json, the images beside it or in images/
    root/annotations/instances_{train,val,test}*.json, the images in root/{train,val,test}*, root/images or root

A crowd region (``iscrowd``) stands for a group of objects and is no box, unless all annotations of a file are marked
so, as some tools do that write RLE masks. Ids that differ in type alone (1 and "1") are equal unless this is ambiguous.
A file that is listed twice is one image with the annotations of both entries. An image without annotations is empty;
where some annotations refer to no image, these may be its own, and it is left out.
"""

import json
import math
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from vrft.boxes import Size, hull
from vrft.data.annotations import Annotation, Counts, Record, image_size, parse_box, parse_number, parse_size
from vrft.data.lookup import ImageFiles
from vrft.data.splits import SPLIT_NAMES
from vrft.errors import DataError, reading
from vrft.sample import Box
from vrft.textfiles import read_text

NO_BOXES = {"captions", "keypoints", "panoptic", "stuff", "info"}
"""Words in the names of files without boxes."""

Id = int | float | str
T = TypeVar("T")


class ById(dict[Id, T]):
    """A mapping by id that also finds an id of another type (1 and "1"), where only one id can be meant."""

    @cached_property
    def _same_text(self) -> dict[Id, list[Id]]:
        found = defaultdict[Id, list[Id]](list)
        for key in self:
            found[_without_type(key)].append(key)
        return found

    def key_of(self, key: Id, counts: Counts, where: str) -> Id | None:
        """The id in the finished mapping that equals ``key``, or None.

        Args:
            key: the id of a reference.
            counts: gets ``id of another type`` where the types differ.
            where: the place of the reference, for the message.

        Raises:
            DataError: two ids could be meant.
        """
        if key in self:
            return key
        meant = self._same_text.get(_without_type(key), [])
        if len(meant) > 1:
            raise DataError(f"{where} refers to {key!r}, which could be {meant[0]!r} or {meant[1]!r}; write one form.")
        counts["id of another type"] += len(meant)
        return meant[0] if meant else None


def _without_type(key: Id) -> Id:
    if isinstance(key, str):
        text = key.strip()
        return int(text) if text.isdecimal() and len(text) < 1000 else text
    return int(key) if key == int(key) else key


class COCOReader:
    """Reads COCO JSON files.

    Args:
        root: the folder that holds a folder for each split, or ``annotations``; a single JSON file that no split names
            holds the images of all, and is read as those of ``train``.
        boxes: ``bbox`` takes the boxes as they are written, ``polygon`` the hull of each segmentation.
        unannotated: an image without annotations is ``empty`` (nothing is there), or is left out (``skip``).
        crowd: crowd regions are left out and counted (``skip``), or read as boxes (``box``).
        encoding: of files that are not UTF-8, where it is known.
    """

    def __init__(
        self,
        root: Path,
        *,
        boxes: Literal["bbox", "polygon"] = "bbox",
        unannotated: Literal["empty", "skip"] = "empty",
        crowd: Literal["skip", "box"] = "skip",
        encoding: str | None = None,
    ) -> None:
        self.root, self.boxes, self.unannotated = Path(root), boxes, unannotated
        self.crowd, self.encoding = crowd, encoding

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the records of a split; see ``Reader.read``."""
        path = self._file(split)
        if path is None:
            return []
        with reading(path):
            return self._records(path, split, counts)

    def _records(self, path: Path, split: str, counts: Counts) -> list[Record]:
        content = self._content(path, counts)
        names = self._categories(path, content)
        images = self._images(path, content, counts)
        of_image, unmatched = self._annotations(path, content, images, counts)
        unsure = ""
        if unmatched:
            example = reprlib.repr(unmatched[0])
            unsure = f"not annotated, while {len(unmatched)} annotations refer to no image, such as image_id {example}"
        counts[f"no image in {path}"] += not images
        files = self._files(path, split)
        found: dict[Path, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for key, image in images.items():
            file = files.find(image["file_name"], counts)
            if file is None:
                counts["image missing"] += 1
            elif file in found:
                counts["listed twice"] += 1
                found[file][1].extend(of_image.get(key, ()))
            else:
                found[file] = image, list(of_image.get(key, ()))
        files.check_found(path, counts)
        every = [one for _, annotations in found.values() for one in annotations]
        crowds = self.crowd == "box" or all(map(_is_crowd, every))
        records = []
        for file, (image, annotations) in found.items():
            if not annotations:
                counts["not annotated"] += 1
                if self.unannotated == "skip":
                    continue
            size, stated = image_size(file), parse_size(image.get("width"), image.get("height"))
            boxes, left_out = [], []
            for one in annotations:
                known = one.get("id")
                where = f"{path}: annotation {known}" if type(known) in (int, str) else f"{path}: {one['']}"
                label = names[_category(one, names, counts, where)]
                if _is_crowd(one) and not crowds:
                    counts["crowd"] += 1
                    left_out.append(label)
                else:
                    counts["crowd as box"] += _is_crowd(one)
                    boxes.append(Annotation(label, self._box(one, where, stated or size, counts)))
            why = "" if annotations else unsure
            records.append(Record(file, size, tuple(boxes), stated, tuple(left_out), why))
        return records

    def _content(self, path: Path, counts: Counts) -> dict[str, Any]:
        try:
            content = json.loads(read_text(path, counts, self.encoding))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: is no JSON ({error.msg}); save or fetch the file again.") from None
        except RecursionError:
            raise DataError(f"{path}: is no COCO file, lists in lists without end; expected images.") from None
        keys = ("images", "annotations", "categories")
        if isinstance(content, dict) and all(key in content for key in keys):
            return content
        found = f"holds a {type(content).__name__}"
        if isinstance(content, dict):
            found = f"lacks {', '.join(key for key in keys if key not in content)}"
        raise DataError(f"{path}: {found}; expected a COCO file with images, annotations and categories.")

    def _categories(self, path: Path, content: dict[str, Any]) -> ById[str]:
        names: ById[str] = ById()
        for index, category in enumerate(_rows(path, content, "categories")):
            where = f"{path}: categories[{index}]"
            key, name = _id(category, "id", where), category.get("name")
            if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
                raise DataError(f"{where} has the name {reprlib.repr(name)}; expected a text.")
            if key in names and names[key] != str(name).strip():
                raise DataError(f"{where} has the id {key!r} of {names[key]!r}; each category needs its own.")
            if key not in names:
                names[key] = str(name).strip()
        return names

    def _images(self, path: Path, content: dict[str, Any], counts: Counts) -> ById[dict[str, Any]]:
        images: ById[dict[str, Any]] = ById()
        for index, image in enumerate(_rows(path, content, "images")):
            name = image.get("file_name")
            where = f"{path}: images[{index}]" + (f" ({name})" if isinstance(name, str) else "")
            key = _id(image, "id", where)
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{where} has the file_name {reprlib.repr(name)}; expected the name of a file.")
            if key not in images:
                images[key] = image
            elif images[key]["file_name"] == name:
                counts["listed twice"] += 1
            else:
                raise DataError(f"{where} has the id {key!r} of {images[key]['file_name']}; each image needs its own.")
        return images

    def _annotations(
        self, path: Path, content: dict[str, Any], images: ById[dict[str, Any]], counts: Counts
    ) -> tuple[dict[Id, list[dict[str, Any]]], list[Id]]:
        """The annotations of each image by its id, with their place in the file under the empty key; and the image ids
        in other annotations, which are not listed."""
        of_image: dict[Id, list[dict[str, Any]]] = {}
        unmatched: list[Id] = []
        for index, annotation in enumerate(_rows(path, content, "annotations")):
            where = f"{path}: annotations[{index}]"
            wanted = _id(annotation, "image_id", where)
            key = images.key_of(wanted, counts, where)
            if key is None:
                unmatched.append(wanted)
            else:
                of_image.setdefault(key, []).append({**annotation, "": f"annotations[{index}]"})
        if unmatched and not of_image:
            listed = next(iter(images), None)
            known = "and images is empty" if listed is None else f"images have ids such as {listed!r}"
            raise DataError(
                f"{path}: none of its {len(unmatched)} annotations refers to an image that it lists (image_id is "
                f"{unmatched[0]!r}, {known}); is it the file of other images?"
            )
        counts["annotation without image"] += len(unmatched)
        return of_image, unmatched

    def _file(self, split: str) -> Path | None:
        """The JSON of a split.

        Raises:
            DataError: no split has one, or this one has several.
        """
        found = self._candidates(split)
        if len(found) > 1:
            raise DataError(f"{found[1]}: {found[0].name} is there as well; leave one file for the split {split}.")
        if not found and not any(map(self._candidates, SPLIT_NAMES)):
            places = (self.root, self.root / "annotations")
            only = [path for place in places for path in sorted(place.glob("*.json")) if not path.name.startswith(".")]
            if len(only) == 1:  # of a set without splits, which data.splits: made gives it
                return only[0] if split == "train" else None
            raise DataError(
                f"{self.root}: holds no train, valid or test folder with _annotations.coco.json, and no "
                f"annotations/instances_train.json; set data.root to the folder that does."
            )
        return found[0] if found else None

    def _candidates(self, split: str) -> list[Path]:
        folders = [self.root / name for name in SPLIT_NAMES[split]]
        for folder in folders:
            if (path := folder / "_annotations.coco.json").is_file():
                return [path]
        for place in (self.root / "annotations", self.root, *folders):
            found = [path for path in sorted(place.glob("*.json")) if not path.name.startswith(".")]
            named = [path for path in found if _is_named(path, split)]
            if instances := [path for path in named if path.name.startswith("instances_")] or named:
                return instances
            if place in folders and len(found) == 1:
                return found
        return []

    def _files(self, path: Path, split: str) -> ImageFiles:
        """The folders of the images of a split; the folders of other splits are not entered."""

        def named(splits: Sequence[str]) -> list[Path]:
            names = [name for one in splits for name in SPLIT_NAMES[one]]
            places = (self.root, self.root / "images")
            return [folder for place in places for name in names for folder in place.glob(f"{name}*")]

        folders = [path.parent, path.parent / "images"]
        if path.parent.name not in SPLIT_NAMES[split]:
            own = sorted(folder for folder in named([split]) if folder.is_dir())
            folders = [*own, self.root / "images", self.root, path.parent]
        others = named([other for other in SPLIT_NAMES if other != split])
        return ImageFiles(folders, without=[folder for folder in others if folder not in folders])

    def _box(self, one: dict[str, Any], where: str, size: Size, counts: Counts) -> Box:
        segmentation = one.get("segmentation")
        if self.boxes == "polygon" and isinstance(segmentation, dict):
            box = _hull_of_rle(segmentation, size)
            counts["RLE" if box else "RLE without hull"] += 1
            if box:
                return box
        elif self.boxes == "polygon" and segmentation:
            numbers = [parse_number(value) for value in _flat(segmentation)]
            corners = [number for number in numbers if number is not None]
            if len(corners) != len(numbers) or len(corners) < 6 or len(corners) % 2:
                form = "[[x1, y1, x2, y2, x3, y3, ...]]"
                raise DataError(f"{where} has the segmentation {reprlib.repr(segmentation)}; expected {form}.")
            return hull(corners)
        elif self.boxes == "polygon":
            counts["no polygon"] += 1
        bbox = one.get("bbox")
        if bbox is None and segmentation and self.boxes == "bbox":
            raise DataError(f"{where} has no bbox; set data.boxes to polygon to take those around the segmentations.")
        values: Sequence[object] = bbox if isinstance(bbox, list) else ()
        x, y, width, height = parse_box(values, f"{where} has the bbox {reprlib.repr(bbox)}", "[x, y, width, height]")
        return x, y, x + width, y + height


def _rows(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of records in a COCO file."""
    rows = content[key]
    if not isinstance(rows, list):
        raise DataError(f"{path}: {key} is {reprlib.repr(rows)}; expected a list of records.")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: {key}[{index}] is {reprlib.repr(row)}; expected a record.")
    return rows


def _id(row: dict[str, Any], key: str, where: str) -> Id:
    value = row.get(key)
    if key not in row:
        raise DataError(f"{where} has no {key}; give each record one.")
    valid = not isinstance(value, bool) and value != "" and not (isinstance(value, float) and not math.isfinite(value))
    if not isinstance(value, int | float | str) or not valid:
        raise DataError(f"{where} has the {key} {reprlib.repr(value)}; expected a number or a text.")
    return value


def _category(annotation: dict[str, Any], names: ById[str], counts: Counts, where: str) -> Id:
    wanted = _id(annotation, "category_id", where)
    found = names.key_of(wanted, counts, where)
    if found is None:
        raise DataError(f"{where} has category {wanted!r}, which categories does not list.")
    return found


def _is_crowd(one: dict[str, Any]) -> bool:
    return bool(parse_number(one.get("iscrowd")) or one.get("iscrowd") is True)


def _is_named(path: Path, split: str) -> bool:
    """Whether a file name holds the name of a split as a word, with or without a year, and no word of ``NO_BOXES``."""
    words = {word.rstrip("0123456789") for word in re.split(r"[^a-z0-9]+", path.stem.lower())}
    return bool(words & set(SPLIT_NAMES[split])) and not words & NO_BOXES


def _flat(value: Any) -> Iterator[Any]:
    """The items of nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _hull_of_rle(segmentation: dict[str, Any], size: Size) -> Box | None:
    """The box around an RLE mask; None where it is broken, empty, or has another size than the image."""
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if stated != [size[1], size[0]]:
        return None
    from pycocotools import mask

    high, wide = stated
    if isinstance(counts, str):  # the library reads on behind a text that is cut off
        if not re.fullmatch(r"[0-o]*[0-O]", counts):
            return None
        rle: Any = {"size": stated, "counts": counts.encode()}
    elif isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts):
        if sum(counts) != high * wide:
            return None
        rle = mask.frPyObjects({"size": stated, "counts": counts}, high, wide)
    else:
        return None
    x, y, width, height = map(float, mask.toBbox(rle))
    inside = 0 <= x < x + width <= wide and 0 <= y < y + height <= high
    return (x, y, x + width, y + height) if inside else None
