"""The arms and differences of a run or an ablation as tables: data frames of text, in Markdown and in LaTeX."""

import re
from typing import Any

import pandas as pd

from vrft.report.sentences import TITLES, in_words, interval, p_in_words, pairs_of, plural, title_of

KINDS = {"cell": "Cells of the factorial", "arm": "Arms", "control": "Controls", "sweep": "Sweep"}
"""The kinds of arms in the order of the tables, and their headings."""

COSTS = {
    "steps": ("steps", 1, 0),
    "tokens": ("M tokens", 1e6, 2),
    "seconds": ("minutes", 60, 1),
    "peak_mb": ("peak GB", 1024, 1),
}
"""The cost of a seed: the heading, the unit in that of ``metrics.json``, and the digits."""

MARKDOWN_ESCAPES = re.compile(r"([\\`*_|<>\[\]])")

LATEX_ESCAPES = str.maketrans(
    {letter: f"\\{letter}" for letter in "{}_%&#$"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "*": "{*}"}  # the last two after the end of a row
    | {"–": "--", "×": r"$\times$", "✓": r"\checkmark"}
)

INTERVAL = re.compile(r"([+-]?\d+\.\d+) (\[[^\[\]]+\])")
SIGNED = re.compile(r"(?<!\w)[+-]\d+(?:\.\d+)?|[+-]\d*\.\d+|(?<= )-(?= )")
"""A number with a sign (names hold some, such as ``recite-0.2``) or a minus: in text its sign would be a hyphen."""


def metrics_of(metrics: dict[str, Any]) -> list[str]:
    """The metrics that any arm has: the headline first, then in the order of the pages, then lenient readings."""
    held = dict.fromkeys(name for arm in metrics["arms"].values() for name, of in arm.items() if _is_figure(of))
    order = [metrics["metric"], *TITLES]
    known = [name for name in order if name in held] + [name for name in held if name not in order]
    return sorted(dict.fromkeys(known), key=lambda name: name.endswith("_lenient"))


def _is_figure(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value


def by_kind(metrics: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the arms of each kind, in the order of the tables."""
    of = {kind: [name for name, arm in metrics["arms"].items() if arm["kind"] == kind] for kind in KINDS}
    return {kind: names for kind, names in of.items() if names}


def arm_table(metrics: dict[str, Any], names: list[str] | None = None) -> pd.DataFrame:
    """A row of text for each arm: its levels, its metrics (``names``; without them the strict ones) and its cost."""
    names = names or [name for name in metrics_of(metrics) if not name.endswith("_lenient")]
    rows = []
    for arm in (arm for arms in by_kind(metrics).values() for arm in arms):
        of, levels = metrics["arms"][arm], metrics["arms"][arm]["levels"] or {}
        row = {"arm": arm} | {
            name: _level(levels.get(name, ""), first) for name, (first, *_) in metrics["factors"].items()
        }
        row |= {title_of(m): _figure(of.get(m)) for m in names} | {"seeds": str(of["seeds"])}
        for key, (heading, unit, digits) in COSTS.items():
            row[heading] = f"{of['cost'][key] / unit:,.{digits}f}" if of["cost"].get(key) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def _level(level: str, first: str) -> str:
    """A level of a factor: a check mark where something is on, nothing where it is off."""
    return {"off": "", "on": "✓"}.get(level, level) if first == "off" else level


def _figure(of: dict[str, float] | None) -> str:
    return f"{of['value']:.3f} [{of['low']:.3f}, {of['high']:.3f}]" if of else "–"


def difference_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row of text for each effect or comparison of ``metrics.json``: the columns of a paper first, then details."""
    return pd.DataFrame(
        {
            "difference of": row["name"].replace(" x ", " × "),
            "difference": interval(row),
            "p": p_in_words(row["p"]),
            "p (Holm)": p_in_words(row["p_holm"]),
            "detected": "yes" if row["detected"] else "no",
            "min. detectable": f"{row['minimum_detectable_effect']:.3f}",
            "SE": f"{row['se']:.4f}",
            "df": f"{row['df']:.1f}",
            "p (paired)": p_in_words(row.get("p_paired")),
            "seeds": str(row["seeds"]),
        }
        for row in rows
    )


def planned_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """The effects and the comparisons on the headline metric, with the columns of a paper."""
    return difference_table([*metrics["effects"], *pairs_of(metrics)]).iloc[:, :6]


def note_of(metrics: dict[str, Any]) -> str:
    """A sentence or two below a table: how intervals and p values were computed."""
    over = "seeds and test samples" if len(metrics["seeds"]) > 1 else "test samples alone"
    return (
        f"{100 * metrics['confidence']:.3g}% intervals over {over} ({plural(metrics['n'], 'sample')}, "
        f"{plural(len(metrics['seeds']), 'seed')}). p (Holm): corrected for "
        f"{plural(metrics['planned'], 'planned test')} on the {title_of(metrics['metric'])}. Min. detectable: the "
        f"effect that this design detects with 80% power at the first step of Holm's correction. Costs: the mean of a "
        f"seed."
    )


def markdown_tables(metrics: dict[str, Any]) -> str:
    """The results in words, the arms and the differences, in Markdown."""
    tables = [_markdown(frame) for frame in (arm_table(metrics), planned_table(metrics)) if len(frame)]
    words = "\n".join(f"- {_plain(sentence)}" for sentence in in_words(metrics))
    return "\n\n".join([f"# {_plain(metrics['name'])}", words, *tables, note_of(metrics)]) + "\n"


def _markdown(frame: pd.DataFrame) -> str:
    heads = list(map(str, frame.columns))
    rule = [":--" if place == 0 else "--:" for place in range(len(heads))]
    lines = [map(_plain, heads), rule, *(map(_plain, row) for row in frame.to_numpy())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text in a cell: one line, and no mark of Markdown or HTML in it works."""
    return MARKDOWN_ESCAPES.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))


def latex_tables(metrics: dict[str, Any]) -> str:
    """The arms and the differences, each a ``tabular`` with the rules of booktabs."""
    tables = [_tabular(arm_table(metrics), [len(arms) for arms in by_kind(metrics).values()])]
    if len(differences := planned_table(metrics)):
        pairs = len(pairs_of(metrics))
        tables.append(_tabular(differences, [len(differences) - pairs, pairs]))
    comment = f"% {' '.join(note_of(metrics).split())}"
    return "\n\n".join(["% needs \\usepackage{booktabs,amssymb}", *tables, comment]) + "\n"


def _tabular(frame: pd.DataFrame, kinds: list[int]) -> str:
    """A table with a rule wherever the next of ``kinds``, numbers of rows, begins."""
    frame = frame.map(latex).rename(columns=latex)
    lines = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (frame.shape[1] - 1)).splitlines()
    for end in reversed([sum(kinds[: place + 1]) for place in range(len(kinds) - 1) if sum(kinds[: place + 1])]):
        lines.insert(4 + end, r"\midrule")  # below begin, rule, heads and rule
    return "\n".join(lines)


def latex(text: str) -> str:
    """Text as LaTeX in one line: escaped, with intervals as indices and signed numbers in math."""
    text = " ".join(text.split())
    if found := INTERVAL.fullmatch(text):
        return f"${found[1]}_{{{found[2]}}}$"
    return SIGNED.sub(r"$\g<0>$", text.translate(LATEX_ESCAPES))
