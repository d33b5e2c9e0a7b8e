"""``vrft run RECIPE --plan``: it tells, and does nothing."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel
from typer.testing import CliRunner

from vrft.cli.main import app
from vrft.errors import DataError, PolicyError, UserError
from vrft.planning import make_plan
from vrft.recipe import read_recipe
from vrft.training.devices import GPUS

THREE = "policy.model=Qwen/Qwen2.5-VL-3B-Instruct"


def planned(path: Path, *options: str, on: str = "h100", devices: int = 1) -> Any:
    return make_plan(read_recipe(path, options), GPUS[on], devices)


def test_a_plan_writes_nothing_and_loads_no_weights(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    monkeypatch.chdir(small_recipe.parent)
    result = CliRunner().invoke(app, ["run", str(small_recipe), "--plan", "--on", "cpu"])
    assert result.exit_code == 0, result.output
    assert "it fits" in result.output
    assert [path.name for path in small_recipe.parent.iterdir()] == [small_recipe.name]


def test_stages_that_arms_share_are_counted_once(small_recipe: Path):
    arms = "arms=[majority, rft, {name: rft+more, set: {steps: 7}}, {name: rft+same, set: {steps: 6}}]"
    rows = planned(small_recipe, arms, "seeds=[0, 1]").rows
    trained = [(row.arm, row.times, row.steps) for row in rows if row.what == "1 rft"]
    assert trained == [("rft", 2, 6), ("rft+more", 2, 7)]
    assert [row.arm for row in rows if row.what == "evaluation"] == ["rft", "rft+more", "rft+same"]


def test_prompts_are_measured_with_the_processor(small_recipe: Path):
    plan = planned(small_recipe)
    assert not plan.estimated
    assert all(row.lengths.image == 16 and 50 < row.lengths.prompt < 80 for row in plan.rows)


def test_a_known_model_is_planned_without_its_files(small_recipe: Path):
    plan = planned(small_recipe, THREE)
    assert plan.estimated
    assert plan.architecture.parameters == pytest.approx(3.7546e9, rel=1e-4)


def test_a_plan_that_does_not_fit_says_what_helps(small_recipe: Path):
    result = CliRunner().invoke(app, ["run", str(small_recipe), "--plan", "--on", "rtx4090", "--set", THREE])
    assert "it does not fit" in result.output
    for key in ("kl: 0", "gradient_checkpointing: true", "micro_batch: 4", "policy.lora: {rank: 16}: "):
        assert key in result.output
    assert "estimated prompt" in result.output


def test_fewer_pixels_are_fewer_tokens(small_recipe: Path):
    assert planned(small_recipe, THREE, "policy.max_pixels=3136").rows[0].lengths.image == 4


def test_a_stage_on_another_task_is_trained_and_asked(tmp_path: Path):
    recipe = (
        "name: two\ndata: {source: phantom}\ntask: {kind: grading}\nstages:\n"
        "  - {kind: sft, task: {kind: localization}, steps: 3}\n  - {kind: rft, steps: 5}\narms: [rft+PA_pi, rft]\n"
    )
    (tmp_path / "two.yaml").write_text(recipe)
    rows = planned(tmp_path / "two.yaml").rows
    told = [(row.arm, row.what, row.steps) for row in rows]
    assert told == [
        ("rft+PA_pi", "1 sft", 3),
        ("rft+PA_pi", "2 rft", 5),
        ("rft+PA_pi", "evaluation", 1),
        ("rft", "1 rft", 5),
        ("rft", "evaluation", 1),
        ("rft+PA_pi", "evaluation of 1", 1),
    ]


def test_a_model_that_is_not_here_is_told(small_recipe: Path):
    with pytest.raises(PolicyError, match=r"'org/model': .* configuration and its processor.*hf download org/model"):
        planned(small_recipe, "policy.model=org/model")


def test_a_plan_fetches_no_data(small_recipe: Path, tmp_path: Path):
    data = f"data={{source: medmnist, dataset: retinamnist, root: {tmp_path}, download: true}}"
    with pytest.raises(DataError, match="a plan fetches nothing"):
        planned(small_recipe, data)


def test_a_device_without_a_plan_is_a_mistake(small_recipe: Path):
    result = CliRunner().invoke(app, ["run", str(small_recipe), "--on", "h100"])
    assert isinstance(result.exception, UserError)
    assert "--plan" in str(result.exception)
