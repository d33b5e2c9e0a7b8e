"""Cache keys: a trained stage or an evaluation is kept under a hash of all that decides its result.

A key holds the policy, the stages up to it, the samples with their pixels, the condition of the arm, the seed, the
machine (device, threads, processes, versions of libraries), the code that makes prompts, trains, decodes, reads answers
and computes rewards, and the files of a user's own rewards (not the modules that these import). Runs with equal keys
share the result; an edited reward or image gives another key.

Pixels: an image file is known by its size and the time of its last change, so that a large data set need not be read;
a file that was only touched counts as changed. Generated images are known by the code that draws them. Images that come
from no file are known by their attribute ``identity`` (of a data set or an address: its fingerprint, the place of the
image in it, and how it is read), and those of a user's source that have none by their pixels.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file

import vrft
from vrft.caches import state_of
from vrft.data import MedMNISTSource, PhantomSource, Source
from vrft.errors import PolicyError, first_line
from vrft.experiment.opened import Experiment, Stage, own_task_of
from vrft.knowledge import PromptKnowledge
from vrft.policies import place_of
from vrft.processes import process_count
from vrft.recipe import Condition, PhantomData, Policy, RftStage, SftStage
from vrft.runs import KEPT_BY
from vrft.sample import ImageSource, Sample, file_of, identity_of, open_image
from vrft.tasks import TrainableTask

CacheKey = str
"""20 hexadecimal digits."""

READING = (
    *("response", "tasks", "policies", "knowledge", "boxes.py", "images", "sample.py"),
    *("evaluation/predictions.py", "evaluation/box_metrics.py"),
)
"""The code below the package that makes prompts, decodes, and reads answers and images."""

TRAINING, REWARDS = ("training", "recipe/schema.py"), ("rewards",)
"""The code of every training, and that of the rewards."""

IGNORED_OF_STAGE = {"save_every", "loader_workers"}
"""Keys of a stage that change no weight. Nor does ``log_every``, but in a stage that ends with a budget, where the
budget is checked with each line of the log."""

LIBRARIES = ("vrft", "torch", "torchvision", "transformers", "trl", "peft", "accelerate", "pillow")
"""Other versions of these may give other weights or pixels."""


def machine_facts(
    threads: int, gpus: float | None = None, *, processes: int | None = None, device: str | None = None
) -> dict[str, Any]:
    """The part of a key that depends on the machine: rounding differs with it, and so do weights in their last bits.

    Args:
        threads: of one process.
        gpus: of one job, where the recipe says so.
        processes: that train together; without it those of this run.
        device: the name of the GPU, or ``cpu``; without it that of this process.
    """
    versions = {name: version_of(name) for name in LIBRARIES}
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {"threads": threads, "processes": processes or process_count(), "gpus": gpus, "device": device or here}
    return machine | {"versions": versions}


def version_of(library: str) -> str:
    """The installed version of a library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


