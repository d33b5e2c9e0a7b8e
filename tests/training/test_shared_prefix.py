"""The shared prefix: log-probabilities, gradients and rollouts are those of TRL's own pass."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2VLConfig, Qwen3VLConfig
from trl import GRPOTrainer

from vrft.data import PhantomSource
from vrft.errors import UserError
from vrft.policies import load_policy
from vrft.policies.loading import TINY, LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import RftStage
from vrft.runs import StageDirectory, read_jsonl
from vrft.sample import Sample
from vrft.tasks import Grading
from vrft.training.callback import StageCallback
from vrft.training.packing import pack
from vrft.training.rft import make_trainer, train_rft
from vrft.training.seeded import SeededTrainer
from vrft.training.shared_prefix import SharedPrefixTrainer, cannot_share, replace_sequences

GROUP = 3


def trainer_of(policy: LoadedPolicy, folder, **changes) -> SharedPrefixTrainer:
    """The trainer as a stage builds it, before its first step."""
    options = {"prompts_per_step": 2, "group_size": GROUP, "kl": 0.0, "max_completion_tokens": 8, **changes}
    samples = list(PhantomSource("grading", sizes={"train": 4, "validation": 0, "test": 0}).samples("train"))
    stage, directory = RftStage(kind="rft", steps=1, **options), StageDirectory(folder)
    callback = StageCallback(directory, stage, Reporter(quiet=True), "")
    trainer = make_trainer(policy, stage, Grading(5), samples, directory, callback, seed=0)
    assert type(trainer) is SharedPrefixTrainer
    return trainer


def batch_of(policy: LoadedPolicy, images_each: list[int]) -> dict:
    """Groups: prompts of different lengths and numbers of images, completions of different lengths."""
    rng = np.random.default_rng(0)
    texts, pictures = [], []
    for count in images_each:
        sides = [(int(rng.integers(60, 200)), int(rng.integers(60, 200))) for _ in range(count)]
        own = [Image.fromarray(rng.integers(0, 255, (*side, 3), dtype=np.uint8)) for side in sides]
        content = [{"type": "image", "image": one} for one in own]
        content.append({"type": "text", "text": "How many? " * (3 if len(texts) else 1)})
        message = [{"role": "user", "content": content}]
        text = policy.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        texts += [text] * GROUP
        pictures += [own] * GROUP
    some = [one for own in pictures for one in own]
    made = policy.processor(text=texts, images=some or None, padding=True, return_tensors="pt")
    length = 7
    ids = torch.from_numpy(rng.integers(20, 900, (len(texts), length)))
    mask = (torch.arange(length) < torch.tensor([7, 3, 1, 5, 7, 2, 4, 6, 2])[: len(texts), None]).long()
    written = ids.masked_fill(mask == 0, policy.processor.tokenizer.pad_token_id)
    batch = {
        "input_ids": torch.cat([made["input_ids"], written], dim=1),
        "attention_mask": torch.cat([made["attention_mask"], mask], dim=1),
        "logits_to_keep": length,
        "compute_entropy": True,
    }
    if some:
        types = torch.cat([made["mm_token_type_ids"], torch.zeros_like(ids)], dim=1)
        batch |= {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}
        batch |= {"mm_token_type_ids": types, "num_images": [len(own) for own in pictures]}
    return batch


def assert_equal(trainer: SharedPrefixTrainer, batch: dict, tolerance: float = 2e-5) -> None:
    """Log-probabilities, entropies and the gradient, relative to their size."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(batch["input_ids"].size(0), batch["logits_to_keep"], generator=generator)
    counts = batch["attention_mask"][:, -batch["logits_to_keep"] :]
    seen = []
    trainer.model.train()
    for kind in (GRPOTrainer, SharedPrefixTrainer):
        trainer.model.zero_grad()
        log_probs, entropies, _ = kind._get_per_token_logps_and_entropies(trainer, trainer.model, **batch)
        (log_probs * weights * counts).sum().backward()
        parameters = [one for one in trainer.model.parameters() if one.requires_grad]
        assert sum(one.grad is not None for one in parameters) > len(parameters) / 2
        gradient = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([one.flatten() for one in gradient]).clone()
        seen.append((log_probs.detach() * counts, entropies.detach() * counts, flat))
    for stock, ours in zip(*seen, strict=True):
        assert stock.norm() > 0
        assert (ours - stock).norm() <= tolerance * stock.norm()


