"""Shared by both trainers: the order of the data, and the beginning, resume and end of a stage."""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from PIL import Image
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer, set_seed

from vrft.boxes import Size
from vrft.errors import DataError, UserError
from vrft.policies import LoadedPolicy, load_policy, save_policy
from vrft.processes import all_of, is_main, join_processes, wait_for_all
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory, read_jsonl, replacing, write_json, write_jsonl
from vrft.sample import Sample, Target
from vrft.training.callback import StageCallback, StageResult
from vrft.training.trainer_arguments import check_processes
from vrft.training.validation import Validation, Validator

MOST_UNREADABLE = 100
"""Samples that are tried in place of one that cannot be read."""


def sample_order(count: int, needed: int, seed: int) -> list[int]:
    """The indices of samples in the order of training, (needed,): permutations of all samples, concatenated.

    The order is fixed before training, so that a run that resumes sees the same samples.
    """
    rng = np.random.default_rng([seed, 0x0DE2])
    order: list[int] = []
    while len(order) < needed:
        order.extend(int(i) for i in rng.permutation(count))
    return order[:needed]


def balanced_order(targets: Sequence[Target], needed: int, seed: int) -> list[int]:
    """The indices of samples in the order of training, (needed,), with each class once in every round of classes.

    All samples of a class occur before any occurs again. Fixed before training, like ``sample_order``.

    >>> order = balanced_order(["common", "common", "common", "rare"], 4, seed=0)
    >>> order.count(3)
    2
    """
    members: dict[Target, list[int]] = {}
    for index, target in enumerate(targets):
        members.setdefault(target, []).append(index)
    rounds = -(-needed // len(members))
    by_class = [[own[i] for i in sample_order(len(own), rounds, seed)] for own in members.values()]
    rng = np.random.default_rng([seed, 0xBA1A])
    return [by_class[i][number] for number in range(rounds) for i in rng.permutation(len(by_class))][:needed]


def stage_order(stage: RftStage | SftStage, samples: Sequence[Sample], needed: int, seed: int) -> list[int]:
    """The indices of samples in the order of a stage, (needed,): balanced by class where the recipe says so."""
    if stage.balance:
        return balanced_order([sample.target for sample in samples], needed, seed)
    return sample_order(len(samples), needed, seed)


def lazy_dataset(
    policy: LoadedPolicy,
    samples: Sequence[Sample],
    order: Sequence[int],
    row: Callable[[Sample, Size, int], dict[str, Any]],
) -> Dataset:
    """A dataset that opens the images of a sample when its row is read, once for all repetitions in a batch.

    Args:
        policy: opens the images.
        samples: the samples.
        order: the indices of the samples, row by row.
        row: returns the columns of a row besides ``images``, from the sample, the size of its first original and the
            row index.
    """

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        opened = {index: _open(policy, samples, index) for index in set(batch["index"])}
        built: dict[int, dict[str, Any]] = {}
        for index, number in zip(batch["index"], batch["row"], strict=True):
            if number not in built:
                sample, shown, sizes = opened[index]
                built[number] = {**row(sample, sizes[0], number), "images": list(shown)}
        return {key: [built[number][key] for number in batch["row"]] for key in built[batch["row"][0]]}

    return Dataset.from_dict({"index": list(order), "row": list(range(len(order)))}).with_transform(_Transform(rows))


def _open(
    policy: LoadedPolicy, samples: Sequence[Sample], index: int
) -> tuple[Sample, tuple[Image.Image, ...], tuple[Size, ...]]:
    """A sample with its images and their original sizes; in place of one that cannot be read, where the policy skips
    those, the next that can.

    Raises:
        DataError: it cannot be read, or none of ``MOST_UNREADABLE`` after another.
    """
    for further in range(min(MOST_UNREADABLE, len(samples)) if policy.skips_unreadable else 1):
        at, name = (index + further) % len(samples), f"training sample {index + further}"
        try:
            sample = samples[at]
            name = sample.id
            return (sample, *policy.open(sample))
        except DataError:
            if not policy.skips_unreadable:
                raise
            policy.image_log.note_unreadable(name)
    raise DataError(f"none of {MOST_UNREADABLE} samples after another can be read; see vrft audit.")


class _Transform:
    """A function that ``datasets`` does not pickle for its fingerprint, with all weights of the policy."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, batch: Any) -> Any:
        return self.function(batch)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return str, ("rows of a stage",)

    def __deepcopy__(self, memo: Any) -> "_Transform":
        return self


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The reference policy: a frozen copy of the weights at the start of a stage.

    TRL would load it by the name of the model, which is another policy where the start is an adapter or a revision.
    """
    copied: PreTrainedModel = copy.deepcopy(model)
    vars(copied).pop("forward", None)  # set by an earlier trainer, and bound to the original
    return copied.eval().requires_grad_(False)


def load_weights(policy: LoadedPolicy, saved: Path) -> None:
    """Load the weights or adapters of a directory into a policy in memory.

    transformers saves this architecture with other key names than in memory; the trainer, which loads by name, would
    skip all of them without an error.
    """
    if isinstance(policy.model, PeftModel):
        set_peft_model_state_dict(policy.model, load_peft_weights(str(saved), device="cpu"), adapter_name="default")
        return
    loaded = load_policy(str(saved), training=True, trust_remote_code=policy.trust_remote_code)
    policy.model.load_state_dict(loaded.model.state_dict(), strict=True)


def begin_stage(
    policy: LoadedPolicy,
    stage: RftStage | SftStage,
    directory: StageDirectory,
    *,
    seed: int,
    reporter: Reporter,
    label: str,
    validation: Validation | None = None,
) -> tuple[StageCallback, Path | None]:
    """Begin a stage, or resume it; returns its callback and the newest complete checkpoint, if any.

    Raises:
        UserError: the stage is not possible with these processes.
    """
    join_processes()
    check_processes(stage)
    set_seed(seed)  # earlier work in this process has no effect on the stage
    validator = Validator(validation, policy, directory) if validation else None
    callback = StageCallback(directory, stage, reporter, label, validator)
    checkpoint = callback.resume()
    full_training = policy.lora is None and not isinstance(policy.model, PeftModel)
    if full_training and isinstance(stage, RftStage) and stage.kl:
        policy.reference = frozen_copy(policy.model)
    # The trainer restores adapters, and weights that DeepSpeed saves in shards.
    if full_training and checkpoint is not None and (checkpoint / "config.json").exists():
        load_weights(policy, checkpoint)
    return callback, checkpoint


def remove_printers(trainer: Trainer) -> None:
    """Remove the callbacks of the trainer that print to the terminal."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def move_to_front(trainer: Trainer, callback: StageCallback) -> None:
    """Let the stage's callback rename the metrics of the log before the loggers write them."""
    trainer.remove_callback(callback)
    trainer.callback_handler.callbacks.insert(0, callback)


def finish_stage(
    trainer: Trainer, policy: LoadedPolicy, directory: StageDirectory, callback: StageCallback, checkpoint: Path | None
) -> StageResult:
    """Train, write the policy and the rollouts, and then mark the stage as done.

    Raises:
        UserError: the stage needs the full weights in each process, and they are sharded.
        TrainingError: a loss or gradient is not finite.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        reason = "is not possible where weights are sharded over processes"
        if callback.validator is not None:
            raise UserError(f"{callback.label}: validate {reason}; leave it out.")
        if policy.merges_adapters:
            raise UserError(f"{callback.label}: policy.lora.between_stages: merge {reason}; expected continue.")
    remove_printers(trainer)
    move_to_front(trainer, callback)
    with redirect_stdout(sys.stderr):  # loggers print when they start
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            _finish_wandb(trainer)
    steps = trainer.state.global_step
    model = trainer.accelerator.unwrap_model(trainer.model)
    kept_step = _kept_step(callback, model, steps)
    vars(model).pop("forward", None)  # set by the trainer, for autocast
    policy.model = model
    callback.reporter.stop()
    state = None  # gathered weights
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)
    peak = max(all_of([callback.memory.peak_mb()]))
    result = StageResult(callback.seconds, callback.tokens, steps, peak, kept_step)
    if is_main():
        if kept_step != steps:
            load_weights(policy, directory.best_policy(kept_step))
        _write_results(policy, directory, callback, state)
        write_json(directory.done, vars(result))
        directory.drop_checkpoints()
        (directory.path / "README.md").unlink(missing_ok=True)  # the model card of the trainer
    wait_for_all()
    return result


def _finish_wandb(trainer: Trainer) -> None:
    """End the W&B run of a stage; transformers would log the next stage into it."""
    if "wandb" in trainer.args.report_to and is_main():
        import wandb  # type: ignore[import-not-found, unused-ignore]

        wandb.finish()


def _kept_step(callback: StageCallback, model: Any, steps: int) -> int:
    """Validate the last step if it was not yet, and return the step whose policy the stage ends with."""
    validator = callback.validator
    if validator is None:
        return steps
    if validator.last_step != steps:
        metrics = validator.validate(model, steps)
        rows = read_jsonl(callback.directory.log)
        if is_main() and rows:
            rows[-1] |= {"validation": metrics}
            write_jsonl(callback.directory.log, rows)
    return validator.best_step if validator.keeps_best else steps


def _write_results(
    policy: LoadedPolicy, directory: StageDirectory, callback: StageCallback, state: dict[str, Any] | None
) -> None:
    """Write the policy, the adapters if they are merged, and all rollouts."""
    if isinstance(policy.model, PeftModel) and policy.merges_adapters:
        with replacing(directory.adapter) as path:
            save_policy(policy, path, state)
        # In float32: in bfloat16, most of a small update would be rounded off.
        policy.model, state = policy.model.cpu().float().merge_and_unload(), None
    with replacing(directory.policy) as path:
        save_policy(policy, path, state)
    frames = [pd.read_parquet(part) for part in sorted(directory.rollouts_part(0).parent.glob("*.parquet"))]
    frames += [pd.DataFrame(callback.rollouts)] if callback.rollouts else []
    if frames:
        with replacing(directory.rollouts) as path:
            pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
