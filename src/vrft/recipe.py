"""The recipe: the one place that describes a run.

A recipe is YAML, read with the line of each key, checked against the models below (unknown keys are errors) and against
the data it names; all faults are reported together, before anything is loaded. The resolved recipe holds every value
that decides a result, and is itself a recipe.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from vrft.data import MedMNISTSource, PhantomSource, Source
from vrft.data.annotations import BoxSource, Reader
from vrft.data.coco import COCOReader
from vrft.data.masks import MaskReader
from vrft.data.medmnist import DATASETS
from vrft.data.phantom import ATTRIBUTES, FAMILIES, MAX_COUNT
from vrft.data.table import Columns, TableReader
from vrft.data.voc import VOCReader
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError, Fault, KnowledgeError, RecipeError
from vrft.knowledge import ELSEWHERE, Attribute, Injection, Told, check_against, read_card
from vrft.response import parse, render
from vrft.rewards import AGGREGATIONS, APPLIES, FUZZY_SCHEDULES, OVERLAPS, RECITATIONS, REWARDS, SCALINGS, missing_for
from vrft.tasks import Classification, Grading, TrainableTask, task_from
from vrft.tasks.sections import ClassificationTask, GradingTask, LocalizationTask
from vrft.typed import Keys, Loader, Section, YamlError, fault_of, read_yaml, validate

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


# --- data -----------------------------------------------------------------------------------------------------------


class SplitSizes(Section):
    train: Positive = 2048
    """Samples to train on."""
    validation: Positive = 256
    """Samples to choose settings on."""
    test: Positive = 512
    """Samples that results are reported on."""


class PhantomData(Section):
    """Generated images with known truth (`vrft.data.phantom`)."""

    source: Literal["phantom"]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the data set; the seeds of training are `seeds`."""
    samples: SplitSizes = SplitSizes()
    """How many samples each split has."""
    family: Literal[*FAMILIES] = "standard"  # type: ignore[valid-type]
    """`standard` looks are known to the embedded policy; the `shifted` one it has never seen."""
    attributes: Annotated[list[Literal[*ATTRIBUTES]], Field(min_length=1)] = ["size", "brightness"]  # type: ignore[valid-type]
    """Classification: the attributes whose combinations are the classes."""
    grade_by: Literal["count", "extent"] = "count"
    """Grading: by the number of findings, or by the extent of one."""
    levels: Annotated[int, Field(ge=2, le=MAX_COUNT + 1)] = 5
    """Grading: how many grades."""


class MedMNISTData(Section):
    """A MedMNIST set, read from its official npz file (`vrft.data.medmnist`)."""

    source: Literal["medmnist"]
    dataset: Literal[*DATASETS]  # type: ignore[valid-type]
    """The set, such as `pneumoniamnist`."""
    root: str = "data"
    """The folder that holds the npz files."""
    size: Literal[28, 64, 128, 224] = 28
    """Pixels a side; large policies see little in fewer than 224."""
    download: bool = False
    """Fetch the file when it is missing, and verify its checksum."""


class _Boxes(Section):
    root: str
    """The folder of the data set."""
    find: list[str] = []
    """The labels that are looked for, or told apart; without it all."""
    splits: Literal["own", "hash"] = "own"
    """Those of the set, or 60%, 20% and 20% of all images by a hash of their names, for sets that lack a split."""
    region: Literal["crop", "box"] = "crop"
    """Classification of regions: a box is cut out, or shown in the whole image and told in the question."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.25
    """Of a crop: what is shown around the box, as a share of its longer side."""


class VOCData(_Boxes):
    """Pascal VOC XML files and lists of stems (`vrft.data.voc`)."""

    source: Literal["voc"]


class COCOData(_Boxes):
    """COCO JSON files, one a split (`vrft.data.coco`)."""

    source: Literal["coco"]
    boxes: Literal["bbox", "polygon"] = "bbox"
    """The boxes as they are written, or those around the polygons."""
    unannotated: Literal["empty", "skip"] = "empty"
    """What an image without annotations is: nothing is there, or nobody looked."""


class YOLOData(_Boxes):
    """YOLO or DOTA text files (`vrft.data.yolo`)."""

    source: Literal["yolo"]


class MasksData(_Boxes):
    """Mask images, whose connected regions become boxes (`vrft.data.masks`)."""

    source: Literal["masks"]
    images: str = "images"
    """The folder of the images in the root."""
    masks: str = "masks"
    """The folder of the masks in the root."""
    classes: Annotated[dict[int, str], Field(min_length=1)]
    """Grey value and name of each class."""
    merge: str | None = None
    """All classes are one, with this label."""
    least_area: Positive = 9
    """Pixels; smaller regions are specks."""


class ColumnsOfATable(Section):
    """Which columns of a table hold what: their titles, or their numbers from 0."""

    image: str | int
    """The name of the image file."""
    label: str | int
    """What the box holds."""
    corners: Annotated[list[str | int], Field(min_length=4, max_length=4)] | None = None
    """x1, y1, x2, y2 in pixels."""
    corner_and_size: Annotated[list[str | int], Field(min_length=4, max_length=4)] | None = None
    """x, y, width, height in pixels."""
    split: str | int | None = None
    """The split, where the table has one."""


class TableData(_Boxes):
    """A CSV with one box a row (`vrft.data.table`)."""

    source: Literal["table"]
    file: str
    """The CSV in the root."""
    images: str = "."
    """The folder of the images in the root."""
    columns: ColumnsOfATable
    """The map of the columns."""
    group: str | None = None
    """What stands before this text in a file name is the patient, who stays in one split."""
    negatives: bool = False
    """Images that the table does not name hold nothing."""


BoxData = VOCData | COCOData | YOLOData | MasksData | TableData
Data = Annotated[PhantomData | MedMNISTData | BoxData, Field(discriminator="source")]

# --- task -----------------------------------------------------------------------------------------------------------


TaskSection = Annotated[ClassificationTask | GradingTask | LocalizationTask, Field(discriminator="kind")]

# --- knowledge ------------------------------------------------------------------------------------------------------


class KnowledgeSection(Section):
    """What the policy is told about the classes (PA_p), in the arms that have it."""

    card: Annotated[str, Field(min_length=1)]
    """A shipped card, a file, or `phantom`: what the code names of generated images mean."""
    attributes: Annotated[list[Attribute], Field(min_length=1)] | None = None
    """The attributes that are told; without it the whole card."""
    label_first: bool = True
    """A line is `label: text`; otherwise `text label`, as the embedded policy was taught."""
    shuffle: bool = False
    """The order of the classes is drawn anew for each sample."""
    max_tokens: Positive = 1024
    """A card that takes more tokens of the policy is refused."""
    irrelevant: str | None = None
    """Of the arm `irrelevant`: the card whose words stand there instead; without it sentences of everyday life."""


# --- policy ---------------------------------------------------------------------------------------------------------


class Lora(Section):
    """Train low-rank adapters in place of all weights."""

    rank: Positive = 16
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters; their output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout inside the adapters."""
    targets: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    """Ends of the names of the layers that get an adapter."""
    between_stages: Literal["merge", "continue"] = "merge"
    """The next stage trains new adapters on weights with these merged into them, or goes on with these."""


