"""Sources of samples, a module for each. A source has ``labels`` or ``levels``, and ``samples(split)``."""

from collections.abc import Iterable
from typing import Protocol

from vrft.data.medmnist import MedMNISTSource
from vrft.data.phantom import PhantomSource
from vrft.sample import Sample


class Source(Protocol):
    """The interface of a source; it opens no image before the image of a sample is used."""

    @property
    def labels(self) -> list[str] | None:
        """All labels, in the order of the prompt, where the targets are labels."""

    @property
    def levels(self) -> int | None:
        """The number of grades, where the targets are grades."""

    @property
    def question(self) -> str:
        """The question about each sample, where the recipe has none."""

    def check(self) -> None:
        """Check the files before a run.

        Raises:
            DataError: a file is missing or at fault.
        """

    def samples(self, split: str) -> Iterable[Sample]:
        """The samples of ``train``, ``validation`` or ``test`` in a fixed order.

        A sequence is used as it is, sample by sample; anything else is put into a list.

        Raises:
            DataError: the files cannot be read.
        """


__all__ = ["MedMNISTSource", "PhantomSource", "Source"]
