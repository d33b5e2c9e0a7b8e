"""YOLO: a text file for each image, with boxes, polygons, keypoints and oriented boxes.

::

    root/{train,valid or val,test}/images/stem.jpg   .../labels/stem.txt   root/data.yaml with names
    root/images/{train,val,test}/stem.jpg            root/labels/{train,val,test}/stem.txt
    the folders or lists of images in train, val and test of data.yaml, or the lists train.txt, val.txt, test.txt

A line ``class cx cy w h`` is a box and ``class x1 y1 x2 y2 x3 y3 ...`` a polygon, both in fractions of the image;
``class cx cy w h`` and keypoints is a box where data.yaml has ``kpt_shape``; ``x1 y1 ... x4 y4 name difficult`` (DOTA,
in ``labelTxt``) is an oriented box in pixels. Polygons and oriented boxes become the box around them. A line that may
be a box with keypoints x, y or a polygon is refused, unless other lines of the set decide. The class is a key or a
position in ``names``. An empty file states that nothing is there; an image without a file is not annotated.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vrft.boxes import Size, hull
from vrft.data.annotations import Annotation, Counts, Record, image_size, parse_number
from vrft.data.lookup import ImageFiles, below, check_missing, check_stems, images_in, stem_of
from vrft.data.splits import SPLIT_NAMES, SPLITS
from vrft.errors import DataError, reading
from vrft.textfiles import read_text
from vrft.typed import key_lines

MOST = 1.5
"""A number above this, or below 1 - MOST, is no fraction with a rounding error but pixels."""


@dataclass(frozen=True)
class Description:
    """The content of data.yaml."""

    file: Path
    names: dict[int, str]
    keypoints: tuple[int, int] | None
    """The number of keypoints, and of numbers of each: x, y and perhaps its visibility."""
    places: Mapping[str, Sequence[str]]
    """The folders or lists of the images of each split."""


class YOLOReader:
    """Reads YOLO and DOTA text files.

    Args:
        root: the folder of ``data.yaml``, with a folder for each split; without these, data.yaml names the images.
        encoding: of files that are not UTF-8, where it is known.
        polygons: lines of more than five numbers are polygons, even where they may be boxes with keypoints.

    Raises:
        DataError: ``data.yaml`` is missing or at fault.
    """

    def __init__(self, root: Path, *, encoding: str | None = None, polygons: bool = False) -> None:
        self.root, self.encoding, self.polygons = Path(root), encoding, polygons
        self._counts = Counts()
        names = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
        file = next((path for name in names if (path := self.root / name).is_file()), self.root / names[0])
        with reading(file):
            self.description = self._describe(file)

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the records of a split; see ``Reader.read``."""
        if split == SPLITS[0]:
            counts.update(self._counts)  # once, not for every split
        where, images = self._images(split, counts)
        if where is None and not any(self._images(other, Counts())[0] for other in SPLITS):
            raise DataError(
                f"{self.root}: has no images: expected train/images or images/train, or train: in "
                f"{self.description.file.name} to name a folder or a list of images; set data.root to the data set."
            )
        records = []
        for image in images:
            label = self._label_of(image)
            if label is None:
                counts["not annotated"] += 1
                continue
            size = image_size(image)
            with reading(label):
                records.append(Record(image, size, tuple(self._annotations(label, size, counts))))
        if images and not records and not any(map(self._label_of, every := self._all_images())):
            raise DataError(
                f"{every[0]}: none of the {len(every)} images has a file of labels, such as "
                f"{next(_labels(every[0], self.root))}; put the labels there, empty ones where nothing is there."
            )
        return records

    def _all_images(self) -> list[Path]:
        """The images of all splits."""
        return [image for split in SPLITS for image in self._images(split, Counts())[1]]

    def _label_of(self, image: Path) -> Path | None:
        """The file of labels of an image."""
        return next((file for file in _labels(image, self.root) if file.is_file()), None)

    @cached_property
    def _has_polygons(self) -> bool:
        """Whether long lines are polygons: those of keypoints have the same length, and the points lie in the boxes."""
        lengths, boxlike = Counter[int](), 0
        for label in filter(None, map(self._label_of, self._all_images())):
            for _, parts in self._lines(label, Counts()):
                values = [number for part in parts if (number := parse_number(part)) is not None]
                if len(values) == len(parts) > 5:
                    lengths[len(values)] += 1
                    boxlike += _is_box_with_points(values)
            if len(lengths) > 1:
                return True
        return 2 * boxlike < lengths.total()

    # --- data.yaml ----------------------------------------------------------------------------------------------------

    def _describe(self, file: Path) -> Description:
        if not file.is_file():
            raise DataError(f"{file}: cannot be read (no such file); expected names: [first class, ...].")
        text = read_text(file, self._counts, self.encoding)
        if file.suffix not in (".yaml", ".yml"):
            return Description(file, _names(file, text.rstrip().split("\n")), None, dict.fromkeys(SPLITS, ()))
        try:
            # Without types: the name of a class may be no, on or 1.0.
            content = yaml.load(text, yaml.BaseLoader)
            _, repeated = key_lines(yaml.compose(text, yaml.BaseLoader))
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = str(getattr(error, "problem", None) or "it cannot be read").replace("\n", " ")
            raise DataError(f"{file}:{mark.line + 1 if mark else 1}: is no YAML: {problem}.") from None
        if not isinstance(content, dict) or "names" not in content:
            raise DataError(f"{file}: has no names; expected names: [first class, ...].")
        for keys, line in repeated:
            if len(keys) == 1 or keys[:-1] == ("names",):
                raise DataError(f"{file}:{line}: {keys[-1]!r} is given twice; leave one of them.")
        places = {}
        for split, keys in SPLIT_NAMES.items():
            value: Any = next((content[key] for key in keys if content.get(key)), [])
            base = content.get("path") if isinstance(content.get("path"), str) else ""
            listed = value if isinstance(value, list) else [value]
            places[split] = [path for one in listed if isinstance(one, str) for path in (f"{base}/{one}", one)]
        return Description(file, _names(file, content["names"]), _keypoints(file, content.get("kpt_shape")), places)

    # --- images -------------------------------------------------------------------------------------------------------

    def _images(self, split: str, counts: Counts) -> tuple[Path | None, list[Path]]:
        """The folder or the list of the images of a split, and the images."""
        names = SPLIT_NAMES[split]
        usual = [self.root / form.format(name) for form in ("{}/images", "images/{}", "{}") for name in names]
        folders = [folder for folder in usual if folder.is_dir()]
        if folders:
            folder = next((one for one in folders if next(images_in(one), None)), folders[0])
            return folder, self._in_folder(folder, counts)
        described = [place for name in self.description.places[split] if (place := self._place(name))]
        lists = [path for name in names if (path := self.root / f"{name}.txt").is_file()]
        place = next(iter(described or lists), None)
        if place is None or place.is_dir():
            return place, self._in_folder(place, counts) if place else []
        with reading(place):
            return place, self._in_list(place, counts)

    def _place(self, name: str) -> Path | None:
        """The folder or list of a name in data.yaml; exports write ``../train/images`` for a folder beside it."""
        name = name.replace("\\", "/").strip()
        inner = "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
        tried = [Path(name)] if Path(name).is_absolute() else [self.root / name, self.root / inner]
        found = next((path for path in tried if inner and (path.is_dir() or path.is_file())), None)
        return below(found, [self.root]) if found and found.is_absolute() else found

    def _in_folder(self, folder: Path, counts: Counts) -> list[Path]:
        found = check_stems(list(images_in(folder)))
        places = {_beside(folder, self.root, name) for name in ("labels", "labelTxt")} - {folder}
        labels = {label for place in places for label in _texts(place)}
        used = {label for image in found for label in _labels(image, self.root)}
        unused = sorted(label for label in labels if label not in used and label.name != "classes.txt")
        check_missing(folder, [label.stem for label in unused], [folder], counts, some_found=bool(found))
        counts[f"no image in {folder}"] += not found
        counts["image missing"] += len(unused)
        return found

    def _in_list(self, path: Path, counts: Counts) -> list[Path]:
        files = ImageFiles([path.parent, self.root, path.parent / "images"])
        found: dict[Path, None] = {}
        for line in read_text(path, counts, self.encoding).split("\n"):
            if line.strip():
                file = files.find(line, counts)
                counts["image missing"] += file is None
                counts["listed twice"] += file in found
                found |= {file: None} if file else {}
        files.check_found(path, counts)
        return check_stems(list(found))

    # --- lines --------------------------------------------------------------------------------------------------------

    def _annotations(self, path: Path, size: Size, counts: Counts) -> Iterator[Annotation]:
        for number, parts in self._lines(path, counts):
            yield self._annotation(parts, size, f"{path}:{number}", counts)

    def _lines(self, path: Path, counts: Counts) -> Iterator[tuple[int, list[str]]]:
        """The number of each line that is no comment or header, and its parts."""
        for number, line in enumerate(read_text(path, counts, self.encoding).split("\n"), start=1):
            line = line.split(" #")[0].strip() if not line.lstrip().startswith("#") else ""
            if line and not line.startswith(("imagesource:", "gsd:")):
                yield number, line.split()

    def _annotation(self, parts: list[str], size: Size, where: str, counts: Counts) -> Annotation:
        numbers = [parse_number(part) for part in parts]
        values = [number for number in numbers if number is not None]
        if _is_dota(parts, numbers):
            if max(map(abs, values[:8])) <= MOST and any(value % 1 for value in values[:8]):
                raise DataError(
                    f"{where}: the corners of {parts[8]!r} are {' '.join(parts[:8])}, which are shares of the image; "
                    f"expected x1 y1 ... x4 y4 in pixels: multiply them."
                )
            counts["oriented"] += 1  # corners in pixels, then the name of the class
            return Annotation(parts[8], hull(values[:8]))
        found, shape = " ".join(parts), self.description.keypoints
        if len(values) != len(parts) or len(parts) < 5:
            raise DataError(f"{where}: expected class cx cy w h, or class x1 y1 x2 y2 x3 y3 ..., found {found!r}.")
        if not values[0].is_integer() or int(values[0]) not in self.description.names:
            known, file = ", ".join(map(str, self.description.names)), self.description.file.name
            raise DataError(f"{where}: class {parts[0]} is not in names of {file}, which has {known}.")
        label, shares = self.description.names[int(values[0])], values[1:]
        if shape is not None and len(parts) == 5 + shape[0] * shape[1]:
            counts["keypoints"] += 1
            shares = shares[:4]
        elif shape is not None and len(parts) != 5:
            expected = f"class cx cy w h and {shape[0]} keypoints of {shape[1]} numbers (kpt_shape)"
            raise DataError(f"{where}: expected {expected}, {5 + shape[0] * shape[1]} in all, found {len(parts)}.")
        elif _is_pose(values):
            remedy = "set kpt_shape in data.yaml to the number of keypoints and to 3"
            raise DataError(f"{where}: {found!r} looks like a box with keypoints; {remedy}.")
        elif len(parts) == 6:
            remedy = "a sixth number is the confidence of a prediction, which is no annotation: save labels without it"
            raise DataError(f"{where}: expected class cx cy w h, found {found!r}; {remedy}.")
        elif len(parts) % 2 == 0:
            expected = "class cx cy w h, or class x1 y1 x2 y2 x3 y3 ... (for keypoints data.yaml needs kpt_shape)"
            raise DataError(f"{where}: expected {expected}, found {found!r}.")
        elif len(parts) > 5 and not self.polygons and _is_box_with_points(values) and not self._has_polygons:
            remedy = "for keypoints set kpt_shape: [number, 2] in data.yaml, for polygons data.polygons: true"
            raise DataError(
                f"{where}: {found!r} may be a box with keypoints x, y or a polygon; {remedy} in the recipe."
            )
        if wrong := [share for share in shares if not 1 - MOST <= share <= MOST]:
            raise DataError(
                f"{where}: {wrong[0]:g} is no share of the image, in {found!r}; YOLO writes all numbers as shares from "
                f"0 to 1: divide pixels by width and height."
            )
        if len(shares) == 4:
            x, y, width, height = shares
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            counts["polygon"] += 1
            box = hull(shares)
        wide, high = size
        return Annotation(label, (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high))


