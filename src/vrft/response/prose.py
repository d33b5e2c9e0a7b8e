"""Words around boxes: a stated absence, and words that deny a box."""

import re
from collections import deque

from vrft.response.groups import BOX_KEYS, COORDINATES, Group, Value, Word, is_parenthetical
from vrft.response.words import MAX_CHARACTERS, normalise

_SOME = (
    r"(?!(?:one )?(?:idea|doubt|answer|comment|way|clue|problem|longer|image|picture|access|data|information|yes)\b)"
)
_SOME += r"(?!(?:conclusion|diagnosis|decision|opinion|objection|reason|need|more|less|fewer|normal|clear)s?\b)"
_ABSENT = re.compile(
    r"(?:[a-z0-9 ]{1,40}[:=] ?|(?:the )?(?:final )?answer is |no[,.] ?(?=there|i ))?(?:an? )?(?:"
    r"(?:there(?: is|'s| are| was| were) |i (?:see|find|found|can see) )?"
    rf"(?:(?:no|zero|0|without|free of|not any) {_SOME}[a-z]+|none(?! of)|nothing(?! can| is certain))"
    r"|there (?:is|are|was|were)(?:n't| not) (?:any|an?) [a-z]+"
    r"|(?:the|this) [a-z]+ (?:(?:shows|contains|has|have) (?:no|none|nothing)\b|(?:is|are) free of)"
    r"|(?:the|this) [a-z]+ (?:does not|doesn't|do not|don't) (?:show|contain|have) (?:any|an?)\b"
    r"|(?:i )?(?:do not|don't|cannot|can't|could not|am unable to|unable to)"
    r" (?:see|find|detect|identify|locate) (?:any|an?)\b"
    r"|empty(?: list| array)?|n/a|na|null|nil|not applicable"
    r"|(?:(?!(?:the )?(?:image|picture|scan|photo)\b)[a-z ]{1,60} (?:(?:is|are|was|were) )?)?"
    r"(?:absent|not (?:found|present|visible|seen|detected))"
    r"|no ?objects?|нет|없음|لا يوجد|nenhum[ao]?"
    r"|(?:sin|ohne|pas d[e'’]) ?[^\W\d]+|なし|(?:keine?|aucune?|nessun[ao]?|ning[uú]n[ao]?)\b"
    r"|该?(?:图像?中?)?(?:没有|沒有|无|無|未见|未見|未发现)[^\d]{0,20}"
    r")\b[^0-9\[\]{}]{0,200}"
)
"""A statement of absence."""

_CLAUSE = re.compile(r"[^,;.]{0,80}[,;.] ?(?=(?:no|without) )")
"""A clause that may precede it: "the lung is clear, no mass"."""

_RETRACTED = re.compile(
    r"\b(?:but|except|only|however|although|other than|unsure|uncertain|possibl\w+|maybe|might|sure|certain|think"
    r"|because|or (?:an?|one|some|the)|missing|determined)\b|(?<!no )\bthere (?:is|are) (?!no\b|not\b|none\b)"
)
_DENIED = re.compile(
    r"\b(?:not|no|none|nothing|never|neither|nor|without|instead|cannot|absent|except|outside|unlikely|ignore|false"
    r"|(?:rather|other) than|maybe|perhaps|possibly|kein\w*|nicht|pas|ne|sans|sin|sem|senza|não"
    r"|нет|не|без|hayır|yok|değil|niet|geen|nie|inte|ikke"
    r"|vielleicht|eventuell|evtl|peut[- ]être|quiz[áa]s?|tal ?vez|talvez|forse"
    r"|возможно|наверное|belki|misschien|może|ربما"
    r"|ليس|لا)\b|n['’]t\b|没有|未见|不在|不是|并非|可能|也许|或许|ない|ません|かも|たぶん|아니|없|아마|~~|[≠≈❌✗✘]"
)
"""Words in the sentence before a box that deny or doubt it."""

_DENIED_AFTER = re.compile(
    r"\W*(?:\?|(?:(?:is|are|was|were)\s+)?(?:(?:not|no)\s+(?:mass|lesion|sure|certain|correct|right|an?|the|there)\b"
    r"|wrong|incorrect|unlikely|absent|normal\b|empty\b|clear\b)|(?:contains?|shows?|has|have|holds?)\s+(?:no|nothing)\b"
    r"|(?:does|do)\s+not\b|no\b\W*(?:\Z|wrong)|or not\b|.{0,40}\bbut\b.{0,40}\b(?:no|not|nothing)\b)"
)
"""Words directly after a box that deny or doubt it."""

_NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:objects?|findings?|lesions?|mass(?:es)?|box(?:es)?|targets?)\b[\w ]*\W*"
)


def says_absent(answer: str) -> bool:
    """Whether an answer states absence in words."""
    if len(answer) > 400:
        return False
    folded = normalise(answer).strip("(). ").removeprefix("# ")
    folded = folded if _ABSENT.fullmatch(folded) else _CLAUSE.sub("", folded, count=1)
    return _ABSENT.fullmatch(folded) is not None and not _RETRACTED.search(folded)


def is_denied(root: Group) -> bool:
    """Whether words before a box in its sentence, or directly after it, deny it, or a sentence states absence."""
    sentence: deque[str] = deque(maxlen=40)
    absent = False
    boxes = 0
    for position, (key, value) in enumerate(root.items):
        if key and not BOX_KEYS.fullmatch(key):
            sentence.append(key)
        if isinstance(value, Group) and not is_parenthetical(value):
            boxes += 1
            after: list[str] = []
            for word in words_of(root.items[position + 1 : position + 12]):
                after.append(word.lower())
                if word.endswith((".", "!", "?")):
                    break
            if absent or _DENIED.search(" ".join(sentence).lower()) or _DENIED_AFTER.match(" ".join(after)):
                return True
        for word in words_of([(None, value)]):
            sentence.append(word)
            if word.endswith((".", "!", "?")):
                absent = absent or _NOTHING.fullmatch(" ".join(sentence).lower()) is not None
                sentence.clear()
    return not boxes and bool(_DENIED.search(" ".join(sentence).lower()))


def words_of(items: list[tuple[str | None, "Value"]]) -> list[str]:
    """The words of values outside brackets and in parentheses."""
    words: list[str] = []
    for _, value in items:
        if isinstance(value, (Word, str)):
            words.append(value.text if isinstance(value, Word) else value)
        elif isinstance(value, Group) and is_parenthetical(value):
            words += [inner.text if isinstance(inner, Word) else str(inner) for _, inner in value.items]
    return words


def prose_of(root: Group) -> str:
    """The words outside all brackets in lower case, except keys of boxes and coordinates."""
    words: list[str] = []
    for key, value in root.items:
        if key and key not in COORDINATES and not BOX_KEYS.fullmatch(key):
            words.append(key)
        words += words_of([(None, value)])
    return " ".join(word for word in words if re.search(r"[^\W\d]", word))[:MAX_CHARACTERS].lower()
