"""Rounding a weight matrix so that the layer's output changes least, not so that each weight does.

The objective is the quadratic tr((W - Q) H (W - Q)^T) of `solving.problem`, one per row. Three parts act on it, each
for all rows (and all groups) at once:

- `gptq`: columns in turn; the error made in one is passed on to those not yet rounded, as the conditional optimum
  of the quadratic says (Hassibi and Stork 1993, "Optimal brain surgeon"; Frantar et al. 2022, "GPTQ", equations 2 and 3
  in their Cholesky form). The same as Babai's nearest plane.
- `coordinate_descent` from there. With all other columns fixed the objective in one column is a parabola with its
  minimum at `q + ((W - Q) H)_j / H_jj`; the level nearest to that is the best one, so no step is ever uphill.
- the grid itself (`solving.linear`, `solving.clusters`) is re-solved in closed form between.

With H = I both are round-to-nearest. Gives up: proof of the global optimum, which is a closest-vector problem; for
kernels of few columns `solving.closest_vector` has it.

Shapes: W, Q [groups, rows, columns]; H [groups, columns, columns]; all arithmetic in float32.
"""

import numpy as np

from lowbit.quantization.solving.grids import Grid, Single
from lowbit.quantization.solving.problem import Floats

BLOCK = 64  # columns whose updates are gathered into one matrix product
# A step must win more than float32 arithmetic can pretend, or descent could go around in circles.
LEAST_GAIN = 1e-5


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
        levels, errors = np.empty_like(block), np.empty_like(block)
        for at in range(stop - start):
            levels[at] = grid.nearest(block[at], start + at)
            errors[at] = (block[at] - levels[at]) / corner[:, at, at, None]
            block[at + 1 :] -= corner[:, at, at + 1 :].T[:, :, None] * errors[at]
        rounded[:, :, start:stop] = levels.transpose(1, 2, 0)
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
                slope[rows, stop:] -= steps[rows] @ matrix[start:stop, stop:]  # of columns before it is not read again
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
