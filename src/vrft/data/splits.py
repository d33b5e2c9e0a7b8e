"""The splits of a data set: their names in exports, and a split by hash for sets without splits of their own."""

from collections.abc import Sequence
from hashlib import sha256

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The names of each split in exports (folders, lists, keys of data.yaml, cells of tables), the usual name first."""

SPLITS = tuple(SPLIT_NAMES)


def in_split(groups: Sequence[str], split: str, seed: int = 0) -> list[bool]:
    """Whether each item belongs to a split by hash: 60% train, 20% validation, 20% test.

    Args:
        groups: the group of each item (the patient); items of a group fall into one split. The split follows from the
            name of the group and the seed alone, so that a new item moves no other.
        split: one of ``SPLITS``.
        seed: of the hash.
    """
    return [_split_of(group, seed) == split for group in groups]


def _split_of(group: str, seed: int) -> str:
    share = int.from_bytes(sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"
