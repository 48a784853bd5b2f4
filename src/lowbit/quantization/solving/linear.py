"""Linear grids on the layer's objective: scale, zero point and codes of each channel chosen together.

A grid that fits the weights is not the one that serves the layer: scales found by the squared error of the weights lose
17 points at 3 bits (ResNet20) where scales found on `tr((W - Q) H (W - Q)^T)` lose one. So a ladder of scales, from the
one that covers all weights down to `NARROWEST` of it, is rounded by GPTQ and judged on the objective, the
best of each channel is improved by coordinate descent, and then grid and codes are re-solved in turn:

- codes fixed: with `u = code - zero` the best scale is `w^T H u / u^T H u`; for affine grids scale and offset follow
  from two linear equations, the offset rounded to a whole number of steps;
- grid fixed: coordinate descent from the codes at hand, and GPTQ anew.

Only what lowers the objective is kept, so no step of it can do harm. In the end scales become those that a file stores
(`lowbit.quantization.solving.stored_scales`), and codes are chosen once more.

Rows of a layer of more than a million weights are solved in parts of their own, on threads; its parts are the same on
any machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.ops import Layer
from lowbit.processor import cores, in_order
from lowbit.quantization.solving.closest_vector import closest
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import coordinate_descent, gptq
from lowbit.quantization.solving.grids import UniformGrid
from lowbit.quantization.solving.problem import Problem, Single, objective
from lowbit.quantization.solving.stored_scales import stored_scales
from lowbit.schemes.linear import Linear, LinearCodes, power_above

NARROWEST = 0.45
NUDGES = (0.97, 1.03, 0.94, 1.06, 0.985, 1.015)  # factors on the scale that the highest effort tries in the end
CANDIDATE_CELLS = 1 << 22  # weights of all candidates that one thread rounds together: 16 MB, five times in memory
PART_CELLS = 1 << 19  # weights of a layer's rows that one thread solves by themselves
# From so many on there are two parts: each goes through all columns, so more take longer than they save.
TWO_PARTS_FROM = 1 << 15
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
    """

    codes: npt.NDArray[np.int32]
    scale: Single
    zero: npt.NDArray[np.int32]
    error: npt.NDArray[np.float64]

    @staticmethod
    def joined(parts: Sequence["LinearSolution"]) -> "LinearSolution":
        """The solution of a layer from those of parts of its rows."""
        return LinearSolution(
            np.concatenate([part.codes for part in parts], axis=1),
            np.concatenate([part.scale for part in parts], axis=1),
            np.concatenate([part.zero for part in parts], axis=1),
            np.concatenate([part.error for part in parts], axis=1),
        )

    def to_codes(self, layer: Layer, scheme: Linear) -> LinearCodes:
        """The codes of the layer's weight, in its stored shape."""
        count = 1 if scheme.per == "tensor" else None
        scale, zero = self.scale.reshape(-1)[:count], self.zero.reshape(-1)[:count]
        stored = layer.from_matrix(self.codes)
        return scheme.from_codes(stored, scale, zero_point=None if scheme.symmetric else zero, axis=layer.channel_axis)


def solve_linear(problem: Problem, scheme: Linear, effort: Effort) -> LinearSolution:
    """Choose scales, zero points and codes of a layer's weights.

    Args:
        problem: the weights and what their errors cost.
        scheme: bits, and what shares a scale.
        effort: how long to search.
    """
    parts = [problem] if scheme.per == "tensor" else problem.parts(PART_CELLS, two_from=TWO_PARTS_FROM)
    if len(parts) > 1:
        solutions = in_order(lambda part: solve_linear(part, scheme, effort), parts, threads=cores())
        return LinearSolution.joined(list(solutions))
    search = _GridSearch(problem, scheme, effort)
    state: _State | None = None
    for grids in search.ladder():
        stacked = replace(
            grids[0],
            scale=np.concatenate([grid.scale for grid in grids], axis=1),
            zero=np.concatenate([grid.zero for grid in grids], axis=1),
        )
        rounded = gptq(np.tile(problem.weights, (1, len(grids), 1)), problem.factor, stacked)
        for grid, rows in zip(grids, np.split(rounded, len(grids), axis=1), strict=True):
            candidate = search.judge(grid, rows)
            state = candidate if state is None else search.better(state, candidate)
    assert state is not None
    state = search.descend(state)
    for _ in range(effort.rounds):
        fitted = search.fit_grid(state)
        for candidate in (search.descend(fitted), search.round(fitted.grid)):
            state = search.better(state, candidate)
    for nudge in () if search.powers else NUDGES[: effort.nudges]:
        grid = replace(state.grid, scale=np.maximum(state.grid.scale * np.float32(nudge), search.least))
        state = search.better(state, search.descend(search.fit_grid(search.round(grid))))
    exact = effort.exact and search.can_be_exact(state.grid)
    for _ in range(2 * exact):
        state = search.exact(state)
        state = search.better(state, search.fit_grid(state))
    state = search.narrowed(state)
    if exact:
        state = search.exact(state)
    codes = problem.stored(state.grid.codes(state.rounded)).astype(np.int32)
    return LinearSolution(codes, state.grid.scale, state.grid.zero.astype(np.int32), state.error)


