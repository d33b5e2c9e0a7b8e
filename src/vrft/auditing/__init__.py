"""The audit: faults of the data and the rewards of a recipe, found before a run is paid for."""

from vrft.auditing.findings import Audit, Finding, Vision

__all__ = ["Audit", "Finding", "Vision"]
