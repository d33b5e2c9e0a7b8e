"""What the rewards share: texts of completions, columns of one value or one for each, and the task they describe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrft.response import Reading, parse
from vrft.sample import Target
from vrft.tasks import Classification, Grading, Localization, Task, Vqa

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or chat messages; of messages the assistant's texts count."""


_NOT_THE_POLICY = ("system", "developer", "user", "tool")


def text_of(completion: Any) -> str:
    """Return the text of a completion; what is neither a text nor messages has none.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "2"}]}])
    '2'
    """
    if isinstance(completion, str):
        return completion
    texts: list[str] = []
    for message in completion if isinstance(completion, (list, tuple)) else ():
        if not isinstance(message, Mapping) or message.get("role") in _NOT_THE_POLICY:
            continue
        content = message.get("content")
        for part in [content] if isinstance(content, str) else content if isinstance(content, (list, tuple)) else ():
            text = part.get("text") if isinstance(part, Mapping) else part
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts)


def spread(value: Any, count: int, *, one: type | tuple[type, ...]) -> list[Any]:
    """Return a column of ``count`` values: ``value`` itself for each, or, of a list of values, its own.

    ``one`` is the type of a single value. A list is one value only when its members are no values themselves: the
    labels ``["a", "b"]`` are one value, ``[["a", "b"], ["a", "b"]]`` are two.

    Raises:
        ValueError: the list has another length than there are completions.
    """
    several = _is_list(value) and any(member is None or _is_list(member) for member in value)
    if value is None or (isinstance(value, one) and not several):
        return [value] * count
    return _one_each(value, count)


def prompt_ends(value: Any, count: int) -> list[str]:
    """How the prompt of each of ``count`` completions ends; a missing one is empty.

    Raises:
        ValueError: the list has another length than there are completions, or holds what is no text.
    """
    if isinstance(value, str) or is_missing(value):
        return ["" if is_missing(value) else value] * count
    ends = ["" if is_missing(end) else end for end in spread(value, count, one=str)]
    for end in ends:
        if not isinstance(end, str):
            raise ValueError(f"prompt_end is {end!r}; expected a text, such as '<think>'")
    return ends


def spread_boxes(value: Any, count: int) -> list[Any]:
    """Return a column of ``count`` targets, each a list of boxes: ``value`` itself for each, or its own.

    >>> spread_boxes([[1, 2, 3, 4]], 2)
    [[[1, 2, 3, 4]], [[1, 2, 3, 4]]]
    >>> spread_boxes([[[1, 2, 3, 4]], []], 2)
    [[[1, 2, 3, 4]], []]
    """
    if not _is_list(value):
        return [value] * count
    of_boxes = all(_is_list(box) and box and not _is_list(box[0]) for box in value)  # of an empty list as well
    return [value] * count if of_boxes and (value or count) else _one_each(value, count)


def _one_each(value: Any, count: int) -> list[Any]:
    if len(value) != count:
        raise ValueError(f"a column holds {len(value)} values for {count} completions; give one value, or one for each")
    return list(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def tasks_of(
    count: int,
    *,
    labels: Any = None,
    synonyms: Any = None,
    levels: Any = None,
    names: Any = None,
    answers: Any = None,
    choices: Any = None,
) -> list[Task | None]:
    """The task of each of ``count`` completions, told from its columns; None where they describe none."""
    columns = zip(
        spread(labels, count, one=(list, tuple)),
        spread(synonyms, count, one=Mapping),
        spread(levels, count, one=(int, float)),
        spread(names, count, one=(list, tuple)),
        spread(answers, count, one=str),
        spread(choices, count, one=Mapping),
        strict=True,
    )
    return [_task(*row) for row in columns]


def _task(labels: Any, synonyms: Any, levels: Any, names: Any, answers: Any, choices: Any) -> Task | None:
    if answers or choices:
        given = {letter: text for letter, text in (choices or {}).items() if text is not None}  # rows of one table
        return Vqa(answers or "choice", given, synonyms or {})
    if labels:
        return Classification(labels, synonyms or {})
    if is_missing(levels):
        levels = len(names) if names else None
    return Grading(int(levels), names, synonyms or {}) if levels else None


def localizations_of(
    count: int, *, frame: Any, image_size: Any, processed_size: Any
) -> tuple[list[Localization | None], list[tuple[Any, Any]]]:
    """The localization task of each of ``count`` completions, and the sizes (original, processed) of its image."""
    tasks = [Localization(spoken) if spoken else None for spoken in spread(frame, count, one=str)]
    of_image, processed = (spread(column, count, one=(list, tuple)) for column in (image_size, processed_size))
    return tasks, list(zip(of_image, processed, strict=True))


def is_missing(value: Any) -> bool:
    """Whether a column holds nothing: None, or NaN as tables write it."""
    return value is None or (isinstance(value, float) and value != value)


def pay(
    completions: Sequence[Any],
    targets: Sequence[Any],
    tasks: Sequence[Task | None],
    reward: Callable[[int, Task, Reading, Target], float],
    sizes: Sequence[tuple[Any, Any]] | None = None,
    prompt_end: Any = "",
) -> list[float | None]:
    """Read each completion and pay for it; None where a sample has no task or no target.

    Args:
        completions: texts or chat messages, length n.
        targets: n targets.
        tasks: n tasks.
        reward: from the position, the task, what was read and the checked target to a number.
        sizes: n pairs of the sizes of the image, original and processed; only boxes need them.
        prompt_end: how the prompts end, one text or n of them.

    Raises:
        ValueError: a target is none of its task.
    """
    paid: list[float | None] = []
    ends = prompt_ends(prompt_end, len(completions))
    for index, (completion, true, task) in enumerate(zip(completions, targets, tasks, strict=True)):
        if task is None or is_missing(true):
            paid.append(None)
            continue
        size, processed = sizes[index] if sizes else (None, None)
        target = task.check_target(true, size)
        reading = task.read_answer(parse(text_of(completion), prompt_end=ends[index]), size, processed)
        paid.append(reward(index, task, reading, target))
    return paid
