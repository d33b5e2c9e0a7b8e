"""Tasks: what is asked, how an answer is read, and what is measured."""

from vrft.tasks.classification import Classification
from vrft.tasks.grading import Grading

Task = Classification | Grading

__all__ = ["Classification", "Grading", "Task"]
