"""``vrft score``: files and pipes in, lines out, the user's mistakes told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft.cli.main import app, main

ROWS = [
    {"completion": "<think>x</think><answer>恶性</answer>", "target": "malignant"},
    {"completion": "<think>x</think><answer>benign, I think</answer>", "target": "benign"},
]
OPTIONS = ["--task", "classification", "--label", "benign", "--label", "malignant", "--synonym", "malignant=恶性"]

BOXES = ["--task", "localization", "--image-size", "100x50", "--frame"]


def text(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def score(file: str, given: bytes) -> bytes:
    """The output of the command in a process of its own, with something on its standard input."""
    command = [sys.executable, "-m", "vrft", "score", file]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def test_a_file_and_a_pipe_give_the_same_lines(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(text(ROWS))
    from_file = CliRunner().invoke(app, ["score", str(file), *OPTIONS])
    from_pipe = CliRunner().invoke(app, ["score", *OPTIONS], input=text(ROWS))
    assert from_file.exit_code == 0
    assert from_file.stdout == from_pipe.stdout
    first, second = map(json.loads, from_file.stdout.splitlines())
    assert first == {"format": 1.0, "accuracy": 1.0, "answer": "malignant", "problems": []}
    assert (second["accuracy"], second["answer"]) == (0.0, None)


def test_utf_16_is_read_from_a_file_and_a_pipe_and_a_pipe_is_read_once(tmp_path: Path):
    task = {"kind": "grading", "levels": 5}
    rows = [{"completion": f"<answer>{grade}</answer>", "target": 1, "task": task} for grade in (1, 2)]
    expected = score("-", text(rows).encode())
    assert len(expected.splitlines()) == 2
    (tmp_path / "a.jsonl").write_text(text(rows), encoding="utf-16")
    assert score(str(tmp_path / "a.jsonl"), b"") == expected
    assert score("-", text(rows).encode("utf-16")) == expected
    assert score("/dev/stdin", text(rows).encode()) == expected


def test_the_summary_goes_to_standard_error():
    result = CliRunner().invoke(app, ["score", "--summary", *OPTIONS], input=text(ROWS))
    assert len(result.stdout.splitlines()) == 2
    assert "accuracy" in result.stderr
    assert "0.500" in result.stderr
    assert "answers read: 1 of 2" in result.stderr


@pytest.mark.parametrize(
    ("options", "row", "answer"),
    [
        (["--task", "grading", "--levels", "3", "--name", "none", "--name", "mild", "--name", "severe"], "mild", 1),
        (["--kind", "vqa", "--answers", "choice", "--choice", "A=benign", "--choice", "B=malignant"], "(b)", "B"),
        (
            ["--task", "localization", "--frame", "thousand", "--image-size", "100x50"],
            "[0, 0, 500, 1000]",
            [[0, 0, 50, 50]],
        ),
        (
            ["--task", "localization", "--frame", "resized", "--image-size", "100,50", "--processed-size", "56x28"],
            "[0, 0, 28, 28]",
            [[0, 0, 50, 50]],
        ),
    ],
)
def test_options_say_what_the_lines_leave_out(options: list[str], row: str, answer: object):
    given = text([{"completion": f"<think>x</think><answer>{row}</answer>", "target": answer}])
    result = CliRunner().invoke(app, ["score", *options], input=given)
    scores = json.loads(result.stdout)
    assert scores["answer"] == answer
    assert all(value == 1 for name, value in scores.items() if name not in ("answer", "problems"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "vrft: nowhere.jsonl: cannot be read (No such file or directory)."),
        (["rows.jsonl"], "vrft: rows.jsonl:2: target is missing."),
        (["rows.jsonl", "--image-size", "large"], "vrft: --image-size large: expected WIDTHxHEIGHT, such as 640x480."),
        (["rows.jsonl", "--synonym", "shadow"], "vrft: --synonym shadow: expected LABEL=NAME."),
        (["rows.jsonl", "--synonym", "malignant="], "vrft: --synonym malignant=: expected LABEL=NAME."),
    ],
)
def test_a_mistake_of_the_user_is_one_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
):
    monkeypatch.chdir(tmp_path)
    task = {"kind": "classification", "labels": ["malignant"]}
    Path("rows.jsonl").write_text(text([ROWS[0] | {"task": task}, {"completion": "x", "task": task}]))
    monkeypatch.setattr(sys, "argv", ["vrft", "score", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    out, err = capfdbinary.readouterr()
    assert err.decode().strip() == message
    assert len(out.splitlines()) == (1 if "rows.jsonl:2" in message else 0)  # what was scored before is written


def test_scoring_streams_without_torch():
    check = (
        "import sys; sys.argv = ['vrft', 'score', '--task', 'grading', '--levels', '5']\n"
        "from vrft.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", check], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    for grade in (1, 3):  # each line is answered before the next is sent
        process.stdin.write(json.dumps({"completion": f"<answer>{grade}</answer>", "target": 1}) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["answer"] == grade
    process.stdin.close()
    assert process.wait() == 0


def test_completions_of_a_thinking_model_are_scored_with_the_end_of_the_prompt():
    rows = text([{"completion": "x</think><answer>benign</answer>", "target": "benign"}])
    scores = [
        CliRunner().invoke(app, ["score", *OPTIONS, *more], input=rows) for more in ([], ["--prompt-end", "<think>"])
    ]
    assert [json.loads(result.stdout)["format"] for result in scores] == [0.0, 1.0]


def test_the_order_of_the_envelope_is_that_of_the_option():
    rows = text([{"completion": "<answer>benign</answer><think>x</think>", "target": "benign"}])
    scores = [
        CliRunner().invoke(app, ["score", *OPTIONS, *more], input=rows) for more in ([], ["--order", "answer-think"])
    ]
    assert [json.loads(result.stdout)["format"] for result in scores] == [0.0, 1.0]
