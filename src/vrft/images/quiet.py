"""Calls of libraries that read headers of patients, without their messages.

pydicom and nibabel put values of a header into warnings, log lines and exceptions. A value may be a name, a date or a
number of a patient.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any

from vrft.errors import DataError, UserError

LOGGERS = (
    *("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base"),
    *("pylibjpeg", "pylibjpeg.utils", "libjpeg", "openjpeg", "openjpeg.utils", "jpeg_ls", "jpeg_ls._CharLS"),
    *("nibabel", "nibabel.global"),
)
"""The loggers of the libraries; the filter of a logger does not hold for those below it."""

_reading: ContextVar[bool] = ContextVar("reading", default=False)

for _name in LOGGERS:
    logging.getLogger(_name).addFilter(lambda _record: not _reading.get())


_lock = Lock()
_inside = 0
_outside = warnings.catch_warnings()


@contextmanager
def without_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings in the whole process while any thread is inside.

    ``warnings.catch_warnings`` alone is for one thread: of two blocks that overlap, the first to end would let warnings
    through inside the second, and the second would leave them ignored for good.
    """
    global _inside, _outside
    with _lock:
        if not _inside:
            _outside = warnings.catch_warnings()
            _outside.__enter__()
        _inside += 1
        warnings.simplefilter("ignore", category)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _outside.__exit__(None, None, None)


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
        with without_warnings():
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
