"""PA_p: knowledge goes into the prompt, or something else in its place to see whether it is used.

Source: explicit prior knowledge of VRFT-Aug (arXiv 2602.10619). The controls, which tell whether a policy reads what it
is given, are ours: descriptions exchanged between classes, and words about something else, as many as in the card.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np

from vrft.sample import Knowledge, Sample

ELSEWHERE = (
    "Trains leave the station every hour and stop at five villages.",
    "Bread is baked before dawn and sold at the market.",
    "The library lends novels, maps and records.",
    "Rain fell while the ferry crossed.",
    "Musicians rehearse on Tuesdays in the town hall.",
    "Farmers sow barley in spring and harvest in August.",
    "Letters are sorted by street and carried by bicycle.",
    "The committee met twice and chose a treasurer.",
)
"""Sentences about nothing that an image shows, for the variant ``irrelevant``."""

HEADING = "What is known:"
Told = Literal["card", "swapped", "irrelevant", "none"]
"""What stands in the prompt: the card, the card with its descriptions exchanged, other words, or nothing."""


@dataclass(frozen=True)
class Injection:
    """Puts what is known into samples.

    Args:
        texts: what is known of each class, by label, or by grade written out.
        label_first: a line is ``label: text``; otherwise ``text label``, as the embedded policy was taught.
        shuffle: the order of the lines is drawn anew for each sample, so that it tells nothing.
        other: texts about something else, for the variant ``irrelevant``.
        called: how an answer calls a class, where that is not its key in ``texts`` (a grade by its name).
    """

    texts: Mapping[str, str]
    label_first: bool = True
    shuffle: bool = False
    other: Sequence[str] = ELSEWHERE
    called: Mapping[str, str] = field(default_factory=dict)

    def into(self, sample: Sample, variant: Told = "card") -> Sample:
        """The sample with what the policy is told, and what a recitation is compared with: always the true card."""
        card = " ".join(f"{self._name(label)}: {text}" for label, text in self.texts.items())
        prompt = self.prompt(variant, self._order(sample))
        own = self.texts.get(str(sample.target), card)
        others = tuple(text for label, text in self.texts.items() if label != str(sample.target))
        return replace(sample, knowledge=Knowledge(prompt, card, own, others))

    def prompt(self, variant: Told, order: Iterable[str] | None = None) -> str:
        """The lines of a prompt: a heading and a line for each class; empty where nothing is told."""
        told = self.told(variant)
        return "\n".join([HEADING, *(self._line(label, told[label]) for label in order or told)]) if told else ""

    def facts(self) -> dict[str, Any]:
        """All that decides what samples are told, as plain data."""
        facts = {key: list(value) if key == "other" else value for key, value in vars(self).items()}
        return {key: value for key, value in facts.items() if key != "called" or value}

    def told(self, variant: Told) -> dict[str, str]:
        """What a variant says of each class.

        >>> Injection({"a": "round", "b": "angular and dark"}, other=["the left kidney"]).told("irrelevant")
        {'a': 'the', 'b': 'the left kidney'}
        """
        labels = list(self.texts)
        if variant == "card":
            return dict(self.texts)
        if variant == "swapped":
            return dict(zip(labels, self._exchanged(), strict=True))
        if variant == "irrelevant":
            others = islice(cycle(self.other), len(labels))
            return {
                label: " ".join(islice(cycle(other.split()), len(self.texts[label].split())))
                for label, other in zip(labels, others, strict=True)
            }
        return {}

    def _exchanged(self) -> list[str]:
        """The texts in an order in which no class has a text equal to its own.

        Raises:
            ValueError: there is none, since half of the classes or more have one and the same text.
        """
        texts = list(self.texts.values())
        order = sorted(range(len(texts)), key=lambda i: texts[i])  # equal texts side by side: moved on by as many
        most = max(map(texts.count, texts))  # as the most frequent one has, none meets an equal
        if 2 * most > len(texts):
            raise ValueError("half of the classes or more have the same description, so none can be exchanged")
        moved = dict(zip(order, order[most:] + order[:most], strict=True))
        return [texts[moved[i]] for i in range(len(texts))]

    def _order(self, sample: Sample) -> list[str]:
        labels = list(self.texts)
        if not self.shuffle:
            return labels
        number = int.from_bytes(sha256(sample.id.encode()).digest()[:8], "big")
        return [labels[i] for i in np.random.default_rng(number).permutation(len(labels))]

    def _line(self, label: str, text: str) -> str:
        return f"- {self._name(label)}: {text}" if self.label_first else f"- {text} {self._name(label)}"

    def _name(self, label: str) -> str:
        return self.called.get(label, label)
