"""Classification: one score for each class.

Accuracy, its interval, loss and what changed are in `lowbit.measurement.accuracy`. Here is what that leaves: the share
of images whose class is among the five of the highest scores, where there are more classes than that; of equal scores
the first counts as the highest.
"""

from collections.abc import Mapping

import numpy as np

from lowbit.calibration.answers import is_class_scores
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

PLACES = 5
METRICS = (Metric("top5", "top-5", "%", 1, "Share of images whose class is among the five with the highest scores"),)
NEEDS = "an output [samples, classes] and class numbers from 0, or no labels"


def fits(case: Case) -> bool:
    """An output with a score for each class, and no labels or a class number for each sample."""
    labels_fit = case.truth is None or _are_class_numbers(case)
    return labels_fit and case.found(is_class_scores) is not None


def is_obvious(case: Case) -> bool:
    """Whether there are class numbers or, without labels, no other output."""
    return _are_class_numbers(case) or len(case.reference) == 1


def measure(case: Case) -> Mapping[str, float]:
    """Top-5 accuracy, with labels and more than five classes."""
    name = case.found(is_class_scores)
    if name is None or case.truth is None:
        return {}
    scores = np.asarray(case.outputs[name]).reshape(len(case.truth), -1)
    if scores.shape[1] <= PLACES:
        return {}
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :PLACES]
    found = (highest == np.asarray(case.truth)[:, None]).any(axis=1) & np.isfinite(scores).all(axis=1)
    return {"top5": float(found.mean())}


def _are_class_numbers(case: Case) -> bool:
    return isinstance(case.truth, np.ndarray) and case.truth.ndim == 1 and case.truth.dtype.kind == "i"