@pytest.mark.parametrize("images_each", [[1, 1], [2, 1], [0, 0], [1, 2, 3], [3, 1, 2]])
def test_the_embedded_policy(tmp_path, images_each):
    policy = load_policy("tiny", dtype="float32")
    assert_equal(trainer_of(policy, tmp_path), batch_of(policy, images_each))


def test_in_double_precision_only_rounding_is_left(tmp_path):
    policy = load_policy("tiny", dtype="float32")
    policy.model.double()
    assert_equal(trainer_of(policy, tmp_path), batch_of(policy, [1, 2]), 2e-6)


def test_with_adapters(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    policy = load_policy("tiny", dtype="float32", lora=lora)
    assert_equal(trainer_of(policy, tmp_path), batch_of(policy, [1, 2]))


def test_with_activations_recomputed(tmp_path):
    policy = load_policy("tiny", dtype="float32")
    trainer = trainer_of(policy, tmp_path)
    trainer.model.activation_checkpointing_enable()  # as the trainer does when it begins
    assert trainer.model.is_activation_checkpointing
    assert_equal(trainer, batch_of(policy, [1, 1]))


def random_model(folder, **options) -> LoadedPolicy:
    """A random Qwen2.5-VL with the tokenizer and processor of the embedded policy."""
    config = AutoConfig.from_pretrained(TINY)
    text = config.text_config
    text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads = 256, 4, 4, 2
    text.intermediate_size, text.layer_types = 512, ["full_attention"] * 4
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    config.vision_config.out_hidden_size = 256
    return saved(config, folder, **options)


def saved(config, folder, **options) -> LoadedPolicy:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, **options)
    model.save_pretrained(folder)
    return replace(load_policy("tiny"), model=model, name=str(folder))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_random_model_with_grouped_queries(tmp_path, attention):
    policy = random_model(tmp_path / "model", attn_implementation=attention)
    assert_equal(trainer_of(policy, tmp_path / "stage"), batch_of(policy, [2, 1]))


