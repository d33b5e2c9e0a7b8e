"""The keys of work: what decides a result changes its key and nothing else does, and each piece is done once."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrft.knowledge
from vrft.errors import RunError, UserError
from vrft.experiment.design import only, read_design
from vrft.experiment.jobs import Ledger, Unit, _limited, cost_of, digest, drop_policies, is_done
from vrft.experiment.run import jobs_of
from vrft.pipeline import open_job
from vrft.progress import Reporter
from vrft.recipe import Budget, RftStage
from vrft.runs import AblationDirectory, write_json
from vrft.sample import Sample

TEXT = """\
name: small
data: {source: phantom, family: shifted, samples: {train: 6, validation: 2, test: 4}}
task: {kind: classification}
knowledge: {card: phantom}
stages:
  - kind: rft
    task: {kind: localization}
    data: {source: phantom, family: shifted, samples: {train: 6, validation: 2, test: 4}}
    rewards: {iou: 1.0, format: 0.5}
    steps: 5
  - kind: rft
    rewards: {accuracy: 1.0, format: 0.5}
    steps: 3
    max_completion_tokens: 24
seeds: [0, 1]
"""

OWN = ("rft", "rft+recite+0.2", "rft+PA_p", "rft+PA_p+recite-0.2", "sft", "blind", "nothink")
"""Arms that train on the task of the recipe alone."""
PERCEIVING = ("rft+PA_pi", "rft+PA_p+PA_pi", "rft+PA_pi+recite+0.2")
"""Cells that train on localization first."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work") / "recipe.yaml"
    path.write_text(TEXT)
    return path


@cache
def ledger(path: Path, *overrides: str, arms: tuple[str, ...] = ()) -> Ledger:
    design = read_design(path, overrides)
    return Ledger(open_job((only(design, arms) if arms else design).recipe, Reporter(quiet=True)))


def keys(of: Ledger) -> dict[str, str]:
    """All keys of a ledger by what they are of."""
    named = {}
    for arm in of.recipe.arm_names():
        for seed in of.recipe.seeds_of(arm):
            named[f"{arm}, seed {seed}"] = of.evaluation(arm, seed)
            trained = of.trainings(arm, seed)
            named |= {f"{arm}, seed {seed}, stage {index}": key for index, key in enumerate(trained)}
    return named


def last(of: Ledger, arm: str, seed: int = 0) -> str:
    return of.trainings(arm, seed)[-1]


# --- what is shared -------------------------------------------------------------------------------------------------


def test_all_cells_with_perception_share_its_training_with_a_seed(recipe: Path):
    one = ledger(recipe)
    for seed in (0, 1):
        assert len({one.trainings(arm, seed)[0] for arm in PERCEIVING}) == 1
        assert len({last(one, arm, seed) for arm in PERCEIVING}) == len(PERCEIVING)


def test_trainings_of_another_seed_are_others(recipe: Path):
    one = ledger(recipe)
    for arm in (*OWN, *PERCEIVING):
        assert set(one.trainings(arm, 0)).isdisjoint(one.trainings(arm, 1))


def test_knowledge_changes_the_last_stage_and_not_the_localization(recipe: Path):
    one = ledger(recipe)
    (shared, plain), (also, told) = one.trainings("rft+PA_pi", 0), one.trainings("rft+PA_p+PA_pi", 0)
    assert shared == also
    assert plain != told
    assert last(one, "rft") != last(one, "rft+PA_p")


def test_a_stage_depends_on_those_before_it(recipe: Path):
    one, other = ledger(recipe), ledger(recipe, "stages.0.steps=6")
    assert last(one, "rft+PA_pi") != last(other, "rft+PA_pi")
    assert last(one, "rft+PA_pi") != last(one, "rft")


def test_trainings_of_all_arms_differ_that_are_not_tested_otherwise(recipe: Path):
    one = ledger(recipe)
    trained = [arm for arm in one.recipe.arm_names() if arm not in ("majority", "base", "without", "swapped")]
    assert len({last(one, arm) for arm in trained}) == len(trained)


def test_shuffled_targets_are_another_localization(recipe: Path):
    one = ledger(recipe)
    assert one.trainings("rft+shuffled", 0)[0] != one.trainings("rft+PA_pi", 0)[0]


