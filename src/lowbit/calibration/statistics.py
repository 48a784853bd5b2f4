"""One streaming pass over the calibration images: what each activation looked like, in bounded memory.

Several batches run at the same time, each in one thread, rather than one batch in several threads: the network has a
hundred small operators, and threads that wait for each other at every one of them took 1.8 times the processor time
(MobileNetV2, two cores).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.batches import Batches
from lowbit.calibration.histogram import (
    SAMPLES_AN_IMAGE,
    Histogram,
    add_values,
    empty_histogram,
    sample,
    stride_for,
)
from lowbit.data.images import Images
from lowbit.engines import Session, open_session
from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.summaries import HIGH, LOW, SAMPLE, with_summaries
from lowbit.processor import cores, in_order
from lowbit.progress import SILENT, Progress

MOST_IMAGES = 8
# Batches that run at the same time; further threads work inside their operators.
MOST_RUNS = 4
# Floats of the tensors that are looked at in all batches on their way, as long as that is an image a batch or more.
MOST_FLOATS = 20_000_000

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorStatistics:
    """What calibration learned of one activation tensor.

    Attributes:
        low: smallest value seen; 0 for a large tensor that is known to hold none below it.
        high: largest value seen.
        histogram: distribution of the values, of a sample of them where the tensor is large; empty if not asked for.
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
    batch: int | None = None,
    threads: int = 0,
    histograms: bool = True,
    progress: Progress = SILENT,
) -> Statistics:
    """Run the float model over the images once and keep range and histogram of each named tensor.

    Args:
        model: the prepared float model.
        images: calibration images; labels are not used.
        tensors: names of float tensors of the graph, the input included if it is wanted.
        batch: images a run; memory grows with it, not with the number of images. By default runs at the same time
            share what `batch_for` finds.
        threads: threads in all; 0 takes as many as there are processors.
        histograms: also keep histograms, which every range rule but min-max reads.
        progress: told after every batch.

    Raises:
        DataError: there are too few images.
        ModelError: a tensor becomes NaN or infinite.
    """
    names = list(dict.fromkeys(tensors))
    inside = [name for name in names if name != model.input.name]
    large = {name: stride_for(size) for name in inside if (size := image_size(model, name)) > SAMPLES_AN_IMAGE}
    small = [name for name in inside if name not in large]
    # Looking for extremes passes over NaN; where no sample would show it, the model's answers must.
    answers = [] if histograms else [value.name for value in model.outputs if value.name not in names]
    several = threads or cores()
    runs = min(several, MOST_RUNS)
    summaries = with_summaries(model, [*small, *answers], large, samples=histograms)
    session = open_session(summaries, threads=max(1, several // runs))
    statistics: dict[str, TensorStatistics] = {}
    count = 0
    batches = Batches(model, images, batch or max(1, batch_for(model, names) // runs))
    seen = _in_turn(session, model.input.name, batches, runs)
    for x, outputs in progress.track(seen, "calibrating", total=len(batches)):
        for name in answers:
            _require_finite(name, outputs[name])
        for name in names:
            found = _summary(outputs, name, histograms=histograms)
            statistics[name] = _updated(statistics.get(name), name, *found)
        count += len(x)
    return Statistics(tensors=statistics, images=count, fingerprint=images.fingerprint())


def _in_turn(
    session: Session, name: str, batches: Iterable[Array], runs: int
) -> Iterator[tuple[Array, Mapping[str, Array]]]:
    """Every batch with its outputs, in order, while up to `runs` of them are on their way."""

    def run(x: Array) -> tuple[Array, Mapping[str, Array]]:
        return x, session.run({name: x}) | {name: x}

    return in_order(run, batches, threads=runs, ahead=0)


def batch_for(model: Model, tensors: Sequence[str]) -> int:
    """How many images a run may take for its `tensors` to stay within `MOST_FLOATS`: from 1 to `MOST_IMAGES`."""
    return max(1, min(MOST_IMAGES, MOST_FLOATS // max(1, sum(image_size(model, name) for name in tensors))))


def image_size(model: Model, tensor: str) -> int:
    """Values that a tensor [N, ...] holds of each image; 0 if some extent is not known before it runs."""
    shape = model.values[tensor].shape if tensor in model.values else None
    extents = [] if shape is None else list(shape)[1:]
    return math.prod(extent if isinstance(extent, int) else 0 for extent in extents) if extents else 0


def _summary(outputs: Mapping[str, Array], name: str, *, histograms: bool) -> tuple[float, float, Array]:
    """Least and greatest value of a batch, and the values for its histogram."""
    if name in outputs:
        x = outputs[name]
        return float(x.min()), float(x.max()), sample(x) if histograms else x[:0]
    high = outputs[HIGH + name]
    low = float(outputs[LOW + name]) if LOW + name in outputs else 0.0
    return low, float(high), outputs[SAMPLE + name] if histograms else high.reshape(-1)[:0]


def _updated(before: TensorStatistics | None, name: str, low: float, high: float, values: Array) -> TensorStatistics:
    # A runtime may pass over NaN when it looks for extremes; a tensor that has some has them in its sample.
    _require_finite(name, low, high, values)
    histogram = before.histogram if before else empty_histogram()
    histogram = add_values(histogram, values, low=low, high=high)
    if before:
        low, high = min(low, before.low), max(high, before.high)
    return TensorStatistics(low=low, high=high, histogram=histogram)


def _require_finite(name: str, *values: float | Array) -> None:
    if not all(math.isfinite(value) if isinstance(value, float) else np.isfinite(value).all() for value in values):
        raise ModelError(
            "the float model computes NaN or infinite values on a calibration image.",
            where=f"tensor '{name}'",
            remedy="Check the preprocessing (mean, std, layout) and the model itself.",
        )
