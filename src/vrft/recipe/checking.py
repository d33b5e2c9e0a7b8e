"""Reading a recipe and checking it: each key alone, all together, and against the data; every fault with its line."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vrft.data import Source
from vrft.errors import DataError, Fault, KnowledgeError, RecipeError
from vrft.recipe.arms import ARMS
from vrft.recipe.comparison import ArmChange, name_of_arm
from vrft.recipe.opening import build_task, open_knowledge, open_source
from vrft.recipe.schema import Recipe
from vrft.recipe.sections import PythonData, RftStage, SftStage, texts_of
from vrft.response import parse, render
from vrft.rewards import APPLIES, REWARDS, missing_for
from vrft.rewards.custom import check_custom
from vrft.tasks import Classification, Grading, Localization
from vrft.tasks.task_sections import ClassificationTask, GradingTask, LocalizationTask
from vrft.typed import Keys, Loader, Places, YamlError, fault_of, read_yaml, validate

VALIDATED: dict[str, Sequence[str]] = {task.kind: task.metrics for task in (Classification, Grading, Localization)}
"""The metrics of validation, by the kind of task."""

Check = Callable[["Recipe"], Iterable[tuple[Keys, str]]]
"""A check of a recipe: gives the keys of a place in it, and a message."""


def read_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    source: Source | None = None,
    also: Check | None = None,
    check_data: bool = True,
) -> Recipe:
    """Read and check a recipe.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts with dots between keys (``stages.0.steps=50``); the value is YAML.
        source: of the samples, in place of the section ``data``.
        also: further checks of a command.
        check_data: open the data and the knowledge, and check that the recipe fits them.

    Raises:
        RecipeError: anything is wrong with it; all faults together.
    """
    path = Path(path)
    raw, places, faults = _read(path)
    for override in overrides:
        faults += _override(raw, override, places)
    return _checked(raw, places, path, faults, source, also, check_data)


def check_recipe(recipe: Recipe, *, source: Source | None = None, also: Check | None = None) -> Recipe:
    """Check a recipe that was built in a program, as ``read_recipe`` checks a file.

    Args:
        recipe: the recipe; ``model_copy(update=...)`` may have put plain values into it.
        source: of the samples, in place of the section ``data``.
        also: further checks of a command.

    Returns:
        the recipe with every value of its type.

    Raises:
        RecipeError: anything is wrong with it; all faults together, each with the key in place of a line.
    """
    with warnings.catch_warnings(action="ignore"):  # of pydantic, on values of other types
        plain = recipe.model_dump()
    return _checked(plain, {}, Path(str(recipe.name)), [], source, also)


def parse_recipe(path: Path) -> Recipe:
    """Read a recipe without a look at its data and files, such as that of a finished run.

    Raises:
        RecipeError: it is no recipe.
    """
    raw, places, faults = _read(path)
    recipe, more = validate(Recipe, raw, places, path)
    if recipe is None or faults or more:
        raise RecipeError([*faults, *more])
    return recipe


def _read(path: Path) -> tuple[dict[str, Any], Places, list[Fault]]:
    try:
        return read_yaml(path)
    except YamlError as error:
        raise RecipeError([error.fault]) from None


def _checked(
    raw: dict[str, Any],
    places: Mapping[Keys, str],
    path: Path,
    faults: list[Fault],
    source: Source | None,
    also: Check | None,
    check_data: bool = True,
) -> Recipe:
    """The recipe of plain data.

    Raises:
        RecipeError: anything is wrong with it.
    """
    unfit = list(_unfit_rewards(raw, places, path))
    recipe, more = validate(Recipe, raw, places, path)
    faults += [*more, *unfit]
    if recipe is not None:
        reported = {fault.message for fault in unfit}
        across = _cross_check(recipe, places, path, source, check_data)
        faults += [fault for fault in across if fault.message not in reported]
    if recipe is not None and not faults and also is not None:
        faults = [Fault(place_of(places, keys, path), message) for keys, message in also(recipe)]
    if faults or recipe is None:
        raise RecipeError(faults)
    return recipe


def place_of(places: Mapping[Keys, str], keys: Keys, path: Path) -> str:
    """Where a key stands, or the section that would hold it."""
    return next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), str(path))


def _override(raw: dict[str, Any], override: str, places: dict[Keys, str]) -> list[Fault]:
    """Put a ``--set`` value into the raw recipe and note where it came from."""
    where = f"--set {override}"
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        return [Fault(where, "expected KEY=VALUE, such as stages.0.steps=50.")]
    keys: list[str | int] = [int(part) if re.fullmatch("[0-9]{1,5}", part) else part for part in dotted.split(".")]
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return [Fault(where, f"{text!r} is no YAML value.")]
    place: Any = raw
    for depth, key in enumerate(keys[:-1]):
        if isinstance(place, list) and isinstance(key, int) and key < len(place):
            place = place[key]
        elif isinstance(place, dict):
            if not isinstance(place.get(key), (dict, list)):  # a reward may be its weight alone
                place[key] = {"weight": place[key]} if isinstance(place.get(key), (int, float)) else {}
            place = place[key]
        else:
            return [Fault(where, f"{'.'.join(map(str, keys[: depth + 1]))} is not in the recipe.")]
    if isinstance(place, list) and not (isinstance(keys[-1], int) and keys[-1] < len(place)):
        return [Fault(where, f"{dotted} is not in the recipe; the list has {len(place)} items.")]
    place[keys[-1]] = value
    for depth in range(1, len(keys) + 1):
        places.setdefault(tuple(keys[:depth]), where)
    places[tuple(keys)] = where
    return []


def _unfit_rewards(raw: dict[str, Any], places: Mapping[Keys, str], path: Path) -> Iterator[Fault]:
    """Rewards that do not apply to the task, by the raw keys: other faults may leave no recipe to check."""
    stages, custom = raw.get("stages"), raw.get("custom")
    custom = custom if isinstance(custom, dict) else {}
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        task = (stage.get("task") or raw.get("task")) if isinstance(stage, dict) else None
        kind = task.get("kind") if isinstance(task, dict) else None
        if kind not in VALIDATED or not isinstance(stage.get("rewards"), dict):
            continue
        for reward in stage["rewards"]:
            keys: Keys = ("stages", index, "rewards", reward)
            at = place_of(places, keys, path)
            yield from _check_reward(str(reward), kind, f"stages.{index}.rewards", at, custom)


def _check_reward(reward: str, kind: str, dotted: str, where: str, custom: Iterable[str]) -> Iterator[Fault]:
    """Whether there is such a reward, and it applies to the kind of task."""
    fit = [name for name, kinds in APPLIES.items() if kind in kinds] + [str(name) for name in custom]
    if reward in fit:
        return
    why = f", which does not apply to {kind}" if reward in APPLIES else ", which is no reward"
    yield Fault(where, f"{dotted} has {reward!r}{why}; expected {', '.join(fit)}.", reward, fit)


def _check_knowledge(recipe: Recipe, source: Source, at: Callable[..., str]) -> Iterator[Fault]:
    """The prior knowledge against the data, and the arms that need it."""
    names = recipe.arm_names()
    for where, stage in [(at("stages", i), one) for i, one in enumerate(recipe.stages)] + [
        (at("sft", "think_from"), one) for arm in ("sft",) if arm in names for one in recipe.stages_of(arm)
    ]:
        if isinstance(stage, SftStage) and stage.think_from == "card":
            if recipe.knowledge is None:
                yield Fault(where, "think_from is card, but the recipe has no knowledge.")
            elif stage.task is not None:
                yield Fault(where, "think_from is card, but nothing is known of what another task asks.")
    for index, name in enumerate(names):
        if recipe.knowledge is None and recipe.arm(name).needs_knowledge:
            yield Fault(at("arms", index), f"arms.{index} is {name}, but the recipe has no knowledge.")
        elif (trained := recipe.trained_as(name)) != name and trained not in names[:index]:
            text = f"arms.{index} is {name}, which tests the policy of {trained}; name that before it."
            yield Fault(at("arms", index), text)
    if recipe.knowledge is None:
        return
    if isinstance(recipe.task, LocalizationTask):
        yield Fault(at("knowledge"), "knowledge needs classes or grades, and a localization has none.")
        return
    try:
        injection = open_knowledge(recipe, source)
        if injection and "swapped" in names:
            injection.texts_for("swapped")
    except KnowledgeError as error:
        where = at("knowledge", "card")
        yield from (replace(one, where=where, message=f"{one.where}: {one.message}") for one in error.faults)
    except (DataError, ValueError) as error:
        yield Fault(at("knowledge", "card"), f"{str(error).rstrip('.')}.")


def _check_recitation(recipe: Recipe, stage: RftStage, dotted: str, where: str) -> Iterator[Fault]:
    """Whether there is something to recite."""
    recitation = stage.rewards.recitation
    if recitation is None:
        return
    if recipe.knowledge is None:
        yield Fault(where, f"{dotted} pays for recitation, but the recipe has no knowledge.")
    elif stage.task is not None:
        yield Fault(where, f"{dotted} pays for recitation, but nothing is known of what another task asks.")
    elif recitation.model is not None and recitation.measure != "embedding":
        measure = f"{dotted}.recitation.measure is {recitation.measure}"
        yield Fault(where, f"{measure}, which takes no model; expected measure: embedding.")
    elif missing := missing_for(recitation.measure, recitation.model):
        yield Fault(where, f"{missing}.")


def _check_custom(recipe: Recipe, at: Callable[..., str]) -> Iterator[Fault]:
    """Rewards of the user: their names, their use and the text of their files."""
    stages: list[RftStage | SftStage] = [*recipe.stages]
    for arm in recipe.arm_names():
        with suppress(ValueError):  # an arm whose changes are wrong has a fault of its own
            stages += recipe.stages_of(arm)
    used = {name for stage in stages if isinstance(stage, RftStage) for name in stage.weights()}
    for name, where in recipe.custom.items():
        if name in REWARDS:
            yield Fault(at("custom", name), f"custom.{name} has the name of a built-in reward; choose another name.")
        elif name not in used:
            yield Fault(at("custom", name), f"custom.{name} is not used: no stage and no arm names it in its rewards.")
        yield from check_custom(name, where, at("custom", name))


def _cross_check(
    recipe: Recipe,
    places: Mapping[Keys, str],
    path: Path,
    source: Source | None = None,
    check_data: bool = True,
) -> Iterator[Fault]:
    """Checks over several keys: rewards against the task, labels against the data, files against the disk."""

    def at(*keys: str | int) -> str:
        return place_of(places, keys, path)

    kind = recipe.task.kind
    if not recipe.own_stages():
        yield Fault(at("stages"), "every stage is on another task; one must train the task of the recipe.")
        return
    reported = set[str]()
    for index, stage in enumerate(recipe.stages):
        where = at("stages", index, "rewards")
        for fault in check_stage(stage, kind, f"stages.{index}.rewards", where, recipe.custom):
            reported.add(fault.message)
            yield fault
        if isinstance(stage, RftStage):
            yield from _check_recitation(recipe, stage, f"stages.{index}.rewards", where)
        if stage.data is not None and stage.task is None:
            yield Fault(at("stages", index, "data"), f"stages.{index}.data needs stages.{index}.task, what it asks.")
        elif stage.task is not None and stage.data is None and isinstance(recipe.data, PythonData):
            message = f"stages.{index} needs data of its own, since data.source is python and gives one task"
            yield Fault(at("stages", index), f"{message}.")
        elif stage.task is not None and check_data:
            try:
                open_source(recipe, stage).check()
            except DataError as error:
                yield _fault_of_data(at("stages", index, "data"), error)
    if len(recipe.own_stages()) == len(recipe.stages):
        for index, arm in enumerate(recipe.arms):
            perceives = arm.perception if isinstance(arm, ArmChange) else ARMS[arm].needs_other_task
            if perceives:
                name = name_of_arm(arm)
                yield Fault(at("arms", index), f"arms.{index} is {name}, but no stage has a task of its own.")
    if {"sft", "sft+PA_p"} & set(recipe.arm_names()):
        faults = check_stage(recipe.stages_of("sft")[0], kind, "sft", at("sft", "think"), ())
        yield from (fault for fault in faults if fault.message not in reported)  # those it has from the last stage
    for index, arm in enumerate(recipe.arms):
        if isinstance(arm, ArmChange):
            where = at("arms", index, "set")
            if arm.name in ARMS:
                yield Fault(where, f"arms.{index}.name is {arm.name!r}, which is one of the arms without changes.")
                continue
            if not (arm.set or arm.knowledge or arm.perception):
                yield Fault(at("arms", index), f"arms.{index} changes nothing; give set, knowledge or perception.")
                continue
            try:
                last = recipe.stages_of(arm.name)[-1]
                yield from check_stage(last, kind, f"arms.{index}.set.rewards", where, recipe.custom)
                if isinstance(last, RftStage) and "rewards" in arm.set:
                    yield from _check_recitation(recipe, last, f"arms.{index}.set.rewards", where)
            except ValidationError as error:
                for one in error.errors():
                    inner = tuple(part for part in one["loc"] if part != "[key]")
                    shown = dict(one) | {"loc": ("stages", 0, recipe.stages[-1].kind, *one["loc"])}
                    yield fault_of(Recipe, ("arms", index, "set", *inner), shown, places, path)
            except ValueError:
                yield Fault(where, f"arms.{index}.name is {arm.name!r}, which another arm has too.")
    yield from _check_custom(recipe, at)
    yield from _check_training(recipe, at)
    if len(set(recipe.arm_names())) != len(recipe.arms):
        yield Fault(at("arms"), f"arms names an arm twice: {', '.join(recipe.arm_names())}.")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        yield Fault(at("seeds"), f"seeds names a seed twice: {', '.join(map(str, recipe.seeds))}.")

    model = recipe.policy.model
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not (
        Path(os.path.expanduser(model)) / "config.json"
    ).is_file():
        yield Fault(at("policy", "model"), f"policy.model is {model!r}, but there is no {model}/config.json.")

    if source is not None and not isinstance(recipe.data, PythonData):
        yield Fault(at("data"), f"data.source is {recipe.data.source}, and a source is given; expected source: python.")
        return
    members = ("labels", "levels", "question", "check", "samples")
    if source is not None and (lacking := [name for name in members if not hasattr(source, name)]):
        yield Fault(at("data"), f"the source has no {', '.join(lacking)}; a source has {', '.join(members)}.")
        return
    if not check_data:
        return
    try:
        source = source or open_source(recipe)
    except DataError as error:
        yield _fault_of_data(at("data"), error)
        return
    try:
        source.check()
    except DataError as error:
        yield _fault_of_data(at("data", "root"), error)
        return
    yield from _check_knowledge(recipe, source, at)
    if isinstance(recipe.task, ClassificationTask):
        known = source.labels or []
        for label in recipe.task.labels or []:
            if label not in known:
                yield Fault(
                    at("task", "labels"), f"task.labels has {label!r}; the data has {', '.join(known)}.", label, known
                )
        lacking = [label for label in known if label not in recipe.task.labels] if recipe.task.labels else []
        if lacking:
            yield Fault(at("task", "labels"), f"task.labels lacks {', '.join(map(repr, lacking))}, which the data has.")
        unknown = [label for label in recipe.task.synonyms if label not in known]
        for label in unknown:
            where = at("task", "synonyms", label)
            yield Fault(where, f"task.synonyms names {label!r}, which is no label.", label, known)
        if unknown:
            return
    elif isinstance(recipe.task, LocalizationTask):
        return
    try:
        task = build_task(recipe, source)
    except KnowledgeError:
        return  # reported already
    except ValueError as error:
        key = "labels" if isinstance(recipe.task, ClassificationTask) else "names"
        yield Fault(at("task", key), f"{error}.")
        return
    if not isinstance(recipe.task, GradingTask):
        return
    assert isinstance(task, Grading)
    if task.levels != source.levels:
        if recipe.task.names:
            yield Fault(at("task", "names"), f"task.names has {task.levels} names for {source.levels} grades.")
        else:
            yield Fault(at("task", "levels"), f"task.levels is {task.levels}; the data has {source.levels} grades.")


def _fault_of_data(where: str, error: DataError) -> Fault:
    """A refusal of a source, with the page about data."""
    return Fault(where, f"{error} (docs/data.md: your data, what to write; vrft init FOLDER writes a recipe.)")


def _check_objective(stage: RftStage, dotted: str, where: str, custom: Iterable[str]) -> Iterator[Fault]:
    """Keys of the objective that contradict each other, or would have no effect."""
    if stage.loss == "cispo" and (stage.clip_high is None or stage.clip_high < 1):
        yield Fault(where, f"{dotted}: loss cispo needs clip_high, the largest ratio, 1 or more (such as 5).")
    if stage.loss in ("sapo", "vespo", "rejection") and stage.clip_high is not None:
        yield Fault(where, f"{dotted}: loss {stage.loss} does not clip; leave clip_high out.")
    sequence = stage.importance_sampling == "sequence"
    if stage.loss == "luspo" and not sequence:
        yield Fault(where, f"{dotted}: loss luspo needs importance_sampling: sequence.")
    if sequence and stage.loss not in ("grpo", "sapo", "luspo"):
        text = f"loss {stage.loss} averages over tokens, and importance_sampling: sequence gives one ratio a completion"
        yield Fault(where, f"{dotted}: {text}; expected loss grpo, sapo or luspo, or importance_sampling: token.")
    if stage.save_every % stage.updates_per_batch:
        text = "a run that resumes samples a batch of rollouts anew"
        yield Fault(
            where,
            f"{dotted}: save_every is {stage.save_every}; expected a multiple of updates_per_batch, "
            f"{stage.updates_per_batch}: {text}.",
        )
    if stage.loss == "rejection":
        if stage.updates_per_batch > 1 or stage.dynamic_sampling:
            text = "loss rejection takes updates_per_batch: 1 and dynamic_sampling: 0"
            yield Fault(where, f"{dotted}: {text}, so that what is learnt is the policy's own.")
        if not any(weight > 0 for weight in stage.weights().values()):
            yield Fault(where, f"{dotted}: loss rejection needs a reward of positive weight.")
        yield from _unbounded(stage, f"{dotted}: loss rejection", where, custom)
    if stage.loss == "vespo" and stage.rollouts == "vllm" and stage.vllm.correction.startswith("sequence"):
        yield Fault(where, f"{dotted}: loss vespo takes vllm.correction none, token_truncate or token_mask.")


def _unbounded(stage: RftStage | SftStage, needs: str, where: str, custom: Iterable[str]) -> Iterator[Fault]:
    """Custom rewards of positive weight, whose largest value is unknown, where it is needed."""
    weights = stage.weights() if isinstance(stage, RftStage) else {}
    for name in custom:
        if weights.get(name, 0.0) > 0:
            why = "accepts completions by the most that rewards can pay, which is not known of the custom reward"
            yield Fault(where, f"{needs} {why} {name!r}; leave it out.")


def _check_training(recipe: Recipe, at: Callable[..., str]) -> Iterator[Fault]:
    """Precision, validation and loggers, which concern every stage."""
    stages: list[RftStage | SftStage] = []
    for arm in recipe.arm_names():
        with suppress(ValueError):  # an arm whose changes are wrong is reported elsewhere
            stages += recipe.stages_of(recipe.trained_as(arm))
    if recipe.policy.dtype == "float16" and stages:
        text = "policy.dtype is 'float16', in which gradients overflow"
        yield Fault(at("policy", "dtype"), f"{text}; training needs auto, bfloat16 or float32.")
    for index, tracker in enumerate(recipe.report_to):
        if find_spec(tracker) is None:
            yield Fault(
                at("report_to", index), f"report_to has {tracker}, which is not installed; install vrft[{tracker}]."
            )
    if "rejection" in recipe.arm_names() and any(
        not any(weight > 0 for weight in stage.weights().values())
        for stage in recipe.own_stages()
        if isinstance(stage, RftStage)
    ):
        yield Fault(at("arms"), "arms has rejection, which needs a reward of positive weight in every stage.")
    for stage in recipe.own_stages() if "rejection" in recipe.arm_names() else ():
        yield from _unbounded(stage, "arms has rejection, which", at("arms"), recipe.custom)
    if not isinstance(recipe.own_stages()[-1], RftStage) and "rejection" in recipe.arm_names():
        yield Fault(at("arms"), "arms has rejection, which needs a last stage of kind rft.")
    section = recipe.validate
    if section is None:
        return
    known = VALIDATED[recipe.task.kind]
    if section.metric is not None and section.metric not in known:
        text = f"validate.metric is {section.metric!r}; expected one of {', '.join(known)}."
        yield Fault(at("validate", "metric"), text, section.metric, known)
    schedules = {stage.lr_schedule for stage in stages} - {"constant"}
    if section.patience is not None and schedules:
        text = f"lr_schedule is {min(schedules)}, which needs to know the last step, and patience ends a stage earlier"
        yield Fault(at("validate", "patience"), f"validate.patience: {text}; expected constant.")
    if (section.keep == "best" or section.patience) and recipe.evaluation.split == "validation":
        text = "validate chooses by the validation split, on which evaluation.split then reports"
        yield Fault(at("evaluation", "split"), f"{text}; expected test, or neither keep: best nor patience.")


def check_stage(
    stage: RftStage | SftStage, kind: str, dotted: str, where: str, custom: Iterable[str]
) -> Iterator[Fault]:
    """The faults of a stage as it stands in a recipe.

    Args:
        stage: of the recipe, or of an arm.
        kind: of the recipe's task.
        dotted: the keys of its rewards, for messages.
        where: the place in the recipe.
        custom: the names of the user's rewards.
    """
    asked = stage.task.kind if stage.task is not None else kind
    if stage.balance and asked == "localization":
        text = "balance is true, which shows each class equally often, and a localization has none; leave it out."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}")
    sequences = stage.batch_size if isinstance(stage, SftStage) else stage.prompts_per_step * stage.group_size
    if stage.micro_batch is not None and sequences % stage.micro_batch:
        yield Fault(where, f"a step has {sequences} sequences, which micro_batch {stage.micro_batch} does not divide.")
    if (stage.max_tokens or stage.max_seconds) and stage.lr_schedule != "constant":
        text = f"lr_schedule is {stage.lr_schedule}, which needs to know the last step, and max_tokens or max_seconds "
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}end the stage earlier; expected constant.")
    iou = stage.rewards.iou if isinstance(stage, RftStage) else None
    if (stage.max_tokens or stage.max_seconds) and iou and isinstance(iou.threshold, list):
        text = "rises over all steps, and max_tokens or max_seconds end the stage earlier; give one value"
        yield Fault(where, f"{dotted}.iou.threshold {text}.")
    if isinstance(stage, SftStage):
        for text in texts_of(stage.think):
            if parse(render(text, "x")).problems:
                yield Fault(where, f"the think text {text!r} breaks the envelope; write plain words without tags.")
        return
    yield from _check_objective(stage, dotted.removesuffix(".rewards"), where, custom)
    for reward in stage.weights():
        yield from _check_reward(reward, asked, dotted, where, custom)
    if stage.rollouts == "vllm" and find_spec("vllm") is None:
        text = "rollouts: vllm needs vLLM and a GPU; install vrft[vllm], or leave it at transformers."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}")
    if stage.dynamic_sampling and not stage.shared_prefix:
        text = "dynamic_sampling needs shared_prefix: true, or leave it at 0."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}")
    if stage.dynamic_sampling and (stage.scale_rewards == "batch" or stage.aggregation == "normalize_then_sum"):
        text = "dynamic_sampling changes the groups of a step, and advantages that are scaled by the step with them; "
        text += "expected scale_rewards group or none, with aggregation sum_then_normalize."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}")
    if stage.aggregation == "normalize_then_sum" and stage.scale_rewards != "group":
        text = f"scale_rewards is {stage.scale_rewards!r}; with aggregation normalize_then_sum expected group."
        yield Fault(where, f"{dotted.removesuffix('.rewards')}: {text}")
    if not any(stage.weights().values()):
        yield Fault(where, f"{dotted} weighs every reward 0; nothing would be learnt.")
