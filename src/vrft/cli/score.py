"""``vrft score``: rewards of completions from a file or standard input, without torch."""

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft.cli.task_options import takes_task
from vrft.errors import DataError, UserError


@takes_task
def score(
    *,
    file: Annotated[str, typer.Argument(help="JSON lines; - for standard input.")] = "-",
    task: dict[str, Any],
    image_size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of the original image, such as 640x480.")
    ] = None,
    processed_size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of what the processor made of it.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the fuzzy reward: table or geometric.")] = None,
    knowledge: Annotated[str | None, typer.Option(help="A text that the reasoning is compared with.")] = None,
    recite: Annotated[str | None, typer.Option(help="How: bleu, rouge_l, chrf or embedding.")] = None,
    recite_model: Annotated[
        str | None, typer.Option(help="Of --recite embedding: the directory of a sentence-transformers model.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="Of the envelope: think-answer, answer-think or no-think.")] = None,
    prompt_end: Annotated[
        str | None,
        typer.Option(
            help="What the chat template opens the assistant's turn with, such as <think> of thinking models."
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also print a table of the means to standard error.")
    ] = False,
) -> None:
    """Score completions: one JSON object in, one out, for each line.

    A line holds completion, target and task ({"kind": ..., "labels": [...]}), for boxes image_size and where the frame
    is resized processed_size; schedule, order and prompt_end where they differ from the default. What a line leaves out
    comes from the options.
    """
    from vrft.rewards.scoring import Summary, score_lines, write_line

    defaults = {
        "task": task,
        "image_size": _size(image_size, "--image-size"),
        "processed_size": _size(processed_size, "--processed-size"),
        "schedule": schedule,
        "order": order,
        "prompt_end": prompt_end,
        "knowledge": knowledge,
        "recite": recite,
        "recite_model": recite_model,
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
        yield _in_utf8(typer.get_binary_stream("stdin"), "standard input")
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
        yield _in_utf8(lines, file)


def _in_utf8(lines: Iterable[bytes], file: str) -> Iterator[bytes]:
    """Lines as they come; those of UTF-16 with its mark, which some shells write, in UTF-8."""
    stream = iter(lines)
    first = next(stream, b"")
    if first[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        yield first
        yield from stream
        return
    decoder, rest = codecs.getincrementaldecoder("utf-16")(), ""
    try:
        for block in chain([first], stream):
            *whole, rest = (rest + decoder.decode(block)).split("\n")
            yield from (line.encode() for line in whole)
        yield (rest + decoder.decode(b"", final=True)).encode()
    except UnicodeError as error:
        raise DataError(f"{file}: is no UTF-16 text, though it begins as one ({error}); save it as UTF-8.") from None


def _size(option: str | None, name: str) -> list[int] | None:
    if option is None:
        return None
    match = re.fullmatch(r"\s*\[?\s*(\d{1,6})\s*[x, ]\s*(\d{1,6})\s*\]?\s*", option)
    if match is None:
        raise UserError(f"{name} {option}: expected WIDTHxHEIGHT, such as 640x480.")
    return [int(match[1]), int(match[2])]
