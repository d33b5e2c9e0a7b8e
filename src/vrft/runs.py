"""The run directory and the store: the only code that knows the names of the files inside them.

::

    RUN/recipe.yaml  environment.json  data.json  knowledge.json  image_warnings.jsonl  custom/  audit.json
    RUN/records.json  predictions.parquet  perception.parquet  logs.parquet      all that the figures are made of
    RUN/metrics.json  report.html  report.md  report.tex  gallery/SAMPLE.png
    RUN/arms/ARM/seed-S/stage-K-KIND/  perception/  predictions.jsonl  done.json    linked from the store
    RUN/failed/ARM/seed-S.json

    STORE/KEY/          a trained stage: log.jsonl  rollouts.parquet  policy/  adapter/  done.json
    STORE/KEY/          checkpoint-N/  best-N/      until the stage is done
    STORE/KEY/          an evaluation: predictions.jsonl  done.json
    STORE/KEY.lock      held by the process that works on KEY

A key is a hash of all that decides the result (``vrft.experiment.keys``). By default the store lies beside the run
directory, so that runs beside each other share it. Files of a run are hard links to the store where the disk can link:
a run directory is whole without its store, and a store can be deleted at any time when no run is going on.

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

from vrft.errors import RunError, first_line
from vrft.images import RULES

FORMAT = 7
"""Raised when a change of the code makes old results worthless, or changes the files of a run."""

KEPT_BY = {"format": FORMAT, "images": RULES}
"""The rules of finished results: in ``environment.json``, and part of every key of the store."""


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
    """Write a text in UTF-8."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the data of a JSON file.

    Raises:
        RunError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({first_line(error)}); delete it, and go on with --resume.") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@dataclass(frozen=True)
class StageDirectory:
    """The files of one stage of training."""

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
        """The cost of the stage, written last."""
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
        """Delete everything that only a stage under way needs."""
        for checkpoint in [*self.path.glob("checkpoint-*"), *self.best_policies().values()]:
            shutil.rmtree(checkpoint)
        shutil.rmtree(self.path / "rollouts", ignore_errors=True)


@dataclass(frozen=True)
class EvaluationDirectory:
    """The predictions of one policy on one set of samples."""

    path: Path

    @property
    def predictions(self) -> Path:
        """One JSON object a sample, appended batch by batch."""
        return self.path / "predictions.jsonl"

    @property
    def done(self) -> Path:
        """The cost of the evaluation, written last."""
        return self.path / "done.json"


@dataclass(frozen=True)
class ArmDirectory(EvaluationDirectory):
    """One arm with one seed in a run directory."""

    def stage(self, index: int, kind: str) -> StageDirectory:
        """A stage of the arm, counted from 0."""
        return StageDirectory(self.path / f"stage-{index}-{kind}")

    def stages(self) -> list[StageDirectory]:
        """The finished stages, in order."""
        return [StageDirectory(path) for path in sorted(self.path.glob("stage-*"))]


@dataclass(frozen=True)
class Store:
    """Trained stages and evaluations by their keys; runs share them."""

    path: Path

    def stage(self, key: str) -> StageDirectory:
        """The stage of a key."""
        return StageDirectory(self.path / key)

    def evaluation(self, key: str) -> EvaluationDirectory:
        """The evaluation of a key."""
        return EvaluationDirectory(self.path / key)

    def lock(self, key: str) -> Path:
        """Held by the process that works on a key."""
        return self.path / f"{key}.lock"

    def link_stage(self, key: str, target: StageDirectory, *, keep_policy: bool = True) -> None:
        """Put a finished stage under a name, with its weights where they are kept."""
        source = self.stage(key)
        if _key_of(target.path) != key or (keep_policy and source.policy.exists() and not target.policy.exists()):
            _link_folder(source.path, target.path, key)
        if not keep_policy:
            target.drop_policy()

    def link_evaluation(self, key: str, target: EvaluationDirectory) -> None:
        """Put a finished evaluation under a name."""
        if _key_of(target.path) == key:
            return
        target.done.unlink(missing_ok=True)
        with replacing(target.predictions) as fresh:
            _link(str(self.evaluation(key).predictions), str(fresh))
        write_json(target.done, read_json(self.evaluation(key).done) | {"key": key})

    def lacks(self, key: str, source: Path) -> bool:
        """Whether a finished result of a run, or its weights, are missing here, and no training of it is under way."""
        place = self.stage(key)
        lost_policy = (source / "policy").exists() and not place.policy.exists()
        return not place.checkpoint() and (lost_policy or not place.done.exists())

    def restore(self, key: str, source: Path) -> None:
        """Put a finished result of a run back; the caller holds the lock of the key."""
        _link_folder(source, self.path / key, key)


def _key_of(folder: Path) -> str | None:
    """The key of a finished result under a name; None where there is none."""
    done = folder / "done.json"
    return read_json(done).get("key") if done.exists() else None


