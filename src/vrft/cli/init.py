"""``vrft init FOLDER|FILE``: a recipe for data that are there."""

from pathlib import Path
from typing import Annotated

import typer

from vrft.errors import UserError


def init(
    data: Annotated[Path, typer.Argument(metavar="FOLDER|FILE", help="The folder of your data, or its table.")],
    out: Annotated[Path | None, typer.Option(help="The recipe to write; NAME.yaml without it.")] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "--kind", help="classification, grading or localization; guessed without it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run; that of the folder without it.")] = None,
    policy: Annotated[str, typer.Option(metavar="MODEL", help="tiny, a hub name or a directory.")] = "tiny",
    force: Annotated[bool, typer.Option("--force", help="Replace the recipe that is there.")] = False,
) -> None:
    """Write a recipe for a folder or a table of images, with what was seen and guessed as comments, and check it."""
    from vrft.recipe import read_recipe
    from vrft.recipe.draft import draft_recipe, plain_name

    path = out or Path(f"{name or plain_name(data)}.yaml")
    if path.exists() and not force:
        raise UserError(f"{path}: is there already; give --out FILE, or --force to replace it.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: its folder does not exist; create it first.")
    draft = draft_recipe(data, out=path, kind=task, name=name, policy=policy)
    try:
        path.write_text(draft.text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give --out FILE.") from None
    typer.echo(f"{path}: {draft.guess.kind} on {draft.guess.what} ({draft.guess.place})")
    for why in draft.guess.why:
        typer.echo(f"  {why}")
    if draft.samples:
        typer.echo(f"  Samples: {', '.join(f'{split} {count:,}' for split, count in draft.samples.items())}.")
    for other in draft.others[:5]:
        typer.echo(f"  Not taken: {other.what} ({other.place}); vrft init {other.place} reads it alone.")
    read_recipe(path)  # raises with all faults, which then are to be mended in the recipe
    typer.echo(f"next:\n  vrft audit {path}\n  vrft preflight {path}\n  vrft run {path}")
