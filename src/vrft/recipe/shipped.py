"""The recipes that come with the package: ``vrft recipes list`` and ``copy``."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from vrft.errors import UserError, nearest

_HERE = Path(__file__).parents[1]

FOLDER = _HERE / "shipped_recipes" if (_HERE / "shipped_recipes").is_dir() else _HERE.parents[1] / "recipes"
"""In an installed wheel inside the package; in a checkout the folder ``recipes`` beside ``src``."""


@dataclass(frozen=True)
class Shipped:
    """A recipe of the package."""

    name: str
    """Its path in the folder, without suffix, such as ``sources/folder``."""
    source: str
    """The source of its data."""
    about: str
    """The first sentence about it."""


def shipped_recipes() -> list[Shipped]:
    """All recipes of the package, by name."""
    return [_read(path) for path in sorted(FOLDER.rglob("*.yaml"))]


def _read(path: Path) -> Shipped:
    text = path.read_text(encoding="utf-8")
    comment = " ".join(line[1:].strip() for line in text.split("\n")[1:] if line.startswith("#")).strip()
    sentence = re.match(r".*?[.?](?= |$)", comment)
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    return Shipped(name, yaml.safe_load(text)["data"]["source"], sentence[0] if sentence else comment)


def copy_recipe(name: str, to: Path | None = None, *, force: bool = False) -> Path:
    """Copy a recipe of the package, with its command for the copy.

    Args:
        name: of the recipe, such as ``sources/folder``; without folder where one alone has it.
        to: a file or a folder; the working directory without it.
        force: replace a file that is there.

    Returns:
        the path of the copy.

    Raises:
        UserError: there is no such recipe, or a file of the name is there.
    """
    names = [one.name for one in shipped_recipes()]
    wanted = name.removesuffix(".yaml")
    found = [one for one in names if one == wanted] or [one for one in names if one.rpartition("/")[2] == wanted]
    if len(found) != 1:
        near = nearest(wanted, names)
        hint = f" Did you mean {near!r}?" if near else ""
        raise UserError(f"{name}: is no recipe of the package; it has {', '.join(names)}.{hint}")
    source = FOLDER / f"{found[0]}.yaml"
    target = Path(to or ".")
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise UserError(f"{target}: is there already; name another file, or give --force to replace it.")
    text = source.read_text(encoding="utf-8").replace(f"recipes/{found[0]}.yaml", str(target))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); name another file.") from None
    return target
