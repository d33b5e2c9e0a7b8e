"""Validation while a stage trains: what the log holds, which policy is handed on, and when the stage ends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from vrft.api import run
from vrft.data import PhantomSource
from vrft.errors import DataError, RecipeError
from vrft.evaluation.predictions import answers
from vrft.evaluation.summary import figures_of
from vrft.experiment.opened import Experiment
from vrft.policies import load_policy, quiet_libraries
from vrft.policies.from_recipe import load_arm
from vrft.policies.loading import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage, Validate, build_task, open_source, read_recipe
from vrft.runs import RunDirectory, StageDirectory, read_json, read_jsonl
from vrft.tasks import Grading
from vrft.training import Validation, train_rft, train_sft
from vrft.training.validation import Validator

STAGES: dict[str, RftStage | SftStage] = {
    "sft": SftStage(kind="sft", steps=5, batch_size=2, learning_rate=3e-4),
    "rft": RftStage(
        kind="rft",
        steps=5,
        prompts_per_step=1,
        group_size=4,
        max_completion_tokens=12,
        temperature=2.0,
        rewards={"fuzzy": 1.0, "format": 0.5},
        learning_rate=3e-4,
    ),
}


def scripted(values: Sequence[float], metric: str = "accuracy", **section: Any) -> Validation:
    """A validation whose figures are given, one after another."""
    rest = iter(values)
    return Validation(
        Validate.model_validate({"every": 1, **section}), metric, lambda policy: {metric: next(rest), "more": 0.25}
    )


def train(
    stage: RftStage | SftStage,
    place: StageDirectory,
    validation: Validation | None = None,
    *,
    adapters: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Train from the shipped weights, and return the log; with adapters, which are merged or handed on."""
    quiet_libraries()
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if adapters else None
    policy = load_policy("tiny", training=True, lora=lora, merge_adapters=adapters == "merge")
    source = PhantomSource("grading", family="shifted", sizes={"train": 6, "validation": 0, "test": 0})
    options: dict[str, Any] = {"seed": 0, "reporter": reporter or Reporter(quiet=True), "validation": validation}
    place.path.mkdir(parents=True, exist_ok=True)
    train_it: Any = train_rft if isinstance(stage, RftStage) else train_sft
    train_it(policy, stage, Grading(5), list(source.samples("train")), place, **options)
    assert not list(place.path.glob("best-*"))
    assert not list(place.path.glob("checkpoint-*"))
    return read_jsonl(place.log)


def changed(kind: str, **keys: Any) -> RftStage | SftStage:
    stage = STAGES[kind]
    return type(stage).model_validate(stage.model_dump() | keys)


def timeless(log: list[dict[str, Any]], *leave: str) -> list[dict[str, Any]]:
    """The lines of a log without what a clock says."""
    return [{key: value for key, value in row.items() if key not in ("seconds", *leave)} for row in log]


def kill_in(step: str, work: Callable[[], object]) -> None:
    """Kill a stage at its end, when it comes to one of the steps of ``finish``."""

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"vrft.training.stage.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            work()


def weights(place: StageDirectory) -> dict[str, torch.Tensor]:
    (file,) = place.policy.glob("*.safetensors")
    return load_file(file)


def are_equal(one: StageDirectory, other: StageDirectory) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", STAGES)
def test_every_other_step_and_the_last_are_validated_and_nothing_else_changes(tmp_path: Path, kind: str):
    place, plain = StageDirectory(tmp_path / "validated"), StageDirectory(tmp_path / "plain")
    log = train(STAGES[kind], place, scripted([0.5, 0.25, 0.0], every=2))
    assert [row.get("validation") for row in log] == [
        None,
        {"accuracy": 0.5, "more": 0.25},
        None,
        {"accuracy": 0.25, "more": 0.25},
        {"accuracy": 0.0, "more": 0.25},
    ]
    without = train(STAGES[kind], plain)
    assert timeless(log, "validation") == timeless(without)
    assert read_json(place.done)["kept_step"] == read_json(plain.done)["kept_step"] == 5
    assert are_equal(place, plain)


