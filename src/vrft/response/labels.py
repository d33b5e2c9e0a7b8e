"""Reading a label: the whole answer counts, never a part of it; only lead-ins may stand beside the label."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from vrft.response.tokens import Phrases, named_in, phrases_of
from vrft.response.words import LONGEST, NEGATION, Reading, folded_names, mentioned, normalise

Synonyms = Mapping[str, Sequence[str]] | None


def read_label(answer: str | None, labels: Sequence[str], synonyms: Synonyms = None) -> Reading:
    """Read one label: the answer holds a label or a declared synonym, and else lead-ins alone (``tokens.py``).

    Args:
        answer: what stands inside the answer tags; None where nothing does.
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
    names, squeezed, phrases = _names(labels, synonyms)
    if len(answer) > LONGEST + 4 * max(map(len, names), default=0):
        return Reading(None, ("not_a_label",))
    folded = normalise(answer)
    label = names.get(folded) or squeezed.get(folded.replace(" ", ""))
    if label is not None:
        return Reading(label)
    found, whole = named_in(answer, phrases)
    if len(found) == 1 and whole:
        return Reading(*found)
    return Reading(None, ("several_labels" if len(found) > 1 else "not_a_label",))


def mentioned_label(text: str, labels: Sequence[str], synonyms: Synonyms = None) -> str | None:
    """The lenient reading: the only label that a text mentions, unless it also negates or doubts.

    >>> mentioned_label("The scan shows pneumonia in the left lung.", ["normal", "pneumonia"])
    'pneumonia'
    >>> mentioned_label("There is no pneumonia.", ["normal", "pneumonia"]) is None
    True
    """
    folded = normalise(text[-LONGEST:])
    found, rest = mentioned(folded, _names(labels, synonyms)[0])
    return found.pop() if len(found) == 1 and not NEGATION.search(rest) else None


def _names(labels: Sequence[str], synonyms: Synonyms) -> tuple[dict[str, str], dict[str, str], Phrases[str]]:
    pairs: list[tuple[str, tuple[str, ...]]] = [(label, (label,)) for label in labels]
    pairs += [(label, tuple(others or ())) for label, others in (synonyms or {}).items()]
    return _forms(tuple(pairs))


@lru_cache(maxsize=256)
def _forms(
    pairs: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[dict[str, str], dict[str, str], Phrases[str]]:
    """Folded name -> label; the same with all spaces taken out, where that names no two labels; names in tokens."""
    names = folded_names(pairs)
    squeezed = folded_names((label, [name.replace(" ", "")]) for name, label in names.items())
    return names, squeezed, phrases_of(names)
