"""Rounding a weight matrix so that the layer's output changes least, not so that each weight does.

For a group of a layer with weights W [rows, columns] and inputs x, the squared error of the outputs that rounding to Q
causes is, per position,

    tr((W - Q) H (W - Q)^T),    H = E[x x^T]  [columns, columns],

one quadratic a row. Three parts act on it, each for all rows (and all groups) at once:

- `gptq`: columns in turn; the error made in one is passed on to those not yet rounded, as the conditional optimum
  of the quadratic says (Hassibi and Stork 1993, "Optimal brain surgeon"; Frantar et al. 2022, "GPTQ", equations 2 and 3
  in their Cholesky form). The same as Babai's nearest plane.
- `coordinate_descent`: coordinate descent from there. With all other columns fixed the objective in one column is a
  parabola with
  its minimum at `q + ((W - Q) H)_j / H_jj`; the level nearest to that is the best one, so no step is ever uphill.
- the grid itself (`lowbit.quantization.solving.linear`, `lowbit.quantization.solving.clusters`) is re-solved in closed
  form between.

With H = I both steps are round-to-nearest. Gives up: proof of the global optimum, which is a closest-vector problem;
for kernels of few columns `lowbit.quantization.solving.closest_vector` has it.

Shapes: W, Q [groups, rows, columns]; H [groups, columns, columns]; all arithmetic in float32 but the factorization.
"""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Single = npt.NDArray[np.float32]

FACTOR_BLOCK = 128
BLOCK = 64  # columns whose updates are gathered into one matrix product
# A step must win more than float32 arithmetic can pretend, or descent could go around in circles.
LEAST_GAIN = 1e-5
# Power of a column, relative to the mean, below which it is noise of float32 sums.
DEAD = 1e-10


class Grid(Protocol):
    """Levels that each row can be rounded to; arrays of values are [groups, rows]."""

    def nearest(self, values: Single, column: int | slice) -> Single:
        """The level nearest to each value [groups, rows] of this column, or [groups, rows, columns] of these."""
        ...

    def rows(self, index: npt.NDArray[np.intp]) -> "Grid":
        """The same grid for these rows alone."""
        ...


@dataclass(frozen=True)
class UniformGrid:
    """Levels `scale * (code - zero)`, code in low..top.

    Args:
        scale: positive [groups, rows, blocks]: blocks of columns have a scale each, usually there is one block.
        zero: whole numbers, of the same shape.
        block: which block each column is in [columns].
        low: lowest code.
        top: highest code.
    """

    scale: Single
    zero: Single
    block: npt.NDArray[np.intp]
    low: int
    top: int

    def nearest(self, values: Single, column: int | slice) -> Single:
        """The level nearest to each value [groups, rows] of this column, or [groups, rows, columns] of these."""
        if self.scale.shape[2] > 1:
            scale, zero = self.scale[:, :, self.block[column]], self.zero[:, :, self.block[column]]
        elif isinstance(column, slice):
            scale, zero = self.scale, self.zero
        else:
            scale, zero = self.scale[:, :, 0], self.zero[:, :, 0]
        codes = values / scale
        np.rint(codes, out=codes)
        codes += zero
        np.minimum(np.maximum(codes, self.low, out=codes), self.top, out=codes)
        codes -= zero
        codes *= scale
        return np.asarray(codes)

    def codes(self, levels: Single) -> Single:
        """Codes (whole numbers, float32) of values [groups, rows, columns]."""
        codes = np.rint(levels / self.scale[:, :, self.block]) + self.zero[:, :, self.block]
        return np.asarray(np.clip(codes, self.low, self.top))

    def levels(self, codes: Single) -> Single:
        """Values of codes [groups, rows, columns]."""
        return np.asarray(self.scale[:, :, self.block] * (codes - self.zero[:, :, self.block]))

    def rows(self, index: npt.NDArray[np.intp]) -> "UniformGrid":
        """The same grid for these rows alone."""
        return UniformGrid(self.scale[:, index], self.zero[:, index], self.block, self.low, self.top)


