"""The format reward: is the think/answer envelope right?"""

from collections.abc import Sequence
from typing import Any

from vrft.response import parse
from vrft.rewards.columns import Completion, text_of


def format_reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """Pay 1 for exactly one ``<think>`` block and then one ``<answer>`` block, neither empty, and nothing else.

    White space and end-of-turn tokens may stand outside the blocks. Only the completion is looked at, never the
    prompt, so a prompt that shows the envelope earns nothing.

    Args:
        completions: texts or chat messages, length n.
        columns: not used; the reward applies to every task.

    Returns:
        n rewards, each 0.0 or 1.0.

    >>> format_reward(["<think>Round.</think><answer>benign</answer>", "benign"])
    [1.0, 0.0]
    """
    return [0.0 if parse(text_of(completion)).problems else 1.0 for completion in completions]
