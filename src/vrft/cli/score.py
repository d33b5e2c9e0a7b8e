"""``vrft score``: rewards of completions from a file or standard input, without torch."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft.errors import DataError, UserError


def score(
    file: Annotated[str, typer.Argument(help="JSON lines; - for standard input.")] = "-",
    kind: Annotated[
        str | None, typer.Option("--task", "--kind", help="classification, grading, localization or vqa.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--labels", "--label", help="A label; repeat it for each.")
    ] = None,
    synonyms: Annotated[
        list[str] | None,
        typer.Option("--synonyms", "--synonym", metavar="LABEL=NAME", help="Another name of a label."),
    ] = None,
    levels: Annotated[int | None, typer.Option(help="How many grades the scale has.")] = None,
    names: Annotated[
        list[str] | None, typer.Option("--names", "--name", help="A name of a grade, lowest first; repeat it.")
    ] = None,
    frame: Annotated[str | None, typer.Option(help="Of the boxes: pixel, resized, thousand or unit.")] = None,
    answers: Annotated[str | None, typer.Option(help="Of a question: yes_no, choice or open.")] = None,
    choices: Annotated[
        list[str] | None, typer.Option("--choices", "--choice", metavar="LETTER=TEXT", help="A choice; repeat it.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of the original image, such as 640x480.")
    ] = None,
    processed_size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of what the processor made of it.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the fuzzy reward: table or geometric.")] = None,
    order: Annotated[str | None, typer.Option(help="Of the envelope: think-answer, answer-think or no-think.")] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also print a table of the means to standard error.")
    ] = False,
) -> None:
    """Score completions: one JSON object in, one out, for each line.

    A line holds completion, target and task ({"kind": ..., "labels": [...]}), for boxes image_size and where the frame
    is resized processed_size; schedule and order where they differ from the default. What a line leaves out comes from
    the options.
    """
    from vrft.rewards.scoring import Summary, score_lines, write_line

    task = {
        "kind": kind,
        "labels": labels or None,
        "synonyms": _pairs(synonyms, "--synonym", several=True),
        "levels": levels,
        "names": names or None,
        "frame": frame,
        "answers": answers,
        "choices": _pairs(choices, "--choice", several=False),
    }
    defaults = {
        "task": {key: value for key, value in task.items() if value is not None},
        "image_size": _size(image_size, "--image-size"),
        "processed_size": _size(processed_size, "--processed-size"),
        "schedule": schedule,
        "order": order,
    }
    figures = Summary()
    out = typer.get_binary_stream("stdout")
    with _lines(file) as lines:
        try:
            for scores in score_lines(lines, "standard input" if file == "-" else file, defaults):
                figures.add(scores)
                out.write(write_line(scores).encode() + b"\n")
                if file == "-":
                    out.flush()
        finally:
            out.flush()
    if summary:
        from vrft.cli.terminal import summary as table

        typer.echo(table(figures), err=True)


@contextmanager
def _lines(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file, under a progress bar where a person watches, or of standard input."""
    if file == "-":
        yield typer.get_binary_stream("stdin")
        return
    try:
        if sys.stderr.isatty() and not sys.stdout.isatty():
            from rich.console import Console
            from rich.progress import open as open_with_bar

            stream: Any = open_with_bar(file, "rb", description="score", console=Console(stderr=True))
        else:
            stream = Path(file).open("rb")  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from None
    with stream as lines:
        yield lines


def _pairs(options: list[str] | None, name: str, *, several: bool) -> dict[str, Any] | None:
    """``KEY=VALUE`` options as a dictionary."""
    found: dict[str, Any] = {}
    for option in options or ():
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise UserError(f"{name} {option}: expected {'LABEL=NAME' if several else 'LETTER=TEXT'}.")
        if several:
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found or None


def _size(option: str | None, name: str) -> list[int] | None:
    if option is None:
        return None
    match = re.fullmatch(r"\s*\[?\s*(\d{1,6})\s*[x, ]\s*(\d{1,6})\s*\]?\s*", option)
    if match is None:
        raise UserError(f"{name} {option}: expected WIDTHxHEIGHT, such as 640x480.")
    return [int(match[1]), int(match[2])]