@dataclass(frozen=True)
class BookGrid:
    """Levels from code books.

    Args:
        books: ascending [groups, rows, levels]; a dimension may be 1 where all share a book.
        scale: positive [groups, rows], by which rows multiply the one book of all; None without.
    """

    books: Single
    scale: Single | None = None

    @cached_property
    def _middles(self) -> Single:
        return np.asarray((self.books[..., 1:] + self.books[..., :-1]) / 2)

    def nearest(self, values: Single, column: int | slice) -> Single:
        """The level nearest to each value, the lower one of two; every column has the same levels."""
        flat = values.ndim == 2  # one column alone
        codes = self.codes(values[..., None] if flat else values)
        levels = self.levels(codes)
        return levels[..., 0] if flat else levels

    def codes(self, levels: Single) -> npt.NDArray[np.uint8]:
        """Indices of values [groups, rows, columns]."""
        if self.books.shape[:2] == (1, 1):
            normal = levels if self.scale is None else levels / self.scale[..., None]
            return np.searchsorted(self._middles[0, 0], normal).astype(np.uint8)
        codes = np.zeros(levels.shape, np.uint8)
        for at in range(self._middles.shape[-1]):
            codes += levels > self._middles[..., at, None]
        return codes

    def levels(self, codes: npt.NDArray[np.integer[Any]]) -> Single:
        """Values of indices [groups, rows, columns]."""
        if self.books.shape[:2] == (1, 1):
            entries = self.books[0, 0][codes]
            return np.asarray(entries if self.scale is None else entries * self.scale[..., None])
        books = np.broadcast_to(self.books, (*codes.shape[:2], self.books.shape[-1]))
        return np.take_along_axis(books, codes.astype(np.intp), axis=-1)

    def rows(self, index: npt.NDArray[np.intp]) -> "BookGrid":
        """The same grid for these rows alone."""
        if self.scale is not None:
            return BookGrid(self.books, self.scale[:, index])
        return self if self.books.shape[1] == 1 else BookGrid(self.books[:, index])


