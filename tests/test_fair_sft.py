"""What reinforcement is compared with: supervised training with a rate and reasons of its own, and rejection."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrft.api import run
from vrft.errors import DataError, RecipeError
from vrft.experiment.opened import Experiment, open_experiment
from vrft.policies import TINY, load_policy, quiet_libraries
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage, read_recipe
from vrft.runs import RunDirectory, StageDirectory, read_json, read_jsonl
from vrft.sample import Knowledge, Sample
from vrft.training import train_sft
from vrft.training.sft import think_texts

FIRST = """
  - {kind: sft, steps: 2, batch_size: 4, learning_rate: 7.0e-5, warmup_steps: 1, think: Seen., lr_schedule: linear}"""

KNOWN = """\
name: known
data: {source: phantom, samples: {train: 12, validation: 2, test: 4}}
task: {kind: classification}
knowledge: {card: phantom, label_first: false}
stages:
  - {kind: rft, steps: 2, prompts_per_step: 1, group_size: 4, max_completion_tokens: 12}
sft: {think_from: card, steps: 2, batch_size: 4}
arms: [sft, rft]
"""


def sft_of(path: Path, *overrides: str) -> SftStage:
    (stage,) = read_recipe(path, overrides).stages_of("sft")
    assert isinstance(stage, SftStage)
    return stage


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    return str(error.value).splitlines()


@pytest.fixture
def two_stages(small_recipe: Path) -> Path:
    """A recipe whose stage of RFT follows one of SFT."""
    small_recipe.write_text(small_recipe.read_text().replace("stages:", f"stages:{FIRST}"))
    return small_recipe


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "known.yaml"
    path.write_text(KNOWN)
    return path


@pytest.mark.parametrize(
    ("policy", "rate"),
    [
        ("{model: tiny}", 3e-4),
        ("{model: tiny, lora: {rank: 4}}", 3e-4),
        (f"{{model: {TINY}}}", 1e-5),
        ("{model: org/name}", 1e-5),
        ("{model: org/name, lora: {rank: 4}}", 1e-4),
    ],
)
def test_the_rate_follows_from_what_is_trained_and_never_from_rft(small_recipe: Path, policy: str, rate: float):
    for other in ("1.0e-6", "1.0e-2"):
        assert sft_of(small_recipe, f"policy={policy}", f"stages.0.learning_rate={other}").learning_rate == rate
    written = read_recipe(small_recipe, [f"policy={policy}"]).dump()
    assert yaml.safe_load(written)["sft"]["learning_rate"] == rate


def test_the_rate_is_that_of_the_recipe_before_that_of_its_own_stage_of_sft(two_stages: Path):
    assert sft_of(two_stages).learning_rate == 7e-5
    assert sft_of(two_stages, "sft.learning_rate=2.0e-5").learning_rate == 2e-5
    assert sft_of(two_stages, "policy={model: org/name, lora: {rank: 4}}").learning_rate == 7e-5
    (first, last) = read_recipe(two_stages, ["sft.learning_rate=2.0e-5"]).stages_of("rft")
    assert (first.learning_rate, last.learning_rate) == (7e-5, 1e-4)  # the other arms stay as they are


def test_the_thoughts_are_those_of_the_recipe_before_those_of_its_own_stage_of_sft(two_stages: Path):
    assert sft_of(two_stages).think == "Seen."
    assert sft_of(two_stages, "sft.think=[One., Two.]").think == ["One.", "Two."]
    assert sft_of(two_stages, "sft.steps=5", "sft.batch_size=6").steps == 5


def test_a_thought_is_drawn_by_seed_and_place_and_all_occur():
    texts = ["One.", "Two.", "Three."]
    stage, sample = SftStage(kind="sft", think=texts), Sample("a", TINY, "Which?", 0, "train")
    drawn = [think_texts(stage, [sample], 0)(sample, place) for place in range(300)]
    assert set(drawn) == set(texts)
    assert all(70 < count < 130 for count in Counter(drawn).values())
    again = think_texts(stage, [sample], 0)
    assert [again(sample, place) for place in range(299, -1, -1)] == drawn[::-1]
    other = [think_texts(stage, [sample], 1)(sample, place) for place in range(300)]
    assert 0.2 < sum(a == b for a, b in zip(drawn, other, strict=True)) / 300 < 0.5
    assert think_texts(SftStage(kind="sft", think="Only."), [sample], 0)(sample, 7) == "Only."


def completions_of(recipe_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, arm: str = "sft") -> list[Any]:
    """The rows that the stage of an arm learns: the sample that each is of, and the completion."""
    recipe, made = read_recipe(recipe_path), []
    experiment: Experiment = open_experiment(recipe, Reporter(quiet=True))
    (stage,) = recipe.stages_of(arm)
    assert isinstance(stage, SftStage)
    task, samples = experiment.stage_dataset(arm, stage, 0)
    monkeypatch.setattr("vrft.training.sft.finish_stage", lambda trainer, *rest: made.append(trainer))
    train_sft(load_policy("tiny"), stage, task, samples, StageDirectory(place), seed=0, reporter=Reporter(quiet=True))
    rows = made[0].train_dataset
    plain = made[0].train_dataset.with_format(None)
    texts = [row["completion"].removesuffix("<|im_end|>\n") for row in rows]
    return [(samples[index], text) for index, text in zip(plain["index"], texts, strict=True)]


def test_the_reason_that_is_learnt_is_what_the_card_says_of_the_true_class(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quiet_libraries()
    injection = open_experiment(read_recipe(known), Reporter(quiet=True)).injection
    assert injection is not None
    rows = completions_of(known, tmp_path / "stage", monkeypatch)
    assert len(rows) == 8
    assert len({sample.target for sample, _ in rows}) > 2
    for sample, written in rows:
        text = injection.texts[str(sample.target)]
        assert written == f"<think>{text}</think><answer>{sample.target}</answer>"
        assert "What is known" not in sample.knowledge.prompt  # the prompts of the arm are told nothing


def test_nothing_known_of_a_class_is_told_before_it_is_trained():
    stage = SftStage(kind="sft", think_from="card")
    for known in (None, Knowledge("", "a card", " ")):
        sample = Sample("a", TINY, "Which?", "round", "train", knowledge=known)
        with pytest.raises(DataError, match=r"think_from is card, which says nothing of 'round' \(sample a\)"):
            think_texts(stage, [sample], 0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sft.think_from=card"], "think_from is card, but the recipe has no knowledge."),
        (["sft.think_from=words"], "sft.think_from is 'words'; expected one of text, card"),
        (["sft.think=[]"], "sft.think"),
        (["sft.think=[Fine., '</think> x']"], "the think text '</think> x' breaks the envelope"),
        (["sft.learning_rate=0"], "sft.learning_rate is 0"),
        (
            ["stages.0={kind: sft, steps: 2}", "arms=[rejection]"],
            "arms has rejection, which needs a last stage of kind rft",
        ),
    ],
)
def test_what_cannot_be_compared_is_a_fault(small_recipe: Path, overrides: list[str], words: str):
    assert any(words in line for line in faults(small_recipe, *overrides))


def test_the_card_of_a_stage_of_sft_is_checked_too(two_stages: Path):
    told = faults(two_stages, "stages.0.think_from=card")
    assert any("think_from is card, but the recipe has no knowledge." in line for line in told)


def test_a_last_stage_of_sft_leaves_nothing_to_reject(two_stages: Path):
    two_stages.write_text(two_stages.read_text() + "arms: [base, rejection]\n")
    read_recipe(two_stages)
    last = FIRST.replace("linear", "constant").replace("\n  - ", "")
    words = "arms has rejection, which needs a last stage of kind rft."
    assert any(words in line for line in faults(two_stages, f"stages.1={last}"))


def test_rejection_is_rft_without_advantage_ratio_and_reference(two_stages: Path):
    changes = ["stages.1.updates_per_batch=2", "stages.1.mask_truncated=true", "stages.1.dynamic_sampling=1"]
    recipe = read_recipe(two_stages, ["arms=[rft, rejection]", *changes, "stages.1.accept=0.5"])
    (warm, rft), (same, rejection) = recipe.stages_of("rft"), recipe.stages_of("rejection")
    assert same == warm
    assert isinstance(rejection, RftStage)
    plain = {"loss": "rejection", "kl": 0.0, "updates_per_batch": 1, "dynamic_sampling": 0, "mask_truncated": False}
    assert rejection.model_dump() == rft.model_dump() | plain
    assert recipe.condition_of("rejection", training=True).prompt == "none"
    assert recipe.seeds_of("rejection") == recipe.seeds


def test_a_run_trains_sft_at_its_rate_and_rejection_on_what_was_accepted(small_recipe: Path, tmp_path: Path):
    overrides = [
        "data.samples={train: 8, validation: 2, test: 4}",
        "arms=[sft, rejection]",
        "stages.0={kind: rft, rewards: {fuzzy: 1.0, format: 0.5}, accept: 0.5, steps: 3, prompts_per_step: 1, "
        "group_size: 4, learning_rate: 1.0e-4, temperature: 2.0, max_completion_tokens: 12, kl: 0.1}",
        "sft={steps: 2, batch_size: 2, think: [One look., Two looks.]}",
        "evaluation={batch_size: 4, bootstrap: 100}",
    ]
    recipe, directory = read_recipe(small_recipe, overrides), RunDirectory(tmp_path / "run")
    metrics = run(recipe, directory.path, reporter=Reporter(quiet=True)).metrics
    assert list(metrics["arms"]) == ["sft", "rejection"]
    (sft,), (rejection,) = directory.arm("sft", 0).stages(), directory.arm("rejection", 0).stages()
    assert {row["learning_rate"] for row in read_jsonl(sft.log)} == {3e-4}
    log = read_jsonl(rejection.log)
    assert len(log) == read_json(rejection.done)["steps"] == 3
    assert all(0 <= row["accepted"] <= 1 and row["accepted"] % 0.25 == 0 and "kl" not in row for row in log)
    assert 0 < sum(row["accepted"] for row in log) < 3
    for row in log:  # what nobody accepts teaches nothing
        assert (row["grad_norm"] > 0) == (row["accepted"] > 0)
    shipped, trained = (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).digest() for folder in (TINY, rejection.policy)
    )
    assert shipped != trained
