"""Jobs: the stages and evaluations of an experiment, shared between arms where their keys are equal.

A job is the work of one process: it trains the stages of an arm and seed that no other job gives, and evaluates its
policy; or it trains a start that several arms share; or it evaluates what a stage on another task has learnt of it.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from vrft.errors import RunError, UserError
from vrft.experiment.keys import CacheKey, CacheKeys
from vrft.experiment.opened import Experiment, Stage
from vrft.policies.from_recipe import load_for
from vrft.processes import all_of, from_main, is_main
from vrft.progress import Reporter
from vrft.recipe import Budget, SftStage
from vrft.runs import Store, read_json, write_json
from vrft.training import PeakMemory

LEAST = {"tokens": 16.0, "seconds": 0.05}
"""The least tokens of a sequence, and the least seconds of a step: a bound on the steps of a stage with a budget."""


@dataclass(frozen=True)
class Job:
    """The work of one process for an arm and a seed."""

    arm: str
    seed: int
    stages: tuple[CacheKey, ...]
    """The keys of the stages of its policy, in order."""
    first: int
    """The first of them that it trains itself, from 0; those before are there when it begins."""
    evaluation: CacheKey | None
    """The key of the predictions; None for a start that several arms share."""
    evaluates: Literal["task", "perception"] = "task"
    """The task of the predictions: that of the recipe, or that of the stage ``perceived``."""
    perceived: tuple[str, int] = ("", 0)
    """Of a perception: the arm and the position of the stage on another task that is evaluated."""
    budget_of: tuple[CacheKey, ...] = ()
    """Keys of the stages whose cost is the budget."""
    limited: bool = False
    """The last stage ends with the budget."""

    @property
    def name(self) -> str:
        """The job in words, one of its kind in an experiment."""
        name = f"{self.arm}, seed {self.seed}"
        if self.evaluation is None:
            return f"{name}, stage {len(self.stages)}, shared"
        return name if self.evaluates == "task" else f"{name}, perception"

    def needs(self) -> set[CacheKey]:
        """Keys of the results that must be there before it begins: its start, and the stages of its budget."""
        return set(self.stages[: self.first][-1:]) | set(self.budget_of)

    def gives(self) -> set[CacheKey]:
        """Keys of its results."""
        return set(self.stages[self.first :]) | ({self.evaluation} if self.evaluation else set())


def jobs_of(keys: CacheKeys) -> list[Job]:
    """All jobs of an experiment, each after the jobs that it needs.

    Raises:
        UserError: arms are matched to ``rft``, and the recipe does not name it.
    """
    recipe, budget = keys.recipe, keys.recipe.ablation.budget
    relative = keys.matched and budget.match != "stages" and budget.amount is None
    if relative and "rft" not in recipe.arm_names():
        raise UserError(f"ablation.budget matches {budget.match} to what rft spends; name rft, or give an amount.")
    runs = [(arm, seed) for arm in recipe.arm_names() for seed in recipe.seeds_of(arm)]
    users = Counter(key for arm, seed in runs for key in keys.stages(arm, seed))
    if relative:
        users.update(keys.stages("rft", seed)[-1] for seed in recipe.seeds)
    jobs, shared_keys = list[Job](), set[CacheKey]()
    for arm, seed in runs:
        stages = keys.stages(arm, seed)
        limited = keys.is_limited(recipe.trained_as(arm)) and bool(stages)
        budget_of = keys.stages("rft", seed) if relative and limited else ()
        shared = sum(users[key] > 1 for key in stages)
        for count in range(1, shared + 1):
            if stages[count - 1] not in shared_keys:
                shared_keys.add(stages[count - 1])
                last = limited and count == len(stages)
                matched = budget_of if last else ()
                trained = recipe.trained_as(arm)
                jobs.append(Job(trained, seed, stages[:count], count - 1, None, budget_of=matched, limited=last))
        evaluation = keys.evaluation(arm, seed)
        jobs.append(Job(arm, seed, stages, shared, evaluation, budget_of=budget_of, limited=limited))
    return jobs + _perception_jobs(keys)


def _perception_jobs(keys: CacheKeys) -> list[Job]:
    """One evaluation for each different training on other tasks and seed, and one of the best constant answer."""
    recipe, jobs = keys.recipe, list[Job]()
    for arm, last in recipe.perceptions():
        if not keys.experiment.perception_samples(recipe.stages_of(arm)[last]):
            continue
        if not jobs:
            key = keys.perception("majority", recipe.seeds[0], (arm, last))
            jobs.append(Job("majority", recipe.seeds[0], (), 0, key, "perception", (arm, last)))
        for seed in recipe.seeds:
            stages, key = keys.stages(arm, seed)[: last + 1], keys.perception(arm, seed, (arm, last))
            jobs.append(Job(arm, seed, stages, len(stages), key, "perception", (arm, last)))
    return jobs


def is_done(store: Store, job: Job) -> bool:
    """Whether all results of a job are there; weights that were dropped after an evaluation are not missed."""
    if job.evaluation:
        return store.evaluation(job.evaluation).done.exists()
    return all(store.stage(key).is_whole() for key in job.gives())


def missing_jobs(jobs: Sequence[Job], store: Store, *, keep_policies: bool = False) -> list[Job]:
    """The jobs that are not done; a shared start without weights counts where a job that needs them is missing.

    Args:
        jobs: all jobs.
        store: holds the results.
        keep_policies: a job whose weights were dropped, by another run, is not done.
    """
    weights, spent, missing = set[CacheKey](), set[CacheKey](), list[Job]()
    for job in reversed(jobs):
        places = {key: store.stage(key) for key in job.gives()}
        absent = (
            not is_done(store, job)
            if job.evaluation
            else any(
                (key in weights and not place.is_whole()) or (key in spent and not place.done.exists())
                for key, place in places.items()
            )
        )
        lost = keep_policies and any(not store.stage(key).is_whole() for key in job.stages[job.first :])
        if absent or lost:
            missing.append(job)
            weights |= set(job.stages[: job.first][-1:])
            spent |= set(job.budget_of)
    return missing[::-1]


def drop_policies(store: Store, jobs: Iterable[Job], missing: Iterable[Job]) -> None:
    """Delete the weights that no missing job needs; those that a run directory holds, or that are in use, stay."""
    needed = {key for job in missing for key in job.stages}
    for key in {key for job in jobs for key in job.stages} - needed:
        place = store.stage(key)
        if any(path.stat().st_nlink > 1 for path in place.policy.glob("*")):  # a run keeps them
            continue
        with suppress(Timeout), FileLock(store.lock(key)).acquire(timeout=0):
            place.drop_policy()


def restore(store: Store, finished: Mapping[CacheKey, Path], jobs: Iterable[Job]) -> None:
    """Put finished results of a run directory back into the store, where the jobs want them and they are missing."""
    wanted = {key for job in jobs for key in (*job.stages, job.evaluation) if key}
    for key in wanted & set(finished):
        if store.lacks(key, finished[key]):
            with suppress(Timeout), FileLock(store.lock(key)).acquire(timeout=0):
                store.restore(key, finished[key])


def run_job(experiment: Experiment, store: Store, job: Job) -> None:
    """Do a job; results that are there already are left as they are.

    Args:
        experiment: the opened recipe.
        store: where results are kept.
        job: the job.

    Raises:
        UserError: the user's input is at fault.
    """
    recipe = experiment.recipe
    arm = "majority" if job.arm == "majority" else recipe.trained_as(job.arm)
    stages = recipe.stages_of(arm) if arm != "majority" else []
    for index in range(job.first, len(job.stages)):
        place = store.stage(job.stages[index])
        with _locked(store, job.stages[index], experiment.reporter):
            if from_main(place.is_whole):
                continue
            before = store.stage(job.stages[index - 1]) if index else None
            if before and not from_main(before.is_whole):
                raise RunError(f"another run has dropped the weights that {job.name} starts from; begin again.")
            from_main(partial(place.done.unlink, missing_ok=True))  # of weights that were dropped
            stage = stages[index]
            if job.limited and index == len(stages) - 1:
                stage = limited_stage(stage, recipe.ablation.budget, store, job)
            experiment.train(job.arm, index, stage, place, before, job.seed)
    if job.evaluation is None:
        return
    evaluation = store.evaluation(job.evaluation)
    with _locked(store, job.evaluation, experiment.reporter):
        if from_main(evaluation.done.exists):
            return
        began, memory = time.monotonic(), PeakMemory()
        policy = store.stage(job.stages[-1]).policy if job.stages else None
        perceived = recipe.stages_of(job.perceived[0])[job.perceived[1]] if job.evaluates == "perception" else None
        experiment.evaluate(job.arm, job.seed, lambda: load_for(recipe, policy), evaluation.predictions, perceived)
        cost = {"seconds": round(time.monotonic() - began, 3), "peak_mb": max(all_of([memory.peak_mb()]))}
        from_main(lambda: write_json(evaluation.done, cost))


@contextmanager
def _locked(store: Store, key: CacheKey, reporter: Reporter) -> Iterator[None]:
    """Keep other runs from working on a key; the first process of a run holds the lock for all."""
    lock = FileLock(store.lock(key))
    while not from_main(lambda: _acquired(lock)):
        reporter.say(f"waiting for another run, which works on {key}")
    try:
        yield
    finally:
        if is_main():
            lock.release()


def _acquired(lock: FileLock) -> bool:
    """Wait half a minute for a lock; shorter than processes wait for each other."""
    try:
        lock.acquire(timeout=30)
    except Timeout:
        return False
    return True


def limited_stage(stage: Stage, budget: Budget, store: Store, job: Job) -> Stage:
    """The last stage of an arm, as long as the budget allows.

    Raises:
        RunError: the stages before it have spent the budget.
    """
    key = budget.match
    spent = cost_of(store, job.stages[:-1])[key]
    amount = budget.amount or cost_of(store, job.budget_of)[key]
    left = amount - spent
    if left < 1:
        raise RunError(f"the stages before the last spend {spent:,.0f} {key}, and the budget is {amount:,.0f}.")
    if key == "steps":
        return stage.model_copy(update={"steps": int(left)})
    sequences = stage.batch_size if isinstance(stage, SftStage) else stage.prompts_per_step * stage.group_size
    least = LEAST[key] * (sequences if key == "tokens" else 1)
    if not isinstance(stage, SftStage):
        least /= stage.updates_per_batch  # which share the tokens of one batch
    limit = {"max_tokens": int(left)} if key == "tokens" else {"max_seconds": float(left)}
    return stage.model_copy(update={"steps": int(left / least) + 1, **limit})


def cost_of(store: Store, keys: Iterable[CacheKey]) -> dict[str, float]:
    """The cost of stages together: steps, tokens, seconds, and the peak memory in MB of the largest."""
    costs: list[Mapping[str, float]] = [read_json(store.stage(key).done) for key in keys]
    sums = {key: float(sum(cost[key] for cost in costs)) for key in ("steps", "tokens", "seconds")}
    return sums | {"peak_mb": max((cost["peak_mb"] for cost in costs), default=0.0)}
