"""The envelope and the readings in words: labels and grades."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vrft.response import ORDERS, mentioned_grade, mentioned_label, parse, read_grade, read_label, render
from vrft.rewards import format_reward

TAGGED = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "benign", "2", " ", "\n", "<|im_end|>"]
    ),
    max_size=14,
).map("".join)


@given(st.text(), st.text())
@example("a", "\u200b")
def test_what_is_rendered_is_parsed_back(think: str, answer: str):
    if "<" in think + answer:
        return
    envelope = parse(render(think, answer))
    assert (envelope.think, envelope.answer or "") == (think.strip(), answer.strip())


@given(st.one_of(TAGGED, st.text()))
def test_no_text_makes_a_reading_fail(text: str):
    envelope = parse(text)
    assert format_reward([text]) == [0.0 if envelope.problems else 1.0]
    assert read_label(envelope.answer, ["benign", "malignant"]).answer in (None, "benign", "malignant")
    assert read_grade(envelope.answer, 5).answer in (None, 0, 1, 2, 3, 4)


@given(TAGGED)
def test_a_right_format_means_one_filled_block_of_each(text: str):
    if not parse(text).problems:
        assert text.count("<think>") == text.count("</think>") == text.count("<answer>") == text.count("</answer>") == 1
        assert text.index("<think>") < text.index("<answer>")


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 200_000,
        "<answer>" + "a " * 400_000,
        "<" * 800_000,
        "</think><answer>" * 60_000,
        "<answer>" + "\u0301\u0316" * 200_000,
        "< " * 400_000,
        "<answer>" + "</s>" * 100_000 + "benign</answer>",
        "<think><answer>" * 60_000,
    ],
)
def test_time_is_linear_in_the_length_of_a_completion(text: str, is_linear: Callable[..., bool]):
    def read(text: str) -> None:
        envelope = parse(text)
        read_label(envelope.answer, ["benign", "malignant"])
        read_grade(envelope.answer, 5)
        mentioned_label(text, ["benign", "malignant"])
        mentioned_grade(text, 5)

    assert is_linear(read, text)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Pneumonia", "pneumonia"),
        ("**pneumonia**", "pneumonia"),
        ("“Pneumonia.”", "pneumonia"),
        ("\\boxed{normal}", "normal"),
        ("lung_opacity", "lung-opacity"),
        ("Lung  Opacity", "lung-opacity"),
        ("infection", "pneumonia"),
        ("no pneumonia", None),
        ("pneumonia?", None),
        ("normal/pneumonia", None),
        ("probably pneumonia", None),
        ("pneumoni", None),
        ("-pneumonia", None),
        ("pneu<|im_end|>monia", None),
        ("", None),
    ],
)
def test_a_label_is_read_only_when_the_whole_answer_is_one(answer: str, label: str | None):
    labels = ["normal", "pneumonia", "lung-opacity"]
    assert read_label(answer, labels, {"pneumonia": ["infection"]}).answer == label


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>malignant<answer>benign</answer>",
        "<think>a</think><answer>not<answer>benign</answer>",
        "<think>a</think><answer>benign</answer><answer>malignant</answer>",
        "<think>a</think><answer>be<|im_end|>nign</answer>",
    ],
)
def test_two_answers_or_a_broken_one_are_no_answer(text: str):
    assert read_label(parse(text).answer, ["benign", "malignant"]).answer is None


@given(TAGGED)
def test_the_order_decides_what_is_a_problem_never_what_is_read(text: str):
    envelopes = [parse(text, order) for order in ORDERS]
    assert len({(envelope.think, envelope.answer) for envelope in envelopes}) == 1
    assert sum(not envelope.problems for envelope in envelopes) <= 1


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("<think>a</think><answer>b</answer>", "think-answer"),
        ("<answer>b</answer>\n<think>a</think><|im_end|>", "answer-think"),
        (" <answer>b</answer></s>", "no-think"),
    ],
)
def test_an_envelope_is_right_in_its_own_order_only(text: str, order: str):
    assert [name for name in ORDERS if not parse(text, name).problems] == [order]
    assert parse(text, order).answer == "b"


@pytest.mark.parametrize(
    ("text", "answer", "problem"),
    [
        ("<answer>b<think>a</think>", "b", "answer_not_closed"),
        ("< think >a</ think ><answer>b</answer>", "b", "tag_space"),
        ("<think>a</think></think><answer>b</answer>", "b", "stray_tag"),
        ("<think>a</think><answer>b</answer><answer>B.</answer>", "b", "several_answers"),
        ("<think>a</think><answer>b</answer>\nuser\n", "b", "text_outside"),
    ],
)
def test_a_broken_envelope_costs_the_format_not_the_answer(text: str, answer: str, problem: str):
    envelope = parse(text)
    assert envelope.answer == answer
    assert problem in envelope.problems


def test_a_tag_is_not_made_by_what_is_taken_out():
    assert format_reward(["<thi<eos>nk>a</think><answer>b</answer>"]) == [0.0]


def test_a_name_that_two_labels_share_is_no_label():
    assert read_label("shadow", ["a", "b"], {"a": ["shadow"], "b": ["shadow"]}).answer is None


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("0", 0),
        ("Grade: 3", 3),
        ("grade 2 (moderate)", 2),
        ("Stage IV", 4),
        ("three", 3),
        ("4.00", 4),
        ("The final answer is 1", 1),
        ("The grade is 1", 1),
        ("severe", 3),
        ("Moderate (grade 2)", 2),
        ("2 moderate", 2),
        ("2 = moderate", 2),
        ("2 - moderate", 2),
        ("2 - three", None),
        ("moderate (3)", None),
        ("Ⅱ", 2),
        ("٣", 3),
        ("3 (mild)", None),
        ("2, no wait", None),
        ("2 (uncertain)", None),
        ("2 (no haemorrhage)", None),
        ("2 or 3", None),
        ("2–3", None),
        ("2/4", None),
        ("-1", None),
        ("<2", None),
        ("not 2", None),
        ("between 1 and 2", None),
        ("I", None),
        ("5", None),
        ("1e0", None),
        ("Infinity", None),
        ("9" * 400, None),
    ],
)
def test_a_grade_is_read_only_when_it_is_unmistakable(answer: str, grade: int | None):
    names = ["none", "mild", "moderate", "severe", "proliferative"]
    assert read_grade(answer, 5, names).answer == grade


def test_synonyms_of_a_grade_count_by_its_number_or_its_name():
    names, synonyms = ["none", "mild", "severe"], {"0": ["no disease"], "severe": ["advanced"]}
    answers = ["no disease", "Advanced.", "grade 2 (advanced)", "2 (no disease)"]
    assert [read_grade(answer, 3, names, synonyms).answer for answer in answers] == [0, 2, 2, None]


def test_the_lenient_reading_finds_the_only_label_or_grade_in_prose():
    assert mentioned_label("This is most likely a benign mass.", ["benign", "malignant"]) == "benign"
    assert mentioned_label("It is not malignant.", ["benign", "malignant"]) is None
    assert mentioned_label("No tumor can be seen.", ["no tumor", "glioma"]) == "no tumor"
    for text in ("pneumonia was ruled out", "negative for pneumonia", "isn’t pneumonia", "possible pneumonia"):
        assert mentioned_label(text, ["normal", "pneumonia"]) is None
    for text in ("grade -2", "grade 2+", "On a scale of 4", "There are 3 lesions"):
        assert mentioned_grade(text, 5) is None
    assert mentioned_grade("I see 12 lesions, so grade 3.", 5) is None
    assert mentioned_grade("The retina shows grade 3 disease.", 5) == 3
