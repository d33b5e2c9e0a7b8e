"""The recipe as a whole: the stages and the condition of each arm, and what arms share."""

import warnings
from dataclasses import replace
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from vrft.recipe.arms import ARMS, Arm, Condition
from vrft.recipe.comparison import Ablation, ArmChange, Evaluation, Sft, Validate, name_of_arm
from vrft.recipe.sections import (
    Data,
    KnowledgeSection,
    Optimiser,
    Policy,
    RftStage,
    SftStage,
    Stage,
    TaskSection,
    longest_answer,
)
from vrft.tasks import TrainableTask
from vrft.typed import Section

warnings.filterwarnings("ignore", message='Field name "validate" in "Recipe" shadows', category=UserWarning)

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Trackers that show the log of a stage while it trains, each an extra of the same name."""

CustomFunction = Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")]

SFT_RATES = {"whole": 1e-5, "adapters": 1e-4, "tiny": 3e-4}
"""Learning rates of the `sft` arm by what is trained, where the recipe has none: those in common use for all weights
of a vision-language model and for its adapters, and the rate that the shipped recipes have for the embedded policy."""


class Recipe(Section):
    """The description of a run; all that decides a result is in it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.-]*$")]
    """Of the run: `runs/NAME` is its directory."""
    data: Data
    """Where the samples come from."""
    task: TaskSection
    """The task."""
    knowledge: KnowledgeSection | None = None
    """Prior knowledge about the classes, in the prompts of the arms with `PA_p`."""
    policy: Policy = Policy()
    """The policy that is trained."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The training, in order; each stage starts from the weights of the one before."""
    sft: Sft = Sft()
    """The training of the arm `sft`."""
    arms: Annotated[list[Literal[*ARMS] | ArmChange], Field(min_length=1)] = ["majority", "base", "sft", "rft"]  # type: ignore[valid-type]
    """The arms that are compared, in order."""
    custom: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], CustomFunction] = {}
    """Rewards of your own by name, each `FILE.py:FUNCTION`. The file is run when a stage trains with the reward."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    """One training of each trained arm for each seed."""
    evaluation: Evaluation = Evaluation()
    """How the arms are measured."""
    validate: Validate | None = None  # type: ignore[assignment]  # pydantic's own `validate` is deprecated
    """How every stage of every trained arm is measured while it trains."""
    report_to: list[Literal[*TRACKERS]] = []  # type: ignore[valid-type]
    """Where each line of the log goes as well, under the names of `log.jsonl`, with arm and seed as the run's name."""
    ablation: Ablation = Ablation()
    """Settings of `vrft ablate`; `vrft run` ignores them."""

    def arm_names(self) -> list[str]:
        """The names of the arms, in order."""
        return [name_of_arm(arm) for arm in self.arms]

    def arm(self, name: str) -> Arm:
        """The stages and the conditions of an arm.

        Raises:
            ValueError: no arm of the recipe has the name, or two have it.
        """
        if name in ARMS:
            return ARMS[name]
        (change,) = (arm for arm in self.arms if isinstance(arm, ArmChange) and arm.name == name)
        return Arm("a further arm of the recipe", "changed", Condition("card" if change.knowledge else "none"))

    def stages_of(self, name: str) -> list[RftStage | SftStage]:
        """The stages of an arm, every value written out; empty for an arm that is not trained."""
        kind = self.arm(name).stages
        own, other = self.own_stages(), [stage for stage in self.stages if stage.task is not None]
        if kind == "none":
            return []
        if kind == "task":
            return own
        if kind == "sft":
            return [self._matched_sft()]
        if kind == "rejection":
            return [self._rejection(stage) for stage in own]
        if kind == "other_tasks":
            return other
        if kind == "all":
            return list(self.stages)
        if kind == "extended":
            steps = own[-1].steps + sum(stage.steps for stage in other)
            return [*own[:-1], own[-1].model_copy(update={"steps": steps})]
        if kind == "shuffled":
            shuffled = {"shuffle_targets": True}
            return [stage.model_copy(update=shuffled) if stage.task is not None else stage for stage in self.stages]
        (change,) = (arm for arm in self.arms if isinstance(arm, ArmChange) and arm.name == name)
        before, last = (other if change.perception else []) + own[:-1], own[-1]
        return [*before, type(last).model_validate({**last.model_dump(), **change.set})]

    def condition_of(self, name: str, *, training: bool = False) -> Condition:
        """How the samples of the recipe's task are put to the policy of an arm, in training or at test."""
        arm = self.arm(name)
        return arm.condition if training or arm.test_condition is None else arm.test_condition

    def trained_as(self, name: str) -> str:
        """The arm whose policy an arm tests."""
        return self.arm(name).policy_of or name

    def task_of(self, name: str, task: TrainableTask) -> TrainableTask:
        """The task with the envelope of an arm's condition."""
        envelope = self.condition_of(name).envelope
        return replace(task, order=envelope) if envelope else task

    def training_of(self, name: str, stage: int) -> tuple[Any, ...]:
        """All that decides the weights of an arm after a stage, beside the seed; arms where it is equal share them."""
        stages = self.stages_of(name)[: stage + 1]
        if all(one.task is not None for one in stages):  # a condition concerns the recipe's own task
            return (stages,)
        return stages, self.condition_of(name, training=True)

    def perceptions(self) -> list[tuple[str, int]]:
        """For each different training on other tasks, the first arm that has it and its last stage of that kind."""
        seen: list[Any] = []
        found = []
        for name in self.arm_names():
            stages = self.stages_of(name)
            last = max((index for index, stage in enumerate(stages) if stage.task is not None), default=-1)
            if last >= 0 and stages[: last + 1] not in seen:
                seen.append(stages[: last + 1])
                found.append((name, last))
        return found

    def has_seeds(self, name: str) -> bool:
        """Whether an arm differs by seed; an arm that is not trained does not."""
        return bool(self.stages_of(self.trained_as(name)))

    def seeds_of(self, name: str) -> list[int]:
        """The seeds of an arm: one where it does not differ by seed."""
        return self.seeds if self.has_seeds(name) else self.seeds[:1]

    def own_stages(self) -> list[RftStage | SftStage]:
        """The stages on the task of the recipe."""
        return [stage for stage in self.stages if stage.task is None]

    @staticmethod
    def _rejection(stage: RftStage | SftStage) -> RftStage | SftStage:
        """A stage of RFT that learns its accepted completions, and nothing else."""
        if isinstance(stage, SftStage):
            return stage
        plain = {"loss": "rejection", "kl": 0.0, "updates_per_batch": 1, "dynamic_sampling": 0}
        return stage.model_copy(update=plain | {"importance_sampling": "token", "mask_truncated": False})

    def _matched_sft(self) -> SftStage:
        """The stage of the arm `sft`: budget and schedule of the last stage, but a learning rate of its own."""
        last = self.own_stages()[-1]
        own = next((stage for stage in self.own_stages()[::-1] if isinstance(stage, SftStage)), None)
        sequences = last.prompts_per_step * last.group_size if isinstance(last, RftStage) else last.batch_size
        optimiser = {name: getattr(last, name) for name in Optimiser.model_fields}
        trained = "tiny" if self.policy.model == "tiny" else "adapters" if self.policy.lora else "whole"
        optimiser["learning_rate"] = self.sft.learning_rate or (own.learning_rate if own else SFT_RATES[trained])
        return SftStage(
            kind="sft",
            steps=self.sft.steps or sum(stage.steps for stage in self.own_stages()),
            batch_size=self.sft.batch_size or sequences,
            think=self.sft.think or (own.think if own else SftStage.model_fields["think"].default),
            think_from=self.sft.think_from or (own.think_from if own else "text"),
            balance=last.balance,
            **optimiser,
        )

    @property
    def evaluation_tokens(self) -> int:
        """The most tokens of a completion at evaluation."""
        return self.evaluation.max_completion_tokens or longest_answer(self.own_stages()[-1])

    def resolved(self) -> dict[str, Any]:
        """Plain data with every value written out, which is itself a recipe."""
        sft = self._matched_sft()
        written = {name: getattr(sft, name) for name in Sft.model_fields}
        evaluation = {"max_completion_tokens": self.evaluation_tokens}
        plain = self.model_dump()
        return plain | {"sft": written, "evaluation": plain["evaluation"] | evaluation}

    def dump(self) -> str:
        """The resolved recipe as YAML."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)
