"""An experiment: the recipe with its data opened, which trains and evaluates the policies of its arms."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vrft.boxes import rescale
from vrft.data import Source
from vrft.data.annotations import BoxSource, format_counts
from vrft.data.rows import RowSource
from vrft.data.unreadable import readable
from vrft.errors import DataError, RunError
from vrft.evaluation.predictions import answers, predict, predict_majority
from vrft.evaluation.summary import figures_of
from vrft.image_log import ImageLog
from vrft.knowledge import Injection, read_card
from vrft.policies import LoadedPolicy
from vrft.policies.from_recipe import check_budget, check_envelopes, frame_for, load_for
from vrft.processes import is_main
from vrft.progress import Reporter
from vrft.recipe import (
    Condition,
    Data,
    Recipe,
    RftStage,
    SftStage,
    TaskSection,
    build_task,
    longest_answer,
    open_knowledge,
    open_source,
    skips_bad,
)
from vrft.rewards.custom import custom_digest
from vrft.rewards.perfect import read_back
from vrft.runs import StageDirectory, write_jsonl
from vrft.sample import LazySamples, Sample, in_grey, map_samples, read_as, size_of
from vrft.tasks import Localization, TrainableTask
from vrft.training import Validation, train_rft, train_sft

Stage = RftStage | SftStage


@dataclass(frozen=True)
class Experiment:
    """A recipe with its task, its samples and its prior knowledge."""

    recipe: Recipe
    task: TrainableTask
    source: Source
    train_samples: Sequence[Sample]
    test_samples: Sequence[Sample]
    """The samples of the split that is evaluated."""
    injection: Injection | None
    reporter: Reporter
    callbacks: Sequence[Any] = ()
    """Callbacks of transformers' trainers, for every stage."""
    custom: Mapping[str, str] = field(default_factory=dict)
    """The digests of the files of the user's rewards when the run began, by the names of the rewards."""
    image_log: ImageLog = field(default_factory=ImageLog)
    """Unusual images among those that its policies were shown."""
    stage_sources: dict[str, tuple[TrainableTask, Source]] = field(default_factory=dict)
    """The tasks and sources of stages with a task of their own; each is opened once."""
    stage_samples: dict[tuple[str, str], Sequence[Sample]] = field(default_factory=dict)
    """Samples by what a stage asks and where from (``""`` for the recipe's own), and by split; each is read once."""

    def stage_task_and_source(self, stage: Stage) -> tuple[TrainableTask, Source]:
        """The task and the source of a stage."""
        if stage.task is None:
            return self.task, self.source
        key = own_task_of(stage)
        if key not in self.stage_sources:
            source = open_source(self.recipe, stage)
            frame = frame_for(self.recipe, stage.task)
            self.stage_sources[key] = build_task(self.recipe, source, stage=stage, frame=frame), source
        return self.stage_sources[key]

    def samples_of(self, stage: Stage, split: str) -> Sequence[Sample]:
        """The samples of a split with the question of a stage."""
        key = (own_task_of(stage), split)
        if key not in self.stage_samples:
            _, source = self.stage_task_and_source(stage)
            self.stage_samples[key] = _with_question(source.samples(split), stage.task or self.recipe.task)
        return self.stage_samples[key]

    def stage_dataset(self, arm: str, stage: Stage, seed: int) -> tuple[TrainableTask, Sequence[Sample]]:
        """The task and the training samples of a stage of an arm, under the condition of the arm.

        Raises:
            DataError: there are no samples.
        """
        if stage.task is None:
            task, samples = self.recipe.task_of(arm, self.task), self.train_samples
        else:
            task, samples = self.stage_task_and_source(stage)[0], self.samples_of(stage, "train")
        if not samples:
            raise DataError("the data of a stage has no samples in train.")
        if stage.shuffle_targets:
            order = np.random.default_rng([seed, 0x5F1E]).permutation(len(samples))
            samples = _shuffled(samples, [int(other) for other in order])
        if stage.task is None:
            samples = self.apply(self.recipe.condition_of(arm, training=True), samples)
        return task, samples

    def skips_bad_of(self, stage: Stage) -> bool:
        """Whether training samples of a stage that cannot be read are replaced by others."""
        return skips_bad((stage.data if stage.task is not None else None) or self.recipe.data)

    def apply(self, condition: Condition, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Samples with the prompt and the image of a condition."""
        if condition.image == "grey":
            samples = map_samples(in_grey, samples)
        if self.injection is None:
            return samples
        apply, prompt = self.injection.apply, condition.prompt
        return map_samples(lambda sample: apply(sample, prompt), samples)

    def validation_samples(self, stage: Stage) -> Sequence[Sample]:
        """The samples that a stage is validated on, evenly spread over the split.

        Raises:
            DataError: there are none.
        """
        assert self.recipe.validate is not None
        samples = self.samples_of(stage, "validation")
        if not samples:
            raise DataError("validate needs a validation split, and the data has none (data.splits: hash makes one).")
        count = min(len(samples), self.recipe.validate.samples)
        chosen = [samples[index * len(samples) // count] for index in range(count)]
        return self._readable(chosen, stage.data if stage.task is not None else None)

    def perception_samples(self, stage: Stage) -> Sequence[Sample]:
        """The evaluated samples of a stage with a task of its own."""
        evaluation = self.recipe.evaluation
        key = (own_task_of(stage), "evaluated")
        if key not in self.stage_samples:
            samples = self.samples_of(stage, evaluation.split)[: evaluation.limit]
            self.stage_samples[key] = self._readable(samples, stage.data)
        return self.stage_samples[key]

    def _readable(self, samples: Sequence[Sample], data: Data | None) -> Sequence[Sample]:
        """The samples whose images can be read, where the data says to skip others; these are noted."""
        return readable(samples, self.image_log) if skips_bad(data or self.recipe.data) else samples

    def groups(self) -> list[str]:
        """The group of each evaluated sample (``groups_of``)."""
        return groups_of(self.test_samples)

    def annotation_statistics(self) -> dict[str, Any]:
        """Counts of the annotations in the sources of boxes, which are also reported, and who wrote the card."""
        sources = {"data": self.source}
        for index, stage in enumerate(self.recipe.stages):
            if stage.task is not None:
                _, sources[f"stages.{index}"] = self.stage_task_and_source(stage)
        counted = {
            name: source.annotation_counts()
            for name, source in sources.items()
            if isinstance(source, BoxSource | RowSource)
        }
        reported: list[Any] = []
        for name, splits in counted.items():
            for split, counts in splits.items() if splits not in reported else ():
                self.reporter.say(f"  {name}, {split}: {format_counts(counts)}")
            reported.append(splits)
        facts: dict[str, Any] = {"boxes": counted}
        if skipped := {name: rows for name, source in sources.items() if (rows := _skipped(source))}:
            facts["skipped"] = skipped
        if self.recipe.knowledge and self.recipe.knowledge.card != "phantom":
            name = self.recipe.knowledge.card
            card = read_card(name).model_dump(mode="json")
            facts["card"] = {"name": name, **{key: card[key] for key in ("written_by", "checked_by")}}
        return facts

    def image_warnings(self) -> dict[str, list[str]]:
        """The names of the unusual images, by kind; only of images that are still read in the same way."""
        named = {name for names in self.image_log.names().values() for name in names}
        known = [self.train_samples, self.test_samples, *self.stage_samples.values()] if named else []
        shown = [sample for samples in known for sample in samples if sample.id in named]
        return self.image_log.names({(sample.id, read_as(image)) for sample in shown for image in sample.images})

    def train(
        self, arm: str, index: int, stage: Stage, place: StageDirectory, before: StageDirectory | None, seed: int
    ) -> None:
        """Train a stage of an arm; goes on from the newest checkpoint in its directory.

        Args:
            arm: its name.
            index: of the stage in the arm, from 0.
            stage: may be shorter than in the recipe, where a budget is matched.
            place: the directory of the stage.
            before: that of the stage before it; None for the first.
            seed: of the run.

        Raises:
            UserError: the stage cannot be trained, or the file of a custom reward has changed since the run began.
        """
        if custom_digest(self.recipe.custom) != self.custom:
            raise RunError("the file of a custom reward was changed while the run was going on; begin it again.")
        policy = load_for(self.recipe, before.policy if before else None, training=True)
        policy.image_log = self.image_log
        policy.skips_unreadable = self.skips_bad_of(stage)
        place.path.mkdir(parents=True, exist_ok=True)
        task, samples = self.stage_dataset(arm, stage, seed)
        options: dict[str, Any] = {
            "seed": seed,
            "reporter": self.reporter,
            "label": f"{arm}, seed {seed}, stage {index + 1} ({stage.kind})",
            "validation": self._validation(arm, stage, task),
            "trackers": self._trackers(arm, index, seed, place),
            "callbacks": self.callbacks,
        }
        if isinstance(stage, RftStage):
            train_rft(policy, stage, task, samples, place, custom=self.recipe.custom, **options)
        else:
            train_sft(policy, stage, task, samples, place, **options)

    def evaluate(
        self, arm: str, seed: int, load: Callable[[], LoadedPolicy], path: Path, stage: Stage | None = None
    ) -> None:
        """Predict the evaluated samples under the test condition of an arm, or those of a stage on another task.

        Args:
            arm: its name; ``majority`` needs no policy.
            seed: of the run.
            load: gives the policy.
            path: the predictions, one JSON object a sample.
            stage: with a task of its own.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if stage is None:
            task, train = self.recipe.task_of(arm, self.task), self.train_samples
            test = self.apply(self.recipe.condition_of(arm), self.test_samples)
        else:
            task, _ = self.stage_task_and_source(stage)
            train, test = self.samples_of(stage, "train"), self.perception_samples(stage)
        if arm == "majority":
            if is_main():
                write_jsonl(path, predict_majority(task, train, test))
            return
        policy = load()
        policy.image_log = self.image_log
        predict(
            policy,
            task,
            test,
            path,
            batch_size=self.recipe.evaluation.batch_size,
            max_tokens=longest_answer(stage) if stage else self.recipe.evaluation_tokens,
            reporter=self.reporter,
            label=f"{arm}, seed {seed}, {task.kind if stage else 'evaluation'}",
        )

    def _validation(self, arm: str, stage: Stage, task: TrainableTask) -> Validation | None:
        """The validation of a stage of an arm: under its training condition, on samples of the validation split."""
        section = self.recipe.validate
        if section is None:
            return None
        samples = self.validation_samples(stage)
        if stage.task is None:
            samples = self.apply(self.recipe.condition_of(arm, training=True), samples)
        longest = longest_answer(stage) if stage.task is not None else self.recipe.evaluation_tokens
        options = {"batch_size": self.recipe.evaluation.batch_size, "max_tokens": longest}

        def measure(policy: LoadedPolicy) -> dict[str, float]:
            batches = answers(policy, task, samples, **options)
            return figures_of(task, [row for rows in batches for row in rows])

        metric = section.metric if section.metric in task.metrics else task.metrics[0]
        return Validation(section, metric, measure)

    def _trackers(self, arm: str, index: int, seed: int, place: StageDirectory) -> dict[str, Any]:
        """Experiment trackers that also receive the log of a stage, and the name of the run there."""
        trackers = list(self.recipe.report_to)
        if "tensorboard" in trackers:
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.path / "tensorboard")
        if "wandb" in trackers:
            os.environ["WANDB_PROJECT"] = self.recipe.name
        run_name = f"{arm}-seed-{seed}" + (f"-stage-{index + 1}" if len(self.recipe.stages_of(arm)) > 1 else "")
        return {"report_to": trackers, "project": self.recipe.name, "run_name": run_name}


