"""Detection: boxes with classes. Mean average precision as COCO defines it, computed by its own evaluator, pycocotools.

Average precision is taken over 101 recalls for each class, and averaged over classes: of boxes that overlap a labeled
one by at least half (mAP@0.5), and over ten thresholds from 0.5 to 0.95 (mAP). At most 100 boxes of an image count.
Source: Lin et al. 2014, "Microsoft COCO: common objects in context", and its evaluation code.

Labels are boxes x0, y0, x1, y1 as fractions of the image or in pixels of the model's input, with class numbers. Which
numbering of the classes a network uses (from 0, from 1, or COCO's own ids) is what makes most of the float model's
boxes agree with the labeled ones that they lie on.
"""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.errors import DataError
from lowbit.extras import imported
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.detections import Found, are_detections, detections, overlaps
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("map", "mAP", "%", 1, "Mean average precision over overlaps from 0.5 to 0.95, by pycocotools"),
    Metric("map50", "mAP@0.5", "%", 1, "Mean average precision of boxes that overlap labeled ones by half or more"),
)
NEEDS = "boxes, scores and classes among the outputs, and boxes [count, 4] with class numbers as labels"
FRACTIONS = 2.0  # boxes whose coordinates reach further are in pixels
UNITS = 1000.0  # the evaluator's pixels in a whole image
LYING_ON = 0.5

Floats = NDArray[np.float64]


def fits(case: Case) -> bool:
    """Boxes as labels, and detections among the outputs."""
    first = case.first
    return isinstance(first, Mapping) and {"boxes", "labels"} <= set(first) and are_detections(case.reference)


def measure(case: Case) -> Mapping[str, float]:
    """mAP and mAP at an overlap of 0.5.

    Raises:
        DataError: pycocotools is not installed, or boxes are in pixels of images whose size is not known.
    """
    return evaluated(*_in_cocos_form(case))


def without(case: Case, groups: Sequence[NDArray[np.intp]]) -> list[Mapping[str, float]]:
    """The same without each group of images: these are matched with their labels once for all.

    Raises:
        DataError: see `measure`.
    """
    labels, answers, images = _in_cocos_form(case)
    if not labels or not answers:
        return [evaluated(labels, answers, images)] * len(groups)
    evaluation = _matched(labels, answers, images)
    kept = (np.setdiff1d(np.arange(images), group) for group in groups)
    return [_figures(evaluation, chosen) for chosen in kept]


def _in_cocos_form(case: Case) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Labels and answers as the evaluator takes them, and the number of images."""
    truth = _scaled_truth(case)
    found = list(detections(case.outputs, case.reference))
    reference = found if case.reference is case.outputs else list(detections(case.reference, case.reference))
    scale = _scale(reference, case)
    numbers = _numbering([Found(each.boxes / scale, each.scores, each.classes) for each in reference], truth)
    answers = [
        {
            "image_id": image,
            "category_id": int(kind),
            "bbox": _as_corner_and_size(box),
            "score": float(score),
        }
        for image, each in enumerate(found, 1)
        for box, score, kind in zip(each.boxes / scale, each.scores, each.classes, strict=True)
    ]
    labels = [
        {
            "id": number,
            "image_id": image,
            "category_id": int(kind),
            "bbox": _as_corner_and_size(box),
            "area": float(np.prod(UNITS * (box[2:] - box[:2]))),
            "iscrowd": int(crowd),
        }
        for number, (image, box, kind, crowd) in enumerate(
            (
                (image, *box)
                for image, each in enumerate(truth, 1)
                for box in zip(each["boxes"], each[numbers], each["crowd"], strict=True)
            ),
            1,
        )
    ]
    return labels, answers, len(truth)


def evaluated(labels: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]], images: int) -> Mapping[str, float]:
    """pycocotools' figures for annotations and results in COCO's own form, of images numbered from 1.

    Raises:
        DataError: pycocotools is not installed.
    """
    if not labels:
        return {}
    if not answers:
        return {"map": 0.0, "map50": 0.0}
    return _figures(_matched(labels, answers, images), np.arange(images))


def _matched(labels: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]], images: int) -> Any:  # noqa: ANN401
    """pycocotools' evaluation of all images, from which figures can be accumulated."""
    coco, cocoeval = (
        imported(f"pycocotools.{part}", "mean average precision", kind=DataError) for part in ("coco", "cocoeval")
    )
    classes = sorted({each["category_id"] for each in labels})
    data = coco.COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": image, "width": UNITS, "height": UNITS} for image in range(1, images + 1)],
        "annotations": list(labels),
        "categories": [{"id": each, "name": str(each)} for each in classes],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every step
        data.createIndex()
        evaluation = cocoeval.COCOeval(data, data.loadRes(list(answers)), "bbox")
        evaluation.evaluate()
    return evaluation


