"""Recitation: how much of the given knowledge the reasoning repeats; a weight below zero penalises it.

R_recite of VRFT-Aug (arXiv 2602.10619) is the BLEU of what stands inside ``<think>`` against the injected knowledge.
Here BLEU is one of several measures, each in [0, 1] and higher where more is repeated; the sign is that of the weight.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vrft.response import parse
from vrft.rewards.columns import Completion, prompt_ends, spread, text_of

LONGEST = 20_000
"""Characters of a reasoning that count; ROUGE-L takes the product of both lengths."""

Measure = Callable[[str, str], float]
"""From a reasoning and the knowledge to [0, 1]."""


def bleu(reasoning: str, knowledge: str) -> float:
    """Sentence BLEU by sacrebleu: up to 4-grams, tokens of ``13a``, lower case, exponential smoothing, effective order.

    The brevity penalty counts: against a long card a short reasoning scores near 0 whatever it holds.

    >>> round(bleu("A round mass.", "A round mass."), 6), round(bleu("Nothing is seen", "A round mass."), 2)
    (1.0, 0.0)
    """
    from sacrebleu.metrics import BLEU

    return float(_cached(BLEU, lowercase=True, effective_order=True).sentence_score(reasoning, [knowledge]).score) / 100


def chrf(reasoning: str, knowledge: str) -> float:
    """chrF2 by sacrebleu: character n-grams up to 6, recall counts twice, lower case.

    >>> round(chrf("rounded masses", "A round mass"), 2) > round(bleu("rounded masses", "A round mass"), 2)
    True
    """
    from sacrebleu.metrics import CHRF

    return float(_cached(CHRF, lowercase=True).sentence_score(reasoning, [knowledge]).score) / 100


def rouge_l(reasoning: str, knowledge: str) -> float:
    """ROUGE-L by rouge-score: F1 of the longest common subsequence of words, without stemming.

    >>> round(rouge_l("a mass that is round", "a round mass"), 3)
    0.5
    """
    from rouge_score.rouge_scorer import RougeScorer

    return float(_cached(RougeScorer, rouge_types=("rougeL",)).score(knowledge, reasoning)["rougeL"].fmeasure)


def embedding(model: str | None = None) -> Measure:
    """Cosine of sentence embeddings, negative ones counted as 0: what is meant, in whatever words.

    A negation hardly moves it. Needs the extra ``vrft[embeddings]``; nothing is fetched.

    Args:
        model: the directory of a sentence-transformers model; without it the WordLlama that comes in its package.

    Raises:
        ValueError: the extra is missing, or the directory holds no such model.
    """
    if missing := missing_for("embedding", model):
        raise ValueError(missing)
    return _cached(_directory, path=model) if model else _cached(_wordllama)


def missing_for(name: str, model: str | None = None) -> str | None:
    """What a measure lacks on this machine, told without loading anything; None where it can be used."""
    if name != "embedding":
        return None
    if model and not (Path(model).expanduser() / "modules.json").is_file():
        return f"{model} is no directory of a sentence-transformers model; it has no modules.json"
    if find_spec("sentence_transformers" if model else "wordllama") is None:
        return "sentence embeddings need an extra: pip install 'vrft[embeddings]'"
    return None


def _wordllama() -> Measure:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    import wordllama  # type: ignore[import-untyped]

    root.setLevel(before[0])  # the package sets up logging for the whole process
    root.handlers[:] = before[1]
    # The package looks for its own tokenizer in the cache directory alone, which is therefore said to be the package.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return lambda reasoning, knowledge: max(0.0, float(model.similarity(reasoning, knowledge)))


def _directory(path: str) -> Measure:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(path).expanduser()), local_files_only=True, device="cpu")
    embedded = partial(model.encode, normalize_embeddings=True, show_progress_bar=False)
    known = cache(embedded)
    return lambda reasoning, knowledge: max(0.0, float(embedded(reasoning) @ known(knowledge)))


@cache
def _cached(kind: Callable[..., Any], **options: Any) -> Any:
    return kind(**options)


MEASURES: dict[str, Measure] = {"bleu": bleu, "rouge_l": rouge_l, "chrf": chrf}
RECITATIONS = (*MEASURES, "embedding")
"""The names of the measures in a recipe."""


def measure_of(name: str, model: str | None = None) -> Measure:
    """The measure of a name.

    Raises:
        ValueError: there is none of this name, or what it needs is missing.
    """
    if name == "embedding":
        return embedding(model)
    if name not in MEASURES:
        raise ValueError(f"the measure is {name!r}; expected one of {', '.join(RECITATIONS)}")
    return MEASURES[name]


def recitation_reward(
    completions: Sequence[Completion],
    *,
    knowledge: Any = None,
    recite: str | Measure = "bleu",
    recite_model: str | None = None,
    prompt_end: str | Sequence[str] = "",
    **columns: Any,
) -> list[float | None]:
    """Pay how much the reasoning repeats of the knowledge; 0 without a think block, None without knowledge.

    Source: R_recite of VRFT-Aug (arXiv 2602.10619), which takes BLEU.

    Args:
        completions: texts or chat messages, length n.
        knowledge: the text that is compared with, one for all or one for each.
        recite: one of ``RECITATIONS``, or a function from a reasoning and the knowledge to [0, 1].
        recite_model: of ``embedding``: the directory of a model; without it the one in the extra's package.
        prompt_end: what the chat template opens the assistant's turn with, one text or n (``format_reward``).
        columns: not used; the reward applies to every task.

    Returns:
        n rewards, each in [0, 1] or None.

    Raises:
        ValueError: the measure is unknown, or what it needs is missing.

    >>> recitation_reward(["<think>A round mass.</think><answer>benign</answer>"], knowledge="A round mass.")
    [1.0]
    """
    measure = measure_of(recite, recite_model) if isinstance(recite, str) else recite
    known = spread(knowledge, len(completions), one=str)
    rows = zip(completions, known, prompt_ends(prompt_end, len(completions)), strict=True)
    return [recitation(text_of(one), text, measure, end) for one, text, end in rows]


def recitation(completion: str, knowledge: str | None, measure: Measure = bleu, prompt_end: str = "") -> float | None:
    """What one completion earns."""
    if not knowledge:
        return None
    reasoning = (parse(completion, prompt_end=prompt_end).think or "").strip()[:LONGEST]
    return min(1.0, max(0.0, measure(reasoning, knowledge))) if reasoning else 0.0
