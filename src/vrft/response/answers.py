"""Reading the answer to a question about an image: yes or no, one of several choices, or a text."""

import re
from collections.abc import Mapping, Sequence

from vrft.response.labels import Synonyms
from vrft.response.words import DOUBT, LONGEST, NEGATION, Reading, cached_names, mentioned, normalise

_LEAD_IN = r"(?:(?:so|the|my|final|correct|best)\s+)*(?:answer|option|choice)?(?:\s+is)?\s*[:=]?\s*"
_YES_NO = re.compile(
    rf"{_LEAD_IN}(yes|no)(?:\s*$|\s*[,.;:!(—–]\s*(.*)|\s+-\s+(.*)|\s+((?:there|it|this|that|these|they|he|she|i|we)\b.*))",
    re.DOTALL,
)
_STANDS_ALONE = {"yes": re.compile(r"\bno\b\s*(?:[,.;:!?]|$)"), "no": re.compile(r"\byes\b")}
"""Of the explanation after an answer: what says the opposite. "Yes, there is no effusion" does not."""


def read_yes_no(answer: str | None, synonyms: Synonyms = None) -> Reading:
    """Read ``yes`` or ``no``: the whole answer, or its first word with an explanation behind it.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        synonyms: further words for ``yes`` and ``no``; they count as the whole answer only.

    >>> [read_yes_no(text).answer for text in ("No, there is no evidence of it.", "**Yes**", "normal", "yes or no")]
    ['no', 'yes', None, None]
    """
    if not answer:
        return Reading(None)
    folded = normalise(_one_line(answer[:LONGEST]))
    names = cached_names(tuple((name, (name, *((synonyms or {}).get(name) or ()))) for name in ("yes", "no")))
    if folded in names and len(answer) <= LONGEST:
        return Reading(names[folded])
    if match := _YES_NO.fullmatch(folded):
        rest = match[2] or match[3] or match[4] or ""
        if _STANDS_ALONE[match[1]].search(rest):
            return Reading(None, ("several_answers",))
        return Reading(None, ("not_yes_or_no",)) if DOUBT.search(rest) else Reading(match[1])
    both = {word for word in ("yes", "no") if re.search(rf"\b{word}\b", folded)}
    return Reading(None, ("several_answers" if len(both) == 2 else "not_yes_or_no",))


def read_choice(answer: str | None, choices: Mapping[str, str]) -> Reading:
    """Read the letter of one choice, from the letter, from its text, or from both where they agree.

    Args:
        answer: what stands inside the answer tags; None where nothing does.
        choices: letter -> text.

    >>> choices = {"A": "benign", "B": "malignant"}
    >>> [read_choice(text, choices).answer for text in ("(B)", "B. malignant", "malignant", "B. benign", "A or B")]
    ['B', 'B', 'B', None, None]
    """
    if not answer:
        return Reading(None)
    if len(answer) > LONGEST + 4 * max(map(len, choices.values()), default=0):
        return Reading(None, ("not_a_choice",))
    folded = normalise(_one_line(answer))
    letters = cached_names(tuple((letter, (letter,)) for letter in choices))
    texts = cached_names(tuple((letter, (text,)) for letter, text in choices.items()))
    found = {names[folded] for names in (letters, texts) if folded in names}
    if len(found) == 1:
        return Reading(found.pop())
    if found:
        return Reading(None, ("letter_and_text_disagree",))
    pattern = "|".join(sorted(map(re.escape, letters), key=len, reverse=True))
    match = re.fullmatch(
        rf"{_LEAD_IN}[(\[{{]?\s*({pattern})(?:\s*[)\]}}][.:,]?|\s*[.:,;=]|\s+[-–—](?=\s)|(?=\s|$))\s*(.*)",
        folded,
        re.DOTALL,
    )
    if match is None:
        return _text_of_a_choice(folded, texts)
    letter, rest = letters[match[1]], match[2].strip("() .")
    if not rest or texts.get(rest) == letter:
        return Reading(letter)
    others, unnamed = mentioned(rest, texts)
    if others - {letter}:
        return Reading(None, ("letter_and_text_disagree",))
    article = re.fullmatch(rf"{_LEAD_IN}a\s+[^\W_].*", folded, re.DOTALL)  # "a malignant mass" begins with no letter
    several = re.search(rf"(?:^|\b(?:and|or)\s+|[,/&]\s*)[(\[]?(?:{pattern})\b", rest)
    if several or article or NEGATION.search(unnamed) or DOUBT.search(rest):
        return Reading(None, ("several_answers" if several else "not_a_choice",))
    return Reading(letter)


def _text_of_a_choice(folded: str, texts: Mapping[str, str]) -> Reading:
    """The text of a choice behind a lead-in: ``the answer is malignant``."""
    match = re.fullmatch(rf"{_LEAD_IN}(.*)", folded, re.DOTALL)
    if match and match[1] in texts:
        return Reading(texts[match[1]])
    return Reading(None, ("several_answers" if len(mentioned(folded, texts)[0]) > 1 else "not_a_choice",))


def _one_line(answer: str) -> str:
    """A line break ends a sentence."""
    return answer if "`" in answer else re.sub(r"[.\s]*\n\s*", ". ", answer.strip())


def read_open(answer: str | None) -> Reading:
    """Read an open answer as it is written.

    >>> read_open(" The left lung. ").answer
    'The left lung.'
    """
    if not answer:
        return Reading(None)
    if len(answer) > LONGEST:
        return Reading(None, ("too_long",))
    return Reading(answer.strip()) if normalise(answer) else Reading(None, ("empty_answer",))


def same_text(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an open answer is one of the accepted texts after both are folded."""
    folded = normalise(answer)
    return any(folded == normalise(text) for text in accepted)
