"""The design of an ablation: which arms it compares, and which comparisons are planned before a result is seen.

The cells are every combination of the augmentations that apply, added to plain V-RFT (the arm ``rft``). Beside them
stand control arms, the recipe's own further arms, and a sweep of weights. All become arms of one recipe.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from vrft.errors import UserError
from vrft.evaluation.factorial import fraction_of
from vrft.recipe import (
    ARMS,
    FACTORS,
    ArmChange,
    Budget,
    Recipe,
    RftStage,
    check_stage,
    name_of_arm,
    read_recipe,
)
from vrft.rewards import APPLIES
from vrft.typed import Keys

Levels = dict[str, str]
"""The level of each factor."""

OFF, ON, NONE = "off", "on", "0"

ADDED = ("fuzzy", "recitation")
"""Rewards that an ablation adds to plain V-RFT; in the recipe they have the weight 0, or are not named."""

PAIRS = (
    ("rft", "base"),
    ("rft", "majority"),
    ("rft", "sft"),
    ("rft", "rejection"),
    ("rft", "blind"),
    ("rft", "nothink"),
    ("rft", "thinkafter"),
    ("rft+PA_pi", "rft+extra"),
    ("rft+PA_pi", "rft+shuffled"),
    ("rft+PA_p", "without"),
    ("rft+PA_p", "swapped"),
    ("rft+PA_p", "irrelevant"),
    ("base+PA_p", "base"),
    ("rft+PA_p", "sft+PA_p"),
    ("PA_pi", "base"),
)
"""The planned comparisons of the control arms; with the effects of the factorial they are the family of tests."""


@dataclass(frozen=True)
class Design:
    """The arms of an ablation, by what they are for."""

    recipe: Recipe
    """The recipe with all the arms."""
    factors: dict[str, tuple[str, ...]]
    """The levels of each factor; the first is that of plain V-RFT."""
    cells: dict[str, Levels]
    controls: list[str]
    sweep: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Where on the grid each arm of the sweep lies; the cell that is varied is one of them."""
    fraction: int | None = None
    """The part of the cells that is run is one in so many."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The planned comparisons of two arms.

        With a factorial: all augmentations together, rewarded recitation against the other sign, and the controls.
        Without: every two arms, the later arm first.
        """
        names = self.recipe.arm_names()
        if not self.factors:
            return [(b, a) for a, b in combinations(names, 2)]
        full = name_of({factor: levels[1] for factor, levels in self.factors.items()})
        pairs = [(full, "rft"), *PAIRS] if len(self.factors) > 1 else PAIRS
        return [(a, b) for a, b in pairs if a in names and b in names]

    @property
    def name(self) -> str:
        """The name of its run directory: that of the recipe, which an ablation does not share with a run."""
        return f"{self.recipe.name}-ablation" if self.factors else self.recipe.name

    @property
    def keeps_policies(self) -> bool:
        """Whether weights stay that no job needs any more; those of a run always do."""
        return self.recipe.ablation.keep_policies or not self.factors

    @property
    def budget(self) -> Budget:
        """How the arms are matched; in a run by their stages alone."""
        return self.recipe.ablation.budget if self.factors else Budget()

    def kind_of(self, arm: str) -> str:
        """The role of an arm: ``arm`` in a run, else ``cell``, ``control`` or ``sweep``."""
        if not self.factors:
            return "arm"
        return "cell" if arm in self.cells else "control" if arm in self.controls else "sweep"


def design_of_run(recipe: Recipe) -> Design:
    """The design of a run: the arms of the recipe, without a factorial."""
    return Design(recipe, {}, {}, [])


def read_design(path: Path, overrides: Sequence[str] = (), *, fraction: int | None = None) -> Design:
    """Read a recipe and lay out its ablation.

    Raises:
        RecipeError: the recipe is wrong, or an ablation of it is not possible.
        UserError: there is no balanced fraction of that size.
    """
    return design_of(read_recipe(path, overrides, also=faults), fraction=fraction)


