"""Cards: a YAML file for each data set, with the appearance of each class, its sources, its author and its checker.

A card holds general knowledge about classes, never about one image. Every sentence of a description ends with the name
of its source in square brackets::

    classes:
      "1":
        description:
          appearance: Only microaneurysms are seen. [icdr]

The prompt leaves the brackets out.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vrft.errors import Fault, KnowledgeError
from vrft.response import normalise
from vrft.typed import Places, Section, YamlError, read_yaml, validate

CARDS = Path(__file__).parent / "cards"
"""The cards that are shipped, one file a data set."""

Attribute = Literal["appearance", "shape", "size", "margin", "texture", "colour", "location"]
"""The attributes of a description; ``appearance`` is the impression in this modality."""

Text = Annotated[str, Field(min_length=1)]


class Author(Section):
    """Who wrote a card."""

    kind: Literal["person", "paper", "model"]
    name: Text
    """The person, the model with its version, or the citation of the paper."""


class Check(Section):
    """Who checked a card, and when."""

    by: Text
    date: date


class ClassCard(Section):
    """The knowledge about one class."""

    synonyms: list[Text] = []
    """Other names that an answer may use."""
    description: Annotated[dict[Attribute, Text], Field(min_length=1)]
    """Sentences by attribute, each followed by its source in square brackets."""


class Card(Section):
    """The knowledge about the classes of a data set."""

    title: Text
    """The subject of the images."""
    modality: Text
    written_by: Author
    checked_by: Check | None
    """Null until a person has read it."""
    date: date
    """When it was written."""
    licence: Text
    sources: Annotated[dict[str, Text], Field(min_length=1)]
    """The full citation of each source, by its short name."""
    biases: Annotated[list[Text], Field(min_length=1)]
    """In which ways the descriptions or their sources are one-sided."""
    classes: Annotated[dict[str, ClassCard], Field(min_length=1)]

    def text_of(self, label: str, attributes: Sequence[str] | None = None) -> str:
        """The description of a class without its sources.

        Args:
            label: a key of ``classes``; any other is a KeyError.
            attributes: the attributes to keep; without it all.
        """
        parts = self.classes[label].description
        chosen = [text for name, text in parts.items() if attributes is None or name in attributes]
        return " ".join(_SOURCE.sub("", text).strip() for text in chosen)

    @property
    def synonyms(self) -> dict[str, list[str]]:
        """Other names of each class that has some, by label, in the form of ``task.synonyms`` of a recipe."""
        return {label: list(one.synonyms) for label, one in self.classes.items() if one.synonyms}


_SOURCE = re.compile(r"\s*\[([^\]\[]*)\]")
_SENTENCE = re.compile(r"[^.!?]*(?:\.(?=\d)[^.!?]*)*[.!?]+(?:\s*\[[^\]\[]*\])*|[^.!?]+$")


def card_names() -> list[str]:
    """Names of the cards that are shipped."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def read_card(name: str | Path) -> Card:
    """Read and check a card.

    Args:
        name: of a shipped card, or the path of a YAML file.

    Raises:
        KnowledgeError: there is no such card, or it has faults; all of them together.
    """
    path = CARDS / f"{name}.yaml" if str(name) in card_names() else Path(name)
    if not path.is_file():
        known = card_names()
        message = f"is no file and no shipped card; there are {', '.join(known)}."
        raise KnowledgeError([Fault(str(name), message, str(name), known)])
    try:
        raw, places, faults = read_yaml(path)
    except YamlError as error:
        raise KnowledgeError([error.fault]) from None
    card, more = validate(Card, raw, places, path)
    faults += more
    if card is not None:
        faults += list(_faults_of(card, places, path))
    if faults or card is None:
        raise KnowledgeError(faults)
    return card


def _faults_of(card: Card, places: Places, path: Path) -> Iterator[Fault]:
    """Faults beyond types: a sentence without a listed source, an unused source, a name of two classes."""
    used: set[str] = set()
    for label, one in card.classes.items():
        for attribute, text in one.description.items():
            where = places.get(("classes", label, "description", attribute), str(path))
            for sentence in sentences(text):
                names = [name.strip() for listed in _SOURCE.findall(sentence) for name in listed.split(",")]
                used.update(names)
                if not names:
                    example = next(iter(card.sources))
                    yield Fault(where, f"the sentence {sentence!r} has no source; add one, such as [{example}].")
                for name in names:
                    if name not in card.sources:
                        listed = list(card.sources)
                        yield Fault(where, f"[{name}] is not among the sources {', '.join(listed)}.", name, listed)
    for name in card.sources:
        if name not in used:
            yield Fault(places.get(("sources", name), str(path)), f"the source {name!r} is used by no sentence.")
    seen: dict[str, str] = {}
    for label, one in card.classes.items():
        for name in (label, *one.synonyms):
            folded = normalise(name)
            if seen.setdefault(folded, label) != label:
                where = places.get(("classes", label), str(path))
                yield Fault(where, f"{name!r} names both {seen[folded]!r} and {label!r}.")


def sentences(text: str) -> list[str]:
    """Split a description into sentences, each with its sources.

    >>> sentences("Round, 2.5 mm wide. [a] Its margin is sharp [b].")
    ['Round, 2.5 mm wide. [a]', 'Its margin is sharp [b].']
    """
    return [found for match in _SENTENCE.finditer(text) if (found := match[0].strip())]


def check_against(card: Card, name: str, classes: Iterable[str], ids: Iterable[str] = ()) -> None:
    """Compare a card with a data set.

    Args:
        card: the card.
        name: of the card in messages.
        classes: of the data.
        ids: of its samples and names of their files; a card that holds such a name, in any letter case, describes a
            single image. Names without a digit or of digits alone are ignored: a card may hold words and counts.

    Raises:
        KnowledgeError: the card describes a class that the data lack, lacks one of theirs, or names a sample.
    """
    known = list(classes)
    faults = [
        Fault(name, f"describes {label!r}; the data have {', '.join(known)}.", label, known)
        for label in card.classes
        if label not in known
    ]
    faults += [Fault(name, f"says nothing about {label!r}.") for label in known if label not in card.classes]
    text = json.dumps(card.model_dump(mode="json"), ensure_ascii=False).casefold()
    for image in dict.fromkeys(ids):
        folded = image.casefold()
        is_name = any(map(str.isdigit, image)) and not image.isdecimal()
        if is_name and folded in text and re.search(rf"(?<![\w-]){re.escape(folded)}(?![\w-])", text):
            faults.append(Fault(name, f"names the image {image!r}; a card speaks of classes alone."))
    if faults:
        raise KnowledgeError(faults)
