"""Rows and lines: defaults of a line, and the messages for invalid lines."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.errors import DataError
from vrft.rewards import APPLIES, REWARDS
from vrft.rewards.scoring import RowScorer, Summary, score_lines, write_line

RIGHT = {
    "completion": "<think>x</think><answer>benign</answer>",
    "target": "benign",
    "task": {"kind": "classification", "labels": ["benign", "malignant"]},
}
BOXES = {
    "completion": "<think>x</think><answer>[1, 2, 3, 4]</answer>",
    "target": [[1, 2, 3, 4]],
    "task": {"kind": "localization", "frame": "pixel"},
    "image_size": [10, 10],
}


def lines(*rows: Any) -> list[bytes]:
    return [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]


def test_every_case_is_scored_as_wanted(cases: list[dict[str, Any]]):
    scored = list(score_lines(lines(*cases), "cases"))
    assert len(scored) == len(cases)
    for case, scores in zip(cases, scored, strict=True):
        for name, wanted in case["want"].items():
            if name == "problems":
                assert bool(scores[name]) == bool(wanted), case["id"]
            elif name == "answer":
                assert scores[name] == wanted, case["id"]
            else:
                assert scores[name] == pytest.approx(wanted, abs=1e-3), (case["id"], name)


def test_a_row_and_the_reward_functions_agree(cases: list[dict[str, Any]]):
    scorer = RowScorer()
    for case in cases:
        scores = scorer.score(case)
        columns = {
            **case["task"],
            **{key: case[key] for key in ("image_size", "processed_size", "schedule") if key in case},
        }
        kind = columns.pop("kind")
        for name, reward in REWARDS.items():
            assert (name in scores) == (kind in APPLIES[name] and (name != "recitation" or "knowledge" in case))
            if name in scores:
                assert reward([case["completion"]], target=[case["target"]], **columns) == [scores[name]], case["id"]


def test_what_a_line_leaves_out_comes_from_the_defaults():
    defaults = {
        "task": RIGHT["task"] | {"levels": 5, "frame": "pixel"},
        "image_size": [10, 10],
        "schedule": "geometric",
    }
    bare = {key: RIGHT[key] for key in ("completion", "target")}
    graded = {"completion": "<answer>4</answer>", "target": 2, "task": {"kind": "grading"}}
    boxed = {key: BOXES[key] for key in ("completion", "target")} | {"task": "localization"}
    first, second, third = score_lines(lines(bare, graded, boxed), "x", defaults)
    assert first["accuracy"] == 1
    assert second["fuzzy"] == 0.0625
    assert third["iou"] == 1


def test_levels_may_be_names():
    row = {
        "completion": "<answer>Severe</answer>",
        "target": 2,
        "task": {"kind": "grading", "levels": ["no", "a", "severe"]},
    }
    assert RowScorer().score(row)["fuzzy"] == 1
    row["task"] = {"kind": "grading", "levels": 3, "synonyms": {"2": ["severe"]}}
    assert RowScorer().score(row)["fuzzy"] == 1


def test_messages_are_scored_as_their_text():
    row = RIGHT | {"completion": [{"role": "assistant", "content": RIGHT["completion"]}]}
    assert RowScorer().score(row) == RowScorer().score(RIGHT)


def test_further_keys_and_empty_lines_are_let_through():
    assert (
        len(list(score_lines([b"\xef\xbb\xbf" + lines(RIGHT | {"id": 1})[0], b"\n", b" \r\n", *lines(BOXES)], "x")))
        == 2
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"completion": ', "is no JSON"),
        (b"[1, 2]", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"completion": ' + b"9" * 5000 + b"}", "4300"),
        ({**RIGHT, "completion": None}, "completion is missing"),
        ({**RIGHT, "completion": 5}, "completion is 5; expected a text or a list of chat messages"),
        ({**RIGHT, "target": None}, "target is missing"),
        ({**RIGHT, "target": "other"}, "the target 'other' is none of the labels 'benign', 'malignant'"),
        ({**RIGHT, "task": None}, "task.kind is missing; expected one of classification, grading, localization, vqa"),
        ({**RIGHT, "task": 5}, "task is 5; expected an object"),
        ({**RIGHT, "task": {"kind": "clasification"}}, "did you mean 'classification'?"),
        ({**RIGHT, "task": {"kind": "classification"}}, "task.labels is missing"),
        ({**RIGHT, "task": {"kind": "classification", "labels": "ab"}}, "task.labels is 'ab'"),
        ({**RIGHT, "task": {"kind": "classification", "lables": ["a"]}}, "did you mean 'labels'?"),
        ({**RIGHT, "task": {"kind": "grading"}}, "task.levels is missing"),
        ({**RIGHT, "task": {"kind": "grading", "levels": 5}}, "the target 'benign' is no grade from 0 to 4"),
        ({**RIGHT, "task": {"kind": "grading", "levels": 2, "names": ["a", "b", "c"]}}, "3 names for 2 grades"),
        ({**RIGHT, "task": {"kind": "vqa"}}, "task.answers is missing"),
        ({**RIGHT, "task": {"kind": "vqa", "answers": "choice"}}, "task.choices needs two or more"),
        ({**RIGHT, "order": "thinking"}, "expected one of think-answer, answer-think, no-think"),
        ({**RIGHT, "schedule": "linear"}, "expected one of table, geometric"),
        ({**BOXES, "image_size": None}, "image_size is missing; a localization needs [width, height]"),
        ({**BOXES, "image_size": [0, 5]}, "expected [width, height], two whole numbers above 0"),
        ({**BOXES, "task": {"kind": "localization"}}, "task.frame is missing"),
        ({**BOXES, "task": {"kind": "localization", "frame": "resized"}}, "processed_size is missing"),
        ({**BOXES, "target": [[1, 2, 3, float("nan")]]}, "expected a list of boxes"),
        ({**BOXES, "target": 3}, "expected a list of boxes"),
    ],
)
def test_an_invalid_line_is_named_after_the_lines_before_it(line: Any, message: str):
    scores = score_lines(lines(RIGHT, b"", line, RIGHT), "rows.jsonl")
    assert next(scores)["accuracy"] == 1
    with pytest.raises(DataError) as error:
        next(scores)
    assert str(error.value).startswith("rows.jsonl:3: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text())
def test_no_completion_makes_scoring_or_writing_fail(text: str):
    for row in (RIGHT, BOXES, RIGHT | {"task": {"kind": "vqa", "answers": "open"}}):
        for completion in (text, f"<answer>{text}</answer>"):
            scores = RowScorer().score(row | {"completion": completion})
            assert json.loads(write_line(scores).encode()) == scores


def test_a_summary_counts_what_was_scored():
    summary = Summary()
    for scores in score_lines(lines(RIGHT, RIGHT | {"completion": "benign"}, BOXES), "x"):
        summary.add(scores)
    assert (summary.lines, summary.read) == (3, 2)
    assert summary.rewards["accuracy"] == [2, 1.0, 1]
    assert summary.problems["no_answer"] == 1


def test_a_row_says_what_the_chat_template_opens_the_turn_with():
    row = {"completion": "A mass.</think><answer>2</answer>", "target": 2, "task": {"kind": "grading", "levels": 5}}
    row |= {"knowledge": "A mass."}
    assert RowScorer().score(row)["format"] == 0.0
    scores = RowScorer().score(row | {"prompt_end": "<|im_start|>assistant\n<think>\n"})
    assert (scores["format"], scores["accuracy"], scores["recitation"], scores["problems"]) == (1.0, 1.0, 1.0, [])
    assert RowScorer({"prompt_end": "<think>"}).score(row) == scores
    whole = row | {"completion": f"<think>{row['completion']}", "prompt_end": ""}
    assert RowScorer({"prompt_end": "<think>"}).score(whole)["format"] == 1.0  # a row's own end wins, also an empty one
    with pytest.raises(ValueError, match=r"prompt_end is \['<think>'\]; expected a text"):
        RowScorer().score(row | {"prompt_end": ["<think>"]})
