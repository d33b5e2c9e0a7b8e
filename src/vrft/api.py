"""The library: run a recipe, compare its augmentations, evaluate and ask a policy, from Python.

``import vrft`` gives these names; each loads torch only when it is called.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrft.auditing import Audit, Vision
from vrft.caches import cache_folder
from vrft.data import Source
from vrft.errors import UserError
from vrft.extras import need
from vrft.progress import Reporter
from vrft.recipe import Recipe, check_recipe, parse_recipe, read_recipe
from vrft.runs import RunDirectory, Store
from vrft.sample import Sample
from vrft.tasks import TrainableTask

if TYPE_CHECKING:
    import pandas as pd
    from transformers import TrainerCallback

    from vrft.experiment.design import Design
    from vrft.experiment.preflight import Preflight
    from vrft.policies import LoadedPolicy


@dataclass(frozen=True)
class Run:
    """A finished run or ablation."""

    directory: RunDirectory
    metrics: dict[str, Any]
    """The content of ``metrics.json``: the arms with their metrics and intervals, the comparisons, the effects."""
    errors: dict[str, str]
    """The error of each job of an ablation that failed, by its name."""

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.directory.report

    def predictions(self) -> "pd.DataFrame":
        """One row for each arm, seed and evaluated sample."""
        import pandas as pd

        return pd.read_parquet(self.directory.predictions)

    def policy(self, arm: str, seed: int = 0) -> "LoadedPolicy":
        """The trained policy of an arm.

        Raises:
            RunError: the run has no such policy.
        """
        from vrft.policies.from_recipe import load_arm

        return load_arm(parse_recipe(self.directory.recipe), self.directory, arm, seed)


def run(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    store: str | Path | None = None,
    source: Source | None = None,
    callbacks: Sequence["TrainerCallback"] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Train, evaluate and compare the arms of a recipe in this process, and write the report.

    Args:
        recipe: a ``Recipe``, or the path of its YAML file.
        out: the run directory; ``runs/NAME`` without it.
        overrides: ``key=value`` texts for a recipe that is read from a file.
        resume: go on with the run that is in the directory.
        store: the folder of trained stages and evaluations that runs share; ``_store`` beside the run directory
            without it.
        source: of the samples, in place of the section ``data``: an object with ``labels``, ``levels``, ``question``,
            ``check()`` and ``samples(split)`` (``vrft.Source``).
        callbacks: of transformers' trainers, added to every stage.
        reporter: shows progress; plain lines on standard error without it.

    Raises:
        UserError: recipe, data, policy or directory cannot be used; finished results stay.
    """
    checked = _read(recipe, overrides, source=source)
    need("vrft run")
    from vrft.experiment.design import design_of_run

    return carry_out(design_of_run(checked), out, store, reporter, resume=resume, source=source, callbacks=callbacks)


def audit(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] = (),
    source: Source | None = None,
    limit: int | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Audit:
    """Find what is wrong with the data and the rewards of a recipe, before a run is paid for.

    All images are opened; what was measured is kept in the cache folder, so that a second audit is fast. Visual tokens
    are counted where transformers is installed and the processor of the policy is on this machine.

    Args:
        recipe: a ``Recipe``, or the path of its YAML file.
        overrides: ``key=value`` texts for a recipe that is read from a file.
        source: of the samples, in place of the section ``data``.
        limit: how many samples of a split are audited at most, evenly spread; without it all.
        workers: threads that open images; as many as there are cores without it.
        reporter: shows progress; nothing is shown without it.

    Raises:
        RecipeError: the recipe itself is at fault. Faults of its data are findings.
    """
    from vrft.auditing.auditor import audit as audit_recipe

    checked = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe), overrides, check_data=False)
    return audit_recipe(
        checked,
        cache_folder(),
        vision=_vision_of(checked),
        source=source,
        limit=limit,
        workers=workers,
        reporter=reporter,
    )


def _vision_of(recipe: Recipe) -> Vision:
    """How the policy of a recipe sees images, where its processor can be loaded."""
    try:
        need("counting visual tokens")
    except UserError as error:
        return Vision(missing=str(error))
    from vrft.policies.visual_tokens import vision_of

    return vision_of(recipe.policy)


def preflight(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] = (),
    prompts: int = 32,
    completions: int | None = None,
    arm: str | None = None,
    stage: int | None = None,
    seed: int | None = None,
    measure: bool = True,
    source: Source | None = None,
    reporter: Reporter | None = None,
) -> "Preflight":
    """Sample completions of the policy that a recipe starts from, and say whether RFT can begin.

    Args:
        recipe: a ``Recipe``, or the path of its YAML file.
        overrides: as for ``run``.
        prompts: how many training samples are asked about.
        completions: sampled for each of them, 2 or more; the group size of the stage without it.
        arm: whose prompts, rewards and stage are used; the first arm with an RFT stage without it.
        stage: of the arm, from 1; its first RFT stage without it.
        seed: of the order of the samples and of sampling; the first of the recipe without it.
        measure: whether a step of training is timed.
        source: as for ``run``.
        reporter: as for ``run``.

    Returns:
        ``code`` and ``sentence`` of the verdict, ``figures`` (as the command prints with ``--json``) and ``rows``, one
        a completion.

    Raises:
        UserError: recipe, data, policy, arm or stage cannot be used.
    """
    checked = _read(recipe, overrides, source=source)
    need("vrft preflight")
    from vrft.experiment.preflight import preflight as measured

    options: dict[str, Any] = {"prompts": prompts, "completions": completions, "arm": arm, "stage": stage, "seed": seed}
    return measured(checked, **options, measure=measure, source=source, reporter=reporter or Reporter())


