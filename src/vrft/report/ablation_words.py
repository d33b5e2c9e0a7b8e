"""What an ablation showed, in sentences made of its numbers alone.

"No difference could be seen" is said of every effect that did not pass, together with the smallest effect that the
design would have seen; it is never said that there is none.
"""

from typing import Any

from vrft.report.page import TITLES
from vrft.tasks import LOWER_IS_BETTER

Effect = dict[str, Any]

MEANINGS = {
    "base": (
        "the training improves on the untrained policy",
        "nothing shows that the training improves on the untrained policy",
        "the training makes the policy worse",
    ),
    "majority": (
        "it does better than one constant answer",
        "nothing shows that it does better than one constant answer",
        "one constant answer does better",
    ),
    "sft": (
        "RFT gives more than this SFT",
        "nothing shows that RFT gives more than this SFT",
        "this SFT gives more than RFT",
    ),
    "extra": (
        "it gives more than as many further steps on the task itself",
        "nothing shows that it gives more than as many further steps on the task itself",
        "as many further steps on the task itself give more",
    ),
    "shuffled": (
        "the gain over it comes from where the findings are",
        "nothing shows that a gain comes from where the findings are",
        "a gain does not come from where the findings are",
    ),
    "blind": (
        "it needs the image",
        "nothing shows that it needs the image",
        "it does better without the image",
    ),
    "nothink": (
        "this training profits from reasons",
        "nothing shows that the task needs reasons",
        "it does better without reasons",
    ),
    "thinkafter": (
        "reasons help where they stand before the answer",
        "nothing shows that reasons before the answer help it",
        "it does better where the reasons come after the answer",
    ),
    "without": (
        "it needs lines in their place, which alone does not show that it uses what they say",
        "nothing shows that it uses what it is told",
        "it does better without the card",
    ),
    "swapped": (
        "it uses what it is told",
        "nothing shows that it uses what it is told",
        "it does better with descriptions exchanged between the classes",
    ),
    "irrelevant": (
        "it needs the card in its place, which alone does not show that it uses what the card says",
        "nothing shows that it uses what it is told",
        "it does better with words about something else",
    ),
}
"""Of each control arm, what it means where the arm it is compared with is better, not seen to differ, or worse."""


def title_of(metric: str) -> str:
    """How pages and tables call a metric."""
    if metric.endswith("_lenient"):
        return f"{title_of(metric.removesuffix('_lenient'))}, lenient"
    return TITLES.get(metric, metric)


def p_in_words(p: float | None) -> str:
    """A p value, three digits; small ones as a bound."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float) -> str:
    """A difference with its sign, three digits; one that rounds to nothing is not called negative."""
    return f"{value:+.3f}".replace("-0.000", "+0.000")


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def in_words(ablation: dict[str, Any]) -> list[str]:
    """Sentences for the top of the page and for a paper's text: what was compared, and what could be seen."""
    metric = ablation["metric"]
    effects = ablation["effects"]
    of_kind = {kind: [e for e in effects if e["kind"] == kind] for kind in ("main", "interaction", "control")}
    sentences = [_compared(ablation)]
    sentences += [_main(effect, ablation) for effect in of_kind["main"]]
    sentences += _interactions(of_kind["interaction"], ablation)
    sentences += [_control(effect, metric, len(effects)) for effect in of_kind["control"]]
    if ablation.get("not_estimable"):
        sentences.append(f"Not estimable from the cells that were run: {', '.join(ablation['not_estimable'])}.")
    sentences += _best(ablation)
    sentences += _seeds(effects) + _fewer(effects, len(ablation["seeds"]))
    sentences += _failed(ablation.get("failed") or [])
    return sentences


def _compared(ablation: dict[str, Any]) -> str:
    kinds = [arm["kind"] for arm in ablation["arms"]]
    cells, controls, swept = (kinds.count(kind) for kind in ("cell", "control", "sweep"))
    of = " x ".join(f"{name} ({len(levels)})" for name, levels in ablation["factors"].items())
    part = f", one of {ablation['fraction']} equal parts of the full design" if ablation.get("fraction") else ""
    further = [f"{plural(controls, 'control')}"] if controls else []
    further += [f"{plural(swept, 'further point')} of a sweep"] if swept else []
    *others, last = [f"{plural(cells, 'cell')} of the factorial {of}{part}", *further]
    arms = f"{', '.join(others)} and {last}" if others else last
    groups = f" in {plural(ablation['groups'], 'group')}" if ablation["groups"] != ablation["n"] else ""
    return (
        f"Compared by {title_of(ablation['metric'])}: {arms}, with {plural(len(ablation['seeds']), 'seed')}, on "
        f"{plural(ablation['n'], 'sample')}{groups} of the {ablation['split']} split."
    )


def _numbers(effect: Effect) -> str:
    interval = f"[{signed(effect['low'])}, {signed(effect['high'])}]"
    return f"{signed(effect['difference'])} {interval}, Holm p {_equals(effect['p_holm'])}"


def _equals(p: float | None) -> str:
    said = p_in_words(p)
    return said if said.startswith("<") else f"= {said}"


def _higher(effect: Effect) -> str:
    return "higher" if effect["difference"] > 0 else "lower"


def _better(effect: Effect, metric: str) -> bool:
    return (effect["difference"] > 0) != (metric in LOWER_IS_BETTER)


