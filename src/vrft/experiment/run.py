"""An ablation from its design to its files: what is missing is done, and all that is there is gathered."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pandas as pd

from vrft.errors import DataError, RunError
from vrft.evaluation.predictions import so_far
from vrft.experiment.design import Design
from vrft.experiment.jobs import Ledger, Unit, cost_of, drop_policies, is_done
from vrft.experiment.runners import Workers, carry_out
from vrft.image_log import ImageLog
from vrft.pipeline import Job, environment, open_job, say_odd, write_gallery, write_predictions
from vrft.policies import quiet_libraries
from vrft.progress import Reporter
from vrft.recipe import ARMS, FACTORS, Recipe
from vrft.runs import AblationDirectory, read_json, read_jsonl, replacing, write_json, write_text
from vrft.tasks import ClosedTask


def jobs_of(design: Design, directory: AblationDirectory) -> tuple[list[Unit], list[Unit]]:
    """All units of a design, and those that are not done in a directory.

    Raises:
        UserError: the data or the policy cannot be used.
    """
    quiet_libraries()
    units = Ledger(open_job(design.recipe, Reporter(quiet=True), perception=False)).units()
    return units, _missing(units, directory)


def _missing(units: list[Unit], directory: AblationDirectory) -> list[Unit]:
    """What is not done; a shared start that is gone is only needed where something that begins there is missing."""
    weights, spent, missing = set[str](), set[str](), list[Unit]()
    for unit in reversed(units):
        places = {key: directory.stage(key) for key in unit.gives()}
        absent = (
            not is_done(directory, unit)
            if unit.tested
            else any(
                (key in weights and not place.is_whole()) or (key in spent and not place.done.exists())
                for key, place in places.items()
            )
        )
        if absent:
            missing.append(unit)
            weights |= set(unit.keys[: unit.first][-1:])
            spent |= set(unit.budget_of)
    return missing[::-1]


def ablate(
    design: Design,
    directory: AblationDirectory,
    open_workers: Callable[[], AbstractContextManager[Workers]],
    *,
    reporter: Reporter,
) -> dict[str, str]:
    """Do what is missing of an ablation, and gather all that is there into its files.

    Args:
        design: which arms.
        directory: where everything goes; what is there already is kept and used.
        open_workers: gives the processes that take the work; it is not called when nothing is missing.
        reporter: is told what is done.

    Returns:
        the error of each piece of work that failed.

    Raises:
        UserError: data, policy or directory cannot be used.
    """
    quiet_libraries()
    recipe = design.recipe
    directory.take()
    job = replace(open_job(recipe, reporter, perception=False), image_log=ImageLog(directory.image_log))
    if len(set(job.groups())) < 2:
        raise DataError(f"the {recipe.evaluation.split} split has one image; no interval can be made of it.")
    ledger = Ledger(job)
    units = ledger.units()
    missing = _missing(units, directory)
    reporter.say(f"ablation {recipe.name}: {len(units)} pieces of work, {len(missing)} to be done")
    errors: dict[str, str] = {}
    kept = recipe.ablation.keep_policies
    if missing:
        with open_workers() as workers:
            errors = carry_out(
                missing,
                directory,
                recipe.model_dump_json(),
                workers,
                retries=recipe.ablation.retries,
                reporter=reporter,
                told=lambda unit: _told(job, directory, unit),
                tidy=lambda left: None if kept else drop_policies(directory, units, left),
            )
    if not kept:
        drop_policies(directory, units, [unit for unit in missing if unit.name in errors])
    gather(design, job, ledger, directory, errors)
    return errors


def _told(job: Job, directory: AblationDirectory, unit: Unit) -> str:
    """What a unit came to."""
    if not unit.tested:
        return ""
    return f": {so_far(job.task, read_jsonl(directory.evaluation(unit.tested).predictions))}"


def gather(design: Design, job: Job, ledger: Ledger, directory: AblationDirectory, errors: dict[str, str]) -> None:
    """Write what the figures are made of: predictions, logs and costs; and the arms by name, for other commands.

    Raises:
        RunError: no arm is done.
    """
    recipe, groups = design.recipe, job.groups()
    write_text(directory.recipe, recipe.dump())  # with the figures: what was asked before is over with them
    write_json(directory.environment, environment(recipe))
    if job.injection is not None:
        write_json(directory.knowledge, job.injection.facts())
    rows, logs, runs = [], list[dict[str, Any]](), list[dict[str, Any]]()
    for arm in recipe.arm_names():
        for seed in recipe.seeds_of(arm):
            keys, tested = ledger.trainings(arm, seed), directory.evaluation(ledger.evaluation(arm, seed))
            if not tested.done.exists():
                shutil.rmtree(directory.arm(arm, seed).path, ignore_errors=True)  # of what it was before a change
                error = errors.get(f"{arm}, seed {seed}") or _failed(directory, arm, seed)
                runs.append({"arm": arm, "seed": seed, "cost": None, "error": error})
                continue
            rows.append((arm, seed, read_jsonl(tested.predictions)))
            cost = cost_of(directory, keys)
            cost["peak_mb"] = max(cost["peak_mb"], read_json(tested.done)["peak_mb"]) if arm != "majority" else 0.0
            runs.append({"arm": arm, "seed": seed, "cost": cost, "error": None})
            if recipe.trained_as(arm) == arm:
                logs += _logs(directory, recipe, arm, seed, keys)
                _link(directory, recipe, arm, seed, keys)
    if not rows:
        first = next(iter(errors.values()), "")
        raise RunError(f"no arm is done. The first error: {first} All are in {directory.path / 'failed'}.")
    write_predictions(directory.predictions, rows, groups)
    with replacing(directory.logs) as fresh:
        table = pd.json_normalize(logs) if logs else pd.DataFrame(columns=["arm", "seed", "stage", "step"])
        table.to_parquet(fresh, index=False)
    write_gallery(directory, job.held_out, job.image_log)
    facts = {"pictures": say_odd(job), "work_seconds": _work(ledger, directory), "runs": runs}
    write_json(directory.records, _records(design, job) | facts)


def _work(ledger: Ledger, directory: AblationDirectory) -> float:
    """Seconds of all trainings and evaluations that the files are made of, each counted once."""
    recipe, keys = ledger.recipe, set[str]()
    for arm in recipe.arm_names():
        for seed in recipe.seeds_of(arm):
            keys |= {*ledger.trainings(arm, seed), ledger.evaluation(arm, seed)}
    done = [directory.stage(key).done for key in sorted(keys)]
    return round(sum(read_json(path)["seconds"] for path in done if path.exists()), 1)


def _failed(directory: AblationDirectory, arm: str, seed: int) -> str:
    path = directory.failure(arm, seed)
    return str(read_json(path)["error"]) if path.exists() else "not done"


def _logs(
    directory: AblationDirectory, recipe: Recipe, arm: str, seed: int, keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The lines of the log of an arm and seed, its stages one after another."""
    rows: list[dict[str, Any]] = []
    for index, (key, stage) in enumerate(zip(keys, recipe.stages_of(arm), strict=True)):
        before = rows[-1]["step"] if rows else 0
        for row in read_jsonl(directory.stage(key).log):
            named = {"arm": arm, "seed": seed, "stage": f"{index + 1} {stage.kind}"}
            rows.append(named | row | {"step": row["step"] + before})
    return rows


