"""The base package needs nothing of the extra ``train``, and what needs that says so in one sentence."""

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import vrft
from vrft.extras import TRAINING

ROOT = Path(__file__).parents[1]

HIDDEN = f"""\
import sys

class Hiding:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {TRAINING!r} else self.finder.find_spec(name, *rest)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
"""Packages of the extra are not found, as where they are not installed."""


def in_base(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has the packages of the base alone."""
    program = HIDDEN + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return in_base("from vrft.cli import main\nsys.argv[0] = 'vrft'\nmain()", *arguments)


def requirements(extra: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[\[<>=,]", one)[0] for one in listed}


def test_the_packages_of_the_extra_are_those_that_are_looked_for():
    assert requirements("train") == set(TRAINING)
    assert not requirements() & set(TRAINING)


def test_the_names_of_the_library_are_imported_when_they_are_used():
    code = """
        import vrft
        assert not {"numpy", "pydantic", "yaml"} & set(sys.modules)
        assert set(vrft.__all__) <= set(dir(vrft))
        for name in vrft.__all__:
            if name != "load_policy": getattr(vrft, name)
        print(vrft.score([{"completion": "<answer>2</answer>", "target": 2, "task": {"kind": "grading", "levels": 5}}]))
        try: vrft.load_policy
        except ImportError as error: print(error)
        try: vrft.nothing
        except AttributeError as error: print(error)
    """
    done = in_base(code)
    assert done.stdout.splitlines() == [
        "[{'format': 0.0, 'accuracy': 1.0, 'fuzzy': 1.0, 'answer': 2, 'problems': ['no_think']}]",
        "vrft.load_policy needs torch; pip install 'vrft[train]'.",
        "module 'vrft' has no attribute 'nothing'",
    ], done.stderr


def test_every_name_of_the_library_is_there():
    assert {callable(getattr(vrft, name)) for name in vrft.__all__ if name != "__version__"} == {True}


@pytest.mark.slow
def test_the_adapters_for_other_trainers_need_nothing_of_the_extra():
    code = """
        from vrft.rewards.adapters import easyr1, verl
        from vrft.rewards.adapters.trl import reward_functions
        print(reward_functions({"kind": "grading", "levels": 5}, ["fuzzy"])[0](["<answer>3</answer>"], target=[2]))
    """
    assert in_base(code).stdout == "[0.25]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "RECIPE"],
        ["run", "RECIPE", "--plan"],
        ["ablate", "RECIPE"],
        ["predict", "tiny", "x.png", "--task", "grading", "--levels", "5"],
        ["bench"],
        ["report", "nowhere"],
        ["knowledge", "write", "x", "--model", "x", "--title", "x", "--modality", "x", "--label", "a", "--local"],
    ],
)
def test_a_command_that_needs_the_extra_says_so(arguments: list[str], small_recipe: Path):
    done = command(*(str(small_recipe) if one == "RECIPE" else one for one in arguments))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"vrft: vrft {arguments[0]}.* needs [\w, ]+; pip install 'vrft\[train\]'\.", line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "knowledge"),
        (["run", "--help"], "--plan"),
        (["ablate", "--help"], "--workers"),
        (["score", "LINES", "--summary"], '"recitation": 1.0'),
        (["knowledge", "list"], "retinamnist"),
        (["knowledge", "show", "retinamnist"], "retinopathy"),
        (["knowledge", "check", "retinamnist", "octmnist"], "octmnist: 4 classes"),
    ],
)
def test_what_the_base_can_do(arguments: list[str], words: str, tmp_path: Path):
    lines = tmp_path / "lines.jsonl"
    both = '"task": {"kind": "classification", "labels": ["a", "b"]}, "knowledge": "A round mass."'
    lines.write_text(
        "".join(
            f'{{"completion": "<think>A round mass.</think><answer>a</answer>", "target": "a", {both}{more}}}\n'
            for more in ("", ', "recite": "rouge_l"', ', "recite": "chrf"')
        )
    )
    done = command(*(str(lines) if one == "LINES" else one for one in arguments))
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.slow
def test_the_base_audits_data_without_counting_visual_tokens(small_recipe: Path):
    done = command("audit", str(small_recipe), "--limit", "20")
    assert done.returncode == 0, done.stderr
    assert "visual tokens are not counted: counting visual tokens needs torch" in done.stdout