class CacheKeys:
    """The keys of all stages and evaluations of an experiment.

    Args:
        experiment: the opened recipe.
        machine: of ``machine_facts``.
        matched: the arms are matched by the section ``ablation.budget``.
    """

    def __init__(self, experiment: Experiment, machine: dict[str, Any], *, matched: bool = True) -> None:
        self.experiment, self.recipe, self.machine, self.matched = experiment, experiment.recipe, machine, matched
        self.train = samples_digest(experiment.train_samples, experiment.source)
        self.test = samples_digest(experiment.test_samples, experiment.source)
        self.policy = _policy_facts(self.recipe.policy)
        self.knowledge = experiment.injection.facts() if experiment.injection else None
        self._digests: dict[tuple[str, str], str] = {}
        self._stages: dict[tuple[str, int], tuple[CacheKey, ...]] = {}

    def stages(self, arm: str, seed: int) -> tuple[CacheKey, ...]:
        """The keys of the stages of an arm, in order; each holds those before it."""
        recipe, budget = self.recipe, self.recipe.ablation.budget
        arm = recipe.trained_as(arm)
        if (arm, seed) in self._stages:
            return self._stages[arm, seed]
        stages, keys = recipe.stages_of(arm), list[CacheKey]()
        for index in range(len(stages)):
            facts = self._stage_facts(arm, index) | {"seed": seed, "machine": self.machine}
            if index == len(stages) - 1 and self.is_limited(arm):
                spent = budget.amount or self.stages("rft", seed)[-1]
                facts |= {"match": budget.match, "amount": spent}
            keys.append(_hash(facts | {"before": keys[-1] if keys else None}))
        self._stages[arm, seed] = tuple(keys)
        return self._stages[arm, seed]

    def is_limited(self, arm: str) -> bool:
        """Whether the last stage of an arm ends with the budget; ``rft`` is the arm that others are matched to."""
        budget = self.recipe.ablation.budget
        return self.matched and budget.match != "stages" and not (budget.amount is None and arm == "rft")

    def evaluation(self, arm: str, seed: int) -> CacheKey:
        """The key of the predictions of an arm."""
        condition = self.recipe.condition_of(arm)
        stages = self.stages(arm, seed)
        facts: dict[str, Any] = {"trained": stages[-1] if stages else self.policy, "data": self._data_facts(None)}
        facts |= {"train": self.train if arm == "majority" else None, "test": self.test}
        facts |= {"tokens": self.recipe.evaluation_tokens} | self._condition_facts(condition)
        return self._evaluation_key(arm, facts)

    def perception(self, arm: str, seed: int, perceived: tuple[str, int]) -> CacheKey:
        """The key of the predictions of an arm on another task: that of a stage, named by its arm and position."""
        index = perceived[1]
        stage = self.recipe.stages_of(perceived[0])[index]
        task, _ = self.experiment.stage_task_and_source(stage)
        facts: dict[str, Any] = {"trained": None if arm == "majority" else self.stages(arm, seed)[index]}
        facts |= {
            "data": self._data_facts(stage),
            "task": _task_facts(task),
            "question": stage.task and stage.task.question,
        }
        facts |= {"train": self._digest(stage, "train"), "test": self._digest(stage, self.recipe.evaluation.split)}
        facts |= {"limit": self.recipe.evaluation.limit}
        return self._evaluation_key(arm, facts)

    def _evaluation_key(self, arm: str, facts: dict[str, Any]) -> CacheKey:
        common = {"rules": KEPT_BY, "code": code_digest(*READING), "batch": self.recipe.evaluation.batch_size}
        return _hash(facts | common | {"majority": arm == "majority", "machine": self.machine})

    def _stage_facts(self, arm: str, index: int) -> dict[str, Any]:
        """All that a stage depends on, beside the stages before it."""
        recipe = self.recipe
        stage = recipe.stages_of(arm)[index]
        by_log = bool(stage.max_tokens or stage.max_seconds)
        by_log = by_log or (self.is_limited(arm) and recipe.ablation.budget.match != "steps")
        ignored = {"loader_workers"} if by_log else IGNORED_OF_STAGE | {"log_every"}
        facts: dict[str, Any] = {
            "rules": KEPT_BY,
            "code": code_digest(*READING, *TRAINING, *(REWARDS if isinstance(stage, RftStage) else ())),
            "policy": self.policy,
            "stage": stage.model_dump(exclude=ignored | {"task", "data"}),
            "data": self._data_facts(stage),
        }
        if isinstance(stage, RftStage) and recipe.custom:
            used = {name: where for name, where in recipe.custom.items() if name in stage.weights()}
            digests = {name: self.experiment.custom[name] for name in used}
            facts["custom"] = {name: [digests[name], where.rpartition(":")[2]] for name, where in used.items()}
        if self.experiment.callbacks:
            facts["callbacks"] = [type(callback).__qualname__ for callback in self.experiment.callbacks]
        if recipe.validate is not None:
            samples = self._digest(stage, "validated", self.experiment.validation_samples)
            batch = recipe.evaluation.batch_size  # pads, and so decides the last bits
            settings = {"samples": samples, "batch": batch, "tokens": recipe.evaluation_tokens}
            facts["validate"] = recipe.validate.model_dump() | settings
        if stage.task is not None:
            task, _ = self.experiment.stage_task_and_source(stage)
            asked = _task_facts(task) | {"question": stage.task.question}
            return facts | {"task": asked, "train": self._digest(stage, "train")}
        condition = recipe.condition_of(arm, training=True)
        recited = isinstance(stage, RftStage) and "recitation" in stage.weights()
        recited = recited or (isinstance(stage, SftStage) and stage.think_from == "card")
        knowledge = self._knowledge_facts("card" if condition.prompt == "none" and recited else condition.prompt)
        return facts | {"train": self.train} | self._condition_facts(condition) | {"knowledge": knowledge}

    def _condition_facts(self, condition: Condition) -> dict[str, Any]:
        """How the samples of the recipe's task are put to the policy."""
        knowledge = self._knowledge_facts(condition.prompt)
        return {"task": _task_facts(self.experiment.task), "condition": vars(condition), "knowledge": knowledge}

    def _data_facts(self, stage: Stage | None) -> dict[str, Any]:
        """The kind of the data; samples, and how their files are read, are in ``samples_digest``."""
        data = (stage.data if stage else None) or self.recipe.data
        generated = isinstance(data, PhantomData)
        return data.model_dump(exclude={"samples"}) if generated else data.model_dump(include={"source", "size"})

    def _knowledge_facts(self, prompt: PromptKnowledge) -> dict[str, Any] | None:
        """The prior knowledge, as far as a prompt holds it."""
        if prompt == "none" or self.knowledge is None:
            return None
        return {key: value for key, value in self.knowledge.items() if key != "other" or prompt == "irrelevant"}

    def _digest(self, stage: Stage, part: str, samples_of: Callable[[Stage], Iterable[Sample]] | None = None) -> str:
        """A hash of samples of a stage, made once: of a split, or of a part that ``samples_of`` gives."""
        key = (own_task_of(stage), part)
        if key not in self._digests:
            _, source = self.experiment.stage_task_and_source(stage)
            samples = samples_of(stage) if samples_of else self.experiment.samples_of(stage, part)
            self._digests[key] = samples_digest(samples, source)
        return self._digests[key]


