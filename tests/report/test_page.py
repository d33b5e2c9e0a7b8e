"""The page of a run or an ablation: it shows all there is, as text, and needs nothing beside itself."""

import json
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vrft.montage import FIRST_SHARE
from vrft.report import write_report
from vrft.report.curves import panels_of
from vrft.runs import RunDirectory, write_json, write_text

Metrics = dict[str, Any]
Written = Callable[[Metrics], RunDirectory]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def page_of(directory: RunDirectory) -> str:
    """The page without the library that draws its figures."""
    html = write_report(directory).read_text(encoding="utf-8")
    start, end = html.index("<script>"), html.index("<body>")
    return html[:start] + html[end:]


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]+)", page)


# --- both -------------------------------------------------------------------------------------------------------------


def test_the_page_of_an_ablation_has_its_sections(ablation: Metrics, written: Written):
    assert headings(page_of(written(ablation))) == [
        *("Effects", "Arms", "Interactions", "Sweep of rft+PA_p", "Training"),
        *("Images and answers", "Confusion", "How it was made"),
    ]


def test_a_run_has_the_same_sections_without_those_of_a_factorial(run: Metrics, written: Written):
    assert headings(page_of(written(run))) == [
        *("Paired differences", "Arms", "Training", "Images and answers", "Confusion", "How it was made")
    ]


@pytest.mark.parametrize("kind", ["run", "ablation"])
def test_the_page_loads_nothing(kind: str, written: Written, request: pytest.FixtureRequest):
    directory = written(request.getfixturevalue(kind))
    html = write_report(directory).read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|iframe)[^>]+(?:src|href)\s*=", html)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page_of(directory))


@pytest.mark.parametrize("kind", ["run", "ablation"])
def test_every_arm_difference_and_sentence_is_there(kind: str, written: Written, request: pytest.FixtureRequest):
    metrics = request.getfixturevalue(kind)
    page = page_of(written(metrics))
    assert "<li>Compared by accuracy" in page
    for name in metrics["arms"]:
        assert f'data-v="{name}"' in page
    for row in [*metrics["effects"], *metrics["comparisons"]]:
        assert f"<td>{row['name'].replace(' x ', ' × ')}</td>" in page


def test_the_answers_of_a_model_are_escaped(run: Metrics, written: Written):
    directory = written(run)
    frame = pd.read_parquet(directory.predictions).assign(completion=f"<think>{EVIL}</think><answer>{EVIL}</answer>")
    frame.assign(answer=EVIL, well_formed=False).to_parquet(directory.predictions)
    write_text(directory.recipe, "name: </pre><script>alert(3)</script>\ntask: {kind: classification}\n")
    page = page_of(directory)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_text_of_arms_errors_and_factors_is_escaped(ablation: Metrics, written: Written):
    ablation["arms"][EVIL] = ablation["arms"].pop("rft+PA_p") | {"what": EVIL}
    ablation["comparisons"][0] |= {"name": EVIL, "a": EVIL}
    ablation["failed"] = [{"arm": EVIL, "seed": 0, "error": EVIL}]
    ablation["sweep"]["axes"] = {EVIL: [EVIL, "b"]}
    ablation["sweep"]["points"] = [{"arm": "rft", "at": {EVIL: EVIL}}, {"arm": "swapped", "at": {EVIL: "b"}}]
    ablation["interactions"][0]["factors"][0] = EVIL
    ablation["name"] = EVIL
    page = page_of(written(ablation))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


# --- sections ---------------------------------------------------------------------------------------------------------


def test_whether_a_difference_was_detected_is_drawn(run: Metrics, written: Written):
    tested = page_of(written(run)).split("<details>")[0]
    assert tested.count('class="forest detected"') == 2
    assert tested.count('class="forest"') == 1
    assert re.search(r"rft - sft</td>.*?<td>no</td>\s*<td>0.031</td>", tested, re.DOTALL)


def test_differences_in_other_metrics_are_called_descriptive(run: Metrics, written: Written):
    assert "<summary>Pairs of arms in F1 at IoU 0.5 (descriptive)</summary>" in page_of(written(run))


