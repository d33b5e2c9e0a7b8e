"""``vrft run RECIPE --plan``: what a run costs, before it is begun."""

from collections import Counter
from collections.abc import Callable
from io import StringIO

from rich.console import Console
from rich.table import Table

from vrft.experiment.design import Design
from vrft.experiment.jobs import Unit
from vrft.planning import Plan, make_plan
from vrft.policies import quiet_libraries
from vrft.recipe import Recipe
from vrft.training.devices import device_for


def costs(recipe: Recipe, on: str | None, devices: int) -> str:
    """Two tables, of time and of memory, and whether it fits.

    Raises:
        UserError: the device is not known, or what a plan needs is not on this machine.
    """
    quiet_libraries()
    return shown(recipe, make_plan(recipe, device_for(on), devices))


def shown(recipe: Recipe, plan: Plan) -> str:
    """A plan for a reader."""
    device, one = plan.device, plan.architecture
    how = (
        "measured just now; shares fitted on another machine"
        if device.measured
        else "data sheet; shares reached are assumed"
    )
    times = f"{plan.devices} x " if plan.devices > 1 else ""
    lines = [
        f"plan of {recipe.name}: {recipe.policy.model}, {one.parameters / 1e9:.3g} billion parameters "
        f"({one.tower + one.merger:,} of vision, {one.embedding:,} of embeddings), {one.trained:,} trained, "
        f"{8 * plan.width} bits",
        f"on {times}{device.name}: {device.peak(plan.width) / 1e12:.3g} TFLOP/s, {device.bandwidth / 1e9:.0f} GB/s, "
        f"{device.memory / 1e9:.0f} GB ({how})",
    ]
    if plan.estimated:
        lines.append("estimated prompt: 4 letters a token, since there is no tokenizer at hand")
    text = StringIO()
    console = Console(file=text, width=150)
    console.print(_times(plan), _memory(plan))
    lines += [text.getvalue().rstrip(), *_verdict(plan)]
    return "\n".join(lines)


def ablation_costs(design: Design, jobs: Callable[[], tuple[list[Unit], list[Unit]]], workers: int | None) -> str:
    """The arms of an ablation, what of them is to be done, and what they cost.

    Args:
        design: which arms.
        jobs: gives all pieces of work and those that are missing; asked when it is known that the data are at hand.
        workers: how many run side by side, where that is said.

    Raises:
        UserError: data, configuration or processor are not on this machine; a plan fetches nothing.
    """
    quiet_libraries()
    recipe = design.recipe
    plan = make_plan(recipe, device_for(None), perception=False)
    units, missing = jobs()
    todo = Counter(unit.arm for unit in missing if unit.tested)
    seconds: dict[str, float] = {}
    for row in plan.rows:
        seconds[row.arm] = seconds.get(row.arm, 0.0) + row.seconds
    table, left = Table("arm", "kind", "seeds", "to be done", "time"), 0.0
    for arm in recipe.arm_names():
        seeds = len(recipe.seeds_of(arm))
        left += seconds.get(arm, 0.0) * todo[arm] / seeds
        cost = duration(seconds[arm]) if arm in seconds else ""
        table.add_row(arm, design.kind_of(arm), str(seeds), str(todo[arm]), cost)
    text = StringIO()
    Console(file=text, width=120).print(table)
    cells, shared = len(design.cells), sum(not unit.tested for unit in units)
    peak = max((plan.peak(row) for row in plan.rows), default=0.0)
    side = f"{workers} side by side" if workers else "as many side by side as there are cores or GPUs for"
    lines = [
        f"ablation {recipe.name}: {cells} cells, {len(recipe.arm_names()) - cells} other arms; {len(units)} pieces of "
        f"work, {shared} of them starts that several arms share; {len(missing)} to be done",
        text.getvalue().rstrip(),
        f"work on {plan.device.name}: {duration(sum(seconds.values()))} from the start, {duration(left)} of it to be "
        f"done, one piece after another with all its cores (a start counts in the first arm that has it)",
        f"pieces run {side}, with {recipe.ablation.cpus} cores each; a piece takes {gigabytes(peak)} GB at most, and "
        f"{gigabytes(plan.room)} GB may be used by all that run at once",
    ]
    if recipe.ablation.budget.match != "stages":
        lines.append(
            f"the budget ({recipe.ablation.budget.match}) ends some arms before or after the steps counted here"
        )
    return "\n".join(lines)


