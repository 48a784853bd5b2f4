"""Bounds of the drop in accuracy between two files that answered to the same images, valid at every number of images.

Of n images, b are right in the first file only (lost), c in the second only (gained); the drop is p10 - p01, and how
many images changed, p10 + p01, is a nuisance. A drop of at least D is rejected by Tango's score statistic,

    T = (b - c - n D) / sqrt(n (2 q + D (1 - D))),   q the most likely p01 if the drop is D,

whose probability of being as small as observed is summed over all outcomes (b, c), not taken from a normal
distribution, and maximized over the nuisance. That need not be looked for among all shares of changed images, only in
their exact interval, whose own error is added (Berger and Boos). The upper bound is the largest drop that is not
rejected.

Sources: Tango 1998, Statistics in Medicine 17 (score statistic); Berger and Boos 1994, JASA 89; compared with other
methods in docs/decisions/068.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lowbit.certainty.intervals import binomial_cdf, log_factorials, lower_bound, upper_bound
from lowbit.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]

NUISANCE_SHARE = 1 / 500  # of the error that is allowed, for the interval of the share of changed images
NUISANCE_POINTS = 33
STEPS = 16  # of the search for a bound: to a sixty-thousandth of where it can lie
REACH = 9.0  # standard deviations beyond which no number of changed images is counted: 1e-18
TINY = 1e-12  # a share that is as good as 0


@dataclass(frozen=True)
class Paired:
    """What two files answered to the same images.

    Attributes:
        images: how many.
        lost: only the first file is right.
        gained: only the second file is right.
        labeled: whether that is known. Without labels `lost` are all changed predictions, which no drop can exceed,
            and `gained` is 0.

    Raises:
        DataError: no images, or counts that do not fit them.
    """

    images: int
    lost: int
    gained: int
    labeled: bool = True

    def __post_init__(self) -> None:
        if self.images < 1 or min(self.lost, self.gained) < 0 or self.changed > self.images:
            raise DataError(
                f"{self.lost} lost and {self.gained} gained of {self.images} images cannot be.",
                remedy="Give at least one image, and count each once.",
            )

    @property
    def changed(self) -> int:
        """Images on which the files are not equally right."""
        return self.lost + self.gained

    @property
    def drop(self) -> float:
        """Share of 1 that was lost on these images."""
        return (self.lost - self.gained) / self.images

    @property
    def differences(self) -> tuple[int, ...]:
        """The drop on each image, in no order: 1, 0 or -1."""
        return (1,) * self.lost + (-1,) * self.gained + (0,) * (self.images - self.changed)


def counted(before: Any, after: Any, labels: Any = None) -> Paired:  # noqa: ANN401 - integer arrays
    """Count two files' predictions.

    Args:
        before: classes [images] that the first file predicts.
        after: those of the second; -1 where there is none.
        labels: classes [images], or None.
    """
    before, after = np.asarray(before), np.asarray(after)
    if labels is None:
        return Paired(len(before), int(np.count_nonzero(before != after)), 0, labeled=False)
    was, is_right = before == labels, after == labels
    return Paired(len(before), int(np.count_nonzero(was & ~is_right)), int(np.count_nonzero(is_right & ~was)))


def drop_bounds(paired: Paired, *, confidence: float = 0.95, looks: int = 1) -> tuple[float, float]:
    """Bounds of the drop, as shares of 1; each of them holds with the confidence, so both together with less.

    Args:
        paired: the counts.
        confidence: that the drop is not above the upper bound; likewise that it is not below the lower one.
        looks: number of candidates that were looked at on these images: with Bonferroni's correction the bounds of all
            of them hold at once.

    Raises:
        DataError: a confidence outside 0..1, or less than one look.
    """
    alpha = allowed_error(confidence, looks)
    images, lost, gained = paired.images, paired.lost, paired.gained
    if not paired.labeled:  # a plain proportion
        return lower_bound(lost, images, alpha), upper_bound(lost, images, alpha)
    return -_upper(images, gained, lost, alpha), _upper(images, lost, gained, alpha)


def allowed_error(confidence: float, looks: int) -> float:
    """How often a bound may be wrong.

    Raises:
        DataError: a confidence outside 0..1, or less than one look.
    """
    if not 0 < confidence < 1 or looks < 1:
        raise DataError(
            f"a confidence of {confidence:g} after {looks} looks cannot be reached.",
            remedy="Give a confidence between 0 and 1, such as 0.95, and at least one look.",
        )
    return (1 - confidence) / looks


def spread_at(paired: Paired, drop: float) -> float:
    """The most likely standard deviation of one image's difference if the drop is the one given."""
    variance = float(_variance(paired.images, np.asarray(paired.lost), np.asarray(paired.gained), drop))
    return math.sqrt(max(variance, TINY))


