"""The page: what a model wrote is shown as text, and the words follow the numbers."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from vrft.evaluation.summary import summarise
from vrft.report import write_report
from vrft.report.curves import panels_of
from vrft.report.page import _in_words, _logs
from vrft.runs import RunDirectory, read_json, write_json, write_jsonl, write_text
from vrft.tasks import Classification

RECIPE = """\
name: </pre><script>alert(3)</script>
task: {kind: classification}
data: {source: phantom}
policy: {model: tiny}
evaluation: {split: test, confidence: 0.95}
"""
EVIL = "<think><script>alert(1)</script></think><answer><img src=x onerror=alert(2)></answer>"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    task = Classification(("a", "b"))
    right = [{"target": t, "answer": t, "lenient": t, "completion": EVIL, "well_formed": False} for t in "abab"]
    wrong = [{"target": t, "answer": None, "lenient": "a", "completion": EVIL, "well_formed": False} for t in "abab"]
    cost = {"seconds": 0.0, "tokens": 0, "peak_mb": 0.0}
    metrics = summarise(
        task, {"base": [wrong], "rft": [right]}, {"base": cost, "rft": cost}, draws=100, confidence=0.95
    )
    write_json(directory.metrics, metrics)
    write_json(directory.environment, {"seeds": [0]})
    write_text(directory.recipe, RECIPE)
    rows = [
        {"arm": arm, "seed": 0, "sample": f"s{i}", **row}
        for arm, rows in (("base", wrong), ("rft", right))
        for i, row in enumerate(rows)
    ]
    pd.DataFrame(rows).to_parquet(directory.predictions)
    directory.gallery.mkdir()
    Image.new("RGB", (8, 8)).save(directory.gallery / "s0.png")
    return directory


def test_what_a_model_wrote_is_escaped(run: RunDirectory):
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_an_answer_that_was_not_read_says_so(run: RunDirectory):
    page = write_report(run).read_text(encoding="utf-8")
    gallery = page[page.index('<div class="gallery">') : page.index("<h2>Confusion")]
    assert gallery.count("not read") == 1
    assert "nan" not in gallery


def test_the_table_shows_the_lenient_reading_where_it_differs(run: RunDirectory):
    assert "accuracy, lenient" in write_report(run).read_text(encoding="utf-8")


def comparison(low: float, difference: float, high: float) -> dict:
    return {"a": "rft", "b": "base", "metric": "accuracy", "low": low, "difference": difference, "high": high, "p": 0.2}


@pytest.mark.parametrize(
    ("ends", "words"),
    [((0.1, 0.2, 0.3), "higher accuracy"), ((-0.3, -0.2, -0.1), "lower accuracy"), ((-0.1, 0.1, 0.3), "no difference")],
)
def test_the_words_claim_only_what_the_interval_allows(ends: tuple[float, float, float], words: str):
    (sentence,) = _in_words({"arms": {"base": {"accuracy": {}}, "rft": {}}, "comparisons": [comparison(*ends)]})
    assert words in sentence


@pytest.mark.parametrize(
    ("arm", "ends", "words"),
    [
        ("swapped", (-0.3, -0.2, -0.1), "it uses what it is told."),
        ("without", (-0.3, -0.2, -0.1), "does not show that it uses what they say."),
        ("irrelevant", (-0.3, -0.2, -0.1), "does not show that it uses what they say."),
        ("swapped", (-0.1, 0.0, 0.1), "nothing shows that it uses what it is told."),
    ],
)
def test_only_exchanged_descriptions_show_that_knowledge_is_used(arm: str, ends: tuple[float, ...], words: str):
    row = comparison(*ends) | {"a": arm, "b": "rft+PA_p"}  # type: ignore[arg-type]
    (sentence,) = _in_words({"arms": {"rft+PA_p": {"accuracy": {}}, arm: {}}, "comparisons": [row]})
    assert sentence.endswith(words)


def test_what_was_read_and_what_the_first_stage_learnt_are_shown(run: RunDirectory):
    figure = {"value": 0.25, "low": 0.2, "high": 0.3}
    metrics = read_json(run.metrics)
    metrics["perception"] = {"arms": {"majority": {"seeds": 1, "mean_iou": figure}}, "comparisons": []}
    write_json(run.metrics, metrics)
    card = {"name": "my", "written_by": {"kind": "model", "name": "M"}, "checked_by": None}
    write_json(run.data, {"boxes": {"data": {"train": {"boxes": 1234, "no area": 2}}}, "card": card})
    page = write_report(run).read_text(encoding="utf-8")
    assert "train: boxes 1,234, no area 2" in page
    assert "The card my was written by M (model) and has been checked by nobody." in page
    assert "0.250<small>[0.200, 0.300]" in page[page.index("What the stages before the task have learnt") :]


def test_curves_go_on_from_stage_to_stage(run: RunDirectory):
    assert "<h2>Training" not in write_report(run).read_text(encoding="utf-8")
    arm = run.arm("rft", 0)
    write_jsonl(arm.stage(0, "sft").log, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    write_jsonl(arm.stage(1, "rft").log, [{"step": 1, "reward": 0.5, "rewards": {"accuracy": {"mean": 0.5}}}])
    logs = _logs(run, ["base", "rft"])
    assert list(logs["step"]) == [1, 2, 3]
    assert list(panels_of(logs)) == ["reward", "rewards.accuracy.mean", "loss"]
    assert "<h2>Training" in write_report(run).read_text(encoding="utf-8")
