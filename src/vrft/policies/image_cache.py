"""A cache of decoded and resized images: arrays on disk, mapped into memory.

The cache keeps an image after the processor's resize, as RGB values from 0 to 255, so that only the pixels that the
policy sees are read again. A key depends on the bytes of the file, the way it is read (region, window, page, axis), and
the settings of the processor. In place of bytes stand the names, sizes and times of a file with pages and of a series,
and the identity of an image that is no file, such as a part of a remote shard.
"""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from vrft.boxes import Size
from vrft.caches import state_of
from vrft.images import NOT_FINITE, RULES, read_part
from vrft.policies.families import processed_size
from vrft.sample import ImageBytes, ImageSource, open_image, size_of, stored


class ImageCache:
    """A folder of resized images that several runs may share.

    Args:
        folder: created with the first image.
        limit: bytes. At the limit, images that were not used since this object was created are deleted, the oldest
            first. If there are none, no image is added: a cache that is replaced in each epoch has no hits.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.created, self.size, self.hits = math.floor(time.time()), -1, 0
        self.is_writable = True

    def open(self, source: ImageSource, processor: Any, config: Any) -> tuple[Image.Image, Size]:
        """An image of a sample in RGB and resized, and width and height of the original.

        An image without a file is returned unchanged, and so is an image that the processor would resize a second time.

        Raises:
            DataError: the file is missing or is no readable image.
        """
        read = stored(source)
        if read is None:
            image = open_image(source)
            return image, image.size
        try:
            if isinstance(read, ImageBytes):
                data = json.dumps(read.source.identity).encode()
            elif read.page is not None and read.part is None:
                data = json.dumps([os.path.abspath(read.path), state_of(read.path)]).encode()
            else:
                data = read.path.read_bytes() if read.part is None else read_part(read.path, read.part, read.name)
        except OSError:
            image = open_image(source)  # raises the error for the user
            return image, image.size
        size = size_of(source)
        resized = processed_size(size, config, processor)
        resize = _resize_of(processor)
        if resize is None or processed_size(resized, config, processor) != resized:
            return open_image(source), size
        digest = hashlib.blake2b(data, digest_size=20)
        options = (RULES, read.region, read.window, read.page, read.axis, resized, _settings(processor))
        digest.update(repr(options).encode())
        path = self.folder / "images" / digest.hexdigest()[:2] / f"{digest.hexdigest()}.npy"
        pixels = _load(path, resized)
        if pixels is None:
            image = open_image(source)
            pixels = resize(image)
            if NOT_FINITE in image.info:  # the array would lose this note
                result = Image.fromarray(pixels)
                result.info = image.info
                return result, size
            self._add(path, pixels)
        else:
            self.hits += 1
        return Image.fromarray(pixels), size

    def _add(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        """Write an array if it fits; a full or read-only disk is no error."""
        needed = pixels.nbytes + 128  # the header
        try:
            self.is_writable = self.is_writable and self._has_space(needed)
            if not self.is_writable:
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # images of patients are private
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under a temporary name, since other processes may write the same image.
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                np.save(file, pixels, allow_pickle=False)
            _mark_used(Path(file.name))
            os.replace(file.name, path)
            self.size += needed
        except OSError:
            self.is_writable = False

    def _has_space(self, needed: int) -> bool:
        """Delete unused images until ``needed`` bytes fit; returns whether they do."""
        if self.size < 0:
            self.size = sum(file.stat().st_size for file in self.folder.glob("images/*/*.npy"))
        if self.size + needed > self.limit:
            files = [(file.stat(), file) for file in self.folder.glob("images/*/*.npy")]
            unused = sorted((stat.st_mtime, stat.st_size, file) for stat, file in files if stat.st_mtime < self.created)
            self.size = sum(stat.st_size for stat, _ in files)
            for _, size, file in unused:
                if self.size + needed <= self.limit:
                    break
                file.unlink(missing_ok=True)
                self.size -= size
        return self.size + needed <= self.limit


def _settings(processor: Any) -> tuple[Any, ...]:
    """Everything that a resize depends on."""
    resizer = processor.image_processor
    bounds = (resizer.size["shortest_edge"], resizer.size["longest_edge"])
    versions = (torch.__version__, torchvision.__version__, PIL.__version__)  # other versions may give other pixels
    return (type(resizer).__name__, int(resizer.resample), resizer.patch_size, resizer.merge_size, bounds, versions)


def _resize_of(processor: Any) -> Callable[[Image.Image], NDArray[np.uint8]] | None:
    """The resize function of a processor, to (height, width, 3); None where it does not resize integer pixels."""
    resizer = getattr(processor, "image_processor", None)
    if resizer is None or not getattr(resizer, "do_resize", False) or not hasattr(resizer, "patchify"):
        return None

    def resize(image: Image.Image) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        factor = resizer.patch_size * resizer.merge_size
        resized = resizer.resize(images=pixels, size=resizer.size, resample=resizer.resample, factor=factor)
        return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())

    return resize


def _mark_used(path: Path) -> None:
    """Set the time of a file by the clock of ``ImageCache.created``; the clock of the file system may differ."""
    now = time.time()
    os.utime(path, (now, now))


def _load(path: Path, size: Size) -> NDArray[np.uint8] | None:
    """The array in a file; None where the file is missing or damaged."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        _mark_used(path)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == (size[1], size[0], 3) and pixels.dtype == np.uint8 else None