@lru_cache(4096)
def _upper(images: int, lost: int, gained: int, alpha: float) -> float:
    """The upper bound of the drop."""
    beta = alpha * NUISANCE_SHARE
    changed = lost + gained
    shares = lower_bound(changed, images, beta / 2), upper_bound(changed, images, beta / 2)
    low, high = (lost - gained) / images, shares[1]
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _probability(images, lost, gained, middle, shares) + beta > alpha:
            low = middle
        else:
            high = middle
    return high


def _probability(images: int, lost: int, gained: int, drop: float, shares: tuple[float, float]) -> float:
    """Largest probability, over shares of changed images, of outcomes as far below a drop as the one observed."""
    share = np.linspace(max(shares[0], abs(drop), TINY), max(shares[1], abs(drop), TINY), NUISANCE_POINTS)
    spread = REACH * math.sqrt(images * shares[1] * (1 - shares[1])) + REACH**2
    changed = np.arange(
        max(0, math.floor(images * shares[0] - spread)), min(images, math.ceil(images * share[-1] + spread)) + 1
    )
    observed = float(_score(images, np.asarray(lost), np.asarray(gained), drop))
    most = _most_lost(images, changed, drop, observed)
    most = np.where(changed == lost + gained, np.maximum(most, lost), most)
    within = _at_most(most, changed, np.clip((1 + drop / share) / 2, 0.0, 1.0))
    return float((_pmf(changed, images, share) * within).sum(axis=1).max())


def _at_most(most: Any, changed: Any, share: Array) -> Array:  # noqa: ANN401 - integer arrays
    """P(X <= most) for X ~ Binomial(changed, share), [shares, counts], for numbers of changed images in a row.

    Only the first is summed up; each further image takes share * P(X = most) away, and a larger `most` adds P(X = most)
    for its new value.
    """
    steps = np.diff(most)
    if not ((steps == 0) | (steps == 1)).all():
        return binomial_cdf(most, changed, share[:, None])
    first = binomial_cdf(most[0], changed[0], share)
    taken = share[:, None] * _pmf(most[:-1], changed[:-1], share)
    added = np.where(steps == 1, _pmf(most[1:], changed[1:], share), 0.0)
    sums = np.cumsum(np.concatenate([first[:, None], added - taken], axis=1), axis=1)
    return np.asarray(np.clip(sums, 0.0, 1.0))


def _pmf(count: Any, total: Any, share: Array) -> Array:  # noqa: ANN401 - integers or integer arrays
    """Binomial probabilities [shares, counts]; 0 of a negative count."""
    logs, known = log_factorials(int(np.max(total))), np.maximum(count, 0)
    ways = np.where(count < 0, -np.inf, logs[total] - logs[known] - logs[total - known])
    share = np.clip(share, TINY, 1 - TINY)[:, None]
    return np.asarray(np.exp(ways + count * np.log(share) + (total - count) * np.log1p(-share)))


def _most_lost(images: int, changed: Any, drop: float, observed: float) -> Any:  # noqa: ANN401 - integer arrays
    """For each number of changed images, how many of them may be lost for the score to be at most the one observed."""
    low, high = np.full_like(changed, -1), changed + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        score = _score(images, np.maximum(middle, 0), changed - np.maximum(middle, 0), drop)
        below = (score <= observed + 1e-9) | (middle < 0)
        open_ = high - low > 1
        low, high = np.where(open_ & below, middle, low), np.where(open_ & ~below, middle, high)
    return low


def _score(images: int, lost: Any, gained: Any, drop: float) -> Array:  # noqa: ANN401 - integer arrays
    """Tango's statistic of outcomes: standard deviations above a drop, with the spread that the drop makes likely."""
    variance = images * _variance(images, lost, gained, drop)
    return np.asarray((lost - gained - images * drop) / np.sqrt(np.maximum(variance, TINY)))


def _variance(images: int, lost: Any, gained: Any, drop: float) -> Array:  # noqa: ANN401 - integer arrays
    """The most likely variance of one image's difference if the drop is the one given."""
    linear = drop * (2 * images - lost + gained) - lost - gained
    root = np.sqrt(np.maximum(linear**2 + 8 * images * gained * drop * (1 - drop), 0.0))
    share = np.clip((root - linear) / (4 * images), max(0.0, -drop), (1 - drop) / 2)
    return np.asarray(2 * share + drop * (1 - drop))
