"""The grid: units of work run in processes of this machine, or on a Ray cluster, in an order that their needs allow.

A unit whose process was killed is begun again, from its last checkpoint; one that fails is told with its error, as are
those that need what it would have given, and the others go on.
"""

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

import torch
from pebble import ProcessExpired, ProcessPool

from vrft.errors import UserError, first_line
from vrft.experiment.jobs import Unit, failure_of, work
from vrft.progress import Reporter
from vrft.runs import AblationDirectory, read_jsonl, write_json

LOOK = 1.0
"""Seconds between looks at what the running units have written."""


class Workers(Protocol):
    """What takes units: processes here, or a cluster."""

    at_once: int
    """How many units are handed over before one is done."""

    lost: tuple[type[BaseException], ...]
    """What a unit raises whose process was killed."""

    def submit(self, path: str, recipe: str, unit: Unit) -> Future[None]: ...


class LocalWorkers:
    """Processes of this machine, each with its share of cores, or with a GPU of its own."""

    lost = (ProcessExpired,)

    def __init__(self, pool: ProcessPool, at_once: int, gpus: Sequence[str]) -> None:
        self.pool, self.at_once = pool, at_once
        self.held: dict[str, Future[None] | None] = dict.fromkeys(gpus)
        """The unit on each GPU, by what CUDA calls it."""

    def submit(self, path: str, recipe: str, unit: Unit) -> Future[None]:
        gpu = next((gpu for gpu, on_it in self.held.items() if on_it is None or on_it.done()), "")
        future: Future[None] = self.pool.schedule(_on, args=(gpu, path, recipe, unit))
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
    # Where there is a GPU each unit has a fresh process: which GPU a process sees is settled once.
    pool = ProcessPool(
        at_once, max_tasks=1 if each else 0, initializer=_watch, initargs=[os.getpid()], context=get_context("spawn")
    )
    threads = {"OMP_NUM_THREADS": str(cpus), "TOKENIZERS_PARALLELISM": "false"}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # processes that are spawned read them before they count cores
    try:
        yield LocalWorkers(pool, at_once, _visible(here) if each else [])
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _watch(parent: int) -> None:
    """End with the process that began this one, however that ends."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _visible(count: int) -> list[str]:
    """What CUDA calls the GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _on(gpu: str, path: str, recipe: str, unit: Unit) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # none, where an arm takes no GPU
    work(path, recipe, unit)


def _on_ray(folder: str, path: str, recipe: str, unit: Unit) -> None:
    """As here: paths of a recipe count from the folder where the ablation was begun."""
    if os.path.isdir(folder):
        os.chdir(folder)
    work(path, recipe, unit)


class RayWorkers:
    """A Ray cluster: it places each unit where the resources that the recipe states are free."""

    at_once = 10_000

    def __init__(self, remote: Any, lost: tuple[type[BaseException], ...]) -> None:
        self.remote, self.lost = remote, lost

    def submit(self, path: str, recipe: str, unit: Unit) -> Future[None]:
        future: Future[None] = self.remote.options(name=unit.name).remote(os.getcwd(), path, recipe, unit).future()
        return future


@contextmanager
def ray_workers(cpus: int, gpus: float | None, address: str) -> Iterator[RayWorkers]:
    """Connect to a Ray cluster.

    Args:
        cpus: of one unit.
        gpus: of one unit; None is one where the cluster has any.
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


def carry_out(
    units: Sequence[Unit],
    directory: AblationDirectory,
    recipe: str,
    workers: Workers,
    *,
    retries: int,
    reporter: Reporter,
    told: Callable[[Unit], str] = lambda unit: "",
    tidy: Callable[[Sequence[Unit]], None] = lambda left: None,
) -> dict[str, str]:
    """Do all units, each when what it needs is there.

    Args:
        units: those that are not done.
        directory: of the ablation.
        recipe: with all its arms, as JSON.
        workers: what takes them.
        retries: how often a unit is begun again whose process was killed.
        reporter: is told what is done.
        told: what to say of a unit that is done.
        tidy: called whenever a unit is done, with those that are left or failed.

    Returns:
        the error of each unit that failed, by its name.
    """
    missing = {key for unit in units for key in unit.gives()}
    waiting, running = list(units), dict[Future[None], Unit]()
    tries, errors = dict[str, int](), dict[str, str]()
    lacking: dict[str, str] = {}
    reporter.start("ablation", len(units))
    while waiting or running:
        for unit in list(waiting):
            gone = next((lacking[key] for key in unit.needs() if key in lacking), None)
            if gone is not None:
                waiting.remove(unit)
                why = f"{gone}, which it starts from, failed: {errors[gone]}"
                fail(directory, unit, errors, lacking, why, "")
            elif len(running) < workers.at_once and not unit.needs() & missing:
                waiting.remove(unit)
                running[workers.submit(str(directory.path.resolve()), recipe, unit)] = unit
        finished, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
        for future in finished:
            unit = running.pop(future)
            error = future.exception()
            if isinstance(error, workers.lost) and tries.get(unit.name, 0) < retries:
                tries[unit.name] = tries.get(unit.name, 0) + 1
                reporter.say(
                    f"{unit.name}: its process was killed; begun again from its last checkpoint "
                    f"(if memory was short: fewer --workers)"
                )
                waiting.insert(0, unit)
                continue
            ended = f"[{len(units) - len(waiting) - len(running)}/{len(units)}] {unit.name}"
            if error is None:
                missing -= unit.gives()
                failure_of(directory, unit).unlink(missing_ok=True)
                reporter.say(f"{ended}{told(unit)}")
                tidy([*waiting, *running.values(), *(one for one in units if one.name in errors)])
            else:
                fail(directory, unit, errors, lacking, _one_line(error), _whole(error))
                reporter.say(f"{ended} failed: {errors[unit.name]}")
        reporter.advance(len(units) - len(waiting) - len(running), so_far(directory, running.values()))
    reporter.stop()
    return errors


def fail(
    directory: AblationDirectory,
    unit: Unit,
    errors: dict[str, str],
    lacking: dict[str, str],
    error: str,
    whole: str,
) -> None:
    """Note that a unit failed, and what others cannot have now."""
    errors[unit.name] = error
    lacking.update(dict.fromkeys(unit.gives(), unit.name))
    write_json(failure_of(directory, unit), {"unit": unit.name, "error": error, "traceback": whole})


def _cause(error: BaseException) -> Exception:
    """What was raised in a process: Ray wraps it."""
    cause = getattr(error, "cause", None) or error
    return cause if isinstance(cause, Exception) else RuntimeError(repr(cause))


def _one_line(error: BaseException) -> str:
    cause = _cause(error)
    text = first_line(cause) if str(cause) else ""
    return text if isinstance(cause, UserError) else f"{type(cause).__name__}: {text}".rstrip(": ")


def _whole(error: BaseException) -> str:
    return str(getattr(error, "traceback", None) or "".join(traceback.format_exception(error)))


def so_far(directory: AblationDirectory, running: Any) -> str:
    """What the running units have reached: step and reward."""
    notes = []
    for unit in running:
        place = next((directory.stage(key) for key in reversed(unit.keys) if directory.stage(key).log.exists()), None)
        rows = read_jsonl(place.log)[-1:] if place and not place.done.exists() else []
        reached: Mapping[str, Any] = rows[0] if rows else {}
        figures = f" step {reached['step']}" if reached else ""
        figures += f" reward {reached['reward']:.2f}" if reached.get("reward") is not None else ""
        notes.append(f"{unit.arm} s{unit.seed}{figures}")
    return "; ".join(notes[:3])