def test_the_base_of_the_factorial_is_marked(ablation: Metrics, written: Written):
    page = page_of(written(ablation))
    assert page.count('<span class="badge">base</span>') == 1
    assert 'rft<span class="badge">base</span>' in page


def test_the_table_shows_the_lenient_reading_where_it_differs(run: Metrics, written: Written):
    run["arms"]["base"]["accuracy_lenient"] = run["arms"]["rft"]["accuracy"]
    page = page_of(written(run))
    assert "accuracy, lenient" in page
    assert page.count("as strict") == 2


def test_an_answer_that_was_not_read_says_so(run: Metrics, written: Written):
    directory = written(run)
    frame = pd.read_parquet(directory.predictions)
    frame.loc[frame["arm"] == "base", "answer"] = None
    frame.to_parquet(directory.predictions)
    page = page_of(directory)
    gallery = page[page.index('<div class="gallery">') : page.index("<h2>Confusion")]
    assert gallery.count("not read") == 1
    assert "nan" not in gallery


@pytest.mark.parametrize(("y2", "verdict"), [(19, '"wrong">IoU 0.45'), (20, '"right">IoU 0.50')])
def test_boxes_are_drawn_and_right_from_half_an_overlap(of_boxes: Metrics, written: Written, y2: int, verdict: str):
    directory = written(of_boxes)
    true, half = json.dumps([[10, 10, 30, 30]]), json.dumps([[10, 10, 30, y2]])
    frame = pd.read_parquet(directory.predictions).assign(target=true, answer=true, image_size="[100, 50]")
    frame.loc[frame["arm"] == "swapped", "answer"] = half
    frame.to_parquet(directory.predictions)
    page = page_of(directory)
    gallery = page[page.index('<div class="gallery">') : page.index("<h2>How")]
    assert '<td class="right">IoU 1.00: [10, 10, 30, 30]' in gallery
    assert f"<td class={verdict}: [10, 10, 30, {y2}]" in gallery
    assert gallery.count("<rect") == 2 + 3  # the truth twice, and three arms
    assert 'viewBox="0 0 100 50.0"' in gallery
    note = PngInfo()
    note.add_text(FIRST_SHARE, "0.4")
    Image.new("RGB", (50, 10)).save(directory.gallery / "s0.png", pnginfo=note)  # 20 x 10, and further images
    several = page_of(directory)
    assert 'viewBox="0 0 100 20.0"' in several
    assert '<svg viewBox="0 0 100 100" width="40.0" height="20.0"' in several
    assert "<h2>Confusion" not in page


def test_few_arms_of_an_ablation_answer_in_the_gallery(ablation: Metrics, written: Written):
    controls = {f"control {n}": ablation["arms"]["swapped"] for n in range(9)}
    ablation["arms"] |= controls
    page = page_of(written(ablation))
    gallery = page[page.index('<div class="gallery">') : page.index("<h2>Confusion")]
    shown = re.findall(r'"></span>([^<]+)</td><td>', gallery)
    assert shown == ["rft", "rft+PA_p+recite-0.2", "swapped", *list(controls)[:5]]


def test_perception_and_the_sources_of_boxes_are_shown(run: Metrics, written: Written):
    learnt = {"seeds": 1, "mean_iou": {"value": 0.25, "low": 0.2, "high": 0.3}, "cost": {}}
    run["perception"] = {"task": "localization", "metric": "mean_iou", "n": 40, "groups": 40}
    run["perception"] |= {"arms": {"majority": learnt}}
    directory = written(run)
    card = {"name": "my", "written_by": {"kind": "model", "name": "M"}, "checked_by": None}
    write_json(directory.data, {"boxes": {"data": {"train": {"boxes": 1234, "no area": 2}}}, "card": card})
    page = page_of(directory)
    assert "train: boxes 1,234, no area 2" in page
    assert "The card my was written by M (model) and has been checked by nobody." in page
    assert "0.250<small>[0.200, 0.300]" in page[page.index("Perception: the task of earlier stages") :]


