"""The errors that a user sees: the message is all that is shown, and the exit code is 2.

Anything else that escapes a command is a fault of this project (exit code 1, with traceback).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """The user's input is at fault; the message says where, what was expected and how to mend it."""


class DataError(UserError):
    """A data set cannot be read: a missing file, a wrong checksum, an image that does not open."""


class RunError(UserError):
    """A run directory cannot be used: it belongs to another recipe, or nothing is there to resume."""


class PolicyError(UserError):
    """A policy cannot be loaded or cannot be used as the recipe asks."""


class TrainingError(UserError):
    """A stage cannot go on: its loss or gradient is not finite."""


def first_line(error: BaseException) -> str:
    """What another library says, without its further lines."""
    return str(error).strip().split("\n")[0]


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """The last resort while a user's file is read: whatever goes wrong becomes one line that names the file.

    A reader names the faults that it knows; this is for those that nobody thought of. Errors that are told already,
    an interruption and the end of the memory pass through.

    Raises:
        DataError: anything else was raised inside.

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
    """The right spelling that is nearest to what was found, where one is near."""
    near = get_close_matches(found, expected, n=1, cutoff=0.5)
    return near[0] if near else None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a file.

    ``where`` is ``file:line`` or the ``--set`` option that brought the value in.
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
    """A recipe is wrong."""


class KnowledgeError(FaultsError):
    """A card of knowledge is wrong."""
