"""What both trainers share: the order of the data, the bookkeeping of a stage, and going on after a kill."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from vrft.boxes import Size
from vrft.policies import LoadedPolicy, load_policy, save_policy
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory, read_json, read_jsonl, replacing, write_json, write_jsonl
from vrft.sample import Sample, Target
from vrft.tasks import TrainableTask
from vrft.training.memory import PeakMemory

BETAS = (0.9, 0.999)
"""Of AdamW, in every stage."""


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
    policy: LoadedPolicy, samples: Sequence[Sample], order: Sequence[int], row: Callable[[Sample, Size], dict[str, Any]]
) -> Dataset:
    """A dataset that opens the image of a sample when its row is asked for, once for all its repetitions in a batch.

    Args:
        policy: what the images are for.
        samples: those to choose from.
        order: which come, by position.
        row: what a row holds beside the image, of the sample and the size of its original.
    """

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        made = {}
        for index in set(batch["index"]):
            image, size = policy.open(samples[index])
            made[index] = {**row(samples[index], size), "image": image}
        chosen = [made[index] for index in batch["index"]]
        return {key: [one[key] for one in chosen] for key in chosen[0]}

    return Dataset.from_dict({"index": list(order)}).with_transform(rows)


def user_message(policy: LoadedPolicy, task: TrainableTask, sample: Sample, size: Size) -> list[dict[str, str]]:
    """The prompt of a sample as TRL wants it: it adds the image itself."""
    return [{"role": "user", "content": policy.prompt(task, sample, size)}]


@dataclass
class StageResult:
    """What a stage cost."""

    seconds: float
    tokens: int
    steps: int
    peak_mb: float


class Bookkeeper(TrainerCallback):
    """Writes the log and the rollouts of a stage, seals its checkpoints, and shows progress."""

    def __init__(self, directory: StageDirectory, stage: RftStage | SftStage, reporter: Reporter, label: str) -> None:
        self.directory, self.stage, self.reporter, self.label = directory, stage, reporter, label
        self.rollouts: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.before, self.began, self.tokens = 0.0, time.monotonic(), 0
        self.memory = PeakMemory()

    def resume(self) -> Path | None:
        """Go back to the newest whole checkpoint: what was logged after it is taken out.

        Returns:
            the checkpoint, or None to start from the beginning.
        """
        checkpoint = self.directory.checkpoint()
        step = 0
        if checkpoint is not None:
            facts = read_json(checkpoint / "whole.json")
            step, self.before, self.tokens = facts["step"], facts["seconds"], facts["tokens"]
            self.began = time.monotonic()
            if self.spent():  # killed after its last step: nothing is left to be trained
                self.stage = self.stage.model_copy(update={"steps": step})
        rows = [row for row in read_jsonl(self.directory.log) if row["step"] <= step]
        write_jsonl(self.directory.log, rows)
        for part in self.directory.rollouts_part(0).parent.glob("*.parquet"):
            if int(part.stem) > step:
                part.unlink()
        self.began = time.monotonic()
        self.reporter.start(self.label, self.stage.steps, step)
        return checkpoint

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        self.tokens = int(logs.get("num_tokens") or self.tokens)
        row = {"step": state.global_step, **log_row(logs), **self.extra, "seconds": round(self.seconds, 3)}
        with self.directory.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        note = f"reward {row['reward']:.3f}" if "reward" in row else f"loss {row['loss']:.3f}"
        self.reporter.advance(state.global_step, note)
        if self.spent():
            control.should_training_stop = True

    def spent(self) -> bool:
        """Whether the stage has used up what it may."""
        stage = self.stage
        return bool(
            (stage.max_tokens and self.tokens >= stage.max_tokens)
            or (stage.max_seconds and self.seconds >= stage.max_seconds)
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.rollouts:
            with replacing(self.directory.rollouts_part(state.global_step)) as fresh:
                pd.DataFrame(self.rollouts).to_parquet(fresh, index=False)
            self.rollouts.clear()
        checkpoint = self.directory.path / f"checkpoint-{state.global_step}"
        facts = {"step": state.global_step, "seconds": self.seconds, "tokens": self.tokens}
        self.directory.seal(checkpoint, facts)


LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "cut_off",
    "mean_token_accuracy": "token_accuracy",
    "num_tokens": "tokens",
    "skipped_groups": "skipped_groups",
    "resampled_groups": "resampled_groups",
}
"""What TRL calls a figure -> what the log calls it."""


def log_row(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a step under our names."""
    return {ours: logs[theirs] for theirs, ours in LOGGED.items() if logs.get(theirs) is not None}


