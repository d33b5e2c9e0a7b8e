"""A recipe is read whole or refused whole: all faults at once, each with its line and the nearest spelling."""

import re
from pathlib import Path

import pytest
import yaml

from vrft.api import run
from vrft.cli.terminal import plan
from vrft.errors import RecipeError
from vrft.recipe import ArmChange, RftStage, SftStage, build_task, open_source, read_recipe
from vrft.rewards import APPLIES, REWARDS

ROOT = Path(__file__).parents[1]

FAULTY = """\
name: faulty
data:
  source: phantom
  famly: shifted
task: {kind: classification, labels: [Kova]}
stages:
  - kind: rft
    rewards: {fuzzy: 1.0, format: 0.5}
    steps: many
    kl: -1
arms: [base, stf]
"""


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    return str(error.value).splitlines()


def test_all_faults_are_told_together_with_line_and_spelling(tmp_path: Path):
    path = tmp_path / "faulty.yaml"
    path.write_text(FAULTY)
    told = faults(path, "policy.modell=tiny")
    for line, words in [
        (4, "data.famly is no key of data"),
        (5, "task.labels has 'Kova'"),
        (8, "'fuzzy', which does not apply to classification"),
        (9, "stages.0.steps is 'many'"),
        (10, "stages.0.kl is -1"),
        (11, "arms.1 is 'stf'; expected one of majority, base, sft, rft, "),
        (11, "Did you mean 'sft'?"),
    ]:
        assert any(text.startswith(f"{path}:{line}: ") and words in text for text in told), (line, told)
    assert any(text.startswith("--set policy.modell=tiny: ") and "Did you mean 'model'?" in text for text in told)
    assert "Did you mean 'family'?" in told[0]


def test_two_wrong_items_of_a_list_do_not_hide_the_faults_of_other_keys(tmp_path: Path):
    path = tmp_path / "faulty.yaml"
    path.write_text(
        "name: faulty\ndata: {source: phantom}\ntask: {kind: grading}\nstages: [{kind: rft}]\n"
        "arms: [bse, stf, rft]\nseeds: [1, 1]\n"
    )
    found = faults(path)
    assert [line.partition(" is ")[0].rpartition(" ")[2] for line in found[:2]] == ["arms.0", "arms.1"]
    assert "seeds names a seed twice: 1, 1." in found[2]


