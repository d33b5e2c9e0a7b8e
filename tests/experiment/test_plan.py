"""A plan: which rows a recipe has, how long prompts are, and which steps are measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vrft.experiment import plan as planning
from vrft.experiment.plan import Plan, device_for, make_plan, share_of_device
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage, read_recipe

ROOT = Path(__file__).parents[2]
THREE = "policy.model=Qwen/Qwen2.5-VL-3B-Instruct"
QUIET = Reporter(quiet=True)


def planned(path: Path, *options: str, on: str | None = "h100", devices: int = 1) -> Plan:
    return make_plan(read_recipe(path, list(options)), on, devices, reporter=QUIET)


def what(plan: Plan) -> list[tuple[str, str, int, int]]:
    return [(row.arm, row.what, row.times, row.steps) for row in plan.rows]


def test_stages_that_arms_share_are_counted_once(small_recipe: Path):
    arms = "arms=[majority, rft, {name: rft+more, set: {steps: 7}}, {name: rft+same, set: {steps: 6}}]"
    assert what(planned(small_recipe, arms, "seeds=[0, 1]")) == [
        ("rft", "1 rft", 2, 6),
        ("rft", "evaluation", 2, 3),
        ("rft+more", "1 rft", 2, 7),
        ("rft+more", "evaluation", 2, 3),
        ("rft+same", "evaluation", 2, 3),
    ]


def test_a_stage_on_another_task_is_trained_and_evaluated(tmp_path: Path):
    recipe = (
        "name: two\ndata: {source: phantom}\ntask: {kind: grading}\nstages:\n"
        "  - {kind: sft, task: {kind: localization}, steps: 3}\n  - {kind: rft, steps: 5}\narms: [rft+PA_pi, rft]\n"
        "evaluation: {limit: 40}\n"
    )
    (tmp_path / "two.yaml").write_text(recipe)
    expected = [
        ("rft+PA_pi", "1 sft", 1, 3),
        ("rft+PA_pi", "2 rft", 1, 5),
        ("rft+PA_pi", "evaluation", 1, 2),
        ("rft", "1 rft", 1, 5),
        ("rft", "evaluation", 1, 2),
        ("rft+PA_pi", "evaluation of 1", 1, 2),
    ]
    assert what(planned(tmp_path / "two.yaml", "evaluation.batch_size=32")) == expected
    assert what(planned(tmp_path / "two.yaml", "evaluation.batch_size=32", THREE)) == expected  # without any file


def test_validations_are_evaluations_while_a_stage_trains(small_recipe: Path):
    rows = what(planned(small_recipe, "arms=[rft]", "validate={every: 4, samples: 8}"))
    assert ("rft", "validation of 1", 1, 2) in rows


def test_prompts_are_measured_with_the_processor(small_recipe: Path):
    plan = planned(small_recipe)
    assert all(row.lengths.image == 16 and row.lengths.patches == 64 for row in plan.rows)
    assert all(50 < row.lengths.prompt < 80 for row in plan.rows)
    assert not any("estimated" in note for note in plan.notes)


def test_a_known_model_is_planned_without_its_files(small_recipe: Path):
    plan = planned(small_recipe, THREE)
    assert plan.counted.parameters == pytest.approx(3.7546e9, rel=1e-4)
    assert any("estimated" in note for note in plan.notes)


def test_fewer_pixels_are_fewer_tokens(small_recipe: Path):
    assert planned(small_recipe, THREE, "policy.max_pixels=3136").rows[0].lengths.image == 4


def test_more_devices_share_the_groups_of_a_step(small_recipe: Path):
    one, two = (planned(small_recipe, "arms=[rft]", THREE, devices=count) for count in (1, 2))
    assert two.rows[0].memory["activations"] < one.rows[0].memory["activations"]
    assert two.rows[0].memory["weights"] == one.rows[0].memory["weights"]
    stage = RftStage(kind="rft", prompts_per_step=6, group_size=4, micro_batch=12)
    shares = [share_of_device(stage, count) for count in (1, 3, 4)]
    assert [(one.prompts_per_step, one.micro_batch) for one in shares if isinstance(one, RftStage)] == [
        (6, 12),
        (2, 4),
        (2, 4),
    ]
    assert share_of_device(SftStage(kind="sft", batch_size=9), 2).batch_size == 5  # type: ignore[union-attr]


def test_measured_steps_of_the_quickstart_take_time():
    small = ["data.samples={train: 16, validation: 2, test: 6}", "stages.0.max_completion_tokens=12"]
    small += ["stages.0.prompts_per_step=2", "stages.0.group_size=4"]
    plan = planned(ROOT / "recipes" / "quickstart.yaml", *small, "seeds=[0, 1]", on=None)
    assert all(0 < row.step_seconds < 60 for row in plan.rows if row.step_seconds is not None)
    assert {row.arm: row.times * row.steps for row in plan.rows if "evaluation" not in row.what} == {
        "sft": 300,
        "rft": 300,
    }
    (rft,) = (row for row in plan.rows if row.what == "1 rft")
    assert rft.seconds == pytest.approx(300 * (rft.step_seconds or 0))
    total = plan.seconds()
    assert total == pytest.approx(sum(plan.seconds(arm) or 0 for arm in ("base", "sft", "rft")))
    assert total > 0


def test_equal_kinds_of_steps_are_measured_once(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    measured: list[str] = []

    def train(experiment: Any, arm: str, stage: Any) -> float:
        measured.append(f"{arm}, {stage.kind}")
        return 2.0

    monkeypatch.setattr(planning, "step_seconds", train)
    monkeypatch.setattr(planning.Plan, "_decode", lambda *_, **__: 0.5)
    changes = {"faster": "learning_rate: 1.0e-3", "larger": "group_size: 8", "free": "kl: 0"}
    arms = ", ".join(f"{{name: {name}, set: {{{change}}}}}" for name, change in changes.items())
    plan = planned(small_recipe, f"arms=[rft, {arms}]", on=None)
    assert measured == ["rft, rft", "larger, rft", "free, rft"]
    assert [row.seconds for row in plan.rows] == [12.0, 1.5] * 4


def test_steps_that_share_rollouts_are_measured_together(monkeypatch: pytest.MonkeyPatch):
    now = iter([10.0, 14.0, 15.0, 19.0, 20.0])  # a batch of rollouts is sampled in each second step
    monkeypatch.setattr(planning.time, "monotonic", lambda: next(now))
    clock = planning._StepClock(2)
    for done in (1, 2, 3):
        clock.advance(done)
    with pytest.raises(planning._Measured):
        clock.advance(4)
    assert clock.seconds == (19.0 - 14.0) / 2


def test_steps_that_run_out_of_memory_are_a_note(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    def decode(*_: Any, **__: Any) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(planning.Plan, "_decode", decode)
    plan = planned(small_recipe, "arms=[base]", on=None)
    assert plan.seconds() is None
    assert "time was not measured: base, evaluation ran out of memory here." in plan.notes


def test_a_recipe_that_does_not_fit_is_not_measured(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "USABLE", 1e-9)
    plan = planned(small_recipe, on=None)
    assert plan.seconds() is None
    assert any("the recipe does not fit on this cpu" in note for note in plan.notes)


def test_a_gpu_is_known_by_its_name_and_memory(monkeypatch: pytest.MonkeyPatch):
    class Properties:
        total_memory = 85e9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(planning.PeakMemory, "__init__", lambda _: None)
    monkeypatch.setattr(planning.PeakMemory, "peak_mb", lambda _: 1000.0)
    here = device_for(None)
    assert (here.name, here.memory, here.here) == ("a100-80", 85e9, True)
    assert device_for("a100-80") == here
    assert not device_for("h100").here
    assert not device_for("cpu").here
