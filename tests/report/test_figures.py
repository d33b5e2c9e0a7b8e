"""Figures show text as it stands: tags in the names of arms, factors and levels are escaped."""

from typing import Any

import pandas as pd

from vrft.report.curves import Line, draw_curves
from vrft.report.figures import interactions, sweep_of

TAG, IN_JSON = "<img src=x>", r"\u003cimg"


def assert_escaped(figure: str) -> None:
    assert "&lt;img src=x" in figure
    assert IN_JSON not in figure
    assert "<img" not in figure


def test_factors_and_levels_of_interactions_are_escaped(ablation: dict[str, Any]):
    (plot,) = ablation["interactions"]
    plot["factors"] = [TAG, f"{TAG} 2"]
    ablation["factors"] = {name: [TAG + level for level in levels] for name, levels in ablation["factors"].items()}
    for line in plot["lines"]:
        line["level"] = TAG + line["level"]
        line["points"] = [point | {"level": TAG + point["level"]} for point in line["points"]]
    assert_escaped(interactions(ablation))


def test_axes_and_values_of_a_sweep_are_escaped(ablation: dict[str, Any]):
    ablation["sweep"]["axes"] = {TAG: [TAG, "b"]}
    ablation["sweep"]["points"] = [{"arm": "rft", "at": {TAG: TAG}}, {"arm": "swapped", "at": {TAG: "b"}}]
    assert_escaped(sweep_of(ablation))


def test_names_of_arms_in_curves_are_escaped():
    logs = pd.DataFrame({"arm": [TAG] * 2, "seed": [0, 0], "step": [1, 2], "reward": [0.1, 0.2]})
    assert_escaped(draw_curves(logs, {TAG: Line("#000000")}))