def trainer_options(stage: RftStage | SftStage, directory: StageDirectory, seed: int, sequences: int) -> dict[str, Any]:
    """The training arguments that both trainers take; nothing that decides a result is left to a default."""
    cuda = torch.cuda.is_available()
    devices = max(1, torch.cuda.device_count()) if torch.distributed.is_initialized() else 1
    each = sequences // devices
    micro = min(stage.micro_batch or each, each)
    workers = stage.loader_workers
    if workers is None:  # where processes are not forked, what a row is made by cannot be sent to them
        workers = 2 if cuda and get_start_method() == "fork" else 0
    return {
        "output_dir": str(directory.path),
        "max_steps": stage.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, each // micro),
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.lr_schedule if stage.lr_schedule != "constant" else "constant_with_warmup",
        "warmup_steps": stage.warmup_steps,
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "optim": "adamw_torch",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "activation_checkpointing": stage.gradient_checkpointing,
        "logging_strategy": "steps",
        "logging_steps": stage.log_every,
        "save_strategy": "steps",
        "save_steps": stage.save_every,
        "save_total_limit": 2,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "bf16": False,  # the policy is loaded in the precision that it trains in
        "fp16": False,
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
    }


def start_policy(policy: LoadedPolicy, checkpoint: Path | None) -> None:
    """Put the weights of a checkpoint into a policy that will be trained whole.

    transformers saves this architecture under other key names than it trains; loading by name in the trainer would
    pass over all of them in silence. The policy keeps the name of the weights that the stage started from, which TRL
    loads as the reference policy.
    """
    if checkpoint is None or policy.lora is not None or isinstance(policy.model, PeftModel):
        return
    saved = load_policy(str(checkpoint), dtype=str(policy.model.dtype).removeprefix("torch."))
    policy.model.load_state_dict(saved.model.state_dict(), strict=True)


def begin(
    policy: LoadedPolicy,
    stage: RftStage | SftStage,
    directory: StageDirectory,
    *,
    seed: int,
    reporter: Reporter,
    label: str,
) -> tuple[Bookkeeper, Path | None]:
    """Begin a stage, or go back to its newest whole checkpoint, which is returned with the bookkeeper."""
    seed_everything(seed)
    keeper = Bookkeeper(directory, stage, reporter, label)
    checkpoint = keeper.resume()
    start_policy(policy, checkpoint)
    return keeper, checkpoint


def silence(trainer: Trainer) -> None:
    """Keep the trainer's own lines off the terminal."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def finish(
    trainer: Trainer, policy: LoadedPolicy, directory: StageDirectory, keeper: Bookkeeper, checkpoint: Path | None
) -> StageResult:
    """Train, write the policy and the rollouts, and only then say that the stage is done."""
    silence(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    keeper.reporter.stop()
    policy.model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(policy.model, PeftModel) and not policy.keeps_adapters:  # whole weights: other tools need no chain
        policy.model = policy.model.merge_and_unload()
    with replacing(directory.policy) as fresh:
        save_policy(policy, fresh)
    parts = sorted(directory.rollouts_part(0).parent.glob("*.parquet"))
    frames = [pd.read_parquet(part) for part in parts] + ([pd.DataFrame(keeper.rollouts)] if keeper.rollouts else [])
    if frames:
        with replacing(directory.rollouts) as fresh:
            pd.concat(frames, ignore_index=True).to_parquet(fresh, index=False)
    result = StageResult(keeper.seconds, keeper.tokens, trainer.state.global_step, keeper.memory.peak_mb())
    write_json(directory.done, vars(result))
    directory.drop_checkpoints()
    (directory.path / "README.md").unlink(missing_ok=True)  # the trainer's own card
    return result
