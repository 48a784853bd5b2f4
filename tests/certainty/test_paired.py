"""Bounds of a drop: against exact probabilities over all outcomes, and their properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.certainty.intervals import upper_bound
from lowbit.certainty.paired import Paired, counted, drop_bounds
from lowbit.errors import DataError

COUNTS = st.integers(1, 300).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, min(n, 9)), st.integers(0, min(n, 9)))
).filter(lambda case: case[1] + case[2] <= case[0])  # fmt: skip


def probability(images: int, lost: int, gained: int, shares: tuple[float, float]) -> float:
    """Of one outcome, by the multinomial distribution."""
    rest = images - lost - gained
    ways = math.comb(images, lost) * math.comb(images - lost, gained)
    return ways * shares[0] ** lost * shares[1] ** gained * (1 - sum(shares)) ** rest


@pytest.mark.parametrize(
    "shares",
    [(0.05, 0.0), (0.03, 0.03), (0.06, 0.02), (0.0, 0.04)],
    ids=["only lost", "as many gained", "more lost", "only gained"],
)
def test_bounds_are_wrong_in_at_most_one_of_twenty_cases(shares):
    images, drop, wrong_low, wrong_high = 40, shares[0] - shares[1], 0.0, 0.0
    for lost in range(9):
        for gained in range(9):
            chance = probability(images, lost, gained, shares)
            if chance > 1e-5:
                low, high = drop_bounds(Paired(images, lost, gained))
                wrong_low += chance * (low > drop + 1e-12)
                wrong_high += chance * (high < drop - 1e-12)
    assert wrong_low <= 0.05 + 1e-3  # what is left out
    assert wrong_high <= 0.05 + 1e-3


@settings(max_examples=25)
@given(COUNTS)
def test_bounds_enclose_what_was_seen_and_turn_with_the_files(case):
    paired = Paired(*case)
    low, high = drop_bounds(paired)
    assert -1 <= low <= paired.drop <= high <= 1
    turned = drop_bounds(Paired(paired.images, paired.gained, paired.lost))
    assert turned == pytest.approx((-high, -low), abs=1e-12)


@settings(max_examples=15)
@given(COUNTS)
def test_more_confidence_and_more_looks_cost_width(case):
    paired = Paired(*case)
    low, high = drop_bounds(paired)
    for wider in (drop_bounds(paired, confidence=0.99), drop_bounds(paired, looks=5)):
        assert wider[0] <= low
        assert wider[1] >= high
    assert drop_bounds(paired, confidence=0.99) == pytest.approx(drop_bounds(paired, looks=5), abs=1e-9)


def test_where_nothing_changed_the_bound_is_what_may_be_hidden():
    # All images lost none: exactly a proportion, but for the share of the error that goes to the nuisance.
    assert drop_bounds(Paired(372, 0, 0))[1] == pytest.approx(upper_bound(0, 372, 0.05), rel=2e-3)


def test_many_images_agree_with_the_normal_distribution():
    paired = Paired(20_000, 300, 240)
    half = 1.644854 * math.sqrt((540 - 60**2 / 20_000) / 20_000**2)
    assert drop_bounds(paired) == pytest.approx((0.003 - half, 0.003 + half), rel=0.02)


def test_bounds_are_much_narrower_than_two_proportions():
    low, high = drop_bounds(Paired(1500, 25, 20))
    apart = upper_bound(25, 1500, 0.025) - (1 - upper_bound(1480, 1500, 0.025))
    assert high < 0.75 * apart
    assert low < 0


def test_without_labels_changed_predictions_bound_the_drop():
    before, after = np.array([0, 1, 2, 1]), np.array([0, 2, 2, -1])
    assert counted(before, after) == Paired(4, 2, 0, labeled=False)
    assert counted(before, after, np.array([0, 2, 1, 1])) == Paired(4, 1, 1)
    high = drop_bounds(Paired(4, 2, 0, labeled=False))[1]
    assert high == pytest.approx(upper_bound(2, 4, 0.05))


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 2, 2), (3, -1, 0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(DataError, match="cannot be"):
        Paired(*counts)


@pytest.mark.parametrize(("confidence", "looks"), [(1.0, 1), (0.0, 1), (95.0, 1), (0.95, 0)])
def test_a_confidence_that_cannot_be_reached_is_refused(confidence, looks):
    with pytest.raises(DataError, match="cannot be reached"):
        drop_bounds(Paired(10, 0, 0), confidence=confidence, looks=looks)
