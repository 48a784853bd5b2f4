"""What errors cost is told from tests that chance disturbs."""

import numpy as np
import pytest

from lowbit.searching.costs import fitted_costs

LAYERS, TESTS = 30, 4


def drawn(*, apart, noise, slope=0.0, seed=0):
    """Levels of layers, tests of them, and powers of their outputs."""
    random = np.random.default_rng(seed)
    levels = dict(enumerate(random.normal(-1.0, apart, LAYERS)))
    powers = dict(enumerate(np.exp(random.normal(0, 2, LAYERS))))
    shown = {}
    for layer, level in levels.items():
        shares = 10.0 ** -np.arange(1, TESTS + 1) * np.exp(random.normal(0, 0.2, TESTS))
        lost = np.exp(level + (1 + slope) * np.log(shares) + random.normal(0, noise, TESTS))
        shown[layer] = [(share * powers[layer], each) for share, each in zip(shares, lost, strict=True)]
    return levels, shown, powers


def errors_of(costs, levels):
    return np.array([costs[layer].level - level for layer, level in levels.items()])


def test_tests_without_noise_are_believed():
    levels, shown, powers = drawn(apart=1.0, noise=0.0, slope=0.3)
    costs = fitted_costs(shown, powers)
    assert errors_of(costs, levels) == pytest.approx(np.zeros(LAYERS), abs=1e-9)
    for layer, tests in shown.items():
        for error, lost in tests:
            assert costs[layer].of(error) == pytest.approx(lost)


def test_of_noise_alone_every_layer_gets_the_same_cost():
    _, shown, powers = drawn(apart=0.0, noise=1.0)
    costs = fitted_costs(shown, powers)
    alone = np.array(
        [np.mean([np.log(lost * powers[layer] / error) for error, lost in shown[layer]]) for layer in shown]
    )
    assert np.std([each.level for each in costs.values()]) < 0.6 * np.std(alone)


def test_levels_are_nearer_than_the_means_of_tests():
    pulled, alone = [], []
    for seed in range(20):
        levels, shown, powers = drawn(apart=0.7, noise=1.4, seed=seed)
        costs = fitted_costs(shown, powers)
        for layer, tests in shown.items():
            shares = np.log([error / powers[layer] for error, _ in tests])
            own = np.mean(np.log([lost for _, lost in tests]) - (1 + costs[layer].slope) * shares)
            pulled.append(costs[layer].level - levels[layer])
            alone.append(own - levels[layer])
    assert np.var(pulled) < 0.9 * np.var(alone)


def test_a_tilt_leads_to_the_cost_that_all_have_in_common():
    _, shown, powers = drawn(apart=1.0, noise=0.1)
    costs = fitted_costs(shown, powers)
    one, other = costs[0], costs[1]
    assert one.of(0.1 * powers[0], tilt=1.0) == pytest.approx(other.of(0.1 * powers[1], tilt=1.0))
    assert one.of(0.1 * powers[0]) != pytest.approx(other.of(0.1 * powers[1]))
    assert one.of(0.0) == 0.0


def test_a_layer_whose_output_is_always_zero_disturbs_no_other():
    _, shown, powers = drawn(apart=1.0, noise=0.1)
    costs = fitted_costs(shown, powers)
    dead = fitted_costs({**shown, "dead": [(1e-30, 1e-9)] * TESTS}, {**powers, "dead": 0.0})
    assert all(dead[layer].level == pytest.approx(each.level) for layer, each in costs.items())
    assert np.isfinite(dead["dead"].of(1e-30))
    assert fitted_costs({"dead": [(1e-30, 1e-9)]}, {"dead": 0.0})["dead"].level == 0.0


def test_one_layer_is_its_own_mean():
    costs = fitted_costs({"only": [(0.1, 0.02), (0.01, 0.002)]}, {"only": 1.0})
    assert costs["only"].of(0.05) == pytest.approx(0.01)
