"""Exact rounding of kernels with few columns, such as the 3x3 of a depthwise convolution.

A row with columns k and levels L is a closest-vector problem, `min (w - q)^T H (w - q)` over L^k vectors q: 262144 for
3x3 at 2 bits, 7e10 at 4. With H = R^T R, R upper triangular, the objective is a sum of squares of which the last one
only holds the last column, the one before it the last two, and so on:

    sum_i (R_ii e_i + sum_{j > i} R_ij e_j)^2,    e = w - q.

So partial vectors are grown from the last column, and dropped as soon as their sum reaches the best known solution
(sphere decoding; Fincke and Pohst 1985, "Improved methods for calculating vectors of short length in a lattice"). All
rows grow together, breadth first, with only the most promising ones kept where a row has more than a limit. A row that
never met the limit is solved to the optimum; the others begin again, from the better solution that they now have and
with a higher limit. The result says which rows are proven.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.quantization.solving.problem import Floats

WIDTHS = (32, 512, 8192)  # partial vectors a row may have; each pass begins from the best of the one before it
CHUNK = 1 << 20  # partial vectors times levels that are looked at together

Doubles = npt.NDArray[np.float64]


def closest(
    weights: Floats, second: Floats, levels: Floats, start: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The best vector of levels for each row.

    Args:
        weights: [rows, columns].
        second: H, positive definite [rows, columns, columns], or [1, ...] for all.
        levels: allowed values [rows, levels].
        start: a vector of levels to beat, [rows, columns].

    Returns:
        The best vectors [rows, columns], and for each row whether it is proven to be the optimum.
    """
    target, allowed = np.asarray(weights, np.float64), np.asarray(levels, np.float64)
    best = np.array(start, np.float64)
    proven = np.zeros(len(target), bool)
    factor = np.linalg.cholesky(np.asarray(second, np.float64)).transpose(0, 2, 1)
    factor = np.broadcast_to(factor, (len(target), *factor.shape[1:]))
    for width in WIDTHS:
        left = np.flatnonzero(~proven)
        step = max(1, CHUNK // (width * allowed.shape[1]))
        for first in range(0, len(left), step):
            part = left[first : first + step]
            best[part], proven[part] = _closest(target[part], factor[part], allowed[part], best[part], width)
    return best, proven


def _closest(
    weights: Doubles, factor: Doubles, levels: Doubles, start: Doubles, width: int
) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    rows, columns = weights.shape
    radius = np.square(np.einsum("rij,rj->ri", factor, weights - start)).sum(axis=1)
    radius *= 1 + 1e-12
    proven = np.ones(rows, bool)
    owner = np.arange(rows)
    cost = np.zeros(rows)
    errors = np.zeros((rows, columns))
    for at in range(columns - 1, -1, -1):
        carried = np.einsum("sj,sj->s", factor[owner, at, at + 1 :], errors[:, at + 1 :])
        error = weights[owner, at, None] - levels[owner]
        grown = cost[:, None] + np.square(factor[owner, at, at, None] * error + carried[:, None])
        state, level = np.nonzero(grown < radius[owner, None])
        cost = grown[state, level]
        owner = owner[state]
        errors = errors[state]
        errors[:, at] = error[state, level]
        keep = _most_promising(owner, cost, rows, width)
        if keep is not None:
            proven[np.bincount(owner, minlength=rows) > width] = False
            owner, cost, errors = owner[keep], cost[keep], errors[keep]
    result = np.array(start)
    order = np.lexsort((cost, owner))
    survivors, firsts = np.unique(owner[order], return_index=True)
    result[survivors] = weights[survivors] - errors[order[firsts]]
    return result, proven


def _most_promising(owner: npt.NDArray[np.intp], cost: Doubles, rows: int, width: int) -> npt.NDArray[Any] | None:
    """Which partial vectors to keep where a row has more than `width`; None if no row has."""
    counts = np.bincount(owner, minlength=rows)
    if counts.max(initial=0) <= width:
        return None
    order = np.lexsort((cost, owner))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < width])
