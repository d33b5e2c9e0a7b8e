"""Metrics of boxes, and the constant answer."""

import pytest

from vrft.evaluation.box_metrics import BOX_METRICS, constant_box, tally

TRUE = [[0, 0, 10, 10], [50, 50, 60, 60]]


def figures(*rows: dict) -> dict[str, float]:
    counts = tally(rows, "answer")
    return {name: function(counts) for name, function in BOX_METRICS.items()}


def test_the_truth_is_perfect_and_an_unread_answer_nothing():
    perfect = figures({"target": TRUE, "answer": TRUE, "stated": 2}, {"target": [], "answer": [], "stated": 0})
    assert perfect == {"mean_iou": 1, "f1_50": 1, "precision50": 1, "recall50": 1}
    assert set(figures({"target": TRUE, "answer": None, "stated": 0}).values()) == {0}


def test_missed_and_invented_boxes_count_over_all_samples():
    rows = [
        {"target": TRUE, "answer": TRUE[:1], "stated": 1},
        {"target": [], "answer": [[1, 1, 5, 5]], "stated": 1},
        {"target": TRUE[:1], "answer": [[0, 0, 10, 4]], "stated": 3},  # overlap 0.4, and two that were none
    ]
    measured = figures(*rows)
    assert measured["mean_iou"] == pytest.approx((0.5 + 0 + 0.4 / 3) / 3)
    assert measured["precision50"] == pytest.approx(1 / 5)
    assert measured["recall50"] == pytest.approx(1 / 3)
    assert measured["f1_50"] == pytest.approx(2 / 8)


def test_invalid_boxes_of_an_unread_answer_count_as_stated():
    measured = figures({"target": TRUE, "answer": TRUE, "stated": 2}, {"target": [], "answer": None, "stated": 2})
    assert measured["precision50"] == pytest.approx(2 / 4)
    assert measured["f1_50"] == pytest.approx(4 / 6)


def test_the_constant_box_is_the_best_one_of_the_training_split():
    common, rare = (10.0, 10.0, 30.0, 30.0), (80.0, 80.0, 90.0, 90.0)
    samples = [((common,), (100, 100))] * 5 + [((rare,), (100, 100))] * 2 + [((), (100, 100))]
    assert constant_box(samples) == pytest.approx((0.1, 0.1, 0.3, 0.3))
    with pytest.raises(ValueError, match="no sample has a box"):
        constant_box([((), (100, 100))])
