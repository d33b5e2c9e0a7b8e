"""Image files, found by the names that annotation files give them.

Such names were written on other machines: with folders that are not here or with another separator, as addresses, in
other cases, without the suffix. A name leads to one file or to none; what could be two is refused.
"""

import os
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from vrft.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jfif")
"""Of images beside annotations."""

UNREAD = (".gif", ".dcm", ".dicom", ".nii", ".nii.gz", ".jp2", ".heic", ".mha", ".nrrd", ".svs", ".npy", ".pgm", ".ppm")
"""Types of pictures that are not read as images."""

Folders = tuple[str, ...]
"""Names of folders, in a form that can be compared."""


def images_in(folder: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """The image files in a folder and the folders inside it, in a fixed order; hidden ones are none."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in inner)
        if path.suffix.lower() in SUFFIXES and not hidden and not any(one in path.parents for one in without):
            yield path


def unread_among(missing: Sequence[str], folders: Sequence[Path], counts: Counter[str]) -> str:
    """Count those missing images that are there in a type that is not read, and say so; nothing where none is."""
    there: dict[str, Path] = {}
    for folder in folders if missing else ():
        for path in folder.rglob("*") if folder.is_dir() else ():
            suffix = next((one for one in UNREAD if path.name.lower().endswith(one)), "")
            if suffix:
                there.setdefault(_same(path.name[: -len(suffix)]), path)
    stems = {name: _same((parts_of(name) or ("",))[-1]) for name in missing}
    ends = tuple(SUFFIXES + UNREAD[::-1])
    found = []
    for stem in stems.values():
        short = next((stem.removesuffix(end) for end in ends if stem.endswith(end)), stem)
        found += [path for path in [there.get(stem) or there.get(short)] if path]
    for path in found:
        counts[f"image of a type that is not read ({path.suffix})"] += 1
    return f" {found[0]} is there, and its type is not read: save it as PNG or JPEG." if found else ""


def one_a_stem(paths: Sequence[Path]) -> list[Path]:
    """The files, where no two in one folder share a stem: one annotation file cannot be about both.

    Raises:
        DataError: two do.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.with_suffix(""), path)) != path:
            raise DataError(f"{path}: {other.name} beside it has the same stem; remove or rename one of them.")
    return list(paths)


def parts_of(name: str) -> tuple[str, ...]:
    r"""The folders and the file that a name tells, in a form that can be compared.

    >>> parts_of(r"..\Images\A.jpg"), parts_of("https://host/x/a%20b.png?size=1")
    (('images', 'a.jpg'), ('host', 'x', 'a b.png'))
    """
    name = name.strip().strip("\"'")
    if "://" in name:
        address = urlsplit(name)
        name = f"{address.netloc}/{unquote(address.path)}"
    parts = name.replace("\\", "/").split("/")
    return tuple(_same(part) for part in parts if part.strip() not in ("", ".", ".."))


def _same(part: str) -> str:
    return normalize("NFC", part.strip()).casefold()


def below(path: Path, folders: Sequence[Path]) -> Path:
    """The path of a file from one of some folders on, where it lies below one; else the path as it is."""
    for whole in (os.path.abspath, os.path.realpath):
        place = Path(whole(path.parent)) / path.name
        for folder in folders:
            if place.is_relative_to(whole(folder)):
                found = folder / place.relative_to(whole(folder))
                if found.exists() and found.samefile(path):
                    return found
    return path


class Namesakes:
    """Files of one name, in the order of their folders from the inner one out: those that agree with a name are
    neighbours, so that a look-up takes as long for thousands of them as for two.

    Args:
        files: with their folders, the inner one first.
        folders: where the files are looked for.
    """

    def __init__(self, files: Sequence[tuple[Folders, Path]], folders: Sequence[Path]) -> None:
        in_order = sorted(files, key=lambda one: one[0])
        self.keys, self.files = [key for key, _ in in_order], [path for _, path in in_order]
        rank = {folder: index for index, folder in enumerate(folders)}
        # Those that lie in the folders themselves, the ones in the first folder first.
        self.direct = sorted((p for p in self.files if p.parent in rank), key=lambda path: rank[path.parent])

    def nearest(self, told: Folders) -> Sequence[Path]:
        """The files that share most of the folders that are told, counted from the inner one out.

        A file that shares none of them contradicts the name, unless it lies where files are looked for.
        """
        if not told:
            return self.files
        wanted = told[::-1]
        at = bisect_left(self.keys, wanted)
        shared = max(_length_shared(key, wanted) for key in self.keys[max(at - 1, 0) : at + 1])
        if not shared:
            return self.direct
        first = bisect_left(self.keys, wanted[:shared], key=lambda key: key[:shared])
        return self.files[first : bisect_right(self.keys, wanted[:shared], key=lambda key: key[:shared])]


