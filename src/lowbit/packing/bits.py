"""n-bit codes <-> bytes.

A byte holds 8/w codes of w bits, the first in its lowest bits, for w of 1, 2, 4 and 8: so a graph unpacks it with one
division by [1, 2^w, 4^w, ...] and one remainder. Other widths are split into planes of those: the low bits first,
7 = 4 + 2 + 1, 12 = 8 + 4. Planes follow each other, each starting on a byte.
"""

from typing import Any

import numpy as np

from lowbit.errors import SchemeError

Integers = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def planes(bits: int) -> tuple[int, ...]:
    """Widths of the planes of a code of 1 to 16 bits, low bits first."""
    if not 1 <= bits <= 16:
        raise SchemeError(f"codes of {bits} bits cannot be packed.", remedy="Choose 1 to 16 bits.")
    widths = []
    for width in (8, 8, 4, 2, 1):
        if bits >= width:
            widths.append(width)
            bits -= width
    return tuple(widths)


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes `count` codes take."""
    return sum(-(-count * width // 8) for width in planes(bits))


def pack(codes: Integers, bits: int) -> Bytes:
    """Codes [n] from 0 to 2^bits - 1 as bytes."""
    parts = []
    shift = 0
    for width in planes(bits):
        parts.append(_pack_plane((codes >> shift) & ((1 << width) - 1), width))
        shift += width
    return np.concatenate(parts)


def unpack(packed: Bytes, bits: int, count: int) -> Integers:
    """The `count` codes that `pack` packed: uint8 up to 8 bits, else uint16.

    Raises:
        SchemeError: another number of bytes than that many codes take.
    """
    if packed.size != packed_bytes(count, bits):
        raise SchemeError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, not {packed.size}.",
            remedy="The data is damaged, or was packed with another width.",
        )
    codes = np.zeros(count, np.uint8 if bits <= 8 else np.uint16)
    start = shift = 0
    for width in planes(bits):
        size = packed_bytes(count, width)
        codes |= _unpack_plane(packed[start : start + size], width, count).astype(codes.dtype) << shift
        start += size
        shift += width
    return codes


def _pack_plane(codes: Integers, width: int) -> Bytes:
    a_byte = 8 // width
    padded = np.zeros(-(-codes.size // a_byte) * a_byte, np.uint8)
    padded[: codes.size] = codes
    fields = padded.reshape(-1, a_byte) << (np.arange(a_byte, dtype=np.uint8) * width)
    return np.bitwise_or.reduce(fields, axis=1).astype(np.uint8)


def _unpack_plane(packed: Bytes, width: int, count: int) -> Bytes:
    fields = packed[:, None] >> (np.arange(8 // width, dtype=np.uint8) * width)
    return (fields & np.uint8((1 << width) - 1)).reshape(-1)[:count]
