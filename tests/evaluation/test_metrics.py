"""Metrics agree with scikit-learn where both are defined, and are defined where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from vrft.evaluation.metrics import METRICS, UNREAD, accuracy, balanced_accuracy, confusion_matrix, macro_f1, mae, qwk

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=120).map(np.array)


@given(PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_metrics_agree_with_scikit_learn(pairs: np.ndarray):
    true, predicted = pairs.T
    assert accuracy(true, predicted, classes=5) == pytest.approx(reference.accuracy_score(true, predicted))
    assert mae(true, predicted, classes=5) == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert macro_f1(true, predicted, classes=5) == pytest.approx(reference.f1_score(true, predicted, average="macro"))
    recall = reference.recall_score(true, predicted, average=None, labels=np.unique(true), zero_division=0)
    assert balanced_accuracy(true, predicted, classes=5) == pytest.approx(recall.mean())
    if len(np.unique(pairs)) > 1:
        kappa = reference.cohen_kappa_score(true, predicted, weights="quadratic", labels=range(5))
        assert qwk(true, predicted, classes=5) == pytest.approx(kappa, abs=1e-9)


def test_kappa_of_two_constants_is_zero():
    assert qwk(np.zeros(9, int), np.zeros(9, int), classes=5) == 0.0


@pytest.mark.parametrize("true", range(5))
def test_an_unread_answer_is_wrong_and_as_far_off_as_can_be(true: int):
    y_true, y_pred = np.array([true]), np.array([UNREAD])
    assert accuracy(y_true, y_pred, classes=5) == 0
    assert mae(y_true, y_pred, classes=5) == max(true, 4 - true)
    assert confusion_matrix(y_true, y_pred, classes=5)[true, 5] == 1


@pytest.mark.parametrize("true", [0, 1, 3, 4])
def test_an_unread_answer_counts_in_kappa_as_the_farthest_grade(true: int):
    y_true = np.array([true, 0, 4])
    unread, farthest = np.array([UNREAD, 0, 4]), np.array([0 if true > 2 else 4, 0, 4])
    assert qwk(y_true, unread, classes=5) == qwk(y_true, farthest, classes=5)


@given(PAIRS, st.sampled_from(sorted(METRICS)))
def test_reading_fewer_answers_never_helps_accuracy(pairs: np.ndarray, name: str):
    true, predicted = pairs.T
    unread = np.where(np.arange(len(predicted)) % 2, predicted, UNREAD)
    assert accuracy(true, unread, classes=5) <= accuracy(true, predicted, classes=5)
    assert np.isfinite(METRICS[name](true, unread, classes=5))
