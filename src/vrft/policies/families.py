"""Families of policies: the frame in which each writes boxes, and the sizes to which its processor resizes images.

Qwen2-VL writes thousandths of the image, Qwen2.5-VL pixels of the resized image, Qwen3-VL thousandths again; a box that
is read in the wrong frame never earns a reward. The family follows from the model type; a recipe can override it.
"""

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from vrft.boxes import Size, smart_resize
from vrft.errors import PolicyError, first_line


@dataclass(frozen=True)
class Family:
    """The conventions of models of one type.

    Args:
        frame: the coordinates of boxes, one of ``vrft.boxes.FRAMES``; x first.
        multiple: both sides of a resized image are multiples of this number of pixels; 1 where there is no such rule.
    """

    frame: str
    multiple: int


FAMILIES = {
    "qwen2_vl": Family("thousand", 28),
    "qwen2_5_vl": Family("resized", 28),
    "qwen3_vl": Family("thousand", 32),
    "qwen3_vl_moe": Family("thousand", 32),
}
"""Families by ``model_type``."""

OTHER = Family("unit", 1)
"""For other types: shares of the image, which need no sizes."""


def family_of(config: Any) -> Family:
    """The family of a model's configuration."""
    return FAMILIES.get(getattr(config, "model_type", ""), OTHER)


def frame_of(path: str, **options: Any) -> str:
    """The frame in which a policy writes boxes, from its configuration; no weights are loaded.

    Raises:
        PolicyError: the configuration is missing.
    """
    try:
        return family_of(AutoConfig.from_pretrained(path, **options)).frame
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"policy.model {path!r} has no configuration that can be read: {first_line(error)}") from None


def processed_size(size: Size, config: Any, processor: Any) -> Size:
    """Width and height of an image after the processor's resize; unchanged where the family has no rule."""
    family = family_of(config)
    if family.multiple == 1:
        return size
    bounds = processor.image_processor.size
    low, high = bounds["shortest_edge"], bounds["longest_edge"]
    return smart_resize(size, multiple=family.multiple, min_pixels=low, max_pixels=high)
