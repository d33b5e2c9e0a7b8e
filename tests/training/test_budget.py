"""A stage that ends when it has spent what it may."""

from pathlib import Path
from typing import Any

import pytest

from vrft.policies import load_policy
from vrft.progress import Reporter
from vrft.recipe import Recipe, RftStage, SftStage, build_task, open_source, read_recipe
from vrft.runs import StageDirectory, read_json, read_jsonl
from vrft.training import train_rft, train_sft

SIZES = {"learning_rate": 1e-4, "save_every": 1}
STAGES: dict[str, RftStage | SftStage] = {
    "rft": RftStage(
        kind="rft", steps=50, prompts_per_step=1, group_size=4, max_completion_tokens=12, max_tokens=800, **SIZES
    ),
    "sft": SftStage(kind="sft", steps=50, batch_size=4, max_tokens=800, **SIZES),
}


@pytest.fixture
def recipe(small_recipe: Path) -> Recipe:
    return read_recipe(small_recipe)


class Timer(Reporter):
    """Counts a second for each step."""

    passed = 0.0

    def advance(self, done: int, note: str = "") -> None:
        self.passed += 1


def train(recipe: Recipe, kind: str, place: StageDirectory, reporter: Reporter | None = None, **changes: Any) -> None:
    source, stage = open_source(recipe), STAGES[kind]
    stage = type(stage).model_validate(stage.model_dump() | changes)
    options: dict[str, Any] = {"seed": 0, "reporter": reporter or Reporter(quiet=True)}
    place.path.mkdir(parents=True, exist_ok=True)
    samples = list(source.samples("train"))
    run: Any = train_rft if kind == "rft" else train_sft
    run(load_policy("tiny"), stage, build_task(recipe, source), samples, place, **options)


@pytest.mark.parametrize("kind", ["rft", "sft"])
def test_a_stage_ends_with_the_step_in_which_its_tokens_are_spent(recipe: Recipe, tmp_path: Path, kind: str):
    place = StageDirectory(tmp_path / kind)
    train(recipe, kind, place)
    passed = [row["tokens"] for row in read_jsonl(place.log)]
    assert passed[-1] >= 800 > passed[-2]
    done = read_json(place.done)
    assert (done["steps"], done["tokens"]) == (len(passed), passed[-1])


@pytest.mark.parametrize("kind", ["rft", "sft"])
def test_killed_after_its_last_step_it_trains_no_further(
    recipe: Recipe, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    place = StageDirectory(tmp_path / kind)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vrft.training.stage.save_policy", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, kind, place)
    monkeypatch.undo()
    before = read_jsonl(place.log)
    train(recipe, kind, place)
    assert read_jsonl(place.log) == before
    assert read_json(place.done)["steps"] == len(before)


@pytest.mark.parametrize("kind", ["rft", "sft"])
def test_a_stage_that_its_budget_ends_is_one_of_as_many_steps(
    recipe: Recipe, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    plain, tokens, seconds = (StageDirectory(tmp_path / name) for name in ("plain", "tokens", "seconds"))
    train(recipe, kind, tokens, save_every=50)
    steps = len(read_jsonl(tokens.log))
    train(recipe, kind, plain, steps=steps, max_tokens=None, save_every=50)
    timer = Timer()
    monkeypatch.setattr("vrft.training.callback.clock", lambda: timer.passed)
    train(recipe, kind, seconds, timer, max_tokens=None, max_seconds=steps - 0.5, save_every=50)
    done = read_json(seconds.done)
    assert (done["steps"], done["seconds"]) == (steps, steps)
    expected = [row | {"seconds": 0} for row in read_jsonl(plain.log)]
    for ended in (tokens, seconds):
        assert [row | {"seconds": 0} for row in read_jsonl(ended.log)] == expected
        first, second = ((place.policy / "model.safetensors").read_bytes() for place in (ended, plain))
        assert first == second
