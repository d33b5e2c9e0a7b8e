"""Process an image that occurs several times in a step only once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

OUTPUTS = ("pixel_values", "image_grid_thw")
"""The outputs of the image processors of the families that share a prefix."""


@contextmanager
def processed_once(processor: Any) -> Iterator[None]:
    """Within the block, the image processor reuses its output for images with equal pixels.

    TRL passes each image of a group to the processor G times, and once more for the training pass.
    """
    original = processor.image_processor
    processor.image_processor = _CachingImageProcessor(original)
    try:
        yield
    finally:
        processor.image_processor = original


class _CachingImageProcessor:
    """An image processor that keeps its output for each image."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.outputs: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        flat = _flatten(images)
        if not flat or not all(isinstance(image, Image.Image) for image in flat):
            return self.original(images, **options)
        outputs = [self._process(image, {**options, "return_tensors": "pt"}) for image in flat]
        if any(set(output) != set(OUTPUTS) for output in outputs):
            return self.original(images, **options)
        return BatchFeature({name: torch.cat([output[name] for output in outputs]) for name in OUTPUTS})

    def _process(self, image: Image.Image, options: dict[str, Any]) -> Any:
        pixels = hashlib.blake2b(image.tobytes()).digest()
        key = (pixels, image.mode, image.size, repr(sorted(options.items(), key=str)))
        if key not in self.outputs:
            self.outputs[key] = self.original([image], **options)
        return self.outputs[key]


def _flatten(images: Any) -> list[Any]:
    """The images of nested lists, in order."""
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for inner in images for image in _flatten(inner)]
