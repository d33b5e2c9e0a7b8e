"""GRPO that encodes the prompt and images of a group once: in the rollouts, and in every pass over their tokens.

TRL's trainer repeats the prompt for each of the G completions of a group. Here a group is one row (``packing.py``).
Log-probabilities and gradients equal those of TRL's pass up to rounding, with (P + G C) tokens in place of G (P + C).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_last
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from vrft.policies import processed_once
from vrft.rewards.advantages import ZERO_ADVANTAGE
from vrft.training.packing import ATTENTION, enable_packed_rows, pack, prompt_positions
from vrft.training.rollouts import sample_groups
from vrft.training.seeded import SeededSampling, SeededTrainer

KNOWN_INPUTS = {"pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"}
"""The inputs that a pass with a shared prefix supports; with other inputs TRL's own pass runs."""

SHARING = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Model types that use given position ids unchanged."""


def cannot_share(model: Any, group_size: int, micro_batch: int) -> str | None:
    """Say why a stage must repeat the prompt for each completion; None where a group can share it."""
    config = model.config
    if config.model_type not in SHARING:
        return f"the model type {config.model_type} is not known to use given positions"
    attention = getattr(config.get_text_config(), "_attn_implementation", None) or config._attn_implementation
    if attention not in ("sdpa", "eager", ATTENTION):
        return f"the attention {attention} takes no mask of its own"
    if any(kind != "full_attention" for kind in getattr(config.get_text_config(), "layer_types", None) or ()):
        return "some layers attend to a window"
    if micro_batch % group_size:
        return f"a micro-batch of {micro_batch} does not hold whole groups of {group_size}"
    return None


class SharedPrefixTrainer(SeededTrainer):
    """TRL's trainer with each group encoded once. ``cannot_share`` says when it must not be used."""

    _buffered_inputs: list[Any] | None
    _active_groups: Tensor | None = None
    """Which groups of the current pass have an advantage, (groups,); None where no group is left out."""
    resamples = 0
    """How often groups with zero advantage are replaced in a step (dynamic sampling, arXiv 2503.14476)."""
    fresh_prompts: Callable[[int, int, int], list[dict[str, Any]]]
    """Returns the rows of the dataset that replace them, from the step, the round and the number of rows."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for model in (self.model, self.ref_model):
            if model is not None:
                enable_packed_rows(model)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's method without the shuffle of the sequences of a step, so that micro-batches hold complete groups.

        Groups are sorted by their longest completion, so that a micro-batch has similar lengths. The gradient of a step
        is a sum over its sequences, so their order has no effect (except for the loss ``bnpo``, which averages over the
        tokens of each micro-batch).
        """
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        per_generation = self.args.steps_per_generation
        if self._step % (per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._dynamic_sampling(generation_batch)
            if per_generation > 1:
                lengths = batch["completion_mask"].sum(dim=1).view(-1, self.num_generations).amax(dim=1)
                batch = _select(batch, _sequence_indices(lengths.argsort(stable=True), self.num_generations))
            parts = split_tensor_dict(batch, per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % per_generation]

    def _dynamic_sampling(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample and score; groups with zero advantage are replaced by new prompts, up to ``resamples`` times.

        The metrics in the log are averages over all groups that were sampled.
        """
        group, metrics = self.num_generations, self._metrics["train"]
        lengths = {name: len(values) for name, values in metrics.items()}
        batch, counts = self._generate_rollouts(rows), [len(rows)]
        for number in range(self.resamples):
            zero_advantage = batch["advantages"].view(-1, group).abs().amax(dim=1) <= ZERO_ADVANTAGE
            groups = zero_advantage.nonzero().flatten()
            if not len(groups):
                break
            self._round = number + 1
            prompts = self.fresh_prompts(self.state.global_step, number, len(groups))
            rollouts = self._generate_rollouts([row for row in prompts for _ in range(group)])
            batch = replace_sequences(batch, rollouts, _sequence_indices(groups, group), self._tokenizer.pad_token_id)
            counts.append(len(prompts) * group)
        self._round = 0
        if self.resamples:
            metrics["resampled_groups"].append(sum(counts[1:]) / group)
        for name, values in metrics.items():
            new = values[lengths.get(name, 0) :]
            if 1 < len(new) == len(counts):
                values[-len(new) :] = [float(np.average(new, weights=counts))]
        return batch

    def _generate_rollouts(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Completions of rows with their advantages, with pixels split by sequence."""
        with processed_once(self.processing_class):
            return split_pixel_values_by_grid(self._generate_and_score_completions(rows))

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
        """Log-probabilities and entropies of the completions, (n, C) each, from a pass over packed rows."""
        group, given = self.num_generations, {name: value for name, value in inputs.items() if value is not None}
        micro_batch = batch_size or input_ids.size(0)
        if input_ids.size(0) % group or micro_batch % group or compute_aux_loss or set(given) - KNOWN_INPUTS:
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
        all_groups = torch.arange(input_ids.size(0) // group, device=input_ids.device)
        groups = all_groups if self._active_groups is None else all_groups[self._active_groups]
        log_probs, entropies = [], []
        for chunk in groups.split(micro_batch // group) if len(groups) else ():
            rows = _sequence_indices(chunk, group)
            mask = attention_mask[rows]
            longest = max(1, int(mask[:, -logits_to_keep:].sum(dim=1).max()))  # of this chunk
            used = slice(mask.size(1) - logits_to_keep + longest)
            packed = self._packed(model, input_ids[rows, used], mask[:, used], longest, chunk, given)
            with self.accelerator.autocast():
                outputs = model(**packed, fused_lm_head=True)

            def by_sequence(packed_rows: Tensor, length: int = longest) -> Tensor:
                return pad_last(packed_rows[:, -group * length :].reshape(-1, length), (0, logits_to_keep - length))

            log_probs.append(by_sequence(outputs.log_probs))
            if compute_entropy:
                entropies.append(by_sequence(outputs.entropy))
        if len(groups) == len(all_groups):
            return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None
        return self._scatter(model, input_ids.size(0), logits_to_keep, groups, log_probs, entropies)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """TRL's method; without a KL term, groups with zero advantage add nothing and are left out of the pass.

        Their loss is 0 at ratio 1 under any normalisation, so the gradient is the same. With several processes each
        keeps at least one group: all must make the same passes, since gradients are reduced within them.
        """
        advantages = inputs["advantages"].reshape(-1, self.num_generations)
        active = advantages.abs().amax(dim=1) > ZERO_ADVANTAGE
        if self.accelerator.num_processes > 1 and not active.any():
            active[0] = True
        off_policy = inputs.get("old_per_token_logps") is not None
        self._active_groups = None if self.beta or off_policy or bool(active.all()) else active
        skipped = 0 if self._active_groups is None else int((~active).sum())
        total = self.accelerator.reduce(torch.tensor(float(skipped), device=active.device), reduction="sum")
        self._metrics["train"]["skipped_groups"].append(total.item())
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._active_groups = None

    def _scatter(
        self, model: Any, count: int, length: int, groups: Tensor, log_probs: list[Tensor], entropies: list[Tensor]
    ) -> tuple[Tensor, Tensor | None, None]:
        """Put the results of some groups in their rows; other rows have log-probability 0 and the mean entropy."""
        rows = _sequence_indices(groups, self.num_generations)
        if not log_probs:  # every weight needs a gradient of 0, as after a full pass
            zero = sum((weight.sum() * 0 for weight in model.parameters() if weight.requires_grad), torch.zeros(()))
            zeros = torch.zeros(count, length, device=rows.device)
            return zeros + zero, zeros, None
        computed = torch.cat(log_probs)
        scattered = computed.new_zeros(count, length).index_copy(0, rows, computed)
        if not entropies:
            return scattered, None, None
        entropy = torch.cat(entropies)
        return scattered, entropy.new_full((count, length), entropy.mean().item()).index_copy(0, rows, entropy), None

    def _packed(
        self, model: Any, input_ids: Tensor, mask: Tensor, length: int, groups: Tensor, given: dict[str, Any]
    ) -> dict[str, Any]:
        """The inputs of a pass over some groups, with the images of each group once."""
        group, firsts = self.num_generations, groups * self.num_generations
        images = _select_images(firsts, given.get("num_images", ()), given)
        prompts, prompt_mask = (rows[::group, :-length] for rows in (input_ids, mask))
        types = given.get("mm_token_type_ids")
        types = types[firsts, : prompts.size(1)] if types is not None else None
        positions = prompt_positions(model, prompts, prompt_mask, types, images.get("image_grid_thw"))
        start = int((prompt_mask.sum(dim=0) > 0).int().argmax())  # after the padding that all these prompts share
        sequences = (input_ids[:, start:], mask[:, start:])
        return {**pack(*sequences, length, group, positions[..., start:]), **images}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: dict[str, Any], num_generations: int, *rest: Any
    ) -> tuple[list[list[int]], Any]:
        """Sample completions, with each group's prompt encoded once and its cache repeated."""
        group = num_generations
        full_groups = group > 1 and len(prompt_ids) % group == 0
        if (
            self.use_vllm
            or self.use_transformers_continuous_batching
            or not full_groups
            or rest != (False,) * len(rest)
        ):
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
        pixels = _select_images(firsts, [len(of_prompt or ()) for of_prompt in images or ()], fields)
        inputs = {"input_ids": ids, "attention_mask": mask} | {
            key: value.to(ids.device) for key, value in pixels.items()
        }
        if pixels:
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
            self._unsharded_weights(),
        ):
            numbers = self._random_numbers(len(prompts) * group)

            def sampler(rows: Sequence[int], done: int) -> SeededSampling:
                return SeededSampling(numbers[list(rows), done:], self.temperature, self.top_p)

            return sample_groups(
                model, inputs, group, self.generation_config, self.eos_token_ids, self.max_completion_length, sampler
            )


def replace_sequences(batch: dict[str, Any], new: dict[str, Any], rows: Tensor, pad_id: int) -> dict[str, Any]:
    """Replace some sequences of a batch; both batches are padded to the longest prompt and completion.

    Args:
        batch: TRL's batch of a step: tensors (n, ...) and lists of n.
        new: the same for m other sequences.
        rows: (m,), the rows of ``batch`` that are replaced.
        pad_id: the padding token of prompts and completions.
    """
    batches = (batch, new)
    prompt, completion = (max(part[f"{kind}_ids"].size(1) for part in batches) for kind in ("prompt", "completion"))
    batch, new = (_pad_batch(part, prompt, completion, pad_id) for part in batches)
    joined = dict(batch)
    for name, old in batch.items():
        if isinstance(old, Tensor) and old.ndim:
            joined[name] = old.index_copy(0, rows, new[name])
        elif isinstance(old, list):
            replacements = dict(zip(rows.tolist(), new[name], strict=True))
            joined[name] = [replacements.get(row, value) for row, value in enumerate(old)]
    joined["num_items_in_batch"] = joined["completion_mask"].sum()
    return joined


def _pad_batch(batch: dict[str, Any], prompt: int, completion: int, pad_id: int) -> dict[str, Any]:
    """Pad the prompts of a batch on the left to a length, and the completions on the right to another length."""
    left, right = prompt - batch["prompt_ids"].size(1), completion - batch["completion_ids"].size(1)
    padded = dict(batch)
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.ndim == 2:
            is_prompt, is_both = name.startswith("prompt_"), name == "mm_token_type_ids"
            sides = (left if is_prompt or is_both else 0, 0 if is_prompt else right)
            padded[name] = pad_last(value, sides, value=pad_id if name in ("prompt_ids", "completion_ids") else 0)
    return padded


def _select(batch: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Select sequences of a batch, in the given order."""
    selected = dict(batch)
    for name, value in batch.items():
        if isinstance(value, list):
            selected[name] = [value[row] for row in rows.tolist()]
        elif isinstance(value, Tensor) and value.ndim:
            selected[name] = value[rows]
    return selected


def _sequence_indices(groups: Tensor, group_size: int) -> Tensor:
    """The indices of the sequences of groups, group by group."""
    return (groups[:, None] * group_size + torch.arange(group_size, device=groups.device)).flatten()


def _select_images(sequences: Tensor, counts: Sequence[int], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The images of some sequences as inputs of the model; empty without images.

    Args:
        sequences: the indices of the sequences.
        counts: the number of images of each sequence.
        given: ``image_grid_thw`` (images, 3) and ``pixel_values`` (patches, values) of all sequences.
    """
    if "image_grid_thw" not in given:
        return {}
    grid = given["image_grid_thw"]
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    kept = torch.isin(owners.to(grid.device), sequences.to(grid.device))
    patches = kept.repeat_interleave(grid.prod(dim=-1))
    return {"image_grid_thw": grid[kept], "pixel_values": given["pixel_values"][patches]}
