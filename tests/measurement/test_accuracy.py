"""Every statistic against numbers worked out by hand (or by exact fractions), and against its own definition."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit.calibration.divergence import are_probabilities, log_probabilities, mean_kl
from lowbit.errors import DataError
from lowbit.measurement.accuracy import (
    cross_entropy,
    flips,
    mcnemar_p,
    predicted_classes,
    score,
)
from lowbit.measurement.prediction import Prediction


def test_mcnemar_by_hand():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(0, 5) == 2 / 32
    assert mcnemar_p(8, 2) == 2 * (1 + 10 + 45) / 1024
    assert mcnemar_p(4, 4) == 1.0
    assert 0 < mcnemar_p(0, 1000) < 1e-300


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail(lost, gained):
    n = lost + gained
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(lost, gained) + 1))
    assert mcnemar_p(lost, gained) == mcnemar_p(gained, lost) == float(min(Fraction(1), 2 * tail))


def test_cross_entropy_and_kl_by_hand():
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], np.float32)) + 5  # softmax: 1/4 3/4, 1/2 1/2
    assert cross_entropy(logits, np.array([1, 0])) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    other = np.zeros((2, 2), np.float32)
    by_hand = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert mean_kl(logits, other) == pytest.approx(by_hand)
    assert mean_kl(logits, logits) == 0.0


def test_probabilities_are_recognized_and_used_as_they_are():
    p = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    assert are_probabilities(p)
    assert not are_probabilities(p - 0.1)
    assert not are_probabilities(p * 2)
    assert cross_entropy(p, np.array([1, 0]), probabilities=True) == pytest.approx(math.log(4 / 3) / 2)
    scored = score(Prediction(p, np.array([1, 1])))
    assert any("probabilities" in note for note in scored.notes)
    assert scored.loss == pytest.approx((math.log(4 / 3) - math.log(np.finfo(np.float32).tiny)) / 2)


def test_large_logits_do_not_overflow():
    logs = log_probabilities(np.array([[3e38, 0.0, -3e38]], np.float32), probabilities=False)
    assert logs[0, 0] == 0.0
    assert np.isfinite(logs[0, 0])


def test_flips_and_predicted_classes():
    outputs = np.array([[1, 2], [2, 1], [np.nan, 9], [np.inf, 0]], np.float32)
    assert predicted_classes(outputs).tolist() == [1, 0, -1, -1]
    assert flips(np.array([1, 1, 0]), np.array([1, 0, -1])) == 2


def test_score_pairs_a_file_with_float():
    labels = np.array([0, 0, 1, 1, 1])
    reference = Prediction(np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]], labels)
    other = Prediction(np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1]] * 3 - 1, labels)
    scored = score(other, reference=reference)
    assert (scored.right, scored.accuracy, scored.flips, scored.lost, scored.gained) == (3, 0.6, 3, 2, 1)
    assert scored.agreement == pytest.approx(0.4)
    assert scored.mcnemar_p == 1.0
    assert scored.kl is not None
    assert scored.kl > 0


def test_without_labels_only_agreement_is_known():
    reference = Prediction(np.eye(3, dtype=np.float32))
    scored = score(reference, reference=reference)
    assert (scored.accuracy, scored.loss, scored.mcnemar_p, scored.agreement, scored.kl) == (None, None, None, 1.0, 0.0)


def test_a_file_that_answers_nan_is_wrong_and_says_so():
    labels = np.array([0, 0])
    scored = score(
        Prediction(np.array([[np.nan, 1], [2, 1]], np.float32), labels), reference=Prediction(np.eye(2)[[0, 0]], labels)
    )
    assert (scored.accuracy, scored.flips, scored.loss, scored.kl) == (0.5, 1, None, None)
    assert "not finite" in scored.notes[-1]


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), "3 outputs"),
        (np.zeros((2, 3)), np.array([-1, 0]), "from -1"),
        (np.zeros((2, 3)), np.array([0]), "1 labels for 2 images"),
        (np.zeros((2, 1)), np.array([0, 0]), "at least two"),
    ],
)
def test_labels_that_do_not_fit(outputs, labels, message):
    with pytest.raises(DataError, match=message):
        score(Prediction(outputs.astype(np.float32), labels))


def test_predictions_of_different_images():
    with pytest.raises(DataError, match="same images"):
        score(Prediction(np.eye(3, dtype=np.float32)), reference=Prediction(np.eye(2, dtype=np.float32)))
