"""Samples of several images in a whole run: plan, training, evaluation, gallery, cache keys and prediction."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, ImageOps

import vrft
from vrft.data import PhantomSource
from vrft.evaluation.inference import ask
from vrft.experiment import plan as planning
from vrft.experiment.keys import samples_digest
from vrft.experiment.plan import Plan, device_for
from vrft.experiment.results import write_gallery
from vrft.image_log import ImageLog
from vrft.images import BLANK
from vrft.knowledge import Injection
from vrft.policies import load_policy
from vrft.recipe import read_recipe
from vrft.recipe.opening import names_of_samples
from vrft.runs import RunDirectory
from vrft.sample import Grey, Sample, in_grey, open_image
from vrft.tasks import Localization

QUIET = vrft.Reporter(quiet=True)
STAGE = {"kind": "rft", "rewards": {"accuracy": 1.0, "format": 0.5}, "steps": 2, "prompts_per_step": 2}
STAGE |= {"group_size": 4, "max_completion_tokens": 16, "temperature": 1.5, "learning_rate": 1e-4}
RECIPE: dict[str, Any] = {
    "name": "views",
    "data": {"source": "python"},
    "task": {"kind": "grading"},
    "policy": {"model": "tiny", "dtype": "float32"},
    "stages": [STAGE],
    "sft": {"steps": 2, "batch_size": 4},
    "arms": ["majority", "base", "blind", "sft", "rft"],
    "evaluation": {"bootstrap": 100, "batch_size": 4},
}


class Views:
    """A source in a program: each sample has one, two or three images, at least ``least`` of them."""

    labels = None
    levels = 5
    question = "How many findings are there?"

    def __init__(self, least: int = 1, second: Callable[[Image.Image], Image.Image] = ImageOps.mirror) -> None:
        self.least, self.second = least, second
        self.plain = PhantomSource("grading", sizes={"train": 12, "validation": 0, "test": 6})

    def check(self) -> None:
        pass

    def samples(self, split: str) -> Iterator[Sample]:
        for number, sample in enumerate(self.plain.samples(split)):
            first = sample.images[0]
            views = (first, lambda first=first: self.second(open_image(first)), lambda first=first: open_image(first))
            yield replace(sample, image=views[: max(self.least, number % 3 + 1)])


def run(folder: Path, source: Views, **changes: Any) -> vrft.Run:
    return vrft.run(vrft.Recipe(**RECIPE | changes), folder, source=source, reporter=QUIET)


def test_a_run_trains_evaluates_and_shows_all_images(tmp_path: Path):
    done = run(tmp_path / "run", Views())
    predictions = done.predictions()
    assert {arm: len(rows) for arm, rows in predictions.groupby("arm")} == dict.fromkeys(RECIPE["arms"], 6)
    steps = pd.read_parquet(done.directory.logs).groupby("arm")["step"].max()
    assert steps.to_dict() == {"blind": 2, "sft": 2, "rft": 2}
    pictures = sorted(done.directory.gallery.glob("*.png"))
    assert [Image.open(path).size for path in pictures] == [(112 * n + 8 * (n - 1), 112) for n in (1, 2, 3)] * 2
    assert done.report.is_file()
    rollouts = pd.read_parquet(next((tmp_path / "run" / "arms" / "rft").rglob("rollouts.parquet")))
    checked = vrft.preflight(vrft.Recipe(**RECIPE), source=Views(), arm="rft", prompts=2, measure=False, reporter=QUIET)
    assert [row["completion"] for row in checked.rows] == list(rollouts.query("step == 1")["completion"])


@pytest.mark.slow
def test_a_run_with_two_images_a_sample_ends_with_other_weights_where_the_second_differs(tmp_path: Path):
    arms = {"arms": ["sft", "rft"]}
    runs = [
        run(tmp_path / name / "run", Views(least=2, second=second), **arms)  # with a store of its own
        for name, second in (("mirror", ImageOps.mirror), ("flip", ImageOps.flip), ("again", ImageOps.mirror))
    ]
    for arm in ("sft", "rft"):
        mirror, flip, again = (one.policy(arm).model.state_dict() for one in runs)
        assert all(bool((mirror[name] == again[name]).all()) for name in mirror)
        assert any(bool((mirror[name] != flip[name]).any()) for name in mirror)


def digest(*images: Any) -> str:
    return samples_digest([Sample("a", images, "?", 1, "train")], Views())  # type: ignore[arg-type]


def test_each_image_and_their_order_belong_to_the_key(tmp_path: Path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    Image.new("RGB", (20, 20)).save(one)
    Image.new("RGB", (20, 20), "red").save(two)
    drawn = lambda: Image.new("RGB", (20, 20), "blue")  # noqa: E731
    keys = [digest(one), digest(one, two), digest(two, one), digest(one, one), digest(one, drawn), digest(drawn, one)]
    assert len(set(keys)) == len(keys)
    assert samples_digest([Sample("a", one, "?", 1, "train")], Views()) == keys[0]  # type: ignore[arg-type]
    assert samples_digest([Sample("a", one, "?", 1, "train", patient="p", subgroup="s")], Views()) == keys[0]  # type: ignore[arg-type]


def test_every_image_of_a_sample_becomes_grey():
    (sample,) = PhantomSource("grading", sizes={"train": 1, "validation": 0, "test": 0}).samples("train")
    several = replace(sample, image=(*sample.images, lambda: Image.new("RGB", (30, 50))))
    assert all(isinstance(image, Grey) for image in in_grey(several).images)
    assert [open_image(image).getcolors() for image in in_grey(several).images] == [
        [(112 * 112, (128, 128, 128))],
        [(30 * 50, (128, 128, 128))],
    ]


def test_a_plan_counts_the_tokens_of_all_images(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = read_recipe(small_recipe, ["arms=[rft]"])
    plain = Plan(recipe, device_for("h100"), 1).rows[0].lengths
    opened = planning._opened(recipe)
    train = [replace(one, image=one.images * 3) for one in opened.train_samples]
    monkeypatch.setattr(planning, "_opened", lambda recipe: replace(opened, train_samples=train))
    several = Plan(recipe, device_for("h100"), 1).rows[0].lengths
    assert (several.images, several.image, several.patches) == (3, 3 * plain.image, 3 * plain.patches)
    assert several.prompt > plain.prompt + 2 * plain.image  # with their numbers


def test_all_files_of_a_sample_are_names_that_a_card_must_not_hold(tmp_path: Path):
    source, files = Views(), (tmp_path / "front.png", tmp_path / "side.png")
    source.samples = lambda split: iter([Sample(split, files, "?", 1, split)])  # type: ignore[method-assign]
    assert {"front.png", "front", "side.png", "side", "test"} <= set(names_of_samples(source))


SHOWN = [((90, 60), "red"), ((30, 30), "blue"), ((400, 400), "green")]


def test_images_of_the_gallery_are_side_by_side_and_the_region_is_marked_on_the_first(tmp_path: Path):
    images = tuple(lambda size=size, colour=colour: Image.new("RGB", size, colour) for size, colour in SHOWN)
    sample, log = Sample("one", images, "Which?", "a", "test", region=(20.0, 10.0, 60.0, 40.0)), ImageLog()
    write_gallery(RunDirectory(tmp_path), [sample], log)
    picture = Image.open(RunDirectory(tmp_path).gallery / "one.png")
    assert picture.size == (90 + 8 + 60 + 8 + 60, 60)
    assert float(picture.info["first"]) == 90 / picture.width
    assert [picture.getpixel((x, 5)) for x in (5, 120, 200)] == [(255, 0, 0), (0, 0, 255), (0, 128, 0)]
    assert (0, 0, 0) in {colour for _, colour in picture.crop((0, 0, 90, 60)).getcolors()}
    assert len(picture.crop((98, 0, 158, 60)).getcolors()) == 1
    assert log.names() == {BLANK: ["one"]}


def test_questions_of_knowledge_and_boxes_take_the_first_image():
    sample = next(PhantomSource("localization", sizes={"train": 0, "validation": 0, "test": 1}).samples("test"))
    several = replace(sample, image=(*sample.images, lambda: Image.new("RGB", (300, 500))))
    known = Injection({"a": "round", "b": "flat"}).apply(several, "card")
    assert known.images == several.images
    row = ask(load_policy("tiny"), Localization("resized"), several, max_tokens=40)
    assert row["image_size"] == [112, 112]
    assert BLANK in row["problems"]
