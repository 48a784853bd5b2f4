"""Weights fitted anew to what a layer's inputs have become, and outputs that vary as much as they should."""

from dataclasses import replace

import numpy as np
import pytest

from lowbit.calibration.moments import MomentSums
from lowbit.quantization.solving import ridge
from lowbit.quantization.solving.refit import LARGEST_GAIN, refit_bias, refit_weights
from lowbit.quantization.solving.ridge import typical_power


def moments_of(x, t, *, batches=4, **how):
    """Moments of positions [groups, columns or rows, positions] that are seen in so many batches."""
    sums = MomentSums(**how)
    for part in np.array_split(np.arange(x.shape[2]), batches):
        sums.add(x[:, :, part], t[:, :, part])
    return sums.result()


def refitted(weights, moments):
    return refit_weights(weights, moments, typical_power(weights, moments.second))


def test_the_weights_that_undo_a_change_of_the_inputs_are_found(monkeypatch):
    monkeypatch.setattr(ridge, "RIDGES", (1e-7,))
    generator = np.random.default_rng(3)
    weights, bias = generator.standard_normal((1, 4, 6)), generator.standard_normal(4)
    x = generator.standard_normal((1, 6, 5000)) + 2
    change = np.eye(6) + 0.2 * generator.standard_normal((6, 6))
    moments = moments_of(change @ x + 0.5, weights @ x + bias[:, None])
    fitted = refitted(weights, moments)
    np.testing.assert_allclose(fitted, weights @ np.linalg.inv(change), atol=1e-3)
    wanted = bias - (fitted @ np.full((6, 1), 0.5))[0, :, 0]
    np.testing.assert_allclose(refit_bias(fitted, moments)[0], wanted, atol=5e-3)


@pytest.mark.parametrize("with_power", [True, False])
def test_columns_never_seen_keep_their_trained_weights(with_power):
    """But for the gain of their row."""
    generator = np.random.default_rng(4)
    weights = generator.standard_normal((1, 4, 6))
    x = generator.standard_normal((1, 6, 500))
    x[:, 2] = 0
    fitted = refitted(weights, moments_of(0.5 * x, weights @ x, with_power=with_power))
    gain = fitted[:, :, 2] / weights[:, :, 2]
    if with_power:
        assert ((gain >= 1 - 1e-6) & (gain < 1.2)).all()
    else:
        np.testing.assert_allclose(gain, 1, rtol=1e-5)
    np.testing.assert_allclose(fitted[:, :, 3], 2 * weights[:, :, 3], rtol=0.2)


def test_channels_that_are_nearly_always_zero_keep_their_trained_weights():
    """What their few values happen to agree with is no reason for weights a hundred times as large."""
    generator = np.random.default_rng(5)
    weights = generator.standard_normal((1, 4, 6))
    x = generator.standard_normal((1, 6, 500))
    x[:, 2] *= 1e-3 * (generator.random(500) < 0.05)
    change = np.eye(6) + 0.2 * generator.standard_normal((6, 6)) * (np.arange(6) != 2)
    wanted = weights @ change @ x + 0.3 * generator.standard_normal((1, 4, 500))
    fitted = refitted(weights, moments_of(x, wanted))
    np.testing.assert_allclose(fitted[:, :, 2], weights[:, :, 2], rtol=0.1, atol=0.05)
    assert np.abs(fitted - weights).max() > 0.1


@pytest.mark.parametrize(("noise", "lost"), [(0.3, 0.03), (0.8, 0.1)])
def test_outputs_vary_as_much_as_they_should_on_images_never_seen(noise, lost):
    """Least squares from noisy inputs comes out too small: without the gain some of the variance is lost."""
    generator = np.random.default_rng(7)
    weights = generator.standard_normal((2, 5, 8)) / np.sqrt(8)

    def positions(count):
        x = generator.standard_normal((2, 8, count)) * np.geomspace(0.5, 2, 8)[:, None]
        return x, x + noise * generator.standard_normal(x.shape)

    seen, inputs = positions(20_000)
    fitted = refitted(weights, moments_of(inputs, weights @ seen))
    plain = refitted(weights, moments_of(inputs, weights @ seen, with_power=False))
    exact, unseen = positions(20_000)
    wanted = (weights @ exact).var(axis=2)
    np.testing.assert_allclose((fitted @ unseen).var(axis=2) / wanted, 1, atol=0.05)
    assert ((plain @ unseen).var(axis=2) / wanted).mean() < 1 - lost


def test_outputs_are_never_made_smaller_and_at_most_half_as_large_again():
    generator = np.random.default_rng(8)
    weights = generator.standard_normal((1, 3, 4))
    x = generator.standard_normal((1, 4, 400))
    for factor, gain in ((0.1, 1.0), (100.0, LARGEST_GAIN)):
        moments = moments_of(x, weights @ x)
        fitted = refitted(weights, replace(moments, output_power=factor * moments.output_power))
        np.testing.assert_allclose(fitted, gain * weights, rtol=1e-3)


def test_a_channel_whose_output_never_changes_is_left_alone():
    weights = np.ones((1, 2, 3))
    x = np.zeros((1, 3, 50))
    np.testing.assert_allclose(refitted(weights, moments_of(x, np.ones((1, 2, 50)))), weights)
