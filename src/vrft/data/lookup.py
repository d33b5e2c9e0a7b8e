"""Image files, found by their names in annotation files.

Such names come from other machines: with folders that are missing here, another separator, as addresses, in another
letter case, without the suffix. A name leads to one file or to none; a name of two files is refused.
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
from vrft.images import is_medical

PLAIN = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jfif")
"""Of images that Pillow reads, and of masks."""

SUFFIXES = (*PLAIN, ".dcm", ".dicom", ".ima", ".nii", ".nii.gz")
"""Of images beside annotations."""

UNREAD = (".gif", ".jp2", ".heic", ".mha", ".nrrd", ".svs", ".npy", ".pgm", ".ppm")
"""Suffixes of image types that are not read."""

Folders = tuple[str, ...]
"""Names of folders, normalised by ``_normalised``."""


def suffix_of(path: Path) -> str:
    """The suffix of a file in lower case: ``.nii.gz`` of a compressed volume, none of a number such as a DICOM UID.

    >>> [suffix_of(Path(name)) for name in ("a.PNG", "a.1.nii.gz", "1.2.840.7", "a")]
    ['.png', '.nii.gz', '', '']
    """
    suffix = path.suffix.lower()
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else "" if suffix[1:].isdigit() else suffix


def stem_of(path: Path) -> str:
    """The name of a file without its suffix (``suffix_of``)."""
    return path.name.removesuffix(path.name[-len(suffix) :]) if (suffix := suffix_of(path)) else path.name


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems make beside those of the user."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether a file has a suffix of images, or none and the content of a DICOM file or a volume."""
    suffix = suffix_of(path)
    return suffix in SUFFIXES or (not suffix and path.is_file() and is_medical(path))


def images_in(folder: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """The image files in a folder and the folders inside it, in a fixed order, without hidden files."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(map(is_hidden, inner))
        if not hidden and is_image(path) and not any(one in path.parents for one in without):
            yield path


def check_missing(
    where: Path | str, missing: Sequence[str], folders: Sequence[Path], counts: Counter[str], *, some_found: bool
) -> None:
    """Count missing images that exist in a type that is not read.

    Args:
        where: the file or folder that names the images, for the message.
        missing: the names of the missing images.
        folders: the folders that were searched.
        counts: gets the counts.
        some_found: whether other images of the split were found.

    Raises:
        DataError: all images are missing; the message holds their number, an example and the folders.
    """
    unread: dict[str, Path] = {}
    for path in (path for folder in folders if missing and folder.is_dir() for path in folder.rglob("*")):
        if suffix := next((one for one in UNREAD if path.name.lower().endswith(one)), ""):
            unread.setdefault(_normalised(path.name[: -len(suffix)]), path)
    found = []
    for stem in (_normalised((parts_of(name) or ("",))[-1]) for name in dict.fromkeys(missing)):
        short = next((stem.removesuffix(end) for end in (*SUFFIXES[::-1], *UNREAD) if stem.endswith(end)), stem)
        if file := unread.get(stem) or unread.get(short):
            found.append(file)
            counts[f"image of a type that is not read ({file.suffix})"] += 1
    if missing and not some_found:
        searched = ", ".join(str(one) if one.is_dir() else f"{one} (no such folder)" for one in folders)
        hint = f" {found[0]} is there, and its type is not read: save it as PNG or JPEG." if found else ""
        raise DataError(
            f"{where}: {len(missing)} of {len(missing)} images are missing, such as {missing[0]!r}; looked in "
            f"{searched}, and the folders inside. Put them there, or set data.root to the folder that holds them.{hint}"
        )


def check_stems(paths: Sequence[Path]) -> list[Path]:
    """Return the files, after a check that no two in a folder share a stem: an annotation file has one image.

    Raises:
        DataError: two files share a stem.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.with_name(stem_of(path)), path)) != path:
            raise DataError(f"{path}: {other.name} beside it has the same stem; remove or rename one of them.")
    return list(paths)


def parts_of(name: str) -> tuple[str, ...]:
    r"""The folders and the file in a name, normalised for comparison.

    >>> parts_of(r"..\Images\A.jpg"), parts_of("https://host/x/a%20b.png?size=1")
    (('images', 'a.jpg'), ('host', 'x', 'a b.png'))
    """
    name = name.strip().strip("\"'")
    if "://" in name:
        address = urlsplit(name)
        name = f"{address.netloc}/{unquote(address.path)}"
    parts = name.replace("\\", "/").split("/")
    return tuple(_normalised(part) for part in parts if part.strip() not in ("", ".", ".."))


def _normalised(part: str) -> str:
    return normalize("NFC", part.strip()).casefold()


def below(path: Path, folders: Sequence[Path]) -> Path:
    """The path of a file relative to the first of some folders that it lies below, joined to it; else the path."""
    for whole in (os.path.abspath, os.path.realpath):
        place = Path(whole(path.parent)) / path.name
        for folder in folders:
            if place.is_relative_to(whole(folder)):
                found = folder / place.relative_to(whole(folder))
                if found.exists() and found.samefile(path):
                    return found
    return path


