"""A run and ``vrft predict`` tell which pictures show nothing, and read files of more than 8 bits alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrft.errors import DataError
from vrft.evaluation.ask import ask_model, ask_run
from vrft.images import BLANK
from vrft.pipeline import run
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report.page import write_report
from vrft.runs import RunDirectory, read_json

RECIPE = """
name: odd
data: {{source: yolo, root: {root}, window: [0, 1000]}}
task: {{kind: localization}}
stages: [{{kind: rft, rewards: {{iou: 1.0, format: 0.5}}, steps: 1}}]
arms: [{arms}]
evaluation: {{bootstrap: 100}}
"""


class Said(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images a split, with 16 bits; the second one lies above the window."""
    (tmp_path / "data.yaml").write_text("names: [mass]")
    for split in ("train", "valid", "test"):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
        for name, least in (("a", 0), ("b", 2000)):
            pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 1000 + least
            Image.fromarray(pixels).save(tmp_path / split / "images" / f"{name}.png")
            (tmp_path / split / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5")
    return tmp_path


@pytest.mark.parametrize("arms", ["majority", "base, blind"])
def test_a_run_tells_and_keeps_how_many_pictures_show_nothing(data, tmp_path, arms):
    recipe = data / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=data, arms=arms))
    said, directory = Said(), RunDirectory(tmp_path / "run")
    run(read_recipe(recipe, []), directory, reporter=said)
    told = "1 of the pictures that were opened show one value only, so that there is nothing to see, such as b."
    assert [line.strip() for line in said.lines if "pictures" in line] == [told]
    facts = read_json(directory.data)
    assert facts["pictures"] == {BLANK: {"count": 1, "example": "b"}}
    assert facts["boxes"]["data"]["test"]["beyond 8 bits"] == 2
    assert told in write_report(directory).read_text(encoding="utf-8")


def test_a_question_about_a_file_is_read_as_the_run_reads_its_data(data, tmp_path):
    recipe = data / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=data, arms="base, blind"))
    directory = RunDirectory(tmp_path / "run")
    run(read_recipe(recipe, []), directory, reporter=Reporter(quiet=True))
    files = [data / "test" / "images" / f"{name}.png" for name in "ab"]
    problems = [BLANK in row["problems"] for _, row in ask_run(directory, files, arm="base")]
    assert problems == [False, True]
    problems = [BLANK in row["problems"] for _, row in ask_run(directory, files, arm="base", window=(2000, 3000))]
    assert problems == [True, False]
    assert not any(BLANK in row["problems"] for _, row in ask_run(directory, files, arm="blind"))


def test_a_bare_model_is_asked_about_a_page(tmp_path):
    path = tmp_path / "scan.tif"
    pages = [Image.fromarray(np.full((64, 64), value, np.uint8)) for value in (10, 20)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    task = {"kind": "classification", "labels": ["yes", "no"]}
    (asked,) = ask_model("tiny", [path], task, question="Is it?", page=1)
    assert asked[1]["problems"][-1] == BLANK
    with pytest.raises(DataError, match=r"scan\.tif: holds 2 pages.* --page"):
        list(ask_model("tiny", [path], task, question="Is it?"))
