"""The accuracy reward: is the answer right?"""

from collections.abc import Mapping, Sequence
from typing import Any

from vrft.response import parse, read_grade, read_label
from vrft.rewards.columns import Completion, spread, text_of


def accuracy_reward(
    completions: Sequence[Completion],
    target: Any,
    *,
    labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
    synonyms: Mapping[str, Sequence[str]] | Sequence[Mapping[str, Sequence[str]]] | None = None,
    levels: int | Sequence[int] | None = None,
    names: Sequence[str] | Sequence[Sequence[str]] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Pay 1 for the right answer: a label (give ``labels``) or a grade (give ``levels``), else 0.

    The whole answer is compared after case, spaces, hyphens and emphasis are folded; an answer that negates, doubts or
    names two classes earns nothing.

    Args:
        completions: texts or chat messages, length n.
        target: the true label or grade, one or n of them.
        labels: all labels of a classification.
        synonyms: further names of labels that count.
        levels: how many grades the scale has, 0 .. levels - 1.
        names: the names of the grades, lowest first.
        columns: further columns, not used.

    Returns:
        n rewards, each 0.0 or 1.0; None for a sample that has neither labels nor levels.

    >>> accuracy_reward(["<answer>Pneumonia.</answer>", "<answer>not pneumonia</answer>"], "pneumonia",
    ...                 labels=["normal", "pneumonia"])
    [1.0, 0.0]
    >>> accuracy_reward(["<answer>Grade II</answer>"], [2], levels=5)
    [1.0]
    """
    n = len(completions)
    rewards: list[float | None] = []
    for completion, true, listed, others, scale, named in zip(
        completions,
        spread(target, n, one=(str, int)),
        spread(labels, n, one=(list, tuple)),
        spread(synonyms, n, one=Mapping),
        spread(levels, n, one=int),
        spread(names, n, one=(list, tuple)),
        strict=True,
    ):
        if listed:
            reading = read_label(parse(text_of(completion)).answer, listed, others)
        elif scale:
            reading = read_grade(parse(text_of(completion)).answer, scale, named)
        else:
            rewards.append(None)
            continue
        rewards.append(1.0 if reading.answer is not None and reading.answer == true else 0.0)
    return rewards
