"""What both trainers share: the order of the data, and how a stage begins, goes on after a kill, and ends."""

import copy
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer

from vrft.boxes import Size
from vrft.errors import UserError
from vrft.policies import LoadedPolicy, load_policy, save_policy
from vrft.processes import all_of, is_main, join_processes, wait_for_all
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory, read_jsonl, replacing, write_json, write_jsonl
from vrft.sample import Sample, Target
from vrft.tasks import TrainableTask
from vrft.training.callback import StageCallback, StageResult
from vrft.training.trainer_arguments import check_processes
from vrft.training.validation import Validation, Validator


def seed_everything(seed: int) -> None:
    """Seed every generator that a stage draws from, so that it does not matter what ran before in this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def order_of(count: int, needed: int, seed: int) -> list[int]:
    """Which sample comes when: one permutation of all samples after another, ``needed`` in total.

    The order is fixed before training, so that a run that resumes sees what it would have seen.
    """
    rng = np.random.default_rng([seed, 0x0DE2])
    order: list[int] = []
    while len(order) < needed:
        order.extend(int(i) for i in rng.permutation(count))
    return order[:needed]


def balanced_order(targets: Sequence[Target], needed: int, seed: int) -> list[int]:
    """Which sample comes when, where each class comes once in every round of all classes, ``needed`` in total.

    Of a class all samples come before one comes again. Fixed before training, as in ``order_of``.

    >>> order = balanced_order(["common", "common", "common", "rare"], 4, seed=0)
    >>> order.count(3)
    2
    """
    members: dict[Target, list[int]] = {}
    for index, target in enumerate(targets):
        members.setdefault(target, []).append(index)
    rounds = -(-needed // len(members))
    turns = [[own[i] for i in order_of(len(own), rounds, seed)] for own in members.values()]
    rng = np.random.default_rng([seed, 0xBA1A])
    return [turns[i][number] for number in range(rounds) for i in rng.permutation(len(turns))][:needed]


def stage_order(stage: RftStage | SftStage, samples: Sequence[Sample], needed: int, seed: int) -> list[int]:
    """Which sample comes when in a stage, ``needed`` in total."""
    if stage.balance:
        return balanced_order([sample.target for sample in samples], needed, seed)
    return order_of(len(samples), needed, seed)


def lazy_dataset(
    policy: LoadedPolicy,
    samples: Sequence[Sample],
    order: Sequence[int],
    row: Callable[[Sample, Size, int], dict[str, Any]],
) -> Dataset:
    """A dataset that opens the image of a sample when its row is asked for, once for all its repetitions in a batch.

    Args:
        policy: what the images are for.
        samples: those to choose from.
        order: which come, by position.
        row: what a row holds beside the image, of the sample, the size of its original, and its place in the order.
    """

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        opened = {index: policy.open(samples[index]) for index in set(batch["index"])}
        made: dict[int, dict[str, Any]] = {}
        for index, place in zip(batch["index"], batch["place"], strict=True):
            if place not in made:
                image, size = opened[index]
                made[place] = {**row(samples[index], size, place), "image": image}
        chosen = [made[place] for place in batch["place"]]
        return {key: [one[key] for one in chosen] for key in chosen[0]}

    return Dataset.from_dict({"index": list(order), "place": list(range(len(order)))}).with_transform(_Unhashed(rows))


class _Unhashed:
    """A function that ``datasets`` does not take apart to name it, as it would with all weights that it can reach."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, batch: Any) -> Any:
        return self.function(batch)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return str, ("rows of a stage",)

    def __deepcopy__(self, memo: Any) -> "_Unhashed":
        return self