class Namesakes:
    """Files of one name, sorted by their folders, innermost first: files that agree with a name are neighbours, so
    that a search among thousands of them takes as long as among two.

    Args:
        files: with their folders, innermost first.
        folders: the folders that are searched.
    """

    def __init__(self, files: Sequence[tuple[Folders, Path]], folders: Sequence[Path]) -> None:
        ordered = sorted(files, key=lambda one: one[0])
        self.keys, self.files = [key for key, _ in ordered], [path for _, path in ordered]
        rank = {folder: index for index, folder in enumerate(folders)}
        # The files in the folders themselves, in the order of the folders.
        self.direct = sorted((p for p in self.files if p.parent in rank), key=lambda path: rank[path.parent])

    def nearest(self, named: Folders) -> Sequence[Path]:
        """The files that share most of the named folders, counted from the innermost outwards.

        A file that shares none of them contradicts the name, unless it lies in a folder that is searched.
        """
        if not named:
            return self.files
        wanted = named[::-1]
        at = bisect_left(self.keys, wanted)
        shared = max(_length_shared(key, wanted) for key in self.keys[max(at - 1, 0) : at + 1])
        if not shared:
            return self.direct
        first = bisect_left(self.keys, wanted[:shared], key=lambda key: key[:shared])
        return self.files[first : bisect_right(self.keys, wanted[:shared], key=lambda key: key[:shared])]


def _length_shared(one: Folders, other: Folders) -> int:
    """The number of equal folders at the beginning."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class ImageFiles:
    """Finds image files in some folders and the folders inside them.

    Args:
        folders: the folders to search, in this order.
        without: folders that are not entered, such as those of other splits.
        bare: a name without a folder means the file in the first of the folders that has it, even where there are
            others of this name further down; if False such a name is refused.
    """

    def __init__(self, folders: Sequence[Path], *, without: Sequence[Path] = (), bare: bool = True) -> None:
        self.folders, self.without, self.bare = list(dict.fromkeys(folders)), list(without), bare
        self._asked: dict[Path, tuple[str, ...]] = {}
        self._first_path: dict[Path, Path] = {}
        self._real_folder: dict[Path, Path] = {}
        self.missing: list[str] = []
        self.found = 0

    def find(self, name: str, counts: Counter[str]) -> Path | None:
        """The file of a name, or None; ``found by stem`` is counted where the name has no suffix or another one.

        A file always has the same path, whatever its name: below one of the folders if it lies there.

        Raises:
            DataError: two files fit, or the file was found before by a contradicting name.
        """
        parts = parts_of(name)
        there = self._at_name(name, parts) if parts else None
        file = there or (self._nearest(parts, counts) if parts else None)
        if file is None:
            self.missing.append(name)
            return None
        self.found += 1
        if there and _is_elsewhere(name):  # folders above those that are searched contradict no other name
            inner = (file.relative_to(folder) for folder in self.folders if file.is_relative_to(folder))
            parts = parts_of(str(next(inner, file)))
        other = self._asked.setdefault(file, parts)
        shorter, longer = sorted((other[:-1], parts[:-1]), key=len)
        if shorter and longer[-len(shorter) :] != shorter:
            raise DataError(f"{file}: {'/'.join(other)} and {'/'.join(parts)} would both be this file; expected two.")
        return self._first_path.setdefault(self._real(file.parent) / file.name, file)

    def check_found(self, where: Path | str, counts: Counter[str]) -> None:
        """Check that some of the images were found; see ``check_missing``.

        Raises:
            DataError: all images are missing.
        """
        check_missing(where, self.missing, self.folders, counts, some_found=self.found > 0)

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
                if is_image(file := folder / plain) and file.is_file():
                    return below(file, self.folders) if _is_elsewhere(name) else file
        return None

    def _nearest(self, parts: tuple[str, ...], counts: Counter[str]) -> Path | None:
        """The file of this name or stem, in any folder that does not contradict the name."""
        if fitting := self._choose(self._by_name.get(parts[-1]), parts):
            return fitting
        # The last part may be a stem with a dot in it, or the name of a file before a conversion.
        for wanted in dict.fromkeys((parts[-1], stem_of(Path(parts[-1])))):
            if fitting := self._choose(self._by_stem.get(wanted), parts):
                counts["found by stem"] += 1
                return fitting
        return None

    def _real(self, folder: Path) -> Path:
        if folder not in self._real_folder:
            self._real_folder[folder] = Path(os.path.realpath(folder))
        return self._real_folder[folder]

    def _choose(self, namesakes: Namesakes | None, parts: tuple[str, ...]) -> Path | None:
        """The file of the right name with most of the named folders, if any."""
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
        return self._grouped(stem_of)

    def _grouped(self, name_of: Callable[[Path], str]) -> dict[str, Namesakes]:
        folders = {folder: tuple(map(_normalised, folder.parts[::-1])) for folder in {one.parent for one in self.files}}
        found: dict[str, list[tuple[Folders, Path]]] = defaultdict(list)
        for path in self.files:
            found[_normalised(name_of(path))].append((folders[path.parent], path))
        return {name: Namesakes(files, self.folders) for name, files in found.items()}


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/").strip("\"'")


def _is_elsewhere(name: str) -> bool:
    """Whether a name does not begin at the folder that is searched."""
    path = Path(_plain(name))
    return path.is_absolute() or ".." in path.parts
