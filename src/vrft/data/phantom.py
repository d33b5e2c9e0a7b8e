"""Phantoms: generated images with known truth, without limit, from a seed.

A phantom is a background (its *modality*) with zero or more findings that share four visible attributes. The embedded
policy was pretrained on the ``standard`` modalities; the ``shifted`` modality (an angiogram, whose vessels are no
findings, at low contrast) is never shown in pretraining, so that fine-tuning has something to learn.

>>> phantom = compose(np.random.default_rng(7), count=2)
>>> len(phantom.findings), draw(phantom).size, phantom == compose(np.random.default_rng(7), count=2)
(2, (112, 112), True)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import cos, pi, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vrft.boxes import clip, hull
from vrft.data.splits import SPLITS
from vrft.sample import Box, Sample, Target

PIXELS = 112
"""Width and height of a phantom."""

ATTRIBUTES: dict[str, tuple[str, str]] = {
    "size": ("small", "large"),
    "brightness": ("dark", "bright"),
    "shape": ("round", "angular"),
    "margin": ("sharp", "blurred"),
}
"""The visible attributes of a finding, and the two values of each."""

FAMILIES = {"standard": ("radiograph", "ultrasound", "stain", "fundus"), "shifted": ("angiogram",)}
"""The modalities of each family; the embedded policy has never seen the shifted one."""

MAX_COUNT = 5
EXTENT_RADII = (5.0, 40.0)
"""Smallest and largest radius, in pixels, when the grade is the extent of one finding."""

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """A finding: centre and radius in pixels, and the rotation of an angular finding in radians."""

    x: float
    y: float
    radius: float
    rotation: float

    def corners(self, sides: int) -> list[tuple[float, float]]:
        """The corners (x, y) of an angular finding with so many sides, in pixels."""
        angles = (self.rotation + 2 * pi * k / sides for k in range(sides))
        return [(self.x + 1.25 * self.radius * cos(a), self.y + 1.25 * self.radius * sin(a)) for a in angles]


@dataclass(frozen=True)
class Phantom:
    """The description that an image is drawn from; equal phantoms give equal images."""

    modality: str
    size: str
    brightness: str
    shape: str
    margin: str
    sides: int
    contrast: float
    findings: tuple[Finding, ...]
    texture_seed: int

    @property
    def attributes(self) -> dict[str, str]:
        """The value of each of ``ATTRIBUTES``."""
        return {name: getattr(self, name) for name in ATTRIBUTES}

    def boxes(self) -> list[Box]:
        """The boxes [x1, y1, x2, y2] of the findings in pixels, left to right, clipped to the image."""
        boxes = []
        for finding in self.findings:
            if self.shape == "round":
                box: Box = (
                    *(finding.x - finding.radius, finding.y - finding.radius),
                    *(finding.x + finding.radius, finding.y + finding.radius),
                )
            else:
                box = hull([side for corner in finding.corners(self.sides) for side in corner])
            boxes.append(clip(box, (PIXELS, PIXELS)))
        return sorted(boxes)


def compose(
    rng: np.random.Generator,
    *,
    family: str = "standard",
    count: int = 1,
    radius: float | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Phantom:
    """Draw a phantom at random, within the given values.

    Args:
        rng: a generator of its own for each phantom; the same state gives the same phantom.
        family: a key of ``FAMILIES``.
        count: the number of findings, 0 to ``MAX_COUNT``.
        radius: of every finding in pixels; without it the attribute ``size`` decides.
        attributes: a value for some of ``ATTRIBUTES``; the others are random.
    """
    modality = str(rng.choice(FAMILIES[family]))
    chosen = {name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()} | dict(attributes or {})
    low, high = (6.0, 9.0) if chosen["size"] == "small" else (12.0, 20.0 if count <= 2 else 15.0)
    contrast = rng.uniform(30, 55) if family == "shifted" else rng.uniform(45, 85)
    findings = _place(rng, count, (radius, radius) if radius is not None else (low, high))
    return Phantom(
        modality=modality,
        sides=int(rng.integers(3, 5)),
        contrast=float(contrast),
        findings=findings,
        texture_seed=int(rng.integers(2**31)),
        **chosen,
    )


def _place(rng: np.random.Generator, count: int, radii: tuple[float, float]) -> tuple[Finding, ...]:
    """Place findings that do not touch; the radii shrink by 5% each time that this fails."""
    low, high = radii
    half = PIXELS / 2
    while True:
        placed: list[Finding] = []
        for _ in range(60 * count):
            if len(placed) == count:
                break
            radius = float(rng.uniform(low, high))
            reach = max(half - 1.3 * radius - 2, 0.0)
            x, y = (float(v) for v in half + rng.uniform(-reach, reach, 2))
            if all((x - f.x) ** 2 + (y - f.y) ** 2 > (1.3 * (radius + f.radius) + 4) ** 2 for f in placed):
                placed.append(Finding(x, y, radius, float(rng.uniform(0, 2 * pi))))
        if len(placed) == count:
            return tuple(placed)
        low, high = low * 0.95, high * 0.95


def draw(phantom: Phantom) -> Image.Image:
    """Draw the image of a phantom: ``PIXELS`` x ``PIXELS``, RGB."""
    rng = np.random.default_rng(phantom.texture_seed)
    plane = _MODALITIES[phantom.modality](rng) + _distractors(rng)
    sign = 1.0 if phantom.brightness == "bright" else -1.0
    for finding in phantom.findings:
        plane += (sign * phantom.contrast * _mask(phantom, finding))[..., None]
    plane = 127 + (plane - 127) * rng.uniform(0.9, 1.1) + rng.uniform(-8, 8)
    plane += rng.standard_normal((PIXELS, PIXELS, 1), dtype=np.float32) * rng.uniform(2, 8)
    image = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9)))) if rng.random() < 0.3 else image


_ROWS, _COLUMNS = np.mgrid[:PIXELS, :PIXELS].astype(np.float32)


def _mask(phantom: Phantom, finding: Finding) -> Plane:
    """The opacity of a finding in each pixel, in [0, 1]."""
    dx, dy = _COLUMNS - finding.x, _ROWS - finding.y
    if phantom.shape == "round":
        outside = np.sqrt(dx * dx + dy * dy) - finding.radius
    else:
        normals = (finding.rotation + pi * (2 * k + 1) / phantom.sides for k in range(phantom.sides))
        apothem = 1.25 * finding.radius * cos(pi / phantom.sides)
        outside = np.max([dx * cos(a) + dy * sin(a) for a in normals], axis=0) - apothem
    edge = 1.2 if phantom.margin == "sharp" else 0.7 * finding.radius + 2
    return np.clip(0.5 - outside / edge, 0, 1).astype(np.float32)


def _smooth(rng: np.random.Generator, cells: int, amplitude: float) -> Plane:
    """A smooth field of zero mean: noise on a coarse grid, enlarged."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)) * np.float32(amplitude)


