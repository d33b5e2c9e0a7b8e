"""Supervised fine-tuning on the targets, over TRL's ``SFTTrainer``.

The completion to learn is the target in the envelope. Labels come without reasons, so the think block of every target
holds the same words (``think`` of the stage): SFT learns what to answer, not how to reason. The loss is on the
completion alone.
"""

from collections.abc import Sequence

from trl import SFTConfig, SFTTrainer

from vrft.boxes import Size
from vrft.policies import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import SftStage
from vrft.response import render
from vrft.runs import StageDirectory
from vrft.sample import Sample
from vrft.tasks import TrainableTask
from vrft.training.common import (
    StageResult,
    begin,
    finish,
    lazy_dataset,
    stage_order,
    trainer_options,
    user_message,
)


def answer_of(policy: LoadedPolicy, task: TrainableTask, sample: Sample, size: Size) -> str:
    """The target of a sample as the policy is to write it."""
    target = task.check_target(sample.target, size)
    return task.written(target, size, policy.processed_size(size))


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
) -> StageResult:
    """Train ``policy`` in place for one stage; goes on from the newest whole checkpoint of ``directory``."""
    keeper, checkpoint = begin(policy, stage, directory, seed=seed, reporter=reporter, label=label)
    assert isinstance(keeper.stage, SftStage)
    stage = keeper.stage  # shorter, where its budget is spent
    dataset = lazy_dataset(
        policy,
        samples,
        stage_order(stage, samples, stage.steps * stage.batch_size, seed),
        lambda sample, size: {
            "prompt": user_message(policy, task, sample, size),
            "completion": [
                {
                    "role": "assistant",
                    "content": render(stage.think, answer_of(policy, task, sample, size), task.order),
                }
            ],
        },
    )
    trainer = SFTTrainer(
        model=policy.model,
        processing_class=policy.processor,
        args=SFTConfig(
            **trainer_options(stage, directory, seed, stage.batch_size),
            train_sampling_strategy="sequential",  # the dataset is in order already
            completion_only_loss=True,
            loss_type="nll",
            max_length=None,
        ),
        train_dataset=dataset,
        callbacks=[keeper],
        peft_config=policy.lora,
    )
    return finish(trainer, policy, directory, keeper, checkpoint)
