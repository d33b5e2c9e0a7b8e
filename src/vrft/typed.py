"""YAML files checked against typed models: all faults together, each with its line.

The text is read with the line of each key. Each fault becomes a sentence with the place, the value, the expectation and
the most similar spelling.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vrft.errors import DataError, Fault
from vrft.textfiles import read_text


class Section(BaseModel):
    """A part of a file: unknown keys are errors, and no value is converted to another type."""

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
    """YAML in which ``1e-4`` is a number; in YAML 1.1 it is a text without a dot and a sign."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> tuple[dict[str, Any], Places, list[Fault]]:
    """Read a file of keys and values.

    Returns:
        the data, the place of each key, and a fault for each repeated key.

    Raises:
        YamlError: the file is missing, no YAML, or no mapping.
    """
    try:
        text = read_text(path, Counter(), key=None)
    except DataError as error:
        raise YamlError(Fault(str(path), str(error).removeprefix(f"{path}: "))) from None
    try:
        raw = yaml.load(text, Loader)
        lines, repeated = key_lines(yaml.compose(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise YamlError(Fault(f"{path}:{mark.line + 1 if mark else 1}", f"is no YAML: {problem}.")) from None
    if not isinstance(raw, dict):
        raise YamlError(Fault(f"{path}:1", f"expected keys and values, found {type(raw).__name__}."))
    places: Places = {keys: f"{path}:{line}" for keys, line in lines.items()}
    return raw, places, [Fault(f"{path}:{line}", f"{keys[-1]!r} is given twice.") for keys, line in repeated]


class YamlError(Exception):
    """A file is no YAML of keys and values; ``fault`` holds the reason."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def key_lines(tree: yaml.Node | None) -> tuple[dict[Keys, int], list[tuple[Keys, int]]]:
    """The lines of a YAML file, from 1.

    Returns:
        the line of each key and list item, and the repeated keys with their lines: YAML silently keeps the last.

    Raises:
        RecursionError: the tree is too deep, or contains itself.
    """
    lines: dict[Keys, int] = {}
    repeated: list[tuple[Keys, int]] = []

    def walk(node: yaml.Node | None, parent: Keys) -> None:
        items: list[tuple[str | int, Any, Any]] = []
        if isinstance(node, yaml.MappingNode):
            items = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            items = [(index, value, value) for index, value in enumerate(node.value)]
        seen: set[str | int] = set()
        for key, place, value in items:
            keys, line = (*parent, key), place.start_mark.line + 1
            if key in seen:
                repeated.append((keys, line))
            seen.add(key)
            lines[keys] = line
            walk(value, keys)

    walk(tree, ())
    return lines, repeated


def validate(
    model: type[Model], raw: dict[str, Any], places: Mapping[Keys, str], path: Path
) -> tuple[Model | None, list[Fault]]:
    """Check data against a model; faulty keys are removed and the rest is checked again, to find all faults.

    Args:
        model: the model.
        raw: the data, which is changed.
        places: the place of each key.
        path: of the file, for messages.

    Returns:
        the model, or None where it cannot be built, and the faults.
    """
    faults: list[Fault] = []
    removed: set[Keys] = set()
    while True:
        try:
            return model.model_validate(raw), faults
        except ValidationError as error:
            found: dict[Keys, dict[str, Any]] = {}
            errors = error.errors()
            telling = [one for one in errors if not (one["type"] == "literal_error" and isinstance(one["input"], dict))]
            for one in telling or errors:  # a mapping belongs to another alternative; a key has its first error
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
    """The keys of the file in the location of an error, without the names of alternatives that pydantic adds."""
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
    """Convert an error of pydantic to a fault with one sentence."""
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
