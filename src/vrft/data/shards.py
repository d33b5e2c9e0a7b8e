"""Tar shards as WebDataset writes them, as rows, for sets of many files or that are larger than a disk.

The members of a sample lie side by side and have a name in common, up to the first dot: ``a/7.jpg``, ``a/7.json``. The
headers of each shard are read once; then an image is read by its position, so that nothing is unpacked and the order of
the samples is free. In memory are the positions of one sample at a time. On disk are the index of the rows (some 200
bytes a sample) and, up to its limit, the cache of resized images. A shard at an address is read as a stream once, for
its index, without being kept; then each image is a request of its own, unless its resized form is in the cache.
"""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from vrft.data.lookup import SUFFIXES
from vrft.data.remote_files import RemoteFile, RemotePart, facts_of, is_address, shown
from vrft.data.remote_files import glob as remote_glob
from vrft.data.rows import Row
from vrft.data.table_rows import RowColumns, several
from vrft.errors import DataError, first_line
from vrft.sample import ImageBytes, ImageFile, ImageSource

Files = str | Sequence[str]
"""Paths, addresses, or patterns of these: ``train-{000..099}.tar``, ``train-*.tar``."""

LONGEST = 16 << 20
"""Bytes of a member with values; a longer one is a fault."""

COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""The first bytes of compressed files, and the commands that unpack them."""

TAR = 512
"""The bytes of a block of a tar file."""


@dataclass(frozen=True)
class Shard:
    """A tar file of a split."""

    path: str
    """Or its address."""
    split: str | None
    size: int
    """In bytes."""
    stamp: str
    """Changes with its content."""
    label: str
    """A short name, different from that of each other shard."""

    @property
    def where(self) -> str:
        """The path or the address, for messages."""
        return shown(self.path) if is_address(self.path) else self.path

    @cached_property
    def file(self) -> Path | None:
        """The file of this machine; None of an address."""
        return None if is_address(self.path) else Path(self.path)

    def open(self) -> IO[bytes]:
        """The shard, to read from."""
        remote: Any = RemoteFile(self.path, self.size)
        return self.file.open("rb") if self.file is not None else remote


class ShardReader:
    """The samples of shards, as rows.

    Args:
        files: of all shards, or by split.
        columns: the map of the columns: extensions of members (``cls``, ``txt``, ``front.jpg``), or keys of the member
            ``json``. Without a column for images a sample has a single image, or several that are numbered (``0.jpg``).
        hash_names: messages do not hold the names of samples.
    """

    def __init__(self, files: Files | Mapping[Any, Files], *, columns: RowColumns, hash_names: bool = False) -> None:
        self.files, self.columns, self.hash_names = files, columns, hash_names
        by_split = files if isinstance(files, Mapping) else {None: files}
        self._patterns = [
            (split, one) for split, some in by_split.items() for one in ([some] if isinstance(some, str) else some)
        ]
        if not self._patterns:
            raise DataError("data.files names no shard; expected the path of a tar file, such as train-{000..099}.tar.")
        first = self._patterns[0][1]
        self.where = shown(first) if is_address(first) else first

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards in order.

        Raises:
            DataError: a shard is missing, or in two splits.
        """
        found = [(split, path) for split, pattern in self._patterns for path in _paths(pattern)]
        seen: dict[str, str | None] = {}
        for split, path in found:
            real = path if is_address(path) else os.path.realpath(path)
            if real in seen:
                both = f" (in {seen[real]} and {split})" if seen[real] != split else ""
                raise DataError(f"{path}: is named twice in data.files{both}; name each shard once.")
            seen[real] = split
        with ThreadPoolExecutor(16) as pool:
            facts = list(pool.map(_facts, [path for _, path in found]))
        labels = _labels([shown(path) if is_address(path) else path for _, path in found])
        return [
            Shard(path, split, size, stamp, label)
            for (split, path), (size, stamp), label in zip(found, facts, labels, strict=True)
        ]

    @property
    def identity(self) -> Any:
        """The shards with their sizes and times of change, and the map of the columns.

        Raises:
            DataError: a shard is missing.
        """
        return [[[one.where, one.split, one.size, one.stamp] for one in self.shards], repr(self.columns)]

    def rows(self) -> Iterator[Row]:
        """Yield the samples, shard by shard.

        Raises:
            DataError: a shard is no tar file or is compressed, or no sample has a column.
        """
        found: set[Any] = set()
        has_any, offered = False, ""
        for at, shard in enumerate(self.shards):
            with shard.open() as file:
                for sample in _samples(file, shard):
                    row, present, offers = self._row(at, shard, sample, file)
                    found |= present
                    has_any, offered = True, offered or offers
                    yield row
        if missing := [column for column in self.columns.used() if has_any and column not in found]:
            raise DataError(
                f"{self.where}: no sample has {str(missing[0])!r}, neither as a member nor in its json; the first has "
                f"{offered}."
            )

    def place(self, number: int) -> str:
        """The shard, and the name of the sample in it, or with ``hash_names`` its position."""
        shard, start = self.shards[number >> 32], (number & 0xFFFFFFFF) * TAR
        if not self.hash_names:
            try:
                with shard.open() as file:
                    file.seek(start)
                    member = tarfile.TarFile(fileobj=file).next()
                if member is not None:
                    return f"{shard.where}: {_key(member.name)[0]}"
            except (tarfile.TarError, OSError):
                pass
        return f"{shard.where}: sample at byte {start}"

    def image(self, reference: str) -> ImageSource:
        """The image in a shard."""
        at, start, length, member = reference.split(":", 3)
        shard = self.shards[int(at)]
        name = f"{shard.label}.tar/{member}"
        if shard.file is None:
            return ImageBytes(RemotePart(shard.path, int(start), int(length), shard.stamp), name=name)
        return ImageFile(shard.file, part=(int(start), int(length)), name=name)

    def name(self, reference: str) -> str:
        """The shard, and the name of the sample in it with the last suffix of its image."""
        at, _, _, member = reference.split(":", 3)
        key, kind = _key(member)
        return f"{self.shards[int(at)].label}/{key}.{kind if kind == 'nii.gz' else kind.rpartition('.')[2]}"

    def _row(self, at: int, shard: Shard, sample: "_Sample", file: IO[bytes]) -> tuple[Row, set[Any], str]:
        """The row of a sample, the columns that it has, and its members and keys in words."""
        number = (at << 32) | (sample.start // TAR)
        members, fault = sample.members, sample.fault
        parsed: dict[str, Any] = {}
        if not fault and "json" in members:
            parsed, fault = _json(members["json"], file)
        offers = ", ".join(members) + (f" (json: {', '.join(map(str, parsed))})" if parsed else "")
        images: list[str] = []
        if not fault:
            images, fault = self._images(members)
        present = {one for one in several(self.columns.image) if str(one).lower() in images}
        values: dict[Any, Any] = {}
        for column in self.columns.used():
            name = str(column)
            values[column] = None
            if fault or column in several(self.columns.image):
                continue
            if name.lower() in members:
                present.add(column)
                values[column], fault = _text(members[name.lower()], file)
            elif name in parsed:
                present.add(column)
                values[column] = parsed[name]
        absent = [column for column in several(self.columns.target) if column not in present]
        if absent and not fault:
            fault = f"has no {str(absent[0])!r}, neither as a member nor in its json (it has {offers[:300]})"
        if fault:
            return Row(number, fault=fault), present, offers
        references = [f"{at}:{members[one].offset_data}:{members[one].size}:{members[one].name}" for one in images]
        row = self.columns.row(number, values, references)
        row.split = row.split if self.columns.split is not None else shard.split
        return row, present, offers

    def _images(self, members: Mapping[str, tarfile.TarInfo]) -> tuple[list[str], str]:
        """The extensions of the images of a sample in order, and what is wrong with them."""
        if named := [str(column).lower() for column in several(self.columns.image)]:
            found = [one for one in named if one in members]
            return found, "" if found else f"has no image {' or '.join(map(repr, named))} (it has {', '.join(members)})"
        found = [one for one in members if _is_image(one)]
        if not found:
            return [], f"has no image beside {', '.join(members)}; the members of a sample must lie side by side"
        if len(found) == 1:
            return found, ""
        if all(re.fullmatch(r"[0-9]+\.\w+(\.gz)?", one) for one in found):
            return sorted(found, key=lambda one: int(one.partition(".")[0])), ""
        names = f": {', '.join(found)[:200]}" if not self.hash_names else ""
        shown_ = "name those to show in data.columns.image (the name of a sample ends at its first dot)"
        return [], f"has {len(found)} images that are not numbered{names}; {shown_}"


@dataclass
class _Sample:
    start: int
    """The position of its first header."""
    key: str
    members: dict[str, tarfile.TarInfo]
    """By extension."""
    fault: str = ""


class _Damaged(Exception):
    """The headers of a shard end before their end mark."""


def _samples(file: IO[bytes], shard: Shard) -> Iterator[_Sample]:
    """The samples of a shard; members without a suffix and hidden ones are left out."""
    seen: set[int] = set()
    sample: _Sample | None = None
    members = _members(file, shard)
    while True:
        fault = ""
        try:
            member = next(members, None)
        except _Damaged as error:
            member, fault = None, f"is the last that can be read of a shard that is damaged or cut off ({error})"
        if member is None:
            if sample is not None:
                sample.fault = sample.fault or fault
                yield sample
            elif fault:
                raise DataError(f"{shard.where}: is damaged or cut off; copy it again.")
            return
        key, kind = _key(member.name)
        if not kind or not member.isfile() or key.rpartition("/")[2] == "" or "__MACOSX" in member.name:
            continue
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = _Sample(member.offset, key, {})
            if hash(key) in seen:
                sample.fault = "has members in two places of the shard; the members of a sample must lie side by side"
            seen.add(hash(key))
        if kind in sample.members:
            sample.fault = sample.fault or f"has two members {kind!r}"
        if member.issparse():
            sample.fault = sample.fault or f"has a sparse member {kind!r}"
        if member.offset_data + member.size > shard.size:
            sample.fault = sample.fault or f"has a member {kind!r} that the shard, which was cut off, does not hold"
        sample.members[kind] = member


def _members(file: IO[bytes], shard: Shard) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file up to its end mark.

    Raises:
        DataError: it is no tar file, or is compressed.
        _Damaged: its headers end before the end mark.
    """
    head = file.read(TAR)
    for mark, command in COMPRESSED.items():
        if head.startswith(mark):
            fault = "is compressed, and a compressed shard cannot be read by position"
            raise DataError(f"{shard.where}: {fault}; unpack it with {command}, and name the tar file.")
    file.seek(0)
    try:
        archive = tarfile.TarFile(fileobj=file)
    except tarfile.TarError as error:
        raise DataError(f"{shard.where}: is no tar file ({first_line(error)}); copy it again.") from None
    try:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else all headers stay in memory
            yield member
    except tarfile.TarError as error:
        raise _Damaged(first_line(error)) from None
    file.seek(archive.offset)
    if file.read(TAR) != bytes(TAR):
        raise _Damaged("without an end mark")


def _key(name: str) -> tuple[str, str]:
    """The name of a sample, and the extension of a member in lower case.

    >>> _key("./a/7.front.JPG"), _key("a.b/README")
    (('a/7', 'front.jpg'), ('a.b/README', ''))
    """
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, kind = last.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _is_image(kind: str) -> bool:
    return f".{kind}".lower().endswith(SUFFIXES)


def _content(member: tarfile.TarInfo, file: IO[bytes]) -> tuple[str, str]:
    """The text in a member, and what is wrong with it."""
    kind = _key(member.name)[1]
    if member.size > LONGEST:
        return "", f"has a member {kind!r} of {member.size >> 20} MiB; expected a short text"
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return "", f"has a member {kind!r} that is no text in UTF-8"


def _text(member: tarfile.TarInfo, file: IO[bytes]) -> tuple[str | None, str]:
    text, fault = _content(member, file)
    return text.strip(), fault


def _json(member: tarfile.TarInfo, file: IO[bytes]) -> tuple[dict[str, Any], str]:
    """The object in a member, and what is wrong with it."""
    text, fault = _content(member, file)
    try:
        found = json.loads(text) if not fault else {}
    except (ValueError, RecursionError):
        return {}, "has a json that is no JSON"
    return (found if isinstance(found, dict) else {}), fault


def _paths(pattern: str) -> list[str]:
    """The shards of a pattern, in order."""
    found: list[str] = []
    for one in expand_braces(pattern):
        if is_address(one):
            fitting = remote_glob(one) if "*" in one else [one]
        elif os.path.isdir(one):
            fitting = sorted(str(path) for path in Path(one).glob("*.tar"))
        elif os.path.exists(one) or not glob.has_magic(one):
            fitting = [one]
        else:
            fitting = sorted(glob.glob(one, recursive=True))
        if not fitting:
            raise DataError(f"{one}: no shard is there; expected tar files. Set data.files to their paths.")
        found += fitting
    return found


def _facts(path: str) -> tuple[int, str]:
    if is_address(path):
        facts = facts_of(path)
        return facts.size, facts.stamp
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        raise DataError(f"{path}: no such shard; set data.files to the paths of the tar files.") from None
    return stat.st_size, str(stat.st_mtime_ns)


def expand_braces(pattern: str) -> list[str]:
    """The texts of a pattern with braces.

    Raises:
        DataError: the braces hold neither a range nor a list.

    >>> expand_braces("a-{08..10}.tar"), expand_braces("{x,y}{1..2}")
    (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['x1', 'x2', 'y1', 'y2'])
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    inner = found[1]
    if numbers := re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", inner):
        first, last = numbers.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        values = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    else:
        values = inner.split(",")
    if len(values) < 1 or (len(values) == 1 and not numbers):
        raise DataError(f"{pattern}: the braces hold {inner!r}; expected a range such as {{000..099}}, or {{a,b}}.")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [before + value + rest for value in values for rest in expand_braces(after)]


def _labels(paths: Sequence[str]) -> list[str]:
    """A short name for each path: its last part, or its last two, or its number as well."""
    short = [path.rstrip("/").rpartition("/")[2].removesuffix(".tar") for path in paths]
    if len(set(short)) == len(short):
        return short
    longer = ["/".join(path.split("/")[-2:]).removesuffix(".tar") for path in paths]
    return longer if len(set(longer)) == len(longer) else [f"{at}-{name}" for at, name in enumerate(short)]
