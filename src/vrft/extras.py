"""Optional packages, and the sentence that names those that are missing."""

from collections.abc import Sequence
from importlib.util import find_spec

from vrft.errors import ExtraError

REPORTING = ("jinja2", "pandas", "plotly", "pyarrow", "pyDOE3")
"""Needed to write a report."""

TRAINING = (
    *("torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets"),
    *("filelock", "pebble", "psutil"),
    *REPORTING,
)
"""Needed to train and evaluate."""


def need(what: str, packages: Sequence[str] = TRAINING, extra: str = "train") -> None:
    """Make sure that packages are there, without importing them.

    Args:
        what: needs them, such as a command or a kind of file.
        packages: their names as modules.
        extra: the extra that installs them.

    Raises:
        ExtraError: some are missing; the message names them and the extra.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ExtraError(without_packages(what, missing, extra))


def without_packages(what: str, missing: Sequence[str], extra: str = "train") -> str:
    """The sentence of something that lacks packages.

    >>> without_packages("vrft run", ["torch", "trl"])
    "vrft run needs torch, trl; pip install 'vrft[train]'."
    >>> without_packages("vrft run", TRAINING)
    "vrft run needs torch, torchvision, transformers, trl and 11 more packages; pip install 'vrft[train]'."
    """
    more = f" and {len(missing) - 4} more packages" if len(missing) > 5 else ""
    return f"{what} needs {', '.join(missing[:4] if more else missing)}{more}; pip install 'vrft[{extra}]'."