class Policy(Section):
    model: Annotated[str, Field(min_length=1)] = "tiny"
    """`tiny` (embedded), a name on the Hugging Face hub, or a directory."""
    revision: str | None = None
    """Of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is bfloat16 on a GPU and float32 elsewhere."""
    lora: Lora | None = None
    """Adapters; without it all weights are trained."""
    max_pixels: Positive | None = None
    """Upper bound on the pixels of an image after resizing; without it the processor's own."""
    image_cache_gb: Annotated[float, Field(ge=0)] = 4.0
    """How much of resized images is kept on disk, so that each is decoded once; 0 keeps none."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model."""


# --- stages ---------------------------------------------------------------------------------------------------------


class _Optimiser(Section):
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of AdamW (betas 0.9 and 0.999)."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    micro_batch: Positive | None = None
    """Sequences in one forward pass on one device; without it all of a step. Lower needs less memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    loader_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that open images beside the training; without it two on a GPU and none elsewhere."""
    max_tokens: Positive | None = None
    """The stage ends early with the logged step in which it has passed so many tokens (needs a constant schedule)."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """The stage ends early with the logged step in which so much time is spent; where that is differs by machine."""
    save_every: Positive = 50
    """Steps between checkpoints; a killed run loses at most these."""
    log_every: Positive = 1
    """Steps between lines of the log."""


class _Stage(_Optimiser):
    task: TaskSection | None = None
    """What the stage asks, where it is not the task of the recipe, such as localization before classification."""
    data: Data | None = None
    """Where the samples of the stage come from, where not from the data of the recipe."""
    balance: bool = False
    """Show each class or grade equally often, however rare it is; without it as often as the data has it."""
    shuffle_targets: bool = False
    """Permute the targets between the images: a control, from which nothing can be seen."""


class RftStage(_Stage):
    """Reinforcement fine-tuning: GRPO on rule-based rewards."""

    kind: Literal["rft"]
    rewards: Annotated[dict[Literal[*REWARDS], float], Field(min_length=1)] = {"accuracy": 1.0, "format": 0.5}  # type: ignore[valid-type]
    """The weight of each reward; the reward of a completion is the weighted sum."""
    fuzzy_schedule: Literal[*FUZZY_SCHEDULES] = "table"  # type: ignore[valid-type]
    """What the fuzzy reward pays by distance: `table` 1, 1/4, 1/10, then 0; `geometric` 0.25^d."""
    overlap: Literal[*OVERLAPS] = "iou"  # type: ignore[valid-type]
    """How the iou reward measures overlap: `giou` and `diou` tell near from far where boxes do not touch."""
    recite: Literal[*RECITATIONS] = "bleu"  # type: ignore[valid-type]
    """How the recitation reward compares the reasoning with the knowledge."""
    recite_model: str | None = None
    """Of `recite: embedding`: a directory of sentence-transformers; without it the model in the extra's package."""
    recite_against: Literal["class", "card"] = "class"
    """The recitation reward compares with what is known of the true class, or with the whole card."""
    iou_threshold: Share | Annotated[list[Share], Field(min_length=2, max_length=2)] = 0.0
    """The iou reward pays nothing below it; of two values it rises from the first to the second over the stage."""
    steps: Positive = 200
    """Optimiser steps."""
    prompts_per_step: Positive = 4
    """Groups in a step, over all devices."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions sampled for a prompt (G)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of sampling."""
    max_completion_tokens: Positive = 256
    """A completion is cut here."""
    kl: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the KL term towards the policy that the stage starts from (beta); 0 leaves it out and unmeasured."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clip range of the probability ratio (epsilon)."""
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "grpo"
    """How token losses are averaged; `grpo` is the paper's: over each completion, then over completions."""
    scale_rewards: Literal[*SCALINGS] = "group"  # type: ignore[valid-type]
    """What the centred reward is divided by: its deviation in the group, in the step, or nothing."""
    aggregation: Literal[*AGGREGATIONS] = "sum_then_normalize"  # type: ignore[valid-type]
    """`normalize_then_sum` divides each reward by its own deviation in the group before they are weighed and added, and
    the sum by that of the step; `scale_rewards` must then stay `group`."""
    shared_prefix: bool = True
    """Encode the prompt and image of a group once, where the model can; each pass is equal up to rounding."""
    rollouts: Literal["transformers", "vllm"] = "transformers"
    """What samples completions; `vllm` runs beside the training on the same GPUs, and caches prompts itself."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of `rollouts: vllm`: its share of a GPU's memory, for its weights and its cache."""
    dynamic_sampling: Annotated[int, Field(ge=0)] = 0
    """How many times in a step groups without advantage are replaced by groups of fresh prompts (as in DAPO)."""


