"""Recitation: how much of the given knowledge the reasoning repeats; a negative weight penalises it.

R_recite of VRFT-Aug (arXiv 2602.10619) is the BLEU of the think block against the injected knowledge. Here BLEU is one
of several measures, each in [0, 1] and higher where more is repeated; the weight has the sign.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vrft.response import parse
from vrft.rewards.columns import Completion, broadcast, prompt_ends, text_of

MAX_CHARACTERS = 20_000
"""The reasoning is cut here, since the time of ROUGE-L grows with the product of both lengths."""

Measure = Callable[[str, str], float]
"""Maps a reasoning and the knowledge to [0, 1]."""


def bleu(reasoning: str, knowledge: str) -> float:
    """Sentence BLEU of sacrebleu, in [0, 1]: 4-grams, ``13a`` tokens, lower case, smoothing exp, effective order.

    The brevity penalty applies: against a long card a short reasoning scores near 0.

    >>> round(bleu("A round mass.", "A round mass."), 6), round(bleu("Nothing is seen", "A round mass."), 2)
    (1.0, 0.0)
    """
    from sacrebleu.metrics import BLEU

    return float(_cached(BLEU, lowercase=True, effective_order=True).sentence_score(reasoning, [knowledge]).score) / 100


def chrf(reasoning: str, knowledge: str) -> float:
    """chrF2 of sacrebleu, in [0, 1]: character n-grams up to 6, recall counts twice, lower case.

    >>> round(chrf("rounded masses", "A round mass"), 2) > round(bleu("rounded masses", "A round mass"), 2)
    True
    """
    from sacrebleu.metrics import CHRF

    return float(_cached(CHRF, lowercase=True).sentence_score(reasoning, [knowledge]).score) / 100


def rouge_l(reasoning: str, knowledge: str) -> float:
    """ROUGE-L of rouge-score, in [0, 1]: F1 of the longest common subsequence of words, without stemming.

    >>> round(rouge_l("a mass that is round", "a round mass"), 3)
    0.5
    """
    from rouge_score.rouge_scorer import RougeScorer

    return float(_cached(RougeScorer, rouge_types=("rougeL",)).score(knowledge, reasoning)["rougeL"].fmeasure)


def embedding(model: str | None = None) -> Measure:
    """Return the cosine similarity of sentence embeddings as a measure; negative values count as 0.

    It compares meanings, not words, but a negation hardly changes it. It needs the extra ``vrft[embeddings]`` and
    downloads nothing.

    Args:
        model: the directory of a sentence-transformers model; by default the WordLlama of the installed package.

    Raises:
        ValueError: the extra is missing, or the directory holds no such model.
    """
    if missing := missing_for("embedding", model):
        raise ValueError(missing)
    return _cached(_sentence_transformer, path=model) if model else _cached(_wordllama)


def missing_for(name: str, model: str | None = None) -> str | None:
    """Say which package or model a measure lacks on this machine; None where it can be used. Nothing is loaded."""
    if name != "embedding":
        return None
    if model and not (Path(model).expanduser() / "modules.json").is_file():
        return f"{model} is no directory of a sentence-transformers model; it has no modules.json"
    if find_spec("sentence_transformers" if model else "wordllama") is None:
        return "sentence embeddings need an extra: pip install 'vrft[embeddings]'"
    return None


def _wordllama() -> Measure:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    import wordllama  # type: ignore[import-untyped]

    root.setLevel(level)  # the package configures logging for the whole process
    root.handlers[:] = handlers
    # The package finds its own tokenizer in the cache directory only, so the package's directory is given as the cache.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return lambda reasoning, knowledge: max(0.0, float(model.similarity(reasoning, knowledge)))


def _sentence_transformer(path: str) -> Measure:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(path).expanduser()), local_files_only=True, device="cpu")
    embed = partial(model.encode, normalize_embeddings=True, show_progress_bar=False)
    embed_knowledge = cache(embed)
    return lambda reasoning, knowledge: max(0.0, float(embed(reasoning) @ embed_knowledge(knowledge)))


@cache
def _cached(kind: Callable[..., Any], **options: Any) -> Any:
    return kind(**options)


MEASURES: dict[str, Measure] = {"bleu": bleu, "rouge_l": rouge_l, "chrf": chrf}
RECITATIONS = (*MEASURES, "embedding")
"""The names of the measures in a recipe."""


def measure_of(name: str, model: str | None = None) -> Measure:
    """Return a measure by its name.

    Raises:
        ValueError: the name is unknown, or a package or model is missing.
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
    """Reward the share of the knowledge that the reasoning repeats; 0 without a think block, None without knowledge.

    Source: R_recite of VRFT-Aug (arXiv 2602.10619), which uses BLEU.

    Args:
        completions: texts or chat messages, length n.
        knowledge: the text to compare with, one or n.
        recite: one of ``RECITATIONS``, or a function from a reasoning and the knowledge to [0, 1].
        recite_model: for ``embedding``, the directory of a model; by default the model of the extra's package.
        prompt_end: the beginning of the assistant's turn that the chat template writes, one text or n.
        columns: not used; the reward applies to every task.

    Returns:
        n rewards, each in [0, 1] or None.

    Raises:
        ValueError: the measure is unknown, or a package or model is missing.

    >>> recitation_reward(["<think>A round mass.</think><answer>benign</answer>"], knowledge="A round mass.")
    [1.0]
    """
    measure = measure_of(recite, recite_model) if isinstance(recite, str) else recite
    known = broadcast(knowledge, len(completions), value_type=str)
    rows = zip(completions, known, prompt_ends(prompt_end, len(completions)), strict=True)
    return [recitation(text_of(completion), text, measure, end) for completion, text, end in rows]


def recitation(completion: str, knowledge: str | None, measure: Measure = bleu, prompt_end: str = "") -> float | None:
    """The recitation of one completion, in [0, 1]; None without knowledge."""
    if not knowledge:
        return None
    reasoning = (parse(completion, prompt_end=prompt_end).think or "").strip()[:MAX_CHARACTERS]
    return min(1.0, max(0.0, measure(reasoning, knowledge))) if reasoning else 0.0
