"""Guesses about sets whose images are packed: Hugging Face datasets, Parquet files with images inside, tar shards."""

import json
import os
import tarfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from vrft.data.guess import Guess, Tree
from vrft.data.guess_tables import Images, fill
from vrft.data.lookup import is_image
from vrft.data.splits import split_named
from vrft.errors import DataError
from vrft.extras import need

READ = 2_000
"""Rows, and members of a shard, that are read to know a set."""


def guess_packed(tree: Tree) -> list[Guess]:
    """A saved dataset, Parquet files with images inside, and tar shards.

    Raises:
        UserError: a package is missing that reads them, or they cannot be read.
    """
    return [*_saved(tree), *_parquet(tree), *_shards(tree)]


def _saved(tree: Tree) -> list[Guess]:
    for folder, names in tree.files.items():
        if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= set(names):
            return _of_dataset(folder, "a Hugging Face dataset that save_to_disk wrote")
    return []


def has_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images, as bytes."""
    if find_spec("pyarrow") is None:
        return False
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
    except (OSError, ValueError):
        return False
    types = pyarrow.types
    return any(types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0 for one in schema)


def _parquet(tree: Tree) -> list[Guess]:
    if any(map(has_images, islice(tree.named(".parquet"), 3))):
        return _of_dataset(tree.root, "Parquet files with images inside")
    return []


def _of_dataset(folder: Path, what: str) -> list[Guess]:
    """The guess about a folder that ``datasets`` reads."""
    need(f"reading {folder}", ("datasets",), "data")
    from vrft.data.hub_rows import load

    parts = load(str(folder), None)
    features = next(iter(parts.values())).features
    kinds = {title: type(getattr(kind, "feature", kind)).__name__ for title, kind in features.items()}
    images = [title for title, kind in kinds.items() if kind == "Image"]
    if not images:
        raise DataError(f"{folder}: is a dataset without a column of images (columns: {', '.join(kinds)[:300]}).")
    cells: dict[str, list[Any]] = {title: [] for title in kinds if title not in images}
    for part in parts.values():
        if cells:
            for title, values in part.select_columns(list(cells)).select(range(min(READ, len(part))))[:].items():
                names = getattr(features[title], "names", None)
                cells[title] += [
                    names[value] if names and value is not None and value >= 0 else value for value in values
                ]
    guess = Guess("huggingface", "", 0, what, {"path": str(folder), "columns": {}})
    total = sum(len(part) for part in parts.values())
    splits = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    guess.why.append(f"{what[0].upper()}{what[1:]}: {total:,} rows ({splits}); columns {', '.join(kinds)[:300]}.")
    masks = [title for title in images if "mask" in title.lower()]
    shown = [title for title in images if title not in masks] or images
    guess.data["columns"]["image"] = shown if len(shown) > 1 else shown[0]
    if len(shown) > 1:
        guess.why.append(f"{', '.join(map(repr, shown))} are images: they are shown together (columns.image).")
    if unknown := [name for name in parts if split_named(name) is None] if len(parts) > 1 else []:
        guess.data["ignore"] = unknown
        guess.notes["ignore"] = "splits that are neither train, validation nor test"
    return _filled(guess, cells, 100)


def _shards(tree: Tree) -> list[Guess]:
    files = sorted(tree.named(".tar"))
    if not files:
        return []
    samples = _samples(files[0])
    seen = [members for members in samples if any(is_named_as_image(name) for name in members)]
    if not seen or len(seen) < len(samples) / 2:
        return []
    data: dict[str, Any] = {
        "files": str(tree.root) if len({file.parent for file in files}) == 1 else [*map(str, files)]
    }
    splits: dict[str, list[str]] = defaultdict(list)
    for file in files:
        words = [split_named(word) for word in (file.parent.name, *file.stem.replace("_", "-").split("-"))]
        splits[next((word for word in words if word), "")].append(str(file))
    if "" not in splits:
        data["files"] = dict(splits)
    guess = Guess("shards", "", 0, "tar shards", data | {"columns": {}})
    extensions = Counter(name for members in seen for name in members)
    guess.why.append(
        f"{len(files):,} tar files; the samples of {files[0].name} have the members "
        f"{', '.join(extensions)[:200]}{'; their splits are in the names' if '' not in splits else ''}."
    )
    cells: dict[str, list[Any]] = {}
    for title in dict.fromkeys(key for members in seen for key in _values(members)):
        cells[title] = [_values(members).get(title) for members in seen]
    return _filled(guess, cells, 85)


def is_named_as_image(extension: str) -> bool:
    """Whether a member of a shard is an image by its extension, such as ``front.jpg``."""
    return is_image(Path(f"x.{extension}"))


def _samples(path: Path) -> list[dict[str, bytes]]:
    """The members of the first samples of a shard by extension; the content of images is left out."""
    found: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in islice(archive, READ):
                folder, name = os.path.split(member.name)
                key, dot, extension = name.partition(".")
                if not member.isfile() or not dot or name.startswith("."):
                    continue
                small = not is_named_as_image(extension) and member.size < 1_000_000
                file = archive.extractfile(member) if small else None
                found.setdefault(f"{folder}/{key}", {})[extension.lower()] = file.read() if file else b""
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: is no tar file ({error}); pack it again, uncompressed.") from None
    return list(found.values())


def _values(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The values of a sample: its members that are texts, and the keys of its JSON."""
    found: dict[str, Any] = {}
    for name, content in members.items():
        if is_named_as_image(name):
            continue
        if name == "json":
            try:
                parsed = json.loads(content)
            except (ValueError, RecursionError):
                continue
            found |= parsed if isinstance(parsed, dict) else {}
        else:
            found[name] = content.decode("utf-8", "replace").strip()
    return found


def _filled(guess: Guess, cells: dict[str, list[Any]], score: float) -> list[Guess]:
    rows = max(map(len, cells.values()), default=0)
    rest = [title for title in cells if title not in ("__key__", "__url__")]
    cells = {**cells, "": list(range(rows))}  # each row has an image of its own
    fill(guess, rest, cells, Images("", [], rows, None, False))
    if not guess.kind:
        raise DataError(
            f"{guess.place}: has images, and nothing that says what they show (columns: {', '.join(rest)})."
        )
    guess.score = score
    return [guess]
