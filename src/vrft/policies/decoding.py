"""Greedy decoding, and the probabilities of the tokens of a completion."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BatchFeature

from vrft.policies.loading import LoadedPolicy

Images = Image.Image | Sequence[Image.Image]
"""The image of a prompt, or several in order."""


def model_inputs(policy: LoadedPolicy, prompts: Sequence[str], images: Sequence[Images]) -> BatchFeature:
    """Prompts and their images as inputs of the model, padded on the left, on its device."""
    shown = [[own] if isinstance(own, Image.Image) else list(own) for own in images]
    texts = [policy.prompt_text(prompt, len(own)) for prompt, own in zip(prompts, shown, strict=True)]
    inputs = policy.processor(text=texts, images=shown, padding=True, return_tensors="pt")
    return inputs.to(policy.model.device)


def decode(
    policy: LoadedPolicy, prompts: Sequence[str], images: Sequence[Images], *, max_tokens: int
) -> list[list[int]]:
    """Decode greedily; returns the tokens of each completion up to the end of turn, which is left out."""
    inputs = model_inputs(policy, prompts, images)
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


def token_probabilities(policy: LoadedPolicy, prompt: str, images: Images, tokens: Sequence[int]) -> list[float]:
    """The probability of each token of a completion given the tokens before it; suppressed tokens have none."""
    inputs = model_inputs(policy, [prompt], [images])
    written = torch.tensor([list(tokens)], device=policy.model.device)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], written], dim=1)
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.full_like(written, value)], dim=1)
    with torch.inference_mode():
        logits = policy.model(**inputs, logits_to_keep=len(tokens) + 1).logits[0, :-1].float()
        logits[:, policy.suppressed] = -torch.inf
        return logits.softmax(-1).gather(1, written.T)[:, 0].tolist()
