"""A picture that comes several times in one step is turned into patches once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

PATCHES = ("pixel_values", "image_grid_thw")
"""What the image processors of the families that share a prefix make of pictures."""


@contextmanager
def processed_once(processor: Any) -> Iterator[None]:
    """Within the block, a picture with the same pixels as one before it is not processed again.

    TRL gives a processor each picture of a group G times, and once more for the training pass.
    """
    whole = processor.image_processor
    processor.image_processor = _Once(whole)
    try:
        yield
    finally:
        processor.image_processor = whole


class _Once:
    """An image processor that remembers what it made of each picture."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        self.made: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        pictures = _flat(images)
        if not pictures or not all(isinstance(one, Image.Image) for one in pictures):
            return self.whole(images, **options)
        wanted = {**options, "return_tensors": "pt"}
        rows = [self._of(one, wanted) for one in pictures]
        if any(set(row) != set(PATCHES) for row in rows):
            return self.whole(images, **options)
        return BatchFeature({name: torch.cat([row[name] for row in rows]) for name in PATCHES})

    def _of(self, picture: Image.Image, options: dict[str, Any]) -> Any:
        pixels = hashlib.blake2b(picture.tobytes()).digest()
        key = (pixels, picture.mode, picture.size, repr(sorted(options.items(), key=str)))
        if key not in self.made:
            self.made[key] = self.whole([picture], **options)
        return self.made[key]


def _flat(images: Any) -> list[Any]:
    """Pictures in the order in which a processor takes them, whether or not they are in lists by prompt."""
    if not isinstance(images, (list, tuple)):
        return [images]
    return [picture for one in images for picture in _flat(one)] if images else []