def _limit(effect: Effect, count: int) -> str:
    """What follows "no difference could be seen": how small an effect would have been missed."""
    if effect["minimum_detectable_effect"] <= 0:
        return "they agree in every seed, which says nothing of how small an effect would have been seen"
    said = f"an effect below {effect['minimum_detectable_effect']:.3f} could not have been seen with 80% power"
    if effect["minimum_detectable_effect"] >= 1:
        said = "even an effect of 1 could not have been seen with 80% power"
    if effect["low"] > 0 or effect["high"] < 0:
        said += f" (its interval alone leaves out zero, but not once corrected for {plural(count, 'effect')})"
    return said


def _said(effect: Effect, factors: dict[str, list[str]]) -> str:
    """A main effect as the level it is of, against the first one of its factor."""
    if not effect.get("of"):
        return str(effect["name"])
    ((factor, level), *_) = effect["of"]
    base = factors.get(factor, ["off"])[0]
    return str(factor) if (base, level) == ("off", "on") else f"{factor} at {level} instead of {base}"


def _main(effect: Effect, ablation: dict[str, Any]) -> str:
    said, metric = _said(effect, ablation["factors"]), ablation["metric"]
    if effect.get("confounded"):
        verdict = f"{title_of(metric)} {_higher(effect)}" if effect["seen"] else "no difference could be seen"
        return f"For {said}: {verdict} ({_numbers(effect)}); the cells that were run cannot tell it from interactions."
    if effect["seen"]:
        return (
            f"Averaged over the other factors, with {said} the {title_of(metric)} is "
            f"{_higher(effect)}{'' if _better(effect, metric) else ', which is worse'}: {_numbers(effect)}."
        )
    limit = _limit(effect, len(ablation["effects"]))
    return f"For {said} no difference could be seen: {_numbers(effect)}; {limit}."


def _interactions(effects: list[Effect], ablation: dict[str, Any]) -> list[str]:
    """One sentence for each that was seen, and one for all others."""
    sentences = [
        f"{effect['name']}: together the {title_of(ablation['metric'])} is {_higher(effect)} than the single effects "
        f"add up to: {_numbers(effect)}."
        for effect in effects
        if effect["seen"]
    ]
    rest = [effect for effect in effects if not effect["seen"]]
    if rest:
        least = max(rest, key=lambda effect: effect["minimum_detectable_effect"])
        which = f"{'other ' if sentences else ''}{plural(len(rest), 'interaction')}"
        sentences.append(
            f"In the {which} no difference could be seen; an effect below "
            f"{least['minimum_detectable_effect']:.3f} could not have been seen with 80% power "
            f"in the least precise of them ({least['name']})."
        )
    return sentences


def _control(effect: Effect, metric: str, count: int) -> str:
    """A comparison with a control arm, told from the side of the other arm, and what it means."""
    a, b, turned = effect["a"], effect["b"], effect
    if _control_of(a) and not _control_of(b):
        a, b = b, a
        turned = effect | {"difference": -effect["difference"], "low": -effect["high"], "high": -effect["low"]}
    known = _control_of(b) if not _control_of(a) and not (a or "").startswith("base") else None
    better, unseen, worse = (f": {words}" for words in MEANINGS[known]) if known else ("", "", "")
    if not turned["seen"]:
        return f"Between {a} and {b} no difference could be seen ({_numbers(turned)}; {_limit(turned, count)}){unseen}."
    meaning = better if _better(turned, metric) else worse
    return f"{a} has a {_higher(turned)} {title_of(metric)} than {b} ({_numbers(turned)}){meaning}."


def _control_of(arm: str | None) -> str | None:
    """The control that an arm is, by its name; None for any other arm."""
    name = (arm or "").removeprefix("rft+")
    return name if name in MEANINGS else None


def _best(ablation: dict[str, Any]) -> list[str]:
    """The arm that came out first, with the warning that it was picked for that."""
    metric = ablation["metric"]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    values = {
        arm["arm"]: sign * arm["metrics"][metric]["value"] for arm in ablation["arms"] if metric in arm["metrics"]
    }
    if len(values) < 2:
        return []
    first = [arm for arm, value in values.items() if value == max(values.values())]
    return [
        f"The {'lowest' if sign < 0 else 'highest'} {title_of(metric)} of {plural(len(values), 'arm')} is that of "
        f"{' and '.join(first)} ({sign * values[first[0]]:.3f}); it was chosen after looking, which flatters it, and "
        f"nothing is claimed by it."
    ]


def _seeds(effects: list[Effect]) -> list[str]:
    """A warning where intervals leave the chance of training out."""
    alone = [effect["name"] for effect in effects if not effect["seeds_counted"]]
    if not alone:
        return []
    which = "The intervals" if len(alone) == len(effects) else f"The intervals of {', '.join(alone)}"
    return [f"{which} count the test samples alone, not the seeds: another training may give another difference."]


def _fewer(effects: list[Effect], seeds: int) -> list[str]:
    """Which effects rest on fewer seeds than there are, since an arm of theirs lacks some."""
    fewer = [effect["name"] for effect in effects if 1 < effect.get("seeds", seeds) < seeds]
    return [f"Some arms lack a seed, so these rest on fewer than {seeds}: {', '.join(fewer)}."] if fewer else []


def _failed(failed: list[dict[str, Any]]) -> list[str]:
    if not failed:
        return []
    runs = ", ".join(f"{run['arm']} with seed {run['seed']}" for run in failed)
    return [f"Failed or not done, and not counted: {runs}."]