def _is_dota(parts: list[str], numbers: list[float | None]) -> bool:
    """Eight numbers, a name and perhaps the difficulty; the name may be a number where the corners are pixels."""
    corners = [number for number in numbers[:8] if number is not None]
    if len(parts) not in (9, 10) or len(corners) != 8:
        return False
    return numbers[8] is None or (len(parts) == 10 and max(corners) > MOST)


def _is_pose(values: list[float]) -> bool:
    """Whether a line is a box and keypoints x, y and visibility 0, 1 or 2, all visible ones in the box."""
    points = [values[at : at + 3] for at in range(5, len(values), 3)]
    if not points or len(points[-1]) != 3:
        return False
    _, x, y, width, height = values[:5]
    inside = (
        visible in (0, 1, 2) and (not visible or (abs(a - x) <= 0.6 * width and abs(b - y) <= 0.6 * height))
        for a, b, visible in points
    )
    return all(inside)


def _is_box_with_points(values: list[float]) -> bool:
    """Whether a line that may be a polygon may also be a box with keypoints x, y in it (0, 0 is not visible)."""
    if len(values) < 7 or len(values) % 2 == 0:
        return False
    points = [(values[at], values[at + 1]) for at in range(1, len(values), 2)]
    (x, y), (width, height), *keypoints = points
    inside = all(abs(a - x) <= 0.6 * width and abs(b - y) <= 0.6 * height for a, b in keypoints if (a, b) != (0, 0))
    outermost = max(x + width / 2, y + height / 2, width / 2 - x, height / 2 - y)
    if not inside or not any(map(any, keypoints)) or outermost > 1.02:
        return False
    if len(points) == 4 and all(abs(a + c - b - d) < 0.005 for a, b, c, d in zip(*points, strict=True)):
        return False  # the corners of an oriented box
    return len(points) == 3 or points[0] != points[-1]  # otherwise a closed polygon


