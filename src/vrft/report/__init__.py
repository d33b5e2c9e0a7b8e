"""The report: run directories become one HTML page. Reads files only; never touches a model."""

from vrft.report.page import write_report

__all__ = ["write_report"]
