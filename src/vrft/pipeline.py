"""A recipe becomes a run: the arms in order, each trained, evaluated, and never done twice.

``run`` may be killed at any moment and called again with ``resume``: finished arms are read from disk, the one under
way goes on from its last checkpoint or its last batch of predictions, and the results are the same bit for bit.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import ImageDraw

from vrft.boxes import rescale
from vrft.data import Source
from vrft.data.annotations import BoxSource
from vrft.errors import DataError
from vrft.evaluation.predict import predict, predict_majority
from vrft.evaluation.summary import summarise
from vrft.knowledge import Injection, Told, read_card
from vrft.policies import LoadedPolicy, quiet_libraries
from vrft.policies.of_recipe import check_budget, frame_for, load_arm, load_for
from vrft.progress import Reporter
from vrft.recipe import (
    Recipe,
    RftStage,
    SftStage,
    TaskSection,
    build_task,
    longest_answer,
    open_knowledge,
    open_source,
)
from vrft.runs import RunDirectory, StageDirectory, read_json, read_jsonl, replacing, write_json, write_jsonl
from vrft.sample import Sample, open_image
from vrft.tasks import TrainableTask
from vrft.training import PeakMemory, train_rft, train_sft

LIBRARIES = ("vrft", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def run(recipe: Recipe, directory: RunDirectory, *, resume: bool = False, reporter: Reporter) -> dict[str, Any]:
    """Carry out a recipe and return what ``metrics.json`` holds.

    Args:
        recipe: checked by ``read_recipe``.
        directory: where everything goes.
        resume: go on with a run that is there.
        reporter: is told what is done.

    Raises:
        UserError: data, policy or directory cannot be used; what is finished stays.
    """
    quiet_libraries()
    directory.open(recipe.dump(), resume=resume)
    write_json(directory.environment, environment(recipe))
    source = open_source(recipe)
    task = build_task(recipe, source, frame=frame_for(recipe, recipe.task))
    train = _with_question(source.samples("train"), recipe.task)
    held_out = _with_question(source.samples(recipe.evaluation.split), recipe.task)[: recipe.evaluation.limit]
    if not train or not held_out:
        hint = " (data.splits: hash shares all images out anew)" if isinstance(source, BoxSource) else ""
        raise DataError(f"the data has no samples in train or {recipe.evaluation.split}{hint}.")

    injection = open_knowledge(recipe, source)
    if injection is not None:
        directory.pin_knowledge(injection.facts())
        check_budget(recipe, injection, train[0])
    job = _Job(recipe, directory, task, train, held_out, injection, reporter)
    write_json(directory.data, job.met(source))
    arms: dict[str, list[list[dict[str, Any]]]] = {}
    costs: dict[str, dict[str, float]] = {}
    for name in recipe.arm_names():
        seeds = recipe.seeds if recipe.has_seeds(name) else recipe.seeds[:1]
        for seed in seeds:
            arm = directory.arm(name, seed)
            if not arm.done.exists():
                job.run_arm(name, seed)
            arms.setdefault(name, []).append(read_jsonl(arm.predictions))
        costs[name] = _mean([read_json(directory.arm(name, seed).done) for seed in seeds])
    _write_predictions(directory, recipe, arms)
    _write_gallery(directory, held_out)
    evaluation = recipe.evaluation
    metrics = summarise(
        task,
        arms,
        costs,
        draws=evaluation.bootstrap,
        confidence=evaluation.confidence,
        groups=[sample.facts.get("image", sample.id) for sample in held_out],
    )
    metrics |= job.perception()
    write_json(directory.metrics, metrics)
    return metrics


@dataclass(frozen=True)
class _Job:
    """What every arm of a run needs."""

    recipe: Recipe
    directory: RunDirectory
    task: TrainableTask
    train: list[Sample]
    held_out: list[Sample]
    injection: Injection | None
    reporter: Reporter
    opened: dict[str, tuple[TrainableTask, Source]] = field(default_factory=dict)
    """The tasks and sources of stages with a task of their own; each is read once."""

    def asked(self, stage: RftStage | SftStage) -> tuple[TrainableTask, Source]:
        """The task of a stage that has one of its own, and where its samples come from."""
        assert stage.task is not None
        key = stage.model_dump_json(include={"task", "data"})
        if key not in self.opened:
            source = open_source(self.recipe, stage)
            frame = frame_for(self.recipe, stage.task)
            self.opened[key] = build_task(self.recipe, source, stage=stage, frame=frame), source
        return self.opened[key]

    def met(self, source: Source) -> dict[str, Any]:
        """What was met in the sources of boxes, told and kept; and who wrote the card."""
        sources = {"data": source}
        for index, stage in enumerate(self.recipe.stages):
            if stage.task is not None:
                _, sources[f"stages.{index}"] = self.asked(stage)
        met = {name: one.counted() for name, one in sources.items() if isinstance(one, BoxSource)}
        told: list[Any] = []
        for name, splits in met.items():
            for split, counts in splits.items() if splits not in told else ():
                shown = ", ".join(f"{what} {count:,}" for what, count in counts.items())
                self.reporter.say(f"  {name}, {split}: {shown}")
            told.append(splits)
        facts: dict[str, Any] = {"boxes": met}
        if self.recipe.knowledge and self.recipe.knowledge.card != "phantom":
            name = self.recipe.knowledge.card
            card = read_card(name).model_dump(mode="json")
            facts["card"] = {"name": name, **{key: card[key] for key in ("written_by", "checked_by")}}
        return facts

    def run_arm(self, name: str, seed: int) -> None:
        """Train and evaluate one arm with one seed; ``done.json`` holds what it cost."""
        recipe, arm = self.recipe, self.directory.arm(name, seed)
        arm.path.mkdir(parents=True, exist_ok=True)
        if name == "majority":
            write_jsonl(arm.predictions, predict_majority(self.task, self.train, self.held_out))
            write_json(arm.done, {"seconds": 0.0, "tokens": 0, "peak_mb": 0.0})
            return
        memory = PeakMemory()
        stages = recipe.stages_of(name)
        places = [arm.stage(index, stage.kind) for index, stage in enumerate(stages)]
        for index, (stage, place) in enumerate(zip(stages, places, strict=True)):
            if not place.done.exists() and not self._reuse(name, seed, index):
                # Every stage starts from the weights on disk, as a run that resumes here does.
                policy = load_for(recipe, places[index - 1].policy if index else None)
                label = f"{name}, seed {seed}, stage {index + 1} ({stage.kind})"
                self._train(policy, stage, place, name, seed, label)
        costs = [read_json(place.done) for place in places]
        policy = load_arm(recipe, self.directory, name, seed)
        predict(
            policy,
            recipe.task_of(name, self.task),
            self._informed(self.held_out, recipe.told(name)),
            arm.predictions,
            batch_size=recipe.evaluation.batch_size,
            max_tokens=recipe.evaluation_tokens,
            reporter=self.reporter,
            label=f"{name}, seed {seed}, evaluation",
        )
        seconds, tokens = (sum(cost[key] for cost in costs) for key in ("seconds", "tokens"))
        write_json(arm.done, {"seconds": round(seconds, 3), "tokens": tokens, "peak_mb": memory.peak_mb()})

    def _reuse(self, name: str, seed: int, index: int) -> bool:
        """Take over a stage that another arm has trained from the same start with the same samples and seed."""
        training_of = self.recipe.training_of
        wanted = training_of(name, index)
        place = self.directory.arm(name, seed).stage(index, wanted[0][-1].kind)
        for other in self.recipe.arm_names():
            there = self.directory.arm(other, seed).stage(index, wanted[0][-1].kind)
            if other != name and there.done.exists() and training_of(other, index) == wanted:
                self.reporter.say(f"{name}, seed {seed}, stage {index + 1}: as trained for {other}")
                place.take_over(there)
                return True
        return False

    def perception(self) -> dict[str, Any]:
        """What the stages with a task of their own have learnt of it, for each different training of them."""
        recipe, rows = self.recipe, dict[str, list[list[dict[str, Any]]]]()
        for name, last in recipe.perceptions():
            stages = recipe.stages_of(name)
            task, source = self.asked(stages[last])
            samples = _with_question(source.samples(recipe.evaluation.split), stages[last].task)
            samples = samples[: recipe.evaluation.limit]
            if not samples:
                continue
            if not rows:
                rows["majority"] = [predict_majority(task, list(source.samples("train")), samples)]
            for seed in recipe.seeds:
                place = self.directory.arm(name, seed).stage(last, stages[last].kind)
                done = read_jsonl(place.predictions)
                if len(done) < len(samples):
                    done = predict(
                        load_for(recipe, place.policy),
                        task,
                        samples,
                        place.predictions,
                        batch_size=recipe.evaluation.batch_size,
                        max_tokens=longest_answer(stages[last]),
                        reporter=self.reporter,
                        label=f"{name}, seed {seed}, {task.kind} after stage {last + 1}",
                    )
                rows.setdefault(name, []).append(done)
        if not rows:
            return {}
        costs = {name: {"seconds": 0.0, "tokens": 0, "peak_mb": 0.0} for name in rows}
        evaluation = recipe.evaluation
        return {
            "perception": summarise(task, rows, costs, draws=evaluation.bootstrap, confidence=evaluation.confidence)
        }

    def _train(
        self, policy: LoadedPolicy, stage: RftStage | SftStage, place: StageDirectory, name: str, seed: int, label: str
    ) -> None:
        place.path.mkdir(parents=True, exist_ok=True)
        asked, samples = self.lessons(name, stage, seed)
        train_stage = train_rft if isinstance(stage, RftStage) else train_sft
        train_stage(policy, stage, asked, samples, place, seed=seed, reporter=self.reporter, label=label)  # type: ignore[arg-type]

    def lessons(self, name: str, stage: RftStage | SftStage, seed: int) -> tuple[TrainableTask, list[Sample]]:
        """The task and the samples of a stage of an arm: those of the recipe, or its own."""
        task, samples = self.recipe.task_of(name, self.task), self.train
        if stage.task is not None:
            task, source = self.asked(stage)
            samples = _with_question(source.samples("train"), stage.task)
            if not samples:
                raise DataError("the data of a stage has no samples in train.")
        if stage.shuffle_targets:
            order = np.random.default_rng([seed, 0x5F1E]).permutation(len(samples))
            samples = [_with_target_of(one, samples[other]) for one, other in zip(samples, order, strict=True)]
        if stage.task is None:
            samples = self._informed(samples, self.recipe.told(name, training=True))
        return task, samples

    def _informed(self, samples: list[Sample], told: Told) -> list[Sample]:
        """The samples with what the policy is told about the classes."""
        return [self.injection.into(sample, told) for sample in samples] if self.injection else samples


def _with_target_of(sample: Sample, other: Sample) -> Sample:
    """A sample with the target of another; boxes keep their place in shares of the image."""
    if not isinstance(other.target, tuple):
        return replace(sample, target=other.target)
    here, there = open_image(sample).size, open_image(other).size
    return replace(sample, target=tuple(rescale(box, there, here) for box in other.target))


def _with_question(samples: Iterable[Sample], asked: TaskSection | None) -> list[Sample]:
    question = asked.question if asked else None
    return [replace(sample, question=question) for sample in samples] if question else list(samples)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def _write_predictions(directory: RunDirectory, recipe: Recipe, arms: dict[str, list[list[dict[str, Any]]]]) -> None:
    """All predictions of all arms in one table; targets and answers as texts, since columns hold one type."""
    rows = [
        {"arm": arm, "seed": seed}
        | row
        | {key: None if row[key] is None else _cell(row[key]) for key in ("target", "answer", "lenient")}
        | ({"image_size": json.dumps(row["image_size"])} if "image_size" in row else {})
        for arm, seeds in arms.items()
        for seed, predictions in zip(recipe.seeds, seeds, strict=False)
        for row in predictions
    ]
    with replacing(directory.predictions) as fresh:
        pd.DataFrame(rows).to_parquet(fresh, index=False)


def _cell(value: Any) -> str:
    """A label or a grade as it is, boxes as JSON."""
    return json.dumps(value) if isinstance(value, list) else str(value)


GALLERY, GALLERY_PIXELS = 24, 336
"""How many of the evaluated images a run keeps, and their longest side."""


def _write_gallery(directory: RunDirectory, samples: list[Sample]) -> None:
    """Keep some of the evaluated images, evenly spread over the split, for the report; a region is marked."""
    for sample in samples[:: max(1, len(samples) // GALLERY)][:GALLERY]:
        image = open_image(sample)
        if sample.region is not None:
            image = image.convert("RGB")
            line = max(2, max(image.size) // 150)
            ImageDraw.Draw(image).rectangle([round(side) for side in sample.region], outline="white", width=2 * line)
            ImageDraw.Draw(image).rectangle([round(side) for side in sample.region], outline="black", width=line)
        image.thumbnail((GALLERY_PIXELS, GALLERY_PIXELS))
        with replacing(directory.gallery / f"{sample.id}.png") as fresh:
            image.save(fresh, format="PNG")


def environment(recipe: Recipe) -> dict[str, Any]:
    """Versions, machine, revision and seeds: what a reader needs to repeat the run."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    revision = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "python": platform.python_version(),
        "libraries": versions,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git_revision": revision.stdout.strip() or None,
        "seeds": list(recipe.seeds),
    }