@dataclass(frozen=True)
class _State:
    """A grid, its rounded weights, and how good they are."""

    grid: UniformGrid
    rounded: Single
    error: npt.NDArray[np.float64]


class _GridSearch:
    """What stays the same while a layer is solved, and the moves of the search."""

    def __init__(self, problem: Problem, scheme: Linear, effort: Effort) -> None:
        self.weights, self.second, self.factor = problem.weights, problem.second, problem.factor
        self.effort = effort
        self.affine = not scheme.symmetric
        self.powers = scheme.powers
        self.low, self.top = scheme.code_range
        self.bits = scheme.bits
        self.tied = scheme.per == "tensor"
        size = scheme.group_size if scheme.per == "group" and scheme.group_size else len(problem.order)
        self.block = np.asarray(problem.order // size, np.intp)
        self.blocks = int(self.block.max()) + 1
        # Of the whole layer: how a file stores them depends on their number.
        self.scales = 1 if self.tied else len(self.weights) * problem.layer_rows * self.blocks
        least = np.maximum(problem.least_scale, SMALLEST)
        self.least = np.broadcast_to(least.max() if self.tied else least, least.shape)[..., None]

    def ladder(self) -> Iterator[list[UniformGrid]]:
        """Grids over less and less of the weights' range, as many at a time as may be rounded together."""
        shares = np.linspace(1.0, NARROWEST, self.effort.scales)
        together = max(1, CANDIDATE_CELLS // self.weights.size)
        for first in range(0, len(shares), together):
            yield [self.cover(float(share)) for share in shares[first : first + together]]

    def judge(self, grid: UniformGrid, rounded: Single) -> _State:
        """A grid and rounded weights with their objective."""
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

    def round(self, grid: UniformGrid) -> _State:
        """GPTQ and coordinate descent on a grid."""
        return self.descend(_State(grid, gptq(self.weights, self.factor, grid), np.empty(0)))

    def descend(self, state: _State) -> _State:
        """Coordinate descent from the codes at hand."""
        sweeps = self.effort.sweeps
        rounded = coordinate_descent(self.weights, state.rounded, self.second, state.grid, sweeps=sweeps)
        return self.judge(state.grid, rounded)

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
            scale = np.maximum((high - low) / (self.top - self.low), self.least)
            zero = np.clip(np.rint(-low / scale), self.low, self.top)
        else:
            scale = np.maximum(np.maximum(high / self.top, low / self.low), self.least)
        scale = power_above(scale) if self.powers else scale
        return UniformGrid(scale.astype(np.float32), zero.astype(np.float32), self.block, self.low, self.top)

    def fit_grid(self, state: _State) -> _State:
        """The best grid for the codes as they are; zero points only where a row has one. Powers of two stay."""
        if self.powers:
            return state
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
            scale[..., block] = np.where((bottom > 0) & (moved > self.least[..., 0]), moved, scale[..., block])
        grid = replace(grid, scale=scale)
        return self.judge(grid, grid.levels(codes))

    def narrowed(self, state: _State) -> _State:
        """On scales as the file will store them, and the codes that are best there."""
        if self.powers:
            return state
        codes = state.grid.codes(state.rounded)
        scale = state.grid.scale
        tied = scale[:1, :1] if self.tied else scale
        stored = stored_scales(tied.reshape(-1), self.bits, count=self.scales)[0].reshape(tied.shape)
        grid = replace(state.grid, scale=np.broadcast_to(stored, scale.shape).copy())
        return self.descend(self.judge(grid, grid.levels(codes)))

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

    def can_be_exact(self, grid: UniformGrid) -> bool:
        """Whether rows are short enough, and levels few enough, to look for the proven optimum."""
        few = self.weights.shape[2] <= EXACT_COLUMNS and grid.top - grid.low + 1 <= EXACT_LEVELS
        return few and grid.scale.shape[2] == 1

    def exact(self, state: _State) -> _State:
        """The optimum for the grid as it is."""
        groups, rows, columns = self.weights.shape
        steps = np.arange(self.low, self.top + 1, dtype=np.float32) - state.grid.zero
        levels = (state.grid.scale * steps).reshape(groups * rows, -1)
        second: Any = np.repeat(self.second, rows, axis=0)
        nearest, _ = closest(self.weights.reshape(-1, columns), second, levels, state.rounded.reshape(-1, columns))
        rounded = nearest.reshape(groups, rows, columns).astype(np.float32)
        return self.better(state, self.judge(state.grid, rounded))
