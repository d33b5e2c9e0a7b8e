"""Tasks: the prompt, the reading of an answer, the check of a target, and the metrics."""

from vrft.tasks.base import Task
from vrft.tasks.classification import Classification
from vrft.tasks.grading import Grading
from vrft.tasks.localization import Localization
from vrft.tasks.task_sections import SECTIONS, Section, read_section, task_from
from vrft.tasks.vqa import Vqa

ClosedTask = Classification | Grading
"""A task whose targets are a closed list of classes."""

TrainableTask = ClosedTask | Localization
"""A task that a recipe can name."""

LOWER_IS_BETTER = {"mae"}
"""Metrics of which a smaller value is better."""

__all__ = [
    "LOWER_IS_BETTER",
    "SECTIONS",
    "Classification",
    "ClosedTask",
    "Grading",
    "Localization",
    "Section",
    "Task",
    "TrainableTask",
    "Vqa",
    "read_section",
    "task_from",
]
