"""YOLO: one text file an image; boxes, polygons, keypoints and oriented boxes.

::

    root/{train,valid or val,test}/images/stem.jpg   .../labels/stem.txt   root/data.yaml with names
    root/images/{train,val,test}/stem.jpg            root/labels/{train,val,test}/stem.txt
    what train, val and test of data.yaml, or lists train.txt, val.txt, test.txt name: folders, or lists of images

Of a line, ``class cx cy w h`` is a box and ``class x1 y1 x2 y2 x3 y3 ...`` a polygon, both in shares of the image;
``class cx cy w h`` and keypoints is a box where data.yaml has ``kpt_shape``; ``x1 y1 ... x4 y4 name difficult`` (DOTA,
in ``labelTxt``) is an oriented box in pixels. Polygons and oriented boxes become the box around them. A line that is as
well a box with keypoints x, y as it is a polygon is refused, unless others of the set tell. The class is a key or a
position in ``names``. An empty file says that nothing is there; a missing one that nobody looked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vrft.boxes import Size, hull
from vrft.data.annotations import FOLDERS, SPLITS, Annotation, Counts, Record, image_size, number_of
from vrft.data.lookup import SUFFIXES, ImageFiles, below, images_in, one_a_stem, unread_among
from vrft.errors import DataError, reading
from vrft.textfiles import read_text
from vrft.typed import repeated_keys

KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
"""Of data.yaml, and the names of lists: where the images of a split are."""

MOST = 1.5
"""A share of more, or below 1 - MOST, is no rounding at the edge of the image but pixels."""


@dataclass(frozen=True)
class Described:
    """What data.yaml says."""

    file: Path
    names: dict[int, str]
    keypoints: tuple[int, int] | None
    """How many, and how many numbers each has: x, y and perhaps whether it is seen."""
    places: Mapping[str, Sequence[str]]
    """Of each split: folders of images, or lists of them."""


class YOLOReader:
    """Reads YOLO and DOTA text files.

    Args:
        root: the folder that holds a folder a split and ``data.yaml``; what that file names is read where those lack.
        encoding: of files that are not UTF-8, where it is known.
        polygons: lines of more than five numbers are polygons, also where they could be boxes with keypoints.
    """

    def __init__(self, root: Path, *, encoding: str | None = None, polygons: bool = False) -> None:
        self.root, self.encoding, self.polygons = Path(root), encoding, polygons
        self._met: Counts = Counts()
        names = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
        file = next((path for name in names if (path := self.root / name).is_file()), self.root / names[0])
        with reading(file):
            self.described = self._describe(file)

    def read(self, split: str, counts: Counts) -> list[Record]:
        if split == SPLITS[0]:
            counts.update(self._met)  # once, not for every split
        where, images = self._images(split, counts)
        if where is None and not any(self._images(other, Counts())[0] for other in SPLITS):
            raise DataError(
                f"{self.root}: has no images: expected train/images or images/train, or train: in "
                f"{self.described.file.name} to name a folder or a list of images; set data.root to the data set."
            )
        records = []
        for image in images:
            label = next((file for file in _labels(image, self.root) if file.is_file()), None)
            if label is None:
                counts["not annotated"] += 1
                continue
            size = image_size(image)
            with reading(label):
                records.append(Record(image, size, tuple(self._annotations(label, size, counts))))
        if images and not records:
            self._check_labels()
        return records

    def _check_labels(self) -> None:
        """See that an image of any split has a file of labels.

        Raises:
            DataError: none has.
        """
        every = [image for split in SPLITS for image in self._images(split, Counts())[1]]
        if not any(file.is_file() for image in every for file in _labels(image, self.root)):
            raise DataError(
                f"{every[0]}: none of the {len(every)} images has a file of labels, such as "
                f"{next(_labels(every[0], self.root))}; put the labels there, empty ones where nothing is there."
            )

    @cached_property
    def _has_polygons(self) -> bool:
        """Whether lines of more than five numbers are polygons: keypoints are equally many, and lie in their boxes."""
        lengths, boxlike = Counter[int](), 0
        for split in SPLITS:
            for image in self._images(split, Counts())[1]:
                label = next((file for file in _labels(image, self.root) if file.is_file()), None)
                for _, parts in self._lines(label, Counts()) if label else ():
                    values = [number for part in parts if (number := number_of(part)) is not None]
                    if len(values) == len(parts) > 5:
                        lengths[len(values)] += 1
                        boxlike += _is_box_with_points(values)
                if len(lengths) > 1:
                    return True
        return 2 * boxlike < lengths.total()

    # --- data.yaml ----------------------------------------------------------------------------------------------------

    def _describe(self, file: Path) -> Described:
        if not file.is_file():
            raise DataError(f"{file}: cannot be read (no such file); expected names: [first class, ...].")
        text = read_text(file, self._met, self.encoding)
        if file.suffix not in (".yaml", ".yml"):
            return Described(file, _names(file, text.rstrip().split("\n")), None, dict.fromkeys(KEYS, ()))
        try:
            # Without types: a class may be called no, on or 1.0.
            content = yaml.load(text, yaml.BaseLoader)
            tree = yaml.compose(text, yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = str(getattr(error, "problem", None) or "it cannot be read").replace("\n", " ")
            raise DataError(f"{file}:{mark.line + 1 if mark else 1}: is no YAML: {problem}.") from None
        if not isinstance(content, dict) or "names" not in content:
            raise DataError(f"{file}: has no names; expected names: [first class, ...].")
        for line, key in _repeated(tree):
            raise DataError(f"{file}:{line}: {key!r} is given twice; leave one of them.")
        places = {}
        for split, keys in KEYS.items():
            told: Any = next((content[key] for key in keys if content.get(key)), [])
            base = content.get("path") if isinstance(content.get("path"), str) else ""
            listed = told if isinstance(told, list) else [told]
            places[split] = [path for one in listed if isinstance(one, str) for path in (f"{base}/{one}", one)]
        return Described(file, _names(file, content["names"]), _keypoints(file, content.get("kpt_shape")), places)

    # --- images -------------------------------------------------------------------------------------------------------

    def _images(self, split: str, counts: Counts) -> tuple[Path | None, list[Path]]:
        """Where the images of a split stand (a folder or a list), and they."""
        folders = [self.root / name / "images" for name in FOLDERS[split]]
        folders += [self.root / "images" / name for name in FOLDERS[split]]
        folders += [self.root / name for name in FOLDERS[split]]
        usual = [folder for folder in folders if folder.is_dir()]
        if usual:
            folder = next((one for one in usual if next(images_in(one), None)), usual[0])
            return folder, self._in_folder(folder, counts)
        told = [place for name in self.described.places[split] if (place := self._place(name))]
        lists = [path for name in KEYS[split] if (path := self.root / f"{name}.txt").is_file()]
        for place in told or lists[:1]:
            if place.is_dir():
                return place, self._in_folder(place, counts)
            with reading(place):
                return place, self._in_list(place, counts)
        return None, []

    def _place(self, name: str) -> Path | None:
        """The folder or the list that data.yaml names; exports write ``../train/images`` for what lies beside it."""
        name = name.replace("\\", "/").strip()
        inner = "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
        tried = [Path(name)] if Path(name).is_absolute() else [self.root / name, self.root / inner]
        found = next((path for path in tried if inner and (path.is_dir() or path.is_file())), None)
        return below(found, [self.root]) if found and found.is_absolute() else found

    def _in_folder(self, folder: Path, counts: Counts) -> list[Path]:
        found = one_a_stem(list(images_in(folder)))
        places = {_beside(folder, self.root, name) for name in ("labels", "labelTxt")} - {folder}
        labels = {label for place in places for label in _texts(place)}
        used = {label for image in found for label in _labels(image, self.root)}
        lonely = sorted(label for label in labels if label not in used and label.name != "classes.txt")
        unread = unread_among([label.stem for label in lonely], [folder], counts)
        if lonely and not found:
            raise DataError(
                f"{folder}: {len(lonely)} of {len(lonely)} images are missing, such as that of {lonely[0]}; put them "
                f"there ({', '.join(SUFFIXES)}).{unread}"
            )
        counts[f"no image in {folder}"] += not found
        counts["image missing"] += len(lonely)
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
        return one_a_stem(list(found))

    # --- lines --------------------------------------------------------------------------------------------------------

    def _annotations(self, path: Path, size: Size, counts: Counts) -> Iterator[Annotation]:
        for number, parts in self._lines(path, counts):
            yield self._annotation(parts, size, f"{path}:{number}", counts)

    def _lines(self, path: Path, counts: Counts) -> Iterator[tuple[int, list[str]]]:
        """The number of each line that tells something, and its parts."""
        for number, line in enumerate(read_text(path, counts, self.encoding).split("\n"), start=1):
            line = line.split(" #")[0].strip() if not line.lstrip().startswith("#") else ""
            if line and not line.startswith(("imagesource:", "gsd:")):
                yield number, line.split()

    def _annotation(self, parts: list[str], size: Size, where: str, counts: Counts) -> Annotation:
        numbers = [number_of(part) for part in parts]
        values = [number for number in numbers if number is not None]
        if _is_dota(parts, numbers):
            if max(map(abs, values[:8])) <= MOST and any(value % 1 for value in values[:8]):
                told = "which are shares of the image; expected x1 y1 ... x4 y4 in pixels: multiply them"
                raise DataError(f"{where}: the corners of {parts[8]!r} are {' '.join(parts[:8])}, {told}.")
            counts["oriented"] += 1  # corners in pixels, then the class by its name
            return Annotation(parts[8], hull(values[:8]))
        found, shape = " ".join(parts), self.described.keypoints
        if len(values) != len(parts) or len(parts) < 5:
            raise DataError(f"{where}: expected class cx cy w h, or class x1 y1 x2 y2 x3 y3 ..., found {found!r}.")
        if not values[0].is_integer() or int(values[0]) not in self.described.names:
            known, file = ", ".join(map(str, self.described.names)), self.described.file.name
            raise DataError(f"{where}: class {parts[0]} is not in names of {file}, which has {known}.")
        label, shares = self.described.names[int(values[0])], values[1:]
        if shape is not None and len(parts) == 5 + shape[0] * shape[1]:
            counts["keypoints"] += 1
            shares = shares[:4]
        elif shape is not None and len(parts) != 5:
            told = f"class cx cy w h and {shape[0]} keypoints of {shape[1]} numbers (kpt_shape)"
            raise DataError(f"{where}: expected {told}, {5 + shape[0] * shape[1]} in all, found {len(parts)}.")
        elif _is_pose(values):
            told = "set kpt_shape in data.yaml to how many there are and to 3"
            raise DataError(f"{where}: {found!r} looks like a box with keypoints; {told}.")
        elif len(parts) == 6:
            told = "a sixth number is the confidence of a prediction, which is no annotation: save labels without it"
            raise DataError(f"{where}: expected class cx cy w h, found {found!r}; {told}.")
        elif len(parts) % 2 == 0:
            told = "class x1 y1 x2 y2 x3 y3 ... (for keypoints data.yaml needs kpt_shape)"
            raise DataError(f"{where}: expected class cx cy w h, or {told}, found {found!r}.")
        elif len(parts) > 5 and not self.polygons and _is_box_with_points(values) and not self._has_polygons:
            told = (
                "of keypoints set kpt_shape: [how many, 2] in data.yaml, of polygons data.polygons: true in the recipe"
            )
            raise DataError(f"{where}: {found!r} may be a box with keypoints x, y or a polygon; {told}.")
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
    """Eight numbers, a name and perhaps how difficult it is; the name may be a number where the corners are pixels."""
    corners = [number for number in numbers[:8] if number is not None]
    if len(parts) not in (9, 10) or len(corners) != 8:
        return False
    return numbers[8] is None or (len(parts) == 10 and max(corners) > MOST)


def _is_pose(values: list[float]) -> bool:
    """Whether a line is a box and keypoints x, y and 0, 1 or 2 (whether it is seen), all of them in the box."""
    points = [values[at : at + 3] for at in range(5, len(values), 3)]
    if not points or len(points[-1]) != 3:
        return False
    _, x, y, width, height = values[:5]
    inside = (
        seen in (0, 1, 2) and (not seen or (abs(a - x) <= 0.6 * width and abs(b - y) <= 0.6 * height))
        for a, b, seen in points
    )
    return all(inside)


def _is_box_with_points(values: list[float]) -> bool:
    """Whether a line that may be a polygon is as well a box and keypoints x, y in it (0, 0 is one that is not seen)."""
    if len(values) < 7 or len(values) % 2 == 0:
        return False
    points = [(values[at], values[at + 1]) for at in range(1, len(values), 2)]
    (x, y), (width, height), *seen = points
    inside = all(abs(a - x) <= 0.6 * width and abs(b - y) <= 0.6 * height for a, b in seen if (a, b) != (0, 0))
    if (
        not inside
        or not any(map(any, seen))
        or max(x + width / 2, y + height / 2, width / 2 - x, height / 2 - y) > 1.02
    ):
        return False
    if len(points) == 4 and all(abs(a + c - b - d) < 0.005 for a, b, c, d in zip(*points, strict=True)):
        return False  # the corners of an oriented box
    return len(points) == 3 or points[0] != points[-1]  # else a polygon that is closed


def _names(file: Path, told: Any) -> dict[int, str]:
    """The name of each class by its id: a list counts from 0, and of a mapping the keys are the ids."""
    pairs = enumerate(told) if isinstance(told, list) else told.items() if isinstance(told, dict) else ()
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


def _repeated(tree: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """The keys that are given twice in data.yaml or its names, with their lines."""
    if isinstance(tree, yaml.MappingNode):
        yield from repeated_keys(tree)
        for key, value in tree.value:
            if key.value == "names" and isinstance(value, yaml.MappingNode):
                yield from repeated_keys(value)


def _keypoints(file: Path, told: Any) -> tuple[int, int] | None:
    if told in (None, "", "null", "~"):
        return None
    sides = [int(side) for side in told if isinstance(side, str) and side.isdecimal()] if isinstance(told, list) else []
    if len(sides) != 2 or sides[1] not in (2, 3):
        raise DataError(f"{file}: kpt_shape is {str(told)[:50]}; expected [how many keypoints, 2 or 3].")
    return sides[0], sides[1]


def _beside(path: Path, root: Path, name: str) -> Path:
    """A path with its last folder ``images`` called otherwise."""
    base = root if path.is_relative_to(root) else Path(path.anchor)
    parts = list(path.relative_to(base).parts)
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "images":
            parts[index] = name
            break
    return base.joinpath(*parts)


def _labels(image: Path, root: Path) -> Iterator[Path]:
    """Where the annotations of an image may be."""
    for name in ("labels", "labelTxt", "Labels", "images"):
        yield from (_beside(image, root, name).with_suffix(suffix) for suffix in (".txt", ".TXT"))
    yield image.with_suffix(".txt")


def _texts(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.txt") if not path.name.startswith("."))