def test_a_point_of_the_sweep_that_is_another_cell_shares_all_its_work(recipe: Path):
    one = ledger(recipe, "ablation.sweep={arm: rft+PA_p, rewards: {recitation: [0.2]}}")
    cell, point = "rft+PA_p+recite+0.2", "rft+PA_p,recitation=0.2"
    assert one.trainings(cell, 0) == one.trainings(point, 0)
    assert one.evaluation(cell, 0) == one.evaluation(point, 0)


def test_what_is_not_trained_has_no_training_and_one_seed(recipe: Path):
    one = ledger(recipe)
    for arm in ("majority", "base"):
        assert one.trainings(arm, 0) == ()
        assert one.recipe.seeds_of(arm) == [0]
    assert one.recipe.seeds_of("without") == one.recipe.seeds_of("rft") == [0, 1]


def test_controls_of_knowledge_test_the_policy_of_PA_p_in_their_own_way(recipe: Path):
    one = ledger(recipe)
    arms = ("rft+PA_p", "without", "swapped")
    assert len({one.trainings(arm, 0) for arm in arms}) == 1
    assert len({one.evaluation(arm, 0) for arm in arms}) == 3
    changed = ledger(recipe, "stages.1.kl=0.5")
    assert all(one.evaluation(arm, 0) != changed.evaluation(arm, 0) for arm in arms)


# --- what changes a key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "stages.0.save_every=7",
        "stages.1.save_every=7",
        "stages.1.log_every=2",
        "stages.1.loader_workers=1",
        "policy.image_cache_gb=0",
        "name=another",
        "evaluation.bootstrap=500",
        "evaluation.confidence=0.9",
        "ablation.retries=0",
        "ablation.keep_policies=false",
        "ablation.budget.amount=5",
    ],
)
def test_what_decides_no_result_changes_no_key(recipe: Path, override: str):
    assert keys(ledger(recipe, override)) == keys(ledger(recipe))


@pytest.mark.parametrize(
    "override",
    [
        "stages.1.steps=4",
        "stages.1.weight_decay=0.1",
        "stages.1.balance=true",
        "stages.1.micro_batch=4",
        "task.question=Which finding is it?",
    ],
)
def test_what_decides_the_last_stage_changes_its_key_and_no_localization(recipe: Path, override: str):
    one, other = ledger(recipe), ledger(recipe, override)
    for arm in (*OWN, *PERCEIVING):
        assert last(one, arm) != last(other, arm)
        assert one.evaluation(arm, 0) != other.evaluation(arm, 0)
    for arm in PERCEIVING:
        assert one.trainings(arm, 0)[0] == other.trainings(arm, 0)[0]


def test_the_learning_rate_of_reinforcement_is_none_of_the_supervised_arm(recipe: Path):
    one, other = ledger(recipe), ledger(recipe, "stages.1.learning_rate=3.0e-5")
    assert last(one, "sft") == last(other, "sft")
    assert last(one, "rft") != last(other, "rft")


@pytest.mark.parametrize(
    "override",
    [
        "policy.dtype=float32",
        "policy.revision=abc",
        "policy.lora={rank: 4}",
        "policy.max_pixels=1000",
        "ablation.cpus=2",
    ],
)
def test_policy_and_threads_change_every_training(recipe: Path, override: str):
    one, other = ledger(recipe), ledger(recipe, override)
    for arm in (*OWN, *PERCEIVING):
        assert set(one.trainings(arm, 0)).isdisjoint(other.trainings(arm, 0))
    assert one.evaluation("base", 0) != other.evaluation("base", 0)


@pytest.mark.parametrize("override", ["stages.0.steps=6", "stages.0.data.samples.train=7", "stages.0.data.seed=1"])
def test_what_decides_the_localization_changes_the_cells_with_perception_alone(recipe: Path, override: str):
    one, other = ledger(recipe), ledger(recipe, override)
    assert all(set(one.trainings(arm, 0)).isdisjoint(other.trainings(arm, 0)) for arm in PERCEIVING)
    assert all(one.trainings(arm, 0) == other.trainings(arm, 0) for arm in OWN)


@pytest.mark.parametrize("override", ["data.samples.train=7", "data.seed=1", "data.attributes=[shape]"])
def test_samples_change_the_trainings_on_them(recipe: Path, override: str):
    one, other = ledger(recipe), ledger(recipe, override)
    assert all(last(one, arm) != last(other, arm) for arm in (*OWN, *PERCEIVING))
    assert all(one.trainings(arm, 0)[0] == other.trainings(arm, 0)[0] for arm in PERCEIVING)


