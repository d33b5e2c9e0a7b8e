"""Several images in one picture, for the reader of a report."""

from collections.abc import Sequence

from PIL import Image

GAP = 8
"""Pixels between two images."""

BACKGROUND = "#101820"

FIRST_SHARE = "first"
"""The text of a PNG that holds the share of its width that the first image has."""

SAMPLE = "sample"
"""The text of a PNG that holds the name of the sample."""


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images in a row, in order: the first unchanged, the others at its height; a single image is returned as it is.

    >>> side_by_side([Image.new("RGB", (40, 20)), Image.new("RGB", (50, 100))]).size
    (58, 20)
    """
    first, *others = images
    if not others:
        return first
    widths = [max(1, round(image.width * first.height / image.height)) for image in others]
    picture = Image.new("RGB", (first.width + sum(widths) + GAP * len(others), first.height), BACKGROUND)
    picture.paste(first)
    left = first.width + GAP
    for image, width in zip(others, widths, strict=True):
        picture.paste(image.convert("RGB").resize((width, first.height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return picture
