"""Reading a label: the whole answer is read, never a part of it; only lead-ins may stand beside the label."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from vrft.response.tokens import Phrases, find_names, phrases_of
from vrft.response.words import MAX_CHARACTERS, NEGATION, Reading, folded_names, mentioned, normalise

Synonyms = Mapping[str, Sequence[str]] | None


def read_label(answer: str | None, labels: Sequence[str], synonyms: Synonyms = None) -> Reading:
    """Read one label: the answer holds a label or a declared synonym, and only lead-ins besides (``tokens.py``).

    Args:
        answer: the text inside the answer tags; None where there is none.
        labels: the labels of the task.
        synonyms: further names of a label.

    >>> read_label("Pneumonia.", ["normal", "pneumonia"]).answer
    'pneumonia'
    >>> read_label("normal or pneumonia", ["normal", "pneumonia"]).problems
    ('several_labels',)
    >>> read_label("not pneumonia", ["normal", "pneumonia"]).problems
    ('not_a_label',)
    """
    if not answer:
        return Reading(None)
    forms = forms_of(labels, synonyms)
    if len(answer) > MAX_CHARACTERS + 4 * max(map(len, forms.names), default=0):
        return Reading(None, ("not_a_label",))
    folded = normalise(answer)
    label = forms.names.get(folded) or forms.unspaced.get(folded.replace(" ", ""))
    if label is not None:
        return Reading(label)
    found, complete = find_names(answer, forms.phrases)
    if len(found) == 1 and complete:
        return Reading(*found)
    return Reading(None, ("several_labels" if len(found) > 1 else "not_a_label",))


def mentioned_label(text: str, labels: Sequence[str], synonyms: Synonyms = None) -> str | None:
    """The lenient reading: the only label that a text mentions, unless the text negates or doubts.

    >>> mentioned_label("The scan shows pneumonia in the left lung.", ["normal", "pneumonia"])
    'pneumonia'
    >>> mentioned_label("There is no pneumonia.", ["normal", "pneumonia"]) is None
    True
    """
    folded = normalise(text[-MAX_CHARACTERS:])
    found, rest = mentioned(folded, forms_of(labels, synonyms).names)
    return found.pop() if len(found) == 1 and not NEGATION.search(rest) else None


class Forms(NamedTuple):
    """Lookup tables for the names of labels."""

    names: dict[str, str]
    """Folded name -> label."""
    unspaced: dict[str, str]
    """The same without spaces, where this is unambiguous."""
    phrases: Phrases[str]


def forms_of(labels: Sequence[str], synonyms: Synonyms = None) -> Forms:
    """The lookup tables of labels and their synonyms; cached."""
    pairs: list[tuple[str, tuple[str, ...]]] = [(label, (label,)) for label in labels]
    pairs += [(label, tuple(others or ())) for label, others in (synonyms or {}).items()]
    return _forms(tuple(pairs))


@lru_cache(maxsize=256)
def _forms(pairs: tuple[tuple[str, tuple[str, ...]], ...]) -> Forms:
    names = folded_names(pairs)
    unspaced = folded_names((label, [name.replace(" ", "")]) for name, label in names.items())
    return Forms(names, unspaced, phrases_of(names))
