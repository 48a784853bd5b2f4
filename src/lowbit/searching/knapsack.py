"""A multiple-choice knapsack: for each layer one choice, so that the total cost is least and limits are kept.

    minimize    sum cost[i][j] x[i][j]  +  sum weight[e] c[e]
    subject to  sum_j x[i][j] = 1                                       for every layer i
                sum resource[r][i][j] x[i][j] <= limit[r]               for every resource r (with conversions)
                c[e] >= |kind of i - kind of k|                         for every pair e = (i, k) of neighbors

x are 0 or 1. Conversions stand between two layers that compute in different kinds of numbers: they cost time, and the
knapsack weighs them. Solved by HiGHS (Huangfu and Hall 2018, "Parallelizing the dual revised simplex method"), exactly
or with a known gap. Choices that cost no less and take no less of anything than another one are left out beforehand.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
import numpy.typing as npt

GAP = 1e-6  # relative, of a solution that counts as exact
SECONDS = 10.0

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """What one layer may get.

    Attributes:
        cost: of each choice.
        uses: of each resource, for each choice [resources][choices].
        kinds: whether a choice computes in integers (1) or not (0), for each.
    """

    cost: tuple[float, ...]
    uses: tuple[tuple[float, ...], ...] = ()
    kinds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """What it takes where two layers compute in different kinds.

    Attributes:
        first: an item.
        second: another one.
        cost: of the conversion.
        uses: of each resource.
    """

    first: int
    second: int
    cost: float
    uses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Packing:
    """A solution.

    Attributes:
        picks: for each item the place of its choice.
        cost: of all.
        gap: how far above the least possible cost it may be, relative to it; 0 where it is proven.
    """

    picks: tuple[int, ...]
    cost: float
    gap: float


@dataclass
class _Rows:
    """Constraints, row by row."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, terms: Sequence[tuple[int, float]], lower: float, upper: float) -> None:
        self.starts.append(len(self.columns))
        self.lower.append(lower)
        self.upper.append(upper)
        for column, value in terms:
            self.columns.append(column)
            self.values.append(value)


def solve_knapsack(
    items: Sequence[Item],
    limits: Sequence[float] = (),
    conversions: Sequence[Conversion] = (),
    *,
    seconds: float = SECONDS,
) -> Packing | None:
    """The cheapest choice for each item within all limits; None if there is none.

    Args:
        items: what each may get.
        limits: of each resource.
        conversions: between items of different kinds.
        seconds: after which the best so far is taken, with its gap.
    """
    if not items:
        return Packing((), 0.0, 0.0)
    kept = [_undominated(item) for item in items]
    places = [(i, j) for i, item in enumerate(kept) for j in item]
    at = {place: column for column, place in enumerate(places)}
    count = len(places)
    cost = [items[i].cost[j] for i, j in places] + [each.cost for each in conversions]
    # Solvers keep constraints to an absolute tolerance: each row is brought to the size of one.
    rows = _Rows()
    for i, item in enumerate(kept):
        rows.add([(at[i, j], 1.0) for j in item], 1.0, 1.0)
    for r, limit in enumerate(limits):
        terms = [(column, items[i].uses[r][j]) for column, (i, j) in enumerate(places)]
        terms += [(count + e, each.uses[r]) for e, each in enumerate(conversions)]
        unit = limit if limit > 0 else 1.0
        rows.add([(column, value / unit) for column, value in terms if value], -highspy.kHighsInf, limit / unit)
    for e, each in enumerate(conversions):
        kinds = [(at[each.first, j], float(items[each.first].kinds[j])) for j in kept[each.first]]
        kinds += [(at[each.second, j], -float(items[each.second].kinds[j])) for j in kept[each.second]]
        for sign in (1.0, -1.0):
            rows.add([(column, sign * value) for column, value in kinds if value] + [(count + e, -1.0)], -np.inf, 0.0)
    solved = _solved(np.asarray(cost), rows, binaries=count, seconds=seconds)
    if solved is None:
        return None
    values, gap = solved
    picks = tuple(max(item, key=lambda j, i=i: values[at[i, j]]) for i, item in enumerate(kept))  # type: ignore[misc]
    total = sum(item.cost[j] for item, j in zip(items, picks, strict=True))
    total += sum(
        each.cost
        for each in conversions
        if items[each.first].kinds[picks[each.first]] != items[each.second].kinds[picks[each.second]]
    )
    return Packing(picks, total, gap)


def _undominated(item: Item) -> list[int]:
    """Choices of which no other one of the same kind is at least as good in everything; of equal ones the first."""
    rows = np.array([item.cost, *item.uses], np.float64)
    kinds = item.kinds or (0,) * len(item.cost)
    kept = []
    for j in range(rows.shape[1]):
        better = [
            k
            for k in range(rows.shape[1])
            if k != j and kinds[k] == kinds[j] and (rows[:, k] <= rows[:, j]).all()
            and ((rows[:, k] < rows[:, j]).any() or k < j)
        ]  # fmt: skip
        if not better:
            kept.append(j)
    return kept


def _solved(cost: Doubles, rows: _Rows, *, binaries: int, seconds: float) -> tuple[Doubles, float] | None:
    """Values of all variables, the first of them 0 or 1, and the gap; None if nothing fits."""
    unit = float(np.abs(cost).max()) or 1.0
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(cost), len(rows.lower)
    program.col_cost_ = cost / unit
    program.col_lower_, program.col_upper_ = np.zeros(len(cost)), np.ones(len(cost))
    program.row_lower_, program.row_upper_ = np.array(rows.lower), np.array(rows.upper)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.array([*rows.starts, len(rows.columns)])
    program.a_matrix_.index_ = np.array(rows.columns)
    program.a_matrix_.value_ = np.array(rows.values)
    program.integrality_ = [highspy.HighsVarType.kInteger] * binaries + [highspy.HighsVarType.kContinuous] * (
        len(cost) - binaries
    )
    solver = _solver()
    for option, value in (
        ("output_flag", False), ("threads", 1), ("random_seed", 0), ("mip_rel_gap", GAP), ("mip_abs_gap", 0.0),
        ("time_limit", seconds),
    ):  # fmt: skip
        solver.setOptionValue(option, value)
    solver.passModel(program)
    solver.run()
    information = solver.getInfo()
    if information.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    return np.array(solver.getSolution().col_value), max(0.0, float(information.mip_gap))


def _solver() -> highspy.Highs:
    """A solver that says nothing: its constructor prints its version on the process's standard output (1.16)."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        return highspy.Highs()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