def user_message(policy: LoadedPolicy, task: TrainableTask, sample: Sample, size: Size) -> list[dict[str, str]]:
    """The prompt of a sample as TRL wants it: it adds the image itself."""
    return [{"role": "user", "content": policy.prompt(task, sample, size)}]


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The reference policy: a copy of the weights that a stage starts from, which nothing trains.

    TRL would load it by the name of the model, which is another policy where the start is an adapter or a revision.
    """
    copied: PreTrainedModel = copy.deepcopy(model)
    vars(copied).pop("forward", None)  # that of a trainer before, which is bound to the model
    return copied.eval().requires_grad_(False)


def put_weights(policy: LoadedPolicy, saved: Path) -> None:
    """Put the weights, or the adapters, that were saved in a directory into a policy in memory.

    transformers saves this architecture under other key names than it trains; loading by name in the trainer would
    pass over all of them in silence.
    """
    if isinstance(policy.model, PeftModel):
        set_peft_model_state_dict(policy.model, load_peft_weights(str(saved), device="cpu"), adapter_name="default")
        return
    loaded = load_policy(str(saved), training=True, trust_remote_code=policy.trust_remote_code)
    policy.model.load_state_dict(loaded.model.state_dict(), strict=True)


def begin(
    policy: LoadedPolicy,
    stage: RftStage | SftStage,
    directory: StageDirectory,
    *,
    seed: int,
    reporter: Reporter,
    label: str,
    validation: Validation | None = None,
) -> tuple[StageCallback, Path | None]:
    """Begin a stage, or go back to its newest whole checkpoint, which is returned with the bookkeeper."""
    join_processes()
    check_processes(stage)
    seed_everything(seed)
    validator = Validator(validation, policy, directory) if validation else None
    callback = StageCallback(directory, stage, reporter, label, validator)
    checkpoint = callback.resume()
    whole = policy.lora is None and not isinstance(policy.model, PeftModel)
    if whole and isinstance(stage, RftStage) and stage.kl:
        policy.reference = frozen_copy(policy.model)
    # Adapters are put back by the trainer, and so are weights that DeepSpeed saves in parts.
    if whole and checkpoint is not None and (checkpoint / "config.json").exists():
        put_weights(policy, checkpoint)
    return callback, checkpoint


def silence(trainer: Trainer) -> None:
    """Keep the trainer's own lines off the terminal."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def log_first(trainer: Trainer, callback: StageCallback) -> None:
    """Let the bookkeeper see each line of the log before the loggers, which then write it under its names."""
    trainer.remove_callback(callback)
    trainer.callback_handler.callbacks.insert(0, callback)


def finish(
    trainer: Trainer, policy: LoadedPolicy, directory: StageDirectory, callback: StageCallback, checkpoint: Path | None
) -> StageResult:
    """Train, write the policy and the rollouts, and only then say that the stage is done."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        told = "is not possible where weights are shared out over processes"
        if callback.validator is not None:
            raise UserError(f"{callback.label}: validate {told}; leave it out.")
        if policy.merges_adapters:
            raise UserError(f"{callback.label}: policy.lora.between_stages: merge {told}; expected continue.")
    silence(trainer)
    log_first(trainer, callback)
    with redirect_stdout(sys.stderr):  # loggers greet there
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            _leave_wandb(trainer)
    steps = trainer.state.global_step
    model = trainer.accelerator.unwrap_model(trainer.model)
    kept_step = _validated_last(callback, model, steps)
    vars(model).pop("forward", None)  # the trainer's, under autocast
    policy.model = model
    callback.reporter.stop()
    state = None  # the weights as the policy holds them
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)
    peak = max(all_of([callback.memory.peak_mb()]))
    result = StageResult(callback.seconds, callback.tokens, steps, peak, kept_step)
    if is_main():
        if kept_step != steps:
            put_weights(policy, directory.best_policy(kept_step))
        _write(policy, directory, callback, state)
        write_json(directory.done, vars(result))
        directory.drop_checkpoints()
        (directory.path / "README.md").unlink(missing_ok=True)  # the trainer's own card
    wait_for_all()
    return result


def _leave_wandb(trainer: Trainer) -> None:
    """End the run of a stage there; transformers would log the next stage into it."""
    if "wandb" in trainer.args.report_to and is_main():
        import wandb  # type: ignore[import-not-found, unused-ignore]

        wandb.finish()


def _validated_last(callback: StageCallback, model: Any, steps: int) -> int:
    """Validate the last step of a stage that ended early, and say which step's policy is handed on."""
    validator = callback.validator
    if validator is None:
        return steps
    if validator.last_step != steps:
        figures = validator.validate(model, steps)
        rows = read_jsonl(callback.directory.log)
        if is_main() and rows:
            rows[-1] |= {"validation": figures}
            write_jsonl(callback.directory.log, rows)
    return validator.best_step if validator.keeps_best else steps


def _write(
    policy: LoadedPolicy, directory: StageDirectory, callback: StageCallback, state: dict[str, Any] | None
) -> None:
    """Write the policy, its adapters where they are merged, and all rollouts."""
    if isinstance(policy.model, PeftModel) and policy.merges_adapters:
        with replacing(directory.adapter) as fresh:
            save_policy(policy, fresh, state)
        policy.model = (
            policy.model.cpu().float().merge_and_unload()
        )  # in bfloat16 most of a small update would be rounded off
        state = None
    with replacing(directory.policy) as fresh:
        save_policy(policy, fresh, state)
    parts = sorted(directory.rollouts_part(0).parent.glob("*.parquet"))
    frames = [pd.read_parquet(part) for part in parts] + (
        [pd.DataFrame(callback.rollouts)] if callback.rollouts else []
    )
    if frames:
        with replacing(directory.rollouts) as fresh:
            pd.concat(frames, ignore_index=True).to_parquet(fresh, index=False)