def _tinted(plane: Plane, colour: Sequence[float]) -> Plane:
    return plane[..., None] * np.asarray(colour, np.float32)


def _distractors(rng: np.random.Generator) -> Plane:
    """No findings: sometimes a thin faint line, and specks far smaller than a finding."""
    plane = np.zeros((PIXELS, PIXELS), np.float32)
    if rng.random() < 0.3:
        angle, offset = rng.uniform(0, pi), rng.uniform(-40, 40)
        away = (_COLUMNS - PIXELS / 2) * cos(angle) + (_ROWS - PIXELS / 2) * sin(angle) - offset
        plane += rng.choice([-1, 1]) * rng.uniform(12, 22) * np.exp(-((away / 1.2) ** 2))
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 5))):
            x, y = rng.uniform(4, PIXELS - 4, 2)
            spot = np.exp(-(((_COLUMNS - x) ** 2 + (_ROWS - y) ** 2) / 2.0))
            plane += rng.choice([-1, 1]) * rng.uniform(20, 40) * spot
    return plane[..., None].astype(np.float32)


def _radiograph(rng: np.random.Generator) -> Plane:
    plane = rng.uniform(95, 150) + _smooth(rng, int(rng.integers(3, 7)), 14)
    return _tinted(plane.astype(np.float32), (1, 1, 1))


def _ultrasound(rng: np.random.Generator) -> Plane:
    speckle = _smooth(rng, 40, 0.12) + rng.standard_normal((PIXELS, PIXELS), dtype=np.float32) * 0.06
    depth = 1.1 - 0.25 * _ROWS / PIXELS
    return _tinted((rng.uniform(100, 140) * depth * (1 + speckle)).astype(np.float32), (1, 1, 1))


def _stain(rng: np.random.Generator) -> Plane:
    plane = rng.uniform(120, 150) + _smooth(rng, 8, 8) + _smooth(rng, 24, 5)
    return _tinted(plane.astype(np.float32), (1.12 + rng.uniform(-0.05, 0.05), 0.85, 1.08))


def _fundus(rng: np.random.Generator) -> Plane:
    away = np.sqrt((_COLUMNS - PIXELS / 2) ** 2 + (_ROWS - PIXELS / 2) ** 2) / PIXELS
    plane = rng.uniform(135, 160) * (1 - 0.55 * away**2) + _smooth(rng, 5, 6)
    x, y = rng.choice([-0.15, 1.15]) * PIXELS, rng.uniform(0.3, 0.7) * PIXELS
    for angle in rng.uniform(0, 2 * pi, 5):  # vessels from a disc beyond the edge
        bend = 14 * np.sin((_COLUMNS - x) / 34 + angle)
        across = (_COLUMNS - x) * sin(angle / 3) - (_ROWS - y + bend) * cos(angle / 3)
        plane -= 16 * np.exp(-((across / 1.6) ** 2))
    return _tinted(plane.astype(np.float32), (1.2, 0.82 + rng.uniform(-0.08, 0.08), 0.62))


