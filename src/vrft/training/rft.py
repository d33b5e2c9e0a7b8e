"""Reinforcement fine-tuning: GRPO on rule-based rewards, over TRL's ``GRPOTrainer``.

The objective, with the keys of the recipe. For a prompt the policy samples ``group_size`` completions. The reward of a
completion is the weighted sum of the recipe's rewards; its advantage A is that reward, centred on its group, divided as
``scale_rewards`` and ``aggregation`` say (+ 1e-4). With p the probability of a token under the policy, p_old that when
it was sampled, p_ref that under the policy that the stage starts from, r = p / p_old and d = log p_ref - log p, a token
adds

    - min(r A, clip(r, 1 - clip, 1 + clip_high) A) + kl (exp(d) - d - 1)

to the loss, averaged over each completion, then over completions. Each batch of rollouts is used for
``updates_per_batch`` updates; with one of them r is 1 and the clip never binds.

Where this departs from the paper's GRPO (DeepSeekMath, arXiv 2402.03300, equations 3 and 4): nowhere at ``loss: grpo``,
``scale_rewards: group``, ``kl_estimator: k3``; the other values are named options of the recipe. TRL's own defaults
differ (loss dapo, no KL, its estimator times r), so every value is passed (``trainer_arguments.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from vrft.boxes import Size
from vrft.errors import UserError
from vrft.policies import LoadedPolicy, check_envelope
from vrft.processes import all_of, is_main
from vrft.progress import Reporter
from vrft.recipe import FuzzyReward, IouReward, RecitationReward, Reward, RftStage
from vrft.response import parse
from vrft.rewards import REWARDS, advantage_parts
from vrft.rewards.advantages import ZERO_ADVANTAGE, Floats
from vrft.rewards.columns import text_of
from vrft.rewards.custom import load_custom
from vrft.runs import StageDirectory
from vrft.sample import Sample
from vrft.tasks import TrainableTask
from vrft.training.callback import StageCallback, StageResult
from vrft.training.packing import enable_packed_rows
from vrft.training.reasoning_metrics import compute_reasoning_metrics
from vrft.training.seeded import SeededTrainer, set_reference
from vrft.training.shared_prefix import SharedPrefixTrainer, cannot_share
from vrft.training.stage import begin_stage, finish_stage, frozen_copy, lazy_dataset, stage_order
from vrft.training.trainer_arguments import grpo_options, trainer_options
from vrft.training.validation import Validation


def reward_options(reward: Reward) -> dict[str, Any]:
    """The options of a reward in a recipe as keyword arguments of its function."""
    if isinstance(reward, FuzzyReward):
        return {"schedule": reward.schedule}
    if isinstance(reward, IouReward):
        return {"measure": reward.measure, "threshold": reward.threshold}
    if isinstance(reward, RecitationReward):
        return {"recite": reward.measure, "recite_model": reward.model}
    return {}


class Scorer:
    """The reward functions of a stage as TRL calls them; collects the metrics and rollouts of each step.

    TRL calls the functions one after another with all completions of this process, those of a group side by side. After
    the last function the metrics of the step are computed over all processes, and each rollout becomes a row.

    Args:
        stage: the stage of the recipe.
        task: the task of the stage.
        callback: receives the metrics and the rollouts.
        prompt_end: the beginning of the policy's turn that the chat template writes (``LoadedPolicy.prompt_end``);
            rewards read it together with the completion, and rollouts have it as a column unless it is empty.
        custom: custom rewards by name, each ``FILE:FUNCTION`` (``vrft.rewards.custom``).

    Raises:
        UserError: the file of a custom reward cannot be run.
    """

    def __init__(
        self,
        stage: RftStage,
        task: TrainableTask,
        callback: StageCallback,
        prompt_end: str = "",
        custom: Mapping[str, str] | None = None,
    ) -> None:
        self.stage, self.task, self.callback, self.prompt_end = stage, task, callback, prompt_end
        self.values: dict[str, list[float | None]] = {}
        self.accepted: list[bool] = []
        """Which completions of this process ``loss: rejection`` trains on."""
        self.step = 0
        self.sampled: list[dict[str, Any]] = []
        """The completions of all processes in the current step, which may sample several times."""
        self.weights = stage.weights()
        self.custom = {name: load_custom(name, where) for name, where in (custom or {}).items() if name in self.weights}
        self.functions = [self._function(name, reward) for name, reward in stage.rewards.named().items()]

    def _function(self, name: str, section: Reward) -> Callable[..., list[float | None]]:
        options = {"order": self.task.order, "prompt_end": self.prompt_end}
        options |= self.task.columns | reward_options(section)
        function = self.custom.get(name) or REWARDS[name]
        whole_card = isinstance(section, RecitationReward) and section.against == "card"

        def reward(completions: Sequence[Any], target: Sequence[Any], **columns: Any) -> list[float | None]:
            knowledge = [known and (known.card if whole_card else known.own) for known in columns["known"]]
            columns["image"] = [own[0] for own in columns.get("images", ())]  # for rewards that take the first alone
            values = function(completions, target=target, **{**columns, "knowledge": knowledge, **options})
            self.values[name] = values
            if len(self.values) == len(self.weights):
                self._log_step(completions, target, columns)
            return values

        reward.__name__ = name
        return reward

    def _log_step(self, completions: Sequence[Any], target: Sequence[Any], columns: dict[str, Any]) -> None:
        names = list(self.weights)
        rewards = np.array([[np.nan if r is None else r for r in self.values[name]] for name in names]).T
        self.values = {}
        weights = np.array(list(self.weights.values()))
        self.accepted = accepted_completions(rewards, weights, self.stage.accept)
        own = [
            {
                "sample": columns["sample"][index],
                "target": str(true),
                "completion": text_of(completion),
                "known": columns["known"][index],
                "rewards": rewards[index],
                "accepted": self.accepted[index],
            }
            for index, (completion, true) in enumerate(zip(completions, target, strict=True))
        ]
        rows = all_of(own)
        if not is_main():
            return
        step = columns["trainer_state"].global_step + 1
        if step != self.step:
            self.step, self.sampled = step, []
        before = len(self.sampled)
        self.sampled += rows
        self._compute_metrics(weights)
        totals = np.nansum(np.array([row["rewards"] for row in rows]) * weights, axis=1)
        self.callback.rollouts += [
            {
                "step": step,
                "group": (before + index) // self.stage.group_size,
                **{key: row[key] for key in ("sample", "target", "completion")},
                **({"prompt_end": self.prompt_end} if self.prompt_end else {}),
                **{f"reward_{name}": row["rewards"][k] for k, name in enumerate(names)},
                "reward": totals[index],
            }
            for index, row in enumerate(rows)
        ]

    def _compute_metrics(self, weights: Floats) -> None:
        """The metrics of all completions of the step so far, for the log."""
        rewards = np.array([row["rewards"] for row in self.sampled])
        reasonings = [parse(row["completion"], prompt_end=self.prompt_end).think or "" for row in self.sampled]
        group_size, names = self.stage.group_size, self.weights
        scaling = {"scale_rewards": self.stage.scale_rewards, "aggregation": self.stage.aggregation}
        metrics = reward_metrics(rewards, weights, group_size, **scaling)
        self.callback.extra |= {"rewards": dict(zip(names, metrics.pop("rewards"), strict=True)), **metrics}
        self.callback.extra["reasoning"] = compute_reasoning_metrics(
            reasonings, [row["known"] for row in self.sampled], group_size
        )
        if self.stage.loss == "rejection":
            self.callback.extra["accepted"] = float(np.mean([row["accepted"] for row in self.sampled]))


def accepted_completions(rewards: Floats, weights: Floats, share: float) -> list[bool]:
    """Which completions earn a share of the largest possible sum of their rewards of positive weight (each at most 1).

    Args:
        rewards: (n, k), n completions by k rewards; NaN where a reward does not apply.
        weights: (k,), the weight of each reward; negative weights count as 0.
        share: in (0, 1].

    >>> accepted_completions(np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.5]), share=1.0)
    [True, False]
    """
    positive = np.clip(weights, 0, None)
    largest = np.where(np.isnan(rewards), 0.0, 1.0) @ positive
    earned = np.nansum(rewards * positive, axis=1)
    return list(map(bool, (largest > 0) & (earned >= share * largest - 1e-9)))


def reward_metrics(rewards: Floats, weights: Floats, group_size: int, **scaling: str) -> dict[str, Any]:
    """The metrics of the rewards of one step.

    Args:
        rewards: (n, k), n completions by k rewards, the groups one after another; NaN where a reward does not apply.
        weights: (k,), the weight of each reward.
        group_size: completions in a group; divides n.
        scaling: the options of ``advantage_parts``.

    Returns:
        ``rewards``, for each the ``mean``, the ``std`` over all completions, and its ``share`` of the advantage: the
        mean absolute contribution divided by the sum over all rewards (0 where all contributions are 0);
        ``zero_advantage``, the share of groups in which no completion has an advantage; ``spread``, the mean number of
        different totals in a group.

    >>> metrics = reward_metrics(np.array([[1.0, 1], [0, 1], [1, 1], [1, 1]]), np.array([1.0, 0.5]), 2)
    >>> metrics["zero_advantage"], [reward["share"] for reward in metrics["rewards"]]
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
        "zero_advantage": float((np.abs(advantages) <= ZERO_ADVANTAGE).all(axis=1).mean()),
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
    validation: Validation | None = None,
    trackers: Mapping[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    custom: Mapping[str, str] | None = None,
) -> StageResult:
    """Train ``policy`` in place for one stage; continues from the newest complete checkpoint of ``directory``.

    Args:
        policy: a policy that was loaded for training.
        stage: the stage of the recipe.
        task: the task of the stage.
        samples: the training samples.
        directory: the directory of the stage.
        seed: the seed of data order, sampling and adapters.
        reporter: shows progress.
        label: the name of the stage in messages.
        validation: how the policy is validated during training.
        trackers: the loggers (``trainer_options``).
        callbacks: further callbacks of the trainer.
        custom: custom rewards by name, each ``FILE:FUNCTION`` (``vrft.rewards.custom``).

    Returns:
        The cost of the stage, and the step whose policy it ends with.

    Raises:
        UserError: the stage is not possible with this policy or these processes, or cannot continue;
            or a custom reward fails.
    """
    callback, checkpoint = begin_stage(
        policy, stage, directory, seed=seed, reporter=reporter, label=label, validation=validation
    )
    assert isinstance(callback.stage, RftStage)
    stage = callback.stage  # with fewer steps where the budget is spent
    trainer = make_trainer(
        policy,
        stage,
        task,
        samples,
        directory,
        callback,
        seed=seed,
        trackers=trackers,
        callbacks=callbacks,
        custom=custom,
    )
    return finish_stage(trainer, policy, directory, callback, checkpoint)


