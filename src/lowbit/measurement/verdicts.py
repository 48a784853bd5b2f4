"""The verdict of each row: from the counts of a classifier's answers, and for other tasks from how much the metric
varies (`certainty.spread`): measuring it on hundreds of bootstrap samples would take longer than everything else.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lowbit.certainty.certificate import rounded
from lowbit.certainty.paired import Paired
from lowbit.certainty.spread import LEAST_SAMPLES, Spread, groups, standard_error
from lowbit.certainty.verdicts import CANNOT_TELL, CONFIDENCE, MARGIN, Verdict, verdict, word_of
from lowbit.measurement.accuracy import Score
from lowbit.measurement.judging import case_of
from lowbit.measurement.prediction import Answers
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks import Case, Task

Array = np.ndarray[Any, np.dtype[Any]]


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
        found = self.spread(
            answers.named_as(self.reference), metric, metric.best * (before - scored.scores[metric.name])
        )
        if found is None:
            return Verdict(CANNOT_TELL, -math.inf, math.inf)
        margin = MARGIN if found.share else MARGIN * abs(before)
        bounds, surely = (found.bounds(alpha) for alpha in (1 - CONFIDENCE, (1 - CONFIDENCE) / 2))
        word = word_of(bounds, surely, margin)
        gap = max(margin - found.drop, found.drop)
        half = found.half((1 - CONFIDENCE) / 2)
        needed = rounded(found.samples * (half / gap) ** 2, found.samples) if word == CANNOT_TELL else None
        return Verdict(word, *bounds, needed)

    def spread(self, answers: Answers, metric: Metric, lost: float) -> Spread | None:
        """How far what a file loses may be from what it loses on other samples; None where that cannot be measured.

        Args:
            answers: of the file, named as the float model's.
            metric: of the task.
            lost: of it, on all samples.
        """
        if answers.count < LEAST_SAMPLES:
            return None
        if metric.name not in self._float_without:
            case = case_of(self.reference, self.reference, self.size)
            self._float_without[metric.name] = self._without(case, metric.name)
        without = self._without(case_of(answers, self.reference, self.size), metric.name)
        error = standard_error((self._float_without[metric.name] - without).tolist())
        if not math.isfinite(error):
            return None
        share = metric.unit == "%"
        return Spread(answers.count, lost, error, share, f"{'points' if share else 'hundredths'} of {metric.title}")

    def _without(self, case: Case, name: str) -> Array:
        """A metric without each group; NaN where it cannot be measured."""
        left_out = groups(self.reference.count)
        if self.task.without is not None:
            return np.array([each.get(name, math.nan) for each in self.task.without(case, left_out)])
        values = []
        for group in left_out:
            kept = np.setdiff1d(np.arange(self.reference.count), group)
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
