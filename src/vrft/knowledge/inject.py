"""PA_p: knowledge in the prompt, or other text in its place to test whether the policy uses it.

Source: explicit prior knowledge of VRFT-Aug (arXiv 2602.10619). The controls are ours: descriptions exchanged between
classes, and unrelated text of the same length.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np

from vrft.sample import Knowledge, Sample

UNRELATED = (
    "Trains leave the station every hour and stop at five villages.",
    "Bread is baked before dawn and sold at the market.",
    "The library lends novels, maps and records.",
    "Rain fell while the ferry crossed.",
    "Musicians rehearse on Tuesdays in the town hall.",
    "Farmers sow barley in spring and harvest in August.",
    "Letters are sorted by street and carried by bicycle.",
    "The committee met twice and chose a treasurer.",
)
"""Sentences about nothing that an image shows, for ``irrelevant``."""

HEADING = "What is known:"
PromptKnowledge = Literal["card", "swapped", "irrelevant", "none"]
"""The knowledge in a prompt: the card, the card with its descriptions exchanged, unrelated text, or nothing."""


@dataclass(frozen=True)
class Injection:
    """Puts the knowledge of the classes into samples.

    Args:
        texts: the description of each class, by label, or by grade written out.
        label_first: a line is ``label: text``; otherwise ``text label``, as in the pretraining of the embedded policy.
        shuffle: the order of the lines is drawn at random for each sample, so that it carries no information.
        other: unrelated texts, for ``irrelevant``.
        display_names: the name of a class in an answer, where it is not its key in ``texts`` (a grade by its name).
    """

    texts: Mapping[str, str]
    label_first: bool = True
    shuffle: bool = False
    other: Sequence[str] = UNRELATED
    display_names: Mapping[str, str] = field(default_factory=dict)

    def apply(self, sample: Sample, kind: PromptKnowledge = "card") -> Sample:
        """The sample with its knowledge: the lines of the prompt, and the true card for the recitation reward.

        Raises:
            ValueError: ``kind`` is ``swapped``, and the descriptions cannot be exchanged.
        """
        card = " ".join(f"{self._name(label)}: {text}" for label, text in self.texts.items())
        prompt = self.prompt(kind, self._order(sample))
        own = self.texts.get(str(sample.target), card)
        others = tuple(text for label, text in self.texts.items() if label != str(sample.target))
        return replace(sample, knowledge=Knowledge(prompt, card, own, others))

    def prompt(self, kind: PromptKnowledge, order: Iterable[str] | None = None) -> str:
        """The lines of a prompt: a heading and a line for each class; empty for ``none``.

        Raises:
            ValueError: ``kind`` is ``swapped``, and the descriptions cannot be exchanged.
        """
        texts = self.texts_for(kind)
        return "\n".join([HEADING, *(self._line(label, texts[label]) for label in order or texts)]) if texts else ""

    def facts(self) -> dict[str, Any]:
        """All settings that decide the knowledge of samples, as plain data."""
        facts = {key: list(value) if key == "other" else value for key, value in vars(self).items()}
        return {key: value for key, value in facts.items() if key != "display_names" or value}

    def texts_for(self, kind: PromptKnowledge) -> dict[str, str]:
        """The text of each class in a prompt, by label; empty for ``none``.

        Raises:
            ValueError: ``kind`` is ``swapped``, and half of the classes or more have the same description.

        >>> Injection({"a": "round", "b": "angular and dark"}, other=["the left kidney"]).texts_for("irrelevant")
        {'a': 'the', 'b': 'the left kidney'}
        """
        if kind == "card":
            return dict(self.texts)
        if kind == "swapped":
            return dict(zip(self.texts, self._exchanged(), strict=True))
        if kind == "irrelevant":
            return {
                label: " ".join(islice(cycle(other.split()), len(text.split())))
                for (label, text), other in zip(self.texts.items(), cycle(self.other), strict=False)
            }
        return {}

    def _exchanged(self) -> list[str]:
        """The texts in an order in which no class has a text equal to its own."""
        texts = list(self.texts.values())
        most = max(map(texts.count, texts))
        if 2 * most > len(texts):
            raise ValueError("half of the classes or more have the same description, so none can be exchanged")
        # Equal texts side by side, then moved by the number of the most frequent text: no text falls on an equal.
        order = sorted(range(len(texts)), key=texts.__getitem__)
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
        return self.display_names.get(label, label)
