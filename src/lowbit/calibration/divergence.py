"""How far class scores are from the float model's: KL divergence of the softmax."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROBABILITY_FLOOR = float(np.finfo(np.float32).tiny)
PROBABILITY_TOLERANCE = 1e-3
BATCH_SIZE = 4  # larger batches are no faster and take more memory

Array = np.ndarray[Any, np.dtype[Any]]


def are_probabilities(outputs: NDArray[np.floating]) -> bool:
    """Whether every row is non-negative and sums to 1 (to 0.001): then the model ends in a softmax of its own."""
    if not np.isfinite(outputs).all() or (outputs < 0).any():
        return False
    sums = outputs.sum(axis=1, dtype=np.float64)
    return bool((np.abs(sums - 1) <= PROBABILITY_TOLERANCE).all())


def as_logits(outputs: NDArray[np.floating], *, probabilities: bool) -> NDArray[np.floating]:
    """Class scores [n, classes] that a softmax makes probabilities of: the log of what a softmax has made already."""
    return log_probabilities(outputs, probabilities=True) if probabilities else outputs


def log_probabilities(outputs: NDArray[np.floating], *, probabilities: bool) -> NDArray[np.float64]:
    """log p [n, classes] in nats: log-softmax of logits, or the log of probabilities, normalized again.

    A probability of zero counts as the smallest normal float32 (-87 nats): it is an underflow, not a true zero.
    """
    x = outputs.astype(np.float64)
    if probabilities:
        x = np.maximum(x, PROBABILITY_FLOOR)
        return np.asarray(np.log(x / x.sum(axis=1, keepdims=True)))
    with np.errstate(invalid="ignore"):
        x = x - x.max(axis=1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))


def mean_kl(reference: NDArray[np.floating], outputs: NDArray[np.floating], *, probabilities: bool = False) -> float:
    """Mean over images of KL(reference || outputs) = sum p (log p - log q), in nats.

    Args:
        reference: outputs of the float model, [images, classes].
        outputs: outputs to compare, of the same shape.
        probabilities: whether both are probabilities instead of logits.

    Returns:
        0 for equal outputs, NaN if any output is NaN or infinite.
    """
    kl = float(kl_by_image(reference, outputs, probabilities=probabilities).mean())
    return 0.0 if kl < 0 else kl  # rounding can leave -1e-17 where the two are equal


def kl_by_image(
    reference: NDArray[np.floating], outputs: NDArray[np.floating], *, probabilities: bool = False
) -> NDArray[np.float64]:
    """KL(reference || outputs) of each image in nats [images]; NaN where an output is NaN or infinite."""
    p = log_probabilities(reference, probabilities=probabilities)
    q = log_probabilities(outputs, probabilities=probabilities)
    with np.errstate(invalid="ignore"):
        kl = np.asarray((np.exp(p) * (p - q)).sum(axis=1))
    return np.where(np.isfinite(q).all(axis=1), kl, math.nan)
