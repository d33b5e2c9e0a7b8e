"""Checks of images: unreadable, blank, dark, small; exact and near duplicates; visual tokens."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft.auditing.burned_text import LETTERS
from vrft.auditing.collected import Collected, DataSection
from vrft.auditing.duplicates import near_pairs
from vrft.auditing.findings import Finding, Severity, Vision, examples, plural
from vrft.auditing.measured import Measurements
from vrft.boxes import Size
from vrft.data.splits import SPLITS
from vrft.sample import file_of

DARK, BRIGHT, FLAT = 30, 225, 4.0
"""Grey values: 99% of the pixels are below the first, or above the second; their deviation is below the third."""

ASPECT = 200
"""The processors of Qwen-VL refuse an image of which a side is more than so many times the other."""

MEANINGS: dict[str, tuple[Severity, str]] = {
    "blank": (
        "warning",
        "of one value only: there is nothing to see, and any reward for them is chance; replace or remove them, or "
        "check the window of deep images.",
    ),
    "not_finite": ("warning", "with pixels that are no numbers, which become black; export them anew."),
    "burned_in_tag": (
        "warning",
        "whose DICOM header says that text is burned into the pixels (BurnedInAnnotation): names and dates may be in "
        "it, and a policy can read it; mask it, or leave them out.",
    ),
    "burned_in_text": (
        "warning",
        "with what may be text burned into the pixels: names and dates of patients would reach the policy, and a mark "
        "of a hospital or a set can give the answer away; view them, and mask what is text.",
    ),
    "dark": (
        "warning",
        f"very dark (99% of the pixels below {DARK} of 255): a policy may see nothing; set data.window for deep "
        "images, or export them brighter.",
    ),
    "bright": (
        "warning",
        f"very bright (99% of the pixels above {BRIGHT} of 255): a policy may see nothing; check the window, or the "
        "export.",
    ),
    "low_contrast": (
        "warning",
        f"with little contrast (a deviation below {FLAT:g} of 255 grey values): a policy may see nothing; check the "
        "window, or the export.",
    ),
    "tiny": (
        "warning",
        "with a side below {token} pixels, a visual token of this policy: the processor magnifies them, which adds no "
        "detail; use larger images.",
    ),
    "aspect": (
        "error",
        f"with one side more than {ASPECT} times the other, which the processor refuses: a run would stop; cut or pad "
        "them.",
    ),
    "resized_down": (
        "note",
        "with more than {most:,} pixels, the most of this policy: they are resized down, and small findings lose "
        "detail; raise policy.max_pixels, or cut the images to the region of interest.",
    ),
}
"""The severity and the sentence of the findings about single images."""


def sizes_of(found: Collected, measurements: Measurements) -> list[Size | None]:
    """Width and height of each image, or of its region; None where it cannot be read."""
    table, sizes, place = measurements.table(), [], 0
    for number in range(len(found)):
        for image in found.sample(number).images:
            row = table[found.image_row[place]]
            file = file_of(image)
            size: Size | None = (int(row["width"]), int(row["height"]))
            if file is not None and file.region is not None:
                x1, y1, x2, y2 = file.region
                size = x2 - x1, y2 - y1
            sizes.append(None if row["fault"] else size)
            place += 1
    return sizes


def figures_of(sizes: list[Size | None], vision: Vision) -> dict[str, Any]:
    """The number of images and the distribution of their sizes and visual tokens."""
    known = Counter(size for size in sizes if size is not None)
    figures: dict[str, Any] = {"opened": len(sizes), "unreadable": len(sizes) - known.total()}
    if not known:
        return figures
    widths, heights = zip(*known, strict=True)
    weights = list(known.values())
    figures["sizes"] = [[*size, count] for size, count in known.most_common(10)]
    figures["width"], figures["height"] = _spread(widths, weights), _spread(heights, weights)
    if vision.resize is None:
        return figures | {"tokens": None, "tokens_missing": vision.missing}
    tokens = {size: _tokens(size, vision) for size in known}
    if counted := [(value, known[size]) for size, value in tokens.items() if value]:
        figures["tokens"] = _spread(*zip(*counted, strict=True))
    if vision.max_pixels is not None:
        figures["resized_down"] = sum(n for (w, h), n in known.items() if w * h > vision.max_pixels)
        figures["max_pixels"] = vision.max_pixels
    return figures


def _tokens(size: Size, vision: Vision) -> int:
    """The visual tokens of an image; 0 where the processor refuses it."""
    assert vision.resize is not None
    if min(size) < 1 or max(size) > ASPECT * min(size):
        return 0
    width, height = vision.resize(size)
    return width * height // vision.token**2


def _spread(values: Any, weights: Any) -> dict[str, int]:
    """The least, the median and the greatest of values with weights."""
    order = np.argsort(values, kind="stable")
    ranked, until = np.asarray(values)[order], np.cumsum(np.asarray(weights)[order])
    middle = ranked[np.searchsorted(until, until[-1] / 2)]
    return {"min": int(ranked[0]), "median": int(middle), "max": int(ranked[-1])}


def check_images(
    section: DataSection, found: Collected, measurements: Measurements, sizes: list[Size | None], vision: Vision
) -> Iterator[Finding]:
    """Images that cannot be read, show nothing, or do not fit the processor of the policy."""
    if not len(found.image_row):
        return
    table = measurements.table()
    rows, owner = np.asarray(found.image_row), np.asarray(found.image_sample)
    read = ~table["fault"][rows]
    shape = np.array([size or (0, 0) for size in sizes])
    low, high = shape.min(axis=1), shape.max(axis=1)
    skips = getattr(section.data, "on_bad_sample", "fail") == "skip"
    if not read.all():
        faults = [(int(owner[i]), measurements.faults[int(rows[i])]) for i in np.flatnonzero(~read)]
        what = "are left out of a run" if skips else "a run would stop at the first"
        message = f"{plural(len(faults), 'image')} cannot be read, and {what}; replace or remove them."
        names = examples(f"{found.name(sample)}: {fault}" for sample, fault in faults)
        yield Finding("unreadable", "warning" if skips else "error", message, names, len(faults))

    dark, bright = table["high"][rows] < DARK, table["low"][rows] > BRIGHT
    blank = table["blank"][rows]
    masks = {
        "blank": blank,
        "not_finite": table["not_finite"][rows],
        "burned_in_tag": table["burned_in"][rows],
        "burned_in_text": table["letters"][rows] >= LETTERS,
        "dark": dark & ~blank,
        "bright": bright & ~blank,
        "low_contrast": (table["deviation"][rows] < FLAT) & ~blank & ~dark & ~bright,
        "tiny": low < vision.token,
        "aspect": high > ASPECT * low,
        "resized_down": shape.prod(axis=1) > (vision.max_pixels or np.inf),
    }
    for code, mask in masks.items():
        chosen = np.flatnonzero(mask & read)
        if len(chosen):
            severity, meaning = MEANINGS[code]
            meaning = meaning.format(token=vision.token, most=vision.max_pixels or 0)
            where = found.names(owner[chosen[:20]])
            yield Finding(code, severity, f"{plural(len(chosen), 'image')} {meaning}", where, len(chosen))


def check_duplicates(section: DataSection, found: Collected, measurements: Measurements) -> Iterator[Finding]:
    """The same image in several splits or samples, exactly or nearly; the same image with different targets."""
    if not len(found.image_row):
        return
    table = measurements.table()
    rows, owner = np.asarray(found.image_row), np.asarray(found.image_sample)
    usable = ~table["fault"][rows] & ~table["blank"][rows]
    rows, owner = rows[usable], owner[usable]
    split = np.asarray(found.split)[owner]
    _, first, group = np.unique(table["pixels"][rows], return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups of equal pixels in the order of the samples
    first, group = first[order], np.argsort(order)[group]
    tested = SPLITS.index(section.recipe.evaluation.split)
    yield from _exact(found, group, owner, split, tested)
    yield from _within(found, group, owner)
    bits = np.zeros(len(first), dtype=np.uint8)
    np.bitwise_or.at(bits, group, (1 << split).astype(np.uint8))
    pairs = near_pairs(table["hashes"][rows[first]], lambda index: measurements.thumbnail(int(rows[first[index]])))
    across: list[tuple[int, int, str]] = []
    within: list[tuple[int, int, str]] = []
    for a, b, how in pairs:
        (across if (bits[a] | bits[b]).bit_count() > 1 and bits[a] != bits[b] else within).append((a, b, how))

    def shown(some: list[tuple[int, int, str]]) -> list[str]:
        return examples(
            f"{found.name(int(owner[first[a]]))} and {found.name(int(owner[first[b]]))}, {how}" for a, b, how in some
        )

    if across:
        across.sort(key=lambda pair: not (bits[pair[0]] | bits[pair[1]]) >> tested & 1)
        inside = {index for pair in across for index in pair[:2] if bits[index] >> tested & 1}
        total = int((bits >> tested & 1).sum())
        message = (
            f"{plural(len(across), 'pair')} of nearly the same image in two splits ({len(inside)} of {total:,} images "
            f"of {SPLITS[tested]} have one): a result on them is partly memory. View the pairs, and put each into one "
            f"split, best by splitting by patient."
        )
        yield Finding("near_duplicate_across_splits", "warning", message, shown(across), len(across))
    if within:
        message = (
            f"{plural(len(within), 'pair')} of nearly the same image inside a split: they count as independent samples "
            f"and are not; name the patient, so that intervals count them together."
        )
        yield Finding("near_duplicate", "note", message, shown(within), len(within))


def _exact(
    found: Collected, group: NDArray[Any], owner: NDArray[Any], split: NDArray[Any], tested: int
) -> Iterator[Finding]:
    """Images of equal pixels in several splits."""
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
    shared: dict[bool, list[NDArray[Any]]] = defaultdict(list)
    for start, end in pairwise(bounds):
        if end - start > 1:
            members = order[start:end]
            splits = set(split[members].tolist())
            if len(splits) > 1:
                shared[tested in splits].append(members)
    for with_test, groups in sorted(shared.items(), reverse=True):
        lists = examples(
            " and ".join(dict.fromkeys(found.name(int(owner[member])) for member in members[:6])) for members in groups
        )
        if with_test:
            name = SPLITS[tested]
            message = (
                f"{plural(len(groups), 'image')} of {name} with the same pixels in another split: a result on {name} "
                f"is partly memory. Remove them from one of the splits, or make splits by patient."
            )
            yield Finding("duplicate_across_splits", "error", message, lists, len(groups))
        else:
            message = (
                f"{plural(len(groups), 'image')} with the same pixels in train and validation: settings that are "
                f"chosen on validation favour memory. Remove them from one of the splits."
            )
            yield Finding("duplicate_in_validation", "warning", message, lists, len(groups))


def _within(found: Collected, group: NDArray[Any], owner: NDArray[Any]) -> Iterator[Finding]:
    """Samples of the same images and question: copies inside a split, and copies with different targets."""
    samples: dict[int, list[int]] = defaultdict(list)
    for image, number in zip(group.tolist(), owner.tolist(), strict=True):
        samples[number].append(image)
    same: dict[int, list[int]] = defaultdict(list)
    for number, images in samples.items():
        same[hash((tuple(images), found.asked[number]))].append(number)
    copies, contradicting = [], []
    for numbers in same.values():
        if len(numbers) < 2:
            continue
        if len({found.target[number] for number in numbers}) > 1:
            contradicting.append(numbers)
        if max(Counter(found.split[number] for number in numbers).values()) > 1:
            copies.append(numbers)
    if contradicting:
        message = (
            f"{plural(len(contradicting), 'image')} with the same question and different targets: no answer to them is "
            f"right, and the reward pays one of them at random. Decide which target is true, and remove the others."
        )
        where = examples(
            " and ".join(f"{found.name(number)}: {_short(found.sample(number).target)}" for number in numbers[:4])
            for numbers in contradicting
        )
        yield Finding("contradicting_targets", "error", message, where, len(contradicting))
    if copies:
        message = (
            f"{plural(len(copies), 'image')} more than once in a split, with the same question: they weigh more, and "
            f"intervals count them as independent; keep one of each."
        )
        where = examples(" and ".join(map(found.name, numbers[:4])) for numbers in copies)
        yield Finding("duplicate", "warning", message, where, len(copies))


def _short(target: object) -> str:
    text = str(target)
    return text if len(text) <= 60 else text[:57] + "..."