OTHERS = {
    "qwen2_vl": (Qwen2VLConfig, {"embed_dim": 32, "hidden_size": 64, "depth": 2, "num_heads": 2}),
    "qwen3_vl": (
        Qwen3VLConfig,
        {"hidden_size": 32, "out_hidden_size": 64, "depth": 2, "num_heads": 2, "intermediate_size": 64}
        | {"patch_size": 14, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
    ),
}
"""Small models of the other types that are said to share."""


@pytest.mark.parametrize("model_type", OTHERS)
def test_the_other_types(tmp_path, model_type):
    tiny = AutoConfig.from_pretrained(TINY)
    kind, vision = OTHERS[model_type]
    text = {"vocab_size": tiny.text_config.vocab_size, "hidden_size": 64, "intermediate_size": 128}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = kind(text_config=text, vision_config=vision, **{name: getattr(tiny, name) for name in tokens})
    policy = saved(config, tmp_path / "model")
    assert policy.model.config.model_type == model_type
    assert_equal(trainer_of(policy, tmp_path / "stage"), batch_of(policy, [1, 2]))


def test_a_step_in_micro_batches_changes_the_weights_as_a_whole_one_does(tmp_path):
    """Each micro-batch holds whole groups; those of TRL's own trainer would not."""
    samples = list(PhantomSource("grading", sizes={"train": 4, "validation": 0, "test": 0}).samples("train"))
    options = {"prompts_per_step": 3, "group_size": 4, "max_completion_tokens": 16, "temperature": 2.0, "steps": 1}
    options |= {"rewards": {"fuzzy": 1.0, "format": -0.3}, "learning_rate": 1e-4}
    moved = []
    for micro in (None, 4):
        policy = load_policy("tiny", dtype="float32")
        stage = RftStage(kind="rft", micro_batch=micro, **options)
        folder = StageDirectory(tmp_path / str(micro))
        train_rft(policy, stage, Grading(5), samples, folder, seed=0, reporter=Reporter(quiet=True))
        (row,) = read_jsonl(folder.log)
        moved.append((row["grad_norm"], row["reward"], row["kl"]))
    assert moved[0] == pytest.approx(moved[1], rel=1e-4, abs=1e-6)
    assert moved[0][0] > 0


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "bnpo"])
@pytest.mark.parametrize("active", [(True, False), (False, False), (False, True, True)])
def test_groups_without_advantage_are_left_out_and_the_gradient_is_the_same(tmp_path, loss, active):
    policy = load_policy("tiny", dtype="float32")
    trainer = trainer_of(policy, tmp_path, loss=loss)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = batch_of(policy, [1, 2, 3][: len(active)])
    length = batch["logits_to_keep"]
    inputs = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    for name, whole in (("ids", batch["input_ids"]), ("mask", batch["attention_mask"])):
        inputs |= {f"prompt_{name}": whole[:, :-length], f"completion_{name}": whole[:, -length:]}
    advantages = torch.tensor([1.0, -1.5, 0.5]).repeat(len(active))
    inputs["advantages"] = advantages * torch.tensor(active).repeat_interleave(GROUP)
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    seen = []
    for kind in (GRPOTrainer, SharedPrefixTrainer):
        trainer.model.zero_grad()
        value = kind._compute_loss(trainer, trainer.model, dict(inputs))
        value.backward()
        parameters = list(trainer.model.parameters())
        assert all(one.grad is not None for one in parameters) or kind is GRPOTrainer
        flat = torch.cat([torch.zeros(one.numel()) if one.grad is None else one.grad.flatten() for one in parameters])
        seen.append((value.item(), flat.clone()))
    assert trainer._metrics["train"]["skipped_groups"] == [len(active) - sum(active)]
    assert seen[1][0] == pytest.approx(seen[0][0], abs=1e-6)
    assert (seen[1][1] - seen[0][1]).norm() <= 2e-5 * seen[0][1].norm()
    assert bool(seen[0][1].any()) == any(active)


def test_what_cannot_be_shared_goes_through_the_stock_pass(tmp_path, monkeypatch):
    policy = load_policy("tiny", dtype="float32")
    trainer = trainer_of(policy, tmp_path)
    batch = batch_of(policy, [1, 1])
    called = []
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", lambda *a, **k: called.append(1))
    trainer._get_per_token_logps_and_entropies(trainer.model, **batch, batch_size=2)
    trainer._get_per_token_logps_and_entropies(trainer.model, **batch, token_type_ids=batch["mm_token_type_ids"])
    assert called == [1, 1]


@pytest.mark.parametrize("images_each", [[1, 2], [3, 1, 2]])
def test_rollouts_are_drawn_from_the_same_distribution(tmp_path, images_each):
    """The cache of a prompt, repeated over its group, gives the very samples of TRL's own generation."""
    policy = load_policy("tiny", dtype="float32")
    trainer = trainer_of(policy, tmp_path)
    batch = batch_of(policy, images_each)
    masks = batch["attention_mask"][:, :-7].bool()
    prompts, types = (
        [row[keep].tolist() for row, keep in zip(batch[name][:, :-7], masks, strict=True)]
        for name in ("input_ids", "mm_token_type_ids")
    )
    fields = {name: batch[name] for name in ("pixel_values", "image_grid_thw")} | {"mm_token_type_ids": types}
    images = [[None] * count for count in batch["num_images"]]
    drawn = []
    for kind in (SeededTrainer, SharedPrefixTrainer):
        completions, _ = kind._generate_single_turn(trainer, prompts, images, dict(fields), GROUP)
        drawn.append(completions)
    assert drawn[0] == drawn[1]
    assert len({tuple(one) for one in drawn[0]}) > 2


