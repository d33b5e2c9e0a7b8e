"""``vrft preflight RECIPE``: what completions of the policy earn before a run is paid for, and a verdict."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from vrft.errors import UserError
from vrft.extras import need

SHOWN = 600
"""Characters of a completion on the terminal."""

BARS = "▁▂▃▄▅▆▇█"


def preflight(
    recipe: Annotated[Path, typer.Argument(help="The YAML file that describes the run.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as policy.model=tiny.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Training samples that are asked about.")] = 32,
    completions: Annotated[
        int | None, typer.Option(min=2, help="Sampled for each; the group size of the stage without it.")
    ] = None,
    arm: Annotated[str | None, typer.Option(help="The arm; the first with an RFT stage without it.")] = None,
    stage: Annotated[
        int | None, typer.Option(min=1, help="The stage of the arm, from 1; its first RFT stage without it.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of order and sampling; the first of the recipe without it.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write all completions, one JSON object a line."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 2 for any verdict but ready.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Sample completions of the untrained policy, and say whether RFT can begin, before a run is paid for."""
    from vrft.recipe import read_recipe

    checked = read_recipe(recipe, set_ or [])
    need("vrft preflight")
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: its folder does not exist; create it first.")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    from vrft import api
    from vrft.cli.terminal import make_reporter
    from vrft.runs import write_jsonl

    found = api.preflight(
        checked,
        prompts=prompts,
        completions=completions,
        arm=arm,
        stage=stage,
        seed=seed,
        reporter=make_reporter(quiet=quiet),
    )
    if out is not None:
        write_jsonl(out, found.rows)
    typer.echo(json.dumps(found.figures, ensure_ascii=False) if json_ else text_of(found.figures))
    if strict and found.code != "ready":
        raise typer.Exit(2)


def text_of(figures: Mapping[str, Any]) -> str:
    """The figures for a reader, the verdict last."""
    text = StringIO()
    width = None if sys.stdout.isatty() else 120
    console = Console(file=text, width=width, highlight=False, markup=False, emoji=False)
    for part in _parts(figures):
        console.print(part, soft_wrap=isinstance(part, str))
    return text.getvalue().rstrip()


def _parts(figures: Mapping[str, Any]) -> Iterator[str | Table]:
    """Lines and tables, in order."""
    group, shown = figures["completions"], figures["prompt"]
    yield (
        f"preflight of {figures['recipe']}: {figures['prompts']} training prompts x {group} completions of "
        f"{figures['policy']}, {figures['task']}, arm {figures['arm']}, stage {figures['stage']}, temperature "
        f"{figures['temperature']:g}, seed {figures['seed']}"
    )
    visual = "" if shown["visual_tokens"] is None else f", {shown['visual_tokens']} of them of the image"
    yield f"\nthe first prompt ({shown['tokens']} tokens{visual}):"
    yield _indented(shown["text"])
    yield _reward_table(figures)
    yield _support_table(figures)
    yield from _answer_lines(figures)
    for name, one in figures["typical"].items():
        read = f"target {_short(one['target'])}, read {_short(one['answer'])}"
        yield f"\n{name}: reward {one['reward']:.3g}, {read} ({one['id']})"
        yield _indented(one["completion"])
    yield ""
    yield from _cost_lines(figures)
    yield from (f"note: {note}" for note in figures["verdict"]["notes"])
    yield figures["verdict"]["sentence"]


def _reward_table(figures: Mapping[str, Any]) -> Table:
    """A row a reward: deviations over completions and in groups, groups in which all earn the same, advantage."""
    table = Table(box=box.SIMPLE)
    table.add_column("reward", no_wrap=True, min_width=8)
    for name in ("weight", "mean", "sd", "in groups", "equal", "share", "histogram"):
        table.add_column(name, justify="left" if name == "histogram" else "right", no_wrap=True)
    for name, one in [*figures["rewards"].items(), ("sum", figures["total"])]:
        cells = [name, f"{one['weight']:g}" if "weight" in one else ""]
        if one["mean"] is None:
            table.add_row(*cells, "does not apply")
            continue
        cells += [f"{one[key]:.3f}" for key in ("mean", "sd", "within_group_sd")]
        share = f"{one['share_of_advantage']:.0%}" if "weight" in one else ""
        table.add_row(*cells, f"{one['equal_groups']:.0%}", share, _bars(one["histogram"]))
    return table


