"""The cost of a recipe: memory by arithmetic, and time from measured steps; nothing is kept or downloaded.

Memory follows from the policy's configuration (``vrft.training.memory_model``), with completions as long as they may
be. Time is measured where the weights are on this machine and fit: of each different kind of stage the steps after a
warm-up step, and of each different kind of evaluation a batch, with the policy that the recipe starts from.
"""

import gc
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from vrft.data import MedMNISTSource
from vrft.errors import DataError, PolicyError, UserError
from vrft.evaluation.predictions import answers
from vrft.experiment.opened import Experiment
from vrft.knowledge import PromptKnowledge
from vrft.policies import check_envelope, model_inputs, quiet_libraries
from vrft.policies.families import family_of
from vrft.policies.from_recipe import frame_for, load_for, orders_of, policy_without_weights, weights_are_here
from vrft.policies.loading import compute_dtype
from vrft.progress import Reporter
from vrft.recipe import Lora, Recipe, RftStage, SftStage, build_task, longest_answer, open_knowledge, open_source
from vrft.response import render
from vrft.runs import StageDirectory
from vrft.sample import Sample, open_image, size_of
from vrft.tasks import TrainableTask
from vrft.training import PeakMemory, train_rft, train_sft
from vrft.training.memory_model import MASTER, Lengths, MemoryModel, peak_of
from vrft.training.sft import answer_of, think_texts

Stage = RftStage | SftStage
GPUS = {"h200": 141, "h100": 80, "a100-80": 80, "a100-40": 40, "l40s": 48, "rtx4090": 24, "a10": 24, "t4": 16}
"""Memory of GPUs that a plan can be made for, in 1e9 bytes."""
USABLE, CONTEXT = 0.9, 0.8e9
"""Share of a device's memory to plan with, since fragments take the rest; bytes of a CUDA context (not measured)."""
SAMPLED = 8
"""Samples whose prompts are measured; the longest counts, since a batch is as long as its longest."""
LETTERS, TEMPLATE = 4, 20
"""Without a tokenizer: letters of a token of English text, and tokens of the chat template."""
FEW_TOKENS = 256
"""Tokens of an image with the ``max_pixels`` that a plan proposes."""
SETTLED, MOST = 2.0, 5
"""Short steps are measured until so many seconds have passed, or so many batches of rollouts were used."""
SIZES = {"kind", "task", "data", "prompts_per_step", "group_size", "batch_size", "micro_batch", "max_completion_tokens"}
SIZES |= {"gradient_checkpointing", "updates_per_batch", "shared_prefix", "rollouts", "dynamic_sampling", "loss"}
SIZES |= {"think", "think_from", "loader_workers"}
"""Keys of a stage that decide how long a step takes, beside the rewards, whether there is a KL term, and the prompt."""


class Device(NamedTuple):
    """A device: bytes of its memory, those that a process holds without a policy; whether a run here would use it."""

    name: str
    memory: float
    held: float
    here: bool


def device_for(name: str | None) -> Device:
    """The device of a name; without a name, the GPU of this machine, else its processor.

    Raises:
        UserError: it is not known.
    """
    memory, gpu = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), torch.cuda.is_available()
    own = cpu = Device("cpu", memory, PeakMemory().peak_mb() * 2**20, here=not gpu)
    if gpu:
        full_name, memory = torch.cuda.get_device_name().lower(), torch.cuda.get_device_properties(0).total_memory
        keys = [key for key in GPUS if key.split("-")[0] in full_name.replace(" ", "")]
        nearest = min(keys, key=lambda key: abs(GPUS[key] * 1e9 - memory), default=full_name)
        own = Device(nearest, memory, CONTEXT, here=True)
    known = {key: Device(key, size * 1e9, CONTEXT, here=False) for key, size in GPUS.items()} | {"cpu": cpu}
    if name not in (None, own.name, *known):
        raise UserError(f"--on {name}: its memory is not known; expected {', '.join(known)}.")
    return own if name in (None, own.name) else known[str(name)]