@dataclass(frozen=True)
class Problem:
    """One layer's weights and H, with columns in the order in which they are rounded: those of most power first.

    Attributes:
        weights: W [groups, rows, columns].
        second: H, positive definite [groups, columns, columns].
        factor: `inverse_factor` of H.
        order: which stored column each of these is [columns].
        layer_rows: rows per group of the whole layer, where these are a part of them.
    """

    weights: Single
    second: Single
    factor: Single
    order: npt.NDArray[np.intp]
    layer_rows: int

    @staticmethod
    def of(weights: Floats, second: Single) -> "Problem":
        """The problem of a layer, W and H in the stored order of columns."""
        order = np.argsort(-np.einsum("gkk->k", second), kind="stable")
        ordered = second[:, order[:, None], order]
        matrix = np.ascontiguousarray(weights[:, :, order], np.float32)
        return Problem(matrix, ordered, inverse_factor(ordered), order, matrix.shape[1])

    def parts(self, cells: int) -> list["Problem"]:
        """Its rows a part at a time, each of about `cells` weights; the same on any machine."""
        rows = self.weights.shape[1]
        count = min(rows, max(1, self.weights.size // cells)) if rows == self.layer_rows else 1
        bounds = np.linspace(0, rows, count + 1).astype(int)
        return [replace(self, weights=self.weights[:, first:last]) for first, last in itertools.pairwise(bounds)]

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
    order = np.arange(second.shape[-1]) if order is None else order
    ordered = second[:, order[:, None], order]  # a copy
    try:
        return _inverse_factor(ordered.astype(np.float32, copy=False))
    except np.linalg.LinAlgError:
        ordered = second[:, order[:, None], order]
        return _inverse_factor(ordered.astype(np.float64)).astype(np.float32)


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


def gptq(weights: Floats, factor: Single, grid: Grid) -> Single:
    """Round column by column, passing each error on to the columns that follow (GPTQ, algorithm 1).

    Args:
        weights: [groups, rows, columns].
        factor: `inverse_factor` of H.
        grid: the levels of each row.
    """
    left = np.array(weights, np.float32)
    rounded = np.empty_like(left)
    columns = left.shape[-1]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block = np.ascontiguousarray(left[:, :, start:stop].transpose(2, 0, 1))
        corner = factor[:, start:stop, start:stop]
        errors = np.empty_like(block)
        for at in range(stop - start):
            level = grid.nearest(block[at], start + at)
            rounded[:, :, start + at] = level
            errors[at] = (block[at] - level) / corner[:, at, at, None]
            block[at + 1 :] -= corner[:, at, at + 1 :].T[:, :, None] * errors[at]
        if stop < columns:
            left[:, :, stop:] -= errors.transpose(1, 2, 0) @ factor[:, start:stop, stop:]
    return rounded


def coordinate_descent(weights: Floats, rounded: Single, second: Floats, grid: Grid, *, sweeps: int = 8) -> Single:
    """Coordinate descent over all levels until no single step helps, or `sweeps` passes; never worse than it began.

    Args:
        weights: [groups, rows, columns].
        rounded: where to begin; levels of `grid`.
        second: H, positive definite.
        grid: the levels of each row.
        sweeps: most passes over the columns.
    """
    target = np.asarray(weights, np.float32)
    matrix = np.asarray(second, np.float32)
    result = np.array(rounded, np.float32)
    if len(matrix) == 1:
        return _descent_wide(target, result, matrix[0], grid, sweeps)
    diagonal = np.einsum("gkk->gk", matrix)
    slope = (target - result) @ matrix
    for _ in range(sweeps):
        moved = False
        for at in range(target.shape[-1]):
            step = _step(result[:, :, at], slope[:, :, at] / diagonal[:, at, None], grid, at)
            if step.any():
                moved = True
                result[:, :, at] += step
                slope -= step[:, :, None] * matrix[:, None, at]
        if not moved:
            break
        result = _settled(result, grid)
    return result


def _descent_wide(target: Single, result: Single, matrix: Single, grid: Grid, sweeps: int) -> Single:
    """One group: blocks of columns, and only rows that still move.

    Rows do not see each other, so within a block each jumps to its own next column that can move: a few steps for all
    rows together, where going through the columns one by one would mostly find nothing to do.
    """
    diagonal = np.diag(matrix)
    active = np.arange(result.shape[1])
    columns = len(matrix)
    for _ in range(sweeps):
        here = grid.rows(active)
        part = result[0, active]
        slope = (target[0, active] - part) @ matrix
        moved = np.zeros(len(active), bool)
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            steps = _block_steps(
                part[:, start:stop],
                slope[:, start:stop],
                matrix[start:stop, start:stop],
                diagonal[start:stop],
                here,
                slice(start, stop),
            )
            rows = steps.any(axis=1)
            if rows.any():
                moved |= rows
                part[:, start:stop] += steps
                slope[rows] -= steps[rows] @ matrix[start:stop]
        result[0, active] = part
        active = active[moved]
        if not active.size:
            break
    return _settled(result, grid)


def _block_steps(levels: Single, slope: Single, corner: Single, diagonal: Single, grid: Grid, columns: slice) -> Single:
    """Steps [rows, columns] of one pass over a block of columns, each row going from left to right."""
    steps = np.zeros_like(levels)
    place = np.arange(levels.shape[1])
    rows = np.arange(len(levels))
    after = np.full(len(levels), -1)  # the column that each row stepped in last
    while rows.size:
        step = _step(levels[None], (slope / diagonal)[None], grid, columns)[0]
        can = (step != 0) & (place > after[:, None])
        left = np.flatnonzero(can.any(axis=1))
        if not left.size:
            break
        if left.size < len(rows):
            rows, levels, slope, grid = rows[left], levels[left], slope[left], grid.rows(left)
            step, can = step[left], can[left]
        after = can.argmax(axis=1)
        taken = step[np.arange(len(rows)), after]
        steps[rows, after] = taken
        slope = slope - taken[:, None] * corner[after]
    return steps


def _step(levels: Single, way: Single, grid: Grid, column: int | slice) -> Single:
    """How far each level moves when the best value is `way` off; 0 where the nearest level is no real gain."""
    level = grid.nearest(levels + way, column)
    step = level - levels
    gain = np.abs(way) - np.abs(way - step)
    return np.where(gain > LEAST_GAIN * np.abs(way), step, np.float32(0))


def _settled(result: Single, grid: Grid) -> Single:
    """Exactly the levels again, after sums of steps."""
    return grid.nearest(result, slice(None))
