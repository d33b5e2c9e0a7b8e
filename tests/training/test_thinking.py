"""Thinking models, whose chat template opens ``<think>`` in the prompt: trained, evaluated and scored as one turn."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from transformers import AutoProcessor
from typer.testing import CliRunner

from vrft.api import run
from vrft.cli.main import app
from vrft.errors import PolicyError
from vrft.evaluation.inference import ask_model
from vrft.experiment.plan import make_plan
from vrft.policies import TINY, LoadedPolicy, load_policy, quiet_libraries, save_policy
from vrft.progress import Reporter
from vrft.recipe import SftStage, read_recipe
from vrft.report import write_report
from vrft.response import parse
from vrft.runs import RunDirectory, StageDirectory, read_jsonl
from vrft.sample import Sample
from vrft.tasks import Grading
from vrft.training import train_sft

pytestmark = pytest.mark.slow

OPENS = "{{ '<|im_start|>assistant\n"
QUIET = Reporter(quiet=True)


def thinking(policy: LoadedPolicy, added: str = "<think>\n") -> LoadedPolicy:
    """A policy whose chat template writes a text at the beginning of its turn."""
    template = policy.processor.chat_template
    assert OPENS in template
    policy.processor.chat_template = policy.processor.tokenizer.chat_template = template.replace(OPENS, OPENS + added)
    return policy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded policy with the template of a thinking model, as a directory."""
    quiet_libraries()
    path = tmp_path_factory.mktemp("thinking") / "model"
    save_policy(thinking(load_policy("tiny")), path)
    return path


def recipe_of(path: Path, model: Path, *overrides: str) -> Any:
    return read_recipe(path, [f"policy.model={model}", *overrides])


def test_a_saved_policy_keeps_its_template(model: Path):
    assert load_policy(str(model)).prompt_end == "<think>\n"
    assert load_policy("tiny").prompt_end == ""


def test_the_tag_is_the_same_token_in_prompts_and_in_completions():
    tokenizer = AutoProcessor.from_pretrained(TINY).tokenizer
    tag, line = tokenizer("<think>").input_ids, tokenizer("\n").input_ids
    assert len(tag) == len(line) == 1
    assert tokenizer("<|im_start|>assistant\n<think>\n").input_ids[-2:] == tag + line
    assert tokenizer("<think>Round").input_ids[:1] == tag


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of the thinking policy: untouched, supervised, and reinforced with validation."""
    path = tmp_path_factory.mktemp("run")
    (path / "thinking.yaml").write_text(RECIPE)
    recipe = recipe_of(path / "thinking.yaml", model)
    directory = RunDirectory(path / "run")
    run(recipe, directory.path, reporter=QUIET)
    return directory


RECIPE = """\
name: thinking
data: {source: phantom, family: shifted, samples: {train: 40, validation: 8, test: 16}}
task: {kind: grading}
stages:
  - kind: rft
    rewards: {accuracy: 1.0, format: 0.5}
    steps: 3
    prompts_per_step: 2
    group_size: 4
    learning_rate: 1.0e-4
    max_completion_tokens: 24
