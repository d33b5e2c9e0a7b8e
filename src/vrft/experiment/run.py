"""The engine: a design becomes jobs, a runner does those that the store lacks, and the results become files.

A run of a recipe is a design without a factorial whose jobs are done in this process. It may be killed at any moment:
called again, finished results are found in the store, a stage under way goes on from its last checkpoint, an evaluation
from its last batch, and the results are the same bit for bit.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from vrft.data import Source
from vrft.errors import DataError, RunError, UserError
from vrft.evaluation.predictions import so_far
from vrft.evaluation.summary import write_metrics
from vrft.experiment.design import Design
from vrft.experiment.jobs import Job, drop_policies, jobs_of, missing_jobs, restore
from vrft.experiment.keys import CacheKeys, machine_facts
from vrft.experiment.opened import Experiment, open_experiment
from vrft.experiment.results import environment, gather
from vrft.experiment.runners import JobRequest, Workers, progress_of, run_here, run_with
from vrft.policies import quiet_libraries
from vrft.processes import from_main, join_processes, process_count
from vrft.progress import Reporter
from vrft.recipe import Recipe
from vrft.rewards.custom import custom_files
from vrft.runs import EvaluationDirectory, RunDirectory, Store, read_json, read_jsonl, replacing, write_json
from vrft.training import check_processes


@dataclass(frozen=True)
class Result:
    """The outcome of a run."""

    metrics: dict[str, Any]
    """The content of ``metrics.json``."""
    errors: dict[str, str]
    """The error of each job that failed, by its name; a run in this process raises instead."""


def carry_out(
    design: Design,
    directory: RunDirectory,
    *,
    store: Store | None = None,
    open_workers: Callable[[], AbstractContextManager[Workers]] | None = None,
    resume: bool = False,
    same_recipe: bool = True,
    reporter: Reporter,
    source: Source | None = None,
    callbacks: Sequence[Any] = (),
    device: str | None = None,
) -> Result:
    """Do what the store lacks of a design, and write all files of the run but the report.

    Args:
        design: the arms.
        directory: of the run.
        store: holds stages and evaluations; by default it lies beside the run directory.
        open_workers: gives processes or a cluster that do the jobs; without it this process does them. It is not
            called when nothing is missing.
        resume: go on with a run that is there.
        same_recipe: refuse to go on with a run of another recipe.
        reporter: shows progress.
        source: of the samples, in place of the section ``data``; for a run in this process.
        callbacks: of transformers' trainers, for every stage; for a run in this process.
        device: of the workers, where it is not that of this process.

    Raises:
        UserError: data, policy or directory cannot be used, or a job failed in this process; finished results stay.
    """
    here = open_workers is None
    if not here and process_count() > 1:
        raise UserError("an ablation takes one process, which begins others; call it without torchrun.")
    quiet_libraries()
    join_processes()
    recipe, store = design.recipe, store or Store(directory.default_store)
    if here:
        from_main(lambda: _check_processes(recipe))
    from_main(lambda: directory.open(recipe.dump(), resume=resume, same_recipe=same_recipe))
    from_main(lambda: _make_store(store))
    experiment = _open_for_all(recipe, reporter, source, callbacks)
    experiment = replace(experiment, image_log=experiment.image_log.kept_at(directory.image_log))
    machine = from_main(lambda: _machine(recipe, directory, reporter, device=device, here=here))
    if here:
        torch.set_num_threads(machine["threads"])
    prepared: list[CacheKeys] = []  # in the first process
    jobs, missing = from_main(lambda: _prepare(design, experiment, machine, directory, store, prepared))
    found = len(jobs) - len(missing)
    reporter.say(f"{recipe.name}: {len(jobs)} jobs, {len(missing)} to be done" + (f", {found} found" if found else ""))

    def finished(job: Job) -> str:
        _link(design, directory, store, [job])
        return "" if not job.evaluation else f": {_headline(experiment, store, job)}"

    errors: dict[str, str] = {}
    if missing and open_workers is None:
        run_here(missing, experiment, store, lambda job: from_main(lambda: _link(design, directory, store, [job])))
    elif missing and open_workers is not None:
        text = recipe.model_dump_json()
        with open_workers() as workers:
            errors = run_with(
                workers,
                missing,
                directory,
                partial(JobRequest, str(directory.path.resolve()), str(store.path.resolve()), text, experiment.custom),
                retries=recipe.ablation.retries,
                reporter=reporter,
                finished=finished,
                left=lambda left: None if design.keeps_policies else drop_policies(store, jobs, left),
                progress=partial(progress_of, store),
            )
    if not design.keeps_policies:
        drop_policies(store, jobs, [job for job in missing if job.name in errors])
    return from_main(lambda: _write_files(design, prepared[0], jobs, directory, store, errors))


def jobs_to_do(design: Design, store: Store) -> tuple[list[Job], list[Job]]:
    """All jobs of an ablation, and those that a store lacks.

    Raises:
        UserError: data or policy cannot be used.
    """
    recipe = design.recipe
    machine = machine_facts(recipe.ablation.cpus, recipe.ablation.gpus)
    jobs = jobs_of(CacheKeys(open_experiment(recipe, Reporter(quiet=True)), machine))
    return jobs, missing_jobs(jobs, store, keep_policies=design.keeps_policies)


def _check_processes(recipe: Recipe) -> None:
    for name in recipe.arm_names():
        for stage in recipe.stages_of(name):
            check_processes(stage)


def _open_for_all(recipe: Recipe, reporter: Reporter, source: Source | None, callbacks: Sequence[Any]) -> Experiment:
    """The experiment in every process, opened by the first process before the others, which reports a fault alone."""
    opened: list[Experiment] = []
    from_main(lambda: opened.append(open_experiment(recipe, reporter, source=source, callbacks=callbacks)))
    return opened[0] if opened else open_experiment(recipe, reporter, source=source, callbacks=callbacks)


def _make_store(store: Store) -> None:
    """Make the folder of the store.

    Raises:
        RunError: it cannot be made.
    """
    try:
        store.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{store.path} cannot be made ({error.strerror}); choose another --store.") from None


def _machine(
    recipe: Recipe, directory: RunDirectory, reporter: Reporter, *, device: str | None, here: bool
) -> dict[str, Any]:
    """The machine as keys hold it: for a run in this process the one that the run began with, but for versions."""
    if not here:
        return machine_facts(recipe.ablation.cpus, recipe.ablation.gpus, device=device)
    now = machine_facts(torch.get_num_threads())
    began = (read_json(directory.environment) if directory.environment.exists() else {}).get("key", now)
    if began["versions"] != now["versions"]:
        changed = [name for name, old in began["versions"].items() if now["versions"].get(name) != old]
        reporter.say(f"  the versions of {', '.join(changed)} have changed since the run began: all is done anew")
    if any(began[name] != now[name] for name in ("threads", "processes", "device")):
        reporter.say("  the run began on another device, or with another number of threads or processes; it keeps them")
    return began | {"versions": now["versions"]}


def _prepare(
    design: Design,
    experiment: Experiment,
    machine: dict[str, Any],
    directory: RunDirectory,
    store: Store,
    prepared: list[CacheKeys],
) -> tuple[list[Job], list[Job]]:
    """All jobs and those that the store lacks; before, all that a reader needs to repeat the run is written."""
    if design.factors and len(set(experiment.groups())) < 2:
        split = design.recipe.evaluation.split
        raise DataError(f"the {split} split has one image, and the intervals of an ablation need two or more.")
    keys = CacheKeys(experiment, machine, matched=bool(design.factors))
    prepared.append(keys)
    jobs = jobs_of(keys)
    write_json(directory.environment, environment(design.recipe, machine))
    if experiment.injection is not None:
        facts = experiment.injection.facts()
        write_json(directory.knowledge, facts) if design.factors else directory.pin_knowledge(facts)
    write_json(directory.data, experiment.annotation_statistics())
    files = custom_files(experiment.recipe.custom)
    for index, path in enumerate(files):
        name = path.name if [other.name for other in files].count(path.name) == 1 else f"{index}-{path.name}"
        with replacing(directory.custom / name) as fresh:
            shutil.copyfile(path, fresh)
    restore(store, directory.finished(), jobs)
    missing = missing_jobs(jobs, store, keep_policies=design.keeps_policies)
    _link(design, directory, store, [job for job in jobs if job not in missing])
    return jobs, missing


def _link(design: Design, directory: RunDirectory, store: Store, jobs: Sequence[Job]) -> None:
    """Put the results of finished jobs under the names of their arms; an arm that tests another has no stages."""
    for job in jobs:
        place = directory.arm(job.arm, job.seed)
        if job.evaluates == "task" and job.arm != "majority":
            for index, (stage, key) in enumerate(zip(design.recipe.stages_of(job.arm), job.stages, strict=False)):
                target = place.stage(index, stage.kind)
                if store.stage(key).done.exists():
                    store.link_stage(key, target, keep_policy=design.keeps_policies)
        if job.evaluation:
            target_of = place if job.evaluates == "task" else EvaluationDirectory(place.path / "perception")
            store.link_evaluation(job.evaluation, target_of)


def _headline(experiment: Experiment, store: Store, job: Job) -> str:
    """The figure that the predictions of a job come to."""
    assert job.evaluation is not None
    task = experiment.task
    if job.evaluates == "perception":
        arm, index = job.perceived
        task, _ = experiment.stage_task_and_source(experiment.recipe.stages_of(arm)[index])
    return so_far(task, read_jsonl(store.evaluation(job.evaluation).predictions))


def _write_files(
    design: Design, keys: CacheKeys, jobs: Sequence[Job], directory: RunDirectory, store: Store, errors: dict[str, str]
) -> Result:
    """The tables, the records and the metrics."""
    gather(design, keys, jobs, directory, store, errors)
    if images := read_json(directory.records)["images"]:
        write_json(directory.data, read_json(directory.data) | {"images": images})
    return Result(write_metrics(directory), errors)