@pytest.mark.parametrize("arm", ["rft", "base"])
def test_images_of_another_look_are_other_work(recipe: Path, arm: str):
    assert ledger(recipe).evaluation(arm, 0) != ledger(recipe, "data.family=standard").evaluation(arm, 0)


def test_test_samples_change_every_evaluation_and_no_training(recipe: Path):
    one, other = ledger(recipe), ledger(recipe, "data.samples.test=5")
    for arm in one.recipe.arm_names():
        assert one.trainings(arm, 0) == other.trainings(arm, 0)
        assert one.evaluation(arm, 0) != other.evaluation(arm, 0)


@pytest.mark.parametrize("override", ["evaluation.batch_size=2", "evaluation.limit=3", "evaluation.split=validation"])
def test_how_it_is_asked_changes_evaluations_and_no_training(recipe: Path, override: str):
    one, other = keys(ledger(recipe)), keys(ledger(recipe, override))
    assert {name for name in one if one[name] != other[name]} == {name for name in one if "stage" not in name}


def test_the_majority_depends_on_the_training_split_and_the_untrained_policy_does_not(recipe: Path):
    one, other = ledger(recipe), ledger(recipe, "data.samples.train=7")
    assert one.evaluation("majority", 0) != other.evaluation("majority", 0)
    assert one.evaluation("base", 0) == other.evaluation("base", 0)


def test_what_is_known_changes_the_arms_that_are_told_or_paid_for_it(recipe: Path, tmp_path: Path):
    shipped = (Path(vrft.knowledge.__file__).parent / "cards" / "retinamnist.yaml").read_text()

    def with_card(name: str, text: str) -> Ledger:
        (tmp_path / name).write_text(text)
        return ledger(recipe, "task.kind=grading", f"knowledge.card={tmp_path / name}")

    one, other = with_card("one.yaml", shipped), with_card("other.yaml", shipped.replace("aneurysms", "bulges"))
    changed = {arm for arm in one.recipe.arm_names() if one.evaluation(arm, 0) != other.evaluation(arm, 0)}
    told = {arm for arm in one.recipe.arm_names() if "PA_p" in arm.split("+") or "recite" in arm}
    assert changed == told | {"without", "swapped"}


def test_how_it_is_told_changes_the_arms_that_are_told(recipe: Path):
    one, other = ledger(recipe), ledger(recipe, "knowledge.label_first=false")
    assert last(one, "rft+PA_p") != last(other, "rft+PA_p")
    assert last(one, "rft") == last(other, "rft")


def test_further_arms_and_seeds_change_no_key_that_was_there(recipe: Path):
    one = keys(ledger(recipe))
    more = ["seeds=[0, 1, 2]", "ablation.sweep={rewards: {format: [1.0]}}"]
    other = keys(ledger(recipe, *more, 'arms=[rft, {"name": "hot", "set": {"temperature": 2.0}}]'))
    assert other.items() > one.items()


def test_a_part_of_a_design_has_the_keys_of_the_whole(recipe: Path):
    whole, part = keys(ledger(recipe)), keys(ledger(recipe, arms=("rft", "rft+PA_pi")))
    assert whole.items() > part.items()


def test_keys_are_names_of_folders(recipe: Path):
    assert all(key.isalnum() and len(key) == 20 for key in keys(ledger(recipe)).values())


@pytest.mark.parametrize("rule", ["FORMAT", "RULES"])
def test_other_rules_of_reading_are_other_work(recipe: Path, monkeypatch: pytest.MonkeyPatch, rule: str):
    one = keys(ledger(recipe))
    monkeypatch.setattr(f"vrft.experiment.jobs.{rule}", -1)
    other = keys(Ledger(open_job(ledger(recipe).recipe, Reporter(quiet=True))))
    assert all(one[name] != other[name] for name in one)


# --- the hash of samples --------------------------------------------------------------------------------------------

SAMPLE = st.builds(
    Sample,
    id=st.text(max_size=4),
    image=st.just(Path("image.png")),
    question=st.text(max_size=4),
    target=st.one_of(
        st.text(max_size=3),
        st.integers(0, 9),
        st.lists(st.tuples(*[st.floats(0, 99, width=16)] * 4), max_size=2).map(tuple),
    ),
    split=st.just("train"),
)