@dataclass
class Row:
    """A stage or an evaluation of an arm: ``times`` as many seeds, of ``steps`` steps or batches each."""

    arm: str
    what: str
    times: int
    steps: int
    lengths: Lengths
    memory: dict[str, float]
    kind: str
    """Steps of rows of the same kind take equally long."""
    measure: Callable[[], float]
    """Gives the seconds of a step."""
    remedies: Sequence[tuple[str, float]] = ()
    """Where it does not fit: keys of the recipe that need less memory, each with the peak in bytes."""
    step_seconds: float | None = None

    @property
    def seconds(self) -> float | None:
        """Of all steps and seeds; None where time was not measured."""
        return None if self.step_seconds is None else self.times * self.steps * self.step_seconds


class Plan:
    """The costs of a recipe on devices of a kind: ``rows`` for stages and evaluations, and ``notes`` for the reader.

    ``make_plan`` documents the arguments and errors, and fills in the time.
    """

    def __init__(self, recipe: Recipe, device: Device, devices: int) -> None:
        self.recipe, self.device, self.devices = recipe, device, devices
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.policy, dtype = policy_without_weights(recipe.policy), recipe.policy.dtype
        if dtype == "auto" and not device.here:
            dtype = "float32" if device.name in ("cpu", "t4") else "bfloat16"  # a T4 has no unit for bfloat16
        options: dict[str, Any] = {"width": compute_dtype(dtype).itemsize, "on_cpu": device.name == "cpu"}
        try:
            self.counted = MemoryModel(self.policy.model, recipe.policy.lora, **options)
            self.adapted = MemoryModel(self.policy.model, Lora(), **options)
        except AttributeError as error:
            raise PolicyError(f"policy.model {recipe.policy.model!r}: its sizes cannot be read ({error}).") from None
        self.tokenizer, self.multiple = self.policy.processor.tokenizer, family_of(self.policy.model.config).multiple
        if self.tokenizer is None:
            self.notes.append(f"prompts are estimated at {LETTERS} letters a token: there is no tokenizer here")
        self.prompt_end = self.policy.prompt_end if self.tokenizer else ""
        for order in orders_of(recipe):
            check_envelope(recipe.policy.model, self.prompt_end, order)
        self.experiment = _opened(recipe)
        self.uncached = without_image_cache(recipe)
        self._add_rows()

    def peak(self, row: Row) -> float:
        """Bytes on a device, with those that the process itself holds."""
        return peak_of(row.memory) + self.device.held

    @property
    def usable(self) -> float:
        """Bytes of a device that may be planned with."""
        return self.device.memory * USABLE

    @property
    def largest(self) -> Row | None:
        """The row with the highest peak."""
        return max(self.rows, key=self.peak, default=None)

    def seconds(self, arm: str | None = None) -> float | None:
        """Seconds of all rows, or of those of an arm; None where they were not measured."""
        each = [row.seconds for row in self.rows if arm in (None, row.arm)]
        return None if None in each else sum(one for one in each if one is not None)

    def _add_rows(self) -> None:
        """Stages that no arm before has trained, evaluations, and last those of stages on another task."""
        recipe, seen = self.recipe, list[Any]()
        for arm in recipe.arm_names():
            for index, stage in enumerate(recipe.stages_of(arm)):
                if (training := recipe.training_of(arm, index)) not in seen:
                    seen.append(training)
                    share = share_of_device(stage, self.devices)
                    share = share.model_copy(update={"shuffle_targets": False})  # to shuffle boxes reads all images
                    self._add_stage(arm, index, share)
            if arm != "majority":
                task, longest = recipe.task_of(arm, self.experiment.task), recipe.evaluation_tokens
                self._add_evaluation(
                    arm, "evaluation", task, self.experiment.test_samples, recipe.condition_of(arm).prompt, longest
                )
        for arm, last in recipe.perceptions():
            stage = recipe.stages_of(arm)[last]
            task, samples = self.experiment.stage_task_and_source(stage)[0], self.experiment.perception_samples(stage)
            self._add_evaluation(arm, f"evaluation of {last + 1}", task, samples, "none", longest_answer(stage))

    def _add_stage(self, arm: str, index: int, stage: Stage) -> None:
        """Add a stage of an arm, and its validations."""
        recipe, seeds = self.recipe, len(self.recipe.seeds)
        task, samples = self.experiment.stage_dataset(arm, stage, recipe.seeds[0])
        condition: PromptKnowledge = recipe.condition_of(arm, training=True).prompt if stage.task is None else "none"
        lengths = self._lengths(task, samples, longest_answer(stage), stage)
        sizes: list[Any] = [stage.model_dump(include=SIZES), condition, task.order]
        sizes += [sorted(stage.weights()), stage.kl > 0] if isinstance(stage, RftStage) else []
        what, memory, kind = f"{index + 1} {stage.kind}", self.counted.training(stage, lengths), json.dumps(sizes)
        row = Row(
            arm, what, seeds, stage.steps, lengths, memory, kind, lambda: step_seconds(self.experiment, arm, stage)
        )
        if self.peak(row) > self.usable:
            row.remedies = self._remedies(stage, lengths)
        self.rows.append(row)
        if recipe.validate is not None:
            longest = recipe.evaluation_tokens if stage.task is None else longest_answer(stage)
            samples, times = self.experiment.validation_samples(stage), -(-stage.steps // recipe.validate.every)
            self._add_evaluation(arm, f"validation of {index + 1}", task, samples, condition, longest, times)

    def _add_evaluation(
        self,
        arm: str,
        what: str,
        task: TrainableTask,
        samples: Sequence[Sample],
        condition: PromptKnowledge,
        longest: int,
        times: int = 1,
    ) -> None:
        """Add an evaluation that is done ``times`` times for each seed."""
        if not samples:
            return
        injection, batch = self.experiment.injection, min(self.recipe.evaluation.batch_size, len(samples))
        shown = ([*samples[:: max(1, len(samples) // (2 * batch))]] * 2)[: 2 * batch]
        shown = [injection.apply(sample, condition) for sample in shown] if injection else shown
        lengths = self._lengths(task, shown, longest)
        whole = self.counted.full and self.recipe.has_seeds(arm)  # evaluated as saved, in float32
        width = MASTER if whole else self.counted.width
        memory = self.counted.evaluation(lengths, batch, width=width)
        steps = times * -(-len(samples) // (batch * self.devices))
        kind, seeds = (
            json.dumps([task.kind, lengths, batch, condition, task.order, width]),
            len(self.recipe.seeds_of(arm)),
        )

        def measure() -> float:
            return self._decode(task, shown, batch, longest, whole=whole)

        self.rows.append(Row(arm, what, seeds, steps, lengths, memory, kind, measure))

    def _remedies(self, stage: Stage, lengths: Lengths) -> list[tuple[str, float]]:
        """Changes of the recipe that need less memory, alone and all together, each with its peak."""
        counted, fewer, rank = self.counted, lengths, f"policy.lora: {{rank: {Lora().rank}}}"
        least = stage.group_size if isinstance(stage, RftStage) and stage.shared_prefix else 1
        changes: dict[str, dict[str, Any]] = {"gradient_checkpointing: true": {"gradient_checkpointing": True}}
        changes |= {f"micro_batch: {least}": {"micro_batch": least}}
        changes |= {"kl: 0": {"kl": 0.0}} if isinstance(stage, RftStage) else {}
        tried = {keys: (counted, stage.model_copy(update=change), lengths) for keys, change in changes.items()}
        few = FEW_TOKENS * lengths.images
        if lengths.image > few:
            prompt, patches = lengths.prompt - lengths.image + few, lengths.patches * few // lengths.image
            fewer = Lengths(prompt, lengths.completion, few, patches, lengths.images)
            tried[f"policy.max_pixels: {FEW_TOKENS * self.multiple**2}"] = (counted, stage, fewer)
        every = stage.model_copy(update={key: value for change in changes.values() for key, value in change.items()})
        tried["all of these"] = (counted, every, fewer)
        if counted.full:
            tried |= {rank: (self.adapted, stage, lengths), f"all of these, with {rank}": (self.adapted, every, fewer)}
        now, held = peak_of(counted.training(stage, lengths)), self.device.held
        peaks = {keys: peak_of(one.training(changed, of)) for keys, (one, changed, of) in tried.items()}
        return [(keys, peak + held) for keys, peak in peaks.items() if peak < now]

    def _lengths(
        self, task: TrainableTask, samples: Sequence[Sample], longest: int, stage: Stage | None = None
    ) -> Lengths:
        """The longest of some samples; a completion is the target of SFT, else as long as it may be."""
        if not samples:
            raise DataError("the data has no samples in train.")
        chosen, found = samples[:: max(1, len(samples) // SAMPLED)][:SAMPLED], []
        think = think_texts(stage, chosen, 0) if isinstance(stage, SftStage) else None
        for place, sample in enumerate(chosen):
            images = [open_image(image) for image in sample.images]
            pixels = sum(width * height for width, height in (self.policy.processed_size(one.size) for one in images))
            tokens = pixels // self.multiple**2 if self.multiple > 1 else 0  # not known of other families
            text = self.policy.prompt(task, sample, images[0].size)
            prompt, patches = self._tokens(text) + TEMPLATE + tokens, 4 * tokens
            if self.tokenizer is not None:
                inputs = model_inputs(self.policy, [text], [images])
                prompt, patches = inputs["input_ids"].shape[1], inputs["pixel_values"].numel()
                patches //= self.counted.patch_numbers
            if think is not None:
                answer = answer_of(self.policy, task, sample, size_of(sample.images[0]))
                longest = self._tokens(render(think(sample, place), answer, task.order, self.prompt_end)) + 1
            found.append((prompt, longest, tokens, patches, len(images)))
        return Lengths(*map(max, zip(*found, strict=True)))

    def _tokens(self, text: str) -> int:
        """Tokens of a text, estimated where there is no tokenizer."""
        return -(-len(text) // LETTERS) if self.tokenizer is None else len(self.tokenizer(text).input_ids)

    def _decode(
        self, task: TrainableTask, samples: Sequence[Sample], batch: int, longest: int, *, whole: bool
    ) -> float:
        """Seconds of the second of two batches of an evaluation."""
        policy = load_for(self.uncached, None, training=whole)
        batches = answers(policy, task, samples, batch_size=batch, max_tokens=longest)
        next(batches)
        began = time.monotonic()
        next(batches)
        return time.monotonic() - began


def step_seconds(experiment: Experiment, arm: str, stage: Stage) -> float:
    """Seconds of a step of a stage after the warm-up, with the policy that the recipe starts from; nothing is kept."""
    recipe = without_image_cache(experiment.recipe)
    clock, seed = _StepClock(stage.updates_per_batch if isinstance(stage, RftStage) else 1), recipe.seeds[0]
    changes = {"steps": clock.last, "log_every": 1, "max_tokens": None, "max_seconds": None}
    train: Callable[..., Any] = train_rft if isinstance(stage, RftStage) else train_sft
    policy = load_for(recipe, None, training=True)
    policy.skips_unreadable = experiment.skips_bad_of(stage)
    task, samples = experiment.stage_dataset(arm, stage, seed)
    with TemporaryDirectory() as folder, suppress(_Measured):
        place, shorter = StageDirectory(Path(folder)), stage.model_copy(update=changes)
        options = {"custom": recipe.custom} if isinstance(stage, RftStage) else {}
        train(policy, shorter, task, samples, place, seed=seed, reporter=clock, **options)
    return clock.seconds


def without_image_cache(recipe: Recipe) -> Recipe:
    """A recipe that leaves the user's cache of images as it is."""
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"image_cache_gb": 0.0})})


def make_plan(recipe: Recipe, on: str | None = None, devices: int = 1, *, reporter: Reporter) -> Plan:
    """Plan a recipe, and measure its steps where this machine can.

    Args:
        recipe: checked by ``read_recipe``.
        on: name of a device, a key of ``GPUS`` or cpu; without it that of this machine.
        devices: how many share the groups of a step.
        reporter: shows the progress of the measurement.

    Raises:
        UserError: the device is not known; data, configuration or processor are not on this machine; or an arm asks for
            an envelope that the policy's chat template rules out.
    """
    quiet_libraries()
    plan = Plan(recipe, device_for(on), devices)
    if reason := _cannot_measure(plan):
        plan.notes.append(f"time was not measured: {reason}")
    else:
        _measure(plan, reporter)
    return plan


def _opened(recipe: Recipe) -> Experiment:
    """The data of a recipe; targets are not checked, since that may read all images."""
    source, *others = [open_source(recipe, stage) for stage in (None, *recipe.stages) if stage is None or stage.data]
    for one in (source, *others):
        if isinstance(one, MedMNISTSource) and not one.path.is_file():
            raise DataError(f"{one.path} is not there yet, and a plan downloads nothing; download it first.")
    task, own = build_task(recipe, source, frame=frame_for(recipe, recipe.task)), recipe.own_stages()[0]
    experiment = Experiment(recipe, task, source, [], [], open_knowledge(recipe, source), Reporter(quiet=True))
    test = experiment.samples_of(own, recipe.evaluation.split)[: recipe.evaluation.limit]
    return replace(experiment, train_samples=experiment.samples_of(own, "train"), test_samples=test)


def _cannot_measure(plan: Plan) -> str:
    """Why no step can be measured here, and how to get the time; "" where it can."""
    recipe, largest, name = plan.recipe, plan.largest, plan.recipe.policy.model
    vllm = any(getattr(one, "rollouts", "") == "vllm" for arm in recipe.arm_names() for one in recipe.stages_of(arm))
    if not plan.device.here:
        return f"this machine has no {plan.device.name}; plan there, without --on."
    if not weights_are_here(name, recipe.policy.revision):
        return f"the weights of {name} are not on this machine; download them (hf download {name})."
    if largest is not None and plan.peak(largest) > plan.usable:
        return f"the recipe does not fit on this {plan.device.name}; change it, or plan on a larger device."
    if vllm and not find_spec("vllm"):
        return "a stage samples with vLLM, which is not installed here."
    return ""


def _measure(plan: Plan, reporter: Reporter) -> None:
    """Measure a row of each kind; a policy is gone when the next row is measured."""
    kinds, seconds, began = {row.kind: row for row in reversed(plan.rows)}, dict[str, float](), time.monotonic()
    reporter.say(f"measuring {len(kinds)} kinds of stages and evaluations on this {plan.device.name}")
    reporter.start("measuring", len(kinds))
    for kind, row in reversed(kinds.items()):
        try:
            seconds[kind] = row.measure()
        except torch.OutOfMemoryError:
            plan.notes.append(f"time was not measured: {row.arm}, {row.what} ran out of memory here.")
            break
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        reporter.advance(len(seconds), f"{row.arm}, {row.what}")
    reporter.stop()
    for row in plan.rows:
        row.step_seconds = seconds.get(row.kind)
    took = time.monotonic() - began
    plan.notes.append(f"measuring took {took:.0f} s; the time to load and to save weights is not counted")


class _Measured(Exception):
    """Enough steps were measured."""


class _StepClock(Reporter):
    """Times the steps of a stage after a warm-up, and ends the stage before anything of it is saved.

    Args:
        updates: steps that share a batch of rollouts.
    """

    def __init__(self, updates: int) -> None:
        super().__init__(quiet=True)
        self.updates, self.last = updates, updates * (1 + MOST)
        self.seconds, self.warm = 0.0, 0.0

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done <= self.updates:
            self.warm = now
            return
        self.seconds = (now - self.warm) / (done - self.updates)
        if done == self.last or (now - self.warm >= SETTLED and done % self.updates == 0):
            raise _Measured


def share_of_device(stage: Stage, devices: int) -> Stage:
    """A stage with the groups, or the samples, that each of some devices has of a step."""
    key, group = ("prompts_per_step", stage.group_size) if isinstance(stage, RftStage) else ("batch_size", 1)
    share = -(-getattr(stage, key) // devices)
    micro = stage.micro_batch and math.gcd(stage.micro_batch, share * group)
    return stage.model_copy(update={key: share, "micro_batch": micro})
