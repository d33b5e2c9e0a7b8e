"""A small ablation, as its directory would hold it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vrft.runs import write_json, write_text

Ablation = dict[str, Any]


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.04, "high": value + 0.04}


def arm(name: str, kind: str, levels: dict[str, str] | None, value: float, metric: str = "accuracy") -> Ablation:
    metrics = {metric: figure(value), "format_rate": figure(0.9)}
    cost = {"steps": 100, "tokens": 12_000, "seconds": 60.0, "peak_mb": 900.0}
    per_seed = [value - 0.02, value, value + 0.02]
    return {"arm": name, "kind": kind, "levels": levels, "what": f"what {name} is", "seeds": [0, 1, 2]} | {
        "metrics": metrics,
        "per_seed": per_seed,
        "cost": cost,
    }


def effect(name: str, kind: str, difference: float, *, seen: bool, **more: Any) -> Ablation:
    row = {"name": name, "kind": kind, "of": None, "a": None, "b": None, "difference": difference}
    row |= {"low": difference - 0.02, "high": difference + 0.02, "se": 0.01, "df": 8.0, "p": 0.01, "p_holm": 0.02}
    row |= {
        "p_paired": None,
        "paired_test": None,
        "minimum_detectable_effect": 0.031,
        "seen": seen,
        "seeds_counted": True,
    }
    return row | more


def small(metric: str = "accuracy") -> Ablation:
    factors = {"PA_p": ["off", "on"], "recite": ["0", "-0.2"]}
    arms = [
        arm("rft", "cell", {"PA_p": "off", "recite": "0"}, 0.5, metric),
        arm("rft+PA_p", "cell", {"PA_p": "on", "recite": "0"}, 0.6, metric),
        arm("rft+recite-0.2", "cell", {"PA_p": "off", "recite": "-0.2"}, 0.51, metric),
        arm("rft+PA_p+recite-0.2", "cell", {"PA_p": "on", "recite": "-0.2"}, 0.62, metric),
        arm("swapped", "control", None, 0.2, metric),
        arm("rft+PA_p+kl=0.1", "sweep", None, 0.58, metric),
    ]
    effects = [
        effect("PA_p", "main", 0.105, seen=True, of=[["PA_p", "on"]]),
        effect("recite=-0.2", "main", 0.015, seen=False, of=[["recite", "-0.2"]]),
        effect("PA_p x recite=-0.2", "interaction", 0.01, seen=False, of=[["PA_p", "on"], ["recite", "-0.2"]]),
        effect("swapped - rft+PA_p", "control", -0.4, seen=True, a="swapped", b="rft+PA_p"),
    ]
    points = [{"level": level} | figure(0.5) for level in ("0", "-0.2")]
    pair = {"factors": ["PA_p", "recite"], "lines": [{"level": at, "points": points} for at in ("off", "on")]}
    sweep = {"arm": "rft+PA_p", "axes": {"kl": [0, 0.1]}}
    sweep |= {"points": [{"arm": "rft+PA_p", "at": {"kl": 0}}, {"arm": "rft+PA_p+kl=0.1", "at": {"kl": 0.1}}]}
    return {
        **{"name": "small", "task": "classification", "metric": metric, "split": "test", "n": 512, "groups": 512},
        **{"seeds": [0, 1, 2], "confidence": 0.95, "factors": factors, "fraction": None},
        **{"budget": {"match": "steps", "amount": None}, "arms": arms, "effects": effects, "interactions": [pair]},
        **{"not_estimable": [], "sweep": sweep, "failed": [], "words": []},
    }


@pytest.fixture
def ablation() -> Ablation:
    return small()


@pytest.fixture
def of_boxes() -> Ablation:
    return small("mean_iou") | {"task": "localization"}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Ablation], Path]:
    """Writes the files of an ablation and gives their directory."""

    def write(ablation: Ablation) -> Path:
        logs = [
            {"arm": one["arm"], "seed": seed, "step": step, "stage": "1 rft", "reward": 0.1 * step, "loss": None}
            for one in ablation["arms"]
            for seed in one["seeds"]
            for step in (1, 2, 3)
        ]
        write_json(tmp_path / "ablation.json", ablation)
        write_json(tmp_path / "environment.json", {"python": "3"})
        write_text(tmp_path / "recipe.yaml", "name: small\n")
        pd.DataFrame(logs).to_parquet(tmp_path / "logs.parquet")
        return tmp_path

    return write
