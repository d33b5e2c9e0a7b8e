"""The library: a recipe built in a program is checked as a file is, and a program's mistakes are clear errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vrft

QUIET = vrft.Reporter(quiet=True)

PLAIN: dict[str, Any] = {
    "name": "slides",
    "data": {"source": "python"},
    "task": {"kind": "grading"},
    "stages": [{"kind": "rft", "rewards": {"fuzzy": 1.0}, "steps": 2}],
    "arms": ["majority"],
    "evaluation": {"bootstrap": 100},
}


class Slides:
    """A source in a program, whose targets are whole numbers of numpy."""

    labels = None
    levels = 3
    question = "Which grade?"

    def check(self) -> None:
        pass

    def samples(self, split: str) -> Iterator[vrft.Sample]:
        for index in range(6):
            target: Any = np.int64(index % 3)
            yield vrft.Sample(f"{split}/{index}", lambda: Image.new("RGB", (56, 56)), self.question, target, split)


def test_a_source_of_a_program_may_give_whole_numbers_of_numpy(tmp_path: Path):
    run = vrft.run(vrft.Recipe(**PLAIN), tmp_path / "run", source=Slides(), reporter=QUIET)
    assert run.metrics["arms"]["majority"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert set(run.predictions()["target"]) == {"0", "1", "2"}


def test_a_source_that_lacks_a_member_is_an_error(tmp_path: Path):
    with pytest.raises(vrft.UserError, match="the source has no labels, levels"):
        vrft.run(vrft.Recipe(**PLAIN | {"name": "x"}), tmp_path / "run", source=object(), reporter=QUIET)  # type: ignore[arg-type]


def test_a_source_beside_another_section_data_is_a_fault(tmp_path: Path):
    recipe = vrft.Recipe(**PLAIN | {"data": {"source": "phantom"}})
    with pytest.raises(vrft.UserError, match="a source is given; expected source: python"):
        vrft.run(recipe, tmp_path / "run", source=Slides(), reporter=QUIET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": "ab"}, "seeds is 'ab'"),
        ({"arms": ["rft", "rtf"]}, "arms.1 is 'rtf'"),
        ({"stages": [{"kind": "rft", "rewards": {"iou": 1.0}}]}, "does not apply to grading"),
    ],
)
def test_a_copied_recipe_is_checked_as_a_file_is(tmp_path: Path, change: dict[str, Any], words: str):
    with pytest.raises(vrft.UserError, match=words):
        vrft.run(vrft.Recipe(**PLAIN).model_copy(update=change), tmp_path / "run", source=Slides(), reporter=QUIET)


def test_options_of_a_run_are_refused_for_a_model():
    with pytest.raises(vrft.UserError, match="arm needs a run directory, and tiny is none"):
        list(vrft.predict("tiny", ["scan.png"], task={"kind": "grading", "levels": 3}, question="?", arm="rft"))


def test_a_run_directory_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(vrft.UserError, match="is a file; choose another --out"):
        vrft.run(vrft.Recipe(**PLAIN), tmp_path / "run", source=Slides(), reporter=QUIET)
