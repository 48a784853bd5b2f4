"""What every scheme can do, and what encoding returns: protocols, so that a new scheme is one file and one row.

Codes decode themselves twice: `decode` in numpy, and `decode_with` in the words of a file format, which hands in a
`Decoder`. Both give the same bits.
"""

from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from lowbit.schemes.blocks import Blocks, Granularity

Array = np.ndarray[Any, np.dtype[Any]]


class Chain(Protocol):
    """A value that a file computes from what it stores: each step works on the value so far and returns the chain."""

    def then(self, op: str, *constants: Array | np.generic, **attributes: int | list[int]) -> Self:
        """Apply an operator of ONNX to the value so far and these constants."""
        ...

    def cast(self, dtype: str) -> Self:
        """Convert to "int8", "int32" or "float32"."""
        ...

    def joined(self, op: str, other: Self) -> Self:
        """Apply an operator of ONNX to the value so far and that of another chain."""
        ...

    def looked_up(self, table: Array, *, half: bool) -> Self:
        """Replace each index by its entry of a table; `half` says of a float32 one that float16 holds all entries."""
        ...

    def scaled(self, factors: Array) -> Self:
        """Multiply by float32 factors in a shape that broadcasts."""
        ...


C = TypeVar("C", bound=Chain)
C_co = TypeVar("C_co", bound=Chain, covariant=True)


class Decoder(Protocol[C_co]):
    """Where chains begin: what a file stores, in as few bytes as the format can."""

    def stored(self, values: Array) -> C_co:
        """Values as they are, of their own type."""
        ...

    def integers(self, values: Array, bits: int, *, less: int = 0, dtype: str = "int32") -> C_co:
        """Values 0..2^bits - 1 less a constant, "int32" or "int8" of the same shape, packed in the file."""
        ...

    def zero_points(self, values: Array, bits: int) -> C_co:
        """The same for few values beside the codes, packed only where that pays."""
        ...


class Codes(Protocol):
    """A tensor as its scheme encodes it."""

    @property
    def bits(self) -> int:
        """Width of a code."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        ...

    @property
    def axis(self) -> int:
        """The tensor's output channel."""
        ...

    @property
    def scheme(self) -> "Scheme":
        """The hyper-parameters."""
        ...

    @property
    def scale(self) -> npt.NDArray[np.float32] | None:
        """What the levels are multiplied with, if that is stored apart from them."""
        ...

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        ...

    def decode_with(self, decoder: Decoder[C]) -> C:
        """The same as a chain of steps, which a file format writes down."""
        ...

    def rounded_on(self, x: npt.NDArray[np.floating], *scales: npt.NDArray[np.float32]) -> "Codes":
        """The tensor `x` that these are codes of, encoded again on other scales, of the shape of `scale`.

        Of several each block takes the one with the least squared error. Codes whose scales are narrow already
        stay as they are.
        """
        ...


@runtime_checkable
class IntegerCodes(Codes, Protocol):
    """Codes that integer kernels can multiply: each stands for a whole number, times the scale of its channel."""

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """Of each channel [channels], or of the whole tensor [1]."""
        ...

    def levels(self) -> npt.NDArray[np.int8]:
        """The whole numbers, in the shape of the tensor."""
        ...

    def levels_with(self, decoder: Decoder[C]) -> C:
        """The same as a chain of steps from packed codes, which ends in int8."""
        ...


def integer_codes(codes: Codes) -> IntegerCodes:
    """Codes of a layer that runs in integers."""
    assert isinstance(codes, IntegerCodes)
    return codes


class Scheme(Protocol):
    """How one tensor becomes codes: hyper-parameters that have seen no data."""

    @property
    def bits(self) -> int:
        """Width of a code."""
        ...

    @property
    def per(self) -> Granularity:
        """What shares levels: the whole tensor, a channel or a group."""
        ...

    @property
    def name(self) -> str:
        """Short name, different for schemes that differ."""
        ...

    @property
    def half_levels(self) -> float:
        """How many levels lie on one side of zero."""
        ...

    def blocks(self, shape: tuple[int, ...], axis: int = 0) -> Blocks:
        """What shares levels in a tensor of `shape` whose output channel is `axis`."""
        ...

    def per_tensor(self) -> "Scheme":
        """The same scheme, with one set of levels for the whole tensor."""
        ...

    def with_bits(self, bits: int) -> "Scheme":
        """The same scheme, with codes of another width."""
        ...

    def stored_bytes(self, shape: tuple[int, ...], axis: int) -> int:
        """Bytes that such a tensor takes in a file: codes, what is stored beside them, and the nodes that decode it."""
        ...

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> Codes:
        """The codes of a tensor whose output channel is `axis`.

        Raises:
            SchemeError: `x` is empty, not floating-point, or holds NaN or infinite values.
        """
        ...


class OfBlocks:
    """What codes say of the tensor that they stand for, where they know its blocks: a base of `Codes`."""

    scheme: Scheme
    blocks: Blocks

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.scheme.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.blocks.shape

    @property
    def axis(self) -> int:
        """The tensor's output channel."""
        return self.blocks.axis
