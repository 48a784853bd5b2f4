"""The rounding core: never uphill, exact where it says so, plain rounding where H is the identity."""

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.quantization.solving import clusters
from lowbit.quantization.solving import linear as linear_rounding
from lowbit.quantization.solving.closest_vector import closest
from lowbit.quantization.solving.clusters import fit_books, solve_clusters
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.gptq import coordinate_descent, gptq
from lowbit.quantization.solving.grids import BookGrid, UniformGrid
from lowbit.quantization.solving.linear import solve_linear
from lowbit.quantization.solving.problem import Problem, damped, inverse_factor, objective
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import Linear

BALANCED = EFFORTS["balanced"]


def problem(seed, groups=1, rows=6, columns=20, *, correlation=0.9):
    """Weights with ill-scaled channels, and a second moment of correlated, ill-scaled inputs."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((groups, rows, columns)) * 10 ** generator.uniform(-1, 1, (groups, rows, 1))
    mixing = generator.standard_normal((groups, columns, columns)) + correlation * 3
    mixing *= 10 ** generator.uniform(-1, 1, (groups, columns, 1))
    return weights, mixing @ mixing.transpose(0, 2, 1) / columns


def uniform(weights, bits=3, *, blocks=1):
    half = 2 ** (bits - 1)
    columns = weights.shape[2]
    scale = np.repeat(np.abs(weights).max(axis=2, keepdims=True) / half, blocks, axis=2).astype(np.float32)
    block = np.arange(columns) * blocks // columns
    return UniformGrid(scale, np.full_like(scale, half), block, 0, 2 * half - 1)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    groups=st.sampled_from([1, 3]),
    columns=st.integers(1, 150),
    bits=st.integers(2, 5),
    book=st.booleans(),
)
def test_descent_never_increases_the_objective(seed, groups, columns, bits, book):
    weights, second = problem(seed, groups, 4, columns)
    second = damped(second, 1e-3)
    if book:
        levels = np.sort(np.random.default_rng(seed).standard_normal((groups, 4, 2**bits)), axis=2).astype(np.float32)
        grid = BookGrid(levels)
    else:
        grid = uniform(weights, bits, blocks=min(2, columns))
    start = np.stack([grid.nearest(weights[:, :, at].astype(np.float32), at) for at in range(columns)], axis=-1)
    before = objective(weights, start, second)
    after = objective(weights, coordinate_descent(weights, start, second, grid), second)
    assert (after <= before * (1 + 1e-5)).all()


def test_feedback_and_descent_beat_nearest_rounding_by_far():
    weights, second = problem(1, rows=32, columns=130)
    second = damped(second, 1e-2)
    grid = uniform(weights)
    nearest = grid.levels(grid.codes(weights.astype(np.float32)))
    fed = gptq(weights, inverse_factor(second), grid)
    moved = coordinate_descent(weights, fed, second, grid)
    errors = [objective(weights, found, second).sum() for found in (nearest, fed, moved)]
    assert errors[2] < errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("groups", [1, 4])
def test_without_correlation_feedback_and_descent_are_round_to_nearest(groups):
    weights, _ = problem(2, groups, 5, 70)
    identity = np.broadcast_to(np.eye(70), (groups, 70, 70)).copy()
    grid = uniform(weights)
    nearest = grid.levels(grid.codes(weights.astype(np.float32)))
    np.testing.assert_array_equal(gptq(weights, inverse_factor(identity), grid), nearest)
    np.testing.assert_array_equal(coordinate_descent(weights, nearest, identity, grid), nearest)


def test_damping_does_not_depend_on_the_units_of_a_channel():
    _, second = problem(12, rows=8, columns=30)
    units = 2.0 ** np.random.default_rng(0).integers(-4, 5, 30)
    plain, scaled = damped(second, 1e-2), damped(second * units * units[:, None], 1e-2)
    np.testing.assert_allclose(scaled, plain * units * units[:, None], rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 12, 128, 300])  # in one block, exactly one, and several
def test_inverse_factor_is_one(columns):
    _, second = problem(3, 2, 1, columns)
    second = damped(second, 1e-2)
    before = second.copy()
    factor = inverse_factor(second).astype(np.float64)
    assert not np.tril(factor, -1).any()
    one = np.eye(columns)[None].repeat(2, 0)
    np.testing.assert_allclose(factor.transpose(0, 2, 1) @ factor @ second, one, atol=3e-3)
    np.testing.assert_array_equal(second, before)


def test_a_second_moment_that_single_precision_cannot_factor_is_factored_in_double():
    second = np.array([[[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]]])
    factor = inverse_factor(second).astype(np.float64)
    np.testing.assert_allclose(np.diag(factor[0]), [1 / np.sqrt(2e-9), 1.0], rtol=1e-5)
    with pytest.raises(np.linalg.LinAlgError):
        inverse_factor(-second)


@pytest.mark.parametrize(("columns", "levels"), [(4, 8), (5, 4), (9, 2)])
def test_closest_equals_brute_force(columns, levels):
    weights, second = problem(columns, 12, 1, columns)
    second = damped(second, 1e-6)
    books = (
        np.sort(np.random.default_rng(0).standard_normal((12, levels)), axis=1) * np.abs(weights[:, 0]).max(1)[:, None]
    )
    start = np.repeat(books[:, :1], columns, axis=1)
    found, proven = closest(weights[:, 0], second, books, start)
    assert proven.all()
    for row in range(12):
        every = np.array(list(itertools.product(books[row], repeat=columns)))
        error = weights[row, 0] - every
        best = np.einsum("nk,kl,nl->n", error, second[row], error).min()
        mine = weights[row, 0] - found[row]
        assert mine @ second[row] @ mine == pytest.approx(best, rel=1e-9)


def test_depthwise_3x3_at_2_bits_is_the_optimum_of_all_262144():
    weights, second = problem(11, 2, 1, 9)
    second = damped(second, 1e-2)
    solution = solve_linear(Problem.of(weights, second), Linear(2, symmetric=False), BALANCED)
    codes = np.array(list(itertools.product(range(4), repeat=9)))
    for group in range(2):
        levels = (codes - solution.zero[group, 0, 0]) * solution.scale[group, 0, 0].astype(np.float64)
        error = weights[group, 0] - levels
        best = np.einsum("nk,kl,nl->n", error, second[group], error, optimize=True).min()
        assert solution.error[group, 0] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(
    "scheme", [Linear(4), Linear(3, symmetric=False), Linear(4, "tensor"), Linear(3, "group", group_size=7)]
)
def test_solved_grids_beat_plain_ones_and_codes_fit(scheme):
    weights, second = problem(4, rows=10, columns=60)
    second = damped(second, 1e-2)
    solution = solve_linear(Problem.of(weights, second), scheme, BALANCED)
    plain = scheme.encode(weights[0].astype(np.float32)).decode()[None]
    assert solution.error.sum() < 0.5 * objective(weights, plain, second).sum()
    low, high = scheme.code_range
    assert solution.codes.min() >= low
    assert solution.codes.max() <= high
    blocks = np.arange(60) // 7 if scheme.per == "group" else np.zeros(60, int)
    decoded = (solution.codes - solution.zero[:, :, blocks]) * solution.scale[:, :, blocks]
    np.testing.assert_allclose(objective(weights, decoded, second), solution.error, rtol=1e-3)


@pytest.mark.parametrize("scheme", [Linear(3), Linear(3, symmetric=False)])
def test_nudged_scales_help_some_rows_and_harm_none(scheme):
    weights, second = problem(3, rows=16, columns=40)
    second = damped(second, 1e-2)
    nudged = solve_linear(Problem.of(weights, second), scheme, EFFORTS["best"])
    without = solve_linear(Problem.of(weights, second), scheme, dataclasses.replace(EFFORTS["best"], nudges=0))
    assert (nudged.error <= without.error * (1 + 1e-5)).all()
    assert nudged.error.sum() < 0.97 * without.error.sum()


@pytest.mark.parametrize("effort", EFFORTS)
def test_more_effort_is_no_worse_and_all_are_deterministic(effort):
    weights, second = problem(5, rows=8, columns=40)
    second = damped(second, 1e-2)
    problems = [Problem.of(weights, second) for _ in range(2)]
    first, again = (solve_linear(each, Linear(3, symmetric=False), EFFORTS[effort]) for each in problems)
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.scale, again.scale)
    best = solve_linear(Problem.of(weights, second), Linear(3, symmetric=False), EFFORTS["best"])
    assert best.error.sum() <= first.error.sum() * 1.02


@pytest.mark.parametrize("bits", [2, 4])
def test_clusters_without_correlation_are_k_means(bits):
    weights = np.random.default_rng(6).standard_normal((1, 12, 30))
    solution = solve_clusters(Problem.of(weights, np.eye(30)[None]), Clusters(bits), BALANCED)
    plain = Clusters(bits).encode(weights[0].astype(np.float32)).decode()
    assert solution.error.sum() == pytest.approx(np.square(weights[0] - plain).sum(), rel=2e-3)


@pytest.mark.parametrize("sharing", ["tensor", "channel", "group"])
@pytest.mark.parametrize("groups", [1, 12])
def test_clusters_beat_k_means_on_the_objective(sharing, groups):
    rows, columns = (12, 40) if groups == 1 else (1, 9)
    weights, second = problem(7, groups, rows, columns)
    second = damped(second, 1e-2)
    channel = np.arange(12).reshape(groups, rows)
    book = {"tensor": 0 * channel, "channel": channel, "group": channel // 5}[sharing]
    plain = Clusters(2, sharing, group_size=5 if sharing == "group" else None)
    solution = solve_clusters(Problem.of(weights, second), replace(plain, half=True), BALANCED)
    nearest = plain.encode(weights.reshape(12, columns).astype(np.float32)).decode().reshape(weights.shape)
    assert solution.error.sum() < 0.7 * objective(weights, nearest, second).sum()
    decoded = solution.books[book[..., None], solution.codes]
    np.testing.assert_allclose(objective(weights, decoded, second), solution.error, rtol=1e-3)
    np.testing.assert_array_equal(solution.books, solution.books.astype(np.float16))


@pytest.mark.parametrize("sharing", ["tensor", "channel"])
def test_clusters_of_rows_in_parts_are_those_of_all(monkeypatch, sharing):
    weights, second = problem(7, 1, 12, 40)
    given = Problem.of(weights, damped(second, 1e-2))
    whole = solve_clusters(given, Clusters(3, sharing), BALANCED)
    monkeypatch.setattr(clusters, "TWO_PARTS_FROM", 1)
    parts = solve_clusters(given, Clusters(3, sharing), BALANCED)
    assert (parts.codes == whole.codes).mean() > 0.99
    np.testing.assert_allclose(parts.error.sum(), whole.error.sum(), rtol=1e-2)


def test_fitted_books_solve_the_normal_equations():
    weights, second = problem(8, 1, 9, 25)
    second = damped(second, 1e-1)
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (1, 9, 25)).astype(np.uint8)
    book = np.zeros((1, 9), int)
    order = np.arange(25)
    given = Problem(
        weights.astype(np.float32), second.astype(np.float32), inverse_factor(second), order, 9, np.zeros((1, 9))
    )
    found = fit_books(given, codes, np.zeros((1, 4), np.float32), book=book)
    spread = np.eye(4)[codes[0]]
    normal = np.einsum("rka,kl,rlb->ab", spread, second[0], spread)
    wanted = np.linalg.solve(normal, np.einsum("rka,kl,rl->a", spread, second[0], weights[0]))
    np.testing.assert_allclose(found[0], np.sort(wanted), rtol=2e-2, atol=2e-2 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["dead channels", "singular", "no input at all", "huge range"])
def test_hostile_second_moments_give_finite_codes(kind):
    weights, second = problem(9, 2, 4, 24)
    if kind == "dead channels":
        second[:, 5:11] = 0
        second[:, :, 5:11] = 0
        weights[:, 2] = 0
    elif kind == "singular":
        second = second[:, :, :1] @ second[:, :1]
        second = second + second.transpose(0, 2, 1)
        second = np.einsum("gk,gl->gkl", second[:, 0], second[:, 0])
    elif kind == "no input at all":
        second = np.zeros_like(second)
    else:
        power = 10.0 ** np.linspace(-8, 8, 24)
        second *= power[:, None] * power
    second = damped(second, 1e-2)
    linear = solve_linear(Problem.of(weights, second), Linear(4, symmetric=False), BALANCED)
    clusters = solve_clusters(Problem.of(weights, second), Clusters(3), BALANCED)
    assert np.isfinite(linear.scale).all()
    assert (linear.scale > 0).all()
    assert np.isfinite(clusters.books).all()
    if kind == "no input at all":  # nothing is known of the inputs: as near to the weights as the grid allows
        decoded = (linear.codes - linear.zero) * linear.scale
        plain = Linear(4, symmetric=False).encode(weights.reshape(8, 24).astype(np.float32)).decode()
        assert np.square(decoded - weights).sum() <= np.square(plain.reshape(weights.shape) - weights).sum()


def test_rows_of_a_middling_layer_are_solved_in_two_parts(monkeypatch):
    solve, rows = linear_rounding.solve_linear, []

    def noted(problem, scheme, effort):
        rows.append(problem.weights.shape[1])
        return solve(problem, scheme, effort)

    monkeypatch.setattr(linear_rounding, "solve_linear", noted)
    for size in (linear_rounding.TWO_PARTS_FROM - 32, linear_rounding.TWO_PARTS_FROM):
        weights, second = problem(8, groups=1, rows=size // 32, columns=32)
        solve(Problem.of(weights, second.astype(np.float32)), Linear(4), EFFORTS["fast"])
    assert rows == [512, 512]


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [(Linear(3, symmetric=False), 4), (Linear(2, per="group", group_size=5), 4), (Linear(4, per="tensor"), 1)],
)
def test_rows_of_a_large_layer_are_solved_a_part_at_a_time_and_alike(monkeypatch, scheme, parts):
    weights, second = problem(8, groups=2, rows=21, columns=20)
    second = second.astype(np.float32)
    whole = solve_linear(Problem.of(weights, second), scheme, BALANCED)
    solved = []
    narrowed = linear_rounding._GridSearch.narrowed
    monkeypatch.setattr(linear_rounding, "PART_CELLS", 2 * 21 * 20 // 4)
    monkeypatch.setattr(
        linear_rounding._GridSearch,
        "narrowed",
        lambda self, state: solved.append(self.weights.shape[1]) or narrowed(self, state),
    )
    again = solve_linear(Problem.of(weights, second), scheme, BALANCED)
    assert (len(solved), sum(solved)) == (parts, 21)
    np.testing.assert_allclose(again.error, whole.error, rtol=1e-4)
    assert np.mean(again.codes != whole.codes) < 0.01
