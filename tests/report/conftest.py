"""A small ablation and a small run, as their directories would hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from vrft.runs import RunDirectory, write_json, write_text

Metrics = dict[str, Any]


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.04, "high": value + 0.04}


def arm(name: str, kind: str, levels: dict[str, str] | None, value: float, metric: str = "accuracy") -> Metrics:
    cost = {"steps": 100, "tokens": 12_000, "seconds": 60.0, "peak_mb": 900.0}
    measured = {metric: figure(value), "format_rate": figure(0.9)}
    return {"kind": kind, "levels": levels, "what": f"what {name} is", "n": 512, "seeds": 3, **measured} | {
        "per_seed": [value - 0.02, value, value + 0.02],
        "seed_list": [0, 1, 2],
        "cost": cost,
    }


def difference(name: str, value: float, *, detected: bool, **more: Any) -> Metrics:
    row = {"name": name, "difference": value, "low": value - 0.02, "high": value + 0.02, "se": 0.01, "df": 8.0}
    row |= {"p": 0.01, "p_holm": 0.02, "detected": detected, "minimum_detectable_effect": 0.031}
    return row | {"seeds": 3, "seeds_counted": True} | more


def pair(a: str, b: str, value: float, *, detected: bool, metric: str = "accuracy") -> Metrics:
    more = {"a": a, "b": b, "metric": metric, "p_paired": 0.004, "paired_test": "permutation"}
    return difference(f"{a} - {b}", value, detected=detected, **more)


def small(metric: str = "accuracy") -> Metrics:
    """An ablation of two factors with a control and a sweep."""
    factors = {"PA_p": ["off", "on"], "recite": ["0", "-0.2"]}
    arms = {
        "rft": arm("rft", "cell", {"PA_p": "off", "recite": "0"}, 0.5, metric),
        "rft+PA_p": arm("rft+PA_p", "cell", {"PA_p": "on", "recite": "0"}, 0.6, metric),
        "rft+recite-0.2": arm("rft+recite-0.2", "cell", {"PA_p": "off", "recite": "-0.2"}, 0.51, metric),
        "rft+PA_p+recite-0.2": arm("rft+PA_p+recite-0.2", "cell", {"PA_p": "on", "recite": "-0.2"}, 0.62, metric),
        "swapped": arm("swapped", "control", None, 0.2, metric),
        "rft+PA_p+kl=0.1": arm("rft+PA_p+kl=0.1", "sweep", None, 0.58, metric),
    }
    main, both = {"kind": "main", "confounded": False}, {"kind": "interaction", "confounded": False}
    effects = [
        difference("PA_p", 0.105, detected=True, of=[["PA_p", "on"]], **main),
        difference("recite=-0.2", 0.015, detected=False, of=[["recite", "-0.2"]], **main),
        difference("PA_p x recite=-0.2", 0.01, detected=False, of=[["PA_p", "on"], ["recite", "-0.2"]], **both),
    ]
    points = [{"level": level} | figure(0.5) for level in ("0", "-0.2")]
    plot = {"factors": ["PA_p", "recite"], "lines": [{"level": at, "points": points} for at in ("off", "on")]}
    sweep = {"arm": "rft+PA_p", "axes": {"kl": [0, 0.1]}}
    sweep |= {"points": [{"arm": "rft+PA_p", "at": {"kl": 0}}, {"arm": "rft+PA_p+kl=0.1", "at": {"kl": 0.1}}]}
    return {
        **{"name": "small", "task": "classification", "metric": metric, "split": "test", "n": 512, "groups": 512},
        **{"seeds": [0, 1, 2], "confidence": 0.95, "factors": factors, "fraction": None, "planned": 4},
        **{"budget": {"match": "steps", "amount": None}, "arms": arms, "effects": effects, "also": {}},
        **{"comparisons": [pair("swapped", "rft+PA_p", -0.4, detected=True, metric=metric)]},
        **{"interactions": [plot], "not_estimable": [], "sweep": sweep, "failed": [], "images": {}},
    }


@pytest.fixture
def ablation() -> Metrics:
    return small()


@pytest.fixture
def of_boxes() -> Metrics:
    return small("mean_iou") | {"task": "localization"}


@pytest.fixture
def run() -> Metrics:
    """A run of three arms: every two are compared, in two metrics."""
    arms = {name: arm(name, "arm", None, value) for name, value in (("base", 0.3), ("sft", 0.5), ("rft", 0.6))}
    for one in arms.values():
        one["f1_50"] = figure(0.4)
    found = (("sft", "base", 0.2, True), ("rft", "base", 0.3, True), ("rft", "sft", 0.1, False))
    pairs = [
        pair(a, b, value, detected=detected, metric=metric)
        for metric in ("accuracy", "f1_50")
        for a, b, value, detected in found
    ]
    nothing = {"factors": {}, "effects": [], "interactions": [], "sweep": None, "planned": 3}
    return small() | nothing | {"arms": arms, "comparisons": pairs, "name": "a run"}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Metrics], RunDirectory]:
    """Writes the files of a run or an ablation and gives their directory."""

    def write(metrics: Metrics) -> RunDirectory:
        directory = RunDirectory(tmp_path)
        seeds = [(name, seed) for name, one in metrics["arms"].items() for seed in one["seed_list"]]
        logs = [
            {"arm": name, "seed": seed, "step": step, "stage": "1 rft", "reward": 0.1 * step, "loss": None}
            for name, seed in seeds
            for step in (1, 2, 3)
        ]
        answer = {"sample": "s0", "group": "s0", "target": "a", "answer": "a", "lenient": "a", "well_formed": True}
        completion = "<think>I see it.</think><answer>a</answer>"
        rows = [{"arm": name, "seed": seed, "completion": completion} | answer for name, seed in seeds]
        write_json(directory.metrics, metrics)
        write_json(directory.environment, {"python": "3"})
        write_text(directory.recipe, "name: small\n")
        pd.DataFrame(logs).to_parquet(directory.logs)
        pd.DataFrame(rows).to_parquet(directory.predictions)
        directory.gallery.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(directory.gallery / "s0.png")
        return directory

    return write
