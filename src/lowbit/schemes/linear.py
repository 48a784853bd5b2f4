"""Linear grids: a tensor as integer codes times a scale, with or without a zero point.

    symmetric   x ~ float32(code) * scale               code in -(2^(b-1) - 1) .. 2^(b-1) - 1
    affine      x ~ float32(code - zero_point) * scale  code and zero_point in 0 .. 2^b - 1

Every operation is one float32 operation of ONNX (Cast, Sub in int32, Mul), so that a runtime decodes the very same
bits; encoding is QuantizeLinear's: divide in float32, round half to even, clip. Scales are never below the smallest
normal float32, since runtimes may flush subnormal numbers to zero. Zero is always exact.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference" (arXiv 1712.05877), equation 1.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.blocks import Blocks, Granularity, check_finite, check_granularity, make_blocks
from lowbit.schemes.codes import C, Decoder, OfBlocks

FLOAT_BYTES = 4
# What the nodes, names and shapes that decode one tensor add to a file, measured on written files.
DECODE_BYTES = 130
SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)


def power_above(scale: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The least powers of two that are not below positive scales."""
    fraction, exponent = np.frexp(scale)
    powers: npt.NDArray[np.floating] = np.ldexp(np.ones_like(scale), exponent - (fraction == 0.5))
    return powers


