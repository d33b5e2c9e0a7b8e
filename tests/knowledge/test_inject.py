"""What is known goes into samples, or something else in its place."""

from pathlib import Path

import pytest

from vrft.data.phantom import ATTRIBUTES
from vrft.knowledge import UNRELATED, Injection
from vrft.sample import Knowledge, Sample
from vrft.tasks import Classification, Grading, Localization

TEXTS = {"a": "round and pale", "b": "angular", "c": "dark all over the left side"}
WHOLE = Injection(TEXTS, other=["the left kidney lies high", "bones"])


def sample(name: str = "one", target: str = "b") -> Sample:
    return Sample(name, lambda: None, "Which?", target, "test")  # type: ignore[arg-type, return-value]


def test_the_card_stands_in_the_prompt_and_the_own_class_is_known():
    assert WHOLE.apply(sample()).knowledge == Knowledge(
        "What is known:\n- a: round and pale\n- b: angular\n- c: dark all over the left side",
        "a: round and pale b: angular c: dark all over the left side",
        "angular",
        ("round and pale", "dark all over the left side"),
    )


@pytest.mark.parametrize(
    ("task", "last"),
    [
        (Classification(("a", "b", "c")), "c"),
        (Grading(3), "Answer with one grade from 0 to 2."),
        (Localization("unit"), None),
    ],
)
def test_it_stands_between_the_question_and_the_envelope(
    task: Classification | Grading | Localization, last: str | None
):
    lines = task.prompt("Which?", "What is known:\n- a: round").split("\n")
    plain = task.prompt("Which?").split("\n")
    assert lines[-3:-1] == ["What is known:", "- a: round"]
    assert lines[:-3] + lines[-1:] == plain
    assert last is None or lines[-4] == last


@pytest.mark.parametrize("texts", ["abc", "aabb", "abac", "aabbc", "ab", "abcabc"])
def test_exchanged_descriptions_are_all_of_another_class(texts: str):
    given = {f"class {n}": text for n, text in enumerate(texts)}
    swapped = Injection(given).texts_for("swapped")
    assert sorted(swapped.values()) == sorted(texts)
    assert all(swapped[label] != given[label] for label in given)


@pytest.mark.parametrize("texts", ["a", "aa", "aab", "abaa"])
def test_what_cannot_be_exchanged_is_refused(texts: str):
    with pytest.raises(ValueError, match="none can be exchanged"):
        Injection(dict(enumerate(texts))).texts_for("swapped")  # type: ignore[arg-type]


def test_other_words_are_as_many_as_those_of_the_card():
    texts = WHOLE.texts_for("irrelevant")
    assert [len(texts[label].split()) for label in TEXTS] == [len(text.split()) for text in TEXTS.values()]
    assert not set(texts["b"].split()) & set(TEXTS["b"].split())


def test_a_recitation_is_compared_with_the_true_card_whatever_the_prompt_holds():
    for kind in ("card", "swapped", "irrelevant", "none"):
        known = WHOLE.apply(sample(), kind).knowledge  # type: ignore[arg-type]
        assert known is not None
        assert known.own == "angular"
    assert known.prompt == ""


def test_the_order_of_the_lines_tells_nothing_and_is_the_same_each_time():
    shuffled = Injection(TEXTS, shuffle=True, label_first=False)
    prompts = {shuffled.apply(sample(str(n))).knowledge.prompt for n in range(60)}  # type: ignore[union-attr]
    assert len(prompts) == 6
    assert shuffled.apply(sample("x")).knowledge == shuffled.apply(sample("x", target="b")).knowledge
    assert all("- angular b" in prompt for prompt in prompts)


def test_what_is_irrelevant_names_nothing_that_a_phantom_shows():
    said = set(" ".join(UNRELATED).lower().replace(".", " ").replace(",", " ").split())
    assert not said & {word for values in ATTRIBUTES.values() for word in values}
    assert not said & {"round", "smooth", "oval", "size", "shape", "small", "large", "dark", "pale", "bright", "margin"}
    texts = Injection({str(n): "large round" for n in range(6)}).texts_for("irrelevant")
    assert len(set(texts.values())) == 6
    assert all(len(text.split()) == 2 for text in texts.values())


def test_a_grade_has_the_name_that_an_answer_uses():
    injection = Injection({"0": "round", "1": "angular"}, display_names={"0": "PI-RADS 1", "1": "PI-RADS 2"})
    sample = injection.apply(Sample("a", Path("a.png"), "Which?", 1, "train"))
    assert sample.knowledge is not None
    assert sample.knowledge.prompt == "What is known:\n- PI-RADS 1: round\n- PI-RADS 2: angular"
    assert sample.knowledge.own == "angular"
    assert "PI-RADS 2: angular" in sample.knowledge.card
    assert "display_names" not in Injection({"0": "round"}).facts()
