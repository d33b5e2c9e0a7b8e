"""Tables for a paper: everything is in them, and they compile."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft.report import latex_tables, markdown_tables, write_report
from vrft.runs import RunDirectory

Metrics = dict[str, Any]
HOSTILE = r"a_b & 50% #1 $x$ {y} ~z ^ \input{x} <b> [2pt] * -0.2 |"
DOCUMENT = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}\n%s\\end{document}\n"


def test_markdown_holds_arms_and_effects(ablation: Metrics):
    table = markdown_tables(ablation)
    assert r"| rft+PA\_p | ✓ | 0 | 0.600 \[0.560, 0.640\] |" in table
    assert r"| PA\_p | +0.105 \[+0.085, +0.125\] | 0.010 | 0.020 | yes | 0.031 |" in table


def renamed(metrics: Metrics, old: str, new: str) -> None:
    metrics["arms"] = {new if name == old else name: arm for name, arm in metrics["arms"].items()}


def test_a_row_of_markdown_cannot_be_broken(ablation: Metrics):
    renamed(ablation, "rft", HOSTILE + "\nnew line")
    lines = markdown_tables(ablation).splitlines()
    (row,) = (line for line in lines if "new line" in line and line.startswith("|"))
    (rule, *_) = (line for line in lines if line.startswith("| :--"))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", rule))
    assert "<b>" not in row.replace(r"\<b\>", "")


def test_latex_holds_arms_and_effects(ablation: Metrics):
    table = latex_tables(ablation)
    assert r"rft+PA\_p & \checkmark & 0 & $0.600_{[0.560, 0.640]}$" in table
    assert r"rft+recite$-0.2$ &  & $-0.2$ &" in table
    assert r"PA\_p $\times$ recite=$-0.2$ & $+0.010_{[-0.010, +0.030]}$ & 0.010 & 0.020 & no & 0.031 \\" in table
    assert r"swapped $-$ rft+PA\_p & $-0.400" in table


def test_kinds_are_kept_apart_by_rules(ablation: Metrics):
    arms = latex_tables(ablation).split(r"\end{tabular}")[0]
    assert arms.count(r"\midrule") == 3  # below the heads, before the controls, before the sweep


def test_latex_is_escaped(ablation: Metrics):
    renamed(ablation, "rft", HOSTILE)
    row = next(line for line in latex_tables(ablation).splitlines() if "a\\_b" in line)
    assert r"\& 50\% \#1 \$x\$ \{y\}" in row
    assert r"\input" not in row
    bare = re.sub(r"\\[{}]", "", row)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)&", row)) == latex_tables(ablation).splitlines()[4].count("&")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(ablation: Metrics, tmp_path: Path):
    renamed(ablation, "rft", HOSTILE)
    renamed(ablation, "rft+PA_p", "[2pt]")
    (tmp_path / "t.tex").write_text(DOCUMENT % latex_tables(ablation))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_a_figure_that_an_arm_lacks_is_a_dash(ablation: Metrics):
    ablation["arms"]["swapped"]["cost"] = {}
    del ablation["arms"]["swapped"]["format_rate"]
    assert r"_{[0.160, 0.240]}$ & -- & 3 & -- & -- & -- & -- \\" in latex_tables(ablation)
    assert "| – | 3 | – | – | – | – |" in markdown_tables(ablation)


def test_without_differences_there_is_one_table(ablation: Metrics):
    ablation |= {"effects": [], "comparisons": [], "planned": 0}
    assert latex_tables(ablation).count(r"\begin{tabular}") == 1


def test_a_run_has_tables_of_its_arms_and_of_the_pairs_on_the_headline(run: Metrics):
    assert r"rft $-$ sft & $+0.100_{[+0.080, +0.120]}$ & 0.010 & 0.020 & no & 0.031 \\" in latex_tables(run)
    assert markdown_tables(run).count("| rft - sft |") == 1


def test_both_are_written_beside_the_page(of_boxes: Metrics, written: Callable[[Metrics], RunDirectory]):
    page = write_report(written(of_boxes))
    for suffix in (".md", ".tex"):
        assert "mean IoU" in page.with_suffix(suffix).read_text(encoding="utf-8")
