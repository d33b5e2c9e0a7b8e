"""From values beyond 8 bits to grey levels, and the warnings about an image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Window = tuple[float, float]
"""The values that become black and white; so do those below and above them."""

BLANK, NOT_FINITE = "blank_image", "pixels_not_finite"
"""Warnings: an image of one value only; pixels that were NaN or infinite (NaN becomes black)."""


def is_blank(image: Image.Image) -> bool:
    """Whether an image holds one value only, in each channel."""
    extrema: Any = image.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in channels)


def image_warnings(image: Image.Image) -> list[str]:
    """The warnings about an image that ``read_image`` gave: ``BLANK``, ``NOT_FINITE``, both or none."""
    return [BLANK] * is_blank(image) + [NOT_FINITE] * bool(image.info.get(NOT_FINITE))


def grey_range(values: NDArray[Any]) -> Window:
    """The values of an image beyond 8 bits that become black and white, where no window is declared.

    Whole numbers in 0 .. 255 of which some reach 128 are 8-bit values, and are not changed. Otherwise the range is that
    of the middle 99% of the finite values, extended on both sides by its own width as far as there are values: so a
    small lesion is brighter than its surroundings, and a dead pixel leaves the rest at least a third of the contrast.
    Where 99% of the values are equal, the range is that of all values.

    >>> grey_range(np.array([900] * 999 + [3000]))
    (900.0, 3000.0)
    >>> grey_range(np.append(np.arange(1000), 65535))
    (0.0, 1985.0)
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0.0, 0.0
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and 128 <= most <= 255 and (values.dtype.kind != "f" or bool((finite == np.rint(finite)).all())):
        return 0.0, 255.0
    low = float(np.percentile(finite, 0.5, method="lower"))
    high = float(np.percentile(finite, 99.5, method="higher"))
    if low == high:
        return least, most
    return max(least, low - (high - low)), min(most, high + (high - low))


def scale(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Values as 0 .. 255: at and below the lower end of the window 0, at and above the upper one 255, NaN 0.

    >>> scale(np.array([-5, 0, 50, 100, 900]), (0, 100)).tolist()
    [0, 0, 128, 255, 255]
    """
    low, high = window
    if values.dtype == np.uint16:
        return scale(np.arange(2**16, dtype=np.int32), window)[values]
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    grey = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.rint(np.nan_to_num(grey, nan=0.0)).astype(np.uint8)
