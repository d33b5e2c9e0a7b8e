"""Box geometry: frames, clipping, overlaps, and the size that a processor gives an image.

A box is x1, y1, x2, y2 with x to the right and y down. Its *frame* says in which coordinates: ``pixel`` of the original
image, ``resized`` for pixels of the processed image, ``thousand`` (0-1000 of each side) or ``unit`` (0-1).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vrft.sample import Box

FRAMES = ("pixel", "resized", "thousand", "unit")
"""The frames that a policy may use; its family defines the frame, which is never guessed from a completion."""

Size = tuple[int, int]
"""Width, height."""


def frame_size(frame: str, image_size: Size, processed_size: Size | None = None) -> tuple[float, float]:
    """Return width and height of the image in a frame.

    Raises:
        ValueError: an unknown frame, or ``resized`` without the processed size.

    >>> frame_size("thousand", (640, 480))
    (1000.0, 1000.0)
    """
    if frame == "pixel":
        return float(image_size[0]), float(image_size[1])
    if frame == "thousand":
        return 1000.0, 1000.0
    if frame == "unit":
        return 1.0, 1.0
    if frame != "resized":
        raise ValueError(f"unknown frame {frame!r}; expected one of {', '.join(FRAMES)}")
    if processed_size is None:
        raise ValueError("the frame 'resized' needs processed_size, [width, height] of what the processor made")
    return float(processed_size[0]), float(processed_size[1])


def to_pixels(box: Box, frame: str, image_size: Size, processed_size: Size | None = None) -> Box:
    """Convert a box from a frame to pixels of the original image; nothing is rounded or clipped.

    >>> to_pixels((250, 250, 750, 750), "thousand", (640, 480))
    (160.0, 120.0, 480.0, 360.0)
    """
    return box if frame == "pixel" else rescale(box, frame_size(frame, image_size, processed_size), image_size)


def from_pixels(box: Box, frame: str, image_size: Size, processed_size: Size | None = None) -> Box:
    """Convert a box from pixels of the original image to a frame: the inverse of ``to_pixels``.

    >>> from_pixels((160, 120, 480, 360), "unit", (640, 480))
    (0.25, 0.25, 0.75, 0.75)
    """
    return box if frame == "pixel" else rescale(box, image_size, frame_size(frame, image_size, processed_size))


def rescale(box: Box, size: tuple[float, float], new: tuple[float, float]) -> Box:
    """Convert a box to an image of another size.

    Args:
        box: x1, y1, x2, y2.
        size: width and height of the image of the box.
        new: width and height of the other image.
    """
    (width, height), (wide, high) = size, new
    return box[0] * wide / width, box[1] * high / height, box[2] * wide / width, box[3] * high / height


def hull(numbers: Sequence[float]) -> Box:
    """The smallest box around points x1, y1, x2, y2, ...

    >>> hull([3, 0, 1, 5, 2, 2])
    (1, 0, 3, 5)
    """
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def clip(box: Box, image_size: Size) -> Box:
    """Cut a box at the edges of the image.

    >>> clip((-12, 120, 300, 320), (640, 640))
    (0, 120, 300, 320)
    """
    width, height = image_size
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def has_area(box: Box) -> bool:
    """Whether the second corner lies right of and below the first, and the area is more than rounding leaves."""
    return box[2] > box[0] and box[3] > box[1] and (box[2] - box[0]) * (box[3] - box[1]) > 0


def iou(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each pair.

    Args:
        a: n boxes that have an area.
        b: m boxes that have an area, in the same frame.

    Returns:
        (n, m), each in [0, 1].

    >>> iou([(0, 0, 2, 2)], [(1, 0, 3, 2), (5, 5, 6, 6)]).round(3).tolist()
    [[0.333, 0.0]]
    """
    intersection, union, _ = _areas(a, b)
    return intersection / union


def giou(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Generalised IoU of each pair (Rezatofighi et al., arXiv 1902.09630): IoU - (hull - union) / hull.

    Returns:
        (n, m), each in (-1, 1]; it falls with distance where boxes do not touch.

    >>> giou([(0, 0, 1, 1)], [(1, 0, 2, 1), (3, 0, 4, 1)]).tolist()
    [[0.0, -0.5]]
    """
    intersection, union, (width, height) = _areas(a, b)
    hull = width * height
    return intersection / union - (hull - union) / hull


def diou(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Distance IoU of each pair (Zheng et al., arXiv 1911.08287): IoU - d^2 / c^2.

    d is the distance of the centres, c the diagonal of the smallest box around both.

    Returns:
        (n, m), each in (-1, 1].

    >>> diou([(0, 0, 1, 1)], [(0, 0, 1, 1), (3, 0, 4, 1)]).round(3).tolist()
    [[1.0, -0.529]]
    """
    intersection, union, (width, height) = _areas(a, b)
    one, two = _array(a)[:, None], _array(b)[None]
    apart = (one[..., :2] + one[..., 2:] - two[..., :2] - two[..., 2:]) / 2
    return intersection / union - (apart**2).sum(axis=-1) / (width**2 + height**2)


def _array(boxes: Sequence[Box]) -> NDArray[np.float64]:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _areas(
    a: Sequence[Box], b: Sequence[Box]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Intersection and union of each pair, and width and height of the smallest box around both; each (n, m)."""
    one, two = _array(a)[:, None], _array(b)[None]
    low, high = np.maximum(one[..., :2], two[..., :2]), np.minimum(one[..., 2:], two[..., 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (two[..., 2:] - two[..., :2]).prod(axis=-1) - intersection
    hull = np.maximum(one[..., 2:], two[..., 2:]) - np.minimum(one[..., :2], two[..., :2])
    return intersection, union, (hull[..., 0], hull[..., 1])


def smart_resize(
    size: Size, *, multiple: int = 28, min_pixels: int = 56 * 56, max_pixels: int = 28 * 28 * 1280
) -> Size:
    """The size that the Qwen-VL processors give an image: multiples of a patch, within bounds on the area.

    Args:
        size: width and height of the original image.
        multiple: both sides become multiples of it: 28 for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL.
        min_pixels: the least area.
        max_pixels: the greatest area.

    Returns:
        Width and height.

    Raises:
        ValueError: one side is more than 200 times the other; the processors refuse such an image too.

    >>> smart_resize((640, 480))
    (644, 476)
    """
    width, height = size
    if max(size) > 200 * min(size):
        raise ValueError(f"an image of {width} x {height} has one side more than 200 times the other")
    sides = round(width / multiple) * multiple, round(height / multiple) * multiple
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        return tuple(max(multiple, math.floor(side / shrink / multiple) * multiple) for side in size)  # type: ignore[return-value]
    if sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return tuple(math.ceil(side * grow / multiple) * multiple for side in size)  # type: ignore[return-value]
    return sides
