"""A recipe becomes a run: the arms in order, each trained, evaluated, and never done twice.

``run`` may be killed at any moment and called again with ``resume``: finished arms are read from disk, the one under
way goes on from its last checkpoint or its last batch of predictions, and the results are the same bit for bit.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import ImageDraw

from vrft.boxes import rescale
from vrft.data import Source
from vrft.data.annotations import BoxSource, in_words
from vrft.errors import DataError
from vrft.evaluation.predictions import answers, predict, predict_majority
from vrft.evaluation.summary import figures_of, summarise
from vrft.knowledge import Injection, Told, read_card
from vrft.picture_log import PictureLog, odd_in_words
from vrft.policies import LoadedPolicy, quiet_libraries
from vrft.policies.from_recipe import check_budget, check_envelopes, frame_for, load_arm, load_for
from vrft.processes import all_of, from_main, is_main, join_processes
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
from vrft.rewards.perfect import read_back
from vrft.runs import KEPT_BY, RunDirectory, StageDirectory, read_json, read_jsonl, replacing, write_json, write_jsonl
from vrft.sample import Grey, Sample, open_image, read_as, size_of
from vrft.tasks import Localization, TrainableTask
from vrft.training import PeakMemory, Validation, check_processes, train_rft, train_sft

LIBRARIES = ("vrft", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")


@dataclass(frozen=True)
class Job:
    """What trains and evaluates the arms of a recipe, wherever that is kept."""

    recipe: Recipe
    task: TrainableTask
    source: Source
    train_samples: list[Sample]
    held_out: list[Sample]
    injection: Injection | None
    reporter: Reporter
    opened: dict[str, tuple[TrainableTask, Source]] = field(default_factory=dict)
    """The tasks and sources of stages with a task of their own; each is read once."""
    pictures: PictureLog = field(default_factory=PictureLog)
    """Which of the pictures that its policies were shown are odd."""
    read: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    """Samples by what a stage asks and where from (``""`` for the recipe's own), and by split; each is read once."""

    def asked(self, stage: RftStage | SftStage) -> tuple[TrainableTask, Source]:
        """The task of a stage that has one of its own, and where its samples come from."""
        assert stage.task is not None
        key = _own(stage)
        if key not in self.opened:
            source = open_source(self.recipe, stage)
            frame = frame_for(self.recipe, stage.task)
            self.opened[key] = build_task(self.recipe, source, stage=stage, frame=frame), source
        return self.opened[key]

    def samples_of(self, stage: RftStage | SftStage, split: str) -> list[Sample]:
        """The samples of a split with what a stage asks about them."""
        key = (_own(stage), split)
        if key not in self.read:
            source = self.asked(stage)[1] if stage.task is not None else self.source
            self.read[key] = _with_question(source.samples(split), stage.task or self.recipe.task)
        return self.read[key]

    def annotation_statistics(self) -> dict[str, Any]:
        """What was met in the sources of boxes, told and kept; and who wrote the card."""
        sources = {"data": self.source}
        for index, stage in enumerate(self.recipe.stages):
            if stage.task is not None:
                _, sources[f"stages.{index}"] = self.asked(stage)
        met = {name: one.counted() for name, one in sources.items() if isinstance(one, BoxSource)}
        told: list[Any] = []
        for name, splits in met.items():
            for split, counts in splits.items() if splits not in told else ():
                self.reporter.say(f"  {name}, {split}: {in_words(counts)}")
            told.append(splits)
        facts: dict[str, Any] = {"boxes": met}
        if self.recipe.knowledge and self.recipe.knowledge.card != "phantom":
            name = self.recipe.knowledge.card
            card = read_card(name).model_dump(mode="json")
            facts["card"] = {"name": name, **{key: card[key] for key in ("written_by", "checked_by")}}
        return facts

    def groups(self) -> list[str]:
        """The image that each evaluated sample is of; samples of one image are resampled together."""
        return [str(sample.facts.get("image", sample.id)) for sample in self.held_out]

    def train(
        self,
        name: str,
        index: int,
        stage: RftStage | SftStage,
        place: StageDirectory,
        before: StageDirectory | None,
        seed: int,
    ) -> None:
        """Train a stage of an arm from the weights on disk, as a run that resumes here does."""
        policy = load_for(self.recipe, before.policy if before else None, training=True)
        policy.pictures = self.pictures
        place.path.mkdir(parents=True, exist_ok=True)
        task, samples = self.stage_dataset(name, stage, seed)
        options: dict[str, Any] = {
            "seed": seed,
            "reporter": self.reporter,
            "label": f"{name}, seed {seed}, stage {index + 1} ({stage.kind})",
            "validation": self.validation(name, stage, task),
            "trackers": self.trackers(name, index, seed, place),
        }
        if isinstance(stage, RftStage):
            train_rft(policy, stage, task, samples, place, custom=self.recipe.custom, **options)
        else:
            train_sft(policy, stage, task, samples, place, **options)

    def validation(self, name: str, stage: RftStage | SftStage, task: TrainableTask) -> Validation | None:
        """How a stage of an arm is measured while it trains: as it is trained, on samples of the validation split."""
        section = self.recipe.validate
        if section is None:
            return None
        samples = self.validation_samples(stage)
        if stage.task is None:
            samples = self._shown(name, samples, self.recipe.told(name, training=True))
        longest = longest_answer(stage) if stage.task is not None else self.recipe.evaluation_tokens
        options = {"batch_size": self.recipe.evaluation.batch_size, "max_tokens": longest}

        def measure(policy: LoadedPolicy) -> dict[str, float]:
            batches = answers(policy, task, samples, **options)
            return figures_of(task, [row for rows in batches for row in rows])

        metric = section.metric if section.metric in task.metrics else task.metrics[0]
        return Validation(section, metric, measure)

    def validation_samples(self, stage: RftStage | SftStage) -> list[Sample]:
        """Those that a stage is validated on, evenly spread over the split.

        Raises:
            DataError: there are none.
        """
        assert self.recipe.validate is not None
        samples = self.samples_of(stage, "validation")
        if not samples:
            raise DataError("validate needs a validation split, and the data has none (data.splits: hash makes one).")
        count = min(len(samples), self.recipe.validate.samples)
        return [samples[index * len(samples) // count] for index in range(count)]

    def perceived(self, stage: RftStage | SftStage) -> list[Sample]:
        """Those that tell what a stage with a task of its own has learnt of it."""
        evaluation = self.recipe.evaluation
        return self.samples_of(stage, evaluation.split)[: evaluation.limit]

    def odd_pictures(self) -> dict[str, list[str]]:
        """The names of its pictures that are odd as they are read now, by what is odd about them."""
        named = {name for names in self.pictures.names().values() for name in names}
        known = [self.train_samples, self.held_out, *self.read.values()] if named else []
        return self.pictures.names({(one.id, read_as(one)) for samples in known for one in samples if one.id in named})

    def trackers(self, name: str, index: int, seed: int, place: StageDirectory) -> dict[str, Any]:
        """Where the log of a stage goes besides, and what it is called there."""
        kept = list(self.recipe.report_to)
        if "tensorboard" in kept:
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.path / "tensorboard")
        if "wandb" in kept:
            os.environ["WANDB_PROJECT"] = self.recipe.name
        run_name = f"{name}-seed-{seed}" + (f"-stage-{index + 1}" if len(self.recipe.stages_of(name)) > 1 else "")
        return {"report_to": kept, "project": self.recipe.name, "run_name": run_name}

    def evaluate(self, name: str, seed: int, load: Callable[[], LoadedPolicy], path: Path) -> None:
        """What an arm answers to the evaluated samples; ``load`` gives its policy, where it has one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "majority":
            if is_main():
                write_jsonl(path, predict_majority(self.task, self.train_samples, self.held_out))
            return
        policy = load()
        policy.pictures = self.pictures
        predict(
            policy,
            self.recipe.task_of(name, self.task),
            self._shown(name, self.held_out, self.recipe.told(name)),
            path,
            batch_size=self.recipe.evaluation.batch_size,
            max_tokens=self.recipe.evaluation_tokens,
            reporter=self.reporter,
            label=f"{name}, seed {seed}, evaluation",
        )

    def stage_dataset(self, name: str, stage: RftStage | SftStage, seed: int) -> tuple[TrainableTask, list[Sample]]:
        """The task and the samples of a stage of an arm: those of the recipe, or its own."""
        task, samples = self.recipe.task_of(name, self.task), self.train_samples
        if stage.task is not None:
            task, _ = self.asked(stage)
            samples = self.samples_of(stage, "train")
            if not samples:
                raise DataError("the data of a stage has no samples in train.")
        if stage.shuffle_targets:
            order = np.random.default_rng([seed, 0x5F1E]).permutation(len(samples))
            samples = [_with_target_of(one, samples[other]) for one, other in zip(samples, order, strict=True)]
        if stage.task is None:
            samples = self._shown(name, samples, self.recipe.told(name, training=True))
        return task, samples

    def _shown(self, name: str, samples: list[Sample], told: Told) -> list[Sample]:
        """The samples as an arm meets them: with what it is told about the classes, or without a picture."""
        if not self.recipe.sees(name):
            samples = [replace(sample, image=Grey(sample)) for sample in samples]
        return [self.injection.into(sample, told) for sample in samples] if self.injection else samples


def open_job(recipe: Recipe, reporter: Reporter, *, perception: bool = True) -> Job:
    """Open the data of a recipe, and make sure that what its arms are told, and how they answer, fits the policy.

    Args:
        recipe: says what is opened.
        reporter: is told what is met.
        perception: what stages with a task of their own have learnt of it will be evaluated.

    Raises:
        UserError: data or policy cannot be used.
    """
    source = open_source(recipe)
    task = build_task(recipe, source, frame=frame_for(recipe, recipe.task))
    train = _with_question(source.samples("train"), recipe.task)
    held_out = _with_question(source.samples(recipe.evaluation.split), recipe.task)[: recipe.evaluation.limit]
    if not train or not held_out:
        hint = ""
        if isinstance(source, BoxSource):
            found = "; ".join(f"{name}: {in_words(counts)}" for name, counts in source.counted().items())
            hint = f" (data.splits: hash shares all images out anew). Found: {found}"
        raise DataError(f"the data has no samples in train or {recipe.evaluation.split}{hint}.")
    job = Job(recipe, task, source, train, held_out, None, reporter)
    _check_all_targets(job, perception=perception)
    injection = open_knowledge(recipe, source)
    if injection is not None:
        check_budget(recipe, injection, train[0])
    check_envelopes(recipe)
    return replace(job, injection=injection)


def _own(stage: RftStage | SftStage) -> str:
    """What a stage asks and where from; "" where it is what the recipe asks."""
    return "" if stage.task is None else stage.model_dump_json(include={"task", "data"})


def _check_all_targets(job: Job, *, perception: bool) -> None:
    """Check the targets of all samples that are trained on, validated on or evaluated.

    Raises:
        DataError: a right answer would not earn everything, or nothing is there to validate on.
    """
    recipe = job.recipe
    stages = {_own(stage): stage for arm in recipe.arm_names() for stage in recipe.stages_of(arm)}
    tested = {_own(recipe.stages_of(arm)[last]) for arm, last in recipe.perceptions()} if perception else set()
    samples: dict[str, list[Sample]] = {"": [*job.train_samples, *job.held_out]}
    for key, stage in stages.items():
        if stage.task is not None:
            samples[key] = [*job.samples_of(stage, "train"), *(job.perceived(stage) if key in tested else ())]
        if recipe.validate is not None:
            samples[key] += job.validation_samples(stage)
    for key, used in samples.items():
        _check_targets(job.asked(stages[key])[0] if key else job.task, used, job.reporter)


def _check_targets(task: TrainableTask, samples: Sequence[Sample], reporter: Reporter) -> None:
    """Make sure that a right answer earns everything, before a policy is loaded.

    Raises:
        DataError: it does not, for some targets; the message tells how many, and shows one.
    """
    found = read_back(task, samples)
    if faults := found.unpaid:
        raise DataError(
            f"{faults[0]}; a right answer to {len(faults)} of the targets would not earn the full reward. "
            f"Rename labels or grades that cannot be told apart, or mend the boxes."
        )
    if isinstance(task, Localization) and found.share < 0.99:
        told = f"a right answer overlaps by {found.share:.3f} on average"
        reporter.say(f"  boxes are rounded in the frame {task.frame!r}: {told}")


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
    join_processes()
    from_main(lambda: _check_processes(recipe))
    from_main(lambda: directory.open(recipe.dump(), resume=resume))
    job = replace(_open_for_all(recipe, reporter), pictures=PictureLog(directory.pictures))
    from_main(lambda: _write_facts(job, directory))
    arms: dict[str, list[list[dict[str, Any]]]] = {}
    costs: dict[str, dict[str, float]] = {}
    for name in recipe.arm_names():
        seeds = recipe.seeds_of(name)
        for seed in seeds:
            arm = directory.arm(name, seed)
            if not from_main(arm.done.exists):
                _run_arm(job, directory, name, seed)
            arms.setdefault(name, []).append(read_jsonl(arm.predictions))
        costs[name] = _mean([read_json(directory.arm(name, seed).done) for seed in seeds])
    perception = _perception(job, directory)
    return from_main(lambda: _write_figures(job, directory, arms, costs, perception))


def _check_processes(recipe: Recipe) -> None:
    for name in recipe.arm_names():
        for stage in recipe.stages_of(name):
            check_processes(stage)


def _open_for_all(recipe: Recipe, reporter: Reporter) -> Job:
    """The job in every process, opened by the first one before the others, so that a fault is told once."""
    opened: list[Job] = []
    from_main(lambda: opened.append(open_job(recipe, reporter)))
    return opened[0] if opened else open_job(recipe, reporter)


def _write_facts(job: Job, directory: RunDirectory) -> None:
    """What a reader needs to repeat the run, before anything is trained."""
    write_json(directory.environment, environment(job.recipe))
    if job.injection is not None:
        directory.pin_knowledge(job.injection.facts())
    write_json(directory.data, job.annotation_statistics())


def _write_figures(
    job: Job,
    directory: RunDirectory,
    arms: dict[str, list[list[dict[str, Any]]]],
    costs: dict[str, dict[str, float]],
    perception: dict[str, Any],
) -> dict[str, Any]:
    """All predictions in one table, some images, and the metrics."""
    answered = [(arm, *one) for arm, rows in arms.items() for one in zip(job.recipe.seeds, rows, strict=False)]
    write_predictions(directory.predictions, answered, job.groups())
    write_gallery(directory, job.held_out, job.pictures)
    if odd := say_odd(job):
        write_json(directory.data, read_json(directory.data) | {"pictures": odd})
    evaluation = job.recipe.evaluation
    metrics = summarise(
        job.task,
        arms,
        costs,
        draws=evaluation.bootstrap,
        confidence=evaluation.confidence,
        groups=job.groups(),
    )
    metrics |= perception
    write_json(directory.metrics, metrics)
    return metrics


def _run_arm(job: Job, directory: RunDirectory, name: str, seed: int) -> None:
    """Train and evaluate one arm with one seed; ``done.json`` holds what it cost."""
    recipe, arm = job.recipe, directory.arm(name, seed)
    memory = PeakMemory()
    stages = recipe.stages_of(name)
    places = [arm.stage(index, stage.kind) for index, stage in enumerate(stages)]
    for index, (stage, place) in enumerate(zip(stages, places, strict=True)):
        before = places[index - 1] if index else None
        if not from_main(partial(_is_there, job, directory, name, seed, index)):
            job.train(name, index, stage, place, before, seed)
    costs = [read_json(place.done) for place in places]
    job.evaluate(name, seed, lambda: load_arm(recipe, directory, name, seed), arm.predictions)
    seconds, tokens = (sum(cost[key] for cost in costs) for key in ("seconds", "tokens"))
    peak = 0.0 if name == "majority" else max(all_of([memory.peak_mb()]))
    from_main(lambda: write_json(arm.done, {"seconds": round(seconds, 3), "tokens": tokens, "peak_mb": peak}))


def _is_there(job: Job, directory: RunDirectory, name: str, seed: int, index: int) -> bool:
    """Whether a stage is done, or another arm has trained it from the same start with the same samples and seed."""
    training_of = job.recipe.training_of
    wanted = training_of(name, index)
    place = directory.arm(name, seed).stage(index, wanted[0][-1].kind)
    if place.done.exists():
        return True
    for other in job.recipe.arm_names():
        there = directory.arm(other, seed).stage(index, wanted[0][-1].kind)
        if other != name and there.done.exists() and training_of(other, index) == wanted:
            job.reporter.say(f"{name}, seed {seed}, stage {index + 1}: as trained for {other}")
            place.take_over(there)
            return True
    return False


def _perception(job: Job, directory: RunDirectory) -> dict[str, Any]:
    """What the stages with a task of their own have learnt of it, for each different training of them."""
    recipe, rows = job.recipe, dict[str, list[list[dict[str, Any]]]]()
    for name, last in recipe.perceptions():
        stages = recipe.stages_of(name)
        task, _ = job.asked(stages[last])
        samples = job.perceived(stages[last])
        if not samples:
            continue
        if not rows:
            rows["majority"] = [predict_majority(task, job.samples_of(stages[last], "train"), samples)]
        for seed in recipe.seeds:
            place = directory.arm(name, seed).stage(last, stages[last].kind)
            done = from_main(partial(read_jsonl, place.predictions))
            if len(done) < len(samples):
                policy = load_for(recipe, place.policy)
                policy.pictures = job.pictures
                done = predict(
                    policy,
                    task,
                    samples,
                    place.predictions,
                    batch_size=recipe.evaluation.batch_size,
                    max_tokens=longest_answer(stages[last]),
                    reporter=job.reporter,
                    label=f"{name}, seed {seed}, {task.kind} after stage {last + 1}",
                )
            rows.setdefault(name, []).append(done)
    if not rows:
        return {}
    costs = {name: {"seconds": 0.0, "tokens": 0, "peak_mb": 0.0} for name in rows}
    evaluation = recipe.evaluation
    return {"perception": summarise(task, rows, costs, draws=evaluation.bootstrap, confidence=evaluation.confidence)}


def _with_target_of(sample: Sample, other: Sample) -> Sample:
    """A sample with the target of another; boxes keep their place in shares of the image."""
    if not isinstance(other.target, tuple):
        return replace(sample, target=other.target)
    here, there = size_of(sample), size_of(other)
    return replace(sample, target=tuple(rescale(box, there, here) for box in other.target))


def _with_question(samples: Iterable[Sample], asked: TaskSection | None) -> list[Sample]:
    question = asked.question if asked else None
    return [replace(sample, question=question) for sample in samples] if question else list(samples)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def write_predictions(
    path: Path, answered: Iterable[tuple[str, int, list[dict[str, Any]]]], groups: Sequence[str]
) -> None:
    """All predictions of all arms and seeds in one table; targets and answers as texts: columns hold one type."""
    rows = [
        {"arm": arm, "seed": seed, "group": group}
        | row
        | {key: None if row[key] is None else _cell(row[key]) for key in ("target", "answer", "lenient")}
        | ({"image_size": json.dumps(row["image_size"])} if "image_size" in row else {})
        for arm, seed, predictions in answered
        for row, group in zip(predictions, groups, strict=True)
    ]
    with replacing(path) as fresh:
        pd.DataFrame(rows).to_parquet(fresh, index=False)


def _cell(value: Any) -> str:
    """A label or a grade as it is, boxes as JSON."""
    return json.dumps(value) if isinstance(value, list) else str(value)


def say_odd(job: Job) -> dict[str, dict[str, Any]]:
    """How many of the pictures that were opened are odd, and one example: told, and returned for the report."""
    odd = {what: {"count": len(names), "example": names[0]} for what, names in job.odd_pictures().items()}
    for sentence in odd_in_words(odd):
        job.reporter.say(f"  {sentence}")
    return odd


GALLERY, GALLERY_PIXELS = 24, 336
"""How many of the evaluated images a run keeps, and their longest side."""


def write_gallery(directory: RunDirectory, samples: list[Sample], pictures: PictureLog | None = None) -> None:
    """Keep some of the evaluated images, evenly spread over the split, for the report; a region is marked."""
    for sample in samples[:: max(1, len(samples) // GALLERY)][:GALLERY]:
        image = open_image(sample)
        if pictures is not None:
            pictures.note(image, sample.id, partial(read_as, sample))
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
    return KEPT_BY | {
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
