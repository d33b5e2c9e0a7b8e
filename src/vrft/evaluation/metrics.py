"""Metrics: pure functions of true and predicted targets, ``(n,)`` arrays of class positions.

A prediction of ``UNREAD`` (-1) is an answer that could not be read. It is always wrong: for the mean absolute error it
is as far off as the scale allows, and for kappa it is counted there too.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.int64]
UNREAD = -1


def accuracy(y_true: Classes, y_pred: Classes, *, classes: int) -> float:
    """Share of right predictions, 0 to 1."""
    return float(np.mean(y_true == y_pred))


def balanced_accuracy(y_true: Classes, y_pred: Classes, *, classes: int) -> float:
    """Mean recall over the classes that occur in ``y_true``, 0 to 1."""
    confusion = confusion_matrix(y_true, y_pred, classes=classes)
    support = confusion.sum(axis=1)
    recalls = np.diag(confusion[:, :classes])[support > 0] / support[support > 0]
    return float(recalls.mean())


def macro_f1(y_true: Classes, y_pred: Classes, *, classes: int) -> float:
    """Mean over the classes that occur in truth or prediction of 2 TP / (2 TP + FP + FN), 0 to 1."""
    confusion = confusion_matrix(y_true, y_pred, classes=classes)
    hits = np.diag(confusion[:, :classes]).astype(float)
    total = confusion.sum(axis=1) + confusion[:, :classes].sum(axis=0)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def qwk(y_true: Classes, y_pred: Classes, *, classes: int) -> float:
    """Quadratic weighted kappa, -1 to 1: 1 - sum(w O) / sum(w E) with w = (i - j)^2 (Cohen, 1968).

    Where truth and prediction are one constant it is 0 / 0, which is defined as 0.0 here: a policy that always gives
    the same grade agrees no better than chance.
    """
    predicted = farthest(y_true, y_pred, classes=classes)
    observed = np.mean((y_true - predicted) ** 2.0)
    expected = (
        np.mean((y_true[:, None] - predicted[None, :]) ** 2.0) if len(y_true) < 64 else _expected(y_true, predicted)
    )
    kappa = float(1 - observed / expected) if expected > 0 else 0.0
    return kappa if abs(kappa) > 1e-12 else 0.0  # a constant prediction agrees by chance, up to rounding


def _expected(y_true: Classes, y_pred: Classes) -> float:
    """Mean of (i - j)^2 over all pairs of a truth and a prediction, in linear time."""
    t, p = y_true.astype(float), y_pred.astype(float)
    return float(np.mean(t**2) - 2 * np.mean(t) * np.mean(p) + np.mean(p**2))


def mae(y_true: Classes, y_pred: Classes, *, classes: int) -> float:
    """Mean absolute error in grades, 0 to classes - 1."""
    return float(np.mean(np.abs(y_true - farthest(y_true, y_pred, classes=classes))))


def farthest(y_true: Classes, y_pred: Classes, *, classes: int) -> Classes:
    """Predictions with each unread one replaced by the grade that is farthest from the truth."""
    return np.where(y_pred == UNREAD, np.where(y_true * 2 >= classes - 1, 0, classes - 1), y_pred)


def confusion_matrix(y_true: Classes, y_pred: Classes, *, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes + 1): row the truth, column the prediction, the last column what was not read."""
    columns = np.where(y_pred == UNREAD, classes, y_pred)
    return np.bincount(y_true * (classes + 1) + columns, minlength=classes * (classes + 1)).reshape(
        classes, classes + 1
    )


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "qwk": qwk,
    "mae": mae,
}
"""Metrics of classes by name; ``format_rate`` and ``read_rate`` are shares of samples and need no function."""
