"""One-dimensional k-means, solved as the ordered problem that it is.

On a line every optimal cluster is an interval of the sorted values, so a clustering is a list of k - 1 cuts, and with
prefix sums the cost of any interval takes two look-ups. Two steps build on that, each over many rows at once:

- `_best_cuts`: dynamic programming over clusters; the best last cut never moves left as the interval or the number of
  clusters grows (Monge property), so each layer is solved by divide and conquer in O(n log n). Small inputs are solved
  by it, exactly.
- Large inputs start from cuts that share out the density^(1/3), as optimal clusters do (Panter and Dite 1951); or, for
  few clusters, from the best cuts on a grid of such positions. Then `_best_in_band` repeats the dynamic program over a
  few positions around each cut, all cuts jointly, until nothing is gained, ever finer. A band wider than one cluster
  lets a chain of cuts shift by one, which carries a cluster from where it is idle to where it is needed; Lloyd's
  iteration cannot.

Gives up: proof of optimality for large inputs (the tests hold it to 1e-3), and any distance other than
the squared one. Nothing is random.

Sources: Wu 1991, "Optimal quantization by matrix searching"; Grønlund et al. 2017, "Fast exact k-means, k-medians and
Bregman divergence clustering in 1D" (arXiv 1701.07204).
"""

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

EXACT_CELLS = 1 << 13  # a single row is solved exactly up to this many values times clusters
EXACT_ROW_VALUES = 128  # and each of many rows up to this many values,
EXACT_PER_CLUSTER = 2  # both at least up to this many values a cluster
MANY_REPEATS = 0.05  # share of values that equal the one before, from which on they are merged
GRID = 256  # positions of the grid that few clusters start from
GRID_CLUSTERS = 16  # how many are few
# Distance of the positions tried around a cut, in clusters; how many on either side; passes at most.
BANDS = ((1 / 4, 6, 60), (1 / 16, 17, 3), (1 / 64, 8, 1), (1 / 32, 33, 1), (1 / 64, 8, 1))
WIDE_CLUSTERS = 128  # more clusters than this gain nothing from the last two bands, which cost half the time
PASS_GAIN = 1e-4  # a pass that lowers the squared error by less, relatively, ends its band
NEAREST_CHUNK = 1 << 17  # values looked up together: temporaries of 1 MB stay in cache
BAND_PAIRS = 1 << 19  # pairs of positions looked at together, for the same reason
CHUNK_CELLS = 1 << 17  # table cells of whole rows worked on together, too
TINY = 1e-16  # keeps an empty interval from dividing by zero; no mass that matters is as small


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
        cuts = _best_cuts(mass, total, k)
    else:
        squares = (
            np.einsum("rn,rn->r", centred, centred)
            if masses is None
            else np.einsum("rn,rn,rn->r", centred, centred, masses)
        )
        cuts = _near_cuts(centred, mass, total, squares, k)
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


def _near_cuts(ordered: Floats, mass: Floats, total: Floats, squares: Floats, k: int) -> Positions:
    """Nearly the best cuts [rows, k + 1]; `squares` [rows] is the squared error of one cluster at zero."""
    few = k <= GRID_CLUSTERS
    cuts = _grid_positions(ordered, mass, min(GRID, ordered.shape[1]) if few else k)
    if few:
        on_grid = _best_cuts(np.take_along_axis(mass, cuts, axis=1), np.take_along_axis(total, cuts, axis=1), k)
        cuts = np.take_along_axis(cuts, on_grid, axis=1)
    for step, reach, passes in () if k == 1 else BANDS if k <= WIDE_CLUSTERS else BANDS[:3]:
        offsets = np.arange(-reach, reach + 1, dtype=np.float64) * step
        step_rows = max(1, BAND_PAIRS // (k * offsets.size**2))
        for first in range(0, len(cuts), step_rows):
            active = np.arange(first, min(first + step_rows, len(cuts)))
            gain = np.full(active.size, -np.inf)
            for _ in range(passes):
                inner, better = _best_in_band(mass[active], total[active], _around(cuts[active], offsets))
                cuts[active, 1:-1] = inner
                going = better - gain > PASS_GAIN * (squares[active] - better)
                active, gain = active[going], better[going]
                if not active.size:
                    break
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


def _best_in_band(mass: Floats, total: Floats, band: Positions) -> tuple[Positions, Floats]:
    """The jointly best inner cuts [rows, k - 1] among `band` [rows, k - 1, positions], and their gain [rows]."""
    rows, inner, width = band.shape
    masses = np.take_along_axis(mass, band.reshape(rows, -1), axis=1).reshape(band.shape)
    totals = np.take_along_axis(total, band.reshape(rows, -1), axis=1).reshape(band.shape)
    between = masses[:, 1:, :, None] - masses[:, :-1, None, :]
    pairs = _gain(totals[:, 1:, :, None] - totals[:, :-1, None, :], between)
    np.copyto(pairs, -np.inf, where=between < 0)  # the cuts would have crossed
    best = np.empty((inner, rows, 1, width))
    best[0, :, 0] = _gain(totals[:, 0], masses[:, 0])
    sums = np.empty((rows, width, width))
    for j in range(1, inner):
        np.add(pairs[:, j - 1], best[j - 1], out=sums)
        np.maximum.reduce(sums, axis=2, out=best[j, :, 0])
    whole = best[-1, :, 0] + _gain(total[:, -1:] - totals[:, -1], mass[:, -1:] - masses[:, -1])
    picks = np.empty((inner, rows), np.int64)
    picks[-1] = whole.argmax(axis=1)
    lines = pairs.reshape(-1, width)
    line = np.arange(rows) * ((inner - 1) * width)
    for j in range(inner - 1, 0, -1):
        picks[j - 1] = (lines.take(line + ((j - 1) * width + picks[j]), axis=0) + best[j - 1, :, 0]).argmax(axis=1)
    cuts = np.take_along_axis(band, picks.T[:, :, None], axis=2)[:, :, 0]
    # Cuts among values without any weight may still have crossed.
    return np.maximum.accumulate(cuts, axis=1), whole.max(axis=1)