def facts(samples: list[Sample]) -> list[Any]:
    return [(one.id, one.question, type(one.target), one.target, one.region) for one in samples]


@given(st.lists(SAMPLE, max_size=3), st.lists(SAMPLE, max_size=3))
def test_samples_have_the_same_hash_only_if_they_are_the_same(one: list[Sample], other: list[Sample]):
    assert (digest(one) == digest(other)) == (facts(one) == facts(other))


@given(
    st.lists(SAMPLE, min_size=1, max_size=3),
    st.data(),
    st.sampled_from(["id", "question", "target", "region"]),
)
def test_any_change_of_any_sample_changes_the_hash(samples: list[Sample], data: st.DataObject, field: str):
    index = data.draw(st.integers(0, len(samples) - 1))
    fresh = data.draw(SAMPLE)
    value = (1.0, 2.0, 3.0, 4.0) if field == "region" else getattr(fresh, field)
    changed = [*samples]
    changed[index] = replace(samples[index], **{field: value})
    assert (digest(changed) == digest(samples)) == (facts(changed) == facts(samples))


# --- units ----------------------------------------------------------------------------------------------------------


def begun_before(units: list[Unit]) -> bool:
    """Whether all that a unit needs is given by those before it."""
    there: set[str] = set()
    for unit in units:
        if not unit.needs() <= there:
            return False
        there |= unit.gives()
    return True


