"""The arms: which stages each trains, and under which condition its policy answers, in training and at test."""

from dataclasses import dataclass
from typing import Literal

from vrft.knowledge import PromptKnowledge

Stages = Literal["none", "task", "sft", "rejection", "other_tasks", "all", "extended", "shuffled", "changed"]
"""Which stages of a recipe an arm trains (``Recipe.stages_of``)."""


@dataclass(frozen=True)
class Condition:
    """How the samples of the recipe's task are put to a policy."""

    prompt: PromptKnowledge = "none"
    """Prior knowledge in the prompt: the card, one of its controls, or nothing."""
    image: Literal["shown", "grey"] = "shown"
    """The image of the sample, or a grey image of the same size."""
    envelope: str | None = None
    """The order of the think and answer blocks; None is that of the task."""


@dataclass(frozen=True)
class Arm:
    """One configuration in a comparison."""

    description: str
    stages: Stages
    condition: Condition = Condition()
    """In training and at test."""
    test_condition: Condition | None = None
    """At test, where it differs."""
    policy_of: str | None = None
    """The arm whose policy is tested, where an arm trains none of its own."""
    role: Literal["cell", "control", "optional"] = "optional"
    """In an ablation: a cell of the factorial, a control by default, or a control on demand."""

    @property
    def needs_knowledge(self) -> bool:
        """Whether the recipe must have a section ``knowledge``."""
        return self.condition.prompt != "none"

    @property
    def needs_other_task(self) -> bool:
        """Whether the recipe must have a stage on another task."""
        return self.stages in ("other_tasks", "all", "extended", "shuffled")


_CARD = Condition(prompt="card")

ARMS: dict[str, Arm] = {
    "majority": Arm(
        "the most frequent label, the median grade, or the best constant box, of the training split",
        "none",
        role="control",
    ),
    "base": Arm("the policy as it is loaded", "none", role="control"),
    "sft": Arm(
        "SFT on the same data, with as many steps and sequences as `rft` unless `sft` or a budget says otherwise",
        "sft",
        role="control",
    ),
    "rft": Arm("the stages of the recipe, without those on another task", "task", role="cell"),
    "rejection": Arm(
        "as `rft`, but the likelihood of its own completions that earn full reward: no policy gradient", "rejection"
    ),
    "blind": Arm(
        "as `rft`, every image grey, in training and at test: does the task need the image?",
        "task",
        Condition(image="grey"),
        role="control",
    ),
    "nothink": Arm(
        "as `rft`, the answer alone: does the task need reasons?",
        "task",
        Condition(envelope="no-think"),
        role="control",
    ),
    "thinkafter": Arm(
        "as `rft`, the reasons after the answer, which they cannot help",
        "task",
        Condition(envelope="answer-think"),
        role="control",
    ),
    "base+PA_p": Arm("as `base`, with the card in the prompt", "none", _CARD),
    "sft+PA_p": Arm("as `sft`, with the card in the prompt, in training and at test", "sft", _CARD),
    "rft+PA_p": Arm("as `rft`, with the card in the prompt, in training and at test", "task", _CARD, role="cell"),
    "without": Arm(
        "the policy of `rft+PA_p`, tested without the card: a control",
        "none",
        _CARD,
        Condition(),
        "rft+PA_p",
        "control",
    ),
    "swapped": Arm(
        "the policy of `rft+PA_p`, tested with descriptions exchanged between the classes: a control",
        "none",
        _CARD,
        Condition(prompt="swapped"),
        "rft+PA_p",
        "control",
    ),
    "irrelevant": Arm(
        "the policy of `rft+PA_p`, tested with as many words about something else: a control",
        "none",
        _CARD,
        Condition(prompt="irrelevant"),
        "rft+PA_p",
    ),
    "PA_pi": Arm("only the stages on another task: the effect of localization alone, zero-shot", "other_tasks"),
    "rft+PA_pi": Arm("all stages: first those on another task (perception), then those of `rft`", "all", role="cell"),
    "rft+extra": Arm(
        "as `rft`, with as many more steps as the stages on another task have: a control", "extended", role="control"
    ),
    "rft+shuffled": Arm(
        "as `rft+PA_pi`, the targets of the other task permuted between its images: a control",
        "shuffled",
        role="control",
    ),
}
"""The arms that a recipe can name."""
