"""Runners: the jobs of an experiment in this process, in processes of this machine, or on a Ray cluster.

A job begins when the results that it needs are there. In processes of their own a job whose process was killed is begun
again, from its last checkpoint; a job that fails is reported with its error, as are those that need its results, and
the others go on.
"""

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
from pebble import ProcessExpired, ProcessPool

from vrft.errors import RunError, UserError, first_line
from vrft.experiment.jobs import Job, run_job
from vrft.experiment.opened import Experiment, open_experiment
from vrft.policies import quiet_libraries
from vrft.progress import Reporter
from vrft.recipe import Recipe
from vrft.runs import RunDirectory, Store, read_jsonl, write_json

POLL_SECONDS = 1.0
"""Between two readings of the logs of the running jobs."""


@dataclass(frozen=True)
class JobRequest:
    """All that a worker needs to do a job; it travels between processes and machines."""

    run: str
    """The run directory."""
    store: str
    recipe: str
    """With all its arms, as JSON."""
    custom: Mapping[str, str]
    """The digests of the user's rewards when the run began."""
    job: Job


def run_here(jobs: Sequence[Job], experiment: Experiment, store: Store, finished: Callable[[Job], object]) -> None:
    """Do all jobs in this process, one after another; with several processes each of them does its share of every job.

    Args:
        jobs: those that are not done.
        experiment: the opened recipe.
        store: where results are kept.
        finished: called after each job.

    Raises:
        UserError: a job failed; finished results stay.
    """
    missing, waiting = {key for job in jobs for key in job.gives()}, list(jobs)
    while waiting:
        job = next(job for job in waiting if not job.needs() & missing)
        waiting.remove(job)
        run_job(experiment, store, job)
        missing -= job.gives()
        finished(job)


@lru_cache(maxsize=1)
def _opened(recipe: str) -> Experiment:
    """The experiment of a recipe, opened once in a process for all its jobs."""
    quiet_libraries()
    warnings.filterwarnings("ignore")  # of libraries, in a process without a terminal; errors come back as errors
    return open_experiment(Recipe.model_validate_json(recipe), Reporter(quiet=True))


def work(request: JobRequest) -> None:
    """Do a job in a worker.

    Raises:
        UserError: the user's input is at fault.
    """
    directory, store = RunDirectory(Path(request.run)), Store(Path(request.store))
    if not store.path.is_dir():
        raise RunError(f"{request.store} is not seen from this machine; --out must be on a disk of all machines.")
    experiment = _opened(request.recipe)
    image_log = experiment.image_log.kept_at(directory.image_log)
    experiment = replace(experiment, image_log=image_log, custom=request.custom)
    torch.set_num_threads(experiment.recipe.ablation.cpus)
    run_job(experiment, store, request.job)


class Workers(Protocol):
    """Processes of this machine, or a cluster."""

    at_once: int
    """How many jobs are handed over before one is done."""

    lost: tuple[type[BaseException], ...]
    """Errors of a job whose process was killed."""

    def submit(self, request: JobRequest) -> Future[None]:
        """Hand a job over."""
        ...


class LocalWorkers:
    """Processes of this machine, each with its share of cores, or with a GPU of its own."""

    lost = (ProcessExpired,)

    def __init__(self, pool: ProcessPool, at_once: int, gpus: Sequence[str]) -> None:
        self.pool, self.at_once = pool, at_once
        self.held: dict[str, Future[None] | None] = dict.fromkeys(gpus)
        """The job on each GPU, by its number in CUDA."""

    def submit(self, request: JobRequest) -> Future[None]:
        """Hand a job over, with a GPU that no other job has."""
        gpu = next((gpu for gpu, on_it in self.held.items() if on_it is None or on_it.done()), "")
        future: Future[None] = self.pool.schedule(_on, args=(gpu, request))
        if gpu:
            self.held[gpu] = future
        return future


