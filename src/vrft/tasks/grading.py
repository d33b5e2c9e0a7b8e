"""Grading: one grade of an ordinal scale.

A prompt, and a completion that earns full reward::

    What is the grade of diabetic retinopathy in this fundus photograph?
    Answer with one grade from 0 to 4.
    Think inside <think></think>, then give only the answer inside <answer></answer>.

    <think>Several haemorrhages in one quadrant.</think><answer>2</answer>
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

from vrft.boxes import Size
from vrft.response import INSTRUCTIONS, Reading, mentioned_grade, parse, read_grade, scale_of
from vrft.sample import Target
from vrft.tasks.base import NO_CONTEXT, ReadContext, Task, prompt_lines


def grading_prompt(
    question: str, levels: int, names: Sequence[str] | None = None, known: str = "", order: str = "think-answer"
) -> str:
    """The text of the prompt: the question, the scale, the knowledge, the envelope.

    Where names contain numerals, only the names are listed, one a line, since a number would be ambiguous.
    """
    scale = [f"Answer with one grade from 0 to {levels - 1}."]
    if names and not scale_of(levels, names).by_index:
        scale = ["Answer with one of these grades, the lowest first:", *names]
    elif names:
        scale.append("The grades are: " + "; ".join(f"{grade} = {name}" for grade, name in enumerate(names)) + ".")
    return prompt_lines(question, *scale, known, INSTRUCTIONS[order])


@dataclass(frozen=True)
class Grading(Task):
    """One grade of the scale 0 .. levels - 1.

    Args:
        levels: how many grades the scale has, at least 2.
        names: the names of the grades, lowest first, or None. Where a name contains a numeral (``PI-RADS 3``, ``4A``),
            the prompt lists only names, and a number in an answer means the name that contains it.
        synonyms: the number (as text) or the name of a grade -> further names that an answer may use.
    """

    levels: int
    names: Sequence[str] | None = None
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    kind: ClassVar[str] = "grading"
    metrics: ClassVar[tuple[str, ...]] = (
        *("accuracy", "qwk", "mae", "balanced_accuracy", "macro_f1", "format_rate", "read_rate"),
    )
    ordinal: ClassVar[bool] = True

    @property
    def classes(self) -> list[Target]:
        """All possible targets, in order."""
        return list(range(self.levels))

    @property
    def columns(self) -> dict[str, Any]:
        """``levels``, ``names`` and ``synonyms``, for the rewards."""
        names = list(self.names) if self.names else None
        return {"levels": self.levels, "names": names, "synonyms": dict(self.synonyms)}

    def prompt(self, question: str, known: str = "") -> str:
        """The text of the prompt for a question; ``known`` is the knowledge in it."""
        return grading_prompt(question, self.levels, self.names, known, self.order)

    def read_text(self, answer: str | None, context: ReadContext = NO_CONTEXT) -> Reading:
        """Read one grade (``vrft.response.read_grade``)."""
        return read_grade(answer, self.levels, self.names, self.synonyms)

    def check_target(self, target: Any, image_size: Size | None = None) -> Target:
        """Return a grade from 0; a whole number in any type (2.0) and the name of a grade are accepted.

        A number as text is accepted only where no name contains numerals (``vrft.response.Scale.by_index``).

        Raises:
            ValueError: the target is no grade of the scale.
        """
        if isinstance(target, str):
            return self._grade_called(target.strip())
        is_whole = isinstance(target, Integral) or (isinstance(target, Real) and float(target).is_integer())
        if not is_whole or isinstance(target, bool) or not 0 <= target < self.levels:
            raise ValueError(f"the target {target!r} is no grade from 0 to {self.levels - 1}")
        return int(target)

    def _grade_called(self, target: str) -> int:
        if self.names and target in self.names:
            return list(self.names).index(target)
        if scale_of(self.levels, self.names).by_index and re.fullmatch(r"[0-9]{1,4}(?:\.0+)?", target):
            return int(self.check_target(float(target)))  # type: ignore[arg-type]
        names = f", and none of {', '.join(map(repr, self.names))}" if self.names else ""
        raise ValueError(f"the target {target!r} is no grade from 0 to {self.levels - 1}{names}")

    def written(self, target: Target, image_size: Size | None = None, processed_size: Size | None = None) -> str:
        """The number of a grade, or its name where names contain numerals."""
        assert isinstance(target, int)
        return scale_of(self.levels, self.names).written(target)

    def read_leniently(self, completion: str) -> Target | None:
        """The lenient reading: the strict reading, or else the only grade that is mentioned."""
        envelope = parse(completion)
        strict = read_grade(envelope.answer, self.levels, self.names, self.synonyms).answer
        if strict is not None:
            return strict
        return mentioned_grade(envelope.answer or completion, self.levels, self.names, self.synonyms)