def _angiogram(rng: np.random.Generator) -> Plane:
    plane = rng.uniform(110, 140) + _smooth(rng, 4, 12)
    for _ in range(int(rng.integers(3, 6))):  # vessels: dark curves that are no findings
        start, bend, slope = rng.uniform(10, 100), rng.uniform(-25, 25), rng.uniform(-0.5, 0.5)
        path = start + slope * (_COLUMNS - PIXELS / 2) + bend * np.sin(_COLUMNS / 36)
        plane -= 32 * np.exp(-(((_ROWS - path) / 1.6) ** 2))
    return _tinted(plane.astype(np.float32), (1, 1, 1))


_MODALITIES: dict[str, Callable[[np.random.Generator], Plane]] = {
    "radiograph": _radiograph,
    "ultrasound": _ultrasound,
    "stain": _stain,
    "fundus": _fundus,
    "angiogram": _angiogram,
}


def extent_radius(rng: np.random.Generator, grade: int, levels: int) -> float:
    """A random radius in pixels for a grade by extent, 0 to levels - 1; the ranges of grades are a quarter apart."""
    low, high = EXTENT_RADII
    band = (high - low) / levels
    return float(low + band * (grade + rng.uniform(0.125, 0.875)))


_SYLLABLES = tuple("".join(pair) for pair in product("bdfgklmnprstvz", "aeiou"))


def code_names(seed: int, count: int) -> list[str]:
    """Made-up class names of two syllables, all different: their meaning cannot be guessed, only learnt or read.

    >>> code_names(0, 4) == code_names(0, 4), len(set(code_names(1, 16)))
    (True, 16)
    """
    rng = np.random.default_rng([seed, 0xC0DE])
    syllables = rng.permutation(len(_SYLLABLES))[: 2 * count]
    return [(_SYLLABLES[a] + _SYLLABLES[b]).capitalize() for a, b in zip(syllables[::2], syllables[1::2], strict=True)]


class PhantomSource:
    """Samples of phantoms for one task; sample ``i`` of a split depends on the seed, the split and ``i`` alone.

    Args:
        kind: ``classification`` (the target is a code name for each combination of ``attributes``), ``grading`` (by
            ``count`` or ``extent``) or ``localization`` (the box of the finding).
        seed: of the whole data set.
        sizes: samples in each split.
        family: a key of ``FAMILIES``.
        attributes: those that define the classes.
        grade_by: ``count`` (the grade is the number of findings) or ``extent`` (a single finding; larger is higher).
        levels: grades of the scale, 2 to ``MAX_COUNT + 1`` by count.
    """

    def __init__(
        self,
        kind: Literal["classification", "grading", "localization"],
        *,
        seed: int = 0,
        sizes: dict[str, int],
        family: str = "standard",
        attributes: Sequence[str] = ("size", "brightness"),
        grade_by: Literal["count", "extent"] = "count",
        levels: int = 5,
    ) -> None:
        self.seed, self.sizes, self.family = seed, sizes, family
        self.attributes, self.grade_by = tuple(attributes), grade_by
        self.combinations = list(product(*(ATTRIBUTES[name] for name in self.attributes)))
        self.labels = code_names(seed, len(self.combinations)) if kind == "classification" else None
        self.levels = levels if kind == "grading" else None
        self.descriptions = dict(zip(self.labels or (), map(" ".join, self.combinations), strict=False))
        """The meaning of each code name, which only a card holds."""
        self.question = {
            "classification": "Which class is this finding?",
            "localization": "Where is the finding?",
            "grading": {"count": "How many findings are there?", "extent": "How extensive is the finding?"}[grade_by],
        }[kind]

    def check(self) -> None:
        """Do nothing: phantoms need no file."""

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in a fixed order; an image is drawn when it is opened."""
        for index in range(self.sizes[split]):
            phantom, target = self._truth(split, index)
            yield Sample(
                id=f"phantom-{self.seed}-{split}-{index:05d}",
                image=partial(draw, phantom),
                question=self.question,
                target=target,
                split=split,
                facts={"modality": phantom.modality, "count": len(phantom.findings), **phantom.attributes},
            )

    def _truth(self, split: str, index: int) -> tuple[Phantom, Target]:
        rng = np.random.default_rng([self.seed, SPLITS.index(split), index])
        if self.labels is not None:
            which = int(rng.integers(len(self.labels)))
            fixed = dict(zip(self.attributes, self.combinations[which], strict=True))
            return compose(rng, family=self.family, attributes=fixed), self.labels[which]
        if self.levels is None:
            phantom = compose(rng, family=self.family)
            return phantom, tuple(phantom.boxes())
        grade = int(rng.integers(self.levels))
        if self.grade_by == "count":
            return compose(rng, family=self.family, count=grade), grade
        radius = extent_radius(rng, grade, self.levels)
        return compose(rng, family=self.family, radius=radius), grade
