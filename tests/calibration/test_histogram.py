import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lowbit.calibration.histogram import BINS, add_values, empty_histogram, sample
from lowbit.calibration.ranges import RANGE_RULES
from lowbit.calibration.statistics import TensorStatistics

# Subnormal numbers are zero beside a bin's width in float32.
FLOATS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def histogram_of(*batches):
    histogram = empty_histogram()
    for batch in batches:
        histogram = add_values(histogram, batch, low=float(batch.min()), high=float(batch.max()))
    return histogram


def statistics_of(x):
    """Of the values of one image."""
    lows, highs = x.min(keepdims=True), x.max(keepdims=True)
    return TensorStatistics(float(lows[0]), float(highs[0]), histogram_of(x.astype(np.float32)), lows, highs)


@given(st.lists(arrays(np.float32, st.integers(1, 50), elements=FLOATS), min_size=1, max_size=5))
def test_every_value_is_counted_in_its_own_bin(batches):
    histogram = histogram_of(*batches)
    values = np.concatenate(batches).astype(np.float64)
    assert histogram.counts.sum() == values.size
    expected = np.bincount(np.floor(values / histogram.width).astype(int) - histogram.first, minlength=BINS)
    # A value within float32 rounding of an edge may fall to either side.
    assert np.abs(expected - histogram.counts).sum() <= 2 * np.count_nonzero(
        np.abs(values / histogram.width - np.round(values / histogram.width)) < 1e-3
    )


@given(st.lists(arrays(np.float32, 20, elements=FLOATS), min_size=2, max_size=4))
def test_order_of_batches_does_not_matter(batches):
    forward, backward = histogram_of(*batches), histogram_of(*batches[::-1])
    assert forward.width == backward.width
    centers = forward.centers[np.repeat(np.arange(BINS), forward.counts)]
    other = backward.centers[np.repeat(np.arange(BINS), backward.counts)]
    assert np.allclose(centers, other, atol=forward.width)


def test_large_tensors_are_sampled_evenly():
    x = np.arange(3 * 5 * 1024, dtype=np.float32).reshape(3, 5, -1)
    seen = sample(x).reshape(3, -1)
    assert 512 < seen.shape[1] <= 1024
    assert np.unique(np.diff(seen, axis=1)).size == 1
    assert int(seen[0, 1] - seen[0, 0]) % 2 == 1
    np.testing.assert_array_equal(sample(x[1:2]), seen[1])


def test_minmax_keeps_every_value():
    x = np.array([0.5, 2.0, 7.0], np.float32)
    assert RANGE_RULES["minmax"](statistics_of(x), 256) == (0.0, 7.0)


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_range_rules_contain_zero_and_stay_inside_what_was_seen(rule):
    generator = np.random.default_rng(0)
    for x in (generator.normal(size=5000), np.abs(generator.normal(size=5000)), np.full(10, 3.0), np.zeros(4)):
        low, high = RANGE_RULES[rule](statistics_of(x), 256)
        assert min(x.min(), 0) <= low <= 0 <= high <= max(x.max(), 0) + 1e-12


def test_percentile_and_mse_cut_an_outlier_that_minmax_keeps():
    x = np.append(np.random.default_rng(1).normal(size=200_000), 100.0)
    statistics = statistics_of(x)
    for rule in ("percentile", "mse"):
        assert RANGE_RULES[rule](statistics, 16)[1] < 50
    assert RANGE_RULES["minmax"](statistics, 16)[1] == 100.0


def test_output_range_cuts_less_than_mse():
    x = np.random.default_rng(3).laplace(size=100_000)
    statistics = statistics_of(x)
    highs = [RANGE_RULES[rule](statistics, 256)[1] for rule in ("mse", "output", "minmax")]
    assert highs[0] < highs[1] < highs[2]


def test_mse_range_is_the_best_of_a_fine_grid():
    """The searched interval is as good as exhaustive search over symmetric clips, measured on the values themselves."""
    x = np.random.default_rng(2).laplace(size=100_000)

    def error(clip):
        step = 2 * clip / 15
        return np.mean((x - np.clip(np.round(x / step), -7, 8) * step) ** 2)

    low, high = RANGE_RULES["mse"](statistics_of(x), 16)
    step = (high - low) / 15
    searched = np.mean((x - np.clip(np.round(x / step), np.round(low / step), np.round(high / step)) * step) ** 2)
    assert searched <= 1.05 * min(error(clip) for clip in np.linspace(1, x.max(), 200))