@pytest.mark.parametrize(("kind", "adapters"), [("rft", None), ("sft", "merge"), ("rft", "continue")])
def test_the_best_is_handed_on_and_is_what_so_many_steps_alone_make(tmp_path: Path, kind: str, adapters: str | None):
    best, shorter = StageDirectory(tmp_path / "best"), StageDirectory(tmp_path / "shorter")
    log = train(STAGES[kind], best, scripted([0.1, 0.3, 0.2], every=2, keep="best"), adapters=adapters)
    assert (len(log), read_json(best.done)["steps"], read_json(best.done)["kept_step"]) == (5, 5, 4)
    train(changed(kind, steps=4), shorter, adapters=adapters)
    assert are_equal(best, shorter)
    assert best.adapter.exists() == (adapters == "merge")


def choices(metric: str, values: Sequence[float], **section: Any) -> Validator:
    """What a validator has chosen after some values, one a step."""
    policy = LoadedPolicy(torch.nn.Linear(1, 1), None, "")  # type: ignore[arg-type]
    validator = Validator(scripted(values, metric, **section), policy, StageDirectory(Path("nowhere")))
    for step in range(1, len(values) + 1):
        validator.validate(policy.model, step)
    return validator


def test_the_least_error_and_the_most_of_all_else_is_best_and_of_equals_the_first():
    values = [0.5, 0.25, 0.75, 0.25, 0.75]
    assert choices("mae", values).best_step == 2
    assert choices("accuracy", values).best_step == 3
    assert choices("qwk", [-0.5, -0.5, -1.0]).best_step == 1
    assert choices("accuracy", [0.0, 0.0]).best_step == 1


def test_patience_counts_validations_without_a_better_one():
    assert [choices("accuracy", values, patience=2).is_out_of_patience for values in ([0.5, 0.5], [0.5, 0.4, 0.5])] == [
        False,
        True,
    ]
    assert not choices("accuracy", [0.5, 0.4, 0.6, 0.6], patience=2).is_out_of_patience
    assert not choices("accuracy", [0.5] * 9).is_out_of_patience


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_ends_when_its_patience_does_also_after_a_kill(tmp_path: Path, kind: str):
    stage, section = changed(kind, steps=40, save_every=3), {"keep": "best", "patience": 2}
    place, killed = StageDirectory(tmp_path / "whole"), StageDirectory(tmp_path / "killed")
    log = train(stage, place, scripted([0.5, 0.4, 0.5], **section))
    done = read_json(place.done)
    assert (len(log), done["steps"], done["kept_step"]) == (3, 3, 1)
    kill_in("load_weights", lambda: train(stage, killed, scripted([0.5, 0.4, 0.5], **section)))
    assert killed.checkpoint() == killed.path / "checkpoint-3"
    train(stage, killed, scripted([], **section))
    assert timeless(read_jsonl(killed.log)) == timeless(log)
    assert read_json(killed.done)["kept_step"] == 1
    assert are_equal(place, killed)


NEWER, OLDER, BOTH = [0.1, 0.2, 0.1, 0.5, 0.3], [0.1, 0.5, 0.2, 0.3, 0.4], [0.1, 0.4, 0.2, 0.5, 0.3]
"""Values of five steps, with a best that is newer than the checkpoint of the third, that is older, or one of each."""


@pytest.mark.parametrize(
    ("kind", "adapters", "values"),
    [
        pytest.param("sft", None, BOTH, id="sft"),
        pytest.param("sft", "merge", OLDER, id="sft-merge"),
        pytest.param("rft", None, OLDER, id="rft"),
        pytest.param("rft", "continue", NEWER, id="rft-continue"),
    ],
)
def test_a_killed_stage_hands_on_the_same_best(
    tmp_path: Path, kind: str, adapters: str | None, values: list[float], kill_after: Callable[[int], Reporter]
):
    stage, section = changed(kind, save_every=3), {"keep": "best"}
    place, killed = StageDirectory(tmp_path / "whole"), StageDirectory(tmp_path / "killed")
    expected = train(stage, place, scripted(values, **section), adapters=adapters)
    with pytest.raises(KeyboardInterrupt):
        train(stage, killed, scripted(values, **section), adapters=adapters, reporter=kill_after(4))
    assert killed.checkpoint() == killed.path / "checkpoint-3"
    assert max(killed.best_policies()) == values.index(max(values)) + 1
    log = train(stage, killed, scripted(values[3:], **section), adapters=adapters)
    assert timeless(log) == timeless(expected)
    assert read_json(killed.done)["kept_step"] == read_json(place.done)["kept_step"] == values.index(max(values)) + 1
    assert are_equal(place, killed)


