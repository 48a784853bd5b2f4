"""Moments of all positions, and of two halves of the batches that add up to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit.calibration import moments
from lowbit.calibration.moments import MomentSums


def batches_of(sizes, *, groups=2, rows=3, columns=4, seed=0):
    generator = np.random.default_rng(seed)
    for size in sizes:
        x = generator.standard_normal((groups, columns, size)) + 2
        yield x, generator.standard_normal((groups, rows, columns)) @ x + 1


def summed(batches, **how):
    sums = MomentSums(**how)
    for x, t in batches:
        sums.add(x, t)
    return sums.result()


@pytest.mark.parametrize("centered", [True, False])
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=7))
def test_halves_add_up_to_the_whole(centered, sizes):
    whole = summed(batches_of(sizes), centered=centered)
    first, second = whole.halves
    assert (first.positions, second.positions) == (sum(sizes[::2]), sum(sizes[1::2]))
    assert whole.positions == sum(sizes)
    assert not first.halves
    share = first.positions / whole.positions

    def together(name):
        return share * getattr(first, name) + (1 - share) * getattr(second, name)

    for name in ("input_mean", "output_mean"):
        np.testing.assert_allclose(getattr(whole, name), together(name), rtol=1e-5, atol=1e-5)
    # About a common mean moments only add up once those of the two means are counted.
    x, t = (getattr(first, name) - getattr(second, name) for name in ("input_mean", "output_mean"))
    between = share * (1 - share)
    for name, moved in (
        ("second", np.einsum("gi,gj->gij", x, x)),
        ("cross", np.einsum("gr,gi->gri", t, x)),
        ("output_power", t * t),
    ):
        np.testing.assert_allclose(getattr(whole, name), together(name) + between * moved, rtol=1e-3, atol=1e-3)


def test_a_half_is_what_its_batches_alone_give():
    batches = list(batches_of([5, 6, 7, 8, 9]))
    halves = summed(batches).halves
    for half, alone in zip(halves, (summed(batches[::2]), summed(batches[1::2])), strict=True):
        for name in ("second", "cross", "input_mean", "output_mean", "output_power"):
            np.testing.assert_allclose(getattr(half, name), getattr(alone, name), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("with_second", [True, False])
def test_groups_are_summed_alike_however_many_at_a_time(monkeypatch, with_second):
    batches = list(batches_of([30, 20, 40], groups=5))
    together = summed(batches, with_second=with_second)
    monkeypatch.setattr(moments, "CACHED", 2 * 4 * 20 * 8)  # two groups of the smallest batch
    apart = summed(batches, with_second=with_second)
    for name in ("second", "cross", "input_mean", "output_mean", "output_power"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name))


@pytest.mark.parametrize("centered", [True, False])
def test_the_power_of_the_wanted_outputs(centered):
    batches = list(batches_of([50, 60, 70]))
    t = np.concatenate([each for _, each in batches], axis=2)
    wanted = t.var(axis=2) if centered else np.square(t).mean(axis=2)
    np.testing.assert_allclose(summed(batches, centered=centered).output_power, wanted, rtol=1e-6)
    assert not summed(batches, centered=centered, with_power=False).output_power.any()


def test_halves_are_not_kept_where_they_are_not_asked_for_or_cannot_be():
    batches = list(batches_of([50, 60, 70]))
    assert not summed(batches[:1]).halves
    assert not summed(batches, with_halves=False).halves
    assert not summed(batches, with_second=False).halves
    np.testing.assert_allclose(summed(batches, with_halves=False).second, summed(batches).second, rtol=1e-5)