class SftStage(_Stage):
    """Supervised fine-tuning on the targets, written in the envelope."""

    kind: Literal["sft"]
    steps: Positive = 200
    """Optimiser steps."""
    batch_size: Positive = 32
    """Samples in a step, over all devices."""
    think: str = "I looked at the image."
    """What stands inside the think tags of every target: labels come without reasons."""


Stage = Annotated[RftStage | SftStage, Field(discriminator="kind")]


def longest_answer(stage: RftStage | SftStage) -> int:
    """The most tokens of an answer to what a stage asks."""
    return stage.max_completion_tokens if isinstance(stage, RftStage) else 256


# --- arms -----------------------------------------------------------------------------------------------------------

ARMS = {
    "majority": "the most frequent label, the median grade, or the best constant box, of the training split",
    "base": "the policy as it is loaded",
    "sft": "supervised fine-tuning on the same data, with as many steps and sequences as `rft`",
    "rft": "the stages of the recipe, without those on another task",
    "blind": "as `rft`, every image grey, in training and at test: does the task need the image?",
    "nothink": "as `rft`, the answer alone: does the task need reasons?",
    "thinkafter": "as `rft`, the reasons after the answer, which they cannot help",
    "base+PA_p": "as `base`, with what is known of the classes in the prompt",
    "sft+PA_p": "as `sft`, with what is known in the prompt, in training and at test",
    "rft+PA_p": "as `rft`, with what is known in the prompt, in training and at test",
    "without": "the policy of `rft+PA_p`, tested without what is known: a control",
    "swapped": "the policy of `rft+PA_p`, tested with descriptions exchanged between the classes: a control",
    "irrelevant": "the policy of `rft+PA_p`, tested with as many words about something else: a control",
    "PA_pi": "only the stages on another task: what localization alone teaches, zero-shot",
    "rft+PA_pi": "all stages: first those on another task (perception), then those of `rft`",
    "rft+extra": "as `rft`, with as many more steps as the stages on another task have: a control",
    "rft+shuffled": "as `rft+PA_pi`, the targets of the other task permuted between its images: a control",
}
"""The arms that a recipe can name, and what each is."""


INFORMED = ("base+PA_p", "sft+PA_p", "rft+PA_p")
"""Arms that are told what is known, in training and at test."""

PERCEIVING = ("PA_pi", "rft+PA_pi", "rft+extra", "rft+shuffled")
"""Arms that need a stage on another task."""

ENVELOPES = {"nothink": "no-think", "thinkafter": "answer-think"}
"""Arms whose completions have blocks of their own, and which."""

TESTED_OTHERWISE: dict[str, Told] = {
    "without": "none",
    "swapped": "swapped",
    "irrelevant": "irrelevant",
}
"""Arms that are no training of their own: the policy of `rft+PA_p`, and what its prompts hold at test."""


class ArmChange(Section):
    """A further arm: the stages of the recipe, with some keys of the last stage changed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.,=-]*$")]
    """Of the arm, in the table and as a folder."""
    set: dict[str, Any] = {}
    """Keys of the last stage and their new values, such as `{rewards: {fuzzy: 1.0, format: 0.5}}`."""
    knowledge: bool = False
    """What is known of the classes stands in the prompt, in training and at test."""
    perception: bool = False
    """The stages on another task come first."""


class Sft(Section):
    """The `sft` arm, where it shall differ from its match to `rft`."""

    steps: Positive | None = None
    """Without it as many as all stages together."""
    batch_size: Positive | None = None
    """Without it as many sequences as a step of the last stage samples."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Without it that of the last stage."""
    think: str = SftStage.model_fields["think"].default
    """What stands inside the think tags of every target."""


class Evaluation(Section):
    split: Literal["train", "validation", "test"] = "test"
    """What is evaluated; choose settings on `validation`."""
    limit: Positive | None = None
    """Evaluate only the first so many samples."""
    batch_size: Positive = 64
    """Prompts decoded together; on some devices it changes the last bits of a result."""
    max_completion_tokens: Positive | None = None
    """Without it that of the last stage, or 256."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the intervals."""


FACTORS = {
    "PA_p": "what is known of the classes stands in the prompt",
    "PA_pi": "the stages on another task, such as localization, come first",
    "MFRS": "near misses of a grade earn part of the reward: `fuzzy` in the place of `accuracy`",
    "recite": "reciting what is known is paid for, or against",
}
"""What an ablation crosses, and what each adds to plain V-RFT."""