@contextmanager
def local_workers(cpus: int, gpus: float | None, workers: int | None) -> Iterator[LocalWorkers]:
    """Processes of this machine: as many as there are GPUs or cores for, or ``workers``.

    Raises:
        UserError: the recipe asks for GPUs that are not there.
    """
    here = torch.cuda.device_count()
    each = (1 if here else 0) if gpus is None else -(-gpus // 1)
    if each > here:
        raise UserError(f"ablation.gpus is {gpus:g}, and this machine has {here}.")
    if each > 1:
        raise UserError(f"ablation.gpus is {gpus:g}; on one machine an arm takes one GPU or none. Use a Ray cluster.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = here if each else max(1, cores // cpus)
    at_once = min(workers or fitting, here) if each else workers or fitting
    # Where there is a GPU each job has a fresh process: which GPU a process sees is settled once.
    pool = ProcessPool(
        at_once, max_tasks=1 if each else 0, initializer=_watch, initargs=[os.getpid()], context=get_context("spawn")
    )
    threads = {"OMP_NUM_THREADS": str(cpus), "TOKENIZERS_PARALLELISM": "false"}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # processes that are spawned read them before they count cores
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)  # else a spawned process would run the script of the user again
    try:
        yield LocalWorkers(pool, at_once, _visible(here) if each else [])
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()
        vars(main).update(hidden)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _watch(parent: int) -> None:
    """End with the process that began this one, however that ends."""

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=poll, daemon=True).start()


