"""The constant arm, and going on with predictions that a kill cut short."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vrft.data import PhantomSource
from vrft.evaluation.predictions import constant_answer, predict, predict_majority, prediction
from vrft.policies import load_policy
from vrft.progress import Reporter
from vrft.response import render
from vrft.runs import read_jsonl, write_jsonl
from vrft.sample import Sample
from vrft.tasks import Classification, Grading, Localization


def test_the_constant_is_the_most_frequent_label_or_the_median_grade():
    assert constant_answer(Classification(("a", "b", "c")), ["b", "c", "c", "a"]) == "c"
    assert constant_answer(Grading(5), [0, 0, 0, 3, 4, 4, 4]) == 3


def test_the_constant_arm_is_well_formed_and_read():
    samples = list(PhantomSource("grading", sizes={"train": 3, "validation": 0, "test": 0}).samples("train"))
    rows = predict_majority(Grading(5), [replace(samples[0], target=2)], samples)
    assert [row["answer"] for row in rows] == [2, 2, 2]
    assert all(not row["problems"] for row in rows)


def test_the_constant_grade_is_called_by_its_name_where_names_hold_numerals():
    samples = list(PhantomSource("grading", sizes={"train": 1, "validation": 0, "test": 0}).samples("train"))
    task = Grading(5, tuple(f"PI-RADS {grade}" for grade in range(1, 6)))
    (row,) = predict_majority(task, [replace(samples[0], target=2)], samples)
    assert row["completion"].endswith("<answer>PI-RADS 3</answer>")
    assert row["answer"] == 2


def test_the_constant_box_is_written_in_shares_and_read_in_pixels():
    source = PhantomSource("localization", sizes={"train": 30, "validation": 0, "test": 4})
    rows = predict_majority(Localization("resized"), list(source.samples("train")), list(source.samples("test")))
    assert len({str(row["answer"]) for row in rows}) == 1
    assert all(row["answer"] and not row["problems"] and row["image_size"] == [112, 112] for row in rows)


def test_where_no_training_image_has_a_box_the_constant_answer_is_that_nothing_is_there():
    source = PhantomSource("localization", sizes={"train": 2, "validation": 0, "test": 2})
    empty = [replace(sample, target=()) for sample in source.samples("train")]
    rows = predict_majority(Localization("resized"), empty, list(source.samples("test")))
    assert [row["answer"] for row in rows] == [[], []]


def test_a_cut_off_file_of_predictions_ends_as_a_whole_one(tmp_path: Path):
    source = PhantomSource("grading", sizes={"train": 0, "validation": 0, "test": 11})
    samples, policy, task = list(source.samples("test")), load_policy("tiny"), Grading(5)
    options: dict[str, Any] = {"batch_size": 4, "max_tokens": 20, "reporter": Reporter(quiet=True)}
    whole = predict(policy, task, samples, tmp_path / "whole.jsonl", **options)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:6]) + lines[6][:20])
    assert predict(policy, task, samples, tmp_path / "cut.jsonl", **options) == whole
    assert read_jsonl(tmp_path / "cut.jsonl") == whole


def test_a_finished_file_whose_last_batch_is_not_full_is_left_as_it_is(tmp_path: Path):
    rows = [{"sample": f"{index}", "answer": 1, "target": 1} for index in range(5)]
    write_jsonl(tmp_path / "done.jsonl", rows)
    policy: Any = SimpleNamespace(model=SimpleNamespace(eval=lambda: None))  # cannot decode
    samples = [Sample(f"{index}", Path("a.png"), "Which grade?", 1, "test") for index in range(5)]
    options: dict[str, Any] = {"batch_size": 2, "max_tokens": 20, "reporter": Reporter(quiet=True)}
    assert predict(policy, Grading(5), samples, tmp_path / "done.jsonl", **options) == rows


@pytest.mark.parametrize("kind", ["classification", "grading"])
def test_a_prediction_holds_both_readings(kind: str):
    source = PhantomSource(kind, sizes={"train": 0, "validation": 0, "test": 1})  # type: ignore[arg-type]
    task = Grading(5) if kind == "grading" else Classification(source.labels or ())
    (sample,) = source.samples("test")
    row = prediction(task, sample, render("x", str(task.classes[0])), 0)
    assert set(row) == {"sample", "target", "completion", "answer", "lenient", "problems", "well_formed", "tokens"}
    assert row["answer"] == row["lenient"] == task.classes[0]