BUDGETS = [(), ("ablation.budget.match=tokens",), ("ablation.budget={match: steps, amount: 9}",)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_shared_starts_come_before_those_that_need_them(recipe: Path, budget: tuple[str, ...]):
    assert begun_before(ledger(recipe, *budget).units())


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_training_is_given_by_one_unit(recipe: Path, budget: tuple[str, ...]):
    one = ledger(recipe, *budget, "ablation.sweep={arm: rft+PA_p, rewards: {recitation: [0.0, 0.2, 1.0]}}")
    units = one.units()
    given = Counter(key for unit in units for key in unit.keys[unit.first :])
    assert set(given.values()) == {1}
    assert set(given) == {
        k for arm in one.recipe.arm_names() for seed in one.recipe.seeds_of(arm) for k in one.trainings(arm, seed)
    }
    tested = Counter(unit.tested for unit in units if unit.tested)
    assert sorted(count for count in tested.values() if count > 1) == [2, 2]  # the sweep's 0.2 is a cell, in two seeds


def test_every_arm_and_seed_is_one_unit_with_an_evaluation(recipe: Path):
    one = ledger(recipe)
    asked = [(arm, seed) for arm in one.recipe.arm_names() for seed in one.recipe.seeds_of(arm)]
    assert [(unit.arm, unit.seed) for unit in one.units() if unit.tested] == asked


def test_names_of_units_are_all_different_and_say_what_is_shared(recipe: Path):
    names = [unit.name for unit in ledger(recipe).units()]
    assert len(set(names)) == len(names)
    assert names[0] == "rft, seed 0"
    assert "rft+PA_pi, seed 1, stage 1, shared" in names
    assert "rft+PA_p, seed 0, stage 1, shared" in names  # for without and swapped


def test_what_nobody_shares_is_one_unit(recipe: Path):
    units = ledger(recipe, arms=("rft", "rft+PA_pi")).units()
    assert [unit.name for unit in units] == [f"{arm}, seed {seed}" for arm in ("rft", "rft+PA_pi") for seed in (0, 1)]
    assert [(unit.first, len(unit.keys)) for unit in units] == [(0, 1), (0, 1), (0, 2), (0, 2)]


def test_a_unit_is_done_when_all_that_it_gives_is_there(recipe: Path, tmp_path: Path):
    units, directory = ledger(recipe).units(), AblationDirectory(tmp_path / "out")
    start = next(unit for unit in units if not unit.tested)
    tested = next(unit for unit in units if unit.arm == "rft" and unit.tested)
    assert not is_done(directory, start)
    for key in start.gives():
        write_json(directory.stage(key).done, {})
        directory.stage(key).policy.mkdir()
    assert is_done(directory, start)
    write_json(directory.stage(tested.keys[-1]).done, {})
    assert not is_done(directory, tested)
    write_json(directory.evaluation(tested.tested).done, {})
    assert is_done(directory, tested)


def test_an_evaluation_that_is_there_does_not_miss_its_weights(recipe: Path, tmp_path: Path):
    tested, directory = ledger(recipe).units()[0], AblationDirectory(tmp_path / "out")
    write_json(directory.evaluation(tested.tested).done, {})
    assert is_done(directory, tested)


def test_a_start_that_is_gone_is_done_again_only_where_something_that_begins_there_is_missing(recipe: Path, tmp_path):
    design, directory = read_design(recipe), AblationDirectory(tmp_path / "out")
    units, missing = jobs_of(design, directory)
    assert missing == units
    for unit in units:
        if unit.tested and unit.arm != "rft+PA_p+PA_pi":
            write_json(directory.evaluation(unit.tested).done, {})
    _, missing = jobs_of(design, directory)
    assert [unit.name for unit in missing] == [
        "rft+PA_pi, seed 0, stage 1, shared",
        "rft+PA_pi, seed 1, stage 1, shared",
        "rft+PA_p+PA_pi, seed 0",
        "rft+PA_p+PA_pi, seed 1",
    ]


def test_a_start_whose_weights_were_thrown_away_is_not_there(recipe: Path, tmp_path: Path):
    units, directory = ledger(recipe).units(), AblationDirectory(tmp_path / "out")
    start = next(unit for unit in units if not unit.tested)
    write_json(directory.stage(start.keys[-1]).done, {})
    assert not is_done(directory, start)


def test_weights_are_thrown_away_that_nothing_needs_which_is_left(recipe: Path, tmp_path: Path):
    units, directory = ledger(recipe).units(), AblationDirectory(tmp_path / "out")
    for key in {key for unit in units for key in unit.keys}:
        write_json(directory.stage(key).done, {})
        directory.stage(key).policy.mkdir()
    left = [unit for unit in units if unit.name in ("rft+PA_pi, seed 0", "without, seed 1")]
    drop_policies(directory, units, left)
    kept = {path.parent.name for path in (directory.path / "store").glob("*/policy")}
    assert kept == {key for unit in left for key in unit.keys}
    assert all(directory.stage(key).done.exists() for unit in units for key in unit.keys)


def test_zero_shot_after_localization_is_the_start_of_the_cells_with_it(recipe: Path):
    one = ledger(recipe, "ablation.controls=[PA_pi]")
    assert one.trainings("PA_pi", 0) == one.trainings("rft+PA_pi", 0)[:1]
    units = [unit for unit in one.units() if unit.arm == "PA_pi" and unit.seed == 0]
    assert [(unit.first, bool(unit.tested)) for unit in units if unit.tested] == [(1, True)]


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["steps", "tokens", "seconds"])
def test_what_is_matched_to_rft_needs_its_training(recipe: Path, match: str):
    one = ledger(recipe, f"ablation.budget.match={match}")
    for unit in one.units():
        whole = bool(unit.keys) and unit.keys == one.trainings(unit.arm, unit.seed)
        assert unit.limited == (whole and unit.arm != "rft")
        assert unit.budget_of == (one.trainings("rft", unit.seed) if unit.limited else ())
        assert set(unit.budget_of) <= unit.needs()


def test_a_budget_with_an_amount_limits_rft_too_and_waits_for_nothing(recipe: Path):
    units = ledger(recipe, "ablation.budget={match: steps, amount: 9}").units()
    assert all(not unit.budget_of for unit in units)
    assert all(unit.limited for unit in units if unit.tested and unit.keys)


def test_without_a_budget_nothing_is_limited(recipe: Path):
    assert not any(unit.limited or unit.budget_of for unit in ledger(recipe).units())


def test_a_budget_changes_last_stages_and_not_what_others_are_matched_to(recipe: Path):
    plain, matched = ledger(recipe), ledger(recipe, "ablation.budget.match=steps")
    assert plain.trainings("rft", 0) == matched.trainings("rft", 0)
    assert last(plain, "blind") != last(matched, "blind")
    (start, end), (same, other) = plain.trainings("rft+PA_pi", 0), matched.trainings("rft+PA_pi", 0)
    assert start == same
    assert end != other


