"""Counts of real sets with boxes or masks beside those of their notes: ``python benchmarks/box_sets.py DIR [--json]``.

DIR holds a folder for each set. A set is opened as a recipe opens it; the exit code is 1 where a count differs.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vrft.data.annotations import BoxSource, Counts
from vrft.data.splits import SPLITS
from vrft.recipe import FileData, box_reader

NIH_COLUMNS = {"image": "Image Index", "label": "Finding Label", "corner_and_size": ["Bbox [x", "y", "w", "h]"]}
CELLS = {"images": "Dataset 1", "masks": "Dataset 1", "classes": {128: "cytoplasm", 255: "nucleus"}, "merge": "cell"}

SETS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "bccd": (
        {"source": "voc"},
        {"images": 364, "boxes": 4888, "kept": 4886, "no area": 2, "RBC": 4153, "WBC": 372, "Platelets": 361},
    ),
    "rbc_coco": ({"source": "coco"}, {"images": 30, "boxes": 691, "kept": 691, "rbc": 662, "wbc": 29}),
    "brain_tumor_coco": ({"source": "coco"}, {"images": 21, "boxes": 27, "kept": 27, "object": 27}),
    "brain_tumor_coco_polygons": (
        {"source": "coco"},
        {"images": 12, "empty": 6, "not annotated": 6, "kept": 6, "Tumor": 6},
    ),
    "brain_tumor_yolo": (
        {"source": "yolo"},
        {"images": 39, "empty": 13, "polygon": 13, "kept": 26, "object": 13, "tumor": 13},
    ),
    "lumbar_spine_obb": (
        {"source": "yolo"},
        {"images": 14, "oriented": 48, "kept": 48, "Buldging": 19, "Normal": 16, "Herniation": 13},
    ),
    "wbc_masks": ({"source": "masks", **CELLS}, {"images": 40, "kept": 40, "cell": 40}),
    "hyperkvasir_polyps": (
        {"source": "masks", "classes": {255: "polyp"}},
        {"images": 5, "kept": 6, "speck": 1, "polyp": 6},
    ),
    "nih_cxr": (
        {
            "source": "table",
            "file": "BBox_List_2017.csv",
            "columns": NIH_COLUMNS,
            "patient": "^([0-9]+)_",
            "negatives": True,
        },
        {"images": 25, "kept": 23, "row without image": 961, "Pneumonia": 17},
    ),
}
"""The section ``data`` of each set, and the counts that its notes state or that follow from them."""


def counts_of(root: Path, data: dict[str, Any]) -> dict[str, int]:
    """The counts of all splits of a set, and the kept boxes of each label."""
    section: FileData = TypeAdapter(FileData).validate_python({**data, "root": str(root)})
    source = BoxSource(box_reader(section), kind="localization")
    source.check()
    counts = sum((source.counts[split] for split in SPLITS), Counts())
    labels = Counter(one.label for split in SPLITS for record in source.records(split) for one in record.annotations)
    return dict(counts | labels)


def main() -> None:
    """Print the counts of all sets; the exit code is 1 where a count differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = {
        name: {"read": counts_of(options.root / name, data), "notes": notes} for name, (data, notes) in SETS.items()
    }
    wrong = {
        name: {
            key: (row["read"].get(key, 0), count)
            for key, count in row["notes"].items()
            if row["read"].get(key, 0) != count
        }
        for name, row in table.items()
    }
    if options.json:
        print(json.dumps(table))
    else:
        for name, row in table.items():
            print(name)
            for key, count in row["read"].items():
                noted = f"notes {row['notes'][key]}" if key in row["notes"] else ""
                print(f"  {key:24}{count:6}  {noted}")
    for name, differing in wrong.items():
        for key, (read, noted) in differing.items():
            print(f"{name}: {read} {key}, the notes say {noted}", file=sys.stderr)
    sys.exit(any(wrong.values()))


if __name__ == "__main__":
    main()
