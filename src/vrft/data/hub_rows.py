"""Hugging Face datasets as rows: a saved set, a folder that ``datasets.load_dataset`` reads, or a name on the hub.

The rows are read from the Arrow files of the set, which are mapped into memory: only the needed columns, in batches, so
that a set of any size needs no memory. The bytes of an image are read when it is used, and decoded by ``vrft.images``.
A folder of Parquet files or of another format is written as Arrow files by ``datasets`` once, into its own cache
(``HF_DATASETS_CACHE``), which takes as much disk again. On disk are also the index of the rows (some 200 bytes a row)
and, up to its limit, the cache of resized images.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from vrft.data.rows import Row
from vrft.data.splits import split_named
from vrft.data.table_rows import RowColumns, several
from vrft.errors import DataError, first_line, nearest
from vrft.extras import need
from vrft.sample import ImageBytes, ImageSource

BATCH = 1_000
"""Rows that are read together."""


@dataclass(frozen=True)
class ArrowCell:
    """The bytes of an image in an Arrow file of a dataset."""

    file: Path
    stamp: str
    """Of the file: the name of the split, and its size and time of change."""
    column: str
    row: int
    """In the file, from 0."""
    at: int | None = None
    """In a cell that holds a list, from 0."""

    @property
    def identity(self) -> list[Any]:
        """See ``vrft.sample.ByteSource``."""
        return [self.file.name, self.stamp, self.column, self.row, self.at]

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: the Arrow file is missing or damaged.
        """
        value = _table(self.file, self.stamp)[self.column][self.row]
        item = value if self.at is None else value[self.at]
        data = item["bytes"] if hasattr(item, "keys") else item
        return bytes(data.as_buffer())


@dataclass(frozen=True)
class _Split:
    name: str
    rows: int
    files: tuple[Path, ...]


