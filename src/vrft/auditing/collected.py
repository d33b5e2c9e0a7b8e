"""The samples of one data section of a recipe, in compact arrays, each with the rows of its measured images."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft.auditing.findings import Finding, examples
from vrft.auditing.measured import Measurements
from vrft.data import Source
from vrft.data.splits import SPLITS
from vrft.errors import UserError
from vrft.progress import Reporter
from vrft.recipe import Recipe, RftStage, SftStage
from vrft.sample import ImageSource, Sample, file_of
from vrft.tasks import TrainableTask


@dataclass
class DataSection:
    """A data section with its source opened for its task."""

    name: str
    """``data``, or ``stages.0.data``."""
    recipe: Recipe
    source: Source
    task: TrainableTask | None
    """None where the task cannot be built of the data; targets are then not checked."""
    stages: list[RftStage | SftStage]
    """The stages that train on it."""
    data: Any
    """The section itself."""


@dataclass
class Collected:
    """The samples that are audited: array of one length, and the images of each.

    A sample is known by its number; ``image_sample[i]`` is the number of the sample of image i, ``image_row[i]`` the
    row of its measurements.
    """

    sequences: dict[str, Sequence[Sample]] = field(default_factory=dict)
    """The samples of each split that could be read."""
    split: array[int] = field(default_factory=lambda: array("b"))
    """Of each sample, its position in ``SPLITS``."""
    index: array[int] = field(default_factory=lambda: array("q"))
    """Of each sample, its position in its split."""
    target: array[int] = field(default_factory=lambda: array("Q"))
    """Of each sample, a hash of its target."""
    asked: array[int] = field(default_factory=lambda: array("Q"))
    """Of each sample, a hash of its question and of the regions of its images."""
    image_sample: array[int] = field(default_factory=lambda: array("q"))
    image_row: array[int] = field(default_factory=lambda: array("q"))
    patients: dict[int, int] = field(default_factory=dict)
    """The splits of each patient as bits, by a hash of the patient."""
    counts: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """By split: the samples of each target, subgroup and kind."""
    labels: Counter[str] = field(default_factory=Counter)
    """How often each label is a target."""

    def sample(self, number: int) -> Sample:
        """A sample by its number."""
        return self.sequences[SPLITS[self.split[number]]][self.index[number]]

    def name(self, number: int) -> str:
        """A sample as a finding names it."""
        return f"{self.sample(number).id} ({SPLITS[self.split[number]]})"

    def names(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The first of some samples, as a finding names them."""
        return examples(self.name(int(number)) for number in numbers)

    def __len__(self) -> int:
        return len(self.split)


def collect(
    section: DataSection, measurements: Measurements, *, limit: int | None, workers: int, reporter: Reporter
) -> tuple[Collected, list[Finding]]:
    """Read all samples of a section and measure their images; faults of the data are findings.

    Args:
        section: the data.
        measurements: of images, which are added to.
        limit: how many samples of a split are read at most, evenly spread.
        workers: threads that open images.
        reporter: shows how many images are done.
    """
    found, findings = Collected(), list[Finding]()
    chosen: dict[str, list[int] | range] = {}
    for split in SPLITS:
        try:
            samples = section.source.samples(split)
            found.sequences[split] = samples if isinstance(samples, Sequence) else list(samples)
        except UserError as error:
            findings.append(Finding("data", "error", f"{split} cannot be read: {error}", [split]))
            found.sequences[split] = []
        count = len(found.sequences[split])
        chosen[split] = range(count)
        if limit is not None and limit < count:
            chosen[split] = np.linspace(0, count - 1, limit).astype(int).tolist()
        found.counts[split] = {"target": Counter(), "subgroup": Counter(), "kind": Counter()}
    bad: list[tuple[str, str]] = []

    def images() -> Iterator[ImageSource]:
        for split, indices in chosen.items():
            for index in indices:
                try:
                    sample = found.sequences[split][index]
                except UserError as error:
                    bad.append((f"{split} {index}", str(error)))
                    continue
                number = _add(found, sample, split, index)
                for image in sample.images:
                    found.image_sample.append(number)
                    yield image

    total = sum(map(len, chosen.values()))
    reporter.start(f"audit of {section.name}", total)
    advance = _advancing(reporter, found)
    for row in measurements.measure_all(images(), workers, advance):
        found.image_row.append(row)
    reporter.advance(total)
    reporter.stop()
    if bad:
        message = f"{len(bad):,} rows of the data cannot be read, and a run would stop there; the first: {bad[0][1]}"
        findings.append(Finding("row", "error", message, examples(f"{where}: {why}" for where, why in bad), len(bad)))
    return found, findings


def _advancing(reporter: Reporter, found: Collected) -> Callable[[int], None]:
    """Tells a reporter how many samples are done when so many images are."""

    def advance(images: int) -> None:
        if images % 16 == 0:
            reporter.advance(found.image_sample[images - 1] + 1)

    return advance


def _add(found: Collected, sample: Sample, split: str, index: int) -> int:
    """Add a sample; returns its number."""
    regions = [file.region if (file := file_of(image)) else None for image in sample.images]
    found.split.append(SPLITS.index(split))
    found.index.append(index)
    found.target.append(digest_of(sample.target))
    found.asked.append(digest_of((sample.question, sample.region, regions)))
    counts = found.counts[split]
    counts["kind"]["samples"] += 1
    counts["kind"]["images"] += len(sample.images)
    if isinstance(sample.target, tuple) and all(isinstance(box, tuple) for box in sample.target):
        counts["kind"]["boxes"] += len(sample.target)
        counts["kind"]["without boxes"] += not sample.target
    else:
        counts["target"][str(sample.target)] += 1
        if isinstance(sample.target, str):
            found.labels[sample.target] += 1
    if sample.subgroup is not None:
        counts["subgroup"][sample.subgroup] += 1
    if sample.patient is not None:
        patient = digest_of(sample.patient)
        before, bit = found.patients.get(patient, 0), 1 << SPLITS.index(split)
        counts["kind"]["patients"] += not before & bit
        found.patients[patient] = before | bit
    else:
        counts["kind"]["without patient"] += 1
    return len(found) - 1


def digest_of(value: object) -> int:
    """A hash of 64 bits of the text of a value."""
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big")
