"""``--plan`` of ``vrft run`` and ``vrft ablate``: what they cost, before anything is begun."""

from collections import Counter
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vrft.experiment.design import Design
from vrft.experiment.plan import Plan, make_plan
from vrft.experiment.run import jobs_to_do
from vrft.progress import Reporter
from vrft.recipe import Recipe
from vrft.runs import Store

PARTS = ("weights", "gradients", "moments", "reference", "activations", "KV cache")


def costs(recipe: Recipe, on: str | None, devices: int, reporter: Reporter) -> str:
    """A table of time and memory, and whether the recipe fits.

    Raises:
        UserError: as ``make_plan``.
    """
    plan = make_plan(recipe, on, devices, reporter=reporter)
    counted, times = plan.counted, f"{devices} x " if devices > 1 else ""
    table = Table("arm", "stage", "seeds", "steps", "prompt + completion", "a step", "in all", title="memory in GB")
    for name in (*PARTS, "peak"):
        table.add_column(name, justify="right")
    for row in plan.rows:
        lengths, sizes = f"{row.lengths.prompt} + {row.lengths.completion}", [row.memory.get(part) for part in PARTS]
        cells = [row.arm, row.what, str(row.times), str(row.steps), lengths]
        cells += [
            duration(row.step_seconds),
            duration(row.seconds),
            *(gigabytes(size) if size else "" for size in sizes),
        ]
        table.add_row(*cells, gigabytes(plan.peak(row)))
    lines = [
        f"plan of {recipe.name}: {recipe.policy.model}, {counted.parameters / 1e9:.3g} billion parameters, "
        f"{counted.trained:,} trained, computed with {8 * counted.width} bits",
        f"on {times}{plan.device.name} with {plan.device.memory / 1e9:.0f} GB; a stage that arms share is counted once",
        _text(table, 160),
        f"time in all: {duration(plan.seconds()) or 'not measured'}",
        f"a peak holds {gigabytes(plan.device.held)} GB of the process, and the largest of activations, KV cache and "
        f"the optimiser's update; completions are taken to be as long as they may be",
        *plan.notes,
    ]
    return "\n".join([*lines, *_verdict(plan)])


def ablation_costs(design: Design, store: Path, workers: int | None, reporter: Reporter) -> str:
    """The arms of an ablation, the jobs that the store lacks, and their cost.

    Args:
        design: the arms.
        store: the folder of finished results.
        workers: how many run side by side, where that is given.
        reporter: shows the progress of the measurement.

    Raises:
        UserError: as ``make_plan``.
    """
    recipe = design.recipe
    torch.set_num_threads(recipe.ablation.cpus)
    plan = make_plan(recipe, reporter=reporter)
    jobs, missing = jobs_to_do(design, Store(store))
    todo = Counter(job.arm for job in missing if job.evaluation and job.evaluates == "task")
    measured, left = plan.seconds() is not None, 0.0
    table = Table("arm", "kind", "seeds", "to be done", "time")
    for arm in recipe.arm_names():
        rows, seeds = [row for row in plan.rows if row.arm == arm], len(recipe.seeds_of(arm))
        seconds = plan.seconds(arm) or 0.0
        left += seconds * todo[arm] / seeds
        cost = duration(seconds) if rows and measured else ""
        table.add_row(arm, design.kind_of(arm), str(seeds), str(todo[arm]), cost)
    cells, shared = len(design.cells), sum(job.evaluation is None for job in jobs)
    peak = plan.peak(plan.largest) if plan.largest else 0.0
    side = f"{workers} side by side" if workers else "as many side by side as there are cores or GPUs for"
    lines = [
        f"ablation {recipe.name}: {cells} cells, {len(recipe.arm_names()) - cells} other arms; {len(jobs)} jobs, "
        f"{shared} of them starts that several arms share; {len(missing)} to be done",
        _text(table, 120),
        *plan.notes,
        f"jobs run {side}, with {recipe.ablation.cpus} cores each; a job takes {gigabytes(peak)} GB at most, and "
        f"{gigabytes(plan.usable)} GB may be used by all that run at once",
    ]
    if measured:
        lines.append(
            f"time on {plan.device.name}: {duration(plan.seconds())} from the start, {duration(left)} of it to be "
            f"done, one job after another (a start counts in the first arm that has it)"
        )
    if recipe.ablation.budget.match != "stages":
        lines.append(
            f"the budget ({recipe.ablation.budget.match}) ends some arms before or after the steps counted here"
        )
    return "\n".join(lines)


def _text(table: Table, width: int) -> str:
    text = StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().rstrip()


def _verdict(plan: Plan) -> list[str]:
    worst, usable = plan.largest, gigabytes(plan.usable)
    if worst is None:
        return ["nothing is trained or asked"]
    where = f"{gigabytes(plan.peak(worst))} GB at most ({worst.arm}, {worst.what}), and {usable} GB may be used"
    if plan.peak(worst) <= plan.usable:
        return [f"it fits: {where}"]
    remedies = [
        f"  {keys}: {gigabytes(peak)} GB{', fits' if peak <= plan.usable else ''}" for keys, peak in worst.remedies
    ]
    return [f"it does not fit: {where}; with", *(remedies or ["  a lower evaluation.batch_size: less KV cache"])]


def gigabytes(count: float) -> str:
    """Bytes in 1e9 bytes, with three digits where they say something."""
    return f"{count / 1e9:.3g}" if count >= 5e6 else f"{count / 1e9:.1g}"


def duration(seconds: float | None) -> str:
    """Seconds in the largest fitting unit.

    >>> duration(5400)
    '1.5 h'
    """
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
