"""What candidates are found to be on evaluation samples: how far from float, and what they lose."""

import math
from dataclasses import dataclass

import numpy as np

from lowbit.calibration.answers import distances, fair_temperature
from lowbit.calibration.divergence import are_probabilities, as_logits
from lowbit.certainty.certificate import Evidence
from lowbit.certainty.expected import expected_drop
from lowbit.certainty.paired import counted
from lowbit.measurement.accuracy import predicted_classes
from lowbit.measurement.exam import Exam
from lowbit.measurement.results import Metric

MEASURE = "softened, expected"  # what marks are: candidates that an older version measured count no more


@dataclass(frozen=True)
class Marks:
    """What a file was found to be.

    Attributes:
        distance: mean KL divergence of softened answers in nats (`fair_temperature`), or relative squared error.
        drop: points lost by the task's first metric; percent of predictions changed where a classifier has no labels.
        expected: the drop that is to be expected, of which chance makes less (`certainty.expected`); of other tasks the
            drop itself.
        evidence: what is known of that drop on other samples: counts of lost and gained images, or the spread of
            another task's metric; None where neither can be measured.
        metric: the task's first metric, a share of 1 for classification.
    """

    distance: float
    drop: float
    expected: float
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
        scores, others = (each.class_scores().logits for each in (exam.reference, answers))
        before, after = predicted_classes(scores), predicted_classes(others)
        labels = exam.data.labels
        classes = before if labels is None else labels
        paired = counted(before, after, labels)
        probabilities = are_probabilities(scores)
        logits = [as_logits(each, probabilities=probabilities) for each in (scores, others)]
        expected = expected_drop(logits[0], logits[1], classes)
        # Answers that are not finite are wrong ones, and nothing is to be learned from how far off they are.
        expected = expected if math.isfinite(expected) else paired.drop
        return Marks(distance, 100 * paired.drop, 100 * expected, paired, float((after == classes).mean()))
    metric = metric_of(exam)
    if metric is None:
        return Marks(distance, 100 * distance, 100 * distance, None, distance)
    unharmed, given = (exam.score(each).scores.get(metric.name, math.nan) for each in (exam.reference, answers))
    sign = -1.0 if metric.best < 0 else 1.0
    lost = sign * (unharmed - given)
    if not math.isfinite(lost):
        return Marks(distance, math.inf, math.inf, None, given)
    return Marks(distance, 100 * lost, 100 * lost, exam.judgement.spread(answers, metric, lost), given)


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
