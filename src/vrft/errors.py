"""The errors of users: only the message is shown, and the exit code is 2.

Any other exception from a command is a fault of this project (exit code 1, with traceback).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """The user's input is at fault; the message holds the place, the expectation and the remedy."""


class DataError(UserError):
    """A data set cannot be read: a missing file, a wrong checksum, an image that does not open."""


class ExtraError(UserError):
    """A package is missing that an extra installs."""


class RunError(UserError):
    """A run directory cannot be used: it belongs to another recipe, or holds nothing to resume."""


class PolicyError(UserError):
    """A policy cannot be loaded or cannot be used as the recipe asks."""


class TrainingError(UserError):
    """A stage cannot go on: its loss or gradient is not finite."""


def first_line(error: BaseException) -> str:
    """The first line of the message of another library."""
    return str(error).strip().split("\n")[0]


@contextmanager
def from_workers() -> Iterator[None]:
    """Give an error of a data loader's process its own message again; PyTorch puts a traceback around it.

    Raises:
        UserError: was raised inside.

    >>> with from_workers():
    ...     raise DataError("Caught\\nOriginal Traceback:\\n  ...\\nvrft.errors.DataError: a.png: is damaged.")
    Traceback (most recent call last):
    vrft.errors.DataError: a.png: is damaged.
    """
    try:
        yield
    except UserError as error:
        mark = f"\n{type(error).__module__}.{type(error).__qualname__}: "
        before, found, message = str(error).rpartition(mark)
        if found and "Original Traceback" in before:
            raise type(error)(message.strip()) from None
        raise


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Convert any unexpected exception while a user's file is read to one line with the name of the file.

    A reader raises its own messages for known faults. ``UserError``, ``MemoryError`` and an interruption pass through.

    Raises:
        DataError: any other exception was raised inside.

    >>> with reading("a.json"):
    ...     float({"x": 1}["y"])
    Traceback (most recent call last):
    vrft.errors.DataError: a.json: could not be read (KeyError: 'y'); please report this with the file.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or first_line(error)}).") from error
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)[:200]}".removesuffix(": ")
        raise DataError(f"{path}: could not be read ({what}); please report this with the file.") from error


def nearest(found: str, expected: Sequence[str]) -> str | None:
    """The expected spelling that is most similar to ``found``; None where none is similar."""
    near = get_close_matches(found, expected, n=1, cutoff=0.5)
    return near[0] if near else None


@dataclass(frozen=True)
class Fault:
    """A fault in a file, with ``found`` and ``expected`` for a hint about the spelling.

    ``where`` is ``file:line``, or the ``--set`` option of the value.
    """

    where: str
    message: str
    found: str | None = None
    expected: Sequence[str] = ()

    def __str__(self) -> str:
        near = nearest(self.found, self.expected) if self.found else None
        hint = f" Did you mean {near!r}?" if near else ""
        return f"{self.where}: {self.message}{hint}"


class FaultsError(UserError):
    """All faults of a file together, one a line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


class RecipeError(FaultsError):
    """A recipe has faults."""


class KnowledgeError(FaultsError):
    """A card of knowledge has faults."""