sft: {steps: 40, batch_size: 8, learning_rate: 1.0e-3}
validate: {every: 3, samples: 4}
arms: [majority, base, sft, rft]
evaluation: {batch_size: 8, bootstrap: 100}
"""


def test_rollouts_hold_what_was_written_and_are_paid_as_one_turn_with_the_prompt(finished: RunDirectory):
    rollouts = pd.read_parquet(finished.arm("rft", 0).stage(0, "rft").rollouts)
    assert set(rollouts["prompt_end"]) == {"<think>\n"}
    for row in rollouts.to_dict("records"):
        assert row["reward_format"] == (not parse(row["completion"], prompt_end=row["prompt_end"]).problems)


def test_rollouts_and_predictions_are_scored_again_as_they_were(finished: RunDirectory, tmp_path: Path):
    rows = [
        {key: row[key] for key in ("completion", "prompt_end")} | {"target": int(row["target"]), "paid": row[format_]}
        for table, format_ in (
            (pd.read_parquet(finished.arm("rft", 0).stage(0, "rft").rollouts), "reward_format"),
            (pd.read_json(finished.arm("sft", 0).predictions, lines=True), "well_formed"),
        )
        for row in table.to_dict("records")
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(app, ["score", str(file), "--task", "grading", "--levels", "5"])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["format"] for line in result.stdout.splitlines()] == [float(row["paid"]) for row in rows]


def test_the_supervised_arm_learns_to_go_on_where_the_prompt_ends(finished: RunDirectory):
    rows = read_jsonl(finished.arm("sft", 0).predictions)
    assert all("<think>" not in row["completion"] for row in rows)
    assert sum(row["well_formed"] for row in rows) > len(rows) / 2
    assert all(row["answer"] is not None for row in rows if row["well_formed"])


def test_the_validation_and_the_report_judge_the_whole_turn(finished: RunDirectory):
    log = read_jsonl(finished.arm("sft", 0).stage(0, "sft").log)
    figures = [row["validation"]["format_rate"] for row in log if "validation" in row]
    assert figures[-1] > 0.5
    shown = {path.stem for path in finished.gallery.glob("*.png")}
    rows = [row for row in read_jsonl(finished.arm("sft", 0).predictions) if row["sample"] in shown]
    think = parse(rows[0]["completion"], prompt_end=rows[0]["prompt_end"]).think
    assert think
    assert f"<td>{think}</td>" in write_report(finished).read_text(encoding="utf-8")


def sample_in(folder: Path) -> Sample:
    image = Image.new("RGB", (56, 56), "grey")
    image.paste("white", (14, 14, 42, 42))
    image.save(folder / "image.png")
    return Sample("one", folder / "image.png", "Which grade?", 2, split="train")


def row_of(policy: LoadedPolicy, folder: Path, task: Grading, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a supervised stage gives TRL of one sample."""
    given: dict[str, Any] = {}

    def stop(*_: Any, **options: Any) -> None:
        given.update(options["train_dataset"][0])
        raise KeyboardInterrupt

    monkeypatch.setattr("vrft.training.sft.SFTTrainer", stop)
    stage = SftStage(kind="sft", steps=1, batch_size=1, think="Seen.")
    directory = StageDirectory(folder / "stage")
    directory.path.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train_sft(policy, stage, task, [sample_in(folder)], directory, seed=0, reporter=QUIET)
    return given


@pytest.mark.parametrize(
    ("added", "end", "completion"),
    [
        ("", "assistant\n", "<think>Seen.</think><answer>2</answer><|im_end|>\n"),
        ("<think>\n", "assistant\n<think>\n", "Seen.</think><answer>2</answer><|im_end|>\n"),
        ("<think>\n\n</think>\n\n", "</think>\n\n", "<think>Seen.</think><answer>2</answer><|im_end|>\n"),
    ],
)
def test_a_supervised_target_goes_on_where_the_prompt_ends(
    added: str, end: str, completion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    policy = thinking(load_policy("tiny"), added) if added else load_policy("tiny")
    row = row_of(policy, tmp_path, Grading(5), monkeypatch)
    assert row["prompt"].endswith(end)
    assert row["completion"] == completion


def test_without_an_open_block_an_answer_alone_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = thinking(load_policy("tiny"), "<think>\n\n</think>\n\n")
    row = row_of(policy, tmp_path, Grading(5, order="no-think"), monkeypatch)
    assert row["completion"] == "<answer>2</answer><|im_end|>\n"


def test_a_question_about_one_image_is_judged_so_too(finished: RunDirectory, tmp_path: Path):
    sample_in(tmp_path)
    policy = str(finished.arm("sft", 0).stage(0, "sft").policy)
    section = {"kind": "grading", "levels": 5}
    ((_, asked),) = ask_model(policy, [tmp_path / "image.png"], section, question="Which grade?")
    assert asked["problems"] == []
    assert asked["reasoning"]
    assert 0 < asked["confidence"] <= 1


@pytest.mark.parametrize("arm", ["nothink", "thinkafter"])
def test_an_arm_that_the_template_rules_out_is_refused_before_anything_is_trained(
    arm: str, model: Path, small_recipe: Path, tmp_path: Path
):
    recipe = recipe_of(small_recipe, model, f"arms=[rft, {arm}]")
    with pytest.raises(PolicyError, match=r"the prompt leaves <think> open, and the envelope .* begins with <answer>"):
        run(recipe, tmp_path / "run", reporter=QUIET)
    with pytest.raises(PolicyError, match="Expected the envelope think-answer"):
        make_plan(recipe, "h100", reporter=QUIET)
    assert not (tmp_path / "run" / "arms").exists()
