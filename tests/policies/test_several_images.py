"""Samples of several images: how the prompt shows them, and that the policy depends on each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from PIL import Image
from transformers import AutoProcessor

from vrft.data import PhantomSource
from vrft.policies import TINY, LoadedPolicy, decode, load_policy, model_inputs, token_probabilities
from vrft.sample import Sample
from vrft.tasks import Grading, Localization

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIEWS = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (60 + n, 90, 3), dtype=np.uint8)) for n in range(3)]


@pytest.fixture(scope="module")
def tiny() -> LoadedPolicy:
    return load_policy("tiny", dtype="float32")


def with_template_of_qwen(policy: LoadedPolicy) -> LoadedPolicy:
    """A policy with the chat template of Qwen2.5-VL, of which TRL has a copy."""
    processor = AutoProcessor.from_pretrained(TINY)
    path = Path(trl.__file__).parent / "chat_templates" / "qwen2_5_vl.jinja"
    processor.chat_template = processor.tokenizer.chat_template = path.read_text()
    return replace(policy, processor=processor)


@pytest.mark.parametrize("qwen", [False, True])
def test_several_images_are_numbered_before_the_text_and_a_single_one_is_not(tiny: LoadedPolicy, qwen: bool):
    policy, start = (with_template_of_qwen(tiny) if qwen else tiny), "<|im_start|>user\n"
    if qwen:
        start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + start
    end = "Which?<|im_end|>\n<|im_start|>assistant\n"
    assert policy.prompt_text("Which?") == f"{start}{IMAGE}{end}"
    assert policy.prompt_text("Which?", 2) == f"{start}Image 1: {IMAGE}Image 2: {IMAGE}{end}"


def test_boxes_are_those_of_the_first_of_several_images(tiny: LoadedPolicy):
    one = Sample("a", lambda: VIEWS[0], "Which?", 1, "train", region=(10.0, 10.0, 30.0, 30.0))
    several, size = replace(one, image=(lambda: VIEWS[0], lambda: VIEWS[1])), VIEWS[0].size
    for task, times in ((Grading(5), 1), (Localization("resized"), 2), (Localization("thousand"), 2)):
        plain, changed = (tiny.prompt(task, sample, size) for sample in (one, several))
        assert changed.count("the first image") == times
        assert changed.replace("the first image", "the image") == plain


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_the_policy_depends_on_each_image(tiny: LoadedPolicy, changed: int):
    others = [Image.new("RGB", view.size, "grey") if n == changed else view for n, view in enumerate(VIEWS)]
    (tokens,) = decode(tiny, ["How many findings are there?"], [VIEWS], max_tokens=8)
    plain, other = (
        np.array(token_probabilities(tiny, "How many findings are there?", views, tokens)) for views in (VIEWS, others)
    )
    assert np.abs(plain - other).max() > 1e-3


def test_samples_of_different_numbers_of_images_are_decoded_together_as_alone(tiny: LoadedPolicy):
    batch, prompts = [VIEWS[0], VIEWS, VIEWS[1:], [VIEWS[0]]], ["How many findings are there?"] * 4
    alone = [decode(tiny, [prompt], [own], max_tokens=12)[0] for prompt, own in zip(prompts, batch, strict=True)]
    assert decode(tiny, prompts, batch, max_tokens=12) == alone
    assert alone[0] == alone[3]


def test_a_single_image_is_the_same_input_in_a_list_or_not(tiny: LoadedPolicy):
    source = PhantomSource("grading", sizes={"train": 0, "validation": 0, "test": 1})
    (sample,) = source.samples("test")
    images, sizes = tiny.open(sample)
    plain, listed = (model_inputs(tiny, ["Which?"], [own]) for own in (images[0], images))
    assert sizes == (images[0].size,)
    assert set(plain) == set(listed)
    assert all(torch.equal(plain[name], listed[name]) for name in plain)
