"""The command line: exit codes and messages."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft.cli.main import app, main


def test_help_names_the_commands():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "run" in result.output
    assert "report" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "vrft: nowhere.yaml: cannot be read"),
        (["report", "nowhere"], "vrft: nowhere holds no finished run"),
    ],
)
def test_a_mistake_of_the_user_is_one_message_and_exit_code_2(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["vrft", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(words)
    assert "Traceback" not in error


def test_a_wrong_recipe_stops_before_anything_is_loaded(small_recipe: Path):
    check = (
        "import sys; sys.argv = ['vrft', 'run', sys.argv[1], '--set', 'stages.0.stps=3']\n"
        "from vrft.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 2 and 'torch' not in sys.modules; print('stopped')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", check, str(small_recipe)], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "stopped"
    assert "Did you mean 'steps'?" in result.stderr


def test_an_interrupted_run_ends_with_exit_code_1_and_the_way_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["vrft.cli.main"], "app", interrupted)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "vrft: interrupted; go on with --resume.\n"
