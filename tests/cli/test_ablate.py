"""``vrft ablate``: what it says before it begins, and of mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft.cli.main import app, main
from vrft.experiment import plan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "stages.0.rewards={fuzzy: 1.0}"], "stages.0.rewards has 'fuzzy', which an ablation adds by itself"),
        (["--set", "ablation.factors=[PA_p]"], "ablation.factors has PA_p, but the recipe has no knowledge."),
        (["--set", "ablation.recit=1"], "Did you mean 'recite'?"),
        (["--arm", "rft+MFR"], "--arm rft+MFR: the ablation has no such arm; it has rft, rft+MFRS, majority"),
        (["--fraction", "0.5"], "--fraction 0.5: expected 1/2, 1/3 and so on."),
        (["--fraction", "1/1"], "--fraction 1/1: expected 1/2, 1/3 and so on."),
        (
            ["--fraction", "1/2"],
            "--fraction 1/2: a fraction of one in 2 of these 2 cells is not possible: it takes two factors",
        ),
        (["--ray", "auto", "--workers", "2"], "--workers counts processes of this machine"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str],
    words: str,
    small_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["vrft", "ablate", str(small_recipe), *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_wrong_recipe_stops_before_anything_is_loaded(small_recipe: Path):
    check = (
        "import sys; sys.argv = ['vrft', 'ablate', sys.argv[1], '--set', 'ablation.factors=[PA_pi]']\n"
        "from vrft.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 2 and 'torch' not in sys.modules; print('stopped')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", check, str(small_recipe)], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "stopped", result.stderr


def test_a_folder_that_holds_something_else_is_left_alone(small_recipe: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    result = CliRunner().invoke(app, ["ablate", str(small_recipe), "--out", str(tmp_path / "out"), "--quiet"])
    assert "is not empty and holds no run; choose another --out." in str(result.exception)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_the_plan_names_every_arm_with_its_kind_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    recipe = ROOT / "recipes" / "ablation-phantom.yaml"
    small = ["--set", "data.samples={train: 20, validation: 8, test: 8}", "--set", "seeds=[0, 1]"]
    monkeypatch.setattr(plan, "step_seconds", lambda *_: 2.0)  # seconds of a step; other tests measure real steps
    monkeypatch.setattr(plan.Plan, "_decode", lambda *_, **__: 0.5)
    result = CliRunner().invoke(app, ["ablate", str(recipe), *small, "--plan", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "12 cells, 19 other arms" in result.output
    for arm, kind in {"rft+PA_p+PA_pi+recite-0.2": "cell", "blind": "control", "swapped": "control"}.items():
        line = next(line for line in result.output.splitlines() if f" {arm} " in line)
        assert kind in line
    assert "time on cpu: " in result.output
    assert "a job takes" in result.output
    assert not out.exists()
