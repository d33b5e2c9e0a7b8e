"""What all tests share: the shared folder of real data, a small recipe, and no network."""

import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from vrft.progress import Reporter

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run beside each other, and threads that wait for those of another process take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("machine", deadline=None)  # how long an example takes says more about the machine
settings.load_profile("machine")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

SMALL = """\
name: small
data: {source: phantom, family: shifted, samples: {train: 40, validation: 8, test: 20}}
task: {kind: grading}
policy: {model: tiny}
stages:
  - kind: rft
    rewards: {accuracy: 1.0, format: 0.5}
    steps: 6
    prompts_per_step: 2
    group_size: 4
    learning_rate: 1.0e-4
    temperature: 1.5
    max_completion_tokens: 20
    save_every: 2
sft: {steps: 4, batch_size: 4}
evaluation: {batch_size: 8, bootstrap: 100}
"""


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is written into the user's cache folder."""
    os.environ["VRFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="module")
def _little_garbage() -> Iterator[None]:
    """Trainers collect garbage when they begin: what earlier modules left need not be walked each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def told() -> Told:
    """A reporter that keeps what it is told."""
    return Told()


@pytest.fixture
def deep_images(tmp_path: Path) -> Path:
    """A YOLO data set of two images a split, with 16 bits: ``a`` from 0 to 999, ``b`` from 2000 to 2999."""
    import numpy as np  # not before the number of threads is set
    from PIL import Image

    (tmp_path / "data.yaml").write_text("names: [mass]")
    for split in ("train", "valid", "test"):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
        for name, least in (("a", 0), ("b", 2000)):
            pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 1000 + least
            Image.fromarray(pixels).save(tmp_path / split / "images" / f"{name}.png")
            (tmp_path / split / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5")
    return tmp_path


@pytest.fixture
def small_recipe(tmp_path: Path) -> Path:
    """A recipe that trains for seconds."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def is_linear() -> Callable[[Callable[[str], object], str], bool]:
    """Whether four times the text takes about four times as long; quadratic work takes sixteen times, in every try."""

    def seconds(work: Callable[[str], object], text: str) -> float:
        gc.disable()  # a full collection walks all that earlier tests left, which is no work of this one
        try:
            began = time.process_time()
            work(text)
            return time.process_time() - began
        finally:
            gc.enable()

    def compare(work: Callable[[str], object], text: str) -> bool:
        return any(seconds(work, text) < 8 * seconds(work, text[: len(text) // 4]) + 0.5 for _ in range(3))

    return compare


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the project; tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared real data is not beside this checkout")
    return SHARED


@pytest.fixture
def cases(shared: Path) -> list[dict[str, Any]]:
    """Real completions with the right results, each written out as a row of ``vrft score`` with what is wanted."""
    files = [shared / "cases" / name for name in ("open.jsonl", "more.jsonl")]
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if isinstance(written := row["completion"], dict):  # what to repeat, and what stands around it
            body = written["repeat"] * written["times"]
            row["completion"] = written.get("prefix", "") + body + written.get("suffix", "")
    return rows
