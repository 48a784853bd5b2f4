"""The verdict of each row: from the counts of a classifier's answers, and for other tasks from how much the metric
varies.

A metric such as mAP or mIoU is no mean over samples, and measuring it on hundreds of bootstrap samples would take
longer than everything else. The samples are cut into 20 groups at random, the metric is measured without each, and the
spread of the differences between the float file and the other gives the standard error (delete-a-group jackknife; Shao
and Tu 1995, The jackknife and bootstrap, section 2.3):

    variance = (g - 1) / g * sum (d_i - mean d)^2,    bounds = d -+ t * sqrt(variance), t of Student's distribution
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lowbit.certainty.certificate import rounded
from lowbit.certainty.intervals import hidden_share
from lowbit.certainty.paired import Paired
from lowbit.certainty.verdicts import CANNOT_TELL, CONFIDENCE, MARGIN, Verdict, verdict, word_of
from lowbit.measurement.accuracy import Score
from lowbit.measurement.judging import case_of
from lowbit.measurement.prediction import Answers
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks import Case, Task

Array = np.ndarray[Any, np.dtype[Any]]

GROUPS = 20
LEAST_SAMPLES = 2 * GROUPS
# Student's t with GROUPS - 1 degrees of freedom, at 95 and 97.5 %.
T_95, T_975 = 1.729133, 2.093024


class Judgement:
    """Gives verdicts on files of one model.

    Args:
        task: what they are judged by.
        reference: the float model's answers.
        size: height and width of the images that the model takes, if it takes images.
    """

    def __init__(self, task: Task, reference: Answers, size: tuple[int, int] | None) -> None:
        self.task, self.reference, self.size = task, reference, size
        self._float_without: dict[str, Array] = {}

    def verdict(self, answers: Answers, scored: Score, float_scores: Mapping[str, float]) -> Verdict | None:
        """The verdict of a file; None of the float file itself, and where there is nothing that is better or worse.

        Args:
            answers: of the file.
            scored: what they come to.
            float_scores: the metrics of the float file.
        """
        if answers is self.reference:
            return None
        if scored.lost is not None and scored.gained is not None:
            return verdict(Paired(scored.images, scored.lost, scored.gained))
        if scored.flips is not None:
            return verdict(Paired(scored.images, scored.flips, 0, labeled=False))
        metric = next((m for m in self.task.metrics if m.best and m.name in scored.scores), None)
        if metric is None or metric.name not in float_scores:
            return None
        before = float_scores[metric.name]
        return self._by_groups(answers.named_as(self.reference), metric, before, scored.scores[metric.name])

    def _by_groups(self, answers: Answers, metric: Metric, before: float, after: float) -> Verdict:
        """The verdict by what a metric is without each group of samples."""
        share, lost = metric.unit == "%", metric.best * (before - after)
        margin = MARGIN if share else MARGIN * abs(before)
        spread = self._spread(answers, metric) if answers.count >= LEAST_SAMPLES else None
        if spread is None:
            return Verdict(CANNOT_TELL, -math.inf, math.inf)
        halves = []
        for quantile, alpha in ((T_95, 1 - CONFIDENCE), (T_975, (1 - CONFIDENCE) / 2)):
            # A score between 0 and 1 may lose as much on samples of a kind that is not among these.
            hidden = hidden_share(answers.count, alpha) if share else 0.0
            halves.append(max(quantile * spread, hidden))
        bounds, surely = ((lost - half, lost + half) for half in halves)
        word = word_of(bounds, surely, margin)
        gap = max(margin - lost, lost)
        needed = rounded(answers.count * (halves[1] / gap) ** 2, answers.count) if word == CANNOT_TELL else None
        return Verdict(word, *bounds, needed)

    def _spread(self, answers: Answers, metric: Metric) -> float | None:
        """Standard error of what is lost; None where the metric cannot be measured without some of the samples."""
        if metric.name not in self._float_without:
            case = case_of(self.reference, self.reference, self.size)
            self._float_without[metric.name] = self._without(case, metric.name)
        without = self._without(case_of(answers, self.reference, self.size), metric.name)
        differences = self._float_without[metric.name] - without
        if not np.isfinite(differences).all():
            return None
        return math.sqrt((GROUPS - 1) / GROUPS * float(np.square(differences - differences.mean()).sum()))

    def _without(self, case: Case, name: str) -> Array:
        """A metric without each group; NaN where it cannot be measured."""
        group = np.random.default_rng(0).permutation(self.reference.count) % GROUPS
        if self.task.without is not None:
            known = self.task.without(case, [np.flatnonzero(group == left_out) for left_out in range(GROUPS)])
            return np.array([each.get(name, math.nan) for each in known])
        values = []
        for left_out in range(GROUPS):
            kept = np.flatnonzero(group != left_out)
            chosen, reference = (
                {output: taken(answer, kept) for output, answer in outputs.items()}
                for outputs in (case.outputs, case.reference)
            )
            truth = None if case.truth is None else taken(case.truth, kept)
            part = Case(chosen, truth, chosen if case.reference is case.outputs else reference, case.size)
            values.append(self.task.measure(part).get(name, math.nan))
        return np.array(values)


def taken(answer: Any, indices: Any) -> Any:  # noqa: ANN401 - an array or a sequence of arrays, and integers
    """Some of the samples; of arrays too large for memory a list of views."""
    if isinstance(answer, np.ndarray) and not isinstance(answer, np.memmap):
        return answer[indices]
    return [answer[int(index)] for index in indices]
