"""``vrft preflight``: completions are those of the first step of training, and what they earn is measured."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import vrft
from vrft.cli.main import app, main
from vrft.evaluation.readiness import CODES
from vrft.progress import Reporter

QUIET = Reporter(quiet=True)


def flown(path: Path, *overrides: str, **options: Any) -> Any:
    return vrft.preflight(path, overrides=overrides, measure=False, reporter=QUIET, **options)


def test_it_measures_prints_and_writes_all_completions(small_recipe: Path, tmp_path: Path):
    out = tmp_path / "completions.jsonl"
    command = ["preflight", str(small_recipe), "--prompts", "4", "--json", "--out", str(out), "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 4 * 4
    assert {"id", "prompt", "completion", "rewards", "answer", "problems"} <= set(rows[0])
    assert set(rows[0]["rewards"]) == {"accuracy", "format"}
    assert figures["total"]["mean"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))
    assert sum(figures["rewards"]["accuracy"]["histogram"]["counts"]) == len(rows)
    assert figures["verdict"]["code"] in CODES
    assert figures["step"]["seconds"] > 0
    assert figures["step"]["peak_mb"] > 0
    assert figures["prompt"]["visual_tokens"] == 16
    assert figures["prompt"]["text"].endswith("<|im_start|>assistant\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["completions.jsonl", small_recipe.name]


def test_completions_are_those_of_the_first_step_of_training(small_recipe: Path, tmp_path: Path):
    rows = flown(small_recipe, prompts=2).rows
    vrft.run(small_recipe, tmp_path / "run", overrides=["arms=[rft]", "stages.0.steps=1"], reporter=QUIET)
    trained = pd.read_parquet(next((tmp_path / "run").rglob("rollouts.parquet")))
    assert [row["completion"] for row in rows] == list(trained["completion"])
    assert [row["reward"] for row in rows] == pytest.approx(list(trained["reward"]))


def test_a_seed_decides_the_completions(small_recipe: Path):
    first, same, other = (flown(small_recipe, prompts=3, seed=seed) for seed in (1, 1, 2))
    assert first.rows == same.rows
    assert first.figures | {"seconds": 0} == same.figures | {"seconds": 0}
    assert first.rows != other.rows


def test_more_completions_than_the_group_size_can_be_asked_for(small_recipe: Path):
    figures = flown(small_recipe, prompts=2, completions=6).figures
    assert list(figures["pass_at_k"]) == ["1", "2", "4", "6"]


def test_prompts_are_balanced_where_the_stage_balances(small_recipe: Path):
    figures = flown(small_recipe, "stages.0.balance=true", prompts=5).figures
    assert set(figures["targets"].values()) == {1 / 5}
    assert figures["not_drawn"] == []


def test_boxes_are_read_in_each_frame(small_recipe: Path):
    figures = flown(
        small_recipe,
        "task={kind: localization}",
        "stages.0.rewards={iou: 1.0, format: 0.5}",
        "stages.0.max_completion_tokens=40",
        prompts=2,
    ).figures
    assert figures["frames"]["declared"] == "resized"
    assert figures["frames"]["mean_iou"]["resized"] == figures["answers"]["mean_iou"]
    assert len(figures["frames"]["mean_iou"]) == 8


def test_a_reward_of_the_users_is_paid_as_in_training(small_recipe: Path, tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "def wide(completions, image, **columns):\n    return [one.width for one in image]\n"
    )
    options = [f"custom={{wide: '{tmp_path / 'own.py'}:wide'}}", "stages.0.rewards={wide: 0.5}"]
    rows = flown(small_recipe, *options, prompts=2).rows
    assert {row["reward"] for row in rows} == {rows[0]["rewards"]["wide"] / 2}


def test_an_arm_that_the_recipe_does_not_run_can_be_named(small_recipe: Path):
    assert flown(small_recipe, prompts=2, arm="blind").figures["arm"] == "blind"


def test_a_stage_after_others_is_noted(small_recipe: Path):
    text = small_recipe.read_text().replace("stages:\n", "stages:\n  - {kind: sft, steps: 2}\n")
    small_recipe.write_text(text)
    figures = flown(small_recipe, prompts=2).figures
    assert figures["stage"] == 2
    (note,) = figures["verdict"]["notes"]
    assert "RUN/arms/rft/seed-0/stage-0-sft/policy" in note


def test_strict_is_exit_code_2_for_any_verdict_but_ready(small_recipe: Path):
    cut = ["--prompts", "2", "--set", "stages.0.max_completion_tokens=3", "--quiet"]
    result = CliRunner().invoke(app, ["preflight", str(small_recipe), *cut, "--strict"])
    assert result.exit_code == 2, result.output
    assert "Truncated: 100% of the completions are cut at 3 tokens" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arm", "rtf"], "has no arm 'rtf'; expected one of majority, base, sft, rft."),
        (["--arm", "sft"], "arm sft has no RFT stage; its stages are: 1 sft."),
        (["--stage", "2"], "arm rft has no RFT stage 2; its stages are: 1 rft."),
        (["--set", "arms=[base, sft]"], "no arm has an RFT stage; its arms are base, sft."),
        (["--arm", "rft+PA_p"], "knowledge"),
        (["--out", "none/here.jsonl"], "--out none/here.jsonl: its folder does not exist; create it first."),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    options: list[str],
    words: str,
    small_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("sys.argv", ["vrft", "preflight", str(small_recipe), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_samples_that_cannot_be_read_are_replaced_where_the_recipe_says_so(small_recipe: Path, tmp_path: Path):
    for index in range(12):
        path = tmp_path / "images" / ("train", "test")[index % 2] / ("a", "b")[index // 2 % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (20 * index, 0, 0)).save(path)
    (tmp_path / "images" / "train" / "a" / "0.png").write_bytes(b"no image")
    data = f"data={{source: folder, root: '{tmp_path / 'images'}', on_bad_sample: skip}}"
    rows = flown(small_recipe, data, "task={kind: classification}", prompts=6).rows
    assert len(rows) == 6 * 4
    assert not any("/0" in row["id"] for row in rows)
