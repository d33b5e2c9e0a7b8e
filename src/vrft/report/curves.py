"""Curves of training for the page: one panel a figure of the log, the arms over each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.subplots import make_subplots

plotly.io.json.config.default_engine = "json"  # the same page where orjson happens to be installed

ACROSS = 3
"""Panels beside each other."""

POINTS = 250
"""Points of a drawn line at most: tens of arms would make the page larger than a screen can show."""

VALIDATION = "validation."
"""The prefix of the columns that are measured on the validation split."""

HEALTH = {
    "zero_advantage": "groups without advantage",
    "kl": "KL to the start",
    "clipped": "tokens whose ratio is clipped",
    "accepted": "completions that are learnt (rejection)",
    "entropy": "entropy (nats a token)",
    "completion_tokens": "completion length (tokens)",
    "reasoning.reasoning_words": "words of reasoning",
    "reasoning.self_bleu": "self-BLEU within a group",
    "reasoning.distinct_1": "distinct words",
    "reasoning.distinct_2": "distinct pairs of words",
    "reasoning.copied_span": "longest span copied from the card (words)",
    "reasoning.copied_4grams": "runs of four words copied from the card",
    "reasoning.quotes_other": "quotes another class",
    "loss": "loss",
    "grad_norm": "gradient norm",
}
"""Columns of a log that are drawn below the rewards, and their titles."""

PARTS = {"mean": "mean", "std": "spread (std)", "share": "share of the advantage"}
"""The figures of each reward component that are drawn."""


@dataclass(frozen=True)
class Line:
    """The style of an arm in all figures; its curves are hidden at first where it is not ``visible``."""

    colour: str
    stroke: str = ""
    """Lengths of dashes and gaps in pixels, as SVG has them; "" is a solid line."""
    visible: bool = True


def panels_of(logs: pd.DataFrame) -> dict[str, str]:
    """Columns of ``logs`` (dotted names) that hold something to draw, and the titles of their panels."""
    names = list(map(str, logs))
    components = dict.fromkeys(
        name.split(".", 1)[1].rpartition(".")[0] for name in names if name.startswith("rewards.")
    )
    titles = {name: f"validation: {name.removeprefix(VALIDATION)}" for name in names if name.startswith(VALIDATION)}
    titles |= {"reward": "reward (weighted sum)"}
    titles |= {f"rewards.{name}.{part}": f"{name}: {said}" for part, said in PARTS.items() for name in components}
    return {
        column: title for column, title in (titles | HEALTH).items() if column in logs and logs[column].notna().any()
    }


def draw_curves(logs: pd.DataFrame, lines: dict[str, Line], *, mean: bool = False) -> str:
    """Every reward component and the health of training over the steps, as a piece of HTML; empty without logs.

    Args:
        logs: one row a logged step, with ``arm``, ``seed``, ``step`` (over all stages) and dotted columns.
        lines: the arms to draw, in order. The traces of the n-th are of the legend group ``arm-n``, counted from 0.
        mean: one line an arm, the mean over its seeds, instead of one line a seed.
    """
    panels = panels_of(logs)
    if not panels:
        return ""
    down = -(-len(panels) // ACROSS)
    titles = [escape(title, quote=False) for title in panels.values()]
    figure = make_subplots(down, ACROSS, subplot_titles=titles, vertical_spacing=0.28 / down)
    by_arm = dict(iter(logs.groupby("arm", sort=False)))
    traces, rows, columns = [], [], []
    for place, column in enumerate(panels):
        for index, (arm, line) in enumerate(lines.items()):
            for values in _curves(by_arm[arm], column, mean) if arm in by_arm else ():
                dash = "".join(f"{length}px," for length in line.stroke.split()).rstrip(",") or "solid"
                trace = go.Scatter(
                    x=values.index.to_numpy(np.int32),
                    y=values.to_numpy(np.float32),
                    name=escape(arm, quote=False),
                    legendgroup=f"arm-{index}",
                    mode="lines+markers" if column.startswith(VALIDATION) else "lines",
                    line={"color": line.colour, "width": 2, "dash": dash},
                    visible=True if line.visible else "legendonly",
                )
                traces.append(trace)
                rows.append(1 + place // ACROSS)
                columns.append(1 + place % ACROSS)
    figure.add_traces(traces, rows, columns)
    figure.update_layout(height=230 * down, margin={"l": 40, "r": 10, "t": 50, "b": 30}, font={"size": 11})
    figure.update_layout(template="plotly_white", showlegend=False)
    figure.update_annotations(font_size=12)
    return inline(figure, buttons=True)


def _curves(rows: pd.DataFrame, column: str, mean: bool) -> Iterator[pd.Series]:
    """Running means over the steps: of the mean over seeds, or of each seed."""
    rows = rows[rows[column].notna()]
    by_seed = [rows] if mean else [of_seed for _, of_seed in rows.groupby("seed")]
    for values in (of_seed.groupby("step")[column].mean() for of_seed in by_seed):
        if len(values):
            smooth = values.astype(float).rolling(max(1, len(values) // 25), min_periods=1).mean()
            yield smooth.iloc[:: -(-len(smooth) // POINTS)]


def inline(figure: go.Figure, *, buttons: bool = False) -> str:
    """A figure as a piece of HTML for a page that holds plotly.js itself; ``buttons`` lie over its upper corner."""
    config = {"displaylogo": False, "responsive": True} | ({} if buttons else {"displayModeBar": False})
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config)
