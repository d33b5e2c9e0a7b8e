"""The audit of a recipe: each data section is opened, all its images are measured, and every check is made."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from vrft.auditing.collected import DataSection, collect
from vrft.auditing.findings import Audit, Finding, Vision
from vrft.auditing.image_checks import check_duplicates, check_images, figures_of, sizes_of
from vrft.auditing.measured import Measurements
from vrft.auditing.reward_checks import check_targets
from vrft.auditing.target_checks import check_counts, check_labels, check_patients, counts_of
from vrft.data import Source
from vrft.errors import UserError
from vrft.progress import Reporter
from vrft.recipe import Recipe, RftStage, SftStage, build_task, open_knowledge, open_source
from vrft.tasks.task_sections import LocalizationTask

S = TypeVar("S", bound=Recipe | RftStage | SftStage)

UNKNOWN = Vision(missing="the processor of the policy is not known")


def audit(
    recipe: Recipe,
    cache: Path,
    *,
    vision: Vision = UNKNOWN,
    source: Source | None = None,
    limit: int | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Audit:
    """Find what is wrong with the data and the rewards of a recipe.

    Args:
        recipe: its keys must have been checked; its data need not be there.
        cache: the folder in which measurements of images are kept.
        vision: how the processor of the policy sees images.
        source: of the samples, in place of the section ``data``.
        limit: how many samples of a split are audited at most, evenly spread.
        workers: threads that open images; as many as there are cores without it.
        reporter: shows progress.

    Returns:
        The findings; faults of the data are among them, and raise nothing.
    """
    began = time.monotonic()
    found = Audit(recipe.name, limit=limit)
    workers = workers or os.cpu_count() or 1
    for name, stages in _sections(recipe):
        stage = stages[0] if name != "data" else None
        section, refusal = None, ""
        try:
            try:
                opened = _checked(source if source and stage is None else open_source(recipe, stage))
            except UserError as error:
                refusal = str(error)
                opened = _checked(open_source(_lenient(recipe), stage and _lenient(stage)))
            # The knowledge has a finding of its own, and may not fit the data.
            plain = recipe.model_copy(update={"knowledge": None})
            section = DataSection(name, recipe, opened, None, stages, (stage and stage.data) or recipe.data)
            section.task = build_task(plain, opened, stage=stage, frame=_frame(recipe, stage, vision))
        except (UserError, ValueError) as error:
            found.findings.append(Finding("data", "error", refusal or f"{str(error).rstrip('.')}.", data=name))
        if section is None:
            continue
        if name == "data":
            found.findings += _knowledge(recipe, section.source)
        _audit_section(found, section, cache, vision, limit, workers, reporter or Reporter(quiet=True))
        if refusal and not any(finding.data == name for finding in found.of("error")):
            found.findings.append(Finding("data", "error", refusal, data=name))
    found.seconds = round(time.monotonic() - began, 3)
    return found


def _sections(recipe: Recipe) -> list[tuple[str, list[RftStage | SftStage]]]:
    """The different data sections with their tasks, each once, and the stages that train on it."""
    sections: dict[str, tuple[str, list[RftStage | SftStage]]] = {"": ("data", [])}
    for index, stage in enumerate(recipe.stages):
        key = "" if stage.task is None else stage.model_dump_json(include={"task", "data"})
        sections.setdefault(key, (f"stages.{index}.data", []))[1].append(stage)
    return list(sections.values())


def _checked(source: Source) -> Source:
    """The source, whose files were checked.

    Raises:
        UserError: the data cannot be used.
    """
    source.check()
    return source


def _frame(recipe: Recipe, stage: RftStage | SftStage | None, vision: Vision) -> str | None:
    """The frame of boxes; None where the task has none."""
    asked = (stage and stage.task) or recipe.task
    return (asked.frame or vision.frame or "pixel") if isinstance(asked, LocalizationTask) else None


def _lenient(section: S) -> S:
    """A recipe or a stage that skips bad rows and allows patients in two splits, so that the rest can be audited.

    Raises:
        ValueError: its data has no such keys.
    """
    if section.data is None:
        return section
    if "on_bad_sample" not in type(section.data).model_fields:
        raise ValueError("the data cannot be read in part")
    data = section.data.model_copy(update={"on_bad_sample": "skip", "patient_overlap": "allow"})
    return cast(S, section.model_copy(update={"data": data}))


def _knowledge(recipe: Recipe, source: Source) -> Iterator[Finding]:
    """A card that does not fit the data."""
    try:
        open_knowledge(recipe, source)
    except UserError as error:
        yield Finding("knowledge", "error", f"the knowledge does not fit the data: {error}", data="knowledge")


def _audit_section(
    audit: Audit,
    section: DataSection,
    cache: Path,
    vision: Vision,
    limit: int | None,
    workers: int,
    reporter: Reporter,
) -> None:
    """Add the findings and the figures of a section."""
    text = f"{Path.cwd()} {section.data.model_dump_json()}"
    measurements = Measurements(cache / "audit" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl")
    try:
        found, findings = collect(section, measurements, limit=limit, workers=workers, reporter=reporter)
        findings += [*check_counts(section, found), *check_patients(section, found), *check_labels(section, found)]
        sizes = sizes_of(found, measurements)
        findings += check_images(section, found, measurements, sizes, vision)
        findings += check_duplicates(section, found, measurements)
        audit.rewards[section.name] = {}
        if section.task is not None:
            audit.rewards[section.name], more = check_targets(section, section.task, found, sizes, vision)
            findings += more
        audit.counts[section.name] = counts_of(found)
        audit.images[section.name] = figures_of(sizes, vision) | {"measured_now": measurements.opened}
    finally:
        measurements.close()
    audit.findings += [replace(finding, data=section.name) for finding in findings]
