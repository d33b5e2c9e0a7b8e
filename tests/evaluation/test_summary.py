"""The summary of a run or an ablation: effects have their size, and a missing arm costs no more than it must."""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vrft.errors import RunError
from vrft.evaluation.contrasts import holm, mcnemar_p
from vrft.evaluation.summary import figures_of, summarise, write_metrics
from vrft.experiment.design import name_of
from vrft.runs import RunDirectory, read_json, write_json
from vrft.tasks import Grading

N, SEEDS, GAIN = 300, (0, 1, 2), 0.25
FACTORS = {"PA_p": ["off", "on"], "PA_pi": ["off", "on"], "recite": ["0", "-0.2", "+0.2"]}
CELLS = {
    name_of(levels): levels for levels in (dict(zip(FACTORS, row, strict=True)) for row in product(*FACTORS.values()))
}
CONTROLS = {"majority": 0.25, "base": 0.3, "without": 0.4, "swapped": 0.2}
"""How often control arms are right."""
PAIRS = [["rft", "base"], ["rft", "majority"], ["rft+PA_p", "without"], ["rft+PA_p", "swapped"]]
COST = {"steps": 10.0, "tokens": 1000.0, "seconds": 5.0, "peak_mb": 50.0}
LABELS = ["Kova", "Loto", "Mira", "Nesu"]
UNTRAINED = ("majority", "base")

Made = tuple[dict[str, Any], pd.DataFrame]


def chance_of(arm: str) -> float:
    """How often an arm is right: a card helps, and nothing else does."""
    return CONTROLS[arm] if arm in CONTROLS else 0.45 + GAIN * (CELLS[arm]["PA_p"] == "on")


def seeds_of(arm: str, seeds: Sequence[int] = SEEDS) -> Sequence[int]:
    return seeds[:1] if arm in UNTRAINED else seeds


def answers(arm: str, seed: int, classes: Sequence[str], rng: np.random.Generator) -> pd.DataFrame:
    """The answers of an arm: right as often as it should be, else the next class, and now and then nothing."""
    true = np.arange(N) % len(classes)
    right = rng.random(N) < chance_of(arm)
    said = np.array(classes, dtype=object)[np.where(right, true, (true + 1) % len(classes))]
    said[~right & (rng.random(N) < 0.1)] = None
    rows = {"id": [f"s{n}" for n in range(N)], "group": [f"s{n}" for n in range(N)], "answer": said, "lenient": said}
    return pd.DataFrame(rows | {"target": np.array(classes)[true], "well_formed": rng.random(N) < 0.9}).assign(
        arm=arm, seed=seed
    )


def records_of(arms: Iterable[str], *, kind: str, metrics: Sequence[str], seeds: Sequence[int], **more: Any) -> Any:
    """The content of ``records.json`` where nothing failed."""
    arms = list(arms)
    described = [
        {
            "arm": arm,
            "kind": "cell" if arm in CELLS else "control",
            "levels": CELLS.get(arm),
            "starts": ["localized" if CELLS.get(arm, {}).get("PA_pi") == "on" else None],
            "what": f"what {arm} is",
        }
        for arm in arms
    ]
    pairs = [pair for pair in PAIRS if set(pair) <= set(arms)]
    design = {"factors": FACTORS, "fraction": None, "budget": {"match": "stages", "amount": None}, "arms": described}
    return {
        "name": "made",
        "seeds": list(seeds),
        "work_seconds": 100.0,
        "task": {"kind": kind, "metrics": list(metrics), "untrained": {arm: arm in UNTRAINED for arm in arms}} | more,
        "statistics": {"split": "test", "bootstrap": 60, "confidence": 0.95},
        "design": design | {"pairs": pairs, "sweep": None},
        "runs": [{"arm": arm, "seed": s, "cost": COST, "error": None} for arm in arms for s in seeds_of(arm, seeds)],
    }


