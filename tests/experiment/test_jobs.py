"""The keys of work: what decides a result changes its key and nothing else does, and each piece is done once."""

import json
import os
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrft.knowledge
from vrft.data import MedMNISTSource, PhantomSource
from vrft.errors import RunError, UserError
from vrft.experiment.design import only, read_design
from vrft.experiment.jobs import Job, cost_of, drop_policies, is_done, jobs_of, limited_stage, missing_jobs
from vrft.experiment.keys import CacheKeys, code_digest, machine_facts, samples_digest
from vrft.experiment.opened import open_experiment
from vrft.progress import Reporter
from vrft.recipe import Budget, Recipe, RftStage
from vrft.runs import Store, write_json
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
def keys_for(path: Path, *overrides: str, arms: tuple[str, ...] = ()) -> CacheKeys:
    design = read_design(path, overrides)
    return keys_of_recipe((only(design, arms) if arms else design).recipe)


def keys_of_recipe(recipe: Recipe) -> CacheKeys:
    experiment = open_experiment(recipe, Reporter(quiet=True))
    return CacheKeys(experiment, machine_facts(recipe.ablation.cpus, recipe.ablation.gpus))


def keys(of: CacheKeys) -> dict[str, str]:
    """All keys by what they are of."""
    named = {}
    for arm in of.recipe.arm_names():
        for seed in of.recipe.seeds_of(arm):
            named[f"{arm}, seed {seed}"] = of.evaluation(arm, seed)
            trained = of.stages(arm, seed)
            named |= {f"{arm}, seed {seed}, stage {index}": key for index, key in enumerate(trained)}
    return named


def last(of: CacheKeys, arm: str, seed: int = 0) -> str:
    return of.stages(arm, seed)[-1]


# --- what is shared -------------------------------------------------------------------------------------------------


def test_all_cells_with_perception_share_its_training_with_a_seed(recipe: Path):
    one = keys_for(recipe)
    for seed in (0, 1):
        assert len({one.stages(arm, seed)[0] for arm in PERCEIVING}) == 1
        assert len({last(one, arm, seed) for arm in PERCEIVING}) == len(PERCEIVING)


def test_trainings_of_another_seed_are_others(recipe: Path):
    one = keys_for(recipe)
    for arm in (*OWN, *PERCEIVING):
        assert set(one.stages(arm, 0)).isdisjoint(one.stages(arm, 1))


def test_knowledge_changes_the_last_stage_and_not_the_localization(recipe: Path):
    one = keys_for(recipe)
    (shared, plain), (also, told) = one.stages("rft+PA_pi", 0), one.stages("rft+PA_p+PA_pi", 0)
    assert shared == also
    assert plain != told
    assert last(one, "rft") != last(one, "rft+PA_p")


def test_a_stage_depends_on_those_before_it(recipe: Path):
    one, other = keys_for(recipe), keys_for(recipe, "stages.0.steps=6")
    assert last(one, "rft+PA_pi") != last(other, "rft+PA_pi")
    assert last(one, "rft+PA_pi") != last(one, "rft")


def test_trainings_of_all_arms_differ_that_are_not_tested_otherwise(recipe: Path):
    one = keys_for(recipe)
    trained = [arm for arm in one.recipe.arm_names() if arm not in ("majority", "base", "without", "swapped")]
    assert len({last(one, arm) for arm in trained}) == len(trained)


def test_shuffled_targets_are_another_localization(recipe: Path):
    one = keys_for(recipe)
    assert one.stages("rft+shuffled", 0)[0] != one.stages("rft+PA_pi", 0)[0]


def test_a_point_of_the_sweep_that_is_another_cell_shares_all_its_work(recipe: Path):
    one = keys_for(recipe, "ablation.sweep={arm: rft+PA_p, rewards: {recitation: [0.2]}}")
    cell, point = "rft+PA_p+recite+0.2", "rft+PA_p,recitation=0.2"
    assert one.stages(cell, 0) == one.stages(point, 0)
    assert one.evaluation(cell, 0) == one.evaluation(point, 0)


def test_what_is_not_trained_has_no_training_and_one_seed(recipe: Path):
    one = keys_for(recipe)
    for arm in ("majority", "base"):
        assert one.stages(arm, 0) == ()
        assert one.recipe.seeds_of(arm) == [0]
    assert one.recipe.seeds_of("without") == one.recipe.seeds_of("rft") == [0, 1]


