"""Ridges found by cross-validation: what was fitted to some positions has to hold on others."""

import numpy as np
import pytest

from lowbit.calibration.moments import MomentSums
from lowbit.quantization.solving import ridge
from lowbit.quantization.solving.gptq import gptq
from lowbit.quantization.solving.grids import UniformGrid
from lowbit.quantization.solving.problem import Problem, objective
from lowbit.quantization.solving.refit import refit_weights
from lowbit.quantization.solving.ridge import (
    DAMPING,
    RIDGES,
    ROUNDING_RIDGES,
    ROUNDING_UNJUDGED,
    UNJUDGED,
    refit_ridge,
    ridged,
    rounding_ridge,
    typical_power,
)

ROWS, COLUMNS = 64, 48


def layer(seed=0, *, noise=0.5):
    """Trained weights [1, rows, columns], and what draws positions of changed inputs with the wanted outputs.

    Columns depend on each other, and the inputs are mixed and noisy, as behind quantized layers.
    """
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((1, ROWS, COLUMNS)) / np.sqrt(COLUMNS)
    mixing = generator.standard_normal((COLUMNS, COLUMNS)) / np.sqrt(COLUMNS) + np.eye(COLUMNS)
    change = np.eye(COLUMNS) + 0.3 * generator.standard_normal((COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)

    def positions(count):
        x = mixing @ generator.standard_normal((1, COLUMNS, count))
        return change @ x + noise * generator.standard_normal(x.shape), weights @ x

    return weights, positions


def moments_of(x, t, *, batches=4, with_power=False):
    """Without the power of outputs the re-fit has no gain, and is the ridge regression alone."""
    sums = MomentSums(with_power=with_power)
    for part in np.array_split(np.arange(x.shape[2]), batches):
        sums.add(x[:, :, part], t[:, :, part])
    return sums.result()


def lost(weights, x, t):
    """Share of the outputs' variance that is missed, means apart."""
    error = weights @ x - t
    return float(error.var(axis=2).sum() / t.var(axis=2).sum())


def chosen(weights, moments):
    return refit_ridge(weights, moments, typical_power(weights, moments.second))


def refitted(weights, moments):
    return refit_weights(weights, moments, typical_power(weights, moments.second))


@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_of_the_re_fit_grows_as_positions_become_few(seed):
    weights, positions = layer(seed)
    ridges = [chosen(weights, moments_of(*positions(count * COLUMNS))) for count in (200, 20, 4, 1)]
    assert ridges == sorted(ridges)
    assert ridges[0] < 0.1 * ridges[-1]


@pytest.mark.parametrize(("count", "all_tried"), [(200, True), (1, False)])
def test_ridges_weaker_than_one_that_loses_are_not_tried(monkeypatch, count, all_tried):
    weights, positions = layer(0)
    moments, solve, solved = moments_of(*positions(count * COLUMNS)), np.linalg.solve, []
    monkeypatch.setattr(ridge, "cores", lambda: 1)
    monkeypatch.setattr(np.linalg, "solve", lambda *given: solved.append(1) or solve(*given))
    tried = chosen(weights, moments)
    assert (len(solved) == 2 * len(RIDGES)) == all_tried
    assert tried >= RIDGES[0]
    assert (tried > RIDGES[0]) or all_tried


@pytest.mark.parametrize("positions_per_column", [1, 2])
def test_the_chosen_re_fit_holds_on_positions_never_seen(positions_per_column, monkeypatch):
    weights, positions = layer()
    moments = moments_of(*positions(positions_per_column * COLUMNS))
    unseen = positions(5000)
    errors = {None: lost(weights, *unseen), "chosen": lost(refitted(weights, moments), *unseen)}
    for strength in RIDGES:
        monkeypatch.setattr(ridge, "refit_ridge", lambda *_, strength=strength: strength)
        monkeypatch.setattr("lowbit.quantization.solving.refit.refit_ridge", ridge.refit_ridge)
        errors[strength] = lost(refitted(weights, moments), *unseen)
    assert errors["chosen"] < 0.9 * errors[None]
    assert errors["chosen"] < 0.9 * errors[RIDGES[0]]
    assert errors["chosen"] < 1.2 * min(errors.values())


def test_no_re_fit_wins_where_squares_are_beyond_float32():
    weights, positions = layer()
    x, t = positions(100)
    with np.errstate(all="ignore"):
        moments = moments_of(1e25 * x, 1e25 * t)
        assert chosen(weights, moments) is None


def test_where_no_re_fit_wins_on_the_other_half_the_trained_weights_stay():
    """Half of the batches want what the other half does not."""
    generator = np.random.default_rng(2)
    weights, change = generator.standard_normal((2, 1, ROWS, COLUMNS))
    x = generator.standard_normal((1, COLUMNS, 4 * COLUMNS))
    sign = np.repeat([1, -1], 2 * COLUMNS)
    moments = moments_of(x, weights @ x + sign * (change @ x), batches=2)
    assert chosen(weights, moments) is None
    np.testing.assert_array_equal(refitted(weights, moments), weights)


def test_a_single_batch_has_nothing_to_judge_on():
    weights, positions = layer()
    moments = moments_of(*positions(500), batches=1)
    assert not moments.halves
    assert chosen(weights, moments) == UNJUDGED
    typical = typical_power(weights, moments.second)
    assert rounding_ridge(weights, moments, typical, 4) == ROUNDING_UNJUDGED


def test_units_of_channels_do_not_matter():
    """Inputs ten times as small that weights ten times as large read: the same layer, and about the same re-fit."""
    weights, positions = layer(3)
    x, t = positions(4 * COLUMNS)
    unseen = positions(5000)
    units = 10.0 ** np.random.default_rng(0).uniform(-0.5, 0.5, (COLUMNS, 1))
    plain = lost(refitted(weights, moments_of(x, t)), *unseen)
    scaled = lost(refitted(weights / units[:, 0], moments_of(units * x, t)), units * unseen[0], unseen[1])
    assert scaled == pytest.approx(plain, rel=0.1)
    assert plain < 0.9 * lost(weights, *unseen)


def test_a_column_that_is_dead_in_calibration_keeps_its_trained_weights():
    weights, positions = layer(4)
    x, t = positions(4 * COLUMNS)
    x[:, 7] = 0
    x[:, 8] *= 1e-4 * (np.random.default_rng(0).random(x.shape[2]) < 0.05)
    fitted = refitted(weights, moments_of(x, t))
    np.testing.assert_allclose(fitted[:, :, 7], weights[:, :, 7], rtol=1e-6)
    np.testing.assert_allclose(fitted[:, :, 8], weights[:, :, 8], atol=0.02 * np.abs(weights).max())
    others = np.delete(np.arange(COLUMNS), [7, 8])
    assert np.abs(fitted - weights)[:, :, others].max() > 0.1 * np.abs(weights).max()


def test_a_column_has_the_power_with_which_it_contributes_the_mean():
    weights, positions = layer(5)
    power = np.einsum("gkk->gk", moments_of(*positions(5000)).second)
    typical = typical_power(weights, moments_of(*positions(5000)).second)
    contribution = typical * np.square(weights).mean(axis=1)
    mean = (power * np.square(weights).mean(axis=1)).mean()
    np.testing.assert_allclose(contribution, mean, rtol=0.1)


def test_a_layer_that_saw_nothing_is_no_obstacle():
    weights = np.random.default_rng(6).standard_normal((2, 4, 3))
    moments = moments_of(np.zeros((2, 3, 40)), np.zeros((2, 4, 40)))
    typical = typical_power(weights, moments.second)
    assert (typical > 0).all()
    assert np.isfinite(np.linalg.inv(ridged(moments.second, 1.0, typical))).all()
    np.testing.assert_array_equal(refitted(weights, moments), weights)
    assert rounding_ridge(weights, moments, typical, 4) in ROUNDING_RIDGES


def rounded_loss(weights, second, judge):
    """What GPTQ with one H loses by another, at 3 bits."""
    scale = np.abs(weights).max(axis=2, keepdims=True).astype(np.float32) / 3
    grid = UniformGrid(scale, np.zeros_like(scale), np.zeros(COLUMNS, np.intp), -3, 3)
    problem = Problem.of(weights, second)
    return float(objective(weights, problem.stored(gptq(problem.weights, problem.factor, grid)), judge).sum())


def test_rounding_with_the_chosen_ridge_holds_on_positions_never_seen():
    weights, positions = layer(7)
    judge = moments_of(*positions(10_000)).second
    ridges = []
    for count in (100 * COLUMNS, COLUMNS):
        moments = moments_of(*positions(count))
        typical = typical_power(weights, moments.second)
        losses = {
            strength: rounded_loss(weights, ridged(moments.second, strength, typical, damping=DAMPING), judge)
            for strength in ROUNDING_RIDGES
        }
        ridges.append(rounding_ridge(weights, moments, typical, 3))
        assert losses[ridges[-1]] <= 1.1 * min(losses.values())
        assert losses[ridges[-1]] < 0.9 * max(losses.values())
    assert ridges[0] < ridges[1]