CELLS = ("rft", "rft+PA_p", "rft+PA_pi")
"""Arms that are cells of a factorial."""

CONTROLS = (
    "majority",
    "base",
    "sft",
    "blind",
    "nothink",
    "thinkafter",
    "rft+extra",
    "rft+shuffled",
    "without",
    "swapped",
)
"""Arms that an ablation sets beside the cells of its factorial, unless the recipe names others."""


class Sweep(Section):
    """A grid of weights and of the scaling of rewards, each a further arm of an ablation."""

    arm: str = "rft"
    """The cell of the factorial that is varied, such as `rft+PA_p`."""
    rewards: dict[Literal[*REWARDS], Annotated[list[float], Field(min_length=1)]] = {}  # type: ignore[valid-type]
    """The weights that are tried of each reward; 0 leaves it out."""
    scale_rewards: list[Literal[*SCALINGS]] = []  # type: ignore[valid-type]
    """The scalings that are tried."""
    aggregation: list[Literal[*AGGREGATIONS]] = []  # type: ignore[valid-type]
    """The ways of adding rewards up that are tried."""


class Budget(Section):
    """What the trained arms of an ablation have in common."""

    match: Literal["stages", "steps", "tokens", "seconds"] = "stages"
    """`stages`: each stage as the recipe says, so that further stages cost more. Otherwise the last stage of every arm
    ends when the arm has spent as many optimiser steps, tokens or seconds in all; seconds differ from run to run."""
    amount: Annotated[float, Field(gt=0)] | None = None
    """Of one arm and seed; without it as much as `rft` spends with the same seed."""


