"""Where codes and numbers lie in a content, and how they are taken out of it and put back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.packing.bits import pack, unpack
from lowbit.packing.contexts import Layout
from lowbit.packing.plan import impossible

Integers = np.ndarray[Any, np.dtype[Any]]

_PIECE_CODES = 1 << 16  # a multiple of 8, so that every piece begins on a byte


@dataclass(frozen=True)
class Span:
    """Bytes [start, start + length) of the content."""

    start: int
    length: int


@dataclass(frozen=True)
class PackedCodes:
    """Codes of one tensor: the sum of planes, each shifted by the widths before it, each in its own span.

    Attributes:
        starts: where each plane begins in the content.
        widths: bits of a code in each plane; `packing/bits.py` has the order within a byte. 16: little-endian words.
        layout: how the codes stand to each other.
        signed: the highest bit is a sign (two's complement), which matters for which codes are neighbors.
    """

    starts: tuple[int, ...]
    widths: tuple[int, ...]
    layout: Layout
    signed: bool = False

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return sum(self.widths)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Where the planes lie."""
        count = self.layout.count
        return tuple(Span(start, -(-count * width // 8)) for start, width in zip(self.starts, self.widths, strict=True))


@dataclass(frozen=True)
class Numbers:
    """Numbers of `item` bytes in any number of spans that are alike enough to be compressed together."""

    spans: tuple[Span, ...]
    item: int


def symbols_of(content: bytes | bytearray, item: PackedCodes) -> Integers:
    """Codes [count] as uint16 in rising order: a sign bit is flipped."""
    symbols = np.zeros(item.layout.count, np.uint16)
    for shift, width, first, last, start, end in _pieces(item):
        data = np.frombuffer(content, np.uint8, end - start, start)
        symbols[first:last] |= unpack(data, width, last - first).astype(np.uint16) << np.uint16(shift)
    return symbols ^ np.uint16(1 << (item.bits - 1)) if item.signed else symbols


def put_symbols(content: bytearray, item: PackedCodes, symbols: Integers) -> None:
    """Put codes [count], as `symbols_of` gave them, into their planes; `symbols` may be changed."""
    if item.signed:
        symbols ^= np.uint16(1 << (item.bits - 1))
    for shift, width, first, last, start, end in _pieces(item):
        plane = (symbols[first:last] >> np.uint16(shift)) & np.uint16((1 << width) - 1)
        content[start:end] = pack(plane, width).tobytes()


def _pieces(item: PackedCodes) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(shift, width, first code, end, first byte, end) of pieces of planes, small enough to be unpacked cheaply."""
    shift = 0
    count = item.layout.count
    for start, width in zip(item.starts, item.widths, strict=True):
        for first in range(0, count, _PIECE_CODES):
            last = min(count, first + _PIECE_CODES)
            yield shift, width, first, last, start + first * width // 8, start - (-last * width // 8)
        shift += width


def repacks(content: bytes, item: PackedCodes) -> bool:
    """Whether the planes are exactly what `put_symbols` would write: padding bits are zero."""
    for span, width in zip(item.spans, item.widths, strict=True):
        used = item.layout.count * width % 8
        if used and content[span.start + span.length - 1] >> used:
            return False
    return True


def gaps(holes: Sequence[Span], length: int) -> Iterator[Span]:
    """What the holes, sorted by start, leave of a content.

    Raises:
        ArchiveError: they overlap, or reach past the end.
    """
    start = 0
    for hole in holes:
        if hole.start < start or hole.start + hole.length > length:
            raise impossible(f"a payload of {hole.length} bytes at {hole.start}, inside another")
        yield Span(start, hole.start - start)
        start = hole.start + hole.length
    yield Span(start, length - start)


def fill(content: bytearray, skeleton: bytes, holes: Sequence[Span]) -> None:
    """Put the skeleton where the holes, sorted by start, leave room for it.

    Raises:
        ArchiveError: it is longer or shorter than that, or the holes overlap.
    """
    left = list(gaps(holes, len(content)))
    if sum(gap.length for gap in left) != len(skeleton):
        raise impossible(f"a skeleton of {len(skeleton)} bytes for gaps of {sum(gap.length for gap in left)}")
    start = 0
    for gap in left:
        content[gap.start : gap.start + gap.length] = skeleton[start : start + gap.length]
        start += gap.length
