"""The work of an ablation: what each arm and seed needs, kept by a hash of all that it depends on.

A training is one stage of one arm with one seed. Its key is made of the policy, the stages up to it, the samples, what
the prompts hold, the seed and the number of threads; arms with equal keys share it, and what is there is never done
again. An evaluation depends on the training it tests and on how it asks.
"""

import hashlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from vrft.errors import RunError, UserError
from vrft.images import RULES
from vrft.knowledge import Told
from vrft.picture_log import PictureLog
from vrft.pipeline import Job, open_job
from vrft.policies import place_of, quiet_libraries
from vrft.policies.from_recipe import load_for
from vrft.progress import Reporter
from vrft.recipe import ENVELOPES, Ablation, Budget, Policy, Recipe, RftStage, SftStage
from vrft.runs import FORMAT, AblationDirectory, read_json, write_json
from vrft.sample import Sample, file_of
from vrft.tasks import TrainableTask
from vrft.training import PeakMemory

PASSING = {"save_every", "loader_workers"}
"""Keys of a stage that change no weight, nor does ``log_every``; where a stage ends with a budget, it is looked at with
each line of the log, and these decide the step."""

ELSEWHERE = {"samples", "root", "download"}
"""Keys of data that say where samples are and how many: which there are is told by their names."""

VERSIONS = {library: version(library) for library in ("vrft", "torch", "transformers", "trl", "peft")}
"""Of what trains and decodes: other versions may give other weights."""

LEAST = {"tokens": 16.0, "seconds": 0.05}
"""What a sequence of a step, or a step, takes at least: it bounds the steps of a stage that ends with a budget."""


@dataclass(frozen=True)
class Unit:
    """A piece of work for one process: an arm and seed, or a start that several of them share."""

    arm: str
    seed: int
    keys: tuple[str, ...]
    """Of the stages that it trains on, in order; those before ``first`` are there when it begins."""
    first: int
    tested: str | None
    """Key of the evaluation, or None where it is a shared start."""
    budget_of: tuple[str, ...] = ()
    """Keys of the trainings whose cost is the budget."""
    limited: bool = False
    """The last stage ends with the budget."""

    @property
    def name(self) -> str:
        what = f"{self.arm}, seed {self.seed}"
        return what if self.tested else f"{what}, stage {len(self.keys)}, shared"

    def needs(self) -> set[str]:
        """Keys of what must be there before it begins: the weights it starts from, and what its budget is."""
        return set(self.keys[: self.first][-1:]) | set(self.budget_of)

    def gives(self) -> set[str]:
        return set(self.keys[self.first :]) | ({self.tested} if self.tested else set())


