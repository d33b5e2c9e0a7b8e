"""VRFT-Aug: visual reinforcement fine-tuning of vision-language models in medical imaging.

The names of ``__all__`` are the library. Each is imported when it is first used, so that ``import vrft`` takes no time
and the base package needs no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrft.api import Run as Run
    from vrft.api import ablate as ablate
    from vrft.api import audit as audit
    from vrft.api import evaluate as evaluate
    from vrft.api import predict as predict
    from vrft.api import preflight as preflight
    from vrft.api import run as run
    from vrft.auditing import Audit as Audit
    from vrft.auditing import Finding as Finding
    from vrft.data import Source as Source
    from vrft.errors import DataError as DataError
    from vrft.errors import UserError as UserError
    from vrft.policies import load_policy as load_policy
    from vrft.progress import Reporter as Reporter
    from vrft.recipe import Recipe as Recipe
    from vrft.recipe import read_recipe as read_recipe
    from vrft.rewards import accuracy_reward as accuracy_reward
    from vrft.rewards import f1_reward as f1_reward
    from vrft.rewards import format_reward as format_reward
    from vrft.rewards import fuzzy_reward as fuzzy_reward
    from vrft.rewards import iou_reward as iou_reward
    from vrft.rewards import recitation_reward as recitation_reward
    from vrft.rewards.scoring import score as score
    from vrft.sample import Sample as Sample
    from vrft.tasks import Task as Task

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the libraries read it: nothing leaves the machine

__version__ = "0.1.0"

_MODULES = {
    "Audit": "vrft.auditing",
    "DataError": "vrft.errors",
    "Finding": "vrft.auditing",
    "Recipe": "vrft.recipe",
    "Reporter": "vrft.progress",
    "Run": "vrft.api",
    "Sample": "vrft.sample",
    "Source": "vrft.data",
    "Task": "vrft.tasks",
    "UserError": "vrft.errors",
    "ablate": "vrft.api",
    "accuracy_reward": "vrft.rewards",
    "audit": "vrft.api",
    "evaluate": "vrft.api",
    "f1_reward": "vrft.rewards",
    "format_reward": "vrft.rewards",
    "fuzzy_reward": "vrft.rewards",
    "iou_reward": "vrft.rewards",
    "load_policy": "vrft.policies",
    "predict": "vrft.api",
    "preflight": "vrft.api",
    "read_recipe": "vrft.recipe",
    "recitation_reward": "vrft.rewards",
    "run": "vrft.api",
    "score": "vrft.rewards.scoring",
}
"""Where each name of the library is."""

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vrft' has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from vrft.extras import TRAINING, without_packages

        if (missing := (error.name or "").partition(".")[0]) in TRAINING:
            raise ImportError(without_packages(f"vrft.{name}", [missing])) from None
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
