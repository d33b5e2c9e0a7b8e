"""The report: the files of a run or an ablation become an HTML page and tables. Reads files only, never a model."""

from vrft.report.page import write_report
from vrft.report.sentences import in_words
from vrft.report.tables import latex_tables, markdown_tables

__all__ = ["in_words", "latex_tables", "markdown_tables", "write_report"]
