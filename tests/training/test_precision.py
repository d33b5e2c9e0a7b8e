"""What is trained is float32, whatever a pass computes in; what is not finite ends the stage; merging loses nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, load_peft_weights
from trl import GRPOTrainer, SFTTrainer

from vrft.data import PhantomSource
from vrft.errors import RecipeError, TrainingError
from vrft.policies import load_policy, quiet_libraries
from vrft.policies.decoding import model_inputs
from vrft.policies.from_recipe import load_for
from vrft.policies.loading import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage, read_recipe
from vrft.runs import StageDirectory, read_jsonl
from vrft.sample import open_image
from vrft.tasks import Grading
from vrft.training import train_rft, train_sft
from vrft.training.trainer_arguments import BETAS, EPSILON

SAME_LOSS = 0.02
"""How far the losses of both precisions may be apart, relative to that of float32; 0.001 was measured."""

PIXELS = 56 * 56
"""Fewer than the images have, where only time would be spent on them."""

RATE = 1e-5
"""The default, at which bfloat16 weights stand still."""

SFT = {"kind": "sft", "batch_size": 4, "learning_rate": 3e-4}
RFT = {"kind": "rft", "prompts_per_step": 1, "group_size": 4, "max_completion_tokens": 12, "temperature": 2.0}


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers of the stages that are trained."""
    from vrft.training.stage import finish_stage

    seen: list[Any] = []

    def finished(trainer: Any, *rest: Any) -> Any:
        seen.append(trainer)
        return finish_stage(trainer, *rest)

    monkeypatch.setattr("vrft.training.sft.finish_stage", finished)
    monkeypatch.setattr("vrft.training.rft.finish_stage", finished)
    return seen


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded policy as large ones are shipped: in bfloat16."""
    place, policy = tmp_path_factory.mktemp("policy") / "half", load_policy("tiny")
    policy.model.to(torch.bfloat16).save_pretrained(place)
    policy.processor.save_pretrained(place)
    return place


def samples_of(count: int = 8) -> list[Any]:
    source = PhantomSource("grading", family="shifted", sizes={"train": count, "validation": 0, "test": 0})
    return list(source.samples("train"))


def train(policy: LoadedPolicy, place: StageDirectory, keys: dict[str, Any]) -> None:
    quiet_libraries()
    options: dict[str, Any] = {"seed": 0, "reporter": Reporter(quiet=True)}
    place.path.mkdir(parents=True, exist_ok=True)
    if keys["kind"] == "rft":
        train_rft(policy, RftStage.model_validate(keys), Grading(5), samples_of(), place, **options)
    else:
        train_sft(policy, SftStage.model_validate(keys), Grading(5), samples_of(), place, **options)


def types_of(model: torch.nn.Module) -> set[torch.dtype]:
    return {one.dtype for one in model.parameters()}


@pytest.mark.parametrize("keys", [SFT, RFT], ids=["sft", "rft"])
def test_weights_and_their_optimiser_are_float32_under_autocast(tmp_path: Path, trainers: list[Any], keys, half: Path):
    policy = load_policy(str(half), dtype="bfloat16", training=True)
    assert (types_of(policy.model), policy.compute) == ({torch.float32}, torch.bfloat16)
    train(policy, StageDirectory(tmp_path), {**keys, "steps": 1})
    (trainer,) = trainers
    assert (trainer.args.bf16, trainer.args.fp16, trainer.accelerator.mixed_precision) == (True, False, "bf16")
    assert {one.dtype for own in trainer.optimizer.state.values() for one in own.values()} == {torch.float32}
    assert types_of(load_policy(str(tmp_path / "policy"), dtype="bfloat16").model) == {torch.float32}


def test_both_precisions_reach_the_same_loss(tmp_path: Path):
    last = []
    for dtype in ("float32", "bfloat16"):
        place = StageDirectory(tmp_path / dtype)
        train(load_policy("tiny", dtype=dtype, training=True, max_pixels=PIXELS), place, {**SFT, "steps": 50})
        losses = [row["loss"] for row in read_jsonl(place.log)]
        assert losses[0] > 10 > 1 > np.mean(losses[-10:])
        last.append(np.mean(losses[-10:]))
    assert last[0] != last[1] == pytest.approx(last[0], rel=SAME_LOSS)


def test_small_steps_move_float32_weights_and_hardly_any_in_bfloat16(tmp_path: Path, trainers: list[Any]):
    start = load_policy("tiny", dtype="bfloat16", training=True).model.state_dict()
    policy = load_policy("tiny", dtype="bfloat16", training=True)
    train(policy, StageDirectory(tmp_path), {**SFT, "steps": 3, "learning_rate": RATE})
    (trainer,) = trainers
    state = trainer.optimizer.state
    moved, expected = 0, 0
    for name, one in trainer.model.named_parameters():
        if one in state:
            steered = state[one]["exp_avg_sq"] > 0
            moved += int(((one != start[name]) & steered).sum())
            expected += int(steered.sum())
    pure = load_policy("tiny").model.to(torch.bfloat16).train()
    before = {name: one.detach().clone() for name, one in pure.named_parameters()}
    optimiser = torch.optim.AdamW(pure.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    for _, batch in zip(range(3), trainer.get_train_dataloader(), strict=False):
        batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
        optimiser.zero_grad()
        pure(**batch).loss.backward()
        optimiser.step()
    own = [
        (one != before[name], optimiser.state[one]["exp_avg_sq"] > 0)
        for name, one in pure.named_parameters()
        if one in optimiser.state
    ]
    shares = moved / expected, sum(int((a & b).sum()) for a, b in own) / sum(int(b.sum()) for _, b in own)
    assert expected > 0.9 * sum(one.numel() for one in start.values())
    assert shares[0] > 0.99
    assert shares[1] < 0.10


LORA = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj"]}


def merged(folder: Path, **changes: Any) -> str:
    return f"policy={{model: {folder}, dtype: bfloat16, lora: {LORA | changes}}}"


@pytest.mark.parametrize("keys", [SFT, RFT], ids=["sft", "rft"])
def test_adapters_are_float32_over_a_base_of_the_type_that_is_computed_in(
    small_recipe: Path, tmp_path: Path, trainers: list[Any], half: Path, keys: dict[str, Any]
):
    policy = load_for(read_recipe(small_recipe, [merged(half)]), None, training=True)
    assert types_of(policy.model) == {torch.bfloat16}
    train(policy, StageDirectory(tmp_path), {**keys, "steps": 1})
    (trainer,) = trainers
    types = {name.split(".")[-2] == "default": one.dtype for name, one in trainer.model.named_parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    assert all(one.requires_grad == ("lora" in name) for name, one in trainer.model.named_parameters())
    assert {one.dtype for one in load_peft_weights(str(tmp_path / "policy"), device="cpu").values()} == {torch.float32}


def logits(policy: LoadedPolicy) -> torch.Tensor:
    policy.model.eval()
    inputs = model_inputs(policy, ["Which grade?"], [open_image(samples_of(1)[0].images[0])])
    with torch.inference_mode():
        return policy.model(**inputs).logits.float()


def test_adapters_are_merged_in_float32_and_that_is_what_is_evaluated(small_recipe: Path, tmp_path: Path, half: Path):
    recipe, place = read_recipe(small_recipe, [merged(half, between_stages="merge")]), StageDirectory(tmp_path / "s")
    policy = load_for(recipe, None, training=True)
    train(policy, place, {**SFT, "steps": 3, "learning_rate": 1e-4})
    evaluated = load_for(recipe, place.policy)
    assert types_of(policy.model) == types_of(evaluated.model) == {torch.float32}
    adapters, base = load_peft_weights(str(place.adapter), device="cpu"), load_policy(str(half), dtype="bfloat16").model
    assert types_of(base) == {torch.bfloat16}
    merged_weights, lost, whole = evaluated.model.state_dict(), 0.0, 0.0
    for name, one in base.state_dict().items():
        a, b = (f"base_model.model.{name.removesuffix('.weight')}.lora_{which}.weight" for which in "AB")
        if a not in adapters:
            assert torch.equal(merged_weights[name], one.float())
            continue
        update = adapters.pop(b) @ adapters.pop(a) * (LORA["alpha"] / LORA["rank"])
        assert update.any()
        assert (merged_weights[name] - one.float() - update).abs().max() < 1e-6
        kept = (one.float() + update).to(torch.bfloat16).float() - one.float()
        lost, whole = lost + float((kept - update).square().sum()), whole + float(update.square().sum())
    assert not adapters
    assert lost > 0.5 * whole  # by as much a merge in bfloat16 would have missed the update
    assert torch.equal(logits(evaluated), logits(policy))
    apart = LoadedPolicy(PeftModel.from_pretrained(base.float(), place.adapter), evaluated.processor, "")
    assert torch.allclose(logits(apart), logits(evaluated), atol=1e-4)


def faults(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    return str(error.value)


def test_float16_is_refused_for_training_and_not_for_evaluation(small_recipe: Path):
    message = faults(small_recipe, "policy.dtype=float16")
    assert "policy.dtype is 'float16', in which gradients overflow; training needs auto, bfloat16 or float32" in message
    assert "--set policy.dtype=float16: " in message
    recipe = read_recipe(small_recipe, ["policy.dtype=float16", "arms=[majority, base]"])
    assert types_of(load_for(recipe, None).model) == {torch.float16}


@pytest.mark.parametrize("keys", [SFT, RFT], ids=["sft", "rft"])
def test_a_rate_that_breaks_the_policy_ends_the_stage_with_what_to_try(tmp_path: Path, keys: dict[str, Any]):
    place = StageDirectory(tmp_path)
    with pytest.raises(TrainingError) as error:
        train(load_policy("tiny", training=True), place, {**keys, "steps": 5, "learning_rate": 1e30, "save_every": 1})

    message = str(error.value)
    assert message.startswith(f"{keys['kind']}: ")
    assert "not finite" in message
    assert "in step 2; in step 1: " in message
    assert "Try a lower learning_rate, more warmup_steps, a lower max_grad_norm, or policy.dtype: float32." in message
    assert not place.policy.exists()
    assert not place.done.exists()
    assert place.checkpoint() == place.path / "checkpoint-1"
    assert [row["step"] for row in read_jsonl(place.log)] == [1]


@pytest.mark.parametrize(
    ("kind", "trainer", "what"), [("sft", SFTTrainer, float("inf")), ("rft", GRPOTrainer, float("nan"))]
)
def test_a_stage_whose_loss_is_not_finite_keeps_its_last_checkpoint_and_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, trainer: Any, what: float
):
    keys = {**(SFT if kind == "sft" else RFT), "steps": 4, "save_every": 2, "learning_rate": 1e-4}
    whole, broken = StageDirectory(tmp_path / "whole"), StageDirectory(tmp_path / "broken")
    compute = trainer.compute_loss

    def breaks(self: Any, *arguments: Any, **options: Any) -> Any:
        loss = compute(self, *arguments, **options)
        return loss * what if self.state.global_step == 2 else loss

    monkeypatch.setattr(trainer, "compute_loss", breaks)
    with pytest.raises(TrainingError, match=r"not finite.* in step 3; in step 2: .*Try a lower learning_rate"):
        train(load_policy("tiny", training=True), broken, keys)
    assert broken.checkpoint() == broken.path / "checkpoint-2"
    assert not broken.policy.exists()
    assert not broken.done.exists()
    monkeypatch.undo()
    for place in (whole, broken):
        train(load_policy("tiny", training=True), place, keys)
    first, second = (load_policy(str(place.policy)).model.state_dict() for place in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_logged_loss_that_is_not_finite_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where gradients are kept elsewhere, as DeepSpeed does, the log shows it."""
    compute = SFTTrainer.compute_loss

    def breaks(self: Any, *arguments: Any, **options: Any) -> Any:
        loss = compute(self, *arguments, **options)
        return loss + (float("inf") if self.state.global_step == 1 else 0.0)  # a constant has no gradient

    monkeypatch.setattr(SFTTrainer, "compute_loss", breaks)
    place = StageDirectory(tmp_path)
    with pytest.raises(TrainingError, match="sft: the loss is inf in step 2; in step 1: loss"):
        train(load_policy("tiny", training=True), place, {**SFT, "steps": 4, "save_every": 1})
    assert place.checkpoint() == place.path / "checkpoint-1"
    assert not place.policy.exists()
