"""Metrics of copied and repetitive reasoning, for the log; never part of a reward.

Words are compared in lower case. Distinct-n is that of Li et al. (arXiv 1510.03055), self-BLEU that of Zhu et al.
(arXiv 1802.01886).
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from sacrebleu.metrics import BLEU

from vrft.sample import Knowledge

SPAN = 4
"""The length of a word n-gram that counts as copied; less where a text is shorter."""

_WORD = re.compile(r"\w+")
_MAX_WORDS = 2000
"""Longer reasoning is cut, so that a completion without end costs little time."""


def split_words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams of words, in order."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def longest_copy(words: Sequence[str], source: Sequence[str]) -> int:
    """The length of the longest common run of words of two texts.

    >>> longest_copy("it has a smooth margin".split(), "with a smooth margin and".split())
    3
    """
    return SequenceMatcher(None, words, source, autojunk=False).find_longest_match().size


def quotes(words: Sequence[str], text: str, but_not: str = "") -> bool:
    """Whether a reasoning contains an n-gram (``SPAN``) of a text that is not in the text ``but_not``.

    >>> quotes("seen is a round pale mass".split(), "a round pale mass", "a dark mass")
    True
    """
    source = split_words(text)
    span = min(SPAN, len(source))
    if not span:
        return False
    own = set(ngrams(split_words(but_not), span))
    return bool(set(ngrams(words, span)) & (set(ngrams(source, span)) - own))


def distinct(reasonings: Sequence[Sequence[str]], n: int) -> float:
    """Distinct-n: the number of distinct n-grams divided by the number of n-grams, in [0, 1]; 0 without n-grams.

    >>> distinct([["a", "b"], ["a", "b"]], 1)
    0.5
    """
    grams = [gram for words in reasonings for gram in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU of each text against the others, in [0, 1]; 1 where all are equal, 0 for a single text."""
    if len(texts) < 2:
        return 0.0
    bleu = BLEU(lowercase=True, effective_order=True)
    scores = [
        bleu.sentence_score(text, [*texts[:index], *texts[index + 1 :]]).score if text.strip() else 0.0
        for index, text in enumerate(texts)
    ]
    return sum(scores) / len(scores) / 100


def compute_reasoning_metrics(
    reasonings: Sequence[str], known: Sequence[Knowledge | None], group_size: int
) -> dict[str, float]:
    """The reasoning metrics of one step.

    Args:
        reasonings: n think blocks, the groups one after another.
        known: n, the knowledge of each sample, or None.
        group_size: completions in a group; divides n.

    Returns:
        ``reasoning_words`` (mean), ``distinct_1`` and ``distinct_2`` (over the step), ``self_bleu`` (mean over groups);
        and over the samples with knowledge ``copied_span`` (mean words of the longest copy from the card),
        ``copied_4grams`` (share of the 4-grams that are in the card) and ``quotes_other`` (share of completions that
        quote the knowledge of another class).
    """
    split = [split_words(text)[:_MAX_WORDS] for text in reasonings]
    groups = [list(reasonings[start : start + group_size]) for start in range(0, len(reasonings), group_size)]
    metrics = {
        "reasoning_words": sum(map(len, split)) / max(1, len(split)),
        "distinct_1": distinct(split, 1),
        "distinct_2": distinct(split, 2),
        "self_bleu": sum(map(self_bleu, groups)) / max(1, len(groups)),
    }
    pairs = [(words, knowledge) for words, knowledge in zip(split, known, strict=True) if knowledge is not None]
    if pairs:
        cards = {knowledge.card: split_words(knowledge.card) for _, knowledge in pairs}
        card_grams = {card: set(ngrams(words, SPAN)) for card, words in cards.items()}
        spans = [longest_copy(words, cards[knowledge.card]) for words, knowledge in pairs]
        copied = [gram in card_grams[knowledge.card] for words, knowledge in pairs for gram in ngrams(words, SPAN)]
        quoting = [any(quotes(words, text, knowledge.own) for text in knowledge.others) for words, knowledge in pairs]
        metrics |= {
            "copied_span": sum(spans) / len(spans),
            "copied_4grams": sum(copied) / max(1, len(copied)),
            "quotes_other": sum(quoting) / len(quoting),
        }
    return metrics
