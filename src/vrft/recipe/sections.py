"""The sections of a recipe that say what a run is made of: data, task, knowledge, policy and stages."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vrft.data.medmnist import DATASETS
from vrft.data.phantom import ATTRIBUTES, FAMILIES, MAX_COUNT
from vrft.data.tabular import as_text
from vrft.knowledge import Attribute
from vrft.rewards import AGGREGATIONS, FUZZY_SCHEDULES, OVERLAPS, RECITATIONS, SCALINGS
from vrft.tasks.task_sections import ClassificationTask, GradingTask, LocalizationTask
from vrft.textfiles import ENCODINGS
from vrft.typed import Section

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


# --- data -----------------------------------------------------------------------------------------------------------


class SplitSizes(Section):
    """How many samples each split has."""

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


def _rising(window: list[float]) -> list[float]:
    if not window[0] < window[1]:
        raise PydanticCustomError("window", "the first value must be below the second")
    return window


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise PydanticCustomError("pattern", "no regular expression ({why})", {"why": str(error)}) from None
    if groups != 1:
        raise PydanticCustomError("pattern", "a pattern with one group in brackets, such as '(?:^|/)([0-9]+)_'")
    return text


class SplitShares(Section):
    """The share of each split that is made; they add up to 1."""

    train: Share = 0.6
    """Of the samples to train on."""
    validation: Share = 0.2
    """Of the samples to choose settings on."""
    test: Share = 0.2
    """Of the samples that results are reported on."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise PydanticCustomError("shares", "the shares must add up to 1")
        return self


class _Shared(Section):
    shares: SplitShares = SplitShares()
    """Of the splits that are made."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Of the splits that are made."""
    patient: Annotated[str, AfterValidator(_pattern)] | None = None
    """A regular expression with one group, which finds the patient in the path of an image below the root, such as
    `(?:^|/)([0-9]+)_`. A patient stays in one split, and results resample patients."""
    patient_overlap: Literal["refuse", "allow"] = "refuse"
    """A patient in two splits of the set's own: the data is refused, or used all the same."""
    on_bad_sample: Literal["fail", "skip"] = "fail"
    """An image that cannot be read, or a row of a table at fault (no label, no image): the run stops, or goes on
    without it; what is left out is counted and listed in the run. A fault in an annotation file always stops it."""
    hash_names: bool = False
    """Samples are named by a hash in all that a run writes, since names of files may tell who a patient is."""
    window: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_rising)] | None = None
    """Of images with more than 8 bits: the values that become black and white; without it the window in a DICOM file,
    else each image's own range."""
    page: Annotated[int, Field(ge=0)] | None = None
    """Of images with several pages (frames, slices), from 0; without it they are refused."""