@pytest.mark.slow
def test_the_faults_of_a_recipe_come_before_the_extra(small_recipe: Path):
    done = command("run", str(small_recipe), "--set", "stages.0.stps=3")
    assert done.returncode == 2
    assert "Did you mean 'steps'?" in done.stderr


@pytest.mark.slow
def test_every_source_is_opened_and_every_recipe_read(tmp_path: Path):
    code = """
        from pathlib import Path
        from vrft import read_recipe
        from vrft.recipe import build_task, open_source
        from vrft.sample import open_image
        for path in sys.argv[1:]:
            recipe = read_recipe(Path(path))
            source = open_source(recipe)
            first, *_ = source.samples("train")
            print(recipe.data.source, open_image(first.images[0]).mode, build_task(recipe, source, frame="pixel").kind)
    """
    recipes, expected = [], []
    for name, section in small_sources(tmp_path).items():
        kind = {"phantom": "classification", "medmnist": "grading"}.get(name, "localization")
        recipe = {"name": name, "data": {"source": name, **section}, "task": {"kind": kind}, "arms": ["base"]}
        recipes.append(tmp_path / f"{name}.yaml")
        recipes[-1].write_text(yaml.safe_dump(recipe | {"stages": [{"kind": "rft", "rewards": {"format": 1.0}}]}))
        expected.append(f"{name} RGB {kind}")
    done = in_base(code, *map(str, recipes))
    assert done.stdout.splitlines() == expected, done.stderr


def small_sources(folder: Path) -> dict[str, dict[str, object]]:
    """The section `data` of each source, with small files of its own."""

    def write(name: str, text: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    images = {"images": np.zeros((5, 28, 28, 3), dtype=np.uint8), "labels": np.arange(5)[:, None]}
    splits = ("train", "val", "test")
    np.savez(folder / "retinamnist.npz", **{f"{split}_{key}": images[key] for split in splits for key in images})
    pixels = np.zeros((80, 100), np.uint8)
    pixels[10:20, 30:50] = 1
    write("yolo/data.yaml", "names: [mass]")
    rows, annotations = ["image,label,x1,y1,x2,y2"], []
    for number in range(10):
        for place in ("voc/JPEGImages", "coco/train", "yolo/train/images", "masks/images", "masks/masks", "table"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
        box = "<bndbox><xmin>30</xmin><ymin>10</ymin><xmax>50</xmax><ymax>20</ymax></bndbox>"
        write(f"voc/Annotations/{number}.xml", f"<annotation><object><name>mass</name>{box}</object></annotation>")
        write(f"yolo/train/labels/{number}.txt", "0 0.4 0.1875 0.2 0.125")
        rows.append(f"{number}.png,mass,30,10,50,20")
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [30, 10, 20, 10]})
    write("table/boxes.csv", "\n".join(rows))
    size = {"width": 100, "height": 80}
    coco = {"categories": [{"id": 1, "name": "mass"}], "annotations": annotations}
    coco["images"] = [{"id": number, "file_name": f"{number}.png"} | size for number in range(10)]
    write("coco/train/_annotations.coco.json", json.dumps(coco))
    corners = {"image": "image", "label": "label", "corners": ["x1", "y1", "x2", "y2"]}
    return {
        "phantom": {"samples": {"train": 3, "validation": 1, "test": 1}},
        "medmnist": {"dataset": "retinamnist", "root": str(folder)},
        **{name: {"root": str(folder / name), "splits": "hash"} for name in ("voc", "coco", "yolo")},
        "masks": {"root": str(folder / "masks"), "classes": {1: "mass"}},
        "table": {"root": str(folder / "table"), "file": "boxes.csv", "columns": corners},
    }
