"""A histogram whose range grows with the data, in fixed memory and independent of the order of the batches.

The bins are aligned to zero and their width is a power of two. When a value falls outside, the width doubles and
neighboring bins merge, which is exact because wider bins are unions of narrower ones. So a single streaming pass gives
the same histogram as a second pass over known ranges would, with bins at most twice as wide.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 2048
# One image adds at most this many values of a tensor to its histogram; the range always covers every value.
SAMPLES_PER_IMAGE = 1 << 10
# Tensors that span less than this are treated as zero: the reciprocal of a bin width must fit in float32.
SMALLEST_SPAN = 2.0**-100

Floats = np.ndarray[Any, np.dtype[np.float32]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Histogram:
    """Counts of values in `BINS` adjacent bins.

    Attributes:
        width: bin width, a power of two, in the tensor's own units.
        first: index of the first bin; bin i covers [(first + i) * width, (first + i + 1) * width).
        counts: number of values in each bin, int64 [BINS].
    """

    width: float
    first: int
    counts: Counts

    @property
    def centers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Middle of each bin, float64 [BINS]."""
        return np.asarray((self.first + np.arange(BINS) + 0.5) * self.width, np.float64)


def empty_histogram() -> Histogram:
    """A histogram of no values."""
    return Histogram(width=0.0, first=0, counts=np.zeros(BINS, np.int64))


def add_values(histogram: Histogram, x: Floats, *, low: float, high: float) -> Histogram:
    """The histogram with more values.

    Args:
        histogram: of the values so far.
        x: finite values, of any shape.
        low: smallest value of x, or of the tensor that x is a sample of.
        high: largest value, likewise.
    """
    values = x.reshape(-1)
    if values.size == 0:
        return histogram
    used = np.flatnonzero(histogram.counts)
    if used.size:
        low = min(low, (histogram.first + int(used[0])) * histogram.width)
        high = max(high, (histogram.first + int(used[-1]) + 0.5) * histogram.width)
    width = max(histogram.width, _width_for(low, high))
    first = int(np.floor(low / width))
    counts = np.zeros(BINS, np.int64)
    if used.size:
        # Both widths are powers of two, so this is exact.
        merged = np.floor((histogram.first + used) * (histogram.width / width)).astype(np.int64) - first
        np.add.at(counts, merged, histogram.counts[used])
    bins = np.floor(values * np.float32(1.0 / width)).astype(np.int32)
    bins -= np.int32(first)
    np.clip(bins, 0, BINS - 1, out=bins)
    counts += np.bincount(bins, minlength=BINS)
    return Histogram(width=width, first=first, counts=counts)


def sample(x: Floats) -> Floats:
    """At most `SAMPLES_PER_IMAGE` values of each image of x [N, ...], evenly spread.

    Sampled image by image, so that the result does not depend on how images are batched.
    """
    images = x.reshape(len(x) if x.ndim > 1 else 1, -1)
    return images[:, :: sample_stride(images.shape[1])].reshape(-1)


def sample_stride(size: int) -> int:
    """Distance between sampled values in an image of `size` values: odd, as extents are mostly even."""
    stride = -(-size // SAMPLES_PER_IMAGE)
    return stride | 1 if stride > 1 else 1


def _width_for(low: float, high: float) -> float:
    """Smallest power of two for which [low, high] fits in BINS bins aligned to zero."""
    # Bin indices stay below 2^24, up to where float32 holds every integer.
    span = max(high - low, max(abs(low), abs(high)) * 2.0**-12, SMALLEST_SPAN)
    width = 2.0 ** np.ceil(np.log2(span / BINS))
    while np.floor(high / width) - np.floor(low / width) + 1 > BINS:
        width *= 2.0
    return float(width)
