"""The guarantee: 1,000 experiments on known truth each, in which at most 5 % of the certificates may be wrong.

Three standard deviations of a binomial of 1,000 and 5 % are 2.1 %, which is what chance may add.
"""

from functools import cache

import numpy as np
import pytest

from lowbit.certainty.certificate import certify, certify_in_order
from lowbit.certainty.paired import Paired
from lowbit.certainty.sequential import GO_ON, SequentialTest, certify_early

EXPERIMENTS = 1000
MOST_WRONG = 0.05 + 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5
LIMIT = 0.03
IMAGES = 100

# Shares of images that are lost and gained; the drop is the limit itself, where a certificate is wrong most often.
TRUTHS = {"only lost": (0.03, 0.0), "few gained": (0.04, 0.01), "many ties": (0.06, 0.03)}
TRUTH = pytest.mark.parametrize("truth", list(TRUTHS.values()), ids=list(TRUTHS))


@cache
def certified(images: int, lost: int, gained: int, looks: int = 1) -> bool | None:
    return certify(Paired(images, lost, gained), LIMIT, looks=looks).holds


def experiments(truth, images=IMAGES, candidates=1):
    """Counts [experiments, candidates, 2] of images lost and gained."""
    generator = np.random.default_rng(1)
    counts = generator.multinomial(images, (*truth, 1 - sum(truth)), size=(EXPERIMENTS, candidates))
    return counts[..., :2].tolist()


@TRUTH
def test_a_certificate_on_all_images(truth):
    wrong = [certified(IMAGES, *counts[0]) for counts in experiments(truth)]
    assert np.mean([holds is True for holds in wrong]) <= MOST_WRONG


def test_nor_is_a_file_that_is_within_the_limit_refused():
    wrong = [certified(IMAGES, *counts[0]) is False for counts in experiments(TRUTHS["few gained"])]
    assert np.mean(wrong) <= MOST_WRONG


def test_any_of_many_candidates():
    chosen = [
        any(certified(IMAGES, *each, looks=4) for each in counts)
        for counts in experiments(TRUTHS["few gained"], IMAGES, 4)
    ]
    assert np.mean(chosen) <= MOST_WRONG
    # Without the correction it would not hold: the test can fail.
    chosen = [
        any(certified(IMAGES, *each) for each in counts) for counts in experiments(TRUTHS["few gained"], IMAGES, 4)
    ]
    assert np.mean(chosen) > MOST_WRONG


def test_candidates_in_order_need_no_correction():
    wrong = [
        len(certify_in_order([Paired(IMAGES, *each) for each in counts[:2]], LIMIT)) == 2
        for counts in experiments(TRUTHS["few gained"], IMAGES, 2)[:200]
    ]
    # A second candidate is looked at only if the first, which exceeds the limit, was certified.
    assert np.mean(wrong) <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize("truth", [TRUTHS["only lost"], TRUTHS["many ties"]], ids=["only lost", "many ties"])
def test_stopping_whenever_it_looks_good(truth):
    images, chunk = 600, 60
    lost, gained = truth
    draws = np.random.default_rng(2).random((EXPERIMENTS, images))
    differences = np.where(draws < lost, 1, np.where(draws < lost + gained, -1, 0))
    answers = []
    for row in differences:
        test = SequentialTest(LIMIT)
        answers.append(
            next((a for at in range(0, images, chunk) if (a := test.feed(row[at : at + chunk])) != GO_ON), GO_ON)
        )
    # The drop is the limit: "holds" is wrong, and so is "fails".
    assert np.mean([answer != GO_ON for answer in answers]) <= 2 * MOST_WRONG
    assert np.mean([answer == "holds" for answer in answers]) <= MOST_WRONG


@pytest.mark.parametrize(("shares", "says", "most"), [((0.0, 0.0), True, 300), ((0.12, 0.02), False, 300)])
def test_clear_cases_end_after_a_few_hundred_images(shares, says, most):
    generator = np.random.default_rng(3)

    def chunks():
        for _ in range(100):
            lost, gained, _ = generator.multinomial(50, (*shares, 1 - sum(shares))).tolist()
            yield Paired(50, lost, gained)

    certificate = certify_early(chunks(), LIMIT)
    assert certificate.holds is says
    assert certificate.images <= most


def test_undecided_at_the_end_all_images_decide():
    # Half of the error is left for the last look, whose bounds are sharper.
    chunks = [Paired(50, 0, 0)] * 3
    assert SequentialTest(LIMIT, confidence=0.975).feed([0] * 150) == GO_ON
    certificate = certify_early(chunks, LIMIT)
    assert certificate.holds
    assert certificate.images == 150
    assert certificate.high == pytest.approx(1 - 0.025 ** (1 / 150), rel=2e-3)