class _Boxes(_Shared):
    root: str
    """The folder of the data set."""
    find: list[str] = []
    """The labels to find, or to distinguish; without it all."""
    splits: Literal["own", "own+validation", "made", "hash"] = "own"
    """Those of the set; with a validation split taken from its training split; made anew, with equal shares of each
    label; or made by a hash of the patient or the image, so that a new image moves no other."""
    region: Literal["crop", "box"] = "crop"
    """Classification of regions: a box is cut out, or the whole image is shown and the question holds the box."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.25
    """Of a crop: what is shown around the box, as a share of its longer side."""
    unusable: Literal["skip", "refuse"] = "skip"
    """An image with findings of which no box can be used (no area, corners swapped, outside, a crowd), or of which its
    annotation tells nothing sure: it is left out and counted, or the data is refused. It never counts as one in which
    nothing is there."""


class _Texts(_Boxes):
    encoding: Literal[*ENCODINGS] | None = None  # type: ignore[valid-type]
    """Of annotation files that are not UTF-8; without it an encoding is used that is certain, or the file is
    refused."""


class VOCData(_Texts):
    """Pascal VOC XML files and lists of stems (`vrft.data.voc`)."""

    source: Literal["voc"]


class COCOData(_Texts):
    """COCO JSON files, one a split (`vrft.data.coco`)."""

    source: Literal["coco"]
    boxes: Literal["bbox", "polygon"] = "bbox"
    """The boxes as they are written, or those around the polygons."""
    unannotated: Literal["empty", "skip"] = "empty"
    """The meaning of an image without annotations: it has no findings, or it was not annotated."""
    crowd: Literal["skip", "box"] = "skip"
    """Regions with `iscrowd`, which hold a group of objects: they are left out and counted, or boxes as any other.
    Where a file marks all annotations so, they are boxes."""


class YOLOData(_Texts):
    """YOLO or DOTA text files (`vrft.data.yolo`)."""

    source: Literal["yolo"]
    polygons: bool = False
    """Lines of more than five numbers are polygons, also where they could be boxes with keypoints."""


class MasksData(_Boxes):
    """Mask images, whose connected regions become boxes (`vrft.data.masks`)."""

    source: Literal["masks"]
    images: str = "images"
    """The folder of the images in the root."""
    masks: str = "masks"
    """The folder of the masks in the root."""
    classes: Annotated[dict[int, str], Field(min_length=1)]
    """Value and name of each class: the index of a palette, else the grey value."""
    merge: str | None = None
    """All classes are one, with this label."""
    least_area: Positive = 9
    """Pixels; smaller regions are specks."""
    void: int | None = None
    """The value of what is neither a class nor background; regions end there."""


class _Rows(_Shared):
    splits: Literal["auto", "own", "own+validation", "made", "hash"] = "auto"
    """Those of the data where it has any, else made: with equal shares of each class, a patient in one split. `own`
    refuses data without splits, `own+validation` takes a validation split from the training split, `made` makes all
    anew, `hash` by a hash of the patient or the image, so that a new image moves no other."""
    slices: Positive | None = None
    """Of images with several pages: how many of them, evenly spaced, are shown as the images of one sample."""
    axis: Literal["axial", "coronal", "sagittal"] = "axial"
    """Of NIfTI volumes: the plane of the slices."""
    label_names: dict[str, str] = {}
    """Of values in the data: the label in prompts and answers, such as `{0: normal, 1: pneumonia}`."""

    @field_validator("label_names", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        both = {str(key): name for key, name in value.items() if isinstance(key, bool)}  # CSV files hold True, not true
        return both | {as_text(key): name for key, name in value.items()}


class FolderData(_Rows):
    """A folder for each class, with or without folders of splits above them (`vrft.data.class_folders`)."""

    source: Literal["folder"]
    root: str
    """The folder of the data set."""
    series: bool = False
    """Each innermost folder is one sample, such as a DICOM series; without it each file is."""


Column = str | int


class ColumnsOfRows(Section):
    """Which columns hold what: their titles, or their numbers from 0. A column for the target of the task is needed."""

    image: Column | Annotated[list[Column], Field(min_length=1)]
    """The name of the image file; of several columns, or a list in a cell, the images are shown together."""
    label: Column | Annotated[list[Column], Field(min_length=2)] | None = None
    """The label; or a column for each label, of which one holds a 1."""
    grade: Column | None = None
    """The grade, of a grading; without it that of `label`."""
    boxes: Column | None = None
    """All boxes of the image in one cell: `[[x1, y1, x2, y2], ...]`, or objects with `bbox` and `label`."""
    question: Column | None = None
    """The question, where it differs by row."""
    answer: Column | None = None
    """The answer to the question."""
    split: Column | None = None
    """The split, where the data has one."""
    patient: Column | None = None
    """Whose image it is."""
    subgroup: Column | None = None
    """A part of the data for which results are also given, such as a hospital or a scanner."""
    study: Column | None = None
    """Rows of a study become one sample of several images."""
    id: Column | None = None
    """The name of the sample; without it that of its image."""


class ColumnsOfATable(ColumnsOfRows):
    """The columns of a table, which may also have a box in each row."""

    corners: Annotated[list[Column], Field(min_length=4, max_length=4)] | None = None
    """A box a row: x1, y1, x2, y2 in pixels."""
    corner_and_size: Annotated[list[Column], Field(min_length=4, max_length=4)] | None = None
    """A box a row: x, y, width, height in pixels."""

    @property
    def box_a_row(self) -> bool:
        """Whether each row holds one box."""
        return bool(self.corners or self.corner_and_size)


class _Cells(_Rows):
    box_format: Literal["corners", "corner_and_size"] = "corners"
    """Of `columns.boxes`: x1, y1, x2, y2 or x, y, width, height, in pixels."""
    find: list[str] = []
    """Of boxes: the labels to find, or to distinguish; without it all."""
    region: Literal["crop", "box"] = "crop"
    """Classification and grading of boxes: a box is cut out, or the whole image is shown and the question holds the
    box."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.25
    """Of a crop: what is shown around the box, as a share of its longer side."""


