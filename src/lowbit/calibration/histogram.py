"""A histogram whose range grows with the data, in fixed memory and independent of the order of the batches.

The bins are aligned to zero and their width is a power of two. When a value falls outside, the width doubles and
neighboring bins merge, which is exact because wider bins are unions of narrower ones. So a single streaming pass gives
the same histogram as a second pass over known ranges would, up to a width at most twice as coarse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 2048
# One image adds at most this many values of one tensor to its histogram; extremes always see every value.
SAMPLES_AN_IMAGE = 1 << 10
# A tensor that spans less than this is as good as zero; the reciprocal of its bins must stay a float32.
SMALLEST_SPAN = 2.0**-100

Floats = np.ndarray[Any, np.dtype[np.float32]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Histogram:
    """Counts of values in `BINS` adjacent bins.

    Attributes:
        width: bin width, a power of two, in the tensor's own units.
        first: index of the first bin; bin i covers [(first + i) * width, (first + i + 1) * width).
        counts: values seen in each bin, shape [BINS].
    """

    width: float
    first: int
    counts: Counts

    @property
    def centers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Middle of each bin, shape [BINS]."""
        return np.asarray((self.first + np.arange(BINS) + 0.5) * self.width, np.float64)


def empty_histogram() -> Histogram:
    """A histogram that has seen nothing."""
    return Histogram(width=0.0, first=0, counts=np.zeros(BINS, np.int64))


def add_values(histogram: Histogram, x: Floats, *, low: float, high: float) -> Histogram:
    """The histogram after seeing some values too.

    Args:
        histogram: what was seen so far.
        x: finite values of any shape.
        low: smallest value of x, or of what x is a sample of.
        high: largest value likewise.
    """
    values = x.reshape(-1)
    if values.size == 0:
        return histogram
    seen = np.flatnonzero(histogram.counts)
    if seen.size:
        low = min(low, (histogram.first + int(seen[0])) * histogram.width)
        high = max(high, (histogram.first + int(seen[-1]) + 0.5) * histogram.width)
    width = max(histogram.width, _width_for(low, high))
    first = int(np.floor(low / width))
    counts = np.zeros(BINS, np.int64)
    if seen.size:
        # Both widths are powers of two, so this is exact.
        merged = np.floor((histogram.first + seen) * (histogram.width / width)).astype(np.int64) - first
        np.add.at(counts, merged, histogram.counts[seen])
    bins = np.floor(values * np.float32(1.0 / width)).astype(np.int32)
    bins -= np.int32(first)
    np.clip(bins, 0, BINS - 1, out=bins)
    counts += np.bincount(bins, minlength=BINS)
    return Histogram(width=width, first=first, counts=counts)


def sample(x: Floats) -> Floats:
    """At most `SAMPLES_AN_IMAGE` values of each image of x [N, ...], evenly spread.

    Image by image, so that the sample does not depend on how images were put into batches.
    """
    images = x.reshape(len(x) if x.ndim > 1 else 1, -1)
    return images[:, :: stride_for(images.shape[1])].reshape(-1)


def stride_for(size: int) -> int:
    """Which values of an image of `size` are looked at: every so-manieth, a number that shares no factor with 2."""
    stride = -(-size // SAMPLES_AN_IMAGE)
    return stride | 1 if stride > 1 else 1


def _width_for(low: float, high: float) -> float:
    """Smallest power of two for which [low, high] fits in BINS bins aligned to zero."""
    # Indices of bins stay below 2^24, where float32 still counts exactly.
    span = max(high - low, max(abs(low), abs(high)) * 2.0**-12, SMALLEST_SPAN)
    width = 2.0 ** np.ceil(np.log2(span / BINS))
    while np.floor(high / width) - np.floor(low / width) + 1 > BINS:
        width *= 2.0
    return float(width)
