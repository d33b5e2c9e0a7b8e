"""The envelope where the chat template has begun the assistant's turn with ``<think>``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.response import ORDERS, assistant_turn, envelope_conflict, parse, render

OPEN = "<think>\n"
RIGHT = "It is round.</think>\n\n<answer>benign</answer>"


def test_a_completion_that_goes_on_in_the_think_block_of_the_prompt_has_the_right_envelope():
    envelope = parse(RIGHT, prompt_end=OPEN)
    assert (envelope.think, envelope.answer, envelope.problems) == ("It is round.", "benign", ())


@pytest.mark.parametrize(
    "end", ["<think>", "<think>\n", "<think>\n\n", "<|im_start|>assistant\n<think>\n", "< Think >"]
)
def test_whatever_stands_around_the_open_tag_the_envelope_is_right(end: str):
    assert parse(RIGHT, prompt_end=end) == parse(f"<think>{RIGHT}")


@pytest.mark.parametrize(
    "end",
    [
        "",
        "<|im_start|>assistant\n",
        "<think>\n\n</think>\n\n",  # thinking is switched off: the empty block is the template's
        "<think>\nNo thoughts.\n</think>\n\n",
        "</think>",
        "Think inside <think></think>, then answer inside <answer></answer>.<|im_end|>\n<|im_start|>assistant\n",
        "Begin with <think><|im_end|>\n<|im_start|>assistant\n",  # open in the turn of the user
        "<|begin_of_thought|>",
    ],
)
def test_where_the_prompt_leaves_no_block_open_the_completion_alone_is_judged(end: str):
    for completion in ("<think>x</think><answer>benign</answer>", RIGHT, "", "<answer>benign</answer>"):
        assert parse(completion, prompt_end=end) == parse(completion)
        assert parse(completion, "no-think", end) == parse(completion, "no-think")


@pytest.mark.parametrize(
    ("completion", "answer", "problem"),
    [
        ("<think>It is round.</think><answer>benign</answer>", "benign", "stray_tag"),  # the tag once more
        ("It is round, and goes on", None, "think_not_closed"),
        ("It is round.<answer>benign</answer>", "benign", "think_not_closed"),
        ("</think><answer>benign</answer>", "benign", "empty_think"),
        ("It is round.</think>benign", None, "no_answer"),
        ("It is round.</think><answer>benign</answer></think>", "benign", "stray_tag"),
        ("", None, "no_answer"),
    ],
)
def test_what_is_wrong_in_the_whole_turn_is_a_problem(completion: str, answer: str | None, problem: str):
    envelope = parse(completion, prompt_end=OPEN)
    assert envelope.answer == answer
    assert problem in envelope.problems


def test_tags_that_the_reasoning_speaks_of_are_no_answer():
    completion = f"I shall write <answer>malignant</answer>? No: {RIGHT}"
    assert parse(completion, prompt_end=OPEN).answer == "benign"
    assert parse(completion).answer is None


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_rendered_after_a_prompt_is_right_after_it(order: str):
    first = ORDERS[order][0]
    for end in ("", f"<{first}>", f"<|im_start|>assistant\n<{first}>\n", "<think>\n\n</think>\n\n"):
        assert parse(render("Round.", "benign", order, end), order, end).problems == ()
        assert envelope_conflict(end, order) == ""


@pytest.mark.parametrize("order", ["no-think", "answer-think"])
def test_an_order_that_begins_otherwise_than_the_prompt_is_refused(order: str):
    with pytest.raises(ValueError, match=f"leaves <think> open, and the envelope {order} begins with <answer>"):
        render("Round.", "benign", order, OPEN)


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "a", " ", "<", "\u200b"])
)


@given(TEXTS.map("".join), TEXTS.map("".join), st.sampled_from([*ORDERS]))
def test_no_prompt_makes_it_fail_and_its_envelope_is_that_of_the_whole_turn(completion: str, end: str, order: str):
    assert parse(completion, order, end) == parse(assistant_turn(completion, end), order)
    assert assistant_turn(completion, end).endswith(completion)


@pytest.mark.parametrize("unit", ["<think>", "<think></think>", "<|im_end|>", "< ", "a"])
def test_the_time_is_linear_in_the_length_of_the_prompt(unit: str, is_linear):
    assert is_linear(lambda end: parse(RIGHT, prompt_end=end), unit * 40_000)
