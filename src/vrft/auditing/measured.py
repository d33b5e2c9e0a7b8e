"""Measurements of images: each image is opened once, and its measurements are kept for the next audit.

The measurements of an image file are a line of JSON in a file of the cache, under a key of its path, size, time and
reading options: an audit that was ended goes on, and a second audit of the same files opens none. In memory an image
is a row of an array; its thumbnail is read from the cache where it is needed.
"""

import base64
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrft.auditing.burned_text import longest_row
from vrft.caches import state_of
from vrft.errors import UserError, first_line
from vrft.images import NOT_FINITE, burned_in, is_blank
from vrft.sample import ImageSource, file_of, open_image, read_as

VERSION = 1
"""Raised when measurements change; those in a cache are then made again."""

SIDE = 32
"""Pixels a side of a thumbnail."""

SYMMETRIES: dict[str, Image.Transpose | None] = {
    "copy": None,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 180 degrees": Image.Transpose.ROTATE_180,
    "turned by 90 degrees": Image.Transpose.ROTATE_90,
    "turned by 270 degrees": Image.Transpose.ROTATE_270,
    "mirrored at a diagonal": Image.Transpose.TRANSPOSE,
    "mirrored at the other diagonal": Image.Transpose.TRANSVERSE,
}
"""The ways in which a square can lie, by name."""

ROW = np.dtype(
    [
        ("key", "u8"),
        ("place", "i8"),
        ("pixels", "u8"),
        ("hashes", "u8", len(SYMMETRIES)),
        ("width", "i4"),
        ("height", "i4"),
        ("low", "u1"),
        ("high", "u1"),
        ("deviation", "f4"),
        ("blank", "?"),
        ("not_finite", "?"),
        ("burned_in", "?"),
        ("letters", "u2"),
        ("fault", "?"),
    ]
)
"""One image: its key (0 of an image without a file), the place of its line in the cache (below 0: of its thumbnail in
memory), a hash of its size and pixels, the perceptual hash in each of ``SYMMETRIES``, width and height, the first and
the 99th percentile and the deviation of its grey values, whether its header says that text is burned in, the
letters of the longest row of text in it, and whether it cannot be read."""


