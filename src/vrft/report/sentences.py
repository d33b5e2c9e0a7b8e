"""The results of a run or an ablation in sentences, made of its numbers alone.

A difference is claimed only where Holm's correction supports it. Otherwise "no difference was detected" stands with the
minimum detectable effect of the design; it is never said that there is none.
"""

from typing import Any

from vrft.tasks import LOWER_IS_BETTER

Row = dict[str, Any]

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "macro_f1": "macro F1",
    "qwk": "quadratic kappa",
    "mae": "mean abs. error",
    "mean_iou": "mean IoU",
    "f1_50": "F1 at IoU 0.5",
    "precision50": "precision at 0.5",
    "recall50": "recall at 0.5",
    "format_rate": "format",
    "read_rate": "read",
}
"""The names of metrics on pages and in tables."""

MEANINGS = {
    "base": (("rft", "PA_pi"), "the training improves on the untrained policy", "the training makes the policy worse"),
    "majority": ((), "it does better than a constant answer", "a constant answer does better"),
    "sft": (("rft",), "RFT gives more than this SFT", "this SFT gives more than RFT"),
    "extra": (
        ("rft+PA_pi",),
        "it gives more than as many further steps on the task itself",
        "as many further steps on the task itself give more",
    ),
    "shuffled": (
        ("rft+PA_pi",),
        "the gain over it comes from where the findings are",
        "a gain does not come from where the findings are",
    ),
    "blind": (("rft",), "it needs the image", "it does better without the image"),
    "nothink": (("rft",), "this training profits from reasons", "it does better without reasons"),
    "thinkafter": (
        ("rft",),
        "reasons help where they stand before the answer",
        "it does better where the reasons come after the answer",
    ),
    "without": (("rft+PA_p",), "it uses the content of the card", "it does better without the card"),
    "swapped": (
        ("rft+PA_p",),
        "it uses the content of the card",
        "it does better with descriptions exchanged between the classes",
    ),
    "irrelevant": (
        ("rft+PA_p",),
        "it uses the content of the card",
        "it does better with words about something else",
    ),
}
"""For each control arm: the arms that it is a control of (none named: all), the claim that it is a test of, and the
meaning of a comparison in which it is better than such an arm."""

WEAKER = {
    "without": "it needs lines in their place, which alone does not show that it uses their content",
    "irrelevant": "it needs the card in its place, which alone does not show that it uses the content of the card",
}
"""Controls whose comparison alone does not show the claim, and what it shows."""

COMMON_CONTROLS = ("base", "majority", "sft")
"""Controls that a run compares with all its arms in words; the others with the arms that they are controls of."""


def title_of(metric: str) -> str:
    """The name of a metric on pages and in tables."""
    if metric.endswith("_lenient"):
        return f"{title_of(metric.removesuffix('_lenient'))}, lenient"
    return TITLES.get(metric, metric)


