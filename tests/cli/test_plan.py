"""``vrft run RECIPE --plan`` and ``vrft ablate RECIPE --plan``: they measure, print, and write nothing."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel
from typer.testing import CliRunner

from vrft.cli.main import app, main
from vrft.cli.plan_tables import duration, gigabytes

THREE = "policy.model=Qwen/Qwen2.5-VL-3B-Instruct"


def planned(path: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["run", str(path), "--plan", *options])


def test_a_plan_measures_and_leaves_no_file(small_recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    result = planned(small_recipe)
    assert result.exit_code == 0, result.output
    assert "it fits" in result.output
    assert "measuring took" in result.output
    assert "measuring 3 kinds of stages and evaluations on this cpu" in result.output
    assert "time in all: not measured" not in result.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == [small_recipe.name, "temporary"]


def test_a_plan_for_another_device_loads_no_weights(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    result = planned(small_recipe, "--on", "h100")
    assert result.exit_code == 0, result.output
    assert "time in all: not measured" in result.output
    assert "time was not measured: this machine has no h100; plan there, without --on." in result.output


def test_a_plan_that_does_not_fit_names_what_helps(small_recipe: Path):
    large = ["stages.0.prompts_per_step=16", "stages.0.max_completion_tokens=256", THREE]
    result = planned(small_recipe, "--on", "rtx4090", *(part for key in large for part in ("--set", key)))
    assert result.exit_code == 0, result.output
    assert "it does not fit" in result.output
    for keys in ("kl: 0", "gradient_checkpointing: true", "micro_batch: 4", "policy.lora: {rank: 16}: "):
        assert keys in result.output
    assert "GB, fits" in result.output
    assert "prompts are estimated at 4 letters a token" in result.output


def test_weights_that_are_not_here_are_named(small_recipe: Path):
    result = planned(small_recipe, "--set", THREE, "--set", "policy.lora={rank: 8}")
    assert result.exit_code == 0, result.output
    assert "the weights of Qwen/Qwen2.5-VL-3B-Instruct are not on this machine; download them (hf" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plan", "--on", "h1000"], "--on h1000: its memory is not known; expected h200, h100, a100-80,"),
        (["--on", "h100"], "--on and --devices belong to --plan"),
        (["--plan", "--set", "policy.model=org/model"], "a plan needs its configuration and its processor"),
        (
            ["--plan", "--set", "data={source: medmnist, dataset: retinamnist, root: none, download: true}"],
            "a plan downloads nothing",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    options: list[str],
    words: str,
    small_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("sys.argv", ["vrft", "run", str(small_recipe), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_numbers_have_the_unit_that_fits():
    assert [duration(seconds) for seconds in (None, 0.0421, 59, 90, 5400)] == [
        "",
        "0.042 s",
        "59 s",
        "1.5 min",
        "1.5 h",
    ]
    assert [gigabytes(count) for count in (1.234e11, 8.23e6, 1.1e6)] == ["123", "0.00823", "0.001"]
