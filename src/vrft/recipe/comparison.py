"""Sections of a recipe on the comparison: further arms, SFT, validation, evaluation, the ablation."""

from typing import Annotated, Any, Literal

from pydantic import Field

from vrft.recipe.arms import ARMS
from vrft.recipe.sections import Positive
from vrft.rewards import AGGREGATIONS, REWARDS, SCALINGS
from vrft.typed import Section


class ArmChange(Section):
    """A further arm: the stages of the recipe, with some keys of the last stage changed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.,=-]*$")]
    """Of the arm, in the table and as a folder."""
    set: dict[str, Any] = {}
    """Keys of the last stage and their new values, such as `{rewards: {fuzzy: 1.0, format: 0.5}}`."""
    knowledge: bool = False
    """The card stands in the prompt, in training and at test."""
    perception: bool = False
    """The stages on another task come first."""


def name_of_arm(arm: str | ArmChange) -> str:
    """The name of an arm of a recipe."""
    return arm if isinstance(arm, str) else arm.name


class Sft(Section):
    """The `sft` arm, where it shall differ from its match to `rft`."""

    steps: Positive | None = None
    """Without it as many as all stages together."""
    batch_size: Positive | None = None
    """Without it as many sequences as a step of the last stage samples."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Without it that of the recipe's last stage of kind sft; where there is none 1e-5 for all weights, 1e-4 for
    adapters and 3e-4 for the embedded policy, never that of a stage of RFT."""
    think: str | Annotated[list[str], Field(min_length=1)] | None = None
    """The text inside the think tags; without it as in the recipe's stage of kind sft, or its default."""
    think_from: Literal["text", "card"] | None = None
    """`card` puts what is known of the true class there; without it as in the recipe's stage of kind sft, or `text`."""


class Validate(Section):
    """Evaluation on the validation split while a stage trains."""

    every: Positive
    """Steps between validations; the last step is validated too."""
    metric: str | None = None
    """Which figure decides, where it has it, of each stage's task; without it the first of the task."""
    samples: Positive = 128
    """How many samples of the split, evenly spread over it; all where it has fewer."""
    keep: Literal["last", "best"] = "last"
    """Which policy a stage hands on: that of its last step, or of its best validation (of equals the first)."""
    patience: Positive | None = None
    """The stage ends after so many validations without a better one (needs a constant schedule)."""


class Evaluation(Section):
    """How the arms are measured."""

    split: Literal["train", "validation", "test"] = "test"
    """The split that is evaluated; choose settings on `validation`."""
    limit: Positive | None = None
    """Evaluate only the first so many samples."""
    batch_size: Positive = 64
    """Prompts decoded together; on some devices it changes the last bits of a result."""
    max_completion_tokens: Positive | None = None
    """Without it that of the last stage, or 256."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the intervals."""


FACTORS = {
    "PA_p": "the card stands in the prompt",
    "PA_pi": "the stages on another task, such as localization, come first",
    "MFRS": "near misses of a grade earn part of the reward: `fuzzy` in the place of `accuracy`",
    "recite": "reciting the card is paid for, or against",
}
"""The factors of an ablation, and what each adds to plain V-RFT."""


class Sweep(Section):
    """A grid of weights and of the scaling of rewards, each a further arm of an ablation."""

    arm: str = "rft"
    """The cell of the factorial that is varied, such as `rft+PA_p`."""
    rewards: dict[Literal[*REWARDS], Annotated[list[float], Field(min_length=1)]] = {}  # type: ignore[valid-type]
    """The weights that are tried of each reward; 0 leaves it out."""
    scale_rewards: list[Literal[*SCALINGS]] = []  # type: ignore[valid-type]
    """The scalings that are tried."""
    aggregation: list[Literal[*AGGREGATIONS]] = []  # type: ignore[valid-type]
    """The ways of adding rewards up that are tried."""


class Budget(Section):
    """How the trained arms of an ablation are matched."""

    match: Literal["stages", "steps", "tokens", "seconds"] = "stages"
    """`stages`: each stage as the recipe says, so that further stages cost more. Otherwise the last stage of every arm
    ends when the arm has spent as many optimiser steps, tokens or seconds in all; seconds differ from run to run."""
    amount: Annotated[float, Field(gt=0)] | None = None
    """Of one arm and seed; without it as much as `rft` spends with the same seed."""


class Ablation(Section):
    """Settings of `vrft ablate`."""

    factors: Annotated[list[Literal[*FACTORS]], Field(min_length=1)] | None = None  # type: ignore[valid-type]
    """The factors that are crossed; without it all that apply."""
    recite: Annotated[float, Field(gt=0)] = 0.2
    """Weight of the recitation reward, taken with both signs."""
    controls: list[Literal[*(name for name, arm in ARMS.items() if arm.role != "cell")]] | None = None  # type: ignore[valid-type]
    """The arms beside the factorial; without it those of `majority`, `base`, `sft`, `blind`, `nothink`, `thinkafter`,
    `rft+extra`, `rft+shuffled`, `without` and `swapped` that apply."""
    sweep: Sweep | None = None
    """Weights and scalings that are tried besides."""
    budget: Budget = Budget()
    """How the arms are matched."""
    cpus: Positive = 1
    """Cores, and threads, of one arm and seed: the number of threads decides the last bits of a result."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one arm and seed; without it one where the machine has any."""
    keep_policies: bool = True
    """Keep the weights of every arm and seed; `false` drops them as soon as nothing that is asked for needs them."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often an arm and seed is begun again, from its last checkpoint, when its process was killed."""
