"""The objective is what the docs say: loss and gradient against plain torch, written from the words of ``rft.py``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vrft.data import PhantomSource
from vrft.policies import load_policy
from vrft.policies.loading import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import RftStage
from vrft.runs import StageDirectory, read_jsonl
from vrft.sample import Sample
from vrft.tasks import Grading
from vrft.training.callback import StageCallback
from vrft.training.rft import make_trainer, train_rft
from vrft.training.seeded import SeededTrainer
from vrft.training.shared_prefix import SharedPrefixTrainer

GROUP, LENGTH = 3, 7
QUIET = Reporter(quiet=True)


def samples_of(count: int) -> list[Sample]:
    return list(PhantomSource("grading", sizes={"train": count, "validation": 0, "test": 0}).samples("train"))


def stage_of(**keys: Any) -> RftStage:
    sizes = {"prompts_per_step": 2, "group_size": GROUP, "max_completion_tokens": 11, "steps": 1, "kl": 0.0}
    return RftStage(kind="rft", **{**sizes, **keys})


def trainer_of(policy: LoadedPolicy, stage: RftStage, folder: Path) -> Any:
    """The trainer as a stage builds it, before its first step."""
    directory = StageDirectory(folder)
    callback = StageCallback(directory, stage, QUIET, "")
    trainer = make_trainer(policy, stage, Grading(5), samples_of(2), directory, callback, seed=0)
    assert type(trainer) is (SharedPrefixTrainer if stage.shared_prefix else SeededTrainer)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def step_of(policy: LoadedPolicy) -> dict[str, Any]:
    """Two groups of made-up completions with made-up advantages, one image each."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (60, side, 3), dtype=np.uint8)) for side in (60, 90)]
    texts = [
        policy.processor.apply_chat_template(
            policy.messages("How many? " * count), tokenize=False, add_generation_prompt=True
        )
        for count in (1, 3)
    ]
    repeated = [(text, [picture]) for text, picture in zip(texts, pictures, strict=True) for _ in range(GROUP)]
    made = policy.processor(
        text=[text for text, _ in repeated], images=[one for _, one in repeated], padding=True, return_tensors="pt"
    )
    ids = torch.from_numpy(rng.integers(20, 900, (2 * GROUP, LENGTH)))
    mask = (torch.arange(LENGTH) < torch.tensor([7, 3, 1, 5, 7, 2])[:, None]).long()
    return {
        "prompt_ids": made["input_ids"],
        "prompt_mask": made["attention_mask"],
        "completion_ids": ids.masked_fill(mask == 0, policy.processor.tokenizer.pad_token_id),
        "completion_mask": mask,
        "mm_token_type_ids": torch.cat([made["mm_token_type_ids"], torch.zeros_like(ids)], dim=1),
        "pixel_values": made["pixel_values"],
        "image_grid_thw": made["image_grid_thw"],
        "num_images": [1] * len(repeated),
        "advantages": torch.tensor([1.0, -1.5, 0.5, -0.4, 2.0, -1.6]),
        "num_items_in_batch": mask.sum(),
    }


