"""Half precision: each value rounded to 16 bits that are a float themselves, without scale or code book.

float16 has 11 significant bits and reaches to 65504; below 2^-14 it has fewer digits, below 2^-25 none. bfloat16 has 8
and the range of float32. Decoding is one Cast, exact. Values that float16 does not reach are refused.

Source: IEEE 754-2008 (binary16); bfloat16 is float32 without its last 16 bits.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.blocks import Blocks, Granularity, check_finite, make_blocks
from lowbit.schemes.codes import C, Decoder, OfBlocks

# What a Cast, its names and shapes add to a file.
DECODE_BYTES = 60
TYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Half:
    """A float of 16 bits for each value.

    Args:
        type: "float16" or "bfloat16".
    """

    type: Literal["float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise SchemeError(f"'{self.type}' is no float of 16 bits.", remedy=f"Choose one of: {', '.join(TYPES)}.")

    @property
    def bits(self) -> int:
        """Width of a value."""
        return 16

    @property
    def per(self) -> Granularity:
        """All values have the same levels."""
        return "tensor"

    @property
    def name(self) -> str:
        """The type."""
        return self.type

    @property
    def half_levels(self) -> float:
        """As of a linear grid: the largest value over its distance to the next."""
        return float(2 << (10 if self.type == "float16" else 7))

    def blocks(self, shape: tuple[int, ...], axis: int = 0) -> Blocks:
        """The whole tensor."""
        return make_blocks(shape, axis, rows_each=None, columns_each=None)

    def per_tensor(self) -> "Half":
        """The same."""
        return self

    def with_bits(self, bits: int) -> "Half":
        """The same: there are no other widths.

        Raises:
            SchemeError: another width.
        """
        if bits != self.bits:
            raise SchemeError(f"{self.type} has {self.bits} bits, not {bits}.")
        return self

    def stored_bytes(self, shape: tuple[int, ...], axis: int) -> int:
        """Bytes in a file: two each, and the node that decodes them."""
        return 2 * math.prod(shape) + DECODE_BYTES

    def holds(self, x: npt.NDArray[np.floating]) -> bool:
        """Whether all values are within reach."""
        with np.errstate(over="ignore"):
            return bool(np.isfinite(x.astype(TYPES[self.type]).astype(np.float32)).all())

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> "HalfCodes":
        """The closest value of each, half to even.

        Raises:
            SchemeError: `x` is empty, not floating-point, or holds values that are not finite or out of reach.
        """
        blocks = self.blocks(x.shape, axis)
        check_finite(x)
        if not self.holds(x):
            raise SchemeError(
                f"values up to {np.abs(x).max():.4g} are out of reach of {self.type}.", remedy="Use bfloat16."
            )
        return HalfCodes(x.astype(np.float32).astype(TYPES[self.type]), self, blocks)


@dataclass(frozen=True)
class HalfCodes(OfBlocks):
    """A tensor in half precision.

    Args:
        values: in the shape of the tensor, float16 or bfloat16.
        scheme: which of the two.
        blocks: the whole tensor.
    """

    values: npt.NDArray[Any]
    scheme: Half
    blocks: Blocks

    @property
    def scale(self) -> None:
        """None: values need no factor."""
        return

    def decode(self) -> Values:
        """The tensor that a runtime sees, float32, to the bit."""
        return self.values.astype(np.float32)

    def decode_with(self, decoder: Decoder[C]) -> C:
        """One Cast."""
        return decoder.stored(self.values).cast("float32")

    def rounded_on(self, x: npt.NDArray[np.floating], *scales: Values) -> "HalfCodes":
        """The tensor `x` rounded again; there are no scales."""
        return self.scheme.encode(x, self.axis)