def test_controls_of_knowledge_test_the_policy_of_PA_p_in_their_own_way(recipe: Path):
    one = keys_for(recipe)
    arms = ("rft+PA_p", "without", "swapped")
    assert len({one.stages(arm, 0) for arm in arms}) == 1
    assert len({one.evaluation(arm, 0) for arm in arms}) == 3
    changed = keys_for(recipe, "stages.1.kl=0.5")
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
    assert keys(keys_for(recipe, override)) == keys(keys_for(recipe))


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
    one, other = keys_for(recipe), keys_for(recipe, override)
    for arm in (*OWN, *PERCEIVING):
        assert last(one, arm) != last(other, arm)
        assert one.evaluation(arm, 0) != other.evaluation(arm, 0)
    for arm in PERCEIVING:
        assert one.stages(arm, 0)[0] == other.stages(arm, 0)[0]


def test_every_key_of_a_stage_is_in_its_cache_key_but_those_that_decide_no_weight(recipe: Path):
    facts = keys_for(recipe)._stage_facts("rft", 0)
    left_out = {"save_every", "loader_workers", "log_every"}
    assert set(facts["stage"]) == set(RftStage.model_fields) - left_out - {"task", "data"}
    assert {"task", "data"} <= set(facts)


@pytest.mark.parametrize(
    "limit", ["stages.1.max_tokens=1000", "stages.1.max_seconds=9", "ablation.budget={match: tokens, amount: 900}"]
)
def test_lines_of_the_log_decide_where_a_stage_with_a_budget_ends(recipe: Path, limit: str):
    one, other = (keys_for(recipe, limit, f"stages.1.log_every={steps}") for steps in (1, 2))
    assert last(one, "rft") != last(other, "rft")


def test_the_learning_rate_of_reinforcement_is_none_of_the_supervised_arm(recipe: Path):
    one, other = keys_for(recipe), keys_for(recipe, "stages.1.learning_rate=3.0e-5")
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
    one, other = keys_for(recipe), keys_for(recipe, override)
    for arm in (*OWN, *PERCEIVING):
        assert set(one.stages(arm, 0)).isdisjoint(other.stages(arm, 0))
    assert one.evaluation("base", 0) != other.evaluation("base", 0)


@pytest.mark.parametrize("override", ["stages.0.steps=6", "stages.0.data.samples.train=7", "stages.0.data.seed=1"])
def test_what_decides_the_localization_changes_the_cells_with_perception_alone(recipe: Path, override: str):
    one, other = keys_for(recipe), keys_for(recipe, override)
    assert all(set(one.stages(arm, 0)).isdisjoint(other.stages(arm, 0)) for arm in PERCEIVING)
    assert all(one.stages(arm, 0) == other.stages(arm, 0) for arm in OWN)


@pytest.mark.parametrize("override", ["data.samples.train=7", "data.seed=1", "data.attributes=[shape]"])
def test_samples_change_the_trainings_on_them(recipe: Path, override: str):
    one, other = keys_for(recipe), keys_for(recipe, override)
    assert all(last(one, arm) != last(other, arm) for arm in (*OWN, *PERCEIVING))
    assert all(one.stages(arm, 0)[0] == other.stages(arm, 0)[0] for arm in PERCEIVING)


@pytest.mark.parametrize("arm", ["rft", "base"])
def test_images_of_another_look_are_other_work(recipe: Path, arm: str):
    assert keys_for(recipe).evaluation(arm, 0) != keys_for(recipe, "data.family=standard").evaluation(arm, 0)


def test_test_samples_change_every_evaluation_and_no_training(recipe: Path):
    one, other = keys_for(recipe), keys_for(recipe, "data.samples.test=5")
    for arm in one.recipe.arm_names():
        assert one.stages(arm, 0) == other.stages(arm, 0)
        assert one.evaluation(arm, 0) != other.evaluation(arm, 0)


@pytest.mark.parametrize("override", ["evaluation.batch_size=2", "evaluation.limit=3", "evaluation.split=validation"])
def test_how_it_is_asked_changes_evaluations_and_no_training(recipe: Path, override: str):
    one, other = keys(keys_for(recipe)), keys(keys_for(recipe, override))
    assert {name for name in one if one[name] != other[name]} == {name for name in one if "stage" not in name}


def test_the_majority_depends_on_the_training_split_and_the_untrained_policy_does_not(recipe: Path):
    one, other = keys_for(recipe), keys_for(recipe, "data.samples.train=7")
    assert one.evaluation("majority", 0) != other.evaluation("majority", 0)
    assert one.evaluation("base", 0) == other.evaluation("base", 0)


