"""Linear grids on the layer's objective: scale, zero point and codes of each channel chosen together.

A grid that fits the weights is not the one that serves the layer: scales found by the squared error of the weights lose
17 points at 3 bits (ResNet20) where scales found on `tr((W - Q) H (W - Q)^T)` lose one. So a ladder of scales, from the
one that covers all weights down to `NARROWEST` of it, is rounded with error feedback and judged on the objective, the
best of each channel is improved by coordinate descent, and then grid and codes are re-solved in turn:

- codes fixed: with `u = code - zero` the best scale is `w^T H u / u^T H u`; for affine grids scale and offset follow
  from two linear equations, the offset rounded to a whole number of steps;
- grid fixed: descent from the codes at hand, and error feedback anew.

Only what lowers the objective is kept, so no step of it can do harm. In the end scales become those that a file stores
(`lowbit.quantization.solving.stored_scales`), and codes are chosen once more.

Rows of a layer of more than a million weights are solved in parts of their own, on threads; its parts are the same on
any machine.
"""

import itertools
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.processor import cores, in_order
from lowbit.quantization.solving.closest_vector import closest
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import (
    Floats,
    Single,
    UniformGrid,
    coordinate_descent,
    gptq,
    inverse_factor,
    objective,
)
from lowbit.quantization.solving.stored_scales import stored_scales
from lowbit.schemes.linear import Linear

NARROWEST = 0.45
NUDGES = (0.97, 1.03, 0.94, 1.06, 0.985, 1.015)  # factors on the scale that the highest effort tries in the end
CANDIDATE_CELLS = 1 << 23  # weights of all candidates that are rounded together: 32 MB
PART_CELLS = 1 << 19  # weights of a layer's rows that one thread solves by themselves
EXACT_COLUMNS = 16
EXACT_LEVELS = 16
SMALLEST = np.float32(1e-30)


@dataclass(frozen=True)
class LinearSolution:
    """Codes and grid of a layer.

    Attributes:
        codes: whole numbers [groups, rows, columns].
        scale: [groups, rows, blocks].
        zero: whole numbers [groups, rows, blocks].
        error: objective of each row [groups, rows].
        proven: rows whose codes are the optimum for their grid.
    """

    codes: npt.NDArray[np.int32]
    scale: Single
    zero: npt.NDArray[np.int32]
    error: npt.NDArray[np.float64]
    proven: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _State:
    """A grid, its rounded weights, and how good they are."""

    grid: UniformGrid
    rounded: Single
    error: npt.NDArray[np.float64]


def solve_linear(weights: Floats, second: Single, scheme: Linear, effort: Effort) -> LinearSolution:
    """Round weights [groups, rows, columns] on `second`, H, positive definite [groups, columns, columns]."""
    order = np.argsort(-np.einsum("gkk->k", second), kind="stable")
    back = np.argsort(order)
    problem = _Problem(weights[:, :, order], second[:, order[:, None], order], scheme, order)
    parts = list(in_order(lambda part: part.solve(effort), problem.parts(), threads=cores()))
    state = _State(
        replace(
            parts[0][0].grid,
            scale=np.concatenate([state.grid.scale for state, _ in parts], axis=1),
            zero=np.concatenate([state.grid.zero for state, _ in parts], axis=1),
        ),
        np.concatenate([state.rounded for state, _ in parts], axis=1),
        np.concatenate([state.error for state, _ in parts], axis=1),
    )
    proven = np.concatenate([proven for _, proven in parts], axis=1)
    codes = state.grid.codes(state.rounded)[:, :, back].astype(np.int32)
    return LinearSolution(codes, state.grid.scale, state.grid.zero.astype(np.int32), state.error, proven)


