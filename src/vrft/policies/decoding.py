"""Greedy decoding."""

from collections.abc import Sequence
from typing import Any

import torch

from vrft.policies.loading import LoadedPolicy


def decode(policy: LoadedPolicy, prompts: Sequence[str], images: Sequence[Any], *, max_tokens: int) -> list[list[int]]:
    """Decode greedily; returns the tokens of each completion, without padding or what follows the end of turn."""
    texts = [
        policy.processor.apply_chat_template(policy.messages(prompt, image), tokenize=False, add_generation_prompt=True)
        for prompt, image in zip(prompts, images, strict=True)
    ]
    inputs = policy.processor(text=texts, images=list(images), padding=True, return_tensors="pt").to(
        policy.model.device
    )
    with torch.inference_mode():
        output = policy.model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            suppress_tokens=policy.suppressed,
        )
    tokenizer = policy.processor.tokenizer
    ends = policy.model.generation_config.eos_token_id
    stops = {tokenizer.pad_token_id, tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    completions = []
    for row in output[:, inputs["input_ids"].shape[1] :].tolist():
        length = next((i for i, token in enumerate(row) if token in stops), len(row))
        completions.append(row[:length])
    return completions
