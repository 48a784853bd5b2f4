"""Which classes a classifier's answers fall on, and whether it is right as often as it says.

The expected calibration error is the gap between confidence (the probability of the answer that is given) and accuracy,
in 15 bins of equal width:

    ECE = sum over bins  images of the bin / all images * |share that is right - mean confidence|

Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3 and section 2. It has nothing to do with
calibration images. With few images each bin is a matter of chance, and even a network without fault has an error above
zero. All sums are float64.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.divergence import log_probabilities
from lowbit.measurement.details import ByClass, ConfidenceBin, Confusion

BINS = 15
MOST_CONFUSIONS = 400


def by_class(
    outputs: NDArray[np.floating],
    classes: NDArray[np.integer],
    labels: NDArray[np.integer],
    *,
    probabilities: bool = False,
) -> ByClass:
    """Count answers by class and by confidence.

    Args:
        outputs: scores [images, classes].
        classes: the answers [images]; -1 where outputs are not finite, which is in no bin.
        labels: the right ones [images].
        probabilities: whether `outputs` are probabilities rather than logits.
    """
    count = outputs.shape[1]
    right = classes == labels
    pairs = zip(labels[~right].tolist(), classes[~right].tolist(), strict=True)
    frequent = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))[:MOST_CONFUSIONS]
    return ByClass(
        images=_counts(labels, count),
        answers=_counts(classes[classes >= 0], count),
        right=_counts(labels[right], count),
        confusions=tuple(Confusion(label, answer, images) for (label, answer), images in frequent),
        bins=_bins(outputs, right, probabilities=probabilities),
    )


def calibration_error(bins: Sequence[ConfidenceBin]) -> float | None:
    """Expected calibration error, 0..1; None if no output was finite."""
    images = sum(each.images for each in bins)
    return sum(abs(each.right - each.images * each.confidence) for each in bins) / images if images else None


def _counts(classes: NDArray[np.integer], count: int) -> tuple[int, ...]:
    return tuple(np.bincount(classes, minlength=count).tolist())


def _bins(outputs: NDArray[np.floating], right: NDArray[np.bool_], *, probabilities: bool) -> tuple[ConfidenceBin, ...]:
    """The bins that hold images, from the least confident."""
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.any():
        return ()
    confidence = np.exp(log_probabilities(outputs[finite], probabilities=probabilities).max(axis=1))
    right = right[finite]
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return tuple(
        ConfidenceBin(
            index / BINS,
            (index + 1) / BINS,
            int(np.count_nonzero(place == index)),
            float(confidence[place == index].mean()),
            int(np.count_nonzero(right[place == index])),
        )
        for index in np.unique(place).tolist()
    )
