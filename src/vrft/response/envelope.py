"""The think/answer envelope: parsing and writing completions.

>>> parse("<think>Round.</think><answer>benign</answer>")
Envelope(think='Round.', answer='benign', problems=())
>>> parse("<answer>benign</answer> because").problems
('no_think', 'text_outside')
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from vrft.response.words import INVISIBLE, MAX_CHARACTERS, normalise

INSTRUCTIONS = {
    "think-answer": "Think inside <think></think>, then give only the answer inside <answer></answer>.",
    "answer-think": "Give only the answer inside <answer></answer>, then the reasons inside <think></think>.",
    "no-think": "Give only the answer inside <answer></answer>.",
}
"""The sentence that asks for the envelope, by order; every prompt ends with it."""

ENVELOPE_INSTRUCTION = INSTRUCTIONS["think-answer"]
"""The sentence for the default order."""

ORDERS = {
    "think-answer": ("think", "answer"),
    "answer-think": ("answer", "think"),
    "no-think": ("answer",),
}
"""The blocks of a correct envelope, in order, by the name of the order."""

END_OF_TURN = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|eom_id|>",
    "<|EOT|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<pad>",
    "<s>",
    "<bos>",
)
"""Tokens with which chat models begin and end a turn; they may stand outside the envelope."""

_TAG = re.compile(r"<\s{0,3}(/?)\s{0,3}(think|answer)\s{0,3}>", re.IGNORECASE)
_END_OF_TURN = re.compile("|".join(map(re.escape, END_OF_TURN)))
_BROKEN_TAG = re.compile(r"<(?:/(?:a(?:n(?:s(?:w(?:er?)?)?)?)?)?)?\Z")
_WELL_FORMED = re.compile(
    r"\s*<think>([^<\u200b-\u200d\u2060\ufeff]*)</think>\s*<answer>([^<\u200b-\u200d\u2060\ufeff]*)</answer>\s*"
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed completion.

    ``think`` and ``answer`` are the stripped texts inside the tags, or None where there is no such block. ``problems``
    are short codes of the faults of the envelope; it is empty exactly when the format is correct.
    """

    think: str | None
    answer: str | None
    problems: tuple[str, ...]
    answers: tuple[str, ...] = field(default=(), repr=False)
    """The texts of all answer blocks where there are several; they may have the same meaning."""

    @property
    def cut(self) -> bool:
        """Whether the answer runs to the end of the completion, so that its last characters may be missing."""
        return "answer_not_closed" in self.problems


def render(think: str, answer: str, order: str = "think-answer", prompt_end: str = "") -> str:
    """Write a completion in the envelope of an order: the inverse of ``parse``.

    Args:
        think: the text of the think block; not used where the order has none.
        answer: the text of the answer block.
        order: a key of ``ORDERS``.
        prompt_end: the end of the prompt, as for ``parse``; a tag that it leaves open is not repeated.

    Raises:
        ValueError: the prompt leaves a block open that does not come first in the order.

    >>> render("Round.", "benign", "answer-think"), render("Round.", "benign", "no-think")
    ('<answer>benign</answer><think>Round.</think>', '<answer>benign</answer>')
    >>> render("Round.", "benign", prompt_end="<think>\\n")
    'Round.</think><answer>benign</answer>'
    """
    if conflict := envelope_conflict(prompt_end, order):
        raise ValueError(conflict)
    texts = {"think": think, "answer": answer}
    written = "".join(f"<{block}>{texts[block]}</{block}>" for block in ORDERS[order])
    return written.removeprefix(_open_tag(prompt_end)[0])


def envelope_conflict(prompt_end: str, order: str) -> str:
    """Say why no completion after this end of a prompt can have the correct envelope; "" where it can.

    >>> envelope_conflict("<think>\\n", "no-think")
    'the prompt leaves <think> open, and the envelope no-think begins with <answer>'
    """
    tag, first = _open_tag(prompt_end)[0], f"<{ORDERS[order][0]}>"
    return (
        f"the prompt leaves {tag} open, and the envelope {order} begins with {first}" if tag not in ("", first) else ""
    )


def assistant_turn(completion: str, prompt_end: str = "") -> str:
    """The text of the assistant's turn: the tag that the prompt leaves open, if any, and the completion.

    Chat templates of thinking models end the prompt with ``<think>``, so that a completion begins inside the block.
    A block that the template closes itself does not count, such as the empty think block of a model whose thinking is
    switched off; neither does a tag before the end of an earlier turn.

    >>> assistant_turn("Round.</think><answer>benign</answer>", "<|im_start|>assistant\\n<think>\\n")
    '<think>\\nRound.</think><answer>benign</answer>'
    >>> assistant_turn("<answer>benign</answer>", "<think>\\n\\n</think>\\n\\n")
    '<answer>benign</answer>'
    """
    return "".join((*_open_tag(prompt_end), completion)) if prompt_end else completion


@lru_cache(maxsize=64)
def _open_tag(prompt_end: str) -> tuple[str, str]:
    """The tag that is open at the end of a prompt, in its usual spelling, and the text after it; else ("", "")."""
    tags = list(_TAG.finditer(prompt_end))
    if not tags or tags[-1][1] or _END_OF_TURN.search(prompt_end, tags[-1].end()):
        return "", ""
    return f"<{_kind(tags[-1])}>", prompt_end[tags[-1].end() :]