def _length_shared(one: Folders, other: Folders) -> int:
    """How many folders two have in common from the first on."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class ImageFiles:
    """Finds image files in some folders and the folders inside them.

    Args:
        folders: where to look, the first one first.
        without: folders that are not entered, such as those of other splits.
        bare: a name without a folder means the file in the first folder that has one, also where there are others of
            this name further down; without it such a name is refused.
    """

    def __init__(self, folders: Sequence[Path], *, without: Sequence[Path] = (), bare: bool = True) -> None:
        self.folders, self.without, self.bare = list(dict.fromkeys(folders)), list(without), bare
        self._asked: dict[Path, tuple[str, ...]] = {}
        self._first_path: dict[Path, Path] = {}
        self._real_folder: dict[Path, Path] = {}
        self.missing: list[str] = []
        self.found = 0

    def find(self, name: str, counts: Counter[str]) -> Path | None:
        """The file of a name, or None; ``found by stem`` is counted where the name has no or another suffix.

        One file has one path, however it is named: below one of the folders where it lies there.

        Raises:
            DataError: two files fit, or the file was found by a name that means another one.
        """
        parts = parts_of(name)
        there = self._at_name(name, parts) if parts else None
        file = there or (self._nearest(parts, counts) if parts else None)
        if file is None:
            self.missing.append(name)
            return None
        self.found += 1
        if there and _is_elsewhere(name):  # no folder above those that are looked in contradicts another name
            inner = (file.relative_to(folder) for folder in self.folders if file.is_relative_to(folder))
            parts = parts_of(str(next(inner, file)))
        other = self._asked.setdefault(file, parts)
        shorter, longer = sorted((other[:-1], parts[:-1]), key=len)
        if shorter and longer[-len(shorter) :] != shorter:
            raise DataError(f"{file}: {'/'.join(other)} and {'/'.join(parts)} would both be this file; expected two.")
        return self._first_path.setdefault(self._real(file.parent) / file.name, file)

    def check_found(self, where: Path | str, counts: Counter[str]) -> None:
        """See that some of the images that were asked for are there; those in a type that is not read are counted.

        Raises:
            DataError: none is; the message tells how many are missing, one of them, and where was looked.
        """
        unread = unread_among(self.missing, self.folders, counts)
        if self.missing and not self.found:
            looked = ", ".join(str(one) if one.is_dir() else f"{one} (no such folder)" for one in self.folders)
            total = len(self.missing)
            raise DataError(
                f"{where}: {total} of {total} images are missing, such as {self.missing[0]!r}; looked in {looked}, and "
                f"the folders inside. Put them there, or set data.root to the folder that holds them.{unread}"
            )

    @cached_property
    def files(self) -> list[Path]:
        """All image files, folder by folder in a fixed order."""
        every = (path for folder in self.folders if folder.is_dir() for path in images_in(folder, self.without))
        return list(dict.fromkeys(every))

    def _at_name(self, name: str, parts: tuple[str, ...]) -> Path | None:
        """The file that a name leads to as it is written."""
        plain = _plain(name)
        if self.bare or len(parts) > 1:
            for folder in (Path(), *self.folders) if Path(plain).is_absolute() else self.folders:
                if (file := folder / plain).suffix.lower() in SUFFIXES and file.is_file():
                    return below(file, self.folders) if _is_elsewhere(name) else file
        return None

    def _nearest(self, parts: tuple[str, ...], counts: Counter[str]) -> Path | None:
        """The file that is called so, in whatever folder that does not contradict the name."""
        last, stem, suffix = parts[-1], *_split(parts[-1])
        if fitting := self._choose(self._by_name.get(last), parts):
            return fitting
        # A name that ends in no suffix of an image is a stem with a dot in it, or that of a file before conversion.
        for wanted in (last, stem) if suffix else (last,):
            if fitting := self._choose(self._by_stem.get(wanted), parts):
                counts["found by stem"] += 1
                return fitting
        return None

    def _real(self, folder: Path) -> Path:
        if folder not in self._real_folder:
            self._real_folder[folder] = Path(os.path.realpath(folder))
        return self._real_folder[folder]

    def _choose(self, namesakes: Namesakes | None, parts: tuple[str, ...]) -> Path | None:
        """Of files with the right name the one with most of the folders that are told, if any."""
        best = namesakes.nearest(parts[:-1]) if namesakes else []
        if namesakes and len(best) > 1 and self.bare:
            direct = [one for one in namesakes.direct if len(parts) == 1 or one in best]
            best = [one for one in direct if one.parent == direct[0].parent] or best
        if len(best) > 1:
            raise DataError(f"{best[1]}: {best[0]} has the same name, and {'/'.join(parts)!r} does not tell which.")
        return best[0] if best else None

    @cached_property
    def _by_name(self) -> dict[str, Namesakes]:
        return self._grouped(lambda path: path.name)

    @cached_property
    def _by_stem(self) -> dict[str, Namesakes]:
        return self._grouped(lambda path: path.stem)

    def _grouped(self, name_of: Callable[[Path], str]) -> dict[str, Namesakes]:
        inner_first: dict[Path, Folders] = {}
        found: dict[str, list[tuple[Folders, Path]]] = defaultdict(list)
        for path in self.files:
            folder = path.parent
            if folder not in inner_first:
                inner_first[folder] = tuple(_same(part) for part in reversed(folder.parts))
            found[_same(name_of(path))].append((inner_first[folder], path))
        return {name: Namesakes(files, self.folders) for name, files in found.items()}


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/").strip("\"'")


def _is_elsewhere(name: str) -> bool:
    """Whether a name does not begin at the folder in which it is looked for."""
    path = Path(_plain(name))
    return path.is_absolute() or ".." in path.parts


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name."""
    path = Path(name)
    return path.stem, path.suffix