def measure(image: ImageSource) -> dict[str, Any]:
    """The measurements of an image as plain data; of an image that cannot be read the fault alone."""
    file = file_of(image)
    try:
        opened = open_image(image)
        stated = file is not None and burned_in(file.path, part=file.part, name=file.name) is True
    except UserError as error:
        return {"fault": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # of a function of the user's own
        return {"fault": f"could not be opened ({type(error).__name__}: {first_line(error)[:200]})."}
    digest = blake2b(repr(opened.size).encode(), digest_size=8)
    digest.update(opened.tobytes())
    grey = opened.convert("L")
    histogram = np.asarray(grey.histogram(), dtype=np.float64)
    share, values = np.cumsum(histogram) / histogram.sum(), np.arange(256)
    mean = float((histogram * values).sum() / histogram.sum())
    thumbnail = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    turned = [thumbnail if turn is None else thumbnail.transpose(turn) for turn in SYMMETRIES.values()]
    return {
        "pixels": int.from_bytes(digest.digest(), "big"),
        "hashes": [int(str(imagehash.phash(one)), 16) for one in turned],
        "size": opened.size,
        "low": int(np.searchsorted(share, 0.01)),
        "high": int(np.searchsorted(share, 0.99)),
        "deviation": float(np.sqrt((histogram * (values - mean) ** 2).sum() / histogram.sum())),
        "blank": is_blank(opened),
        "not_finite": NOT_FINITE in opened.info,
        "burned_in": stated,
        "letters": longest_row(opened),
        "thumbnail": base64.b64encode(thumbnail.tobytes()).decode(),
    }


class Measurements:
    """The measurements of many images, a row each.

    Args:
        path: of the file of the cache; where it cannot be written, measurements are kept in memory alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = np.zeros(1024, dtype=ROW)
        self.count = 0
        self.opened = 0
        """How many images were opened, and not found in the cache."""
        self.faults: dict[int, str] = {}
        """The message of each image that cannot be read, by its row."""
        self._thumbnails: list[bytes] = []
        self._known: dict[int, int] = {}
        self._file: IO[bytes] | None = None
        self._is_writable = True
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # thumbnails of patients are private
            self._file = path.open("a+b")
            self._load(self._file)

    def close(self) -> None:
        """Close the file of the cache."""
        if self._file is not None:
            self._file.close()

    def measure_all(self, images: Iterable[ImageSource], workers: int, done: Callable[[int], None]) -> Iterator[int]:
        """Measure images in threads, which opens those that are not in the cache.

        Args:
            images: taken as they are needed.
            workers: how many threads.
            done: is called with the number of images that are measured.

        Yields:
            The row of each image, in order.
        """
        waiting: deque[tuple[int, int, Future[dict[str, Any]] | None]] = deque()
        under_way: dict[int, Future[dict[str, Any]]] = {}
        finished = 0

        def take() -> int:
            nonlocal finished
            key, row, future = waiting.popleft()
            if future is not None and (row := self._known.get(key, -1)) < 0:
                row = self._add(key, future.result())
                under_way.pop(key, None)
            finished += 1
            done(finished)
            return row

        with ThreadPoolExecutor(workers) as pool:
            try:
                for image in images:
                    key = key_of(image)
                    row = self._known.get(key, -1)
                    future = None
                    if row < 0:
                        future = under_way.get(key) if key else None
                        if future is None:
                            future = pool.submit(measure, _whole(image))
                            if key:
                                under_way[key] = future
                    waiting.append((key, row, future))
                    if len(waiting) >= 16 * workers:
                        yield take()
                while waiting:
                    yield take()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def table(self) -> NDArray[Any]:
        """The rows that are filled, an array of ``ROW``."""
        return self.rows[: self.count]

    def thumbnail(self, row: int) -> NDArray[np.float32]:
        """The thumbnail of an image in grey, (``SIDE``, ``SIDE``), 0 .. 255."""
        place = int(self.rows[row]["place"])
        if place < 0:
            data = self._thumbnails[-1 - place]
        else:
            assert self._file is not None
            self._file.seek(place)
            data = base64.b64decode(json.loads(self._file.readline())["thumbnail"])
        return np.frombuffer(data, dtype=np.uint8).reshape(SIDE, SIDE).astype(np.float32)

    def _load(self, file: IO[bytes]) -> None:
        """Read the lines of the cache; half a line, which an audit that was killed has left, is closed."""
        file.seek(0)
        place, whole = 0, True
        for line in file:
            with suppress(ValueError, KeyError, TypeError, IndexError):
                found = json.loads(line)
                if found.pop("version") == VERSION:
                    self._put(found.pop("key"), place, found)
            place, whole = place + len(line), line.endswith(b"\n")
        if not whole:
            file.write(b"\n")

    def _add(self, key: int, found: dict[str, Any]) -> int:
        """Keep new measurements; returns their row. A fault is not kept beyond this audit, since it may be mended."""
        place = 0
        if "thumbnail" in found and not (key and self._is_writable and self._file):
            self._thumbnails.append(base64.b64decode(found["thumbnail"]))
            place = -len(self._thumbnails)
        elif "thumbnail" in found:
            assert self._file is not None
            place = self._file.seek(0, 2)
            try:
                self._file.write(json.dumps({"version": VERSION, "key": key, **found}).encode() + b"\n")
                self._file.flush()
            except OSError:  # a full disk
                self._is_writable = False
                return self._add(key, found)
        self.opened += 1
        return self._put(key, place, found)

    def _put(self, key: int, place: int, found: dict[str, Any]) -> int:
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros(len(self.rows), dtype=ROW)])
        row = self.rows[self.count]
        row["key"], row["place"] = key, place
        if "fault" in found:
            row["fault"] = True
            self.faults[self.count] = found["fault"]
        else:
            row["width"], row["height"] = found["size"]
            for name in ("pixels", "hashes", "low", "high", "deviation", "blank", "not_finite", "burned_in", "letters"):
                row[name] = found[name]
        if key:
            self._known[key] = self.count
        self.count += 1
        return self.count - 1


def key_of(image: ImageSource) -> int:
    """A number from path, size, time and reading options of an image file; 0 where it comes from no file.

    A region has the key of its whole image.
    """
    file = file_of(image)
    if file is None:
        return 0
    changed: list[Any] = []
    with suppress(OSError, ValueError):
        changed = state_of(file.path)
    text = json.dumps([str(file.path.absolute()), changed, read_as(_whole(image))])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def _whole(image: ImageSource) -> ImageSource:
    """The image without its region."""
    file = file_of(image)
    return image if file is None or file.region is None else replace(file, region=None)