class Ledger:
    """The keys of all work of a recipe with its arms."""

    def __init__(self, job: Job) -> None:
        self.job, self.recipe = job, job.recipe
        self.seen = {"train": digest(job.train_samples), "held_out": digest(job.held_out)}
        self.known = job.injection.facts() if job.injection else None
        self.policy, self.on = _policy(self.recipe.policy), _machine(self.recipe.ablation)
        self._asked: dict[str, str] = {}

    def trainings(self, arm: str, seed: int) -> tuple[str, ...]:
        """The keys of the stages of an arm."""
        recipe, budget = self.recipe, self.recipe.ablation.budget
        arm = recipe.trained_as(arm)
        stages, keys = recipe.stages_of(arm), list[str]()
        for index in range(len(stages)):
            facts = self._facts(arm, index) | {"seed": seed, "on": self.on}
            if index == len(stages) - 1 and self.limited(arm):
                spent = budget.amount or self.trainings("rft", seed)[-1]
                facts |= {"match": budget.match, "amount": spent}
            keys.append(_hash(facts | {"before": keys[-1] if keys else None}))
        return tuple(keys)

    def limited(self, arm: str) -> bool:
        """Whether the last stage of an arm ends with the budget; ``rft`` is what the others are matched to."""
        budget = self.recipe.ablation.budget
        return budget.match != "stages" and not (budget.amount is None and arm == "rft")

    def evaluation(self, arm: str, seed: int) -> str:
        """The key of what an arm answers."""
        recipe = self.recipe
        trained = self.trainings(arm, seed)
        section = recipe.evaluation
        facts = {
            "format": FORMAT,
            "arm": arm if arm == "majority" else None,
            "trained": trained[-1] if trained else self.policy,
            "data": self._data(None),
            "train": self.seen["train"] if arm == "majority" else None,
            "held_out": self.seen["held_out"],
            "batch": section.batch_size,
            "tokens": recipe.evaluation_tokens,
            "on": self.on,
        }
        return _hash(facts | self._asked_as(arm, recipe.told(arm)))

    def units(self) -> list[Unit]:
        """All work: shared starts, then every arm and seed."""
        recipe, budget = self.recipe, self.recipe.ablation.budget
        relative = budget.match != "stages" and budget.amount is None
        if relative and "rft" not in recipe.arm_names():
            raise UserError(f"ablation.budget matches {budget.match} to what rft spends; name rft, or give an amount.")
        asked = [(arm, seed) for arm in recipe.arm_names() for seed in recipe.seeds_of(arm)]
        users = Counter(key for arm, seed in asked for key in self.trainings(arm, seed))
        if relative:
            users.update(self.trainings("rft", seed)[-1] for seed in recipe.seeds)
        units, seen = list[Unit](), set[str]()
        for arm, seed in asked:
            keys = self.trainings(arm, seed)
            limited = self.limited(recipe.trained_as(arm)) and bool(keys)
            budget_of = self.trainings("rft", seed) if relative and limited else ()
            shared = sum(users[key] > 1 for key in keys)
            for count in range(1, shared + 1):
                if keys[count - 1] not in seen:
                    seen.add(keys[count - 1])
                    last = limited and count == len(keys)
                    of = budget_of if last else ()
                    units.append(Unit(recipe.trained_as(arm), seed, keys[:count], count - 1, None, of, last))
            units.append(Unit(arm, seed, keys, shared, self.evaluation(arm, seed), budget_of, limited))
        return units

    def _facts(self, arm: str, index: int) -> dict[str, Any]:
        """What a stage depends on, beside what came before it."""
        recipe = self.recipe
        stage = recipe.stages_of(arm)[index]
        ends = stage.max_tokens or stage.max_seconds or recipe.ablation.budget.match in LEAST
        passing = {"loader_workers"} if ends else PASSING | {"log_every"}
        plain = stage.model_dump(exclude=passing | {"task", "data"})
        facts: dict[str, Any] = {"format": FORMAT, "policy": self.policy, "stage": plain, "data": self._data(stage)}
        if recipe.validate is not None:
            samples = digest(self.job.validation_samples(stage))
            batch = recipe.evaluation.batch_size  # pads, and so decides the last bits
            how = {"samples": samples, "batch": batch, "tokens": recipe.evaluation_tokens}
            facts["validate"] = recipe.validate.model_dump() | how
        if stage.task is not None:
            task, source = self.job.asked(stage)
            key = stage.model_dump_json(include={"task", "data"})
            if key not in self._asked:
                self._asked[key] = digest(source.samples("train"))
            return facts | {"task": _task(task) | {"question": stage.task.question}, "train": self._asked[key]}
        told = recipe.told(arm, training=True)
        recited = isinstance(stage, RftStage) and "recitation" in stage.weights()
        recited = recited or (isinstance(stage, SftStage) and stage.think_from == "card")
        known = self._known("card" if told == "none" and recited else told)
        return facts | {"train": self.seen["train"]} | self._asked_as(arm, told) | {"known": known}

    def _asked_as(self, arm: str, told: Told) -> dict[str, Any]:
        """How an arm meets the samples of the recipe's task."""
        return {
            "task": _task(self.job.task),
            "told": told,
            "known": self._known(told),
            "order": ENVELOPES.get(arm),
            "sees": self.recipe.sees(arm),
        }

    def _data(self, stage: RftStage | SftStage | None) -> dict[str, Any]:
        """What decides how samples look, beside which there are and where they lie."""
        data = (stage.data if stage else None) or self.recipe.data
        return data.model_dump(exclude=ELSEWHERE) | {"rules": RULES}

    def _known(self, told: Told) -> dict[str, Any] | None:
        """What is known, as far as what is told holds it."""
        if told == "none" or self.known is None:
            return None
        return {key: value for key, value in self.known.items() if key != "other" or told == "irrelevant"}


def _policy(section: Policy) -> dict[str, Any]:
    """The policy that everything starts from; of one on disk the names and sizes of its files."""
    place = Path(place_of(section.model))
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    sizes = {str(path.relative_to(place)): path.stat().st_size for path in files}
    return section.model_dump(exclude={"image_cache_gb"}) | {"files": sizes}


def _machine(section: Ablation) -> dict[str, Any]:
    """What it runs on: threads and GPUs decide the last bits, versions more."""
    return {"threads": section.cpus, "gpus": section.gpus, "versions": VERSIONS}


def _task(task: TrainableTask) -> dict[str, Any]:
    """What a task asks and how it reads, with what it has from its data and a card."""
    return {"class": type(task).__name__, **json.loads(json.dumps(vars(task), default=str))}


def digest(samples: Iterable[Sample]) -> str:
    """A hash of which samples there are: their names, questions, targets and sizes of files, not their pixels."""
    return _hash([[one.id, one.question, one.target, one.region, _bytes(one)] for one in samples])