def log_probs_of(trainer: Any, step: dict[str, Any]) -> Tensor:
    """Of the tokens of the completions, (n, C)."""
    whole = [torch.cat([step[f"prompt_{name}"], step[f"completion_{name}"]], dim=1) for name in ("ids", "mask")]
    images = {name: step[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, *whole, LENGTH, **images)
    return log_probs


def plain_log_probs(model: Any, step: dict[str, Any], temperature: float) -> Tensor:
    """The same from nothing but the model: every sequence on its own row, all logits."""
    ids, mask = (torch.cat([step[f"prompt_{name}"], step[f"completion_{name}"]], dim=1) for name in ("ids", "mask"))
    images = {name: step[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    logits = model(input_ids=ids, attention_mask=mask, **images).logits / temperature
    written = step["completion_ids"]
    before = logits[:, -written.size(1) - 1 : -1].log_softmax(dim=-1)
    return before.gather(2, written[..., None])[..., 0]


def plain_loss(stage: RftStage, log_p: Tensor, old: Tensor, reference: Tensor, step: dict[str, Any]) -> Tensor:
    """The objective of ``vrft.training.rft``, and what the recipe says of its other losses."""
    advantage, mask = step["advantages"][:, None], step["completion_mask"]
    lengths = mask.sum(dim=1)
    log_ratio = log_p - old
    if stage.importance_sampling == "sequence":
        log_ratio = ((log_ratio * mask).sum(dim=1) / lengths)[:, None].expand_as(log_p)
    ratio = log_ratio.exp()
    high = stage.clip if stage.clip_high is None else stage.clip_high
    if stage.loss == "cispo":
        token = -ratio.clamp(max=high).detach() * advantage * log_p
    else:
        token = -torch.minimum(ratio * advantage, ratio.clamp(1 - stage.clip, 1 + high) * advantage)
    d = reference - log_p
    k3 = d.exp() - d - 1
    token = token + stage.kl * (k3 * ratio if stage.kl_estimator == "unbiased" else k3)
    if stage.loss == "grpo":
        return ((token * mask).sum(dim=1) / lengths).mean()
    if stage.loss == "dr_grpo":
        return (token * mask).sum() / (len(mask) * stage.max_completion_tokens)
    return (token * mask).sum() / mask.sum()


def gradient_of(loss: Tensor, model: Any) -> Tensor:
    model.zero_grad()
    loss.backward()
    grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()]
    return torch.cat([one.flatten() for one in grads]).clone()


def assert_near(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    assert other.norm() > 0
    assert (one - other).norm() <= tolerance * other.norm()


def shifted(log_probs: Tensor, size: float, seed: int) -> Tensor:
    """Made-up log-probabilities of another policy."""
    noise = torch.randn(log_probs.shape, generator=torch.Generator().manual_seed(seed))
    return log_probs.detach() + size * noise


OBJECTIVES: dict[str, dict[str, Any]] = {
    "no kl": {},
    "k3": {"kl": 0.3},
    "unbiased": {"kl": 0.3, "kl_estimator": "unbiased"},
    "wide above": {"clip": 0.1, "clip_high": 0.5},
    "narrow above": {"clip": 0.5, "clip_high": 0.1, "kl": 0.1},
    "dapo": {"loss": "dapo", "clip_high": 0.28, "kl": 0.1},
    "dr_grpo": {"loss": "dr_grpo", "kl": 0.1},
    "cispo": {"loss": "cispo", "clip_high": 1.2, "kl": 0.1},
    "sequence": {"importance_sampling": "sequence", "kl": 0.1, "clip": 0.05},
}
"""What a stage says; each is seen at ratio 1, and at ratios that leave the range of the clip."""


@pytest.mark.parametrize("shared", [True, False], ids=["shared prefix", "repeated prompts"])
@pytest.mark.parametrize("keys", OBJECTIVES.values(), ids=OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_objective_in_words(tmp_path: Path, keys: dict[str, Any], shared: bool):
    policy, stage = load_policy("tiny", dtype="float32"), stage_of(shared_prefix=shared, **keys)
    trainer, step = trainer_of(policy, stage, tmp_path), step_of(policy)
    start = log_probs_of(trainer, step).detach()
    reference, old = shifted(start, 0.5, seed=1), shifted(start, 0.4, seed=2)
    for before in (None, old):
        given = step | ({} if before is None else {"old_per_token_logps": before})
        loss = trainer._compute_loss(trainer.model, given | {"ref_per_token_logps": reference})
        value, gradient = loss.item(), gradient_of(loss, trainer.model)
        log_p = log_probs_of(trainer, step)
        plain = plain_loss(stage, log_p, log_p.detach() if before is None else before, reference, step)
        assert value == pytest.approx(plain.item(), rel=1e-4, abs=1e-6)
        assert_near(gradient, gradient_of(plain, trainer.model))


@pytest.mark.parametrize(("clip", "clip_high"), [(0.2, None), (0.1, 0.5)])
def test_the_log_has_the_share_of_clipped_tokens(tmp_path: Path, clip: float, clip_high: Any):
    policy, stage = load_policy("tiny", dtype="float32"), stage_of(clip=clip, clip_high=clip_high)
    trainer, step = trainer_of(policy, stage, tmp_path), step_of(policy)
    start = log_probs_of(trainer, step).detach()
    old, advantage = shifted(start, 0.4, seed=2), step["advantages"][:, None]
    trainer._compute_loss(trainer.model, step | {"old_per_token_logps": old})
    ratio = (start - old).exp()
    held = ((ratio < 1 - clip) & (advantage < 0)) | ((ratio > 1 + (clip_high or clip)) & (advantage > 0))
    share = (held * step["completion_mask"]).sum() / step["completion_mask"].sum()
    assert trainer._metrics["train"]["clip_ratio/region_mean"] == pytest.approx([share.item()])
    assert 0 < share < 1


def test_the_estimators_of_the_divergence_differ_in_gradient_even_at_ratio_one(tmp_path: Path):
    gradients = {}
    for estimator in ("k3", "unbiased"):
        policy = load_policy("tiny", dtype="float32")
        trainer, step = trainer_of(policy, stage_of(kl=0.3, kl_estimator=estimator), tmp_path), step_of(policy)
        reference = shifted(log_probs_of(trainer, step), 0.5, seed=1)
        given = step | {"ref_per_token_logps": reference, "advantages": torch.zeros(2 * GROUP)}
        loss = trainer._compute_loss(trainer.model, given)
        gradients[estimator] = loss.item(), gradient_of(loss, trainer.model)
    (k3, of_k3), (unbiased, of_unbiased) = gradients.values()
    assert k3 == pytest.approx(unbiased)
    assert (of_k3 - of_unbiased).norm() > 0.1 * of_k3.norm()


@pytest.mark.parametrize("shared", [True, False], ids=["shared prefix", "repeated prompts"])
def test_probabilities_are_those_of_the_policy_at_the_temperature_of_sampling(tmp_path: Path, shared: bool):
    policy, temperature = load_policy("tiny", dtype="float32"), 1.7
    trainer = trainer_of(policy, stage_of(shared_prefix=shared, temperature=temperature), tmp_path)
    step = step_of(policy)
    own = load_policy("tiny", dtype="float32").model
    mask = step["completion_mask"]
    with torch.no_grad():
        expected = plain_log_probs(own, step, temperature)
        assert_near(log_probs_of(trainer, step) * mask, expected * mask)


# --- in training ------------------------------------------------------------------------------------------------------

TRAINED: dict[str, Any] = {"group_size": 4, "max_completion_tokens": 12, "temperature": 2.0}
TRAINED |= {"rewards": {"fuzzy": 1.0, "format": -0.3}}


def logged(folder: Path, **keys: Any) -> list[dict[str, Any]]:
    stage, directory = stage_of(**{**TRAINED, **keys}), StageDirectory(folder)
    train_rft(load_policy("tiny", dtype="float32"), stage, Grading(5), samples_of(4), directory, seed=0, reporter=QUIET)
    return read_jsonl(directory.log)


def test_the_clip_binds_in_second_updates_alone_and_these_sample_nothing(tmp_path: Path):
    once, twice = (
        logged(tmp_path / str(updates), steps=4, updates_per_batch=updates, learning_rate=1e-3) for updates in (1, 2)
    )
    assert [row["clipped"] for row in once] == [0.0] * 4
    assert [row["clipped"] for row in twice[::2]] == [0.0] * 2
    assert max(row["clipped"] for row in twice[1::2]) > 0
    assert ["reward" in row for row in once] == [True] * 4
    assert ["reward" in row for row in twice] == [True, False, True, False]
    assert ["rewards" in row for row in twice] == [True, False, True, False]


def test_a_stage_that_learns_what_it_accepts_can_be_trained(tmp_path: Path):
    rows = logged(tmp_path, steps=2, loss="rejection", rewards={"format": 1.0}, learning_rate=1e-4)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["accepted"] < 1 and row["grad_norm"] > 0 for row in rows)


SHARES = [(True, None), (True, 4), (False, None), (False, 2)]


@pytest.mark.parametrize(
    ("shared", "micro"), SHARES, ids=["shared", "shared, in parts", "repeated", "repeated, in parts"]
)
def test_a_step_of_rejection_is_a_step_of_likelihood_on_what_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, micro: int | None
):
    """The gradient that the optimiser meets, against the mean over the tokens of accepted completions."""
    seen: dict[str, Any] = {}
    whole = SeededTrainer._generate_and_score_completions

    def sampled(trainer: Any, rows: Any) -> dict[str, Any]:
        batch = whole(trainer, rows)
        seen.update(batch, accepted=torch.tensor(trainer.accepted()))
        return batch

    def checked(callback: Any, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        seen["gradient"] = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    monkeypatch.setattr(SeededTrainer, "_generate_and_score_completions", sampled)
    monkeypatch.setattr(StageCallback, "on_pre_optimizer_step", checked)
    keys = {"loss": "rejection", "rewards": {"format": 1.0}, "shared_prefix": shared, "micro_batch": micro}
    logged(tmp_path, max_grad_norm=1e9, **keys)
    assert 0 < seen["accepted"].sum() < len(seen["accepted"])
    model = load_policy("tiny", dtype="float32").model.train()
    learnt = seen["completion_mask"] * seen["accepted"][:, None]
    loss = -(plain_log_probs(model, seen, TRAINED["temperature"]) * learnt).sum() / learnt.sum()
    loss.backward()
    grads = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert grads.keys() == seen["gradient"].keys()
    assert_near(*(torch.cat([one[name].flatten() for name in grads]) for one in (seen["gradient"], grads)))