def test_a_fault_that_leaves_no_recipe_does_not_hide_the_rewards(tmp_path: Path):
    path = tmp_path / "faulty.yaml"
    path.write_text(FAULTY.replace("source: phantom", "source: medmnist"))
    told = faults(path)
    assert any("data.dataset is missing" in line for line in told)
    assert any(line.startswith(f"{path}:8: ") and "'fuzzy', which does not apply" in line for line in told)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.0.steps", "expected KEY=VALUE"),
        ("stages.7.steps=3", "not in the recipe"),
        ("stages.0.rewards.acuracy=1", "Did you mean 'accuracy'?"),
        ("stages.0.rewards={accuracy: 0}", "nothing would be learnt"),
        ("stages.0.rewards={}", "stages.0.rewards is {}: name at least one reward"),
        ("stages.0.rewards.accuracy=high", "stages.0.rewards.accuracy is 'high': input should be a valid number"),
        ("stages.0.rewards.accuracy.wieght=1", "Did you mean 'weight'?"),
        ("stages.0.rewards={fuzzy: {schedul: table}}", "Did you mean 'schedule'?"),
        ("stages.0.rewards={fuzzy: {schedule: tabel}}", "Did you mean 'table'?"),
        ("stages.0.fuzzy_schedule=table", "stages.0.fuzzy_schedule moved to stages.0.rewards.fuzzy.schedule."),
        ("stages.0.vllm_cap=2", "stages.0.vllm_cap moved to stages.0.vllm.cap."),
        ("arms=[{name: x, set: {recite: bleu}}]", "arms.0.set.recite moved to arms.0.set.rewards.recitation.measure."),
        ("stages.0.group_size=1", "greater than or equal to 2"),
        ("data={source: medmnist, dataset: retinamnist, root: nowhere}", "nowhere/retinamnist.npz: no such file"),
        ("data={source: medmnist, dataset: chestmnist}", "several labels an image"),
        ("data={source: medmnist, dataset: breastmnist, root: .}", "classes without an order"),
        ("data={source: medmist}", "Did you mean 'medmnist'?"),
        ("data={}", "data.source is missing"),
        ("policy.model=./nowhere", "there is no ./nowhere/config.json"),
        ("task.names=[a, b]", "2 names for 5 grades"),
        ("seeds=[1, 1]", "a seed twice"),
        ("arms=[rft, rft]", "an arm twice"),
        ("arms=[{name: rft, set: {kl: 0.1}}]", "one of the arms without changes"),
        ("arms=[{name: x, set: {klm: 0.1}}]", "klm"),
        ("arms=[{name: x, set: {rewards: {fuzy: 1}}}]", "fuzy"),
        ("name=a b", "name is 'a b'"),
        ("name=2020-13-45", "is no YAML value"),
        ("stages.²=3", "not in the recipe"),
        ("arms=[{name: x, set: {steps: -3}}]", "arms.0.set.steps is -3"),
        ("arms=[{name: x, set: {rewards: null}}]", "arms.0.set.rewards"),
        ("arms=[{name: x}]", "arms.0 changes nothing; give set, knowledge or perception."),
        ("stages.0.rewards={accuracy: .nan}", "finite number"),
        ("task={kind: grading, names: [a, a, b, c, d]}", "are read as the same"),
        ("task={kind: grading, names: [Grade 1, Grade 2, Grade II, Grade 3, Grade 4]}", "cannot be distinguished"),
        ("task={kind: grading, levels: 4}", "task.levels is 4; the data has 5 grades"),
        ("task={kind: grading, synonyms: {'7': [bad]}}", "neither a grade nor the name of one"),
        ("task={kind: grading, synonyms: {'1': ['2']}}", "task.synonyms: '2' is also a name"),
        ("task={kind: classification, synonyms: {Loto: [Pugo]}}", "name of"),
        ("policy.model=~nosuchuser/x/y", "config.json"),
        ("sft.think=</think>", "breaks the envelope"),
        ("stages.0.micro_batch=3", "a step has 8 sequences, which micro_batch 3 does not divide"),
        ("stages.0={kind: rft, rollouts: vllm}", "needs vLLM and a GPU; install vrft[vllm]"),
        ("stages.0={kind: rft, dynamic_sampling: 2, shared_prefix: false}", "dynamic_sampling needs shared_prefix"),
        ("stages.0={kind: rft, dynamic_sampling: 2, scale_rewards: batch}", "expected scale_rewards group or none"),
        ("evaluation.split=tset", "Did you mean 'test'?"),
        ("data={source: voc, root: nowhere}", "nowhere: has neither ImageSets/Main nor Annotations"),
        ("task={kind: localization}", "'accuracy', which does not apply to localization; expected format, iou, f1"),
        (
            "data={source: table, root: x, file: y.csv, columns: {image: a}}",
            "a grading needs data.columns.grade or data.columns.label",
        ),
    ],
)
def test_a_wrong_value_is_told_in_one_sentence(small_recipe: Path, override: str, words: str):
    told = faults(small_recipe, override)
    assert any(words in line for line in told), told
    assert all("Traceback" not in line for line in told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML"),
        ("a: &b [*b]", "is no YAML"),
        ("name: 2020-13-45", "is no YAML"),
        ("- a", "expected keys and values"),
        ("name: a\nname: b", "given twice"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(tmp_path: Path, text: str, words: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert any(words in line and f"{path}:" in line for line in faults(path))


def test_a_missing_file_is_named(tmp_path: Path):
    assert "cannot be read" in faults(tmp_path / "none.yaml")[0]


def test_the_resolved_recipe_is_a_recipe_and_means_the_same(small_recipe: Path, tmp_path: Path):
    recipe = read_recipe(
        small_recipe, ["stages.0.learning_rate=3e-4", "arms=[rft, {name: m, set: {rewards: {fuzzy: 1.0}}}]"]
    )
    again = tmp_path / "resolved.yaml"
    again.write_text(recipe.dump())
    resolved = read_recipe(again)
    assert resolved.dump() == recipe.dump()
    assert resolved.stages_of("m") == recipe.stages_of("m")
    (stage,) = recipe.stages_of("rft")
    written = yaml.safe_load(recipe.dump())["stages"][0]
    assert set(written) == set(RftStage.model_fields)
    assert isinstance(stage, RftStage)
    assert stage.learning_rate == 3e-4


def test_a_number_is_short_for_the_weight_of_a_reward(small_recipe: Path):
    def rewards(*overrides: str) -> object:
        return yaml.safe_load(read_recipe(small_recipe, overrides).dump())["stages"][0]["rewards"]

    long = "stages.0.rewards={format: {weight: 0.5}, fuzzy: {weight: 0.7, schedule: geometric}}"
    expected = {"fuzzy": {"weight": 0.7, "schedule": "geometric"}, "format": 0.5}
    assert rewards(long) == expected
    assert (
        rewards("stages.0.rewards={fuzzy: 0.7, format: 0.5}", "stages.0.rewards.fuzzy.schedule=geometric") == expected
    )
    assert rewards(long, "stages.0.rewards.fuzzy=0.7")["fuzzy"] == {"weight": 0.7, "schedule": "table"}
    assert rewards(long, "stages.0.rewards.fuzzy=null") == {"format": 0.5}


def test_a_reward_of_weight_0_stays(small_recipe: Path):
    recipe = read_recipe(small_recipe, ["stages.0.rewards={accuracy: 1, fuzzy: 0}"])
    assert recipe.stages[0].weights() == {"accuracy": 1.0, "fuzzy": 0.0}


OWN = "def short(completions, **columns):\n    return [-len(text) for text in completions]\n"


@pytest.mark.parametrize(
    ("custom", "rewards", "words"),
    [
        ("{short: FILE:short}", "{accuracy: 1, shrot: 1}", "stages.0.rewards has 'shrot', which is no reward"),
        ("{short: FILE:short}", "{accuracy: 1, shrot: 1}", "Did you mean 'short'?"),
        ("{short: FILE:short}", "{accuracy: 1, short: {wieght: 1}}", "it has weight. Did you mean 'weight'?"),
        ("{short: FILE:short}", "{accuracy: 1, short: much}", "stages.0.rewards.short is 'much': input should be"),
        ("{short: FILE:short}", "{accuracy: 1}", "custom.short is not used: no stage and no arm names it"),
        ("{format: FILE:short}", "{format: 1}", "custom.format has the name of a built-in reward"),
        ("{short: FILE:shrt}", "{short: 1}", "has no function 'shrt'; it has short. Did you mean 'short'?"),
        ("{short: nowhere.py:short}", "{short: 1}", "custom.short: nowhere.py cannot be read"),
        ("{short: FILE}", "{short: 1}", "custom.short is "),
        ("{a.b: FILE:short}", "{accuracy: 1}", "custom.a.b is "),
    ],
)
def test_a_custom_reward_is_checked(small_recipe: Path, tmp_path: Path, custom: str, rewards: str, words: str):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    found = faults(small_recipe, f"custom={custom.replace('FILE', str(path))}", f"stages.0.rewards={rewards}")
    assert any(words in line for line in found), found


def test_a_custom_reward_is_a_reward_like_the_others(small_recipe: Path, tmp_path: Path):
    path = tmp_path / "own.py"
    path.write_text(OWN + "raise SystemExit")  # which reading a recipe does not run
    given = [f"custom={{short: {path}:short}}", "arms=[rft, {name: x, set: {rewards: {format: 1, short: 0.01}}}]"]
    recipe = read_recipe(small_recipe, given)
    assert recipe.stages_of("x")[-1].weights() == {"format": 1.0, "short": 0.01}
    again = tmp_path / "again.yaml"
    again.write_text(recipe.dump())
    assert read_recipe(again).dump() == recipe.dump()
    assert f"runs code of yours: {path}:short as short" in plan(recipe, tmp_path)
    assert "0.01 short" in plan(recipe, tmp_path)


@pytest.mark.parametrize("given", ["stages.0.loss=rejection", "arms=[rft, rejection]"])
def test_rejection_needs_to_know_the_most_that_a_reward_pays(small_recipe: Path, tmp_path: Path, given: str):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    own = f"custom={{short: {path}:short}}"
    found = faults(small_recipe, own, "stages.0.rewards.short=1", "stages.0.kl=0", given)
    assert any("which is not known of the custom reward 'short'; leave it out." in line for line in found)
    assert read_recipe(small_recipe, [own, "stages.0.rewards.short=-1", "stages.0.kl=0", given])  # it accepts nothing


def test_sft_matches_the_steps_and_sequences_of_rft(small_recipe: Path):
    recipe = read_recipe(small_recipe, ["sft={}"])
    (sft,) = recipe.stages_of("sft")
    (rft,) = recipe.stages_of("rft")
    assert isinstance(sft, SftStage)
    assert isinstance(rft, RftStage)
    assert (sft.steps, sft.batch_size) == (rft.steps, rft.prompts_per_step * rft.group_size)
    assert sft.learning_rate == 3e-4 != rft.learning_rate  # its own


def test_an_arm_changes_only_the_last_stage(small_recipe: Path):
    recipe = read_recipe(small_recipe, ["arms=[rft, {name: hot, set: {temperature: 2.0}}]"])
    (plain,), (hot,) = recipe.stages_of("rft"), recipe.stages_of("hot")
    assert hot.model_dump() == plain.model_dump() | {"temperature": 2.0}


def test_every_shipped_recipe_is_right(shared: Path):
    paths = sorted((ROOT / "recipes").glob("*.yaml"))  # those of recipes/sources are run in test_shipped.py
    assert len(paths) >= 2
    for path in paths:
        raw = yaml.safe_load(path.read_text())
        own = [("data", raw["data"])]
        own += [(f"stages.{n}.data", stage["data"]) for n, stage in enumerate(raw["stages"]) if "data" in stage]
        folders = {"medmnist": "medmnist", "voc": "bccd"}
        overrides = [f"{at}.root={shared}/data/{folders[one['source']]}" for at, one in own if "root" in one]
        recipe = read_recipe(path, overrides)
        assert build_task(recipe, open_source(recipe), frame="resized").metrics
        assert path.read_text().startswith(f"# vrft {'ablate' if 'ablation' in raw['name'] else 'run'} recipes/")


def test_every_reward_says_what_it_applies_to():
    assert set(REWARDS) == set(APPLIES)


TWO = """\
name: two
data: {source: phantom, samples: {train: 8, validation: 2, test: 4}}
task: {kind: classification}
stages:
  - {kind: rft, task: {kind: localization}, steps: 5, rewards: {iou: 1.0}, prompts_per_step: 2, group_size: 4}
  - {kind: rft, steps: 3, prompts_per_step: 2, group_size: 4}
arms: [base, sft, rft, PA_pi, rft+PA_pi, rft+extra, rft+shuffled]
"""


def test_the_controls_of_perception_first_differ_in_one_thing_each(tmp_path: Path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    recipe = read_recipe(path)
    stages = {
        arm: [(s.task is not None, s.steps, s.shuffle_targets) for s in recipe.stages_of(arm)]
        for arm in recipe.arm_names()
    }
    first, own = (True, 5, False), (False, 3, False)
    assert stages["rft"] == [own]
    assert stages["PA_pi"] == [first]
    assert stages["rft+PA_pi"] == [first, own]
    assert stages["rft+extra"] == [(False, 8, False)]  # as many optimiser steps as rft+PA_pi
    assert stages["rft+shuffled"] == [(True, 5, True), own]
    assert sum(steps for _, steps, _ in stages["sft"]) == 3
    again = tmp_path / "again.yaml"
    again.write_text(recipe.dump())
    assert read_recipe(again).stages_of("rft+shuffled") == recipe.stages_of("rft+shuffled")


def test_arms_share_stages_on_another_task_whatever_their_condition_and_no_others(tmp_path: Path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    recipe = read_recipe(path)
    changes = [ArmChange(name="plain", perception=True), ArmChange(name="informed", perception=True, knowledge=True)]
    recipe = recipe.model_copy(update={"arms": ["rft+PA_pi", *changes]})
    first, last = ([recipe.training_of(arm, stage) for arm in recipe.arm_names()] for stage in (0, 1))
    assert first[0] == first[1] == first[2]
    assert last[0] == last[1]
    assert last[1] != last[2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.0.rewards={accuracy: 1}", "'accuracy', which does not apply to localization"),
        ("stages.1.task={kind: localization}", "one must train the task of the recipe"),
        ("stages.0.task=null", "which does not apply to classification"),
        ("stages.0.data={source: voc, root: nowhere}", "nowhere: has neither ImageSets/Main nor Annotations/*.xml."),
        ("stages.1.data={source: phantom}", "stages.1.data needs stages.1.task"),
    ],
)
def test_a_stage_of_its_own_is_checked_like_the_recipe(tmp_path: Path, override: str, words: str):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    with pytest.raises(RecipeError) as error:
        read_recipe(path, [override])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("arms=[base, rft+PA_p]", "arms.1 is rft+PA_p, but the recipe has no knowledge"),
        ("stages.0.rewards.recitation=-0.2", "stages.0.rewards pays for recitation, but the recipe has no knowledge"),
        ("knowledge.card=retinamist", "Did you mean 'retinamnist'"),
        ("knowledge.card=octmnist", "describes 'drusen'; the data have 0, 1, 2, 3, 4"),
        ("arms=[rft, {name: x, set: {rewards: {recitation: 1.0}}}]", "arms.1.set.rewards pays for recitation"),
        ("arms=[rft, {name: x, set: {rewards: 1.0}}]", "arms.1.set.rewards is 1.0"),
        ("policy.dtype.x=1", "policy.dtype is {'x': 1}"),
        ("knowledge={card: retinamnist, irrelevant: retinamnist}", "knowledge.irrelevant describes '0' too"),
        ("knowledge.card=phantom", "needs data.source phantom and a classification"),
    ],
)
def test_knowledge_is_checked_against_arms_rewards_and_data(small_recipe: Path, override: str, words: str):
    with pytest.raises(RecipeError, match=re.escape(words)):
        read_recipe(small_recipe, [override])


def test_a_control_of_knowledge_needs_the_arm_that_it_tests(small_recipe: Path):
    given = ["knowledge.card=retinamnist", "arms=[swapped, rft+PA_p]"]
    with pytest.raises(RecipeError, match=re.escape("tests the policy of rft+PA_p; name that before it")):
        read_recipe(small_recipe, given)
    recipe = read_recipe(small_recipe, ["knowledge.card=retinamnist", "arms=[rft+PA_p, swapped]"])
    assert (
        build_task(recipe, open_source(recipe)).read("<answer>mild nonproliferative retinopathy</answer>").answer == 1
    )  # a synonym of the card
    assert [
        recipe.condition_of("swapped", training=True).prompt,
        *(recipe.condition_of(arm).prompt for arm in ("swapped", "rft")),
    ] == [
        "card",
        "swapped",
        "none",
    ]


def test_a_card_is_checked_without_fetching_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.data.medmnist.download", lambda *a, **k: pytest.fail("the data were fetched"))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: a\ndata: {{source: medmnist, dataset: retinamnist, root: {tmp_path}, download: true}}\n"
        "task: {kind: grading}\nknowledge: {card: retinamnist}\nstages: [{kind: sft}]\narms: [base+PA_p]\n"
    )
    assert read_recipe(path).knowledge is not None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["save_every=6", "updates_per_batch=4"], "save_every is 6; expected a multiple of updates_per_batch, 4"),
        (["loss=cispo"], "loss cispo needs clip_high, the largest ratio, 1 or more"),
        (["loss=cispo", "clip_high=0.5"], "loss cispo needs clip_high, the largest ratio, 1 or more"),
        (["loss=sapo", "clip_high=0.5"], "loss sapo does not clip; leave clip_high out"),
        (["loss=luspo"], "loss luspo needs importance_sampling: sequence"),
        (["loss=dapo", "importance_sampling=sequence"], "loss dapo averages over tokens"),
        (["loss=rejection", "updates_per_batch=2"], "loss rejection takes updates_per_batch: 1"),
        (["micro_batch=3"], "a step has 8 sequences, which micro_batch 3 does not divide"),
    ],
)
def test_keys_of_the_objective_that_contradict_each_other_are_faults(
    small_recipe: Path, overrides: list[str], words: str
):
    assert any(words in line for line in faults(small_recipe, *(f"stages.0.{key}" for key in overrides)))


def test_a_ratio_of_one_is_the_least_cap_of_cispo(small_recipe: Path):
    assert read_recipe(small_recipe, ["stages.0.loss=cispo", "stages.0.clip_high=1.0"])


def test_a_window_of_one_value_is_refused(tmp_path: Path):
    path = tmp_path / "window.yaml"
    path.write_text(
        "name: window\ndata: {source: yolo, root: ., window: [5, 5]}\n"
        "task: {kind: localization}\nstages: [{kind: sft}]\n"
    )
    assert any("the first value must be below the second" in line for line in faults(path))


def test_a_recipe_that_a_program_gives_is_checked_before_anything_is_done(small_recipe: Path, tmp_path: Path):
    recipe = read_recipe(small_recipe).model_copy(update={"seeds": [1, 1]})
    with pytest.raises(RecipeError, match="small: seeds names a seed twice: 1, 1"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
