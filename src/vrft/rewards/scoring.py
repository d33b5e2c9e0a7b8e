"""Score rows: one completion with its target, for ``vrft score`` and the adapters for other trainers.

A row is plain data with the keys ``completion``, ``target``, ``task`` and, where they apply, ``image_size``,
``processed_size``, ``schedule``, ``order``, ``prompt_end`` (the beginning of the assistant's turn that the chat
template writes), ``knowledge`` (a text) and ``recite``; further keys are ignored.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from vrft.boxes import Size
from vrft.errors import DataError, UserError, first_line
from vrft.response import ORDERS, parse
from vrft.rewards.accuracy import accuracy
from vrft.rewards.columns import short_repr, text_of
from vrft.rewards.f1 import f1
from vrft.rewards.fuzzy import FUZZY_SCHEDULES, fuzzy
from vrft.rewards.overlap import overlap
from vrft.rewards.recitation import RECITATIONS, measure_of, recitation
from vrft.tasks import SECTIONS, Task, read_section, task_from

ROW_KEYS = (
    *("completion", "target", "task", "image_size", "processed_size", "schedule", "order", "knowledge"),
    *("recite", "recite_model", "prompt_end"),
)
"""The keys of a row that are used."""

_MAX_SIDE = 10_000_000
"""Pixels of one side of an image."""

_MAX_TASKS = 1000
"""Tasks in the cache; every line of a stream may name a new task."""


class RowScorer:
    """Scores rows; keys that a row leaves out come from the defaults.

    Args:
        defaults: keys and values of a row; those of ``task`` are filled in key by key, where the kind has them.

    >>> scorer = RowScorer({"task": {"kind": "grading", "levels": 5}})
    >>> scorer.score({"completion": "<think>x</think><answer>Stage II</answer>", "target": 3})
    {'format': 1.0, 'accuracy': 0.0, 'fuzzy': 0.25, 'answer': 2, 'problems': []}
    """

    def __init__(self, defaults: Mapping[str, Any] | None = None) -> None:
        self.defaults = dict(defaults or {})
        self._tasks: dict[str, Task] = {}

    def score(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return each reward that applies, the ``answer`` that was read, and the ``problems``.

        Raises:
            ValueError: the row is at fault; the message says what was expected.
        """
        completion = self._value(row, "completion")
        if not isinstance(completion, str):
            completion = _completion_text(completion)
        task = self._task(row.get("task"))
        schedule = _named(self._value(row, "schedule"), "schedule", FUZZY_SCHEDULES, "table")
        section = row.get("task")
        envelope_order = section.get("envelope") if isinstance(section, Mapping) else None
        order = row.get("order") or envelope_order or self.defaults.get("order")
        order = _named(order, "order", ORDERS, task.order)
        size = processed = None
        if task.kind == "localization":
            size = _size(self._value(row, "image_size"), "image_size", needed="a localization needs")
            needed = "the frame 'resized' needs" if task.columns["frame"] == "resized" else ""
            processed = _size(self._value(row, "processed_size"), "processed_size", needed=needed)
        true = self._value(row, "target")
        if true is None:
            raise ValueError("target is missing")
        target = task.check_target(true, size)
        prompt_end = self._text(row, "prompt_end", "a text, such as '<think>'") or ""
        envelope = parse(completion, order, prompt_end)
        reading = task.read_answer(envelope, size, processed)
        scores: dict[str, Any] = {"format": 0.0 if envelope.problems else 1.0}
        if isinstance(target, tuple) and task.kind == "localization":
            scores["iou"] = overlap(reading, target)
            scores["f1"] = f1(reading, target)
        else:
            scores["accuracy"] = accuracy(task, reading, target)
            if task.kind == "grading":
                assert isinstance(target, int)
                scores["fuzzy"] = fuzzy(reading, target, schedule)
        knowledge = self._text(row, "knowledge", "a text")
        if knowledge is not None:
            measure = _named(self._value(row, "recite"), "recite", RECITATIONS, "bleu")
            model = self._text(row, "recite_model", "the directory of a model")
            scores["recitation"] = recitation(completion, knowledge, measure_of(measure, model), prompt_end) or 0.0
        answer = reading.answer
        scores["answer"] = [list(box) for box in answer] if isinstance(answer, tuple) else answer
        scores["problems"] = [*envelope.problems, *reading.problems]
        return scores

    def kind_of(self, row: Mapping[str, Any]) -> str:
        """The kind of task of a row."""
        return self._task(row.get("task")).kind

    def _value(self, row: Mapping[str, Any], key: str) -> Any:
        value = row.get(key)
        return self.defaults.get(key) if value is None else value

    def _text(self, row: Mapping[str, Any], key: str, expected: str) -> str | None:
        value = self._value(row, key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key} is {short_repr(value)}; expected {expected}")
        return value

    def _task(self, raw: Any) -> Task:
        key = repr(raw)
        if key not in self._tasks:
            if len(self._tasks) >= _MAX_TASKS:
                self._tasks.clear()
            self._tasks[key] = self._build(raw)
        return self._tasks[key]

    def _build(self, raw: Any) -> Task:
        if isinstance(raw, str):
            raw = {"kind": raw}
        if raw is not None and not isinstance(raw, Mapping):
            raise ValueError(f"task is {raw!r}; expected an object such as {{'kind': 'grading', 'levels': 5}}")
        given = {key: value for key, value in (raw or {}).items() if value is not None}
        filled = {**self.defaults.get("task", {}), **given}
        model = SECTIONS.get(str(filled.get("kind")))
        fields = model.model_fields if model else ()
        filled = {key: value for key, value in filled.items() if key in given or key in fields or not model}
        if "labels" in given and "synonyms" in filled and "synonyms" not in given:  # of the labels of other lines
            filled["synonyms"] = {k: v for k, v in filled["synonyms"].items() if k in given["labels"]}
        return task_from(read_section(filled))


