"""Weight error by hand, pooled, and never across unrelated tensors."""

import math

import numpy as np
import pytest

from lowbit.errors import ModelError
from lowbit.measurement.error import total, weight_errors, weight_histogram


def test_by_hand_and_pooled():
    weights = {"a": np.array([3.0, 4.0], np.float32), "b": np.array([[1.0]], np.float32)}
    decoded = {"a": np.array([3.5, 4.0], np.float32), "b": np.array([[1.0]], np.float32)}
    a, b = weight_errors(weights, decoded)
    assert a.mse == 0.125
    assert a.sqnr_db == pytest.approx(20.0)  # 25 / 0.25 = 100
    assert (b.exact, b.mse, b.sqnr_db) == (True, 0.0, None)
    pooled = total([a, b])
    assert (pooled.count, pooled.mse) == (3, pytest.approx(0.25 / 3))
    assert pooled.sqnr_db == pytest.approx(10 * math.log10(26 / 0.25))


def test_all_zero_weights_have_no_signal():
    (error,) = weight_errors({"w": np.zeros(4, np.float32)}, {"w": np.ones(4, np.float32)})
    assert (error.exact, error.mse, error.sqnr_db) == (False, 1.0, None)


@pytest.mark.parametrize(
    ("decoded", "message"),
    [
        ({}, "missing in the file"),
        ({"w": np.zeros(4), "v": np.zeros(1)}, "missing in the float model"),
        ({"w": np.zeros((2, 2))}, r"shape \(2, 2\)"),
        ({"w": np.array([0, 0, 0, np.nan])}, "NaN"),
    ],
)
def test_unrelated_tensors_are_refused(decoded, message):
    with pytest.raises(ModelError, match=message):
        weight_errors({"w": np.zeros(4)}, decoded)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e30, 3e38, 1e-40])
def test_equal_weights_have_a_histogram_too(value):
    histogram = weight_histogram("w", np.full(12, value, np.float32))
    assert sum(histogram.counts) == 12
    assert np.isfinite(histogram.edges).all()
    assert (np.diff(histogram.edges) > 0).all()


def test_histogram_counts_every_weight():
    weights = np.random.default_rng(0).normal(size=(8, 3, 3)).astype(np.float32)
    histogram = weight_histogram("w", weights, bins=10, code_book=np.array([0.5, -1.0, 0.5], np.float32))
    assert sum(histogram.counts) == weights.size
    assert len(histogram.edges) == 11
    assert histogram.code_book == (-1.0, 0.5)
