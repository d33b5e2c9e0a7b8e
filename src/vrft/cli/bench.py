"""``vrft bench``: the speed of a step of RFT beside TRL's own trainer."""

import json
import re
import warnings
from typing import Annotated, Any

import typer

from vrft.errors import UserError
from vrft.extras import need

DEFAULT = ("tiny:-/24/8x8", "tiny:300/150/8", "mid:300/150/8", "mid:1500/300/8")


def bench(
    shapes: Annotated[
        list[str] | None,
        typer.Argument(help=f"MODEL:PROMPT/COMPLETION/GROUP[xPROMPTS] in tokens; without any: {', '.join(DEFAULT)}."),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps of each that are timed, after one that is not. Fewer than 6 have no 95% interval but a range; "
            "with 10 or more no single outlier sets an end of the interval.",
        ),
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of the samples and the weights of `mid`.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time RFT against TRL's own trainer, a step of each in turn: same weights, prompts, seed, rewards and tokens.

    MODEL is tiny, mid (a random Qwen2.5-VL of 30 million parameters), or any policy; PROMPT is - for the bare question.
    """
    read = [read_shape(text) for text in shapes or DEFAULT]
    need("vrft bench")
    import torch

    from vrft.cli.terminal import make_reporter
    from vrft.policies import quiet_libraries
    from vrft.training.throughput import PARTS, Shape
    from vrft.training.throughput import bench as measure

    quiet_libraries()
    warnings.filterwarnings("ignore")
    reporter = make_reporter(quiet=as_json)
    results = [measure(Shape(**one), steps=steps, seed=seed, reporter=reporter) for one in read]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if as_json:
        machine = {"device": device, "threads": torch.get_num_threads(), "steps": steps}
        typer.echo(json.dumps(machine | {"shapes": results}))
        return
    for one in results:
        lengths = f"{one['prompt']} + {one['completion']} tokens"
        typer.echo(f"{one['model']}: {one['prompts']} x {one['group']} completions, {lengths}")
        typer.echo(f"  {'':10}{'stock':>10}{'shared':>10}{'ratio':>8}")
        for part in (*PARTS, "step", "peak_mb"):
            stock, shared = one["stock"][part], one["shared"][part]
            ratio = f"{stock / shared:8.2f}" if shared > 1e-3 else ""
            typer.echo(f"  {part:10}{stock:10.3f}{shared:10.3f}{ratio}")
        for key, name in (("step", "step"), ("training_pass", "training pass (forward and backward)")):
            ratio, low, high = (one[f"{key}_ratio_{which}"] for which in ("median", "low", "high"))
            of_all, fastest = one[f"{key}_ratio"], one[f"{key}_ratio_min"]
            typer.echo(
                f"  {name}: ratio {ratio:.2f} [{low:.2f}, {high:.2f}], of minima {fastest:.2f}, of means {of_all:.2f}"
            )
        typer.echo(f"  ratio: the median over {steps} pairs of steps; [ ]: {interval(one['interval_coverage'])}")


def interval(coverage: float) -> str:
    """The interval of a median, by the chance that it holds it."""
    return "its 95% interval" if coverage >= 0.95 else "their range, too few for a 95% interval"


def read_shape(text: str) -> dict[str, Any]:
    """Read ``MODEL:PROMPT/COMPLETION/GROUP[xPROMPTS]``; a model's name may hold colons and slashes."""
    found = re.fullmatch(r"(.+):(-|[1-9]\d*)/([1-9]\d*)/([1-9]\d*)(?:x([1-9]\d*))?", text)
    if found is None or int(found[4]) < 2:
        raise UserError(f"the shape is {text!r}; expected MODEL:PROMPT/COMPLETION/GROUP, such as tiny:300/150/8.")
    prompt = None if found[2] == "-" else int(found[2])
    sizes = {"completion": int(found[3]), "group": int(found[4]), "prompts": int(found[5] or 1)}
    return {"model": found[1], "prompt": prompt, **sizes}
