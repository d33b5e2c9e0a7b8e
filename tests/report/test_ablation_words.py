"""The words of an ablation claim what its numbers allow, and no more."""

from typing import Any

import pytest

from vrft.report.ablation_words import in_words

Ablation = dict[str, Any]
UNSEEN = "no difference could be seen"


def sentence_with(ablation: Ablation, words: str) -> str:
    (sentence,) = (s for s in in_words(ablation) if words in s)
    return sentence


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("seen", [True, False])
def test_no_difference_is_said_exactly_of_what_was_not_seen(ablation: Ablation, place: int, seen: bool):
    ablation["effects"] = [ablation["effects"][place] | {"seen": seen}]
    said = " ".join(in_words(ablation))
    assert (UNSEEN in said) is not seen
    assert ("an effect below 0.031 could not have been seen" in said) is not seen


def test_what_was_compared_is_told_first(ablation: Ablation):
    assert in_words(ablation)[0] == (
        "Compared by accuracy: 4 cells of the factorial PA_p (2) x recite (2), 1 control and 1 further point of a "
        "sweep, with 3 seeds, on 512 samples of the test split."
    )


def test_a_main_effect_is_told_by_its_level(ablation: Ablation):
    assert "with PA_p the accuracy is higher: +0.105 [+0.085, +0.125]" in sentence_with(ablation, "+0.105")
    assert sentence_with(ablation, "recite at -0.2 instead of 0").count(UNSEEN) == 1


def test_a_higher_error_is_worse(ablation: Ablation):
    ablation["metric"] = "mae"
    assert "mean abs. error is higher, which is worse" in sentence_with(ablation, "with PA_p the")


def test_an_interval_that_leaves_out_zero_is_no_claim_once_corrected(ablation: Ablation):
    ablation["effects"][1] |= {"difference": 0.03, "low": 0.001, "high": 0.059}
    sentence = sentence_with(ablation, "recite at -0.2")
    assert UNSEEN in sentence
    assert "its interval alone leaves out zero, but not once corrected for 4 effects" in sentence


def test_interactions_that_were_not_seen_share_a_sentence_with_the_least_precise(ablation: Ablation):
    ablation["effects"].append(ablation["effects"][2] | {"name": "PA_p x MFRS", "minimum_detectable_effect": 0.077})
    sentence = sentence_with(ablation, "interactions")
    assert "In the 2 interactions no difference could be seen; an effect below 0.077" in sentence
    assert "PA_p x MFRS" in sentence


@pytest.mark.parametrize(
    ("a", "b", "difference", "seen", "words"),
    [
        ("rft+PA_pi", "rft+shuffled", 0.1, True, "the gain over it comes from where the findings are."),
        ("rft+PA_pi", "rft+shuffled", -0.1, True, "a gain does not come from where the findings are."),
        ("rft+PA_pi", "rft+shuffled", 0.0, False, "nothing shows that a gain comes from where the findings are."),
        ("rft+PA_pi", "rft+extra", 0.1, True, "it gives more than as many further steps on the task itself."),
        ("swapped", "rft+PA_p", -0.4, True, "it uses what it is told."),
        ("rft+PA_p", "swapped", 0.4, True, "it uses what it is told."),
        ("without", "rft+PA_p", -0.4, True, "does not show that it uses what they say."),
        ("rft", "blind", 0.0, False, "nothing shows that it needs the image."),
        ("rft", "nothink", -0.1, True, "it does better without reasons."),
        ("rft", "sft", 0.1, True, "RFT gives more than this SFT."),
        ("base", "rft", -0.1, True, "the training improves on the untrained policy."),
    ],
)
def test_a_control_says_what_it_means(ablation: Ablation, a: str, b: str, difference: float, seen: bool, words: str):
    ends = {"difference": difference, "low": difference - 0.02, "high": difference + 0.02}
    ablation["effects"] = [ablation["effects"][3] | {"a": a, "b": b, "seen": seen} | ends]
    assert any(sentence.endswith(words) for sentence in in_words(ablation))


def test_a_control_of_another_name_gets_no_meaning(ablation: Ablation):
    ablation["effects"] = [ablation["effects"][3] | {"a": "my", "b": "other"}]
    assert sentence_with(ablation, "than other").endswith("Holm p = 0.020).")


def test_the_best_arm_is_flagged_as_chosen(ablation: Ablation):
    sentence = sentence_with(ablation, "highest accuracy")
    assert "rft+PA_p+recite-0.2 (0.620)" in sentence
    assert "chosen after looking" in sentence


def test_failed_runs_are_named(ablation: Ablation):
    ablation["failed"] = [{"arm": "rft", "seed": 2, "error": "x"}]
    assert sentence_with(ablation, "Failed") == "Failed or not done, and not counted: rft with seed 2."


def test_intervals_without_seeds_carry_a_warning(ablation: Ablation):
    assert not any("not the seeds" in sentence for sentence in in_words(ablation))
    ablation["effects"][0]["seeds_counted"] = False
    assert sentence_with(ablation, "not the seeds").startswith("The intervals of PA_p count")
    for effect in ablation["effects"]:
        effect["seeds_counted"] = False
    assert sentence_with(ablation, "not the seeds").startswith("The intervals count the test samples alone")


def test_boxes_are_told_by_their_metric(of_boxes: Ablation):
    assert "the mean IoU is higher" in sentence_with(of_boxes, "with PA_p")
