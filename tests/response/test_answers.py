"""Answers to questions: yes or no, a choice, a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.response import read_choice, read_open, read_yes_no, same_text

CHOICES = {"A": "benign", "B": "malignant", "C": "normal"}


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("**No.**", "no"),
        ("yes, there is no effusion", None),
        ("No - the lung is clear", None),
        ("No\nThere is no mass.", "no"),
        ("No, there is no evidence of pneumonia.", "no"),
        ("No there is not", None),
        ("The answer is no.", "no"),
        ("Answer: yes", "yes"),
        ("\\boxed{Yes}", "yes"),
        ("affirmative", "yes"),
        ("yes or no", None),
        ("Yes and no", None),
        ("No, wait, yes", None),
        ("Yes. No.", None),
        ("yes?", None),
        ("Yes, maybe", None),
        ("No evidence of pneumonia", None),
        ("not", None),
        ("I do not know", None),
        ("normal", None),
        ("", None),
    ],
)
def test_yes_or_no_is_read_only_when_it_is_unmistakable(answer: str, read: str | None):
    assert read_yes_no(answer, {"yes": ["affirmative"]}).answer == read


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("[b]", "B"),
        ("B.", "B"),
        ("**B)**", "B"),
        ("B. malignant", "B"),
        ("(B) Malignant.", "B"),
        ("B: malignant", "B"),
        ("B - malignant", "B"),
        ("B malignant", "B"),
        ("Option B", "B"),
        ("The correct answer is (B).", "B"),
        ("The answer is malignant", "B"),
        ("MALIGNANT", "B"),
        ("B. The diagnosis is malignant.", "B"),
        ("B\n\nThe margin is spiculated.", None),
        ("B, because the margin is spiculated", None),
        ("\\boxed{B}", "B"),
        ("B. benign", None),
        ("B. not malignant", None),
        ("A or B", None),
        ("A, B", None),
        ("AB", None),
        ("A and B", None),
        ("benign or malignant", None),
        ("not B", None),
        ("B?", None),
        ("D", None),
        ("A malignant tumour", None),
        ("a mass", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_choice_is_read_only_when_letter_and_text_agree(answer: str, letter: str | None):
    assert read_choice(answer, CHOICES).answer == letter


def test_a_letter_that_is_the_text_of_another_choice_is_no_answer():
    assert read_choice("B", {"A": "B", "B": "A"}).problems == ("letter_and_text_disagree",)


def test_an_open_answer_is_compared_as_a_whole():
    answer = read_open(" **Left lung.** ").answer
    assert isinstance(answer, str)
    assert same_text(answer, ["left-lung"])
    assert not same_text("in the left lung", ["left lung"])
    assert read_open("***").problems == ("empty_answer",)
    assert read_open("a" * 3000).problems == ("too_long",)


@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from(["A", "b", "yes", "no", ".", ",", "(", ")", " ", "or", "\n"])).map("".join)
    )
)
def test_no_text_makes_a_reading_fail(answer: str):
    assert read_yes_no(answer).answer in (None, "yes", "no")
    assert read_choice(answer, CHOICES).answer in (None, *CHOICES)
    assert isinstance(read_open(answer).answer, str | None)
