"""Sampling whole groups: one prefill, a cache with room, and a batch that completions leave as they end."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig

from vrft.data import PhantomSource
from vrft.policies import decode, load_policy, model_inputs
from vrft.sample import open_image
from vrft.tasks import Grading
from vrft.training import rollouts
from vrft.training.rollouts import PreallocatedCacheLayer, sample_groups


def test_a_layer_with_room_holds_what_the_stock_one_holds():
    torch.manual_seed(0)
    stock, roomy = DynamicCache(), DynamicCache()
    roomy.layers = [PreallocatedCacheLayer()]
    pieces = [torch.randn(2, 3, length, 4) for length in (5, 1, 1, 40, 1)]
    for number, piece in enumerate(pieces):
        for cache in (stock, roomy):
            keys, values = cache.update(piece, piece + 1, 0)
            assert torch.equal(values, keys + 1)
            if number == 1:
                cache.crop(-2)
                cache.batch_repeat_interleave(1)
            if number == 2:
                cache.batch_select_indices(torch.tensor([1, 0]))
    assert torch.equal(roomy.layers[0].keys, stock.layers[0].keys)
    assert roomy.get_seq_length() == stock.get_seq_length() == 46


def greedy(policy, inputs, limit, also_ends=()):
    tokenizer = policy.processor.tokenizer
    ends = [tokenizer.eos_token_id, *also_ends]
    options = {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "suppress_tokens": policy.suppressed}
    return sample_groups(policy.model, inputs, 2, GenerationConfig(do_sample=False, **options), ends, limit)


def test_completions_that_have_ended_leave_the_batch_and_the_others_go_on(monkeypatch):
    """Greedily and in pieces of three tokens, each is what it is on its own."""
    policy, task = load_policy("tiny", dtype="float32"), Grading(5)
    sizes = {"train": 4, "validation": 0, "test": 0}
    samples = list(PhantomSource("grading", sizes=sizes).samples("train"))
    images = [open_image(sample.images[0]) for sample in samples]
    prompts = [policy.prompt(task, sample, image.size) for sample, image in zip(samples, images, strict=True)]
    prompts[1] += " Say it in one word."
    alone = [decode(policy, [one], [image], max_tokens=20)[0] for one, image in zip(prompts, images, strict=True)]
    end = next(token for token in alone[0] if not all(token in other for other in alone))
    expected = [[*one, policy.processor.tokenizer.eos_token_id] for one in alone]
    expected = [one[: one.index(end) + 1] if end in one else one for one in expected]
    assert len({len(one) for one in expected}) > 1
    rows = []
    whole = policy.model.generate

    def counted(**given):
        rows.append(len(given["input_ids"]))
        return whole(**given)

    monkeypatch.setattr(rollouts, "CHUNK", 3)
    monkeypatch.setattr(policy.model, "generate", counted)
    written = greedy(policy, model_inputs(policy, prompts, images), 20, [end])
    assert written == [one for one in expected for _ in range(2)]
    assert rows[0] == 8
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 8


@pytest.mark.parametrize("limit", [1, 4])
def test_a_completion_is_cut_at_the_limit(limit):
    policy = load_policy("tiny", dtype="float32")
    (sample,) = PhantomSource("grading", sizes={"train": 1, "validation": 0, "test": 0}).samples("train")
    image = open_image(sample.images[0])
    inputs = model_inputs(policy, [policy.prompt(Grading(5), sample, image.size)], [image])
    assert [len(one) for one in greedy(policy, inputs, limit)] == [limit] * 2
