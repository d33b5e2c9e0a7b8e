"""Helpers of the rewards: the text of a completion, columns of a batch, and the task that columns describe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrft.response import Reading, parse
from vrft.sample import Box, Target
from vrft.tasks import Classification, Grading, Localization, Task, Vqa

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or chat messages, of which the texts of the assistant count."""

_OTHER_ROLES = ("system", "developer", "user", "tool")


def text_of(completion: Any) -> str:
    """Return the text of a completion; a value that is neither a text nor a list of messages has none.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "2"}]}])
    '2'
    """
    if isinstance(completion, str):
        return completion
    texts: list[str] = []
    for message in completion if isinstance(completion, (list, tuple)) else ():
        if not isinstance(message, Mapping) or message.get("role") in _OTHER_ROLES:
            continue
        content = message.get("content")
        for part in [content] if isinstance(content, str) else content if isinstance(content, (list, tuple)) else ():
            text = part.get("text") if isinstance(part, Mapping) else part
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts)


def broadcast(value: Any, count: int, *, value_type: type | tuple[type, ...]) -> list[Any]:
    """Return a column of ``count`` values: a single value is repeated, a list of values is taken as it is.

    A list counts as a single value of ``value_type`` only when its members are no values themselves: the labels
    ``["a", "b"]`` are one value, ``[["a", "b"], ["a", "b"]]`` are two.

    Raises:
        ValueError: the list has another length than there are completions.
    """
    several = _is_list(value) and any(member is None or _is_list(member) for member in value)
    if value is None or (isinstance(value, value_type) and not several):
        return [value] * count
    return _column(value, count)


def prompt_ends(value: Any, count: int) -> list[str]:
    """Return the end of the prompt of each of ``count`` completions; a missing end is the empty text.

    Raises:
        ValueError: the list has another length than there are completions, or a member is no text.
    """
    single = isinstance(value, str) or is_missing(value)
    ends = ["" if is_missing(end) else end for end in ([value] * count if single else _column(value, count))]
    for end in ends:
        if not isinstance(end, str):
            raise ValueError(f"prompt_end is {end!r}; expected a text, such as '<think>'")
    return ends


def broadcast_boxes(value: Any, count: int) -> list[Any]:
    """Return a column of ``count`` targets, each a list of boxes: a single list is repeated.

    >>> broadcast_boxes([[1, 2, 3, 4]], 2)
    [[[1, 2, 3, 4]], [[1, 2, 3, 4]]]
    >>> broadcast_boxes([[[1, 2, 3, 4]], []], 2)
    [[[1, 2, 3, 4]], []]
    """
    if not _is_list(value):
        return [value] * count
    is_single = all(_is_list(box) and box and not _is_list(box[0]) for box in value)  # true of an empty list as well
    return [value] * count if is_single and (value or count) else _column(value, count)


def _column(values: Any, count: int) -> list[Any]:
    if len(values) != count:
        raise ValueError(
            f"a column holds {len(values)} values for {count} completions; give one value, or one for each"
        )
    return list(values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_missing(value: Any) -> bool:
    """Whether a cell of a column is empty: None, or NaN as tables write it."""
    return value is None or (isinstance(value, float) and value != value)


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
    """Return the task that the columns describe for each of ``count`` completions; None where they describe none."""
    columns = zip(
        broadcast(labels, count, value_type=(list, tuple)),
        broadcast(synonyms, count, value_type=Mapping),
        broadcast(levels, count, value_type=(int, float)),
        broadcast(names, count, value_type=(list, tuple)),
        broadcast(answers, count, value_type=str),
        broadcast(choices, count, value_type=Mapping),
        strict=True,
    )
    return [_task(*row) for row in columns]


def _task(labels: Any, synonyms: Any, levels: Any, names: Any, answers: Any, choices: Any) -> Task | None:
    if answers or choices:  # in the rows of a table, choices that a question lacks are None
        given = {letter: text for letter, text in (choices or {}).items() if text is not None}
        return Vqa(answers or "choice", given, synonyms or {})
    if labels:
        return Classification(labels, synonyms or {})
    if is_missing(levels):
        levels = len(names) if names else None
    return Grading(int(levels), names, synonyms or {}) if levels else None


def short_repr(value: Any) -> str:
    """The ``repr`` of a value for a message, cut at 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def score_completions(
    completions: Sequence[Any],
    targets: Sequence[Any],
    tasks: Sequence[Task | None],
    reward: Callable[[int, Task, Reading, Target], float],
    sizes: Sequence[tuple[Any, Any]] | None = None,
    prompt_end: Any = "",
) -> list[float | None]:
    """Read each completion and compute its reward; None where a sample has no task or no target.

    Args:
        completions: texts or chat messages, length n.
        targets: n targets.
        tasks: n tasks.
        reward: maps the index, the task, the reading and the checked target to the reward.
        sizes: n pairs of the sizes of the image, original and processed; only boxes need them.
        prompt_end: the end of the prompts, one text or n.

    Raises:
        ValueError: a target is not valid for its task.
    """
    rewards: list[float | None] = []
    ends = prompt_ends(prompt_end, len(completions))
    for index, (completion, true, task) in enumerate(zip(completions, targets, tasks, strict=True)):
        if task is None or is_missing(true):
            rewards.append(None)
            continue
        size, processed = sizes[index] if sizes else (None, None)
        target = task.check_target(true, size)
        reading = task.read_answer(parse(text_of(completion), prompt_end=ends[index]), size, processed)
        rewards.append(reward(index, task, reading, target))
    return rewards


def score_boxes(
    completions: Sequence[Any],
    target: Any,
    reward: Callable[[Reading, Sequence[Box]], float],
    *,
    frame: Any,
    image_size: Any,
    processed_size: Any,
    prompt_end: Any,
) -> list[float | None]:
    """``score_completions`` for localization: ``reward`` maps the reading and the true boxes to a number.

    Raises:
        ValueError: a target is no list of boxes, or a size is missing.
    """
    n = len(completions)
    tasks = [Localization(name) if name else None for name in broadcast(frame, n, value_type=str)]
    originals, processed = (broadcast(size, n, value_type=(list, tuple)) for size in (image_size, processed_size))

    def of_sample(_: int, task: Task, reading: Reading, boxes: Target) -> float:
        return reward(reading, boxes if isinstance(boxes, tuple) else ())

    sizes = list(zip(originals, processed, strict=True))
    return score_completions(completions, broadcast_boxes(target, n), tasks, of_sample, sizes, prompt_end)
