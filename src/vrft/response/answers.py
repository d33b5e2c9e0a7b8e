"""Reading the answer to a question about an image: yes or no, one of several choices, or a text."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from vrft.response.labels import Synonyms, forms_of
from vrft.response.tokens import Phrases, find_names, words_in
from vrft.response.words import DOUBT, MAX_CHARACTERS, Reading, normalise, one_line

_FINDING = (
    r"(?!(?:idea|doubts?|way|answer|image|longer|and|but|or|chance|possibility|risk|suspicion|probability|likelihood"
    r"|hint|concern|question|suggestion|reason|need|problem|rule|limit|absence|lack|exclusion|certainty|uncertainty"
    r"|alternative|other|denying|mistake|mistaking|normal|way|telling|knowing)\b)[a-z]+"
)
_ADJECTIVE = r"(?:(?:acute|chronic|focal|pleural|pulmonary|left|right|bilateral|visible|clear|definite|such|any) )?"
_SIGN = r"(?:evidence|signs?|indication|presence) of"
_RESTATED = {
    "yes": re.compile(rf"there (?:is|are) (?:an? |(?:clear |an? )?{_SIGN} (?:an? )?){_ADJECTIVE}{_FINDING}"),
    "no": re.compile(rf"there (?:is|are) no {_ADJECTIVE}(?:{_SIGN} )?(?:an? )?{_ADJECTIVE}{_FINDING}"),
}
"""A sentence that may follow an answer and repeats it: *No, there is no evidence of pneumonia*."""

_CLAUSE_END = re.compile(r"[,.;:!\n]\s*|\s+-\s+")


def read_yes_no(answer: str | None, synonyms: Synonyms = None) -> Reading:
    """Read ``yes`` or ``no``; only lead-ins, or a sentence that repeats the answer, may stand beside it.

    Args:
        answer: the text inside the answer tags; None where there is none.
        synonyms: further words for ``yes`` and ``no``.

    >>> [read_yes_no(text).answer for text in ("No, there is no evidence of it.", "**Yes**", "normal", "yes or no")]
    ['no', 'yes', None, None]
    """
    if not answer:
        return Reading(None)
    if len(answer) > MAX_CHARACTERS:
        return Reading(None, ("too_long",))
    further = synonyms or {}
    return _yes_no(answer, tuple(further.get("yes") or ()), tuple(further.get("no") or ()))


@lru_cache(maxsize=4096)
def _yes_no(answer: str, yes: tuple[str, ...], no: tuple[str, ...]) -> Reading:
    """``read_yes_no`` with hashable arguments; cached, since answers repeat."""
    forms = forms_of(("yes", "no"), {"yes": yes, "no": no})
    folded = normalise(one_line(answer))
    if folded in forms.names:
        return Reading(forms.names[folded])
    found, complete = find_names(answer, forms.phrases)
    if len(found) == 1 and complete:
        return Reading(*found)
    first, *rest = _CLAUSE_END.split(folded, maxsplit=1)
    in_first, first_complete = find_names(first, forms.phrases)
    if rest and len(in_first) == 1 and first_complete and not DOUBT.search(rest[0]):
        (word,) = in_first
        if _RESTATED[word].fullmatch(rest[0].strip(" .")):
            return Reading(word)
    return Reading(None, ("several_answers" if len(found) == 2 else "not_yes_or_no",))


def read_choice(answer: str | None, choices: Mapping[str, str]) -> Reading:
    """Read the letter of one choice, from the letter, from its text, or from both where they agree.

    Args:
        answer: the text inside the answer tags; None where there is none.
        choices: letter -> text.

    >>> choices = {"A": "benign", "B": "malignant"}
    >>> [read_choice(text, choices).answer for text in ("(B)", "B. malignant", "malignant", "B. benign", "A or B")]
    ['B', 'B', 'B', None, None]
    """
    if not answer:
        return Reading(None)
    if len(answer) > MAX_CHARACTERS + 4 * max(map(len, choices.values()), default=0):
        return Reading(None, ("too_long",))
    phrases, letters, texts = _choices(tuple(choices.items()))
    found, complete = find_names(answer, phrases)
    if len(found) == 1 and complete:
        (names,) = found
        if len(names) == 1:
            return Reading(names[0])
    named = {name for names in found for name in names}
    if len(named) > 1 and (len(found) == 1 or (find_names(answer, letters)[0] and find_names(answer, texts)[0])):
        return Reading(None, ("letter_and_text_disagree",))
    return Reading(None, ("several_answers" if len(named) > 1 else "not_a_choice",))


@lru_cache(maxsize=256)
def _choices(
    choices: tuple[tuple[str, str], ...],
) -> tuple[Phrases[tuple[str, ...]], Phrases[str], Phrases[str]]:
    """The names of choices with the letters that each stands for, the letters alone, and the texts alone."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for letter, text in choices:
        for name in dict.fromkeys((tuple(words_in(letter)), tuple(words_in(text)))):
            if name:
                owners.setdefault(name, []).append(letter)
    letters = Phrases((words_in(letter), letter) for letter, _ in choices)
    texts = Phrases((words, letter) for letter, text in choices if (words := words_in(text)))
    return Phrases((name, tuple(letters)) for name, letters in owners.items()), letters, texts


def read_open(answer: str | None) -> Reading:
    """Read an open answer: its text without white space at both ends.

    >>> read_open(" The left lung. ").answer
    'The left lung.'
    """
    if not answer:
        return Reading(None)
    if len(answer) > MAX_CHARACTERS:
        return Reading(None, ("too_long",))
    return Reading(answer.strip()) if normalise(answer) else Reading(None, ("empty_answer",))


def same_text(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an open answer equals one of the accepted texts after folding (``normalise``)."""
    folded = normalise(answer)
    return any(folded == normalise(text) for text in accepted)
