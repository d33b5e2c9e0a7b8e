"""The section ``task`` of a recipe and of a line of ``vrft score``: typed, unknown keys are errors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vrft.boxes import FRAMES
from vrft.errors import nearest
from vrft.response import ORDERS, Reading, normalise, read_choice, read_grade, read_label, scale_of
from vrft.tasks.base import Task
from vrft.tasks.classification import Classification
from vrft.tasks.grading import Grading
from vrft.tasks.localization import Localization
from vrft.tasks.vqa import ANSWERS, Vqa
from vrft.typed import Section

Name = Annotated[str, Field(min_length=1)]


class _TaskSection(Section):
    envelope: Literal[*ORDERS] = "think-answer"  # type: ignore[valid-type]
    """The blocks of a completion: the answer after reasons, before them, or alone."""


class ClassificationTask(_TaskSection):
    """One label of a closed list."""

    kind: Literal["classification"]
    labels: Annotated[list[Name], Field(min_length=1)] | None = None
    """The labels in the order of the prompt; without it those of the data."""
    synonyms: dict[str, list[str]] = {}
    """Further names of a label that an answer may use."""
    question: str | None = None
    """The question; without it that of the data."""


class GradingTask(_TaskSection):
    """One grade of an ordinal scale, from 0."""

    kind: Literal["grading"]
    levels: Annotated[int, Field(ge=2, le=1000)] | Annotated[list[Name], Field(min_length=2)] | None = None
    """How many grades the scale has, or their names; without it those of the data, or as many as there are names."""
    names: Annotated[list[Name], Field(min_length=2)] | None = None
    """Names of the grades, lowest first, shown in the prompt and accepted as answers."""
    synonyms: dict[str, list[str]] = {}
    """Further names of a grade (its number in quotes, or its name) that an answer may use."""
    question: str | None = None
    """The question; without it that of the data."""


class LocalizationTask(_TaskSection):
    """Boxes of what is asked for."""

    kind: Literal["localization"]
    frame: Literal[*FRAMES] | None = None  # type: ignore[valid-type]
    """The coordinates that the policy speaks, x first; in a recipe, without it, those of its family."""
    absence: bool = False
    """Tell in the prompt that an empty list says that nothing is there."""
    question: str | None = None
    """The question; without it that of the data."""


class VqaTask(_TaskSection):
    """A question about the image."""

    kind: Literal["vqa"]
    answers: Literal[*ANSWERS]  # type: ignore[valid-type]
    """Yes or no, the letter of a choice, or a text."""
    choices: dict[Name, Name] = {}
    """Of `choice`: letter and text."""
    synonyms: dict[str, list[str]] = {}
    """Of `yes_no`: further words for `yes` and `no`."""
    question: str | None = None
    """The question; without it that of the data."""


SECTIONS: dict[str, type[Section]] = {
    "classification": ClassificationTask,
    "grading": GradingTask,
    "localization": LocalizationTask,
    "vqa": VqaTask,
}
"""The sections by their kind."""


def task_from(
    section: Section,
    *,
    labels: Sequence[str] | None = None,
    levels: int | None = None,
    frame: str | None = None,
) -> Task:
    """Build the task of a section.

    Args:
        section: one of ``SECTIONS``.
        labels: those of the data, for a classification that names none.
        levels: how many grades the data has, for a grading that does not say.
        frame: that of the policy's family, for a localization that does not say.

    Raises:
        ValueError: labels, levels or choices are missing or contradict each other.
    """
    if isinstance(section, ClassificationTask):
        known = section.labels or labels
        if not known:
            raise ValueError("task.labels is missing; a classification needs its labels")
        for label in section.synonyms:
            if label not in known:
                raise ValueError(f"task.synonyms names {label!r}, which is no label")
        _all_different("labels", known)
        further = {other: label for label, others in section.synonyms.items() for other in others}
        _is_read("labels", {label: label for label in known}, lambda name: read_label(name, known, section.synonyms))
        _is_read("synonyms", further, lambda name: read_label(name, known, section.synonyms))
        return Classification(tuple(known), section.synonyms, order=section.envelope)
    if isinstance(section, GradingTask):
        names = section.levels if isinstance(section.levels, list) else section.names
        count = section.levels if isinstance(section.levels, int) else len(names) if names else levels
        if count is None:
            raise ValueError("task.levels is missing; a grading needs the number of its grades")
        if names and len(names) != count:
            raise ValueError(f"task.names has {len(names)} names for {count} grades")
        if isinstance(section.levels, list) and section.names not in (None, section.levels):
            raise ValueError("task.levels and task.names both name the grades; give one of them")
        _all_different("names", names or ())
        try:
            scale = scale_of(count, names, section.synonyms)
        except ValueError as error:
            raise ValueError(f"task.names or task.synonyms: {error}; rename one") from None
        grades = {grade: scale.grade_called(grade) for grade in section.synonyms}
        if unknown := [grade for grade, called in grades.items() if called is None]:
            raise ValueError(f"task.synonyms names {unknown[0]!r}, which is neither a grade nor the name of one")

        def read(name: str) -> Reading:
            return read_grade(name, count, names, section.synonyms)

        _is_read("names", {name: grade for grade, name in enumerate(names or ())}, read)
        _is_read("synonyms", {other: grades[one] for one, others in section.synonyms.items() for other in others}, read)
        return Grading(count, tuple(names) if names else None, section.synonyms, order=section.envelope)
    if isinstance(section, LocalizationTask):
        if not (section.frame or frame):
            raise ValueError(f"task.frame is missing; expected one of {', '.join(FRAMES)}")
        return Localization(section.frame or frame or "", section.absence, order=section.envelope)
    assert isinstance(section, VqaTask)
    if section.answers == "choice" and len(section.choices) < 2:
        raise ValueError("task.choices needs two or more, each a letter and its text")
    _all_different("choices", section.choices)
    _is_read("choices", {letter: letter for letter in section.choices}, lambda name: read_choice(name, section.choices))
    if unknown := [word for word in section.synonyms if word not in ("yes", "no")]:
        raise ValueError(f"task.synonyms names {unknown[0]!r}; expected 'yes' or 'no'")
    return Vqa(section.answers, section.choices, section.synonyms, order=section.envelope)


def _all_different(key: str, names: Iterable[str]) -> None:
    """Names that readings cannot tell apart would never be read, in silence."""
    seen: dict[str, str] = {}
    for name in names:
        folded = normalise(name)
        if not folded:
            raise ValueError(f"task.{key} has {name!r}, which is no text that an answer could hold")
        if folded in seen:
            raise ValueError(f"task.{key} has {seen[folded]!r} and {name!r}, which are read as the same")
        seen[folded] = name


def _is_read(key: str, meant: Mapping[str, object], read: Callable[[str], Reading]) -> None:
    """A name that is not read as what it stands for would never earn anything."""
    for name, answer in meant.items():
        if read(name).answer != answer:
            fault = "is also a name of another, or no text that an answer could hold; rename it"
            raise ValueError(f"task.{key}: {name!r} {fault}")


def read_section(raw: Mapping[str, Any]) -> Section:
    """Check the plain data of a section.

    Raises:
        ValueError: what is wrong with it, in one sentence.
    """
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in SECTIONS:
        found = "is missing" if kind is None else f"is {kind!r}"
        raise ValueError(f"task.kind {found}; expected one of {', '.join(SECTIONS)}{_near(str(kind), list(SECTIONS))}")
    model = SECTIONS[kind]
    try:
        return TypeAdapter(model).validate_python(dict(raw))
    except ValidationError as error:
        one = error.errors()[0]
        key = ".".join(map(str, one["loc"]))
        if one["type"] == "extra_forbidden":
            keys = [name for name in model.model_fields if name != "question"]
            message = f"task.{key} is no key of a {kind} task; it has {', '.join(keys)}{_near(key, keys)}"
        elif one["type"] == "missing":
            message = f"task.{key} is missing"
        else:
            message = f"task.{key} is {one['input']!r}: {one['msg'][0].lower()}{one['msg'][1:]}"
        raise ValueError(message) from None


def _near(found: str, expected: list[str]) -> str:
    near = nearest(found, expected)
    return f" (did you mean {near!r}?)" if near else ""
