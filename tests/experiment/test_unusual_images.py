"""A run and ``vrft predict`` tell which pictures show nothing, and read files of more than 8 bits alike."""

import numpy as np
import pytest
from PIL import Image

from vrft.api import run
from vrft.errors import DataError
from vrft.evaluation.inference import ask_model, ask_run
from vrft.images import BLANK
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report import write_report
from vrft.runs import RunDirectory, read_json

RECIPE = """
name: odd
data: {{source: yolo, root: {root}, window: [0, 1000]}}
task: {{kind: localization}}
stages: [{{kind: rft, rewards: {{iou: 1.0, format: 0.5}}, steps: 1}}]
arms: [{arms}]
evaluation: {{bootstrap: 100}}
"""


@pytest.mark.parametrize("arms", ["majority", "base, blind"])
def test_a_run_tells_and_keeps_how_many_pictures_show_nothing(deep_images, tmp_path, told, arms):
    recipe = deep_images / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=deep_images, arms=arms))
    directory = RunDirectory(tmp_path / "run")
    run(read_recipe(recipe, []), directory.path, reporter=told)
    sentence = "1 of the pictures that were opened show one value only, so that there is nothing to see, such as b."
    assert [line.strip() for line in told.lines if "pictures" in line] == [sentence]
    facts = read_json(directory.data)
    assert facts["images"] == {BLANK: {"count": 1, "example": "b"}}
    assert facts["boxes"]["data"]["test"]["beyond 8 bits"] == 2
    assert sentence in write_report(directory).read_text(encoding="utf-8")


def test_a_question_about_a_file_is_read_as_the_run_reads_its_data(deep_images, tmp_path):
    recipe = deep_images / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=deep_images, arms="base, blind"))
    directory = RunDirectory(tmp_path / "run")
    run(read_recipe(recipe, []), directory.path, reporter=Reporter(quiet=True))
    files = [deep_images / "test" / "images" / f"{name}.png" for name in "ab"]
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
