"""Commands: argument reading, progress and exit codes; no logic. What is heavy is imported inside a command."""

import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from vrft.cli.ablate import ablate
from vrft.cli.audit import audit
from vrft.cli.bench import bench
from vrft.cli.cards import app as knowledge
from vrft.cli.init import init
from vrft.cli.predict import predict
from vrft.cli.preflight_tables import preflight
from vrft.cli.score import score
from vrft.cli.shipped_commands import app as recipes
from vrft.errors import UserError
from vrft.extras import REPORTING, need
from vrft.processes import (
    StoppedElsewhere,
    have_joined,
    is_first_alive,
    is_lost_peer,
    is_main,
    leave_processes,
    process_count,
    process_index,
)

app = typer.Typer(
    name="vrft",
    help="Visual reinforcement fine-tuning of vision-language models in medical imaging.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _vrft(context: typer.Context) -> None:
    """Visual reinforcement fine-tuning of vision-language models in medical imaging."""
    command = context.invoked_subcommand
    if process_count() > 1 and command != "run":
        raise UserError(f"vrft {command} takes one process; call it without torchrun or accelerate launch.")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The YAML file that describes the run.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as stages.0.steps=50.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; runs/NAME without it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the directory.")] = False,
    store: Annotated[
        Path | None, typer.Option(help="The folder of trained stages that runs share; _store beside --out without it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but the path of the report.")] = False,
    plan_: Annotated[
        bool, typer.Option("--plan", help="Measure a few steps, print the cost of the run, and write nothing.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            help="With --plan: h200, h100, a100-80, a100-40, l40s, rtx4090, a10, t4 or cpu, for the memory there."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="With --plan: how many, each with its share of a step.")] = 1,
) -> None:
    """Train, evaluate and compare the arms of a recipe, and write the report."""
    from vrft.recipe import read_recipe

    checked = read_recipe(recipe, set_ or [])
    need("vrft run")
    if plan_ and process_count() > 1:
        raise UserError("--plan takes one process; call it without torchrun or accelerate launch.")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    if plan_:
        from vrft.cli.plan_tables import costs
        from vrft.cli.terminal import make_reporter

        typer.echo(costs(checked, on, devices, make_reporter(quiet=quiet)))
        return
    if on or devices > 1:
        raise UserError("--on and --devices belong to --plan; a run takes the devices that accelerate gives it.")
    from vrft.cli.terminal import make_reporter, plan, results

    directory = out or Path("runs") / checked.name
    reporter = make_reporter(quiet=quiet or not is_main())
    reporter.say(plan(checked, directory))
    from vrft import api
    from vrft.experiment.design import design_of_run

    finished = api.carry_out(design_of_run(checked), directory, store, reporter, resume=resume)
    if is_main():
        reporter.say(results(finished.metrics))
        typer.echo(finished.report)
    leave_processes()


app.command()(preflight)
app.command()(init)
app.command()(ablate)
app.command()(audit)
app.command()(score)
app.command()(predict)
app.command()(bench)
app.add_typer(knowledge, name="knowledge")
app.add_typer(recipes, name="recipes")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory, or that of an ablation.")],
) -> None:
    """Write the report of a finished run or ablation again, from its files."""
    from vrft.errors import RunError

    need("vrft report", REPORTING)
    from vrft.evaluation.summary import write_metrics
    from vrft.report import write_report
    from vrft.runs import RunDirectory

    run_directory = RunDirectory(directory)
    if not run_directory.records.exists():
        raise RunError(
            f"{directory} holds no finished run of this version (records.json is missing); finish it with vrft run "
            f"--resume or vrft ablate."
        )
    write_metrics(run_directory)
    typer.echo(write_report(run_directory))


def main() -> None:
    """Run the command line; a user's mistake is one message on standard error and exit code 2."""
    if process_count() > 1 and is_main():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except StoppedElsewhere:
        _leave_the_word_to_the_first()
        sys.exit(2)
    except UserError as error:
        if not is_main() and not have_joined():  # then all processes find the same, most often
            _leave_the_word_to_the_first()
        which = "" if is_main() else f"process {process_index() + 1} of {process_count()}: "
        for line in str(error).splitlines():
            typer.echo(f"vrft: {which}{line}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if is_main():
            typer.echo("vrft: interrupted; go on with --resume.", err=True)
        sys.exit(1)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        if is_first_alive():
            _tell_of_the_end()
        os._exit(1)  # without waiting for the others


def _leave_the_word_to_the_first() -> None:
    """Wait while the first process says why it ends; its launcher then ends this one."""
    with suppress(KeyboardInterrupt):
        time.sleep(30)


def _tell_of_the_end() -> None:
    message = f"one of the {process_count()} processes was ended, so the run ends with it"
    typer.echo(f"vrft: {message}; what is finished stays, go on with --resume.", err=True)


def _terminated(*signalled: object) -> None:
    """The launcher ends the first process, since another one has ended."""
    _tell_of_the_end()
    os._exit(1)
