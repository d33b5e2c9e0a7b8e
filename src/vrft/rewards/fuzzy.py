"""The multi-grade fuzzy reward (MFRS): partial credit for a near grade on an ordinal scale."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrft.response import Reading
from vrft.rewards.columns import Completion, broadcast, score_completions, tasks_of
from vrft.sample import Target
from vrft.tasks import Task

FUZZY_SCHEDULES: dict[str, Callable[[int], float]] = {
    "table": lambda distance: (1.0, 0.25, 0.1)[distance] if distance < 3 else 0.0,
    "geometric": lambda distance: 0.25**distance,
}
"""The reward by distance from the true grade. The paper states both (0.1 and 0.0625 at distance 2)."""


def fuzzy(reading: Reading, target: int, schedule: str = "table") -> float:
    """The reward of a grade by its distance from the target, in [0, 1]; 0 where no grade was read.

    Raises:
        ValueError: the schedule is unknown.
    """
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
    """Reward by the distance d = |grade read - grade true|: ``table`` 1, 1/4, 1/10, then 0; ``geometric`` 0.25^d.

    Source: medically informed reward shaping (R_MFRS), arXiv 2602.10619.

    Args:
        completions: texts or chat messages, length n.
        target: the true grades, one or n, each in 0 .. levels - 1.
        levels: the number of grades; by default the number of names.
        names: the names of the grades, lowest first.
        synonyms: further names of a grade, by its number written out or by its name.
        schedule: a key of ``FUZZY_SCHEDULES``, one or n.
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n.
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
    tasks, schedules = (
        tasks_of(n, levels=levels, names=names, synonyms=synonyms),
        broadcast(schedule, n, value_type=str),
    )

    def reward(index: int, task: Task, reading: Reading, grade: Target) -> float:
        assert isinstance(grade, int)
        return fuzzy(reading, grade, schedules[index])

    targets = broadcast(target, n, value_type=(str, int, float))
    return score_completions(completions, targets, tasks, reward, prompt_end=prompt_end)