def p_in_words(p: float | None) -> str:
    """A p value, three digits; small ones as a bound."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float) -> str:
    """A difference with its sign, three digits; zero is never negative."""
    return f"{value:+.3f}".replace("-0.000", "+0.000")


def interval(row: Row) -> str:
    """A difference with its interval."""
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def pairs_of(metrics: Row) -> list[Row]:
    """The comparisons of two arms on the headline metric."""
    return [row for row in metrics["comparisons"] if row["metric"] == metrics["metric"]]


def in_words(metrics: Row) -> list[str]:
    """Sentences for the top of the page and for the text of a paper: the comparison, and the differences detected.

    Args:
        metrics: the content of ``metrics.json``.
    """
    effects, pairs = metrics["effects"], pairs_of(metrics)
    tests = effects + pairs
    if not metrics["factors"]:  # a run compares all pairs of arms, not planned ones
        pairs = [row for row in pairs if _is_question(row["a"], row["b"])] or pairs
    sentences = [_compared(metrics)]
    sentences += [_main(row, metrics) for row in effects if row["kind"] == "main"]
    sentences += _interactions([row for row in effects if row["kind"] == "interaction"], metrics["metric"])
    sentences += [_pair(row, metrics) for row in pairs]
    if metrics["not_estimable"]:
        sentences.append(f"Not estimable from the arms that were run: {', '.join(metrics['not_estimable'])}.")
    return sentences + _best(metrics) + _seeds(tests, len(metrics["seeds"])) + _failed(metrics["failed"])


def _compared(metrics: Row) -> str:
    kinds = [arm["kind"] for arm in metrics["arms"].values()]
    cells, swept = kinds.count("cell"), kinds.count("sweep")
    others = len(kinds) - cells - swept
    parts = []
    if metrics["factors"]:
        of = " x ".join(f"{name} ({len(levels)})" for name, levels in metrics["factors"].items())
        part = f", one of {metrics['fraction']} equal parts of the full design" if metrics["fraction"] else ""
        parts.append(f"{plural(cells, 'cell')} of the factorial {of}{part}")
    if others:
        parts.append(plural(others, "control" if metrics["factors"] else "arm"))
    if swept:
        parts.append(f"{plural(swept, 'further point')} of a sweep")
    *first, last = parts
    arms = f"{', '.join(first)} and {last}" if first else last
    return f"Compared by {title_of(metrics['metric'])}: {arms}, with {samples_in_words(metrics)}."


def samples_in_words(metrics: Row) -> str:
    """How many seeds, samples and groups the figures rest on."""
    groups = f" in {plural(metrics['groups'], 'group')}" if metrics["groups"] != metrics["n"] else ""
    counted = f"{plural(len(metrics['seeds']), 'seed')}, on {plural(metrics['n'], 'sample')}{groups}"
    return f"{counted} of the {metrics['split']} split"


def _numbers(row: Row) -> str:
    p = p_in_words(row["p_holm"])
    return f"{interval(row)}, Holm p {p if p.startswith('<') else f'= {p}'}"


def _higher(row: Row) -> str:
    return "higher" if row["difference"] > 0 else "lower"


def _better(row: Row, metric: str) -> bool:
    return (row["difference"] > 0) != (metric in LOWER_IS_BETTER)


def _limit(row: Row, planned: int) -> str:
    """The size of the effects that the design would have missed."""
    least = row["minimum_detectable_effect"]
    if least <= 0:
        return "they agree in every seed, which gives no minimum detectable effect"
    said = f"an effect below {least:.3f} would have been detected with less than 80% power"
    if least >= 1:
        said = "even an effect of 1 would have been detected with less than 80% power"
    if row["low"] > 0 or row["high"] < 0:
        said += f" (its interval alone excludes zero, but not after the correction for {plural(planned, 'test')})"
    return said


def _main(row: Row, metrics: Row) -> str:
    """A main effect: a level of a factor against the first level."""
    metric = metrics["metric"]
    factor, level = row["of"][0]
    base = metrics["factors"][factor][0]
    said = factor if (base, level) == ("off", "on") else f"{factor} at {level} instead of {base}"
    if row["confounded"]:
        verdict = f"{title_of(metric)} {_higher(row)}" if row["detected"] else "no difference was detected"
        return f"For {said}: {verdict} ({_numbers(row)}); the cells that were run confound it with interactions."
    if row["detected"]:
        worse = "" if _better(row, metric) else ", which is worse"
        return (
            f"Averaged over the other factors, with {said} the {title_of(metric)} is {_higher(row)}{worse}: "
            f"{_numbers(row)}."
        )
    return f"For {said} no difference was detected: {_numbers(row)}; {_limit(row, metrics['planned'])}."


def _interactions(rows: list[Row], metric: str) -> list[str]:
    """One sentence for each that was detected, and one for all others."""
    sentences = [
        f"{row['name']}: together the {title_of(metric)} is {_higher(row)} than the single effects add up to: "
        f"{_numbers(row)}."
        for row in rows
        if row["detected"]
    ]
    if rest := [row for row in rows if not row["detected"]]:
        least = max(rest, key=lambda row: row["minimum_detectable_effect"])
        sentences.append(
            f"In the {'other ' if sentences else ''}{plural(len(rest), 'interaction')} no difference was detected; an "
            f"effect below {least['minimum_detectable_effect']:.3f} would have been detected with less than 80% power "
            f"in the least precise of them ({least['name']})."
        )
    return sentences


def _is_question(a: str, b: str) -> bool:
    """Whether a run says in words how two arms differ: control arms stand only beside the arms that they are for."""
    controls = [name for name in map(_control_of, (a, b)) if name]
    if len(controls) != 1:
        return not controls
    other = b if _control_of(a) else a
    return controls[0] in COMMON_CONTROLS or other in MEANINGS[controls[0]][0]


def _pair(row: Row, metrics: Row) -> str:
    """A comparison of two arms and its meaning; a control stands second."""
    metric, a, b, turned = metrics["metric"], row["a"], row["b"], row
    if _control_of(a) and not _control_of(b):
        a, b = b, a
        turned = row | {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    control = _control_of(b) or ""
    references, claim, worse = MEANINGS.get(control, ((), "", ""))
    known = claim and not _control_of(a) and not a.startswith("base") and (a in references or not references)
    if not turned["detected"]:
        limit = _limit(turned, metrics["planned"])
        meaning = f": nothing shows that {claim}" if known else ""
        return f"Between {a} and {b} no difference was detected ({_numbers(turned)}; {limit}){meaning}."
    meaning = f": {WEAKER.get(control, claim) if _better(turned, metric) else worse}" if known else ""
    return f"{a} has a {_higher(turned)} {title_of(metric)} than {b} ({_numbers(turned)}){meaning}."


def _control_of(arm: str) -> str | None:
    """The control that an arm is, by its name; None for any other arm."""
    name = arm.removeprefix("rft+")
    return name if name in MEANINGS else None


def _best(metrics: Row) -> list[str]:
    """The arm with the best value, with the warning that it was selected for that."""
    metric, arms = metrics["metric"], metrics["arms"]
    if len(arms) < 2:
        return []
    extreme, word = (min, "lowest") if metric in LOWER_IS_BETTER else (max, "highest")
    value = extreme(arm[metric]["value"] for arm in arms.values())
    first = [name for name, arm in arms.items() if arm[metric]["value"] == value]
    return [
        f"The {word} {title_of(metric)} of {plural(len(arms), 'arm')} is that of {' and '.join(first)} ({value:.3f}); "
        f"it was selected on these same samples, so its value is optimistic, and nothing is claimed by it."
    ]


def _seeds(rows: list[Row], seeds: int) -> list[str]:
    """Warnings where intervals leave out the variance between trainings, or rest on fewer seeds than there are."""
    sentences = []
    if alone := [row["name"] for row in rows if not row["seeds_counted"]]:
        which = "The intervals" if len(alone) == len(rows) else f"The intervals of {', '.join(alone)}"
        sentences.append(
            f"{which} count the test samples alone, not the seeds: another training may give another difference."
        )
    if fewer := [row["name"] for row in rows if 1 < row["seeds"] < seeds]:
        sentences.append(f"Some arms lack a seed, so these rest on fewer than {seeds}: {', '.join(fewer)}.")
    return sentences


def _failed(failed: list[Row]) -> list[str]:
    runs = ", ".join(f"{run['arm']} with seed {run['seed']}" for run in failed)
    return [f"Failed or not done, and not counted: {runs}."] if failed else []