class TableData(_Cells):
    """A table with a row for each image, or for each box (`vrft.data.table_rows`, `vrft.data.table`)."""

    source: Literal["table"]
    root: str = "."
    """The folder of the data set."""
    file: str
    """The table in the root: CSV, TSV, JSON lines, JSON or Parquet."""
    images: str = "."
    """The folder of the images in the root."""
    file_name: Annotated[str, Field(pattern=r"^[^{}]*\{(:0[1-9])?\}[^{}]*$")] | None = None
    """How a cell becomes the name of its image, such as `{}.png`, or `{:03}.bmp`, which makes `001.bmp` of 1."""
    columns: ColumnsOfATable
    """The map of the columns."""
    encoding: Literal[*ENCODINGS] | None = None  # type: ignore[valid-type]
    """Of a file that is not UTF-8; without it an encoding is used that is certain, or the file is refused."""
    unusable: Literal["skip", "refuse"] = "skip"
    """With a box a row, an image with findings of which no box can be used: it is left out and counted, or the data is
    refused."""
    negatives: bool = False
    """With a box a row, images that the table does not name hold nothing, unless rows name others that may be these."""
    absent: list[str] = []
    """With a box a row, labels of rows that say that nothing is there, whatever the cells of their box hold, beside
    `No finding`; and beside `0`, `normal` and the like, which say so without a box (`vrft.data.table`)."""


class HuggingFaceData(_Cells):
    """A Hugging Face dataset, saved, in a folder or on the hub (`vrft.data.hub_rows`)."""

    source: Literal["huggingface"]
    path: str
    """A folder that `save_to_disk` wrote or that `load_dataset` reads (Parquet files, folders of images), or a name on
    the hub, such as `org/name`."""
    name: str | None = None
    """Of the configuration, where the set has several."""
    revision: str | None = None
    """Of a set on the hub: a branch, a tag or a commit."""
    download: bool = False
    """Fetch a set that is not on this machine; without it what is there is used, without the network."""
    ignore: list[str] = []
    """Splits of the set that are left out. The others must be train, validation and test, by these or other usual
    names; a single split that is called `train`, or by no such name, is a set without splits."""
    images: str | None = None
    """The folder of the images, where a column names files; without it `path`."""
    columns: ColumnsOfRows
    """The map of the columns. The classes of a label that the set itself names need no `label_names`."""


class ColumnsOfShards(ColumnsOfRows):
    """Which members of a sample hold what, by their extensions, or which keys of its `json`."""

    image: Column | Annotated[list[Column], Field(min_length=1)] | None = None  # type: ignore[assignment]
    """The extensions of the images to show, such as `jpg` or `[front.jpg, side.jpg]`; without it the only image of a
    sample, or all where they are numbered (`0.jpg`, `1.jpg`)."""


class ShardData(_Cells):
    """Tar shards as WebDataset writes them, on disk or at addresses (`vrft.data.shards`)."""

    source: Literal["shards"]
    files: str | list[str] | dict[Literal["train", "validation", "test"], str | list[str]]
    """Paths, folders, addresses (`https://`, `s3://`, `gs://`, `hf://`) or patterns, such as `train-{000..099}.tar` or
    `shards/*.tar`; or these by split: `{train: ..., test: ...}`. A sample is known as `SHARD/NAME`, such as
    `train-000/7.jpg`, in which `patient` is searched."""
    columns: ColumnsOfShards
    """The map of the columns."""


