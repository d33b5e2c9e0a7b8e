"""Apply small faults to the code, one at a time, and see whether the tests catch them.

``python tools/mutations.py`` prints each mutation of ``mutations.yaml`` as caught or survived, and the share that was
caught in each layer. The tree is copied first, so this checkout is not changed. The command stops with exit code 2
where the table does not fit the code, or where the named tests fail without a mutation.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".yaml")
SOURCE = Path("src/vrft")
TIMEOUT = 600
"""Seconds that the tests of a mutation may take; a mutation that makes them hang is caught."""

COPIED = ("src", "tests", "tools", "docs", "recipes", "launch", "benchmarks", "pyproject.toml", "README.md")
"""The files and folders that tests need."""


class Mutation(NamedTuple):
    """A text in a file below ``src/vrft``, the text in its place, and the arguments of pytest for the tests."""

    layer: str
    file: str
    old: str
    new: str
    tests: str


def read_table(path: Path = TABLE) -> list[Mutation]:
    """The rows of the table; a row without tests has those of its layer."""
    layers: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Mutation(layer, row["file"], row["old"], row["new"], row.get("tests", content["tests"]))
        for layer, content in layers.items()
        for row in content["mutations"]
    ]


def stale_rows(mutations: Sequence[Mutation], root: Path = ROOT) -> list[str]:
    """A sentence for each row whose old text does not occur exactly once, or that changes nothing."""
    found = []
    for one in mutations:
        path = root / SOURCE / one.file
        count = path.read_text(encoding="utf-8").count(one.old) if path.is_file() else 0
        if count != 1 or one.old == one.new:
            found.append(f"{one.layer}: {one.old!r} occurs {count} times in {one.file}; expected 1, and another text.")
    return found


def copy_tree(folder: Path) -> Path:
    """Copy this checkout into a folder, with the shared data beside it."""
    tree = folder / "tree"
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, tree / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(shared.resolve())
    return tree


def passes(tree: Path, tests: str) -> bool:
    """Whether tests pass in a copy of the tree.

    Raises:
        ValueError: pytest finds no such tests.
    """
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *_arguments(tests)]
    try:
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return False
    if run.returncode not in (0, 1, 2):  # 1: a test failed; 2: a module could not be imported
        raise ValueError(f"pytest {tests} ended with {run.returncode}: {run.stdout[-300:]}{run.stderr[-300:]}")
    return run.returncode == 0


def _arguments(tests: str) -> list[str]:
    """The arguments of pytest; all words after ``-k`` are its expression."""
    paths, _, expression = tests.partition(" -k ")
    return [*paths.split(), *(["-k", expression] if expression else [])]


def survives(tree: Path, mutation: Mutation) -> bool:
    """Whether the tests pass with a mutation, which is taken back afterwards."""
    path = tree / SOURCE / mutation.file
    content = path.read_text(encoding="utf-8")
    try:
        _write(path, content.replace(mutation.old, mutation.new))
        return passes(tree, mutation.tests)
    finally:
        _write(path, content)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    if path.suffix == ".py":  # a text of equal length within the same second would not replace the compiled file
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def run_all(mutations: Sequence[Mutation]) -> Iterator[dict[str, Any]]:
    """Run all mutations in a copy of the tree; yields each with ``caught`` and the seconds that it took.

    Raises:
        ValueError: tests fail without a mutation, or there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        sound: set[str] = set()
        for one in mutations:
            if one.tests not in sound and not passes(tree, one.tests):
                raise ValueError(f"pytest {one.tests} fails without a mutation.")
            sound.add(one.tests)
            began = time.monotonic()
            caught = not survives(tree, one)
            yield one._asdict() | {"caught": caught, "seconds": round(time.monotonic() - began, 1)}


def shares(results: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """For each layer the numbers of mutations that were caught, and of all."""
    layers = dict.fromkeys(row["layer"] for row in results)
    of = {layer: [row["caught"] for row in results if row["layer"] == layer] for layer in layers}
    return {layer: (sum(caught), len(caught)) for layer, caught in of.items()}


def main() -> int:
    """Run the command; returns its exit code: 1 where a mutation survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", action="append", help="only this layer; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each mutation")
    options = parser.parse_args()
    mutations = read_table()
    layers = list(dict.fromkeys(one.layer for one in mutations))
    if unknown := set(options.layer or ()) - set(layers):
        parser.error(f"--layer {min(unknown)}: expected one of {', '.join(layers)}")
    mutations = [one for one in mutations if one.layer in (options.layer or layers)]
    if stale := stale_rows(mutations):
        print("\n".join(stale), file=sys.stderr)
        return 2
    results = []
    try:
        for row in run_all(mutations):
            results.append(row)
            state = "caught" if row["caught"] else "SURVIVED"
            line = f"{state:8} {row['layer']}: {row['file']}: {row['old']!r} -> {row['new']!r} ({row['seconds']} s)"
            print(json.dumps(row) if options.json else line, flush=True)
    except ValueError as error:
        print(f"mutations: {error}", file=sys.stderr)
        return 2
    if not options.json:
        for layer, (caught, count) in shares(results).items():
            print(f"{layer:12} {caught} of {count} caught")
    return 0 if all(row["caught"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
