"""Evaluation: predictions, metrics with intervals, paired comparisons."""
