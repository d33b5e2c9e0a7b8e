"""A detector of text that is burned into an image: names, dates and settings of a scanner that a policy could read.

Letters are bright, sharp components of the size of letters; text is a row of at least ``LETTERS`` of them with equal
height, base line and brightness and small gaps. It finds bright printed text on darker ground, of 6 to 40 pixels a
letter after the image is scaled to at most ``SIDE`` pixels; no handwriting, no dark text, no text that is turned.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

LETTERS = 4
"""The least length of a row, which was chosen on real sets (``docs/audit.md``)."""

SIDE = 1024
"""Pixels of the longer side; larger images are scaled down."""

CONTRAST = 70
"""Grey values by which a letter is brighter than its surroundings."""

MOST = 3000
"""With more components an image is a texture, and is not searched."""

Grey = NDArray[np.uint8]


def longest_row(image: Image.Image) -> int:
    """The number of letters in the longest row of letters of an image; 0 without letters."""
    grey = image.convert("L")
    if max(grey.size) > SIDE:
        grey.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = np.asarray(grey)
    if min(values.shape) < 9:
        return 0
    opened = ~_eroded(~_eroded(values))  # a dilation is an erosion of the negative
    labels, count = ndimage.label(values - opened > CONTRAST, structure=np.ones((3, 3)))
    if not 0 < count <= MOST:
        return 0
    places = np.array([(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(labels)])
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    tone = np.bincount(labels.ravel(), weights=values.ravel(), minlength=count + 1)[1:] / area
    height, width = places[:, 2] - places[:, 0], places[:, 3] - places[:, 1]
    filled = area / (height * width)
    letters = (height >= 6) & (height <= 40) & (width >= 2) & (width <= 1.6 * height)
    letters &= (area >= 8) & (filled >= 0.15) & (filled <= 0.85)
    return _longest(places[letters], tone[letters])


def _eroded(values: Grey) -> Grey:
    """The least value in 9 x 9 pixels around each."""
    for axis in (0, 1):
        padded = np.pad(values, [(4, 4) if axis == at else (0, 0) for at in (0, 1)], mode="edge")
        for step in (1, 2, 4, 1):  # windows of 2, 4, 8 and 9
            one = padded[:-step] if axis == 0 else padded[:, :-step]
            padded = np.minimum(one, padded[step:] if axis == 0 else padded[:, step:])
        values = padded
    return values


def _longest(places: NDArray[np.int64], tone: NDArray[np.float64]) -> int:
    """The length of the longest row of letters, each with the next to its right.

    Args:
        places: (n, 4), top, left, bottom, right of each letter.
        tone: (n,), its mean grey value.
    """
    order = np.argsort(places[:, 1], kind="stable")
    top, left, bottom, right = places[order].T.astype(float)
    tone, high = tone[order], bottom - top
    length = np.ones(len(order), dtype=int)  # of the longest row that ends here
    for at in range(len(order)):
        gap = left[at] - right[:at]
        before = (gap >= -1) & (gap <= np.maximum(3, 0.8 * high[:at]))
        before &= np.abs(bottom[:at] - bottom[at]) <= np.maximum(1.5, 0.15 * high[:at])
        before &= np.abs(high[:at] - high[at]) <= np.maximum(1.5, 0.35 * high[:at])
        before &= np.abs(tone[:at] - tone[at]) <= 25
        length[at] = 1 + length[:at][before].max(initial=0)
    return int(length.max(initial=0))
