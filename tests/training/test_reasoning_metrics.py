"""Figures that tell copying from thinking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.sample import Knowledge
from vrft.training.reasoning_metrics import (
    compute_reasoning_metrics,
    distinct,
    longest_copy,
    quotes,
    self_bleu,
    split_words,
)

CARD = Knowledge(
    "", "a: an oval mass with a smooth margin b: a dark spot", "an oval mass with a smooth margin", ("a dark spot",)
)
WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@given(WORDS, WORDS)
def test_the_longest_copy_is_the_longest_common_run(words: list[str], source: list[str]):
    runs = [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    found = [len(run) for run in runs if any(source[k : k + len(run)] == run for k in range(len(source)))]
    assert longest_copy(words, source) == max(found, default=0)


def test_copying_shows_and_thinking_does_not():
    copied = compute_reasoning_metrics(["An oval mass with a smooth margin."] * 4, [CARD] * 4, 2)
    thought = compute_reasoning_metrics(
        ["It is wide.", "Its edge is even.", "No corner anywhere.", "Rather pale inside."], [CARD] * 4, 2
    )
    assert (copied["copied_span"], copied["copied_4grams"], copied["self_bleu"]) == (7, 1, pytest.approx(1))
    assert thought["copied_4grams"] == 0
    assert thought["self_bleu"] < 0.3 < copied["self_bleu"]
    assert thought["distinct_2"] == 1 > copied["distinct_2"]


def test_words_of_another_class_differ_from_shared_words():
    assert quotes(split_words("There is a dark spot"), "a dark spot", "an oval mass")
    assert not quotes(split_words("There is a dark spot"), "a dark spot", "a dark spot above")
    assert compute_reasoning_metrics(["a dark spot", "an oval mass"], [CARD] * 2, 2)["quotes_other"] == 0.5


def test_without_knowledge_there_are_only_metrics_of_variety():
    assert set(compute_reasoning_metrics(["x y", ""], [None, None], 2)) == {
        "reasoning_words",
        "distinct_1",
        "distinct_2",
        "self_bleu",
    }


def test_empty_reasoning_is_no_division_by_zero():
    figures = compute_reasoning_metrics(["", ""], [CARD, CARD], 2)
    assert figures == dict.fromkeys(figures, 0.0)
    assert (distinct([], 1), self_bleu(["alone"])) == (0.0, 0.0)