def parse(completion: str, order: str = "think-answer", prompt_end: str = "") -> Envelope:
    """Parse a completion; no text makes it fail, and the time is linear in its length.

    Tags inside a closed ``<think>`` block are ignored: a policy that writes about ``<answer>`` tags has not answered
    yet. A block that is never closed ends where the other kind begins, or at the end.

    Args:
        completion: the text of the policy, without the prompt.
        order: a key of ``ORDERS``; it decides which faults are problems, but changes no text that is read.
        prompt_end: the beginning of the assistant's turn that the chat template writes, such as ``<think>`` and a
            line break. The envelope is that of ``assistant_turn``.

    >>> parse("Round.</think><answer>benign</answer>", prompt_end="<think>\\n")
    Envelope(think='Round.', answer='benign', problems=())
    """
    if prompt_end:
        completion = assistant_turn(completion, prompt_end)
    if order == "think-answer" and (matched := _WELL_FORMED.fullmatch(completion)):
        think, answer = matched[1].strip(), matched[2].strip()
        if think and answer:
            return Envelope(think, answer, ())
    blocks, outside, problems = _blocks(completion)
    contents = {
        name: [_strip_end(_TAG.sub("", body)).strip() for kind, body in blocks if kind == name]
        for name in ("think", "answer")
    }
    wanted = ORDERS[order]
    for name in ("think", "answer"):
        if name not in wanted:
            if contents[name]:
                problems[f"unwanted_{name}"] = None
        elif not contents[name]:
            problems[f"no_{name}"] = None
        elif len(contents[name]) > 1:
            problems[f"several_{name}s"] = None
        elif not contents[name][0].translate(INVISIBLE).strip():
            problems[f"empty_{name}"] = None
    if len(wanted) == 2 and [kind for kind, _ in blocks] == [*reversed(wanted)]:
        problems["order"] = None
    if _END_OF_TURN.sub("", " ".join(outside)).translate(INVISIBLE).strip():
        problems["text_outside"] = None
    think = "\n".join(contents["think"]) if contents["think"] else None
    answers = tuple(contents["answer"]) if len(contents["answer"]) > 1 else ()
    return Envelope(think, _common_answer(contents["answer"]), tuple(problems), answers)


def _strip_end(text: str) -> str:
    """A text without the white space and end-of-turn tokens at its end."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in END_OF_TURN if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:end]
        end -= len(token)


def _blocks(text: str) -> tuple[list[tuple[str, str]], list[str], dict[str, None]]:
    """The blocks in order as (kind, body), the texts between them, and the problems of the tags."""
    problems: dict[str, None] = {}  # an ordered set
    tags = list(_TAG.finditer(text))
    if any(tag.group() != tag.group().lower() for tag in tags):
        problems["tag_case"] = None
    if any(len(tag.group()) != len(_kind(tag)) + 2 for tag in tags):
        problems["tag_space"] = None
    last_end = {_kind(tag): index for index, tag in enumerate(tags)}
    blocks: list[tuple[str, str]] = []
    outside: list[str] = []
    opened, start, position, unopened = "", 0, 0, ""
    for index, tag in enumerate(tags):
        kind = _kind(tag)
        if not opened:
            outside.append(text[position : tag.start()])
            if kind in ("think", "answer"):
                opened, start = kind, tag.end()
            else:
                problems["stray_tag"] = None
                if kind == "/answer" and not unopened and not any(name == "answer" for name, _ in blocks):
                    unopened = text[position : tag.start()]
        elif kind == f"/{opened}":
            blocks.append((opened, text[start : tag.start()]))
            opened = ""
        elif kind != opened and kind in ("think", "answer") and index > last_end.get(f"/{opened}", -1):
            problems[f"{opened}_not_closed"] = None
            blocks.append((opened, text[start : tag.start()]))
            opened, start = kind, tag.end()
        else:
            problems["stray_tag"] = None
            if opened == kind == "answer":
                if text[start : tag.start()].strip():  # there is an answer already
                    blocks.append((opened, text[start : tag.start()]))
                start = tag.end()  # <answer><answer>: the inner block is the answer
        position = tag.end()
    if opened:
        problems[f"{opened}_not_closed"] = None
        body = _BROKEN_TAG.sub("", _END_OF_TURN.sub("", text[start:]))
        if body.strip() or opened not in [kind for kind, _ in blocks]:  # <answer>a<answer>: no second answer follows
            blocks.append((opened, body))
    else:
        outside.append(text[position:])
    if unopened.strip() and not any(name == "answer" for name, _ in blocks):
        blocks.append(("answer", unopened))  # <think>...</think>benign</answer>
    return blocks, outside, problems


def _kind(tag: re.Match[str]) -> str:
    return f"{tag[1]}{tag[2].lower()}"


def _common_answer(answers: Sequence[str]) -> str | None:
    """The answer, if there is a single block or all blocks are equal after folding."""
    different = set(answers)
    if 1 < len(different) <= 10 and all(len(answer) <= MAX_CHARACTERS for answer in different):
        different = {normalise(answer) for answer in different}
    return answers[0] if len(different) == 1 and answers[0] else None
