"""Boxes drawn on an image: the truth as a white line on a dark one, the answer dashed in a colour."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vrft.errors import UserError
from vrft.montage import BACKGROUND, side_by_side
from vrft.runs import file_name, replacing
from vrft.sample import Box, Sample, file_of, open_image

LEAST = 336
"""Smaller images are enlarged to this longer side, in pixels."""

TRUTH, SHADOW, ANSWER = "#ffffff", BACKGROUND, "#ff9d2e"
DASH, GAP = 9, 5
"""Of the answer's line, in pixels."""


def draw_boxes(
    image: Image.Image,
    answer: Sequence[Box] | None,
    truth: Sequence[Box] | None = None,
    others: Sequence[Image.Image] = (),
) -> Image.Image:
    """Return a copy of an image with boxes (x1, y1, x2, y2 in its pixels), the other images beside it, and a legend.

    An answer of None was not read, a truth of None is unknown; an empty list states that there is no finding.
    """
    scale = max(1, -(-LEAST // max(image.size)))
    canvas = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for box in truth or ():
        corners = _scaled(box, scale)
        pen.rectangle(corners, outline=SHADOW, width=5)
        pen.rectangle((corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1), outline=TRUTH, width=2)
    for box in answer or ():
        _dashed(pen, _scaled(box, scale))
    return _with_legend(side_by_side([canvas, *others]), answer, truth)


def write_drawing(folder: Path, sample: Sample, row: Mapping[str, Any], written: Collection[Path] = ()) -> Path:
    """Draw the ``boxes`` of an answer and, where it is known, the truth; returns the path of the PNG.

    Args:
        folder: where the PNG goes, under the sample's name.
        sample: with the image, or several; boxes are those of the first.
        row: the answer, of ``ask``.
        written: drawings of this call, which are not drawn over: a number is added to the name.

    Raises:
        UserError: the answers hold no boxes, or the drawing would take the place of the image itself.
    """
    if "boxes" not in row:
        raise UserError("only boxes can be drawn; the task is no localization.")
    truth = sample.target if sample.split and isinstance(sample.target, tuple) else None
    name = file_name(sample.id if sample.split else Path(sample.id).stem)
    path, number = folder / f"{name}.png", 1
    while path in written:
        number += 1
        path = folder / f"{name}-{number}.png"
    for read in map(file_of, sample.images):
        if read is not None and path.resolve() == read.path.resolve():
            raise UserError(f"--draw {folder} would write over {read.path}; choose another folder.")
    first, *others = map(open_image, sample.images)
    with replacing(path) as fresh:
        draw_boxes(first, row["boxes"], truth, others).save(fresh, format="PNG")
    return path


def _scaled(box: Box, scale: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (number * scale for number in box)
    return x1, y1, max(x1 + 4, x2), max(y1 + 4, y2)  # too small a box would turn inside out


def _dashed(pen: ImageDraw.ImageDraw, corners: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = corners
    for fixed in (y1, y2):
        for start in _starts(x1, x2):
            pen.line((start, fixed, min(start + DASH, x2), fixed), fill=ANSWER, width=3)
    for fixed in (x1, x2):
        for start in _starts(y1, y2):
            pen.line((fixed, start, fixed, min(start + DASH, y2)), fill=ANSWER, width=3)


def _starts(low: float, high: float) -> list[float]:
    return [low + step * (DASH + GAP) for step in range(int((high - low) // (DASH + GAP)) + 1)]


def _with_legend(canvas: Image.Image, answer: Sequence[Box] | None, truth: Sequence[Box] | None) -> Image.Image:
    said = "answer: not read" if answer is None else "answer: dashed" if answer else "answer: no box"
    label = "" if truth is None else "truth: white line     " if truth else "truth: no box     "
    page = Image.new("RGB", (canvas.width, canvas.height + 22), SHADOW)
    page.paste(canvas)
    pen = ImageDraw.Draw(page)
    pen.text((6, canvas.height + 5), label, fill=TRUTH)
    pen.text((6 + pen.textlength(label), canvas.height + 5), said, fill=ANSWER)
    return page
