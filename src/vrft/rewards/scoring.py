"""Scoring rows: what ``vrft score`` and the adapters for other trainers do with one completion and its target.

A row is plain data with the keys ``completion``, ``target``, ``task`` and, where they apply, ``image_size``,
``processed_size``, ``schedule``, ``order``, ``prompt_end`` (what the chat template opens the assistant's turn with),
``knowledge`` (a text) and ``recite``; further keys are let through.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from vrft.boxes import Size
from vrft.errors import DataError, UserError, first_line
from vrft.response import ORDERS, parse
from vrft.rewards.accuracy import accuracy
from vrft.rewards.columns import text_of
from vrft.rewards.f1 import f1
from vrft.rewards.fuzzy import FUZZY_SCHEDULES, fuzzy
from vrft.rewards.overlap import overlap
from vrft.rewards.recitation import RECITATIONS, measure_of, recitation
from vrft.tasks import SECTIONS, Task, read_section, task_from

ROW_KEYS = (
    *("completion", "target", "task", "image_size", "processed_size", "schedule", "order", "knowledge"),
    *("recite", "recite_model", "prompt_end"),
)
"""The keys of a row that count."""

_LARGEST = 10_000_000
"""Pixels on a side of an image."""

_MOST_TASKS = 1000
"""Tasks that are remembered; a stream may name a new one in every line."""


class RowScorer:
    """Scores rows one by one; what a row leaves out comes from the defaults.

    Args:
        defaults: a row's keys and values; those of ``task`` are filled in key by key, where the kind has them.

    >>> scorer = RowScorer({"task": {"kind": "grading", "levels": 5}})
    >>> scorer.score({"completion": "<think>x</think><answer>Stage II</answer>", "target": 3})
    {'format': 1.0, 'accuracy': 0.0, 'fuzzy': 0.25, 'answer': 2, 'problems': []}
    """

    def __init__(self, defaults: Mapping[str, Any] | None = None) -> None:
        self.defaults = dict(defaults or {})
        self._tasks: dict[str, Task] = {}

    def score(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a number for each reward that applies, the ``answer`` that was read, and the ``problems``.

        Raises:
            ValueError: the row is at fault; the message says what was expected.
        """
        completion = self._value(row, "completion")
        if not isinstance(completion, str):
            completion = _text(completion)
        task = self._task(row.get("task"))
        schedule = _named(self._value(row, "schedule"), "schedule", FUZZY_SCHEDULES, "table")
        asked = row.get("task")
        own = asked.get("envelope") if isinstance(asked, Mapping) else None
        order = _named(row.get("order") or own or self.defaults.get("order"), "order", ORDERS, task.order)
        size = processed = None
        if task.kind == "localization":
            size = _size(self._value(row, "image_size"), "image_size", needed="a localization needs")
            framed = task.columns["frame"] == "resized"
            needed = "the frame 'resized' needs" if framed else ""
            processed = _size(self._value(row, "processed_size"), "processed_size", needed=needed)
        wanted = self._value(row, "target")
        if wanted is None:
            raise ValueError("target is missing")
        target = task.check_target(wanted, size)

        prompt_end = self._value(row, "prompt_end") or ""
        if not isinstance(prompt_end, str):
            raise ValueError(f"prompt_end is {_short(prompt_end)}; expected a text, such as '<think>'")
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
        knowledge = self._value(row, "knowledge")
        if knowledge is not None:
            if not isinstance(knowledge, str):
                raise ValueError(f"knowledge is {_short(knowledge)}; expected a text")
            measure = _named(self._value(row, "recite"), "recite", RECITATIONS, "bleu")
            model = self._value(row, "recite_model")
            if model is not None and not isinstance(model, str):
                raise ValueError(f"recite_model is {_short(model)}; expected the directory of a model")
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

    def _task(self, raw: Any) -> Task:
        key = repr(raw)
        task = self._tasks.get(key)
        if task is None:
            task = self._build(raw)
            if len(self._tasks) >= _MOST_TASKS:
                self._tasks.clear()
            self._tasks[key] = task
        return task

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
        if "labels" in given and "synonyms" in filled and "synonyms" not in given:  # of labels of other lines
            filled["synonyms"] = {k: v for k, v in filled["synonyms"].items() if k in given["labels"]}
        return task_from(read_section(filled))


def _text(completion: Any) -> str:
    if completion is None:
        raise ValueError("completion is missing")
    if not isinstance(completion, (list, tuple)) or not all(isinstance(message, Mapping) for message in completion):
        raise ValueError(f"completion is {_short(completion)}; expected a text or a list of chat messages")
    return text_of(completion)


def _named(value: Any, key: str, known: Collection[str], default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key} is {_short(value)}; expected one of {', '.join(known)}")
    return value


def _size(value: Any, key: str, *, needed: str) -> Size | None:
    if value is None and not needed:
        return None
    if value is None:
        raise ValueError(f"{key} is missing; {needed} [width, height]")
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(side, (int, float)) and 1 <= side <= _LARGEST and side == int(side) for side in value)
    ):
        raise ValueError(f"{key} is {_short(value)}; expected [width, height], two whole numbers above 0")
    return int(value[0]), int(value[1])


def _sentence(error: ValueError) -> str:
    """The message of an error in one line of bounded length, without control characters."""
    if "int_max_str_digits" in str(error):
        return "holds a number of more than 4300 digits."
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return (text if len(text) <= 400 else text[:397] + "...").rstrip(".") + "."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def score(rows: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Score rows of plain data, as ``vrft score`` scores lines.

    Args:
        rows: each with the keys ``completion``, ``target`` and, where ``defaults`` lacks it, ``task``; for boxes
            ``image_size`` (width and height in pixels). Further keys that count are in ``ROW_KEYS``.
        defaults: a row's keys and values, for rows that lack them (``RowScorer``).

    Returns:
        for each row a number for each reward that applies, the ``answer`` that was read (None where none was), and the
        ``problems``, a list of codes.

    Raises:
        ValueError: a row is at fault; the message has its position, from 0, and what was expected.

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
    """Score JSON lines as they come; empty lines are skipped.

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
                raise ValueError(f"holds {_short(row)}; expected a JSON object with completion, target and task")
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
            what = f"{type(error).__name__}: {first_line(error)[:200]}"
            raise DataError(f"{name}:{number}: could not be scored ({what}); please report this line.") from error
        yield scores


class Summary:
    """What a stream of scores came to: of each reward the number of lines, the sum, and how often it was full."""

    def __init__(self) -> None:
        self.lines = 0
        self.read = 0
        self.rewards: dict[str, list[float]] = {}
        self.problems: Counter[str] = Counter()

    def add(self, scores: Mapping[str, Any]) -> None:
        """Take the scores of one line into account."""
        self.lines += 1
        self.read += scores["answer"] is not None
        self.problems.update(scores["problems"])
        for name, value in scores.items():
            if name not in ("answer", "problems"):
                figures = self.rewards.setdefault(name, [0, 0.0, 0])
                figures[0] += 1
                figures[1] += value
                figures[2] += value == 1


def write_line(scores: Mapping[str, Any]) -> str:
    """One JSON object; texts keep their letters, except where these are no Unicode text."""
    line = json.dumps(scores, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(scores)
    return line
