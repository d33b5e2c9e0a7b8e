"""What the rewards share: the text of a completion, and columns that hold one value or one for each completion."""

from collections.abc import Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or chat messages; of messages the assistant's texts count."""


def text_of(completion: Completion) -> str:
    """Return the text of a completion.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "2"}]}])
    '2'
    """
    if isinstance(completion, str):
        return completion
    texts: list[str] = []
    for message in completion:
        if message.get("role", "assistant") != "assistant":
            continue
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else content
        texts.extend(part if isinstance(part, str) else (part or {}).get("text") or "" for part in parts)
    return "".join(texts)


def spread(value: Any, count: int, *, one: type | tuple[type, ...]) -> list[Any]:
    """Return a column of ``count`` values: ``value`` itself for each, or, of a list of values, its own.

    ``one`` is the type of a single value. A list is one value only when its members are no values themselves: the
    labels ``["a", "b"]`` are one value, ``[["a", "b"], ["a", "b"]]`` are two.

    Raises:
        ValueError: the list has another length than there are completions.
    """
    several = _is_list(value) and any(member is None or _is_list(member) for member in value)
    if value is None or (isinstance(value, one) and not several):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"a column holds {len(value)} values for {count} completions; give one value, or one for each")
    return list(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
