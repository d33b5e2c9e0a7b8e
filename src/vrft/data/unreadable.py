"""Samples whose images cannot be read, which a recipe may leave out (`on_bad_sample: skip`)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from vrft.errors import DataError
from vrft.image_log import ImageLog
from vrft.sample import Sample, open_image


def readable(samples: Sequence[Sample], image_log: ImageLog) -> Sequence[Sample]:
    """The samples whose images can be read; the others are noted in the log. Every image is decoded once."""

    def is_readable(index: int) -> bool:
        try:
            sample = samples[index]
            for image in sample.images:
                open_image(image)
        except DataError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        good = [index for index, taken in enumerate(pool.map(is_readable, range(len(samples)))) if taken]
    for index in sorted(set(range(len(samples))) - set(good)):
        image_log.note_unreadable(_name_of(samples, index))
    return samples if len(good) == len(samples) else [samples[index] for index in good]


def _name_of(samples: Sequence[Sample], index: int) -> str:
    """The name of a sample, or its place where the sample cannot be made."""
    try:
        return samples[index].id
    except DataError:
        return f"sample {index}"
