"""Intervals of a proportion against numbers worked out by hand, exact fractions and their own definition."""

import math
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.certainty.intervals import (
    binomial_cdf,
    clopper_pearson,
    hidden_share,
    lower_bound,
    upper_bound,
    wilson_interval,
)
from lowbit.errors import DataError

CASES = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def exact_cdf(count: int, total: int, share: Fraction) -> Fraction:
    return sum(
        (math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count + 1)), start=Fraction(0)
    )


def test_wilson_interval_by_hand():
    # 8 of 10, z = 1.96: (0.8 + 0.19207) / 1.38415 -+ 1.41602 * sqrt(0.025605) = 0.49016 .. 0.94332 (Wilson 1927).
    low, high = wilson_interval(8, 10)
    assert (low, high) == (pytest.approx(0.490162, abs=1e-6), pytest.approx(0.943318, abs=1e-6))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(case):
    right, total = case
    low, high = wilson_interval(right, total)
    assert 0 <= low <= right / total <= high <= 1
    z = 1.959963984540054
    for bound in (low, high):  # both ends are where |share - p| = z sqrt(p (1 - p) / n)
        assert abs(right / total - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / total), abs=1e-9)


def test_wilson_interval_refuses_no_images():
    with pytest.raises(DataError, match="not a proportion"):
        wilson_interval(0, 0)


@settings(max_examples=60)
@given(CASES, st.integers(1, 99))
def test_the_binomial_tail_is_that_of_exact_fractions(case, hundredths):
    count, total = case
    share = Fraction(hundredths, 100)
    assert float(binomial_cdf(count, total, float(share))) == pytest.approx(
        float(exact_cdf(count, total, share)), rel=1e-11
    )


def test_the_binomial_tail_of_many_is_that_of_fifty_digits():
    # 30,000 images, where sums of logarithms show their errors.
    getcontext().prec = 50
    total, share = 30_000, Decimal("0.01")
    term = (1 - share) ** total
    tail = Decimal(0)
    for k in range(271):
        tail += term
        term = term * share * (total - k) / ((k + 1) * (1 - share))
    assert float(binomial_cdf(270, total, 0.01)) == pytest.approx(float(tail), rel=1e-9)


def test_the_binomial_tail_at_its_ends():
    counts = np.array([-1, 0, 3, 5, 9])
    np.testing.assert_array_equal(binomial_cdf(counts, 5, 0.0), [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(binomial_cdf(counts, 5, 1.0), [0, 0, 0, 1, 1])


def test_clopper_pearson_as_printed_in_tables():
    # 95 %, by exact tables: 0 of 10: 0 .. 30.85 %; 1 of 10: 0.25 .. 44.50 %; 8 of 10: 44.39 .. 97.48 %.
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(0.308497, abs=1e-6))
    assert clopper_pearson(1, 10) == pytest.approx((0.002529, 0.445016), abs=1e-6)
    assert clopper_pearson(8, 10) == pytest.approx((0.443905, 0.974789), abs=1e-6)


@settings(max_examples=40)
@given(CASES, st.sampled_from([0.1, 0.05, 0.025, 0.001]))
def test_clopper_pearson_solves_its_equation(case, alpha):
    count, total = case
    upper, lower = upper_bound(count, total, alpha), lower_bound(count, total, alpha)
    assert 0 <= lower <= count / total <= upper <= 1
    if count < total:
        assert float(exact_cdf(count, total, Fraction(upper))) == pytest.approx(alpha, rel=1e-9)
    if count > 0:
        assert 1 - float(exact_cdf(count - 1, total, Fraction(lower))) == pytest.approx(alpha, rel=1e-9)


def test_what_images_that_show_nothing_may_hide():
    assert hidden_share(372, 0.05) == pytest.approx(upper_bound(0, 372, 0.05), rel=1e-12)
    assert (1 - hidden_share(299, 0.05)) ** 299 == pytest.approx(0.05)


def test_clopper_pearson_refuses_what_is_no_proportion():
    with pytest.raises(DataError, match="6 of 5 is not a proportion"):
        clopper_pearson(6, 5)
