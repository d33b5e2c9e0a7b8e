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
from vrft.evaluation.predictions import so_far
from vrft.evaluation.summary import write_metrics
from vrft.experiment.design import Design
from vrft.experiment.jobs import Job, drop_policies, jobs_of, missing_jobs
from vrft.experiment.keys import CacheKeys, machine_facts
from vrft.experiment.opened import Experiment, open_experiment
from vrft.experiment.results import environment, gather, link_arm
from vrft.experiment.runners import JobRequest, Workers, progress_of, run_here, run_with
from vrft.image_log import ImageLog
from vrft.policies import quiet_libraries
from vrft.processes import from_main, join_processes
from vrft.progress import Reporter
from vrft.recipe import Recipe
from vrft.rewards.custom import custom_files
from vrft.runs import RunDirectory, Store, read_json, read_jsonl, replacing, write_json
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

    Raises:
        UserError: data, policy or directory cannot be used, or a job failed in this process; finished results stay.
    """
    quiet_libraries()
    join_processes()
    recipe, store = design.recipe, store or Store(directory.default_store)
    if open_workers is None:
        from_main(lambda: _check_processes(recipe))
    from_main(lambda: directory.open(recipe.dump(), resume=resume, same_recipe=same_recipe))
    experiment = _open_for_all(recipe, reporter, source, callbacks)
    experiment = replace(experiment, image_log=ImageLog(directory.image_log))
    here = open_workers is None
    machine = from_main(lambda: _machine(recipe, directory, here=here))
    keys = CacheKeys(experiment, machine, matched=bool(design.factors))
    jobs = jobs_of(keys)
    from_main(lambda: _begin(experiment, keys, directory, store, exact=same_recipe))
    missing = from_main(lambda: missing_jobs(jobs, store))
    found = len(jobs) - len(missing)
    reporter.say(f"{recipe.name}: {len(jobs)} jobs, {len(missing)} to be done" + (f", {found} found" if found else ""))
    from_main(lambda: _link(keys, directory, store, [job for job in jobs if job not in missing]))

    def finished(job: Job) -> str:
        from_main(lambda: _link(keys, directory, store, [job]))
        return "" if not job.evaluation else f": {_headline(experiment, store, job)}"

    kept = recipe.ablation.keep_policies or not design.factors
    errors: dict[str, str] = {}
    if missing and open_workers is None:
        run_here(missing, experiment, store, finished)
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
                left=lambda left: None if kept else drop_policies(store, jobs, left),
                progress=partial(progress_of, store),
            )
    if not kept:
        drop_policies(store, jobs, [job for job in missing if job.name in errors])
    return from_main(lambda: _write_files(design, keys, jobs, directory, store, errors))


def jobs_to_do(design: Design, store: Store) -> tuple[list[Job], list[Job]]:
    """All jobs of an ablation, and those that a store lacks.

    Raises:
        UserError: data or policy cannot be used.
    """
    recipe = design.recipe
    machine = machine_facts(recipe.ablation.cpus, recipe.ablation.gpus)
    jobs = jobs_of(CacheKeys(open_experiment(recipe, Reporter(quiet=True)), machine))
    return jobs, missing_jobs(jobs, store)


def _check_processes(recipe: Recipe) -> None:
    for name in recipe.arm_names():
        for stage in recipe.stages_of(name):
            check_processes(stage)


def _open_for_all(recipe: Recipe, reporter: Reporter, source: Source | None, callbacks: Sequence[Any]) -> Experiment:
    """The experiment in every process, opened by the first process before the others, which reports a fault alone."""
    opened: list[Experiment] = []
    from_main(lambda: opened.append(open_experiment(recipe, reporter, source=source, callbacks=callbacks)))
    return opened[0] if opened else open_experiment(recipe, reporter, source=source, callbacks=callbacks)


def _machine(recipe: Recipe, directory: RunDirectory, *, here: bool) -> dict[str, Any]:
    """The machine as keys hold it: for a run in this process that which the run began with."""
    if not here:
        return machine_facts(recipe.ablation.cpus, recipe.ablation.gpus)
    began = read_json(directory.environment) if directory.environment.exists() else {}
    return machine_facts(began.get("threads", torch.get_num_threads()), processes=began.get("processes"))


def _begin(experiment: Experiment, keys: CacheKeys, directory: RunDirectory, store: Store, *, exact: bool) -> None:
    """Write all that a reader needs to repeat the run, before anything is trained."""
    write_json(directory.environment, environment(experiment.recipe, keys.machine))
    if experiment.injection is not None:
        facts = experiment.injection.facts()
        directory.pin_knowledge(facts) if exact else write_json(directory.knowledge, facts)
    write_json(directory.data, experiment.annotation_statistics())
    for path in custom_files(experiment.recipe.custom):
        with replacing(directory.custom / path.name) as fresh:
            shutil.copyfile(path, fresh)
    store.path.mkdir(parents=True, exist_ok=True)
    for place, key in (read_json(directory.keys) if directory.keys.exists() else {}).items():
        store.restore(key, directory.path / place)


def _link(keys: CacheKeys, directory: RunDirectory, store: Store, jobs: Sequence[Job]) -> None:
    """Put the arms of finished jobs under their names."""
    linked = read_json(directory.keys) if directory.keys.exists() else {}
    for job in jobs:
        if job.evaluates == "task":
            key = job.evaluation or keys.evaluation(job.arm, job.seed)
            linked |= link_arm(keys.recipe, directory, store, job.arm, job.seed, (*job.stages, key))
    write_json(directory.keys, linked)


def _headline(experiment: Experiment, store: Store, job: Job) -> str:
    """The figure that the predictions of a job come to."""
    assert job.evaluation is not None
    task = experiment.task
    if job.evaluates == "perception":
        name = job.arm if job.stages else experiment.recipe.perceptions()[0][0]
        task, _ = experiment.stage_task_and_source(experiment.recipe.stages_of(name)[job.perceived])
    return so_far(task, read_jsonl(store.evaluation(job.evaluation).predictions))


def _write_files(
    design: Design, keys: CacheKeys, jobs: Sequence[Job], directory: RunDirectory, store: Store, errors: dict[str, str]
) -> Result:
    """The tables, the records and the metrics."""
    gather(design, keys, jobs, directory, store, errors)
    if images := read_json(directory.records)["images"]:
        write_json(directory.data, read_json(directory.data) | {"images": images})
    return Result(write_metrics(directory), errors)
