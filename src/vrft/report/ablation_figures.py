"""The figures of an ablation's page: the forest of effects, interactions, and the sweep.

Text that goes into a figure is escaped here: figures read some tags in their labels.
"""

from collections.abc import Iterable
from html import escape
from itertools import product
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vrft.report.ablation_words import p_in_words, signed, title_of
from vrft.report.curves import inline
from vrft.report.page import COLOURS
from vrft.tasks import LOWER_IS_BETTER

SEEN, UNSEEN, BAND = COLOURS[1], "#8b97a3", "rgba(91, 107, 123, 0.10)"
"""Colours of an effect that was seen, of one that was not, and of the range in which none could have been seen."""

LONGEST = 46
"""Letters of an effect's name beside its interval; the rest is shown where the mouse rests."""

KINDS = {"main": "Main effects", "interaction": "Interactions", "control": "Planned pairs of arms"}


def _plain(text: Any) -> str:
    """Text that a figure shows as it stands: figures read some tags in their labels."""
    return escape(str(text), quote=False)


# --- effects ----------------------------------------------------------------------------------------------------------


def forests(ablation: dict[str, Any]) -> list[dict[str, str]]:
    """One figure for each kind of effect; main effects and interactions have a common scale, controls their own."""
    by_kind = {kind: [e for e in ablation["effects"] if e["kind"] == kind] for kind in KINDS}
    longest = max((len(_short(effect["name"])) for effect in ablation["effects"]), default=0)
    scales = {"main": by_kind["main"] + by_kind["interaction"], "control": by_kind["control"]}
    scales["interaction"] = scales["main"]
    return [
        {"heading": KINDS[kind], "figure": _forest(effects, scales[kind], longest, ablation)}
        for kind, effects in by_kind.items()
        if effects
    ]


def _short(name: str) -> str:
    name = name.replace(" x ", " × ")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _forest(effects: list[dict[str, Any]], scale: list[dict[str, Any]], longest: int, ablation: dict[str, Any]) -> str:
    """Differences with their intervals, the first on top; a band where one that was not seen could not have been."""
    figure = go.Figure()
    places = list(range(len(effects), 0, -1))
    for seen, colour in ((True, SEEN), (False, UNSEEN)):
        chosen = [(place, effect) for place, effect in zip(places, effects, strict=True) if effect["seen"] == seen]
        if chosen:
            figure.add_trace(_points(chosen, colour, filled=seen))
    for place, effect in zip(places, effects, strict=True):
        if not effect["seen"]:
            reach = {
                "x0": -effect["minimum_detectable_effect"],
                "x1": effect["minimum_detectable_effect"],
                "y0": place - 0.36,
                "y1": place + 0.36,
            }
            figure.add_shape(type="rect", fillcolor=BAND, line_width=0, layer="below", **reach)
        interval = f"{signed(effect['difference'])} [{signed(effect['low'])}, {signed(effect['high'])}]"
        _beside(figure, place, interval, p_in_words(effect["p_holm"]), strong=effect["seen"])
    _beside(figure, len(effects) + 1, f"difference [{100 * ablation['confidence']:.3g}%]", "p (Holm)")
    ends = [0.0] + [e[key] for e in scale for key in ("low", "high")]
    reached = 1.3 * max(map(abs, ends))  # a band may go on beyond the figure; the intervals are what it is drawn for
    ends += [sign * min(e["minimum_detectable_effect"], reached) for e in scale if not e["seen"] for sign in (-1, 1)]
    margin = 0.04 * (max(ends) - min(ends) or 1.0)
    better = "left" if ablation["metric"] in LOWER_IS_BETTER else "right"
    figure.add_vline(x=0, line={"color": "#1d2733", "width": 1})
    figure.update_xaxes(
        range=[min(ends) - margin, max(ends) + margin],
        title={"text": f"difference in {_plain(title_of(ablation['metric']))} (better to the {better})"},
        **{"gridcolor": "#eef1f4", "zeroline": False, "fixedrange": True},
    )
    names = [_plain(_short(effect["name"])) for effect in effects]
    figure.update_yaxes(
        tickvals=places, ticktext=names, range=[0.4, len(effects) + 1.5], showgrid=False, fixedrange=True
    )
    figure.update_layout(
        height=26 * len(effects) + 86,
        margin={"l": min(330, 30 + 7 * longest), "r": 270, "t": 6, "b": 56},
        **{"template": "plotly_white", "showlegend": False, "font": {"size": 12}, "hovermode": "closest"},
    )
    return inline(figure)


