"""A stage that was killed and goes on ends with the weights, the log and the counters of one that nobody disturbed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from vrft.data import PhantomSource
from vrft.policies import load_policy, quiet_libraries
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory, read_json, read_jsonl
from vrft.tasks import Grading
from vrft.training import train_rft, train_sft

RFT = {"kind": "rft", "prompts_per_step": 1, "group_size": 4, "max_completion_tokens": 12, "temperature": 2.0}
RFT |= {"rewards": {"fuzzy": 1.0, "format": 0.5}}
SFT = {"kind": "sft", "batch_size": 2, "think": ["One look.", "Two looks at the image."]}
KINDS: dict[str, dict[str, Any]] = {
    "sft": SFT,
    "sft-adapters": SFT,
    "rft": RFT,
    "rft-adapters": RFT,
    "rejection": RFT | {"loss": "rejection", "kl": 0.0, "accept": 0.5},
    "two-updates": RFT | {"updates_per_batch": 2, "steps": 5},  # it ends within a batch of rollouts
}
BUDGETS: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "steps": lambda log: {"steps": len(log)},
    "tokens": lambda log: {"steps": 40, "max_tokens": log[-2]["tokens"] + 1},
    "seconds": lambda log: {"steps": 40, "max_seconds": len(log) - 0.5},
}
"""What ends a stage with the last step of a log."""


class Clock:
    """A clock that advances on request."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Steps(Reporter):
    """Lets a second pass with each step, and kills the stage after one of them."""

    def __init__(self, clock: Clock, kills_after: int | None = None) -> None:
        super().__init__(quiet=True)
        self.clock, self.kills_after = clock, kills_after

    def advance(self, done: int, note: str = "") -> None:
        self.clock.now += 1
        if done == self.kills_after:
            raise KeyboardInterrupt


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("vrft.training.callback.clock", made)
    return made


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def stage_of(kind: str, **changes: Any) -> RftStage | SftStage:
    keys = {"learning_rate": 3e-4, "save_every": 2, "steps": 4, **KINDS[kind], **changes}
    return (RftStage if keys["kind"] == "rft" else SftStage).model_validate(keys)


def train(kind: str, stage: RftStage | SftStage, place: StageDirectory, reporter: Reporter) -> None:
    """Train a stage from the shipped weights, as a run that begins or resumes does."""
    source = PhantomSource("grading", family="shifted", sizes={"train": 6, "validation": 0, "test": 0})
    quiet_libraries()
    policy = load_policy("tiny", training=True, lora=lora() if "adapters" in kind else None)
    place.path.mkdir(parents=True, exist_ok=True)
    run: Any = train_rft if isinstance(stage, RftStage) else train_sft
    run(policy, stage, Grading(5), list(source.samples("train")), place, seed=3, reporter=reporter)


def kill(kind: str, stage: RftStage | SftStage, place: StageDirectory, reporter: Steps) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(kind, stage, place, reporter)
    reporter.clock.now += 1000  # nobody trains for a while
    assert not place.done.exists()


def kill_at_the_end(kind: str, stage: RftStage | SftStage, place: StageDirectory, clock: Clock) -> None:
    """Kill it when all is trained and nothing of it is written."""

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrft.training.stage.save_policy", killed)
        kill(kind, stage, place, Steps(clock))


@dataclass
class Left:
    """What a stage leaves behind, without the memory that it took."""

    log: list[dict[str, Any]]
    done: dict[str, Any]
    rollouts: dict[str, Any] | None
    weights: dict[str, torch.Tensor]


def left_by(place: StageDirectory) -> Left:
    (file,) = place.policy.glob("*.safetensors")
    done = {key: value for key, value in read_json(place.done).items() if key != "peak_mb"}
    rollouts = pd.read_parquet(place.rollouts).to_dict() if place.rollouts.exists() else None
    assert not list(place.path.glob("checkpoint-*"))
    return Left(read_jsonl(place.log), done, rollouts, load_file(file))


def assert_equal(killed: Left, whole: Left) -> None:
    assert [row["step"] for row in killed.log] == [row["step"] for row in whole.log]
    assert killed.log == whole.log
    assert killed.done == whole.done
    assert killed.rollouts == whole.rollouts
    assert killed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(killed.weights[name], one) for name, one in whole.weights.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Left]:
    """What a stage of a kind leaves that nobody disturbs; trained once."""

    @cache
    def left(kind: str) -> Left:
        place, clock = StageDirectory(tmp_path_factory.mktemp(kind)), Clock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vrft.training.callback.clock", clock)
            train(kind, stage_of(kind), place, Steps(clock))
        return left_by(place)

    return left


@pytest.mark.parametrize("kind", KINDS)
def test_the_stages_that_are_compared_learn(whole: Callable[[str], Left], kind: str):
    expected = whole(kind)
    assert [row["step"] for row in expected.log] == list(range(1, stage_of(kind).steps + 1))
    assert [row["seconds"] for row in expected.log] == list(range(stage_of(kind).steps))
    assert sum(row["grad_norm"] > 0 for row in expected.log) >= 3


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_that_was_killed_twice_ends_as_one_that_was_not(
    tmp_path: Path, clock: Clock, whole: Callable[[str], Left], kind: str, budget: str
):
    expected = whole(kind)
    stage, place = stage_of(kind, **BUDGETS[budget](expected.log)), StageDirectory(tmp_path)
    kill(kind, stage, place, Steps(clock, kills_after=3))
    assert place.checkpoint() == place.path / "checkpoint-2"
    kill_at_the_end(kind, stage, place, clock)
    assert read_jsonl(place.log) == expected.log
    train(kind, stage, place, Steps(clock))
    assert_equal(left_by(place), expected)


@pytest.mark.parametrize("kind", ["sft", "rft"])
def test_schedule_and_accumulation_go_on_where_they_were(tmp_path: Path, clock: Clock, kind: str):
    changes = {"lr_schedule": "cosine", "warmup_steps": 2, "balance": True, "micro_batch": 1, "weight_decay": 0.1}
    if kind == "rft":
        changes |= {"prompts_per_step": 2, "micro_batch": 4, "dynamic_sampling": 1}
    stage, whole, place = stage_of(kind, steps=4, **changes), *map(StageDirectory, (tmp_path / "a", tmp_path / "b"))
    train(kind, stage, whole, Steps(clock))
    kill(kind, stage, place, Steps(clock, kills_after=3))
    train(kind, stage, place, Steps(clock))
    expected = left_by(whole)
    assert [row["learning_rate"] for row in expected.log] == pytest.approx([0, 1.5e-4, 3e-4, 1.5e-4])
    assert_equal(left_by(place), expected)


@pytest.mark.parametrize("kind", ["sft", "rft"])
def test_a_log_that_skips_steps_counts_them_all_the_same(
    tmp_path: Path, clock: Clock, whole: Callable[[str], Left], kind: str
):
    stage, sparse, place = (
        stage_of(kind, log_every=3),
        *map(StageDirectory, (tmp_path / "a", tmp_path / "b")),
    )
    train(kind, stage, sparse, Steps(clock))
    expected = left_by(sparse)
    assert expected.done["tokens"] == whole(kind).done["tokens"]
    kill(kind, stage, place, Steps(clock, kills_after=3))
    train(kind, stage, place, Steps(clock))
    assert_equal(left_by(place), expected)
