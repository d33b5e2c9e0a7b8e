"""Which pictures of a run show nothing, or hold pixels that are no numbers: a log that all its processes share."""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from vrft.images import BLANK, NOT_FINITE, oddities

ODD = {BLANK: "show one value only, so that there is nothing to see", NOT_FINITE: "hold pixels that are no numbers"}
"""What is said of odd pictures."""

Entry = tuple[str, str, str]
"""What is odd about a picture, its name, and how it was read."""


class PictureLog:
    """Which of the pictures that were opened are odd (``oddities``), whoever opened them.

    Args:
        path: a file with a line for each, which other processes of a run may write too, and a later one reads; without
            it the log is that of this process alone. Where the file cannot be written, as on a full disk, nothing
            fails, and others are not told.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: set[Entry] = set()
        self._read, self._half = 0, False
        """How many bytes of the file have been read, and whether half a line follows."""

    def note(self, image: Image.Image, name: str, read: Callable[[], str] = str) -> None:
        """Note what is odd about a picture, once for each name and reading.

        Args:
            image: as it was read.
            name: of the sample.
            read: gives how it was read (``vrft.sample.read_as``); another reading may show more.
        """
        for what in oddities(image):
            entry = (what, name, read())
            if entry in self._entries or entry in self._known():
                continue
            self._entries.add(entry)
            if self.path is not None:
                with suppress(OSError), self.path.open("ab") as file:
                    # A run that was killed may have left half a line.
                    file.write((self._half * b"\n") + json.dumps(entry).encode() + b"\n")

    def names(self, only: Collection[tuple[str, str]] | None = None) -> dict[str, list[str]]:
        """The names of all odd pictures in alphabetical order, by what is odd about them.

        Args:
            only: the names and readings of the pictures that count.
        """
        found: dict[str, set[str]] = {}
        for what, name, read in self._known():
            if only is None or (name, read) in only:
                found.setdefault(what, set()).add(name)
        return {what: sorted(names) for what, names in sorted(found.items())}

    def _known(self) -> set[Entry]:
        """All that is known, after what was written to the file since it was last read."""
        data = b""
        if self.path is not None:
            with suppress(OSError), self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read, self._half = self._read + whole, whole < len(data)
        self._entries |= {entry for line in data[:whole].split(b"\n") if (entry := _entry_in(line))}
        return self._entries


def _entry_in(line: bytes) -> Entry | None:
    """What a line of the file says; None of one that is no such line."""
    try:
        match json.loads(line):
            case [str(what), str(name), str(read)] if what in ODD:
                return what, name, read
    except (ValueError, RecursionError):
        pass
    return None


def odd_in_words(odd: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each oddity that is known, of how many pictures (``count``) and of which (``example``).

    >>> odd_in_words({"pixels_not_finite": {"count": 2, "example": "a"}})
    ['2 of the pictures that were opened hold pixels that are no numbers, such as a.']
    """
    return [
        f"{one['count']:,} of the pictures that were opened {ODD[what]}, such as {one['example']}."
        for what, one in odd.items()
        if what in ODD
    ]
