"""The design of an ablation: every combination once, controls where they mean something, and faults with their line."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrft.errors import RecipeError, UserError
from vrft.experiment.design import Design, only, read_design
from vrft.recipe import ARMS

ROOT = Path(__file__).parents[2]
PHANTOM = ROOT / "recipes" / "ablation-phantom.yaml"

GRADES = """\
name: grades
data: {source: phantom, samples: {train: 8, validation: 2, test: 4}}
task: {kind: grading}
knowledge: {card: retinamnist}
stages:
  - kind: rft
    task: {kind: localization}
    rewards: {iou: 1.0, format: 0.5}
    steps: 5
  - kind: rft
    rewards: {accuracy: 0.8, format: 0.5}
    steps: 3
ablation:
  recite: 0.3
"""

BOXES = """\
name: boxes
data: {source: phantom, samples: {train: 8, validation: 2, test: 4}}
task: {kind: localization}
stages:
  - kind: rft
    task: {kind: classification}
    rewards: {accuracy: 1.0}
  - kind: rft
    rewards: {iou: 1.0, format: 0.5}
"""

NO_PERCEPTION = """\
name: alone
data: {source: phantom, samples: {train: 8, validation: 2, test: 4}}
task: {kind: classification}
knowledge: {card: phantom}
stages: [{kind: rft, steps: 3}]
"""

CONTROLS = [name for name, arm in ARMS.items() if arm.role == "control"]


@pytest.fixture
def grades(tmp_path: Path) -> Path:
    return write(tmp_path, GRADES)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def with_arms(*arms: Any) -> str:
    return f"arms={json.dumps(arms)}"


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        read_design(path, overrides)
    return str(error.value).splitlines()


def told(path: Path, *overrides: str) -> str:
    (line,) = faults(path, *overrides)
    return line


# --- cells ----------------------------------------------------------------------------------------------------------


def test_the_cells_are_all_combinations_of_the_factors_that_apply():
    design = read_design(PHANTOM)
    assert design.factors == {"PA_p": ("off", "on"), "PA_pi": ("off", "on"), "recite": ("0", "-0.2", "+0.2")}
    wanted = [dict(zip(design.factors, levels, strict=True)) for levels in product(*design.factors.values())]
    assert list(design.cells.values()) == wanted
    assert len(wanted) == 12


def test_the_names_of_the_cells_say_what_is_added():
    recite = ("", "+recite-0.2", "+recite+0.2")
    added = ("", "+PA_pi", "+PA_p", "+PA_p+PA_pi")
    assert list(read_design(PHANTOM).cells) == [f"rft{a}{b}" for a in added for b in recite]


def test_grades_with_knowledge_and_perception_have_all_four_factors(grades: Path):
    design = read_design(grades)
    assert list(design.factors) == ["PA_p", "PA_pi", "MFRS", "recite"]
    assert len(design.cells) == len(set(design.cells)) == 24
    assert "rft+PA_p+PA_pi+MFRS+recite+0.3" in design.cells


def test_a_localization_is_only_crossed_with_perception(tmp_path: Path):
    assert list(read_design(write(tmp_path, BOXES)).cells) == ["rft", "rft+PA_pi"]


def test_the_baseline_comes_first_and_has_every_factor_at_its_base(grades: Path):
    for path in (PHANTOM, grades):
        design = read_design(path)
        assert design.recipe.arm_names()[0] == next(iter(design.cells)) == "rft"
        assert design.cells["rft"] == {factor: levels[0] for factor, levels in design.factors.items()}


def test_fuzzy_takes_the_place_and_the_weight_of_accuracy(grades: Path):
    design = read_design(grades)
    for arm, levels in design.cells.items():
        rewards = design.recipe.stages_of(arm)[-1].weights()
        exact, near = ("fuzzy", "accuracy") if levels["MFRS"] == "on" else ("accuracy", "fuzzy")
        assert rewards[exact] == 0.8
        assert near not in rewards
        assert rewards["format"] == 0.5


def test_recitation_is_paid_with_the_sign_of_the_level(grades: Path):
    design = read_design(grades)
    weights = {"0": None, "-0.3": -0.3, "+0.3": 0.3}
    for arm, levels in design.cells.items():
        assert design.recipe.stages_of(arm)[-1].weights().get("recitation") == weights[levels["recite"]]


def test_the_keys_of_a_reward_that_an_ablation_adds_stand_in_the_stage_with_weight_0(grades: Path):
    given = (
        "{accuracy: 0.8, format: 0.5, fuzzy: {weight: 0, schedule: geometric}, recitation: {weight: 0, measure: chrf}}"
    )
    recipe = (design := read_design(grades, [f"stages.1.rewards={given}", "ablation.sweep.rewards.fuzzy=[0.1]"])).recipe
    for arm, levels in design.cells.items():
        rewards, weights = recipe.stages_of(arm)[-1].rewards, recipe.stages_of(arm)[-1].weights()
        if levels["MFRS"] == "on":
            assert (weights["fuzzy"], rewards.fuzzy.schedule) == (0.8, "geometric")
        if levels["recite"] != "0":
            assert (abs(weights["recitation"]), rewards.recitation.measure) == (0.3, "chrf")
    assert recipe.stages_of("rft,fuzzy=0.1")[-1].rewards.fuzzy.schedule == "geometric"


def test_cells_with_PA_p_are_told_what_is_known_in_training_and_at_test(grades: Path):
    recipe, cells = (design := read_design(grades)).recipe, design.cells
    for arm, levels in cells.items():
        known = "card" if levels["PA_p"] == "on" else "none"
        assert {recipe.condition_of(arm, training=training).prompt for training in (True, False)} == {known}


def test_cells_with_PA_pi_train_on_another_task_first(grades: Path):
    recipe, cells = (design := read_design(grades)).recipe, design.cells
    for arm, levels in cells.items():
        kinds = [stage.task.kind if stage.task else None for stage in recipe.stages_of(arm)]
        assert kinds == (["localization", None] if levels["PA_pi"] == "on" else [None])


def test_cells_differ_in_the_rewards_of_the_last_stage_alone(grades: Path):
    recipe = (design := read_design(grades)).recipe
    plain = recipe.stages_of("rft")[-1].model_dump(exclude={"rewards"})
    assert all(recipe.stages_of(arm)[-1].model_dump(exclude={"rewards"}) == plain for arm in design.cells)


def test_factors_that_are_named_are_crossed_and_no_others(grades: Path):
    design = read_design(grades, ["ablation.factors=[MFRS, PA_p]"])
    assert list(design.cells) == ["rft", "rft+MFRS", "rft+PA_p", "rft+PA_p+MFRS"]


def test_the_recipe_with_all_arms_is_itself_a_recipe_of_the_same_design(grades: Path, tmp_path: Path):
    design = read_design(grades)
    again = tmp_path / "again.yaml"
    again.write_text(design.recipe.dump())
    assert read_design(again).recipe.arm_names() == design.recipe.arm_names()


def test_an_arm_is_of_the_same_kind_when_the_recipe_with_all_arms_is_read(tmp_path: Path):
    design, again = read_design(PHANTOM), tmp_path / "again.yaml"
    again.write_text(design.recipe.dump())
    same = read_design(again)
    assert [same.kind_of(arm) for arm in same.recipe.arm_names()] == [
        design.kind_of(arm) for arm in design.recipe.arm_names()
    ]


def test_shipped_recipes_of_ablations_are_designs():
    found = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if "ablation" in yaml.safe_load(path.open())]
    assert PHANTOM in found
    for path in found:
        if yaml.safe_load(path.open())["data"]["source"] == "phantom":
            assert read_design(path).cells


# --- controls and further arms --------------------------------------------------------------------------------------


def test_the_usual_controls_stand_beside_a_factorial_that_has_all_they_need():
    design = read_design(PHANTOM)
    assert sorted(design.controls) == sorted(CONTROLS)
    assert {design.kind_of(arm) for arm in design.controls} == {"control"}


def test_without_knowledge_no_control_of_knowledge_stands(grades: Path):
    design = read_design(grades, ["knowledge=null"])
    assert set(design.controls) == set(CONTROLS) - {"without", "swapped"}


def test_without_the_cell_that_they_test_no_control_of_knowledge_stands(grades: Path):
    assert {"without", "swapped"}.isdisjoint(read_design(grades, ["ablation.factors=[PA_pi]"]).controls)


def test_without_a_stage_on_another_task_no_control_of_perception_stands(tmp_path: Path):
    design = read_design(write(tmp_path, NO_PERCEPTION))
    assert set(design.controls) == set(CONTROLS) - {"rft+extra", "rft+shuffled"}
    assert list(design.factors) == ["PA_p", "recite"]


def test_only_the_controls_that_are_named_stand(grades: Path):
    assert read_design(grades, ["ablation.controls=[swapped, base]"]).controls == ["base", "swapped"]
    assert read_design(grades, ["ablation.controls=[]"]).controls == []


def test_any_arm_that_is_no_cell_can_be_a_control(grades: Path):
    design = read_design(grades, ["ablation.controls=[base, base+PA_p, sft+PA_p, irrelevant, PA_pi]"])
    assert design.controls == ["base", "base+PA_p", "sft+PA_p", "irrelevant", "PA_pi"]
    assert ("base+PA_p", "base") in design.pairs
    assert "'rft+PA_p'; expected one of" in told(grades, "ablation.controls=[rft+PA_p]")


def test_planned_pairs_are_those_whose_arms_are_there(grades: Path):
    design = read_design(grades, ["ablation.controls=[swapped, base, rft+extra]"])
    assert design.pairs[1:] == [("rft", "base"), ("rft+PA_pi", "rft+extra"), ("rft+PA_p", "swapped")]


def test_all_augmentations_together_are_compared_with_plain_rft(grades: Path):
    assert read_design(grades).pairs[0] == ("rft+PA_p+PA_pi+MFRS+recite-0.3", "rft")
    assert read_design(grades, ["ablation.factors=[MFRS, PA_p]"]).pairs[0] == ("rft+PA_p+MFRS", "rft")


def test_one_augmentation_alone_is_compared_by_its_effect(grades: Path):
    assert ("rft+PA_p", "rft") not in read_design(grades, ["ablation.factors=[PA_p]"]).pairs


def test_a_part_of_a_design_plans_the_pairs_that_it_has(grades: Path):
    assert only(read_design(grades), ["rft", "sft", "rft+PA_p"]).pairs == [("rft", "sft")]


def test_further_arms_of_the_recipe_are_kept_as_controls(grades: Path):
    design = read_design(grades, [with_arms("rft", {"name": "hot", "set": {"temperature": 2.0}})])
    assert design.controls[-1] == "hot"
    assert design.kind_of("hot") == "control"
    assert design.recipe.stages_of("hot")[-1].temperature == 2.0


def test_no_arm_stands_twice(grades: Path):
    further = {"name": "x", "set": {"kl": 0.02}}
    design = read_design(grades, [with_arms("majority", "rft", "rft+PA_p", "swapped", further)])
    assert set(Counter(design.recipe.arm_names()).values()) == {1}


# --- a part of a design ---------------------------------------------------------------------------------------------


def test_a_part_of_a_design_has_the_arms_that_are_named_in_their_order():
    whole = read_design(PHANTOM)
    point = "rft+PA_p,recitation=1,scale_rewards=none"
    part = only(whole, [point, "without", "rft+PA_p", "rft"])
    assert part.recipe.arm_names() == ["rft", "rft+PA_p", "without", point]
    assert (list(part.cells), part.controls, list(part.sweep)) == (
        ["rft", "rft+PA_p"],
        ["without"],
        ["rft+PA_p", point],
    )
    assert part.factors == whole.factors
    assert part.recipe.stages_of(point) == whole.recipe.stages_of(point)


def test_an_arm_that_is_not_in_the_design_is_told_with_those_that_are(grades: Path):
    with pytest.raises(
        UserError, match=r"^--arm rft\+PA_q: the ablation has no such arm; it has rft, rft\+recite-0.3,"
    ):
        only(read_design(grades), ["rft", "rft+PA_q"])


def test_a_control_of_knowledge_is_not_tested_without_the_arm_that_was_trained(grades: Path):
    with pytest.raises(UserError, match=r"^--arm without tests the policy of rft\+PA_p; name that too\.$"):
        only(read_design(grades), ["rft", "without"])


@pytest.mark.parametrize("reduction", [2, 3])
def test_a_fraction_is_balanced_and_holds_the_baseline(grades: Path, reduction: int):
    whole, part = read_design(grades), read_design(grades, fraction=reduction)
    assert len(part.cells) == len(whole.cells) // reduction
    assert next(iter(part.cells)) == part.recipe.arm_names()[0] == "rft"
    for factor, levels in part.factors.items():
        counts = Counter(cell[factor] for cell in part.cells.values())
        assert set(counts) == set(levels)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert all(whole.cells[arm] == levels for arm, levels in part.cells.items())


def test_a_fraction_without_the_arm_that_they_test_has_no_controls_of_knowledge():
    part = read_design(PHANTOM, ["ablation.sweep=null"], fraction=2)
    assert "rft+PA_p" not in part.cells
    assert {"without", "swapped"}.isdisjoint(part.recipe.arm_names())


@pytest.mark.parametrize(
    ("reduction", "words"),
    [
        (1, "the reduction must be at least 2"),
        (3, "its 4 cells are fewer than the 5 main effects and mean"),
        (12, "reduction too large"),
    ],
)
def test_a_fraction_that_is_not_possible_is_refused(reduction: int, words: str):
    start = f"--fraction 1/{reduction}: a fraction of one in {reduction} of these 12 cells is not possible: "
    with pytest.raises(UserError, match=f"^{re.escape(start + words)}"):
        read_design(PHANTOM, fraction=reduction)


def test_what_is_said_of_an_impossible_fraction_is_one_sentence():
    with pytest.raises(UserError) as error:
        read_design(PHANTOM, fraction=3)
    assert not str(error.value).endswith("..")


# --- the sweep ------------------------------------------------------------------------------------------------------


def sweep(path: Path, text: str, *more: str) -> Design:
    return read_design(path, [f"ablation.sweep={text}", *more])


def test_a_sweep_is_the_grid_of_its_axes(grades: Path):
    design = sweep(grades, "{arm: rft+PA_p, rewards: {format: [0.1, 1.0]}, scale_rewards: [none, batch]}")
    assert design.sweep == {
        f"rft+PA_p,format={weight:g},scale_rewards={scaling}": {"rewards.format": weight, "scale_rewards": scaling}
        for weight in (0.1, 1.0)
        for scaling in ("none", "batch")
    }
    assert design.recipe.arm_names()[-4:] == list(design.sweep)
    assert {design.kind_of(arm) for arm in design.sweep} == {"sweep"}


def test_an_arm_of_the_sweep_is_the_cell_with_its_values(grades: Path):
    design = sweep(grades, "{arm: rft+PA_p+MFRS, rewards: {fuzzy: [2.0]}, aggregation: [normalize_then_sum]}")
    (arm,) = design.sweep
    stage, cell = design.recipe.stages_of(arm)[-1], design.recipe.stages_of("rft+PA_p+MFRS")[-1]
    fuzzy = {"weight": 2.0, "schedule": "table"}
    changed = {"rewards": {"fuzzy": fuzzy, "format": 0.5}, "aggregation": "normalize_then_sum"}
    assert stage.model_dump() == cell.model_dump() | changed
    assert len(design.recipe.stages_of(arm)) == 1
    assert design.recipe.condition_of(arm).prompt == "card"


def test_a_sweep_of_a_cell_with_perception_has_perception(grades: Path):
    design = sweep(grades, "{arm: rft+PA_pi, rewards: {format: [0.1]}}")
    stages = design.recipe.stages_of("rft+PA_pi,format=0.1")
    assert [stage.task is not None for stage in stages] == [True, False]
    assert design.recipe.condition_of("rft+PA_pi,format=0.1").prompt == "none"


def test_a_weight_of_zero_leaves_a_reward_out(grades: Path):
    design = sweep(grades, "{rewards: {format: [0.0], recitation: [0.0, 1.0]}}")
    rewards = {arm: design.recipe.stages_of(arm)[-1].weights() for arm in design.sweep}
    assert rewards == {
        "rft,format=0,recitation=0": {"accuracy": 0.8},
        "rft,format=0,recitation=1": {"accuracy": 0.8, "recitation": 1.0},
    }


def test_the_point_that_is_the_cell_itself_is_no_further_arm(grades: Path):
    design = sweep(grades, "{arm: rft+PA_p, rewards: {recitation: [0.0, 0.6]}, scale_rewards: [group]}")
    assert list(design.sweep) == ["rft+PA_p", "rft+PA_p,recitation=0.6,scale_rewards=group"]
    assert design.sweep["rft+PA_p"] == {"rewards.recitation": 0.0, "scale_rewards": "group"}
    assert design.kind_of("rft+PA_p") == "cell"


def test_a_value_that_a_sweep_names_twice_is_one_arm_or_a_fault(grades: Path):
    try:
        design = sweep(grades, "{rewards: {accuracy: [0.5, 0.5]}}")
    except RecipeError:
        return
    assert design.recipe.arm_names().count("rft,accuracy=0.5") == 1


def test_every_point_of_a_sweep_is_an_arm_of_a_fraction_too():
    design = read_design(PHANTOM, fraction=2)
    assert set(design.sweep) <= set(design.recipe.arm_names())


# --- faults ---------------------------------------------------------------------------------------------------------


def line_of(path: Path, words: str, *, of: int = 1) -> str:
    """Where the line stands that holds some words for the nth time."""
    lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if words in line]
    return f"{path}:{lines[of - 1]}: "


def test_a_last_stage_of_sft_is_told_with_its_line(tmp_path: Path):
    path = write(tmp_path, NO_PERCEPTION.replace("stages: [{kind: rft, steps: 3}]", "stages:\n  - kind: sft"))
    line = told(path)
    assert line.startswith(line_of(path, "kind: sft"))
    assert line.endswith("stages.0 is sft; an ablation varies the rewards of a last stage of kind rft.")


def test_the_last_stage_is_the_last_on_the_task_of_the_recipe(tmp_path: Path):
    swapped = "stages:\n  - {kind: sft}\n  - {kind: sft, task: {kind: localization}}\n"
    path = write(tmp_path, NO_PERCEPTION.replace("stages: [{kind: rft, steps: 3}]\n", swapped))
    assert told(path).endswith("stages.0 is sft; an ablation varies the rewards of a last stage of kind rft.")


@pytest.mark.parametrize("reward", ["fuzzy", "recitation"])
def test_a_reward_that_an_ablation_adds_is_no_reward_of_the_recipe(tmp_path: Path, reward: str):
    path = write(tmp_path, GRADES.replace("{accuracy: 0.8, ", f"{{accuracy: 0.8, {reward}: 0.1, "))
    line = told(path)
    assert line.startswith(line_of(path, f"{reward}: 0.1"))
    assert f"stages.1.rewards has '{reward}', which an ablation adds by itself" in line
    assert line.endswith("expected the accuracy (or iou) and format rewards alone.")


@pytest.mark.parametrize(
    ("text", "factor", "why"),
    [
        (NO_PERCEPTION, "MFRS", "a classification has no grades"),
        (NO_PERCEPTION, "PA_pi", "no stage has a task of its own"),
        (BOXES, "PA_p", "the recipe has no knowledge"),
        (BOXES, "recite", "the recipe has no knowledge"),
    ],
)
def test_a_factor_that_does_not_apply_is_told_with_its_line(tmp_path: Path, text: str, factor: str, why: str):
    path = write(tmp_path, text + f"ablation:\n  factors:\n    - {factor}\n")
    assert told(path) == f"{line_of(path, f'- {factor}')}ablation.factors has {factor}, but {why}."


@pytest.mark.parametrize(
    ("text", "control"),
    [(NO_PERCEPTION, "rft+extra"), (NO_PERCEPTION, "PA_pi"), (BOXES, "without"), (BOXES, "sft+PA_p")],
)
def test_a_control_that_does_not_apply_is_told_with_its_line(tmp_path: Path, text: str, control: str):
    path = write(tmp_path, text + f"ablation:\n  controls:\n    - base\n    - {control}\n")
    line = told(path)
    assert line.startswith(f"{line_of(path, f'- {control}')}ablation.controls has {control}, which does not apply: ")
    assert line.endswith("(knowledge, a stage with a task of its own, or their cell).")


def test_a_control_of_a_cell_that_is_not_crossed_is_told(grades: Path):
    assert "without" in told(grades, "ablation.factors=[PA_pi]", "ablation.controls=[without]")


def test_a_recipe_that_nothing_can_be_added_to_is_told(tmp_path: Path):
    path = write(tmp_path, NO_PERCEPTION.replace("knowledge: {card: phantom}\n", "") + "ablation: {}\n")
    line = told(path)
    assert line.startswith(line_of(path, "ablation:"))
    assert "no augmentation applies: the recipe has no knowledge, no stage with a task of its own and no grades" in line


@pytest.mark.parametrize("match", ["tokens", "seconds"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_budget_whose_last_step_is_not_known_needs_a_constant_schedule(grades: Path, match: str, schedule: str):
    option = f"ablation.budget.match={match}"
    line = told(grades, option, f"stages.1.lr_schedule={schedule}")
    assert line.startswith(f"--set {option}: ablation.budget matches {match}, so the last step is not known")
    assert line.endswith("stages.1.lr_schedule must be constant (arm rft).")


def test_a_budget_of_steps_takes_any_schedule(grades: Path):
    assert read_design(grades, ["ablation.budget.match=steps", "stages.1.lr_schedule=linear"]).cells


def test_a_further_arm_with_a_schedule_needs_to_know_its_last_step_too(grades: Path):
    arm = with_arms("rft", {"name": "linear", "set": {"lr_schedule": "linear"}})
    assert "constant" in told(grades, "ablation.budget.match=tokens", arm)


def test_a_threshold_that_rises_needs_to_know_the_last_step_too(tmp_path: Path):
    path = write(
        tmp_path,
        BOXES.replace("{iou: 1.0,", "{iou: {threshold: [0.2, 0.7]},") + "ablation: {budget: {match: tokens}}\n",
    )
    assert "rewards.iou.threshold" in told(path)


def test_a_sweep_of_a_cell_that_is_not_there_is_told_with_those_that_are(grades: Path):
    option = "ablation.sweep={arm: rft+PA_q, rewards: {format: [1.0]}}"
    line = told(grades, option)
    assert line.startswith(f"--set {option}: ablation.sweep.arm is 'rft+PA_q'; expected one of rft, rft+recite-0.3, ")


def test_a_sweep_of_a_cell_is_told_with_the_line_of_the_cell(tmp_path: Path):
    path = write(tmp_path, GRADES + "  sweep:\n    rewards: {format: [1.0]}\n    arm: rft+PA_q\n")
    assert told(path).startswith(line_of(path, "arm: rft+PA_q"))


def test_a_sweep_of_a_reward_that_does_not_apply_is_told_with_its_line(tmp_path: Path):
    path = write(tmp_path, GRADES + "  sweep:\n    rewards:\n      format: [1.0]\n      f1: [1.0]\n")
    wanted = "ablation.sweep.rewards has 'f1', which does not apply to grading."
    assert faults(path)[0] == line_of(path, "f1: ") + wanted


def test_a_sweep_of_a_reward_that_does_not_apply_is_told_once(grades: Path):
    assert "'f1', which does not apply to grading" in told(grades, "ablation.sweep={rewards: {f1: [1.0]}}")


def test_a_sweep_of_recitation_needs_something_that_is_known(grades: Path):
    lines = faults(grades, "knowledge=null", "ablation.sweep={rewards: {recitation: [1.0]}}")
    assert any(line.endswith("ablation.sweep pays for recitation, but nothing is known.") for line in lines)


@pytest.mark.parametrize("text", ["{}", "{arm: rft+PA_p}", "{rewards: {}}"])
def test_a_sweep_of_nothing_is_told(grades: Path, text: str):
    line = told(grades, f"ablation.sweep={text}")
    assert line.startswith(f"--set ablation.sweep={text}: ")
    assert line.endswith("ablation.sweep varies nothing; give rewards, scale_rewards or aggregation.")


def test_an_arm_of_a_sweep_is_checked_like_any_arm(grades: Path):
    line = told(grades, "ablation.sweep={scale_rewards: [none], aggregation: [normalize_then_sum]}")
    assert "scale_rewards is 'none'; with aggregation normalize_then_sum expected group" in line


def test_a_sweep_that_leaves_all_rewards_out_is_told_in_one_sentence(grades: Path):
    assert "reward" in told(grades, "ablation.sweep={rewards: {accuracy: [0.0], format: [0.0]}}")


def test_grades_that_pay_for_no_exact_answer_are_not_crossed_with_near_misses(grades: Path):
    try:
        design = read_design(grades, ["stages.1.rewards={format: 1.0}", "ablation.factors=[MFRS]"])
    except RecipeError:
        return
    assert design.recipe.stages_of("rft") != design.recipe.stages_of("rft+MFRS")


@pytest.mark.parametrize("name", ["rft+MFRS", "rft,format=1"])
def test_a_further_arm_does_not_take_the_name_of_one_of_the_design(grades: Path, name: str):
    arm = with_arms("rft", {"name": name, "set": {"kl": 0.123}})
    assert name in told(grades, "ablation.sweep={rewards: {format: [1.0]}}", arm)


def test_a_recitation_whose_library_is_missing_is_told(grades: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.recipe.checking.missing_for", lambda measure, model: "it is not installed")
    assert "it is not installed" in told(grades, "stages.1.rewards.recitation={weight: 0, measure: embedding}")
