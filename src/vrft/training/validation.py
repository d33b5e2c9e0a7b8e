"""Validation during training: metrics of the task, the best policy so far, and early stopping."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vrft.policies import LoadedPolicy, save_policy
from vrft.processes import is_main
from vrft.recipe import Validate
from vrft.runs import StageDirectory, replacing
from vrft.tasks import LOWER_IS_BETTER


@dataclass(frozen=True)
class Validation:
    """How a stage is validated.

    Args:
        section: the section ``validate`` of the recipe.
        metric: the metric that decides which policy is best, a key of the result of ``measure``.
        measure: returns all metrics of a policy on the validation split, the same in every process.
    """

    section: Validate
    metric: str
    measure: Callable[[LoadedPolicy], dict[str, float]]


class Validator:
    """The validations of one stage.

    The directory of the stage holds the best policy so far until the stage is done. A stage that resumes restores the
    state of its checkpoint.
    """

    def __init__(self, validation: Validation, policy: LoadedPolicy, directory: StageDirectory) -> None:
        self.validation, self.policy, self.directory = validation, policy, directory
        self.last_step = self.best_step = self.waited = 0
        self.best_value: float | None = None

    def facts(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"last": self.last_step, "best": self.best_step, "waited": self.waited, "value": self.best_value}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint (``facts``)."""
        self.last_step, self.best_step, self.waited = facts["last"], facts["best"], facts["waited"]
        self.best_value = facts["value"]

    def is_due(self, step: int, last: int) -> bool:
        """Whether to validate after a step: every ``every`` steps, and after the last."""
        return step % self.validation.section.every == 0 or step == last

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the last ``patience`` validations brought no better policy."""
        patience = self.validation.section.patience
        return patience is not None and self.waited >= patience

    @property
    def keeps_best(self) -> bool:
        """Whether the stage ends with its best policy, in place of its last."""
        return self.validation.section.keep == "best"

    def validate(self, model: Any, step: int) -> dict[str, float]:
        """Return the metrics of the model after a step, and keep it if it is the best so far (on a tie, the first)."""
        was_training = model.training
        policy = replace(self.policy, model=model)
        metrics = self.validation.measure(policy)
        model.train(was_training)
        value = metrics[self.validation.metric]
        sign = -1 if self.validation.metric in LOWER_IS_BETTER else 1
        self.last_step = step
        if self.best_value is not None and sign * value <= sign * self.best_value:
            self.waited += 1
            return metrics
        self.best_value, self.best_step, self.waited = value, step, 0
        if self.keeps_best and is_main():
            with replacing(self.directory.best_policy(step)) as path:
                save_policy(policy, path)
        return metrics

    def drop_others(self) -> None:
        """Delete policies that are no longer the best; called when a checkpoint has stored which policy is."""
        for step, path in self.directory.best_policies().items():
            if step != self.best_step:
                shutil.rmtree(path)