class Ablation(Section):
    """What `vrft ablate` compares."""

    factors: Annotated[list[Literal[*FACTORS]], Field(min_length=1)] | None = None  # type: ignore[valid-type]
    """What is crossed; without it all that apply."""
    recite: Annotated[float, Field(gt=0)] = 0.2
    """Weight of the recitation reward, taken with both signs."""
    controls: list[Literal[*(arm for arm in ARMS if arm not in CELLS)]] | None = None  # type: ignore[valid-type]
    """The arms beside the factorial; without it those of `majority`, `base`, `sft`, `blind`, `nothink`, `thinkafter`,
    `rft+extra`, `rft+shuffled`, `without` and `swapped` that apply."""
    sweep: Sweep | None = None
    """Weights and scalings that are tried besides."""
    budget: Budget = Budget()
    """How the arms are matched."""
    cpus: Positive = 1
    """Cores, and threads, of one arm and seed: the number of threads decides the last bits of a result."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one arm and seed; without it one where the machine has any."""
    keep_policies: bool = True
    """Keep the weights of every arm and seed; `false` drops them as soon as nothing that is asked for needs them."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often an arm and seed is begun again, from its last checkpoint, when its process was killed."""


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_.-]*$")]
    """Of the run: `runs/NAME` is its directory."""
    data: Data
    """Where the samples come from."""
    task: TaskSection
    """What is asked."""
    knowledge: KnowledgeSection | None = None
    """What the policy is told about the classes, in the arms with `PA_p`."""
    policy: Policy = Policy()
    """What is trained."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The training, in order; each stage starts from the weights of the one before."""
    sft: Sft = Sft()
    """The training of the arm `sft`."""
    arms: Annotated[list[Literal[*ARMS] | ArmChange], Field(min_length=1)] = ["majority", "base", "sft", "rft"]  # type: ignore[valid-type]
    """What is compared, in order."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    """One training of each trained arm for each seed."""
    evaluation: Evaluation = Evaluation()
    """How the arms are measured."""
    ablation: Ablation = Ablation()
    """What `vrft ablate` compares; `vrft run` passes over it."""

    def arm_names(self) -> list[str]:
        return [arm if isinstance(arm, str) else arm.name for arm in self.arms]

    def stages_of(self, arm: str) -> list[RftStage | SftStage]:
        """The stages of an arm, every value written out; empty for an arm that is not trained."""
        if arm in ("majority", "base", "base+PA_p", *TESTED_OTHERWISE):
            return []
        own, other = self.own_stages(), [stage for stage in self.stages if stage.task is not None]
        if arm in ("rft", "rft+PA_p", "blind", *ENVELOPES):
            return own
        if arm in ("sft", "sft+PA_p"):
            return [self._matched_sft()]
        if arm == "PA_pi":
            return other
        if arm == "rft+PA_pi":
            return list(self.stages)
        if arm == "rft+extra":
            more = own[-1].steps + sum(stage.steps for stage in other)
            return [*own[:-1], own[-1].model_copy(update={"steps": more})]
        if arm == "rft+shuffled":
            shuffled = {"shuffle_targets": True}
            return [stage.model_copy(update=shuffled) if stage.task is not None else stage for stage in self.stages]
        (change,) = (a for a in self.arms if isinstance(a, ArmChange) and a.name == arm)
        before, last = (other if change.perception else []) + own[:-1], own[-1]
        return [*before, type(last).model_validate({**last.model_dump(), **change.set})]

    def trained_as(self, arm: str) -> str:
        """The arm whose policy an arm tests."""
        return "rft+PA_p" if arm in TESTED_OTHERWISE else arm

    def task_of(self, arm: str, task: TrainableTask) -> TrainableTask:
        """The task as an arm is asked it: some arms answer without reasons, or before them."""
        return replace(task, order=ENVELOPES[arm]) if arm in ENVELOPES else task

    def training_of(self, arm: str, stage: int) -> tuple[Any, ...]:
        """What decides the weights of an arm after a stage, beside the seed; arms where it is equal share them."""
        stages = self.stages_of(arm)[: stage + 1]
        if all(one.task is not None for one in stages):  # what an arm is told and shown concerns the recipe's own task
            return (stages,)
        return stages, self.told(arm, training=True), ENVELOPES.get(arm), self.sees(arm)

    def perceptions(self) -> list[tuple[str, int]]:
        """For each different training on other tasks, the first arm that has it and its last stage of that kind."""
        seen: list[Any] = []
        found = []
        for arm in self.arm_names():
            stages = self.stages_of(arm)
            last = max((index for index, stage in enumerate(stages) if stage.task is not None), default=-1)
            if last >= 0 and stages[: last + 1] not in seen:
                seen.append(stages[: last + 1])
                found.append((arm, last))
        return found

    def has_seeds(self, arm: str) -> bool:
        """Whether an arm differs by seed; what is not trained does not."""
        return bool(self.stages_of(self.trained_as(arm)))

    def told(self, arm: str, *, training: bool = False) -> Told:
        """What stands in the prompts of an arm, in training or at test."""
        if arm in TESTED_OTHERWISE:
            return "card" if training else TESTED_OTHERWISE[arm]
        informed = [one.name for one in self.arms if isinstance(one, ArmChange) and one.knowledge]
        return "card" if arm in (*INFORMED, *informed) else "none"

    def sees(self, arm: str) -> bool:
        """Whether an arm is shown the images of the recipe's task, or grey ones in their place."""
        return arm != "blind"

    def own_stages(self) -> list[RftStage | SftStage]:
        """The stages on the task of the recipe."""
        return [stage for stage in self.stages if stage.task is None]

    def _matched_sft(self) -> SftStage:
        last = self.own_stages()[-1]
        sequences = last.prompts_per_step * last.group_size if isinstance(last, RftStage) else last.batch_size
        optimiser = {name: getattr(last, name) for name in _Optimiser.model_fields}
        if self.sft.learning_rate:
            optimiser["learning_rate"] = self.sft.learning_rate
        return SftStage(
            kind="sft",
            steps=self.sft.steps or sum(stage.steps for stage in self.own_stages()),
            batch_size=self.sft.batch_size or sequences,
            think=self.sft.think,
            balance=last.balance,
            **optimiser,
        )

    @property
    def evaluation_tokens(self) -> int:
        """The most tokens of a completion at evaluation."""
        return self.evaluation.max_completion_tokens or longest_answer(self.own_stages()[-1])

    def resolved(self) -> dict[str, Any]:
        """Plain data with every value written out, which is itself a recipe."""
        sft = self._matched_sft()
        written = {name: getattr(sft, name) for name in Sft.model_fields}
        evaluation = {"max_completion_tokens": self.evaluation_tokens}
        plain = self.model_dump()
        return plain | {"sft": written, "evaluation": plain["evaluation"] | evaluation}

    def dump(self) -> str:
        """The resolved recipe as YAML."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)


def open_source(recipe: Recipe, stage: RftStage | SftStage | None = None) -> Source:
    """Open the data of a recipe, or of a stage, for its task; no image is read.

    Raises:
        DataError: the data cannot be used so; the message tells why.
    """
    data = (stage.data if stage else None) or recipe.data
    kind = ((stage.task if stage else None) or recipe.task).kind
    if isinstance(data, PhantomData):
        return PhantomSource(
            kind,
            seed=data.seed,
            sizes=data.samples.model_dump(),
            family=data.family,
            attributes=data.attributes,
            grade_by=data.grade_by,
            levels=data.levels,
        )
    if isinstance(data, MedMNISTData):
        if kind == "localization":
            raise DataError("medmnist has no boxes; task.kind must be classification or grading.")
        return MedMNISTSource(data.dataset, kind=kind, root=Path(data.root), size=data.size, download=data.download)
    if kind == "grading":
        raise DataError(f"{data.source} gives boxes with labels; task.kind must be localization or classification.")
    return BoxSource(
        box_reader(data),
        kind=kind,
        find=data.find,
        region=data.region,
        margin=data.margin,
        shared_out=data.splits == "hash",
    )


def box_reader(data: BoxData) -> Reader:
    """The reader of a source of boxes."""
    root = Path(data.root)
    if isinstance(data, VOCData):
        return VOCReader(root)
    if isinstance(data, COCOData):
        return COCOReader(root, boxes=data.boxes, unannotated=data.unannotated)
    if isinstance(data, YOLOData):
        return YOLOReader(root)
    if isinstance(data, MasksData):
        options: dict[str, Any] = {"classes": data.classes, "merge": data.merge, "least_area": data.least_area}
        return MaskReader(root / data.images, root / data.masks, **options)
    columns = Columns(**data.columns.model_dump())
    options = {"columns": columns, "group": data.group, "negatives": data.negatives}
    return TableReader(root / data.file, root / data.images, **options)


def open_knowledge(recipe: Recipe, source: Source) -> Injection | None:
    """What is known of the classes of a recipe's data, or None where the recipe tells nothing.

    Raises:
        UserError: the card is wrong or does not fit the data.
    """
    section = recipe.knowledge
    if section is None:
        return None
    if section.card == "phantom":
        if not isinstance(source, PhantomSource) or not source.descriptions:
            raise DataError("knowledge.card is phantom; that needs data.source phantom and a classification.")
        texts: dict[str, str] = dict(source.descriptions)
    else:
        card = read_card(section.card)
        classes = known_classes(source)
        # Ids of other sources are made by us, and to tell them would read all pixels, or even fetch them.
        check_against(card, section.card, classes, names_of_samples(source) if isinstance(source, BoxSource) else ())
        texts = {label: card.text_of(label, section.attributes) for label in classes}
        for label, text in texts.items():
            if not text:
                raise DataError(f"the card {section.card} tells none of knowledge.attributes of {label!r}.")
    other = read_card(section.irrelevant) if section.irrelevant else None
    if other and (shared := set(other.classes) & set(texts)):
        raise DataError(f"knowledge.irrelevant describes {min(shared)!r} too; name a card about something else.")
    return Injection(
        texts,
        label_first=section.label_first,
        shuffle=section.shuffle,
        other=[other.text_of(label) for label in other.classes] if other else ELSEWHERE,
    )


def names_of_samples(source: Source) -> Iterator[str]:
    """What single images are called: the ids of all samples, and the names of their files."""
    for split in ("train", "validation", "test"):
        for sample in source.samples(split):
            yield sample.id
            file = sample.facts.get("image") or (sample.image.name if isinstance(sample.image, Path) else "")
            yield from (file, Path(file).stem) if file else ()


def known_classes(source: Source) -> list[str]:
    """What a card can describe: the labels of a source, or its grades written out; none of boxes."""
    return source.labels or [str(grade) for grade in range(source.levels or 0)]


def build_task(
    recipe: Recipe, source: Source, *, stage: RftStage | SftStage | None = None, frame: str | None = None
) -> TrainableTask:
    """The task of a recipe or a stage, with what it does not say from its data, and the frame from the family."""
    section = (stage.task if stage else None) or recipe.task
    own = stage is None or stage.task is None
    if own and recipe.knowledge and recipe.knowledge.card != "phantom" and not isinstance(section, LocalizationTask):
        known = read_card(recipe.knowledge.card).synonyms
        section = section.model_copy(update={"synonyms": known | section.synonyms})  # in all arms alike
    task = task_from(section, labels=source.labels, levels=source.levels, frame=frame)
    assert isinstance(task, TrainableTask)
    return task


# --- reading and checking -------------------------------------------------------------------------------------------


Check = Callable[["Recipe"], Iterable[tuple[Keys, str]]]
"""What is wrong with a recipe: the keys of a place in it, and a message."""


def read_recipe(path: Path, overrides: Sequence[str] = (), *, also: Check | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts with dots between keys (``stages.0.steps=50``); the value is YAML.
        also: what a command asks of a recipe besides.

    Raises:
        RecipeError: anything is wrong with it; all faults together.
    """
    try:
        raw, places, faults = read_yaml(path)
    except YamlError as error:
        raise RecipeError([error.fault]) from None
    for override in overrides:
        faults += _override(raw, override, places)
    unfit = list(_unfit_rewards(raw, places, path))
    recipe, more = validate(Recipe, raw, places, path)
    faults += more
    faults += unfit if recipe is None else list(_cross_check(recipe, places, path))
    if recipe is not None and not faults and also is not None:
        faults = [Fault(place_of(places, keys, path), message) for keys, message in also(recipe)]
    if faults or recipe is None:
        raise RecipeError(faults)
    return recipe


