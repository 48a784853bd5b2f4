"""How much accuracy a file is to be expected to lose: told from all answers, not from those few that changed.

Of n samples a file loses a handful and wins nearly as many, and the difference is mostly chance: on ResNet20 at 2 bits
0.55 points either way with 1,000 samples. Which ones change depends on how near float's answer was to another class,
and on an error that every sample shows. With m the margin by which the score of the right class exceeds all others (the
answer is right where m > 0), a file's margin is

    m' = m + f(m) + s(m) u,    f(m) = a + b m + c m^2,    s(m)^2 = v + w m^2,

f and s fitted by least squares, samples near m = 0 counting most, and u distributed as the residuals are. A sample is
then right with the probability that m' > 0, and the drop that is to be expected is what this takes away from the share
of right answers. It varies by chance about half as much as what is counted (docs/decisions/097).

A count is replaced by its expectation under conditions, as in conditional Monte Carlo (Hammersley 1956, Journal of the
ACM 3). It is an estimate and no bound: certificates count (`certainty.paired`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

REACH = 3.0  # mean errors of a margin, beyond half of the median margin, within which samples count most
FARTHEST = 2.0  # reaches beyond which f and s stay as they are
LEAST_SPREAD = 0.05  # share of the mean squared residual that s^2 has at least
TINY = 1e-30

Scores = np.ndarray[Any, np.dtype[Any]]


def margins(scores: Scores, classes: npt.NDArray[np.intp]) -> Scores:
    """By how much the score of a sample's class exceeds all others [samples].

    Args:
        scores: [samples, classes], at least two.
        classes: [samples].
    """
    places = np.arange(len(scores))
    others = np.array(scores, np.float64)
    own = others[places, classes].copy()
    others[places, classes] = -np.inf
    with np.errstate(invalid="ignore"):  # what is not finite stays so
        return np.asarray(own - others.max(axis=1))


def expected_drop(reference: Scores, scores: Scores, classes: npt.NDArray[np.intp]) -> float:
    """The share of right answers that a file is to be expected to lose; NaN if a margin is not finite.

    Args:
        reference: float's scores [samples, classes], logits or logarithms of probabilities.
        scores: the file's.
        classes: the right one of each sample [samples]; what float answers where nothing else is known.
    """
    before, after = margins(reference, classes), margins(scores, classes)
    if not np.isfinite([before, after]).all():
        return float("nan")
    error = after - before
    size = float(np.sqrt(np.mean(error**2)))
    if size < TINY:
        return 0.0
    reach = 0.5 * float(np.median(np.abs(before))) + REACH * size
    near = np.exp(-0.5 * (before / reach) ** 2)
    x = before / reach
    square = np.minimum(np.abs(x), FARTHEST) ** 2
    f = _fitted(np.stack([np.ones_like(x), x, square], axis=1), error, near)
    residual = error - f
    variance = _fitted(np.stack([np.ones_like(x), square], axis=1), residual**2, near)
    least = LEAST_SPREAD * float(np.average(residual**2, weights=near)) + TINY
    s = np.sqrt(np.maximum(variance, least))
    order = np.argsort(residual / s, kind="stable")
    u, below = (residual / s)[order], np.concatenate([[0.0], np.cumsum(near[order])])
    right = 1.0 - below[np.searchsorted(u, -(before + f) / s, side="right")] / below[-1]
    return float((before > 0).mean() - right.mean())


def _fitted(terms: Scores, values: Scores, weights: Scores) -> Scores:
    """What a sum of `terms` [samples, terms] comes to that is closest to `values` by weighted least squares."""
    root = np.sqrt(weights)
    factors = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
    return np.asarray(terms @ factors)