def make_trainer(
    policy: LoadedPolicy,
    stage: RftStage,
    task: TrainableTask,
    samples: Sequence[Sample],
    directory: StageDirectory,
    callback: StageCallback,
    *,
    seed: int,
    trackers: Mapping[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    custom: Mapping[str, str] | None = None,
    plain: type[GRPOTrainer] = SeededTrainer,
) -> GRPOTrainer:
    """Create the trainer of a stage, with every option that changes a result written out.

    ``plain`` is the class of the trainer that repeats the prompt of a group for each completion.

    Raises:
        UserError: the stage is not possible with this policy.
    """

    def row(sample: Sample, size: Size, index: int) -> dict[str, Any]:
        return {
            "prompt": policy.messages(policy.prompt(task, sample, size), len(sample.images)),
            "target": task.check_target(sample.target, size),
            "sample": sample.id,
            "known": sample.knowledge,
            "image_size": size,
            "processed_size": policy.processed_size(size),
        }

    def fresh_prompts(step: int, number: int, count: int) -> list[dict[str, Any]]:
        """Rows that depend on the seed, the step and the round only, so that a run that resumes gets the same."""
        step_seed = int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0])
        rows = lazy_dataset(policy, samples, stage_order(stage, samples, count, step_seed), row)[:]
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]

    end = policy.prompt_end
    check_envelope(policy.name, end, task.order)
    batches = -(-stage.steps // stage.updates_per_batch)
    order = stage_order(stage, samples, batches * stage.prompts_per_step, seed)
    dataset = lazy_dataset(policy, samples, order, row)
    scorer = Scorer(stage, task, callback, end, custom)
    sequences = stage.prompts_per_step * stage.group_size
    options = trainer_options(stage, directory, seed, sequences, compute=policy.compute, trackers=trackers)
    reason = "shared_prefix is false"
    if stage.shared_prefix:
        reason = cannot_share(policy.model, stage.group_size, options["per_device_train_batch_size"]) or ""
    how = f"repeated for each completion: {reason}" if reason else "encoded once a group"
    callback.reporter.say(f"{callback.label}: prompts are {how}")
    if stage.dynamic_sampling and reason:
        raise UserError(f"{callback.label}: dynamic_sampling is not possible where prompts are {how}; set it to 0.")
    adapters = policy.lora is not None or isinstance(policy.model, PeftModel)
    trainer = (plain if reason else SharedPrefixTrainer)(
        model=policy.model,
        processing_class=policy.processor,
        reward_funcs=list(scorer.functions),
        args=GRPOConfig(
            **options,
            **grpo_options(stage, policy.suppressed, options["gradient_accumulation_steps"]),
            trust_remote_code=policy.trust_remote_code,
            beta=stage.kl if adapters else 0.0,  # in full training the reference is set below
        ),
        train_dataset=dataset,
        callbacks=[callback, *callbacks],
        peft_config=policy.lora,
    )
    if stage.kl and not adapters:
        reference = policy.reference or frozen_copy(policy.model)
        if isinstance(trainer, SharedPrefixTrainer):
            enable_packed_rows(reference)
        set_reference(trainer, reference, stage.kl)
    if isinstance(trainer, SeededTrainer):
        trainer.sampling_seed = seed
        if stage.loss == "rejection":
            trainer.accepted = lambda: scorer.accepted
    if isinstance(trainer, SharedPrefixTrainer):
        trainer.resamples, trainer.fresh_prompts = stage.dynamic_sampling, fresh_prompts
    return trainer