def only(design: Design, arms: Sequence[str]) -> Design:
    """The part of a design that has these arms.

    Raises:
        UserError: one is not in the design, or needs another that is not named.
    """
    known = design.recipe.arm_names()
    for arm in arms:
        if arm not in known:
            raise UserError(f"--arm {arm}: the ablation has no such arm; it has {', '.join(known)}.")
        if (trained := design.recipe.trained_as(arm)) not in arms:
            raise UserError(f"--arm {arm} tests the policy of {trained}; name that too.")
    return replace(
        design,
        recipe=design.recipe.model_copy(
            update={"arms": [one for one in design.recipe.arms if name_of_arm(one) in arms]}
        ),
        cells={name: levels for name, levels in design.cells.items() if name in arms},
        controls=[name for name in design.controls if name in arms],
        sweep={name: at for name, at in design.sweep.items() if name in arms},
    )


def design_of(recipe: Recipe, *, fraction: int | None = None) -> Design:
    """The design of a recipe that ``faults`` finds nothing wrong with.

    Raises:
        UserError: there is no balanced fraction of that size.
    """
    factors = factors_of(recipe)
    cells = {name_of(levels): levels for levels in _combinations(factors)}
    if fraction is not None:
        try:
            kept = fraction_of(cells, factors, fraction)
        except ValueError as error:
            raise UserError(f"--fraction 1/{fraction}: {str(error).rstrip('.')}.") from None
        cells = {name: cells[name] for name in kept}
    controls = _controls(recipe, cells)
    sweep, swept = _sweep(recipe, factors)
    made: list[Any] = [*(_arm(recipe, name, levels) for name, levels in cells.items()), *controls]
    own = {name_of_arm(one) for one in (*made, *swept)}
    further = [arm for arm in recipe.arms if isinstance(arm, ArmChange) and arm.name not in own]
    arms = [*made, *further, *swept]
    names = {name_of_arm(arm) for arm in arms}
    return Design(
        recipe.model_copy(update={"arms": arms}),
        factors,
        cells,
        controls + [arm.name for arm in further],
        {name: at for name, at in sweep.items() if name in names},  # a fraction may lack the cell that is varied
        fraction,
    )


