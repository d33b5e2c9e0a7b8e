"""The report: the directories of runs and ablations become HTML pages and tables. Reads files only, never a model."""

from vrft.report.ablation import write_ablation_page, write_ablation_report
from vrft.report.ablation_words import in_words
from vrft.report.page import write_report
from vrft.report.tables import latex_table, markdown_table, write_tables

__all__ = [
    "in_words",
    "latex_table",
    "markdown_table",
    "write_ablation_page",
    "write_ablation_report",
    "write_report",
    "write_tables",
]
