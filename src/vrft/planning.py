"""What a recipe costs on a device, before weights are loaded or anything is written.

Steps, groups and arms are those of the recipe; the cost of a step is that of ``vrft.training.cost``; prompts are
measured on a few samples. Every completion is taken to be as long as it may be, and without a KL term no group to be
left out of a pass: a plan is an upper bound there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoProcessor
from transformers.image_utils import SizeDict

from vrft.data import MedMNISTSource, Source
from vrft.errors import DataError, PolicyError
from vrft.knowledge import Injection, PromptKnowledge
from vrft.policies import LoadedPolicy, check_envelope, model_inputs, place_of
from vrft.policies.families import family_of
from vrft.policies.from_recipe import orders_of
from vrft.policies.loading import bound_pixels
from vrft.recipe import (
    Lora,
    Recipe,
    RftStage,
    SftStage,
    build_task,
    longest_answer,
    open_knowledge,
    open_source,
    texts_of,
)
from vrft.response import render
from vrft.sample import Sample, open_image, size_of
from vrft.tasks import TrainableTask
from vrft.tasks.task_sections import LocalizationTask
from vrft.training.cost import (
    KNOWN,
    MASTER,
    Architecture,
    Cost,
    Lengths,
    Step,
    architecture,
    empty_model,
    evaluation_cost,
    known_config,
    step_cost,
)
from vrft.training.devices import Device
from vrft.training.sft import answer_of
from vrft.training.shared_prefix import cannot_share

Stage = RftStage | SftStage
LOOKED_AT = 8
"""Samples whose prompts are measured; the longest counts, since a batch is as long as its longest."""
LETTERS, TEMPLATE = 4, 20
"""Of a policy without a tokenizer at hand: letters a token of English text, and tokens of the chat's template."""
FEW_PIXELS = 256 * 28 * 28
"""What ``max_pixels`` is tried at where memory does not suffice: 256 tokens an image."""
KEPT_FREE = 0.9
"""Share of a device's memory that may be planned with; the rest is lost to fragments."""


class Remedy(NamedTuple):
    """Keys of the recipe that need less memory, and the peak with them, in bytes."""

    keys: str
    peak: float


@dataclass(frozen=True)
class Row:
    """A stage, or an evaluation, of an arm: ``times`` as many seeds, of ``steps`` steps each."""

    arm: str
    what: str
    times: int
    steps: int
    lengths: Lengths
    cost: Cost
    repeated: float | None = None
    """Bytes of activations where the prompt is repeated for each completion."""
    remedies: Sequence[Remedy] = ()

    @property
    def seconds(self) -> float:
        return self.times * self.steps * self.cost.total


@dataclass(frozen=True)
class Plan:
    """The rows of a recipe on a device, of ``devices`` alike."""

    device: Device
    devices: int
    architecture: Architecture
    width: int
    estimated: bool
    rows: list[Row] = field(default_factory=list)

    def peak(self, row: Row) -> float:
        """Bytes on one device, with what the process itself holds."""
        return row.cost.memory.peak + self.device.held

    @property
    def room(self) -> float:
        return self.device.memory * KEPT_FREE


def make_plan(recipe: Recipe, device: Device, devices: int = 1, *, perception: bool = True) -> Plan:
    """Plan a recipe on ``devices`` devices, with or without evaluations of what its stages on other tasks learn.

    Raises:
        UserError: data, configuration or processor are not on this machine, since a plan fetches nothing; or an arm
            asks for an envelope that the policy's chat template rules out.
    """
    policy, estimated = policy_without_weights(recipe)
    lora = recipe.policy.lora
    counted = architecture(policy.model, lora.rank if lora else None, tuple(lora.targets) if lora else ())
    wide = {"float32": 4, "bfloat16": 2, "float16": 2}.get(recipe.policy.dtype, 4 if device.name == "cpu" else 2)
    plan = Plan(device, devices, counted, wide, estimated)
    end = "" if estimated else policy.prompt_end
    for order in orders_of(recipe):
        check_envelope(recipe.policy.model, end, order)
    planner = _Planner(recipe, policy, plan, end)
    seen: list[Any] = []
    for arm in recipe.arm_names():
        planner.train(arm, seen)
        if arm != "majority":
            planner.evaluate(arm)
    if perception:
        planner.perception()
    return plan