BoxData = VOCData | COCOData | YOLOData | MasksData
RowData = FolderData | TableData | HuggingFaceData | ShardData
FileData = BoxData | RowData
"""Sections of data in files of the user."""


class PythonData(Section):
    """A source of the user's own: an object that is given to `vrft.run(recipe, source=...)` (`vrft.Source`)."""

    source: Literal["python"]
    name: str = ""
    """Of the data set, for the reader of the report."""


Data = Annotated[PhantomData | MedMNISTData | PythonData | FileData, Field(discriminator="source")]

# --- task -----------------------------------------------------------------------------------------------------------


TaskSection = Annotated[ClassificationTask | GradingTask | LocalizationTask, Field(discriminator="kind")]

# --- knowledge ------------------------------------------------------------------------------------------------------


class KnowledgeSection(Section):
    """Prior knowledge about the classes (PA_p), in the prompts of the arms that have it."""

    card: Annotated[str, Field(min_length=1)]
    """A shipped card, a file, or `phantom`: what the code names of generated images mean."""
    attributes: Annotated[list[Attribute], Field(min_length=1)] | None = None
    """The attributes in the prompt; without it the whole card."""
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
    """Dropout inside the adapters, in stages of kind sft; RFT trains without, since it would blur its probabilities."""
    targets: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    """Ends of the names of the layers that get an adapter."""
    between_stages: Literal["continue", "merge"] = "continue"
    """The next stage trains these adapters further, or new ones on weights with these merged into them. Adapters are
    merged in float32; the adapters of each stage are kept in any case."""


class Policy(Section):
    """The policy that is trained."""

    model: Annotated[str, Field(min_length=1)] = "tiny"
    """`tiny` (embedded), a name on the Hugging Face hub, or a directory."""
    revision: str | None = None
    """Of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the computations: `auto` is bfloat16 on a GPU that has it and float32 elsewhere. Weights that are
    trained are float32, adapters over a frozen base of this type; `float16` can be evaluated, not trained."""
    lora: Lora | None = None
    """Adapters; without it all weights are trained."""
    max_pixels: Positive | None = None
    """Upper bound on the pixels of an image after resizing; without it the processor's own."""
    image_cache_gb: Annotated[float, Field(ge=0)] = 4.0
    """How much of resized images is kept on disk, so that each is decoded once; 0 keeps none."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model."""


# --- stages ---------------------------------------------------------------------------------------------------------


class Optimiser(Section):
    """Keys that stages of both kinds have: AdamW, the size of a pass, limits and checkpoints."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of AdamW (betas 0.9 and 0.999)."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The course of the learning rate after the warm-up."""
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


LOSSES = {
    "grpo": "clipped ratio times advantage, averaged over each completion, then over completions (arXiv 2402.03300)",
    "dapo": "the same, averaged over all tokens of the step (arXiv 2503.14476)",
    "dr_grpo": "the same, summed and divided by the longest possible completion (arXiv 2503.20783)",
    "bnpo": "the same, averaged over the tokens of each micro-batch",
    "cispo": "the ratio is capped and takes no gradient; the log-probability does (arXiv 2506.13585)",
    "sapo": "a sigmoid in place of the clip (arXiv 2511.20347)",
    "luspo": "one ratio a completion, whose loss is not divided by its length (arXiv 2602.05261)",
    "vespo": "a smooth weight of one ratio a completion (arXiv 2602.10693)",
    "rejection": "likelihood of the completions that earn full reward: no advantage, no ratio (arXiv 2304.06767)",
}
"""The losses of RFT; all but the last are TRL's."""


