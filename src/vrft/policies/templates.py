"""The texts that a chat template writes before and after the turn of the assistant."""

from typing import Any

from vrft.errors import PolicyError, first_line
from vrft.response import assistant_turn, envelope_conflict

_ANSWER = "0vrft0"
"""A text that no template contains."""


def render_prompt(processor: Any, messages: list[dict[str, Any]]) -> str:
    """Render a conversation as text, up to the beginning of the assistant's answer.

    Raises:
        PolicyError: the chat template is missing or cannot be applied.
    """
    return _apply(processor, messages, add_generation_prompt=True)


def _apply(processor: Any, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    try:
        return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # a template is a program that comes with the model
        name = getattr(getattr(processor, "tokenizer", processor), "name_or_path", "")
        raise PolicyError(
            f"policy.model{f' {name!r}' if name else ''}: its chat template cannot be applied "
            f"({first_line(error) or type(error).__name__}). Give a model with a chat template, such as an instruct "
            f"model, or a directory that holds its chat_template.jinja."
        ) from None


def prompt_end(processor: Any) -> str:
    """The tag of the envelope that the template opens before the assistant writes, and the text after it.

    Templates of thinking models end the prompt with ``<think>``, so that a completion begins inside the block. A block
    that the template closes itself, such as an empty block where thinking is switched off, does not count.

    Returns:
        A text such as ``"<think>\\n"``; "" where the template opens no tag.

    Raises:
        PolicyError: as ``render_prompt``.
    """
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    user_turn = _apply(processor, messages, add_generation_prompt=False)
    return assistant_turn("", render_prompt(processor, messages).removeprefix(user_turn))


def completion_end(processor: Any) -> str:
    """The text that the template writes after the text of the assistant: the token that ends its turn."""
    turns = [("user", "?"), ("assistant", _ANSWER)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    return _apply(processor, messages, add_generation_prompt=False).rpartition(_ANSWER)[2]


def check_envelope(name: str, end: str, order: str) -> None:
    """Check that completions can have the envelope of a task.

    Args:
        name: the name of the policy, for the message.
        end: its ``prompt_end``.
        order: a key of ``vrft.response.ORDERS``.

    Raises:
        PolicyError: the template opens a block that is not the first block of the order.
    """
    if conflict := envelope_conflict(end, order):
        raise PolicyError(
            f"policy.model {name!r}: {conflict}. Its chat template writes that tag into every prompt. Expected the "
            f"envelope think-answer (task.envelope), without the arms nothink and thinkafter; or a model whose "
            f"template opens no block."
        )
