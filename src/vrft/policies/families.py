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


KNOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
}
"""Models whose configuration needs no file: width, layers, heads of queries and of keys, width of the MLP, vocabulary,
and whether the output matrix is that of the embeddings; both have the same vision tower."""


def known_config(name: str) -> Any:
    """The configuration of a key of ``KNOWN``."""
    hidden, layers, heads, keys, mlp, words, tied = KNOWN[name]
    text = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    text |= {"num_key_value_heads": keys, "intermediate_size": mlp, "vocab_size": words, "tie_word_embeddings": tied}
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": hidden}
    return AutoConfig.for_model("qwen2_5_vl", text_config=text, vision_config=vision, tie_word_embeddings=tied)


def family_of(config: Any) -> Family:
    """The family of a model's configuration."""
    return FAMILIES.get(getattr(config, "model_type", ""), OTHER)


def frame_of(path: str, **options: Any) -> str:
    """The frame in which a policy writes boxes, from its configuration; no weights are loaded.

    Raises:
        PolicyError: the configuration is missing.
    """
    if path in KNOWN:
        return family_of(known_config(path)).frame
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