class _Stage(Optimiser):
    task: TaskSection | None = None
    """The task of the stage, where it is not that of the recipe, such as localization before classification."""
    data: Data | None = None
    """Where the samples of the stage come from, where not from the data of the recipe."""
    balance: bool = False
    """Show each class or grade equally often, however rare it is; without it as often as the data has it."""
    shuffle_targets: bool = False
    """Permute the targets between the images: a control, from which nothing can be seen."""


class Reward(Section):
    """A reward and its weight; a number alone is the weight."""

    weight: float = 1.0
    """The factor of the reward. With 0 it is measured and logged, and pays nothing."""


class FuzzyReward(Reward):
    """The fuzzy reward of grades."""

    schedule: Literal[*FUZZY_SCHEDULES] = "table"  # type: ignore[valid-type]
    """The reward by distance: `table` 1, 1/4, 1/10, then 0; `geometric` 0.25^d."""


class IouReward(Reward):
    """The reward of the overlap of boxes."""

    measure: Literal[*OVERLAPS] = "iou"  # type: ignore[valid-type]
    """How overlap is measured: `giou` and `diou` tell near from far where boxes do not touch."""
    threshold: Share | Annotated[list[Share], Field(min_length=2, max_length=2)] = 0.0
    """Overlap below it earns nothing; of two values it rises from the first to the second over the stage."""


class RecitationReward(Reward):
    """The reward of reciting the card; a negative weight penalizes it."""

    measure: Literal[*RECITATIONS] = "bleu"  # type: ignore[valid-type]
    """How the reasoning is compared with the knowledge."""
    model: str | None = None
    """Of `measure: embedding`: a directory of sentence-transformers; without it the model in the extra's package."""
    against: Literal["class", "card"] = "class"
    """The reasoning is compared with what is known of the true class, or with the whole card."""


_from_weight = BeforeValidator(lambda value: value if isinstance(value, (dict, Reward)) else {"weight": value})
PlainReward = Annotated[Reward, _from_weight]


class Rewards(Section):
    """The rewards of a stage by name. A number is short for `{weight: NUMBER}`."""

    model_config = ConfigDict(extra="allow")  # the names of `custom`, which the recipe as a whole checks
    __pydantic_extra__: dict[str, PlainReward] = Field(init=False)

    accuracy: PlainReward | None = None
    """The answer is right."""
    fuzzy: Annotated[FuzzyReward, _from_weight] | None = None
    """The grade is near the true grade."""
    iou: Annotated[IouReward, _from_weight] | None = None
    """The boxes overlap the true boxes."""
    f1: PlainReward | None = None
    """Boxes are found, and few are found wrongly."""
    format: PlainReward | None = None
    """The completion has the form that was asked for."""
    recitation: Annotated[RecitationReward, _from_weight] | None = None
    """The reasoning repeats the knowledge; a negative weight penalises it."""

    def named(self) -> dict[str, Reward]:
        """The rewards that are given, by name."""
        return {name: reward for name, reward in self if reward is not None}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.named():
            raise PydanticCustomError("no_rewards", "name at least one reward")
        return self

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {
            name: reward.weight if type(reward) is Reward else reward.model_dump()
            for name, reward in self.named().items()
        }


class Vllm(Section):
    """How vLLM samples completions."""

    memory: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Its share of a GPU's memory, for its weights and its cache."""
    correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "sequence_mask"
    """Weigh by the probability under the policy over that under vLLM, of tokens or completions; ratios above the cap
    are cut to it (Yao et al. 2025, truncated IS) or left out (arXiv 2510.18855)."""
    cap: Annotated[float, Field(gt=0)] = 3.0
    """The largest ratio."""


