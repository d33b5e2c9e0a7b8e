"""Sentences claim as much as the numbers support, and no more."""

from typing import Any

import pytest

from vrft.report import in_words
from vrft.report.sentences import signed

Metrics = dict[str, Any]
NOT_DETECTED = "no difference was detected"


def sentence_with(metrics: Metrics, words: str) -> str:
    (sentence,) = (s for s in in_words(metrics) if words in s)
    return sentence


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("detected", [True, False])
def test_no_difference_is_said_exactly_where_none_was_detected(ablation: Metrics, place: int, detected: bool):
    effects, pairs = ablation["effects"], ablation["comparisons"]
    ablation["effects"] = [row | {"detected": detected} for row in effects[place : place + 1]]
    ablation["comparisons"] = [row | {"detected": detected} for row in pairs if place == 3]
    said = " ".join(in_words(ablation))
    assert (NOT_DETECTED in said) is not detected
    assert ("an effect below 0.031 would have been detected with less than 80% power" in said) is not detected


def test_the_comparison_is_described_first(ablation: Metrics, run: Metrics):
    assert in_words(ablation)[0] == (
        "Compared by accuracy: 4 cells of the factorial PA_p (2) x recite (2), 1 control and 1 further point of a "
        "sweep, with 3 seeds, on 512 samples of the test split."
    )
    assert in_words(run)[0] == "Compared by accuracy: 3 arms, with 3 seeds, on 512 samples of the test split."


def test_a_main_effect_is_named_by_its_level(ablation: Metrics):
    assert "with PA_p the accuracy is higher: +0.105 [+0.085, +0.125]" in sentence_with(ablation, "+0.105")
    assert sentence_with(ablation, "recite at -0.2 instead of 0").count(NOT_DETECTED) == 1


def test_a_confounded_effect_says_so(ablation: Metrics):
    ablation["effects"][0]["confounded"] = True
    assert sentence_with(ablation, "+0.105").endswith("the cells that were run confound it with interactions.")


def test_a_higher_error_is_worse(ablation: Metrics):
    for arm in ablation["arms"].values():
        arm["mae"] = arm.pop("accuracy")
    ablation |= {"metric": "mae"}
    assert "mean abs. error is higher, which is worse" in sentence_with(ablation, "with PA_p the")
    assert "lowest mean abs. error of 6 arms is that of swapped" in sentence_with(ablation, "lowest")


@pytest.mark.parametrize(
    ("value", "written"), [(-0.0001, "+0.000"), (0.0, "+0.000"), (-0.0006, "-0.001"), (2, "+2.000")]
)
def test_a_difference_that_rounds_to_zero_has_no_minus(value: float, written: str):
    assert signed(value) == written


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_that_excludes_zero_is_no_claim_once_corrected(ablation: Metrics, sign: int):
    low, high = sorted((sign * 0.001, sign * 0.059))
    ablation["effects"][1] |= {"difference": sign * 0.03, "low": low, "high": high}
    sentence = sentence_with(ablation, "recite at -0.2")
    assert NOT_DETECTED in sentence
    assert "its interval alone excludes zero, but not after the correction for 4 tests" in sentence


def test_interactions_that_were_not_detected_share_a_sentence_with_the_least_precise(ablation: Metrics):
    ablation["effects"].append(ablation["effects"][2] | {"name": "PA_p x MFRS", "minimum_detectable_effect": 0.077})
    sentence = sentence_with(ablation, "interactions")
    assert "In the 2 interactions no difference was detected; an effect below 0.077" in sentence
    assert "PA_p x MFRS" in sentence


CONTROLS = [
    ("rft+PA_pi", "rft+shuffled", 0.1, True, "the places of the findings give the gain over it."),
    ("rft+PA_pi", "rft+shuffled", -0.1, True, "these places give no gain."),
    ("rft+PA_pi", "rft+shuffled", 0.0, False, "nothing shows that the places of the findings give the gain over it."),
    ("rft+PA_pi", "rft+extra", 0.1, True, "it gives more than as many further steps on the task."),
    ("swapped", "rft+PA_p", -0.4, True, "it uses the content of the card."),
    ("rft+PA_p", "swapped", 0.4, True, "it uses the content of the card."),
    ("swapped", "rft+PA_p", 0.0, False, "nothing shows that it uses the content of the card."),
    ("without", "rft+PA_p", -0.4, True, "does not show that it uses their content."),
    ("irrelevant", "rft+PA_p", -0.4, True, "does not show that it uses the content of the card."),
    ("without", "rft+PA_p", 0.0, False, "nothing shows that it uses the content of the card."),
    ("rft", "blind", 0.0, False, "nothing shows that it needs the image."),
    ("rft", "nothink", -0.1, True, "it does better without reasons."),
    ("rft", "sft", 0.1, True, "RFT gives more than this SFT."),
    ("base", "rft", -0.1, True, "the training improves on the untrained policy."),
    ("rft+PA_p", "majority", 0.1, True, "it does better than a constant answer."),
    ("rft+PA_p", "base", 0.1, True, "Holm p = 0.020)."),
    ("rft+PA_p", "sft", 0.1, True, "Holm p = 0.020)."),
]


