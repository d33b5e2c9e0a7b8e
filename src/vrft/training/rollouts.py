"""Sampling the completions of groups, with each prompt and its image encoded once.

The cache of a prompt is repeated over its group. Keys and values are written in place, into memory for one
piece at a time; after each piece the completions that have ended leave the batch, which does not wait for its longest.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

PIECE = 32
"""Tokens of a completion that are sampled between two looks at which have ended."""


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that is a piece longer: a token is written, and nothing copied."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None
    _views: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add tokens, (rows, heads, new, d); returns all, (rows, heads, old + new, d)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        # What removes tokens or rows makes tensors of its own.
        moved = self._views is None or self.keys is not self._views[0]
        if self._buffers is None or moved or new > self._buffers[0].shape[-2]:
            self._buffers = (_preallocated(self.keys, key_states, new), _preallocated(self.values, value_states, new))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., old:new, :] = states
        self._views = (self._buffers[0][..., :new, :], self._buffers[1][..., :new, :])
        self.keys, self.values = self._views
        return self.keys, self.values


def _preallocated(held: Tensor, states: Tensor, needed: int) -> Tensor:
    buffer = states.new_empty((*states.shape[:-2], needed + PIECE, states.shape[-1]))
    if held.numel():
        buffer[..., : held.shape[-2], :] = held
    return buffer


def sample_groups(
    model: Any,
    inputs: Mapping[str, Tensor],
    group_size: int,
    config: Any,
    ends: Sequence[int],
    limit: int,
    choose: Callable[[Sequence[int], int], LogitsProcessor] | None = None,
) -> list[list[int]]:
    """Sample the completions of groups.

    Args:
        model: the policy, unwrapped for generation.
        inputs: prompts as the model takes them: ``input_ids`` and ``attention_mask`` (groups, P), padded on the left,
            and the patches of their images.
        group_size: completions of a prompt (G).
        config: how to sample, as ``generate`` takes it.
        ends: the tokens that end a turn.
        limit: the most tokens of a completion.
        choose: gives what chooses the tokens of some completions, by their numbers, after so many tokens; without it
            ``config`` decides alone.

    Returns:
        groups x G completions, those of a group side by side: their tokens, with the end of turn where it comes.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    cache.layers = [PreallocatedCacheLayer() for _ in cache.layers]
    model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)
    cache.crop(-1)  # `generate` reads the last token of the prompt itself
    cache.batch_repeat_interleave(group_size)
    counting = next(module for module in model.modules() if hasattr(module, "rope_deltas"))
    if counting.rope_deltas is not None:
        counting.rope_deltas = counting.rope_deltas.repeat_interleave(group_size, dim=0)
    ids, mask = (inputs[name].repeat_interleave(group_size, dim=0) for name in ("input_ids", "attention_mask"))
    is_end = torch.tensor(ends, device=ids.device)
    completions: list[list[int]] = [[] for _ in ids]
    rows, left = list(range(len(ids))), limit
    while rows and left:
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            cache=cache,
            generation_config=config,
            max_new_tokens=min(PIECE, left),
            synced_gpus=False,  # each process has all weights
            logits_processor=LogitsProcessorList([choose(rows, limit - left)] if choose else []),
        )
        new = written[:, ids.size(1) :]
        ended = torch.isin(new, is_end)
        before = ended.int().cumsum(dim=1) - ended.int() == 0  # up to the first end of turn, which counts
        for row, tokens, keep in zip(rows, new.cpu(), before.cpu(), strict=True):
            completions[row] += tokens[keep].tolist()
        left -= new.size(1)
        going_on = (~ended.any(dim=1)).nonzero().flatten()
        ids, mask = written[going_on], torch.cat([mask, torch.ones_like(new)], dim=1)[going_on]
        if len(going_on) < len(rows):
            rows = [rows[index] for index in going_on.tolist()]
            cache.batch_select_indices(going_on)
            if counting.rope_deltas is not None:
                counting.rope_deltas = counting.rope_deltas[going_on]
    return completions
