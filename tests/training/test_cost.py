"""The cost model: its counts are those of real models, and its arithmetic is what it says."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from vrft.errors import UserError
from vrft.policies import load_policy
from vrft.training.cost import (
    Architecture,
    Lengths,
    Step,
    activation_bytes,
    architecture,
    cache_bytes,
    empty_model,
    forward_flops,
    known_config,
    make_pass,
    step_cost,
)
from vrft.training.devices import GPUS, Device, device_for

LENGTHS = Lengths(300, 64, 150)
H100 = GPUS["h100"]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_policy("tiny").model


@pytest.fixture(scope="module")
def three_billion() -> Architecture:
    return architecture(empty_model(known_config("Qwen/Qwen2.5-VL-3B-Instruct")))


def memory(one: Architecture, **changes: Any) -> Any:
    step = Step(**{"prompts": 4, "group": 8, "shared": True, "kl": True, "rollouts": True} | changes)
    return step_cost(one, H100, step, LENGTHS, 2).memory


def test_an_empty_model_has_as_many_parameters_as_the_loaded_one(tiny: Any):
    counted = architecture(empty_model(tiny.config))
    assert counted.parameters == sum(one.numel() for one in tiny.parameters())
    assert counted.embedding == tiny.get_input_embeddings().weight.numel()
    assert counted.tower + counted.merger == sum(one.numel() for one in tiny.model.visual.parameters())


@pytest.mark.parametrize(
    ("name", "billions", "head"),
    [("Qwen/Qwen2.5-VL-3B-Instruct", 3.7546, 0), ("Qwen/Qwen2.5-VL-7B-Instruct", 8.2922, 152064 * 3584)],
)
def test_known_architectures_have_their_published_size(name: str, billions: float, head: int):
    counted = architecture(empty_model(known_config(name)))
    assert counted.parameters / 1e9 == pytest.approx(billions, abs=1e-4)
    assert counted.head == head


def test_adapters_are_as_many_as_peft_makes(tiny: Any):
    targets = ["q_proj", "v_proj", "gate_proj"]  # the last is in the tower too
    adapted = get_peft_model(load_policy("tiny").model, LoraConfig(r=4, target_modules=targets))
    counted = architecture(empty_model(tiny.config), 4, tuple(targets))
    assert counted.adapters == sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert counted.tower_trained
    assert not architecture(empty_model(tiny.config), 4, ("q_proj", "v_proj")).tower_trained


def test_a_shared_prefix_passes_the_prompt_once_and_the_image_once():
    shared, stock = (make_pass(2, 8, LENGTHS, shared=one, score_all=False) for one in (True, False))
    assert (shared.tokens, stock.tokens) == (2 * (300 + 8 * 150), 2 * 8 * (300 + 150))
    assert (shared.images, stock.images) == (2, 16)
    assert shared.scored == stock.scored == 2 * 8 * 150


def test_the_operations_of_a_pass_are_those_of_its_weights_and_scores(three_billion: Architecture):
    over = make_pass(1, 1, Lengths(1000, 0, 0), shared=True, score_all=False)
    decoder, tower = forward_flops(three_billion, over)
    assert decoder == 2 * three_billion.text * 1000 + 4 * 36 * 2048 * 1000**2
    assert tower == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(tiny: Any, dtype: torch.dtype):
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
    over = make_pass(rows, 1, Lengths(length, side * side // 4, 0), shared=True, score_all=False)
    told = activation_bytes(architecture(tiny), over, dtype.itemsize, checkpointing=False)
    assert told == pytest.approx(found, rel=0.05)


def test_memory_has_the_parts_that_training_needs(three_billion: Architecture):
    one, weights = memory(three_billion), three_billion.parameters * 4
    assert (one.gradients, one.optimiser, one.reference) == (weights, 2 * weights, weights)
    assert one.weights == weights * 1.5  # and in bfloat16 once more, to compute with
    assert one.cache == 32 * (300 + 150) * 2 * 256 * 36 * 2 == cache_bytes(three_billion, 32, 450, 2)
    assert one.peak == 5.5 * weights + max(one.activations, one.cache, one.update)


def test_without_a_kl_term_there_is_no_reference(three_billion: Architecture):
    assert memory(three_billion, kl=False).reference == 0


def test_checkpointing_and_small_passes_need_less_and_take_more_time(three_billion: Architecture):
    step = Step(4, 8, shared=True)
    whole, again = (
        step_cost(three_billion, H100, one, LENGTHS, 2) for one in (step, replace(step, checkpointing=True))
    )
    assert again.memory.activations < whole.memory.activations / 5
    assert again.seconds["backward"] == pytest.approx(1.5 * whole.seconds["backward"])
    assert memory(three_billion, micro=8).activations < memory(three_billion).activations / 3
    assert memory(three_billion, shared=False).activations > 2 * memory(three_billion).activations


def test_adapters_have_gradients_alone_and_no_copy_is_the_reference():
    model = empty_model(known_config("Qwen/Qwen2.5-VL-3B-Instruct"))
    adapted = architecture(model, 16, ("q_proj", "k_proj", "v_proj", "o_proj"))
    one = memory(adapted)
    assert one.reference == 0
    assert one.gradients == adapted.adapters * 4 < 0.01 * one.weights
    assert one.peak < memory(architecture(model)).peak


def test_more_devices_than_groups_are_of_no_use(three_billion: Architecture):
    step = Step(4, 8, shared=True, kl=True, rollouts=True)
    long = replace(LENGTHS, prompt=3000)
    one, four, eight = (step_cost(three_billion, H100, step, long, 2, count) for count in (1, 4, 8))
    assert four.seconds["forward"] == pytest.approx(one.seconds["forward"] / 4)
    assert eight.seconds == four.seconds
    assert four.memory.weights == one.memory.weights
    assert four.training_tokens == one.training_tokens


def test_decoding_is_bound_by_launches_or_by_reading_the_weights(three_billion: Architecture):
    step = Step(1, 2, rollouts=True)
    slow = replace(H100, bandwidth=1e11)
    fast = step_cost(three_billion, H100, step, LENGTHS, 2).seconds["rollout"]
    assert fast == pytest.approx(150 * 38 * H100.launch, rel=0.2)
    moved = 8  # bytes of a float32 weight under autocast: read, its copy written and read
    bound = (three_billion.parameters - three_billion.tower - three_billion.merger) * moved
    bound /= slow.bandwidth * slow.decoding
    assert step_cost(three_billion, slow, step, LENGTHS, 2).seconds["rollout"] == pytest.approx(150 * bound, rel=0.05)


def test_the_processor_is_measured_in_place():
    cpu = device_for("cpu")
    assert 1e8 < cpu.flops < 1e14
    assert cpu.measured


def test_a_device_that_is_not_known_is_told():
    with pytest.raises(UserError, match=r"--on h1000: no figures .* h100, .* or cpu"):
        device_for("h1000")


def test_float32_on_a_gpu_is_slower():
    assert isinstance(H100, Device)
    assert H100.peak(4) < H100.peak(2) / 10
