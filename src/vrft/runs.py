"""The run directory: the only code that knows the names of the files inside it.

::

    RUN/recipe.yaml  knowledge.json  environment.json
    RUN/predictions.parquet  metrics.json  report.html  gallery/SAMPLE.png
    RUN/arms/ARM/seed-S/stage-K-KIND/   log.jsonl  rollouts.parquet  policy/  adapter/  done.json
    RUN/arms/ARM/seed-S/stage-K-KIND/   checkpoint-N/  best-N/      until the stage is done
    RUN/arms/ARM/seed-S/                predictions.jsonl  done.json

    ABLATION/recipe.yaml  environment.json
    ABLATION/predictions.parquet  logs.parquet  runs.json      all that the figures are made of
    ABLATION/ablation.json  ablation.html  ablation.md  ablation.tex
    ABLATION/store/KEY/        a stage, or the predictions of an arm and seed, kept by what they depend on
    ABLATION/arms/ARM/seed-S/  the same files by name, linked
    ABLATION/failed/ARM/seed-S.json

Every file is written to a temporary name and renamed, and ``done.json`` is written last: what is there is whole.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vrft.errors import RunError
from vrft.images import RULES

FORMAT = 5
"""Raised when a change of the code makes kept work worthless: how answers are read, what a stage learns from."""

KEPT_BY = {"format": FORMAT, "images": RULES}
"""The rules that finished work was made by. ``environment.json`` holds them, the keys of an ablation depend on them."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; when the block ends without an error it takes the place of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.part")
    if fresh.is_dir():
        shutil.rmtree(fresh)
    yield fresh
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(fresh, path)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@dataclass(frozen=True)
class StageDirectory:
    """What one stage of training leaves behind."""

    path: Path

    @property
    def log(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "log.jsonl"

    @property
    def rollouts(self) -> Path:
        """One row a sampled completion."""
        return self.path / "rollouts.parquet"

    def rollouts_part(self, step: int) -> Path:
        """The rollouts between two checkpoints; all parts are one file when the stage is done."""
        return self.path / "rollouts" / f"{step:07d}.parquet"

    def take_over(self, other: "StageDirectory") -> None:
        """Hold what another finished stage holds; files are shared where the disk can (none is changed in place)."""

        def link(source: str, target: str) -> None:
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)

        with replacing(self.path) as fresh:
            leave = shutil.ignore_patterns(
                "checkpoint-*", "best-*", "rollouts"
            )  # of a kill just before they were dropped
            shutil.copytree(other.path, fresh, copy_function=link, ignore=leave)

    @property
    def predictions(self) -> Path:
        """Of a stage with a task of its own: what its policy answers to that task."""
        return self.path / "predictions.jsonl"

    @property
    def policy(self) -> Path:
        """The weights, tokenizer and processor when the stage is done."""
        return self.path / "policy"

    @property
    def adapter(self) -> Path:
        """The adapters of a stage whose policy has them merged into its weights."""
        return self.path / "adapter"

    def best_policy(self, step: int) -> Path:
        """The policy after a step whose validation was the best so far."""
        return self.path / f"best-{step}"

    def best_policies(self) -> dict[int, Path]:
        """Those that are there, by step."""
        return {int(path.name.removeprefix("best-")): path for path in self.path.glob("best-*")}

    @property
    def done(self) -> Path:
        return self.path / "done.json"

    def is_whole(self) -> bool:
        """Whether the stage is done and its weights are still there."""
        return self.done.exists() and self.policy.exists()

    def drop_policy(self) -> None:
        """Delete the weights; a kill in between leaves none rather than half of them."""
        if self.policy.exists():
            going = self.policy.with_name(".policy.part")  # what ``replacing`` clears away
            shutil.rmtree(going, ignore_errors=True)
            os.replace(self.policy, going)
            shutil.rmtree(going)

    def checkpoint(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        whole = sorted(self.path.glob("checkpoint-*/whole.json"), key=lambda p: int(p.parent.name.split("-")[1]))
        return whole[-1].parent if whole else None

    @staticmethod
    def seal(checkpoint: Path, facts: dict[str, Any]) -> None:
        """Mark a checkpoint as whole: everything else in it was written before."""
        write_json(checkpoint / "whole.json", facts)

    def drop_checkpoints(self) -> None:
        for checkpoint in [*self.path.glob("checkpoint-*"), *self.best_policies().values()]:
            shutil.rmtree(checkpoint)
        shutil.rmtree(self.path / "rollouts", ignore_errors=True)


@dataclass(frozen=True)
class ArmDirectory:
    """What one arm with one seed leaves behind."""

    path: Path

    def stage(self, index: int, kind: str) -> StageDirectory:
        return StageDirectory(self.path / f"stage-{index}-{kind}")

    def stages(self) -> list[StageDirectory]:
        return [StageDirectory(path) for path in sorted(self.path.glob("stage-*"))]

    @property
    def predictions(self) -> Path:
        """One JSON object a test sample, appended batch by batch."""
        return self.path / "predictions.jsonl"

    @property
    def done(self) -> Path:
        return self.path / "done.json"


@dataclass(frozen=True)
class RunDirectory:
    """One run of a recipe."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def data(self) -> Path:
        """What was met in the sources of boxes and in pictures, and who wrote the card."""
        return self.path / "data.json"

    @property
    def image_log(self) -> Path:
        """The names of odd pictures, a line each; see ``ImageLog``."""
        return self.path / "pictures.jsonl"

    @property
    def gallery(self) -> Path:
        """Some of the evaluated images, for the report."""
        return self.path / "gallery"

    @property
    def knowledge(self) -> Path:
        """What the policies of the run are told about the classes."""
        return self.path / "knowledge.json"

    def pin_knowledge(self, facts: dict[str, Any]) -> None:
        """Keep what is known with the run: a card may change, and the run must not change with it.

        Raises:
            RunError: the run began with other knowledge.
        """
        self.check_knowledge(facts)
        write_json(self.knowledge, facts)

    def check_knowledge(self, facts: dict[str, Any]) -> None:
        """Compare what is known with what the run began with.

        Raises:
            RunError: they differ.
        """
        if self.knowledge.exists() and read_json(self.knowledge) != facts:
            raise RunError(
                f"the card says something else than when {self.path} began ({self.knowledge.name} there holds it); "
                f"undo the change, or choose another --out."
            )

    def arm(self, name: str, seed: int) -> ArmDirectory:
        return ArmDirectory(self.path / "arms" / name / f"seed-{seed}")

    def open(self, recipe: str, *, resume: bool) -> None:
        """Take the directory for a recipe (its resolved YAML).

        Raises:
            RunError: it holds a run and ``resume`` is off, or it holds the run of another recipe, or one that was
                made by other rules.
        """
        if self.recipe.exists():
            if not resume:
                raise RunError(f"{self.path} holds a run already; go on with --resume, or choose another --out.")
            self._check_rules()
            differing = _differences(yaml.safe_load(self.recipe.read_text(encoding="utf-8")), yaml.safe_load(recipe))
            if differing:
                raise RunError(
                    f"{self.path} holds a run of another recipe; it differs in {', '.join(differing)}. "
                    f"Choose another --out, or undo the change."
                )
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path} is not empty and holds no run; choose another --out.")
        write_text(self.recipe, recipe)

    def _check_rules(self) -> None:
        """Make sure that what is finished was made by the rules of this version; nothing is before the environment.

        Raises:
            RunError: it was made by others.
        """
        if not self.environment.exists():
            return
        environment = read_json(self.environment)
        found = {name: environment.get(name, "unstated") for name in KEPT_BY}
        if found != KEPT_BY:
            differing = [f"{name} {found[name]}, not {now}" for name, now in KEPT_BY.items() if found[name] != now]
            raise RunError(
                f"{self.path} was begun by another version of vrft ({self.environment.name} there: "
                f"{'; '.join(differing)}), which read answers or images otherwise; the arms that it has finished could "
                f"not be compared with further ones. Choose another --out, or go on with that version."
            )


@dataclass(frozen=True)
class AblationDirectory(RunDirectory):
    """An ablation: the arms of a recipe, where work is kept by what it depends on."""

    @property
    def records(self) -> Path:
        """What each arm and seed cost, which failed and why, and what the task is: plain data."""
        return self.path / "runs.json"

    @property
    def logs(self) -> Path:
        """The logs of all trainings in one table."""
        return self.path / "logs.parquet"

    @property
    def summary(self) -> Path:
        return self.path / "ablation.json"

    def stage(self, key: str) -> StageDirectory:
        """The stage that depends on what a key stands for."""
        return StageDirectory(self.path / "store" / key)

    def evaluation(self, key: str) -> ArmDirectory:
        """The predictions that depend on what a key stands for."""
        return ArmDirectory(self.path / "store" / key)

    def lock(self, key: str) -> Path:
        """Held by who works on what a key stands for."""
        return self.path / "store" / f"{key}.lock"

    def failure(self, arm: str, seed: int, stage: int | None = None) -> Path:
        """The error of an arm and seed, or of one of its stages that others share (from 1)."""
        name = f"seed-{seed}" if stage is None else f"seed-{seed}-stage-{stage}"
        return self.path / "failed" / arm / f"{name}.json"

    def take(self) -> None:
        """Begin an ablation, or go on with one, of whatever recipe: it finds what both have in common.

        Raises:
            RunError: the directory holds something else.
        """
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / "store").is_dir():
            raise RunError(f"{self.path} is not empty and holds no ablation; choose another --out.")
        (self.path / "store").mkdir(parents=True, exist_ok=True)


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two resolved recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [key for name in keys for key in _differences(old.get(name), new.get(name), f"{prefix}{name}.")]
    return [] if old == new else [prefix.rstrip(".")]
