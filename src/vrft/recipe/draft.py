"""A recipe for data of a user, from a guess (``vrft.data.guess``): small steps, baselines, the guesses as comments."""

import re
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from vrft.data import Source
from vrft.data.annotations import BoxSource
from vrft.data.guess import KINDS, Guess, find_guesses
from vrft.data.guess_boxes import choose_labels
from vrft.data.splits import SPLITS
from vrft.data.tabular import folded_label
from vrft.errors import DataError, ExtraError, UserError
from vrft.recipe.opening import open_source
from vrft.recipe.schema import Recipe

REWARDS = {
    "classification": "{accuracy: 1.0, format: 0.5}",
    "grading": "{fuzzy: 1.0, format: 0.5}",
    "localization": "{iou: 1.0, format: 0.5}",
}


@dataclass
class Draft:
    """A recipe as text, with the guess behind it."""

    text: str
    guess: Guess
    samples: dict[str, int]
    """The number of samples of each split; empty where the data cannot be read yet."""
    others: list[Guess]
    """What else the data may be."""


def draft_recipe(
    path: Path, *, out: Path, kind: str | None = None, name: str | None = None, policy: str = "tiny"
) -> Draft:
    """Guess what a folder or file holds, and write a recipe for it; nothing is written to disk.

    Args:
        path: the folder of the data, or its table.
        out: the file that the recipe will be, for its comments.
        kind: of the task; without it the likeliest.
        name: of the run; without it that of the folder.
        policy: a model.

    Raises:
        UserError: no task can be made of the data; the message says what is missing.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--task {kind}: is no kind of task of a recipe; expected {', '.join(KINDS)}.")
    guesses = find_guesses(path)
    fitting = [guess for guess in guesses if kind is None or kind in guess.kinds]
    if not fitting:
        found = "; ".join(f"{guess.what} ({' or '.join(guess.kinds)})" for guess in guesses[:3])
        raise UserError(f"{path}: allows no {kind}; found {found}.")
    guess, others = fitting[0], [one for one in guesses if one is not fitting[0]]
    if kind is not None and kind != guess.kind:
        _ask(guess, kind)
    called = name or plain_name(path)
    samples = _settle(guess, called)
    return Draft(_write(guess, others, samples, path, out, called, policy), guess, samples, others)


def plain_name(path: Path) -> str:
    """A name for the run, of the letters that a name may have.

    >>> plain_name(Path("data/My set (1).csv"))
    'My-set-1'
    """
    stem = path.absolute().resolve().name if path.is_dir() else path.absolute().stem
    name = re.sub(r"[^A-Za-z0-9+_.-]+", "-", stem).strip("-._+")
    return name or "my-data"


def _ask(guess: Guess, kind: str) -> None:
    """Change a guess to another kind of task that its data allows."""
    columns = guess.data.get("columns", {})
    if kind == "grading" and "label" in columns and "grade" not in columns and isinstance(columns["label"], str):
        columns["grade"] = columns.pop("label")
    if kind != "localization":
        guess.data.pop("find", None)
        guess.notes.pop("find", None)
        guess.task = {} if guess.kind == "localization" else guess.task
    if kind == "classification":
        guess.task.pop("levels", None)
    guess.kind = kind
    guess.why.append(f"The task is {kind}, as --task says.")


# --- splits, rows at fault --------------------------------------------------------------------------------------------


def _settle(guess: Guess, name: str) -> dict[str, int]:
    """Choose the splits so that there is something to train and to test on, and leave out rows at fault where there
    are any; the guess says why. Gives the number of samples of each split, nothing where the data cannot be read."""
    wanted: list[dict[str, Any]] = [{}, {"splits": "made"}]
    if _has_rows(guess):
        wanted = [more for one in wanted for more in (one, one | {"on_bad_sample": "skip"})]
    if guess.source == "medmnist":
        wanted = wanted[:1]
    reasons: list[str] = []
    for more in wanted:
        try:
            source = _opened(guess, more, name)
            samples = {split: _size(source, split) for split in SPLITS}
            if not samples["train"] or not samples["test"]:
                lacking = [split for split in ("train", "test") if not samples[split]]
                raise DataError(f"the data has no image for {' and '.join(lacking)}")
        except ExtraError:
            raise
        except UserError as error:
            reasons.append(str(error))
            continue
        guess.data |= more
        if "splits" in more:
            reason = next((one for one in reasons if "split" in one or "no image for" in one), reasons[0])
            guess.why.append(f"Splits are made: {reason.rstrip('.')}.")
            guess.notes["splits"] = "60% train, 20% validation, 20% test"
        if "on_bad_sample" in more:
            faults = getattr(source, "faults_in_words", lambda: "")() or "images that cannot be read"
            guess.notes["on_bad_sample"] = f"left out: {faults}; remove this line to stop at the first"
            guess.why.append(
                f"Rows at fault are left out ({faults}); the first: {reasons[0].split('; mend')[0].rstrip('.')}."
            )
        _note_labels(guess, source)
        if isinstance(source, BoxSource) and guess.kind == "localization":
            choose_labels(guess, [record for split in SPLITS for record in source.records(split)])
        if not samples["validation"] and "splits" not in guess.data:
            guess.options.append("splits: own+validation  # there is no validation split; this takes it from train")
        return samples
    return {}


def _has_rows(guess: Guess) -> bool:
    """Whether it is a source of rows, each an image."""
    columns = guess.data.get("columns", {})
    box_a_row = "corners" in columns or "corner_and_size" in columns
    return guess.source in ("folder", "table", "huggingface", "shards") and not box_a_row


def _opened(guess: Guess, more: dict[str, Any], name: str) -> Source:
    plain = {
        "name": name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+_.-]*", name) else "x",
        "data": {"source": guess.source, **guess.data, **more},
        "task": {"kind": guess.kind, **guess.task},
        "stages": [{"kind": "sft"}],
    }
    try:
        recipe = TypeAdapter(Recipe).validate_python(plain)
    except ValidationError as error:
        raise DataError(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None
    source = open_source(recipe)
    source.check()
    return source


def _size(source: Source, split: str) -> int:
    samples = source.samples(split)
    return len(samples) if isinstance(samples, Sized) else sum(1 for _ in samples)


def _note_labels(guess: Guess, source: Source) -> None:
    """Merge spellings of a label that differ in letter case or spaces alone."""
    if not _has_rows(guess) or not (labels := source.labels):
        return
    folded: dict[str, list[str]] = {}
    for label in labels:
        folded.setdefault(folded_label(label, " "), []).append(label)
    merged = {other: forms[0] for forms in folded.values() for other in forms[1:]}
    if merged:
        guess.data["label_names"] = {**guess.data.get("label_names", {}), **merged}
        guess.notes["label_names"] = "spellings of one label"
        guess.why.append(f"Labels that differ in letter case or spaces were made one: {merged}.")


# --- text -------------------------------------------------------------------------------------------------------------


def _write(
    guess: Guess, others: list[Guess], samples: dict[str, int], path: Path, out: Path, name: str, policy: str
) -> str:
    lines = [*(f"# vrft {command} {quote(str(out))}" for command in ("audit", "preflight", "run")), "#"]
    lines += _wrapped(f"Written by vrft init {quote(str(path))} from what is there; read it, and change what is wrong.")
    lines += _wrapped("Seen and guessed:")
    lines += [line for why in guess.why for line in _wrapped(why, "- ")]
    if samples:
        lines += _wrapped(f"Samples: {', '.join(f'{split} {count:,}' for split, count in samples.items())}.", "- ")
    for other in others[:5]:
        lines += _wrapped(f"Also there, and not taken: {other.what} ({other.place}): {other.why[0]}", "- ")
    lines += _wrapped("All keys: docs/reference/recipe.md; layouts of data: docs/data.md.")
    lines += [f"name: {name}", "data:", f"  source: {guess.source}"]
    for key, value in guess.data.items():
        lines += _entry(key, value, guess.notes.get(key, ""))
    lines += [f"  # {option}" for option in _options(guess)]
    lines += [f"task: {flow({'kind': guess.kind, **guess.task})}"]
    if guess.kind == "grading" and "levels" not in guess.task:
        lines.append("  # names: [none, mild, severe]  of the grades, lowest first, inside the braces")
    tiny = policy == "tiny"
    lora = "" if tiny else ", lora: {rank: 16}"
    lines.append(
        f"policy: {{model: {flow(policy)}{lora}}}" + ("  # embedded; later a model of the hub" if tiny else "")
    )
    if guess.kind != "localization":
        lines.append("# knowledge: {card: FILE.yaml}  # says what each class looks like (docs/knowledge.md)")
    lines += ["stages:", "  # Where preflight says SFT first, a stage before the other:"]
    lines.append(f"  # - {{kind: sft, steps: 100, batch_size: 16, learning_rate: {'6.0e-4' if tiny else '1.0e-4'}}}")
    tokens = _tokens(guess) if tiny else 256
    lines += [
        "  - kind: rft",
        f"    rewards: {REWARDS[guess.kind]}",
        f"    steps: {40 if tiny else 200}",
        f"    prompts_per_step: {4 if tiny else 8}",
        "    group_size: 8",
        f"    learning_rate: {'1.0e-4' if tiny else '1.0e-5'}",
        "    kl: 0.01",
        f"    max_completion_tokens: {tokens}",
    ]
    lines += [] if tiny else ["    micro_batch: 8"]
    if guess.kind == "grading":
        lines[-1:] += ["    # rewards: {accuracy: 1.0, format: 0.5}  # pays exact grades alone"]
    lines += ["arms: [majority, base, sft, rft]", "seeds: [0]  # [0, 1, 2] for intervals over trainings"]
    lines += ["evaluation: {split: test}", ""]
    return "\n".join(lines)


def _tokens(guess: Guess) -> int:
    """The longest answer of the embedded policy."""
    return min(256, 24 + 16 * guess.boxes) if guess.kind == "localization" else 32


def _options(guess: Guess) -> Iterator[str]:
    yield from guess.options
    if _has_rows(guess) and "on_bad_sample" not in guess.data:
        yield "on_bad_sample: skip  # a row or image at fault is left out and listed; without it the run stops"
    if guess.source != "medmnist":
        if "patient" not in guess.data and "patient" not in guess.data.get("columns", {}):
            yield "patient: '(?:^|/)([0-9]+)_'  # finds the patient in names; a patient stays in one split"
        yield "hash_names: true  # names of files are not written into the run"


def _entry(key: str, value: Any, note: str) -> list[str]:
    comment = f"  # {note}" if note else ""
    if key == "columns":
        return [f"  {key}:{comment}", *(f"    {column}: {flow(title)}" for column, title in value.items())]
    return [f"  {key}: {flow(value)}{comment}"]


def _wrapped(text: str, mark: str = "") -> Iterator[str]:
    """A comment in lines of at most 120 characters."""
    text = re.sub(r"\s+", " ", text)
    line = f"# {mark}"
    for word in text.split(" "):
        if len(line) + len(word) > 119 and line.strip("# -"):
            yield line.rstrip()
            line = f"# {' ' * len(mark)}"
        line += f"{word} "
    yield line.rstrip()


def flow(value: Any) -> str:
    """A value as YAML on one line.

    >>> flow({"image": "Image Index", "n": [1, 2]}), flow("no")
    ('{image: Image Index, n: [1, 2]}', "'no'")
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()