def _link(directory: AblationDirectory, recipe: Recipe, arm: str, seed: int, keys: tuple[str, ...]) -> None:
    """The stages of an arm under its name, as a run has them."""
    for index, (key, stage) in enumerate(zip(keys, recipe.stages_of(arm), strict=True)):
        place = directory.arm(arm, seed).stage(index, stage.kind)
        there = directory.stage(key)
        if not place.done.exists() or read_json(place.done) != read_json(there.done):
            place.take_over(there)
        if not there.policy.exists():  # it was not to be kept
            shutil.rmtree(place.policy, ignore_errors=True)


def _records(design: Design, job: Job) -> dict[str, Any]:
    """What was compared and how, as plain data."""
    recipe, evaluation = design.recipe, design.recipe.evaluation
    task: dict[str, Any] = {"kind": job.task.kind, "metrics": list(job.task.metrics)}
    if isinstance(job.task, ClosedTask):
        task["classes"] = [str(target) for target in job.task.classes]
    starts = starts_of(recipe)
    task["untrained"] = {arm: not recipe.has_seeds(arm) for arm in recipe.arm_names()}
    arms = [
        {
            "arm": arm,
            "kind": design.kind_of(arm),
            "levels": design.cells.get(arm),
            "starts": starts[arm],
            "what": what_is(design, arm),
        }
        for arm in recipe.arm_names()
    ]
    keys = dict.fromkeys(key for at in design.sweep.values() for key in at)
    axes = {key: list(dict.fromkeys(at[key] for at in design.sweep.values())) for key in keys}
    points = [{"arm": arm, "at": at} for arm, at in design.sweep.items()]
    sweep = recipe.ablation.sweep and {"arm": recipe.ablation.sweep.arm, "axes": axes, "points": points}
    return {
        "name": recipe.name,
        "seeds": list(recipe.seeds),
        "task": task,
        "statistics": {
            "split": evaluation.split,
            "bootstrap": evaluation.bootstrap,
            "confidence": evaluation.confidence,
        },
        "design": {
            "factors": {name: list(levels) for name, levels in design.factors.items()},
            "fraction": design.fraction,
            "budget": recipe.ablation.budget.model_dump(),
            "arms": arms,
            "pairs": [list(pair) for pair in design.pairs],
            "sweep": sweep if points else None,
        },
    }


def starts_of(recipe: Recipe) -> dict[str, list[str | None]]:
    """What the last stage of each arm goes on from, for the strata of ``pooled_seed_variance``.

    Stage by stage the first arm that has it, None for nothing; then what the arm is told, since the luck of a start may
    count in the arms that are told about the classes and not in the others.
    """
    depth = len(recipe.stages) - 1
    first: list[tuple[Any, str]] = []
    starts = dict[str, list[str | None]]()
    for arm in recipe.arm_names():
        known: list[str | None] = []
        for index in range(len(recipe.stages_of(arm)) - 1):
            training = recipe.training_of(arm, index)
            name = next((name for one, name in first if one == training), None)
            if name is None:
                name = f"{arm}, stage {index + 1}"
                first.append((training, name))
            known.append(name)
        starts[arm] = [*(None for _ in range(depth - len(known))), *known, recipe.told(arm, training=True)]
    return starts


def what_is(design: Design, arm: str) -> str:
    """An arm in words."""
    if arm in ARMS:
        return ARMS[arm]
    if arm in design.cells:
        added = [FACTORS[name] for name, level in design.cells[arm].items() if level not in ("off", "0")]
        return "; ".join(added)
    if arm in design.sweep:
        return ", ".join(f"{key} {value}" for key, value in design.sweep[arm].items())
    return "a further arm of the recipe"
