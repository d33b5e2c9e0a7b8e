"""The arms and effects of an ablation as tables for a paper, in Markdown and in LaTeX."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vrft.report.ablation_words import p_in_words, plural, signed, title_of
from vrft.report.page import TITLES
from vrft.runs import read_json, write_text

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "[": "{[}",
    "*": "{*}",
}
"""Letters that mean something else in LaTeX; the last two after the end of a row."""

SIGNED = re.compile(r"(?:(?<!\w)[+-]\d+(?:\.\d+)?|[+-]\d*\.\d+)")
"""A number with a sign: in text its minus would be a hyphen. Names hold some, such as ``recite-0.2``."""

MARKDOWN_ESCAPES = re.compile(r"([\\`*_|<>\[\]])")


def metrics_of(ablation: dict[str, Any]) -> list[str]:
    """The metrics that any arm has, the headline first, then in the order of the pages, then lenient readings."""
    held = list(dict.fromkeys(name for arm in ablation["arms"] for name in arm["metrics"]))
    strict = [name for name in TITLES if name in held] + [
        name for name in held if name not in TITLES and not name.endswith("_lenient")
    ]
    lenient = [name for name in held if name.endswith("_lenient")]
    return sorted(strict, key=lambda name: name != ablation["metric"]) + lenient


def base_of(ablation: dict[str, Any]) -> str | None:
    """The arm with every factor at its first level."""
    first = {name: levels[0] for name, levels in ablation["factors"].items()}
    return next((arm["arm"] for arm in ablation["arms"] if arm["levels"] == first and arm["kind"] == "cell"), None)


def write_tables(directory: Path) -> tuple[Path, Path]:
    """Write ``ablation.md`` and ``ablation.tex`` from ``ablation.json`` and return their paths."""
    ablation = read_json(directory / "ablation.json")
    markdown, latex = directory / "ablation.md", directory / "ablation.tex"
    write_text(markdown, markdown_table(ablation))
    write_text(latex, latex_table(ablation))
    return markdown, latex


# --- what stands in the cells, for both -----------------------------------------------------------------------------


def _shown(ablation: dict[str, Any]) -> list[str]:
    """Metrics of a paper's table: the strict ones."""
    return [name for name in metrics_of(ablation) if not name.endswith("_lenient")]


def _costs(arm: dict[str, Any]) -> list[str]:
    """Steps, tokens, minutes and peak gigabytes of a seed; a dash where nothing was trained."""
    cost = arm.get("cost") or {}
    steps, tokens, seconds, peak = (cost.get(key) for key in ("steps", "tokens", "seconds", "peak_mb"))
    return [
        f"{steps:,.0f}" if steps else "–",
        f"{tokens / 1e6:,.2f}" if tokens else "–",
        f"{seconds / 60:,.1f}" if seconds else "–",
        f"{peak / 1024:,.1f}" if peak else "–",
    ]


COSTS = ("steps", "M tokens", "minutes", "peak GB")
EFFECTS = ("effect", "difference", "p", "p (Holm)", "minimum_detectable_effect visible")


def _arm_rows(
    ablation: dict[str, Any],
    text: Callable[[str], str],
    level: Callable[[str, str], str],
    value: Callable[[dict[str, float]], str],
) -> list[tuple[str, list[str]]]:
    """One row an arm with its kind; ``text``, ``level`` and ``value`` write the cells."""
    rows = []
    for kind in ("cell", "control", "sweep"):
        for arm in ablation["arms"]:
            if arm["kind"] != kind:
                continue
            levels = arm["levels"] or {}
            cells = [text(arm["arm"])]
            cells += [level(levels[f], of[0]) if f in levels else "" for f, of in ablation["factors"].items()]
            cells += [value(arm["metrics"][m]) if m in arm["metrics"] else text("–") for m in _shown(ablation)]
            rows.append((kind, cells + [text(cost) for cost in _costs(arm)]))
    return rows


