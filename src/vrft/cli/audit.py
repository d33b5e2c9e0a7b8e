"""``vrft audit``: what is wrong with the data and the rewards of a recipe."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def audit(
    recipe: Annotated[Path, typer.Argument(help="The YAML file that describes the run.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as data.root=images.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples of a split, evenly spread; all without it.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that open images; one a core without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")] = False,
    run: Annotated[
        Path | None, typer.Option(help="Also store audit.json in this run directory, and show it in its report.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also store audit.json in this folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Find what is wrong with the data and the rewards of a recipe; the exit code is 2 where it would spoil a run."""
    from vrft.api import audit as audit_recipe
    from vrft.cli.terminal import audit_tables, make_reporter
    from vrft.errors import RunError
    from vrft.runs import RunDirectory, write_json

    if run is not None and not RunDirectory(run).environment.exists():
        raise RunError(f"{run} holds no run; give --run the directory of a run, or --out a folder.")
    found = audit_recipe(
        recipe, overrides=set_ or [], limit=limit, workers=workers, reporter=make_reporter(quiet=quiet)
    )
    plain: dict[str, Any] = found.to_json()
    for folder in (run, out):
        if folder is not None:
            write_json(folder / "audit.json", plain)
    if as_json:
        typer.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        typer.echo(audit_tables(plain, on_terminal=sys.stdout.isatty()))
    if not found.passed:
        raise typer.Exit(2)
