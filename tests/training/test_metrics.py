"""Metrics against numbers worked out by hand."""

import math

import numpy as np
import pytest

from echograd.workbench.training import classification_metrics, confusion_matrix, regression_metrics
from echograd.workbench.training._metrics import scores_from_confusion

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def test_confusion_counts_true_classes_in_rows():
    targets, predictions = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 2])
    np.testing.assert_array_equal(confusion_matrix(targets, predictions, 3), [[2, 1, 0], [0, 1, 0], [1, 0, 1]])
    assert confusion_matrix(targets, predictions, 4).shape == (4, 4)


def test_scores_by_hand():
    # Recalls 8/10 and 1/2; F1 = 2·8/(10+9) and 2·1/(2+3).
    scores = scores_from_confusion(np.array([[8, 2], [1, 1]]))
    assert scores["accuracy"] == pytest.approx(9 / 12)
    assert scores["balanced_accuracy"] == pytest.approx((0.8 + 0.5) / 2)
    assert scores["f1"] == pytest.approx((16 / 19 + 2 / 5) / 2)


def test_balanced_accuracy_of_a_constant_is_one_over_the_classes():
    scores = scores_from_confusion(np.array([[90, 0, 0], [7, 0, 0], [3, 0, 0]]))
    assert scores["accuracy"] == 0.9
    assert scores["balanced_accuracy"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(2 * 90 / 190 / 3)


def test_a_class_without_cases():
    scores = scores_from_confusion(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert scores["balanced_accuracy"] == pytest.approx((0.75 + 1) / 2)
    assert scores["f1"] == pytest.approx((6 / 7 + 4 / 5) / 2)
    predicted = scores_from_confusion(np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0]]))
    assert predicted["balanced_accuracy"] == pytest.approx((0.75 + 1) / 2)
    assert predicted["f1"] == pytest.approx((6 / 7 + 1 + 0) / 3)
    assert all(map(math.isnan, scores_from_confusion(np.zeros((2, 2), int)).values()))


def test_the_loss_is_the_weighted_cross_entropy():
    logits = np.log(np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]])) + 5
    targets = np.array([0, 1, 1])
    found = classification_metrics(logits, targets)
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.6, 0.1]).mean())
    assert found["confusion"] == [[1, 0], [1, 1]]
    weighted = classification_metrics(logits, targets, np.array([1.0, 3.0]))
    assert weighted["loss"] == pytest.approx(-(np.log(0.7) + 3 * np.log(0.6) + 3 * np.log(0.1)) / 7)


def test_large_logits_do_not_overflow():
    found = classification_metrics(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert found["loss"] == pytest.approx(5e3)


def test_regression_by_hand():
    y, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 4.0, 3.0, 5.0])
    found = regression_metrics(predicted, y)
    assert found == pytest.approx({"mse": 5 / 4, "mae": 3 / 4, "r2": 1 - 5 / 14})
    masked = regression_metrics(predicted, y, np.array([True, True, False, False]))
    assert masked == pytest.approx({"mse": 2.0, "mae": 1.0, "r2": 1 - 2 / 0.25})
    assert regression_metrics(np.full(4, y.mean()), y)["r2"] == pytest.approx(0)
    assert math.isnan(regression_metrics(predicted, np.ones(4))["r2"])
    with pytest.raises(ValueError, match="shape"):
        regression_metrics(predicted[:, None], y)
