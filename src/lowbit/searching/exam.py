"""What candidates are measured on: float's answers to evaluation samples, and how far a file's are from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowbit.calibration.answers import distances
from lowbit.calibration.batches import samples_per_run
from lowbit.certainty.paired import Paired, counted
from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.measurement.accuracy import predicted_classes
from lowbit.measurement.judging import case_of, judged
from lowbit.measurement.prediction import Answers, Runs, predict
from lowbit.measurement.reference import image_size
from lowbit.measurement.results import CLASSIFICATION, Metric
from lowbit.measurement.tasks import Task, chosen_task

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Marks:
    """What a file was found to be.

    Attributes:
        distance: mean KL divergence in nats, or relative squared error.
        drop: points lost by the task's first metric; percent of predictions changed where a classifier has no labels.
        paired: counts of lost and gained images; None for tasks other than classification.
        metric: the task's first metric, a share of 1 for classification.
    """

    distance: float
    drop: float
    paired: Paired | None
    metric: float


@dataclass(frozen=True)
class Exam:
    """Samples with float's answers to them.

    Attributes:
        model: the prepared float model.
        data: evaluation samples, in runs of the model.
        reference: float's answers.
        task: what files are judged by.
    """

    model: Model
    data: Dataset
    reference: Answers = field(repr=False)
    task: Task

    @staticmethod
    def of(model: Model, data: Dataset, task: str | Task | None = None) -> "Exam":
        """The exam that samples make.

        Raises:
            DataError: labels or outputs do not fit the task.
        """
        answers = predict(model.to_bytes(), data, runs=_runs(model, data))
        return Exam(model, data, answers, chosen_task(task, case_of(answers, answers, image_size(model))))

    @property
    def classifies(self) -> bool:
        """Whether images are counted as right or wrong."""
        return self.task.name == CLASSIFICATION

    @property
    def measure(self) -> str:
        """What a drop is counted in."""
        if self.classifies:
            return "points of accuracy" if self.data.labels is not None else "percent of predictions"
        return f"hundredths of {self.metric.title}" if self.metric is not None else "percent of relative error"

    @property
    def metric(self) -> Metric | None:
        """The first metric that the task has for these samples; None for a classifier, or without any."""
        scores = self._scores(self.reference)
        known = [metric for metric in self.task.metrics if metric.name in scores]
        return known[0] if known and not self.classifies else None

    def marks(self, content: bytes) -> Marks:
        """What a file is found to be."""
        answers = predict(content, self.data, runs=_runs(self.model, self.data)).named_as(self.reference)
        values = distances(self.reference.outputs, answers.outputs)
        distance = float(np.where(np.isfinite(values), values, np.inf).mean())
        if self.classifies:
            before, after = (predicted_classes(each.class_scores().logits) for each in (self.reference, answers))
            labels = self.data.labels
            paired = counted(before, after, labels)
            right = float((after == (before if labels is None else labels)).mean())
            return Marks(distance, 100 * paired.drop, paired, right)
        if self.metric is None:
            return Marks(distance, 100 * distance, None, distance)
        wanted, given = (self._scores(each).get(self.metric.name, math.nan) for each in (self.reference, answers))
        sign = -1.0 if self.metric.best < 0 else 1.0
        drop = 100 * sign * (wanted - given)
        return Marks(distance, drop if math.isfinite(drop) else math.inf, None, given)

    def _scores(self, answers: Answers) -> Mapping[str, float]:
        return judged(answers, self.task, reference=self.reference, size=image_size(self.model)).scores


def _runs(model: Model, data: Dataset) -> Runs:
    fixed = samples_per_run(model, data)
    return Runs(fixed or 32, exactly=fixed is not None)