def test_groups_are_replaced_whole_and_padded_to_one_length():
    def step(prompt: int, completion: int, value: int, sequences: int) -> dict:
        return {
            "prompt_ids": torch.full((sequences, prompt), value),
            "prompt_mask": torch.ones(sequences, prompt),
            "completion_ids": torch.full((sequences, completion), value),
            "completion_mask": torch.ones(sequences, completion),
            "mm_token_type_ids": torch.ones(sequences, prompt + completion),
            "advantages": torch.full((sequences,), float(value)),
            "num_items_in_batch": torch.tensor(0),
            "pixel_values": [torch.full((1, 2), value)] * sequences,
            "num_images": [1] * sequences,
        }

    joined = replace_sequences(step(2, 3, 5, 4), step(3, 2, 7, 2), torch.tensor([2, 3]), pad_id=0)
    assert joined["prompt_ids"].tolist() == [[0, 5, 5]] * 2 + [[7, 7, 7]] * 2
    assert joined["completion_ids"].tolist() == [[5, 5, 5]] * 2 + [[7, 7, 0]] * 2
    assert joined["completion_mask"].sum() == joined["num_items_in_batch"] == 10
    assert joined["mm_token_type_ids"].tolist() == [[0, 1, 1, 1, 1, 1]] * 2 + [[1, 1, 1, 1, 1, 0]] * 2
    assert joined["advantages"].tolist() == [5, 5, 7, 7]
    assert [one[0, 0].item() for one in joined["pixel_values"]] == [5, 5, 7, 7]


DYNAMIC = {"rewards": {"fuzzy": 1.0}, "kl": 0.0, "temperature": 1.8, "learning_rate": 1e-4, "max_completion_tokens": 16}
DYNAMIC |= {"prompts_per_step": 4, "group_size": 4, "save_every": 1}


def with_others(samples: list[Sample]) -> list[Sample]:
    """Samples with 1, 2 or 3 images in turn: each with those of the next samples besides its own."""
    images = [sample.image for sample in [*samples, *samples[:2]]]
    return [replace(one, image=tuple(images[n : n + n % 3 + 1])) for n, one in enumerate(samples)]


def test_a_step_on_samples_of_1_2_and_3_images_equals_the_stock_step(tmp_path):
    """The whole step, with the reference and two micro-batches: the same rollouts, and the same gradient."""
    source = PhantomSource("grading", sizes={"train": 6, "validation": 0, "test": 0})
    samples = with_others(list(source.samples("train")))
    options = {"prompts_per_step": 6, "group_size": 4, "max_completion_tokens": 12, "temperature": 2.0, "steps": 2}
    options |= {"rewards": {"fuzzy": 1.0, "format": -0.3}, "learning_rate": 1e-4, "kl": 0.1, "micro_batch": 12}
    rows, drawn = [], []
    for shared in (False, True):
        policy, folder = load_policy("tiny", dtype="float32"), StageDirectory(tmp_path / str(shared))
        stage = RftStage(kind="rft", shared_prefix=shared, **options)
        train_rft(policy, stage, Grading(5), samples, folder, seed=0, reporter=Reporter(quiet=True))
        rows.append([[row[key] for key in ("grad_norm", "reward", "loss")] for row in read_jsonl(folder.log)])
        drawn.append(pd.read_parquet(folder.rollouts))
    assert drawn[0].equals(drawn[1])
    for stock, ours in zip(*rows, strict=True):
        assert ours == pytest.approx(stock, rel=1e-4, abs=1e-6)
    assert min(row[0] for row in rows[0]) > 0


def train_dynamically(folder, **options) -> StageDirectory:
    samples = list(PhantomSource("grading", sizes={"train": 40, "validation": 0, "test": 0}).samples("train"))
    samples = with_others(samples)
    stage = RftStage(kind="rft", **{**DYNAMIC, **options})
    directory = StageDirectory(folder)
    policy = load_policy("tiny", dtype="float32")
    train_rft(policy, stage, Grading(5), samples, directory, seed=0, reporter=Reporter(quiet=True))
    return directory