def made(kind: str = "classification", classes: Sequence[str] = LABELS, seeds: Sequence[int] = SEEDS) -> Made:
    """An ablation in which the card adds ``GAIN``, and all else is chance."""
    rng, arms = np.random.default_rng(5), [*CELLS, *CONTROLS]
    frames = [answers(arm, seed, classes, rng) for arm in arms for seed in seeds_of(arm, seeds)]
    metrics = ["qwk", "accuracy", "mae"] if kind == "grading" else ["accuracy"]
    metrics += ["format_rate", "read_rate"]
    records = records_of(arms, kind=kind, metrics=metrics, seeds=seeds, classes=list(classes))
    return records, pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def whole() -> Made:
    return made()


@pytest.fixture(scope="module")
def summary(whole: Made) -> dict[str, Any]:
    return summarise(*whole)


@pytest.fixture
def grading() -> Made:
    return made("grading", ["0", "1", "2", "3"])


@pytest.fixture
def one_seed() -> Made:
    return made(seeds=(4,))


def some(of: Made, arms: Iterable[str]) -> Made:
    """The part of an ablation that some arms are."""
    records, predictions = json.loads(json.dumps(of[0])), of[1]
    arms = list(arms)
    design = records["design"]
    design["arms"] = [one for one in design["arms"] if one["arm"] in arms]
    design["pairs"] = [pair for pair in design["pairs"] if set(pair) <= set(arms)]
    records["runs"] = [run for run in records["runs"] if run["arm"] in arms]
    return records, predictions[predictions["arm"].isin(arms)]


def without(of: Made, lost: Callable[[str, int], bool]) -> Made:
    """An ablation in which some arms and seeds have failed."""
    records, predictions = json.loads(json.dumps(of[0])), of[1]
    for run in records["runs"]:
        if lost(run["arm"], run["seed"]):
            run.update(cost=None, error="ValueError: out of memory")
    gone = [lost(arm, seed) for arm, seed in zip(predictions["arm"], predictions["seed"], strict=True)]
    return records, predictions[~np.array(gone)]


def named(summary: dict[str, Any], name: str, of: str = "effects") -> dict[str, Any]:
    rows = summary["also"]["accuracy"] if of == "also" else family(summary)
    (row,) = (row for row in rows if row["name"] == name)
    return row