def test_curves_of_an_ablation_are_a_line_an_arm_and_few_are_drawn_at_first(ablation: Metrics, written: Written):
    page = page_of(written(ablation))
    pressed = re.findall(r'aria-pressed="(true|false)"><svg[^§]*?</svg>([^<]+)</button>', page)
    assert {name for on, name in pressed if on == "true"} == {"rft", "rft+PA_p+recite-0.2", "swapped"}
    assert len(pressed) == page.count('"legendgroup":"arm-') == 6


def test_curves_of_a_run_are_a_line_a_seed(run: Metrics, written: Written):
    page = page_of(written(run))
    assert page.count('"legendgroup":"arm-') == 3 * 3
    assert page.count('aria-pressed="true"') == 3


def test_panels_are_what_the_log_holds():
    logs = pd.json_normalize([{"reward": 0.5, "rewards": {"accuracy": {"mean": 0.5}}, "loss": 1.0, "kl": None}])
    assert list(panels_of(logs)) == ["reward", "rewards.accuracy.mean", "loss"]


def test_without_logs_there_are_no_curves(ablation: Metrics, written: Written):
    directory = written(ablation)
    directory.logs.unlink()
    assert "Training" not in headings(page_of(directory))


@pytest.mark.parametrize("gone", ["sweep", "interactions", "effects"])
def test_a_section_without_content_is_left_out(ablation: Metrics, written: Written, gone: str):
    ablation[gone] = None if gone == "sweep" else []
    found = [heading.split()[0] for heading in headings(page_of(written(ablation)))]
    assert gone.capitalize() not in found
    assert "Arms" in found


def test_one_arm_alone_has_a_page(run: Metrics, written: Written):
    page = page_of(written(run | {"arms": {"rft": run["arms"]["rft"]}, "comparisons": [], "planned": 0}))
    assert headings(page)[0] == "Arms"


def test_failed_runs_stand_with_their_error(ablation: Metrics, written: Written):
    ablation["failed"] = [{"arm": "swapped", "seed": 1, "error": "out of memory"}]
    ablation["not_estimable"] = ["PA_p x MFRS"]
    ablation["arms"]["swapped"]["cost"] = {}
    page = page_of(written(ablation))
    assert "out of memory" in page
    assert "Not estimable from the arms that were run: PA_p x MFRS." in page[page.index("<h2>Missing results") :]


def test_one_seed_is_said_to_be_one(run: Metrics, written: Written):
    run["seeds"] = [0]
    for arm in run["arms"].values():
        arm |= {"seeds": 1, "seed_list": [0], "per_seed": [0.5]}
    page = page_of(written(run))
    assert "1 seed, on 512 samples" in page
    assert "With one seed an interval counts the test samples alone" in page


def test_boxes_have_their_own_headline(of_boxes: Metrics, written: Written):
    assert "Headline metric: mean IoU" in page_of(written(of_boxes))


def test_two_numeric_axes_are_a_heat_map(ablation: Metrics, written: Written):
    axes = {"kl": [0, 0.1], "rewards.recitation": [-0.2, 0.2]}
    arms = iter(("rft", "rft+PA_p", "swapped", "rft+recite-0.2"))
    points = [
        {"arm": next(arms), "at": {"kl": kl, "rewards.recitation": recitation}}
        for kl in axes["kl"]
        for recitation in axes["rewards.recitation"]
    ]
    ablation["sweep"] = {"arm": "rft+PA_p", "axes": axes, "points": points}
    assert '"type":"heatmap"' in page_of(written(ablation))
    ablation["sweep"]["points"] = points[:3]  # one failed
    assert '"type":"heatmap"' in page_of(written(ablation))


def test_the_findings_of_an_audit_are_a_section(run: Metrics, written: Written):
    directory = written(run)
    finding = {"code": "duplicate", "severity": "warning", "message": EVIL, "where": ["a", EVIL], "count": 2}
    counts = {"data": {"train": {"samples": 1200, "targets": {EVIL: 7}}, "test": {"samples": 0}}}
    audit = {"findings": [finding | {"data": "data"}], "counts": counts, "limit": None, "passed": True}
    write_json(directory.audit, audit)
    page = page_of(directory)
    assert "Data" in headings(page)
    assert "<td>1,200</td>" in page
    assert '<span class="warn">warning</span>' in page
    assert "<script>alert" not in page
