"""Which values of a tensor share one scale or one code book.

A tensor is seen as a matrix: one row per output channel, the other axes flattened in order as its columns. The matrix
is cut into blocks of `rows_each` x `columns_each`, the last of a row or column may be smaller, and blocks count left to
right, then down. That covers every granularity: per tensor (all, all), per channel (1, all), groups of columns within a
channel (1, g) for linear grids, groups of channels (g, all) for code books.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError

Granularity = Literal["tensor", "channel", "group"]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a tensor of `shape` whose output channel is `axis` (never negative)."""

    shape: tuple[int, ...]
    axis: int
    rows_each: int
    columns_each: int

    @property
    def rows(self) -> int:
        """Number of output channels."""
        return self.shape[self.axis] if self.shape else 1

    @property
    def columns(self) -> int:
        """Number of values in one output channel."""
        return math.prod(self.shape) // self.rows

    @property
    def block_counts(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        return -(-self.rows // self.rows_each), -(-self.columns // self.columns_each)

    @property
    def count(self) -> int:
        """Number of blocks, so of scales or code books."""
        return math.prod(self.block_counts)

    @property
    def moved_shape(self) -> tuple[int, ...]:
        """The tensor's shape with the channel axis first, as rows are flattened from it."""
        return (self.rows, *(size for at, size in enumerate(self.shape) if at != self.axis))

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """What one value per block is reshaped to, so that it broadcasts against the tensor itself.

        () per tensor, (1, .., channels, .., 1) per channel. Blocks finer or coarser than a channel do not broadcast;
        theirs is (blocks down, blocks across), which `spread` expands against `to_rows` of the tensor.
        """
        down, across = self.block_counts
        if self.count == 1:
            return ()
        if across == 1 and self.rows_each == 1:
            return tuple(self.rows if at == self.axis else 1 for at in range(len(self.shape)))
        return down, across

    @property
    def spans_columns(self) -> bool:
        """Whether every block holds whole channels."""
        return self.columns_each >= self.columns

    def to_rows(self, x: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The tensor as its matrix [rows, columns]; a view where the channel comes first."""
        return x.reshape(1, 1) if not self.shape else np.moveaxis(x, self.axis, 0).reshape(self.rows, self.columns)

    def from_rows(self, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The matrix [rows, columns] as the tensor again, contiguous."""
        if not self.shape:
            return rows.reshape(())
        return np.ascontiguousarray(np.moveaxis(rows.reshape(self.moved_shape), 0, self.axis))

    def to_whole_blocks(self, codes: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The tensor as [channels, blocks, columns of a block]; a shorter last block is filled with zeros."""
        across = self.block_counts[1]
        missing = across * self.columns_each - self.columns
        return np.pad(self.to_rows(codes), ((0, 0), (0, missing))).reshape(self.rows, across, self.columns_each)

    def spread(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """One value per block [count] -> the same for each entry, shaped to broadcast against the matrix."""
        table = values.reshape(self.block_counts)
        if self.block_counts[0] > 1 and self.rows_each > 1:
            table = np.repeat(table, self.rows_each, axis=0)[: self.rows]
        if self.block_counts[1] > 1 and self.columns_each > 1:
            table = np.repeat(table, self.columns_each, axis=1)[:, : self.columns]
        return table

    def reduce(self, operation: np.ufunc, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A reduction (np.maximum, np.add, ...) of the matrix over each block: [count]."""
        across = operation.reduceat(rows, np.arange(0, self.columns, self.columns_each), axis=1)
        both: npt.NDArray[Scalar] = operation.reduceat(across, np.arange(0, self.rows, self.rows_each), axis=0)
        return both.reshape(-1)


def make_blocks(shape: tuple[int, ...], axis: int, *, rows_each: int | None, columns_each: int | None) -> Blocks:
    """Blocks of that many rows and columns; None means all.

    Raises:
        SchemeError: the tensor is empty or has no such axis.
    """
    if math.prod(shape) == 0:
        raise SchemeError(f"a tensor of shape {shape} holds no values to encode.")
    if not (-len(shape) <= axis < len(shape) or (not shape and axis == 0)):
        raise SchemeError(f"a tensor of shape {shape} has no axis {axis}.")
    axis = axis % max(1, len(shape))
    rows = shape[axis] if shape else 1
    columns = math.prod(shape) // rows
    return Blocks(tuple(shape), axis, min(rows_each or rows, rows), min(columns_each or columns, columns))


def check_finite(x: npt.NDArray[np.floating]) -> None:
    """Raise SchemeError if `x` holds NaN or infinite values, or is no floating-point tensor."""
    if not np.issubdtype(x.dtype, np.floating):
        raise SchemeError(f"expected floating-point values, got {x.dtype}.")
    with np.errstate(over="ignore"):  # counted in the next line
        bad = x.size - int(np.count_nonzero(np.isfinite(x.astype(np.float32, copy=False))))
    if bad:
        raise SchemeError(
            f"{bad} of {x.size} values are NaN or infinite in float32.",
            remedy="Repair the weights, or leave them float.",
        )


def check_granularity(per: str, group_size: int | None) -> None:
    """Raise SchemeError unless `per` is known and `group_size` goes with it."""
    if per not in ("tensor", "channel", "group"):
        raise SchemeError(f'"{per}" is no granularity.', remedy="Choose tensor, channel or group.")
    if per == "group" and group_size is None:
        raise SchemeError("groups have no size.", remedy="Give one, such as --group-size 32 (group_size=32).")
    if per != "group" and group_size is not None:
        raise SchemeError(
            f"a group size of {group_size} has no effect with a scale for each {per}.",
            remedy="Ask for --per group (per='group') too, or leave the group size out.",
        )
    if group_size is not None and group_size < 1:
        raise SchemeError(f"groups of {group_size} hold nothing.", remedy="Give 1 or more, such as 32.")
