"""Segmentation: a class for each pixel.

    IoU of a class = |labeled and predicted| / |labeled or predicted|      over the pixels of all images

and their mean over the classes that are labeled or predicted anywhere (mIoU; Everingham et al. 2015, "The Pascal visual
object classes challenge: a retrospective"). Labels below 0, and 255 where there are fewer classes, are ignored. Maps of
another size than the labels are brought to it by nearest neighbor.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer
from lowbit.errors import DataError
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("miou", "mIoU", "%", 1, "Intersection over union of labeled and predicted pixels, mean over classes"),
    Metric("pixel_accuracy", "pixels", "%", 1, "Share of pixels classified as labeled"),
)
NEEDS = "an output [samples, classes, height, width] or [samples, height, width], and label maps [height, width]"
IGNORED = 255

Array = np.ndarray[Any, np.dtype[Any]]
Maps = NDArray[np.int64]


def fits(case: Case) -> bool:
    """Maps among the outputs, and maps of integers as labels."""
    first = case.first
    if first is None or isinstance(first, Mapping):
        return False
    label = np.asarray(first)
    return label.dtype.kind in "iub" and _flat(label).ndim == 2 and case.found(_is_maps) is not None


def measure(case: Case) -> Mapping[str, float]:
    """mIoU and the share of pixels that are right.

    Raises:
        DataError: a label beyond the classes.
    """
    name = case.found(_is_maps) or ""
    threshold = _threshold(case.reference[name])
    counts: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    for index, (answer, label) in enumerate(case.pairs(name)):
        wanted = _flat(label).astype(np.int64)
        classes = _classes(answer, wanted.shape, threshold)
        known = None if answer.dtype.kind != "f" else max(2, _channels(answer, wanted.shape))
        counts = _grown(counts, known or 0)
        counts = _counted(counts, wanted, _resized(classes, wanted.shape), known, index)
    union = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
    if not counts.any():
        return {}
    return {
        "miou": float((np.diag(counts)[union > 0] / union[union > 0]).mean()),
        "pixel_accuracy": float(np.trace(counts) / counts.sum()),
    }


def _counted(counts: Maps, wanted: Maps, classes: Maps, known: int | None, index: int) -> Maps:
    """The confusion matrix [labeled, predicted] with the pixels of one more image."""
    judged = (wanted >= 0) & ~((wanted == IGNORED) & (known is None or known <= IGNORED))
    wanted, classes = wanted[judged], np.maximum(classes[judged], 0)
    highest = int(wanted.max(initial=0))
    if known is not None and highest >= known:
        raise DataError(f"a pixel has label {highest}, but the model has {known} classes.", where=f"sample {index}")
    counts = _grown(counts, max(highest, int(classes.max(initial=0))) + 1)
    size = len(counts)
    return counts + np.bincount(wanted * size + classes, minlength=size * size).reshape(size, size)


def _grown(counts: Maps, size: int) -> Maps:
    missing = max(0, size - len(counts))
    return np.pad(counts, (0, missing))


def _is_maps(answer: Answer) -> bool:
    sample = np.asarray(answer[0])
    flat = _flat(sample)
    return (sample.ndim == 3 and sample.dtype.kind == "f") or (
        flat.ndim == 2 and flat.dtype.kind in "iu" and flat.size > 1
    )


def _flat(x: Array) -> Array:
    """A map without an axis of one channel, first or last."""
    if x.ndim == 3 and 1 in (x.shape[0], x.shape[-1]):
        return x[0] if x.shape[0] == 1 else x[..., 0]
    return x


def _channels(answer: Array, shape: tuple[int, ...]) -> int:
    return int(answer.shape[-1 if _channels_last(answer, shape) else 0])


def _channels_last(answer: Array, shape: tuple[int, ...]) -> bool:
    """Whether scores are [height, width, classes]: if only that agrees with the label map."""
    return bool(answer.shape[:2] == shape and answer.shape[1:] != shape)


def _classes(answer: Array, shape: tuple[int, ...], threshold: float) -> Maps:
    """The class of each pixel [height, width]; of one channel, whether it is above the threshold."""
    if answer.dtype.kind != "f":
        return _flat(answer).astype(np.int64)
    scores = np.moveaxis(answer, -1, 0) if _channels_last(answer, shape) else answer
    if len(scores) == 1:
        return np.asarray(scores[0] > threshold, np.int64)
    return np.asarray(np.where(np.isnan(scores), -np.inf, scores).argmax(axis=0), np.int64)


def _threshold(reference: Answer) -> float:
    """What separates two classes of one channel: 0.5 of probabilities, 0 of logits."""
    low, high = min(float(x.min()) for x in reference), max(float(x.max()) for x in reference)
    return 0.5 if low >= 0 and high <= 1 else 0.0


def _resized(classes: Maps, shape: tuple[int, ...]) -> Maps:
    if classes.shape == shape:
        return classes
    rows, columns = (np.arange(wanted) * given // wanted for wanted, given in zip(shape, classes.shape, strict=True))
    return np.asarray(classes[rows[:, None], columns])