def place_of(places: Mapping[Keys, str], keys: Keys, path: Path) -> str:
    """Where a key stands, or the section that would hold it."""
    return next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), str(path))


def _override(raw: dict[str, Any], override: str, places: dict[Keys, str]) -> list[Fault]:
    """Put a ``--set`` value into the raw recipe and note where it came from."""
    where = f"--set {override}"
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        return [Fault(where, "expected KEY=VALUE, such as stages.0.steps=50.")]
    keys: list[str | int] = [int(part) if re.fullmatch("[0-9]{1,5}", part) else part for part in dotted.split(".")]
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return [Fault(where, f"{text!r} is no YAML value.")]
    place: Any = raw
    for depth, key in enumerate(keys[:-1]):
        if isinstance(place, list) and isinstance(key, int) and key < len(place):
            place = place[key]
        elif isinstance(place, dict):
            if not isinstance(place.get(key), (dict, list)):
                place[key] = {}
            place = place[key]
        else:
            return [Fault(where, f"{'.'.join(map(str, keys[: depth + 1]))} is not in the recipe.")]
    if isinstance(place, list) and not (isinstance(keys[-1], int) and keys[-1] < len(place)):
        return [Fault(where, f"{dotted} is not in the recipe; the list has {len(place)} items.")]
    place[keys[-1]] = value
    for depth in range(1, len(keys) + 1):
        places.setdefault(tuple(keys[:depth]), where)
    places[tuple(keys)] = where
    return []


def _unfit_rewards(raw: dict[str, Any], places: Mapping[Keys, str], path: Path) -> Iterator[Fault]:
    """Rewards that do not apply to the task, told from the raw keys: other faults may leave no recipe to check."""
    task, stages = raw.get("task"), raw.get("stages")
    kind = task.get("kind") if isinstance(task, dict) else None
    if kind not in ("classification", "grading", "localization") or not isinstance(stages, list):
        return
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict) or stage.get("task") is not None:
            continue
        rewards = stage.get("rewards")
        for reward in rewards if isinstance(rewards, dict) else ():
            if reward in APPLIES and kind not in APPLIES[reward]:
                keys: Keys = ("stages", index, "rewards", reward)
                yield _unfit(reward, kind, f"stages.{index}.rewards", places.get(keys, f"{path}:1"))


