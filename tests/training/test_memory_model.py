"""Memory by arithmetic: the counts are those of real models of every family, and activations are those of autograd."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from vrft.policies import load_policy
from vrft.policies.families import known_config
from vrft.policies.from_recipe import policy_without_weights, weights_are_here
from vrft.recipe import Lora, Policy, RftStage, SftStage
from vrft.training.memory_model import Lengths, MemoryModel, peak_of

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
TEXT |= {"num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0}
CLIP = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28}
QWEN = {"hidden_size": 24, "intermediate_size": 40, "depth": 3, "num_heads": 2, "out_hidden_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"embed_dim": 24, "hidden_size": 32, "depth": 3, "num_heads": 2},
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN | {"deepstack_visual_indexes": [0]},
    "llava": CLIP | {"patch_size": 14},
    "paligemma": CLIP | {"patch_size": 14},
    "gemma3": CLIP | {"patch_size": 14},
    "idefics3": CLIP | {"patch_size": 14},
    "smolvlm": CLIP | {"patch_size": 14},
    "internvl": CLIP | {"patch_size": [14, 14], "image_size": [28, 28]},
}
"""Families of models, with the configuration of a small vision tower."""

RFT = RftStage(kind="rft", prompts_per_step=4, group_size=8)
LENGTHS = Lengths(300, 150, 64, 256)


@pytest.fixture(scope="module")
def three_billion() -> Any:
    return policy_without_weights(Policy(model="Qwen/Qwen2.5-VL-3B-Instruct")).model


def counted(model: Any, lora: Lora | None = None, *, width: int = 2, on_cpu: bool = False) -> MemoryModel:
    return MemoryModel(model, lora, width=width, on_cpu=on_cpu)


def small_model(family: str, device: str) -> Any:
    config = AutoConfig.for_model(family, text_config=dict(TEXT), vision_config=dict(FAMILIES[family]))
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_counted_from_its_configuration(family: str):
    real, found = small_model(family, "cpu"), counted(small_model(family, "meta"))
    assert found.parameters == found.trained == sum(one.numel() for one in real.parameters())
    assert (found.layers, found.hidden, found.query, found.key, found.mlp) == (2, 32, 32, 16, 48)
    assert (found.vision_layers, found.vision_hidden) == (3, 24)
    assert peak_of(found.training(RFT, LENGTHS)) > 20 * found.parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_as_many_as_peft_makes(family: str):
    targets = ["q_proj", "v_proj", "gate_proj"]
    adapted = get_peft_model(small_model(family, "cpu"), LoraConfig(r=4, target_modules=targets))
    found = counted(small_model(family, "meta"), Lora(rank=4, targets=targets))
    assert found.trained == sum(one.numel() for one in adapted.parameters() if one.requires_grad) > 0
    tower = [name for name, one in adapted.named_parameters() if one.requires_grad and "vis" in name]
    assert found.vision_trained == bool(tower)


@pytest.mark.parametrize("family", ["llava", "paligemma", "idefics3", "internvl"])
def test_the_cache_is_as_large_as_that_of_a_real_model(family: str):
    model = small_model(family, "cpu")
    cache = model(input_ids=torch.arange(10, 17)[None].repeat(2, 1), use_cache=True).past_key_values
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    assert counted(model).cache(Lengths(5, 2), 2, 4) == sum(one.nbytes for layer in layers for one in layer)


@pytest.mark.parametrize(("name", "billions"), [("3B", 3.7546), ("7B", 8.2922)])
def test_known_models_have_their_published_size(name: str, billions: float):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(known_config(f"Qwen/Qwen2.5-VL-{name}-Instruct"))
    assert counted(model).parameters / 1e9 == pytest.approx(billions, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(dtype: torch.dtype):
    model = load_policy("tiny").model.to(dtype).train()
    rows, length, side = 2, 150, 8
    kept: dict[int, torch.UntypedStorage] = {}
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    embedded = torch.randn(rows, length, 128, dtype=dtype, requires_grad=True)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool).tril()
    patches = torch.randn(rows * side * side, 1176, dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        text = model.model.language_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        image = model.model.visual(patches, grid_thw=torch.tensor([[1, side, side]] * rows))
    found = sum(one.nbytes() for one in kept.values())
    assert text.last_hidden_state.requires_grad
    assert image is not None
    lengths = Lengths(length, 0, patches=side * side)
    assert counted(model, width=dtype.itemsize).activations(lengths, rows, 1) == pytest.approx(found, rel=0.06)


def test_training_takes_16_bytes_a_weight_20_with_a_reference_and_2_for_a_bfloat16_copy(three_billion: Any):
    def lasting(kl: float, width: int) -> float:
        memory = counted(three_billion, width=width).training(RFT.model_copy(update={"kl": kl}), LENGTHS)
        return sum(memory[part] for part in ("weights", "gradients", "moments", "reference"))

    weights = counted(three_billion).parameters
    assert [lasting(0, 4), lasting(0.1, 4), lasting(0.1, 2)] == [16 * weights, 20 * weights, 22 * weights]


def test_adapters_alone_are_trained_and_the_base_is_the_reference(three_billion: Any):
    found = counted(three_billion, Lora())
    memory = found.training(RFT, LENGTHS)
    assert memory["weights"] == 2 * found.parameters + 4 * found.trained
    assert memory["gradients"] + memory["moments"] == 12 * found.trained
    assert memory["reference"] == 0


def test_a_shared_prefix_checkpointing_and_small_passes_keep_less(three_billion: Any):
    def kept(**changes: Any) -> float:
        return counted(three_billion).training(RFT.model_copy(update=changes), LENGTHS)["activations"]

    assert kept(shared_prefix=False) > 2 * kept()
    assert kept(gradient_checkpointing=True) < kept() / 5
    assert kept(micro_batch=8) < kept() / 3
    assert kept(micro_batch=4) > kept(micro_batch=8)  # half a group cannot share its prompt


def test_only_rollouts_have_a_cache_and_only_a_gpu_updates_all_weights_at_once(three_billion: Any):
    found = counted(three_billion)
    memory = found.training(RFT, LENGTHS)
    assert memory["KV cache"] == 32 * (300 + 150) * 2 * 256 * 36 * 2
    assert memory["update"] == 4 * found.parameters
    assert found.training(SftStage(kind="sft"), LENGTHS)["KV cache"] == 0
    assert counted(three_billion, width=4, on_cpu=True).training(RFT, LENGTHS)["update"] == 0
    assert peak_of({"weights": 1, "activations": 5, "KV cache": 3, "update": 4}) == 6


def test_weights_are_here_when_all_their_files_are(tmp_path: Path):
    assert weights_are_here("tiny")
    assert not weights_are_here("org/model")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "1.safetensors").touch()
    assert not weights_are_here(str(tmp_path))
    (tmp_path / "2.safetensors").touch()
    assert weights_are_here(str(tmp_path))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    for base, known in ((str(tmp_path), True), ("org/model", False)):
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert weights_are_here(str(tmp_path / "adapter")) == known
