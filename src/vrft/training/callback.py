"""The callback of a stage: its log, rollouts, checkpoints and budget.

Every process of a run has the callback, since all must end with the same step; only the first process writes.
"""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from vrft.errors import TrainingError
from vrft.processes import StoppedElsewhere, all_of, from_main, is_main, process_count, wait_for_all
from vrft.progress import Reporter
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory, read_json, read_jsonl, replacing, write_jsonl
from vrft.training.memory import PeakMemory
from vrft.training.validation import Validator

clock = time.monotonic
"""The clock of ``seconds`` in the log, the budget and the cost."""


@dataclass
class StageResult:
    """The cost of a stage, and the step whose policy it ends with."""

    seconds: float
    tokens: int
    steps: int
    peak_mb: float
    kept_step: int


class StageCallback(TrainerCallback):
    """Writes the log and the rollouts of a stage, completes its checkpoints, and reports progress.

    Args:
        directory: the directory of the stage.
        stage: the stage of the recipe.
        reporter: shows progress.
        label: the name of the stage in messages.
        validator: validates the policy during training; None without validation.
    """

    def __init__(
        self,
        directory: StageDirectory,
        stage: RftStage | SftStage,
        reporter: Reporter,
        label: str,
        validator: Validator | None = None,
    ) -> None:
        self.directory, self.stage, self.reporter, self.label = directory, stage, reporter, label
        self.validator = validator
        self.rollouts: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        """Further metrics for the next line of the log."""
        self.earlier_seconds, self.started, self.tokens = 0.0, clock(), 0
        self.memory = PeakMemory()

    def resume(self) -> Path | None:
        """Go back to the newest complete checkpoint; log lines, rollouts and policies of later steps are deleted.

        Returns:
            The checkpoint, or None to start from the beginning.
        """
        checkpoint = from_main(self.directory.checkpoint)
        step = 0
        if checkpoint is not None:
            facts = read_json(checkpoint / "whole.json")
            step, self.earlier_seconds, self.tokens = facts["step"], facts["seconds"], facts["tokens"]
            self.started = clock()
            if self.validator is not None:
                self.validator.restore(facts["validation"])
            stopped = self.validator is not None and self.validator.is_out_of_patience
            if stopped or self._budget_is_spent():  # killed after its last step: no step is left
                self.stage = self.stage.model_copy(update={"steps": step})
        if is_main():
            rows = [row for row in read_jsonl(self.directory.log) if row["step"] <= step]
            write_jsonl(self.directory.log, rows)
            for part in self.directory.rollouts_part(0).parent.glob("*.parquet"):
                if int(part.stem) > step:
                    part.unlink()
            for kept_step, kept in self.directory.best_policies().items():
                if kept_step > step:
                    shutil.rmtree(kept)
        wait_for_all()
        self.started = clock()
        self.reporter.start(self.label, self.stage.steps, step)
        return checkpoint

    @property
    def seconds(self) -> float:
        """Seconds of the stage so far, including those before a resume."""
        return self.earlier_seconds + clock() - self.started

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """End the stage before a gradient that is not finite is applied."""
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        if not gradients:
            return  # DeepSpeed keeps the gradients itself; the norm in the log is checked
        norm = torch.nn.utils.get_total_norm(list(gradients.values()))
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        bad: list[str] = []
        if not torch.isfinite(norm):
            bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        if any(all_of([not torch.isfinite(norm).item()])):
            fault = "the norm of the gradient is not finite"
            if bad:
                fault = f"the gradients of {len(bad)} of {len(gradients)} weights are not finite (first {bad[0]})"
            self._fail(state.global_step + 1, fault)

    def _fail(self, step: int, fault: str) -> None:
        if not is_main():
            raise StoppedElsewhere(fault)
        last = read_jsonl(self.directory.log)[-1:]
        metrics = [f"{key} {last[0][key]:.4g}" for key in ("loss", "grad_norm", "kl") if last and last[0].get(key)]
        before = f"; in step {last[0]['step']}: {', '.join(metrics)}" if metrics else ""
        raise TrainingError(
            f"{self.label}: {fault} in step {step}{before}. Nothing of this step was kept. Try a lower learning_rate, "
            f"more warmup_steps, a lower max_grad_norm, or policy.dtype: float32."
        )

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Validate the policy where this is due, and end the stage early where patience is used up."""
        if state.global_step % self.stage.save_every == 0 or state.global_step == state.max_steps:
            control.should_log = True  # a checkpoint must not be ahead of the log
        if self.validator is None or not self.validator.is_due(state.global_step, state.max_steps):
            return
        self.extra["validation"] = self.validator.validate(model, state.global_step)
        control.should_log = True
        if self.validator.is_out_of_patience:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line of the log, and end the stage where its budget is spent.

        Raises:
            TrainingError: the loss or the norm of the gradient is not finite.
        """
        if not logs or "loss" not in logs:
            return
        self.tokens = int(logs.get("num_tokens") or self.tokens)
        row = {"step": state.global_step, **log_row(logs), "tokens": self.tokens, **self.extra}
        row["seconds"] = round(self.seconds, 3)
        self.extra = {}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row.get(name, 0.0)):
                self._fail(state.global_step, f"the {name} is {row[name]}")
        logs.clear()
        logs.update(flatten_metrics(row))  # for the loggers, whose callbacks come later
        if is_main():
            with self.directory.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        note = f"reward {row['reward']:.3f}" if "reward" in row else f"loss {row['loss']:.3f}"
        self.reporter.advance(state.global_step, note)
        if self._budget_is_spent():
            control.should_training_stop = True

    def _budget_is_spent(self) -> bool:
        """Whether the tokens or seconds of the stage are used up; clocks differ, so the first process decides."""
        stage = self.stage
        if stage.max_tokens and self.tokens >= stage.max_tokens:
            return True
        limit = stage.max_seconds
        return limit is not None and from_main(lambda: self.seconds >= limit)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the rollouts so far, and mark the checkpoint as complete."""
        if process_count() > 1:
            wait_for_all()  # until the other processes have written their parts
        if not is_main():
            return
        if isinstance(self.stage, RftStage) and state.global_step % self.stage.updates_per_batch:
            return  # a run cannot resume within a batch of rollouts
        if self.rollouts:
            with replacing(self.directory.rollouts_part(state.global_step)) as path:
                pd.DataFrame(self.rollouts).to_parquet(path, index=False)
            self.rollouts.clear()
        checkpoint = self.directory.path / f"checkpoint-{state.global_step}"
        facts = {"step": state.global_step, "seconds": self.seconds, "tokens": self.tokens}
        if self.validator is not None:
            facts["validation"] = self.validator.facts()
        self.directory.seal(checkpoint, facts)
        if self.validator is not None:
            self.validator.drop_others()


LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clipped",
    "cispo_clip_ratio": "clipped",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "cut_off",
    "mean_token_accuracy": "token_accuracy",
    "sampling/sampling_logp_difference/mean": "engine_logp_difference",
    "sampling/importance_sampling_ratio/mean": "engine_ratio",
    "skipped_groups": "skipped_groups",
    "resampled_groups": "resampled_groups",
}
"""Name of a metric in TRL -> name in the log."""


def log_row(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a step under the names of the log."""
    return {ours: logs[theirs] for theirs, ours in LOGGED.items() if logs.get(theirs) is not None}


def flatten_metrics(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """A line of the log as a flat mapping from names to numbers, without the step.

    >>> flatten_metrics({"step": 3, "loss": 0.5, "rewards": {"format": {"mean": 1.0, "share": None}}})
    {'loss': 0.5, 'rewards.format.mean': 1.0}
    """
    metrics: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            metrics |= flatten_metrics(value, f"{prefix}{key}.")
        elif value is not None and prefix + key != "step":
            metrics[prefix + key] = value
    return metrics