def ablate(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    arms: Sequence[str] = (),
    fraction: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Compare every combination of the augmentations with each other and with controls, and write the report.

    Called again it goes on; after a change of the recipe only new jobs are done.

    Args:
        recipe: a ``Recipe``, or the path of its YAML file.
        out: the run directory; ``runs/NAME-ablation`` without it.
        overrides: ``key=value`` texts for a recipe that is read from a file.
        arms: only these.
        fraction: only a balanced part of the combinations, one in so many.
        workers: processes on this machine; as many as cores or GPUs allow without it.
        ray: the address of a Ray cluster that does the jobs.
        store: as for ``run``.
        reporter: as for ``run``.

    Raises:
        UserError: recipe, data, policy or directory cannot be used; finished results stay.
    """
    need("vrft ablate")
    from vrft.experiment.design import design_of, faults, only

    design = design_of(_read(recipe, overrides, also=faults), fraction=fraction)
    return carry_out_ablation(only(design, arms) if arms else design, out, store, reporter, workers=workers, ray=ray)


def carry_out_ablation(
    design: "Design",
    out: str | Path | None,
    store: str | Path | None,
    reporter: Reporter | None,
    *,
    workers: int | None,
    ray: str | None,
) -> Run:
    """Carry out the design of an ablation with workers; the arguments are those of ``ablate``.

    Raises:
        UserError: data, policy or directory cannot be used; finished results stay.
    """
    from vrft.experiment.runners import local_workers, ray_workers

    if ray and workers:
        raise UserError("--workers counts processes of this machine; with --ray the cluster's resources decide.")
    section = design.recipe.ablation
    opened: Callable[[], AbstractContextManager[Any]] = partial(local_workers, section.cpus, section.gpus, workers)
    if ray:
        opened = partial(ray_workers, section.cpus, section.gpus, ray)
    device = "a machine of the cluster" if ray and ray != "local" else None
    options: dict[str, Any] = {"resume": True, "same_recipe": False, "open_workers": opened, "device": device}
    return carry_out(design, out, store, reporter, **options)


def _read(
    recipe: Recipe | str | Path, overrides: Sequence[str], *, source: Source | None = None, also: Any = None
) -> Recipe:
    """A checked recipe."""
    if not isinstance(recipe, Recipe):
        return read_recipe(Path(recipe), overrides, source=source, also=also)
    if overrides:
        raise UserError("overrides are for a recipe that is read from a file; use recipe.model_copy(update=...).")
    return check_recipe(recipe, source=source, also=also)


def carry_out(
    design: "Design", out: str | Path | None, store: str | Path | None, reporter: Reporter | None, **options: Any
) -> Run:
    """Carry out a design and write its report; the arguments are those of ``run``, and of the engine.

    Raises:
        UserError: data, policy or directory cannot be used; finished results stay.
    """
    from vrft.experiment import run as engine
    from vrft.processes import is_main
    from vrft.report import write_report

    directory = RunDirectory(Path(out) if out else Path("runs") / design.name)
    kept = Store(Path(store)) if store else None
    result = engine.carry_out(design, directory, store=kept, reporter=reporter or Reporter(), **options)
    if is_main():
        write_report(directory)
    return Run(directory, result.metrics, result.errors)


def evaluate(
    policy: "LoadedPolicy",
    task: TrainableTask,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    max_tokens: int = 256,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Decode samples greedily, and measure the answers.

    Args:
        policy: of ``load_policy`` or ``Run.policy``.
        task: the question, how answers are read, and the metrics.
        samples: with targets.
        batch_size: prompts that are decoded together.
        max_tokens: a completion is cut here.

    Returns:
        the metrics of the task by name, and the predictions: one row a sample with ``completion``, ``answer``,
        ``target``, ``problems``.

    Raises:
        UserError: there are no samples, or an image cannot be read.
    """
    need("vrft evaluate")
    if not samples:
        raise UserError("there are no samples to evaluate.")
    from vrft.evaluation.predictions import answers
    from vrft.evaluation.summary import figures_of

    batches = answers(policy, task, samples, batch_size=batch_size, max_tokens=max_tokens)
    rows = [row for batch in batches for row in batch]
    return figures_of(task, rows), rows


def predict(
    model: str | Path,
    images: Sequence[str | Path | Sequence[str | Path]],
    *,
    task: Mapping[str, Any] | None = None,
    question: str | None = None,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Ask a policy about image files.

    Args:
        model: a run directory, ``tiny``, a directory with a model, or a name on the Hugging Face hub.
        images: the files; an item that is a list of files is one sample of several images, in order.
        task: the section ``task`` of a recipe; a run directory has its own.
        question: the question; a run directory has its own.
        options: ``max_tokens``, ``window``, ``page``; for a run directory also ``arm`` and ``seed``.

    Yields:
        one row a sample: ``image`` (or ``images``), ``answer``, ``reasoning``, ``confidence``, ``problems``,
        ``completion``.

    Raises:
        UserError: model, task or an image cannot be used.
    """
    need("vrft predict")
    from vrft.evaluation.inference import ask_model, ask_run

    files = [Path(own) if isinstance(own, str | Path) else tuple(map(Path, own)) for own in images]
    if RunDirectory(Path(model)).recipe.exists():
        if task:
            raise UserError(f"{model} is a run and has its task; leave task out.")
        rows = ask_run(RunDirectory(Path(model)), files, question=question, **options)
    elif unknown := {"arm", "seed"} & set(options):
        raise UserError(f"{min(unknown)} needs a run directory, and {model} is none (recipe.yaml is missing).")
    else:
        rows = ask_model(str(model), files, task or {}, question=question, **options)
    for _, row in rows:
        yield row
