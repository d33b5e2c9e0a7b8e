"""The format reward: is the think/answer envelope right?"""

from collections.abc import Sequence
from typing import Any

from vrft.response import ORDERS, parse
from vrft.rewards.columns import Completion, prompt_ends, text_of


def format_reward(
    completions: Sequence[Completion],
    *,
    order: str = "think-answer",
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Reward 1 for exactly one block of each kind, in the right order, none empty, and nothing else; otherwise 0.

    White space and end-of-turn tokens may stand outside the blocks. Of the prompt only a tag counts that its
    end leaves open (``prompt_end``), so a prompt that shows the envelope earns nothing.

    Source: the format reward of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2), with the whole completion matched.

    Args:
        completions: texts or chat messages, length n.
        order: ``think-answer``, ``answer-think`` (reasons after the answer) or ``no-think`` (the answer alone).
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n:
            ``"<think>\\n"`` for most thinking models, whose completions begin inside the block.
        columns: not used; the reward applies to every task.

    Returns:
        n rewards, each 0.0 or 1.0.

    Raises:
        ValueError: the order is unknown, or a column has another length.

    >>> format_reward(["<think>Round.</think><answer>benign</answer>", "benign"])
    [1.0, 0.0]
    >>> format_reward(["<answer>benign</answer>"], order="no-think")
    [1.0]
    >>> format_reward(["Round.</think><answer>benign</answer>"], prompt_end="<think>\\n")
    [1.0]
    """
    if order not in ORDERS:
        raise ValueError(f"the order is {order!r}; expected one of {', '.join(ORDERS)}")
    ends = prompt_ends(prompt_end, len(completions))
    pairs = zip(completions, ends, strict=True)
    return [0.0 if parse(text_of(completion), order, end).problems else 1.0 for completion, end in pairs]
