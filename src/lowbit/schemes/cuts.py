"""Cuts of sorted values into clusters: the best ones, or nearly, from prefix sums, over many rows at once.

- `best_cuts`: dynamic programming over clusters; the best last cut never moves left as the interval or the number of
  clusters grows (Monge property), so each layer is solved by divide and conquer in O(n log n).
- `near_cuts`, for large inputs, starts from cuts that share out the density^(1/3), as optimal clusters do (Panter and
  Dite 1951); or, for few clusters, from the best cuts on a grid of such positions. Then `_best_in_band` repeats the
  dynamic program over a few positions around each cut, all cuts jointly, until nothing is gained, ever finer. A band
  wider than one cluster lets a chain of cuts shift by one, which carries a cluster from where it is idle to where it is
  needed; Lloyd's iteration cannot.

Sources: Wu 1991, "Optimal quantization by matrix searching"; Grønlund et al. 2017, "Fast exact k-means, k-medians and
Bregman divergence clustering in 1D" (arXiv 1701.07204).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

GRID = 256  # positions of the grid that few clusters start from
GRID_CLUSTERS = 16  # how many are few
# Distance of the positions tried around a cut, in clusters; how many on either side; passes at most.
BANDS = ((1 / 4, 6, 60), (1 / 16, 17, 3), (1 / 64, 8, 1), (1 / 32, 33, 1), (1 / 64, 8, 1))
WIDE_CLUSTERS = 128  # more clusters than this gain nothing from the last two bands, which cost half the time
PASS_GAIN = 1e-4  # a pass that lowers the squared error by less, relatively, ends its band
BAND_PAIRS = 1 << 19  # pairs of positions looked at together; temporaries of 1 MB stay in cache
TINY = 1e-16  # keeps an empty interval from dividing by zero; no mass that matters is as small


def _gain(total: Floats, mass: Floats) -> Floats:
    """What an interval saves of the squared error, (sum w x)^2 / sum w, from its `total` and `mass`."""
    gain = total * total
    gain /= mass + TINY
    return gain


def best_cuts(mass: Floats, total: Floats, k: int) -> Positions:
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


def near_cuts(ordered: Floats, mass: Floats, total: Floats, squares: Floats, k: int) -> Positions:
    """Nearly the best cuts [rows, k + 1]; `squares` [rows] is the squared error of one cluster at zero."""
    few = k <= GRID_CLUSTERS
    cuts = _grid_positions(ordered, mass, min(GRID, ordered.shape[1]) if few else k)
    if few:
        on_grid = best_cuts(np.take_along_axis(mass, cuts, axis=1), np.take_along_axis(total, cuts, axis=1), k)
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
