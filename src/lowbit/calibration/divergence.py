"""How far a file's answers are from the float model's: mean KL divergence of the softmax, on images without labels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.batches import Batches
from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.graph.model import LightModel, Model

PROBABILITY_FLOOR = float(np.finfo(np.float32).tiny)
BATCH = 4  # larger ones gain nothing and take memory

Array = np.ndarray[Any, np.dtype[Any]]


def answers(model: bytes | LightModel, source: Model, images: Images, *, limit: int, threads: int = 0) -> Array:
    """First output for the first `limit` images, flattened to [images, values], float32.

    Args:
        model: the file's content, or a light model.
        source: the float model, for the name of its input and a fixed batch.
        images: calibration images.
        limit: how many to look at.
        threads: threads of the runtime; 0 leaves it to the runtime.
    """
    session = open_session(model, threads=threads)
    outputs = []
    for x in Batches(source, images, BATCH, limit=limit):
        output = session.run({source.input.name: x})[session.output_names[0]]
        outputs.append(np.asarray(output, np.float32).reshape(len(x), -1))
    return np.concatenate(outputs)


def log_probabilities(outputs: NDArray[np.floating], *, probabilities: bool) -> NDArray[np.float64]:
    """log p [n, classes] in nats: log-softmax of logits, or the log of probabilities normalised again.

    A probability of zero counts as the smallest normal float32 (-87 nats): it underflowed, nobody measured a zero.
    """
    x = outputs.astype(np.float64)
    if probabilities:
        x = np.maximum(x, PROBABILITY_FLOOR)
        return np.asarray(np.log(x / x.sum(axis=1, keepdims=True)))
    with np.errstate(invalid="ignore"):
        x = x - x.max(axis=1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))


def mean_kl(reference: NDArray[np.floating], outputs: NDArray[np.floating], *, probabilities: bool = False) -> float:
    """Mean over images of KL(reference || outputs) = sum p (log p - log q), in nats; 0 for equal outputs."""
    p = log_probabilities(reference, probabilities=probabilities)
    q = log_probabilities(outputs, probabilities=probabilities)
    # Rounding can leave -1e-17 where the two are equal.
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=1).mean())) if np.isfinite(q).all() else math.nan
