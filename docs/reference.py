"""Write the reference pages from the code: ``python docs/reference.py``; a test fails when they are stale."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from typer.main import get_command

from vrft.cli.main import app
from vrft.evaluation.box_metrics import BOX_METRICS
from vrft.evaluation.metrics import METRICS
from vrft.recipe import ARMS, Recipe
from vrft.rewards import APPLIES, REWARDS

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs" / "reference"


def recipe_page() -> str:
    """Every key of a recipe, with its type, its default and what it is."""
    lines = ["# Recipe keys", "", "Generated from `vrft.recipe`. Unknown keys are errors.", ""]
    seen: set[type[BaseModel]] = set()
    queue: list[type[BaseModel]] = [Recipe]
    while queue:
        model = queue.pop(0)
        if model in seen:
            continue
        seen.add(model)
        lines += [f"## {model.__name__}", "", inspect.getdoc(model) if model.__doc__ else "", ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
            kind = _type(field.annotation)
            lines.append(f"| `{name}` | {kind} | {default} | {' '.join((field.description or '').split())} |")
            queue += list(_models(field.annotation))
        lines.append("")
    lines += ["## Arms", "", *(f"- `{name}`: {text}" for name, text in ARMS.items()), ""]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _type(annotation: Any) -> str:
    """A type as a user of YAML would say it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])}: {_type(inner[1])}"
    if inner:
        return " or ".join(_type(one) for one in inner)
    return {type(None): "nothing", str: "text", int: "integer", float: "number", bool: "true or false"}.get(
        annotation, "any"
    )


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def functions_page(title: str, functions: dict[str, Any], notes: dict[str, str]) -> str:
    """One section a function: its note and its docstring."""
    lines = [f"# {title}", "", "Generated from the docstrings.", ""]
    for name, function in functions.items():
        lines += [f"## {name}", "", notes.get(name, ""), "", "```text", inspect.getdoc(function) or "", "```", ""]
    return "\n".join(lines)


def commands_page() -> str:
    """The help of every command."""
    lines = ["# Commands", "", "Generated from `vrft`.", ""]
    for name, command in _commands("vrft", get_command(app)):
        lines += [f"## {name}", "", command.help or "", "", "| argument or option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
            lines.append(f"| `{names}` | {getattr(parameter, 'help', '') or ''} |")
        lines.append("")
    return "\n".join(lines)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """All commands that do something, by their full names; a group only holds others."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, one in sorted((inner or {}).items()):
        yield from _commands(f"{name} {word}", one)


SKILLS = {
    "format": "the envelope is right, all examples",
    "size": "size named",
    "brightness": "brightness named",
    "shape": "shape named",
    "margin": "margin named",
    "count": "grade by count, 3 to 6 grades",
    "extent": "grade by extent, 3 to 5 grades",
    "attribute": "attribute as a label, 2 or 4 labels",
    "listed": "answers one of the listed labels, when they mean nothing",
    "card2": "reads a card of two classes",
    "card4": "reads a card of four classes",
    "card_removed": "the same two classes without the card (chance is 0.5)",
    "mean_iou": "box: mean IoU",
    "iou50": "box: IoU above 0.5",
}
"""What the figures of the embedded policy's card mean."""


def tiny_page() -> str:
    """What the embedded policy can do, and how it came to it, from the card beside its weights."""
    card = json.loads((ROOT / "src/vrft/policies/tiny/weights/card.json").read_text())
    lines = ["# The embedded policy in figures", "", "Generated from the card beside its weights.", ""]
    lines += [
        f"{card['parameters']:,} parameters; {card['samples']:,} samples in {card['hours']} hours on {card['machine']} "
        f"({card['samples'] / card['hours'] / 3600:.0f} a second, evaluations included).",
        "",
        "Held out, greedy; Wilson intervals of 95% (of the mean IoU a normal one). Attributes are counted as they are "
        "named in the think block, over all examples that show a finding.",
        "",
        "| skill | key | figure | interval | n |",
        "|---|---|---|---|---|",
    ]
    for key, what in SKILLS.items():
        one = card["evaluation"][key]
        lines.append(
            f"| {what} | `{key}` | {one['value']:.3f} | {one['low']:.3f} to {one['high']:.3f} | {one['n']:.0f} |"
        )
    lines += ["", "During pretraining, 100 examples a skill:", ""]
    lines += [f"| samples | {' | '.join(f'`{key}`' for key in SKILLS)} |", f"|---{'|---' * len(SKILLS)}|"]
    for row in card["curves"]:
        lines.append(f"| {row['samples']:,} | {' | '.join(f'{row[key]:.2f}' for key in SKILLS)} |")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """File name -> text."""
    applies = {name: f"Applies to {', '.join(kinds)}." for name, kinds in APPLIES.items()}
    return {
        "recipe.md": recipe_page(),
        "rewards.md": functions_page("Rewards", REWARDS, applies),
        "metrics.md": functions_page("Metrics", {**METRICS, **BOX_METRICS}, {}),
        "commands.md": commands_page(),
        "tiny.md": tiny_page(),
    }


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for file, text in pages().items():
        (HERE / file).write_text(text.rstrip() + "\n", encoding="utf-8")