def _policy_facts(section: Policy) -> dict[str, Any]:
    """The policy that everything starts from: the files of a directory, or the commit of a hub model."""
    place = Path(place_of(section.model))
    files = {str(path.relative_to(place)): path for path in sorted(place.rglob("*")) if path.is_file()}
    facts: dict[str, Any] = section.model_dump(exclude={"image_cache_gb"})
    if section.model == "tiny":  # files of a package have the time of its installation
        return facts | {"files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}}
    if files:
        return facts | {"files": {name: _state(path) for name, path in files.items()}}
    try:
        config = cached_file(section.model, "config.json", revision=section.revision)
    except (OSError, ValueError) as error:
        fault = f"policy.model {section.model!r} is no directory and no model that can be fetched: {first_line(error)}"
        raise PolicyError(fault) from None
    return facts | {"commit": Path(config).parent.name if config else None}  # .../snapshots/COMMIT/config.json


def _task_facts(task: TrainableTask) -> dict[str, Any]:
    """The class and the settings of a task, with those that come from its data and a card."""
    return {"class": type(task).__name__, **json.loads(json.dumps(vars(task), default=str))}


def samples_digest(samples: Iterable[Sample], source: Source) -> str:
    """A hash of samples: names, questions, targets, regions, and the pixels as the module says."""
    stat_of = lru_cache(maxsize=1024)(_state)  # the samples of an image lie side by side
    drawn: Any = None
    if isinstance(source, MedMNISTSource):
        drawn = _state(source.path)
    elif isinstance(source, PhantomSource):
        drawn = code_digest("data/phantom.py")
    digest = hashlib.sha256()
    for sample in samples:
        pixels: list[Any] = []
        for image in sample.images:
            file = file_of(image)
            if file is None:
                pixels.append(drawn or identity_of(image) or _pixels(image))
                continue
            options = (file.region, file.window, file.page, file.axis, file.part)
            pixels.append([file.path.name, *stat_of(file.path), *options])
        known = sample.knowledge and vars(sample.knowledge)
        row = [sample.id, sample.question, sample.target, sample.region, known, pixels]
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()[:20]


def _state(path: Path) -> list[tuple[str, int, int]]:
    """The state of a file (``state_of``); empty where there is no such file."""
    with suppress(OSError):
        return state_of(path)
    return []


def _pixels(source: ImageSource) -> str:
    image = open_image(source)
    return hashlib.sha256(image.tobytes() + str(image.size).encode()).hexdigest()


@lru_cache
def code_digest(*parts: str) -> str:
    """A hash of the code of modules and packages below ``vrft``; comments, docstrings and layout do not count."""
    root = Path(vrft.__file__).parent
    digest = hashlib.sha256()
    for part in parts:
        place = root / part
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    node.body = [line for line in node.body if not _is_docstring(line)]
            digest.update(f"{path.relative_to(root).as_posix()} {ast.dump(tree)}".encode())
    return digest.hexdigest()


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hash(facts: Any) -> CacheKey:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
