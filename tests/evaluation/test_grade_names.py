"""A grade whose name holds a numeral is called by it wherever a user reads it; files keep its index."""

from pathlib import Path

import pandas as pd
import pytest

from vrft.api import run
from vrft.evaluation.inference import ask_run
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report import write_report
from vrft.report.gallery import grade_names
from vrft.runs import RunDirectory

NAMES = [f"PI-RADS {number}" for number in range(1, 6)]


def test_the_report_and_answers_call_a_grade_by_its_name(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(f"""
name: pirads
data: {{source: phantom, samples: {{train: 4, validation: 1, test: 5}}}}
task: {{kind: grading, levels: [{", ".join(NAMES)}]}}
stages: [{{kind: rft, steps: 1}}]
arms: [majority, base]
evaluation: {{bootstrap: 100}}
""")
    directory = RunDirectory(tmp_path / "run")
    run(read_recipe(tmp_path / "recipe.yaml", []), directory.path, reporter=Reporter(quiet=True))
    predictions = pd.read_parquet(directory.predictions)
    assert set(predictions["target"]) <= set("01234")
    page = write_report(directory).read_text(encoding="utf-8")
    gallery = page[page.index('<div class="gallery">') : page.index("<h2>Confusion")]
    confusion = page[page.index("<h2>Confusion") : page.index("<h2>How it was made")]
    answer = NAMES[int(predictions["answer"].dropna().iloc[0])]
    assert f">{answer}</td>" in gallery
    for target in set(predictions["target"]):
        assert f"truth: <b>{NAMES[int(target)]}</b>" in gallery
        assert f'<th title="{NAMES[int(target)]}">' in confusion
        assert f'<th title="{target}">' not in confusion
    (asked,) = (row for _, row in ask_run(directory, [], arm="base", split="test", limit=1))
    assert asked["name"] == (None if asked["answer"] is None else NAMES[asked["answer"]])


@pytest.mark.parametrize(
    ("task", "called"),
    [
        ({"kind": "grading", "levels": 3, "names": None}, {}),
        ({"kind": "grading", "levels": ["none", "mild"]}, {}),
        ({"kind": "grading", "levels": 2, "names": ["4A", "4B"]}, {"0": "4A", "1": "4B"}),
        ({"kind": "grading", "levels": ["Stage 2", "Stage II"]}, {}),  # which an older version took
        ({"kind": "classification", "labels": ["1", "2"]}, {}),
    ],
)
def test_an_index_stays_where_names_hold_no_numerals(task: dict, called: dict[str, str]):
    assert grade_names(task) == called
