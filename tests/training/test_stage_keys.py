"""Each key of a stage, and of the adapters, does what it says: none can be lost on the way to the libraries."""

from collections.abc import Callable
from math import cos, pi
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from transformers import Trainer
from trl import SFTConfig

from vrft.data import PhantomSource
from vrft.errors import DataError
from vrft.experiment.opened import open_experiment
from vrft.policies import decode, load_policy
from vrft.policies.from_recipe import load_for, lora_config
from vrft.policies.loading import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import Policy, RftStage, SftStage, read_recipe
from vrft.recipe.sections import LOSSES, Lora, Rewards, Vllm
from vrft.rewards import REWARDS
from vrft.rewards.recitation import MEASURES
from vrft.runs import StageDirectory, read_json
from vrft.sample import Knowledge, LazySamples, Sample, open_image
from vrft.tasks import Grading, Localization
from vrft.training.callback import StageCallback
from vrft.training.rft import Scorer, make_trainer
from vrft.training.seeded import SeededTrainer
from vrft.training.sft import train_sft
from vrft.training.shared_prefix import SharedPrefixTrainer
from vrft.training.stage import balanced_order, sample_order, stage_order
from vrft.training.trainer_arguments import NEVER_CAPPED

QUIET = Reporter(quiet=True)


class PassedOn(Exception):
    """What a call would have been given."""


def recorder(*given: Any, **options: Any) -> None:
    raise PassedOn(given, options)


def samples_of(count: int) -> list[Sample]:
    return list(PhantomSource("grading", sizes={"train": count, "validation": 0, "test": 0}).samples("train"))


@pytest.fixture(scope="module")
def policy() -> LoadedPolicy:
    """For what makes no trainer of it."""
    return load_policy("tiny", dtype="float32")


