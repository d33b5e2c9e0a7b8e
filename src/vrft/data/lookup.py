"""Image files, found by the names that annotation files give them.

Such names were written on other machines: with folders that are not here or with another separator, as addresses, in
other cases, without the suffix. A name leads to one file or to none; what could be two is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from vrft.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jfif")
"""Of images beside annotations."""


def images_in(folder: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """The image files in a folder and the folders inside it, in a fixed order; hidden ones are none."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in inner)
        if path.suffix.lower() in SUFFIXES and not hidden and not any(one in path.parents for one in without):
            yield path


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
        self.missing: list[str] = []
        self.found = 0

    def find(self, name: str, counts: Counter[str]) -> Path | None:
        """The file of a name, or None; ``found by stem`` is counted where the name has no or another suffix.

        Raises:
            DataError: two files fit, or the file was found by a name that means another one.
        """
        parts = parts_of(name)
        file = self._find(name.strip(), parts, counts) if parts else None
        if file is None:
            self.missing.append(name)
            return None
        self.found += 1
        other = self._asked.setdefault(file, parts)
        shorter, longer = sorted((other[:-1], parts[:-1]), key=len)
        if shorter and longer[-len(shorter) :] != shorter:
            raise DataError(f"{file}: {'/'.join(other)} and {'/'.join(parts)} would both be this file; expected two.")
        return file

    def check_found(self, where: Path | str) -> None:
        """See that some of the images that were asked for are there.

        Raises:
            DataError: none is; the message tells how many are missing, one of them, and where was looked.
        """
        if self.missing and not self.found:
            looked = ", ".join(str(one) if one.is_dir() else f"{one} (no such folder)" for one in self.folders)
            total = len(self.missing)
            raise DataError(
                f"{where}: {total} of {total} images are missing, such as {self.missing[0]!r}; looked in {looked}, and "
                f"the folders inside. Put them there, or set data.root to the folder that holds them."
            )

    def _find(self, name: str, parts: tuple[str, ...], counts: Counter[str]) -> Path | None:
        plain = name.replace("\\", "/").strip("\"'")
        if self.bare or len(parts) > 1:
            for folder in (Path(), *self.folders) if Path(plain).is_absolute() else self.folders:
                if (file := folder / plain).suffix.lower() in SUFFIXES and file.is_file():
                    return file
        files, (last, stem, suffix) = self._by_name, (parts[-1], *_split(parts[-1]))
        if fitting := self._choose(files[last], parts):
            return fitting
        # A name that ends in no suffix of an image is a stem with a dot in it, or that of a file before conversion.
        for wanted in (last, stem) if suffix else (last,):
            if fitting := self._choose(self._by_stem[wanted], parts):
                counts["found by stem"] += 1
                return fitting
        return None

    def _choose(self, files: Sequence[Path], parts: tuple[str, ...]) -> Path | None:
        """Of files with the right name the one with most of the folders that are told, if any."""
        rated = [(shared, file) for file in files if (shared := self._agreement(file, parts)) is not None]
        best = [file for shared, file in rated if shared == max(rated)[0]]
        if len(best) > 1 and self.bare:
            best = [one for one in best if one.parent in self.folders][:1] or best
        if len(best) > 1:
            raise DataError(f"{best[1]}: {best[0]} has the same name, and {'/'.join(parts)!r} tells no folder.")
        return best[0] if best else None

    def _agreement(self, file: Path, parts: tuple[str, ...]) -> int | None:
        """How many of the folders that are told are those of the file; None where they contradict it."""
        folders = [_same(part) for part in file.parent.parts]
        shared = 0
        for here, told in zip(reversed(folders), reversed(parts[:-1]), strict=False):
            if here != told:
                break
            shared += 1
        return shared if shared or len(parts) == 1 or file.parent in self.folders else None

    @cached_property
    def _files(self) -> list[Path]:
        every = (path for folder in self.folders if folder.is_dir() for path in images_in(folder, self.without))
        return list(dict.fromkeys(every))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self._files:
            found[_same(path.name)].append(path)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self._files:
            found[_same(path.stem)].append(path)
        return found


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name."""
    path = Path(name)
    return path.stem, path.suffix
