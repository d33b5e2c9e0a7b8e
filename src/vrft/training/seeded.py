"""GRPO whose rollouts depend on the seed, the step and the place of a sequence alone.

torch draws the tokens of a batch from one generator for each process, so that the number of processes, the size of a
batch, and a resume change what is sampled. Here each sequence has random numbers of its own.
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
    """Random numbers in [0, 1), (rows, length) in float64: those of a row follow from its number and the key."""
    drawn = [np.random.default_rng([*key, row]).random(length) for row in rows]
    return torch.from_numpy(np.array(drawn).reshape(len(rows), length))


class SeededChoice(LogitsProcessor):
    """Choose each token by a given random number: the first whose cumulated probability exceeds it.

    What is returned has one token with a score, which ``generate`` then takes, whatever it draws. It comes before the
    temperature and the nucleus of ``generate``, which do not change that, so it applies them itself.

    Args:
        numbers: (n, steps), in [0, 1).
        temperature: of sampling.
        top_p: nucleus of sampling.
    """

    def __init__(self, numbers: Tensor, temperature: float, top_p: float) -> None:
        self.numbers, self.step = numbers, 0
        self.warpers = LogitsProcessorList()
        if temperature != 1.0:
            self.warpers.append(TemperatureLogitsWarper(temperature))
        if top_p < 1.0:
            self.warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores (n, words) of the next token; those of all words but the chosen one become -inf."""
        cumulated = self.warpers(input_ids, scores).double().softmax(dim=-1).cumsum(dim=-1)
        point = self.numbers[:, self.step, None].to(scores.device) * cumulated[:, -1:]
        chosen = torch.searchsorted(cumulated, point, right=True).clamp(max=scores.size(1) - 1)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class SeededTrainer(GRPOTrainer):
    """TRL's trainer with rollouts that do not depend on the processes, and the advantages of ``loss: rejection``."""

    draws: int = 0
    """The seed of what is sampled."""
    accepted: Callable[[], list[bool]] | None = None
    """Of ``loss: rejection``: which completions of this process, of those scored last, are learnt."""
    _turn = 0
    """How many times rollouts were sampled in the step under way."""

    def _numbers(self, count: int) -> Tensor:
        """The random numbers of the sequences of this process, (count, longest completion)."""
        first = self.accelerator.process_index * count
        step = self.state.global_step
        return uniforms(range(first, first + count), self.max_completion_length, self.draws, step, self._turn)

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any) -> tuple[list[list[int]], Any]:
        """As TRL's; with vLLM sampling is left to the engine."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *rest)
        choice = SeededChoice(self._numbers(len(prompt_ids)), self.temperature, self.top_p)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with _generating_with(model, choice), self._whole_weights():
            return super()._generate_single_turn(prompt_ids, *rest)

    @contextmanager
    def _whole_weights(self) -> Iterator[None]:
        """Hold all weights that FSDP2 shares out, for a while.

        Processes write completions of different lengths, so that their passes cannot wait for each other; and
        ``generate`` encodes images before the pass in which the weights would be gathered.
        """
        shares = [module for module in self.model_wrapped.modules() if isinstance(module, FSDPModule)]
        for module in shares:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in shares:
                module.set_reshard_after_forward(
                    self.accelerator.state.fsdp_plugin.reshard_after_forward, recurse=False
                )
                module.reshard()

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """As TRL's; for ``rejection`` the advantage is 1 where a completion is learnt and 0 elsewhere.

        TRL divides the loss by the tokens of all completions. Here it shall be the mean over the tokens that are
        learnt, as in supervised training, so the advantages are scaled by the ratio of both.
        """
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.accepted is not None:
            learnt = torch.tensor(self.accepted(), dtype=torch.float32, device=batch["advantages"].device)
            tokens = self.accelerator.reduce((batch["completion_mask"].sum(dim=1) * learnt).sum(), reduction="sum")
            batch["advantages"] = learnt * batch["num_items_in_batch"] / tokens.clamp(min=1.0)
        return batch


@contextmanager
def _generating_with(model: Any, choice: LogitsProcessor) -> Iterator[None]:
    """Let ``generate`` of a model choose tokens so, for a while."""
    generate = model.generate

    def seeded(*args: Any, **kwargs: Any) -> Any:
        chosen = LogitsProcessorList([choice])
        return generate(*args, logits_processor=chosen, synced_gpus=False, **kwargs)

    model.generate = seeded
    try:
        yield
    finally:
        del model.generate


def set_reference(trainer: GRPOTrainer, reference: PreTrainedModel, weight: float) -> None:
    """Give a trainer that has no KL term one, towards a policy in memory.

    Args:
        trainer: made with ``beta=0``, so that it has loaded no reference of its own.
        reference: frozen, and like the policy but for its weights.
        weight: of the KL term (beta).
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
