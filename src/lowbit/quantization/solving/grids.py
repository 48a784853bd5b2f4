"""The levels that the weights of a row can be rounded to: evenly spaced ones, and those of code books."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Single = npt.NDArray[np.float32]

# Values for each bound up to which a binary search is faster than comparing all with all: its branches are guessed.
FEW_VALUES = 100


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
            middles = self._middles[0, 0]
            if normal.size < FEW_VALUES * len(middles):
                return np.searchsorted(middles, normal).astype(np.uint8)
            return _above(normal, middles)
        return _above(levels, np.moveaxis(self._middles, -1, 0)[..., None])

    def levels(self, codes: npt.NDArray[np.integer[Any]]) -> Single:
        """Values of indices [groups, rows, columns]."""
        if self.books.shape[:2] == (1, 1):
            entries = self.books[0, 0].take(codes)
            return np.asarray(entries if self.scale is None else entries * self.scale[..., None])
        books = np.broadcast_to(self.books, (*codes.shape[:2], self.books.shape[-1]))
        return np.take_along_axis(books, codes.astype(np.intp), axis=-1)

    def rows(self, index: npt.NDArray[np.intp]) -> "BookGrid":
        """The same grid for these rows alone."""
        if self.scale is not None:
            return BookGrid(self.books, self.scale[:, index])
        return self if self.books.shape[1] == 1 else BookGrid(self.books[:, index])


def _above(values: Single, bounds: Single) -> npt.NDArray[np.uint8]:
    """How many of up to 255 bounds each value is above; the bounds are the first axis."""
    count, above = np.zeros(values.shape, np.uint8), np.empty(values.shape, bool)
    for bound in bounds:
        np.greater(values, bound, out=above)
        count += above.view(np.uint8)
    return count
