"""Pascal VOC: an XML file for each image, and lists of stems for the splits.

::

    root/JPEGImages/stem.jpg   root/Annotations/stem.xml   root/ImageSets/Main/{train,val,test}.txt
    root/{train,valid or val,test}/stem.jpg and stem.xml

Without lists the images are split by a hash of their stems. A line of a list is a stem, which may hold spaces, with or
without folder and suffix; the lists of a class, whose lines end in 1, 0 or -1, are read as well.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from vrft.data.annotations import Annotation, Counts, Record, image_size, parse_box, parse_number, parse_size
from vrft.data.lookup import SUFFIXES, check_missing, images_in, parts_of, stem_of, suffix_of
from vrft.data.splits import SPLIT_NAMES, in_split
from vrft.errors import DataError, reading
from vrft.textfiles import read_text

Key = tuple[str, ...]
"""Folders and stem of an annotation and its image, normalised for comparison."""


class Pairs:
    """The annotations in a folder and the images in another, by their stems.

    Args:
        annotations: the folder of the XML files.
        images: the folder of the images.
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        self.annotations, self.images = annotations, images

    @cached_property
    def xml(self) -> dict[Key, Path]:
        """The XML file of each key."""
        files = (path for path in sorted(self.annotations.rglob("*")) if path.suffix.lower() == ".xml")
        return {_key(path, self.annotations): path for path in files if not path.name.startswith(".")}

    @cached_property
    def images_of(self) -> dict[Key, list[Path]]:
        """The image files of each key; several where they differ in their suffix alone."""
        found = defaultdict[Key, list[Path]](list)
        for path in images_in(self.images):
            found[_key(path, self.images)].append(path)
        return dict(found)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict[str, list[Path]](list)
        for path in (path for paths in self.images_of.values() for path in paths):
            found[parts_of(path.name)[-1]].append(path)
        return dict(found)

    def key_of(self, entry: str) -> Key | None:
        """The key of an entry of a list, without folders that do not exist here; None where there is no such file."""
        parts = parts_of(entry)
        suffix = suffix_of(Path(parts[-1])) if parts else ""
        stems = [parts[-1], parts[-1].removesuffix(suffix)] if suffix in (*SUFFIXES, ".xml") else list(parts[-1:])
        keys = ((*parts[at:-1], stem) for stem in stems for at in range(len(parts)))
        return next((key for key in keys if key in self.xml or key in self.images_of), None)

    def image_of(self, key: Key, path: Path, named: str | None, counts: Counts) -> Path | None:
        """The image of an annotation: the file of the same stem, else the file that it names; None without any.

        Args:
            key: of the annotation.
            path: of the annotation, for messages.
            named: the name of the image in the annotation.
            counts: gets ``filename differs`` where the name has another stem.

        Raises:
            DataError: two images have the stem, and the annotation does not name one of them.
        """
        name = (parts_of(named or "") or ("",))[-1]
        found = self.images_of.get(key, [])
        if len(found) > 1:
            matches = [image for image in found if parts_of(image.name)[-1] == name]
            if len(matches) != 1:
                raise DataError(
                    f"{found[1]}: {found[0].name} has the same stem, and {path} names {named!r}; remove one."
                )
            return matches[0]
        if found:
            counts["filename differs"] += bool(name) and key[-1] not in (name, stem_of(Path(name)))
            return found[0]
        matches = self._by_name.get(name, [])
        counts["filename differs"] += len(matches) == 1
        return matches[0] if len(matches) == 1 else None


