"""The recipe as a whole: which stages each arm has, what it is told and shown, and what arms share."""

import warnings
from dataclasses import replace
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from vrft.knowledge import Told
from vrft.recipe.comparison import (
    ARMS,
    ENVELOPES,
    INFORMED,
    TESTED_OTHERWISE,
    Ablation,
    ArmChange,
    Evaluation,
    Sft,
    Validate,
    called,
)
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
"""What can show the log of a stage while it trains, each an extra of the same name."""

CustomFunction = Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")]

SFT_RATES = {"whole": 1e-5, "adapters": 1e-4, "tiny": 3e-4}
"""Learning rates of the `sft` arm by what is trained, where the recipe has none: those in common use for all weights
of a vision-language model and for its adapters, and the rate that the shipped recipes have for the embedded policy."""


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.-]*$")]
    """Of the run: `runs/NAME` is its directory."""
    data: Data
    """Where the samples come from."""
    task: TaskSection
    """What is asked."""
    knowledge: KnowledgeSection | None = None
    """What the policy is told about the classes, in the arms with `PA_p`."""
    policy: Policy = Policy()
    """What is trained."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The training, in order; each stage starts from the weights of the one before."""
    sft: Sft = Sft()
    """The training of the arm `sft`."""
    arms: Annotated[list[Literal[*ARMS] | ArmChange], Field(min_length=1)] = ["majority", "base", "sft", "rft"]  # type: ignore[valid-type]
    """What is compared, in order."""
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
    """What `vrft ablate` compares; `vrft run` passes over it."""

    def arm_names(self) -> list[str]:
        return [called(arm) for arm in self.arms]

    def stages_of(self, arm: str) -> list[RftStage | SftStage]:
        """The stages of an arm, every value written out; empty for an arm that is not trained."""
        if arm in ("majority", "base", "base+PA_p", *TESTED_OTHERWISE):
            return []
        own, other = self.own_stages(), [stage for stage in self.stages if stage.task is not None]
        if arm in ("rft", "rft+PA_p", "blind", *ENVELOPES):
            return own
        if arm in ("sft", "sft+PA_p"):
            return [self._matched_sft()]
        if arm == "rejection":
            return [self._rejection(stage) for stage in own]
        if arm == "PA_pi":
            return other
        if arm == "rft+PA_pi":
            return list(self.stages)
        if arm == "rft+extra":
            more = own[-1].steps + sum(stage.steps for stage in other)
            return [*own[:-1], own[-1].model_copy(update={"steps": more})]
        if arm == "rft+shuffled":
            shuffled = {"shuffle_targets": True}
            return [stage.model_copy(update=shuffled) if stage.task is not None else stage for stage in self.stages]
        (change,) = (a for a in self.arms if isinstance(a, ArmChange) and a.name == arm)
        before, last = (other if change.perception else []) + own[:-1], own[-1]
        return [*before, type(last).model_validate({**last.model_dump(), **change.set})]

    def trained_as(self, arm: str) -> str:
        """The arm whose policy an arm tests."""
        return "rft+PA_p" if arm in TESTED_OTHERWISE else arm

    def task_of(self, arm: str, task: TrainableTask) -> TrainableTask:
        """The task as an arm is asked it: some arms answer without reasons, or before them."""
        return replace(task, order=ENVELOPES[arm]) if arm in ENVELOPES else task

    def training_of(self, arm: str, stage: int) -> tuple[Any, ...]:
        """What decides the weights of an arm after a stage, beside the seed; arms where it is equal share them."""
        stages = self.stages_of(arm)[: stage + 1]
        if all(one.task is not None for one in stages):  # what an arm is told and shown concerns the recipe's own task
            return (stages,)
        return stages, self.told(arm, training=True), ENVELOPES.get(arm), self.sees(arm)

    def perceptions(self) -> list[tuple[str, int]]:
        """For each different training on other tasks, the first arm that has it and its last stage of that kind."""
        seen: list[Any] = []
        found = []
        for arm in self.arm_names():
            stages = self.stages_of(arm)
            last = max((index for index, stage in enumerate(stages) if stage.task is not None), default=-1)
            if last >= 0 and stages[: last + 1] not in seen:
                seen.append(stages[: last + 1])
                found.append((arm, last))
        return found

    def has_seeds(self, arm: str) -> bool:
        """Whether an arm differs by seed; what is not trained does not."""
        return bool(self.stages_of(self.trained_as(arm)))

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds that an arm is run with: one where it does not differ by seed."""
        return self.seeds if self.has_seeds(arm) else self.seeds[:1]

    def told(self, arm: str, *, training: bool = False) -> Told:
        """What stands in the prompts of an arm, in training or at test."""
        if arm in TESTED_OTHERWISE:
            return "card" if training else TESTED_OTHERWISE[arm]
        informed = [one.name for one in self.arms if isinstance(one, ArmChange) and one.knowledge]
        return "card" if arm in (*INFORMED, *informed) else "none"

    def sees(self, arm: str) -> bool:
        """Whether an arm is shown the images of the recipe's task, or grey ones in their place."""
        return arm != "blind"

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
