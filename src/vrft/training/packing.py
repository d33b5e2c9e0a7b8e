"""A group in one row: the prompt without its last token, then for each completion a block that begins with that token.

A completion attends to the prompt and to itself; its positions continue those of the prompt (with mRoPE, positions
after an image are no token counts). Attention has two parts: the prompt with itself, and each block with the prompt and
itself. These are P^2 + G C (P + C) scores in place of the (P + G C)^2 scores of a row with a mask.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "shared_prefix"
"""The name of the attention of packed rows in transformers; for other inputs it equals ``sdpa``."""


def pack(
    input_ids: Tensor, attention_mask: Tensor, completion_length: int, group_size: int, positions: Tensor
) -> dict[str, Tensor]:
    """Put each group of sequences into one row.

    Args:
        input_ids: (n, P + C), prompts padded on the left and completions on the right, the groups one after another.
        attention_mask: (n, P + C), 1 for tokens and 0 for padding.
        completion_length: C.
        group_size: G, 2 or more; divides n, and the prompts of a group are equal.
        positions: (3, n / G, P), the positions of the prompts.

    Returns:
        ``input_ids`` and ``shift_labels`` (n / G, P - 1 + G C), ``position_ids`` (3, n / G, P - 1 + G C), and
        ``attention_mask`` (n, 1, C, P - 1 + C), true where a query may attend, in the prompt and its block.
    """
    rows, device = input_ids.size(0) // group_size, input_ids.device
    prompt_length = input_ids.size(1) - completion_length
    prefix = input_ids[::group_size, : prompt_length - 1]
    # A block holds the inputs that predict a completion: the last token of the prompt, and all of its own but the last.
    inputs = input_ids[:, prompt_length - 1 : -1]
    labels = input_ids.masked_fill(attention_mask == 0, -100)[:, prompt_length:]
    causal = torch.ones(completion_length, input_ids.size(1) - 1, dtype=torch.bool, device=device)
    causal = causal.tril(diagonal=prompt_length - 1)
    itself = torch.eye(completion_length, input_ids.size(1) - 1, dtype=torch.bool, device=device)
    itself = itself.roll(prompt_length - 1, dims=1)
    # Padding attends to itself: a query without any key has no softmax.
    allowed = (causal & attention_mask[:, None, :-1].bool()) | itself
    steps = torch.arange(completion_length, device=device).repeat(group_size)
    return {
        "input_ids": torch.cat([prefix, inputs.reshape(rows, -1)], dim=1),
        "attention_mask": allowed[:, None],
        "position_ids": torch.cat([positions[..., :-1], positions[..., -1:] + steps], dim=2),
        "shift_labels": torch.cat([torch.full_like(prefix, -100), labels.reshape(rows, -1)], dim=1),
    }


def prompt_positions(model: Any, prompts: Tensor, mask: Tensor, types: Tensor | None, grid: Tensor | None) -> Tensor:
    """The position ids of prompts, (3, rows, P), as the model computes them.

    Args:
        model: the policy.
        prompts: (rows, P) token ids.
        mask: (rows, P), 1 for tokens and 0 for padding.
        types: (rows, P), ``mm_token_type_ids``; None for prompts without images.
        grid: (images, 3), ``image_grid_thw``; None for prompts without images.
    """
    if grid is None or types is None:
        return (mask.long().cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
    base = next(module for module in model.modules() if hasattr(module, "get_rope_index"))
    positions, _ = base.get_rope_index(prompts, mm_token_type_ids=types, image_grid_thw=grid, attention_mask=mask)
    return positions


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention over packed rows, which have a mask with more rows than the query; for other inputs ``sdpa`` of torch.

    Args:
        module: the layer, which knows how many heads share keys.
        query: (rows, heads, P - 1 + G C, d).
        key: (rows, key-value heads, P - 1 + G C, d).
        value: like ``key``.
        attention_mask: the mask of ``pack``.
        options: ``scaling`` and further options of transformers.

    Returns:
        (rows, P - 1 + G C, heads, d), and None in place of the weights.
    """
    rows = query.size(0)
    if attention_mask is None or attention_mask.size(0) <= rows:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    group, completion = attention_mask.size(0) // rows, attention_mask.size(2)
    length = query.size(2) - group * completion

    def blocks(states: Tensor) -> Tensor:
        """(rows, heads, G C, d) to (rows G, heads, C, d)."""
        return states[:, :, length:].unflatten(2, (group, completion)).transpose(1, 2).flatten(0, 1)

    def with_prefix(states: Tensor) -> Tensor:
        return torch.cat([states[:, :, :length].repeat_interleave(group, dim=0), blocks(states)], dim=2)

    is_token = attention_mask[::group, :, :1, :length]
    mask = None  # no padding: the kernel for causal attention
    if not bool(is_token.all()):
        causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        mask = (causal & is_token) | torch.eye(length, dtype=torch.bool, device=query.device)
    of_prefix, _ = sdpa_attention_forward(
        module, query[:, :, :length], key[:, :, :length], value[:, :, :length], mask, **options
    )
    of_blocks, _ = sdpa_attention_forward(
        module, blocks(query), with_prefix(key), with_prefix(value), attention_mask, **options
    )
    of_blocks = of_blocks.unflatten(0, (rows, group)).flatten(1, 2)
    return torch.cat([of_prefix, of_blocks], dim=1), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def enable_packed_rows(model: Any) -> None:
    """Let the layers of a language model attend over packed rows; for other inputs they are unchanged."""
    for module in model.modules():
        if hasattr(module, "num_key_value_groups") and hasattr(module, "config") and hasattr(module, "v_proj"):
            module.config._attn_implementation = ATTENTION
