"""Signs that reasoning is copied, not thought: figures for the log, never part of a reward.

All count words in lower case. Distinct-n is that of Li et al. (arXiv 1510.03055), self-BLEU that of Zhu et al.
(arXiv 1802.01886).
"""

import re
from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from vrft.sample import Knowledge

SPAN = 4
"""Words in a row that count as copied; fewer where a text has fewer."""

_WORD = re.compile(r"\w+")
_MOST_WORDS = 2000
"""Of a reasoning; what follows is left out, so that a runaway completion costs no time."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def longest_copy(words: Sequence[str], source: Sequence[str]) -> int:
    """The length of the longest run of words that also stands in another text.

    >>> longest_copy("it has a smooth margin".split(), "with a smooth margin and".split())
    3
    """
    longest, row = 0, [0] * (len(source) + 1)
    for word in words:
        fresh = [0] * (len(source) + 1)
        for index, other in enumerate(source, start=1):
            if word == other:
                fresh[index] = row[index - 1] + 1
        longest, row = max(longest, *fresh), fresh
    return longest


def quotes(words: Sequence[str], text: str, but_not: str = "") -> bool:
    """Whether a reasoning holds a run of words of a text that does not stand in another one.

    >>> quotes("seen is a round pale mass".split(), "a round pale mass", "a dark mass")
    True
    """
    source = words_of(text)
    span = min(SPAN, len(source))
    if not span:
        return False
    own = set(ngrams(words_of(but_not), span))
    return bool(set(ngrams(words, span)) & (set(ngrams(source, span)) - own))


def distinct(reasonings: Sequence[Sequence[str]], n: int) -> float:
    """Distinct runs of n words over all of them; 0 where there are none.

    >>> distinct([["a", "b"], ["a", "b"]], 1)
    0.5
    """
    runs = [run for words in reasonings for run in ngrams(words, n)]
    return len(set(runs)) / len(runs) if runs else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU of each text against the others, in [0, 1]; 1 where all are alike, 0 where there is no other."""
    if len(texts) < 2:
        return 0.0
    bleu = BLEU(lowercase=True, effective_order=True)
    scores = [
        bleu.sentence_score(text, [*texts[:index], *texts[index + 1 :]]).score if text.strip() else 0.0
        for index, text in enumerate(texts)
    ]
    return sum(scores) / len(scores) / 100


def gaming_figures(reasonings: Sequence[str], known: Sequence[Knowledge | None], group_size: int) -> dict[str, float]:
    """The figures of one step.

    Args:
        reasonings: n think blocks, the groups one after another.
        known: n, what is known about each sample, or None.
        group_size: completions in a group; divides n.

    Returns:
        ``reasoning_words`` (mean), ``distinct_1`` and ``distinct_2`` (over the step), ``self_bleu`` (mean over groups);
        and over the samples with knowledge ``copied_span`` (mean words of the longest copy from the card),
        ``copied_4grams`` (share of the runs of four words that stand in the card) and ``quotes_other`` (share of
        completions that quote what is known of another class).
    """
    split = [words_of(text)[:_MOST_WORDS] for text in reasonings]
    groups = [list(reasonings[start : start + group_size]) for start in range(0, len(reasonings), group_size)]
    figures = {
        "reasoning_words": sum(map(len, split)) / max(1, len(split)),
        "distinct_1": distinct(split, 1),
        "distinct_2": distinct(split, 2),
        "self_bleu": sum(map(self_bleu, groups)) / max(1, len(groups)),
    }
    informed = [(words, one) for words, one in zip(split, known, strict=True) if one is not None]
    if informed:
        cards = {one.card: words_of(one.card) for _, one in informed}
        runs = {card: set(ngrams(words, SPAN)) for card, words in cards.items()}
        spans = [longest_copy(words, cards[one.card]) for words, one in informed]
        written = [(run, runs[one.card]) for words, one in informed for run in ngrams(words, SPAN)]
        quoting = [any(quotes(words, text, one.own) for text in one.others) for words, one in informed]
        figures |= {
            "copied_span": sum(spans) / len(spans),
            "copied_4grams": sum(run in card for run, card in written) / max(1, len(written)),
            "quotes_other": sum(quoting) / len(quoting),
        }
    return figures
