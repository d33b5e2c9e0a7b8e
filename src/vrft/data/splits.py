"""The splits of a data set: their names in exports, and splits that are made for sets without splits of their own."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from unicodedata import normalize

from vrft.errors import DataError

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
    return [_split_of(group, seed, vars(Shares())) == split for group in groups]


def _split_of(group: str, seed: int, shares: Mapping[str, float]) -> str:
    place = int.from_bytes(sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
    ends = zip(shares, accumulate(shares.values()), strict=True)
    return next((split for split, end in ends if place < end), max(shares, key=lambda split: shares[split]))


@dataclass(frozen=True)
class Shares:
    """The share of each split; they add up to 1."""

    train: float = 0.6
    validation: float = 0.2
    test: float = 0.2


def split_named(name: str) -> str | None:
    """The split of a name in exports; None of another name.

    >>> split_named("Valid"), split_named("TRAINING"), split_named("a")
    ('validation', 'train', None)
    """
    return next((split for split, names in SPLIT_NAMES.items() if name.strip().lower() in names), None)


def patient_in(pattern: re.Pattern[str], name: str) -> str | None:
    """The patient that a pattern with one group finds in a name, its letters composed (NFC); None where it finds none.

    >>> patient_in(re.compile("^([0-9]+)_"), "007_1.png"), patient_in(re.compile("^([0-9]*)_"), "_1.png")
    ('007', None)
    """
    found = pattern.search(name)
    return normalize("NFC", found[1]) if found and found[1] else None


def check_overlap(where: object, both: int, known: int, places: str) -> None:
    """Refuse patients that are in two splits.

    Args:
        where: the data, in the message.
        both: how many patients are in more than one split.
        known: how many there are.
        places: two images of such a patient.

    Raises:
        DataError: there are any.
    """
    if both:
        raise DataError(
            f"{where}: {both:,} of {known:,} patients are in more than one split, such as that of {places}; results "
            f"would be too good. Expected each in one: set data.splits to made to share the patients out anew, or "
            f"data.patient_overlap to allow."
        )


def share_out(
    units: Iterable[tuple[str, int]], shares: Mapping[str, float], seed: int, *, by_hash: bool = False
) -> Iterator[tuple[str, str]]:
    """Share units (patients) out over splits: each to the split that lacks most samples of its share so far.

    Args:
        units: name and number of samples, those of a class side by side and in random order, so that each class is
            shared out alike.
        shares: of each split, in any unit; a split with share 0 gets nothing.
        seed: of the hash.
        by_hash: the split follows from the name, the seed and the shares alone, so that a new unit moves no other.

    >>> given = dict(share_out(((str(n), 1) for n in range(10)), {"train": 0.6, "validation": 0.2, "test": 0.2}, 0))
    >>> sorted(given.values())
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train', 'validation', 'validation']
    """
    whole, total = sum(shares.values()), 0
    filled = dict.fromkeys(shares, 0)
    for unit, size in units:
        if by_hash:
            yield unit, _split_of(unit, seed, shares)
            continue
        total += size
        wanted = {split: share / whole * total - filled[split] for split, share in shares.items() if share}
        split = max(wanted, key=lambda name: wanted[name])
        filled[split] += size
        yield unit, split


def hashed(name: str) -> str:
    """A name that does not hold the name of a file: 12 hexadecimal digits of its SHA-256.

    Who can guess a name can confirm it so; the names of files that hold patients' names should be changed as well.
    """
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def plain_name(name: str) -> str:
    """A name that can be that of a file, since pictures of samples are written under their names.

    >>> plain_name("../a/b"), len(plain_name("x" * 300))
    ('.._a_b', 113)
    """
    plain = re.sub(r"[/\\\x00-\x1f\x7f]", "_", name)
    return plain if len(plain.encode("utf-8", "surrogatepass")) <= 150 else f"{plain[:100]}-{hashed(plain)}"
