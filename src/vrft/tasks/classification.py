"""Classification: one label of a closed list.

A prompt, and a completion that earns full reward::

    Which class does this chest radiograph show?
    Answer with one of these labels:
    normal
    pneumonia
    Think inside <think></think>, then give only the answer inside <answer></answer>.

    <think>A dense shadow in the lower lobe.</think><answer>pneumonia</answer>
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vrft.boxes import Size
from vrft.response import INSTRUCTIONS, Reading, mentioned_label, parse, read_label
from vrft.sample import Target
from vrft.tasks.base import NO_CONTEXT, ReadContext, Task, prompt_lines


def classification_prompt(question: str, labels: Sequence[str], known: str = "", order: str = "think-answer") -> str:
    """The text of the prompt: the question, the labels (one a line), the knowledge, the envelope."""
    return prompt_lines(question, "Answer with one of these labels:", *labels, known, INSTRUCTIONS[order])


@dataclass(frozen=True)
class Classification(Task):
    """One label of a closed list.

    Args:
        labels: the labels, in the order in which the prompt lists them.
        synonyms: label -> further names of it.
    """

    labels: Sequence[str]
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    kind: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "macro_f1", "format_rate", "read_rate")
    ordinal: ClassVar[bool] = False

    @property
    def classes(self) -> list[Target]:
        """All possible targets, in order."""
        return list(self.labels)

    @property
    def columns(self) -> dict[str, Any]:
        """``labels`` and ``synonyms``, for the rewards."""
        return {"labels": list(self.labels), "synonyms": dict(self.synonyms)}

    def prompt(self, question: str, known: str = "") -> str:
        """The text of the prompt for a question; ``known`` is the knowledge in it."""
        return classification_prompt(question, self.labels, known, self.order)

    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read one label (``vrft.response.read_label``)."""
        return read_label(answer, self.labels, self.synonyms)

    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return the target, which must be one of the labels; else raise ValueError."""
        if target not in self.labels or not isinstance(target, str):
            raise ValueError(f"the target {target!r} is none of the labels {', '.join(map(repr, self.labels))}")
        return target

    def read_leniently(self, completion: str) -> Target | None:
        """The lenient reading: the strict reading, or else the only label that is mentioned."""
        envelope = parse(completion)
        strict = read_label(envelope.answer, self.labels, self.synonyms).answer
        if strict is not None:
            return strict
        return mentioned_label(envelope.answer or completion, self.labels, self.synonyms)
