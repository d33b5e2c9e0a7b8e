"""Reinforcement fine-tuning: GRPO on rule-based rewards, over TRL's ``GRPOTrainer``.

For each prompt G completions are sampled; the reward of each is the weighted sum of the recipe's rewards; its advantage
is that reward, centred on its group, divided as ``scale_rewards`` and ``aggregation`` say (+ 1e-4). Every token of a
completion carries its advantage through the clipped objective, with a KL term (k3 estimator) towards the policy that
the stage starts from. There is one update for each batch of rollouts, so the ratio is 1 and the clip never binds.

Where this departs from the paper's GRPO (DeepSeekMath, arXiv 2402.03300, equation 3): nowhere at ``loss: grpo``,
``scale_rewards: group``; the other values are named options of the recipe. TRL's own defaults differ (loss dapo, no
KL), so every value is passed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from trl import GRPOConfig, GRPOTrainer

from vrft.boxes import Size
from vrft.errors import UserError
from vrft.policies import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import RftStage
from vrft.response import parse
from vrft.rewards import REWARDS, advantage_parts
from vrft.rewards.advantages import NO_ADVANTAGE, Floats
from vrft.rewards.columns import text_of
from vrft.runs import StageDirectory
from vrft.sample import Sample
from vrft.tasks import TrainableTask
from vrft.training.common import (
    Bookkeeper,
    StageResult,
    begin,
    finish,
    lazy_dataset,
    stage_order,
    trainer_options,
    user_message,
)
from vrft.training.gaming import gaming_figures
from vrft.training.shared import SharedPrefixTrainer, cannot_share

OPTIONS: dict[str, Callable[[RftStage], dict[str, Any]]] = {
    "fuzzy": lambda stage: {"schedule": stage.fuzzy_schedule},
    "recitation": lambda stage: {"recite": stage.recite, "recite_model": stage.recite_model},
    "iou": lambda stage: {"measure": stage.overlap, "threshold": stage.iou_threshold},
}
"""What a stage says of single rewards."""


class Scorer:
    """The recipe's rewards as TRL calls them, one function each, and what they paid in the step under way.

    TRL calls the functions one after another with all completions of a step, those of a group side by side. After the
    last one the step is taken stock of: figures for the log and one row a rollout.
    """

    def __init__(self, stage: RftStage, task: TrainableTask, keeper: Bookkeeper) -> None:
        self.stage, self.task, self.keeper = stage, task, keeper
        self.paid: dict[str, list[float | None]] = {}
        self.step = 0
        self.sampled: list[tuple[Floats, list[str], list[Any]]] = []
        """Of the step under way, which may sample several times: rewards, reasonings, and what is known."""
        self.functions = [self._function(name) for name in stage.rewards]

    def _function(self, name: str) -> Callable[..., list[float | None]]:
        options = {"order": self.task.order} | self.task.columns | OPTIONS.get(name, lambda stage: {})(self.stage)

        def reward(completions: Sequence[Any], target: Sequence[Any], **columns: Any) -> list[float | None]:
            if name == "recitation":
                against = self.stage.recite_against
                known = [one and (one.own if against == "class" else one.card) for one in columns["known"]]
                columns = {**columns, "knowledge": known}
            paid = REWARDS[name](completions, target=target, **{**columns, **options})
            self.paid[name] = paid
            if len(self.paid) == len(self.stage.rewards):
                self._take_stock(completions, target, columns)
            return paid

        reward.__name__ = name
        return reward

    def _take_stock(self, completions: Sequence[Any], target: Sequence[Any], columns: dict[str, Any]) -> None:
        names = list(self.stage.rewards)
        rewards = np.array([[np.nan if r is None else r for r in self.paid[name]] for name in names]).T
        self.paid = {}
        weights = np.array([self.stage.rewards[name] for name in names])
        step = columns["trainer_state"].global_step + 1
        if step != self.step:
            self.step, self.sampled = step, []
        first_group = sum(len(one[0]) for one in self.sampled) // self.stage.group_size
        reasonings = [parse(text_of(completion)).think or "" for completion in completions]
        self.sampled.append((rewards, reasonings, list(columns["known"])))
        self._figures(weights)
        totals = np.nansum(rewards * weights, axis=1)
        for index, (completion, true) in enumerate(zip(completions, target, strict=True)):
            self.keeper.rollouts.append(
                {
                    "step": step,
                    "group": first_group + index // self.stage.group_size,
                    "sample": columns["sample"][index],
                    "target": str(true),
                    "completion": text_of(completion),
                    **{f"reward_{name}": rewards[index, k] for k, name in enumerate(names)},
                    "reward": totals[index],
                }
            )

    def _figures(self, weights: Floats) -> None:
        """Those of all completions of the step so far, for the log."""
        rewards = np.concatenate([one for one, _, _ in self.sampled])
        reasonings = [one for _, part, _ in self.sampled for one in part]
        known = [one for _, _, part in self.sampled for one in part]
        group_size, names = self.stage.group_size, self.stage.rewards
        scaling = {"scale_rewards": self.stage.scale_rewards, "aggregation": self.stage.aggregation}
        figures = step_figures(rewards, weights, group_size, **scaling)
        self.keeper.extra = {"rewards": dict(zip(names, figures.pop("rewards"), strict=True)), **figures}
        self.keeper.extra["reasoning"] = gaming_figures(reasonings, known, group_size)


def step_figures(rewards: Floats, weights: Floats, group_size: int, **scaling: str) -> dict[str, Any]:
    """What a step's rewards look like.

    Args:
        rewards: (n, k), n completions by k rewards, the groups one after another; NaN where a reward does not apply.
        weights: (k,), the weight of each reward.
        group_size: completions in a group; divides n.
        scaling: how rewards become advantages (``advantage_parts``).

    Returns:
        ``rewards``, for each the ``mean``, the ``std`` over all completions, and its ``share`` of the advantage: the
        mean size of what it adds, divided by the sum over all rewards (0 where none adds); ``no_advantage``, the share
        of groups in which no completion has an advantage; ``spread``, how many different totals a group has on average.

    >>> figures = step_figures(np.array([[1.0, 1], [0, 1], [1, 1], [1, 1]]), np.array([1.0, 0.5]), 2)
    >>> figures["no_advantage"], [reward["share"] for reward in figures["rewards"]]
    (0.5, [1.0, 0.0])
    """
    parts = advantage_parts(rewards, weights, group_size, **scaling)
    sizes = np.abs(parts).mean(axis=0)
    shares = sizes / sizes.sum() if sizes.sum() > 0 else np.zeros_like(sizes)
    advantages = parts.sum(axis=1).reshape(-1, group_size)
    totals = np.nansum(rewards * weights, axis=1).reshape(-1, group_size)
    return {
        "rewards": [
            {"mean": float(np.nanmean(column)), "std": float(np.nanstd(column)), "share": float(share)}
            if np.isfinite(column).any()
            else {"mean": None, "std": None, "share": 0.0}
            for column, share in zip(rewards.T, shares, strict=True)
        ],
        "no_advantage": float((np.abs(advantages) <= NO_ADVANTAGE).all(axis=1).mean()),
        "spread": float(np.mean([len(np.unique(total.round(6))) for total in totals])),
    }


def train_rft(
    policy: LoadedPolicy,
    stage: RftStage,
    task: TrainableTask,
    samples: Sequence[Sample],
    directory: StageDirectory,
    *,
    seed: int,
    reporter: Reporter,
    label: str = "rft",
) -> StageResult:
    """Train ``policy`` in place for one stage; goes on from the newest whole checkpoint of ``directory``."""
    keeper, checkpoint = begin(policy, stage, directory, seed=seed, reporter=reporter, label=label)
    assert isinstance(keeper.stage, RftStage)
    stage = keeper.stage  # shorter, where its budget is spent
    trainer = make_trainer(policy, stage, task, samples, directory, keeper, seed=seed)
    return finish(trainer, policy, directory, keeper, checkpoint)


def rollout_options(stage: RftStage, suppressed: Sequence[int]) -> dict[str, Any]:
    """What samples completions, and the tokens that it must never write, as each engine is told them."""
    if stage.rollouts == "transformers":
        return {"use_vllm": False, "generation_kwargs": {"suppress_tokens": list(suppressed)}}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": stage.vllm_memory,
        "generation_kwargs": {"logit_bias": dict.fromkeys(suppressed, -100.0)},
    }


def make_trainer(
    policy: LoadedPolicy,
    stage: RftStage,
    task: TrainableTask,
    samples: Sequence[Sample],
    directory: StageDirectory,
    keeper: Bookkeeper,
    *,
    seed: int,
) -> GRPOTrainer:
    """The trainer of a stage before its first step, with every option that decides a result written out."""

    def row(sample: Sample, size: Size) -> dict[str, Any]:
        return {
            "prompt": user_message(policy, task, sample, size),
            "target": task.check_target(sample.target, size),
            "sample": sample.id,
            "known": sample.knowledge,
            "image_size": size,
            "processed_size": policy.processed_size(size),
        }

    def fresh_prompts(step: int, turn: int, count: int) -> list[dict[str, Any]]:
        """Drawn anew for each step, so that a run that resumes draws the same."""
        drawn = int(np.random.SeedSequence([seed, step, turn]).generate_state(1)[0])
        rows = lazy_dataset(policy, samples, stage_order(stage, samples, count, drawn), row)[:]
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]

    order = stage_order(stage, samples, stage.steps * stage.prompts_per_step, seed)
    dataset = lazy_dataset(policy, samples, order, row)
    scorer = Scorer(stage, task, keeper)
    options = trainer_options(stage, directory, seed, stage.prompts_per_step * stage.group_size)
    why_not = "shared_prefix is false"
    if stage.shared_prefix:
        why_not = cannot_share(policy.model, stage.group_size, options["per_device_train_batch_size"]) or ""
    how = f"repeated for each completion: {why_not}" if why_not else "encoded once a group"
    keeper.reporter.say(f"{keeper.label}: prompts are {how}")
    trainer = (GRPOTrainer if why_not else SharedPrefixTrainer)(
        model=policy.model,
        processing_class=policy.processor,
        reward_funcs=list(scorer.functions),
        args=GRPOConfig(
            **options,
            steps_per_generation=options["gradient_accumulation_steps"],
            num_generations=stage.group_size,
            num_iterations=1,
            max_completion_length=stage.max_completion_tokens,
            temperature=stage.temperature,
            top_p=stage.top_p,
            top_k=0,
            min_p=None,
            repetition_penalty=1.0,
            **rollout_options(stage, policy.suppressed),
            beta=stage.kl,
            epsilon=stage.clip,
            loss_type=stage.loss,
            scale_rewards=stage.scale_rewards,
            multi_objective_aggregation=stage.aggregation,
            importance_sampling_level="token",
            mask_truncated_completions=False,
            reward_weights=list(stage.rewards.values()),
            shuffle_dataset=False,  # the dataset is in order already
            disable_dropout=True,
        ),
        train_dataset=dataset,
        callbacks=[keeper],
        peft_config=policy.lora,
    )
    if stage.dynamic_sampling:
        if not isinstance(trainer, SharedPrefixTrainer) or trainer.accelerator.num_processes > 1:
            why = f"prompts are {how}" if why_not else "training runs in several processes"
            raise UserError(f"{keeper.label}: dynamic_sampling is not possible where {why}; set it to 0.")
        trainer.resamples, trainer.fresh_prompts = stage.dynamic_sampling, fresh_prompts
    return trainer
