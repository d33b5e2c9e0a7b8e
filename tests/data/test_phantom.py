"""Phantoms: the same seed gives the same picture, and the truth is what is drawn."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft.data.phantom import ATTRIBUTES, FAMILIES, MAX_COUNT, PIXELS, PhantomSource, code_names, compose, draw
from vrft.sample import open_image

SIZES = {"train": 30, "validation": 10, "test": 10}


@given(st.integers(0, 2**32), st.integers(0, MAX_COUNT), st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=40, deadline=None)
def test_findings_lie_inside_the_picture_and_apart(seed: int, count: int, family: str):
    phantom = compose(np.random.default_rng(seed), count=count, family=family)
    assert len(phantom.findings) == len(phantom.boxes()) == count
    for box in phantom.boxes():
        assert 0 <= box[0] < box[2] <= PIXELS
        assert 0 <= box[1] < box[3] <= PIXELS
    for i, a in enumerate(phantom.findings):
        for b in phantom.findings[i + 1 :]:
            assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


@pytest.mark.parametrize("modality", [one for modalities in FAMILIES.values() for one in modalities])
@pytest.mark.parametrize("brightness", ATTRIBUTES["brightness"])
def test_a_finding_is_brighter_or_darker_than_its_surroundings(modality: str, brightness: str):
    family = next(name for name, modalities in FAMILIES.items() if modality in modalities)
    differences = []
    for seed in range(40):
        phantom = compose(
            np.random.default_rng(seed),
            family=family,
            attributes={"brightness": brightness, "size": "large", "margin": "sharp"},
        )
        if phantom.modality != modality:
            continue
        pixels = np.asarray(draw(phantom).convert("L"), float)
        finding = phantom.findings[0]
        inside = pixels[int(finding.y) - 3 : int(finding.y) + 4, int(finding.x) - 3 : int(finding.x) + 4]
        differences.append(inside.mean() - np.median(pixels))
    assert len(differences) >= 5
    assert np.mean(differences) * (1 if brightness == "bright" else -1) > 15


def test_a_sample_depends_on_seed_split_and_position_alone():
    long, short = (PhantomSource("grading", seed=3, sizes={**SIZES, "train": n}) for n in (30, 5))
    for a, b in zip(short.samples("train"), long.samples("train"), strict=False):
        assert (a.id, a.target) == (b.id, b.target)
        assert np.array_equal(np.asarray(open_image(a.images[0])), np.asarray(open_image(b.images[0])))


def test_splits_and_seeds_share_no_picture():
    pictures = [
        np.asarray(open_image(sample.images[0])).tobytes()
        for seed in (0, 1)
        for split in SIZES
        for sample in PhantomSource("classification", seed=seed, sizes=SIZES).samples(split)
    ]
    assert len(set(pictures)) == len(pictures)


def test_a_grade_by_count_is_the_number_of_findings():
    samples = list(PhantomSource("grading", sizes=SIZES, levels=6).samples("train"))
    assert all(sample.target == sample.facts["count"] for sample in samples)
    assert len({sample.target for sample in samples}) == 6


def test_a_grade_by_extent_grows_with_the_finding():
    source = PhantomSource("grading", sizes={**SIZES, "train": 200}, grade_by="extent")
    radii: dict[int, list[float]] = {}
    for sample in source.samples("train"):
        radii.setdefault(int(sample.target), []).append(sample.image.args[0].findings[0].radius)  # type: ignore[union-attr]
    bounds = [(min(radii[grade]), max(radii[grade])) for grade in sorted(radii)]
    assert all(low[1] < high[0] for low, high in pairwise(bounds))


def test_a_target_of_localization_is_the_box_of_the_finding():
    for sample in PhantomSource("localization", sizes=SIZES).samples("test"):
        assert sample.target == tuple(sample.image.args[0].boxes())  # type: ignore[union-attr]
        assert isinstance(sample.target, tuple)
        assert len(sample.target) == 1


def test_classes_have_code_names_that_go_with_their_attributes():
    source = PhantomSource("classification", seed=5, sizes={**SIZES, "train": 100}, attributes=["shape", "margin"])
    assert source.labels == code_names(5, 4)
    seen = {(sample.target, sample.facts["shape"], sample.facts["margin"]) for sample in source.samples("train")}
    assert len(seen) == 4
    assert max(Counter(label for label, *_ in seen).values()) == 1
