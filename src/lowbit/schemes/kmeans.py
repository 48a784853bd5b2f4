"""One-dimensional k-means, solved as the ordered problem that it is.

On a line every optimal cluster is an interval of the sorted values, so a clustering is a list of k - 1 cuts, and with
prefix sums the cost of any interval takes two look-ups. Two steps build on that, each over many rows at once:

- `_best_cuts`: dynamic programming over clusters; the best last cut never moves left as the interval or the number of
  clusters grows (Monge property), so each layer is solved by divide and conquer in O(n log n). Small inputs are solved
  by it, exactly.
- Large inputs first: the cuts may only lie on a grid of at least 8 k positions, dense where the density^(1/3) is, as
  optimal clusters are (Panter and Dite 1951). Then `_best_in_band` repeats the dynamic program over a few positions
  around each cut, all cuts jointly, three times ever finer.

Gives up: proof of optimality for large inputs (the tests hold it to 1e-3; usual is 1e-4), and any distance other than
the squared one. Nothing is random.

Sources: Wu 1991, "Optimal quantization by matrix searching"; Grønlund et al. 2017, "Fast exact k-means, k-medians and
Bregman divergence clustering in 1D" (arXiv 1701.07204).
"""

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

EXACT_VALUES = 4096  # one row of at most this many distinct values is solved exactly
GRID = 1024  # positions at least where the cuts of one long row may first lie
GRID_ROWS = 128  # the same where there are many rows
GRID_PER_CLUSTER = 8
BAND_STEPS = (1 / 16, 1 / 64, 1 / 256)  # distance of the positions tried around a cut, in clusters
BAND_REACH = np.arange(-12.0, 13.0)
NEAREST_CHUNK = 1 << 17  # values looked up together
BAND_PAIRS = 1 << 17  # pairs of positions looked at together: temporaries of 1 MB stay in cache
CHUNK_CELLS = 1 << 17  # table cells of whole rows worked on together, for the same reason
TINY = 1e-16  # keeps an empty interval from dividing by zero; no mass that matters is as small


