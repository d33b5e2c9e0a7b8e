"""``vrft ablate RECIPE``: every combination of the augmentations beside control arms, by seeds."""

import re
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft.errors import UserError


def ablate(
    recipe: Annotated[Path, typer.Argument(help="The YAML file that describes the arms' common ground.")],
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
    out: Annotated[Path | None, typer.Option(help="Its directory; ablations/NAME without it.")] = None,
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
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    from vrft.experiment.design import only, read_design
    from vrft.runs import AblationDirectory

    design = read_design(recipe, set_ or [], fraction=_reduction(fraction))
    if arm:
        design = only(design, arm)
    if ray and workers:
        raise UserError("--workers counts processes of this machine; with --ray the cluster's resources decide.")
    from vrft.cli.terminal import effects, make_reporter
    from vrft.experiment.run import ablate as carry_out
    from vrft.experiment.run import jobs_of
    from vrft.experiment.runners import local_workers, ray_workers
    from vrft.experiment.summary import summarise_ablation
    from vrft.report import write_ablation_report

    directory = AblationDirectory(out or Path("ablations") / design.recipe.name)
    if plan_:
        from vrft.cli.plan import ablation_costs

        typer.echo(ablation_costs(design, lambda: jobs_of(design, directory), workers, make_reporter(quiet=quiet)))
        return
    section = design.recipe.ablation
    opened: Any = partial(local_workers, section.cpus, section.gpus, workers)
    if ray:
        opened = partial(ray_workers, section.cpus, section.gpus, ray)
    reporter = make_reporter(quiet=quiet)
    try:
        errors = carry_out(design, directory, opened, reporter=reporter)
    except KeyboardInterrupt:
        typer.echo("vrft: interrupted; the same command goes on.", err=True)
        raise typer.Exit(1) from None
    if errors:
        typer.echo(f"vrft: {len(errors)} pieces of work failed; the same command tries them again:", err=True)
        for name, error in errors.items():
            typer.echo(f"vrft:   {name}: {error}", err=True)
    summary = summarise_ablation(directory)
    page = write_ablation_report(directory)
    reporter.say(effects(summary))
    typer.echo(page)
    if errors:
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
