"""One-dimensional k-means, solved as the ordered problem that it is.

On a line every optimal cluster is an interval of the sorted values, so a clustering is a list of k - 1 cuts, and with
prefix sums the cost of any interval takes two look-ups. So small inputs are solved exactly and large ones nearly
(`schemes/cuts.py`); here values are sorted, merged where many are equal, and taken in chunks that stay in cache.

Gives up: proof of optimality for large inputs (the tests hold it to 1e-3), and any distance other than
the squared one. Nothing is random.
"""

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.cuts import Floats, Positions, best_cuts, near_cuts

EXACT_CELLS = 1 << 13  # a single row is solved exactly up to this many values times clusters
EXACT_ROW_VALUES = 128  # and each of many rows up to this many values,
EXACT_PER_CLUSTER = 2  # both at least up to this many values a cluster
MANY_REPEATS = 0.05  # share of values that equal the one before, from which on they are merged
NEAREST_CHUNK = 1 << 17  # values looked up together: temporaries of 1 MB stay in cache
CHUNK_CELLS = 1 << 17  # table cells of whole rows worked on together, too


def kmeans_1d(
    values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Cluster `values` [n] into at most `k` (1..256) clusters of least (weighted) squared error.

    Returns:
        Centers [k], ascending (the largest is repeated where there are fewer distinct values than k), and for each
        value the index of its nearest center. Exact for few values (`EXACT_CELLS`), else within 1e-3 of the least
        error.

    Raises:
        SchemeError: no values, NaN or infinite values, k out of range, weights negative or of another shape.
    """
    centers = fit_1d(values, k, weights=weights)
    return centers, nearest(values, centers)


def kmeans_rows(
    values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """`kmeans_1d` for each row of `values` [rows, n]: centers [rows, k] and indices [rows, n]."""
    centers = fit_rows(values, k, weights=weights)
    return centers, nearest_rows(values, centers)


def fit_1d(values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None) -> Floats:
    """The centers [k] alone; see `kmeans_1d`."""
    if values.ndim != 1:
        raise SchemeError(f"k-means expects a list of values, got shape {values.shape}.")
    _check(values, k, weights)
    ordered, masses = _sort(values[None], None if weights is None else weights[None])
    return _solve_merged(ordered, masses, k, exact=max(EXACT_CELLS // k, EXACT_PER_CLUSTER * k)).reshape(k)


def fit_rows(values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None) -> Floats:
    """The centers [rows, k] alone; see `kmeans_rows`."""
    if values.ndim != 2:
        raise SchemeError(f"k-means by rows expects [rows, values], got shape {values.shape}.")
    _check(values, k, weights)
    rows, count = values.shape
    exact = max(EXACT_ROW_VALUES, EXACT_PER_CLUSTER * k)
    step = max(1, CHUNK_CELLS // max(count, min(count, exact) * k))
    centers = np.empty((rows, k))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        ordered, masses = _sort(values[part], None if weights is None else weights[part])
        centers[part] = _solve(ordered, masses, k, exact=exact)
        if count > exact:
            # Positions count values, so runs of equal ones leave the bands too few to choose from.
            repeats = np.count_nonzero(ordered[:, 1:] == ordered[:, :-1], axis=1)
            for row in np.flatnonzero(repeats > MANY_REPEATS * count):
                one = slice(row, row + 1)
                centers[start + row] = _solve_merged(
                    ordered[one], None if masses is None else masses[one], k, exact=exact
                )
    return centers


def nearest(values: npt.NDArray[np.floating], centers: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Index of the nearest of the ascending `centers` [k] for each of `values` [n]; the lowest one of several."""
    bounds = centers[:-1].astype(np.float64) / 2 + centers[1:].astype(np.float64) / 2
    indices = np.empty(values.shape, np.uint8)
    for start in range(0, values.size, NEAREST_CHUNK):
        part = slice(start, start + NEAREST_CHUNK)
        indices[part] = np.searchsorted(bounds, values[part])
    if (centers[1:] == centers[:-1]).any():
        indices = np.searchsorted(centers, centers).astype(np.uint8)[indices]
    return indices


def nearest_rows(values: npt.NDArray[np.floating], centers: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """`nearest` for each row of `values` [rows, n] among the same row of `centers` [rows, k]."""
    return np.stack([nearest(row, book) for row, book in zip(values, centers, strict=True)])


def _check(values: npt.NDArray[np.floating], k: int, weights: npt.NDArray[np.floating] | None) -> None:
    if not 1 <= k <= 256:
        raise SchemeError(f"k-means makes 1 to 256 clusters, not {k}.")
    if values.size == 0:
        raise SchemeError(f"there is nothing to cluster in shape {values.shape}.")
    # One pass each and no temporary: NaN and infinity both survive into the extremes.
    largest = max(abs(float(values.max())), abs(float(values.min())))
    if not largest <= np.finfo(np.float32).max:
        raise SchemeError("cannot cluster NaN, infinite values, or values beyond float32.")
    if weights is not None:
        if weights.shape != values.shape:
            raise SchemeError(f"weights of shape {weights.shape} do not match values of shape {values.shape}.")
        if not (weights.min() >= 0 and weights.max() < np.inf):
            raise SchemeError("weights of k-means must be finite and not negative.")


def _sort(
    values: npt.NDArray[np.floating], weights: npt.NDArray[np.floating] | None
) -> tuple[npt.NDArray[np.floating], Floats | None]:
    """Rows in ascending order, with their weights; scaled so that no row overflows, equal where a row has none."""
    if weights is None:
        return np.sort(values, axis=1), None
    order = np.argsort(values, axis=1, kind="stable")
    masses = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    largest = masses.max(axis=1, keepdims=True)
    masses /= np.where(largest > 0, largest, 1.0)
    masses[largest[:, 0] == 0] = 1.0
    return np.take_along_axis(values, order, axis=1), masses


def _solve_merged(ordered: npt.NDArray[np.floating], masses: Floats | None, k: int, *, exact: int) -> Floats:
    """`_solve` for one row, with equal values merged if that makes it much shorter or short enough to be exact."""
    starts = np.concatenate(([0], np.flatnonzero(ordered[0, 1:] != ordered[0, :-1]) + 1))
    count = ordered.shape[1]
    if starts.size <= exact or count - starts.size > MANY_REPEATS * count:
        if masses is None:
            masses = np.diff(starts, append=count).astype(np.float64)[None]
        else:
            masses = np.add.reduceat(masses, starts, axis=1)
        ordered = ordered[:, starts]
    return _solve(ordered, masses, k, exact=exact)


def _solve(ordered: npt.NDArray[np.floating], masses: Floats | None, k: int, *, exact: int) -> Floats:
    """Centers [rows, k] of ascending rows [rows, n]; the optimum if n is no more than `exact`."""
    rows, count = ordered.shape
    if count <= k:
        return np.pad(ordered.astype(np.float64), ((0, 0), (0, k - count)), mode="edge")
    mass = np.zeros((rows, count + 1))
    total = np.zeros((rows, count + 1))
    centred = ordered - ordered.mean(axis=1, keepdims=True, dtype=np.float64)  # keeps the prefix sums accurate
    if masses is None:
        mass[:] = np.arange(count + 1)
        np.cumsum(centred, axis=1, out=total[:, 1:])
    else:
        np.cumsum(masses, axis=1, out=mass[:, 1:])
        np.cumsum(masses * centred, axis=1, out=total[:, 1:])
    if count <= exact:
        cuts = best_cuts(mass, total, k)
    else:
        squares = (
            np.einsum("rn,rn->r", centred, centred)
            if masses is None
            else np.einsum("rn,rn,rn->r", centred, centred, masses)
        )
        cuts = near_cuts(centred, mass, total, squares, k)
    distinct = np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1) + 1
    for row in np.flatnonzero(distinct <= k):  # differences too small for the prefix sums to see
        changes = np.flatnonzero(ordered[row, 1:] != ordered[row, :-1]) + 1
        cuts[row] = count
        cuts[row, : changes.size + 1] = [0, *changes]
    return _centers(ordered, masses, cuts)


def _centers(ordered: npt.NDArray[np.floating], masses: Floats | None, cuts: Positions) -> Floats:
    """Mean of each interval, summed from the values themselves; an empty one repeats its neighbour."""
    rows, count = ordered.shape
    starts = (cuts[:, :-1] + np.arange(rows)[:, None] * count).ravel()
    weighted = ordered if masses is None else ordered * masses
    # The last empty intervals start one past the end, where reduceat wants an element.
    sums = np.add.reduceat(np.append(weighted, weighted.dtype.type(0)), starts, dtype=np.float64).reshape(rows, -1)
    mass = np.diff(cuts, axis=1).astype(np.float64)
    if masses is not None:
        mass = np.where(mass > 0, np.add.reduceat(np.append(masses, 0.0), starts).reshape(rows, -1), 0.0)
    filled = mass > 0
    last = np.maximum.accumulate(np.where(filled, np.arange(filled.shape[1]), -1), axis=1)
    source = np.where(last < 0, filled.argmax(axis=1)[:, None], last)
    return np.take_along_axis(sums / np.where(filled, mass, 1.0), source, axis=1)
