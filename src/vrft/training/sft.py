"""Supervised fine-tuning on the targets, over TRL's ``SFTTrainer``.

The completion is the target in the envelope. Labels come without reasons, so the think block holds a text of the recipe
(``think``) or the knowledge of the true class (``think_from: card``): SFT trains the answers, not the reasoning. The
loss is the mean over the tokens of the completions of a step.

TRL receives texts, not messages: the prompt is rendered as for inference, and the completion continues it. With
messages, a chat template that opens ``<think>`` in the prompt would repeat the tag or drop the reasoning.
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
from vrft.training.stage import begin_stage, finish_stage, lazy_dataset, stage_order
from vrft.training.trainer_arguments import sft_options, trainer_options
from vrft.training.validation import Validation


def answer_of(policy: LoadedPolicy, task: TrainableTask, sample: Sample, size: Size) -> str:
    """The target of a sample as the policy should write it.

    Raises:
        ValueError: the target is not valid for the task.
    """
    target = task.check_target(sample.target, size)
    return task.written(target, size, policy.processed_size(size))


def think_texts(stage: SftStage, samples: Sequence[Sample], seed: int) -> Callable[[Sample, int], str]:
    """Return the function from a sample and its index in the order of the stage to the text of its think block.

    Raises:
        DataError: the text is the knowledge of the class, and the class of a sample has none.
    """
    texts = texts_of(stage.think)
    if stage.think_from == "card":
        for sample in samples:
            if sample.knowledge is None or not sample.knowledge.own.strip():
                raise DataError(f"think_from is card, which says nothing of {sample.target!r} (sample {sample.id}).")
        return lambda sample, index: sample.knowledge.own if sample.knowledge else ""
    return lambda sample, index: texts[int(np.random.default_rng([seed, 0x7417, index]).integers(len(texts)))]


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
    """Train ``policy`` in place for one stage; continues from the newest complete checkpoint of ``directory``.

    The arguments are those of ``train_rft``.

    Raises:
        UserError: the stage is not possible with this policy or these processes, or cannot continue.
    """
    callback, checkpoint = begin_stage(
        policy, stage, directory, seed=seed, reporter=reporter, label=label, validation=validation
    )
    assert isinstance(callback.stage, SftStage)
    stage = callback.stage  # with fewer steps where the budget is spent
    think = think_texts(stage, samples, seed)
    end, turn_end = policy.prompt_end, completion_end(policy.processor)
    check_envelope(policy.name, end, task.order)

    def row(sample: Sample, size: Size, index: int) -> dict[str, Any]:
        answer = render(think(sample, index), answer_of(policy, task, sample, size), task.order, end)
        prompt = policy.prompt_text(policy.prompt(task, sample, size), len(sample.images))
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
    return finish_stage(trainer, policy, directory, callback, checkpoint)
