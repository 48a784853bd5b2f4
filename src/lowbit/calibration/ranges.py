"""Range rules: from the statistics of an activation to the interval that its codes cover.

A rule takes `TensorStatistics` and the number of levels and returns (low, high) with low <= 0 <= high, so that zero
(padding, ReLU) is exact. A new rule is one function and one row in `RANGE_RULES`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lowbit.calibration.statistics import TensorStatistics

Interval = tuple[float, float]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

# Share of the values that the percentile rule keeps inside the interval.
PERCENTILE = 0.9999
# How many times the output rule counts a squared clipping error. With 4 to 256 the activations of ResNet20 and
# MobileNetV2 lost about the same, with 1 (mse) a fifth more.
CLIPPING_WEIGHT = 32.0
LOST = 0.1  # share of its power that one image may count for in the clipping of extremes
FAR = 4.0  # times as far from zero as all others: an image that goes beyond that is left out of the range
LEFT_OUT = 32  # one image in so many may be
FEWEST_BINS = 64  # in the range of what is left, for a histogram that far values have made coarse
# Shares of the full range that a search tries: in fine steps near 1, then geometrically for tensors with far outliers.
SHARES = np.concatenate([np.linspace(1.0, 0.3, 71), np.geomspace(0.29, 0.003, 40)])


def minmax(statistics: TensorStatistics, levels: int) -> Interval:
    """The full range that was seen."""
    return min(statistics.low, 0.0), max(statistics.high, 0.0)


def percentile(statistics: TensorStatistics, levels: int) -> Interval:
    """All but the outermost values: half of `1 - PERCENTILE` of them lie beyond each end."""
    histogram = statistics.histogram
    cumulative = np.cumsum(histogram.counts) / max(1, histogram.counts.sum())
    tail = (1.0 - PERCENTILE) / 2.0
    first = int(np.searchsorted(cumulative, tail))
    last = int(np.searchsorted(cumulative, 1.0 - tail))
    low = (histogram.first + first) * histogram.width
    high = (histogram.first + last + 1) * histogram.width
    return min(max(low, statistics.low), 0.0), max(min(high, statistics.high), 0.0)


def mse(statistics: TensorStatistics, levels: int) -> Interval:
    """The interval with the least mean squared error of rounding and clipping together.

    A wider interval has coarser steps, a narrower one clips more values: the best one balances both (Banner et al.
    2019, "Post training 4-bit quantization", equation 5), here by searching the histogram instead of fitting a
    distribution.
    """
    return _search(statistics, levels, _squared_error)


def output(statistics: TensorStatistics, levels: int) -> Interval:
    """The interval with the least squared error in the outputs of the layer that reads the tensor.

    Such a layer sums over windows. Rounding errors in a window have either sign and average out; clipping errors all
    have the same sign and add up. So this is the search of `mse` with clipping errors counted `CLIPPING_WEIGHT` times.
    """
    return _search(statistics, levels, _error_at_output)


def extremes(statistics: TensorStatistics, levels: int) -> Interval:
    """The interval of `output` for a network whose answers depend on rare values, as those of a detector do.

    The histogram holds a sample of each image; here its smallest and largest value count as values of the sample too,
    so that next to nothing is clipped, unless one image goes far beyond all others.
    """
    low, high = _without_outliers(statistics)
    if high - low < FEWEST_BINS * statistics.histogram.width:
        return low, high
    lows, highs = np.maximum(statistics.lows, low), np.minimum(statistics.highs, high)
    usual = replace(statistics, low=low, high=high, lows=lows, highs=highs)
    return _search(usual, levels, _error_at_output, with_extremes=True)


def entropy(statistics: TensorStatistics, levels: int) -> Interval:
    """The interval whose quantized histogram has the least Kullback-Leibler divergence from the true one.

    The criterion of Migacz 2017, "8-bit inference with TensorRT", on both ends of the range.
    """
    return _search(statistics, levels, _divergence)


RANGE_RULES: dict[str, Callable[[TensorStatistics, int], Interval]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "output": output,
    "extremes": extremes,
    "entropy": entropy,
}


def _search(
    statistics: TensorStatistics,
    levels: int,
    loss: Callable[[Doubles, Doubles, Interval, int], float],
    *,
    with_extremes: bool = False,
) -> Interval:
    """The best interval found by shrinking both ends together, then each alone.

    `loss` takes the centers of the bins in use, their shares of all values, an interval and the number of levels.
    """
    low, high = minmax(statistics, levels)
    histogram = statistics.histogram
    used = np.flatnonzero(histogram.counts)
    if high == low or used.size == 0:
        return low, high
    centers = np.clip(histogram.centers[used], statistics.low, statistics.high)
    weights = histogram.counts[used] / histogram.counts.sum()
    power = float(weights @ np.square(centers))
    share = 1.0 / max(1, histogram.counts.sum())

    def cost(interval: Interval) -> float:
        return loss(centers, weights, interval, levels) + (
            _clipped_extremes(statistics, interval, share, power) if with_extremes else 0.0
        )

    best, least = (low, high), cost((low, high))
    for ends in ((1, 1), (0, 1), (1, 0)):
        start = best
        for share in SHARES[1:]:
            candidate = (start[0] * (share if ends[0] else 1.0), start[1] * (share if ends[1] else 1.0))
            if candidate == start:
                continue
            value = cost(candidate)
            if value < least:
                best, least = candidate, value
    return best


def _without_outliers(statistics: TensorStatistics) -> Interval:
    """Everything seen but in a few images, if those go far beyond all others."""
    lows, highs = np.minimum(statistics.lows, 0.0), np.maximum(statistics.highs, 0.0)
    reach = np.sort(np.maximum(highs, -lows))
    limit = np.float64(FAR * float(reach[-1 - len(reach) // LEFT_OUT]))  # which may be more than float32 holds
    if limit == 0.0:  # a tensor that is hardly ever anything but zero
        return minmax(statistics, 0)
    return float(lows[-lows <= limit].min(initial=0.0)), float(highs[highs <= limit].max(initial=0.0))


def _clipped_extremes(statistics: TensorStatistics, interval: Interval, share: float, power: float) -> float:
    """What clipping each image's extremes costs, of which the histogram's sample holds but a few.

    No image counts for more than `LOST` of the power of an ordinary one: one outlier must not decide for all others.
    """
    above = np.maximum(statistics.highs.astype(np.float64) - interval[1], 0)
    below = np.maximum(interval[0] - statistics.lows.astype(np.float64), 0)
    cost = CLIPPING_WEIGHT * share * (np.square(above) + np.square(below))
    return float(np.minimum(cost, LOST * power / len(cost)).sum())


def _squared_error(centers: Doubles, weights: Doubles, interval: Interval, levels: int) -> float:
    low, high = interval
    step = (high - low) / (levels - 1)
    rounded = np.clip(np.round(centers / step), np.round(low / step), np.round(high / step)) * step
    return float(weights @ np.square(centers - rounded))


def _error_at_output(centers: Doubles, weights: Doubles, interval: Interval, levels: int) -> float:
    clipped = float(weights @ np.square(centers - np.clip(centers, *interval)))
    return _squared_error(centers, weights, interval, levels) + (CLIPPING_WEIGHT - 1.0) * clipped


def _divergence(centers: Doubles, weights: Doubles, interval: Interval, levels: int) -> float:
    """KL(clipped || quantized) over the bins inside the interval.

    Clipped values pile up in the end bins of the true histogram but are missing from the quantized one, whose levels
    spread their mass evenly over the bins that round to them: so both clipping and coarse steps raise the divergence.
    """
    low, high = interval
    step = (high - low) / (levels - 1)
    inside = (centers >= low - step / 2) & (centers <= high + step / 2)
    # With fewer bins than levels nothing would be coarse, and the narrowest interval would always win.
    if inside.sum() < 2 or high - low < levels * np.diff(centers).min():
        return np.inf
    kept = weights[inside]
    clipped = kept.copy()
    clipped[0] += weights[centers < low - step / 2].sum()
    clipped[-1] += weights[centers > high + step / 2].sum()
    _, level = np.unique(np.round(centers[inside] / step), return_inverse=True)
    spread = (np.bincount(level, kept) / np.bincount(level))[level]
    spread /= spread.sum()
    return float((clipped * np.log(clipped / spread)).sum())