@pytest.mark.parametrize("plain", [True, False], ids=["run", "ablation"])
@pytest.mark.parametrize(("a", "b", "difference", "detected", "words"), CONTROLS)
def test_a_control_has_its_meaning_beside_the_arm_that_it_is_for(
    ablation: Metrics, a: str, b: str, difference: float, detected: bool, words: str, plain: bool
):
    ends = {"difference": difference, "low": difference - 0.02, "high": difference + 0.02}
    ablation["comparisons"] = [ablation["comparisons"][0] | {"a": a, "b": b, "detected": detected} | ends]
    ablation |= {"effects": [], "factors": {}} if plain else {"effects": []}
    assert any(sentence.endswith(words) for sentence in in_words(ablation))


def test_a_control_of_another_name_gets_no_meaning(ablation: Metrics):
    ablation["comparisons"] = [ablation["comparisons"][0] | {"a": "my", "b": "other"}]
    assert sentence_with(ablation, "than other").endswith("Holm p = 0.020).")


def test_a_run_says_of_control_arms_how_they_differ_from_the_arms_that_they_are_for(run: Metrics):
    (row, *_) = run["comparisons"]
    names = ["base", "sft", "rft", "rft+PA_p", "swapped", "blind"]
    pairs = [(b, a) for n, b in enumerate(names) for a in names[:n]]
    run["comparisons"] = [row | {"a": a, "b": b, "name": f"{a} - {b}"} for a, b in pairs]
    said = in_words(run)
    wanted = ["rft - base", "rft - sft", "rft+PA_p - base", "rft+PA_p - sft", "rft+PA_p - rft", "rft+PA_p - swapped"]
    found = [s for s in said if " has a higher " in s or " has a lower " in s]
    assert len(found) == len(wanted) + 1  # and rft - blind
    assert not any("swapped" in s and "rft+PA_p" not in s for s in found)


def test_differences_in_other_metrics_are_not_claimed(run: Metrics):
    assert not any("IoU" in sentence for sentence in in_words(run))


def test_the_best_arm_is_flagged_as_selected(ablation: Metrics):
    sentence = sentence_with(ablation, "highest accuracy")
    assert "rft+PA_p+recite-0.2 (0.620)" in sentence
    assert "selected on these same samples" in sentence


def test_failed_runs_are_named(ablation: Metrics):
    ablation["failed"] = [{"arm": "rft", "seed": 2, "error": "x"}]
    assert sentence_with(ablation, "Failed") == "Failed or not done, and not counted: rft with seed 2."


def test_intervals_without_seeds_carry_a_warning(ablation: Metrics):
    assert not any("not the seeds" in sentence for sentence in in_words(ablation))
    ablation["effects"][0]["seeds_counted"] = False
    assert sentence_with(ablation, "not the seeds").startswith("The intervals of PA_p count")
    for row in [*ablation["effects"], *ablation["comparisons"]]:
        row["seeds_counted"] = False
    assert sentence_with(ablation, "not the seeds").startswith("The intervals count the test samples alone")


def test_effects_that_lack_a_seed_are_named(ablation: Metrics):
    ablation["effects"][0]["seeds"] = 2
    assert sentence_with(ablation, "fewer than 3").endswith(": PA_p.")


def test_boxes_are_described_by_their_metric(of_boxes: Metrics):
    assert "the mean IoU is higher" in sentence_with(of_boxes, "with PA_p")


def test_a_comparison_whose_control_comes_first_is_turned_with_its_interval(ablation: Metrics):
    assert "(+0.400 [+0.380, +0.420], Holm p" in sentence_with(ablation, "rft+PA_p has a higher accuracy than swapped")
    ablation["comparisons"][0] |= {"low": -0.5, "high": -0.39}
    assert "(+0.400 [+0.390, +0.500], Holm p" in sentence_with(ablation, "rft+PA_p has a higher accuracy than swapped")
