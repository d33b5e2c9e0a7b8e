"""Options that say what is asked: the keys of the section ``task``, shared by the commands that need one."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from vrft.errors import UserError

TASK_OPTIONS: dict[str, Any] = {
    "kind": Annotated[
        str | None, typer.Option("--task", "--kind", help="classification, grading, localization or vqa.")
    ],
    "labels": Annotated[list[str] | None, typer.Option("--labels", "--label", help="A label; repeat it for each.")],
    "synonyms": Annotated[
        list[str] | None,
        typer.Option("--synonyms", "--synonym", metavar="LABEL=NAME", help="Another name of a label."),
    ],
    "levels": Annotated[int | None, typer.Option(help="How many grades the scale has.")],
    "names": Annotated[
        list[str] | None, typer.Option("--names", "--name", help="A name of a grade, lowest first; repeat it.")
    ],
    "frame": Annotated[str | None, typer.Option(help="Of the boxes: pixel, resized, thousand or unit.")],
    "answers": Annotated[str | None, typer.Option(help="Of a question: yes_no, choice or open.")],
    "choices": Annotated[
        list[str] | None, typer.Option("--choices", "--choice", metavar="LETTER=TEXT", help="A choice; repeat it.")
    ],
}
"""The options by the key of the section that each gives."""


def takes_task(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a task in the place of its parameter ``task``, a dictionary of the keys given."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        options = TASK_OPTIONS if parameter.name == "task" else {parameter.name: parameter.annotation}
        default = None if parameter.name == "task" else parameter.default
        parameters += [
            inspect.Parameter(name, parameter.kind, default=default, annotation=annotation)
            for name, annotation in options.items()
        ]

    @wraps(command)
    def wrapped(**given: Any) -> None:
        task = {name: given.pop(name) for name in TASK_OPTIONS}
        task["synonyms"] = _pairs(task["synonyms"], "--synonym", several=True)
        task["choices"] = _pairs(task["choices"], "--choice", several=False)
        command(task={key: value for key, value in task.items() if value not in (None, [])}, **given)

    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapped


def _pairs(options: list[str] | None, name: str, *, several: bool) -> dict[str, Any] | None:
    """``KEY=VALUE`` options as a dictionary."""
    found: dict[str, Any] = {}
    for option in options or ():
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise UserError(f"{name} {option}: expected {'LABEL=NAME' if several else 'LETTER=TEXT'}.")
        if several:
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found or None
