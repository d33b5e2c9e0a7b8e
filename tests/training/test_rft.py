"""RFT: what the log says of a step, and that TRL is called as it expects."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer, SFTConfig

from vrft.policies import TINY, load_policy
from vrft.policies.image_cache import ImageCache
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory
from vrft.sample import Knowledge, Sample, open_image
from vrft.tasks import Grading
from vrft.training.callback import StageCallback, log_row
from vrft.training.rft import Scorer, accepted_completions, reward_metrics, train_rft
from vrft.training.stage import balanced_order, lazy_dataset, sample_order
from vrft.training.trainer_arguments import rollout_options, trainer_options


def test_shares_of_the_advantage_sum_to_one_and_follow_the_weights():
    rewards = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    figures = reward_metrics(rewards, np.array([3.0, 1.0]), 4)
    assert [reward["share"] for reward in figures["rewards"]] == pytest.approx([0.75, 0.25])
    assert figures["zero_advantage"] == 0.0


def test_a_reward_that_never_applies_has_no_mean_and_no_share():
    figures = reward_metrics(np.array([[1.0, np.nan], [0.0, np.nan]]), np.array([1.0, 1.0]), 2)
    assert figures["rewards"][1] == {"mean": None, "std": None, "share": 0.0}


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=8, max_size=8))
def test_a_group_has_no_advantage_exactly_when_all_earn_the_same(paid: list[float]):
    figures = reward_metrics(np.array(paid)[:, None], np.array([1.0]), 4)
    same = [len(set(paid[:4])) == 1, len(set(paid[4:])) == 1]
    assert figures["zero_advantage"] == sum(same) / 2


def test_a_group_has_an_advantage_where_some_of_it_earn_the_mean():
    figures = reward_metrics(np.array([[0.0], [0.5], [0.5], [1.0]]), np.array([1.0]), 4)
    assert figures["zero_advantage"] == 0.0


def test_a_negative_weight_changes_nothing_about_which_completions_are_accepted():
    rewards, weights = np.array([[1.0, 0.0], [1.0, 1.0], [0.6, 0.0]]), np.array([1.0, -0.5])
    assert accepted_completions(rewards, weights, share=1.0) == [True, True, False]


def test_the_order_sees_every_sample_before_any_twice_and_depends_on_the_seed():
    order = sample_order(10, 25, seed=1)
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order == sample_order(10, 25, seed=1) != sample_order(10, 25, seed=2)
    assert sample_order(10, 40, seed=1)[:25] == order


def test_a_balanced_order_shows_each_class_equally_often_and_each_of_its_samples_before_one_twice():
    order = balanced_order(["a"] * 6 + ["b", "c"], 18, seed=1)
    assert [sum(index < 6 for index in order), order.count(6), order.count(7)] == [6, 6, 6]
    assert {index for index in order if index < 6} == set(range(6))
    assert order == balanced_order(["a"] * 6 + ["b", "c"], 18, seed=1) != balanced_order(["a"] * 6 + ["b", "c"], 18, 2)
    assert all({min(index, 8) // 6 + index // 7 for index in order[n : n + 3]} == {0, 1, 2} for n in range(0, 18, 3))


def test_a_dataset_opens_an_image_once_for_its_repetitions():
    from vrft.data import PhantomSource

    samples = list(PhantomSource("grading", sizes={"train": 4, "validation": 0, "test": 0}).samples("train"))
    dataset = lazy_dataset(
        load_policy("tiny"), samples, [2, 2, 3], lambda sample, size, place: {"target": sample.target}
    )
    rows = dataset[[0, 1, 2]]
    assert rows["images"][0][0] is rows["images"][1][0]
    assert rows["target"] == [samples[2].target, samples[2].target, samples[3].target]
    assert np.array_equal(np.asarray(rows["images"][2][0]), np.asarray(open_image(samples[3].images[0])))


def test_the_scorer_pays_as_trl_calls_and_keeps_every_rollout(tmp_path):
    stage = RftStage(kind="rft", rewards={"fuzzy": 1.0, "format": 0.5}, group_size=2)
    callback = StageCallback(StageDirectory(tmp_path), stage, Reporter(quiet=True), "")
    scorer = Scorer(stage, Grading(5), callback)
    assert [function.__name__ for function in scorer.functions] == ["fuzzy", "format"]
    texts = ["<think>x</think><answer>2</answer>", "<think>x</think><answer>3</answer>"]
    columns = {
        "prompts": [None] * 2,
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[1], [2]],
        "target": [2, 2],
        "sample": ["s", "s"],
        "known": [None, Knowledge("", "the card", "its own")],
        "images": [[None]] * 2,
        "trainer_state": type("State", (), {"global_step": 4}),
        "log_metric": None,
    }
    assert [function(**columns) for function in scorer.functions] == [[1.0, 0.25], [1.0, 1.0]]
    assert [row["reward"] for row in callback.rollouts] == [1.5, 0.75]
    assert {row["step"] for row in callback.rollouts} == {5}
    assert callback.extra["rewards"]["fuzzy"]["share"] == 1.0
    assert {"reasoning_words", "self_bleu", "copied_span"} <= set(callback.extra["reasoning"])


@pytest.mark.parametrize(
    ("aggregation", "scaling"),
    [("sum_then_normalize", "group"), ("sum_then_normalize", "batch"), ("normalize_then_sum", "group")],
)
def test_the_parts_of_the_advantage_add_up_to_what_trl_computes(tmp_path, monkeypatch, aggregation, scaling):
    from vrft.data import PhantomSource
    from vrft.rewards import advantage_parts

    seen: dict[str, GRPOTrainer] = {}

    def train(trainer, *rest):
        seen["trainer"] = trainer
        trainer.train()

    monkeypatch.setattr("vrft.training.rft.finish_stage", train)
    stage = RftStage(kind="rft", rewards={"fuzzy": 1.0, "format": -0.3}, steps=1, prompts_per_step=2, group_size=4)
    stage = stage.model_copy(update={"aggregation": aggregation, "scale_rewards": scaling, "temperature": 2.0})
    stage = stage.model_copy(update={"max_completion_tokens": 16})
    samples = list(PhantomSource("grading", sizes={"train": 2, "validation": 0, "test": 0}).samples("train"))
    train_rft(
        load_policy("tiny"), stage, Grading(5), samples, StageDirectory(tmp_path), seed=0, reporter=Reporter(quiet=True)
    )
    logs = seen["trainer"]._logs
    rewards = np.array([list(logs["rewards"][name]) for name in stage.weights()]).T
    assert len(np.unique(rewards, axis=0)) > 2
    parts = advantage_parts(rewards, np.array([1.0, -0.3]), 4, scale_rewards=scaling, aggregation=aggregation)
    assert np.allclose(parts.sum(axis=1), list(logs["advantages"]), atol=1e-3)


def test_trl_still_takes_what_it_is_given(tmp_path):
    """A contract: every option that is passed exists, and the reward call has the arguments that the scorer reads."""
    options = set(trainer_options(RftStage(kind="rft"), StageDirectory(tmp_path), 0, 32))
    for config in (GRPOConfig, SFTConfig):
        assert options <= set(inspect.signature(config).parameters)
    source = inspect.getsource(GRPOTrainer._calculate_rewards)
    assert "prompts=prompts, completions=completions, completion_ids=completion_ids_list" in source
    assert '"trainer_state"' in source


def test_accumulation_keeps_the_sequences_of_a_step(tmp_path):
    for stage in (RftStage(kind="rft", micro_batch=8), SftStage(kind="sft", micro_batch=8)):
        options = trainer_options(stage, StageDirectory(tmp_path), 0, 32)
        assert options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] == 32


def test_the_log_calls_figures_by_our_names():
    assert log_row({"loss": 1.0, "completions/mean_length": 7.0, "kl": None, "else": 3}) == {
        "loss": 1.0,
        "completion_tokens": 7.0,
    }


def test_sampling_never_writes_a_picture_token():
    policy = load_policy("tiny")
    assert {policy.model.config.image_token_id, policy.model.config.video_token_id} <= set(policy.suppressed)


def test_kept_images_and_loading_processes_change_no_weight(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for grade in range(4):
        path = tmp_path / f"{grade}.png"
        Image.fromarray(rng.integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(str(grade), path, "Which grade?", grade, "train"))
    weights = []
    for name, cached, workers in (("plain", False, 0), ("cold", True, 2), ("warm", True, 0)):
        policy = load_policy("tiny", dtype="float32")
        policy.cache = ImageCache(tmp_path / "cache", 10**9) if cached else None
        options = {"steps": 2, "prompts_per_step": 2, "group_size": 4, "temperature": 2.0, "learning_rate": 1e-4}
        stage = RftStage(kind="rft", loader_workers=workers, max_completion_tokens=12, **options)
        folder = StageDirectory(tmp_path / name)
        train_rft(policy, stage, Grading(5), samples, folder, seed=0, reporter=Reporter(quiet=True))
        weights.append(load_file(folder.policy / "model.safetensors"))
        assert (policy.cache.hits if policy.cache else 0) == (4 if name == "warm" else 0)
    assert any((weights[0][name] != start).any() for name, start in load_file(TINY / "model.safetensors").items())
    for others in weights[1:]:
        assert all(torch.equal(weights[0][name], others[name]) for name in others)


def test_each_engine_suppresses_image_tokens_in_its_own_way(tmp_path):
    stock = rollout_options(RftStage(kind="rft"), [5, 7])
    served = rollout_options(RftStage(kind="rft", rollouts="vllm", vllm={"memory": 0.4}), [5, 7])
    assert stock == {"use_vllm": False, "generation_kwargs": {"suppress_tokens": [5, 7]}}
    assert served["generation_kwargs"] == {"logit_bias": {5: -100.0, 7: -100.0}}
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **served)
    assert (args.use_vllm, args.vllm_mode, args.vllm_gpu_memory_utilization) == (True, "colocate", 0.4)
