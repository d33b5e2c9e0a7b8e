"""Visual question answering: yes or no, one of several choices, or an open answer.

A completion that earns full reward, where the choices are ``{"A": "benign", "B": "malignant"}``::

    <think>The margin is spiculated.</think><answer>B. malignant</answer>
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vrft.boxes import Size
from vrft.response import Reading, normalise, parse, read_choice, read_open, read_yes_no, same_text
from vrft.sample import Target
from vrft.tasks.base import NO_CONTEXT, ReadContext, Task

ANSWERS = ("yes_no", "choice", "open")
"""The kinds of answer that a question can ask for."""


@dataclass(frozen=True)
class Vqa(Task):
    """A question about the image.

    Args:
        answers: one of ``ANSWERS``.
        choices: letter -> text, for ``choice``.
        synonyms: ``yes`` or ``no`` -> further words for it.
    """

    answers: str
    choices: Mapping[str, str] = field(default_factory=dict)
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    kind: ClassVar[str] = "vqa"

    @property
    def columns(self) -> dict[str, Any]:
        """``answers``, ``choices`` and ``synonyms``, for the rewards."""
        return {"answers": self.answers, "choices": dict(self.choices), "synonyms": dict(self.synonyms)}

    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read yes or no, the letter of a choice, or the text of an open answer, by ``answers``."""
        if self.answers == "yes_no":
            return read_yes_no(answer, self.synonyms)
        return read_choice(answer, self.choices) if self.answers == "choice" else read_open(answer)

    def read_leniently(self, completion: str) -> Target | None:
        """The lenient reading: the strict reading, or else that of a text without tags."""
        envelope = parse(completion)
        answer = self.read_text(envelope.answer or completion.strip()).answer
        return answer if isinstance(answer, str) else None

    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return ``yes`` or ``no``, the letter of a choice, or a tuple of accepted texts.

        Raises:
            ValueError: the target is no answer of this kind.
        """
        if self.answers == "yes_no":
            answer = read_yes_no(target).answer if isinstance(target, str) else None
            if not isinstance(answer, str):
                raise ValueError(f"the target {target!r} is neither 'yes' nor 'no'")
            return answer
        if self.answers == "choice":
            answer = read_choice(target, self.choices).answer if isinstance(target, str) else None
            if not isinstance(answer, str):
                raise ValueError(f"the target {target!r} is none of the choices {', '.join(self.choices)}")
            return answer
        accepted = [target] if isinstance(target, str) else target
        if not isinstance(accepted, (list, tuple)) or not accepted or not all(map(_is_text, accepted)):
            raise ValueError(f"the target {target!r} is no text, nor a list of texts that are accepted")
        return tuple(accepted)

    def matches(self, answer: Any, target: Any) -> bool:
        """Whether the answer equals the target; an open answer, one of the accepted texts after folding."""
        if self.answers == "open":
            return isinstance(answer, str) and same_text(answer, target)
        return bool(answer == target)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(normalise(value))