def test_what_is_matched_depends_on_what_it_is_matched_to(recipe: Path):
    relative = [ledger(recipe, "ablation.budget.match=tokens", f"stages.1.kl={kl}") for kl in (0.1, 0.2)]
    assert len({last(one, "sft") for one in relative}) == 2
    fixed = [ledger(recipe, f"ablation.budget={{match: tokens, amount: {amount}}}") for amount in (100, 200)]
    assert len({last(one, "rft") for one in fixed}) == 2


def test_nothing_can_be_matched_to_rft_where_it_is_not_named(recipe: Path):
    one = ledger(recipe, "ablation.budget.match=tokens", arms=("rft+PA_pi",))
    with pytest.raises(UserError, match=r"^ablation\.budget matches tokens to what rft spends; name rft, or give an"):
        one.units()


COST = {"steps": 40, "tokens": 5_000, "seconds": 90.0, "peak_mb": 700.0}
UNIT = Unit("rft+PA_pi", 0, ("first", "last"), 1, "tested", ("matched",), True)
STAGE = RftStage(kind="rft", steps=60)


@pytest.fixture
def spent(tmp_path: Path) -> AblationDirectory:
    """What the stage before the last has cost, and four times of it what is matched."""
    directory = AblationDirectory(tmp_path / "out")
    write_json(directory.stage("first").done, COST)
    write_json(directory.stage("matched").done, {key: 4 * value for key, value in COST.items()})
    return directory


@pytest.mark.parametrize(
    ("match", "changed"),
    [
        ("steps", {"steps": 120}),
        ("tokens", {"steps": 30, "max_tokens": 15_000}),  # of 32 sequences with 16 tokens at least
        ("seconds", {"steps": 5_401, "max_seconds": 270.0}),
    ],
)
def test_the_last_stage_has_what_the_budget_leaves(spent: AblationDirectory, match: Any, changed: dict[str, float]):
    assert _limited(STAGE, Budget(match=match), spent, UNIT).model_dump() == STAGE.model_dump() | changed


def test_an_amount_takes_the_place_of_what_rft_spends(spent: AblationDirectory):
    unit = replace(UNIT, budget_of=())
    assert _limited(STAGE, Budget(match="steps", amount=41), spent, unit).steps == 1
    assert _limited(STAGE, Budget(match="tokens", amount=7_000.9), spent, unit).max_tokens == 2_000


def test_the_only_stage_has_the_whole_budget(spent: AblationDirectory):
    unit = Unit("blind", 0, ("last",), 0, "tested", ("matched",), True)
    assert _limited(STAGE, Budget(match="tokens"), spent, unit).max_tokens == 20_000


def test_a_budget_of_all_stages_of_rft_is_their_sum(spent: AblationDirectory):
    unit = replace(UNIT, budget_of=("first", "matched"))
    assert _limited(STAGE, Budget(match="steps"), spent, unit).steps == 160


@pytest.mark.parametrize(("match", "amount", "left"), [("steps", 40, "40"), ("tokens", 5_000.5, "5,000")])
def test_a_budget_that_earlier_stages_have_spent_is_told(
    spent: AblationDirectory, match: Any, amount: float, left: str
):
    wanted = rf"^the stages before the last spend {COST[match]:,} {match}, and the budget is {left}\.$"
    with pytest.raises(RunError, match=wanted):
        _limited(STAGE, Budget(match=match, amount=amount), spent, UNIT)


def test_costs_add_up_and_memory_is_that_of_the_largest(spent: AblationDirectory):
    both = {"steps": 200.0, "tokens": 25_000.0, "seconds": 450.0, "peak_mb": 2_800.0}
    assert cost_of(spent, ["first", "matched"]) == both
    assert cost_of(spent, []) == dict.fromkeys(both, 0.0)


def test_a_unit_travels_as_the_recipe_does(recipe: Path):
    one = ledger(recipe)
    again = type(one.recipe).model_validate_json(one.recipe.model_dump_json())
    assert json.loads(again.model_dump_json()) == json.loads(one.recipe.model_dump_json())
    assert keys(Ledger(open_job(again, Reporter(quiet=True)))) == keys(one)


def test_weights_go_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stage = AblationDirectory(tmp_path).stage("one")
    write_json(stage.done, {})
    write_json(stage.policy / "config.json", {})
    monkeypatch.setattr("shutil.rmtree", lambda *path, **options: None)  # killed before anything is deleted
    stage.drop_policy()
    assert not stage.is_whole()