class VOCReader:
    """Reads a folder in the layout of Pascal VOC.

    Args:
        root: the folder that holds ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.
        encoding: of files that are not UTF-8, where it is known.
    """

    def __init__(self, root: Path, *, encoding: str | None = None) -> None:
        self.root, self.encoding = Path(root), encoding

    @cached_property
    def pairs(self) -> Pairs:
        """The annotations and images in the usual folders of the layout, or in ``root``."""
        annotations = self._first("Annotations", "annotations", "xml", "xmls")
        return Pairs(annotations, self._first("JPEGImages", "images", "Images", "jpegimages"))

    def _first(self, *names: str) -> Path:
        return next((path for name in names if (path := self.root / name).is_dir()), self.root)

    def read(self, split: str, counts: Counts) -> list[Record]:
        """Read the records of a split; see ``Reader.read``."""
        pairs, missing, where = self.pairs, list[str](), self.root
        if place := self._lists():
            found = self._list(place, split)
            if found is None:
                counts["list missing"] += 1
                return []
            where = found
            with reading(where):
                keys = self._listed(where, counts, missing)
        elif pairs.annotations == self.root and any((self.root / name).is_dir() for name in SPLIT_NAMES["train"]):
            where = folder = self._first(*SPLIT_NAMES[split])
            pairs = Pairs(folder, folder)
            keys = list(pairs.xml) if folder != self.root else []
        else:
            every = list(pairs.xml)
            if not every:
                lacking = "has neither ImageSets/Main nor Annotations/*.xml."
                raise DataError(f"{self.root}: {lacking} Set data.root to the folder that holds them.")
            inside = in_split([pairs.xml[key].stem for key in every], split)
            keys = [key for key, taken in zip(every, inside, strict=True) if taken]
        records: dict[Path, Record] = {}
        for key in keys:
            path = pairs.xml.get(key)
            if path is None:
                raise DataError(f"{pairs.annotations}: has no {key[-1]}.xml; {pairs.images_of[key][0].name} needs it.")
            with reading(path):
                record = self._record(pairs, key, path, counts)
            if record is None:
                missing.append(path.stem)
            elif record.image in records:
                counts["listed twice"] += 1
                if records[record.image].annotations != record.annotations:
                    raise DataError(f"{path}: {record.image.name} has another annotation as well; leave one of them.")
            else:
                records[record.image] = record
        check_missing(where, missing, [pairs.images, pairs.annotations], counts, some_found=bool(records))
        counts[f"no image in {where}"] += not records
        counts["image missing"] += len(missing)
        return list(records.values())

    def _lists(self) -> Path | None:
        """The folder of the lists, or None where there are none.

        Raises:
            DataError: there is a folder ImageSets, and no list in it.
        """
        sets = self.root / "ImageSets"
        inner = sorted(path for path in sets.glob("*") if path.is_dir() and path.name != "Main")
        names = [f"{name}.txt" for split in SPLIT_NAMES for name in SPLIT_NAMES[split]]
        places = [place for place in (sets / "Main", sets, *inner, self.root) if place.is_dir()]
        found = next((place for place in places if any((place / name).is_file() for name in names)), None)
        if found is None and sets.is_dir():
            raise _no_training_list(places[0])
        return found

    def _list(self, place: Path, split: str) -> Path | None:
        """The list of a split; the lists of validation and test may be missing."""
        found = next((path for name in SPLIT_NAMES[split] if (path := place / f"{name}.txt").is_file()), None)
        if found is None and split == "train":
            raise _no_training_list(place)
        return found

    def _listed(self, path: Path, counts: Counts, missing: list[str]) -> list[Key]:
        found: dict[Key, None] = {}
        lines = map(str.strip, read_text(path, counts, self.encoding).split("\n"))
        for line in filter(None, lines):
            keys = self._in_line(line)
            if keys is None:
                missing.append(line)
            for key in keys or ():
                counts["listed twice"] += key in found
                found[key] = None
        return list(found)

    def _in_line(self, line: str) -> list[Key] | None:
        """The keys in a line: a stem, a stem with a flag of a class, an image with its annotation, or several stems."""
        if key := self.pairs.key_of(line):
            return [key]
        if (match := re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line)) and (key := self.pairs.key_of(match[1])):
            return [key]
        keys = [self.pairs.key_of(word) for word in line.split()]
        known = list(dict.fromkeys(key for key in keys if key is not None))
        return known if len(keys) > 1 and None not in keys else None

    def _record(self, pairs: Pairs, key: Key, path: Path, counts: Counts) -> Record | None:
        text = read_text(path, counts, self.encoding)
        before = len(text) - len(text.lstrip())
        try:
            root = ElementTree.fromstring(text[before:])
        except ElementTree.ParseError as error:
            line = error.position[0] + text[:before].count("\n")
            raise DataError(f"{path}:{line}: is no XML ({error}); mend it or write it anew.") from None
        for item in root.iter():
            item.tag = str(item.tag).rpartition("}")[2]  # without a namespace
        if root.tag != "annotation":
            raise DataError(f"{path}: is no annotation of Pascal VOC but <{root.tag}>; expected <annotation>.")
        image = pairs.image_of(key, path, root.findtext("filename"), counts)
        if image is None:
            return None
        stated = parse_size(root.findtext("size/width"), root.findtext("size/height"))
        objects = [item for item in root.iter() if item.tag.lower() == "object"]
        counts["difficult"] += sum(bool(parse_number((item.findtext("difficult") or "").strip())) for item in objects)
        return Record(image, image_size(image), tuple(_annotation(path, item) for item in objects), stated)


def _no_training_list(place: Path) -> DataError:
    lists = ", ".join(path.name for path in sorted(place.glob("*.txt"))[:5]) or "no list"
    usage = "it lists the stems of the split (without any list, a hash shares out all images)"
    return DataError(f"{place}: has no train.txt, but {lists}; {usage}.")


def _key(path: Path, folder: Path) -> Key:
    relative = path.relative_to(folder)
    return parts_of(str(relative.with_name(stem_of(relative))))


def _annotation(path: Path, item: ElementTree.Element) -> Annotation:
    texts: Sequence[str | None] = [item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    label = (item.findtext("name") or "").strip()
    if not label:
        raise DataError(f"{path}: an object has no name.")
    return Annotation(label, parse_box(texts, f"{path}: the box of {label!r} is {texts}", "xmin, ymin, xmax, ymax"))
