"""Calls of libraries that read headers of patients, without their messages.

pydicom and nibabel put values of a header into warnings, log lines and exceptions. A value may be a name, a date or a
number of a patient.
"""

import logging
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vrft.errors import DataError, UserError

LOGGERS = ("pydicom", "nibabel", "nibabel.global", "pylibjpeg", "libjpeg", "openjpeg")
"""The loggers of the libraries."""

_reading: ContextVar[bool] = ContextVar("reading", default=False)

for _name in LOGGERS:
    logging.getLogger(_name).addFilter(lambda _record: not _reading.get())


def quietly(sentence: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function without its warnings and log lines, and with one fixed sentence in place of its exceptions.

    Args:
        sentence: the message of the error; it holds no value of a header.
        function: what is called.
        args: its arguments.
        options: its options.

    Raises:
        DataError: the function raised an exception that was not written for the user. Its text is dropped, also from
            the chain of exceptions.
    """
    token = _reading.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **options)
    except (UserError, MemoryError):
        raise
    except Exception:
        pass
    finally:
        _reading.reset(token)
    raise DataError(sentence)  # outside the handler: the exception would be the context of this one


def damaged(shown: Path) -> str:
    """The sentence about a file with a fault that no check names."""
    return f"{shown}: cannot be read, since its header or its pixels are damaged; replace or remove it."