def open_experiment(
    recipe: Recipe, reporter: Reporter, *, source: Source | None = None, callbacks: Sequence[Any] = ()
) -> Experiment:
    """Open the data of a recipe, and check that targets, knowledge and envelopes fit the policy.

    Args:
        recipe: checked by ``read_recipe``.
        reporter: receives counts and warnings.
        source: of the samples, in place of the section ``data``.
        callbacks: for the trainers of every stage.

    Raises:
        UserError: data or policy cannot be used.
    """
    source = source or open_source(recipe)
    task = build_task(recipe, source, frame=frame_for(recipe, recipe.task))
    train = _with_question(source.samples("train"), recipe.task)
    test = _with_question(source.samples(recipe.evaluation.split), recipe.task)[: recipe.evaluation.limit]
    for samples in (train, test):
        if isinstance(samples, LazySamples):
            continue  # a source of rows numbers equal names
        if twice := [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]:
            raise DataError(f"{len(twice)} names of samples are given twice in a split, such as {twice[0]}.")
    if not train or not test:
        hint = ""
        if isinstance(source, BoxSource | RowSource):
            found = "; ".join(f"{name}: {format_counts(counts)}" for name, counts in source.annotation_counts().items())
            hint = f" (data.splits: made shares all images out anew). Found: {found or 'nothing'}"
        raise DataError(f"the data has no samples in train or {recipe.evaluation.split}{hint}.")
    custom = custom_digest(recipe.custom)
    if isinstance(source, RowSource):
        _check_distinct_targets(task, source)
    train, test = (_checked_targets(task, samples) for samples in (train, test))
    image_log = ImageLog()
    if skips_bad(recipe.data):
        test = readable(test, image_log)
    experiment = Experiment(recipe, task, source, train, test, None, reporter, callbacks, custom, image_log)
    _check_all_targets(experiment)
    injection = open_knowledge(recipe, source)
    if injection is not None:
        check_budget(recipe, injection, train[0])
    check_envelopes(recipe)
    return replace(experiment, injection=injection)