def test_dynamic_sampling_fills_a_step_with_groups_that_have_an_advantage(tmp_path):
    plain = read_jsonl(train_dynamically(tmp_path / "plain", steps=2).log)
    directory = train_dynamically(tmp_path / "dynamic", steps=2, dynamic_sampling=3)
    rows, rollouts = read_jsonl(directory.log), pd.read_parquet(directory.rollouts)
    assert "resampled_groups" not in plain[0]
    assert sum(row["resampled_groups"] for row in rows) > 0
    assert sum(row["skipped_groups"] for row in rows) < sum(row["skipped_groups"] for row in plain)
    for row in rows:  # the log counts every group that was sampled
        own = rollouts[rollouts["step"] == row["step"]]
        groups = own.groupby("group")["reward"]
        assert groups.size().tolist() == [4] * int(4 + row["resampled_groups"])
        assert row["zero_advantage"] == pytest.approx((groups.nunique() == 1).mean())
        assert row["reward"] == pytest.approx(own["reward"].mean())


def test_a_run_with_dynamic_sampling_resumes_to_the_same_weights(tmp_path, monkeypatch):
    whole = train_dynamically(tmp_path / "whole", steps=3, dynamic_sampling=2)

    def killed(self, *args, **options):
        if self.seconds and (tmp_path / "killed" / "checkpoint-2").exists():
            raise KeyboardInterrupt
        return on_log(self, *args, **options)

    on_log = StageCallback.on_log
    with monkeypatch.context() as patch:
        patch.setattr(StageCallback, "on_log", killed)
        with pytest.raises(KeyboardInterrupt):
            train_dynamically(tmp_path / "killed", steps=3, dynamic_sampling=2)
    resumed = train_dynamically(tmp_path / "killed", steps=3, dynamic_sampling=2)
    one, other = (load_file(each.policy / "model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_jsonl(whole.log)[-1]["resampled_groups"] == read_jsonl(resumed.log)[-1]["resampled_groups"]


def test_dynamic_sampling_is_refused_where_prompts_are_repeated(tmp_path):
    with pytest.raises(UserError, match="dynamic_sampling is not possible where prompts are repeated"):
        train_dynamically(tmp_path, steps=1, dynamic_sampling=1, micro_batch=2)


def test_micro_batches_hold_groups_of_like_lengths(tmp_path, monkeypatch):
    policy = load_policy("tiny", dtype="float32")
    trainer = trainer_of(policy, tmp_path, prompts_per_step=4, micro_batch=2 * GROUP)
    lengths = torch.tensor([8, 1, 1, 2, 2, 2, 1, 7, 1, 3, 1, 1])
    step = {"completion_mask": (torch.arange(8) < lengths[:, None]).long(), "sequence": torch.arange(4 * GROUP)}
    monkeypatch.setattr(trainer, "_dynamic_sampling", lambda rows: step)
    trainer.model.train()
    first = trainer._prepare_inputs([])
    trainer._step += 1
    second = trainer._prepare_inputs([])
    assert first["sequence"].tolist() == [3, 4, 5, 9, 10, 11]
    assert second["sequence"].tolist() == [6, 7, 8, 0, 1, 2]


def test_a_completion_sees_its_prompt_and_itself_alone():
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
    packed = pack(torch.arange(10).view(2, 5), mask, 2, 2, torch.tensor([[[0, 0, 1]]]).expand(3, -1, -1))
    assert packed["input_ids"].tolist() == [[0, 1, 2, 3, 7, 8]]
    assert packed["shift_labels"].tolist() == [[-100, -100, 3, 4, 8, -100]]
    assert packed["position_ids"][0].tolist() == [[0, 0, 1, 2, 1, 2]]
    assert packed["attention_mask"][:, 0].int().tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 1]],  # each block: the prompt without its padding, and itself
        [[0, 1, 1, 0], [0, 1, 1, 1]],
    ]


def test_when_the_prompt_must_be_repeated_there_is_a_reason():
    model = load_policy("tiny").model
    assert cannot_share(model, 8, 64) is None
    assert "whole groups of 8" in (cannot_share(model, 8, 12) or "")
    other = SimpleNamespace(config=SimpleNamespace(model_type="llava"))
    assert "llava" in (cannot_share(other, 8, 64) or "")