def _bytes(sample: Sample) -> int | None:
    """How large the file of an image is; None where it comes from no file of its own."""
    read = file_of(sample)
    return read.path.stat().st_size if read is not None and read.path.exists() else None


def _hash(facts: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def is_done(directory: AblationDirectory, unit: Unit) -> bool:
    """Whether all that a unit gives is there; weights that were thrown away after an evaluation are not missed."""
    if unit.tested:
        return directory.evaluation(unit.tested).done.exists()
    return all(directory.stage(key).is_whole() for key in unit.gives())


def failure_of(directory: AblationDirectory, unit: Unit) -> Path:
    """Where the error of a unit is kept; a shared start has its own place."""
    return directory.failure(unit.arm, unit.seed, None if unit.tested else len(unit.keys))


def drop_policies(directory: AblationDirectory, units: Iterable[Unit], missing: Iterable[Unit]) -> None:
    """Delete the weights that nothing needs which is still to be done."""
    needed = {key for unit in missing for key in unit.keys}
    for key in {key for unit in units for key in unit.keys} - needed:
        directory.stage(key).drop_policy()


@lru_cache(maxsize=1)
def _opened(recipe: str) -> Job:
    """The data of a recipe, opened once in a process for all its units."""
    quiet_libraries()
    warnings.filterwarnings("ignore")  # of libraries, in a process that nobody watches; errors come back as errors
    return open_job(Recipe.model_validate_json(recipe), Reporter(quiet=True), perception=False)


def work(path: str, recipe: str, unit: Unit) -> None:
    """Do a unit, in whatever process this is; what is there already is left as it is.

    Args:
        path: of the ablation, which every machine must see.
        recipe: with all its arms, as JSON.
        unit: what is to be done.

    Raises:
        UserError: something of the user's is at fault.
    """
    directory = AblationDirectory(Path(path))
    if not directory.lock("").parent.is_dir():
        raise RunError(f"{path} is not seen from this machine; --out must lie on a disk that all machines share.")
    job = replace(_opened(recipe), pictures=PictureLog(directory.pictures))
    torch.set_num_threads(job.recipe.ablation.cpus)
    stages = job.recipe.stages_of(job.recipe.trained_as(unit.arm))
    for index in range(unit.first, len(unit.keys)):
        place = directory.stage(unit.keys[index])
        with FileLock(directory.lock(unit.keys[index])):
            if place.is_whole():
                continue
            before = directory.stage(unit.keys[index - 1]) if index else None
            stage = stages[index]
            if unit.limited and index == len(stages) - 1:
                stage = _limited(stage, job.recipe.ablation.budget, directory, unit)
            job.train(unit.arm, index, stage, place, before, unit.seed)
    if unit.tested is None:
        return
    arm = directory.evaluation(unit.tested)
    with FileLock(directory.lock(unit.tested)):
        if arm.done.exists():
            return
        began, memory = time.monotonic(), PeakMemory()
        policy = directory.stage(unit.keys[-1]).policy if unit.keys else None
        job.evaluate(unit.arm, unit.seed, lambda: load_for(job.recipe, policy), arm.predictions)
        write_json(arm.done, {"seconds": round(time.monotonic() - began, 3), "peak_mb": memory.peak_mb()})


def _limited(
    stage: RftStage | SftStage, budget: Budget, directory: AblationDirectory, unit: Unit
) -> RftStage | SftStage:
    """The last stage of an arm, as long as the budget allows.

    Raises:
        RunError: the stages before it have spent it all.
    """
    key = budget.match
    spent = cost_of(directory, unit.keys[:-1])[key]
    amount = budget.amount or cost_of(directory, unit.budget_of)[key]
    left = amount - spent
    if left < 1:
        raise RunError(f"the stages before the last spend {spent:,.0f} {key}, and the budget is {amount:,.0f}.")
    if key == "steps":
        return stage.model_copy(update={"steps": int(left)})
    sequences = stage.batch_size if isinstance(stage, SftStage) else stage.prompts_per_step * stage.group_size
    least = LEAST[key] * (sequences if key == "tokens" else 1)
    if isinstance(stage, RftStage):
        least /= stage.updates_per_batch  # which share the tokens of one batch
    limit = {"max_tokens": int(left)} if key == "tokens" else {"max_seconds": float(left)}
    return stage.model_copy(update={"steps": int(left / least) + 1, **limit})


def cost_of(directory: AblationDirectory, keys: Iterable[str]) -> dict[str, float]:
    """What trainings cost together: steps, tokens, seconds, and the peak memory in MB of the largest."""
    costs: list[Mapping[str, float]] = [read_json(directory.stage(key).done) for key in keys]
    sums = {key: float(sum(cost[key] for cost in costs)) for key in ("steps", "tokens", "seconds")}
    return sums | {"peak_mb": max((cost["peak_mb"] for cost in costs), default=0.0)}
