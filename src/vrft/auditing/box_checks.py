"""Checks of boxes: degenerate, outside, tiny, equal, nearly equal, and as large as the image."""

from collections.abc import Iterator, Sequence

import numpy as np

from vrft.auditing.collected import Collected
from vrft.auditing.findings import Finding, Severity, Vision, plural
from vrft.boxes import Size, has_area, iou
from vrft.sample import Box

SMALL = 0.01
"""A side below this share of the side of the image is tiny."""

EQUAL = 0.95
"""Boxes of one image with more overlap (IoU) are nearly the same."""

WHOLE = 0.95
"""A box over more of the image than this share says nothing about a place."""

MEANINGS: dict[str, tuple[Severity, str]] = {
    "box_no_area": (
        "error",
        "without area, or with swapped corners: no answer can overlap with them; mend or remove them.",
    ),
    "box_outside": (
        "error",
        "outside the image: check the order of the coordinates (x first), their unit, and the size of the image.",
    ),
    "box_leaves_image": (
        "warning",
        "that leave the image by more than a pixel, where no answer can follow; check their unit and their size.",
    ),
    "box_tiny": (
        "warning",
        f"with a side below {SMALL:.0%} of that of the image, or below half a visual token after the resize: the "
        "policy hardly sees them, and the rounding of an answer costs overlap; leave them out, or cut the images.",
    ),
    "box_duplicate": ("warning", "equal to another box of the image: each is counted as a finding; keep one of each."),
    "box_nearly_equal": (
        "warning",
        f"that overlap with another box of the image by more than {EQUAL:.0%} (IoU), which may be one finding drawn "
        "twice; keep one of each if so.",
    ),
    "box_whole_image": (
        "warning",
        f"over more than {WHOLE:.0%} of the image: an answer without a view of the image earns the reward; check them.",
    ),
    "no_boxes": (
        "note",
        "without boxes: an answer that nothing is there earns the full reward; task.absence: true says so in the "
        "prompt.",
    ),
}
"""The severity and the sentence of each kind of finding."""


def faults_of(boxes: Sequence[Box], size: Size, vision: Vision) -> Iterator[str]:
    """The keys of ``MEANINGS`` for the boxes of an image, each as often as there are such boxes.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the image.
        size: width and height of the image.
        vision: how the policy sees it.

    >>> list(faults_of([(0, 0, 100, 100), (5, 5, 5, 9), (50, 50, 50.5, 90)], (100, 100), Vision()))
    ['box_no_area', 'box_whole_image', 'box_tiny']
    """
    if not boxes:
        yield "no_boxes"
    width, height = size
    resized = vision.resize(size) if vision.resize and max(size) <= 200 * min(size) else size
    valid = [box for box in boxes if has_area(box)]
    yield from ("box_no_area" for _ in range(len(boxes) - len(valid)))
    inside = [box for box in valid if box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0]
    yield from ("box_outside" for _ in range(len(valid) - len(inside)))
    for x1, y1, x2, y2 in inside:
        if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
            yield "box_leaves_image"
        wide, high = (x2 - x1) / width, (y2 - y1) / height
        if wide * high > WHOLE:
            yield "box_whole_image"
        seen = min(wide * resized[0], high * resized[1])
        if min(wide, high) < SMALL or (vision.resize is not None and seen < vision.token / 2):
            yield "box_tiny"
    if len(inside) > 1:
        pairs = np.triu(iou(inside, inside), 1)
        equal = sum(box in inside[:index] for index, box in enumerate(inside))
        yield from ("box_duplicate" for _ in range(equal))
        yield from ("box_nearly_equal" for _ in range(int((pairs > EQUAL).any(axis=0).sum()) - equal))


class BoxFaults:
    """Collects the faults of the boxes of many samples."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.samples: dict[str, list[int]] = {}

    def add(self, number: int, boxes: Sequence[Box], size: Size, vision: Vision) -> None:
        """Add the boxes of a sample."""
        for code in faults_of(boxes, size, vision):
            self.counts[code] = self.counts.get(code, 0) + 1
            named = self.samples.setdefault(code, [])
            if len(named) < 20 and number not in named:
                named.append(number)

    def findings(self, found: Collected) -> Iterator[Finding]:
        """A finding for each kind of fault."""
        for code, (severity, meaning) in MEANINGS.items():
            if count := self.counts.get(code, 0):
                noun = "image" if code == "no_boxes" else "box"
                yield Finding(
                    code, severity, f"{plural(count, noun)} {meaning}", found.names(self.samples[code]), count
                )
