"""From a recipe to what it names: the source of its samples, what is known of its classes, its task."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from vrft.data import MedMNISTSource, PhantomSource, Source
from vrft.data.annotations import BoxSource, Reader
from vrft.data.class_folders import FolderReader
from vrft.data.coco import COCOReader
from vrft.data.hub_rows import HubReader
from vrft.data.masks import MaskReader
from vrft.data.rows import RowOptions, RowReader, RowSource
from vrft.data.shards import ShardReader
from vrft.data.splits import Shares
from vrft.data.table import Columns, TableReader
from vrft.data.table_rows import RowColumns, RowTableReader
from vrft.data.voc import VOCReader
from vrft.data.yolo import YOLOReader
from vrft.errors import DataError
from vrft.knowledge import UNRELATED, Injection, check_against, read_card
from vrft.recipe.schema import Recipe
from vrft.recipe.sections import (
    BoxData,
    COCOData,
    ColumnsOfRows,
    Data,
    FolderData,
    HuggingFaceData,
    MasksData,
    MedMNISTData,
    PhantomData,
    PythonData,
    RftStage,
    RowData,
    SftStage,
    ShardData,
    TableData,
    TaskSection,
    VOCData,
    YOLOData,
)
from vrft.response import scale_of
from vrft.sample import file_of
from vrft.tasks import TrainableTask, task_from
from vrft.tasks.task_sections import GradingTask, LocalizationTask


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
    if isinstance(data, PythonData):
        raise DataError("data.source is python, a source in a program; give it to vrft.run(recipe, source=...).")
    if isinstance(data, BoxData) or (isinstance(data, TableData) and data.columns.box_a_row):
        return _box_source(data, kind)
    section = (stage.task if stage else None) or recipe.task
    return _row_source(data, section)


def _box_source(data: BoxData | TableData, kind: Any) -> BoxSource:
    common = data.model_dump(
        include={"find", "region", "margin", "unusable", "split_seed", "patient", "patient_overlap", "on_bad_sample"}
    )
    splits = "own" if data.splits == "auto" else data.splits
    shares = Shares(**data.shares.model_dump())
    options = {"splits": splits, "shares": shares, "hash_names": data.hash_names, **common, **reading_of(data)}
    return BoxSource(box_reader(data), kind=kind, **options)


def _row_source(data: RowData, section: TaskSection) -> RowSource:
    """A source with a row for each image."""
    kind = section.kind
    if isinstance(data, FolderData):
        if kind == "localization":
            raise DataError(
                f"{data.root}: folders of classes have no boxes; task.kind must be classification or grading."
            )
        reader: RowReader = FolderReader(Path(data.root), series=data.series)
        regions = False
    else:
        target, regions = _target_column(data.columns, kind)
        names = ("image", "id", "question", "split", "patient", "subgroup", "study")
        columns = RowColumns(target=target, **data.columns.model_dump(include=set(names), exclude_none=True))
        reader = _reader_of_columns(data, columns)
    names_of_options = {one.name for one in fields(RowOptions)} - {"shares", "window"}
    options = data.model_dump(include=names_of_options) | reading_of(data) | {"regions": regions}
    graded = isinstance(section, GradingTask) and (section.levels is not None or section.names is not None)
    return RowSource(
        reader, kind=kind, options=RowOptions(shares=Shares(**data.shares.model_dump()), **options), graded=graded
    )


def _reader_of_columns(data: TableData | HuggingFaceData | ShardData, columns: RowColumns) -> RowReader:
    if isinstance(data, ShardData):
        return ShardReader(data.files, columns=columns, hash_names=data.hash_names)
    if isinstance(data, HuggingFaceData):
        options: dict[str, Any] = data.model_dump(include={"name", "revision", "download", "ignore"})
        return HubReader(data.path, columns=columns, images=Path(data.images) if data.images else None, **options)
    root = Path(data.root)
    return RowTableReader(
        root / data.file, root / data.images, columns=columns, file_name=data.file_name, encoding=data.encoding
    )


def _target_column(columns: ColumnsOfRows, kind: str) -> tuple[Any, bool]:
    """The column of the target of a task, and whether each of its boxes is a sample."""
    fitting = {"classification": ("label",), "grading": ("grade", "label"), "vqa": ("answer",)}.get(kind, ("boxes",))
    for name in fitting:
        if getattr(columns, name) is not None:
            return getattr(columns, name), False
    if columns.boxes is not None and kind in ("classification", "grading"):
        return columns.boxes, True
    known = ", ".join(name for name in ("label", "grade", "boxes", "answer") if getattr(columns, name) is not None)
    needed = " or ".join(f"data.columns.{name}" for name in fitting)
    more = ", or corners or corner_and_size with a box a row" if kind == "localization" else ""
    raise DataError(f"a {kind} needs {needed}{more}; data.columns has {known or 'no column of a target'}.")


def reading_of(data: Data) -> dict[str, Any]:
    """How the image files of a section are read: ``window`` and ``page`` of ``read_image``."""
    if isinstance(data, PhantomData | MedMNISTData | PythonData):
        return {"window": None, "page": None}
    return {"window": (data.window[0], data.window[1]) if data.window else None, "page": data.page}


def skips_bad(data: Data) -> bool:
    """Whether samples that cannot be read are left out."""
    return getattr(data, "on_bad_sample", "fail") == "skip"


def box_reader(data: BoxData | TableData) -> Reader:
    """The reader of a source of boxes."""
    root = Path(data.root)
    if isinstance(data, VOCData):
        return VOCReader(root, encoding=data.encoding)
    if isinstance(data, COCOData):
        return COCOReader(root, **data.model_dump(include={"boxes", "unannotated", "crowd", "encoding"}))
    if isinstance(data, YOLOData):
        return YOLOReader(root, encoding=data.encoding, polygons=data.polygons)
    if isinstance(data, MasksData):
        options: dict[str, Any] = data.model_dump(include={"classes", "merge", "least_area", "void"})
        return MaskReader(root / data.images, root / data.masks, **options)
    wanted = {"image", "label", "corners", "corner_and_size", "split", "patient", "subgroup"}
    given = data.columns.model_dump(include=wanted)
    for name in ("image", "label"):
        if not isinstance(given[name], str | int):
            raise DataError(f"data.columns.{name} must name one column, where each row holds a box.")
    columns = Columns(**given)
    options = data.model_dump(include={"patient", "negatives", "absent", "encoding"})
    return TableReader(root / data.file, root / data.images, columns=columns, **options)


def open_knowledge(recipe: Recipe, source: Source) -> Injection | None:
    """The prior knowledge about the classes of a recipe's data, or None where the recipe has none.

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
        display_names=_display_names(recipe, source),
        label_first=section.label_first,
        shuffle=section.shuffle,
        other=[other.text_of(label) for label in other.classes] if other else UNRELATED,
    )


def _display_names(recipe: Recipe, source: Source) -> dict[str, str]:
    """How grades are written, by their number, where their names hold numerals."""
    section, levels = recipe.task, source.levels or 0
    if not isinstance(section, GradingTask):
        return {}
    names = section.levels if isinstance(section.levels, list) else section.names
    scale = scale_of(levels, names)
    return {} if scale.by_index else {str(grade): scale.written(grade) for grade in range(levels)}


def names_of_samples(source: Source) -> Iterator[str]:
    """The names of single images: the ids of all samples, and the names of their files."""
    for split in ("train", "validation", "test"):
        for sample in source.samples(split):
            yield sample.id
            files = [read.path.name for image in sample.images if (read := file_of(image))]
            for file in [sample.facts["image"]] if sample.facts.get("image") else files:
                yield from (file, Path(file).stem)


def known_classes(source: Source) -> list[str]:
    """The classes that a card can describe: the labels of a source, or its grades written out; none of boxes."""
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
