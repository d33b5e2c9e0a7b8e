"""The section ``task`` of a recipe and of a line of ``vrft score``: typed; unknown keys are errors."""

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
    question: str | None = None
    """The question; without it that of the data."""


class ClassificationTask(_TaskSection):
    """One label of a closed list."""

    kind: Literal["classification"]
    labels: Annotated[list[Name], Field(min_length=1)] | None = None
    """The labels in the order of the prompt; without it those of the data."""
    synonyms: dict[str, list[str]] = {}
    """Further names of a label that an answer may use."""


class GradingTask(_TaskSection):
    """One grade of an ordinal scale, from 0."""

    kind: Literal["grading"]
    levels: Annotated[int, Field(ge=2, le=1000)] | Annotated[list[Name], Field(min_length=2)] | None = None
    """The number of grades, or their names; without it those of the data, or as many as there are names."""
    names: Annotated[list[Name], Field(min_length=2)] | None = None
    """Names of the grades, lowest first, shown in the prompt and accepted as answers."""
    synonyms: dict[str, list[str]] = {}
    """Further names of a grade (its number in quotes, or its name) that an answer may use."""


class LocalizationTask(_TaskSection):
    """Boxes of the findings."""

    kind: Literal["localization"]
    frame: Literal[*FRAMES] | None = None  # type: ignore[valid-type]
    """The coordinates that the policy writes, x first; in a recipe, without it, those of its family."""
    absence: bool = False
    """Say in the prompt that an empty list means that there is no finding."""


class VqaTask(_TaskSection):
    """A question about the image."""

    kind: Literal["vqa"]
    answers: Literal[*ANSWERS]  # type: ignore[valid-type]
    """Yes or no, the letter of a choice, or a text."""
    choices: dict[Name, Name] = {}
    """For `choice`: letter and text."""
    synonyms: dict[str, list[str]] = {}
    """For `yes_no`: further words for `yes` and `no`."""


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
        section: an instance of one of ``SECTIONS``.
        labels: the labels of the data, for a classification section without labels.
        levels: the number of grades in the data, for a grading section without levels.
        frame: the frame of the policy's family, for a localization section without a frame.

    Raises:
        ValueError: labels, levels or choices are missing or contradict each other.
    """
    if isinstance(section, ClassificationTask):
        return _classification(section, section.labels or labels)
    if isinstance(section, GradingTask):
        return _grading(section, levels)
    if isinstance(section, LocalizationTask):
        if not (section.frame or frame):
            raise ValueError(f"task.frame is missing; expected one of {', '.join(FRAMES)}")
        return Localization(section.frame or frame or "", section.absence, order=section.envelope)
    assert isinstance(section, VqaTask)
    choices = section.choices
    if section.answers == "choice" and len(choices) < 2:
        raise ValueError("task.choices needs two or more, each a letter and its text")
    _check_distinct("choices", choices)
    _check_read("choices", {letter: letter for letter in choices}, lambda name: read_choice(name, choices))
    if unknown := [word for word in section.synonyms if word not in ("yes", "no")]:
        raise ValueError(f"task.synonyms names {unknown[0]!r}; expected 'yes' or 'no'")
    return Vqa(section.answers, choices, section.synonyms, order=section.envelope)


def _classification(section: ClassificationTask, labels: Sequence[str] | None) -> Classification:
    if not labels:
        raise ValueError("task.labels is missing; a classification needs its labels")
    for label in section.synonyms:
        if label not in labels:
            raise ValueError(f"task.synonyms names {label!r}, which is no label")
    _check_distinct("labels", labels)
    synonyms = {name: label for label, names in section.synonyms.items() for name in names}
    for key, expected in (("labels", {label: label for label in labels}), ("synonyms", synonyms)):
        _check_read(key, expected, lambda name: read_label(name, labels, section.synonyms))
    return Classification(tuple(labels), section.synonyms, order=section.envelope)


def _grading(section: GradingTask, levels: int | None) -> Grading:
    names = section.levels if isinstance(section.levels, list) else section.names
    count = section.levels if isinstance(section.levels, int) else len(names) if names else levels
    if count is None:
        raise ValueError("task.levels is missing; a grading needs the number of its grades")
    if names and len(names) != count:
        raise ValueError(f"task.names has {len(names)} names for {count} grades")
    if isinstance(section.levels, list) and section.names not in (None, section.levels):
        raise ValueError("task.levels and task.names both name the grades; give one of them")
    _check_distinct("names", names or ())
    try:
        scale = scale_of(count, names, section.synonyms)
    except ValueError as error:
        raise ValueError(f"task.names or task.synonyms: {error}; rename one") from None
    grades = {owner: scale.grade_called(owner) for owner in section.synonyms}
    if unknown := [owner for owner, grade in grades.items() if grade is None]:
        raise ValueError(f"task.synonyms names {unknown[0]!r}, which is neither a grade nor the name of one")
    synonyms = {name: grades[owner] for owner, others in section.synonyms.items() for name in others}
    for key, expected in (("names", {name: grade for grade, name in enumerate(names or ())}), ("synonyms", synonyms)):
        _check_read(key, expected, lambda name: read_grade(name, count, names, section.synonyms))
    return Grading(count, tuple(names) if names else None, section.synonyms, order=section.envelope)


def _check_distinct(key: str, names: Iterable[str]) -> None:
    """Refuse names that are equal after folding, or empty: they would never be read."""
    seen: dict[str, str] = {}
    for name in names:
        folded = normalise(name)
        if not folded:
            raise ValueError(f"task.{key} has {name!r}, which is no text that an answer could hold")
        if folded in seen:
            raise ValueError(f"task.{key} has {seen[folded]!r} and {name!r}, which are read as the same")
        seen[folded] = name


def _check_read(key: str, expected: Mapping[str, object], read: Callable[[str], Reading]) -> None:
    """Refuse a name that is not read as its label, grade or choice: it would never earn a reward."""
    for name, answer in expected.items():
        if read(name).answer != answer:
            fault = "is also a name of another, or no text that an answer could hold; rename it"
            raise ValueError(f"task.{key}: {name!r} {fault}")


def read_section(raw: Mapping[str, Any]) -> Section:
    """Check the plain data of a section and return the typed section.

    Raises:
        ValueError: the data is not valid; the message names the first fault.
    """
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in SECTIONS:
        found = "is missing" if kind is None else f"is {kind!r}"
        raise ValueError(f"task.kind {found}; expected one of {', '.join(SECTIONS)}{_near(str(kind), list(SECTIONS))}")
    model = SECTIONS[kind]
    try:
        return TypeAdapter(model).validate_python(dict(raw))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            keys = [name for name in model.model_fields if name != "question"]
            message = f"task.{key} is no key of a {kind} task; it has {', '.join(keys)}{_near(key, keys)}"
        elif fault["type"] == "missing":
            message = f"task.{key} is missing"
        else:
            message = f"task.{key} is {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
        raise ValueError(message) from None


def _near(found: str, expected: list[str]) -> str:
    near = nearest(found, expected)
    return f" (did you mean {near!r}?)" if near else ""
