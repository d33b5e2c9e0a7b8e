"""Sample the completions of groups, with each prompt and its images encoded once.

The cache of a prompt is repeated over its group. Keys and values are written in place, into memory that grows by
chunks. After each chunk of tokens the finished completions leave the batch, so that it does not wait for its longest
completion.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

CHUNK = 32
"""Tokens that are sampled before finished completions leave the batch."""


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values of a layer in a buffer with memory for a further chunk: new tokens are written in place."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None
    _views: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append tokens, (rows, heads, new, d); returns keys and values of all, (rows, heads, old + new, d)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        # Methods that remove tokens or rows replace the tensors.
        replaced = self._views is None or self.keys is not self._views[0]
        if self._buffers is None or replaced or new > self._buffers[0].shape[-2]:
            self._buffers = (_grow(self.keys, key_states, new), _grow(self.values, value_states, new))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., old:new, :] = states
        self._views = (self._buffers[0][..., :new, :], self._buffers[1][..., :new, :])
        self.keys, self.values = self._views
        return self.keys, self.values


def _grow(old: Tensor, states: Tensor, needed: int) -> Tensor:
    """A buffer for ``needed`` tokens and a further chunk, with the old states in it."""
    buffer = states.new_empty((*states.shape[:-2], needed + CHUNK, states.shape[-1]))
    if old.numel():
        buffer[..., : old.shape[-2], :] = old
    return buffer


def sample_groups(
    model: Any,
    inputs: Mapping[str, Tensor],
    group_size: int,
    config: Any,
    ends: Sequence[int],
    limit: int,
    sampler: Callable[[Sequence[int], int], LogitsProcessor] | None = None,
) -> list[list[int]]:
    """Sample the completions of groups.

    Args:
        model: the policy, unwrapped for generation.
        inputs: prompts as the model takes them: ``input_ids`` and ``attention_mask`` (groups, P), padded on the left,
            and the patches of their images.
        group_size: completions of a prompt (G).
        config: the generation config for ``generate``.
        ends: the tokens that end a turn.
        limit: the largest number of tokens of a completion.
        sampler: returns the logits processor that chooses the next tokens, from the indices of the completions in the
            batch and the number of their tokens so far; by default ``config`` alone decides.

    Returns:
        groups x G completions, those of a group side by side: their tokens, up to and with the end of turn.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    cache.layers = [PreallocatedCacheLayer() for _ in cache.layers]
    model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)
    cache.crop(-1)  # `generate` reads the last token of the prompt again
    cache.batch_repeat_interleave(group_size)
    base = next(module for module in model.modules() if hasattr(module, "rope_deltas"))
    if base.rope_deltas is not None:
        base.rope_deltas = base.rope_deltas.repeat_interleave(group_size, dim=0)
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
            max_new_tokens=min(CHUNK, left),
            synced_gpus=False,  # each process has all weights
            logits_processor=LogitsProcessorList([sampler(rows, limit - left)] if sampler else []),
        )
        new = written[:, ids.size(1) :]
        ended = torch.isin(new, is_end)
        before = ended.int().cumsum(dim=1) - ended.int() == 0  # up to and with the first end of turn
        for row, tokens, keep in zip(rows, new.cpu(), before.cpu(), strict=True):
            completions[row] += tokens[keep].tolist()
        left -= new.size(1)
        unfinished = (~ended.any(dim=1)).nonzero().flatten()
        ids, mask = written[unfinished], torch.cat([mask, torch.ones_like(new)], dim=1)[unfinished]
        if len(unfinished) < len(rows):
            rows = [rows[index] for index in unfinished.tolist()]
            cache.batch_select_indices(unfinished)
            if base.rope_deltas is not None:
                base.rope_deltas = base.rope_deltas[unfinished]
    return completions
