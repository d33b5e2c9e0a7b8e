"""The figures of a factorial and of a sweep.

Text that goes into a figure is escaped here: figures read some tags in their labels.
"""

from html import escape
from typing import Any

import pandas as pd
import plotly.express as px

from vrft.report.curves import inline
from vrft.report.sentences import title_of

COLOURS = ("#5b6b7b", "#3572b0", "#d98324", "#2f8f5b", "#a4476b", "#6a53a8", "#8a6d3b", "#1f9ea3")
"""The colours of arms in every figure; people with colour blindness can tell them apart."""

MARGIN = {"l": 60, "r": 10, "t": 40, "b": 50}


def interactions(metrics: dict[str, Any]) -> str:
    """For each two factors the mean at their levels: where the lines are not parallel the factors interact."""
    points = [
        point | {"panel": "{1}, by {0}".format(*plot["factors"]), "line": f"{plot['factors'][0]} {line['level']}"}
        for plot in metrics["interactions"]
        for line in plot["lines"]
        for point in line["points"]
    ]
    levels = [level for levels in metrics["factors"].values() for level in _ordered(levels)]
    return _lines(points, "level", levels, title_of(metrics["metric"])) if points else ""


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
    for point in points:
        point["line"] = ", ".join(f"{name} {point[name]}" for name in axes if name != across)
    return _lines(points, across, _ordered(axes[across]), title)


def _ordered(levels: list[Any]) -> list[Any]:
    """Levels by number where all are numbers, otherwise as they come."""
    try:
        return sorted(levels, key=float)
    except ValueError:
        return levels


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(text: Any) -> str:
    """Text that a figure shows as it stands: figures read some tags in their labels."""
    return escape(f"{text:g}" if isinstance(text, float) else str(text), quote=False)


def _lines(points: list[dict[str, Any]], across: str, order: list[Any], title: str) -> str:
    """Points with their intervals, joined by ``line``, in panels if they have any; intervals lie beside each other."""
    frame = pd.DataFrame(points).assign(up=lambda f: f["high"] - f["value"], down=lambda f: f["value"] - f["low"])
    texts = [name for name in (across, "line", "panel") if name in frame]
    frame[texts] = frame[texts].map(_plain)
    order = list(dict.fromkeys(map(_plain, order)))
    panels = frame["panel"].unique() if "panel" in frame else [""]
    figure = px.line(
        frame.sort_values(across, key=lambda levels: levels.map(order.index), kind="stable"),
        **{"x": across, "y": "value", "color": "line", "error_y": "up", "error_y_minus": "down", "markers": True},
        facet_col="panel" if len(panels) > 1 else None,
        facet_col_wrap=3,
        facet_row_spacing=0.18,
        category_orders={across: order},
        color_discrete_sequence=COLOURS,
        labels={across: "" if len(panels) > 1 else _plain(across), "value": _plain(title), "line": "", "panel": ""},
        height=110 + 220 * -(-len(panels) // 3),
        template="plotly_white",
    )
    figure.for_each_annotation(lambda note: note.update(text=note.text.removeprefix("=")))
    figure.update_traces(error_y={"thickness": 1.3, "width": 0}, hovertemplate="%{y:.3f}<extra></extra>")
    figure.update_xaxes(matches=None, type="category", showticklabels=True, showgrid=False)
    margin = 0.05 * (frame["high"].max() - frame["low"].min() or 1.0)
    figure.update_yaxes(range=[frame["low"].min() - margin, frame["high"].max() + margin])
    figure.update_layout(scattermode="group", scattergap=0.9, showlegend=bool(frame["line"].any()), margin=MARGIN)
    return inline(figure)


def _heat_map(axes: dict[str, list[float]], points: list[dict[str, Any]], title: str) -> str:
    """Two numeric axes, the value and its interval in each field."""
    (down, rows), (across, columns) = sorted(axes.items(), key=lambda axis: len(axis[1]))
    frame = pd.DataFrame(points)
    frame["text"] = [f"{p['value']:.3f}<br>[{p['low']:.3f}, {p['high']:.3f}]" for p in points]
    value, text = (
        frame.pivot(index=down, columns=across, values=name).reindex(index=rows, columns=columns)
        for name in ("value", "text")
    )
    labels = {"x": _plain(across), "y": _plain(down), "color": _plain(title)}
    names = {"x": list(map(_plain, columns)), "y": list(map(_plain, rows))}
    scale = ["#f4f7fa", "#8db4da"]  # light enough for dark figures
    figure = px.imshow(value, labels=labels, **names, color_continuous_scale=scale, aspect="auto", origin="lower")
    figure.update_traces(
        text=text.fillna(""), texttemplate="%{text}", hoverinfo="skip", hovertemplate=None, xgap=2, ygap=2
    )
    figure.update_layout(height=120 + 62 * len(rows), template="plotly_white", xaxis_type="category", margin=MARGIN)
    figure.update_yaxes(type="category")
    return inline(figure)