def test_a_stage_that_its_budget_ends_is_validated_at_its_end_also_after_a_kill(tmp_path: Path):
    stage, section = changed("sft", max_tokens=350, save_every=1), {"every": 2, "keep": "best"}
    place, killed = StageDirectory(tmp_path / "whole"), StageDirectory(tmp_path / "killed")
    log = train(stage, place, scripted([0.1, 0.2], **section))
    assert [row["validation"]["accuracy"] if "validation" in row else None for row in log] == [None, 0.1, 0.2]
    assert read_json(place.done)["kept_step"] == 3
    kill_in("_write_results", lambda: train(stage, killed, scripted([0.1, 0.2], **section)))
    train(stage, killed, scripted([0.2], **section))
    assert [row.get("validation") for row in read_jsonl(killed.log)] == [row.get("validation") for row in log]
    assert read_json(killed.done)["kept_step"] == 3
    assert are_equal(place, killed)


SMALLER = (
    "data.samples={train: 8, validation: 6, test: 4}",
    "arms=[base, sft, rft]",
    "stages.0.steps=3",
    "stages.0.max_completion_tokens=12",
    "sft={steps: 3, batch_size: 2}",
    "evaluation={batch_size: 4, bootstrap: 100}",
)


def test_a_run_logs_the_figures_of_the_policy_on_the_validation_split(small_recipe: Path, tmp_path: Path):
    validated = "validate={every: 2, samples: 4, metric: mae, keep: best}"
    recipe = read_recipe(small_recipe, [*SMALLER, validated])
    directory = RunDirectory(tmp_path / "run")
    run(recipe, directory.path, reporter=Reporter(quiet=True))
    source = open_source(recipe)
    task = build_task(recipe, source)
    experiment = Experiment(recipe, task, source, [], [], None, Reporter(quiet=True))
    for arm in ("sft", "rft"):
        (stage,) = recipe.stages_of(arm)
        samples = experiment.validation_samples(stage)
        assert [sample.split for sample in samples] == ["validation"] * 4
        (place,) = directory.arm(arm, 0).stages()
        log = read_jsonl(place.log)
        assert [row["step"] for row in log if "validation" in row] == [2, 3]
        figures = {row["step"]: row["validation"] for row in log if "validation" in row}
        assert all(set(one) == set(task.metrics) for one in figures.values())
        kept = read_json(place.done)["kept_step"]
        assert kept == (3 if figures[3]["mae"] < figures[2]["mae"] else 2)
        policy = load_arm(recipe, directory, arm, 0)
        batches = answers(policy, task, samples, batch_size=4, max_tokens=recipe.evaluation_tokens)
        assert figures_of(task, [row for rows in batches for row in rows]) == pytest.approx(figures[kept])


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["validate={every: 2, metric: acuracy}"], "validate.metric is 'acuracy'; expected one of accuracy, qwk, mae"),
        (["validate={every: 2, metric: acuracy}"], "Did you mean 'accuracy'?"),
        (["validate={every: 2, metric: mean_iou}"], "validate.metric is 'mean_iou'"),
        (["validate={every: 2, patience: 2}", "stages.0.lr_schedule=linear"], "lr_schedule is linear, which needs to"),
        (
            ["validate={every: 2, keep: best}", "evaluation.split=validation"],
            "expected test, or neither keep: best nor",
        ),
        (
            ["validate={every: 2, patience: 2}", "evaluation.split=validation"],
            "validate chooses by the validation split",
        ),
        (["validate={every: 0}"], "validate.every is 0"),
        (["validate={metric: mae}"], "validate.every is missing"),
        (["validate={every: 2, keep: first}"], "validate.keep is 'first'; expected one of last, best"),
    ],
)
def test_what_cannot_be_validated_is_a_fault_with_its_line(small_recipe: Path, overrides: list[str], words: str):
    assert words in fault(small_recipe, *overrides)


def test_validation_that_chooses_nothing_may_be_reported_on(small_recipe: Path):
    read_recipe(small_recipe, ["validate={every: 2}", "evaluation.split=validation", "stages.0.lr_schedule=linear"])


def test_a_data_set_without_a_validation_split_is_refused(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = read_recipe(small_recipe, [*SMALLER, "validate={every: 2}"])
    plain: Callable[..., Any] = PhantomSource.samples
    monkeypatch.setattr(
        PhantomSource, "samples", lambda self, split: plain(self, split) if split != "validation" else []
    )
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(DataError, match="validate needs a validation split, and the data has none"):
        run(recipe, directory.path, reporter=Reporter(quiet=True))
    assert not list(directory.path.rglob("done.json"))  # before anything is done
