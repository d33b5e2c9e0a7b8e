"""The folder of what can be made again: resized images, indexes of tables, checks of images."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``VRFT_CACHE``, or ``vrft`` in the user's cache folder."""
    given = os.environ.get("VRFT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrft"
