"""The think/answer envelope, and the reading of labels and grades.

The rule of all readings: an answer is read only where it is unmistakable. A broken envelope costs the format reward,
not the answer; two different answers, a negation or a range are no answer. Everything is parsed, never evaluated, in
time linear in the length of the text.

>>> parse("<think>Round.</think><answer>benign</answer>")
Envelope(think='Round.', answer='benign', problems=())
>>> parse("<answer>benign</answer> because").problems
('no_think', 'text_outside')
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

ENVELOPE_INSTRUCTION = "Think inside <think></think>, then give only the answer inside <answer></answer>."
"""The sentence that asks for the envelope; every prompt ends with it."""

END_OF_TURN = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
)
"""Tokens with which chat models end a turn; they may stand outside the envelope."""

_LONGEST = 2000
"""Characters of an answer that are looked at: Unicode normalisation takes quadratic time on runs of accents."""

_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_END_OF_TURN = re.compile("|".join(map(re.escape, END_OF_TURN)))
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


@dataclass(frozen=True)
class Envelope:
    """A completion taken apart.

    ``think`` and ``answer`` are the stripped texts inside the tags, or None where there is no such block. ``problems``
    are short codes of what is wrong with the envelope; it is empty exactly when the format is right.
    """

    think: str | None
    answer: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What a task reads out of a completion: the answer or None, and why not."""

    answer: str | int | None
    problems: tuple[str, ...]


def render(think: str, answer: str) -> str:
    """Write a completion in the envelope; ``parse`` takes it apart again."""
    return f"<think>{think}</think><answer>{answer}</answer>"


def parse(completion: str) -> Envelope:
    """Take a completion apart; no text makes it fail.

    A ``<think>`` that is closed hides every tag inside it (a policy that muses about ``<answer>`` tags has not answered
    yet); one that is never closed ends where the answer begins. An ``<answer>`` that is never closed runs to the end.
    """
    problems: dict[str, None] = {}  # an ordered set
    text = completion
    tags = list(_TAG.finditer(text))
    if any(tag.group() != tag.group().lower() for tag in tags):
        problems["tag_case"] = None
    last_think_end = max((i for i, tag in enumerate(tags) if _kind(tag) == "/think"), default=-1)

    blocks: list[tuple[str, str]] = []
    outside: list[str] = []
    opened, start, position = "", 0, 0
    for index, tag in enumerate(tags):
        kind = _kind(tag)
        if not opened:
            outside.append(text[position : tag.start()])
            if kind in ("think", "answer"):
                opened, start = kind, tag.end()
            else:
                problems["stray_tag"] = None
        elif kind == f"/{opened}":
            blocks.append((opened, text[start : tag.start()]))
            opened = ""
        elif opened == "think" and kind == "answer" and index > last_think_end:
            problems["think_not_closed"] = None
            blocks.append((opened, text[start : tag.start()]))
            opened, start = kind, tag.end()
        else:
            problems["stray_tag"] = None
            if opened == "answer" and kind == "answer":
                if text[start : tag.start()].strip():  # something was answered already
                    blocks.append((opened, text[start : tag.start()]))
                start = tag.end()  # <answer><answer>: the inner one holds the answer
        position = tag.end()
    if opened:
        problems[f"{opened}_not_closed"] = None
        blocks.append((opened, _END_OF_TURN.sub("", text[start:])))
    else:
        outside.append(text[position:])

    contents = {
        name: [_TAG.sub("", body).strip() for kind, body in blocks if kind == name] for name in ("think", "answer")
    }
    for name in ("think", "answer"):
        if not contents[name]:
            problems[f"no_{name}"] = None
        elif len(contents[name]) > 1:
            problems[f"several_{name}s"] = None
        elif not contents[name][0].translate(_INVISIBLE).strip():
            problems[f"empty_{name}"] = None
    if [kind for kind, _ in blocks] == ["answer", "think"]:
        problems["order"] = None
    if _END_OF_TURN.sub("", " ".join(outside)).translate(_INVISIBLE).strip():
        problems["text_outside"] = None
    think = "\n".join(contents["think"]) if contents["think"] else None
    return Envelope(think, _one_answer(contents["answer"]), tuple(problems))


