"""What a detector says, in whichever of the usual forms: boxes, scores and classes of each image.

| outputs, for each image | as |
|---|---|
| boxes [k, 4], scores [k], classes [k] | torchvision, SSD with its selection in the graph, TensorFlow's detection API |
| boxes [k, 4], scores [k, classes] | heads without a selection |
| [k, 6]: corners, score, class | YOLO with its selection in the graph |
| [k, 7]: image, corners, class, score | the same, of all images |
| [4 + classes, k]: center, size, scores | YOLOv8 and later |
| [k, 5 + classes]: center, size, objectness, scores | YOLOv5, v7 |

Boxes are x0, y0, x1, y1, but for `detection_boxes` (y0, x0, y1, x1), and those with scores for each class are selected
here: at most `MOST` of an image, per class without those that overlap a better one by more than `OVERLAP`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer

LEAST_SCORE = 0.001  # what evaluations by mAP usually keep
OVERLAP = 0.65
MOST = 300
SELECTED = 1000  # rows of more are all that a head gives, whatever their length
CANDIDATES = 3000  # with the highest scores, that selection begins with

Array = np.ndarray[Any, np.dtype[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What is found in one image.

    Attributes:
        boxes: x0, y0, x1, y1 [k, 4], in the units of the network.
        scores: [k].
        classes: as the network numbers them [k].
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def are_detections(outputs: Mapping[str, Answer]) -> bool:
    """Whether outputs have one of the forms."""
    return _form(outputs) is not None


def detections(outputs: Mapping[str, Answer], reference: Mapping[str, Answer]) -> Iterator[Found]:
    """What is found in each image.

    Args:
        outputs: of a file.
        reference: of the float model, whose form they have.
    """
    form = _form(reference)
    assert form is not None
    kind, names = form
    for samples in zip(*(outputs[name] for name in names), strict=True):
        yield _read(kind, names, [np.asarray(x, np.float64) for x in samples])


def _form(outputs: Mapping[str, Answer]) -> tuple[str, tuple[str, ...]] | None:
    """The name of the form, and the outputs that it takes, in order."""
    first = {name: np.asarray(answer[0]) for name, answer in outputs.items()}
    boxes = next((name for name, x in first.items() if x.ndim == 2 and x.shape[1] == 4 and x.dtype.kind == "f"), None)
    if boxes is not None:
        count = len(first[boxes])
        rows = [name for name, x in first.items() if x.shape == (count,)]
        scores = _named(rows, first, ("score", "conf"), "f")
        classes = _named([name for name in rows if name != scores], first, ("label", "class", "cls"), "iu")
        if scores and classes:
            return "selected", (boxes, scores, classes)
        per_class = [name for name, x in first.items() if name != boxes and x.ndim == 2 and len(x) == count]
        return ("head", (boxes, per_class[0])) if per_class else None
    for name, x in first.items():
        if x.ndim == 2 and x.dtype.kind == "f" and min(x.shape[1], max(x.shape)) >= 5:
            if x.shape[1] in (6, 7) and len(x) <= SELECTED:
                return f"rows of {x.shape[1]}", (name,)
            if x.shape[0] >= 5 and x.shape[0] < x.shape[1]:
                return "columns", (name,)
            return "rows", (name,)
    return None


def _named(names: list[str], first: Mapping[str, Array], words: tuple[str, ...], kinds: str) -> str | None:
    """The output that is called so; else the first of this type; else any."""
    called = [name for name in names if any(word in name.lower() for word in words)]
    typed = [name for name in names if first[name].dtype.kind in kinds]
    return next(iter((*called, *typed, *names)), None)


def _read(kind: str, names: tuple[str, ...], given: list[Floats]) -> Found:
    x = given[0]
    if kind == "selected":
        order = [1, 0, 3, 2] if names[0] == "detection_boxes" else [0, 1, 2, 3]
        return _kept(x[:, order], given[1], given[2])
    if kind == "head":
        return _selected(x, given[1])
    if kind == "rows of 6":
        return _kept(x[:, :4], x[:, 4], x[:, 5])
    if kind == "rows of 7":
        return _kept(x[:, 1:5], x[:, 6], x[:, 5])
    if kind == "columns":
        return _selected(_corners(x[:4].T), x[4:].T)
    return _selected(_corners(x[:, :4]), x[:, 4:5] * x[:, 5:])


def _corners(boxes: Floats) -> Floats:
    """From center, width and height."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _kept(boxes: Floats, scores: Floats, classes: Floats) -> Found:
    good = np.isfinite(boxes).all(axis=1) & (scores > LEAST_SCORE)
    return Found(boxes[good], scores[good], np.rint(classes[good]).astype(np.int64))


def _selected(boxes: Floats, scores: Floats) -> Found:
    """The best boxes of each class that do not overlap better ones of it."""
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    scores = np.where(finite[:, None], np.nan_to_num(scores), 0.0)
    places, classes = np.nonzero(scores > LEAST_SCORE)
    values = scores[places, classes]
    order = np.argsort(-values, kind="stable")[:CANDIDATES]
    places, classes, values = places[order], classes[order], values[order]
    kept: list[int] = []
    for each in np.unique(classes):
        left = np.flatnonzero(classes == each)
        while len(left):
            kept.append(int(left[0]))
            shared = overlaps(boxes[places[left[:1]]], boxes[places[left[1:]]])
            left = left[1:][shared[0] <= OVERLAP]
    best = np.array(sorted(kept, key=lambda index: -values[index])[:MOST], np.int64)
    return Found(boxes[places[best]], values[best], classes[best].astype(np.int64))


def overlaps(some: Floats, others: Floats) -> Floats:
    """Intersection over union of each box with each other one [some, others]."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(each[:, 2:] - each[:, :2], 0), axis=1) for each in (some, others)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))