def _times(plan: Plan) -> Table:
    table = Table(
        "arm", "stage", "seeds", "steps", "prompt + completion", "tokens sampled", "tokens passed", title="time"
    )
    for name in ("rollouts", "reference", "passes", "rest", "in all"):
        table.add_column(name, justify="right")
    for row in plan.rows:
        each, count = row.cost.seconds, row.times * row.steps
        parts = [each.get("rollout", 0), each.get("reference", 0), each.get("forward", 0) + each.get("backward", 0)]
        cells = [row.arm, row.what, str(row.times), str(row.steps) if row.repeated or row.steps > 1 else ""]
        cells += [f"{row.lengths.prompt} + {row.lengths.completion}"]
        cells += [_tokens(count * row.cost.rollout_tokens), _tokens(count * row.cost.training_tokens)]
        cells += [duration(count * part) if part else "" for part in parts]
        table.add_row(*cells, duration(count * (row.cost.total - sum(parts))), duration(row.seconds))
    sampled, passed = (
        sum(row.times * row.steps * tokens(row) for row in plan.rows)
        for tokens in (lambda row: row.cost.rollout_tokens, lambda row: row.cost.training_tokens)
    )
    total = duration(sum(row.seconds for row in plan.rows))
    table.add_section()
    table.add_row("all", "", "", "", "", _tokens(sampled), _tokens(passed), "", "", "", "", total)
    return table


def _memory(plan: Plan) -> Table:
    table = Table("arm", "stage", title="peak memory of one device, GB")
    names = ("weights", "gradients", "optimiser", "reference", "activations", "prompt repeated", "KV cache", "peak")
    for name in names:
        table.add_column(name, justify="right")
    for row in plan.rows:
        one = row.cost.memory
        parts = (one.weights, one.gradients, one.optimiser, one.reference, one.activations, row.repeated, one.cache)
        table.add_row(
            row.arm, row.what, *(gigabytes(part) if part else "" for part in parts), gigabytes(plan.peak(row))
        )
    return table


def _verdict(plan: Plan) -> list[str]:
    worst = max(plan.rows, key=plan.peak, default=None)
    if worst is None:
        return ["nothing is trained or asked"]
    peak, room = gigabytes(plan.peak(worst)), gigabytes(plan.room)
    lines = [
        f"a peak holds {gigabytes(plan.device.held)} GB of the process, and the largest of activations, KV cache and "
        f"the optimiser's update; completions are taken to be as long as they may be"
    ]
    if plan.peak(worst) <= plan.room:
        return [*lines, f"it fits: {peak} GB at most ({worst.arm}, {worst.what}), and {room} GB may be used"]
    lines.append(f"it does not fit: {peak} GB ({worst.arm}, {worst.what}), and {room} GB may be used; with")
    lines += [f"  {one.keys}: {gigabytes(one.peak)} GB{_fits(plan, one.peak)}" for one in worst.remedies]
    if not worst.remedies:
        lines.append("  a lower evaluation.batch_size there is less KV cache")
    return lines


def _fits(plan: Plan, peak: float) -> str:
    return ", fits" if peak <= plan.room else ""


def _tokens(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count else ""


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g}" if count >= 5e6 else f"{count / 1e9:.1g}"


def duration(seconds: float) -> str:
    """Seconds in the largest fitting unit.

    >>> duration(5400)
    '1.5 h'
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
