"""The context model of weight codes: what is expected of a code before it is seen, learned from those before it.

Idea: the codes of a layer are not alike. Some output channels are wide, some inputs matter more, and the weights of one
kernel resemble their neighbors in size and sign. So every code is coded under a *context*: how large a code is to be
expected here (from the same row, the same column, the kernel neighbors above and to the left), and how far from the
center (from the neighbors). Each context has one table of frequencies, which starts as a Student t curve of the
expected width and learns from what was coded. Nothing about the tables is stored: the decoder learns the same ones.

Codes are visited in blocks that grow with what is already known. Inside a block tables and contexts stand still, so a
block is a handful of bulk calls of a coder and no Python loop over symbols. What a coder does with the symbols of one
context is its own affair (`packing/entropy.py`): the same walk encodes, decodes and counts.

All arithmetic that decides about tables and contexts is on integers or single IEEE double operations (+ - * /, no
library functions, no float sums), so that every machine learns the same tables. docs/format.md has the formulas.

Source: context modelling with blockwise adaptive counts as in lossless image coding (Weinberger et al., "LOCO-I", IEEE
Trans. Image Processing 2000).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lowbit.errors import ArchiveError

Integers = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

MAX_ALPHABET = 1024
FLAT, ROWS, ROWS_COLUMNS, NEIGHBORS = METHODS = (0, 1, 2, 3)
# Expected magnitudes, three steps an octave, from 2^-4 to 2^9: literals, because pow() differs from machine to machine.
_OCTAVE = (1.0, 1.2599210498948732, 1.5874010519681994)
SPREADS: Floats = np.array([step * 2.0**octave for octave in range(-4, 9) for step in _OCTAVE])
_EDGES: Floats = SPREADS[1:] * 0.8908987181403393
# Expected offset from the center, in units of the expected magnitude, and the borders between them.
_OFFSETS = (-1.0, -0.4, 0.0, 0.4, 1.0)
_OFFSET_EDGES: Floats = np.array([-0.7, -0.2, 0.2, 0.7])
_GAIN = 64  # what one coded symbol adds to its frequency
_FLOOR = 4  # what every symbol has from the start
_SMALLEST_BLOCK = 128
_FIRST_STRIPE = 16
_GROWTH = 6  # a block is at most one sixth of what was coded before it
_SHRINK = 6.0  # a mean over few codes is drawn to the whole mean as if by six codes more


@dataclass(frozen=True)
class Layout:
    """How the codes of a tensor stand to each other: [rows, columns, kernel height, kernel width]."""

    rows: int
    columns: int = 1
    kernel_height: int = 1
    kernel_width: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """All four."""
        return self.rows, self.columns, self.kernel_height, self.kernel_width

    @property
    def kernel(self) -> int:
        """Weights of one kernel."""
        return self.kernel_height * self.kernel_width

    @property
    def count(self) -> int:
        """How many codes."""
        return self.rows * self.columns * self.kernel


@dataclass(frozen=True)
class Coding:
    """All that a decoder must know before the first bit of a tensor's codes.

    Attributes:
        method: one of `METHODS`: which neighbors a context looks at.
        alphabet: symbols are 0 ... alphabet - 1; from 2 to `MAX_ALPHABET`.
        center: the symbol around which magnitudes are measured.
        spread: index into `SPREADS` of the mean magnitude, as a first guess.
    """

    method: int
    alphabet: int
    center: int
    spread: int

    def check(self) -> None:
        """Refuse what no encoder writes.

        Raises:
            ArchiveError: a field is out of its range.
        """
        if (
            self.method not in METHODS
            or not 2 <= self.alphabet <= MAX_ALPHABET
            or not 0 <= self.center < self.alphabet
            or not 0 <= self.spread < len(SPREADS)
        ):
            raise ArchiveError(
                f"impossible coding parameters {self}.",
                where="archive plan",
                remedy="The file is damaged or not from lowbit; pack the model again.",
            )


class Coder(Protocol):
    """What happens to the symbols of one context of one block."""

    def code(self, frequencies: Floats, symbols: Integers) -> Integers:
        """Code `symbols` under these frequencies, or ignore their values and return decoded ones."""


def first_guess(symbols: Integers) -> tuple[int, int, int]:
    """Alphabet, center (the median) and spread of symbols, as `Coding` takes them."""
    alphabet = max(2, int(symbols.max(initial=0)) + 1)
    counts = np.bincount(symbols, minlength=alphabet)
    center = int(np.searchsorted(np.cumsum(counts), (symbols.size + 1) // 2))
    mean = float(counts @ np.abs(np.arange(alphabet) - center)) / max(1, symbols.size)
    return alphabet, min(center, alphabet - 1), int(np.searchsorted(_EDGES, mean))


def planes_shape(layout: Layout, coding: Coding) -> tuple[int, int, int]:
    """[kernel, rows, columns] in which codes are visited; [1, count, 1] if contexts are not used."""
    return (1, layout.count, 1) if coding.method == FLAT else (layout.kernel, layout.rows, layout.columns)


def to_planes(symbols: Integers, layout: Layout, coding: Coding) -> Integers:
    """Symbols [layout.count] as [kernel, rows, columns], int16: one plane a kernel position."""
    kernel, rows, columns = planes_shape(layout, coding)
    return np.ascontiguousarray(symbols.astype(np.int16, copy=False).reshape(rows, columns, kernel).transpose(2, 0, 1))


def from_planes(planes: Integers) -> Integers:
    """The inverse of `to_planes`."""
    return planes.transpose(1, 2, 0).reshape(-1)


def walk(
    planes: Integers, layout: Layout, coding: Coding, coder: Coder, seen: Integers | None = None
) -> dict[int, Floats]:
    """Visit all blocks; a decoder fills `planes` on the way. Returns the tables learned, by context."""
    tables: dict[int, Floats] = {}
    expectation = _Expectation(planes, layout, coding)
    for plane, first, end, row, last in _blocks(*planes.shape):
        block = planes[plane, row:last, first:end]
        context = expectation.contexts(plane, first, end, row, last)
        if seen is not None:
            seen[plane, row:last, first:end] = context.reshape(block.shape)
        if coding.method == FLAT:
            block[...] = _code_context(block.reshape(-1), coding.spread, tables, coding, coder).reshape(block.shape)
            continue
        order = np.argsort(context, kind="stable")
        values = block.reshape(-1)[order]
        sizes = np.bincount(context)
        start = 0
        for index in np.flatnonzero(sizes).tolist():
            part = slice(start, start + int(sizes[index]))
            values[part] = _code_context(values[part], index, tables, coding, coder)
            start = part.stop
        back = np.empty_like(values)
        back[order] = values
        block[...] = back.reshape(block.shape)
        expectation.learn(plane, first, end, row, last)
    return tables


def _blocks(kernel: int, rows: int, columns: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Blocks (plane, first column, end, first row, end): planes are stripes, a lone plane is cut into growing ones."""
    stripes = [(plane, 0, columns) for plane in range(kernel)]
    if kernel == 1:
        stripes = []
        start = 0
        while start < columns:
            end = min(columns, start + max(_FIRST_STRIPE, start))
            stripes.append((0, start, end))
            start = end
    done = 0
    for plane, first, end in stripes:
        width = end - first
        row = 0
        while row < rows:
            height = -(-max(_SMALLEST_BLOCK, done // _GROWTH) // width)
            last = min(rows, row + height)
            yield plane, first, end, row, last
            done += (last - row) * width
            row = last


def _code_context(symbols: Integers, context: int, tables: dict[int, Floats], coding: Coding, coder: Coder) -> Integers:
    if context not in tables:
        offset, spread = divmod(context, len(SPREADS))
        shift = _OFFSETS[offset] if coding.method == NEIGHBORS else 0.0
        tables[context] = _first_frequencies(coding.alphabet, coding.center, SPREADS[spread], shift)
    table = tables[context]
    symbols = coder.code(table, symbols)
    table += _GAIN * np.bincount(symbols, minlength=coding.alphabet)
    return symbols


def _first_frequencies(alphabet: int, center: int, magnitude: float, offset: float) -> Floats:
    """Student t with 15 degrees of freedom, (1 + t^2 / 15)^-8, as integers that weigh as much as some dozen symbols."""
    width = max(magnitude * 1.25, 0.3)
    distance = (np.arange(alphabet, dtype=np.float64) - center - offset * magnitude) / width
    falling = 1.0 + distance * distance / 15.0
    for _ in range(3):
        falling = falling * falling
    curve = np.floor(4294967296.0 / falling).astype(np.int64) + 1
    weight = _GAIN * max(16, alphabet // 2)
    # Whole numbers, in the type that constriction takes; far below 2^53, so sums are exact in any order.
    return (curve * weight // int(curve.sum()) + _FLOOR).astype(np.float64)


class _Expectation:
    """Running means of magnitudes, and the contexts that follow from them."""

    def __init__(self, planes: Integers, layout: Layout, coding: Coding) -> None:
        _, rows, columns = planes.shape if coding.method != FLAT else (0, 0, 0)
        self.planes = planes
        self.coding = coding
        self.kernel_width = layout.kernel_width
        self.start = float(SPREADS[coding.spread])
        self.row_sums = np.zeros(rows, np.int64)
        self.row_count = np.zeros(rows, np.int64)
        self.column_sums = np.zeros(columns, np.int64)
        self.column_count = np.zeros(columns, np.int64)
        self.plane_sums = np.zeros(planes.shape[0], np.int64)
        self.plane_count = np.zeros(planes.shape[0], np.int64)

    def contexts(self, plane: int, first: int, end: int, row: int, last: int) -> Integers:
        """Context of each code of a block, uint16 [codes]."""
        if self.coding.method == FLAT:
            return np.full((last - row) * (end - first), self.coding.spread, np.uint16)
        total, count = int(self.plane_sums.sum()), int(self.plane_count.sum())
        mean = (total + self.start * 64.0) / (count + 64.0)
        rows = (self.row_sums[row:last] + mean * _SHRINK) / (self.row_count[row:last] + _SHRINK)
        here = (self.plane_sums[plane] + mean * 32.0) / (self.plane_count[plane] + 32.0)
        expected = np.repeat((rows * (here / mean))[:, None], end - first, axis=1)
        if self.coding.method != ROWS:
            columns = (self.column_sums[first:end] + mean * _SHRINK) / (self.column_count[first:end] + _SHRINK)
            expected *= columns / mean
        if self.coding.method != NEIGHBORS:
            return np.searchsorted(_EDGES, expected.reshape(-1)).astype(np.uint16)
        neighbors = []
        if plane % self.kernel_width:
            neighbors.append(self._centered(plane - 1, first, end, row, last))
        if plane >= self.kernel_width:
            neighbors.append(self._centered(plane - self.kernel_width, first, end, row, last))
        offset = np.full(expected.size, 2, np.uint16)
        if neighbors:
            magnitude, sum_ = np.abs(neighbors[0]), neighbors[0]
            if len(neighbors) == 2:
                magnitude, sum_ = magnitude + np.abs(neighbors[1]), sum_ + neighbors[1]
            expected = (expected * 2.0 + magnitude) / (2.0 + len(neighbors))
            ratio = sum_ / (expected * len(neighbors))
            offset = np.searchsorted(_OFFSET_EDGES, ratio.reshape(-1)).astype(np.uint16)
        spread = np.searchsorted(_EDGES, expected.reshape(-1)).astype(np.uint16)
        return spread + offset * np.uint16(len(SPREADS))

    def learn(self, plane: int, first: int, end: int, row: int, last: int) -> None:
        """Take in a block that is known now."""
        magnitude = np.abs(self._centered(plane, first, end, row, last))
        self.row_sums[row:last] += magnitude.sum(1, dtype=np.int64)
        self.row_count[row:last] += end - first
        sums = magnitude.sum(0, dtype=np.int64)
        self.column_sums[first:end] += sums
        self.column_count[first:end] += last - row
        self.plane_sums[plane] += int(sums.sum())
        self.plane_count[plane] += magnitude.size

    def _centered(self, plane: int, first: int, end: int, row: int, last: int) -> Integers:
        return self.planes[plane, row:last, first:end] - np.int16(self.coding.center)
