"""Custom rewards: functions in Python files that a recipe names under ``custom``.

``custom: {short: rewards.py:short}`` names the function ``short`` in the file ``rewards.py``, and a stage uses it by
its name, like any reward. The check of a recipe reads the file without running it; a stage that uses the reward runs
it. Cache keys contain the digest of the file, but not the modules that it imports.

A function is called as TRL calls a reward: ``short(completions, **columns) -> list[float | None]``. ``completions`` are
n texts. These columns are lists of length n:

    target: the true label, the true grade (from 0), or the true boxes, each (x1, y1, x2, y2) in pixels of the image.
    sample: the ids of the samples.
    image, image_size, processed_size: the image as the policy receives it, width and height of the original, and width
        and height after the processor's resize.
    knowledge: the text about the true class, or None where the recipe has no knowledge.

These columns have a single value: ``labels`` and ``synonyms`` of a classification; ``levels``, ``names`` and
``synonyms`` of a grading; ``frame`` of a localization; ``order`` of the blocks; ``prompt_end``, the end of the prompt;
``trainer_state`` of TRL. There may be further columns, so a function must accept ``**columns``.

It returns n values: finite numbers in any range, or None where the reward does not apply to a sample.
"""

import ast
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from vrft.errors import Fault, UserError, first_line
from vrft.rewards.columns import short_repr, text_of


def custom_files(custom: Mapping[str, str]) -> list[Path]:
    """The files that a recipe's ``custom`` names, each once."""
    return list(dict.fromkeys(_split(where)[0] for where in custom.values()))


def custom_digest(custom: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of the file of each reward of a recipe's ``custom``, by the name of the reward.

    Raises:
        UserError: a file cannot be read.
    """
    return {name: sha256(_content(name, _split(where)[0])).hexdigest() for name, where in custom.items()}


def check_custom(name: str, where: str, at: str) -> Iterator[Fault]:
    """Yield the faults of the function of a reward, from the text of its file, which is not run.

    Args:
        name: the name of the reward.
        where: ``FILE:FUNCTION``.
        at: the file and line of the recipe, for messages.
    """
    path, function = _split(where)
    try:
        tree = ast.parse(_content(name, path), str(path))
    except UserError as error:
        yield Fault(at, str(error))
        return
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        yield Fault(at, f"custom.{name}: {path}{line} is no Python: {first_line(error)}.")
        return
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    found = functions.get(function)
    if found is None:
        has = f"it has {', '.join(functions)}" if functions else "it has none"
        yield Fault(at, f"custom.{name}: {path} has no function {function!r}; {has}.", function, list(functions))
    elif isinstance(found, ast.AsyncFunctionDef):
        yield Fault(at, f"custom.{name}: {path}:{found.lineno}: {function} is async; expected a plain function.")
    elif not (found.args.posonlyargs or found.args.args) or found.args.kwarg is None:
        line = f"{path}:{found.lineno}"
        yield Fault(at, f"custom.{name}: {line}: expected def {function}(completions, **columns).")


def load_custom(name: str, where: str) -> Callable[..., list[float | None]]:
    """Run the file of a reward and return its function, whose results are checked.

    Args:
        name: the name of the reward.
        where: ``FILE:FUNCTION``.

    Raises:
        UserError: the file cannot be run, or has no such function. The returned function raises it where the user's
            function raises an error, or returns anything but a finite number or None for each completion.
    """
    path, function_name = _split(where)
    content = _content(name, path)
    try:
        function = getattr(_module(path, content), function_name, None)
    except (Exception, SystemExit) as error:
        raise UserError(f"custom.{name}: {_raised(error, path)} while the file was loaded.") from error
    if not callable(function):
        raise UserError(f"custom.{name}: {path} has no function {function_name!r}.")

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        count = len(completions)
        expected = f"expected {function_name} to return a list of {count} numbers or None, one for each completion"
        try:
            values = function([text_of(completion) for completion in completions], **columns)
        except (Exception, SystemExit) as error:
            raise UserError(f"custom.{name}: {_raised(error, path)}; {expected}.") from error
        values = list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else values
        if not isinstance(values, list):
            raise UserError(f"custom.{name}: {where} returned {short_repr(values)}; {expected}.")
        if len(values) != count:
            raise UserError(f"custom.{name}: {where} returned {len(values)} values; {expected}.")
        for index, value in enumerate(values):
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                fault = f"{where} returned {short_repr(value)} for completion {index}"
                raise UserError(f"custom.{name}: {fault}; {expected}.")
        return [None if value is None else float(value) for value in values]

    return reward


def _split(where: str) -> tuple[Path, str]:
    file, _, function = where.rpartition(":")
    return Path(file).expanduser(), function


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"custom.{name}: {path} cannot be read ({error.strerror}).") from None


@lru_cache
def _module(path: Path, content: bytes) -> ModuleType:
    """The module of a file, run once for each content of the file."""
    module = ModuleType(f"vrft_custom_{sha256(content).hexdigest()[:12]}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle need it there
    exec(compile(content, str(path), "exec"), vars(module))
    return module


def _raised(error: BaseException, path: Path) -> str:
    """Describe an error and its line in the user's file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    message = f": {first_line(error)}" if str(error).strip() else ""
    return f"{path}{f':{lines[-1]}' if lines else ''} raised {type(error).__name__}{message}"
