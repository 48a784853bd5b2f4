"""Drops of metrics that are no counts: their bounds are wrong about as often as they may be."""

import numpy as np
import pytest

from lowbit.certainty.certificate import certify
from lowbit.certainty.spread import GROUPS, LEAST_SAMPLES, Spread, groups, standard_error, student

# Tables of Student's distribution.
QUANTILES = [(19, 0.05, 1.7291), (19, 0.025, 2.0930), (19, 0.005, 2.8609), (9, 0.05, 1.8331), (3, 0.01, 4.5407)]


@pytest.mark.parametrize(("degrees", "alpha", "wanted"), QUANTILES)
def test_students_distribution_is_that_of_tables(degrees, alpha, wanted):
    assert student(alpha, degrees) == pytest.approx(wanted, abs=1e-4)


def test_groups_hold_every_sample_once_and_are_of_one_size():
    found = groups(LEAST_SAMPLES + 3)
    assert sorted(np.concatenate(found).tolist()) == list(range(LEAST_SAMPLES + 3))
    assert {len(group) for group in found} == {2, 3}


def segmented(generator, samples):
    """Pixels of three classes in each image, right ones of two files: sizes differ much, few images lose anything."""
    union = generator.lognormal(0, 1, (samples, 3)) * (generator.random((samples, 3)) < [0.9, 0.6, 0.3])
    quality = generator.beta(6, 2, (samples, 1)) * [1.0, 0.9, 0.8]
    worse = quality - np.abs(generator.normal(0, 0.08, (samples, 3))) * (generator.random((samples, 1)) < 0.4)
    return union, union * quality, union * worse


def miou_lost(union, before, after):
    """From sums over images [..., classes]."""
    return ((before - after) / union).mean(axis=-1)


def wrong(truth, drawn, lost, samples, alpha, *, share, experiments=400):
    """How often each bound is wrong."""
    own, beyond = groups(samples), np.zeros(2)
    for _ in range(experiments):
        values = np.stack(drawn(samples))
        sums = values.sum(axis=1)
        without = [float(lost(*(sums - values[:, group].sum(axis=1)))) for group in own]
        low, high = Spread(samples, float(lost(*sums)), standard_error(without), share=share).bounds(alpha)
        beyond += (truth < low, truth > high)
    return beyond / experiments


@pytest.mark.parametrize(("samples", "alpha"), [(60, 0.05), (200, 0.01)])
def test_bounds_of_a_share_are_wrong_no_more_often_than_they_may_be(samples, alpha):
    """Also of few samples of which few decide, where every bootstrap is wrong twice as often (decision 076)."""
    generator = np.random.default_rng(0)
    truth = miou_lost(*(values.sum(axis=0) for values in segmented(generator, 100_000)))
    found = wrong(truth, lambda count: segmented(generator, count), miou_lost, samples, alpha, share=True)
    assert (found <= alpha).all(), found


def test_bounds_of_other_metrics_are_wrong_about_as_often_as_they_may_be():
    """Of many samples that differ little; the rate itself is known to a percent here."""
    generator = np.random.default_rng(0)

    def errors(samples):
        return np.ones(samples), generator.normal(2.0, 0.5, samples), generator.normal(1.9, 0.5, samples)

    found = wrong(0.1, errors, lambda count, before, after: (before - after) / count, 200, 0.05, share=False)
    assert ((found > 0.01) & (found < 0.085)).all(), found


def test_a_certificate_says_what_is_lost_and_how_many_samples_would_tell():
    close = Spread(400, 0.01, 0.001, share=True, measure="points of mIoU")
    held = certify(close, 0.02)
    assert held.holds
    assert held.sentence().startswith("At most 2.00 points of mIoU are lost, with 95 % confidence: 1.00 on these 400")
    assert certify(close, 0.002).holds is False
    unsure = certify(Spread(400, 0.01, 0.02, share=True, measure="points of mIoU"), 0.02)
    assert unsure.holds is None
    assert unsure.needed == pytest.approx(400 * (student(0.05) * 0.02 / 0.01) ** 2, rel=0.1)
    # Many looks at the same samples make every bound wider.
    assert certify(close, 0.02, looks=100).high > held.high


def test_what_so_many_samples_may_hide_is_the_least_that_a_share_may_lose():
    same = Spread(100, 0.0, 0.0, share=True)
    assert same.bounds(0.05)[1] == pytest.approx(1 - 0.05 ** (1 / 100))
    assert Spread(100, 0.0, 0.0, share=False).bounds(0.05) == (0.0, 0.0)


def test_a_group_that_cannot_be_measured_leaves_no_error():
    assert np.isnan(standard_error([0.1] * (GROUPS - 1) + [np.nan]))