def _unfit(reward: str, kind: str, dotted: str, where: str) -> Fault:
    fit = [name for name, kinds in APPLIES.items() if kind in kinds]
    return Fault(where, f"{dotted} has {reward!r}, which does not apply to {kind}; expected {', '.join(fit)}.")


def _check_knowledge(recipe: Recipe, source: Source, at: Callable[..., str]) -> Iterator[Fault]:
    """What is known against the data, and the arms that need it."""
    names = recipe.arm_names()
    for index, name in enumerate(names):
        if recipe.knowledge is None and recipe.told(name, training=True) != "none":
            yield Fault(at("arms", index), f"arms.{index} is {name}, but the recipe has no knowledge.")
        elif name in TESTED_OTHERWISE and "rft+PA_p" not in names[:index]:
            told = f"arms.{index} is {name}, which tests the policy of rft+PA_p; name that before it."
            yield Fault(at("arms", index), told)
    if recipe.knowledge is None:
        return
    if isinstance(recipe.task, LocalizationTask):
        yield Fault(at("knowledge"), "knowledge needs classes or grades, and a localization has none.")
        return
    try:
        injection = open_knowledge(recipe, source)
        if injection and "swapped" in names:
            injection.told("swapped")
    except KnowledgeError as error:
        where = at("knowledge", "card")
        yield from (replace(one, where=where, message=f"{one.where}: {one.message}") for one in error.faults)
    except (DataError, ValueError) as error:
        yield Fault(at("knowledge", "card"), f"{str(error).rstrip('.')}.")


def _check_recitation(recipe: Recipe, stage: RftStage, dotted: str, where: str) -> Iterator[Fault]:
    """Whether there is something to recite."""
    if "recitation" in stage.rewards and recipe.knowledge is None:
        yield Fault(where, f"{dotted} pays for recitation, but the recipe has no knowledge.")
    elif "recitation" in stage.rewards and stage.task is not None:
        yield Fault(where, f"{dotted} pays for recitation, but nothing is known of what another task asks.")
    elif stage.recite_model is not None and stage.recite != "embedding":
        yield Fault(where, f"recite is {stage.recite}, which takes no recite_model; expected recite: embedding.")
    elif "recitation" in stage.rewards and (missing := missing_for(stage.recite, stage.recite_model)):
        yield Fault(where, f"{missing}.")