def _visible(count: int) -> list[str]:
    """The numbers in CUDA of the GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _on(gpu: str, request: JobRequest) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # none, where an arm takes no GPU
    work(request)


def _on_ray(folder: str, request: JobRequest) -> None:
    """Paths of a recipe count from the folder where the ablation was begun."""
    if os.path.isdir(folder):
        os.chdir(folder)
    work(request)


class RayWorkers:
    """A Ray cluster: it places each job where the resources that the recipe states are free."""

    at_once = 10_000

    def __init__(self, remote: Any, lost: tuple[type[BaseException], ...]) -> None:
        self.remote, self.lost = remote, lost

    def submit(self, request: JobRequest) -> Future[None]:
        """Hand a job over."""
        future: Future[None] = self.remote.options(name=request.job.name).remote(os.getcwd(), request).future()
        return future


@contextmanager
def ray_workers(cpus: int, gpus: float | None, address: str) -> Iterator[RayWorkers]:
    """Connect to a Ray cluster.

    Args:
        cpus: of one job.
        gpus: of one job; None is one where the cluster has any.
        address: ``auto``, ``local`` (a cluster of this machine alone, which ends with the work) or ``HOST:PORT`` of the
            head.

    Raises:
        UserError: Ray is not installed, no cluster answers there, or it has not the resources.
    """
    try:
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError
    except ImportError:
        raise UserError("--ray needs Ray; install vrft[ray], or leave it out to use this machine alone.") from None
    began = not ray.is_initialized()
    try:
        if began:
            ray.init(address=address, log_to_driver=False, logging_level="warning", configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there ({first_line(error)}).") from None
    try:
        there = ray.cluster_resources()
        each = (1.0 if there.get("GPU", 0) else 0.0) if gpus is None else gpus
        if there.get("CPU", 0) < cpus or there.get("GPU", 0) < each:
            has = f"{there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs"
            raise UserError(f"an arm needs {cpus} cores and {each:g} GPUs, and the Ray cluster has {has}.")
        remote = ray.remote(num_cpus=cpus, num_gpus=each, max_retries=0)(_on_ray)
        yield RayWorkers(remote, (WorkerCrashedError, NodeDiedError, OutOfMemoryError))
    finally:
        if began:
            ray.shutdown()


def run_with(
    workers: Workers,
    jobs: Sequence[Job],
    directory: RunDirectory,
    request_of: Callable[[Job], JobRequest],
    *,
    retries: int,
    reporter: Reporter,
    finished: Callable[[Job], str] = lambda job: "",
    left: Callable[[Sequence[Job]], None] = lambda jobs: None,
    progress: Callable[[Sequence[Job]], str] = lambda jobs: "",
) -> dict[str, str]:
    """Do all jobs with workers, each when the results that it needs are there.

    Args:
        workers: processes or a cluster.
        jobs: those that are not done.
        directory: of the run; errors are kept there.
        request_of: a job with all that a worker needs to do it.
        retries: how often a job is begun again whose process was killed.
        reporter: shows progress.
        finished: called after each job; gives a text for its line of progress.
        left: called whenever a job is done, with the jobs that are left or failed.
        progress: a text on the running jobs.

    Returns:
        the error of each job that failed, by its name.
    """
    missing = {key for job in jobs for key in job.gives()}
    waiting, running = list(jobs), dict[Future[None], Job]()
    tries, errors = dict[str, int](), dict[str, str]()
    lacking: dict[str, str] = {}

    def fail(job: Job, error: str, whole: str) -> None:
        errors[job.name] = error
        lacking.update(dict.fromkeys(job.gives(), job.name))
        write_json(failure_of(directory, job), {"job": job.name, "error": error, "traceback": whole})

    reporter.start("jobs", len(jobs))
    while waiting or running:
        for job in list(waiting):
            gone = next((lacking[key] for key in job.needs() if key in lacking), None)
            if gone is not None:
                waiting.remove(job)
                fail(job, f"{gone}, which it starts from, failed: {errors[gone]}", "")
            elif len(running) < workers.at_once and not job.needs() & missing:
                waiting.remove(job)
                running[workers.submit(request_of(job))] = job
        done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            job = running.pop(future)
            error = future.exception()
            if isinstance(error, workers.lost) and tries.get(job.name, 0) < retries:
                tries[job.name] = tries.get(job.name, 0) + 1
                reporter.say(
                    f"{job.name}: its process was killed; begun again from its last checkpoint "
                    f"(if memory was short: fewer --workers)"
                )
                waiting.insert(0, job)
                continue
            ended = f"[{len(jobs) - len(waiting) - len(running)}/{len(jobs)}] {job.name}"
            if error is None:
                missing -= job.gives()
                failure_of(directory, job).unlink(missing_ok=True)
                reporter.say(f"{ended}{finished(job)}")
                left([*waiting, *running.values(), *(job for job in jobs if job.name in errors)])
            else:
                fail(job, _one_line(error), _whole(error))
                reporter.say(f"{ended} failed: {errors[job.name]}")
        reporter.advance(len(jobs) - len(waiting) - len(running), progress(list(running.values())))
    reporter.stop()
    return errors


def _cause(error: BaseException) -> Exception:
    """The error in a worker: Ray wraps it."""
    cause = getattr(error, "cause", None) or error
    return cause if isinstance(cause, Exception) else RuntimeError(repr(cause))


def _one_line(error: BaseException) -> str:
    cause = _cause(error)
    text = first_line(cause) if str(cause) else ""
    return text if isinstance(cause, UserError) else f"{type(cause).__name__}: {text}".rstrip(": ")


def _whole(error: BaseException) -> str:
    return str(getattr(error, "traceback", None) or "".join(traceback.format_exception(error)))


def failure_of(directory: RunDirectory, job: Job) -> Path:
    """The file of the error of a job; a shared start has a file of its own."""
    part = (
        f"stage-{len(job.stages)}" if job.evaluation is None else "perception" if job.evaluates == "perception" else ""
    )
    return directory.failure(job.arm, job.seed, part)


def progress_of(store: Store, running: Sequence[Job]) -> str:
    """The step and the reward that the running jobs have reached."""
    notes = []
    for job in running:
        place = next((store.stage(key) for key in reversed(job.stages) if store.stage(key).log.exists()), None)
        rows = read_jsonl(place.log)[-1:] if place and not place.done.exists() else []
        reached: Mapping[str, Any] = rows[0] if rows else {}
        figures = f" step {reached['step']}" if reached else ""
        figures += f" reward {reached['reward']:.2f}" if reached.get("reward") is not None else ""
        notes.append(f"{job.arm} s{job.seed}{figures}")
    return "; ".join(notes[:3])
