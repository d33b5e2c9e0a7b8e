"""Tables for a paper: everything is in them, and they compile."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft.report.tables import latex_table, markdown_table, write_tables

Ablation = dict[str, Any]
HOSTILE = r"a_b & 50% #1 $x$ {y} ~z ^ \input{x} <b> [2pt] * -0.2 |"
DOCUMENT = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}\n%s\\end{document}\n"


def test_markdown_holds_arms_and_effects(ablation: Ablation):
    table = markdown_table(ablation)
    assert r"| rft+PA\_p | ✓ | 0 | 0.600 [0.560, 0.640] |" in table
    assert r"| PA\_p | +0.105 [+0.085, +0.125] | 0.010 | 0.020 | 0.031 |" in table


def test_a_row_of_markdown_cannot_be_broken(ablation: Ablation):
    ablation["arms"][0]["arm"] = HOSTILE + "\nnew line"
    lines = [line for line in markdown_table(ablation).splitlines() if "new line" in line]
    (row,) = lines
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", markdown_table(ablation).splitlines()[1]))
    assert "<b>" not in row.replace(r"\<b\>", "")


def test_latex_holds_arms_and_effects(ablation: Ablation):
    table = latex_table(ablation)
    assert r"rft+PA\_p & \checkmark & 0 & $0.600_{[0.560, 0.640]}$" in table
    assert r"rft+recite$-0.2$ &  & $-0.2$ &" in table
    assert r"PA\_p $\times$ recite=$-0.2$ & $+0.010_{[-0.010, +0.030]}$ & 0.010 & 0.020 & 0.031 \\" in table
    assert r"swapped $-$ rft+PA\_p & $-0.400" in table


def test_kinds_are_kept_apart_by_rules(ablation: Ablation):
    arms = latex_table(ablation).split(r"\end{tabular}")[0]
    assert arms.count(r"\midrule") == 3  # below the heads, before the controls, before the sweep


def test_latex_is_escaped(ablation: Ablation):
    ablation["arms"][0]["arm"] = HOSTILE
    row = next(line for line in latex_table(ablation).splitlines() if "a\\_b" in line)
    assert r"\& 50\% \#1 \$x\$ \{y\}" in row
    assert r"\input" not in row
    bare = re.sub(r"\\[{}]", "", row)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)&", row)) == latex_table(ablation).splitlines()[4].count("&")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(ablation: Ablation, tmp_path: Path):
    ablation["arms"][0]["arm"] = HOSTILE
    ablation["arms"][1]["arm"] = "[2pt]"
    (tmp_path / "t.tex").write_text(DOCUMENT % latex_table(ablation))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_a_figure_that_an_arm_lacks_is_a_dash(ablation: Ablation):
    ablation["arms"][4] |= {"metrics": {}, "cost": None}
    assert r"swapped &  &  & -- & -- & -- & -- & -- & -- \\" in latex_table(ablation)
    assert "| swapped |  |  | – | – | – | – | – | – |" in markdown_table(ablation)


def test_without_effects_there_is_one_table(ablation: Ablation):
    ablation["effects"] = []
    assert latex_table(ablation).count(r"\begin{tabular}") == 1


def test_both_are_written(of_boxes: Ablation, written: Callable[[Ablation], Path]):
    markdown, latex = write_tables(written(of_boxes))
    assert markdown.name == "ablation.md"
    assert "mean IoU" in markdown.read_text(encoding="utf-8")
    assert "mean IoU" in latex.read_text(encoding="utf-8")
