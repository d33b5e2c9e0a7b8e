"""GRPO that encodes the prompt and image of a group once: in the rollouts, and in every pass over their tokens.

TRL's trainer repeats the prompt for each of the G completions of a group. Here a group is one row: the prompt without
its last token, then for each completion a block that begins with that token. A completion attends to the prompt and to
itself; its positions go on from the prompt's (mRoPE: what follows an image is not counted in tokens). Log-probabilities
and gradients are those of TRL's pass up to rounding, from (P + G C) tokens in place of G (P + C).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from vrft.rewards.advantages import NO_ADVANTAGE

KNOWN_INPUTS = {"pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"}
"""What a pass with a shared prefix knows to share; with anything else TRL's own runs."""

SHARING = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Types of models whose positions are known to be taken as they are given."""


def cannot_share(model: Any, group_size: int, micro_batch: int) -> str | None:
    """Why a stage must repeat the prompt for each completion; None where it need not."""
    config = model.config
    if config.model_type not in SHARING:
        return f"the model type {config.model_type} is not known to take given positions"
    attention = getattr(config.get_text_config(), "_attn_implementation", None) or config._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"the attention {attention} takes no mask of its own"
    if any(kind != "full_attention" for kind in getattr(config.get_text_config(), "layer_types", None) or ()):
        return "some layers attend to a window"
    if micro_batch % group_size:
        return f"a micro-batch of {micro_batch} does not hold whole groups of {group_size}"
    return None


def pack(
    input_ids: Tensor, attention_mask: Tensor, completion_length: int, group_size: int, positions: Tensor
) -> dict[str, Tensor]:
    """Put each group of sequences into one row.

    Args:
        input_ids: (n, P + C), prompts padded on the left and completions on the right, the groups one after another.
        attention_mask: (n, P + C), 1 where a token counts.
        completion_length: C.
        group_size: G; divides n, and the prompts of a group are equal.
        positions: (3, n / G, P), the positions of the prompts.

    Returns:
        ``input_ids`` and ``shift_labels`` (n / G, P - 1 + G C), ``position_ids`` (3, n / G, P - 1 + G C), and
        ``attention_mask``, (n / G, 1, P - 1 + G C, P - 1 + G C), true where a query may look.
    """
    rows, device = input_ids.size(0) // group_size, input_ids.device
    prompt_length = input_ids.size(1) - completion_length
    prefix, prefix_mask = (one[::group_size, : prompt_length - 1] for one in (input_ids, attention_mask))
    # A block holds the inputs that predict a completion: the last token of the prompt, and all of its own but the last.
    inputs, inputs_mask = (one[:, prompt_length - 1 : -1] for one in (input_ids, attention_mask))
    labels = input_ids.masked_fill(attention_mask == 0, -100)[:, prompt_length:]
    of_blocks = torch.arange(1, group_size + 1, device=device).repeat_interleave(completion_length)
    block = torch.cat([of_blocks.new_zeros(prompt_length - 1), of_blocks])
    length = block.numel()
    reach = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    reach &= (block[None, :] == 0) | (block[None, :] == block[:, None])
    counts = torch.cat([prefix_mask, inputs_mask.reshape(rows, -1)], dim=1).bool()
    # Padding looks at itself: a query that may look nowhere has no softmax.
    allowed = (reach[None] & counts[:, None, :]) | torch.eye(length, dtype=torch.bool, device=device)
    steps = torch.arange(completion_length, device=device).repeat(group_size)
    return {
        "input_ids": torch.cat([prefix, inputs.reshape(rows, -1)], dim=1),
        "attention_mask": allowed[:, None],
        "position_ids": torch.cat([positions[..., :-1], positions[..., -1:] + steps], dim=2),
        "shift_labels": torch.cat([torch.full_like(prefix, -100), labels.reshape(rows, -1)], dim=1),
    }


def prompt_positions(model: Any, prompts: Tensor, mask: Tensor, types: Tensor | None, grid: Tensor | None) -> Tensor:
    """The positions of prompts, (3, rows, P), as the model itself counts them."""
    if grid is None or types is None:
        return (mask.long().cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
    base = next(module for module in model.modules() if hasattr(module, "get_rope_index"))
    positions, _ = base.get_rope_index(prompts, mm_token_type_ids=types, image_grid_thw=grid, attention_mask=mask)
    return positions


class SharedPrefixTrainer(GRPOTrainer):
    """TRL's trainer, where a group is encoded once. ``cannot_share`` says when it must not be used."""

    _buffered_inputs: list[Any] | None
    _teaching: Tensor | None = None
    """Which groups of the pass under way teach something; None where all count."""

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, without the shuffle of all sequences of a step, so that micro-batches hold whole groups.

        The gradient of a step is a sum over its sequences, so their order does not matter (but for the loss ``bnpo``,
        which weighs the tokens of a micro-batch by their number in it).
        """
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        per_generation = self.args.steps_per_generation
        if self._step % (per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            parts = split_tensor_dict(batch, per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % per_generation]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies of the completions, (n, C) each; see the module."""
        group, given = self.num_generations, {name: one for name, one in inputs.items() if one is not None}
        each = batch_size or input_ids.size(0)
        if input_ids.size(0) % group or each % group or compute_aux_loss or set(given) - KNOWN_INPUTS:
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **inputs,
            )
        every = torch.arange(input_ids.size(0) // group, device=input_ids.device)
        groups = every if self._teaching is None else every[self._teaching]
        log_probs, entropies = [], []
        for some in groups.split(each // group) if len(groups) else ():
            rows = _sequences(some, group)
            packed = self._packed(model, input_ids[rows], attention_mask[rows], logits_to_keep, some, given)
            with self.accelerator.autocast():
                outputs = model(**packed, fused_lm_head=True)
            scored = slice(-group * logits_to_keep, None)
            log_probs.append(outputs.log_probs[:, scored].reshape(-1, logits_to_keep))
            if compute_entropy:
                entropies.append(outputs.entropy[:, scored].reshape(-1, logits_to_keep))
        if len(groups) == len(every):
            return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None
        return self._filled(model, input_ids.size(0), logits_to_keep, groups, log_probs, entropies)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """As TRL's; without a KL term the groups without advantage add nothing, and are left out of the pass.

        Their loss is 0 at ratio 1, whatever normalises it, so the gradient is the same.
        """
        advantages = inputs["advantages"].reshape(-1, self.num_generations)
        teaching = advantages.abs().amax(dim=1) > NO_ADVANTAGE
        off_policy = inputs.get("old_per_token_logps") is not None
        self._teaching = None if self.beta or off_policy or bool(teaching.all()) else teaching
        skipped = 0 if self._teaching is None else int((~teaching).sum())
        self._metrics["train"]["skipped_groups"].append(skipped)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._teaching = None

    def _filled(
        self, model: Any, count: int, length: int, groups: Tensor, log_probs: list[Tensor], entropies: list[Tensor]
    ) -> tuple[Tensor, Tensor | None, None]:
        """What was computed of some groups among all; the others have log-probability 0 and the entropy of these."""
        rows = _sequences(groups, self.num_generations)
        if not log_probs:  # a gradient of 0 for every weight, as the whole pass would give
            nothing = sum((one.sum() * 0 for one in model.parameters() if one.requires_grad), torch.zeros(()))
            zeros = torch.zeros(count, length, device=rows.device)
            return zeros + nothing, zeros, None
        computed = torch.cat(log_probs)
        whole = computed.new_zeros(count, length).index_copy(0, rows, computed)
        if not entropies:
            return whole, None, None
        entropy = torch.cat(entropies)
        return whole, entropy.new_full((count, length), entropy.mean().item()).index_copy(0, rows, entropy), None

    def _packed(
        self, model: Any, input_ids: Tensor, mask: Tensor, length: int, groups: Tensor, given: dict[str, Any]
    ) -> dict[str, Any]:
        """The inputs of one pass over some groups, with the images of each once."""
        group, firsts = self.num_generations, groups * self.num_generations
        images = _images_of(firsts, given.get("num_images", ()), given)
        prompts, prompt_mask = (one[::group, :-length] for one in (input_ids, mask))
        types = given.get("mm_token_type_ids")
        types = types[firsts, : prompts.size(1)] if types is not None else None
        positions = prompt_positions(model, prompts, prompt_mask, types, images.get("image_grid_thw"))
        packed: dict[str, Any] = dict(pack(input_ids, mask, length, group, positions))
        if model_config(model)._attn_implementation == "eager":
            lowest = torch.finfo(next(model.parameters()).dtype).min
            packed["attention_mask"] = torch.where(packed["attention_mask"], 0.0, lowest)
        return packed | images

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: dict[str, Any], num_generations: int, *rest: Any
    ) -> tuple[list[list[int]], Any]:
        """Sample completions, with each group's prompt encoded once and its cache repeated."""
        group = num_generations
        whole = group > 1 and len(prompt_ids) % group == 0
        if self.use_vllm or self.use_transformers_continuous_batching or not whole or rest != (False,) * len(rest):
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, *rest)
        firsts = prompt_ids[::group]
        if any(prompt_ids[i] != firsts[i // group] for i in range(len(prompt_ids))):
            raise RuntimeError("the prompts of a group differ; its completions cannot share one")
        return self._sample(firsts, images, multimodal_fields, group), None

    def _sample(self, prompts: Any, images: Any, fields: dict[str, Any], group: int) -> list[list[int]]:
        def padded(rows: Any, value: int) -> Tensor:
            tensors = [torch.as_tensor(row) for row in rows]
            return pad(tensors, padding_value=value, padding_side="left").to(self.accelerator.device)

        ids = padded(prompts, self._tokenizer.pad_token_id)
        mask = padded([[1] * len(row) for row in prompts], 0)
        firsts = torch.arange(len(prompts)) * group
        own = _images_of(firsts, [len(one or ()) for one in images or ()], fields)
        inputs = {"input_ids": ids, "attention_mask": mask} | {name: one.to(ids.device) for name, one in own.items()}
        if own:
            inputs["mm_token_type_ids"] = padded(fields["mm_token_type_ids"][::group], 0)
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            cache = DynamicCache(config=model_config(model).get_text_config())
            model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)
            cache.crop(-1)  # `generate` reads the last token of the prompt itself
            cache.batch_repeat_interleave(group)
            base = next(module for module in model.modules() if hasattr(module, "rope_deltas"))
            if base.rope_deltas is not None:
                base.rope_deltas = base.rope_deltas.repeat_interleave(group, dim=0)
            written = model.generate(
                input_ids=ids.repeat_interleave(group, dim=0),
                attention_mask=mask.repeat_interleave(group, dim=0),
                cache=cache,
                generation_config=self.generation_config,
            )[:, ids.size(1) :]
        ends = torch.isin(written, torch.tensor(self.eos_token_ids, device=written.device))
        before = ends.int().cumsum(dim=1) - ends.int() == 0  # up to the first end of turn, which counts
        return [row[keep].tolist() for row, keep in zip(written.cpu(), before.cpu(), strict=True)]


def _sequences(groups: Tensor, group_size: int) -> Tensor:
    """The positions of the sequences of some groups, one group after another."""
    return (groups[:, None] * group_size + torch.arange(group_size, device=groups.device)).flatten()


def _images_of(sequences: Tensor, counts: Sequence[int], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The images of some sequences, as the model takes them; nothing where there are none.

    Args:
        sequences: positions.
        counts: how many images each sequence has.
        given: ``image_grid_thw`` (images, 3) and ``pixel_values`` (patches, values) of all sequences.
    """
    if "image_grid_thw" not in given:
        return {}
    grid = given["image_grid_thw"]
    of_sequence = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    kept = torch.isin(of_sequence.to(grid.device), sequences.to(grid.device))
    patches = kept.repeat_interleave(grid.prod(dim=-1))
    return {"image_grid_thw": grid[kept], "pixel_values": given["pixel_values"][patches]}


def model_config(model: Any) -> Any:
    """The configuration of a model, however it is wrapped."""
    return next(module.config for module in model.modules() if hasattr(module, "config"))
