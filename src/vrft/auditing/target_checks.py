"""Checks of counts, patients and labels."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

from vrft.auditing.collected import Collected, DataSection, digest_of
from vrft.auditing.findings import Finding, examples, plural
from vrft.data.annotations import BoxSource, format_counts
from vrft.data.rows import RowSource
from vrft.data.splits import SPLITS
from vrft.sample import patient_code

FEW = 5
"""A class with fewer samples in a split says little."""

IMBALANCE = 20
"""The most frequent class may be so many times as frequent as the rarest."""

SIMILAR = 0.8
"""The least similarity (``difflib``) of two spellings that may be one label."""

ALIKE = 300
"""Of more labels only spellings that differ by case, spaces or punctuation are compared."""


def counts_of(found: Collected) -> dict[str, Any]:
    """The counts of each split as plain data."""
    plain: dict[str, Any] = {}
    for split, counts in found.counts.items():
        plain[split] = {key: count for key, count in counts["kind"].items() if count and key != "without patient"}
        for key in ("target", "subgroup"):
            if counts[key]:
                plain[split][f"{key}s"] = dict(counts[key].most_common(1000))
    return plain


def check_counts(section: DataSection, found: Collected) -> Iterator[Finding]:
    """Splits without samples, and classes that are missing, rare or out of balance."""
    evaluated = section.recipe.evaluation.split
    needed = {"train": "nothing can be learnt", evaluated: "nothing can be measured"}
    if section.recipe.validate is not None:
        needed["validation"] = "no stage can be validated"
    sizes = {split: len(samples) for split, samples in found.sequences.items()}
    for split in SPLITS:
        if not sizes[split] and split in needed:
            message = (
                f"{split} has no samples, so {needed[split]}; name a split that has, or let the source make splits."
            )
            yield Finding("empty_split", "error", message, [split])
    classes = [str(target) for target in getattr(section.task, "classes", ())]
    for split in SPLITS:
        counts = found.counts[split]["target"]
        if not counts or not classes:
            continue
        if missing := [name for name in classes if not counts[name]]:
            grave = "cannot be learnt" if split == "train" else "is not measured"
            message = f"{plural(len(missing), 'class')} of {len(classes)} missing in {split}, which {grave} there."
            severity = "warning" if split in needed else "note"
            yield Finding("missing_class", severity, message, examples(missing), len(missing))  # type: ignore[arg-type]
        if rare := [name for name in classes if 0 < counts[name] < FEW]:
            message = (
                f"{plural(len(rare), 'class')} with fewer than {FEW} samples in {split}: figures of such a class have "
                f"no precision; collect more, or join classes."
            )
            names = examples(f"{name}: {counts[name]}" for name in rare)
            yield Finding("rare_class", "warning" if split in needed else "note", message, names, len(rare))
        present = [counts[name] for name in classes if counts[name]]
        if split == "train" and max(present) > IMBALANCE * min(present):
            message = (
                f"the most frequent class in train has {max(present):,} samples and the rarest {min(present):,}; most "
                f"groups then ask for the same answer. Set balance: true in the stages, or report macro_f1."
            )
            yield Finding("imbalance", "warning", message, [f"{name}: {counts[name]}" for name in classes][:20])
    if isinstance(section.source, RowSource) and (bad := section.source.skipped()):
        skips = section.data.on_bad_sample == "skip"
        what = "are left out" if skips else "stop a run; mend them, or set data.on_bad_sample to skip"
        message = f"{plural(sum(section.source.index.faults().values()), 'row')} cannot be used, and {what}."
        hidden = section.data.hash_names
        where = examples(fault if hidden else f"{place}: {fault}" for place, fault in bad)
        yield Finding("row", "warning" if skips else "error", message, where, len(bad))
    if isinstance(section.source, BoxSource):
        for split, of_split in section.source.annotation_counts().items():
            yield Finding("annotations", "note", f"annotations in {split}: {format_counts(of_split)}.")


def check_patients(section: DataSection, found: Collected) -> Iterator[Finding]:
    """Patients in several splits; samples without one."""
    without = sum(counts["kind"]["without patient"] for counts in found.counts.values())
    if not found.patients:
        if len(found):
            message = (
                "no patients are known, so it cannot be checked whether a patient is in two splits, and intervals "
                "count images as independent; give the source a column or a pattern for the patient where it has one."
            )
            yield Finding("no_patients", "note", message, count=without)
        return
    if without:
        message = f"{plural(without, 'sample')} without a patient, beside others that have one; fill them in."
        yield Finding("some_patients", "warning", message, count=without)
    shared = {patient for patient, splits in found.patients.items() if splits.bit_count() > 1}
    if not shared:
        return
    allowed = getattr(section.data, "patient_overlap", "refuse") == "allow"
    message = (
        f"{plural(len(shared), 'patient')} of {len(found.patients):,} in several splits, so that a result on one split "
        f"is partly known from another; split by patient{', or set patient_overlap: allow' if not allowed else ''}."
    )
    codes: dict[str, None] = {}
    for number in range(len(found)):
        patient = found.sample(number).patient
        if patient is not None and (key := digest_of(patient)) in shared:
            splits = " and ".join(split for bit, split in enumerate(SPLITS) if found.patients[key] >> bit & 1)
            codes[f"patient {patient_code(patient)} in {splits}"] = None
            if len(codes) >= min(20, len(shared)):
                break
    yield Finding("patient_overlap", "note" if allowed else "error", message, list(codes), len(shared))


def check_labels(section: DataSection, found: Collected) -> Iterator[Finding]:
    """Labels that may be one label in two spellings."""
    labels = Counter(found.labels)
    if isinstance(section.source, BoxSource):
        labels = Counter(
            annotation.label
            for split in SPLITS
            for record in section.source.records(split)
            for annotation in record.annotations
        )
    yield from same_spellings(labels)


def same_spellings(labels: Mapping[str, int]) -> Iterator[Finding]:
    """Labels that differ by case, spaces or punctuation alone, and pairs that differ by a typing error.

    >>> [finding.where for finding in same_spellings({"Polyp": 9, "polyp ": 2, "adenoma": 90, "adenmoa": 1})]
    [["'Polyp' 9, 'polyp ' 2"], ["'adenmoa' 1, 'adenoma' 90"]]
    """
    folded: dict[str, list[str]] = {}
    for label in labels:
        folded.setdefault(re.sub(r"[\W_]+", "", label.casefold()) or label, []).append(label)
    several = [[f"{label!r} {labels[label]:,}" for label in same] for same in folded.values() if len(same) > 1]
    if several:
        message = (
            f"{plural(len(several), 'label')} in spellings that differ by case, spaces or punctuation: each spelling "
            f"is a class of its own, and an answer cannot tell them apart; write them in one way (data.label_names)."
        )
        yield Finding("label_spelling", "error", message, examples(", ".join(one) for one in several), len(several))
    counts = {key: sum(labels[label] for label in same) for key, same in folded.items()}
    near = []
    for a, b in combinations(sorted(folded), 2) if len(folded) <= ALIKE else ():
        rarer, other = sorted((a, b), key=lambda key: counts[key])
        if min(len(a), len(b)) < 5 or re.findall(r"\d+", a) != re.findall(r"\d+", b):
            continue
        if SequenceMatcher(None, a, b, autojunk=False).ratio() < SIMILAR:
            continue
        if abs(len(a) - len(b)) <= 2 and (counts[rarer] <= max(2, counts[other] // 20) or {a[-1:], b[-1:]} & {"s"}):
            near.append((rarer, other))
    if near:
        message = (
            f"{plural(len(near), 'pair')} of labels that may be one label with a typing error; if so, write it in one "
            f"way (data.label_names)."
        )
        pairs = (", ".join(f"{folded[key][0]!r} {counts[key]:,}" for key in pair) for pair in near)
        yield Finding("label_typing_error", "warning", message, examples(pairs), len(near))
