"""How long a table of many rows takes to its first sample, and how much memory.

python benchmarks/table_rows.py --rows 10000 100000 1000000 --json

For each number of rows, a table is generated with as many names of images (hard links to a few files), labels and
patients. Measured are, each in a process of its own: the seconds from opening the source to the first training sample,
without and with the index of an earlier run; the seconds to a thousand random samples; and the peak memory of the
process, which is to be compared with that of ``import vrft.data`` alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

MEASURE = """
import json, random, resource, sys, time
from pathlib import Path
from vrft.data.rows import RowOptions, RowSource
from vrft.data.table_rows import RowColumns, RowTableReader
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
root = Path(sys.argv[1])
start = time.perf_counter()
columns = RowColumns(image="image", target="label", patient="patient")
reader = RowTableReader(root / "table.csv", root / "images", columns=columns)
source = RowSource(reader, kind="classification", options=RowOptions())
source.check()
samples = source.samples("train")
samples[0].images
first = time.perf_counter() - start
start = time.perf_counter()
for at in random.Random(0).choices(range(len(samples)), k=1000):
    samples[at]
print(json.dumps({"seconds": first, "thousand": time.perf_counter() - start, "peak_mb": peak(), "before_mb": before,
                  "train": len(samples)}))
"""


def generate(root: Path, rows: int) -> None:
    """Write a table and its images, 1,000 to a folder."""
    rng = random.Random(0)
    images = root / "images"
    images.mkdir(parents=True)
    Image.new("L", (32, 32), 128).save(root / "image.png")
    with (root / "table.csv").open("w", encoding="utf-8") as file:
        file.write("image,label,patient,age\n")
        for row in range(rows):
            folder = f"{row // 1000:05d}"
            if row % 1000 == 0:
                (images / folder).mkdir()
            name = f"{folder}/{row:07d}.png"
            if row % 30_000 == 0:  # a file has few links on some file systems
                link = root / f"image-{row}.png"
                link.write_bytes((root / "image.png").read_bytes())
            os.link(link, images / name)
            file.write(f"{name},{rng.choice(['normal', 'pneumonia', 'mass'])},p{row // 3},{rng.randrange(90)}\n")


def measure(root: Path, cache: Path) -> dict[str, float]:
    """The figures of one process."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root)],
        env=os.environ | {"VRFT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> None:
    """Generate the tables, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            root, cache = Path(folder) / "data", Path(folder) / "cache"
            began = time.perf_counter()
            generate(root, rows)
            generated = time.perf_counter() - began
            first, again = measure(root, cache), measure(root, cache)
            size = sum(path.stat().st_size for path in cache.rglob("*.sqlite"))
            results.append(
                {
                    "rows": rows,
                    "generated_seconds": round(generated, 1),
                    "seconds_to_first_sample": round(first["seconds"], 2),
                    "seconds_with_index": round(again["seconds"], 2),
                    "milliseconds_a_sample": round(again["thousand"], 3),
                    "peak_mb": round(first["peak_mb"]),
                    "peak_mb_with_index": round(again["peak_mb"]),
                    "import_mb": round(first["before_mb"]),
                    "index_mb": round(size / 1e6),
                }
            )
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for row in results:
        print("  ".join(f"{key} {value:,}" for key, value in row.items()))


if __name__ == "__main__":
    main()
