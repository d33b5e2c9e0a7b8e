"""A reward of the user trains as the built-in rewards do: it is called with their columns, logged and kept."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vrft.data import PhantomSource
from vrft.errors import UserError
from vrft.policies import load_policy
from vrft.progress import Reporter
from vrft.recipe import RftStage
from vrft.runs import StageDirectory, read_jsonl
from vrft.tasks import Grading
from vrft.training import train_rft

KEYS: dict[str, Any] = {
    "kind": "rft",
    "steps": 2,
    "prompts_per_step": 1,
    "group_size": 4,
    "max_completion_tokens": 12,
    "temperature": 2.0,
}

OWN = """
def length(
    completions, target, sample, image, images, image_size, processed_size, knowledge, levels, prompt_end, **columns
):
    columns = [target, sample, image, images, image_size, processed_size, knowledge]
    assert [len(column) for column in columns] == [len(completions)] * 7
    assert all(own == [first] for own, first in zip(images, image, strict=True))
    assert levels == 5 and prompt_end == "" and all(one is None for one in knowledge)
    assert all(isinstance(text, str) for text in completions) and all(true in range(5) for true in target)
    return [len(text) / 100 if text else None for text in completions]


def late(completions, trainer_state, **columns):
    return [1.0] * len(completions) if trainer_state.global_step < 1 else [None]
"""


def trained(folder: Path, **rewards: float) -> StageDirectory:
    (folder / "own.py").write_text(OWN)
    source = PhantomSource("grading", sizes={"train": 2, "validation": 0, "test": 0})
    stage, place = RftStage(**KEYS, rewards=rewards, save_every=1), StageDirectory(folder / "stage")
    custom = {name: f"{folder}/own.py:{name}" for name in ("length", "late")}
    samples, quiet = list(source.samples("train")), Reporter(quiet=True)
    train_rft(load_policy("tiny"), stage, Grading(5), samples, place, seed=0, reporter=quiet, custom=custom)
    return place


def test_a_custom_reward_is_logged_and_kept_as_the_others_are(tmp_path: Path):
    place = trained(tmp_path, format=0.5, length=-1.0)
    rows = read_jsonl(place.log)
    assert [set(row["rewards"]["length"]) for row in rows] == [{"mean", "std", "share"}] * 2
    assert [sum(reward["share"] for reward in row["rewards"].values()) for row in rows] == pytest.approx([1.0] * 2)
    rollouts = pd.read_parquet(place.rollouts)
    assert rollouts["reward_length"].tolist() == [len(text) / 100 for text in rollouts["completion"]]
    assert rollouts["reward"].tolist() == pytest.approx(
        (0.5 * rollouts["reward_format"] - rollouts["reward_length"]).tolist()
    )


def test_a_custom_reward_that_fails_ends_the_stage_and_finished_steps_stay(tmp_path: Path):
    with pytest.raises(UserError, match=r"custom\.late: .*own\.py:late returned 1 values; expected late to return a"):
        trained(tmp_path, late=1.0)
    assert (tmp_path / "stage" / "checkpoint-1").is_dir()
    assert len(read_jsonl(StageDirectory(tmp_path / "stage").log)) == 1