def _names(file: Path, value: Any) -> dict[int, str]:
    """The name of each class by its id: the position in a list, or the key in a mapping."""
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    names = {}
    for key, name in pairs:
        if not str(key).strip().isdecimal():
            raise DataError(f"{file}: names has the key {key!r}; expected the id of a class, a number from 0.")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{file}: the name of class {key} is {str(name)[:50]!r}; expected a text.")
        if int(key) in names:
            raise DataError(f"{file}: names has the class {int(key)} twice; leave one of them.")
        names[int(key)] = name.strip()
    if not names:
        raise DataError(f"{file}: names holds no list of classes; expected names: [first class, ...].")
    return names


def _keypoints(file: Path, value: Any) -> tuple[int, int] | None:
    if value in (None, "", "null", "~"):
        return None
    match value:
        case [str(count), ("2" | "3") as numbers] if count.isdecimal():
            return int(count), int(numbers)
    raise DataError(f"{file}: kpt_shape is {str(value)[:50]}; expected [how many keypoints, 2 or 3].")


def _beside(path: Path, root: Path, name: str) -> Path:
    """A path with its last folder ``images`` replaced by another name."""
    base = root if path.is_relative_to(root) else Path(path.anchor)
    parts = list(path.relative_to(base).parts)
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "images":
            parts[index] = name
            break
    return base.joinpath(*parts)


def _labels(image: Path, root: Path) -> Iterator[Path]:
    """The possible files of labels of an image, in the order of preference."""
    for name in ("labels", "labelTxt", "Labels", "images"):
        yield from (_beside(image, root, name).with_name(stem_of(image) + suffix) for suffix in (".txt", ".TXT"))
    yield image.with_name(f"{stem_of(image)}.txt")


def _texts(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.txt") if not path.name.startswith("."))