def _cross_check(recipe: Recipe, places: Mapping[Keys, str], path: Path) -> Iterator[Fault]:
    """What one key alone cannot tell: rewards against the task, labels against the data, files against the disk."""

    def at(*keys: str | int) -> str:
        return place_of(places, keys, path)

    kind = recipe.task.kind
    if not recipe.own_stages():
        yield Fault(at("stages"), "every stage is on another task; one must train the task of the recipe.")
        return
    for index, stage in enumerate(recipe.stages):
        where = at("stages", index, "rewards")
        yield from check_stage(stage, kind, f"stages.{index}.rewards", where)
        if isinstance(stage, RftStage):
            yield from _check_recitation(recipe, stage, f"stages.{index}.rewards", where)
        if stage.data is not None and stage.task is None:
            yield Fault(at("stages", index, "data"), f"stages.{index}.data needs stages.{index}.task, what it asks.")
        elif stage.task is not None:
            try:
                open_source(recipe, stage).check()
            except DataError as error:
                yield Fault(at("stages", index, "data"), str(error))
    if len(recipe.own_stages()) == len(recipe.stages):
        for index, arm in enumerate(recipe.arms):
            if arm in PERCEIVING or (isinstance(arm, ArmChange) and arm.perception):
                name = arm if isinstance(arm, str) else arm.name
                yield Fault(at("arms", index), f"arms.{index} is {name}, but no stage has a task of its own.")
    yield from check_stage(recipe.stages_of("sft")[0], kind, "sft", at("sft", "think"))
    for index, arm in enumerate(recipe.arms):
        if isinstance(arm, ArmChange):
            where = at("arms", index, "set")
            if arm.name in ARMS:
                yield Fault(where, f"arms.{index}.name is {arm.name!r}, which is one of the arms without changes.")
                continue
            if not (arm.set or arm.knowledge or arm.perception):
                yield Fault(at("arms", index), f"arms.{index} changes nothing; give set, knowledge or perception.")
                continue
            try:
                last = recipe.stages_of(arm.name)[-1]
                yield from check_stage(last, kind, f"arms.{index}.set.rewards", where)
                if isinstance(last, RftStage) and {"rewards", "recite", "recite_model"} & set(arm.set):
                    yield from _check_recitation(recipe, last, f"arms.{index}.set.rewards", where)
            except ValidationError as error:
                for one in error.errors():
                    inner = tuple(part for part in one["loc"] if part != "[key]")
                    shown = dict(one) | {"loc": ("stages", 0, recipe.stages[-1].kind, *one["loc"])}
                    yield fault_of(Recipe, ("arms", index, "set", *inner), shown, places, path)
            except ValueError:
                yield Fault(where, f"arms.{index}.name is {arm.name!r}, which another arm has too.")
    if len(set(recipe.arm_names())) != len(recipe.arms):
        yield Fault(at("arms"), f"arms names an arm twice: {', '.join(recipe.arm_names())}.")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        yield Fault(at("seeds"), f"seeds names a seed twice: {', '.join(map(str, recipe.seeds))}.")

    model = recipe.policy.model
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not (
        Path(os.path.expanduser(model)) / "config.json"
    ).is_file():
        yield Fault(at("policy", "model"), f"policy.model is {model!r}, but there is no {model}/config.json.")

    try:
        source = open_source(recipe)
    except DataError as error:
        yield Fault(at("data"), str(error))
        return
    try:
        source.check()
    except DataError as error:
        yield Fault(at("data", "root"), str(error))
        return
    yield from _check_knowledge(recipe, source, at)
    if isinstance(recipe.task, ClassificationTask):
        known = source.labels or []
        for label in recipe.task.labels or []:
            if label not in known:
                yield Fault(
                    at("task", "labels"), f"task.labels has {label!r}; the data has {', '.join(known)}.", label, known
                )
        lacking = [label for label in known if label not in recipe.task.labels] if recipe.task.labels else []
        if lacking:
            yield Fault(at("task", "labels"), f"task.labels lacks {', '.join(map(repr, lacking))}, which the data has.")
        unknown = [label for label in recipe.task.synonyms if label not in known]
        for label in unknown:
            where = at("task", "synonyms", label)
            yield Fault(where, f"task.synonyms names {label!r}, which is no label.", label, known)
        if unknown:
            return
    elif isinstance(recipe.task, LocalizationTask):
        return
    try:
        task = build_task(recipe, source)
    except KnowledgeError:
        return  # told already
    except ValueError as error:
        key = "labels" if isinstance(recipe.task, ClassificationTask) else "names"
        yield Fault(at("task", key), f"{error}.")
        return
    if isinstance(task, Classification):
        for target in task.classes:
            for name in [str(target), *recipe.task.synonyms.get(str(target), ())]:
                if task.read(render("x", name)).answer != target:
                    where = at("task", "synonyms") if recipe.task.synonyms else at("task", "labels")
                    yield Fault(where, f"task: {name!r} is a name of {target!r} and of another label, or is no text.")
        return
    assert isinstance(task, Grading)
    assert isinstance(recipe.task, GradingTask)
    if task.levels != source.levels:
        if recipe.task.names:
            yield Fault(at("task", "names"), f"task.names has {task.levels} names for {source.levels} grades.")
        else:
            yield Fault(at("task", "levels"), f"task.levels is {task.levels}; the data has {source.levels} grades.")
        return
    names = [(grade, name) for grade, name in enumerate(task.names or ())]
    names += [(int(g), name) for g, others in task.synonyms.items() if g.isdecimal() for name in others]
    for grade, name in names:
        if task.read(render("x", name)).answer != grade:
            yield Fault(at("task", "names"), f"task.names: {name!r} for grade {grade} is read as another or none.")


def check_stage(stage: RftStage | SftStage, kind: str, dotted: str, where: str) -> Iterator[Fault]:
    asked = stage.task.kind if stage.task is not None else kind
    if stage.balance and asked == "localization":
        told = "balance is true, which shows each class equally often, and a localization has none; leave it out."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}")
    sequences = stage.batch_size if isinstance(stage, SftStage) else stage.prompts_per_step * stage.group_size
    if stage.micro_batch is not None and sequences % stage.micro_batch:
        yield Fault(where, f"a step has {sequences} sequences, which micro_batch {stage.micro_batch} does not divide.")
    if (stage.max_tokens or stage.max_seconds) and stage.lr_schedule != "constant":
        told = f"lr_schedule is {stage.lr_schedule}, which needs to know the last step, and max_tokens or max_seconds "
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}end the stage earlier; expected constant.")
    rises = isinstance(stage, RftStage) and isinstance(stage.iou_threshold, list)
    if (stage.max_tokens or stage.max_seconds) and rises:
        told = "iou_threshold rises over all steps, and max_tokens or max_seconds end the stage earlier; give one value"
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}.")
    if isinstance(stage, SftStage):
        if parse(render(stage.think, "x")).problems:
            yield Fault(where, f"the think text {stage.think!r} breaks the envelope; write plain words without tags.")
        return
    for reward in stage.rewards:
        if asked not in APPLIES[reward]:
            yield _unfit(reward, asked, dotted, where)
    if stage.rollouts == "vllm" and find_spec("vllm") is None:
        told = "rollouts: vllm needs vLLM and a GPU; install vrft[vllm], or leave it at transformers."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}")
    if stage.dynamic_sampling and not stage.shared_prefix:
        told = "dynamic_sampling needs shared_prefix: true, or leave it at 0."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}")
    if stage.dynamic_sampling and (stage.scale_rewards == "batch" or stage.aggregation == "normalize_then_sum"):
        told = "dynamic_sampling changes the groups of a step, and advantages that are scaled by the step with them; "
        told += "expected scale_rewards group or none, with aggregation sum_then_normalize."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}")
    if stage.aggregation == "normalize_then_sum" and stage.scale_rewards != "group":
        told = f"scale_rewards is {stage.scale_rewards!r}; with aggregation normalize_then_sum expected group."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {told}")
    if not any(stage.rewards.values()):
        yield Fault(where, f"{dotted} weighs every reward 0; nothing would be learnt.")
