"""What a chat template writes around the turn of the assistant, told from the template itself."""

from typing import Any

from vrft.errors import PolicyError, first_line
from vrft.response import assistant_turn, envelope_conflict

_ANSWER = "0vrft0"
"""A text that no template holds."""


def render_prompt(processor: Any, messages: list[dict[str, Any]]) -> str:
    """A conversation as text, with what the template writes before the assistant answers.

    Raises:
        PolicyError: there is no chat template, or it cannot be applied.
    """
    return _applied(processor, messages, opens=True)


def _applied(processor: Any, messages: list[dict[str, Any]], *, opens: bool) -> str:
    try:
        return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens))
    except Exception as error:  # a template is a program that comes with the model
        name = getattr(getattr(processor, "tokenizer", processor), "name_or_path", "")
        raise PolicyError(
            f"policy.model{f' {name!r}' if name else ''}: its chat template cannot be applied "
            f"({first_line(error) or type(error).__name__}). Give a model with a chat template, such as an instruct "
            f"model, or a directory that holds its chat_template.jinja."
        ) from None


def prompt_end(processor: Any) -> str:
    """The tag of the envelope that the template opens before the assistant writes, with what follows it.

    Templates of thinking models end the prompt with ``<think>``, so that a completion begins inside the block. A block
    that the template closes itself is none of the policy's: where it writes an empty one, since thinking is switched
    off, nothing is open.

    Returns:
        Such as ``"<think>\\n"``; "" where the template opens none.

    Raises:
        PolicyError: as ``render_prompt``.
    """
    asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    prompt = render_prompt(processor, asked)
    before = _applied(processor, asked, opens=False)
    return assistant_turn("", prompt.removeprefix(before))


def completion_end(processor: Any) -> str:
    """What the template writes after the text of the assistant: the token that ends its turn."""
    turns = [("user", "?"), ("assistant", _ANSWER)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    whole = _applied(processor, messages, opens=False)
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
    if fault := envelope_conflict(end, order):
        raise PolicyError(
            f"policy.model {name!r}: {fault}. Its chat template writes that tag into every prompt. Expected the "
            f"envelope think-answer (task.envelope), without the arms nothink and thinkafter; or a model whose "
            f"template opens no block."
        )
