"""Supervised fine-tuning on the targets, over TRL's ``SFTTrainer``.

The completion to learn is the target in the envelope. Labels come without reasons, so the think block of a target
holds words of the recipe (``think``), or what is known of the true class (``think_from: card``): SFT learns what to
answer, not how to reason. The loss is the mean over the tokens of the completions of a step.

TRL is given texts, not messages: the prompt is what the policy reads when it is asked, and the completion goes on where
it ends. A chat template that opens ``<think>`` in the prompt would write it once more before a message, or leave the
reasoning out of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from vrft.boxes import Size
from vrft.errors import DataError
from vrft.policies import LoadedPolicy, check_envelope
from vrft.policies.templates import completion_end
from vrft.progress import Reporter
from vrft.recipe import SftStage, texts_of
from vrft.response import render
from vrft.runs import StageDirectory
from vrft.sample import Sample
from vrft.tasks import TrainableTask
from vrft.training.callback import StageResult
from vrft.training.stage import begin, finish, lazy_dataset, stage_order
from vrft.training.trainer_arguments import sft_options, trainer_options
from vrft.training.validation import Validation


def answer_of(policy: LoadedPolicy, task: TrainableTask, sample: Sample, size: Size) -> str:
    """The target of a sample as the policy is to write it."""
    target = task.check_target(sample.target, size)
    return task.written(target, size, policy.processed_size(size))


def thoughts(stage: SftStage, samples: Sequence[Sample], seed: int) -> Callable[[Sample, int], str]:
    """What stands in the think block of a sample, by its place in the order of the stage.

    Raises:
        DataError: it shall be what is known of the class, and nothing is known of that of a sample.
    """
    texts = texts_of(stage.think)
    if stage.think_from == "card":
        for sample in samples:
            if sample.knowledge is None or not sample.knowledge.own.strip():
                raise DataError(f"think_from is card, which says nothing of {sample.target!r} (sample {sample.id}).")
        return lambda sample, place: sample.knowledge.own if sample.knowledge else ""
    return lambda sample, place: texts[int(np.random.default_rng([seed, 0x7417, place]).integers(len(texts)))]


def train_sft(
    policy: LoadedPolicy,
    stage: SftStage,
    task: TrainableTask,
    samples: Sequence[Sample],
    directory: StageDirectory,
    *,
    seed: int,
    reporter: Reporter,
    label: str = "sft",
    validation: Validation | None = None,
    trackers: Mapping[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> StageResult:
    """Train ``policy`` in place for one stage; goes on from the newest whole checkpoint of ``directory``.

    The arguments are those of ``train_rft``.

    Raises:
        UserError: the stage is not possible with this policy or these processes, or cannot go on.
    """
    callback, checkpoint = begin(
        policy, stage, directory, seed=seed, reporter=reporter, label=label, validation=validation
    )
    assert isinstance(callback.stage, SftStage)
    stage = callback.stage  # shorter, where its budget is spent
    think = thoughts(stage, samples, seed)
    end, turn_end = policy.prompt_end, completion_end(policy.processor)
    check_envelope(policy.name, end, task.order)

    def row(sample: Sample, size: Size, place: int) -> dict[str, Any]:
        answer = render(think(sample, place), answer_of(policy, task, sample, size), task.order, end)
        prompt = policy.prompt_text(policy.prompt(task, sample, size), None)
        return {"prompt": prompt, "completion": answer + turn_end}

    order = stage_order(stage, samples, stage.steps * stage.batch_size, seed)
    options = trainer_options(stage, directory, seed, stage.batch_size, compute=policy.compute, trackers=trackers)
    trainer = SFTTrainer(
        model=policy.model,
        processing_class=policy.processor,
        args=SFTConfig(**options, **sft_options()),
        train_dataset=lazy_dataset(policy, samples, order, row),
        callbacks=[callback, *callbacks],
        peft_config=policy.lora,
    )
    trainer._total_train_tokens = callback.tokens  # TRL counts from 0 after a resume
    return finish(trainer, policy, directory, callback, checkpoint)