@dataclass(frozen=True)
class Linear:
    """A uniform grid of 2..16 bits, one scale per tensor, channel, or group of columns within a channel.

    Args:
        bits: width of a code.
        per: what shares a scale.
        symmetric: grid centred on zero, no zero point.
        group_size: columns in a group (`Blocks`; a channel's last group may be shorter), for per="group" only.
        narrow: leave out the code -2^(b-1), so that the grid is symmetric about zero (symmetric only).
        powers: scales are powers of two; encoding takes the least that clips nothing.

    >>> codes = lowbit.Linear(4).encode(np.array([[0.7, -0.1], [0.2, 0.1]], np.float32), axis=0)
    >>> codes.codes.tolist()
    [[7, -1], [7, 4]]
    """

    bits: int
    per: Granularity = "channel"
    symmetric: bool = True
    group_size: int | None = None
    narrow: bool = True
    powers: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise SchemeError(f"a linear grid has 2 to 16 bits, not {self.bits}.")
        check_granularity(self.per, self.group_size)
        if not (self.narrow or self.symmetric):
            raise SchemeError("only a symmetric grid has a code to leave out or not.", remedy="Leave narrow as it is.")

    @property
    def name(self) -> str:
        """Short name, such as linear8/channel or linear4/group32/affine."""
        kind = "" if self.symmetric else "/affine"
        kind += ("" if self.narrow else "/full") + ("/pow2" if self.powers else "")
        return f"linear{self.bits}/{self.per}{self.group_size or ''}{kind}"

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code."""
        half = 1 << (self.bits - 1)
        return (int(self.narrow) - half, half - 1) if self.symmetric else (0, 2 * half - 1)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """int8 or int16 if symmetric, uint8 or uint16 if affine."""
        return np.dtype(f"{'' if self.symmetric else 'u'}int{8 if self.bits <= 8 else 16}")

    def blocks(self, shape: tuple[int, ...], axis: int = 0) -> Blocks:
        """What shares a scale in a tensor of `shape` whose output channel is `axis`."""
        return make_blocks(
            shape,
            axis,
            rows_each=None if self.per == "tensor" else 1,
            columns_each=self.group_size if self.per == "group" else None,
        )

    @property
    def half_levels(self) -> float:
        """How many levels lie on one side of zero."""
        return ((1 << self.bits) - 1) / 2

    def per_tensor(self) -> "Linear":
        """The same grid, with one scale for the whole tensor."""
        return replace(self, per="tensor", group_size=None)

    def with_bits(self, bits: int) -> "Linear":
        """The same grid, with more or fewer levels."""
        return replace(self, bits=bits)

    def stored_bytes(self, shape: tuple[int, ...], axis: int) -> int:
        """Bytes in a file: codes, scales and zero points as four bytes each, and the nodes that decode them."""
        size = math.prod(shape)
        blocks = self.blocks(shape, axis).count if size else 0
        return -(-size * self.bits // 8) + blocks * (1 if self.symmetric else 2) * FLOAT_BYTES + DECODE_BYTES

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> "LinearCodes":
        """Round `x` to the grid that spans its least and greatest value, group by group.

        Raises:
            SchemeError: `x` is empty, not floating-point, or holds NaN or infinite values.
        """
        blocks = self.blocks(x.shape, axis)
        check_finite(x)
        rows = blocks.to_rows(x.astype(np.float32, copy=False))
        scale, zero_point = self.grid(blocks.reduce(np.minimum, rows), blocks.reduce(np.maximum, rows))
        return self._round(rows, scale, zero_point, blocks)

    def encode_with(
        self,
        x: npt.NDArray[np.floating],
        scale: npt.NDArray[np.floating],
        *,
        zero_point: npt.NDArray[np.integer] | None = None,
        axis: int = 0,
    ) -> "LinearCodes":
        """Round `x` to a given grid: one scale (and zero point, if affine) per block.

        Raises:
            SchemeError: as `encode`, or the grid does not fit the scheme and shape.
        """
        blocks = self.blocks(x.shape, axis)
        check_finite(x)
        scale, zero_point = self._checked(power_above(scale) if self.powers else scale, zero_point, blocks)
        return self._round(blocks.to_rows(x.astype(np.float32, copy=False)), scale, zero_point, blocks)

    def from_codes(
        self,
        codes: npt.NDArray[np.integer],
        scale: npt.NDArray[np.floating],
        *,
        zero_point: npt.NDArray[np.integer] | None = None,
        axis: int = 0,
    ) -> "LinearCodes":
        """Codes that were chosen elsewhere, such as by a rounding method, in the shape of the tensor.

        Raises:
            SchemeError: codes out of range, or the grid does not fit the scheme and shape.
        """
        blocks = self.blocks(codes.shape, axis)
        low, high = self.code_range
        if not np.issubdtype(codes.dtype, np.integer) or codes.min() < low or codes.max() > high:
            raise SchemeError(f"codes of {self.name} must be integers in {low}..{high}.")
        scale, zero_point = self._checked(scale, zero_point, blocks)
        return LinearCodes(np.ascontiguousarray(codes, self.code_dtype), scale, zero_point, self, blocks)

    def grid(
        self, low: npt.NDArray[np.floating], high: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer] | None]:
        """Scale and zero point [blocks] of the grids that cover `low`..`high` and zero.

        Every code decodes to a finite value. Where that needs a smaller scale, so only with extremes at the very end of
        float32 (the last eighth, for 4 bits with the full range), those extremes are clipped by up to a step.
        """
        bottom, top = self.code_range
        low = np.minimum(low.astype(np.float64), 0.0)
        high = np.maximum(high.astype(np.float64), 0.0)
        exact = np.maximum(high / top, low / bottom) if self.symmetric else (high - low) / top
        scale = np.where(exact > 0, np.maximum(exact, SMALLEST), 1.0)
        if self.powers:
            scale = power_above(scale)
        zero_point = None if self.symmetric else np.rint(-low / scale).clip(0, top)
        codes = None if zero_point is None else zero_point.astype(self.code_dtype)
        reach = self._reach(codes)
        rounded = np.minimum(scale, LARGEST / reach).astype(np.float32)
        return np.where(rounded * reach > LARGEST, np.nextafter(rounded, np.float32(0)), rounded), codes

    def _reach(self, zero_point: npt.NDArray[np.integer] | None) -> npt.NDArray[np.float64]:
        """How many steps the outermost code lies from zero: [blocks], or [1] if symmetric."""
        bottom, top = self.code_range
        middle = np.zeros(1) if zero_point is None else zero_point.astype(np.float64)
        return np.maximum(middle - bottom, top - middle)

    def _checked(
        self, scale: npt.NDArray[np.floating], zero_point: npt.NDArray[np.integer] | None, blocks: Blocks
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer] | None]:
        if (zero_point is None) != self.symmetric:
            raise SchemeError(f"{self.name} takes {'no' if self.symmetric else 'a'} zero point.")
        for what, values in (("scales", scale), ("zero points", zero_point)):
            if values is not None and values.size != blocks.count:
                raise SchemeError(
                    f"{self.name} needs {blocks.count} {what} for shape {blocks.shape}, got {values.size}."
                )
        low, high = self.code_range
        with np.errstate(over="ignore"):  # judged in the next line
            scale = scale.reshape(-1).astype(np.float32)
        if zero_point is not None:
            if zero_point.min() < low or zero_point.max() > high:
                raise SchemeError(f"zero points of {self.name} must lie in {low}..{high}.")
            zero_point = zero_point.reshape(-1).astype(self.code_dtype)
        if not (scale.min() > 0 and (scale * self._reach(zero_point)).max() <= LARGEST):
            raise SchemeError("scales must be positive, and small enough for every code to decode to a finite value.")
        return np.maximum(scale, np.float32(SMALLEST)), zero_point

    def _round(
        self,
        rows: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32],
        zero_point: npt.NDArray[np.integer] | None,
        blocks: Blocks,
    ) -> "LinearCodes":
        with np.errstate(over="ignore"):  # infinity clips to the last code
            steps = rows / blocks.spread(scale)
        np.rint(steps, out=steps)
        if zero_point is not None:
            steps += blocks.spread(zero_point)
        codes = steps.clip(*self.code_range, out=steps).astype(self.code_dtype)
        return LinearCodes(blocks.from_rows(codes), scale, zero_point, self, blocks)


@dataclass(frozen=True)
class LinearCodes(OfBlocks):
    """A tensor as codes on a linear grid.

    Args:
        codes: in the shape of the tensor; int8/int16 if symmetric, uint8/uint16 if affine.
        scale: float32 [blocks.count].
        zero_point: None if symmetric, else [blocks.count] in the type of the codes.
        scheme: the grid's hyper-parameters.
        blocks: what shares a scale.
    """

    codes: npt.NDArray[np.integer]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.integer] | None
    scheme: Linear
    blocks: Blocks

    def unsigned(self) -> tuple[npt.NDArray[np.unsignedinteger], int]:
        """Codes as 0..2^bits - 1 for packing, uint8 or uint16, and what to subtract to have them back."""
        offset = 1 << (self.bits - 1) if self.scheme.symmetric else 0
        return (self.codes.astype(np.int32) + offset).astype(np.uint8 if self.bits <= 8 else np.uint16), offset

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        steps = self.blocks.to_rows(self.codes).astype(np.int32)
        if self.zero_point is not None:
            steps -= self.blocks.spread(self.zero_point.astype(np.int32))
        return self.blocks.from_rows(steps.astype(np.float32) * self.blocks.spread(self.scale))

    def levels(self) -> npt.NDArray[np.int8]:
        """The codes: what integer kernels multiply with. For symmetric grids of up to 8 bits."""
        return self.codes.astype(np.int8)

    def levels_with(self, decoder: Decoder[C]) -> C:
        """The same from packed codes."""
        stored, offset = self.unsigned()
        return decoder.integers(stored, self.bits, less=offset, dtype="int8")

    def decode_with(self, decoder: Decoder[C]) -> C:
        """(code - zero point) * scale, in the order and precision of `decode`."""
        blocks = self.blocks
        whole_bytes = self.bits in (8, 16)
        in_channel = not blocks.spans_columns
        # Whole bytes need no unpacking; signed codes keep their sign.
        stored, offset = (self.codes, 0) if whole_bytes else self.unsigned()
        if in_channel:
            stored = blocks.to_whole_blocks(stored)
        chain = decoder.stored(stored) if whole_bytes else decoder.integers(stored, self.bits, less=offset)
        if self.bits == 8:
            # By way of int32: OpenVINO keeps a tensor that is cast from 8 bits to float compressed, and converts it at
            # every inference.
            chain.cast("int32")
        shape = (*blocks.block_counts, 1) if in_channel else blocks.scale_shape
        if self.zero_point is not None:
            # Zero points stay as narrow as the codes, and are subtracted before anything is a float.
            if self.bits == 16:
                chain.cast("int32")
            chain.joined("Sub", decoder.zero_points(self.zero_point.reshape(shape), self.bits))
        chain.cast("float32").scaled(self.scale.reshape(shape))
        return _from_whole_blocks(chain, blocks) if in_channel else chain

    def rounded_on(self, x: npt.NDArray[np.floating], *scales: npt.NDArray[np.float32]) -> "LinearCodes":
        """The tensor `x` rounded again on other scales; of several each block takes the one with the least error."""
        tried = [self.scheme.encode_with(x, scale, zero_point=self.zero_point, axis=self.axis) for scale in scales]
        if len(tried) == 1:
            return tried[0]
        rows = self.blocks.to_rows(x)
        errors = [self.blocks.reduce(np.add, np.square(self.blocks.to_rows(codes.decode()) - rows)) for codes in tried]
        best = np.choose(np.argmin(errors, axis=0), scales)
        return self.scheme.encode_with(x, best, zero_point=self.zero_point, axis=self.axis)


def _from_whole_blocks(chain: C, blocks: Blocks) -> C:
    """Back from [channels, blocks, columns of a block] to the tensor."""
    if blocks.columns % blocks.columns_each:
        chain.then("Reshape", np.array([blocks.rows, -1]))
        chain.then("Slice", np.array([0]), np.array([blocks.columns]), np.array([1]))
    chain.then("Reshape", np.array(blocks.moved_shape))
    if blocks.axis:
        order = [*range(1, blocks.axis + 1), 0, *range(blocks.axis + 1, len(blocks.shape))]
        chain.then("Transpose", perm=order)
    return chain
