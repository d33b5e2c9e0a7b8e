"""The images of a run that are blank or hold pixels that are no numbers: a log that all its processes share."""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from vrft.images import BLANK, NOT_FINITE, image_warnings

UNREADABLE = "unreadable"
"""A sample that was left out since an image of it cannot be read."""

MESSAGES = {
    BLANK: "show one value only, so that there is nothing to see",
    NOT_FINITE: "hold pixels that are no numbers",
    UNREADABLE: "could not be read, and were left out (data.on_bad_sample: skip)",
}
"""The message for each warning about an image."""

Entry = tuple[str, str, str]
"""The warning, the name of the image, and how it was read."""


class ImageLog:
    """The images with warnings (``image_warnings``) among those that any process of a run opened.

    Args:
        path: a file of JSON lines that all processes of a run write, and a later run reads; without it the log is
            that of this process alone. Where the file cannot be written (a full disk) nothing fails, and other
            processes do not get the entries.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: set[Entry] = set()
        self._position, self._cut_off = 0, False
        """The bytes of the file that have been read, and whether half a line follows."""

    def note(self, image: Image.Image, name: str, read: Callable[[], str] = str) -> None:
        """Record the warnings of an image, once for each name and way of reading.

        Args:
            image: as it was read.
            name: of the sample.
            read: gives how it was read (``vrft.sample.read_as``); read in another way it may have other warnings.
        """
        for warning in image_warnings(image):
            self._add((warning, name, read()))

    def note_unreadable(self, name: str) -> None:
        """Record a sample that was left out.

        Args:
            name: of the sample.
        """
        self._add((UNREADABLE, name, ""))

    def _add(self, entry: Entry) -> None:
        if entry in self._entries or entry in self._all_entries():
            return
        self._entries.add(entry)
        if self.path is not None:
            with suppress(OSError), self.path.open("ab") as file:
                # A run that was killed may have left half a line.
                file.write((self._cut_off * b"\n") + json.dumps(entry).encode() + b"\n")

    def kept_at(self, path: Path) -> "ImageLog":
        """A log in a file, with the entries of this log."""
        kept = ImageLog(path)
        for entry in sorted(self._entries):
            kept._add(entry)
        return kept

    def names(self, only: Collection[tuple[str, str]] | None = None) -> dict[str, list[str]]:
        """The names of the images with each warning, in alphabetical order.

        Args:
            only: names with their ways of reading; other entries are left out.
        """
        found: dict[str, set[str]] = {}
        for warning, name, read in self._all_entries():
            if only is None or warning == UNREADABLE or (name, read) in only:
                found.setdefault(warning, set()).add(name)
        return {warning: sorted(names) for warning, names in sorted(found.items())}

    def _all_entries(self) -> set[Entry]:
        """All entries, with those that were written to the file since it was last read."""
        data = b""
        if self.path is not None:
            with suppress(OSError), self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        whole = data.rfind(b"\n") + 1
        self._position, self._cut_off = self._position + whole, whole < len(data)
        self._entries |= {entry for line in data[:whole].split(b"\n") if (entry := _entry_in(line))}
        return self._entries


def _entry_in(line: bytes) -> Entry | None:
    """The entry in a line of the file; None of any other line."""
    with suppress(ValueError, RecursionError):
        match json.loads(line):
            case [str(warning), str(name), str(read)] if warning in MESSAGES:
                return warning, name, read
    return None


def warning_sentences(warnings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each known warning, from the number of its images (``count``) and the name of one (``example``).

    >>> warning_sentences({"pixels_not_finite": {"count": 2, "example": "a"}})
    ['2 of the pictures that were opened hold pixels that are no numbers, such as a.']
    """
    return [
        f"{images['count']:,} of the pictures that were opened {MESSAGES[warning]}, such as {images['example']}."
        for warning, images in warnings.items()
        if warning in MESSAGES
    ]
