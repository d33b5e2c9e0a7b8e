"""Sources of samples, one file a source. A source has ``labels`` or ``levels``, and ``samples(split)``."""

from collections.abc import Iterator
from typing import Protocol

from vrft.data.medmnist import MedMNISTSource
from vrft.data.phantom import PhantomSource
from vrft.sample import Sample


class Source(Protocol):
    """What every source offers; none opens an image before a sample's image is asked for."""

    @property
    def labels(self) -> list[str] | None:
        """All labels, in the order of the prompt, where the targets are labels."""

    @property
    def levels(self) -> int | None:
        """How many grades there are, where the targets are grades."""

    @property
    def question(self) -> str:
        """What is asked about each sample, where the recipe does not say."""

    def check(self) -> None:
        """Raise ``DataError`` where a file is missing; read none."""

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of ``train``, ``validation`` or ``test`` in a fixed order."""


__all__ = ["MedMNISTSource", "PhantomSource", "Source"]
