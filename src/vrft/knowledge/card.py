"""Cards: one YAML a data set, which says what each class looks like, who says so, and who checked it.

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
"""What a description can speak of; ``appearance`` is how it shows in this modality."""

Text = Annotated[str, Field(min_length=1)]


class Author(Section):
    """Who wrote a card."""

    kind: Literal["person", "paper", "model"]
    name: Text
    """Of the person or the model with its version, or the citation of the paper."""


class Check(Section):
    """Who read a card and stands for it."""

    by: Text
    date: date


class ClassCard(Section):
    """What is known about one class."""

    synonyms: list[Text] = []
    """Other names that an answer may use."""
    description: Annotated[dict[Attribute, Text], Field(min_length=1)]
    """Sentences by attribute, each followed by its source in square brackets."""


class Card(Section):
    """What is known about the classes of a data set."""

    title: Text
    """What the images show."""
    modality: Text
    written_by: Author
    checked_by: Check | None
    """Null until a person has read it."""
    date: date
    """When it was written."""
    licence: Text
    sources: Annotated[dict[str, Text], Field(min_length=1)]
    """Short names and the works behind them, in full."""
    biases: Annotated[list[Text], Field(min_length=1)]
    """What is one-sided about the descriptions or their sources."""
    classes: Annotated[dict[str, ClassCard], Field(min_length=1)]

    def text_of(self, label: str, attributes: Sequence[str] | None = None) -> str:
        """The description of a class without its sources; ``attributes`` chooses some of them."""
        parts = self.classes[label].description
        chosen = [text for name, text in parts.items() if attributes is None or name in attributes]
        return " ".join(_SOURCE.sub("", text).strip() for text in chosen)

    @property
    def synonyms(self) -> dict[str, list[str]]:
        """Further names by label, as the section ``task`` of a recipe takes them."""
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
        KnowledgeError: it is not there, or anything is wrong with it; all faults together.
    """
    path = CARDS / f"{name}.yaml" if str(name) in card_names() else Path(name)
    if not path.is_file():
        known = card_names()
        raise KnowledgeError(
            [Fault(str(name), f"is no file and no shipped card; there are {', '.join(known)}.", str(name), known)]
        )
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
    """What types cannot tell: each sentence has a listed source, each source is used, names mean one class."""
    used: set[str] = set()
    for label, one in card.classes.items():
        for attribute, text in one.description.items():
            where = places.get(("classes", label, "description", attribute), str(path))
            for sentence in sentences(text):
                names = [name.strip() for listed in _SOURCE.findall(sentence) for name in listed.split(",")]
                used.update(names)
                if not names:
                    yield Fault(
                        where,
                        f"the sentence {sentence!r} has no source; add one, such as [{next(iter(card.sources))}].",
                    )
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
    """The sentences of a description, each with the sources behind it.

    >>> sentences("Round, 2.5 mm wide. [a] Its margin is sharp [b].")
    ['Round, 2.5 mm wide. [a]', 'Its margin is sharp [b].']
    """
    return [found for match in _SENTENCE.finditer(text) if (found := match[0].strip())]


def check_against(card: Card, name: str, classes: Iterable[str], ids: Iterable[str] = ()) -> None:
    """Compare a card with a data set.

    Args:
        card: a card that was read.
        name: what it is called in messages.
        classes: of the data.
        ids: of its samples and names of their files; a card that names one, in whatever case and wherever, speaks of a
            single image. Mere numbers and mere words are left out, since a card may count and must describe.

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
    said = json.dumps(card.model_dump(mode="json"), ensure_ascii=False).casefold()
    for one in dict.fromkeys(ids):
        name_of_one = any(c.isdigit() for c in one) and not one.isdecimal()
        if (
            name_of_one
            and one.casefold() in said
            and re.search(rf"(?<![\w-]){re.escape(one.casefold())}(?![\w-])", said)
        ):
            faults.append(Fault(name, f"names the image {one!r}; a card speaks of classes alone."))
    if faults:
        raise KnowledgeError(faults)
