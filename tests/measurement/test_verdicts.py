"""Verdicts on files: from counts where answers are classes, from the spread of the metric elsewhere."""

import numpy as np
import pytest

from lowbit.certainty.paired import Paired
from lowbit.certainty.spread import student
from lowbit.certainty.verdicts import verdict
from lowbit.measurement.judging import judged
from lowbit.measurement.prediction import Answers
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks import TASKS, Task
from lowbit.measurement.verdicts import Judgement

SAMPLES = 400


def mean_of(case):
    values = np.concatenate([np.ravel(answer) for answer in case.outputs["y"]])
    return {"score": float(values.mean())}


def task(unit="%", best=1, measure=mean_of):
    return Task("toy", (Metric("score", "score", unit, best),), measure, lambda case: True, "any")


def said(of, values, before, *, reference=None):
    reference = reference or Answers({"y": before[:, None]})
    answers = Answers({"y": values[:, None]})
    judgement = Judgement(of, reference, None)
    return judgement.verdict(answers, judged(answers, of, reference=reference), {"score": float(before.mean())})


@pytest.fixture
def scores():
    return np.random.default_rng(0).uniform(0.2, 0.8, SAMPLES)


@pytest.mark.parametrize(
    ("lost", "noise", "word"),
    [(0.0, 1e-4, "same"), (0.05, 0.02, "worse"), (-0.05, 0.02, "better"), (0.001, 0.3, "cannot tell")],
)
def test_the_spread_of_a_metric_gives_the_verdict(scores, lost, noise, word):
    values = scores - lost + np.random.default_rng(1).normal(0, noise, SAMPLES)
    found = said(task(), values, scores)
    assert found.word == word
    assert (found.needed is not None) == (word == "cannot tell")
    assert found.low < lost < found.high
    # Where less is better, the same numbers say the opposite.
    if word in ("better", "worse"):
        assert {word, said(task(best=-1), values, scores).word} == {"better", "worse"}


def test_of_a_mean_the_spread_is_its_standard_error(scores):
    differences = np.random.default_rng(2).normal(0, 0.3, SAMPLES)
    found = said(task(), scores - differences, scores)
    error = differences.std(ddof=1) / np.sqrt(SAMPLES)
    assert (found.high - found.low) / 2 == pytest.approx(
        student(0.05) * error, rel=0.4
    )  # from 20 groups: 16 % of one sigma


def test_what_so_many_samples_may_hide_is_the_least_that_shares_may_lose(scores):
    found = said(task(), scores, scores)
    assert found.high == pytest.approx(1 - 0.05 ** (1 / SAMPLES))
    assert said(task(unit=""), scores, scores).high == 0  # of numbers that are no shares nothing is known


def test_few_samples_and_metrics_that_need_all_of_them_tell_nothing(scores):
    assert said(task(), scores[:39], scores[:39]).word == "cannot tell"

    def of_all(case):
        return mean_of(case) if len(case.outputs["y"]) == SAMPLES else {}

    assert said(task(measure=of_all), scores, scores).word == "cannot tell"


def test_nothing_is_said_where_nothing_is_better_and_of_float_itself(scores):
    assert said(task(best=0), scores, scores) is None
    reference = Answers({"y": scores[:, None]})
    judgement = Judgement(task(), reference, None)
    assert judgement.verdict(reference, judged(reference, task(), reference=reference), {}) is None


def test_counts_decide_on_classifiers():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(300, 4)).astype(np.float32)
    other = logits.copy()
    other[:6] = -other[:6]
    labels = logits.argmax(axis=1).astype(np.int64)
    for truth, paired in ((labels, Paired(300, 6, 0)), (None, Paired(300, 6, 0, labeled=False))):
        reference, answers = Answers({"y": logits}, truth), Answers({"y": other}, truth)
        scored = judged(answers, TASKS["classification"], reference=reference)
        assert Judgement(TASKS["classification"], reference, None).verdict(answers, scored, {}) == verdict(paired)