class _Problem:
    """What stays the same while a layer is solved: target, H, its factor, and what shares a scale."""

    def __init__(self, weights: Floats, second: Single, scheme: Linear, order: npt.NDArray[np.intp]) -> None:
        self.weights = np.ascontiguousarray(weights, np.float32)
        self.second = second
        self.factor = inverse_factor(second)
        self.affine = not scheme.symmetric
        self.low, self.top = scheme.code_range
        self.bits = scheme.bits
        self.tied = scheme.per == "tensor"
        size = scheme.group_size if scheme.per == "group" and scheme.group_size else len(order)
        self.block = np.asarray(order // size, np.intp)
        self.blocks = int(self.block.max()) + 1
        self.scales = 1 if self.tied else weights.shape[0] * weights.shape[1] * self.blocks

    def parts(self) -> list["_Problem"]:
        """Its rows a part at a time, where they do not share a scale and are many: how many depends on them alone."""
        rows = self.weights.shape[1]
        count = 1 if self.tied else min(rows, max(1, self.weights.size // PART_CELLS))
        bounds = np.linspace(0, rows, count + 1).astype(int)
        found = []
        for first, last in itertools.pairwise(bounds):
            part = copy(self)
            part.weights = self.weights[:, first:last]
            found.append(part)
        return found

    def solve(self, effort: Effort) -> tuple["_State", npt.NDArray[np.bool_]]:
        """The best grid and codes that were found, and which rows are proven to be the best for their grid."""
        state = self.start(effort)
        for _ in range(effort.rounds):
            fitted = self.fit_grid(state)
            for candidate in (self.descend(fitted, effort), self.round(fitted.grid, effort)):
                state = self.better(state, candidate)
        for nudge in NUDGES[: effort.nudges]:
            grid = replace(state.grid, scale=state.grid.scale * np.float32(nudge))
            candidate = self.fit_grid(self.round(grid, effort))
            state = self.better(state, self.descend(candidate, effort))
        proven = np.zeros(self.weights.shape[:2], bool)
        levels = state.grid.top - state.grid.low + 1
        columns = self.weights.shape[2]
        exact = effort.exact and columns <= EXACT_COLUMNS and levels <= EXACT_LEVELS and state.grid.scale.shape[2] == 1
        for _ in range(2 * exact):
            state, proven = self.exact(state)
            state = self.better(state, self.fit_grid(state))
        state = self.narrowed(state, effort)
        if exact:
            state, proven = self.exact(state)
        return state, proven

    def judge(self, grid: UniformGrid, rounded: Single) -> _State:
        return _State(grid, rounded, objective(self.weights, rounded, self.second))

    def better(self, old: _State, new: _State) -> _State:
        """Row by row (all together if they share a scale) the better of two."""
        won = new.error.sum() < old.error.sum() if self.tied else new.error < old.error
        won = np.broadcast_to(won, old.error.shape)
        grid = replace(
            old.grid,
            scale=np.where(won[..., None], new.grid.scale, old.grid.scale),
            zero=np.where(won[..., None], new.grid.zero, old.grid.zero),
        )
        rounded = np.where(won[..., None], new.rounded, old.rounded)
        return _State(grid, rounded, np.where(won, new.error, old.error))

    def round(self, grid: UniformGrid, effort: Effort) -> _State:
        rounded = gptq(self.weights, self.factor, grid)
        return self.judge(grid, coordinate_descent(self.weights, rounded, self.second, grid, sweeps=effort.sweeps))

    def descend(self, state: _State, effort: Effort) -> _State:
        found = coordinate_descent(self.weights, state.rounded, self.second, state.grid, sweeps=effort.sweeps)
        return self.judge(state.grid, found)

    def cover(self, share: float) -> UniformGrid:
        """The grid over `share` of the range of the weights."""
        shape = (*self.weights.shape[:2], self.blocks)
        low, high = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for block in range(self.blocks):
            inside = self.weights[:, :, self.block == block]
            low[..., block], high[..., block] = inside.min(axis=2), inside.max(axis=2)
        low, high = np.minimum(low, 0) * np.float32(share), np.maximum(high, 0) * np.float32(share)
        if self.tied:
            low[:], high[:] = low.min(), high.max()
        zero = np.zeros(shape, np.float32)
        if self.affine:
            scale = np.maximum((high - low) / (self.top - self.low), SMALLEST)
            zero = np.clip(np.rint(-low / scale), self.low, self.top)
        else:
            scale = np.maximum(np.maximum(high / self.top, low / self.low), SMALLEST)
        return UniformGrid(scale.astype(np.float32), zero.astype(np.float32), self.block, self.low, self.top)

    def start(self, effort: Effort) -> _State:
        """The best of a ladder of scales, after descent."""
        shares = np.linspace(1.0, NARROWEST, effort.scales)
        rows = self.weights.shape[1]
        together = max(1, CANDIDATE_CELLS // self.weights.size)
        best: _State | None = None
        for first in range(0, len(shares), together):
            grids = [self.cover(float(share)) for share in shares[first : first + together]]
            stacked = replace(
                grids[0],
                scale=np.concatenate([grid.scale for grid in grids], axis=1),
                zero=np.concatenate([grid.zero for grid in grids], axis=1),
            )
            rounded = gptq(np.tile(self.weights, (1, len(grids), 1)), self.factor, stacked)
            for at, grid in enumerate(grids):
                state = self.judge(grid, rounded[:, at * rows : (at + 1) * rows])
                best = state if best is None else self.better(best, state)
        assert best is not None
        return self.descend(best, effort)

    def fit_grid(self, state: _State) -> _State:
        """The best grid for the codes as they are; zero points only where a row has one."""
        codes = state.grid.codes(state.rounded)
        zero = state.grid.zero
        if self.affine and self.blocks == 1 and not self.tied:
            zero = self._fit_zero(codes, state.grid)
        grid = replace(state.grid, zero=zero)
        scale = grid.scale.copy()
        steps = codes - zero[:, :, self.block]
        for block in range(self.blocks):
            part = steps * (self.block == block)
            error = self.weights - scale[:, :, self.block] * steps
            curved = part @ self.second
            top, bottom = (curved * error).sum(axis=2), (curved * part).sum(axis=2)
            if self.tied:
                top, bottom = np.broadcast_to(top.sum(), top.shape), np.broadcast_to(bottom.sum(), top.shape)
            moved = scale[..., block] + top / np.where(bottom > 0, bottom, 1)
            scale[..., block] = np.where((bottom > 0) & (moved > SMALLEST), moved, scale[..., block])
        grid = replace(grid, scale=scale)
        return self.judge(grid, grid.levels(codes))

    def narrowed(self, state: _State, effort: Effort) -> _State:
        """On scales as the file will store them, and the codes that are best there."""
        codes = state.grid.codes(state.rounded)
        scale = state.grid.scale
        tied = scale[:1, :1] if self.tied else scale
        stored = stored_scales(tied.reshape(-1), self.bits, count=self.scales)[0].reshape(tied.shape)
        grid = replace(state.grid, scale=np.broadcast_to(stored, scale.shape).copy())
        return self.descend(self.judge(grid, grid.levels(codes)), effort)

    def _fit_zero(self, codes: Single, grid: UniformGrid) -> Single:
        """Whole zero points nearest to the best offset, from the normal equations of `scale * code + offset`."""
        curved = (codes @ self.second).astype(np.float64)
        total = self.second.sum(axis=1, dtype=np.float64)[:, None, :]
        a = (curved * codes).sum(axis=2)
        b = curved.sum(axis=2)
        c = np.broadcast_to(total.sum(axis=2), a.shape)
        p, q = (curved * self.weights).sum(axis=2), (total * self.weights).sum(axis=2)
        determinant = a * c - b * b
        sound = determinant > 1e-6 * a * c
        divisor = np.where(sound, determinant, 1.0)
        scale, offset = (p * c - q * b) / divisor, (q * a - p * b) / divisor
        sound &= scale > SMALLEST
        zero = np.rint(-offset / np.where(sound, scale, 1.0)).clip(self.low, self.top)
        return np.where(sound[..., None], zero[..., None], grid.zero).astype(np.float32)

    def exact(self, state: _State) -> tuple[_State, npt.NDArray[np.bool_]]:
        """The optimum for the grid as it is."""
        groups, rows, columns = self.weights.shape
        steps = np.arange(self.low, self.top + 1, dtype=np.float32) - state.grid.zero
        levels = (state.grid.scale * steps).reshape(groups * rows, -1)
        second: Any = np.repeat(self.second, rows, axis=0)
        found, proven = closest(self.weights.reshape(-1, columns), second, levels, state.rounded.reshape(-1, columns))
        rounded = found.reshape(groups, rows, columns).astype(np.float32)
        return self.better(state, self.judge(state.grid, rounded)), proven.reshape(groups, rows)
