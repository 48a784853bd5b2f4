"""Answers by class and by confidence against counts made by hand."""

import numpy as np
import pytest

from lowbit.measurement.accuracy import score
from lowbit.measurement.by_class import MOST_CONFUSIONS, by_class, calibration_error
from lowbit.measurement.details import ConfidenceBin, Confusion
from lowbit.measurement.prediction import Prediction


def test_counts_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    classes = np.array([0, 1, 1, 1, 2, -1])
    scores = np.eye(3)[np.maximum(classes, 0)] * 9
    scores[-1] = np.nan
    counts = by_class(scores, classes, labels)
    assert (counts.images, counts.answers, counts.right) == ((3, 2, 1), (1, 3, 1), (1, 1, 0))
    assert counts.confusions == (Confusion(0, 1, 2), Confusion(1, 2, 1), Confusion(2, -1, 1))
    assert sum(each.images for each in counts.bins) == 5, "outputs that are not finite have no confidence"


def test_the_expected_calibration_error_by_hand():
    """Four answers at 0.9, of which two are right, and one right answer at 0.6: (4 * 0.4 + 1 * 0.4) / 5."""
    p = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    counts = by_class(p, p.argmax(axis=1), np.array([0, 0, 1, 1, 0]), probabilities=True)
    low, high = counts.bins
    assert low == ConfidenceBin(pytest.approx(9 / 15), pytest.approx(10 / 15), 1, pytest.approx(0.6), 1)
    assert high == ConfidenceBin(pytest.approx(13 / 15), pytest.approx(14 / 15), 4, pytest.approx(0.9), 2)
    assert calibration_error(counts.bins) == pytest.approx(0.4)
    assert calibration_error(()) is None


def test_certain_and_right_is_no_error():
    labels = np.arange(6) % 3
    counts = by_class(np.eye(3)[labels] * 200, labels, labels)
    assert len(counts.bins) == 1
    assert counts.bins[0].high == 1
    assert calibration_error(counts.bins) == pytest.approx(0, abs=1e-12)


def test_a_score_counts_only_with_labels():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
    assert score(Prediction(logits)).by_class is None
    counts = score(Prediction(logits, np.array([0, 0]))).by_class
    assert counts is not None
    assert counts.right == (1, 0)


def test_of_many_classes_the_commonest_confusions_are_kept():
    labels = np.repeat(np.arange(50), 50)
    classes = np.tile(np.arange(50), 50)
    counts = by_class(np.eye(50)[classes], classes, labels)
    assert len(counts.confusions) == MOST_CONFUSIONS
    assert sum(counts.right) == 50
