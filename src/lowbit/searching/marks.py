"""What candidates are found to be on evaluation samples: how far from float, and what they lose."""

import math
from dataclasses import dataclass

import numpy as np

from lowbit.calibration.answers import distances, fair_temperature
from lowbit.certainty.certificate import Evidence
from lowbit.certainty.paired import counted
from lowbit.measurement.accuracy import predicted_classes
from lowbit.measurement.exam import Exam
from lowbit.measurement.results import Metric

MEASURE = "softened"  # what distances are: those of candidates that an older version measured count no more


@dataclass(frozen=True)
class Marks:
    """What a file was found to be.

    Attributes:
        distance: mean KL divergence of softened answers in nats (`fair_temperature`), or relative squared error.
        drop: points lost by the task's first metric; percent of predictions changed where a classifier has no labels.
        evidence: what is known of that drop on other samples: counts of lost and gained images, or the spread of
            another task's metric; None where neither can be measured.
        metric: the task's first metric, a share of 1 for classification.
    """

    distance: float
    drop: float
    evidence: Evidence | None
    metric: float


def marks(exam: Exam, content: bytes) -> Marks:
    """What a file is found to be."""
    answers = exam.answers(content)
    wanted = exam.reference.outputs
    # A few samples that the network is unsure of make most of the KL itself, and chance decides between two files.
    values = distances(wanted, answers.outputs, temperature=fair_temperature(wanted))
    distance = float(np.where(np.isfinite(values), values, np.inf).mean())
    if exam.classifies:
        before, after = (predicted_classes(each.class_scores().logits) for each in (exam.reference, answers))
        labels = exam.data.labels
        paired = counted(before, after, labels)
        right = float((after == (before if labels is None else labels)).mean())
        return Marks(distance, 100 * paired.drop, paired, right)
    metric = metric_of(exam)
    if metric is None:
        return Marks(distance, 100 * distance, None, distance)
    unharmed, given = (exam.score(each).scores.get(metric.name, math.nan) for each in (exam.reference, answers))
    sign = -1.0 if metric.best < 0 else 1.0
    lost = sign * (unharmed - given)
    if not math.isfinite(lost):
        return Marks(distance, math.inf, None, given)
    return Marks(distance, 100 * lost, exam.judgement.spread(answers, metric, lost), given)


def metric_of(exam: Exam) -> Metric | None:
    """The first metric that the task has for these samples; None for a classifier, or without any."""
    if exam.classifies:
        return None
    scores = exam.score(exam.reference).scores
    return next((metric for metric in exam.task.metrics if metric.name in scores), None)


def drop_measure(exam: Exam) -> str:
    """What a drop is counted in."""
    if exam.classifies:
        return "points of accuracy" if exam.data.labels is not None else "percent of predictions"
    metric = metric_of(exam)
    if metric is None:
        return "percent of relative error"
    return f"{'points' if metric.unit == '%' else 'hundredths'} of {metric.title}"
