"""Bounds of a score's drop by bootstrap over samples: for all that is not a count of right answers.

Samples are drawn with replacement, as many as there are, and the drop of each draw is computed; the bounds are
quantiles of these drops. For means the quantiles are those of Efron's BCa, which allows for skewness; for scores that
are no means (mAP, mIoU) plain ones.

A bootstrap knows nothing of kinds of samples that are not there: where no answer changed it would give a drop of
exactly 0. So no bound is closer to the drop than what as many samples may all fail to show: a share of 1 - alpha^(1/n),
which loses, or gains, all of its score. Source: Efron 1987, Better bootstrap confidence intervals, JASA 82.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from lowbit.certainty.intervals import hidden_share
from lowbit.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]

LEAST_SAMPLES = 20
SEED = 0  # of the draws
MEAN_DRAWS = 4000
METRIC_DRAWS = 400
VALUES_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Bounded:
    """The drop of a score on some samples, and bounds of it that each are wrong with about alpha."""

    samples: int
    drop: float
    low: float
    high: float


def mean_bounds(differences: Array, alpha: float) -> Bounded:
    """Bounds of a mean.

    Args:
        differences: [samples] what each sample lost, -1..1.
        alpha: how often each bound may be wrong.

    Raises:
        DataError: fewer than 20 samples, or a difference outside -1..1.
    """
    count = len(differences)
    _check(count)
    if not (np.abs(differences) <= 1).all():
        raise DataError("a difference lies outside -1..1.", remedy="Give differences of scores between 0 and 1.")
    drop = float(differences.mean())
    values, counts = np.unique(differences, return_counts=True)
    generator = np.random.default_rng(SEED)
    # How often each value is drawn is all that a mean needs.
    at_a_time = max(1, VALUES_AT_A_TIME // len(values))
    means = np.concatenate([
        generator.multinomial(count, counts / count, size=min(at_a_time, MEAN_DRAWS - start)) @ values / count
        for start in range(0, MEAN_DRAWS, at_a_time)
    ])  # fmt: skip
    apart = differences - drop
    scale = float((apart**2).sum()) ** 1.5
    skew = float((apart**3).sum()) / (6 * scale) if scale > 0 else 0.0
    low, high = (_bca(means, drop, skew, level) for level in (alpha, 1 - alpha))
    return _floored(count, drop, low, high, alpha)


def metric_bounds(statistic: Callable[[Any], float], samples: int, alpha: float) -> Bounded:
    """Bounds of the drop of any score.

    Args:
        statistic: the drop on the samples of some indices [samples], which may repeat.
        samples: how many there are.
        alpha: how often each bound may be wrong.

    Raises:
        DataError: fewer than 20 samples.
    """
    _check(samples)
    generator = np.random.default_rng(SEED)
    draws = np.array([statistic(generator.integers(0, samples, samples)) for _ in range(METRIC_DRAWS)])
    drop = float(statistic(np.arange(samples)))
    low, high = np.quantile(draws, [alpha, 1 - alpha])
    return _floored(samples, drop, float(low), float(high), alpha)


def _bca(means: Array, drop: float, skew: float, level: float) -> float:
    """The quantile of the drawn means that is corrected for bias and skewness."""
    normal = NormalDist()
    below = (np.count_nonzero(means < drop) + 0.5 * np.count_nonzero(means == drop)) / len(means)
    bias = normal.inv_cdf(min(max(float(below), 1e-6), 1 - 1e-6))
    shifted = bias + normal.inv_cdf(level)
    rest = 1 - skew * shifted
    corrected = normal.cdf(bias + shifted / rest) if rest > 0 else level
    return float(np.quantile(means, corrected))


def _floored(samples: int, drop: float, low: float, high: float, alpha: float) -> Bounded:
    """No bound closer to the drop than what may be hidden from so many samples."""
    hidden = hidden_share(samples, alpha)
    return Bounded(samples, drop, min(low, drop - hidden), max(high, drop + hidden))


def _check(samples: int) -> None:
    if samples < LEAST_SAMPLES:
        raise DataError(
            f"{samples} samples say too little of a score's spread.", remedy=f"Give at least {LEAST_SAMPLES} samples."
        )