def _kind(tag: re.Match[str]) -> str:
    return f"{tag[1]}{tag[2].lower()}"


def _one_answer(answers: Sequence[str]) -> str | None:
    """The answer, when there is one, or when all blocks say the same."""
    different = set(answers)
    if 1 < len(different) <= 10 and all(len(answer) <= _LONGEST for answer in different):
        different = {normalise(answer) for answer in different}
    return answers[0] if len(different) == 1 and answers[0] else None


def normalise(text: str) -> str:
    """Fold what may vary in an answer: case, width, spaces, hyphens, underscores, emphasis, boxes and the final stop.

    >>> normalise("**Non-Small_Cell** carcinoma."), normalise(r"\\boxed{２}")
    ('non small cell carcinoma', '2')
    """
    text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE).strip()
    if boxed := re.fullmatch(r"\\boxed\s*\{(?:\\text\s*\{([^{}]*)\}|([^{}]*))\}\.?", text):
        text = boxed[1] or boxed[2] or ""
    text = re.sub(r"[*`\"“”]+", "", text.replace("’", "'"))
    text = re.sub(r"(?<=\w)[-‐‑–](?=\w)|[_\s]+", " ", text)
    return text.strip().rstrip(".。!").strip("' ").casefold()


# --- labels ---------------------------------------------------------------------------------------------------------


