"""The page of an ablation: it shows all there is, as text, and needs nothing beside itself."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft.report.ablation import write_ablation_page

Ablation = dict[str, Any]
Written = Callable[[Ablation], Path]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def page_of(directory: Path) -> str:
    """The page without the library that draws its figures."""
    html = write_ablation_page(directory).read_text(encoding="utf-8")
    start, end = html.index("<script>"), html.index("<body>")
    return html[:start] + html[end:]


def test_text_of_arms_errors_and_factors_is_escaped(ablation: Ablation, written: Written):
    ablation["arms"][1] |= {"arm": EVIL, "what": EVIL}
    ablation["effects"][3] |= {"name": EVIL, "a": EVIL}
    ablation["failed"] = [{"arm": EVIL, "seed": 0, "error": EVIL}]
    ablation["sweep"]["axes"] = {EVIL: [EVIL, "b"]}
    ablation["sweep"]["points"] = [{"arm": "rft", "at": {EVIL: EVIL}}, {"arm": "swapped", "at": {EVIL: "b"}}]
    ablation["interactions"][0]["factors"][0] = EVIL
    ablation["name"] = EVIL
    page = page_of(written(ablation))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_arm_effect_and_sentence_is_there(ablation: Ablation, written: Written):
    ablation["words"] = ["A sentence."]
    page = page_of(written(ablation))
    assert "<li>A sentence.</li>" in page
    for arm in ablation["arms"]:
        assert f'data-v="{arm["arm"]}"' in page
    for effect in ablation["effects"]:
        assert f"<td>{effect['name']}</td>" in page
        assert effect["name"].replace(" x ", " \\u00d7 ") in page  # in the figure


def test_the_page_loads_nothing(ablation: Ablation, written: Written):
    html = write_ablation_page(written(ablation)).read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=", html)
    assert not re.findall(r"(?:src|href)=[\"']https?:", page_of(written(ablation)))


def test_the_base_of_the_factorial_is_marked(ablation: Ablation, written: Written):
    page = page_of(written(ablation))
    assert page.count('<span class="badge">base</span>') == 1
    assert 'rft<span class="badge">base</span>' in page


def test_curves_are_one_line_an_arm_and_few_are_drawn_at_first(ablation: Ablation, written: Written):
    page = page_of(written(ablation))
    pressed = re.findall(r'aria-pressed="(true|false)"><svg[^§]*?</svg>([^<]+)</button>', page)
    assert {name for on, name in pressed if on == "true"} == {"rft", "rft+PA_p+recite-0.2", "swapped"}
    assert len(pressed) == page.count('"legendgroup":"arm-') == 6


@pytest.mark.parametrize("gone", ["sweep", "interactions", "effects"])
def test_what_an_ablation_lacks_is_left_out(ablation: Ablation, written: Written, gone: str):
    ablation[gone] = None if gone == "sweep" else []
    headings = re.findall(r"<h2>(\w+)", page_of(written(ablation)))
    assert gone.capitalize() not in headings
    assert "Arms" in headings


def test_failed_runs_stand_with_their_error_and_leave_gaps(ablation: Ablation, written: Written):
    ablation["failed"] = [{"arm": "swapped", "seed": 1, "error": "out of memory"}]
    ablation["not_estimable"] = ["PA_p x MFRS"]
    ablation["arms"][4] |= {"metrics": {}, "per_seed": [], "cost": None}
    page = page_of(written(ablation))
    assert "out of memory" in page
    assert "Not estimable from the cells that were run: PA_p x MFRS." in page


def test_one_seed_is_said_to_be_one(ablation: Ablation, written: Written):
    ablation["seeds"] = [0]
    for arm in ablation["arms"]:
        arm |= {"seeds": [0], "per_seed": [0.5]}
    page = page_of(written(ablation))
    assert "1 seed." in page
    assert "With one seed an interval counts the test samples alone" in page


def test_boxes_are_told_by_their_metric(of_boxes: Ablation, written: Written):
    assert "headline metric mean IoU" in page_of(written(of_boxes))


def test_two_numeric_axes_are_a_heat_map(ablation: Ablation, written: Written):
    axes = {"kl": [0, 0.1], "rewards.recitation": [-0.2, 0.2]}
    arms = iter(("rft", "rft+PA_p", "swapped", "rft+recite-0.2"))
    points = [
        {"arm": next(arms), "at": {"kl": kl, "rewards.recitation": recitation}}
        for kl in axes["kl"]
        for recitation in axes["rewards.recitation"]
    ]
    ablation["sweep"] = {"arm": "rft+PA_p", "axes": axes, "points": points}
    assert '"type":"heatmap"' in page_of(written(ablation))


def test_without_logs_there_are_no_curves(ablation: Ablation, written: Written):
    directory = written(ablation)
    (directory / "logs.parquet").unlink()
    assert "<h2>Training" not in page_of(directory)
