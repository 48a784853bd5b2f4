"""Bounds of a drop that is no count, such as one of mAP or mIoU: by how much it varies without a group of samples.

The samples are cut into 20 groups at random, the drop is measured without each, and what these drops d_i differ by
gives its standard error (delete-a-group jackknife; Shao and Tu 1995, The jackknife and bootstrap, section 2.3):

    variance = (g - 1) / g * sum (d_i - mean d)^2,    bounds = d -+ t * sqrt(variance), t of Student's distribution

Twenty measurements take the place of the hundreds that a bootstrap needs. Both are right only as the number of samples
grows, unlike the bounds of counts, which are exact: one sample must not decide a metric by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lowbit.certainty.intervals import hidden_share

GROUPS = 20
LEAST_SAMPLES = 2 * GROUPS
HALVINGS = 60
FARTHEST = 1e6  # standard errors

Indices = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Spread:
    """A drop on some samples, and how far it may be from that on others like them.

    Attributes:
        samples: that it was measured on.
        drop: what is lost, in the metric's own unit.
        error: its standard error.
        share: whether the metric lies between 0 and 1. Then as much may be lost on a kind of samples that is not among
            these as their share can be.
        measure: what is lost, in hundredths, such as `points of mAP`.
    """

    samples: int
    drop: float
    error: float
    share: bool
    measure: str = "points"

    def half(self, alpha: float) -> float:
        """How far each bound is from the drop, if it may be wrong with about `alpha`."""
        hidden = hidden_share(self.samples, alpha) if self.share else 0.0
        return max(student(alpha) * self.error, hidden)

    def bounds(self, alpha: float) -> tuple[float, float]:
        """What is lost at least and at most; each is wrong with about `alpha`."""
        half = self.half(alpha)
        return self.drop - half, self.drop + half


def groups(samples: int) -> list[Indices]:
    """Places of the samples of each group: always the same for as many samples."""
    group = np.random.default_rng(0).permutation(samples) % GROUPS
    return [np.flatnonzero(group == number) for number in range(GROUPS)]


def standard_error(without: Sequence[float]) -> float:
    """Of a drop, from what it is on all samples but each of `groups`; NaN if one of these cannot be measured."""
    values = np.asarray(without, np.float64)
    return math.sqrt((GROUPS - 1) / GROUPS * float(np.square(values - values.mean()).sum()))


@lru_cache(256)
def student(alpha: float, degrees: int = GROUPS - 1) -> float:
    """What a variable of Student's distribution exceeds with a probability of `alpha`; for an odd number of degrees.

    Its distribution is a finite sum (Abramowitz and Stegun 26.7.3), which is halved to the last digit.
    """

    def beyond(t: float) -> float:
        angle = math.atan(t / math.sqrt(degrees))
        term = total = math.cos(angle)
        for k in range(2, degrees - 1, 2):
            term *= k / (k + 1) * math.cos(angle) ** 2
            total += term
        return 0.5 - (angle + math.sin(angle) * total) / math.pi

    low, high = 0.0, FARTHEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > alpha else (low, middle)
    return high