def kmeans_1d(
    values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Cluster `values` [n] into at most `k` (1..256) clusters of least (weighted) squared error.

    Returns:
        Centers [k], ascending (the largest is repeated where there are fewer distinct values than k), and for each
        value the index of its nearest center. Exact up to 4096 distinct values, else within 1e-3 of the least error.

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
    changes = np.flatnonzero(ordered[0, 1:] != ordered[0, :-1]) + 1
    if changes.size < EXACT_VALUES:
        starts = np.concatenate(([0], changes))
        if masses is None:
            masses = np.diff(starts, append=values.size).astype(np.float64)[None]
        else:
            masses = np.add.reduceat(masses, starts, axis=1)
        ordered = ordered[:, starts]
    exact = ordered.shape[1] <= EXACT_VALUES
    centers = _solve(ordered, masses, k, grid=EXACT_VALUES if exact else max(GRID, GRID_PER_CLUSTER * k))
    return centers.reshape(k)


def fit_rows(values: npt.NDArray[np.floating], k: int, *, weights: npt.NDArray[np.floating] | None = None) -> Floats:
    """The centers [rows, k] alone; see `kmeans_rows`."""
    if values.ndim != 2:
        raise SchemeError(f"k-means by rows expects [rows, values], got shape {values.shape}.")
    _check(values, k, weights)
    rows, count = values.shape
    grid = max(GRID_ROWS, GRID_PER_CLUSTER * k)
    step = max(1, CHUNK_CELLS // max(count, min(count, grid) * k))
    centers = np.empty((rows, k))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        centers[part] = _solve(*_sort(values[part], None if weights is None else weights[part]), k, grid=grid)
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
            raise SchemeError(f"weights of shape {weights.shape} do not fit values of shape {values.shape}.")
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


def _solve(ordered: npt.NDArray[np.floating], masses: Floats | None, k: int, *, grid: int) -> Floats:
    """Centers [rows, k] of ascending rows [rows, n]; exact if n is no more than `grid`."""
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
    cuts = _best_cuts(mass, total, k) if count <= grid else _near_cuts(centred, mass, total, k, grid)
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


def _gain(total: Floats, mass: Floats) -> Floats:
    """What an interval saves of the squared error, (sum w x)^2 / sum w, from its `total` and `mass`."""
    gain = total * total
    gain /= mass + TINY
    return gain


def _best_cuts(mass: Floats, total: Floats, k: int) -> Positions:
    """The best cuts [rows, k + 1] from prefix sums [rows, n + 1]."""
    rows, width = mass.shape
    everyone = np.arange(rows)
    base = everyone[:, None] * width
    best = _gain(total, mass)
    cut = np.zeros((k, rows, width), np.int32)  # cut[j, r, i]: where the last of j + 1 clusters over i values starts
    for layer in range(1, k - 1):
        gain = best.copy()  # nothing to gain over no values
        stride = 1 << (width - 1).bit_length() - 1
        while stride:
            ends = np.arange(stride, width, 2 * stride)
            low = cut[layer][:, ends - stride]
            after = cut[layer][:, np.minimum(ends + stride, width - 1)]
            high = np.where(ends + stride < width, np.minimum(after, ends), ends)
            low = np.minimum(np.maximum(low, cut[layer - 1][:, ends]), high)
            counts = (high - low + 1).ravel()
            firsts = np.cumsum(counts) - counts
            start = np.arange(counts.sum()) + np.repeat((base + low).ravel() - firsts, counts)
            sums = np.repeat(total[:, ends].ravel(), counts) - total.ravel()[start]
            gains = _gain(sums, np.repeat(mass[:, ends].ravel(), counts) - mass.ravel()[start])
            gains += best.ravel()[start]
            top = np.maximum.reduceat(gains, firsts)
            hits = np.flatnonzero(gains == np.repeat(top, counts))
            cut[layer][:, ends] = start[hits[np.searchsorted(hits, firsts)]].reshape(rows, -1) - base
            gain[:, ends] = top.reshape(rows, -1)
            stride >>= 1
        best = gain
    if k > 1:  # only the whole interval matters to the last cluster
        cut[-1, :, -1] = (best + _gain(total[:, -1:] - total, mass[:, -1:] - mass)).argmax(axis=1)
    cuts = np.full((rows, k + 1), width - 1, np.int64)
    for layer in range(k - 1, -1, -1):
        cuts[:, layer] = cut[layer, everyone, cuts[:, layer + 1]]
    return cuts


def _near_cuts(ordered: Floats, mass: Floats, total: Floats, k: int, grid: int) -> Positions:
    """Nearly the best cuts [rows, k + 1]: the best on a grid of that many positions, then jointly moved off it."""
    positions = _grid_positions(ordered, mass, grid)
    on_grid = _best_cuts(np.take_along_axis(mass, positions, axis=1), np.take_along_axis(total, positions, axis=1), k)
    cuts = np.take_along_axis(positions, on_grid, axis=1)
    step_rows = max(1, BAND_PAIRS // BAND_REACH.size**2)
    for first in range(0, len(cuts) if k > 1 else 0, step_rows):
        part = slice(first, first + step_rows)
        for step in BAND_STEPS:
            cuts[part, 1:-1] = _best_in_band(mass[part], total[part], _around(cuts[part], BAND_REACH * step))
    return cuts


def _grid_positions(ordered: Floats, mass: Floats, grid: int) -> Positions:
    """Positions [rows, grid + 1] that share out the integral of density^(1/3) evenly, both ends included."""
    rows = len(ordered)
    gap = np.diff(ordered, axis=1, append=ordered[:, -1:])  # above each value
    widest = gap.max(axis=1, keepdims=True)
    share = (gap / np.where(widest > 0, widest, 1.0)).astype(np.float32)  # precision does not matter here
    share *= share
    share *= np.diff(mass, axis=1)
    np.cbrt(share, out=share)
    for _ in range(6):  # a wide gap needs one position, and a little over one makes sure that it gets it
        np.minimum(share, share.sum(axis=1, keepdims=True) * np.float32(1.5 / grid), out=share)
    below = np.cumsum(share, axis=1, dtype=np.float64)
    whole = below[:, -1:].copy()
    below -= share
    below *= grid / np.where(whole > 0, whole, 1.0)
    block = np.minimum(below.astype(np.int64), grid - 1) + np.arange(rows)[:, None] * grid
    sizes = np.bincount(block.ravel(), minlength=rows * grid).reshape(rows, grid)
    return np.pad(np.cumsum(sizes, axis=1), ((0, 0), (1, 0)))


def _around(cuts: Positions, offsets: Floats) -> Positions:
    """For each inner cut the positions [rows, k - 1, offsets] that lie so many clusters from it."""
    k = cuts.shape[1] - 1
    place = np.clip(np.arange(1, k)[:, None] + offsets, 0, k)
    cell = np.minimum(place.astype(np.int64), k - 1)
    left = cuts[:, cell]
    moved: Positions = left + ((cuts[:, cell + 1] - left) * (place - cell)).astype(np.int64)
    return moved


def _best_in_band(mass: Floats, total: Floats, band: Positions) -> Positions:
    """The jointly best inner cuts [rows, k - 1] among `band` [rows, k - 1, positions]."""
    rows, inner, width = band.shape
    masses = np.take_along_axis(mass, band.reshape(rows, -1), axis=1).reshape(band.shape)
    totals = np.take_along_axis(total, band.reshape(rows, -1), axis=1).reshape(band.shape)
    gain = _gain(totals[:, 0], masses[:, 0])
    choice = np.empty((inner, rows, width), np.intp)
    for j in range(1, inner):
        between = masses[:, j, :, None] - masses[:, j - 1, None, :]
        gains = _gain(totals[:, j, :, None] - totals[:, j - 1, None, :], between)
        gains += gain[:, None, :]
        np.copyto(gains, -np.inf, where=between < 0)  # the cuts would have crossed
        choice[j] = gains.argmax(axis=2)
        gain = np.take_along_axis(gains, choice[j][..., None], axis=2)[..., 0]
    picked = (gain + _gain(total[:, -1:] - totals[:, -1], mass[:, -1:] - masses[:, -1])).argmax(axis=1)
    cuts = np.empty((rows, inner), np.int64)
    for j in range(inner - 1, -1, -1):
        cuts[:, j] = band[np.arange(rows), j, picked]
        if j:
            picked = choice[j, np.arange(rows), picked]
    return np.maximum.accumulate(cuts, axis=1)  # cuts around values without any weight may still have crossed
