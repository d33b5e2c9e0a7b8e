"""GRPO that encodes the prompt and image of a group once: in the rollouts, and in every pass over their tokens.

TRL's trainer repeats the prompt for each of the G completions of a group. Here a group is one row (``packing.py``).
Log-probabilities and gradients are those of TRL's pass up to rounding, from (P + G C) tokens in place of G (P + C).
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
from vrft.training.packing import ATTENTION, pack, prompt_positions, take_packed_rows
from vrft.training.rollouts import sample_groups
from vrft.training.seeded import SeededChoice, SeededTrainer

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
    if attention not in ("sdpa", "eager", ATTENTION):
        return f"the attention {attention} takes no mask of its own"
    if any(kind != "full_attention" for kind in getattr(config.get_text_config(), "layer_types", None) or ()):
        return "some layers attend to a window"
    if micro_batch % group_size:
        return f"a micro-batch of {micro_batch} does not hold whole groups of {group_size}"
    return None


class SharedPrefixTrainer(SeededTrainer):
    """TRL's trainer, where a group is encoded once. ``cannot_share`` says when it must not be used."""

    _buffered_inputs: list[Any] | None
    _active_groups: Tensor | None = None
    """Which groups of the pass under way have an advantage; None where all count."""
    resamples = 0
    """How many times in a step the groups without advantage are replaced (dynamic sampling, arXiv 2503.14476)."""
    fresh_prompts: Callable[[int, int, int], list[dict[str, Any]]]
    """What they are replaced by: rows of the dataset, by step, round and number."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for model in (self.model, self.ref_model):
            if model is not None:
                take_packed_rows(model)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, without the shuffle of all sequences of a step, so that micro-batches hold whole groups.

        Groups are in the order of their longest completions, so that those of a micro-batch are of like lengths. The
        gradient of a step is a sum over its sequences, so their order does not matter (but for the loss ``bnpo``, which
        weighs the tokens of a micro-batch by their number in it).
        """
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        per_generation = self.args.steps_per_generation
        if self._step % (per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._dynamic_sampling(generation_batch)
            if per_generation > 1:
                lengths = batch["completion_mask"].sum(dim=1).view(-1, self.num_generations).amax(dim=1)
                batch = _chosen(batch, _sequences(lengths.argsort(stable=True), self.num_generations))
            parts = split_tensor_dict(batch, per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % per_generation]

    def _dynamic_sampling(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample and score; groups without advantage are replaced by groups of fresh prompts, ``resamples`` times.

        Every figure that the log holds is of all groups that were sampled.
        """
        group, metrics = self.num_generations, self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        batch, counts = self._sampled(rows), [len(rows)]
        for turn in range(self.resamples):
            zero_advantage = batch["advantages"].view(-1, group).abs().amax(dim=1) <= ZERO_ADVANTAGE
            places = zero_advantage.nonzero().flatten()
            if not len(places):
                break
            self._turn = turn + 1
            fresh = [row for row in self.fresh_prompts(self.state.global_step, turn, len(places)) for _ in range(group)]
            batch = replaced(batch, self._sampled(fresh), _sequences(places, group), self._tokenizer.pad_token_id)
            counts.append(len(fresh))
        self._turn = 0
        if self.resamples:
            metrics["resampled_groups"].append(sum(counts[1:]) / group)
        for name, values in metrics.items():
            new = values[before.get(name, 0) :]
            if 1 < len(new) == len(counts):
                values[-len(new) :] = [float(np.average(new, weights=counts))]
        return batch

    def _sampled(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Completions of rows with their advantages, the pixels of each sequence on their own."""
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
        groups = every if self._active_groups is None else every[self._active_groups]
        log_probs, entropies = [], []
        for some in groups.split(each // group) if len(groups) else ():
            rows = _sequences(some, group)
            mask = attention_mask[rows]
            longest = max(1, int(mask[:, -logits_to_keep:].sum(dim=1).max()))  # of these: the others may be longer
            short = slice(mask.size(1) - logits_to_keep + longest)
            packed = self._packed(model, input_ids[rows, short], mask[:, short], longest, some, given)
            with self.accelerator.autocast():
                outputs = model(**packed, fused_lm_head=True)

            def each_own(of_row: Tensor, length: int = longest) -> Tensor:
                return pad_last(of_row[:, -group * length :].reshape(-1, length), (0, logits_to_keep - length))

            log_probs.append(each_own(outputs.log_probs))
            if compute_entropy:
                entropies.append(each_own(outputs.entropy))
        if len(groups) == len(every):
            return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None
        return self._filled(model, input_ids.size(0), logits_to_keep, groups, log_probs, entropies)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """As TRL's; without a KL term the groups without advantage add nothing, and are left out of the pass.

        Their loss is 0 at ratio 1, whatever normalises it, so the gradient is the same. Of several processes each keeps
        one group at least: all must make the same passes, since gradients are added up within them.
        """
        advantages = inputs["advantages"].reshape(-1, self.num_generations)
        active = advantages.abs().amax(dim=1) > ZERO_ADVANTAGE
        if self.accelerator.num_processes > 1 and not active.any():
            active[0] = True
        off_policy = inputs.get("old_per_token_logps") is not None
        self._active_groups = None if self.beta or off_policy or bool(active.all()) else active
        skipped = 0 if self._active_groups is None else int((~active).sum())
        counted = self.accelerator.reduce(torch.tensor(float(skipped), device=active.device), reduction="sum")
        self._metrics["train"]["skipped_groups"].append(counted.item())
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._active_groups = None

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
        first = int((prompt_mask.sum(dim=0) > 0).int().argmax())  # padding that these prompts have in common
        sequences = (input_ids[:, first:], mask[:, first:])
        return {**pack(*sequences, length, group, positions[..., first:]), **images}

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
            self._whole_weights(),
        ):
            numbers = self._numbers(len(prompts) * group)

            def choose(rows: Sequence[int], done: int) -> SeededChoice:
                return SeededChoice(numbers[list(rows), done:], self.temperature, self.top_p)

            return sample_groups(
                model, inputs, group, self.generation_config, self.eos_token_ids, self.max_completion_length, choose
            )


def replaced(batch: dict[str, Any], fresh: dict[str, Any], rows: Tensor, pad_id: int) -> dict[str, Any]:
    """Put fresh sequences in the place of some; both are padded to the longest prompt and completion.

    Args:
        batch: what TRL makes of a step: tensors (n, ...) and lists of n, one for each sequence.
        fresh: the same of m other sequences.
        rows: (m,), the places of those that are replaced.
        pad_id: what prompts and completions are padded with.
    """
    prompt, completion = (
        max(one[f"{part}_ids"].size(1) for one in (batch, fresh)) for part in ("prompt", "completion")
    )
    both = [_widened(one, prompt, completion, pad_id) for one in (batch, fresh)]
    joined: dict[str, Any] = {}
    for name, old in both[0].items():
        new = both[1][name]
        if isinstance(old, Tensor) and old.ndim:
            joined[name] = old.index_copy(0, rows, new)
        elif isinstance(old, list):
            at = dict(zip(rows.tolist(), new, strict=True))
            joined[name] = [at.get(place, one) for place, one in enumerate(old)]
        else:
            joined[name] = old
    joined["num_items_in_batch"] = joined["completion_mask"].sum()
    return joined


def _widened(batch: dict[str, Any], prompt: int, completion: int, pad_id: int) -> dict[str, Any]:
    """A step with its prompts padded to one length, on the left, and its completions to another, on the right."""
    left, right = prompt - batch["prompt_ids"].size(1), completion - batch["completion_ids"].size(1)
    wide = {}
    for name, one in batch.items():
        if isinstance(one, Tensor) and one.ndim == 2:
            of_prompt = name.startswith("prompt_")
            of_both = name == "mm_token_type_ids"
            sides = (left if of_prompt or of_both else 0, 0 if of_prompt else right)
            one = pad_last(one, sides, value=pad_id if name in ("prompt_ids", "completion_ids") else 0)
        wide[name] = one
    return wide


def _chosen(batch: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some sequences of a step, in the order given."""
    chosen = {}
    for name, one in batch.items():
        if isinstance(one, list):
            one = [one[place] for place in rows.tolist()]
        elif isinstance(one, Tensor) and one.ndim:
            one = one[rows]
        chosen[name] = one
    return chosen


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
