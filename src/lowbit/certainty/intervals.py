"""Intervals of a proportion: Wilson's, and the exact one of Clopper and Pearson.

Clopper and Pearson's upper bound is the largest share p at which so few of the images, or fewer, would still be seen
with a probability of alpha: P(X <= k | n, p) = alpha. It holds for every n, at the cost of being a little wide. The
binomial tail is the regularized incomplete beta function, P(X <= k) = I_{1-p}(n - k, k + 1), computed by its continued
fraction (DLMF 8.17.22; evaluated as Lentz 1976) in float64. Sources: Wilson 1927; Clopper and Pearson 1934.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lowbit.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]

Z_95 = 1.959963984540054
POINTS = 65  # of each round of a search
ROUNDS = 9  # 64^9 steps between 0 and 1: to the last bit
TINY = 1e-300
CONVERGED = 1e-14
MOST_TERMS = 20_000  # of the continued fraction, which takes about the root of the counts


def wilson_interval(right: int, total: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default; never leaves 0..1, honest at 0 and at 1."""
    _check(right, total)
    share = right / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At the ends the two halves cancel to the last bit only in exact arithmetic.
    return (0.0 if right == 0 else center - half), (1.0 if right == total else center + half)


def clopper_pearson(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a proportion: each end is wrong with at most half of 1 - confidence.

    Raises:
        DataError: no images, or more counted than there are.
    """
    alpha = (1 - confidence) / 2
    return lower_bound(count, total, alpha), upper_bound(count, total, alpha)


@lru_cache(4096)
def upper_bound(count: int, total: int, alpha: float) -> float:
    """The share that is exceeded with probability at most `alpha`, where `count` of `total` were seen."""
    _check(count, total)
    if count == total:
        return 1.0
    # From above: of the two ends of what is left of the search, the one that is still valid.
    return _falling(lambda shares: binomial_cdf(count, total, shares), alpha)[1]


def lower_bound(count: int, total: int, alpha: float) -> float:
    """The share that is fallen short of with probability at most `alpha`."""
    _check(count, total)
    return 1.0 - upper_bound(total - count, total, alpha)


def hidden_share(total: int, alpha: float) -> float:
    """The largest share of images that `total` images may all fail to show: the upper bound where none was seen."""
    return -math.expm1(math.log(alpha) / total)


def binomial_cdf(count: Any, total: Any, share: Any) -> Array:  # noqa: ANN401 - numbers or arrays that broadcast
    """P(X <= count) for X ~ Binomial(total, share), elementwise; 0 below 0 and 1 from `total` on."""
    count, total = np.asarray(count, np.int64), np.asarray(total, np.int64)
    count, total, share = np.broadcast_arrays(count, total, np.asarray(share, np.float64))
    result = np.where(count < 0, 0.0, 1.0)
    inner = (count >= 0) & (count < total) & (share > 0)
    result[inner & (share >= 1)] = 0.0
    inner &= share < 1
    if inner.any():
        result[inner] = _beta(total[inner] - count[inner], count[inner] + 1, 1.0 - share[inner], share[inner])
    return np.asarray(result)


def log_factorials(most: int) -> Array:
    """log n! for n = 0..most or more."""
    return _log_factorials(1 << max(10, most.bit_length()))


@lru_cache(4)
def _log_factorials(count: int) -> Array:
    # Long double: sums of a million logarithms would lose seven digits.
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count, dtype=np.longdouble)))]).astype(np.float64)


def _beta(a: Any, b: Any, x: Array, rest: Array) -> Array:  # noqa: ANN401 - integer arrays
    """I_x(a, b) for integers; `rest` is 1 - x, which may be known better than x."""
    logs = log_factorials(int((a + b).max()))
    front = np.exp(logs[a + b - 1] - logs[a - 1] - logs[b - 1] + a * np.log(x) + b * np.log(rest))
    swap = x > (a + 1) / (a + b + 2)  # where the fraction converges slowly, that of the other tail does not
    fraction = _fraction(np.where(swap, b, a), np.where(swap, a, b), np.where(swap, rest, x))
    value = front * fraction / np.where(swap, b, a)
    return np.asarray(np.clip(np.where(swap, 1.0 - value, value), 0.0, 1.0))


def _fraction(a: Any, b: Any, x: Array) -> Array:  # noqa: ANN401 - integer arrays
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    c, d = np.ones_like(x), 1.0 / _apart(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1.0 / _apart(1.0 + even * d), _apart(1.0 + even / c)
        value = value * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 / _apart(1.0 + odd * d), _apart(1.0 + odd / c)
        value = value * d * c
        if np.abs(d * c - 1.0).max() < CONVERGED:
            break
    return value


def _apart(value: Array) -> Array:
    """Nothing that would divide by zero."""
    return np.where(np.abs(value) < TINY, TINY, value)


def _falling(function: Callable[[Array], Array], level: float) -> tuple[float, float]:
    """Both ends of the step between 0 and 1 in which a falling function crosses a level."""
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        points = np.linspace(low, high, POINTS)
        above = int(np.count_nonzero(function(points[1:-1]) > level))
        low, high = float(points[above]), float(points[above + 1])
        if math.nextafter(low, 1.0) >= high:
            break
    return low, high


def _check(count: int, total: int) -> None:
    if total <= 0 or not 0 <= count <= total:
        raise DataError(f"{count} of {total} is not a proportion.", remedy="Give at least one image.")
