"""What `vrft init` makes of each of some data sets, and what its recipe loads.

python benchmarks/real_sets.py FOLDER --json

FOLDER holds a folder for each set. For each the recipe of ``vrft init`` is drafted and its data opened, all samples of
all splits are made, and all their images are read. Of a set of which no task can be made, the image files are read.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from vrft.data.annotations import BoxSource
from vrft.data.lookup import images_in
from vrft.data.rows import RowSource
from vrft.data.splits import SPLITS
from vrft.errors import DataError, UserError
from vrft.images import inspect
from vrft.recipe import Recipe, open_source
from vrft.recipe.draft import draft_recipe
from vrft.sample import ImageFile, open_image


def describe(folder: Path) -> dict[str, Any]:
    """The figures of one set."""
    began = time.perf_counter()
    try:
        draft = draft_recipe(folder, out=Path("recipe.yaml"))
    except UserError as error:
        return _images_alone(folder) | {"init": str(error).split("\n")[0].replace(str(folder), folder.name)[:160]}
    recipe = Recipe.model_validate(yaml.safe_load(draft.text))
    drafted = time.perf_counter()
    source = open_source(recipe)
    source.check()
    loaded, unread, images = Counter[str](), list[str](), 0
    for split in SPLITS:
        samples = source.samples(split)
        for sample in samples:
            loaded[split] += 1
            for image in sample.images:
                try:
                    open_image(image)
                    images += 1
                except DataError as error:
                    unread.append(str(error).replace(str(folder), folder.name)[:120])
    skipped: dict[str, int] = {}
    if isinstance(source, RowSource):
        skipped = source.index.faults()
    elif isinstance(source, BoxSource):
        counts = sum((Counter(of) for of in source.counts.values()), Counter[str]())
        reasons = ("no usable box", "not annotated", "image missing", "row without image", "no area", "unreadable")
        skipped = {reason: counts[reason] for reason in reasons if counts[reason]}
    return {
        "source": recipe.data.source,
        "task": recipe.task.kind,
        "loaded": dict(loaded),
        "images": images,
        "skipped": {reason.replace(str(folder), folder.name): count for reason, count in skipped.items()},
        "unreadable": unread,
        "init_seconds": round(drafted - began, 2),
        "read_seconds": round(time.perf_counter() - drafted, 2),
    }


def _images_alone(folder: Path) -> dict[str, Any]:
    """The images of a set without labels: how many can be read, by their first page."""
    began, read, refused = time.perf_counter(), 0, list[str]()
    for path in images_in(folder):
        try:
            pages = inspect(path, any_page=True).pages
            open_image(ImageFile(path, page=0 if pages > 1 else None))
            read += 1
        except DataError as error:
            refused.append(str(error).replace(str(folder), folder.name)[:100])
    return {"images": read, "unreadable": refused, "read_seconds": round(time.perf_counter() - began, 2)}


def main() -> None:
    """Print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {path.name: describe(path) for path in sorted(options.folder.iterdir()) if path.is_dir()}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, row in found.items():
        print(name, "  ".join(f"{key}: {value}" for key, value in row.items() if value), sep="\n  ")


if __name__ == "__main__":
    main()
