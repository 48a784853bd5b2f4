"""Codes <-> fewer bits: a range coder behind the context model of `packing/contexts.py`, and the choice of the model.

Which neighbors the contexts of a tensor look at is tried out when it is encoded, by counting what each of `METHODS`
would take (`choose_coding`); the same counts tell a rate-distortion search what each symbol would cost at each place
(`context_costs`). Bits are those of `constriction`'s range coder: within 0.1 % of the count, a word or two at its end.

Source: range coding: Martin 1979; constriction: Bamler, arXiv:2201.01741.
"""

from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np

from lowbit.errors import ArchiveError
from lowbit.packing.contexts import (
    FLAT,
    NEIGHBORS,
    ROWS,
    ROWS_COLUMNS,
    Coder,
    Coding,
    Floats,
    Integers,
    Layout,
    first_guess,
    from_planes,
    planes_shape,
    to_planes,
    walk,
)

__all__ = [
    "Decoder",
    "Encoder",
    "Meter",
    "choose_coding",
    "context_costs",
    "decode",
    "encode",
    "entropy_bits",
]


class Encoder:
    """Range encoder: `data` are the bits so far."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, frequencies: Floats, symbols: Integers) -> Integers:
        """Append symbols."""
        self._coder.encode(symbols.astype(np.int32), _categorical(frequencies))
        return symbols

    @property
    def size(self) -> int:
        """Length of `data`."""
        return 4 * int(self._coder.num_words())

    @property
    def data(self) -> bytes:
        """The bits so far, as little-endian words of 32 bits."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Range decoder of what `Encoder` wrote."""

    def __init__(self, data: bytes, where: str) -> None:
        self._where = where
        if len(data) % 4:
            raise self._damaged()
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def code(self, frequencies: Floats, symbols: Integers) -> Integers:
        """The next `symbols.size` symbols."""
        try:
            decoded: Integers = self._coder.decode(_categorical(frequencies), symbols.size)
        except (AssertionError, ValueError) as error:
            raise self._damaged() from error
        return decoded

    def _damaged(self) -> ArchiveError:
        return ArchiveError(
            "the coded bits are damaged.",
            where=self._where,
            remedy="Get the file again from its source, or pack the model again.",
        )

    @property
    def exhausted(self) -> bool:
        """Whether all bits may have been used; False is certain."""
        return bool(self._coder.maybe_exhausted())


class Meter:
    """Counts bits without coding."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, frequencies: Floats, symbols: Integers) -> Integers:
        """Add what these symbols would take."""
        counts = np.bincount(symbols, minlength=frequencies.size)
        used = np.flatnonzero(counts)
        self.bits += float(counts[used] @ (np.log2(float(frequencies.sum())) - np.log2(frequencies[used])))
        return symbols


def encode(symbols: Integers, layout: Layout, coding: Coding, encoder: Coder) -> None:
    """Code symbols [layout.count], in the order of [rows, columns, kernel height, kernel width]."""
    walk(to_planes(symbols, layout, coding), layout, coding, encoder)


def decode(layout: Layout, coding: Coding, decoder: Coder) -> Integers:
    """The symbols [layout.count] as int16 that `encode` was given.

    Raises:
        ArchiveError: impossible parameters, or damaged bits.
    """
    coding.check()
    planes = np.zeros(planes_shape(layout, coding), np.int16)
    walk(planes, layout, coding, decoder)
    return from_planes(planes)


def choose_coding(symbols: Integers, layout: Layout) -> tuple[Coding, float]:
    """The method that takes the fewest bits for these symbols, by trying all that make sense, and those bits."""
    alphabet, center, spread = first_guess(symbols)
    tried = [FLAT]
    if layout.rows > 1 and layout.count > layout.rows:
        tried += [ROWS, ROWS_COLUMNS, NEIGHBORS] if layout.kernel > 1 else [ROWS, ROWS_COLUMNS]
    best = None
    for method in tried:
        coding = Coding(method, alphabet, center, spread)
        meter = Meter()
        encode(symbols, layout, coding, meter)
        if best is None or meter.bits < best[1]:
            best = coding, meter.bits
    assert best is not None
    return best


def entropy_bits(symbols: Integers) -> float:
    """Empirical entropy (order 0) of whole numbers, in bits for all of them: no table, no header, no context."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(counts @ (np.log2(symbols.size) - np.log2(counts)))


@dataclass(frozen=True)
class ContextCosts:
    """What each symbol would cost at each place: `bits[context[i], symbol]`.

    Attributes:
        context: uint16 [count], in the order of the symbols.
        bits: float64 [contexts, alphabet].
        total: bits that the symbols themselves take, learning included.
    """

    context: Integers
    bits: Floats
    total: float


def context_costs(symbols: Integers, layout: Layout, coding: Coding) -> ContextCosts:
    """Cost tables for a rate-distortion search: what the coder knows after one pass over the present symbols."""
    meter = Meter()
    planes = to_planes(symbols, layout, coding)
    seen = np.zeros(planes.shape, np.uint16)
    tables = walk(planes, layout, coding, meter, seen)
    bits = np.zeros((max(tables) + 1, coding.alphabet))
    for context, table in tables.items():
        bits[context] = np.log2(float(table.sum())) - np.log2(table)
    return ContextCosts(from_planes(seen), bits, meter.bits)


def _categorical(frequencies: Floats) -> Any:  # noqa: ANN401 - constriction has no types
    # perfect=False: borders at floor(cumulative * ((2^24 - n) / total)) + index, in float64; docs/format.md pins it.
    return constriction.stream.model.Categorical(frequencies, perfect=False)
