"""Reading the answer to a question about an image: yes or no, one of several choices, or a text."""

import re
from collections.abc import Mapping, Sequence

from vrft.response.labels import Synonyms
from vrft.response.words import (
    DOUBT,
    LONGEST,
    Reading,
    cached_names,
    mentioned,
    normalise,
    one_line,
    unwrapped,
)

_NOUN = r"(?:answer|option|choice|letter)"
_LEAD_IN = (
    r"(?:(?:so|thus|therefore|hence),?\s*)?"
    r"(?:(?:it is|it's|i (?:choose|select|pick|believe)|i(?: would)? say|definitely|clearly)\s+)?"
    rf"(?:(?:the|my|final|correct|best)\s+)*{_NOUN}?(?:\s+is)?\s*[:=]?\s*(?:{_NOUN}\s*[:=]?\s*)?(?:(?:答案[是为]?|选项?|选择):?\s*)?"
)
_YES_NO = re.compile(
    rf"{_LEAD_IN}(?:(yes|no)|(?P<sure>yes)\b(?=\s+\w))(?:\s*$|\s*[,.;:!(—–。]\s*(?P<after>.*)|\s+-\s+(?P<dashed>.*)"
    r"|\s+(?P<clause>(?:(?<=yes\s)|(?:there|it|this|that|these|they|he|she|i|we|because|since|as|the)\b).*))",
    re.DOTALL,
)
"""``no`` before a noun ("no mass") is a statement, not an answer; before a clause it is one. ``yes`` always is."""

_STANDS_ALONE = {"yes": re.compile(r"\bno\b\s*(?:[,.;:!?]|$)"), "no": re.compile(r"\byes\b")}
"""Of the explanation after an answer: what says the opposite. "Yes, there is no effusion" does not."""

_WRONG = r"(?:that(?:'s| is)\s+)?(?:(?:is|was)\s+)?(?:wrong|incorrect|false|the wrong)\b"


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
    if len(answer) > LONGEST:
        return Reading(None, ("too_long",))
    folded = normalise(one_line(unwrapped(answer))).strip("()[]")
    names = cached_names(tuple((name, (name, *((synonyms or {}).get(name) or ()))) for name in ("yes", "no")))
    if folded in names:
        return Reading(names[folded])
    if match := _YES_NO.fullmatch(folded):
        said = match[1] or match["sure"]
        rest = match["after"] or match["dashed"] or match["clause"] or ""
        if _STANDS_ALONE[said].search(rest):
            return Reading(None, ("several_answers",))
        taken_back = DOUBT.search(rest) or re.match(rf"\W*(?:{_WRONG}|not\W*\Z|if\b)", rest)
        return Reading(None, ("not_yes_or_no",)) if taken_back else Reading(said)
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
        return Reading(None, ("too_long",))
    written = normalise(one_line(unwrapped(answer)), keep_case=True)
    folded = written.casefold()
    letters = cached_names(tuple((letter, (letter,)) for letter in choices))
    texts = cached_names(tuple((letter, (text,)) for letter, text in choices.items()))
    found = {names[folded] for names in (letters, texts) if folded in names}
    if len(found) == 1:
        return Reading(found.pop())
    if found:
        return Reading(None, ("letter_and_text_disagree",))
    pattern = "|".join(sorted(map(re.escape, letters), key=len, reverse=True))
    after = r"(?:\s*[)\]}][.:,]?|\s*[.:,;=—–、](?!\d)|\s+-(?=\s|$)|(?=\s|$))"
    match = re.fullmatch(rf"{_LEAD_IN}[(\[{{]?\s*({pattern}){after}\s*(.*)", written, re.DOTALL | re.IGNORECASE)
    if match is None:
        return _text_of_a_choice(folded, letters, texts, pattern)
    letter, rest = letters[match[1].casefold()], match[2].strip("() .")
    bare = match[0][match.end(1) : match.start(2)].isspace()  # "a malignant mass" begins with no letter
    reasons = re.match(r"(?:rather than|instead of|not|because|since|as|is)\b", rest, re.IGNORECASE)
    if bare and match[1].casefold() == "a" and texts.get(rest.casefold()) != letter and not reasons:
        disagree = rest.casefold() in texts
        return Reading(None, ("letter_and_text_disagree" if disagree else "not_a_choice",))
    return _explained_choice(letter, rest, letters, texts)


def _explained_choice(letter: str, rest: str, letters: Mapping[str, str], texts: Mapping[str, str]) -> Reading:
    """A letter with something behind it: its text, an explanation, or what takes it back."""
    folded = rest.casefold()
    if not rest or texts.get(folded) == letter:
        return Reading(letter)
    own = [re.escape(name) for name, owner in texts.items() if owner == letter]
    others = [name for name, owner in {**letters, **texts}.items() if owner != letter]
    # "not A", "rather than benign" set the others apart; they are no second answer.
    named = "|".join(map(re.escape, others))
    apart = rf"\b(?:not|no|rather than|instead of)\s+(?:(?:a|an|the|option|evidence of|sign of)\s+)?\(?(?:{named})\b\)?"
    rest = re.sub(apart, "", rest, flags=re.IGNORECASE)
    folded = rest.casefold()
    if mentioned(folded, texts)[0] - {letter}:
        return Reading(None, ("letter_and_text_disagree",))
    words = re.findall(r"\w+", folded)
    joined = {"and", "or", "also", "plus", "then", "alternatively", "maybe", "both"}
    listed = any(word in letters for word in words) and all(word in letters or word in joined for word in words)
    capital = any(
        letters.get(found.casefold(), letter) != letter
        for found in re.findall(r"(?<![\w'])[A-Z](?![\w'])(?!\s+[a-z])", rest)
    )
    if listed or capital:
        return Reading(None, ("several_answers",))
    denied = own and re.search(rf"\b(?:not|no|never|without|isn't)\s+(?:\w+\s+){{0,2}}(?:{'|'.join(own)})\b", folded)
    if denied or re.match(rf"{_WRONG}|(?:is )?not\b", folded.strip(" ,.:;")) or DOUBT.search(folded):
        return Reading(None, ("not_a_choice",))
    return Reading(letter)


def _text_of_a_choice(folded: str, letters: Mapping[str, str], texts: Mapping[str, str], pattern: str) -> Reading:
    """The text of a choice behind a lead-in (``the answer is malignant``) or before its letter (``malignant (B)``)."""
    match = re.fullmatch(rf"{_LEAD_IN}(.*)", folded, re.DOTALL)
    if match and match[1] in texts:
        return Reading(texts[match[1]])
    match = re.fullmatch(rf"(.*?)\s*[(,:-]\s*(?:{_NOUN}\s+)?({pattern})\)?", folded, re.DOTALL)
    if match and match[1] in texts:
        agree = texts[match[1]] == letters[match[2]]
        return Reading(texts[match[1]]) if agree else Reading(None, ("letter_and_text_disagree",))
    return Reading(None, ("several_answers" if len(mentioned(folded, texts)[0]) > 1 else "not_a_choice",))


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