def _bars(histogram: Mapping[str, Any]) -> str:
    """A histogram in a line; a bin that is not empty has a bar."""
    counts = histogram["counts"]
    bars = "".join(BARS[-(-count * (len(BARS) - 1) // max(counts))] if count else " " for count in counts)
    return f"{histogram['from']:.2g} |{bars}| {histogram['to']:.2g}"


def _support_table(figures: Mapping[str, Any]) -> Table:
    """A row a class: pass@k with its interval, and the shares of targets and answers."""
    group = str(figures["completions"])
    table = Table("class", box=box.SIMPLE)
    for name in ("prompts", "pass@1", f"pass@{group}", "targets", "answers"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in [*figures["by_class"], *(key for key in figures["given"] if key not in figures["by_class"])]:
        one = figures["by_class"].get(name)
        cells = [str(one["prompts"]), *(_interval(one["pass_at_k"][k]) for k in ("1", group))] if one else ["", "", ""]
        shares = [f"{figures[key].get(name, 0):.0%}" for key in ("targets", "given")]
        table.add_row(name, *cells, *shares)
    return table


def _answer_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    answers, tokens, chance, most = (figures[key] for key in ("answers", "tokens", "chance", "most_frequent"))
    yield "pass@k: " + ", ".join(f"{k}: {_interval(one)}" for k, one in figures["pass_at_k"].items())
    headline, name = ("mean_iou", "mean IoU") if "mean_iou" in answers else ("accuracy", "accuracy")
    lenient, same = answers[f"{headline}_lenient"], answers["majority"]
    yield (
        f"{name} {answers[headline]:.3f} (read leniently {lenient:.3f}; the same answer to every image: {same:.3f}); "
        f"form right {answers['format_rate']:.0%}, read {answers['read_rate']:.0%}"
    )
    if answers["problems"]:
        yield "problems: " + ", ".join(f"{code} {count}" for code, count in answers["problems"].items())
    yield f"most frequent answer: {most['answer']}, {most['share']:.0%}"
    if figures["not_drawn"]:
        yield f"classes without a prompt: {', '.join(figures['not_drawn'])}"
    if chance is not None:
        yield (
            f"agreement with the own target {chance['score']:.3f}, with those of other images {chance['shuffled']:.3f} "
            f"(p = {chance['p']:.2g}; {chance['least_p']:.2g} if all were right)"
        )
    yield (
        f"tokens of a completion: {tokens['min']} to {tokens['max']}, median {tokens['median']:g}; "
        f"{tokens['truncated']:.0%} are cut at {tokens['limit']}"
    )
    yield f"groups without advantage: {figures['total']['zero_advantage']:.0%}"
    if figures["frames"]:
        scores = ", ".join(f"{frame} {value:.3f}" for frame, value in figures["frames"]["mean_iou"].items())
        yield f"mean IoU by frame (declared: {figures['frames']['declared']}): {scores}"


def _cost_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    from vrft.cli.plan_tables import duration, gigabytes

    step = figures["step"]
    if step is None:
        return
    if step["note"]:
        yield step["note"]
    if step["seconds"] is not None:
        yield (
            f"a step of training: {duration(step['seconds'])}, about {step['tokens']:,} tokens, "
            f"{gigabytes(step['peak_mb'] * 2**20)} GB at most; the stage of {step['steps']} steps: "
            f"{duration(step['stage_seconds'])}, about {step['stage_tokens']:,} tokens"
        )


def _interval(one: Mapping[str, float]) -> str:
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _short(value: Any) -> str:
    """A target or an answer; boxes to a tenth of a pixel."""
    if isinstance(value, list):
        value = [[round(number, 1) for number in one] for one in value]
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)[:80]


def _indented(text: str) -> str:
    """A text under its heading, cut where it is long."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ... ({len(text)} characters)"
    return "\n".join(f"  | {line}" for line in shown.splitlines() or [""])
