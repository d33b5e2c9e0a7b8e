"""The accuracy reward: is the answer right?"""

from collections.abc import Mapping, Sequence
from typing import Any

from vrft.response import Reading
from vrft.rewards.columns import Completion, broadcast, score_completions, tasks_of
from vrft.sample import Target
from vrft.tasks import Task


def accuracy(task: Task, reading: Reading, target: Target) -> float:
    """1.0 where the answer that was read equals the target, else 0.0."""
    return 1.0 if reading.answer is not None and task.matches(reading.answer, target) else 0.0


def accuracy_reward(
    completions: Sequence[Completion],
    target: Any,
    *,
    labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
    synonyms: Mapping[str, Sequence[str]] | Sequence[Mapping[str, Sequence[str]]] | None = None,
    levels: int | Sequence[int] | None = None,
    names: Sequence[str] | Sequence[Sequence[str]] | None = None,
    answers: str | Sequence[str] | None = None,
    choices: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Reward 1 for the right label (give ``labels``), grade (``levels``) or answer to a question (``answers``), else 0.

    The whole answer is compared after case, spaces, hyphens and emphasis are folded; an answer that negates, doubts or
    names two classes earns 0.

    Source: the accuracy reward of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2), with one unmistakable answer.

    Args:
        completions: texts or chat messages, length n.
        target: the true label, grade, ``yes`` or ``no``, letter or text; one value or n.
        labels: all labels of a classification.
        synonyms: further names of labels or grades, or words for yes and no, that count.
        levels: the number of grades, 0 .. levels - 1; by default the number of names.
        names: the names of the grades, lowest first.
        answers: the kind of answer to a question: ``yes_no``, ``choice`` or ``open``.
        choices: for ``choice``, letter -> text.
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n.
        columns: further columns, not used.

    Returns:
        n rewards, each 0.0 or 1.0; None for a sample without a target, or without labels, levels and answers.

    Raises:
        ValueError: a target is not among the labels, grades or choices, or a column has another length.

    >>> accuracy_reward(["<answer>Pneumonia.</answer>", "<answer>not pneumonia</answer>"], "pneumonia",
    ...                 labels=["normal", "pneumonia"])
    [1.0, 0.0]
    >>> accuracy_reward(["<answer>Grade II</answer>"], [2], levels=5)
    [1.0]
    >>> accuracy_reward(["<answer>No, there is no effusion.</answer>"], "no", answers="yes_no")
    [1.0]
    """
    n = len(completions)
    tasks = tasks_of(n, labels=labels, synonyms=synonyms, levels=levels, names=names, answers=answers, choices=choices)
    targets = broadcast(target, n, value_type=(str, int, float))
    return score_completions(completions, targets, tasks, lambda _, *sample: accuracy(*sample), prompt_end=prompt_end)