def _completion_text(completion: Any) -> str:
    if completion is None:
        raise ValueError("completion is missing")
    if not isinstance(completion, (list, tuple)) or not all(isinstance(message, Mapping) for message in completion):
        raise ValueError(f"completion is {short_repr(completion)}; expected a text or a list of chat messages")
    return text_of(completion)


def _named(value: Any, key: str, known: Collection[str], default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key} is {short_repr(value)}; expected one of {', '.join(known)}")
    return value


def _size(value: Any, key: str, *, needed: str) -> Size | None:
    if value is None and not needed:
        return None
    if value is None:
        raise ValueError(f"{key} is missing; {needed} [width, height]")
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(side, (int, float)) and 1 <= side <= _MAX_SIDE and side == int(side) for side in value)
    ):
        raise ValueError(f"{key} is {short_repr(value)}; expected [width, height], two whole numbers above 0")
    return int(value[0]), int(value[1])


def _sentence(error: ValueError) -> str:
    """The message of an error in one line of bounded length, without control characters."""
    if "int_max_str_digits" in str(error):
        return "holds a number of more than 4300 digits."
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return (text if len(text) <= 400 else text[:397] + "...").rstrip(".") + "."


def score(rows: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Score rows of plain data, as ``vrft score`` scores lines.

    Args:
        rows: each with the keys ``completion``, ``target`` and, where ``defaults`` lacks it, ``task``; for boxes
            ``image_size`` (width and height in pixels). ``ROW_KEYS`` lists all keys.
        defaults: keys and values for rows that lack them (``RowScorer``).

    Returns:
        For each row the rewards that apply, the ``answer`` that was read (None where there is none), and ``problems``,
            a
        list of codes.

    Raises:
        ValueError: a row is not valid; the message has its index, from 0, and the expected value.

    >>> rows = [{"completion": "<think>x</think><answer>Stage II</answer>", "target": 3}]
    >>> score(rows, {"task": {"kind": "grading", "levels": 5}})
    [{'format': 1.0, 'accuracy': 0.0, 'fuzzy': 0.25, 'answer': 2, 'problems': []}]
    """
    scorer, scores = RowScorer(defaults), []
    for index, row in enumerate(rows):
        try:
            scores.append(scorer.score(row))
        except ValueError as error:
            raise ValueError(f"row {index}: {error}") from None
    return scores


def score_lines(
    lines: Iterable[bytes], name: str, defaults: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Score JSON lines one after another; empty lines are skipped.

    Args:
        lines: UTF-8 text, one JSON object a line.
        name: of the file, for messages.
        defaults: as for ``RowScorer``.

    Raises:
        DataError: a line is at fault; the message names the file and the line.
    """
    scorer = RowScorer(defaults)
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode().strip())
            if not isinstance(row, dict):
                raise ValueError(f"holds {short_repr(row)}; expected a JSON object with completion, target and task")
            scores = scorer.score(row)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}:{number}: is no JSON: {error.msg} (column {error.colno}).") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: is no UTF-8 text: {error.reason} (byte {error.start + 1}).") from None
        except RecursionError:
            raise DataError(f"{name}:{number}: is no JSON that can be read: it is nested too deeply.") from None
        except ValueError as error:
            raise DataError(f"{name}:{number}: {_sentence(error)}") from None
        except (UserError, MemoryError):
            raise
        except Exception as error:  # the last resort, as errors.reading
            cause = f"{type(error).__name__}: {first_line(error)[:200]}"
            raise DataError(f"{name}:{number}: could not be scored ({cause}); please report this line.") from error
        yield scores


class Summary:
    """Totals over a stream of scores: for each reward the number of lines, the sum, and the number of full rewards."""

    def __init__(self) -> None:
        self.lines = 0
        self.read = 0
        self.rewards: dict[str, list[float]] = {}
        self.problems: Counter[str] = Counter()

    def add(self, scores: Mapping[str, Any]) -> None:
        """Add the scores of one line."""
        self.lines += 1
        self.read += scores["answer"] is not None
        self.problems.update(scores["problems"])
        for name, value in scores.items():
            if name not in ("answer", "problems"):
                count, total, full = self.rewards.get(name, (0, 0.0, 0))
                self.rewards[name] = [count + 1, total + value, full + (value == 1)]


def write_line(scores: Mapping[str, Any]) -> str:
    """Return the scores as one JSON object; letters are escaped only where they are no valid Unicode."""
    line = json.dumps(scores, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(scores)
    return line
