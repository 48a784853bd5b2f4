"""One streaming pass over the calibration images: what each activation looked like, in bounded memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.histogram import Histogram, add_values, empty_histogram
from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.errors import DataError, ModelError
from lowbit.graph.model import Model
from lowbit.progress import SILENT, Progress

BATCH = 8

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorStatistics:
    """What calibration learned of one activation tensor.

    Attributes:
        low: smallest value seen.
        high: largest value seen.
        histogram: distribution of the values, of a sample of them where the tensor is large.
    """

    low: float
    high: float
    histogram: Histogram


@dataclass(frozen=True)
class Statistics:
    """All that one calibration pass learned.

    Attributes:
        tensors: by tensor name.
        images: how many images were seen.
        fingerprint: hash of the images, to prove that they are not the evaluation set.
    """

    tensors: Mapping[str, TensorStatistics]
    images: int
    fingerprint: str


def calibrate(
    model: Model,
    images: Images,
    *,
    tensors: Sequence[str],
    batch: int = BATCH,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Statistics:
    """Run the float model over the images once and keep range and histogram of each named tensor.

    Args:
        model: the prepared float model.
        images: calibration images; labels are not used.
        tensors: names of float tensors of the graph, the input included if it is wanted.
        batch: images a run; memory grows with it, not with the number of images.
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told after every batch.

    Raises:
        DataError: there is no image.
        ModelError: a tensor becomes NaN or infinite.
    """
    names = list(dict.fromkeys(tensors))
    inside = [name for name in names if name != model.input.name]
    session = open_session(model.with_outputs(inside) if inside else model.to_bytes(), threads=threads)
    statistics: dict[str, TensorStatistics] = {}
    count = 0
    fixed = model.input.shape[0] if model.input.shape else None
    size = fixed if isinstance(fixed, int) else batch
    batches = images.batches(size)
    for part in progress.track(batches, "calibrating", total=-(-images.count // size)):
        # A model with a fixed batch cannot take the shorter last one: a whole batch is the honest unit there.
        if fixed == size and len(part.x) < size:
            continue
        outputs = session.run({model.input.name: part.x})
        outputs[model.input.name] = part.x
        for name in names:
            statistics[name] = _updated(statistics.get(name), outputs[name], name)
        count += len(part.x)
    if count == 0:
        raise DataError(
            "there is no image to calibrate on.",
            where=images.name,
            remedy=f"Give at least {size} image(s): the model takes a batch of {size}."
            if size > 1
            else "Give at least one image.",
        )
    return Statistics(tensors=statistics, images=count, fingerprint=images.fingerprint())


def _updated(before: TensorStatistics | None, x: Array, name: str) -> TensorStatistics:
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError(
            "the float model computes NaN or infinite values on a calibration image.",
            where=f"tensor '{name}'",
            remedy="Check the preprocessing (mean, std, layout) and the model itself.",
        )
    histogram = before.histogram if before else empty_histogram()
    histogram = add_values(histogram, x, low=low, high=high)
    if before:
        low, high = min(low, before.low), max(high, before.high)
    return TensorStatistics(low=low, high=high, histogram=histogram)
