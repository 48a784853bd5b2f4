"""k-means on a line, against kmeans1d (an independent exact solver) and by hand."""

import tracemalloc

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import kmeans1d
import numpy as np
import pytest
from hypothesis import given, settings

from lowbit.errors import SchemeError
from lowbit.schemes.kmeans import fit_1d, fit_rows, kmeans_1d, kmeans_rows, nearest

COUNT = 8_000  # more than is solved exactly


def draw(kind: str, seed: int = 0, count: int = COUNT) -> np.ndarray:
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=count)
    few = rng.random(count) < 2e-3
    values = {
        "gaussian": normal,
        "laplace": rng.laplace(size=count),
        "heavy-tailed": rng.standard_cauchy(size=count),
        "discrete": np.round(normal * 3000),
        "outliers": np.where(few, normal * 50, normal * 0.1),
        "pruned": np.where(rng.random(count) < 0.5, 0.0, normal),
        "far apart": np.where(rng.random(count) < 0.5, normal, 100 + rng.random(count) * 0.1),
    }
    return values[kind].astype(np.float32)


KINDS = ["gaussian", "laplace", "heavy-tailed", "discrete", "outliers", "pruned", "far apart"]


def squared_error(
    values: np.ndarray, centers: np.ndarray, indices: np.ndarray, weights: np.ndarray | None = None
) -> float:
    errors = np.square(values.astype(np.float64) - np.asarray(centers)[np.asarray(indices)])
    return float(np.sum(errors if weights is None else errors * weights))


def least_error(values: np.ndarray, k: int) -> float:
    answer = kmeans1d.cluster(values.astype(np.float64), k)
    return squared_error(values, answer.centroids, answer.clusters)


def rounding(values: np.ndarray) -> float:
    """Squared error too small to matter beside the values: prefix sums carry about 16 digits."""
    return 1e-12 * float(np.sum(np.square(values.astype(np.float64)))) + 1e-300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [3, 16, 256])
def test_many_values_come_within_a_thousandth_of_the_least_error(kind: str, k: int) -> None:
    values = draw(kind)
    assert squared_error(values, *kmeans_1d(values, k)) <= least_error(values, k) * 1.001


@pytest.mark.parametrize("kind", KINDS)
def test_few_values_are_solved_exactly(kind: str) -> None:
    values = draw(kind, count=500)
    for k in (2, 5, 16, 250):
        assert squared_error(values, *kmeans_1d(values, k)) <= least_error(values, k) * (1 + 1e-9) + rounding(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "k"), [(100, 4), (3000, 64), (600, 256)])
def test_rows_come_within_a_thousandth_each(kind: str, count: int, k: int) -> None:
    rows = np.stack([draw(kind, seed, count) * 10.0**seed for seed in range(2)])
    centers, indices = kmeans_rows(rows, k)
    for row, book, index in zip(rows, centers, indices, strict=True):
        assert squared_error(row, book, index) <= least_error(row, k) * 1.001 + rounding(row)


def test_depthwise_rows_equal_brute_force() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 9)).astype(np.float32)
    centers, indices = kmeans_rows(rows, 4)
    for row, book, index in zip(rows, centers, indices, strict=True):
        assert squared_error(row, book, index) <= least_error(row, 4) * (1 + 1e-9)


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_any_values(values: np.ndarray, k: int, random: object) -> None:
    centers, indices = kmeans_1d(values, k)
    assert centers.shape == (k,)
    assert np.isfinite(centers).all()
    assert (np.diff(centers) >= 0).all()
    assert indices.dtype == np.uint8
    assert squared_error(values, centers, indices) <= least_error(values, min(k, values.size)) * 1.001 + rounding(
        values
    )
    order = np.argsort(values, kind="stable")
    assert (np.diff(indices[order].astype(int)) >= 0).all(), "assignment is monotone"
    distance = np.abs(values[:, None].astype(np.float64) - centers)
    np.testing.assert_allclose(distance[np.arange(values.size), indices], distance.min(axis=1), rtol=1e-9, atol=1e-9)
    shuffled = np.random.default_rng(random.getrandbits(32)).permutation(values.size)  # type: ignore[attr-defined]
    again, moved = kmeans_1d(values[shuffled], k)
    np.testing.assert_array_equal(again, centers)
    np.testing.assert_array_equal(moved, indices[shuffled])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(5, 400))