def read_label(
    answer: str | None, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> Reading:
    """Read one label: the whole answer must be a label or a declared synonym.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        labels: the labels of the task.
        synonyms: further names of a label.

    >>> read_label("Pneumonia.", ["normal", "pneumonia"]).answer
    'pneumonia'
    >>> read_label("normal or pneumonia", ["normal", "pneumonia"])
    Reading(answer=None, problems=('several_labels',))
    >>> read_label("not pneumonia", ["normal", "pneumonia"])
    Reading(answer=None, problems=('not_a_label',))
    """
    if not answer:
        return Reading(None, ())
    names = _names(tuple(labels), tuple((label, tuple(others or ())) for label, others in (synonyms or {}).items()))
    if len(answer) > _LONGEST + 4 * max(map(len, names), default=0):
        return Reading(None, ("not_a_label",))
    folded = normalise(answer)
    label = names.get(folded)
    if label is not None:
        return Reading(label, ())
    return Reading(None, ("several_labels" if len(_mentioned(folded, names)[0]) > 1 else "not_a_label",))


def mentioned_label(
    text: str, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """The lenient reading: the only label that a text mentions, unless it also negates or doubts.

    >>> mentioned_label("The scan shows pneumonia in the left lung.", ["normal", "pneumonia"])
    'pneumonia'
    >>> mentioned_label("There is no pneumonia.", ["normal", "pneumonia"]) is None
    True
    """
    names = _names(tuple(labels), tuple((label, tuple(others or ())) for label, others in (synonyms or {}).items()))
    folded = normalise(text[-_LONGEST:])
    found, rest = _mentioned(folded, names)
    return found.pop() if len(found) == 1 and not _NEGATION.search(rest) else None


_NEGATION = re.compile(
    r"\b(?:not|no|non|neither|nor|without|never|unlikely|instead|cannot|absence|absent|or|negative|free of)\b|n't\b"
    r"|\b(?:den(?:y|ies|ied)|rul\w+ (?:it )?out|exclud\w+|lack\w*|possibl\w+|may|might|maybe|could|unclear|uncertain)\b"
)


@lru_cache(maxsize=256)
def _names(labels: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, str]:
    """Folded name -> label; a name that two labels share is no name."""
    owners: dict[str, set[str]] = {}
    for label, others in [*((label, (label,)) for label in labels), *synonyms]:
        for name in others:
            owners.setdefault(normalise(name), set()).add(label)
    return {name: owner.pop() for name, owner in owners.items() if len(owner) == 1}


def _mentioned(folded: str, names: Mapping[str, str]) -> tuple[set[str], str]:
    """Labels whose name stands in a text as whole words, and the text without them; the longest name counts."""
    found: set[str] = set()
    for name in sorted(names, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
        folded, count = re.subn(pattern, "\0", folded) if name and name in folded else (folded, 0)
        if count:
            found.add(names[name])
    return found, folded


# --- grades ---------------------------------------------------------------------------------------------------------

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ROMANS = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
_NUMBER = rf"(?P<digits>\d{{1,6}})(?:\.0+)?|(?P<word>{'|'.join(_WORDS)})|(?P<roman>{'|'.join(_ROMANS)})"
_TITLE = r"grade|stage|level|score|class|category|severity|grading|staging"
_GRADE = re.compile(
    rf"(?:(?:the|final|overall|my|answer|diagnosis|dr|kl|isup|predicted|estimated|severity)\s+)*"
    rf"(?P<title>(?:{_TITLE})\s*)?(?:is\s+)?(?:[:=#]\s*)?"
    rf"(?:{_NUMBER})(?![\w.])\s*(?P<rest>[(,:;].*)?"
)
_OTHER_NUMBER = re.compile(
    rf"\d|\b(?:{'|'.join(_WORDS + _ROMANS)}|or|not|to|between|than|but|wait|least|most|higher|lower)\b"
    r"|\b(?:maybe|possibl\w+|unlikely|uncertain|unsure|perhaps|could|might)\b|n't\b|[:,;]\s*no\b\W*$"
)
"""What withdraws or doubts a grade when it stands behind it."""

_SIGNED = re.compile(r"\d\s*[-‐‑–—~/+]|[-–—−+~/<>≤≥]\s*\d")
"""Ranges, fractions, signs and bounds."""


def read_grade(answer: str | None, levels: int, names: Sequence[str] | None = None) -> Reading:
    """Read one grade of 0 .. levels - 1, however spelt: ``2``, ``2.0``, ``Grade 2``, ``Stage II``, ``grade three``.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        levels: how many grades the scale has.
        names: the names of the grades, lowest first; an answer that is one of them counts.

    A range, a value off the scale, and a number whose name disagrees with it are no grade.

    >>> [read_grade(text, 5).answer for text in ("2 (moderate)", "Stage IV", "2-3", "2.5", "7")]
    [2, 4, None, None, None]
    """
    if not answer:
        return Reading(None, ())
    refused = Reading(None, ("not_a_grade",))
    raw = unicodedata.normalize("NFKC", answer[: _LONGEST + 1])
    if len(raw) > _LONGEST or _SIGNED.search(raw):
        return refused
    folded = normalise(answer)
    named = {normalise(name): grade for grade, name in enumerate(names or ())}
    if folded in named:
        return Reading(named[folded], ())
    match = _GRADE.fullmatch(folded)
    if match is None:
        return refused
    rest = match["rest"] or ""
    if match["digits"]:
        grade = int(match["digits"])
    elif match["word"]:
        grade = _WORDS.index(match["word"])
    elif len(match["roman"]) > 1 or match["title"]:
        grade = _ROMANS.index(match["roman"]) + 1
    else:
        return refused  # a single letter without "grade" or "stage" before it
    said, rest = _mentioned(rest, {name: str(value) for name, value in named.items()})
    if grade >= levels or said - {str(grade)} or _OTHER_NUMBER.search(rest):
        return refused
    return Reading(grade, ())


def mentioned_grade(text: str, levels: int, names: Sequence[str] | None = None) -> int | None:
    """The lenient reading: the only grade that a text names as one (``grade N``), where no other number stands.

    >>> mentioned_grade("I would call this grade 3 retinopathy.", 5)
    3
    >>> mentioned_grade("Grade 2 or 3.", 5) is None
    True
    """
    folded = normalise(text[-_LONGEST:])
    whole = read_grade(text.strip(), levels, names).answer
    if whole is not None:
        return int(whole)
    titled = {int(number) for number in re.findall(rf"\b(?:{_TITLE})\s*[:=]?\s*(?:is\s+)?(\d{{1,6}})(?![\w.])", folded)}
    numbers = {int(number) for number in re.findall(r"(?<![\w.])(\d{1,6})(?![\w.])", folded)}
    spelt = re.search(rf"\b(?:{'|'.join(_WORDS)})\b", folded)
    doubted = _SIGNED.search(text[-_LONGEST:]) or _NEGATION.search(folded)
    if len(titled) == 1 and numbers == titled and not spelt and not doubted:
        (grade,) = titled
        return grade if grade < levels else None
    return None
