"""What a scheme makes of a tensor: integers, and the few floats that give them a meaning.

`decode` is defined by float32 operations that every runtime has (one subtraction, one product, or one look-up), so that
a file decodes to the same bits everywhere.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False)
class LinearCodes:
    """Evenly spaced values: `x = (code - zero_point) * scale`.

    Attributes:
        codes: integers of the tensor's shape, the narrowest type of 8 or 16 bits that holds them; signed if and only
            if there is no zero point.
        scale: float32, broadcasts against `grouped_shape`.
        zero_point: float32 of the shape of `scale`, whole numbers (or, where it pays, fractions); None if symmetric.
        bits: bits of a code.
        axis: dimension of the output channels.
        grouped_shape: shape in which scales line up with codes; differs from the tensor's only for groups of columns.
    """

    codes: Integers
    scale: Floats
    zero_point: Floats | None
    bits: int
    axis: int
    grouped_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.codes.shape)

    def decode(self) -> Floats:
        """The float32 values, in the tensor's shape."""
        x = self.codes.reshape(self.grouped_shape).astype(np.float32)
        if self.zero_point is not None:
            x -= self.zero_point
        x *= self.scale
        return x.reshape(self.shape)

    def unsigned(self) -> tuple[Integers, int]:
        """Codes from 0 to 2^bits - 1, and the offset to subtract from them to have `codes` again."""
        if self.zero_point is not None:
            return self.codes, 0
        offset = 1 << (self.bits - 1)
        wide = self.codes.astype(np.int32) + offset
        return wide.astype(np.uint8 if self.bits <= 8 else np.uint16), offset


@dataclass(frozen=True, eq=False)
class ClusterCodes:
    """Values from a code book: `x = code_books[book of its channel, index]`.

    Attributes:
        indices: uint8 of the tensor's shape.
        code_books: float32 [books, 2^bits], each row in ascending order.
        bits: bits of an index.
        axis: dimension of the output channels.
        channels_per_book: consecutive channels that share a book; all of them if there is only one.
    """

    indices: Integers
    code_books: Floats
    bits: int
    axis: int
    channels_per_book: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.indices.shape)

    def book_of_channel(self) -> Integers:
        """Which book each channel uses, int64, shaped to broadcast against `shape`."""
        channels = self.shape[self.axis]
        shape = [1] * len(self.shape)
        shape[self.axis] = channels
        return (np.arange(channels) // self.channels_per_book).reshape(shape)

    def decode(self) -> Floats:
        """The float32 values, in the tensor's shape."""
        return self.code_books[self.book_of_channel(), self.indices]


Codes = LinearCodes | ClusterCodes


def channel_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Shape in which one number a channel broadcasts against a tensor."""
    return tuple(extent if place == axis else 1 for place, extent in enumerate(shape))


def columns_of(shape: tuple[int, ...], axis: int) -> int:
    """How many values one channel has."""
    return math.prod(shape) // shape[axis]
