"""``vrft predict``: one line of JSON a sample, and pictures of the boxes."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vrft.cli.task_options import takes_task
from vrft.errors import UserError
from vrft.extras import need


@takes_task
def predict(
    *,
    model: Annotated[str, typer.Argument(help="A run directory, tiny, a directory with a model, or a hub name.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of one DICOM series each.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="The image files are one sample, in this order: views, slices, priors.")
    ] = False,
    arm: Annotated[
        str | None, typer.Option(help="Of a run directory: the arm; its last trained one without it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of a run directory: the seed; its first one without it.")] = None,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Of a run directory: ask about the images of a split, and tell their truth."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images of the split.")] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", file_okay=False, help="Write a picture with the boxes for each image."),
    ] = None,
    question: Annotated[str | None, typer.Option(help="What is asked; that of the run without it.")] = None,
    task: dict[str, Any],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="A completion is cut here.")] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Of image files with more than 8 bits: what becomes black and white; that of the run without it.",
        ),
    ] = None,
    page: Annotated[
        int | None, typer.Option(min=0, help="Of image files with several pages, from 0; that of the run without it.")
    ] = None,
    axis: Annotated[
        Literal["axial", "coronal", "sagittal"] | None,
        typer.Option(help="Of volumes: the plane whose slices the pages are; that of the run without it, else axial."),
    ] = None,
) -> None:
    """Ask a policy about images: one JSON object a line, with answer, reasoning and confidence.

    A run directory knows its task, and --split takes its images. For any other model options describe the task:
    vrft predict tiny scan.png --task localization --question "Where is the finding?"
    Boxes are those of the first image with --together.
    """
    given = {"--arm": arm, "--seed": seed, "--split": split, "--limit": limit}
    is_run = (Path(model) / "recipe.yaml").exists()
    if is_run and task:
        raise UserError(f"{model} is a run and knows its task; leave the options of the task out.")
    if not is_run and (wrong := [name for name, value in given.items() if value is not None]):
        raise UserError(f"{wrong[0]} needs a run directory, and {model} is none (recipe.yaml is missing).")
    if limit is not None and split is None:
        raise UserError("--limit needs --split; image files are all asked about.")
    if together and not images:
        raise UserError("--together needs image files; the samples of a split have their images already.")
    if window and not window[0] < window[1]:
        raise UserError(f"--window is {window[0]:g} {window[1]:g}; the first value must be below the second.")
    need("vrft predict")
    from vrft.evaluation.inference import ask_model, ask_run
    from vrft.report.draw import write_drawing
    from vrft.runs import RunDirectory

    paths = tuple(images or ())
    files: tuple[Path | tuple[Path, ...], ...] = (paths,) if together else paths
    asked: dict[str, Any] = {"question": question, "max_tokens": max_tokens}
    asked |= {"window": window, "page": page, "axis": axis}
    rows = (
        ask_run(RunDirectory(Path(model)), files, arm=arm, seed=seed, split=split, limit=limit, **asked)
        if is_run
        else ask_model(model, files, task, **asked)
    )
    drawings: list[Path] = []
    for sample, row in rows:
        if draw is not None:
            drawings.append(write_drawing(draw, sample, row, drawings))
            row["drawing"] = str(drawings[-1])
        typer.echo(json.dumps(row, ensure_ascii=False))
