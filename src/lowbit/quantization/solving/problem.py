"""What rounding one layer's weights costs: a quadratic per row, and the factor of it that GPTQ works with.

For a group of a layer with weights W [rows, columns] and inputs x, the squared error of the outputs that rounding to Q
causes is, per position,

    tr((W - Q) H (W - Q)^T),    H = E[x x^T]  [columns, columns].

Shapes: W, Q [groups, rows, columns]; H [groups, columns, columns].
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Single = npt.NDArray[np.float32]

FACTOR_BLOCK = 128
# Power of a column, relative to the mean, below which it is noise of float32 sums.
DEAD = 1e-10


@dataclass(frozen=True)
class Problem:
    """One layer's weights and H, with columns in the order in which they are rounded: those of most power first.

    Attributes:
        weights: W [groups, rows, columns].
        second: H, positive definite [groups, columns, columns].
        factor: `inverse_factor` of H.
        order: which stored column each of these is [columns].
        layer_rows: rows per group of the whole layer, where these are a part of them.
        least_scale: no row may have a smaller scale [groups, rows]; zero where nothing asks for more.
    """

    weights: Single
    second: Single
    factor: Single
    order: npt.NDArray[np.intp]
    layer_rows: int
    least_scale: Single

    @staticmethod
    def of(weights: Floats, second: Single, least_scale: Single | None = None) -> "Problem":
        """The problem of a layer, W and H in the stored order of columns; `least_scale` [channels] or None for none."""
        order = np.argsort(-np.einsum("gkk->k", second), kind="stable")
        ordered = _ordered(second, order)
        matrix = np.ascontiguousarray(weights[:, :, order], np.float32)
        least = np.zeros(matrix.shape[:2], np.float32) if least_scale is None else least_scale.reshape(matrix.shape[:2])
        return Problem(matrix, ordered, inverse_factor(ordered), order, matrix.shape[1], least)

    def parts(self, cells: int, *, two_from: int) -> list["Problem"]:
        """Its rows a part at a time, each of about `cells` weights, in two from `two_from`; the same on any machine."""
        rows, size = self.weights.shape[1], self.weights.size
        count = min(rows, max(size // cells, 2 if size >= two_from else 1)) if rows == self.layer_rows else 1
        bounds = np.linspace(0, rows, count + 1).astype(int)
        return [
            replace(self, weights=self.weights[:, first:last], least_scale=self.least_scale[:, first:last])
            for first, last in itertools.pairwise(bounds)
        ]

    def stored(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values [groups, rows, columns] with columns in the stored order again."""
        return values[:, :, np.argsort(self.order)]


def damped(second: Floats, amount: float, *, in_place: bool = False) -> Single:
    """H + amount * diag(H), group by group, always positive definite, so that single precision is enough.

    Relative to each column's own power, so that the result does not depend on the units of a channel: with one amount
    for all, inputs that are 100 times smaller than others would be nothing but damping. Columns that were always zero
    (dead channels) get the mean power, which keeps their weights near where they are, and a singular H (fewer positions
    than columns, inputs that depend on each other) can be factored. A group without any input becomes I.
    `in_place` may overwrite H.
    """
    diagonal = np.einsum("gkk->gk", second)
    mean = diagonal.mean(axis=1, keepdims=True)
    mean = np.where(mean > 0, mean, 1.0)
    dead = diagonal <= DEAD * mean
    result = np.array(second, np.float32, copy=None if in_place else True)
    np.einsum("gkk->gk", result)[...] += np.where(dead, mean, max(amount, 1e-6) * diagonal)
    return result


def inverse_factor(second: Floats, order: npt.NDArray[np.intp] | None = None) -> Single:
    """Upper triangular U with H^-1 = U^T U for a positive definite H, its rows and columns put in an order first.

    With H = R R^T, R upper triangular, U is R^-1. Both are computed in the place of one copy of H, in blocks, so that
    nearly all is products of matrices: three times as fast as numpy's whole Cholesky and inverse, in a third of the
    memory.
    """
    try:
        return _inverse_factor(_ordered(second, order).astype(np.float32, copy=False))
    except np.linalg.LinAlgError:
        return _inverse_factor(_ordered(second, order).astype(np.float64)).astype(np.float32)


def _ordered(second: Floats, order: npt.NDArray[np.intp] | None) -> Floats:
    """A copy of H with rows and columns in an order."""
    return second.copy() if order is None else np.take(np.take(second, order, axis=1), order, axis=2)


def _inverse_factor(matrix: Floats) -> Floats:
    """U in the place of H; raises `LinAlgError` if H is not positive definite in its precision."""
    columns = matrix.shape[-1]
    starts = range(0, columns, FACTOR_BLOCK)
    for start in reversed(starts):  # R, with the inverses of its diagonal blocks
        stop = min(start + FACTOR_BLOCK, columns)
        here = slice(start, stop)
        corner = np.linalg.cholesky(matrix[:, here, here][:, ::-1, ::-1])[:, ::-1, ::-1]
        matrix[:, here, here] = np.triu(np.linalg.inv(corner))
        matrix[:, stop:, here] = 0
        panel = matrix[:, :start, here] @ matrix[:, here, here].transpose(0, 2, 1)
        for first in range(0, start, FACTOR_BLOCK):  # what is below the diagonal is not looked at
            last = min(first + FACTOR_BLOCK, start)
            matrix[:, :last, first:last] -= panel[:, :last] @ panel[:, first:last].transpose(0, 2, 1)
        matrix[:, :start, here] = panel
    for start in starts[1:]:
        here = slice(start, min(start + FACTOR_BLOCK, columns))
        before = matrix[:, :start, :start] @ matrix[:, :start, here]
        matrix[:, :start, here] = -before @ matrix[:, here, here]
    return matrix


def objective(weights: Floats, rounded: Floats | float, second: Floats) -> npt.NDArray[np.float64]:
    """The quadratic of each row, [groups, rows]."""
    error = (weights - rounded).astype(second.dtype, copy=False)
    return np.asarray(np.einsum("grk,grk->gr", error @ second, error), np.float64)
