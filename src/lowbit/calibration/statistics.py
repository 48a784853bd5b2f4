"""The range and histogram of each activation, in one streaming pass over the calibration images and bounded memory."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.calibration.batches import MOST_CONCURRENT, Batches, as_runs, float_inputs, outputs_of
from lowbit.calibration.histogram import (
    SAMPLES_PER_IMAGE,
    Histogram,
    add_values,
    empty_histogram,
    sample,
    sample_stride,
)
from lowbit.data.dataset import Dataset
from lowbit.data.opening import open_data
from lowbit.errors import ModelError
from lowbit.formats.opening import load
from lowbit.graph.model import Model
from lowbit.graph.summaries import HIGH, LOW, SAMPLE, with_summaries
from lowbit.printable import several
from lowbit.processor import cores
from lowbit.progress import IF_LONG, Progress, shows_progress

MAX_BATCH_SIZE = 8
# Values of the measured tensors in all batches that run at the same time; exceeded only by batches of one image.
MAX_VALUES = 20_000_000

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorStatistics:
    """What calibration showed of one activation, in the tensor's own units.

    Attributes:
        low: smallest value seen; 0 for a large tensor that cannot be negative.
        high: largest value seen.
        histogram: of the values, or of a sample of them where the tensor is large; empty if not asked for.
        lows: smallest value of each image, float32 [images].
        highs: largest value of each image, float32 [images].
    """

    low: float
    high: float
    histogram: Histogram = field(repr=False)
    lows: Array = field(repr=False)
    highs: Array = field(repr=False)


@dataclass(frozen=True)
class Statistics:
    """The result of one calibration pass.

    Attributes:
        tensors: by tensor name.
        images: number of images seen.
        fingerprint: hash of the images, to prove that they are not the evaluation images.

    >>> statistics = lowbit.calibrate("model.onnx", "photos", tensors=["x"])
    >>> statistics.tensors["x"].low, statistics.tensors["x"].high
    (-2.0, 2.0)
    """

    tensors: Mapping[str, TensorStatistics]
    images: int
    fingerprint: str

    def __repr__(self) -> str:
        return f"<Statistics of {several(len(self.tensors), 'tensor')} over {several(self.images, 'image')}>"


@shows_progress
def calibrate(
    model: Model | str | Path,
    data: Dataset | str | Path | Iterable[Any],
    *,
    tensors: Sequence[str] | None = None,
    batch: int | None = None,
    threads: int = 0,
    histograms: bool = True,
    progress: Progress = IF_LONG,
) -> Statistics:
    """Run the float model over the images once and measure the range and histogram of each named tensor.

    Args:
        model: the float model or its path.
        data: calibration samples, anything `open_data` takes; labels are not used.
        tensors: names of float tensors of the graph, inputs among them; None for all activations.
        batch: images per batch; memory grows with it, not with the number of images. By default the batches that run at
            the same time share the images of `batch_size_for`.
        threads: total number of threads; 0 takes one per processor core.
        histograms: also collect histograms, which every range rule but `minmax` needs.
        progress: told after every batch.

    Raises:
        DataError: too few images for one batch.
        ModelError: no tensor of that name, or one that becomes NaN or infinite.

    >>> statistics = lowbit.calibrate("model.onnx", "photos")
    >>> statistics
    <Statistics of 14 tensors over 10 images>
    """
    model = load(model)
    names = list(dict.fromkeys(model.activations if tensors is None else tensors))
    data = as_runs(model, open_data(data, model))
    given = {info.name for info in model.inputs}
    inside = [name for name in names if name not in given]
    large = {name: sample_stride(size) for name in inside if (size := image_size(model, name)) > SAMPLES_PER_IMAGE}
    small = [name for name in inside if name not in large]
    # The runtime's minimum and maximum skip NaN; where no sample would show one, the model's outputs must.
    unseen = [value.name for value in model.outputs if value.name not in names and value.dtype == np.float32]
    checked_outputs = [] if histograms and inside else unseen
    threads = threads or cores()
    summaries = with_summaries(model, [*small, *checked_outputs], large, samples=histograms)
    statistics: dict[str, TensorStatistics] = {}
    count = 0
    batches = Batches(model, data, batch or shared_batch_size(model, names, threads))
    results = outputs_of(summaries, batches, threads=threads)
    for run, outputs in progress.track(results, "calibrating", total=len(batches)):
        for name in checked_outputs:
            _require_finite(name, outputs[name])
        found = outputs | float_inputs(run.inputs)
        for name in names:
            summary = _summary(found, name, histograms=histograms)
            statistics[name] = _updated(statistics.get(name), name, *summary)
        count += len(run)
    return Statistics(tensors=statistics, images=count, fingerprint=data.fingerprint())


def batch_size_for(model: Model, tensors: Sequence[str]) -> int:
    """Images per batch for which `tensors` hold at most `MAX_VALUES` values: from 1 to `MAX_BATCH_SIZE`."""
    return max(1, min(MAX_BATCH_SIZE, MAX_VALUES // max(1, sum(image_size(model, name) for name in tensors))))


def shared_batch_size(model: Model, tensors: Sequence[str], threads: int) -> int:
    """Images per batch where the batches that run at the same time share those of `batch_size_for`."""
    return max(1, batch_size_for(model, tensors) // min(threads or cores(), MOST_CONCURRENT))


def image_size(model: Model, tensor: str) -> int:
    """Number of values per image in a tensor [N, ...]; 0 if an extent is not known before the model runs."""
    shape = model.values[tensor].shape if tensor in model.values else None
    extents = [] if shape is None else list(shape)[1:]
    return math.prod(extent if isinstance(extent, int) else 0 for extent in extents) if extents else 0


def _summary(outputs: Mapping[str, Array], name: str, *, histograms: bool) -> tuple[Array, Array, Array]:
    """Smallest and largest value of each image of a batch, and the values for the histogram."""
    if name in outputs:
        x = outputs[name]
        if not x.size:  # nothing was selected in this batch, and every range reaches to 0 anyway
            return np.zeros(1, np.float32), np.zeros(1, np.float32), x.reshape(-1)
        rows = x.reshape(len(x) if x.ndim > 1 else 1, -1)
        return rows.min(axis=1), rows.max(axis=1), sample(x) if histograms else x.reshape(-1)[:0]
    high = outputs[HIGH + name]
    highs = high.reshape(len(high), -1).max(axis=1)
    lows = np.zeros_like(highs)
    if LOW + name in outputs:
        lows = -outputs[LOW + name].reshape(len(high), -1).max(axis=1)
    return lows, highs, outputs[SAMPLE + name] if histograms else highs[:0]


def _updated(before: TensorStatistics | None, name: str, lows: Array, highs: Array, values: Array) -> TensorStatistics:
    # The runtime's minimum and maximum may skip NaN; the sample would show it.
    _require_finite(name, lows, highs, values)
    low, high = float(lows.min()), float(highs.max())
    histogram = before.histogram if before else empty_histogram()
    histogram = add_values(histogram, values, low=low, high=high)
    if before:
        low, high = min(low, before.low), max(high, before.high)
        lows, highs = np.concatenate([before.lows, lows]), np.concatenate([before.highs, highs])
    return TensorStatistics(low, high, histogram, lows, highs)


def _require_finite(name: str, *values: float | Array) -> None:
    if not all(math.isfinite(value) if isinstance(value, float) else np.isfinite(value).all() for value in values):
        raise ModelError(
            "the float model computes NaN or infinite values on a calibration image.",
            where=f"tensor '{name}'",
            remedy="Check the preprocessing (mean, std, layout) and the model itself.",
        )
