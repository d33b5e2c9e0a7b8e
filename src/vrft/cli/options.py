"""Options that say what is asked: the keys of the section ``task``, shared by the commands that need one."""

from typing import Annotated, Any

import typer

from vrft.errors import UserError

Kind = Annotated[str | None, typer.Option("--task", "--kind", help="classification, grading, localization or vqa.")]
Labels = Annotated[list[str] | None, typer.Option("--labels", "--label", help="A label; repeat it for each.")]
Synonyms = Annotated[
    list[str] | None,
    typer.Option("--synonyms", "--synonym", metavar="LABEL=NAME", help="Another name of a label."),
]
Levels = Annotated[int | None, typer.Option(help="How many grades the scale has.")]
Names = Annotated[
    list[str] | None, typer.Option("--names", "--name", help="A name of a grade, lowest first; repeat it.")
]
Frame = Annotated[str | None, typer.Option(help="Of the boxes: pixel, resized, thousand or unit.")]
Answers = Annotated[str | None, typer.Option(help="Of a question: yes_no, choice or open.")]
Choices = Annotated[
    list[str] | None, typer.Option("--choices", "--choice", metavar="LETTER=TEXT", help="A choice; repeat it.")
]


def task_keys(
    *,
    kind: str | None,
    labels: list[str] | None,
    synonyms: list[str] | None,
    levels: int | None,
    names: list[str] | None,
    frame: str | None,
    answers: str | None,
    choices: list[str] | None,
) -> dict[str, Any]:
    """The keys of the section that the options give.

    Raises:
        UserError: a pair has no equals sign.
    """
    task = {
        "kind": kind,
        "labels": labels or None,
        "synonyms": _pairs(synonyms, "--synonym", several=True),
        "levels": levels,
        "names": names or None,
        "frame": frame,
        "answers": answers,
        "choices": _pairs(choices, "--choice", several=False),
    }
    return {key: value for key, value in task.items() if value is not None}


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