def _checked_targets(task: TrainableTask, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Samples with their targets in the form of an answer, such as whole numbers of a library; boxes stay.

    Raises:
        DataError: one is no target of the task.
    """
    if isinstance(task, Localization):
        return samples

    def checked(sample: Sample) -> Sample:
        try:
            return replace(sample, target=task.check_target(sample.target))
        except ValueError as error:
            raise DataError(f"sample {sample.id}: {error}.") from None

    return map_samples(checked, samples)


def _check_distinct_targets(task: TrainableTask, source: RowSource) -> None:
    """Check each different target of a source of rows once, without a look at all samples.

    Raises:
        DataError: one is no target of the task.
    """
    for target, count, place in source.distinct_targets() if not isinstance(task, Localization) else ():
        try:
            task.check_target(target)
        except ValueError as error:
            advice = "mend it, or name it in task or data.label_names"
            raise DataError(f"{place}: {error} ({count:,} samples have it); {advice}.") from None


def _skipped(source: Source) -> list[dict[str, Any]]:
    return source.skipped() if isinstance(source, RowSource) else []


def groups_of(samples: Iterable[Sample]) -> list[str]:
    """The patient of each sample, by a number, else its image; the samples of a group are resampled together."""
    numbers: dict[str, int] = {}
    return [
        str(sample.facts.get("image", sample.id))
        if sample.patient is None
        else f"patient {numbers.setdefault(sample.patient, len(numbers) + 1)}"
        for sample in samples
    ]


def own_task_of(stage: Stage) -> str:
    """The task and the data of a stage as a text; "" where they are those of the recipe."""
    return "" if stage.task is None else stage.model_dump_json(include={"task", "data"})


def _check_all_targets(experiment: Experiment) -> None:
    """Check the targets of all samples that are trained on, validated on or evaluated.

    Raises:
        DataError: a right answer would not earn the full reward, or there is nothing to validate on.
    """
    recipe = experiment.recipe
    stages = {own_task_of(stage): stage for arm in recipe.arm_names() for stage in recipe.stages_of(arm)}
    samples: dict[str, list[Sample]] = {"": [*_to_check(experiment.train_samples, experiment.task, experiment.source)]}
    samples[""] += _to_check(experiment.test_samples, experiment.task, experiment.source)
    for key, stage in stages.items():
        if stage.task is not None:
            task, source = experiment.stage_task_and_source(stage)
            parts = (experiment.samples_of(stage, "train"), experiment.perception_samples(stage))
            samples[key] = [sample for part in parts for sample in _to_check(part, task, source)]
        if recipe.validate is not None:
            samples[key] += experiment.validation_samples(stage)
    for key, used in samples.items():
        task = experiment.stage_task_and_source(stages[key])[0] if key else experiment.task
        _check_targets(task, used, experiment.reporter)


def _check_targets(task: TrainableTask, samples: Sequence[Sample], reporter: Reporter) -> None:
    """Check that a right answer earns the full reward, before a policy is loaded.

    Raises:
        DataError: it does not, for some targets; the message says how many, and shows the first.
    """
    found = read_back(task, samples)
    if faults := found.unpaid:
        raise DataError(
            f"{faults[0]}; a right answer to {len(faults)} of the targets would not earn the full reward. "
            f"Rename labels or grades that cannot be distinguished, or mend the boxes."
        )
    if isinstance(task, Localization) and found.share < 0.99:
        overlap = f"a right answer overlaps by {found.share:.3f} on average"
        reporter.say(f"  boxes are rounded in the frame {task.frame!r}: {overlap}")


def _to_check(samples: Sequence[Sample], task: TrainableTask, source: Source) -> Iterable[Sample]:
    """The samples whose targets are checked: of rows, one for each different target that is no box."""
    if isinstance(source, RowSource) and not isinstance(task, Localization):
        distinct = ((task.check_target(target), place) for target, _, place in source.distinct_targets())
        return [Sample(place, Path(place), "", target, "") for target, place in distinct]
    return samples


def _shuffled(samples: Sequence[Sample], order: Sequence[int]) -> Sequence[Sample]:
    """Each sample with the target of another."""
    if isinstance(samples, LazySamples):
        whole = range(len(samples))
        return LazySamples(lambda at: _with_target_of(samples[at], samples[order[at]]), whole, skips=samples.skips)
    return [_with_target_of(sample, samples[other]) for sample, other in zip(samples, order, strict=True)]


def _with_target_of(sample: Sample, other: Sample) -> Sample:
    """A sample with the target of another; boxes keep their place in shares of the image."""
    if not isinstance(other.target, tuple):
        return replace(sample, target=other.target)
    here, there = size_of(sample.images[0]), size_of(other.images[0])
    return replace(sample, target=tuple(rescale(box, there, here) for box in other.target))


def _with_question(samples: Iterable[Sample], section: TaskSection) -> Sequence[Sample]:
    """Samples with the question of a section, where it has one."""
    question = section.question
    known = samples if isinstance(samples, LazySamples) else list(samples)
    return map_samples(lambda sample: replace(sample, question=question), known) if question else known
