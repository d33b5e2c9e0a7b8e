"""The think/answer envelope: how a completion is taken apart.

>>> parse("<think>Round.</think><answer>benign</answer>")
Envelope(think='Round.', answer='benign', problems=())
>>> parse("<answer>benign</answer> because").problems
('no_think', 'text_outside')
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vrft.response.words import INVISIBLE, LONGEST, normalise

INSTRUCTIONS = {
    "think-answer": "Think inside <think></think>, then give only the answer inside <answer></answer>.",
    "answer-think": "Give only the answer inside <answer></answer>, then the reasons inside <think></think>.",
    "no-think": "Give only the answer inside <answer></answer>.",
}
"""The sentence that asks for the envelope, by its order; every prompt ends with it."""

ENVELOPE_INSTRUCTION = INSTRUCTIONS["think-answer"]
"""That of the usual order."""

ORDERS = {
    "think-answer": ("think", "answer"),
    "answer-think": ("answer", "think"),
    "no-think": ("answer",),
}
"""The blocks of a right envelope, in order, by the name of the order."""

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
_PERFECT = re.compile(
    r"\s*<think>([^<\u200b-\u200d\u2060\ufeff]*)</think>\s*<answer>([^<\u200b-\u200d\u2060\ufeff]*)</answer>\s*"
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A completion taken apart.

    ``think`` and ``answer`` are the stripped texts inside the tags, or None where there is no such block. ``problems``
    are short codes of what is wrong with the envelope; it is empty exactly when the format is right.
    """

    think: str | None
    answer: str | None
    problems: tuple[str, ...]
    answers: tuple[str, ...] = field(default=(), repr=False)
    """The texts of all answer blocks where there are several, which may say the same in other words."""

    @property
    def cut(self) -> bool:
        """Whether the answer runs to the end of the completion, so that its last characters may be missing."""
        return "answer_not_closed" in self.problems


def render(think: str, answer: str, order: str = "think-answer") -> str:
    """Write a completion in the envelope of an order; ``parse`` takes it apart again.

    >>> render("Round.", "benign", "answer-think"), render("Round.", "benign", "no-think")
    ('<answer>benign</answer><think>Round.</think>', '<answer>benign</answer>')
    """
    texts = {"think": think, "answer": answer}
    return "".join(f"<{block}>{texts[block]}</{block}>" for block in ORDERS[order])


def parse(completion: str, order: str = "think-answer") -> Envelope:
    """Take a completion apart; no text makes it fail, and the time is linear in its length.

    A ``<think>`` that is closed hides every tag inside it (a policy that muses about ``<answer>`` tags has not answered
    yet). A block that is never closed ends where the other kind begins, or at the end.

    Args:
        completion: the text of the policy, without the prompt.
        order: a key of ``ORDERS``; it decides what is a problem, never what is read.
    """
    if order == "think-answer" and (perfect := _PERFECT.fullmatch(completion)):
        think, answer = perfect[1].strip(), perfect[2].strip()
        if think and answer:
            return Envelope(think, answer, ())
    blocks, outside, problems = _blocks(completion)
    contents = {
        name: [_without_end(_TAG.sub("", body)).strip() for kind, body in blocks if kind == name]
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
    return Envelope(think, _one_answer(contents["answer"]), tuple(problems), answers)


def _without_end(text: str) -> str:
    """A text without the white space and tokens at its end."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in END_OF_TURN if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:end]
        end -= len(token)


def _blocks(text: str) -> tuple[list[tuple[str, str]], list[str], dict[str, None]]:
    """The blocks in order as (kind, body), the texts between them, and what is wrong with the tags."""
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
                if text[start : tag.start()].strip():  # something was answered already
                    blocks.append((opened, text[start : tag.start()]))
                start = tag.end()  # <answer><answer>: the inner one holds the answer
        position = tag.end()
    if opened:
        problems[f"{opened}_not_closed"] = None
        body = _BROKEN_TAG.sub("", _END_OF_TURN.sub("", text[start:]))
        if body.strip() or opened not in [kind for kind, _ in blocks]:  # <answer>a<answer>: nothing more was said
            blocks.append((opened, body))
    else:
        outside.append(text[position:])
    if unopened.strip() and not any(name == "answer" for name, _ in blocks):
        blocks.append(("answer", unopened))  # <think>...</think>benign</answer>
    return blocks, outside, problems


def _kind(tag: re.Match[str]) -> str:
    return f"{tag[1]}{tag[2].lower()}"


def _one_answer(answers: Sequence[str]) -> str | None:
    """The answer, when there is one, or when all blocks say the same."""
    different = set(answers)
    if 1 < len(different) <= 10 and all(len(answer) <= LONGEST for answer in different):
        different = {normalise(answer) for answer in different}
    return answers[0] if len(different) == 1 and answers[0] else None
