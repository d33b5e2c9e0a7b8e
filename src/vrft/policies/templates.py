"""What a chat template writes around the turn of the assistant, told from the template itself."""

from typing import Any

from vrft.errors import PolicyError
from vrft.response import cannot_open, whole_turn

_ANSWER = "0vrft0"
"""A text that no template holds."""


def render_prompt(processor: Any, messages: list[dict[str, Any]]) -> str:
    """A conversation as text, with what the template writes before the assistant answers."""
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def prompt_end(processor: Any) -> str:
    """The tag of the envelope that the template opens before the assistant writes, with what follows it.

    Templates of thinking models end the prompt with ``<think>``, so that a completion begins inside the block. A block
    that the template closes itself is none of the policy's: where it writes an empty one, since thinking is switched
    off, nothing is open.

    Returns:
        Such as ``"<think>\\n"``; "" where the template opens none.
    """
    asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    prompt = render_prompt(processor, asked)
    before = str(processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=False))
    return whole_turn("", prompt.removeprefix(before))


def completion_end(processor: Any) -> str:
    """What the template writes after the text of the assistant: the token that ends its turn."""
    turns = [("user", "?"), ("assistant", _ANSWER)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    whole = str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    return whole.rpartition(_ANSWER)[2]


def check_envelope(name: str, end: str, order: str) -> None:
    """Make sure that completions can have the envelope that is asked for.

    Args:
        name: of the policy, for the message.
        end: its ``prompt_end``.
        order: a key of ``vrft.response.ORDERS``.

    Raises:
        PolicyError: the template opens a block that does not come first in the order.
    """
    if fault := cannot_open(end, order):
        raise PolicyError(
            f"policy.model {name!r}: {fault}. Its chat template writes that tag into every prompt. Expected the "
            f"envelope think-answer (task.envelope), without the arms nothink and thinkafter; or a model whose "
            f"template opens no block."
        )
