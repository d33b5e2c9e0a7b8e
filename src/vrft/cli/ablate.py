"""``vrft ablate RECIPE``: every combination of the augmentations beside control arms, by seeds."""

import re
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vrft.errors import UserError
from vrft.extras import need


def ablate(
    recipe: Annotated[Path, typer.Argument(help="The recipe that the arms have in common.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as ablation.recite=0.5."),
    ] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; repeat it for each.")] = None,
    fraction: Annotated[
        str | None, typer.Option(metavar="1/N", help="Only a balanced part of the combinations, such as 1/2.")
    ] = None,
    plan_: Annotated[
        bool,
        typer.Option("--plan", help="Measure a few steps, print what is to be done and its cost, and write nothing."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Its directory; runs/NAME-ablation without it.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="The folder of trained stages that runs share; _store beside --out without it.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine; without it as many as cores or GPUs allow.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on a Ray cluster: auto, local, or HOST:PORT of its head, from one of its machines (vrft[ray]).",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but the path of the page.")] = False,
) -> None:
    """Compare all combinations of the augmentations, with controls, and say which effects can be seen.

    The same command goes on after a kill, and after a change of the recipe it does only what is new.
    """
    need("vrft ablate")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    from vrft import api
    from vrft.cli.terminal import make_reporter, results
    from vrft.experiment.design import only, read_design
    from vrft.runs import RunDirectory

    design = read_design(recipe, set_ or [], fraction=_reduction(fraction))
    design = only(design, arm) if arm else design
    if plan_:
        from vrft.cli.plan_tables import ablation_costs

        place = RunDirectory(out or Path("runs") / design.name)
        typer.echo(ablation_costs(design, store or place.default_store, workers, make_reporter(quiet=quiet)))
        return
    reporter = make_reporter(quiet=quiet)
    try:
        finished = api.carry_out_ablation(design, out, store, reporter, workers=workers, ray=ray)
    except KeyboardInterrupt:
        typer.echo("vrft: interrupted; the same command goes on.", err=True)
        raise typer.Exit(1) from None
    if finished.errors:
        typer.echo(f"vrft: {len(finished.errors)} jobs failed; the same command tries them again:", err=True)
        for name, error in finished.errors.items():
            typer.echo(f"vrft:   {name}: {error}", err=True)
    reporter.say(results(finished.metrics))
    typer.echo(finished.report)
    if finished.errors:
        raise typer.Exit(1)


def _reduction(fraction: str | None) -> int | None:
    """The N of a fraction 1/N.

    Raises:
        UserError: it is none.
    """
    if fraction is None:
        return None
    match = re.fullmatch("1/([2-9]|[1-9][0-9])", fraction.strip())
    if match is None:
        raise UserError(f"--fraction {fraction}: expected 1/2, 1/3 and so on.")
    return int(match[1])