def policy_without_weights(recipe: Recipe) -> tuple[LoadedPolicy, bool]:
    """The policy of a recipe as an empty model, and whether its tokens must be estimated for lack of a tokenizer.

    Raises:
        PolicyError: its configuration or processor is not on this machine, and its architecture is not known.
    """
    section, place = recipe.policy, place_of(recipe.policy.model)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": section.trust_remote_code}
    options["revision"] = section.revision
    try:
        config = AutoConfig.from_pretrained(place, **options)
        processor = AutoProcessor.from_pretrained(place, padding_side="left", **options)
    except (OSError, ValueError, KeyError, ImportError):
        if section.model not in KNOWN:
            raise PolicyError(
                f"policy.model {section.model!r}: a plan needs its configuration and its processor, which are not on "
                f"this machine, and a plan fetches nothing. Fetch them without the weights (hf download "
                f"{section.model} --exclude '*.safetensors'), or give a directory that holds them. Planned without "
                f"any file: {', '.join(KNOWN)}."
            ) from None
        bounds = SizeDict(shortest_edge=56 * 56, longest_edge=16384 * 28 * 28)
        config, processor = known_config(section.model), SimpleNamespace(tokenizer=None)
        processor.image_processor = SimpleNamespace(size=bounds)
    if section.max_pixels is not None:
        bound_pixels(processor, section.max_pixels)
    policy = LoadedPolicy(empty_model(config), processor, place)
    return policy, getattr(processor, "tokenizer", None) is None


