"""Near duplicates: no pair of hashes is missed, and all symmetries are those of Pillow."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from vrft.auditing.duplicates import TURN, near_hashes, near_pairs
from vrft.auditing.measured import SIDE, SYMMETRIES, measure


@pytest.mark.parametrize("bits", [0, 2, 3, 4, 6, 7])
def test_all_pairs_of_near_hashes_are_found_and_no_others(bits: int):
    random = np.random.default_rng(bits)
    hashes = random.integers(0, 2**63, 40, dtype=np.uint64)[random.integers(0, 40, 300)]
    for _ in range(5):
        hashes = hashes ^ (np.uint64(1) << random.integers(0, 64, 300).astype(np.uint64))
    found = {
        (int(a), int(b))
        for one, other in near_hashes(hashes[:200], hashes[200:], bits)
        for a, b in zip(one, other, strict=True)
    }
    distance = np.bitwise_count(hashes[:200, None] ^ hashes[None, 200:])
    assert found == set(zip(*(where.tolist() for where in np.nonzero(distance <= bits)), strict=True))


def test_pairs_come_in_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vrft.auditing.duplicates.BLOCK", 5)
    hashes = np.zeros(40, dtype=np.uint64)
    blocks = near_hashes(hashes, hashes)
    found = {pair for one, other in blocks for pair in zip(one.tolist(), other.tolist(), strict=True)}
    assert len(found) == 1600


@pytest.mark.parametrize("name", SYMMETRIES)
def test_the_symmetries_of_arrays_are_those_of_images(name: str):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8))
    turn = SYMMETRIES[name]
    turned = image if turn is None else image.transpose(turn)
    assert np.array_equal(TURN[name](np.asarray(image)[None])[0], np.asarray(turned))


def test_the_hashes_are_those_of_imagehash():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    found = measure(lambda: image)["hashes"]
    assert found[0] == int(str(imagehash.phash(image.convert("L"))), 16)
    assert len(set(found)) == len(SYMMETRIES)


def test_images_without_detail_are_no_pair():
    flat = np.full((SIDE, SIDE), 90, dtype=np.float32)
    assert near_pairs(np.zeros((3, len(SYMMETRIES)), dtype=np.uint64), lambda index: flat) == []
