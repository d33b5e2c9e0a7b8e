"""Names and docstrings of the whole package: every public name has a docstring, in the words of the field."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "vrft"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]

BANNED = {
    *("told", "met", "meets", "odd", "oddity", "oddities", "strange", "look", "looks", "luck", "lesson", "lessons"),
    *("trial", "trials", "room", "rooms", "roomy", "floor", "floors", "house", "teach", "taught", "teaching"),
}
"""Words that are no part of an identifier: the field has other words for what they meant."""


def definitions(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """The public functions, classes and methods without a docstring, ``line: name``; not overloads or private ones."""
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if not ast.get_docstring(child):
            yield f"{child.lineno}: {prefix}{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from definitions(child, f"{child.name}.")


def defined(tree: ast.Module) -> Iterator[str]:
    """Every identifier that a module defines, ``line: name``: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case _:
                continue
        yield f"{node.lineno}: {name}"


def words(name: str) -> set[str]:
    """The words in a name of snake case or camel case, in lower case.

    >>> sorted(words("PairedScores.room_left"))
    ['left', 'paired', 'room', 'scores']
    """
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_public_name_has_a_docstring(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, "the module has no docstring"
    assert list(definitions(tree)) == []


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_identifier_holds_a_banned_word(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [found for found in defined(tree) if words(found) & BANNED] == []


def test_no_two_modules_have_the_same_name():
    counts = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "__main__"))
    assert {name: count for name, count in counts.items() if count > 1} == {}
