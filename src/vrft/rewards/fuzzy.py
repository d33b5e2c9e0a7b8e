"""The multi-grade fuzzy reward (MFRS): a near miss on an ordinal scale is worth something."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrft.response import Reading
from vrft.rewards.columns import Completion, pay, spread, tasks_of
from vrft.sample import Target
from vrft.tasks import Task

FUZZY_SCHEDULES: dict[str, Callable[[int], float]] = {
    "table": lambda distance: (1.0, 0.25, 0.1)[distance] if distance < 3 else 0.0,
    "geometric": lambda distance: 0.25**distance,
}
"""What a grade at a distance from the true one earns. The paper states both (0.1 and 0.0625 at distance 2)."""


def fuzzy(reading: Reading, target: int, schedule: str = "table") -> float:
    """What a grade earns by its distance from the target; 0 where none was read."""
    if schedule not in FUZZY_SCHEDULES:
        raise ValueError(f"the schedule is {schedule!r}; expected one of {', '.join(FUZZY_SCHEDULES)}")
    return FUZZY_SCHEDULES[schedule](abs(reading.answer - target)) if isinstance(reading.answer, int) else 0.0


def fuzzy_reward(
    completions: Sequence[Completion],
    target: Any,
    *,
    levels: int | Sequence[int] | None = None,
    names: Sequence[str] | Sequence[Sequence[str]] | None = None,
    synonyms: Mapping[str, Sequence[str]] | Sequence[Mapping[str, Sequence[str]]] | None = None,
    schedule: str | Sequence[str] = "table",
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Pay by the distance d = |grade read - grade true|: ``table`` 1, 1/4, 1/10, then 0; ``geometric`` 0.25^d.

    Source: medically informed reward shaping (R_MFRS), arXiv 2602.10619.

    Args:
        completions: texts or chat messages, length n.
        target: the true grades, one or n, each in 0 .. levels - 1.
        levels: how many grades the scale has; without it as many as there are names.
        names: the names of the grades, lowest first.
        synonyms: further names of a grade, by its number written out or by its name.
        schedule: a key of ``FUZZY_SCHEDULES``.
        prompt_end: what the chat template opens the assistant's turn with, one text or n (``format_reward``).
        columns: further columns, not used.

    Returns:
        n rewards in [0, 1]; 0.0 where no single grade of the scale is read, None for a sample without ``levels`` or
        without a true grade.

    Raises:
        ValueError: a true grade is off the scale, or the schedule is unknown.

    >>> written = [f"<answer>{text}</answer>" for text in ("2", "3", "4", "2 or 3")]
    >>> fuzzy_reward(written, 2, levels=5)
    [1.0, 0.25, 0.1, 0.0]
    >>> fuzzy_reward(written, 2, levels=5, schedule="geometric")
    [1.0, 0.25, 0.0625, 0.0]
    """
    n = len(completions)
    tasks, schedules = tasks_of(n, levels=levels, names=names, synonyms=synonyms), spread(schedule, n, one=str)

    def reward(index: int, task: Task, reading: Reading, grade: Target) -> float:
        assert isinstance(grade, int)
        return fuzzy(reading, grade, schedules[index])

    return pay(completions, spread(target, n, one=(str, int, float)), tasks, reward, prompt_end=prompt_end)
