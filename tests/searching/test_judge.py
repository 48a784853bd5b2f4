"""What is only chance turns no search back, and what is only lucky is still an answer."""

import numpy as np
import pytest

import lowbit
from lowbit.certainty.paired import Paired
from lowbit.measurement.exam import Exam
from lowbit.searching.candidates import Candidate
from lowbit.searching.judge import Judge
from lowbit.searching.limits import SearchLimits
from lowbit.searching.marks import Marks, marks


@pytest.fixture
def candidate(model):
    decision = lowbit.plan(model, "linear4", effort="fast")

    def made(size, *, drop, expected, evidence=None):
        seen = Marks(0.001, drop, expected, evidence, 1.0)
        return Candidate(str(size), {}, decision, bytes(size), seen, seen)

    return made


def test_a_sample_that_is_lost_by_chance_turns_no_search_back(candidate):
    judge = Judge(SearchLimits(max_drop=0.5), apart=False)
    unlucky, lucky = candidate(10, drop=0.54, expected=0.1), candidate(8, drop=0.0, expected=0.9)
    assert [[test(each) for test in judge.tests] for each in (unlucky, lucky)] == [[True, False], [False, True]]
    assert judge.best([candidate(20, drop=0.0, expected=0.0), unlucky, lucky]) is lucky


def test_where_other_samples_certify_those_that_choose_have_to_be_as_sure(candidate):
    judge = Judge(SearchLimits(max_drop=0.5), apart=True)
    assert judge.tests == (judge.accepts,)
    few = candidate(10, drop=0.4, expected=-1.0, evidence=Paired(1000, 30, 26))
    many = candidate(10, drop=0.0, expected=0.6, evidence=Paired(5000, 20, 20))
    assert [judge.accepts(each) for each in (few, many)] == [False, True]


def test_the_expected_drop_is_measured_with_the_counted_one(model, data):
    exam = Exam.of(model, data)
    coarse = lowbit.quantize(model, "linear2", steps=()).to_bytes()
    seen = marks(exam, coarse)
    assert seen.expected == pytest.approx(seen.drop, abs=300 / np.sqrt(data.count))
    assert seen.expected > 0
    assert marks(exam, model.to_bytes()).expected == 0.0


def test_of_answers_that_are_not_finite_the_count_is_all_there_is(model, data):
    exam = Exam.of(model, data)
    name = next(iter(model.weights))
    broken = model.with_weights({name: np.full_like(model.weights[name], np.nan)})
    seen = marks(exam, broken.to_bytes())
    assert seen.expected == seen.drop > 50
