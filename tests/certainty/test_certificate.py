"""What certificates say, in numbers and in sentences; bootstrap of other scores; verdicts."""

import numpy as np
import pytest

from lowbit.certainty.certificate import certify, certify_in_order, certify_scores
from lowbit.certainty.paired import Paired, drop_bounds
from lowbit.certainty.sequential import SequentialTest, certify_early, sequential_bounds
from lowbit.certainty.verdicts import verdict
from lowbit.errors import DataError


def test_a_certificate_that_holds():
    certificate = certify(Paired(1000, 1, 1), 0.01)
    assert (certificate.holds, certificate.needed) == (True, None)
    assert certificate.sentence() == (
        "At most 1.00 points of accuracy are lost, with 95 % confidence: 0.00 on these 1,000 samples, at most "
        f"{100 * certificate.high:.2f} on others like them."
    )


def test_a_limit_that_is_exceeded():
    certificate = certify(Paired(1000, 60, 10), 0.01, looks=3)
    assert (certificate.holds, certificate.needed) == (False, None)
    assert "More than 1.00 points of accuracy are lost, with 95 % confidence for all 3 candidates" in (
        certificate.sentence()
    )


def test_few_images_say_how_many_would_tell():
    certificate = certify(Paired(372, 0, 0), 0.005)
    assert (certificate.holds, certificate.needed) == (None, 600)  # 0.995^n = 0.05 at 597.6
    assert "one sample is 0.27. About 600 samples would tell." in certificate.sentence()
    again = certify(Paired(600, 0, 0), 0.005)
    assert again.holds


@pytest.mark.parametrize(("lost", "gained"), [(4, 3), (12, 11), (9, 2)])
def test_as_many_as_are_needed_do_tell(lost, gained):
    certificate = certify(Paired(500, lost, gained), 0.01)
    assert certificate.holds is None
    times = 1.1 * certificate.needed / 500
    assert certify(Paired(round(500 * times), round(lost * times), round(gained * times)), 0.01).holds is not None


def test_a_drop_as_large_as_the_limit_is_never_told():
    certificate = certify(Paired(400, 4, 0), 0.01)
    assert (certificate.holds, certificate.needed) == (None, None)
    assert "More samples would hardly tell" in certificate.sentence()


def test_without_labels_the_sentence_speaks_of_predictions():
    certificate = certify(Paired(2000, 4, 0, labeled=False), 0.01)
    assert certificate.holds
    assert certificate.sentence().startswith(
        "At most 1.00 percent of predictions change, with 95 % confidence: 0.20 on"
    )


def test_candidates_in_order_end_with_the_first_that_does_not_hold():
    looked_at = []

    def candidates():
        for changed in (0, 1, 30, 0):
            looked_at.append(changed)
            yield Paired(500, changed, changed)

    assert [each.holds for each in certify_in_order(candidates(), 0.02)] == [True, True, None]
    assert looked_at == [0, 1, 30]


@pytest.mark.parametrize("limit", [0.0, -0.01, 1.0, 50.0])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(DataError, match="no share of 1"):
        certify(Paired(10, 0, 0), limit)


# --- other scores ---------------------------------------------------------------------------------------------------


def test_scores_that_are_means_are_close_to_what_counts_say():
    # Counts are scores too: 1 where an image is lost, -1 where it is gained.
    paired = Paired(1000, 30, 20)
    certificate = certify_scores(np.array(paired.differences), 0.02)
    low, high = drop_bounds(paired)
    assert certificate.drop == pytest.approx(0.01)
    assert (certificate.low, certificate.high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_a_score_that_is_no_mean_is_given_as_a_function_of_indices():
    generator = np.random.default_rng(0)
    before = generator.random(300)
    after = before - 0.05 + generator.normal(0, 0.02, 300)

    def drop(indices):
        return float(np.median(before[indices]) - np.median(after[indices]))

    certificate = certify_scores(drop, 0.2, samples=300, measure="points of the median")
    assert certificate.holds
    assert certificate.low < 0.05 < certificate.high
    assert "points of the median" in certificate.sentence()
    assert certify_scores(drop, 0.01, samples=300).holds is False


def test_scores_in_which_nothing_changed_still_hide_something():
    certificate = certify_scores(np.zeros(100), 0.01)
    assert certificate.holds is None
    assert certificate.high == pytest.approx(1 - 0.05**0.01)


def test_scores_are_refused_where_they_are_too_few_or_too_large():
    with pytest.raises(DataError, match="19 samples"):
        certify_scores(np.zeros(19), 0.01)
    with pytest.raises(DataError, match=r"outside -1\.\.1"):
        certify_scores(np.full(30, 1.5), 0.01)
    with pytest.raises(DataError, match="number of samples"):
        certify_scores(lambda indices: 0.0, 0.01)


# --- stopping early -------------------------------------------------------------------------------------------------


def test_bounds_for_stopping_are_wider_and_do_not_depend_on_chunks():
    paired = Paired(800, 20, 10)
    low, high = sequential_bounds(paired)
    assert low < drop_bounds(paired)[0] < drop_bounds(paired)[1] < high
    whole, parts = SequentialTest(0.02), SequentialTest(0.02)
    whole.feed(paired.differences)
    for start in range(0, 800, 100):
        parts.feed(paired.differences[start : start + 100])
    assert (whole.images, whole.drop) == (parts.images, parts.drop) == (800, pytest.approx(0.0125))


def test_an_answer_that_was_given_stays_and_scores_may_be_fractions():
    test = SequentialTest(0.05)
    assert test.feed(np.full(300, 0.01)) == "holds"
    assert test.feed(np.ones(1000)) == "holds"
    assert SequentialTest(0.05).feed(np.full(300, 0.2)) == "fails"
    with pytest.raises(DataError, match="reach from"):
        test.feed([2.0])
    with pytest.raises(DataError, match="no images"):
        certify_early([], 0.05)


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ((372, 0, 0), "same"),
        ((372, 10, 9), "cannot tell"),
        ((372, 12, 0), "worse"),
        ((372, 0, 12), "better"),
        ((200, 0, 0), "cannot tell"),
        ((20_000, 130, 50), "same"),
    ],
)
def test_verdicts(counts, word):
    said = verdict(Paired(*counts))
    assert said.word == word
    assert (said.needed is not None) == (word == "cannot tell")


def test_two_equal_files_are_told_apart_in_at_most_one_of_twenty_cases():
    counts = np.random.default_rng(0).multinomial(200, (0.02, 0.02, 0.96), size=1000)[:, :2]
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    apart = [verdict(Paired(200, *each)).word in ("better", "worse") for each in distinct.tolist()]
    assert np.dot(apart, times) / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_without_labels_nothing_is_better_or_worse():
    assert verdict(Paired(372, 0, 0, labeled=False)).word == "same"
    many = verdict(Paired(372, 200, 0, labeled=False))
    assert (many.word, many.needed) == ("cannot tell", None)
    assert many.low == -many.high