class _Planner:
    """Adds the rows of a recipe to its plan."""

    def __init__(self, recipe: Recipe, policy: LoadedPolicy, plan: Plan, end: str) -> None:
        self.recipe, self.policy, self.plan = recipe, policy, plan
        self.end = end
        """What the chat template opens the policy's turn with; no part of what SFT learns."""
        self.source = _at_hand(open_source(recipe))
        self.injection: Injection | None = open_knowledge(recipe, self.source)

    def train(self, arm: str, seen: list[Any]) -> None:
        """The stages of an arm that no arm before it has trained."""
        stages, told = self.recipe.stages_of(arm), self.recipe.told(arm, training=True)
        for index, stage in enumerate(stages):
            training = self.recipe.training_of(arm, index)
            if training in seen:
                continue
            seen.append(training)
            lengths = self.lengths(arm, stage, told, "train")
            step = self.step(stage)
            cost = self.cost(step, lengths)
            repeated = self.cost(replace(step, shared=False), lengths) if isinstance(stage, RftStage) else None
            row = Row(arm, f"{index + 1} {stage.kind}", len(self.recipe.seeds), stage.steps, lengths, cost)
            row = replace(row, repeated=repeated.memory.activations if repeated else None)
            if self.plan.peak(row) > self.plan.room:
                row = replace(row, remedies=self.remedies(step, lengths))
            self.plan.rows.append(row)
            if self.recipe.validate is not None:
                self.validations(arm, stage, told, index)

    def validations(self, arm: str, stage: Stage, told: PromptKnowledge, index: int) -> None:
        """Those of a stage, the last step's with them."""
        section, plan = self.recipe.validate, self.plan
        assert section is not None
        longest = longest_answer(stage) if stage.task is not None else self.recipe.evaluation_tokens
        lengths = replace(self.lengths(arm, stage, told, "validation"), completion=longest)
        batch = self.recipe.evaluation.batch_size
        cost = evaluation_cost(plan.architecture, plan.device, section.samples, batch, lengths, plan.width)
        times = -(-stage.steps // section.every)
        plan.rows.append(Row(arm, f"validation of {index + 1}", len(self.recipe.seeds), times, lengths, cost))

    def evaluate(self, arm: str) -> None:
        lengths = self.lengths(arm, None, self.recipe.told(arm), self.recipe.evaluation.split)
        self.evaluation(arm, "evaluation", len(self.recipe.seeds_of(arm)), self.source, lengths)

    def perception(self) -> None:
        """The evaluations of stages on another task, one of each different training."""
        for arm, last in self.recipe.perceptions():
            stage = self.recipe.stages_of(arm)[last]
            lengths = self.lengths(arm, stage, "none", self.recipe.evaluation.split)
            lengths = replace(lengths, completion=longest_answer(stage))
            source = _at_hand(open_source(self.recipe, stage))
            self.evaluation(arm, f"evaluation of {last + 1}", len(self.recipe.seeds), source, lengths)

    def evaluation(self, arm: str, what: str, times: int, source: Source, lengths: Lengths) -> None:
        section, plan = self.recipe.evaluation, self.plan
        count = min(sum(1 for _ in source.samples(section.split)), section.limit or 10**9)
        if count:
            whole = plan.architecture.adapters is None and self.recipe.has_seeds(arm)  # evaluated as saved, in float32
            width = MASTER if whole else plan.width
            cost = evaluation_cost(plan.architecture, plan.device, count, section.batch_size, lengths, width)
            plan.rows.append(Row(arm, what, times, 1, lengths, cost))

    def step(self, stage: Stage) -> Step:
        common: dict[str, Any] = {"micro": stage.micro_batch, "checkpointing": stage.gradient_checkpointing}
        if isinstance(stage, SftStage):
            return Step(stage.batch_size, **common)
        each = -(-stage.prompts_per_step // self.plan.devices) * stage.group_size
        fits = not cannot_share(self.policy.model, stage.group_size, min(stage.micro_batch or each, each))
        shared = stage.shared_prefix and fits
        common |= {"shared": shared, "kl": stage.kl > 0, "rollouts": True, "updates": stage.updates_per_batch}
        return Step(stage.prompts_per_step, stage.group_size, **common)

    def cost(self, step: Step, lengths: Lengths, one: Architecture | None = None) -> Cost:
        plan = self.plan
        return step_cost(one or plan.architecture, plan.device, step, lengths, plan.width, plan.devices)

    def remedies(self, step: Step, lengths: Lengths) -> list[Remedy]:
        """What needs less memory, one by one and all together, each with its peak."""
        least = step.group if step.shared else 1
        lora, image = Lora(), min(lengths.image, FEW_PIXELS // 28**2)
        adapted = architecture(self.policy.model, lora.rank, tuple(lora.targets))
        full = self.plan.architecture.adapters is None
        fewer = replace(lengths, prompt=lengths.prompt - lengths.image + image, image=image)
        changes: dict[str, dict[str, Any]] = {}
        if step.kl and full:
            changes["kl: 0"] = {"kl": False}
        if not step.checkpointing:
            changes["gradient_checkpointing: true"] = {"checkpointing": True}
        if (step.micro or step.prompts * step.group) > least:
            changes[f"micro_batch: {least}"] = {"micro": least}
        tried: list[tuple[str, Step, Lengths, Architecture | None]]
        tried = [(key, replace(step, **change), lengths, None) for key, change in changes.items()]
        every = replace(step, **{key: value for one in changes.values() for key, value in one.items()})
        if image < lengths.image:
            tried.append((f"policy.max_pixels: {FEW_PIXELS}", step, fewer, None))
        tried.append(("all of these", every, fewer, None))
        if full:
            rank = f"policy.lora: {{rank: {lora.rank}}}"
            tried += [(rank, step, lengths, adapted), (f"all of these, with {rank}", every, fewer, adapted)]
        held = self.plan.device.held
        return [Remedy(key, self.cost(changed, asked, of).memory.peak + held) for key, changed, asked, of in tried]

    def task(self, arm: str, stage: Stage | None = None, source: Source | None = None) -> TrainableTask:
        section = (stage.task if stage else None) or self.recipe.task
        frame = family_of(self.policy.model.config).frame if isinstance(section, LocalizationTask) else None
        task = build_task(self.recipe, source or self.source, stage=stage, frame=frame)
        return task if stage is not None and stage.task else self.recipe.task_of(arm, task)

    def lengths(self, arm: str, stage: Stage | None, told: PromptKnowledge, split: str) -> Lengths:
        """Tokens of the prompts of a stage, or of the evaluation where there is none, and of the longest completion."""
        own = stage is None or stage.task is None
        source = self.source if own else _at_hand(open_source(self.recipe, stage))
        task = self.task(arm, stage, source)
        samples = list(source.samples(split))
        if not samples:
            raise DataError(f"the data has no samples in {split}.")
        question = ((stage.task if stage else None) or self.recipe.task).question
        prompts, images, answers = [0], [0], [0]
        for sample in samples[:: max(1, len(samples) // LOOKED_AT)][:LOOKED_AT]:
            shown = replace(sample, question=question) if question else sample
            shown = self.injection.apply(shown, told) if self.injection and own else shown
            for lengths, one in zip((prompts, images), self.prompt(task, shown), strict=True):
                lengths.append(one)
            if isinstance(stage, SftStage):
                answer = answer_of(self.policy, task, shown, size_of(shown))
                for think in thoughts(stage, shown):
                    answers.append(self.words(render(think, answer, task.order, self.end)) + 1)
        allowed = self.recipe.evaluation_tokens if stage is None else longest_answer(stage)
        return Lengths(max(prompts), max(images), max(answers) or allowed)

    def prompt(self, task: TrainableTask, sample: Sample) -> tuple[int, int]:
        """Tokens of a prompt with its image, and of the image: one for each square of the family's multiple."""
        image = open_image(sample)
        width, height = self.policy.processed_size(image.size)
        of_image = width * height // family_of(self.policy.model.config).multiple ** 2
        text = self.policy.prompt(task, sample, image.size)
        if self.plan.estimated:
            return self.words(text) + TEMPLATE + of_image, of_image
        return int(model_inputs(self.policy, [text], [image])["input_ids"].shape[1]), of_image

    def words(self, text: str) -> int:
        if self.plan.estimated:
            return -(-len(text) // LETTERS)
        return len(self.policy.processor.tokenizer(text).input_ids)


def thoughts(stage: SftStage, sample: Sample) -> list[str]:
    """All that may stand in the think block of a sample."""
    if stage.think_from == "card":
        return [sample.knowledge.own if sample.knowledge else ""]
    return texts_of(stage.think)


def _at_hand(source: Source) -> Source:
    """A source whose files are here.

    Raises:
        DataError: they are not.
    """
    if isinstance(source, MedMNISTSource) and not source.path.is_file():
        raise DataError(f"{source.path} is not there yet, and a plan fetches nothing; fetch it first.")
    return source
