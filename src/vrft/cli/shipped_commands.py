"""``vrft recipes``: list and copy the recipes of the package."""

from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

app = typer.Typer(help="The recipes that come with the package, for each source of data.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """Print name, source and purpose of each recipe."""
    from vrft.recipe.shipped import shipped_recipes

    for one in shipped_recipes():
        typer.echo(f"{one.name:22} {one.source:12} {shorten(one.about, 100, placeholder=' ...')}")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Such as sources/folder.")],
    to: Annotated[Path | None, typer.Argument(help="A file or a folder; the working directory without it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a recipe, to be changed."""
    from vrft.recipe.shipped import copy_recipe

    typer.echo(copy_recipe(name, to, force=force))