def family(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The family of tests: the effects of the factorial, and the pairs on the headline metric."""
    return summary["effects"] + [row for row in summary["comparisons"] if row["metric"] == summary["metric"]]


def accuracy(predictions: pd.DataFrame, arm: str, seeds: Sequence[int] = SEEDS) -> float:
    """The mean over seeds of the share of right answers."""
    of = predictions[(predictions["arm"] == arm) & predictions["seed"].isin(seeds)]
    return float((of["answer"] == of["target"]).mean())


def gain(predictions: pd.DataFrame, seeds: Sequence[int] = SEEDS) -> float:
    """The mean of the cells with the card minus that of the others."""
    means = {arm: accuracy(predictions, arm, seeds) for arm in CELLS}
    on = [means[arm] for arm, levels in CELLS.items() if levels["PA_p"] == "on"]
    off = [means[arm] for arm, levels in CELLS.items() if levels["PA_p"] == "off"]
    return float(np.mean(on) - np.mean(off))


# --- effects --------------------------------------------------------------------------------------------------------


def test_a_true_effect_is_detected_with_its_size(summary: dict[str, Any], whole: Made):
    effect = named(summary, "PA_p")
    assert effect["detected"]
    assert effect["difference"] == pytest.approx(gain(whole[1]))
    assert effect["low"] < GAIN < effect["high"]
    assert effect["high"] - effect["low"] < 0.1


def test_effects_that_are_not_there_are_not_detected(summary: dict[str, Any]):
    others = [row for row in summary["effects"] if row["name"] != "PA_p"]
    assert not [row["name"] for row in others if row["detected"]]
    assert sum(row["low"] <= 0 <= row["high"] for row in others) >= len(others) - 1


def test_the_family_is_all_effects_of_the_factorial_and_the_planned_pairs(summary: dict[str, Any]):
    names = ["PA_p", "PA_pi", "recite=-0.2", "recite=+0.2"]
    names += ["PA_p x PA_pi", "PA_p x recite=-0.2", "PA_p x recite=+0.2", "PA_pi x recite=-0.2", "PA_pi x recite=+0.2"]
    assert [row["name"] for row in family(summary)] == names + [f"{a} - {b}" for a, b in PAIRS]
    assert summary["planned"] == len(family(summary))
    assert summary["not_estimable"] == []


def test_p_values_are_corrected_over_the_whole_family(summary: dict[str, Any]):
    rows = family(summary)
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
    assert all(row["p_holm"] >= row["p"] for row in rows)
    assert all(row["detected"] == (row["p_holm"] < 0.05) for row in rows)


def test_every_effect_says_how_small_it_could_have_been(summary: dict[str, Any]):
    for row in family(summary):
        assert row["se"] < row["minimum_detectable_effect"] < 1
        assert row["low"] < row["difference"] < row["high"]


def test_the_smallest_effect_counts_the_correction(whole: Made):
    alone = some(whole, [arm for arm, levels in CELLS.items() if levels["recite"] == "0"])
    alone[0]["design"]["factors"] = {"PA_p": FACTORS["PA_p"]}
    lonely = named(summarise(*alone), "PA_p")
    with_more = json.loads(json.dumps(alone[0]))
    with_more["design"]["pairs"] = [["rft", "rft+PA_p"], ["rft", "rft+PA_pi"]]
    corrected = named(summarise(with_more, alone[1]), "PA_p")
    assert corrected["se"] == lonely["se"]
    assert corrected["minimum_detectable_effect"] > lonely["minimum_detectable_effect"]


def test_a_lower_confidence_has_narrower_intervals_and_detects_more(whole: Made, summary: dict[str, Any]):
    records = whole[0] | {"statistics": whole[0]["statistics"] | {"confidence": 0.5}}
    bold = summarise(records, whole[1])
    assert bold["confidence"] == 0.5
    for row, other in zip(family(bold), family(summary), strict=True):
        assert row["high"] - row["low"] < other["high"] - other["low"]
        assert row["detected"] == (row["p_holm"] < 0.5)


def test_a_pair_is_the_difference_of_its_arms_and_an_untrained_arm_pairs_with_every_seed(summary: dict, whole: Made):
    for a, b in PAIRS:
        row = named(summary, f"{a} - {b}")
        wanted = accuracy(whole[1], a) - accuracy(whole[1], b)
        assert row["difference"] == pytest.approx(wanted)
        assert (row["a"], row["b"], row["metric"], row["paired_test"]) == (a, b, "accuracy", "permutation")
        assert 0 < row["p_paired"] <= 1
    assert named(summary, "rft+PA_p - swapped")["detected"]


def test_the_same_files_give_the_same_summary(summary: dict[str, Any], whole: Made):
    assert summarise(*whole) == summary


def test_the_order_of_the_rows_of_arms_changes_nothing(summary: dict[str, Any], whole: Made):
    frames = [frame for _, frame in whole[1].groupby(["arm", "seed"])][::-1]
    other = summarise(whole[0], pd.concat(frames))
    for row, one in zip(family(other), family(summary), strict=True):
        assert row["difference"] == pytest.approx(one["difference"])
        assert (row["low"], row["high"]) == pytest.approx((one["low"], one["high"]))


def test_of_two_cells_the_effect_is_their_planned_difference(whole: Made):
    records, predictions = some(whole, ["rft", "rft+PA_p"])
    records["design"] |= {"factors": {"PA_p": FACTORS["PA_p"]}, "pairs": [["rft+PA_p", "rft"]]}
    effect, pair = family(summarise(records, predictions))
    same = ("difference", "low", "high", "se", "df", "p", "minimum_detectable_effect")
    assert [effect[key] for key in same] == pytest.approx([pair[key] for key in same])


# --- arms -----------------------------------------------------------------------------------------------------------


def test_every_arm_has_its_metrics_with_intervals_and_each_seed(summary: dict[str, Any], whole: Made):
    assert list(summary["arms"]) == [*CELLS, *CONTROLS]
    for name, arm in summary["arms"].items():
        seeds = list(seeds_of(name))
        assert (arm["seeds"], arm["seed_list"], arm["n"]) == (len(seeds), seeds, N)
        assert arm["per_seed"] == pytest.approx([accuracy(whole[1], name, [seed]) for seed in seeds])
        assert arm["accuracy"]["value"] == pytest.approx(accuracy(whole[1], name))
        measured = {key: of for key, of in arm.items() if isinstance(of, dict) and "value" in of}
        assert set(measured) == {"accuracy", "format_rate", "read_rate"}
        assert all(one["low"] <= one["value"] <= one["high"] for one in measured.values())


def test_rates_are_shares_of_well_formed_and_of_read_answers(summary: dict[str, Any], whole: Made):
    of = whole[1][whole[1]["arm"] == "rft"]
    metrics = summary["arms"]["rft"]
    assert metrics["format_rate"]["value"] == pytest.approx(of["well_formed"].mean())
    assert metrics["read_rate"]["value"] == pytest.approx(of["answer"].notna().mean())


def test_the_cost_of_an_arm_is_the_mean_of_its_seeds(whole: Made):
    records, predictions = some(whole, ["rft"])
    for run in records["runs"]:
        run["cost"] = {key: value * (1 + run["seed"]) for key, value in COST.items()}
    assert summarise(records, predictions)["arms"]["rft"]["cost"] == {key: 2 * value for key, value in COST.items()}


def test_the_comparison_is_described(summary: dict[str, Any]):
    wanted = {"name": "made", "task": "classification", "metric": "accuracy", "split": "test", "n": N, "groups": N}
    wanted |= {"seeds": [0, 1, 2], "factors": FACTORS, "fraction": None, "failed": [], "also": {}, "sweep": None}
    assert {key: summary[key] for key in wanted} == wanted


def test_points_of_interactions_are_the_means_of_the_cells(summary: dict[str, Any], whole: Made):
    assert [plot["factors"] for plot in summary["interactions"]] == [
        ["PA_p", "PA_pi"],
        ["PA_p", "recite"],
        ["PA_pi", "recite"],
    ]
    for plot in summary["interactions"]:
        one, other = plot["factors"]
        assert [line["level"] for line in plot["lines"]] == FACTORS[one]
        for line in plot["lines"]:
            assert [point["level"] for point in line["points"]] == FACTORS[other]
            for point in line["points"]:
                at = {one: line["level"], other: point["level"]}
                of = [accuracy(whole[1], arm) for arm, levels in CELLS.items() if at.items() <= levels.items()]
                assert point["value"] == pytest.approx(np.mean(of))
                assert point["low"] < point["value"] < point["high"]


# --- missing arms ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lacking(whole: Made) -> dict[str, Any]:
    """One cell failed with one seed."""
    return summarise(*without(whole, lambda arm, seed: (arm, seed) == ("rft+PA_p", 2)))


def test_an_arm_that_lacks_a_seed_is_compared_over_those_that_all_have(whole: Made, lacking: dict[str, Any]):
    assert named(lacking, "PA_p")["difference"] == pytest.approx(gain(whole[1], [0, 1]))
    pair = named(lacking, "rft+PA_p - without")
    wanted = accuracy(whole[1], "rft+PA_p", [0, 1]) - accuracy(whole[1], "without", [0, 1])
    assert pair["difference"] == pytest.approx(wanted)
    assert lacking["failed"] == [{"arm": "rft+PA_p", "seed": 2, "error": "ValueError: out of memory"}]


def test_a_seed_that_one_arm_lacks_still_counts_where_that_arm_has_no_part(lacking: dict, summary: dict[str, Any]):
    seeds = {name: arm["seed_list"] for name, arm in lacking["arms"].items()}
    assert seeds["rft+PA_p"] == [0, 1]
    assert seeds["rft"] == [0, 1, 2]
    assert named(lacking, "rft - base")["difference"] == named(summary, "rft - base")["difference"]


def test_a_cell_that_failed_is_listed_and_the_others_still_give_effects(whole: Made):
    part = summarise(*without(whole, lambda arm, _: arm == "rft+PA_pi+recite-0.2"))
    assert "rft+PA_pi+recite-0.2" not in part["arms"]
    assert [(one["arm"], one["seed"]) for one in part["failed"]] == [("rft+PA_pi+recite-0.2", seed) for seed in SEEDS]
    assert part["not_estimable"] == []
    assert named(part, "PA_p")["detected"]


def test_an_effect_that_no_cells_estimate_is_named(whole: Made):
    both = [arm for arm, levels in CELLS.items() if levels["PA_p"] == levels["PA_pi"] == "on"]
    part = summarise(*without(whole, lambda arm, _: arm in both))
    assert part["not_estimable"] == ["PA_p x PA_pi"]
    assert "PA_p x PA_pi" not in [row["name"] for row in part["effects"]]


def test_a_combination_that_no_cell_has_is_no_point(whole: Made):
    gone = [arm for arm, levels in CELLS.items() if (levels["PA_p"], levels["recite"]) == ("on", "+0.2")]
    part = summarise(*without(whole, lambda arm, _: arm in gone))
    (plot,) = (plot for plot in part["interactions"] if plot["factors"] == ["PA_p", "recite"])
    levels = [[point["level"] for point in line["points"]] for line in plot["lines"]]
    assert levels == [["0", "-0.2", "+0.2"], ["0", "-0.2"]]


def test_a_pair_is_left_out_where_one_of_its_arms_failed(whole: Made):
    part = summarise(*without(whole, lambda arm, _: arm == "base"))
    assert "rft - base" not in [row["name"] for row in family(part)]
    assert "rft - majority" in [row["name"] for row in family(part)]


def test_one_control_alone_has_its_figures(whole: Made):
    part = summarise(*some(whole, ["base"]))
    assert family(part) == []
    assert part["arms"]["base"]["accuracy"]["value"] == pytest.approx(accuracy(whole[1], "base"))


def test_effects_that_are_not_estimable_count_in_the_family_of_tests(whole: Made):
    every, part = summarise(*whole), summarise(*without(whole, lambda arm, seed: arm == "rft+PA_pi"))
    assert part["planned"] == every["planned"] == len(family(every))
    assert len(family(part)) + len(part["not_estimable"]) == part["planned"]


def test_effects_that_are_not_estimable_count_in_the_correction(whole: Made):
    both = [arm for arm, levels in CELLS.items() if levels["PA_p"] == levels["PA_pi"] == "on"]
    part = summarise(*without(whole, lambda arm, _: arm in both or arm == "base"))
    assert len(part["not_estimable"]) > 1
    p_values = [row["p"] for row in family(part)]
    corrected = holm(p_values + [1.0] * len(part["not_estimable"]))[: len(p_values)]
    assert [row["p_holm"] for row in family(part)] == corrected
    assert corrected != holm(p_values)


def test_an_effect_of_cells_without_a_seed_in_common_is_not_estimable(whole: Made):
    part = without(some(whole, ["rft", "rft+PA_p"]), lambda arm, seed: (arm == "rft") != (seed == 0))
    found = summarise(*part)
    assert "PA_p" in found["not_estimable"]
    assert list(found["arms"]) == ["rft", "rft+PA_p"]


def test_with_no_arm_done_the_message_says_where_the_errors_are(whole: Made):
    with pytest.raises(RunError, match=r"^no arm is done; the errors stand in the folder failed\.$"):
        summarise(*without(whole, lambda arm, seed: True))


def test_points_of_a_sweep_that_are_not_done_are_left_out(whole: Made):
    records, predictions = some(whole, ["rft", "rft+PA_p"])
    points = [{"arm": arm, "at": {"kl": n}} for n, arm in enumerate(["rft+PA_p", "rft+PA_p,kl=1"])]
    records["design"]["sweep"] = {"arm": "rft+PA_p", "axes": {"kl": [0, 1]}, "points": points}
    assert summarise(records, predictions)["sweep"] == records["design"]["sweep"] | {"points": points[:1]}


# --- one seed -------------------------------------------------------------------------------------------------------


def test_of_one_seed_the_variance_of_training_is_not_counted(one_seed: Made):
    part = summarise(*one_seed)
    assert part["effects"]
    assert not any(row["seeds_counted"] for row in family(part))
    assert all(row["df"] == N - 1 for row in family(part))


def test_of_more_seeds_it_is(summary: dict[str, Any]):
    assert all(row["seeds_counted"] for row in family(summary))


def test_of_one_seed_two_policies_are_compared_by_the_exact_test_of_accuracy(one_seed: Made):
    part, predictions = summarise(*one_seed), one_seed[1]
    row = named(part, "rft+PA_p - without")
    right = {arm: (of["answer"] == of["target"]).to_numpy() for arm, of in predictions.groupby("arm")}
    assert row["paired_test"] == "mcnemar"
    assert row["p_paired"] == mcnemar_p(right["rft+PA_p"], right["without"])


def test_samples_of_one_image_are_exchanged_together(one_seed: Made):
    records, predictions = some(one_seed, ["rft", "base"])
    paired = predictions.assign(group=[f"image{int(name[1:]) // 2}" for name in predictions["id"]])
    part = summarise(records, paired)
    assert part["groups"] == N // 2
    assert named(part, "rft - base")["paired_test"] == "permutation"


# --- other tasks ----------------------------------------------------------------------------------------------------


def test_grades_are_compared_in_kappa_and_also_in_accuracy(grading: Made):
    part = summarise(*some(grading, CELLS))
    assert part["metric"] == "qwk"
    assert [row["name"] for row in part["also"]["accuracy"]] == [row["name"] for row in part["effects"]]
    assert named(part, "PA_p", "also")["difference"] == pytest.approx(gain(grading[1]))
    assert named(part, "PA_p")["difference"] != pytest.approx(gain(grading[1]))
    assert named(part, "PA_p")["detected"]


def test_effects_in_accuracy_are_outside_the_family(grading: Made):
    part = summarise(*some(grading, CELLS))
    assert [row["p_holm"] for row in family(part)] == holm([row["p"] for row in family(part)])
    assert all("p_holm" not in row and "detected" not in row for row in part["also"]["accuracy"])


def test_of_one_seed_grades_are_compared_by_permutation():
    part = summarise(*some(made("grading", ["0", "1", "2", "3"], seeds=(4,)), ["rft", "base"]))
    assert named(part, "rft - base")["paired_test"] == "permutation"


TRUE = [[10.0, 10.0, 30.0, 30.0]]
HALF = [[10.0, 10.0, 30.0, 20.0]]
"""Its IoU with the true box is 1/2."""


def of_boxes(tmp_path: Path, *, unread: int) -> dict[str, Any]:
    """Two cells of 40 samples; ``rft+PA_pi`` has ten more right boxes than ``rft``, the others overlap by half."""
    arms = {"rft": 10, "rft+PA_pi": 20}
    metrics = ("mean_iou", "f1_50", "precision50", "recall50", "format_rate", "read_rate")
    records = records_of(arms, kind="localization", metrics=metrics, seeds=SEEDS)
    records["design"]["factors"] = {"PA_pi": FACTORS["PA_pi"]}
    frames = []
    for arm, seed in product(arms, SEEDS):
        right = arms[arm] + seed
        answers = [json.dumps(TRUE)] * right + [json.dumps(HALF)] * (40 - unread - right) + [None] * unread
        rows = {"group": [f"image{n // 2}" for n in range(40)], "target": json.dumps(TRUE), "answer": answers}
        stated = [int(one is not None) for one in answers]
        frames.append(pd.DataFrame(rows).assign(arm=arm, seed=seed, stated=stated, well_formed=True, lenient=answers))
    pd.concat(frames).to_parquet(tmp_path / "predictions.parquet")
    return summarise(records, pd.read_parquet(tmp_path / "predictions.parquet"))


def test_boxes_are_compared_in_their_mean_overlap(tmp_path: Path):
    part = of_boxes(tmp_path, unread=0)
    assert (part["metric"], part["n"], part["groups"], part["also"]) == ("mean_iou", 40, 20, {})
    assert part["arms"]["rft"]["per_seed"] == pytest.approx([(right + (40 - right) / 2) / 40 for right in (10, 11, 12)])
    assert named(part, "PA_pi")["difference"] == pytest.approx(10 / 2 / 40)


def test_boxes_that_could_not_be_read_overlap_nothing(tmp_path: Path):
    part = of_boxes(tmp_path, unread=4)
    assert part["arms"]["rft"]["per_seed"] == pytest.approx([(right + (36 - right) / 2) / 40 for right in (10, 11, 12)])
    assert part["arms"]["rft"]["read_rate"]["value"] == pytest.approx(36 / 40)


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_summary_is_plain_json_without_nan(summary: dict[str, Any]):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("kind", ["classification", "grading"])
def test_arms_that_never_answer_or_always_agree_are_plain_figures_too(kind: str):
    records, predictions = some(made(kind, ["0", "1", "2", "3"]), ["rft", "rft+PA_p", "base", "without"])
    predictions.loc[predictions["arm"] == "rft", "answer"] = None
    predictions.loc[predictions["arm"].isin(["rft+PA_p", "without"]), "answer"] = "1"
    part = summarise(records, predictions)
    json.dumps(part, allow_nan=False)
    same = named(part, "rft+PA_p - without")
    assert (same["difference"], same["p"], same["p_paired"], same["detected"]) == (0, 1, 1, False)


def test_a_summary_is_computed_from_the_files_and_written_beside_them(whole: Made, tmp_path: Path):
    directory = RunDirectory(tmp_path)
    records, predictions = some(whole, ["rft", "base"])
    write_json(directory.records, records)
    predictions.to_parquet(directory.predictions)
    assert write_metrics(directory) == read_json(directory.metrics) == summarise(records, predictions)


# --- a plain run ------------------------------------------------------------------------------------------------------


def as_run(of: Made, arms: Sequence[str]) -> Made:
    """The same predictions as those of a run: no factors, and every two arms are compared."""
    records, predictions = some(of, arms)
    design = records["design"]
    design |= {"factors": {}, "pairs": [[b, a] for n, b in enumerate(arms) for a in arms[:n]]}
    for arm in design["arms"]:
        arm |= {"kind": "arm", "levels": None}
    return records, predictions


def test_a_run_and_an_ablation_of_the_same_predictions_give_the_same_interval_and_p(whole: Made, one_seed: Made):
    same = ("difference", "low", "high", "se", "df", "p", "p_paired", "paired_test", "seeds")
    for of, pairs in ((whole, PAIRS[:2]), (one_seed, [*PAIRS, ["rft+PA_p", "rft"]])):
        records = json.loads(json.dumps(of[0]))
        records["design"]["pairs"] = pairs
        ablation = summarise(records, of[1])
        for a, b in pairs:
            run = summarise(*as_run(of, [b, a]))
            of_run, of_ablation = named(run, f"{a} - {b}"), named(ablation, f"{a} - {b}")
            assert {key: of_run[key] for key in same} == {key: of_ablation[key] for key in same}
            for arm in (a, b):
                assert run["arms"][arm]["accuracy"] == ablation["arms"][arm]["accuracy"]


def test_a_run_compares_every_two_arms_on_every_metric_and_corrects_within_each():
    arms = ["base", "rft", "rft+PA_p"]
    run = summarise(*as_run(made("grading", ["0", "1", "2", "3"]), arms))
    for metric in ("qwk", "accuracy", "mae"):
        rows = [row for row in run["comparisons"] if row["metric"] == metric]
        assert [(row["a"], row["b"]) for row in rows] == [("rft", "base"), ("rft+PA_p", "base"), ("rft+PA_p", "rft")]
        assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
        assert all((row["p_paired"] is None) == (metric != "qwk") for row in rows)
    assert run["planned"] == 3
    assert (run["effects"], run["also"], run["interactions"], run["sweep"]) == ([], {}, [], None)


@pytest.mark.parametrize(
    ("arms", "lost", "pairs", "missing"),
    [
        (["rft"], (), 0, []),
        (["base", "rft"], ("base",), 0, ["rft - base"]),
        (["base", "rft", "rft+PA_p"], ("rft",), 1, ["rft - base", "rft+PA_p - rft"]),
    ],
)
def test_a_run_of_one_arm_or_with_failed_arms_has_its_figures(whole: Made, arms, lost, pairs, missing):
    run = summarise(*without(as_run(whole, arms), lambda arm, _: arm in lost))
    assert set(run["arms"]) == set(arms) - set(lost)
    assert len(run["comparisons"]) == pairs
    assert run["not_estimable"] == missing
    assert run["planned"] == pairs + len(missing)


def test_the_lenient_reading_is_reported_where_it_differs(one_seed: Made):
    records, predictions = as_run(one_seed, ["base", "rft"])
    loose = predictions["answer"].isna() & (predictions["arm"] == "rft")
    predictions = predictions.assign(lenient=predictions["answer"].where(~loose, predictions["target"]))
    arms = summarise(records, predictions)["arms"]
    assert "accuracy_lenient" not in arms["base"]
    gained = arms["rft"]["accuracy_lenient"]["value"] - arms["rft"]["accuracy"]["value"]
    assert gained == pytest.approx(loose.sum() / N)


def test_a_label_that_is_called_none_is_not_an_unread_answer(one_seed: Made):
    records, predictions = as_run(made(classes=["None", "Loto"], seeds=(4,)), ["rft"])
    assert summarise(records, predictions)["arms"]["rft"]["read_rate"]["value"] < 1
    assert summarise(records, predictions)["arms"]["rft"]["accuracy"]["value"] == accuracy(predictions, "rft", [4])


def test_perception_has_figures_of_its_own_task(tmp_path: Path, one_seed: Made):
    of_boxes(tmp_path, unread=0)
    boxes = pd.read_parquet(tmp_path / "predictions.parquet")
    records, predictions = as_run(one_seed, ["rft"])
    records["perception"] = {"task": {"kind": "localization", "metrics": ["mean_iou", "f1_50", "read_rate"]}}
    learnt = summarise(records, predictions, boxes)["perception"]
    assert (learnt["metric"], learnt["n"], learnt["groups"]) == ("mean_iou", 40, 20)
    assert list(learnt["arms"]) == ["rft", "rft+PA_pi"]
    assert learnt["arms"]["rft"]["mean_iou"]["value"] == pytest.approx((11 + 29 / 2) / 40)
    assert "perception" not in summarise(records, predictions)
    assert "perception" not in summarise(records, predictions, boxes[boxes["group"] == "image0"])


def test_validation_has_the_metrics_of_the_task_from_answers_as_they_were_read():
    rows = [
        {"target": true, "answer": said, "lenient": 1, "well_formed": True}
        for true, said in ((0, 0), (1, None), (2, 1))
    ]
    figures = figures_of(Grading(3), rows)
    assert set(figures) == set(Grading.metrics)
    assert (figures["accuracy"], figures["read_rate"], figures["format_rate"]) == pytest.approx((1 / 3, 2 / 3, 1))


def test_of_many_subgroups_the_largest_are_given(one_seed: Made):
    records, predictions = one_seed
    predictions = predictions.copy()
    place = predictions.groupby(["arm", "seed"]).cumcount()
    names = place.map(lambda at: f"site {at}" if at < 30 else "large" if at < 40 else None)
    found = summarise(records, predictions.assign(subgroup=names))
    assert (len(found["subgroups"]), found["subgroup_count"]) == (20, 31)
    assert found["subgroups"]["large"]["n"] == 10
