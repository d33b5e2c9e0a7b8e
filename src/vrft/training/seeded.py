"""GRPO with rollouts that depend only on the seed, the step and the index of a sequence in the batch.

torch samples the tokens of a batch from one generator for each process, so the number of processes, the size of a
batch, and a resume change the samples. Here each sequence has its own random numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from trl import GRPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head


def uniforms(rows: Sequence[int], length: int, *key: int) -> Tensor:
    """Random numbers in [0, 1), (rows, length) in float64; those of a row depend on its index and the key."""
    numbers = [np.random.default_rng([*key, row]).random(length) for row in rows]
    return torch.from_numpy(np.array(numbers).reshape(len(rows), length))


class SeededSampling(LogitsProcessor):
    """Choose each token by a given random number: the first token whose cumulative probability exceeds it.

    Only the chosen token keeps a finite score, so ``generate`` must take it. ``generate`` applies temperature and top-p
    after this processor, where they have no effect, so this processor applies them itself.

    Args:
        numbers: (n, steps), in [0, 1).
        temperature: the sampling temperature.
        top_p: the probability mass of nucleus sampling.
    """

    def __init__(self, numbers: Tensor, temperature: float, top_p: float) -> None:
        self.numbers, self.step = numbers, 0
        self.warpers = LogitsProcessorList()
        if temperature != 1.0:
            self.warpers.append(TemperatureLogitsWarper(temperature))
        if top_p < 1.0:
            self.warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores (n, vocabulary) of the next token, -inf except for the chosen token."""
        cumulative = self.warpers(input_ids, scores).double().softmax(dim=-1).cumsum(dim=-1)
        point = self.numbers[:, self.step, None].to(scores.device) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, point, right=True).clamp(max=scores.size(1) - 1)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class SeededTrainer(GRPOTrainer):
    """TRL's trainer with rollouts that do not depend on the processes, and advantages for ``loss: rejection``."""

    sampling_seed: int = 0
    """The seed of the rollouts."""
    accepted: Callable[[], list[bool]] | None = None
    """For ``loss: rejection``: which of the completions that were scored last in this process are trained on."""
    _round = 0
    """The number of times that groups were resampled in the current step."""

    def _random_numbers(self, count: int) -> Tensor:
        """The random numbers of the sequences of this process, (count, max_completion_length)."""
        first = self.accelerator.process_index * count
        step = self.state.global_step
        return uniforms(range(first, first + count), self.max_completion_length, self.sampling_seed, step, self._round)

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any) -> tuple[list[list[int]], Any]:
        """TRL's method with seeded sampling; vLLM samples by itself."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *rest)
        sampling = SeededSampling(self._random_numbers(len(prompt_ids)), self.temperature, self.top_p)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with _logits_processor(model, sampling), self._unsharded_weights():
            return super()._generate_single_turn(prompt_ids, *rest)

    @contextmanager
    def _unsharded_weights(self) -> Iterator[None]:
        """Gather all weights that FSDP2 shards within the block.

        Processes write completions of different lengths, so their passes cannot wait for each other; and ``generate``
        encodes images before the pass in which the weights would be gathered.
        """
        sharded = [module for module in self.model_wrapped.modules() if isinstance(module, FSDPModule)]
        for module in sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in sharded:
                module.set_reshard_after_forward(
                    self.accelerator.state.fsdp_plugin.reshard_after_forward, recurse=False
                )
                module.reshard()

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's method; for ``rejection`` the advantage is 1 for accepted completions and 0 for others.

        TRL divides the loss by the tokens of all completions. Here the loss is the mean over the tokens of accepted
        completions, as in supervised training, so the advantages are scaled by the ratio of both numbers of tokens.
        """
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.accepted is not None:
            accepted = torch.tensor(self.accepted(), dtype=torch.float32, device=batch["advantages"].device)
            tokens = self.accelerator.reduce((batch["completion_mask"].sum(dim=1) * accepted).sum(), reduction="sum")
            batch["advantages"] = accepted * batch["num_items_in_batch"] / tokens.clamp(min=1.0)
        return batch


@contextmanager
def _logits_processor(model: Any, processor: LogitsProcessor) -> Iterator[None]:
    """Add a logits processor to ``generate`` of a model within the block."""
    generate = model.generate

    def seeded(*args: Any, **kwargs: Any) -> Any:
        return generate(*args, logits_processor=LogitsProcessorList([processor]), synced_gpus=False, **kwargs)

    model.generate = seeded
    try:
        yield
    finally:
        del model.generate


def set_reference(trainer: GRPOTrainer, reference: PreTrainedModel, weight: float) -> None:
    """Give a trainer a KL term with a reference policy that is in memory.

    Args:
        trainer: created with ``beta=0``, so that it has not loaded a reference.
        reference: frozen, with the architecture of the policy.
        weight: the weight of the KL term (beta).
    """
    add_fused_lm_head(reference, temperature=trainer.temperature, cast_lm_head_to_fp32=False)
    accelerator = trainer.accelerator
    if trainer.is_deepspeed_enabled:
        trainer.ref_model = prepare_deepspeed(reference, accelerator)
    elif trainer.is_fsdp_enabled:
        trainer.ref_model = prepare_fsdp(reference, accelerator)
    else:
        trainer.ref_model = accelerator.prepare_model(reference, evaluation_mode=True)
    trainer.beta = weight