def _beside(figure: go.Figure, place: float, *texts: str, strong: bool = False) -> None:
    """Text in columns right of a forest plot."""
    for text, shift in zip(texts, (12, 180), strict=True):
        figure.add_annotation(
            text=f"<b>{_plain(text)}</b>" if strong else _plain(text),
            **{"x": 1, "xref": "paper", "xanchor": "left", "xshift": shift, "y": place, "showarrow": False},
            font={"size": 12, "color": "#1d2733" if strong else "#5b6b7b"},
        )


def _points(chosen: list[tuple[int, dict[str, Any]]], colour: str, *, filled: bool) -> go.Scatter:
    effects = [effect for _, effect in chosen]
    return go.Scatter(
        x=[e["difference"] for e in effects],
        y=[place for place, _ in chosen],
        mode="markers",
        marker={"color": colour if filled else "#fff", "size": 9, "line": {"color": colour, "width": 2}},
        error_x={
            "array": [e["high"] - e["difference"] for e in effects],
            "arrayminus": [e["difference"] - e["low"] for e in effects],
            **{"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 0},
        },
        hovertext=[f"{_plain(e['name'])}<br>smallest visible: {e['minimum_detectable_effect']:.3f}" for e in effects],
        hoverinfo="text",
    )


# --- interactions and sweep -------------------------------------------------------------------------------------------


def interactions(ablation: dict[str, Any]) -> str:
    """For each pair of factors the mean at their levels: where the lines are not parallel the factors interact."""
    pairs = ablation.get("interactions") or []
    ends = [
        point[end] for pair in pairs for line in pair["lines"] for point in line["points"] for end in ("low", "high")
    ]
    if not ends:
        return ""
    across = min(3, len(pairs))
    down = -(-len(pairs) // across)
    high, low = max(ends), min(ends)
    margin = 0.05 * ((high - low) or 1.0)
    panel = 190
    titles = [f"{_plain(pair['factors'][1])}, by {_plain(pair['factors'][0])}" for pair in pairs]
    figure = make_subplots(
        down, across, subplot_titles=titles, vertical_spacing=0.32 / down, horizontal_spacing=0.06, shared_yaxes=True
    )
    for index, pair in enumerate(pairs):
        row, column = 1 + index // across, 1 + index % across
        levels = _ordered(dict.fromkeys(point["level"] for line in pair["lines"] for point in line["points"]))
        last: list[tuple[float, str, str]] = []
        for number, line in enumerate(pair["lines"]):
            colour = COLOURS[number % len(COLOURS)]
            apart = 0.05 * (number - (len(pair["lines"]) - 1) / 2)  # so that intervals do not hide each other
            points = sorted(line["points"], key=lambda point, levels=levels: levels.index(point["level"]))  # type: ignore[misc]
            places = [levels.index(point["level"]) + apart for point in points]
            figure.add_trace(_with_intervals(places, points, colour), row, column)
            last.append((points[-1]["value"], f"{pair['factors'][0]} {line['level']}", colour))
        for value, text, colour, shift in _apart(last, panel / (high - low + 2 * margin)):
            figure.add_annotation(
                x=len(levels) - 1, y=value, text=_plain(text), row=row, col=column, font={"color": colour, "size": 11},
                xanchor="left", xshift=18, yshift=shift, showarrow=False,
            )  # fmt: skip
        figure.update_xaxes(
            tickvals=list(range(len(levels))), ticktext=[_plain(level) for level in levels],
            range=[-0.3, (len(levels) - 1) * 1.55 + 0.15], row=row, col=column,
        )  # fmt: skip
    figure.update_yaxes(range=[low - margin, high + margin], gridcolor="#eef1f4", zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_layout(height=(panel + 75) * down, margin={"l": 50, "r": 10, "t": 30, "b": 30})
    figure.update_layout(template="plotly_white", showlegend=False, font={"size": 11})
    figure.for_each_annotation(lambda note: note.update(font_size=12) if note.text in titles else None)
    return inline(figure)


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
        error_y={
            "array": [point["high"] - point["value"] for point in points],
            "arrayminus": [point["value"] - point["low"] for point in points],
            **{"type": "data", "symmetric": False, "thickness": 1.3, "width": 0},
        },
        hovertemplate="%{y:.3f}<extra></extra>",
    )


def _apart(ends: list[tuple[float, str, str]], pixels: float) -> list[tuple[float, str, str, float]]:
    """Labels at the ends of lines, moved up where they would lie on each other; ``pixels`` are those of a unit."""
    placed: list[tuple[float, str, str, float]] = []
    lowest = float("-inf")
    for value, text, colour in sorted(ends):
        at = max(value * pixels, lowest + 14)
        lowest = at
        placed.append((value, text, colour, at - value * pixels))
    return placed


def sweep_of(ablation: dict[str, Any]) -> dict[str, str] | None:
    """A figure of the sweep and what it shows: a heat map of two numeric axes, otherwise lines."""
    sweep = ablation.get("sweep")
    if not sweep:
        return None
    figures = {arm["arm"]: arm["metrics"].get(ablation["metric"]) for arm in ablation["arms"]}
    points = [point["at"] | figure for point in sweep["points"] if (figure := figures.get(point["arm"]))]
    if not points:
        return None
    axes = sweep["axes"]
    numeric = [name for name, values in axes.items() if all(_is_number(value) for value in values)]
    wide = [name for name, values in axes.items() if len(values) > 1] or list(axes)
    if len(axes) == 2 and len(numeric) == len(wide) == 2:
        return {"arm": sweep["arm"], "figure": _heat_map(axes, points, title_of(ablation["metric"]))}
    across = next((name for name in wide if name in numeric), wide[0])
    return {"arm": sweep["arm"], "figure": _sweep_lines(axes, across, points, title_of(ablation["metric"]))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sweep_lines(axes: dict[str, list[Any]], across: str, points: list[dict[str, Any]], title: str) -> str:
    """One line for each value of the other axes."""
    others = [name for name in axes if name != across]
    figure = go.Figure()
    values = axes[across]
    numeric = all(_is_number(value) for value in values)
    logarithmic = numeric and min(values) > 0 and max(values) / min(values) >= 50

    def place(value: float, number: int) -> float:
        """Lines lie a little apart, so that their intervals do not hide each other."""
        if logarithmic:
            return value * (max(values) / min(values)) ** (0.006 * number)
        return value + 0.006 * number * (max(values) - min(values))

    for number, levels in enumerate(product(*(axes[name] for name in others))):
        at = dict(zip(others, levels, strict=True))
        chosen = [point for point in points if all(point[name] == level for name, level in at.items())]
        chosen.sort(key=lambda point: values.index(point[across]))
        if chosen:
            named = ", ".join(f"{name} {level}" for name, level in at.items())
            places = [place(point[across], number) if numeric else _plain(point[across]) for point in chosen]
            figure.add_trace(_with_intervals(places, chosen, COLOURS[(1 + number) % len(COLOURS)], named))
    ticks = {"tickvals": values, "ticktext": [f"{value:g}" for value in values]} if numeric else {"type": "category"}
    figure.update_xaxes(title={"text": _plain(across)}, type="log" if logarithmic else None, zeroline=False)
    figure.update_xaxes(showgrid=False, **ticks)
    figure.update_yaxes(title={"text": _plain(title)}, gridcolor="#eef1f4", zeroline=False)
    figure.update_layout(height=360, margin={"l": 60, "r": 10, "t": 40, "b": 50}, template="plotly_white")
    figure.update_layout(
        showlegend=bool(others), legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, font={"size": 12}
    )
    return inline(figure)


def _heat_map(axes: dict[str, list[float]], points: list[dict[str, Any]], title: str) -> str:
    """Two numeric axes, the value and its interval in each field."""
    (down, rows), (across, columns) = sorted(axes.items(), key=lambda axis: len(axis[1]))
    at = {(point[down], point[across]): point for point in points}
    grid = [[at.get((row, column)) for column in columns] for row in rows]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{value:g}" for value in columns],
            y=[f"{value:g}" for value in rows],
            z=[[point and point["value"] for point in line] for line in grid],
            text=[
                [f"{p['value']:.3f}<br>[{p['low']:.3f}, {p['high']:.3f}]" if p else "" for p in line] for line in grid
            ],
            texttemplate="%{text}",
            colorscale=[[0, "#f4f7fa"], [1, "#8db4da"]],  # light enough for dark figures
            textfont={"color": "#1d2733"},
            colorbar={"title": {"text": _plain(title)}, "thickness": 12},
            hoverinfo="skip",
            **{"xgap": 2, "ygap": 2},
        )
    )
    figure.update_xaxes(title={"text": _plain(across)}, type="category", showgrid=False)
    figure.update_yaxes(title={"text": _plain(down)}, type="category", showgrid=False)
    figure.update_layout(height=120 + 62 * len(rows), margin={"l": 70, "r": 10, "t": 20, "b": 50})
    figure.update_layout(template="plotly_white", font={"size": 12})
    return inline(figure)
