"""YAML files checked against typed models: every fault with its line, all of them together.

The text is read with the line of each key; what a model refuses becomes one sentence: where, what was found, what was
expected, and the nearest right spelling.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vrft.errors import DataError, Fault
from vrft.textfiles import read_text


class Section(BaseModel):
    """A part of a file: unknown keys are errors, and no value is taken for another type."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    moved: ClassVar[Mapping[str, str]] = {}
    """Former keys, and where each is now, seen from this section."""


Model = TypeVar("Model", bound=Section)
Keys = tuple[str | int, ...]
"""Keys and positions in lists, from the top of a file."""

Places = dict[Keys, str]
"""``file:line`` of each key and list item."""


class Loader(yaml.SafeLoader):
    """YAML in which ``1e-4`` is a number; YAML 1.1 takes it for a text unless a dot and a sign are written."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> tuple[dict[str, Any], Places, list[Fault]]:
    """Read a file of keys and values.

    Returns:
        its plain data, the place of each key, and a fault for each key that is given twice.

    Raises:
        YamlError: it cannot be read at all.
    """
    try:
        text = read_text(path, Counter(), key=None)
    except DataError as error:
        raise YamlError(Fault(str(path), str(error).removeprefix(f"{path}: "))) from None
    try:
        raw = yaml.load(text, Loader)
        tree = yaml.compose(text)
        lines, repeated = dict(_lines(tree)), list(_duplicates(tree))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise YamlError(Fault(f"{path}:{mark.line + 1 if mark else 1}", f"is no YAML: {problem}.")) from None
    if not isinstance(raw, dict):
        raise YamlError(Fault(f"{path}:1", f"expected keys and values, found {type(raw).__name__}."))
    places: Places = {keys: f"{path}:{line}" for keys, line in lines.items()}
    return raw, places, [Fault(f"{path}:{line}", f"{key!r} is given twice.") for line, key in repeated]


class YamlError(Exception):
    """A file is no YAML of keys and values; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _lines(node: yaml.Node | None, keys: Keys = ()) -> Iterator[tuple[Keys, int]]:
    """The line of every key and list item."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*keys, key.value), key.start_mark.line + 1
            yield from _lines(value, (*keys, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*keys, index), value.start_mark.line + 1
            yield from _lines(value, (*keys, index))


def repeated_keys(node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
    """The keys that one mapping holds twice, with their lines: YAML keeps the last in silence."""
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            yield key.start_mark.line + 1, key.value
        seen.add(key.value)


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Keys that a mapping holds twice, in all of a file."""
    children: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        yield from repeated_keys(node)
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        yield from _duplicates(child)


def validate(
    model: type[Model], raw: dict[str, Any], places: Mapping[Keys, str], path: Path
) -> tuple[Model | None, list[Fault]]:
    """Check against the models; faulty keys are taken out and the rest is checked again, so that all faults show."""
    faults: list[Fault] = []
    removed: set[Keys] = set()
    while True:
        try:
            return model.model_validate(raw), faults
        except ValidationError as error:
            found: dict[Keys, dict[str, Any]] = {}
            errors = error.errors()
            telling = [one for one in errors if not (one["type"] == "literal_error" and isinstance(one["input"], dict))]
            for one in telling or errors:  # a mapping was meant for another alternative; of those the first speaks
                found.setdefault(_keys_in(raw, one["loc"]), dict(one))
            fresh = {k: one for k, one in found.items() if not any(gone[: len(k)] == k for gone in removed)}
            faults += [fault_of(model, keys, one, places, path) for keys, one in fresh.items()]
            if removed >= set(found) or any(
                one["type"].startswith(("missing", "union_tag_not")) for one in found.values()
            ):
                return None, faults
            for keys in reversed(found):  # of a list the last items first, so that positions hold
                _remove(raw, keys)
            removed |= set(found)


def _keys_in(raw: Any, loc: tuple[str | int, ...]) -> Keys:
    """The part of an error's location that are keys of the file; pydantic adds the names of alternatives."""
    keys: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        inside = part in raw if isinstance(raw, dict) else isinstance(raw, list) and part in range(len(raw))
        if inside:
            raw = raw[part]
            keys.append(part)
        elif last and part != "[key]" and not (isinstance(part, str) and not isinstance(raw, dict)):
            keys.append(part)
    return tuple(keys)


def _remove(raw: Any, keys: Keys) -> None:
    for key in keys[:-1]:
        raw = raw[key]
    if keys and isinstance(raw, dict):
        raw.pop(keys[-1], None)
    elif keys and isinstance(raw, list) and keys[-1] in range(len(raw)):
        del raw[int(keys[-1])]


def fault_of(model: type[Section], keys: Keys, error: dict[str, Any], places: Mapping[Keys, str], path: Path) -> Fault:
    """Make one sentence of one pydantic error."""
    where = next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), f"{path}:1")
    dotted, kind, found = ".".join(map(str, keys)), error["type"], error.get("input")
    if kind == "extra_forbidden":
        models = _models_at(model, error["loc"][:-1])
        expected = sorted({name for one in models for name in one.model_fields})
        parent = ".".join(map(str, keys[:-1])) or f"a {model.__name__.lower()}"
        if moved := [one.moved[str(keys[-1])] for one in models if str(keys[-1]) in one.moved]:
            return Fault(where, f"{dotted} moved to {'.'.join([*map(str, keys[:-1]), moved[0]])}.")
        return Fault(where, f"{dotted} is no key of {parent}; it has {', '.join(expected)}.", str(keys[-1]), expected)
    if kind == "missing":
        return Fault(where, f"{dotted} is missing.")
    if kind == "union_tag_not_found":
        tag = error["ctx"]["discriminator"].strip("'")
        return Fault(where, f"{dotted}.{tag} is missing.")
    if kind in ("literal_error", "union_tag_invalid"):
        context = error["ctx"]
        if kind == "union_tag_invalid":
            tag = context["discriminator"].strip("'")
            dotted, found = f"{dotted}.{tag}", found.get(tag) if isinstance(found, dict) else found
            where = places.get((*keys, tag), where)
        listed = context.get("expected") or context.get("expected_tags")
        choices = [text.strip("'") for text in re.findall(r"'[^']*'|\d+", listed)]
        return Fault(where, f"{dotted} is {found!r}; expected one of {', '.join(choices)}.", str(found), choices)
    return Fault(where, f"{dotted} is {found!r}: {error['msg'][0].lower()}{error['msg'][1:]}.")


def _models_at(model: type[Section], loc: tuple[str | int, ...]) -> list[type[Section]]:
    """The models whose keys a file may have at a location."""
    candidates: list[type[Section]] = [model]
    for part in loc:
        inner = [m for c in candidates if part in c.model_fields for m in _models(c.model_fields[str(part)].annotation)]
        tagged = [
            c
            for c in candidates
            for f in c.model_fields.values()
            if part in get_args(f.annotation) or c.__name__ == part
        ]
        candidates = inner or tagged or _further(candidates) or candidates
    return candidates


def _further(candidates: list[type[Section]]) -> list[type[Section]]:
    """The models of keys that a section does not list."""
    return [model for one in candidates for model in _models(one.__annotations__.get("__pydantic_extra__"))]


def _models(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
