"""Near duplicates: pairs of images that are the same picture scaled, compressed, brightened, mirrored or turned.

A pair is near if the perceptual hashes (``imagehash.phash``, 64 bits) differ in at most ``BITS`` bits, and the details
of the thumbnails correlate with at least ``CORRELATION``. The first finds candidates among many images quickly. The
second removes false alarms, since medical images of one kind have similar hashes: details are a thumbnail minus its
blurred self, without the part that they share with the mean of all details (the border of a retina, the ribs).
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vrft.auditing.measured import SYMMETRIES

BITS = 6
"""Bits of 64 in which the perceptual hashes of a near pair may differ."""

CORRELATION = 0.93
"""The least correlation of the details of a near pair; with ``BITS`` it was chosen on real sets (``docs/audit.md``)."""

BLUR = 2.0
"""The deviation of the blur that is subtracted, in pixels of a thumbnail."""

FEW, MANY = 30, 2000
"""With fewer images their mean says nothing; of more, so many give it."""

BLOCK, CHUNK = 1 << 20, 1 << 12
"""Pairs of hashes, and of thumbnails, that are compared at once."""

Hashes = NDArray[np.uint64]
Thumbnail = NDArray[np.float32]


def near_hashes(
    hashes: Hashes, others: Hashes, bits: int = BITS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The pairs of hashes that differ in at most ``bits`` bits, in blocks; a pair may come several times.

    Of the four parts (16 bits) of two such hashes one differs in at most a quarter of the bits, which is none or one:
    so each hash is compared only with those that have a part equal to its own, or to its own with one bit changed.

    Args:
        hashes: n hashes of 64 bits.
        others: m hashes of 64 bits.
        bits: the most bits that differ, 7 or less.

    Yields:
        Indices into ``hashes`` and into ``others``, of one length.

    >>> pairs = near_hashes(np.array([0, 255], "u8"), np.array([1], "u8"), bits=1)
    >>> {(int(a), int(b)) for one, other in pairs for a, b in zip(one, other)}
    {(0, 0)}
    """
    changes = [0, *(1 << bit for bit in range(16))] if bits >= 4 else [0]
    for start in (0, 16, 32, 48):
        ours, theirs = (
            ((every >> np.uint64(start)) & np.uint64(0xFFFF)).astype(np.int64) for every in (hashes, others)
        )
        order = np.argsort(theirs, kind="stable")
        ranked = others[order]
        ends = np.concatenate([[0], np.cumsum(np.bincount(theirs, minlength=1 << 16))])
        for change in changes:
            first, last = ends[ours ^ change], ends[(ours ^ change) + 1]
            until = np.cumsum(last - first)
            begin = 0
            while begin < len(hashes):
                before = int(until[begin - 1]) if begin else 0
                stop = max(begin + 1, int(np.searchsorted(until, before + BLOCK, "right")))
                lengths = (last - first)[begin:stop]
                one = np.repeat(np.arange(begin, stop), lengths)
                skipped = np.repeat(first[begin:stop] - np.cumsum(lengths) + lengths, lengths)
                place = np.arange(len(one)) + skipped
                close = np.bitwise_count(hashes[one] ^ ranked[place]) <= bits
                if close.any():
                    yield one[close], order[place[close]]
                begin = stop


def near_pairs(
    hashes: Hashes, thumbnail: Callable[[int], Thumbnail], *, bits: int = BITS, least: float = CORRELATION
) -> list[tuple[int, int, str]]:
    """All near pairs among images of different pixels.

    Args:
        hashes: (n, 8), the perceptual hash of each image in each of ``SYMMETRIES``.
        thumbnail: gives the thumbnail of an image by its index.
        bits: the most bits in which hashes differ.
        least: the least correlation.

    Returns:
        The indices of both images, the smaller first, and how the second lies to the first, in order.
    """
    common = _common_detail(len(hashes), thumbnail)
    stored = lru_cache(maxsize=1 << 16)(lambda index: _detail(thumbnail(index), common).astype(np.float16))
    plain = np.ascontiguousarray(hashes[:, 0])
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for column, name in enumerate(SYMMETRIES):
        for one, other in near_hashes(np.ascontiguousarray(hashes[:, column]), plain, bits):
            ordered = one < other  # the pair in the other order is another symmetry, which is listed too
            pairs = np.unique(np.stack([one[ordered], other[ordered]], axis=1), axis=0)
            for start in range(0, len(pairs), CHUNK):
                some = pairs[start : start + CHUNK]
                ours = TURN[name](np.stack([stored(index) for index in some[:, 0].tolist()])).astype(np.float32)
                theirs = np.stack([stored(index) for index in some[:, 1].tolist()]).astype(np.float32)
                for (a, b), correlation in zip(some.tolist(), (ours * theirs).sum(axis=(1, 2)).tolist(), strict=True):
                    if correlation >= least and correlation > best.get((a, b), (0.0, ""))[0]:
                        best[a, b] = correlation, name
    return [(a, b, name) for (a, b), (_, name) in sorted(best.items())]


def _common_detail(count: int, thumbnail: Callable[[int], Thumbnail]) -> Thumbnail | None:
    """The mean of the details of images in all symmetries, of length 1; None with few images, or without a mean."""
    if count < FEW:
        return None
    chosen = np.unique(np.linspace(0, count - 1, min(count, MANY)).astype(int)).tolist()
    mean = np.mean([_detail(thumbnail(index), None) for index in chosen], axis=0)
    every: Thumbnail = np.mean([turn(mean[None])[0] for turn in TURN.values()], axis=0)
    length = float(np.linalg.norm(every))
    return every / length if length else None


def _detail(thumbnail: Thumbnail, common: Thumbnail | None) -> Thumbnail:
    """The details of a thumbnail without those that are common, of mean 0 and length 1; 0 where there are none."""
    detail = thumbnail - gaussian_filter(thumbnail, BLUR, mode="nearest")
    detail -= detail.mean()
    if common is not None:
        detail -= (detail * common).sum() * common
    length = float(np.linalg.norm(detail))
    return detail / length if length > 1e-3 else np.zeros_like(detail)


TURN: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "copy": lambda stack: stack,
    "mirrored": lambda stack: stack[:, :, ::-1],
    "upside down": lambda stack: stack[:, ::-1],
    "turned by 180 degrees": lambda stack: stack[:, ::-1, ::-1],
    "turned by 90 degrees": lambda stack: np.rot90(stack, 1, (1, 2)),
    "turned by 270 degrees": lambda stack: np.rot90(stack, 3, (1, 2)),
    "mirrored at a diagonal": lambda stack: stack.transpose(0, 2, 1),
    "mirrored at the other diagonal": lambda stack: stack[:, ::-1, ::-1].transpose(0, 2, 1),
}
"""The symmetries of ``SYMMETRIES`` for a stack of thumbnails, (n, side, side)."""
