"""Images that are decoded and resized once: compact arrays on disk, mapped into memory.

What is kept is the image as the policy's processor will take it, RGB in whole numbers of 0 to 255, so that of a large
photograph no more is read again than the pixels that the policy sees. A key is made of the bytes of the file, how it is
read (region, window, page), and the settings of the processor.
"""

import hashlib
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
from vrft.images import NOT_FINITE, RULES, inspect_bytes
from vrft.policies.families import processed_size
from vrft.sample import Sample, file_of, open_image


def default_folder() -> Path:
    """``VRFT_CACHE``, or ``vrft`` in the user's cache folder."""
    given = os.environ.get("VRFT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrft"


class ImageCache:
    """A folder of resized images that several runs may share.

    Args:
        folder: made when the first image is kept.
        limit: bytes. When it is reached, images that were not used since this object was made give way, the oldest
            first; where there are none no more are kept, since a cache that turns over in each epoch finds nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.began, self.held, self.hits = math.floor(time.time()), -1, 0
        self.writes = True

    def open(self, sample: Sample, processor: Any, config: Any) -> tuple[Image.Image, Size]:
        """The image of a sample as the processor will take it, in RGB, and the size of the original.

        Images that come from no file, and those of a processor whose resize is not known or not final, are as they are.

        Raises:
            DataError: the file is missing or is no readable image.
        """
        read = file_of(sample)
        if read is None:
            image = open_image(sample)
            return image, image.size
        try:
            data = read.path.read_bytes()
        except OSError:
            image = open_image(sample)  # which says what is wrong
            return image, image.size
        size, region = inspect_bytes(data, read.path, read.page).size, read.region
        if region is not None:
            size = region[2] - region[0], region[3] - region[1]
        wanted = processed_size(size, config, processor)
        resize = _resize_of(processor)
        if resize is None or processed_size(wanted, config, processor) != wanted:
            return open_image(sample), size
        digest = hashlib.blake2b(data, digest_size=20)
        digest.update(repr((RULES, region, read.window, read.page, wanted, _settings(processor))).encode())
        place = self.folder / "images" / digest.hexdigest()[:2] / f"{digest.hexdigest()}.npy"
        kept = _load(place, wanted)
        if kept is None:
            image = open_image(sample)
            kept = resize(image)
            if NOT_FINITE in image.info:  # which the kept pixels would not tell
                result = Image.fromarray(kept)
                result.info = image.info
                return result, size
            self._keep(place, kept)
        else:
            self.hits += 1
        return Image.fromarray(kept), size

    def _keep(self, place: Path, pixels: NDArray[np.uint8]) -> None:
        """Write an array where there is room; a full or protected disk is no failure."""
        needed = pixels.nbytes + 128  # the header
        try:
            self.writes = self.writes and self._make_room(needed)
            if not self.writes:
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # images of patients are nobody else's
            place.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: other processes may write the same image.
            with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as fresh:
                np.save(fresh, pixels, allow_pickle=False)
            _mark_used(Path(fresh.name))
            os.replace(fresh.name, place)
            self.held += needed
        except OSError:
            self.writes = False

    def _make_room(self, needed: int) -> bool:
        if self.held < 0:
            self.held = sum(one.stat().st_size for one in self.folder.glob("images/*/*.npy"))
        if self.held + needed > self.limit:
            files = [(one.stat(), one) for one in self.folder.glob("images/*/*.npy")]
            unused = sorted((stat.st_mtime, stat.st_size, one) for stat, one in files if stat.st_mtime < self.began)
            self.held = sum(stat.st_size for stat, _ in files)
            for _, size, one in unused:
                if self.held + needed <= self.limit:
                    break
                one.unlink(missing_ok=True)
                self.held -= size
        return self.held + needed <= self.limit


def _settings(processor: Any) -> tuple[Any, ...]:
    """What decides how an image is resized."""
    of = processor.image_processor
    bounds = (of.size["shortest_edge"], of.size["longest_edge"])
    versions = (torch.__version__, torchvision.__version__, PIL.__version__)  # another may give other pixels
    return (type(of).__name__, int(of.resample), of.patch_size, of.merge_size, bounds, versions)


def _resize_of(processor: Any) -> Callable[[Image.Image], NDArray[np.uint8]] | None:
    """The very resize of a processor, (height, width, 3); None where it does none on whole numbers."""
    of = getattr(processor, "image_processor", None)
    if of is None or not getattr(of, "do_resize", False) or not hasattr(of, "patchify"):
        return None

    def resize(image: Image.Image) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        resized = of.resize(images=pixels, size=of.size, resample=of.resample, factor=of.patch_size * of.merge_size)
        return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())

    return resize


def _mark_used(place: Path) -> None:
    """Set the time of a file by the clock of ``ImageCache.began``; that of the file system may lag behind it."""
    now = time.time()
    os.utime(place, (now, now))


def _load(place: Path, size: Size) -> NDArray[np.uint8] | None:
    """The array in a file; None where there is none, or one that was damaged."""
    try:
        pixels = np.load(place, mmap_mode="r", allow_pickle=False)
        _mark_used(place)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == (size[1], size[0], 3) and pixels.dtype == np.uint8 else None
