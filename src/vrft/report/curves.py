"""Curves of training for the pages: one panel a figure of the log, the arms over each other."""

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
"""Points of a drawn line at most: with tens of arms the page would grow by what no screen can show."""

VALIDATION = "validation."
"""What the columns begin with that are measured on the validation split."""

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
"""What is drawn of each reward component."""


@dataclass(frozen=True)
class Line:
    """How an arm is drawn; one that is not ``visible`` is hidden until it is asked for."""

    colour: str
    dash: str = "solid"
    visible: bool = True


def panels_of(logs: pd.DataFrame) -> dict[str, str]:
    """Columns of ``logs`` (dotted names) that hold something to draw, and the titles of their panels."""
    components = list(
        dict.fromkeys(
            name.removeprefix("rewards.").rpartition(".")[0] for name in map(str, logs) if name.startswith("rewards.")
        )
    )
    validated = [name for name in map(str, logs) if name.startswith(VALIDATION)]
    titles = {name: f"validation: {name.removeprefix(VALIDATION)}" for name in validated}
    titles |= {"reward": "reward (weighted sum)"}
    titles |= {f"rewards.{name}.{part}": f"{name}: {said}" for part, said in PARTS.items() for name in components}
    return {
        column: title for column, title in (titles | HEALTH).items() if column in logs and logs[column].notna().any()
    }


def draw_curves(logs: pd.DataFrame, lines: dict[str, Line], *, mean: bool = False, legend: bool = True) -> str:
    """Every reward component and the health of training over the steps, as a piece of HTML; empty without logs.

    Args:
        logs: one row a logged step, with ``arm``, ``seed``, ``step`` (over all stages) and dotted columns.
        lines: the arms to draw, in order. The traces of the n-th are of the legend group ``arm-n``, counted from 0.
        mean: one line an arm, the mean over its seeds, instead of one line a seed.
        legend: draw the legend of the figure; without it the page must have one of its own.
    """
    panels = panels_of(logs)
    if not panels:
        return ""
    down = -(-len(panels) // ACROSS)
    titles = [escape(title, quote=False) for title in panels.values()]
    figure = make_subplots(down, ACROSS, subplot_titles=titles, vertical_spacing=0.28 / down)
    by_arm = dict(iter(logs.groupby("arm", sort=False)))
    named: set[str] = set()
    traces, rows, columns = [], [], []
    for place, column in enumerate(panels):
        for index, (arm, line) in enumerate(lines.items()):
            for values in _curves(by_arm[arm], column, mean) if arm in by_arm else ():
                trace = go.Scatter(
                    x=values.index.to_numpy(np.int32),
                    y=values.to_numpy(np.float32),
                    name=escape(arm, quote=False),
                    legendgroup=f"arm-{index}",
                    mode="lines+markers" if column.startswith(VALIDATION) else "lines",
                    line={"color": line.colour, "width": 2, "dash": line.dash},
                    showlegend=legend and arm not in named,
                    visible=True if line.visible else "legendonly",
                )
                named.add(arm)
                traces.append(trace)
                rows.append(1 + place // ACROSS)
                columns.append(1 + place % ACROSS)
    figure.add_traces(traces, rows, columns)
    figure.update_layout(
        height=230 * down, margin={"l": 40, "r": 10, "t": 70 if legend else 30, "b": 30}, template="plotly_white"
    )
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "top", "yref": "container"}, font={"size": 11}
    )
    figure.update_annotations(font_size=12)
    return inline(figure, buttons=legend)


def _curves(rows: pd.DataFrame, column: str, mean: bool) -> Iterator[pd.Series]:
    """Running means over the steps: of the mean over seeds, or of each seed."""
    rows = rows[rows[column].notna()]
    by_seed = (
        [rows.groupby("step")[column].mean()]
        if mean
        else [r.set_index("step")[column] for _, r in rows.groupby("seed")]
    )
    for values in by_seed:
        if len(values):
            smooth = values.astype(float).rolling(max(1, len(values) // 25), min_periods=1).mean()
            yield smooth.iloc[:: -(-len(smooth) // POINTS)]


def inline(figure: go.Figure, *, buttons: bool = False) -> str:
    """A figure as a piece of HTML for a page that holds plotly.js itself; ``buttons`` lie over its upper corner."""
    config = {"displaylogo": False, "responsive": True} | ({} if buttons else {"displayModeBar": False})
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config)