class RftStage(_Stage):
    """Reinforcement fine-tuning: GRPO on rule-based rewards."""

    kind: Literal["rft"]
    rewards: Rewards = Rewards(accuracy=Reward(weight=1.0), format=Reward(weight=0.5))
    """Each reward with its weight; the reward of a completion is the weighted sum."""
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
    kl_estimator: Literal["k3", "unbiased"] = "k3"
    """With d = log reference - log policy: `k3` is exp(d) - d - 1 (arXiv 2402.03300, equation 4); `unbiased` multiplies
    it by the probability ratio, through which gradients pass (arXiv 2512.02556)."""
    updates_per_batch: Positive = 1
    """Optimiser steps on each batch of rollouts (mu of arXiv 2402.03300, algorithm 1); with 1 `clip` never binds."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clip range of the probability ratio (epsilon); `cispo` does not use it."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Clip range above 1 where it differs (0.28 in arXiv 2503.14476); of `cispo` the top ratio (arXiv 2510.13786)."""
    loss: Literal[*LOSSES] = "grpo"  # type: ignore[valid-type]
    """How token losses are clipped and averaged: `grpo` is the paper's, over each completion, then over completions."""
    importance_sampling: Literal["token", "sequence"] = "token"
    """The probability ratio of each token, or one of each completion (GSPO, arXiv 2507.18071), as `luspo` needs it."""
    mask_truncated: bool = False
    """Leave completions that were cut off out of the loss (arXiv 2503.14476, section 3.4)."""
    accept: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of `loss: rejection`: a completion is learnt that earns this share of the most that the rewards can pay."""
    scale_rewards: Literal[*SCALINGS] = "group"  # type: ignore[valid-type]
    """The divisor of the centred reward: its deviation in the group, in the step, or nothing."""
    aggregation: Literal[*AGGREGATIONS] = "sum_then_normalize"  # type: ignore[valid-type]
    """`normalize_then_sum` divides each reward by its own deviation in the group before they are weighed and added, and
    the sum by that of the step; `scale_rewards` must then stay `group`."""
    shared_prefix: bool = True
    """Encode the prompt and image of a group once, where the model can; each pass is equal up to rounding."""
    rollouts: Literal["transformers", "vllm"] = "transformers"
    """The sampler of completions; `vllm` runs beside the training on the same GPUs, and caches prompts itself."""
    vllm: Vllm = Vllm()
    """Of `rollouts: vllm`."""
    dynamic_sampling: Annotated[int, Field(ge=0)] = 0
    """How many times in a step groups without advantage are replaced by groups of fresh prompts (as in DAPO)."""

    moved: ClassVar[Mapping[str, str]] = {
        "fuzzy_schedule": "rewards.fuzzy.schedule",
        "overlap": "rewards.iou.measure",
        "iou_threshold": "rewards.iou.threshold",
        "recite": "rewards.recitation.measure",
        "recite_model": "rewards.recitation.model",
        "recite_against": "rewards.recitation.against",
        "vllm_memory": "vllm.memory",
        "vllm_correction": "vllm.correction",
        "vllm_cap": "vllm.cap",
    }

    def weights(self) -> dict[str, float]:
        """The weight of each reward that the stage names, in the order of `Rewards`."""
        return {name: reward.weight for name, reward in self.rewards.named().items()}

    def reweighted(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """The rewards as a recipe writes them, with these weights; a reward keeps its other keys."""
        plain = self.rewards.model_dump()
        return {
            name: plain[name] | {"weight": weight} if isinstance(plain.get(name), dict) else weight
            for name, weight in weights.items()
        }


class SftStage(_Stage):
    """Supervised fine-tuning on the targets, written in the envelope."""

    kind: Literal["sft"]
    steps: Positive = 200
    """Optimiser steps."""
    batch_size: Positive = 32
    """Samples in a step, over all devices."""
    think: str | Annotated[list[str], Field(min_length=1)] = "I looked at the image."
    """The text inside the think tags of a target: labels come without reasons. Of several texts one is drawn."""
    think_from: Literal["text", "card"] = "text"
    """`card` puts what is known of the true class there (needs `knowledge`), in place of `think`."""


Stage = Annotated[RftStage | SftStage, Field(discriminator="kind")]


def texts_of(think: str | list[str]) -> list[str]:
    """The texts of a key ``think``."""
    return [think] if isinstance(think, str) else think


def longest_answer(stage: RftStage | SftStage) -> int:
    """The most tokens of an answer to what a stage asks."""
    return stage.max_completion_tokens if isinstance(stage, RftStage) else 256
