"""Codes of 1..16 bits as bytes that an ONNX graph unpacks with Cast, Gather, Reshape and Slice alone.

A width that no whole number of codes fills a byte with is split into *planes* of 8, 4, 2 and 1 bits, the widest first
and holding the lowest bits: 3 = 2 + 1, 7 = 4 + 2 + 1, 12 = 8 + 4. Each plane is packed contiguously, and the planes
follow each other, each starting on a byte of its own. In a plane of w < 8 bits byte b holds codes b * 8/w + i in its
bits i*w .. i*w + w - 1 (little end first), and the last byte is filled with zeros. So for one plane

    Cast(int32) -> Gather from a table [256, 8 / w] of what each byte holds -> Reshape [-1] -> Slice [:count]

gives its part of each code. A plane of 8 bits needs only the Cast, and with more planes the code is the sum of
part * 2^shift. A 16-bit plane is two bytes per code, little end first: a UINT16 tensor as ONNX stores it. Beyond 8 bits
the plane of 8 comes first (9 = 8 + 1); only the last byte of each narrow plane is ever partly empty, so no other split
is smaller.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError

Bytes = npt.NDArray[np.uint8]


def planes(bits: int) -> tuple[int, ...]:
    """Widths of the planes that codes of `bits` bits are split into, lowest bits first: 7 -> (4, 2, 1).

    Raises:
        SchemeError: not 1..16 bits.
    """
    if not 1 <= bits <= 16:
        raise SchemeError(f"codes of 1 to 16 bits can be packed, not {bits}.")
    return tuple(width for width in (16, 8, 4, 2, 1) if bits & width)


def plane_bytes(width: int, count: int) -> int:
    """Bytes of one plane of `width` bits that holds `count` codes."""
    return -(-count * width // 8)


def packed_bytes(bits: int, count: int) -> int:
    """Bytes that `pack` makes of `count` codes."""
    return sum(plane_bytes(width, count) for width in planes(bits))


def pack(codes: npt.NDArray[np.unsignedinteger], bits: int) -> Bytes:
    """Pack codes in 0..2^bits - 1, of any shape in C order: uint8 [packed_bytes(bits, codes.size)].

    Raises:
        SchemeError: a code out of range, or not unsigned integers.
    """
    parts = planes(bits)
    if not np.issubdtype(codes.dtype, np.unsignedinteger) or (codes.size and int(codes.max()) >> bits):
        raise SchemeError(f"codes to pack into {bits} bits must be unsigned and below {1 << bits}.")
    flat: npt.NDArray[np.uint16] = codes.reshape(-1).astype(np.uint16, copy=False)
    return np.concatenate([_pack_plane(flat >> np.uint16(shift), width) for width, shift in _shifts(parts)])


def unpack(packed: Bytes, bits: int, count: int) -> npt.NDArray[np.unsignedinteger]:
    """The `count` codes that were packed: uint8 up to 8 bits, else uint16, flat.

    Raises:
        SchemeError: the number of bytes is not `packed_bytes(bits, count)`.
    """
    parts = planes(bits)
    if count < 0 or packed.dtype != np.uint8 or packed.shape != (packed_bytes(bits, count),):
        raise SchemeError(
            f"{count} codes of {bits} bits take {packed_bytes(bits, max(count, 0))} bytes, got {packed.size}."
        )
    codes: npt.NDArray[Any] = np.zeros(count, np.uint16 if bits > 8 else np.uint8)
    start = 0
    for width, shift in _shifts(parts):
        size = plane_bytes(width, count)
        codes |= _unpack_plane(packed[start : start + size], width, count).astype(codes.dtype) << shift
        start += size
    return codes


def _shifts(parts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Each plane's width and the bit of the code that it starts at."""
    shift = 0
    for width in parts:
        yield width, shift
        shift += width


def _pack_plane(codes: npt.NDArray[np.uint16], width: int) -> Bytes:
    if width == 16:
        return codes.astype("<u2").view(np.uint8)
    parts = codes.astype(np.uint8) & np.uint8((1 << width) - 1)
    fields = 8 // width
    table = np.pad(parts, (0, -parts.size % fields)).reshape(-1, fields)
    packed: Bytes = np.bitwise_or.reduce(table << np.arange(0, 8, width, dtype=np.uint8), axis=1)
    return packed


def _unpack_plane(packed: Bytes, width: int, count: int) -> npt.NDArray[Any]:
    if width == 16:
        return packed.view("<u2")
    table = packed[:, None] >> np.arange(0, 8, width, dtype=np.uint8)
    table &= np.uint8((1 << width) - 1)
    return table.reshape(-1)[:count]
