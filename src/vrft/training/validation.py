"""Validation while a stage trains: figures of the task, the best policy so far, and when to stop."""

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
    """What a stage is validated with.

    Args:
        section: of the recipe.
        metric: the figure that decides, one of those that ``measure`` gives.
        measure: all figures of a policy on the validation split, the same in every process.
    """

    section: Validate
    metric: str
    measure: Callable[[LoadedPolicy], dict[str, float]]


class Validator:
    """The validations of one stage.

    The best policy so far lies in the directory of the stage under its step, until the stage is done. A stage that
    resumes goes back to what its checkpoint knew.
    """

    def __init__(self, validation: Validation, policy: LoadedPolicy, directory: StageDirectory) -> None:
        self.validation, self.policy, self.directory = validation, policy, directory
        self.last_step = self.best_step = self.waited = 0
        self.best_value: float | None = None

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"last": self.last_step, "best": self.best_step, "waited": self.waited, "value": self.best_value}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.last_step, self.best_step, self.waited = facts["last"], facts["best"], facts["waited"]
        self.best_value = facts["value"]

    def is_due(self, step: int, last: int) -> bool:
        """Whether a step is one to validate after: every so many, and the last."""
        return step % self.validation.section.every == 0 or step == last

    @property
    def is_out_of_patience(self) -> bool:
        patience = self.validation.section.patience
        return patience is not None and self.waited >= patience

    @property
    def keeps_best(self) -> bool:
        return self.validation.section.keep == "best"

    def validate(self, model: Any, step: int) -> dict[str, float]:
        """Measure the model after a step, and keep it where it is the best so far (of equals the first)."""
        was_training = model.training
        policy = replace(self.policy, model=model)
        figures = self.validation.measure(policy)
        model.train(was_training)
        value = figures[self.validation.metric]
        sign = -1 if self.validation.metric in LOWER_IS_BETTER else 1
        self.last_step = step
        if self.best_value is not None and sign * value <= sign * self.best_value:
            self.waited += 1
            return figures
        self.best_value, self.best_step, self.waited = value, step, 0
        if self.keeps_best and is_main():
            with replacing(self.directory.best_policy(step)) as fresh:
                save_policy(policy, fresh)
        return figures

    def drop_others(self) -> None:
        """Delete the policies that were the best before; a checkpoint knows the one that is."""
        for step, place in self.directory.best_policies().items():
            if step != self.best_step:
                shutil.rmtree(place)
