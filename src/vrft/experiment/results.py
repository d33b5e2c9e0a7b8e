"""From the store to the files of a run: tables of predictions and logs, the records, some images, and arms by name."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from vrft.errors import RunError
from vrft.experiment.design import Design
from vrft.experiment.jobs import Job, cost_of
from vrft.experiment.keys import CacheKey, CacheKeys, version_of
from vrft.experiment.opened import Experiment, groups_of
from vrft.image_log import ImageLog, warning_sentences
from vrft.montage import FIRST_SHARE, side_by_side
from vrft.recipe import ARMS, FACTORS, Recipe
from vrft.runs import KEPT_BY, RunDirectory, Store, read_json, read_jsonl, replacing, write_json
from vrft.sample import Sample, open_image, read_as
from vrft.tasks import ClosedTask, TrainableTask

FURTHER_LIBRARIES = ("datasets", "tokenizers", "numpy")
"""Libraries whose versions a reader may want, beside those of the keys."""

GALLERY, GALLERY_PIXELS = 24, 336
"""How many of the evaluated images a run keeps, and their longest side."""


def gather(
    design: Design,
    keys: CacheKeys,
    jobs: Sequence[Job],
    directory: RunDirectory,
    store: Store,
    errors: Mapping[str, str],
) -> None:
    """Write the tables and records that all figures are made of.

    Args:
        design: the arms.
        keys: of the experiment.
        jobs: all jobs of the experiment.
        directory: of the run.
        store: holds the results.
        errors: by the names of the jobs that failed.

    Raises:
        RunError: no arm is done.
    """
    recipe, experiment = design.recipe, keys.experiment
    predictions, logs, runs = [], list[dict[str, Any]](), list[dict[str, Any]]()
    for arm in recipe.arm_names():
        for seed in recipe.seeds_of(arm):
            stages, key = keys.stages(arm, seed), keys.evaluation(arm, seed)
            evaluation = store.evaluation(key)
            if not evaluation.done.exists():
                directory.arm(arm, seed).done.unlink(missing_ok=True)  # of a recipe before a change
                error = errors.get(f"{arm}, seed {seed}") or _failure(directory, arm, seed)
                runs.append({"arm": arm, "seed": seed, "cost": None, "error": error})
                continue
            predictions.append((arm, seed, read_jsonl(evaluation.predictions)))
            cost = cost_of(store, stages)
            cost["peak_mb"] = max(cost["peak_mb"], read_json(evaluation.done)["peak_mb"]) if arm != "majority" else 0.0
            runs.append({"arm": arm, "seed": seed, "cost": cost, "error": None})
            if recipe.trained_as(arm) == arm:
                logs += _logs(store, recipe, arm, seed, stages)
    if not predictions:
        first = next(iter(errors.values()), "")
        raise RunError(f"no arm is done. The first error: {first} All are in {directory.path / 'failed'}.")
    _write_predictions(directory.predictions, predictions, experiment.test_samples)
    with replacing(directory.logs) as fresh:
        table = pd.json_normalize(logs) if logs else pd.DataFrame(columns=["arm", "seed", "stage", "step"])
        table.to_parquet(fresh, index=False)
    perception = _write_perception(experiment, jobs, directory, store)
    write_gallery(directory, experiment.test_samples, experiment.image_log)
    records = design_records(design, experiment) | {
        "images": unusual_images(experiment),
        "work_seconds": _work_seconds(store, {key for job in jobs for key in job.gives()}),
        "runs": runs,
        "perception": perception,
    }
    write_json(directory.records, records)


def _work_seconds(store: Store, keys: set[CacheKey]) -> float:
    """Seconds of all trainings and evaluations behind the files, each counted once."""
    done = [store.stage(key).done for key in sorted(keys)]
    return round(sum(read_json(path)["seconds"] for path in done if path.exists()), 1)


def _failure(directory: RunDirectory, arm: str, seed: int) -> str:
    path = directory.failure(arm, seed)
    return str(read_json(path)["error"]) if path.exists() else "not done"


def _logs(store: Store, recipe: Recipe, arm: str, seed: int, keys: Sequence[CacheKey]) -> list[dict[str, Any]]:
    """The lines of the log of an arm and seed, its stages one after another."""
    rows: list[dict[str, Any]] = []
    for index, (key, stage) in enumerate(zip(keys, recipe.stages_of(arm), strict=True)):
        before = rows[-1]["step"] if rows else 0
        for row in read_jsonl(store.stage(key).log):
            named = {"arm": arm, "seed": seed, "stage": f"{index + 1} {stage.kind}"}
            rows.append(named | row | {"step": row["step"] + before})
    return rows


def _write_predictions(
    path: Path, predicted: Iterable[tuple[str, int, list[dict[str, Any]]]], samples: Sequence[Sample]
) -> None:
    """All predictions of all arms and seeds in one table; targets and answers as texts: columns hold one type."""
    groups, subgroups = groups_of(samples), [sample.subgroup for sample in samples]
    named = any(subgroup is not None for subgroup in subgroups)
    rows = [
        {"arm": arm, "seed": seed, "group": group}
        | ({"subgroup": subgroup} if named else {})
        | row
        | {key: None if row[key] is None else _cell(row[key]) for key in ("target", "answer", "lenient")}
        | ({"image_size": json.dumps(row["image_size"])} if "image_size" in row else {})
        for arm, seed, predictions in predicted
        for row, group, subgroup in zip(predictions, groups, subgroups, strict=True)
    ]
    with replacing(path) as fresh:
        pd.DataFrame(rows).to_parquet(fresh, index=False)


def _cell(value: Any) -> str:
    """A label or a grade as it is, boxes as JSON."""
    return json.dumps(value) if isinstance(value, list) else str(value)


def _write_perception(
    experiment: Experiment, jobs: Sequence[Job], directory: RunDirectory, store: Store
) -> dict[str, Any] | None:
    """The predictions on the task of the stages with a task of their own, and a description of that task."""
    done = [
        job
        for job in jobs
        if job.evaluates == "perception" and job.evaluation and store.evaluation(job.evaluation).done.exists()
    ]
    if not done:
        directory.perception.unlink(missing_ok=True)
        return None
    arm, index = done[0].perceived
    stage = experiment.recipe.stages_of(arm)[index]
    task, _ = experiment.stage_task_and_source(stage)
    samples = experiment.perception_samples(stage)
    rows = [
        (job.arm, job.seed, read_jsonl(store.evaluation(job.evaluation).predictions)) for job in done if job.evaluation
    ]
    same = [row for row in rows if len(row[2]) == len(samples)]  # of stages on the same samples
    _write_predictions(directory.perception, same, samples)
    untrained = {job.arm: job.arm == "majority" for job in done}
    return {"task": _task_records(task) | {"untrained": untrained}}


def _task_records(task: TrainableTask) -> dict[str, Any]:
    records: dict[str, Any] = {"kind": task.kind, "metrics": list(task.metrics)}
    if isinstance(task, ClosedTask):
        records["classes"] = [str(target) for target in task.classes]
    return records


def design_records(design: Design, experiment: Experiment) -> dict[str, Any]:
    """The comparison as plain data: the task, the arms with their levels, and the planned pairs."""
    recipe, evaluation = design.recipe, design.recipe.evaluation
    starts = starts_of(recipe)
    arms = [
        {
            "arm": arm,
            "kind": design.kind_of(arm),
            "levels": design.cells.get(arm),
            "starts": starts[arm],
            "what": describe_arm(design, arm),
        }
        for arm in recipe.arm_names()
    ]
    keys = dict.fromkeys(key for at in design.sweep.values() for key in at)
    axes = {key: list(dict.fromkeys(at[key] for at in design.sweep.values())) for key in keys}
    points = [{"arm": arm, "at": at} for arm, at in design.sweep.items()]
    sweep = recipe.ablation.sweep and {"arm": recipe.ablation.sweep.arm, "axes": axes, "points": points}
    untrained = {arm: not recipe.has_seeds(arm) for arm in recipe.arm_names()}
    return {
        "name": recipe.name,
        "seeds": list(recipe.seeds),
        "task": _task_records(experiment.task) | {"untrained": untrained},
        "statistics": evaluation.model_dump(include={"split", "bootstrap", "confidence"}),
        "design": {
            "factors": {name: list(levels) for name, levels in design.factors.items()},
            "fraction": design.fraction,
            "budget": design.budget.model_dump(),
            "arms": arms,
            "pairs": [list(pair) for pair in design.pairs],
            "sweep": sweep if points else None,
        },
    }


def starts_of(recipe: Recipe) -> dict[str, list[str | None]]:
    """The trainings that the last stage of each arm goes on from: the strata of ``pooled_seed_variance``.

    Stage by stage the first arm that has it, None for nothing; then the prompt of the arm, since the effect of a seed
    on a start may count in the arms with a card and not in the others.
    """
    depth = len(recipe.stages) - 1
    first: list[tuple[Any, str]] = []
    starts = dict[str, list[str | None]]()
    for arm in recipe.arm_names():
        known: list[str | None] = []
        for index in range(len(recipe.stages_of(arm)) - 1):
            training = recipe.training_of(arm, index)
            name = next((name for other, name in first if other == training), None)
            if name is None:
                name = f"{arm}, stage {index + 1}"
                first.append((training, name))
            known.append(name)
        prompt = recipe.condition_of(arm, training=True).prompt
        starts[arm] = [*(None for _ in range(depth - len(known))), *known, prompt]
    return starts


def describe_arm(design: Design, arm: str) -> str:
    """An arm in words."""
    if arm in ARMS:
        return ARMS[arm].description
    if arm in design.cells:
        added = [FACTORS[name] for name, level in design.cells[arm].items() if level not in ("off", "0")]
        return "; ".join(added)
    if arm in design.sweep:
        return ", ".join(f"{key} {value}" for key, value in design.sweep[arm].items())
    return design.recipe.arm(arm).description


def unusual_images(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """How many of the opened images are unusual, by kind, and an example of each; also reported."""
    found = {kind: {"count": len(names), "example": names[0]} for kind, names in experiment.image_warnings().items()}
    for sentence in warning_sentences(found):
        experiment.reporter.say(f"  {sentence}")
    return found


def write_gallery(directory: RunDirectory, samples: Sequence[Sample], image_log: ImageLog | None = None) -> None:
    """Keep the images of some evaluated samples, evenly spread over the split, for the report; a region is marked.

    Several images of a sample are side by side, and the PNG notes the share of its width that the first has.
    """
    for sample in samples[:: max(1, len(samples) // GALLERY)][:GALLERY]:
        images: list[Image.Image] = []
        for source in sample.images:
            image = open_image(source)
            if image_log is not None:
                image_log.note(image, sample.id, partial(read_as, source))
            if sample.region is not None and not images:
                image = image.convert("RGB")
                line, sides = max(2, max(image.size) // 150), [round(side) for side in sample.region]
                ImageDraw.Draw(image).rectangle(sides, outline="white", width=2 * line)
                ImageDraw.Draw(image).rectangle(sides, outline="black", width=line)
            image.thumbnail((GALLERY_PIXELS, GALLERY_PIXELS))
            images.append(image)
        picture, note = side_by_side(images), PngInfo()
        note.add_text(FIRST_SHARE, str(images[0].width / picture.width))
        picture.thumbnail((GALLERY_PIXELS * min(len(images), 3), GALLERY_PIXELS))
        with replacing(directory.gallery / f"{sample.id}.png") as fresh:
            picture.save(fresh, format="PNG", pnginfo=note)


def environment(recipe: Recipe, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, machine, revision and seeds: all that a reader needs to repeat the run."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        revision = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # there is no git
        revision = None
    return KEPT_BY | {
        "python": platform.python_version(),
        "libraries": machine["versions"] | {library: version_of(library) for library in FURTHER_LIBRARIES},
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": machine["threads"],
        "processes": machine["processes"],
        "key": dict(machine),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git_revision": revision,
        "seeds": list(recipe.seeds),
    }