def _link(source: str, target: str) -> None:
    """A hard link where the disk can, a copy elsewhere."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _link_folder(source: Path, target: Path, key: str) -> None:
    """Link all files of a finished result; ``done.json`` is a file of its own, which names the key."""
    with replacing(target) as fresh:
        ignore = shutil.ignore_patterns(
            *("checkpoint-*", "best-*", "rollouts", "stage-*", "perception", ".*.part", "done.json")
        )
        shutil.copytree(source, fresh, copy_function=_link, ignore=ignore)
        write_json(fresh / "done.json", read_json(source / "done.json") | {"key": key})


@dataclass(frozen=True)
class RunDirectory:
    """One run, or one ablation, of a recipe."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, revision and seeds."""
        return self.path / "environment.json"

    @property
    def data(self) -> Path:
        """Counts of the annotations that were read, and who wrote the card."""
        return self.path / "data.json"

    @property
    def audit(self) -> Path:
        """The findings of ``vrft audit --run``."""
        return self.path / "audit.json"

    @property
    def image_log(self) -> Path:
        """The names of unusual images, a line each."""
        return self.path / "image_warnings.jsonl"

    @property
    def knowledge(self) -> Path:
        """The prior knowledge of the run."""
        return self.path / "knowledge.json"

    @property
    def custom(self) -> Path:
        """Copies of the files of the user's own rewards."""
        return self.path / "custom"

    @property
    def records(self) -> Path:
        """The design, the task, and the cost or the error of each arm and seed: plain data."""
        return self.path / "records.json"

    @property
    def predictions(self) -> Path:
        """The predictions of all arms and seeds in one table."""
        return self.path / "predictions.parquet"

    @property
    def perception(self) -> Path:
        """The predictions on the tasks of stages with a task of their own."""
        return self.path / "perception.parquet"

    @property
    def logs(self) -> Path:
        """The logs of all trainings in one table."""
        return self.path / "logs.parquet"

    @property
    def metrics(self) -> Path:
        """All figures with intervals and tests."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def gallery(self) -> Path:
        """Some of the evaluated images, for the report."""
        return self.path / "gallery"

    @property
    def default_store(self) -> Path:
        """The store of this run and of those beside it."""
        return self.path.absolute().parent / "_store"

    def arm(self, name: str, seed: int) -> ArmDirectory:
        """An arm with a seed, by name."""
        return ArmDirectory(self.path / "arms" / name / f"seed-{seed}")

    def finished(self) -> dict[str, Path]:
        """The folders of finished stages and evaluations under ``arms``, by their keys."""
        folders = [done.parent for done in sorted((self.path / "arms").glob("**/done.json"))]
        return {key: folder for folder in folders if (key := _key_of(folder))}

    def failure(self, arm: str, seed: int, part: str = "") -> Path:
        """The error of an arm and seed, or of a part of it: a stage that others share, or ``perception``."""
        return self.path / "failed" / arm / f"seed-{seed}{'-' if part else ''}{part}.json"

    def pin_knowledge(self, facts: dict[str, Any]) -> None:
        """Keep the prior knowledge with the run: a card may change, and the run must not change with it.

        Raises:
            RunError: the run began with other knowledge.
        """
        self.check_knowledge(facts)
        write_json(self.knowledge, facts)

    def check_knowledge(self, facts: dict[str, Any]) -> None:
        """Compare prior knowledge with that of the run.

        Raises:
            RunError: they differ.
        """
        if self.knowledge.exists() and read_json(self.knowledge) != facts:
            raise RunError(
                f"the card says something else than when {self.path} began ({self.knowledge.name} there holds it); "
                f"undo the change, or choose another --out."
            )

    def open(self, recipe: str, *, resume: bool, same_recipe: bool = True) -> None:
        """Take the directory for a recipe (its resolved YAML).

        Args:
            recipe: the resolved YAML.
            resume: go on with a run that is there.
            same_recipe: refuse to go on with another recipe; without it the arms of the new recipe take the place of
                the old arms, where both have one name, kind of task and source of data.

        Raises:
            RunError: it holds a run and ``resume`` is off, or the run of another recipe, or a run of another version,
                or something else; or it is no folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; choose another --out.")
        if (self.path / "store").is_dir() or (self.path / "runs.json").exists():
            raise RunError(f"{self.path} holds an ablation of an older version of vrft; choose another --out.")
        if not self.environment.exists():  # nothing has begun
            if self.path.exists() and any(path != self.recipe for path in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no run; choose another --out.")
            try:
                write_text(self.recipe, recipe)
            except OSError as error:
                raise RunError(f"{self.path} cannot be made ({error.strerror}); choose another --out.") from None
            return
        if not resume:
            raise RunError(f"{self.path} holds a run already; go on with --resume, or choose another --out.")
        self._check_format()
        differing = _differences(yaml.safe_load(self.recipe.read_text(encoding="utf-8")), yaml.safe_load(recipe))
        if not same_recipe:
            differing = [key for key in differing if key in ("name", "task.kind", "data.source")]
        if differing:
            raise RunError(
                f"{self.path} holds a run of another recipe; it differs in {', '.join(differing)}. "
                f"Choose another --out, or undo the change."
            )
        write_text(self.recipe, recipe)

    def _check_format(self) -> None:
        """Make sure that finished results were made by the rules of this version.

        Raises:
            RunError: they were made by other rules.
        """
        environment = read_json(self.environment)
        found = {name: environment.get(name, "unstated") for name in KEPT_BY}
        if found != KEPT_BY:
            differing = [f"{name} {found[name]}, not {now}" for name, now in KEPT_BY.items() if found[name] != now]
            raise RunError(
                f"{self.path} was begun by another version of vrft ({self.environment.name} there: "
                f"{'; '.join(differing)}), whose files or rules of reading differ; its arms cannot be compared with "
                f"new arms. Choose another --out, or go on with that version."
            )


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two resolved recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [key for name in keys for key in _differences(old.get(name), new.get(name), f"{prefix}{name}.")]
    return [] if old == new else [prefix.rstrip(".")]