def factors_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The levels of each factor that an ablation of this recipe crosses."""
    weight = _text(recipe.ablation.recite)
    levels = dict.fromkeys(FACTORS, (OFF, ON)) | {"recite": (NONE, f"-{weight}", f"+{weight}")}
    wanted = recipe.ablation.factors or [name for name in FACTORS if not _misfit(recipe, name)]
    return {name: levels[name] for name in FACTORS if name in wanted}


def faults(recipe: Recipe) -> Iterator[tuple[Keys, str]]:
    """The faults of a recipe that rule an ablation out: the keys, and why."""
    last = len(recipe.stages) - 1 - [stage.task is None for stage in reversed(recipe.stages)].index(True)
    stage, section = recipe.stages[last], recipe.ablation
    at: Keys = ("stages", last)
    if not isinstance(stage, RftStage):
        yield (
            (*at, "kind"),
            f"stages.{last} is {stage.kind}; an ablation varies the rewards of a last stage of kind rft.",
        )
        return
    for reward in ADDED:
        if stage.weights().get(reward):
            text = f"stages.{last}.rewards has {reward!r}, which an ablation adds by itself to plain V-RFT; expected "
            yield (*at, "rewards", reward), f"{text}the accuracy (or iou) and format rewards alone."
    for index, name in enumerate(section.factors or ()):
        if why := _misfit(recipe, name):
            yield ("ablation", "factors", index), f"ablation.factors has {name}, but {why}."
    if not factors_of(recipe):
        text = "no augmentation applies: the recipe has no knowledge, no stage with a task of its own and no grades"
        yield ("ablation",), f"{text}; nothing can be crossed."
        return
    factors = factors_of(recipe)
    cells = {name_of(levels): levels for levels in _combinations(factors)}
    for index, arm in enumerate(section.controls or ()):
        if arm not in _controls(recipe, cells):
            text = f"ablation.controls has {arm}, which does not apply: it needs what the recipe does not have"
            yield ("ablation", "controls", index), f"{text} (knowledge, a stage with a task of its own, or their cell)."
    found = list(_sweep_faults(recipe, factors))
    yield from found
    if found:
        return
    own = [*(_arm(recipe, *cell) for cell in cells.items()), *_sweep(recipe, factors)[1]]
    design = {name_of_arm(arm): arm for arm in own}
    for index, one in enumerate(recipe.arms):
        if isinstance(one, ArmChange) and one.name in design and one != design[one.name]:
            text = f"arms.{index}.name is {one.name!r}, which an ablation calls an arm of its own that differs from it"
            yield ("arms", index), f"{text}; choose another."
    if section.budget.match in ("tokens", "seconds"):
        yield from _budget_faults(design_of(recipe).recipe, last)


def _budget_faults(recipe: Recipe, last: int) -> Iterator[tuple[Keys, str]]:
    """Last stages that need to know their last step, which a budget does not tell them."""
    text = f"ablation.budget matches {recipe.ablation.budget.match}, so the last step is not known before it is reached"
    for arm in recipe.arm_names():
        for stage in recipe.stages_of(arm)[-1:]:
            if stage.lr_schedule != "constant":
                why = f"stages.{last}.lr_schedule must be constant (arm {arm})"
                yield ("ablation", "budget", "match"), f"{text}; {why}."
                return
            if isinstance(stage, RftStage) and stage.rewards.iou and isinstance(stage.rewards.iou.threshold, list):
                yield ("ablation", "budget", "match"), f"{text}; rewards.iou.threshold must be one value (arm {arm})."
                return


def _sweep_faults(recipe: Recipe, factors: Mapping[str, Sequence[str]]) -> Iterator[tuple[Keys, str]]:
    sweep, kind = recipe.ablation.sweep, recipe.task.kind
    if sweep is None:
        return
    cells = [name_of(levels) for levels in _combinations(factors)]
    if sweep.arm not in cells:
        yield ("ablation", "sweep", "arm"), f"ablation.sweep.arm is {sweep.arm!r}; expected one of {', '.join(cells)}."
        return
    if not (sweep.rewards or sweep.scale_rewards or sweep.aggregation):
        yield ("ablation", "sweep"), "ablation.sweep varies nothing; give rewards, scale_rewards or aggregation."
        return
    unfit = [reward for reward in sweep.rewards if kind not in APPLIES[reward]]
    for reward in unfit:
        text = f"ablation.sweep.rewards has {reward!r}, which does not apply to {kind}"
        yield ("ablation", "sweep", "rewards", reward), f"{text}."
    if "recitation" in sweep.rewards and recipe.knowledge is None:
        text = "ablation.sweep pays for recitation, but nothing is known"
        yield ("ablation", "sweep", "rewards", "recitation"), f"{text}."
        return
    for arm in [] if unfit else _sweep(recipe, factors)[1]:
        if not arm.set["rewards"]:
            text = f"ablation.sweep leaves every reward out at {arm.name}; nothing would be learnt"
            yield ("ablation", "sweep"), f"{text}."
            continue
        changed = recipe.model_copy(update={"arms": [arm]}).stages_of(arm.name)[-1]
        for fault in check_stage(changed, kind, arm.name, "", recipe.custom):
            yield ("ablation", "sweep"), f"ablation.sweep: {fault.message}"


def _misfit(recipe: Recipe, factor: str) -> str | None:
    """Why a factor does not apply to a recipe."""
    if factor == "PA_pi":
        return None if len(recipe.own_stages()) < len(recipe.stages) else "no stage has a task of its own"
    if factor == "MFRS":
        if recipe.task.kind != "grading":
            return f"a {recipe.task.kind} has no grades"
        last = recipe.own_stages()[-1]
        paid = isinstance(last, RftStage) and "accuracy" in last.weights()
        return None if paid else "no exact answer is paid for"
    return None if recipe.knowledge else "the recipe has no knowledge"


def _combinations(factors: Mapping[str, Sequence[str]]) -> Iterator[Levels]:
    """Every combination of levels, that of plain V-RFT first."""
    for levels in product(*factors.values()):
        yield dict(zip(factors, levels, strict=True))


def name_of(levels: Mapping[str, str]) -> str:
    """The name of a cell.

    >>> name_of({"PA_p": "on", "PA_pi": "off", "recite": "-0.2"})
    'rft+PA_p+recite-0.2'
    """
    added = [
        factor + (level if factor == "recite" else "") for factor, level in levels.items() if level not in (OFF, NONE)
    ]
    return "+".join(["rft", *added])


def _arm(recipe: Recipe, name: str, levels: Mapping[str, str]) -> Any:
    """A cell as an arm of a recipe."""
    if name in ARMS:
        return name
    return _changed(name, levels, {"rewards": _last(recipe).reweighted(_weights(recipe, levels))})


def _changed(name: str, levels: Mapping[str, str], change: dict[str, Any]) -> ArmChange:
    """An arm with the condition and the stages of a cell, and with keys of its last stage changed."""
    informed, perceived = levels.get("PA_p") == ON, levels.get("PA_pi") == ON
    return ArmChange(name=name, set=change, knowledge=informed, perception=perceived)


def _last(recipe: Recipe) -> RftStage:
    """The last stage on the task of the recipe."""
    last = recipe.own_stages()[-1]
    assert isinstance(last, RftStage)
    return last


def _weights(recipe: Recipe, levels: Mapping[str, str]) -> dict[str, float]:
    """The rewards of the last stage in a cell: where grades are fuzzy, those that the exact answer had."""
    plain = {name: weight for name, weight in _last(recipe).weights().items() if weight or name not in ADDED}
    fuzzy = levels.get("MFRS") == ON
    weights = {"fuzzy" if fuzzy and name == "accuracy" else name: weight for name, weight in plain.items()}
    recite = levels.get("recite", NONE)
    return weights if recite == NONE else weights | {"recitation": float(recite)}


def _controls(recipe: Recipe, cells: Mapping[str, Levels]) -> list[str]:
    """The control arms that apply: those of the recipe, or the usual ones."""
    usual = [name for name, arm in ARMS.items() if arm.role == "control"]
    wanted = usual if recipe.ablation.controls is None else recipe.ablation.controls
    staged = len(recipe.own_stages()) < len(recipe.stages)

    def applies(name: str) -> bool:
        arm = ARMS[name]
        if arm.policy_of:
            return recipe.knowledge is not None and arm.policy_of in cells
        if arm.needs_knowledge:
            return recipe.knowledge is not None
        if arm.needs_other_task and not (staged and (arm.stages == "other_tasks" or "rft+PA_pi" in cells)):
            return False
        # It has more steps than `rft`, and a budget would take them away.
        matched = recipe.ablation.controls is None and recipe.ablation.budget.match != "stages"
        return not (arm.stages == "extended" and matched)

    return [name for name, arm in ARMS.items() if arm.role != "cell" and name in wanted and applies(name)]


def _sweep(recipe: Recipe, factors: Mapping[str, Sequence[str]]) -> tuple[dict[str, dict[str, Any]], list[ArmChange]]:
    """Where each arm of the sweep lies, and those arms that are no cell."""
    section = recipe.ablation.sweep
    if section is None:
        return {}, []
    levels = next(one for one in _combinations(factors) if name_of(one) == section.arm)
    last = _last(recipe)
    base = _weights(recipe, levels)
    axes: dict[str, Sequence[Any]] = {f"rewards.{name}": weights for name, weights in section.rewards.items()}
    axes |= {key: values for key in ("scale_rewards", "aggregation") if (values := getattr(section, key))}
    standing = {key: base.get(key.removeprefix("rewards."), 0.0) for key in axes if key.startswith("rewards.")}
    standing |= {key: getattr(last, key) for key in axes if not key.startswith("rewards.")}
    where, arms = dict[str, dict[str, Any]](), []
    for values in product(*(dict.fromkeys(tried) for tried in axes.values())):
        at = dict(zip(axes, values, strict=True))
        if at == standing:
            where[section.arm] = at
            continue
        weights = {key.removeprefix("rewards."): value for key, value in at.items() if key.startswith("rewards.")}
        changed = last.reweighted({name: weight for name, weight in (base | weights).items() if weight})
        shown = (f"{key.removeprefix('rewards.')}={_text(value)}" for key, value in at.items())
        name = ",".join([section.arm, *shown])
        where[name] = at
        others = {key: value for key, value in at.items() if not key.startswith("rewards.")}
        arms.append(_changed(name, levels, {"rewards": changed, **others}))
    return where, arms


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