class HubReader:
    """The rows of a Hugging Face dataset.

    Args:
        path: a folder, or a name on the hub.
        columns: the map of the columns.
        images: the folder of images that a column names; without it ``path``.
        name: of the configuration.
        revision: of a set on the hub: a branch, a tag or a commit.
        download: fetch a set that is not on this machine.
        ignore: names of splits that are left out.
    """

    def __init__(
        self,
        path: str,
        *,
        columns: RowColumns,
        images: Path | None = None,
        name: str | None = None,
        revision: str | None = None,
        download: bool = False,
        ignore: Sequence[str] = (),
    ) -> None:
        self.where, self.columns, self.images = path, columns, images or Path(path)
        self.name_of_configuration, self.revision, self.download, self.ignore = name, revision, download, tuple(ignore)

    @cached_property
    def _loaded(self) -> tuple[tuple[_Split, ...], Any]:
        """The splits and the types of the columns."""
        found = load(self.where, self.name_of_configuration, self.revision, download=self.download)
        splits = []
        for name, part in sorted(found.items()):
            if name in self.ignore:
                continue
            files = tuple(Path(one["filename"]).absolute() for one in part.cache_files)
            splits.append(_Split(name, part.num_rows, files))
        if missing := [name for name in self.ignore if name not in found]:
            raise DataError(f"{self.where}: has no split {missing[0]!r} (data.ignore); it has {', '.join(found)}.")
        if not splits:
            raise DataError(f"{self.where}: has no split that is not in data.ignore.")
        return tuple(splits), next(iter(found.values())).features

    @cached_property
    def _split_names(self) -> dict[str, str | None]:
        """The split of each part of the dataset; a part alone that is called train, or as no split, has none."""
        names = [split.name for split in self._loaded[0]]
        known = {name: split_named(name) for name in names}
        if self.columns.split is not None or (len(names) == 1 and known[names[0]] in (None, "train")):
            return dict.fromkeys(names)
        if unknown := [name for name, split in known.items() if split is None]:
            fault = f"has the split {unknown[0]!r} beside {next(name for name in names if name != unknown[0])!r}"
            remedy = f"leave it out: data.ignore: [{', '.join(unknown)}]"
            raise DataError(f"{self.where}: {fault}; expected train, validation and test; {remedy}.")
        return known

    @cached_property
    def _files(self) -> list[tuple[_Split, Path, str]]:
        """Each Arrow file with its split and its stamp."""
        found = []
        for split in self._loaded[0]:
            for file in split.files:
                stat = file.stat()
                found.append((split, file, f"{split.name}-{stat.st_size}-{stat.st_mtime_ns}"))
        return found

    @property
    def identity(self) -> Any:
        """The Arrow files and the map of the columns.

        Raises:
            DataError: the dataset cannot be loaded.
        """
        files = [[split.name, str(file), stamp] for split, file, stamp in self._files]
        return [files, repr(self.columns), str(self.images.absolute()), self.ignore]

    def rows(self) -> Iterator[Row]:
        """Yield the rows, split by split in the order of their names.

        Raises:
            DataError: the dataset cannot be loaded, or lacks a column or a split.
        """
        features = self._loaded[1]
        used, images = self.columns.used(), several(self.columns.image)
        self._check_columns(features, used)
        named = {column: _names(features[column]) for column in used if column not in images}
        splits = self._loaded[0]
        starts = dict(zip([split.name for split in splits], accumulate(split.rows for split in splits), strict=True))
        number = 0
        for index, (split, file, stamp) in enumerate(self._files):
            first, row_in_file = starts[split.name] - split.rows, 0
            for batch in _table(file, stamp).select(used).to_batches(max_chunksize=BATCH):
                cells = [_images(batch.column(column)) for column in images]
                values = {
                    column: [name(value) for value in batch.column(column).to_pylist()]
                    for column, name in named.items()
                }
                for at in range(batch.num_rows):
                    number += 1
                    shown = f"{split.name}-{number - first}"
                    found, fault = self._references([cell[at] for cell in cells], index, row_in_file, shown)
                    row = self.columns.row(number, {column: values[column][at] for column in named}, found, fault)
                    row.split = row.split if self.columns.split is not None else self._split_names[split.name]
                    row_in_file += 1
                    yield row

    def place(self, number: int) -> str:
        """The dataset, the split and the number of a row in it, from 1."""
        for split in self._loaded[0]:
            if number <= split.rows:
                return f"{self.where}: {split.name} row {number}"
            number -= split.rows
        return f"{self.where}: row {number}"

    def image(self, reference: str) -> ImageSource:
        """The image in a cell, or the file that a cell names."""
        kind, _, rest = reference.partition(":")
        if kind == "file":
            return Path(rest)
        index, row, column, at, name = rest.split(":", 4)
        split, file, stamp = self._files[int(index)]
        source = ArrowCell(
            file, stamp, str(several(self.columns.image)[int(column)]), int(row), int(at) if at else None
        )
        return ImageBytes(source, name=f"{self.where} ({split.name})/{name}")

    def name(self, reference: str) -> str:
        """The path of an image file below the folder of the images, or the name of an image, else of its row."""
        kind, _, rest = reference.partition(":")
        if kind != "file":
            return rest.split(":", 4)[4]
        path = Path(rest)
        return str(path.relative_to(self.images)) if path.is_relative_to(self.images) else path.name

    def _check_columns(self, features: Any, used: Sequence[Any]) -> None:
        for column in used:
            if column not in features:
                near = nearest(str(column), list(features))
                hint = f" Did you mean {near!r}?" if near else ""
                raise DataError(f"{self.where}: has no column {column!r}; it has {', '.join(features)[:300]}.{hint}")

    def _references(
        self, cells: Sequence[list[tuple[str | None, bool]]], file: int, row: int, shown: str
    ) -> tuple[list[str], str]:
        """The references of the images in some cells of a row, and what is wrong with them."""
        found = []
        for column, images in enumerate(cells):
            is_list = isinstance(images, _Several)
            for at, (path, has_bytes) in enumerate(images):
                if has_bytes:
                    name = re.split(r"[/\\]", path)[-1] if path else shown
                    found.append(f"cell:{file}:{row}:{column}:{at if is_list else ''}:{name}")
                elif path:
                    place = self.images / path
                    if "://" in path or not place.is_file():
                        return [], f"names the image {path!r}, which is not in {self.images}"
                    found.append(f"file:{place}")
        return found, "" if found else "names no image"


