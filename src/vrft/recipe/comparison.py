"""What is compared: the arms by name, how they are evaluated, and what an ablation crosses."""

from typing import Annotated, Any, Literal

from pydantic import Field

from vrft.knowledge import PromptKnowledge
from vrft.recipe.sections import Positive
from vrft.rewards import AGGREGATIONS, REWARDS, SCALINGS
from vrft.typed import Section

ARMS = {
    "majority": "the most frequent label, the median grade, or the best constant box, of the training split",
    "base": "the policy as it is loaded",
    "sft": "supervised fine-tuning on the same data, with as many steps and sequences as `rft`",
    "rft": "the stages of the recipe, without those on another task",
    "rejection": "as `rft`, but the likelihood of its own completions that earn full reward: no policy gradient",
    "blind": "as `rft`, every image grey, in training and at test: does the task need the image?",
    "nothink": "as `rft`, the answer alone: does the task need reasons?",
    "thinkafter": "as `rft`, the reasons after the answer, which they cannot help",
    "base+PA_p": "as `base`, with what is known of the classes in the prompt",
    "sft+PA_p": "as `sft`, with what is known in the prompt, in training and at test",
    "rft+PA_p": "as `rft`, with what is known in the prompt, in training and at test",
    "without": "the policy of `rft+PA_p`, tested without what is known: a control",
    "swapped": "the policy of `rft+PA_p`, tested with descriptions exchanged between the classes: a control",
    "irrelevant": "the policy of `rft+PA_p`, tested with as many words about something else: a control",
    "PA_pi": "only the stages on another task: what localization alone teaches, zero-shot",
    "rft+PA_pi": "all stages: first those on another task (perception), then those of `rft`",
    "rft+extra": "as `rft`, with as many more steps as the stages on another task have: a control",
    "rft+shuffled": "as `rft+PA_pi`, the targets of the other task permuted between its images: a control",
}
"""The arms that a recipe can name, and what each is."""


INFORMED = ("base+PA_p", "sft+PA_p", "rft+PA_p")
"""Arms that are told what is known, in training and at test."""

PERCEIVING = ("PA_pi", "rft+PA_pi", "rft+extra", "rft+shuffled")
"""Arms that need a stage on another task."""

ENVELOPES = {"nothink": "no-think", "thinkafter": "answer-think"}
"""Arms whose completions have blocks of their own, and which."""

TESTED_OTHERWISE: dict[str, PromptKnowledge] = {
    "without": "none",
    "swapped": "swapped",
    "irrelevant": "irrelevant",
}
"""Arms that are no training of their own: the policy of `rft+PA_p`, and what its prompts hold at test."""


class ArmChange(Section):
    """A further arm: the stages of the recipe, with some keys of the last stage changed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.,=-]*$")]
    """Of the arm, in the table and as a folder."""
    set: dict[str, Any] = {}
    """Keys of the last stage and their new values, such as `{rewards: {fuzzy: 1.0, format: 0.5}}`."""
    knowledge: bool = False
    """What is known of the classes stands in the prompt, in training and at test."""
    perception: bool = False
    """The stages on another task come first."""


def called(arm: str | ArmChange) -> str:
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
    """What stands inside the think tags; without it as in the recipe's stage of kind sft, or its default."""
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
    split: Literal["train", "validation", "test"] = "test"
    """What is evaluated; choose settings on `validation`."""
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
    "PA_p": "what is known of the classes stands in the prompt",
    "PA_pi": "the stages on another task, such as localization, come first",
    "MFRS": "near misses of a grade earn part of the reward: `fuzzy` in the place of `accuracy`",
    "recite": "reciting what is known is paid for, or against",
}
"""What an ablation crosses, and what each adds to plain V-RFT."""

CELLS = ("rft", "rft+PA_p", "rft+PA_pi")
"""Arms that are cells of a factorial."""

CONTROLS = (
    "majority",
    "base",
    "sft",
    "blind",
    "nothink",
    "thinkafter",
    "rft+extra",
    "rft+shuffled",
    "without",
    "swapped",
)
"""Arms that an ablation sets beside the cells of its factorial, unless the recipe names others."""


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
    """What the trained arms of an ablation have in common."""

    match: Literal["stages", "steps", "tokens", "seconds"] = "stages"
    """`stages`: each stage as the recipe says, so that further stages cost more. Otherwise the last stage of every arm
    ends when the arm has spent as many optimiser steps, tokens or seconds in all; seconds differ from run to run."""
    amount: Annotated[float, Field(gt=0)] | None = None
    """Of one arm and seed; without it as much as `rft` spends with the same seed."""


class Ablation(Section):
    """What `vrft ablate` compares."""

    factors: Annotated[list[Literal[*FACTORS]], Field(min_length=1)] | None = None  # type: ignore[valid-type]
    """What is crossed; without it all that apply."""
    recite: Annotated[float, Field(gt=0)] = 0.2
    """Weight of the recitation reward, taken with both signs."""
    controls: list[Literal[*(arm for arm in ARMS if arm not in CELLS)]] | None = None  # type: ignore[valid-type]
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