def build(policy: LoadedPolicy, stage: RftStage | SftStage, folder: Path, samples: list[Sample] | None = None) -> Any:
    """The trainer of a stage, before its first step."""
    directory, samples = StageDirectory(folder), samples or samples_of(2)
    if isinstance(stage, RftStage):
        callback = StageCallback(directory, stage, QUIET, "")
        return make_trainer(policy, stage, Grading(5), samples, directory, callback, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrft.training.sft.finish_stage", lambda trainer, *rest: trainer)
        return train_sft(policy, stage, Grading(5), samples, directory, seed=0, reporter=QUIET)


def given_to(name: str, policy: LoadedPolicy, stage: RftStage | SftStage, folder: Path, **more: Any) -> Any:
    """What a stage gives to something that it calls: positions, and names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"vrft.training.{stage.kind}.{name}", recorder)
        with pytest.raises(PassedOn) as caught:
            build(policy, stage, folder, **more)
    return caught.value.args


@pytest.fixture
def arguments(policy: LoadedPolicy, tmp_path: Path) -> Callable[[RftStage | SftStage], dict[str, Any]]:
    """What a stage passes to the configuration of its trainer."""

    def of(stage: RftStage | SftStage) -> dict[str, Any]:
        name = "GRPOConfig" if isinstance(stage, RftStage) else "SFTConfig"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"vrft.training.{stage.kind}.lazy_dataset", lambda *given: None)  # takes longer than the rest
            return dict(given_to(name, policy, stage, tmp_path)[1])

    return of


# --- what becomes an argument -----------------------------------------------------------------------------------------

Passed = dict[str, list[tuple[Any, dict[str, Any]]]]
"""A key, the values it is changed to, and all arguments that change with it."""

OF_BOTH: Passed = {
    "learning_rate": [(3e-4, {"learning_rate": 3e-4})],
    "lr_schedule": [("linear", {"lr_scheduler_type": "linear"}), ("cosine", {"lr_scheduler_type": "cosine"})],
    "warmup_steps": [(7, {"warmup_steps": 7})],
    "weight_decay": [(0.1, {"weight_decay": 0.1})],
    "max_grad_norm": [(0.5, {"max_grad_norm": 0.5})],
    "gradient_checkpointing": [(True, {"activation_checkpointing": True})],
    "loader_workers": [(3, {"dataloader_num_workers": 3, "dataloader_persistent_workers": True})],
    "save_every": [(7, {"save_steps": 7})],
    "log_every": [(3, {"logging_steps": 3})],
    "steps": [(7, {"max_steps": 7})],
}
OF_RFT: Passed = OF_BOTH | {
    "micro_batch": [
        (8, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "steps_per_generation": 4})
    ],
    "rewards": [({"accuracy": 2.0, "format": -0.25}, {"reward_weights": [2.0, -0.25]})],
    "prompts_per_step": [(2, {"per_device_train_batch_size": 16})],
    "group_size": [(4, {"num_generations": 4, "per_device_train_batch_size": 16})],
    "temperature": [(1.3, {"temperature": 1.3})],
    "top_p": [(0.9, {"top_p": 0.9})],
    "max_completion_tokens": [(99, {"max_completion_length": 99})],
    "kl_estimator": [("unbiased", {"use_bias_correction_kl": True})],
    "updates_per_batch": [(2, {"num_iterations": 2})],
    "clip": [(0.1, {"epsilon": 0.1, "epsilon_high": 0.1}), (0.4, {"epsilon": 0.4, "epsilon_high": 0.4})],
    "clip_high": [(0.28, {"epsilon_high": 0.28})],
    "loss": [
        *((loss, {"loss_type": loss}) for loss in LOSSES if loss not in ("grpo", "rejection")),
        ("rejection", {"loss_type": "cispo", "epsilon_high": NEVER_CAPPED}),
    ],
    "importance_sampling": [("sequence", {"importance_sampling_level": "sequence"})],
    "mask_truncated": [(True, {"mask_truncated_completions": True})],
    "scale_rewards": [("batch", {"scale_rewards": "batch"}), ("none", {"scale_rewards": "none"})],
    "aggregation": [("normalize_then_sum", {"multi_objective_aggregation": "normalize_then_sum"})],
    "vllm": [
        ({"memory": 0.5}, {"vllm_gpu_memory_utilization": 0.5}),
        ({"correction": "none"}, {"vllm_importance_sampling_correction": False}),
        ({"correction": "token_truncate"}, {"vllm_importance_sampling_mode": "token_truncate"}),
        ({"cap": 5.0}, {"vllm_importance_sampling_clip_max": 5.0}),
    ],
}
OF_SFT: Passed = OF_BOTH | {
    "micro_batch": [(8, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4})],
    "batch_size": [(8, {"per_device_train_batch_size": 8})],
}
BESIDE: dict[str, dict[str, Any]] = {
    "loader_workers": {"loader_workers": 0},
    "vllm": {"rollouts": "vllm"},
}
"""What else a stage says before and after a key is changed."""

KINDS: dict[str, type[RftStage] | type[SftStage]] = {"rft": RftStage, "sft": SftStage}
ROWS = [
    (kind, key, value, expected)
    for kind, keys in (("rft", OF_RFT), ("sft", OF_SFT))
    for key, rows in keys.items()
    for value, expected in rows
]


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"), ROWS, ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in ROWS]
)
def test_a_key_changes_these_arguments_and_no_other(arguments, kind: str, key: str, value: Any, expected: Any):
    before = {"kind": kind, **BESIDE.get(key, {})}
    plain, changed = (arguments(KINDS[kind](**one)) for one in (before, before | {key: value}))
    assert {name: one for name, one in changed.items() if name not in plain or one != plain[name]} == expected
    assert set(changed) == set(plain)


def test_rollouts_says_which_engine_samples(arguments):
    stock, served = (arguments(RftStage(kind="rft", rollouts=engine)) for engine in ("transformers", "vllm"))
    assert (stock["use_vllm"], served["use_vllm"], served["vllm_mode"]) == (False, True, "colocate")
    assert {name for name in stock if served[name] != stock[name]} == {"use_vllm", "generation_kwargs"}
    assert all(name.startswith("vllm_") or name == "trust_remote_code" for name in set(served) - set(stock))


def test_the_bound_above_one_is_that_below_unless_it_is_said(arguments):
    assert arguments(RftStage(kind="rft"))["epsilon"] == arguments(RftStage(kind="rft"))["epsilon_high"] == 0.2
    assert arguments(RftStage(kind="rft", loss="cispo", clip_high=5.0))["epsilon_high"] == 5.0


def test_the_learning_rate_warms_up_and_then_follows_its_schedule(arguments):
    steps, warmup = 8, 2
    left = [(step - warmup) / (steps - warmup) for step in range(warmup, steps)]
    after = {
        "constant": [1.0 for _ in left],
        "linear": [1 - share for share in left],
        "cosine": [(1 + cos(pi * share)) / 2 for share in left],
    }
    for schedule, expected in after.items():
        stage = SftStage(kind="sft", steps=steps, warmup_steps=warmup, lr_schedule=schedule, learning_rate=1e-3)
        args = SFTConfig(**arguments(stage))
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
        scheduler = Trainer.create_scheduler(SimpleNamespace(args=args, lr_scheduler=None), steps, optimizer)
        rates = []
        for _ in range(steps):
            rates += scheduler.get_last_lr()
            optimizer.step()
            scheduler.step()
        assert rates == pytest.approx([1e-3 * share for share in (0.0, 0.5, *expected)])


# --- when a stage ends ------------------------------------------------------------------------------------------------


def has_ended(stage: RftStage | SftStage, folder: Path, *, after: float = 0.0, tokens: int = 1) -> bool:
    """Whether the log of a step, after so many seconds and tokens, ends the stage."""
    now = [100.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrft.training.callback.clock", lambda: now[0])
        callback = StageCallback(StageDirectory(folder), stage, QUIET, "")
        callback.resume()
        control = SimpleNamespace(should_training_stop=False)
        now[0] += after
        callback.on_log(None, SimpleNamespace(global_step=1), control, {"loss": 1.0, "num_tokens": tokens})
    return control.should_training_stop


@pytest.mark.parametrize("kind", KINDS)
def test_max_seconds_and_max_tokens_end_a_stage_when_they_are_spent(tmp_path: Path, kind: str):
    timed, counted = KINDS[kind](kind=kind, max_seconds=10.0), KINDS[kind](kind=kind, max_tokens=50)
    assert [has_ended(timed, tmp_path, after=seconds) for seconds in (9.9, 10.0, 11.0)] == [False, True, True]
    assert [has_ended(counted, tmp_path, tokens=tokens) for tokens in (49, 50)] == [False, True]
    assert not has_ended(KINDS[kind](kind=kind), tmp_path, after=1e9, tokens=10**12)


def test_a_stage_trains_no_longer_than_max_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = iter(range(1000))
    monkeypatch.setattr("vrft.training.callback.clock", lambda: next(seconds))
    steps = {}
    for limit in (6.0, 12.0):
        stage, place = SftStage(kind="sft", steps=20, batch_size=1, max_seconds=limit), tmp_path / str(limit)
        place.mkdir()
        train_sft(load_policy("tiny"), stage, Grading(5), samples_of(1), StageDirectory(place), seed=0, reporter=QUIET)
        steps[limit] = read_json(StageDirectory(place).done)["steps"]
    assert 0 < steps[6.0] < steps[12.0] < 20


# --- samples ----------------------------------------------------------------------------------------------------------


def order_in(stage: RftStage | SftStage, policy: LoadedPolicy, folder: Path, samples: list[Sample]) -> list[int]:
    """Which sample comes when."""
    (_, _, order, _), _ = given_to("lazy_dataset", policy, stage, folder, samples=samples)
    return list(order)


def graded(*grades: int) -> list[Sample]:
    (one,) = samples_of(1)
    return [Sample(str(number), one.image, one.question, grade, "train") for number, grade in enumerate(grades)]


@pytest.mark.parametrize("kind", KINDS)
def test_balance_shows_each_grade_equally_often(policy: LoadedPolicy, tmp_path: Path, kind: str):
    samples = graded(0, 0, 0, 0, 0, 0, 1, 2)
    sizes = {"prompts_per_step": 6} if kind == "rft" else {"batch_size": 6}
    plain, balanced = (
        order_in(KINDS[kind](kind=kind, steps=2, balance=balance, **sizes), policy, tmp_path, samples)
        for balance in (False, True)
    )
    assert plain == sample_order(8, 12, seed=0)
    assert balanced == balanced_order([sample.target for sample in samples], 12, seed=0)
    assert [sum(samples[index].target == grade for index in balanced) for grade in range(3)] == [4, 4, 4]


def test_balance_counts_a_sample_that_is_skipped_in_no_class():
    targets = ["", "a", "a", "a", "b"]

    def make(index: int) -> Sample:
        if not index:
            raise DataError("no such file")
        return Sample(str(index), Path("x.png"), "?", targets[index], "train")

    stage = SftStage(kind="sft", steps=1, balance=True)
    order = stage_order(stage, LazySamples(make, range(5), skips=True), 8, seed=0)
    assert [targets[index] for index in order].count("b") == 4
    with pytest.raises(DataError, match="no such file"):
        stage_order(stage, LazySamples(make, range(5)), 8, seed=0)


def test_fresh_prompts_of_dynamic_sampling_are_balanced_too(tmp_path: Path):
    stage = RftStage(kind="rft", dynamic_sampling=2, balance=True, kl=0.0)
    trainer = build(load_policy("tiny"), stage, tmp_path, graded(0, 0, 0, 0, 0, 0, 1, 2))
    assert trainer.resamples == 2
    assert sorted(row["target"] for row in trainer.fresh_prompts(0, 0, 6)) == [0, 0, 1, 1, 2, 2]
    assert build(load_policy("tiny"), RftStage(kind="rft", kl=0.0), tmp_path).resamples == 0


def test_a_stage_shows_as_many_samples_as_its_steps_need(policy: LoadedPolicy, tmp_path: Path):
    samples = graded(0, 1, 2)
    lengths = {
        "rft": (RftStage(kind="rft", steps=5, prompts_per_step=3), 15),
        "two updates": (RftStage(kind="rft", steps=5, prompts_per_step=3, updates_per_batch=2), 9),
        "sft": (SftStage(kind="sft", steps=5, batch_size=4), 20),
    }
    for stage, expected in lengths.values():
        assert len(order_in(stage, policy, tmp_path, samples)) == expected


def test_a_stage_can_have_a_task_and_data_of_its_own_and_shuffled_targets(small_recipe: Path):
    experiment = open_experiment(read_recipe(small_recipe), QUIET)
    for kind, section in KINDS.items():

        def asked(section: Any = section, seed: int = 0, **keys: Any) -> tuple[Any, list[Sample]]:
            return experiment.stage_dataset("rft", section(kind=section.__name__[:3].lower(), **keys), seed)

        assert kind == asked.__defaults__[0].__name__[:3].lower()
        task, samples = asked()
        assert (task.kind, len(samples)) == ("grading", 40)
        own, found = asked(task={"kind": "localization", "question": "Where?"})
        assert (own.kind, found[0].question) == ("localization", "Where?")
        data = {"source": "phantom", "samples": {"train": 3}, "seed": 5}
        _, few = asked(task={"kind": "localization"}, data=data)
        assert len(few) == 3
        assert few[0].target != found[0].target
        _, shuffled = asked(shuffle_targets=True)
        targets = [[one.target for one in some] for some in (samples, shuffled, asked(shuffle_targets=True, seed=1)[1])]
        assert [one.id for one in shuffled] == [one.id for one in samples]
        assert sorted(targets[0]) == sorted(targets[1]) == sorted(targets[2])
        assert targets[0] != targets[1] != targets[2] != targets[0]


def test_the_kind_of_a_stage_says_how_it_is_trained(small_recipe: Path, tmp_path: Path, monkeypatch):
    experiment = open_experiment(read_recipe(small_recipe), QUIET)
    for kind, section in KINDS.items():
        monkeypatch.setattr(f"vrft.experiment.opened.train_{kind}", recorder)
        stage = section(kind=kind, steps=3)
        with pytest.raises(PassedOn) as caught:
            experiment.train("rft", 0, stage, StageDirectory(tmp_path / kind), None, 4)
        given, options = caught.value.args
        assert given[1] == stage
        assert options["seed"] == 4
        monkeypatch.undo()


# --- rewards ----------------------------------------------------------------------------------------------------------


def scorer_of(folder: Path, task: Any = None, **keys: Any) -> Scorer:
    stage = RftStage(kind="rft", **keys)
    return Scorer(stage, task or Grading(5), StageCallback(StageDirectory(folder), stage, QUIET, ""))


def paid(scorer: Scorer, texts: list[str], target: list[Any], *, step: int = 0, **columns: Any) -> list[list[Any]]:
    """What each reward of a stage pays for completions, as the trainer asks it."""
    count = len(texts)
    state = SimpleNamespace(global_step=step, max_steps=100)
    given = {"sample": [""] * count, "known": [None] * count, "trainer_state": state, "prompts": [None] * count}
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return [function(completions=completions, target=target, **given | columns) for function in scorer.functions]


def answers(*grades: int) -> list[str]:
    return [f"<think>x</think><answer>{grade}</answer>" for grade in grades]


def test_the_rewards_of_a_stage_are_paid_and_weighed(tmp_path: Path):
    rewards = {"fuzzy": 2.0, "format": 0.25}
    stage = RftStage(kind="rft", rewards=rewards, kl=0.0)
    (_, options) = given_to("SharedPrefixTrainer", load_policy("tiny"), stage, tmp_path)
    assert [function.__name__ for function in options["reward_funcs"]] == list(rewards)
    assert options["args"].reward_weights == list(rewards.values())
    scorer = scorer_of(tmp_path, rewards=rewards, group_size=2)
    assert paid(scorer, ["<answer>2</answer>", *answers(3)], [2, 2]) == [[1.0, 0.25], [0.0, 1.0]]
    assert [row["reward"] for row in scorer.callback.rollouts] == [2.0, 0.75]


def test_the_schedule_of_fuzzy_says_what_a_near_miss_earns(tmp_path: Path):
    for schedule, expected in (("table", [1, 0.25, 0.1, 0]), ("geometric", [1, 0.25, 0.0625, 0.015625])):
        scorer = scorer_of(tmp_path, rewards={"fuzzy": {"schedule": schedule}}, group_size=4)
        assert paid(scorer, answers(4, 3, 2, 1), [4] * 4) == [expected]


BOX = {"image_size": [(100, 100)] * 2, "processed_size": [(100, 100)] * 2}
NEAR = ['<think>x</think><answer>[{"bbox_2d": [5, 0, 15, 10]}]</answer>'] * 2  # a third of both boxes is shared
TRUE = [((0.0, 0.0, 10.0, 10.0),)] * 2


def test_the_measure_of_iou_says_how_boxes_are_compared(tmp_path: Path):
    own = {"iou": 1 / 3, "giou": (1 + 1 / 3) / 2, "diou": (1 + 1 / 3 - 25 / 325) / 2}
    for measure, expected in own.items():
        scorer = scorer_of(tmp_path, Localization("pixel"), rewards={"iou": {"measure": measure}}, group_size=2)
        assert paid(scorer, NEAR, TRUE, **BOX)[0] == pytest.approx([expected] * 2)


def test_the_threshold_of_iou_says_what_is_too_little_and_can_rise(tmp_path: Path):
    def earned(threshold: Any, step: int = 0) -> float:
        rewards = {"iou": {"threshold": threshold}}
        scorer = scorer_of(tmp_path, Localization("pixel"), rewards=rewards, group_size=2)
        return paid(scorer, NEAR, TRUE, step=step, **BOX)[0][0]

    assert [earned(0.3), earned(0.4)] == pytest.approx([1 / 3, 0.0])
    assert [earned([0.2, 0.6], step) for step in (0, 30, 40, 100)] == pytest.approx([1 / 3, 1 / 3, 0.0, 0.0])


KNOWN = Knowledge("", "a: a wide pale mass b: a dark small spot", "a wide pale mass", ("a dark small spot",))
SAID = ["<think>I see a pale and wide mass</think><answer>2</answer>"] * 2


def test_recitation_says_how_reasoning_is_compared_and_with_what(tmp_path: Path):
    earned = {}
    for recite, measure in MEASURES.items():
        for against, text in (("class", KNOWN.own), ("card", KNOWN.card)):
            rewards = {"recitation": {"measure": recite, "against": against}}
            (own, _) = paid(scorer_of(tmp_path, rewards=rewards, group_size=2), SAID, [2, 2], known=[KNOWN] * 2)[0]
            assert own == pytest.approx(measure("I see a pale and wide mass", text))
            earned[recite, against] = own
    assert len(set(earned.values())) == len(earned) > 4


def test_the_model_of_recitation_says_which_embeddings_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(REWARDS, "recitation", recorder)
    keys = {"rewards": {"recitation": {"measure": "embedding", "model": "some/folder"}}}
    with pytest.raises(PassedOn) as caught:
        paid(scorer_of(tmp_path, **keys), SAID, [2, 2], known=[KNOWN] * 2)
    assert {name: caught.value.args[1][name] for name in ("recite", "recite_model")} == {
        "recite": "embedding",
        "recite_model": "some/folder",
    }


def test_accept_says_which_share_of_the_reward_is_trained_on(tmp_path: Path):
    texts = [*answers(2), "2", *answers(3), "<answer>2</answer>"]  # all; nothing; the envelope; the answer
    learnt = {}
    for share in (1.0, 0.6, 0.3):
        keys = {"loss": "rejection", "rewards": {"accuracy": 1.0, "format": 0.5}, "group_size": 4, "accept": share}
        scorer = scorer_of(tmp_path, **keys)
        assert paid(scorer, texts, [2] * 4) == [[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]
        learnt[share] = scorer.accepted
    assert learnt == {1.0: [True, False, False, False], 0.6: [True, False, False, True], 0.3: [True, False, True, True]}


# --- the reference, and what can be sampled ---------------------------------------------------------------------------


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("kl", [0.0, 0.04, 0.08])
def test_kl_is_the_weight_of_the_divergence_from_the_start(tmp_path: Path, kl: float, adapters: bool):
    lora = lora_config(Policy(lora=Lora())) if adapters else None
    trainer = build(load_policy("tiny", dtype="float32", lora=lora), RftStage(kind="rft", kl=kl), tmp_path)
    assert trainer.beta == kl
    assert isinstance(trainer.model, PeftModel) is adapters
    if kl == 0 or adapters:  # with adapters the reference is the model without them
        assert trainer.ref_model is None
        return
    own, reference = (dict(model.named_parameters()) for model in (trainer.model, trainer.ref_model))
    assert all(torch.equal(own[name], reference[name]) for name in own)
    assert all(own[name] is not reference[name] and not reference[name].requires_grad for name in own)


@pytest.mark.parametrize("shared", [True, False])
def test_shared_prefix_says_which_trainer_runs(tmp_path: Path, shared: bool):
    trainer = build(load_policy("tiny"), RftStage(kind="rft", shared_prefix=shared, kl=0.0), tmp_path)
    assert type(trainer) is (SharedPrefixTrainer if shared else SeededTrainer)


def test_loss_rejection_learns_what_is_accepted(tmp_path: Path):
    for loss in ("rejection", "grpo"):
        trainer = build(load_policy("tiny"), RftStage(kind="rft", loss=loss, kl=0.0), tmp_path)
        assert (trainer.accepted is not None) is (loss == "rejection")


def rolled_out(folder: Path, **keys: Any) -> list[list[tuple[int, ...]]]:
    """The tokens of a group of completions for each of two prompts."""
    stage = RftStage(kind="rft", prompts_per_step=2, group_size=4, max_completion_tokens=10, kl=0.0, **keys)
    trainer = build(load_policy("tiny", dtype="float32"), stage, folder)
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 0, 0, 0, 1, 1, 1, 1)]
    batch = trainer._generate_and_score_completions(rows)
    kept = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    tokens = [tuple(ids[mask].tolist()) for ids, mask in kept]
    return [tokens[:4], tokens[4:]]


@pytest.mark.parametrize("shared", [True, False])
def test_temperature_and_top_p_say_how_much_completions_differ(tmp_path: Path, shared: bool):
    keys = {"shared_prefix": shared}
    wild, nucleus, cold = (
        rolled_out(tmp_path, temperature=temperature, top_p=top_p, **keys)
        for temperature, top_p in ((3.0, 1.0), (3.0, 1e-4), (1e-3, 1.0))
    )
    assert all(len(set(group)) > 1 for group in wild)
    assert nucleus == cold
    assert all(len(set(group)) == 1 for group in nucleus)


def test_the_longest_completion_is_as_long_as_is_said(tmp_path: Path):
    stage = RftStage(kind="rft", max_completion_tokens=3, kl=0.0)
    assert build(load_policy("tiny"), stage, tmp_path).max_completion_length == 3
    assert max(len(one) for group in rolled_out(tmp_path, temperature=3.0) for one in group) == 10


def test_suppressed_tokens_are_passed_to_both_engines(policy: LoadedPolicy, arguments):
    assert len(policy.suppressed) > 2
    stock, served = (arguments(RftStage(kind="rft", rollouts=engine)) for engine in ("transformers", "vllm"))
    assert stock["generation_kwargs"] == {"suppress_tokens": policy.suppressed}
    assert served["generation_kwargs"] == {"logit_bias": dict.fromkeys(policy.suppressed, -100.0)}


def test_suppressed_tokens_are_never_written(policy: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (sample,) = samples_of(1)
    image = open_image(sample.images[0])

    def greedily() -> list[int]:
        return decode(policy, [policy.prompt(Grading(5), sample, image.size)], [image], max_tokens=10)[0]

    usual = greedily()
    monkeypatch.setattr(LoadedPolicy, "suppressed", property(lambda self: sorted(set(usual))))
    assert not set(greedily()) & set(usual)
    for shared in (True, False):
        written = {token for group in rolled_out(tmp_path, shared_prefix=shared) for one in group for token in one}
        assert written
        assert not written & set(usual)


# --- targets of SFT ---------------------------------------------------------------------------------------------------


def written_in(folder: Path, samples: list[Sample], **keys: Any) -> list[str]:
    """The completions that an SFT stage learns."""
    _, options = given_to("SFTTrainer", load_policy("tiny"), SftStage(kind="sft", **keys), folder, samples=samples)
    rows = options["train_dataset"]
    return [row["completion"].removesuffix("<|im_end|>\n") for row in (rows[index] for index in range(len(rows)))]


def test_think_says_what_stands_before_an_answer(tmp_path: Path):
    samples = graded(3)
    assert written_in(tmp_path, samples, steps=1, batch_size=1, think="One.") == [
        "<think>One.</think><answer>3</answer>"
    ]
    several = written_in(tmp_path, samples, steps=2, batch_size=8, think=["One.", "Two."])
    assert set(several) == {f"<think>{text}</think><answer>3</answer>" for text in ("One.", "Two.")}


def test_think_from_card_is_the_knowledge_of_the_class(tmp_path: Path):
    (sample,) = graded(3)
    informed = Sample(sample.id, sample.image, sample.question, 3, "train", knowledge=KNOWN)
    for think_from, text in (("card", KNOWN.own), ("text", "One.")):
        keys = {"steps": 1, "batch_size": 1, "think": "One.", "think_from": think_from}
        assert written_in(tmp_path, [informed], **keys) == [f"<think>{text}</think><answer>3</answer>"]


def test_sft_learns_the_completion_and_nothing_of_the_prompt(arguments, tmp_path: Path):
    assert arguments(SftStage(kind="sft"))["completion_only_loss"] is True
    policy = load_policy("tiny")
    trainer = build(policy, SftStage(kind="sft", steps=1, batch_size=2), tmp_path, graded(3, 1))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in (0, 1)])
    for labels, row in zip(batch["labels"], (trainer.train_dataset[index] for index in (0, 1)), strict=True):
        learnt = policy.processor.tokenizer.decode(labels[labels != -100])
        assert learnt == row["completion"]
        assert learnt.endswith(f"</answer>{policy.processor.tokenizer.eos_token}\n")


# --- adapters ---------------------------------------------------------------------------------------------------------

ADAPTERS: dict[str, tuple[Any, str, Any]] = {
    "rank": (4, "r", 4),
    "alpha": (7.0, "lora_alpha", 7.0),
    "dropout": (0.25, "lora_dropout", 0.25),
    "targets": (["q_proj"], "target_modules", ["q_proj"]),
}
"""Key, changed value, argument, and what it is."""


@pytest.mark.parametrize("key", ADAPTERS)
def test_a_key_of_the_adapters_changes_this_argument_and_no_other(monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setattr("vrft.policies.from_recipe.LoraConfig", recorder)
    value, name, expected = ADAPTERS[key]
    seen = []
    for lora in (Lora(), Lora(**{key: value})):
        with pytest.raises(PassedOn) as caught:
            lora_config(Policy(lora=lora))
        seen.append(caught.value.args[1])
    plain, changed = seen
    assert {one: changed[one] for one in changed if changed[one] != plain[one]} == {name: expected}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_put_in_as_they_are_described(tmp_path: Path, kind: str):
    lora = Lora(rank=4, alpha=10.0, dropout=0.25, targets=["q_proj", "v_proj"])
    stage = RftStage(kind="rft", kl=0.0) if kind == "rft" else SftStage(kind="sft")
    trainer = build(load_policy("tiny", training=True, lora=lora_config(Policy(lora=lora))), stage, tmp_path)
    layers = {name: one for name, one in trainer.model.named_modules() if hasattr(one, "lora_A")}
    assert {name.rpartition(".")[2] for name in layers} == {"q_proj", "v_proj"}
    for layer in layers.values():
        assert (layer.scaling["default"], layer.lora_A["default"].out_features) == (10.0 / 4, 4)
        dropout = getattr(layer.lora_dropout["default"], "p", None)
        assert dropout == (0.0 if kind == "rft" else 0.25)  # RFT has none: its ratio would not be 1
    trained = {name for name, one in trainer.model.named_parameters() if one.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_between_stages_says_whether_adapters_are_merged(small_recipe: Path):
    for between in ("continue", "merge"):
        recipe = read_recipe(small_recipe, [f"policy.lora={{between_stages: {between}}}"])
        assert load_for(recipe, None, training=True).merges_adapters is (between == "merge")


# --- every key --------------------------------------------------------------------------------------------------------

ELSEWHERE: dict[str, Callable[..., None]] = {
    "task": test_a_stage_can_have_a_task_and_data_of_its_own_and_shuffled_targets,
    "data": test_a_stage_can_have_a_task_and_data_of_its_own_and_shuffled_targets,
    "shuffle_targets": test_a_stage_can_have_a_task_and_data_of_its_own_and_shuffled_targets,
    "balance": test_balance_shows_each_grade_equally_often,
    "kind": test_the_kind_of_a_stage_says_how_it_is_trained,
    "max_tokens": test_max_seconds_and_max_tokens_end_a_stage_when_they_are_spent,
    "max_seconds": test_max_seconds_and_max_tokens_end_a_stage_when_they_are_spent,
}
"""The keys of both kinds of stage that become no argument, and what tests them."""

ELSEWHERE_OF_RFT: dict[str, Callable[..., None]] = {
    "accept": test_accept_says_which_share_of_the_reward_is_trained_on,
    "kl": test_kl_is_the_weight_of_the_divergence_from_the_start,
    "shared_prefix": test_shared_prefix_says_which_trainer_runs,
    "rollouts": test_rollouts_says_which_engine_samples,
    "dynamic_sampling": test_fresh_prompts_of_dynamic_sampling_are_balanced_too,
}
OF_REWARDS: dict[str, dict[str, Callable[..., None]]] = {
    "fuzzy": {"schedule": test_the_schedule_of_fuzzy_says_what_a_near_miss_earns},
    "iou": {
        "measure": test_the_measure_of_iou_says_how_boxes_are_compared,
        "threshold": test_the_threshold_of_iou_says_what_is_too_little_and_can_rise,
    },
    "recitation": {
        "measure": test_recitation_says_how_reasoning_is_compared_and_with_what,
        "against": test_recitation_says_how_reasoning_is_compared_and_with_what,
        "model": test_the_model_of_recitation_says_which_embeddings_compare,
    },
}
ELSEWHERE_OF_SFT: dict[str, Callable[..., None]] = {
    "think": test_think_says_what_stands_before_an_answer,
    "think_from": test_think_from_card_is_the_knowledge_of_the_class,
}


def test_every_key_of_a_stage_and_of_the_adapters_is_tested():
    assert set(OF_RFT) | set(ELSEWHERE) | set(ELSEWHERE_OF_RFT) == set(RftStage.model_fields)
    assert set(OF_SFT) | set(ELSEWHERE) | set(ELSEWHERE_OF_SFT) == set(SftStage.model_fields)
    assert {*ADAPTERS, "between_stages"} == set(Lora.model_fields)
    assert {key for given, _ in OF_RFT["vllm"] for key in given} == set(Vllm.model_fields)
    assert {(name, key) for name, keys in OF_REWARDS.items() for key in keys} == {
        (name, key)
        for name, field in Rewards.model_fields.items()
        for model in get_args(field.annotation)[:1]
        for key in get_args(model)[0].model_fields
        if key != "weight"
    }
