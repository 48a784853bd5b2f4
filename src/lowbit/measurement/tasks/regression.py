"""Regression: numbers for each sample.

    MSE = mean (y - f)^2        R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2

R2 is that of each of a sample's values over all samples, in the mean over those that vary. Sums are float64.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lowbit.calibration.answers import Answer
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("r2", "R²", "", 1, "Share of the targets' variance that is explained: 1 is perfect, 0 says the mean"),
    Metric("mse", "MSE", "", -1, "Mean squared error"),
)
NEEDS = "an output with as many values for each sample as the labels have"

Array = np.ndarray[Any, np.dtype[Any]]


def fits(case: Case) -> bool:
    """An output with as many floats as each target has."""
    return _output(case) is not None


def is_obvious(case: Case) -> bool:
    """Whether labels are floats, so that they are no class numbers."""
    return _output(case) is not None and np.asarray(case.first).dtype.kind == "f"


def measure(case: Case) -> Mapping[str, float]:
    """R2, if anything varies, and MSE."""
    rows = [(answer.reshape(-1), target.reshape(-1)) for answer, target in case.pairs(_output(case) or "")]
    if len({target.size for _, target in rows}) > 1:  # values of samples of different sizes have no places of their own
        rows = [(x, y) for answer, target in rows for x, y in zip(answer[:, None], target[:, None], strict=True)]
    given, wanted = (np.stack(each).astype(np.float64) for each in zip(*rows, strict=True))
    errors = np.square(given - wanted)
    spread = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    varies = spread > 0
    scores = {"mse": float(errors.mean())}
    if varies.any():
        scores["r2"] = float((1 - errors.sum(axis=0)[varies] / spread[varies]).mean())
    return scores


def _output(case: Case) -> str | None:
    if case.truth is None or isinstance(case.first, Mapping):
        return None
    sizes = [np.size(np.asarray(target)) for target in case.wanted]
    return case.found(lambda answer: _sizes_of(answer) == sizes)


def _sizes_of(answer: Answer) -> list[int]:
    if (answer[0].dtype if isinstance(answer, list) else answer.dtype).kind != "f":
        return []
    return [np.size(sample) for sample in answer]