def _figures(evaluation: Any, images: NDArray[np.intp]) -> Mapping[str, float]:  # noqa: ANN401 - pycocotools has no types
    """mAP and mAP at an overlap of 0.5 over some of the images that were matched, by their places."""
    part = copy.copy(evaluation)
    part.params, part._paramsEval = copy.copy(evaluation.params), copy.copy(evaluation._paramsEval)
    # Matches by class, range of areas, and image.
    count = len(evaluation.params.imgIds)
    matches = [evaluation.evalImgs[start : start + count] for start in range(0, len(evaluation.evalImgs), count)]
    part.evalImgs = [of_one[place] for of_one in matches for place in images]
    part.params.imgIds = part._paramsEval.imgIds = [evaluation.params.imgIds[place] for place in images]
    with contextlib.redirect_stdout(io.StringIO()):
        part.accumulate()
        part.summarize()
    return {"map": float(part.stats[0]), "map50": float(part.stats[1])}


def _scaled_truth(case: Case) -> list[dict[str, Floats]]:
    """Labeled boxes of each image as fractions, with class numbers and whether they stand for a crowd."""
    truth = []
    for index, target in enumerate(case.wanted):
        if not isinstance(target, Mapping):
            raise DataError("some images are labeled with boxes and some are not.", where=f"sample {index}")
        boxes = np.asarray(target["boxes"], np.float64).reshape(-1, 4)
        numbers = {name: np.asarray(target[name]).reshape(-1) for name in ("labels", "ids") if name in target}
        crowd = np.asarray(target.get("iscrowd", np.zeros(len(boxes)))).reshape(-1)
        if {len(each) for each in (*numbers.values(), crowd)} != {len(boxes)}:
            raise DataError("there is not one class number for each box.", where=f"sample {index}")
        truth.append({"boxes": boxes, "crowd": crowd, **numbers})
    if max((float(each["boxes"].max(initial=0)) for each in truth), default=0.0) > FRACTIONS:
        scale = _pixels(case)
        truth = [each | {"boxes": each["boxes"] / scale} for each in truth]
    # From 1 on, as networks with a background class number them.
    return [each | {"from 1": each["labels"] + 1} for each in truth]


def _scale(found: Sequence[Found], case: Case) -> Floats | float:
    """What turns a network's coordinates into fractions."""
    farthest = max((float(each.boxes.max(initial=0)) for each in found), default=0.0)
    return _pixels(case) if farthest > FRACTIONS else 1.0


def _pixels(case: Case) -> Floats:
    if case.size is None:
        raise DataError(
            "boxes are in pixels, and the size of the images is not known.",
            remedy="Give --image-size, or boxes as fractions of the image.",
        )
    height, width = case.size
    return np.array([width, height, width, height], np.float64)


def _numbering(found: Sequence[Found], truth: Sequence[Mapping[str, Floats]]) -> str:
    """Which numbers of the labeled boxes agree most with the boxes that lie on them, the best of each."""
    agreeing = dict.fromkeys((name for name in ("labels", "ids", "from 1") if name in truth[0]), 0)
    for answer, each in zip(found, truth, strict=True):
        if not len(answer.boxes) or not len(each["boxes"]):
            continue
        lying_on = np.where(overlaps(each["boxes"], answer.boxes) >= LYING_ON, answer.scores[None], 0.0)
        best = lying_on.argmax(axis=1)
        for name in agreeing:
            agreeing[name] += int(((answer.classes[best] == each[name]) & (lying_on.max(axis=1) > 0)).sum())
    return max(agreeing, key=lambda name: agreeing[name])


def _as_corner_and_size(box: Floats) -> list[float]:
    return [float(x) for x in UNITS * np.concatenate([box[:2], box[2:] - box[:2]])]
