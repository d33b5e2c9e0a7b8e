"""The figures of a factorial and of a sweep.

Text that goes into a figure is escaped here: figures read some tags in their labels.
"""

from collections.abc import Iterable
from html import escape
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vrft.report.curves import inline
from vrft.report.sentences import title_of

COLOURS = ("#5b6b7b", "#3572b0", "#d98324", "#2f8f5b", "#a4476b", "#6a53a8", "#8a6d3b", "#1f9ea3")
"""The colours of arms in every figure; people with colour blindness can tell them apart."""

GRID = {"gridcolor": "#eef1f4", "zeroline": False}


def _plain(text: Any) -> str:
    """Text that a figure shows as it stands: figures read some tags in their labels."""
    return escape(str(text), quote=False)


def interactions(metrics: dict[str, Any]) -> str:
    """For each two factors the mean at their levels: where the lines are not parallel the factors interact."""
    plots = metrics["interactions"]
    points = [point for plot in plots for line in plot["lines"] for point in line["points"]]
    if not points:
        return ""
    across = min(3, len(plots))
    down = -(-len(plots) // across)
    low, high = min(point["low"] for point in points), max(point["high"] for point in points)
    margin, panel = 0.05 * ((high - low) or 1.0), 190
    titles = [f"{_plain(plot['factors'][1])}, by {_plain(plot['factors'][0])}" for plot in plots]
    figure = make_subplots(
        down, across, subplot_titles=titles, vertical_spacing=0.32 / down, horizontal_spacing=0.06, shared_yaxes=True
    )
    for index, plot in enumerate(plots):
        place = {"row": 1 + index // across, "col": 1 + index % across}
        levels = _ordered(dict.fromkeys(point["level"] for line in plot["lines"] for point in line["points"]))
        last: list[tuple[float, str, str]] = []
        for number, line in enumerate(plot["lines"]):
            colour = COLOURS[number % len(COLOURS)]
            apart = 0.05 * (number - (len(plot["lines"]) - 1) / 2)  # so that intervals do not hide each other
            at = dict(sorted((levels.index(point["level"]) + apart, point) for point in line["points"]))
            figure.add_trace(_with_intervals(list(at), list(at.values()), colour), **place)
            last.append((list(at.values())[-1]["value"], f"{plot['factors'][0]} {line['level']}", colour))
        for value, text, colour, shift in _apart(last, panel / (high - low + 2 * margin)):
            figure.add_annotation(
                x=len(levels) - 1, y=value, text=_plain(text), font={"color": colour, "size": 11},
                xanchor="left", xshift=18, yshift=shift, showarrow=False, **place,
            )  # fmt: skip
        ticks = {"tickvals": list(range(len(levels))), "ticktext": [_plain(level) for level in levels]}
        figure.update_xaxes(range=[-0.3, (len(levels) - 1) * 1.55 + 0.15], **ticks, **place)
    figure.update_yaxes(range=[low - margin, high + margin], **GRID)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.for_each_annotation(lambda note: note.update(font_size=12) if note.text in titles else None)
    return _finished(figure, (panel + 75) * down, {"l": 50, "r": 10, "t": 30, "b": 30}, size=11)


def _ordered(levels: Iterable[str]) -> list[str]:
    """Levels by number where all are numbers, otherwise as they come."""
    listed = list(levels)
    try:
        return sorted(listed, key=float)
    except ValueError:
        return listed


def _with_intervals(places: list[Any], points: list[dict[str, Any]], colour: str, name: str = "") -> go.Scatter:
    return go.Scatter(
        x=places,
        y=[point["value"] for point in points],
        name=_plain(name),
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 7},
        error_y=_whiskers(points, "value"),
        hovertemplate="%{y:.3f}<extra></extra>",
    )


def _apart(ends: list[tuple[float, str, str]], pixels: float) -> list[tuple[float, str, str, float]]:
    """Labels at the ends of lines, moved up where they would lie on each other; ``pixels`` are those of a unit."""
    placed: list[tuple[float, str, str, float]] = []
    lowest = float("-inf")
    for value, text, colour in sorted(ends):
        lowest = max(value * pixels, lowest + 14)
        placed.append((value, text, colour, lowest - value * pixels))
    return placed


def sweep_of(metrics: dict[str, Any]) -> str:
    """A figure of the sweep: a heat map of two numeric axes, otherwise lines; empty without a sweep."""
    sweep, arms = metrics["sweep"] or {"points": []}, metrics["arms"]
    points = [point["at"] | arms[point["arm"]][metrics["metric"]] for point in sweep["points"] if point["arm"] in arms]
    if not points:
        return ""
    axes, title = sweep["axes"], title_of(metrics["metric"])
    numeric = [name for name, values in axes.items() if all(_is_number(value) for value in values)]
    wide = [name for name, values in axes.items() if len(values) > 1] or list(axes)
    if len(axes) == 2 and len(numeric) == len(wide) == 2:
        return _heat_map(axes, points, title)
    across = next((name for name in wide if name in numeric), wide[0])
    return _sweep_lines(axes, across, points, title)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sweep_lines(axes: dict[str, list[Any]], across: str, points: list[dict[str, Any]], title: str) -> str:
    """A line for each value of the other axes."""
    others = [name for name in axes if name != across]
    figure = go.Figure()
    values = axes[across]
    numeric = all(_is_number(value) for value in values)
    logarithmic = numeric and min(values) > 0 and max(values) / min(values) >= 50

    def place(value: Any, number: int) -> Any:
        """Lines lie a little apart, so that their intervals do not hide each other."""
        if not numeric:
            return _plain(value)
        if logarithmic:
            return value * (max(values) / min(values)) ** (0.006 * number)
        return value + 0.006 * number * (max(values) - min(values))

    for number, levels in enumerate(product(*(axes[name] for name in others))):
        at = dict(zip(others, levels, strict=True))
        chosen = [point for point in points if at.items() <= point.items()]
        chosen.sort(key=lambda point: values.index(point[across]))
        if chosen:
            named = ", ".join(f"{name} {level}" for name, level in at.items())
            places = [place(point[across], number) for point in chosen]
            figure.add_trace(_with_intervals(places, chosen, COLOURS[(1 + number) % len(COLOURS)], named))
    ticks = {"tickvals": values, "ticktext": [f"{value:g}" for value in values]} if numeric else {"type": "category"}
    figure.update_xaxes(title={"text": _plain(across)}, type="log" if logarithmic else None, zeroline=False)
    figure.update_xaxes(showgrid=False, **ticks)
    figure.update_yaxes(title={"text": _plain(title)}, **GRID)
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    margin = {"l": 60, "r": 10, "t": 40, "b": 50}
    return _finished(figure, 360, margin, showlegend=bool(others), legend=legend)


def _heat_map(axes: dict[str, list[float]], points: list[dict[str, Any]], title: str) -> str:
    """Two numeric axes, the value and its interval in each field."""
    (down, rows), (across, columns) = sorted(axes.items(), key=lambda axis: len(axis[1]))
    frame = pd.DataFrame(points)
    frame["text"] = [f"{p['value']:.3f}<br>[{p['low']:.3f}, {p['high']:.3f}]" for p in points]
    value, text = (frame.pivot(index=down, columns=across, values=name) for name in ("value", "text"))
    heat = go.Heatmap(
        x=[f"{value:g}" for value in columns],
        y=[f"{value:g}" for value in rows],
        z=value.reindex(index=rows, columns=columns),
        text=text.reindex(index=rows, columns=columns).fillna(""),
        texttemplate="%{text}",
        colorscale=[[0, "#f4f7fa"], [1, "#8db4da"]],  # light enough for dark figures
        textfont={"color": "#1d2733"},
        colorbar={"title": {"text": _plain(title)}, "thickness": 12},
        hoverinfo="skip",
        **{"xgap": 2, "ygap": 2},
    )
    figure = go.Figure(heat)
    figure.update_xaxes(title={"text": _plain(across)}, type="category", showgrid=False)
    figure.update_yaxes(title={"text": _plain(down)}, type="category", showgrid=False)
    return _finished(figure, 120 + 62 * len(rows), {"l": 70, "r": 10, "t": 20, "b": 50})


def _finished(figure: go.Figure, height: int, margin: dict[str, int], size: int = 12, **layout: Any) -> str:
    layout = {"template": "plotly_white", "showlegend": False, "font": {"size": size}} | layout
    figure.update_layout(height=height, margin=margin, **layout)
    return inline(figure)


def _whiskers(rows: list[dict[str, Any]], value: str) -> dict[str, Any]:
    up, down = ([abs(row[end] - row[value]) for row in rows] for end in ("high", "low"))
    return {"array": up, "arrayminus": down, "type": "data", "symmetric": False, "thickness": 1.3, "width": 0}