def load(path: str, name: str | None = None, revision: str | None = None, *, download: bool = False) -> dict[str, Any]:
    """The splits of a Hugging Face dataset, each a ``datasets.Dataset`` that is mapped into memory.

    Args:
        path: a folder that ``save_to_disk`` wrote or ``load_dataset`` reads, or a name on the hub.
        name: of the configuration.
        revision: of a set on the hub.
        download: fetch a set that is not on this machine; no code of a set is ever run.

    Raises:
        DataError: there is no such set, or it cannot be loaded.
    """
    need("reading Hugging Face datasets", ("datasets", "pyarrow"), "data")
    import datasets

    folder = Path(path)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            if name or revision:
                raise DataError(f"{path}: was written by save_to_disk, which knows no data.name and no data.revision.")
            found = datasets.load_from_disk(str(folder), keep_in_memory=False)
        elif folder.is_dir():
            found = _load(str(folder.absolute()), name)
        elif folder.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
            what = "is a file" if folder.exists() else "no such folder"
            raise DataError(f"{path}: {what}; expected a folder of a dataset, or a name on the hub such as org/name.")
        else:
            found = _load(path, name, revision) if download else _load_cached(path, name, revision)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # each builder raises errors of its own
        why = first_line(error.__cause__ or error)[:300]
        raise DataError(f"{path}: cannot be loaded as a dataset ({type(error).__name__}: {why}).") from None
    return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


def _load(path: str, name: str | None, revision: str | None = None) -> Any:
    import datasets

    return datasets.load_dataset(
        path,
        name,
        revision=revision,
        keep_in_memory=False,
        download_mode="reuse_dataset_if_exists",
        verification_mode="basic_checks",
        streaming=False,
    )


def _load_cached(path: str, name: str | None, revision: str | None) -> Any:
    """A set of the hub of which this machine has the files, or what ``datasets`` made of them; nothing is fetched."""
    import datasets
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        files = snapshot_download(path, repo_type="dataset", revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        files = None
    if files is not None:
        return _load(files, name)
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        if revision is None:  # which revision was prepared is not known
            return _load(path, name)
    except (FileNotFoundError, ConnectionError):
        pass
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    raise DataError(
        f"{path}: no such folder, and no dataset of this name{f' at {revision}' if revision else ''} is cached on this "
        f"machine; set data.download to true, or fetch it with: hf download --repo-type dataset {path}."
    )


@cache
def _table(file: Path, _stamp: str) -> Any:
    """The table in an Arrow file, mapped into memory once in a process."""
    import pyarrow

    try:
        return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: is no Arrow file of a dataset ({first_line(error)[:100]}); make it anew.") from None


class _Several(list[tuple[str | None, bool]]):
    """The images in a cell that holds a list."""


def _images(array: Any) -> list[list[tuple[str | None, bool]]]:
    """The path and whether there are bytes, for each image in each cell; no bytes are read."""
    import pyarrow
    import pyarrow.compute as pc

    types = pyarrow.types
    if types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        inner = iter([image for cell in _images(array.flatten()) for image in cell or [(None, False)]])
        return [_Several(next(inner) for _ in range(n or 0)) for n in pc.list_value_length(array).to_pylist()]
    if types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        has_bytes = pc.is_valid(pc.struct_field(array, "bytes")).to_pylist()
        has_path = array.type.get_field_index("path") >= 0
        paths = pc.struct_field(array, "path").to_pylist() if has_path else [None] * len(array)
        return [[(path, there)] if path or there else [] for path, there in zip(paths, has_bytes, strict=True)]
    if types.is_string(array.type) or types.is_large_string(array.type):
        return [[(path, False)] if path else [] for path in array.to_pylist()]
    if types.is_binary(array.type) or types.is_large_binary(array.type):
        return [[(None, True)] if there else [] for there in array.is_valid().to_pylist()]
    raise DataError(f"data.columns.image names a column of {array.type}; expected images, or the names of files.")


def _names(feature: Any) -> Callable[[Any], Any]:
    """Puts the names of classes in place of their numbers, at any depth of a value; -1 is no class."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        return lambda value: None if value is None or value < 0 else names[value]
    if isinstance(feature, datasets.Features | dict):
        inner = {key: _names(one) for key, one in feature.items()}
        return lambda value: value and {key: inner[key](one) for key, one in value.items()}
    if isinstance(feature, list | datasets.List | datasets.LargeList):
        name = _names(feature[0] if isinstance(feature, list) else feature.feature)
        return lambda value: value and [name(one) for one in value]
    return lambda value: value