def test_integer_weights_mean_repetition(seed: int, k: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=count), rng.integers(0, 6, count)
    weights[0] = 1
    repeated = np.repeat(values, weights)
    centers, indices = kmeans_1d(values, k, weights=weights.astype(np.float64))
    least = least_error(repeated, min(k, repeated.size))
    assert squared_error(values, centers, indices, weights) <= least * (1 + 1e-6) + rounding(repeated)


@pytest.mark.parametrize("k", [4, 32])
def test_weights_on_many_values(k: int) -> None:
    rng = np.random.default_rng(5)
    values, weights = rng.laplace(size=COUNT).astype(np.float32), rng.integers(0, 4, COUNT)
    centers, indices = kmeans_1d(values, k, weights=weights)
    assert squared_error(values, centers, indices, weights) <= least_error(np.repeat(values, weights), k) * 1.001
    rows = kmeans_rows(values.reshape(4, -1), k, weights=weights.reshape(4, -1))
    for row, mass, book, index in zip(values.reshape(4, -1), weights.reshape(4, -1), *rows, strict=True):
        assert squared_error(row, book, index, mass) <= least_error(np.repeat(row, mass), k) * 1.001


def test_fewer_distinct_values_than_clusters_are_exact() -> None:
    values = np.array([3, 3, np.nextafter(np.float32(3), np.float32(4)), 1e7, -1, -1], np.float32)
    centers, indices = kmeans_1d(values, 8)
    np.testing.assert_array_equal(centers.astype(np.float32)[indices], values)
    np.testing.assert_array_equal(centers[4:], centers[3])
    rows = np.stack([np.tile(values, 50), np.full(300, 7, np.float32), np.linspace(0, 1, 300, dtype=np.float32)])
    books, indices = kmeans_rows(rows, 8)
    for at in range(2):
        np.testing.assert_array_equal(books[at].astype(np.float32)[indices[at]], rows[at])


def test_weights_all_zero_count_as_equal() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 40))
    weights = np.ones_like(rows)
    weights[0] = 0
    np.testing.assert_array_equal(fit_rows(rows, 4, weights=weights), fit_rows(rows, 4, weights=np.ones_like(rows)))


def test_extreme_values_stay_finite() -> None:
    for scale in (1e38, 1e-38, 1e-44):
        values = (np.random.default_rng(0).uniform(-3, 3, 5000) * scale).astype(np.float32)
        centers = fit_1d(values, 16)
        assert np.isfinite(centers).all()
        assert np.abs(values - centers[nearest(values, centers)]).max() <= 0.3 * scale


def test_a_value_in_the_middle_goes_down() -> None:
    np.testing.assert_array_equal(nearest(np.array([0.5, 0.5000001, -9, 9]), np.array([0.0, 1.0, 1.0])), [0, 1, 0, 1])


def test_all_weights_of_a_network_take_little_memory() -> None:
    values = np.random.default_rng(0).laplace(size=2_190_000).astype(np.float32)
    tracemalloc.start()
    try:
        centers, indices = kmeans_1d(values, 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    # Panter and Dite: the error of the best 256 levels for a Laplace density tends to 9 / 2 * variance / 256^2.
    assert squared_error(values, centers, indices) / values.size < 4.5 * 2 / 256**2


@pytest.mark.parametrize(
    ("values", "k", "weights", "message"),
    [
        ([1.0], 0, None, "1 to 256"),
        ([1.0], 257, None, "1 to 256"),
        ([], 2, None, "nothing to cluster"),
        ([1.0, np.nan], 2, None, "NaN"),
        ([1.0, -np.inf], 2, None, "NaN"),
        ([1.0, 2.0], 2, [1.0], "do not match"),
        ([1.0, 2.0], 2, [1.0, -1.0], "not negative"),
        ([1.0, 2.0], 2, [1.0, np.nan], "not negative"),
    ],
)
def test_refusals(values: list[float], k: int, weights: list[float] | None, message: str) -> None:
    with pytest.raises(SchemeError, match=message):
        kmeans_1d(np.array(values), k, weights=None if weights is None else np.array(weights))