def _note(ablation: dict[str, Any]) -> str:
    confidence = f"{100 * ablation['confidence']:.3g}%"
    seeds = len(ablation["seeds"])
    over = "seeds and test samples" if seeds > 1 else "test samples alone"
    return (
        f"{confidence} intervals over {over} ({plural(ablation['n'], 'sample')}, {plural(seeds, 'seed')}). p (Holm): "
        f"corrected for {plural(ablation.get('planned', len(ablation['effects'])), 'planned test')}. Smallest visible: "
        f"the effect that this design sees with 80% power at the first step of Holm's correction. Costs: the mean of a "
        f"seed."
    )


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown_table(ablation: dict[str, Any]) -> str:
    """The arms, and below them the effects, as tables in Markdown."""
    arms = ["arm", *ablation["factors"], *map(title_of, _shown(ablation)), *COSTS]
    levelled = _arm_rows(ablation, _plain, lambda at, base: _mark(at, base, "✓", _plain), _interval)
    effects = [
        [
            _plain(effect["name"]),
            f"{signed(effect['difference'])} [{signed(effect['low'])}, {signed(effect['high'])}]",
            _plain(p_in_words(effect["p"])),
            _plain(p_in_words(effect["p_holm"])),
            f"{effect['minimum_detectable_effect']:.3f}",
        ]
        for effect in ablation["effects"]
    ]
    parts = [_markdown(arms, [cells for _, cells in levelled], texts=1 + len(ablation["factors"]))]
    if effects:
        parts.append(_markdown(EFFECTS, effects, texts=1))
    return "\n\n".join([*parts, _note(ablation)]) + "\n"


def _markdown(heads: Sequence[str], rows: list[list[str]], texts: int) -> str:
    rule = [":--" if place < texts else "--:" for place in range(len(heads))]
    lines = [[_plain(head) for head in heads], rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text in a cell: one line, and no mark of Markdown or HTML in it works."""
    return MARKDOWN_ESCAPES.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))


def _mark(at: str, base: str, check: str, text: Callable[[str], str]) -> str:
    """A level of a factor: a check mark where something is on, nothing where it is off, else what it is."""
    if base == "off":
        return {"off": "", "on": check}.get(at, text(at))
    return text(at)


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def latex_table(ablation: dict[str, Any]) -> str:
    """The arms, and below them the effects, each a ``tabular`` with the rules of booktabs."""
    heads = ["arm", *ablation["factors"], *map(title_of, _shown(ablation)), *COSTS]
    rows = _arm_rows(ablation, _latex, lambda at, base: _mark(at, base, r"\checkmark", _latex), _latex_interval)
    factors = len(ablation["factors"])
    arms = _tabular("l" + "c" * factors + "r" * (len(heads) - 1 - factors), heads, rows)
    effects = [
        (
            effect["kind"],
            [
                _latex(effect["name"].replace(" x ", " × ").replace(" - ", " − ")),
                f"${signed(effect['difference'])}_{{[{signed(effect['low'])}, {signed(effect['high'])}]}}$",
                _latex_p(effect["p"]),
                _latex_p(effect["p_holm"]),
                f"{effect['minimum_detectable_effect']:.3f}",
            ],
        )
        for effect in ablation["effects"]
    ]
    parts = ["% needs \\usepackage{booktabs,amssymb}", arms]
    if effects:
        parts.append(_tabular("l" + "r" * (len(EFFECTS) - 1), EFFECTS, effects))
    return "\n\n".join([*parts, f"% {' '.join(_note(ablation).split())}"]) + "\n"


def _tabular(columns: str, heads: Sequence[str], rows: list[tuple[str, list[str]]]) -> str:
    """Rows with their kind; a rule stands where the kind changes."""
    lines = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", f"{' & '.join(map(_latex, heads))} \\\\", r"\midrule"]
    kind = rows[0][0] if rows else ""
    for at, cells in rows:
        if at != kind:
            lines.append(r"\midrule")
            kind = at
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex(text: str) -> str:
    """Text as LaTeX: escaped, signed numbers in math, one line."""
    parts, end = [], 0
    text = " ".join(text.split())
    for number in SIGNED.finditer(text):
        parts += [_escaped(text[end : number.start()]), f"${number.group()}$"]
        end = number.end()
    return "".join([*parts, _escaped(text[end:])]).replace("×", r"$\times$").replace("−", "$-$")


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _latex_p(p: float | None) -> str:
    said = p_in_words(p)
    return f"${said}$" if said.startswith("<") else _latex(said)


def _latex_interval(figure: dict[str, float]) -> str:
    return f"${figure['value']:.3f}_{{[{figure['low']:.3f}, {figure['high']:.3f}]}}$"