def test_what_is_known_changes_the_arms_that_are_told_or_paid_for_it(recipe: Path, tmp_path: Path):
    shipped = (Path(vrft.knowledge.__file__).parent / "cards" / "retinamnist.yaml").read_text()

    def with_card(name: str, text: str) -> CacheKeys:
        (tmp_path / name).write_text(text)
        return keys_for(recipe, "task.kind=grading", f"knowledge.card={tmp_path / name}")

    one, other = with_card("one.yaml", shipped), with_card("other.yaml", shipped.replace("aneurysms", "bulges"))
    changed = {arm for arm in one.recipe.arm_names() if one.evaluation(arm, 0) != other.evaluation(arm, 0)}
    told = {arm for arm in one.recipe.arm_names() if "PA_p" in arm.split("+") or "recite" in arm}
    assert changed == told | {"without", "swapped"}


def test_how_it_is_told_changes_the_arms_that_are_told(recipe: Path):
    one, other = keys_for(recipe), keys_for(recipe, "knowledge.label_first=false")
    assert last(one, "rft+PA_p") != last(other, "rft+PA_p")
    assert last(one, "rft") == last(other, "rft")


def test_further_arms_and_seeds_change_no_key_that_was_there(recipe: Path):
    one = keys(keys_for(recipe))
    more = ["seeds=[0, 1, 2]", "ablation.sweep={rewards: {format: [1.0]}}"]
    other = keys(keys_for(recipe, *more, 'arms=[rft, {"name": "hot", "set": {"temperature": 2.0}}]'))
    assert other.items() > one.items()


def test_a_part_of_a_design_has_the_keys_of_the_whole(recipe: Path):
    whole, part = keys(keys_for(recipe)), keys(keys_for(recipe, arms=("rft", "rft+PA_pi")))
    assert whole.items() > part.items()


def test_keys_are_names_of_folders(recipe: Path):
    assert all(key.isalnum() and len(key) == 20 for key in keys(keys_for(recipe)).values())


@pytest.mark.parametrize("package", ["tasks", "response", "images"])
def test_other_code_of_the_readings_gives_other_keys(recipe: Path, monkeypatch: pytest.MonkeyPatch, package: str):
    one = keys(keys_for(recipe))
    digest = code_digest
    monkeypatch.setattr("vrft.experiment.keys.code_digest", lambda *parts: digest(*parts) + str(package in parts))
    other = keys(keys_of_recipe(keys_for(recipe).recipe))
    assert all(one[name] != other[name] for name in one)


