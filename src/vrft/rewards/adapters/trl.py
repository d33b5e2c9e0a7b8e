"""Reward functions for TRL's ``GRPOTrainer``, with the task bound, so that a dataset needs only its targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrft.rewards import APPLIES, REWARDS
from vrft.tasks import Task, read_section, task_from

RewardFunction = Callable[..., list[float | None]]


def reward_functions(
    task: Task | Mapping[str, Any], rewards: Sequence[str] | None = None, **options: Any
) -> list[RewardFunction]:
    """Return one reward function for each reward, with the name that TRL logs.

    Args:
        task: a task, or its section as in a recipe.
        rewards: names of rewards; by default all that apply to the task.
        options: options of the rewards, such as ``schedule``, ``order``, ``measure`` or ``threshold``; ``prompt_end``
            where the chat template opens ``<think>``, since TRL passes the messages without the text of the template.

    Raises:
        ValueError: the task is not valid, or a reward does not apply to it.

    >>> functions = reward_functions({"kind": "grading", "levels": 5}, ["fuzzy", "format"])
    >>> [function.__name__ for function in functions]
    ['fuzzy_reward', 'format_reward']
    >>> functions[0](prompts=[""], completions=["<answer>3</answer>"], target=[2])
    [0.25]
    """
    bound = task if isinstance(task, Task) else task_from(read_section(task))
    applicable = [name for name, kinds in APPLIES.items() if bound.kind in kinds]
    for name in rewards or ():
        if name not in applicable:
            raise ValueError(f"the reward {name!r} does not apply to {bound.kind}; expected {', '.join(applicable)}")
    return [_bind(name, bound, options) for name in rewards or applicable]


def _bind(name: str, task: Task, options: Mapping[str, Any]) -> RewardFunction:
    def reward(completions: Sequence[Any], target: Any, **columns: Any) -> list[float | None]:
        return REWARDS[name](completions, target=target, **{**columns, **task.columns, **options})

    reward.__name__ = f"{name}_reward"
    return reward
