"""What can be made again (resized images, indexes of tables, checks of images): where it lies, and what it is of."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``VRFT_CACHE``, or ``vrft`` in the user's cache folder."""
    given = os.environ.get("VRFT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrft"


def state_of(path: Path) -> list[tuple[str, int, int]]:
    """Size in bytes and time of the last change in nanoseconds of a file, or name, size and time of each file in a
    folder, which is a DICOM series: a file that is equal in all of these counts as unchanged.

    Raises:
        OSError: there is no such file.
    """
    if path.is_dir():
        facts = [(file.name, file.stat()) for file in sorted(path.iterdir()) if file.is_file()]
    else:
        facts = [("", path.stat())]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in facts]
