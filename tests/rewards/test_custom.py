"""Rewards of the user: a file is read but not run until a stage trains, and each wrong result is one clear sentence."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from vrft.errors import UserError
from vrft.rewards.custom import check_custom, custom_digest, custom_files, load_custom


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def faults(path: Path, function: str = "mine") -> list[str]:
    return [str(fault) for fault in check_custom("mine", f"{path}:{function}", "here")]


def test_a_file_is_checked_without_being_run(tmp_path: Path):
    path = write(tmp_path, "raise SystemExit\ndef mine(completions, target, **columns):\n    return target\n")
    assert faults(path) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def mein(completions, **columns): ...", "has no function 'mine'; it has mein. Did you mean 'mein'?"),
        ("x = 1", "has no function 'mine'; it has none."),
        ("def mine(completions): ...", "mine.py:1: expected def mine(completions, **columns)."),
        ("\ndef mine(**columns): ...", "mine.py:2: expected def mine(completions, **columns)."),
        ("async def mine(completions, **columns): ...", "mine is async; expected a plain function."),
        ("def mine(:", "mine.py:1 is no Python: "),
        ("a\0b", "is no Python: "),
    ],
)
def test_a_function_that_cannot_be_a_reward_is_a_fault(tmp_path: Path, text: str, words: str):
    (fault,) = faults(write(tmp_path, text))
    assert fault.startswith("here: custom.mine: ")
    assert words in fault


def test_a_missing_file_is_a_fault(tmp_path: Path):
    (fault,) = faults(tmp_path / "none.py")
    assert "none.py cannot be read (No such file or directory)." in fault


def test_a_function_gets_texts_and_columns_and_its_values_are_numbers(tmp_path: Path):
    text = "def mine(completions, target, **columns):\n"
    text += "    return [len(one) if true else None for one, true in zip(completions, target)]"
    reward = load_custom("mine", f"{write(tmp_path, text)}:mine")
    messages = [[{"role": "assistant", "content": "abc"}], "x"]
    assert reward(messages, target=[1, 0], levels=5) == [3.0, None]


def test_an_array_is_a_list_of_numbers(tmp_path: Path):
    text = "import numpy as np\ndef mine(completions, **columns):\n    return np.ones(2, dtype=np.float32)"
    assert load_custom("mine", f"{write(tmp_path, text)}:mine")(["a", "b"]) == [1.0, 1.0]


def test_a_dataclass_can_be_defined_in_the_file(tmp_path: Path):
    text = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 2\n"
    path = write(tmp_path, text + "def mine(completions, **columns):\n    return [A().x]")
    assert load_custom("mine", f"{path}:mine")(["a"]) == [2.0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    return 1 / 0", "mine.py:2 raised ZeroDivisionError: division by zero"),
        ("    exit()", "mine.py:2 raised SystemExit"),
        ("    return None", "returned None"),
        ("    return 'ab'", "returned 'ab'"),
        ("    return {0: 1.0, 1: 1.0}", "returned {0: 1.0, 1: 1.0}"),
        ("    return [1.0]", "returned 1 values"),
        ("    return [0.0, float('nan')]", "returned nan for completion 1"),
        ("    return [float('inf'), 0.0]", "returned inf for completion 0"),
        ("    return ['1', 0.0]", "returned '1' for completion 0"),
    ],
)
def test_a_wrong_result_is_one_sentence_with_file_function_and_what_was_expected(tmp_path: Path, body: str, words: str):
    reward = load_custom("mine", f"{write(tmp_path, f'def mine(completions, **columns):{chr(10)}{body}')}:mine")
    with pytest.raises(UserError) as error:
        reward(["a", "b"])
    (line,) = str(error.value).splitlines()
    assert line.startswith("custom.mine: ")
    assert words in line
    assert line.endswith("expected mine to return a list of 2 numbers or None, one for each completion.")


def test_an_error_while_a_file_is_loaded_names_its_line(tmp_path: Path):
    path = write(tmp_path, "x = 1\nimport nothing_of_this_name\ndef mine(completions, **columns): ...")
    with pytest.raises(UserError, match=r"custom.mine: .*mine.py:2 raised ModuleNotFoundError: .* while the file was"):
        load_custom("mine", f"{path}:mine")


def test_a_changed_file_is_loaded_again_and_has_another_digest(tmp_path: Path):
    found: list[Any] = []
    for value in (1.0, 2.0):
        where = f"{write(tmp_path, f'def mine(completions, **columns):{chr(10)}    return [{value}]')}:mine"
        found.append((load_custom("mine", where)(["a"]), custom_digest({"mine": where})["mine"]))
        assert found[-1][1] == sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert [earned for earned, _ in found] == [[1.0], [2.0]]
    assert found[0][1] != found[1][1]


def test_a_file_of_two_functions_is_one_file(tmp_path: Path):
    assert custom_files({"a": f"{tmp_path}/x.py:a", "b": f"{tmp_path}/x.py:b"}) == [tmp_path / "x.py"]