def test_another_format_gives_other_keys(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    one = keys(keys_for(recipe))
    monkeypatch.setattr("vrft.experiment.keys.KEPT_BY", {"format": -1})
    other = keys(keys_of_recipe(keys_for(recipe).recipe))
    assert all(one[name] != other[name] for name in one)


def test_an_edited_reward_changes_the_stages_of_rft_and_not_those_of_sft(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    before, digest = keys(keys_for(recipe)), code_digest
    monkeypatch.setattr("vrft.experiment.keys.code_digest", lambda *parts: digest(*parts) + "+" * ("rewards" in parts))
    after = keys(keys_of_recipe(keys_for(recipe).recipe))
    assert before["rft, seed 0, stage 0"] != after["rft, seed 0, stage 0"]
    assert before["sft, seed 0, stage 0"] == after["sft, seed 0, stage 0"]


def test_comments_and_docstrings_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.__file__", str(tmp_path / "__init__.py"))
    digests = []
    for text in (
        '"""One."""\n\n\ndef f(x):\n    return x  # as it is\n',
        "def f(x):\n    return x\n",
        "def f(x):\n    return -x\n",
    ):
        (tmp_path / "module.py").write_text(text)
        code_digest.cache_clear()
        digests.append(code_digest("module.py"))
    code_digest.cache_clear()
    assert digests[0] == digests[1] != digests[2]


def test_pixels_of_a_file_are_known_by_its_size_and_time(tmp_path: Path):
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    samples, source = [Sample("a", image, "?", "x", "train")], MedMNISTSource.__new__(MedMNISTSource)
    source.path = tmp_path / "none.npz"
    first = samples_digest(samples, source)
    assert samples_digest(samples, source) == first
    os.utime(image, ns=(1, 1))
    touched = samples_digest(samples, source)
    image.write_bytes(b"other")
    assert len({first, touched, samples_digest(samples, source)}) == 3


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


SOURCE = PhantomSource("classification", sizes={})


def facts(samples: list[Sample]) -> list[Any]:
    return [(one.id, one.question, type(one.target), one.target, one.region) for one in samples]


@given(st.lists(SAMPLE, max_size=3), st.lists(SAMPLE, max_size=3))
def test_samples_have_the_same_hash_only_if_they_are_the_same(one: list[Sample], other: list[Sample]):
    assert (samples_digest(one, SOURCE) == samples_digest(other, SOURCE)) == (facts(one) == facts(other))


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
    assert (samples_digest(changed, SOURCE) == samples_digest(samples, SOURCE)) == (facts(changed) == facts(samples))


# --- jobs ----------------------------------------------------------------------------------------------------------


def begun_before(jobs: list[Job]) -> bool:
    """Whether all that a job needs is given by those before it."""
    there: set[str] = set()
    for job in jobs:
        if not job.needs() <= there:
            return False
        there |= job.gives()
    return True


BUDGETS = [(), ("ablation.budget.match=tokens",), ("ablation.budget={match: steps, amount: 9}",)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_shared_starts_come_before_those_that_need_them(recipe: Path, budget: tuple[str, ...]):
    assert begun_before(jobs_of(keys_for(recipe, *budget)))


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_training_is_given_by_one_unit(recipe: Path, budget: tuple[str, ...]):
    one = keys_for(recipe, *budget, "ablation.sweep={arm: rft+PA_p, rewards: {recitation: [0.0, 0.2, 1.0]}}")
    jobs = jobs_of(one)
    given = Counter(key for job in jobs for key in job.stages[job.first :])
    assert set(given.values()) == {1}
    assert set(given) == {
        k for arm in one.recipe.arm_names() for seed in one.recipe.seeds_of(arm) for k in one.stages(arm, seed)
    }
    tested = Counter(job.evaluation for job in jobs if job.evaluation)
    assert sorted(count for count in tested.values() if count > 1) == [2, 2]  # the sweep's 0.2 is a cell, in two seeds


def test_every_arm_and_seed_is_one_unit_with_an_evaluation(recipe: Path):
    one = keys_for(recipe)
    asked = [(arm, seed) for arm in one.recipe.arm_names() for seed in one.recipe.seeds_of(arm)]
    assert [(job.arm, job.seed) for job in jobs_of(one) if job.evaluation and job.evaluates == "task"] == asked


def test_names_of_units_are_all_different_and_say_what_is_shared(recipe: Path):
    names = [job.name for job in jobs_of(keys_for(recipe))]
    assert len(set(names)) == len(names)
    assert names[0] == "rft, seed 0"
    assert "rft+PA_pi, seed 1, stage 1, shared" in names
    assert "rft+PA_p, seed 0, stage 1, shared" in names  # for without and swapped


def test_what_nobody_shares_is_one_unit(recipe: Path):
    jobs = [job for job in jobs_of(keys_for(recipe, arms=("rft", "rft+PA_pi"))) if job.evaluates == "task"]
    assert [job.name for job in jobs] == [f"{arm}, seed {seed}" for arm in ("rft", "rft+PA_pi") for seed in (0, 1)]
    assert [(job.first, len(job.stages)) for job in jobs] == [(0, 1), (0, 1), (0, 2), (0, 2)]


def test_a_unit_is_done_when_all_that_it_gives_is_there(recipe: Path, tmp_path: Path):
    jobs, store = jobs_of(keys_for(recipe)), Store(tmp_path / "out")
    start = next(job for job in jobs if not job.evaluation)
    tested = next(job for job in jobs if job.arm == "rft" and job.evaluation)
    assert not is_done(store, start)
    for key in start.gives():
        write_json(store.stage(key).done, {})
        store.stage(key).policy.mkdir()
    assert is_done(store, start)
    write_json(store.stage(tested.stages[-1]).done, {})
    assert not is_done(store, tested)
    write_json(store.evaluation(tested.evaluation).done, {})
    assert is_done(store, tested)


def test_an_evaluation_that_is_there_does_not_miss_its_weights(recipe: Path, tmp_path: Path):
    tested, store = jobs_of(keys_for(recipe))[0], Store(tmp_path / "out")
    write_json(store.evaluation(tested.evaluation).done, {})
    assert is_done(store, tested)


def test_a_start_that_is_gone_is_done_again_only_where_something_that_begins_there_is_missing(recipe: Path, tmp_path):
    jobs, store = jobs_of(keys_for(recipe)), Store(tmp_path / "out")
    assert missing_jobs(jobs, store) == jobs
    for job in jobs:
        if job.evaluation and job.arm != "rft+PA_p+PA_pi":
            write_json(store.evaluation(job.evaluation).done, {})
    assert [job.name for job in missing_jobs(jobs, store)] == [
        "rft+PA_pi, seed 0, stage 1, shared",
        "rft+PA_pi, seed 1, stage 1, shared",
        "rft+PA_p+PA_pi, seed 0",
        "rft+PA_p+PA_pi, seed 1",
    ]


def test_a_start_whose_weights_were_thrown_away_is_not_there(recipe: Path, tmp_path: Path):
    jobs, store = jobs_of(keys_for(recipe)), Store(tmp_path / "out")
    start = next(job for job in jobs if not job.evaluation)
    write_json(store.stage(start.stages[-1]).done, {})
    assert not is_done(store, start)


def test_weights_are_thrown_away_that_nothing_needs_which_is_left(recipe: Path, tmp_path: Path):
    jobs, store = jobs_of(keys_for(recipe)), Store(tmp_path / "out")
    for key in {key for job in jobs for key in job.stages}:
        write_json(store.stage(key).done, {})
        store.stage(key).policy.mkdir()
    left = [job for job in jobs if job.name in ("rft+PA_pi, seed 0", "without, seed 1")]
    drop_policies(store, jobs, left)
    kept = {path.parent.name for path in store.path.glob("*/policy")}
    assert kept == {key for job in left for key in job.stages}
    assert all(store.stage(key).done.exists() for job in jobs for key in job.stages)


def test_zero_shot_after_localization_is_the_start_of_the_cells_with_it(recipe: Path):
    one = keys_for(recipe, "ablation.controls=[PA_pi]")
    assert one.stages("PA_pi", 0) == one.stages("rft+PA_pi", 0)[:1]
    jobs = [job for job in jobs_of(one) if job.arm == "PA_pi" and job.seed == 0]
    assert [(job.first, bool(job.evaluation)) for job in jobs if job.evaluation] == [(1, True)]


def test_each_training_on_another_task_is_evaluated_on_it(recipe: Path):
    keys = keys_for(recipe, arms=("rft", "rft+PA_pi", "rft+PA_p+PA_pi", "rft+PA_p", "rft+shuffled"))
    jobs = [job for job in jobs_of(keys) if job.evaluates == "perception"]
    assert [(job.arm, job.seed) for job in jobs] == [
        ("majority", 0), ("rft+PA_pi", 0), ("rft+PA_pi", 1), ("rft+shuffled", 0), ("rft+shuffled", 1)
    ]  # fmt: skip
    assert all(job.first == len(job.stages) for job in jobs)  # it trains nothing
    assert len({job.evaluation for job in jobs}) == 5


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["steps", "tokens", "seconds"])
def test_what_is_matched_to_rft_needs_its_training(recipe: Path, match: str):
    one = keys_for(recipe, f"ablation.budget.match={match}")
    for job in jobs_of(one):
        whole = bool(job.stages) and job.stages == one.stages(job.arm, job.seed)
        assert job.limited == (whole and job.arm != "rft")
        assert job.budget_of == (one.stages("rft", job.seed) if job.limited else ())
        assert set(job.budget_of) <= job.needs()


def test_a_budget_with_an_amount_limits_rft_too_and_waits_for_nothing(recipe: Path):
    jobs = jobs_of(keys_for(recipe, "ablation.budget={match: steps, amount: 9}"))
    assert all(not job.budget_of for job in jobs)
    assert all(job.limited for job in jobs if job.evaluates == "task" and job.evaluation and job.stages)


def test_without_a_budget_nothing_is_limited(recipe: Path):
    assert not any(job.limited or job.budget_of for job in jobs_of(keys_for(recipe)))


def test_a_budget_changes_last_stages_and_not_what_others_are_matched_to(recipe: Path):
    plain, matched = keys_for(recipe), keys_for(recipe, "ablation.budget.match=steps")
    assert plain.stages("rft", 0) == matched.stages("rft", 0)
    assert last(plain, "blind") != last(matched, "blind")
    (start, end), (same, other) = plain.stages("rft+PA_pi", 0), matched.stages("rft+PA_pi", 0)
    assert start == same
    assert end != other


def test_what_is_matched_depends_on_what_it_is_matched_to(recipe: Path):
    relative = [keys_for(recipe, "ablation.budget.match=tokens", f"stages.1.kl={kl}") for kl in (0.1, 0.2)]
    assert len({last(one, "sft") for one in relative}) == 2
    fixed = [keys_for(recipe, f"ablation.budget={{match: tokens, amount: {amount}}}") for amount in (100, 200)]
    assert len({last(one, "rft") for one in fixed}) == 2


def test_nothing_can_be_matched_to_rft_where_it_is_not_named(recipe: Path):
    one = keys_for(recipe, "ablation.budget.match=tokens", arms=("rft+PA_pi",))
    with pytest.raises(UserError, match=r"^ablation\.budget matches tokens to what rft spends; name rft, or give an"):
        jobs_of(one)


COST = {"steps": 40, "tokens": 5_000, "seconds": 90.0, "peak_mb": 700.0}
JOB = Job("rft+PA_pi", 0, ("first", "last"), 1, "tested", budget_of=("matched",), limited=True)
STAGE = RftStage(kind="rft", steps=60)


@pytest.fixture
def spent(tmp_path: Path) -> Store:
    """What the stage before the last has cost, and four times of it what is matched."""
    store = Store(tmp_path / "out")
    write_json(store.stage("first").done, COST)
    write_json(store.stage("matched").done, {key: 4 * value for key, value in COST.items()})
    return store


@pytest.mark.parametrize(
    ("match", "changed"),
    [
        ("steps", {"steps": 120}),
        ("tokens", {"steps": 30, "max_tokens": 15_000}),  # of 32 sequences with 16 tokens at least
        ("seconds", {"steps": 5_401, "max_seconds": 270.0}),
    ],
)
def test_the_last_stage_has_what_the_budget_leaves(spent: Store, match: Any, changed: dict[str, float]):
    assert limited_stage(STAGE, Budget(match=match), spent, JOB).model_dump() == STAGE.model_dump() | changed


def test_an_amount_takes_the_place_of_what_rft_spends(spent: Store):
    job = replace(JOB, budget_of=())
    assert limited_stage(STAGE, Budget(match="steps", amount=41), spent, job).steps == 1
    assert limited_stage(STAGE, Budget(match="tokens", amount=7_000.9), spent, job).max_tokens == 2_000


def test_the_only_stage_has_the_whole_budget(spent: Store):
    job = Job("blind", 0, ("last",), 0, "tested", budget_of=("matched",), limited=True)
    assert limited_stage(STAGE, Budget(match="tokens"), spent, job).max_tokens == 20_000


def test_a_budget_of_all_stages_of_rft_is_their_sum(spent: Store):
    job = replace(JOB, budget_of=("first", "matched"))
    assert limited_stage(STAGE, Budget(match="steps"), spent, job).steps == 160


@pytest.mark.parametrize(("match", "amount", "left"), [("steps", 40, "40"), ("tokens", 5_000.5, "5,000")])
def test_a_budget_that_earlier_stages_have_spent_is_told(spent: Store, match: Any, amount: float, left: str):
    wanted = rf"^the stages before the last spend {COST[match]:,} {match}, and the budget is {left}\.$"
    with pytest.raises(RunError, match=wanted):
        limited_stage(STAGE, Budget(match=match, amount=amount), spent, JOB)


def test_costs_add_up_and_memory_is_that_of_the_largest(spent: Store):
    both = {"steps": 200.0, "tokens": 25_000.0, "seconds": 450.0, "peak_mb": 2_800.0}
    assert cost_of(spent, ["first", "matched"]) == both
    assert cost_of(spent, []) == dict.fromkeys(both, 0.0)


def test_a_unit_travels_as_the_recipe_does(recipe: Path):
    one = keys_for(recipe)
    again = type(one.recipe).model_validate_json(one.recipe.model_dump_json())
    assert json.loads(again.model_dump_json()) == json.loads(one.recipe.model_dump_json())
    assert keys(keys_of_recipe(again)) == keys(one)


def test_weights_go_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stage = Store(tmp_path).stage("one")
    write_json(stage.done, {})
    write_json(stage.policy / "config.json", {})
    monkeypatch.setattr("shutil.rmtree", lambda *path, **options: None)  # killed before anything is deleted
    stage.drop_policy()
    assert not stage.is_whole()
