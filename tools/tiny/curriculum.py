"""The training examples of the embedded policy: questions about phantoms, each with a completion.

An example follows from a seed and an index alone, so that pretraining can be resumed at any step. It shows no image of
a user's split, unless the seed of that data set begins with the first number of an example's seed. Every completion
first names the visible attributes, so each example supervises all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from PIL import Image

from vrft.data.phantom import ATTRIBUTES, MAX_COUNT, PIXELS, Phantom, code_names, compose, draw, extent_radius
from vrft.knowledge import Injection
from vrft.tasks.classification import classification_prompt
from vrft.tasks.grading import grading_prompt
from vrft.tasks.localization import localization_prompt, write_boxes

TRAINING, HELD_OUT = 0x7EAC4, 0x4E1D
"""First number of the seed of an example: seeds that no data set should have."""


@dataclass(frozen=True)
class Example:
    """An image, a prompt, the completion to learn, and the answer that an evaluation compares.

    An example without an image describes the image in its prompt.
    """

    skill: str
    phantom: Phantom | None
    prompt: str
    thought: str
    answer: str

    @property
    def image(self) -> Image.Image | None:
        """The image, RGB and ``PIXELS`` x ``PIXELS``; None of an example without one."""
        return draw(self.phantom) if self.phantom is not None else None

    @property
    def completion(self) -> str:
        """The text to learn: the thought and the answer in the envelope."""
        return f"<think>{self.thought}</think><answer>{self.answer}</answer>"


def is_large(phantom: Phantom) -> bool:
    """Whether the mean radius of the findings is at least 10 pixels."""
    return bool(np.mean([finding.radius for finding in phantom.findings]) >= 10)


def describe(phantom: Phantom) -> str:
    """Name the visible attributes, always in the same order: ``2 small bright round sharp findings``."""
    count = len(phantom.findings)
    if not count:
        return "0 findings"
    size, noun = "large" if is_large(phantom) else "small", "finding" if count == 1 else "findings"
    return f"{count} {size} {phantom.brightness} {phantom.shape} {phantom.margin} {noun}"


def _count(rng: np.random.Generator) -> tuple[Phantom, str, str]:
    levels = int(rng.choice([3, 4, 5, 5, 5, MAX_COUNT + 1]))
    grade = int(rng.integers(levels))
    question = "How many findings are there?" if rng.random() < 0.5 else _question(rng, "grade")
    return compose(rng, count=grade), grading_prompt(question, levels), str(grade)


def _extent(rng: np.random.Generator) -> tuple[Phantom, str, str]:
    levels = int(rng.choice([3, 4, 5, 5]))
    grade = int(rng.integers(levels))
    phantom = compose(rng, radius=extent_radius(rng, grade, levels))
    return phantom, grading_prompt("How extensive is the finding?", levels), str(grade)


def _attribute(rng: np.random.Generator) -> tuple[Phantom, str, str]:
    """One or two attributes, whose values are the labels."""
    names = [str(n) for n in rng.permutation(list(ATTRIBUTES))[: rng.integers(1, 3)]]
    phantom = compose(rng, count=int(rng.integers(1, 3)))
    values: list[str] = [""]
    for name in names:
        values = [f"{head} {tail}".strip() for head in values for tail in ATTRIBUTES[name]]
    truth = " ".join(phantom.attributes[name] for name in names)
    question = f"What is the {' and '.join(names)} of the finding?"
    return phantom, classification_prompt(question, [str(v) for v in rng.permutation(values)]), truth


def _code(rng: np.random.Generator) -> tuple[Phantom, str, str]:
    """Labels without a meaning: any of them is right, and the policy learns to choose among those listed."""
    labels = _labels(rng, int(rng.integers(2, 7)))
    question = "Which class is this finding?" if rng.random() < 0.5 else _question(rng, "class")
    return compose(rng, count=int(rng.integers(0, 3))), classification_prompt(question, labels), str(rng.choice(labels))


def _box(rng: np.random.Generator) -> tuple[Phantom, str, str]:
    phantom = compose(rng)
    written = write_boxes([phantom.boxes()[0]], "resized", *[(PIXELS, PIXELS)] * 2)
    return phantom, localization_prompt("Where is the finding?", "resized"), written


def _question(rng: np.random.Generator, what: str) -> str:
    topic = " ".join(str(w) for w in rng.permutation(WORDS)[: rng.integers(1, 4)]).lower()
    picture = rng.choice(["image", "scan", "radiograph", "picture", "slide"])
    forms = [
        f"Which {what} does this {picture} show?",
        f"What is the {what} of {topic} in this {picture}?",
        f"What {what} of {topic} is seen?",
        f"Name the {what} of the {topic} in the {picture}.",
    ]
    return str(rng.choice(forms))


def _card(rng: np.random.Generator, classes: int, *, shown: bool = True) -> tuple[Phantom, str, str, str]:
    """Labels that only the card in the prompt explains, drawn anew each time; ``shown`` False removes the card.

    The last part is the quotation in the thought: the line of the card that fits.
    """
    names = [str(n) for n in rng.permutation(list(ATTRIBUTES))[: {2: 1, 4: 2}[classes]]]
    meanings = list(product(*(ATTRIBUTES[name] for name in names)))
    labels = _labels(rng, classes)
    phantom = compose(rng, count=int(rng.integers(1, 3)))
    right = meanings.index(tuple(phantom.attributes[name] for name in names))
    question = "Which class is this finding?" if rng.random() < 0.5 else _question(rng, "class")
    listed = [str(label) for label in rng.permutation(labels)]
    known = _known(rng, meanings, labels)
    prompt = classification_prompt(question, listed, known if shown else "")
    return phantom, prompt, labels[right], f", {' '.join(meanings[right])} {labels[right]}"


def _labels(rng: np.random.Generator, count: int) -> list[str]:
    """Made-up code names, or words that describe no phantom."""
    if rng.random() < 0.6:
        return code_names(int(rng.integers(2**31)), count)
    return [str(word) for word in rng.permutation(WORDS)[:count]]


def _known(rng: np.random.Generator, meanings: Sequence[Sequence[str]], labels: Sequence[str]) -> str:
    """The card: the meaning of each label, in random order."""
    texts = {labels[i]: " ".join(meanings[i]) for i in rng.permutation(len(labels))}
    return Injection(texts, label_first=False).prompt("card")


def _reading(rng: np.random.Generator) -> tuple[None, str, str, str]:
    """A card without an image, which the prompt describes. Half of the attributes are words without a meaning."""
    classes = int(rng.choice([2, 4]))
    values: Mapping[str, Sequence[str]] = ATTRIBUTES
    if rng.random() < 0.5:
        drawn = [str(word).lower() for word in rng.permutation(WORDS)[:8]]
        values = dict(zip(ATTRIBUTES, zip(drawn[::2], drawn[1::2], strict=True), strict=True))
    names = [str(n) for n in rng.permutation(list(ATTRIBUTES))[: {2: 1, 4: 2}[classes]]]
    meanings = list(product(*(values[name] for name in names)))
    labels = _labels(rng, classes)
    seen = {name: str(rng.choice(list(values[name]))) for name in ATTRIBUTES}
    right = meanings.index(tuple(seen[name] for name in names))
    known = _known(rng, meanings, labels)
    described = f"1 {' '.join(seen.values())} finding"
    question = known
    if rng.random() < 0.3:
        listed = [str(label) for label in rng.permutation(labels)]
        question = classification_prompt("Which class is this finding?", listed, known)
    prompt = f"Seen: {described}\n{question}"
    return None, prompt, labels[right], f"{described}, {' '.join(meanings[right])} {labels[right]}"


Parts = tuple[Phantom | None, str, str] | tuple[Phantom | None, str, str, str]
"""A phantom, a prompt, an answer; and the quotation from a card."""

SKILLS: dict[str, tuple[float, Callable[[np.random.Generator], Parts]]] = {
    "count": (0.15, _count),
    "extent": (0.05, _extent),
    "attribute": (0.1, _attribute),
    "code": (0.05, _code),
    "box": (0.3, _box),
    "card2": (0.1, partial(_card, classes=2)),
    "card4": (0.15, partial(_card, classes=4)),
    "reading": (0.1, _reading),
}
"""The skills: the share of each among the examples, and the function that makes an example of it."""


def make_example(purpose: int, seed: int, index: int, skill: str | None = None) -> Example:
    """Make an example.

    Args:
        purpose: ``TRAINING`` or ``HELD_OUT``.
        seed: of the run.
        index: of the example, from 0.
        skill: a key of ``SKILLS``, or ``card_removed``: ``card2`` with the card taken out of the prompt, which is
            evaluated and never trained. Without it the skill is drawn at random.
    """
    rng = np.random.default_rng([purpose, seed, index, 0])
    if skill is None:
        skill = str(rng.choice(list(SKILLS), p=[share for share, _ in SKILLS.values()]))
    parts = _card(rng, 2, shown=False) if skill == "card_removed" else SKILLS[skill][1](rng)
    phantom, prompt, answer, *quoted = parts
    thought = (describe(phantom) if phantom is not None else "") + "".join(quoted)
    return Example(skill, phantom, prompt, thought, answer)


WORDS = """
normal benign malignant pneumonia tumour cyst lesion nodule mass polyp ulcer bleeding oedema fracture stone
scar retinopathy glaucoma cataract macula cornea vessel drusen melanoma naevus keratosis carcinoma adenoma
lymphoma glioma meningioma pituitary liver kidney spleen lung heart bladder femur pelvis colon stomach breast
prostate thyroid brain spine disc muscle stroma mucus debris adipose mucosa lymphocyte monocyte neutrophil
basophil eosinophil platelet erythroblast granulocyte effusion atelectasis cardiomegaly infiltration fibrosis
hernia emphysema consolidation thickening mild moderate severe absent present early late chronic acute left
right upper lower central diffuse focal stage type grade class tissue cell organ disease healthy abnormal
positive negative diabetic dermatofibroma vascular basal squamous choroidal neovascularization macular cortex
hyperplastic
""".split()  # noqa: SIM905
"""Words for labels and questions: none of them describes a phantom."""
