"""Clusters: round trips, who shares a code book, half precision."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from lowbit.errors import SchemeError
from lowbit.schemes.clusters import ClusterCodes, Clusters
from lowbit.schemes.kmeans import kmeans_1d

SCHEMES = [
    Clusters(bits, per, group_size=2 if per == "group" else None, half=half)  # type: ignore[arg-type]
    for bits in (1, 2, 3, 5, 8)
    for per in ("tensor", "channel", "group")
    for half in (False, True)
]


def book_of_each_value(codes: ClusterCodes) -> np.ndarray:
    """The code book [2^bits] of each value, in the tensor's shape."""
    blocks = codes.blocks
    which = np.broadcast_to(blocks.spread(np.arange(blocks.count)), (blocks.rows, blocks.columns))
    return codes.code_books[blocks.from_rows(which)]


@settings(max_examples=50)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
        elements=st.floats(-6e4, 6e4, width=32) | st.floats(-1, 1, width=32),
    ),
    st.sampled_from(SCHEMES),
    st.data(),
)
def test_any_tensor(x: np.ndarray, scheme: Clusters, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    codes = scheme.encode(x, axis)
    assert codes.indices.shape == x.shape
    assert codes.indices.dtype == np.uint8
    assert codes.code_books.shape == (codes.blocks.count, 1 << scheme.bits)
    assert codes.code_books.dtype == np.float32
    assert (np.diff(codes.code_books, axis=1) >= 0).all()
    decoded = codes.decode()
    assert decoded.dtype == np.float32
    assert decoded.shape == x.shape
    books = book_of_each_value(codes)
    np.testing.assert_array_equal(decoded, np.take_along_axis(books, codes.indices[..., None].astype(int), -1)[..., 0])
    nearest = np.abs(books.astype(np.float64) - x[..., None]).min(axis=-1)
    np.testing.assert_array_equal(np.abs(decoded.astype(np.float64) - x), nearest)
    if scheme.half:
        np.testing.assert_array_equal(codes.code_books.astype(np.float16).astype(np.float32), codes.code_books)
    elif x.size <= 1 << scheme.bits:
        np.testing.assert_array_equal(decoded, x)
    back = scheme.from_indices(codes.indices, codes.code_books, axis=axis)
    np.testing.assert_array_equal(back.decode().view(np.uint32), decoded.view(np.uint32))
    same = scheme.encode_with(x, codes.code_books[:, ::-1], axis=axis)
    np.testing.assert_array_equal(same.decode(), decoded)


@pytest.mark.parametrize(
    ("per", "size", "sets"), [("channel", None, [1] * 5), ("group", 2, [2, 2, 1]), ("tensor", None, [5])]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_each_group_is_clustered_by_itself(per: str, size: int | None, sets: list[int], axis: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 40)).astype(np.float32) * np.logspace(-2, 2, 5, dtype=np.float32)[:, None]
    codes = Clusters(2, per, group_size=size).encode(x.T if axis else x, axis)  # type: ignore[arg-type]
    start = 0
    for book, count in zip(codes.code_books, sets, strict=True):
        part = x[start : start + count].ravel()
        np.testing.assert_allclose(book, kmeans_1d(part, 4)[0], rtol=1e-6)
        start += count
    assert codes.code_books.size == 4 * len(sets)


def test_half_precision_assigns_anew() -> None:
    x = np.array([1.0, 1.0001, 2049.0, 2050.0], np.float32)
    codes = Clusters(2, half=True).encode(x)
    np.testing.assert_array_equal(codes.code_books, [[1, 1, 2048, 2050]])
    np.testing.assert_array_equal(codes.decode(), np.float32([1, 1, 2048, 2050]))


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.integers(0, 1),
)
def test_a_scale_for_each_channel(x: np.ndarray, bits: int, half: bool, axis: int) -> None:
    scheme = Clusters(bits, half=half, scaled=True)
    codes = scheme.encode(x, axis)
    assert codes.scale is not None
    assert codes.scale.shape == (x.shape[axis],)
    assert (codes.scale > 0).all()
    scale = codes.scale.reshape((-1, 1) if axis == 0 else (1, -1))
    np.testing.assert_array_equal(codes.decode(), codes.code_books[0][codes.indices] * scale)
    assert np.isfinite(codes.decode()).all()
    back = scheme.from_indices(codes.indices, codes.code_books, scale=codes.scale, axis=axis)
    np.testing.assert_array_equal(back.decode().view(np.uint32), codes.decode().view(np.uint32))
    same = scheme.encode_with(x, codes.code_books, scale=codes.scale, axis=axis)
    np.testing.assert_array_equal(same.indices, codes.indices)


def test_channels_a_thousandfold_apart_share_a_book_if_they_have_scales() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 50)).astype(np.float32) * np.logspace(-3, 0, 8, dtype=np.float32)[:, None]

    def worst(scheme: Clusters) -> float:
        error = np.square(scheme.encode(x).decode() - x).sum(axis=1) / np.square(x).sum(axis=1)
        return float(error.max())

    assert worst(Clusters(3, half=True, scaled=True)) < 0.1
    assert worst(Clusters(3, half=True)) > 0.9


def test_scales_are_half_precision_only_where_it_has_all_its_digits() -> None:
    scheme = Clusters(2, half=True, scaled=True)
    rows = np.ones((2, 4), np.float32) * np.float32([[1.2345678], [2.3456789]])
    scale = scheme.encode(rows).scale
    assert scale is not None
    np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))
    tiny = scheme.encode(rows * np.float32([[1], [1e-7]])).scale
    np.testing.assert_allclose(tiny, [1.2345678, 2.3456789e-7], rtol=1e-6)


def test_refusals() -> None:
    with pytest.raises(SchemeError, match="needs no scale"):
        Clusters(2, "channel", scaled=True)
    with pytest.raises(SchemeError, match="takes scales"):
        Clusters(1, scaled=True).from_indices(np.array([[0, 1]]), np.zeros((1, 2)))
    with pytest.raises(SchemeError, match="takes no scale"):
        Clusters(1).from_indices(np.array([[0, 1]]), np.zeros((1, 2)), scale=np.ones(1))
    with pytest.raises(SchemeError, match="needs 1 scales"):
        Clusters(1, scaled=True).from_indices(np.array([[0, 1]]), np.zeros((1, 2)), scale=np.ones(2))
    with pytest.raises(SchemeError, match="positive"):
        Clusters(1, scaled=True).from_indices(np.array([[0, 1]]), np.zeros((1, 2)), scale=np.zeros(1))
    for bits in (0, 9):
        with pytest.raises(SchemeError, match="1 to 8 bits"):
            Clusters(bits)
    with pytest.raises(SchemeError, match="half-precision"):
        Clusters(2, half=True).encode(np.array([1e5, 1], np.float32))
    with pytest.raises(SchemeError, match="NaN"):
        Clusters(2).encode(np.array([np.nan, 1], np.float32))
    with pytest.raises(SchemeError, match=r"indices of cluster1/tensor must be integers in 0\.\.1"):
        Clusters(1).from_indices(np.array([0, 2]), np.zeros((1, 2)))
    with pytest.raises(SchemeError, match="needs code books of shape"):
        Clusters(1).from_indices(np.array([0, 1]), np.zeros((1, 3)))
    with pytest.raises(SchemeError, match="NaN"):
        Clusters(1).from_indices(np.array([0, 1]), np.array([[0, np.nan]]))
