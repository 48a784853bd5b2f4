"""Linear grids: a tensor as integer codes times a scale, with or without a zero point.

    symmetric   x ~ float32(code) * scale               code in -(2^(b-1) - 1) .. 2^(b-1) - 1
    affine      x ~ float32(code - zero_point) * scale  code and zero_point in 0 .. 2^b - 1

Every operation is one float32 operation of ONNX (Cast, Sub in int32, Mul), so that a runtime decodes the very same
bits; encoding is QuantizeLinear's: divide in float32, round half to even, clip. Scales are never below the smallest
normal float32, since runtimes may flush subnormal numbers to zero. Zero is always exact.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference" (arXiv 1712.05877), equation 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.groups import Granularity, Groups, check_finite, check_granularity, make_groups

SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Linear:
    """A uniform grid of 2..16 bits, one scale for each tensor, channel, or group of columns within a channel.

    Args:
        bits: width of a code.
        per: what shares a scale.
        symmetric: grid centred on zero, no zero point.
        group_size: columns in a group (`Groups`; a channel's last group may be shorter), for per="group" only.
        narrow: leave out the code -2^(b-1), so that the grid is symmetric about zero (symmetric only).
    """

    bits: int
    per: Granularity = "channel"
    symmetric: bool = True
    group_size: int | None = None
    narrow: bool = True

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
        return f"linear{self.bits}/{self.per}{self.group_size or ''}{kind}{'' if self.narrow else '/full'}"

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code."""
        half = 1 << (self.bits - 1)
        return (int(self.narrow) - half, half - 1) if self.symmetric else (0, 2 * half - 1)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """int8 or int16 if symmetric, uint8 or uint16 if affine."""
        return np.dtype(f"{'' if self.symmetric else 'u'}int{8 if self.bits <= 8 else 16}")

    def groups(self, shape: tuple[int, ...], axis: int = 0) -> Groups:
        """What shares a scale in a tensor of `shape` whose output channel is `axis`."""
        return make_groups(
            shape,
            axis,
            rows_each=None if self.per == "tensor" else 1,
            columns_each=self.group_size if self.per == "group" else None,
        )

    def to_json(self) -> dict[str, str | int | bool | None]:
        """Plain data for `scheme_from_json`."""
        return {
            "kind": "linear",
            "bits": self.bits,
            "per": self.per,
            "symmetric": self.symmetric,
            "group_size": self.group_size,
            "narrow": self.narrow,
        }

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> "LinearCodes":
        """Round `x` to the grid that spans its least and greatest value, group by group.

        Raises:
            SchemeError: `x` is empty, not floating-point, or holds NaN or infinite values.
        """
        groups = self.groups(x.shape, axis)
        check_finite(x)
        rows = groups.to_rows(x.astype(np.float32, copy=False))
        scale, zero_point = self.grid(groups.reduce(np.minimum, rows), groups.reduce(np.maximum, rows))
        return self._round(rows, scale, zero_point, groups)

    def encode_with(
        self,
        x: npt.NDArray[np.floating],
        scale: npt.NDArray[np.floating],
        *,
        zero_point: npt.NDArray[np.integer] | None = None,
        axis: int = 0,
    ) -> "LinearCodes":
        """Round `x` to a given grid: one scale (and zero point, if affine) a group.

        Raises:
            SchemeError: as `encode`, or the grid does not fit the scheme and shape.
        """
        groups = self.groups(x.shape, axis)
        check_finite(x)
        scale, zero_point = self._checked(scale, zero_point, groups)
        return self._round(groups.to_rows(x.astype(np.float32, copy=False)), scale, zero_point, groups)

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
        groups = self.groups(codes.shape, axis)
        low, high = self.code_range
        if not np.issubdtype(codes.dtype, np.integer) or codes.min() < low or codes.max() > high:
            raise SchemeError(f"codes of {self.name} must be integers in {low}..{high}.")
        scale, zero_point = self._checked(scale, zero_point, groups)
        return LinearCodes(np.ascontiguousarray(codes, self.code_dtype), scale, zero_point, self, groups)

    def grid(
        self, low: npt.NDArray[np.floating], high: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer] | None]:
        """Scale and zero point [groups] of the grids that cover `low`..`high` and zero.

        Every code decodes to a finite value. Where that needs a smaller scale, so only with extremes at the very end of
        float32 (the last eighth, for 4 bits with the full range), those extremes are clipped by up to a step.
        """
        bottom, top = self.code_range
        low = np.minimum(low.astype(np.float64), 0.0)
        high = np.maximum(high.astype(np.float64), 0.0)
        exact = np.maximum(high / top, low / bottom) if self.symmetric else (high - low) / top
        scale = np.where(exact > 0, np.maximum(exact, SMALLEST), 1.0)
        zero_point = None if self.symmetric else np.rint(-low / scale).clip(0, top)
        codes = None if zero_point is None else zero_point.astype(self.code_dtype)
        reach = self._reach(codes)
        rounded = np.minimum(scale, LARGEST / reach).astype(np.float32)
        return np.where(rounded * reach > LARGEST, np.nextafter(rounded, np.float32(0)), rounded), codes

    def _reach(self, zero_point: npt.NDArray[np.integer] | None) -> npt.NDArray[np.float64]:
        """How many steps the outermost code lies from zero: [groups], or [1] if symmetric."""
        bottom, top = self.code_range
        middle = np.zeros(1) if zero_point is None else zero_point.astype(np.float64)
        return np.maximum(middle - bottom, top - middle)

    def _checked(
        self, scale: npt.NDArray[np.floating], zero_point: npt.NDArray[np.integer] | None, groups: Groups
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer] | None]:
        if (zero_point is None) != self.symmetric:
            raise SchemeError(f"{self.name} takes {'no' if self.symmetric else 'a'} zero point.")
        for what, values in (("scales", scale), ("zero points", zero_point)):
            if values is not None and values.size != groups.count:
                raise SchemeError(
                    f"{self.name} needs {groups.count} {what} for shape {groups.shape}, got {values.size}."
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
        groups: Groups,
    ) -> "LinearCodes":
        with np.errstate(over="ignore"):  # infinity clips to the last code
            steps = rows / groups.spread(scale)
        np.rint(steps, out=steps)
        if zero_point is not None:
            steps += groups.spread(zero_point)
        codes = steps.clip(*self.code_range, out=steps).astype(self.code_dtype)
        return LinearCodes(groups.from_rows(codes), scale, zero_point, self, groups)


@dataclass(frozen=True)
class LinearCodes:
    """A tensor as codes on a linear grid.

    Args:
        codes: in the shape of the tensor; int8/int16 if symmetric, uint8/uint16 if affine.
        scale: float32 [groups.count].
        zero_point: None if symmetric, else [groups.count] in the type of the codes.
        scheme: the grid's hyper-parameters.
        groups: what shares a scale.
    """

    codes: npt.NDArray[np.integer]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.integer] | None
    scheme: Linear
    groups: Groups

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.scheme.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.groups.shape

    @property
    def axis(self) -> int:
        """The tensor's output channel."""
        return self.groups.axis

    @property
    def group_size(self) -> int | None:
        """Columns that share a scale, if not all of a channel."""
        return self.scheme.group_size

    @property
    def symmetric(self) -> bool:
        """Whether there is no zero point."""
        return self.scheme.symmetric

    @property
    def parameter_counts(self) -> dict[str, int]:
        """What is stored beside the codes: numbers of scales, zero points and code book entries."""
        zero_points = 0 if self.zero_point is None else self.zero_point.size
        return {"scales": self.scale.size, "zero_points": zero_points, "code_books": 0}

    def unsigned(self) -> tuple[npt.NDArray[np.unsignedinteger], int]:
        """Codes as 0..2^bits - 1 for packing, uint8 or uint16, and what to subtract to have them back."""
        offset = 1 << (self.bits - 1) if self.symmetric else 0
        return (self.codes.astype(np.int32) + offset).astype(np.uint8 if self.bits <= 8 else np.uint16), offset

    @staticmethod
    def from_unsigned(
        codes: npt.NDArray[np.unsignedinteger],
        scale: npt.NDArray[np.float32],
        *,
        zero_point: npt.NDArray[np.integer] | None,
        scheme: Linear,
        axis: int = 0,
    ) -> "LinearCodes":
        """The inverse of `unsigned`, for codes in the shape of the tensor."""
        offset = 1 << (scheme.bits - 1) if scheme.symmetric else 0
        return scheme.from_codes(codes.astype(np.int32) - offset, scale, zero_point=zero_point, axis=axis)

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        steps = self.groups.to_rows(self.codes).astype(np.int32)
        if self.zero_point is not None:
            steps -= self.groups.spread(self.zero_point.astype(np.int32))
        return self.groups.from_rows(steps.astype(np.float32) * self.groups.spread(self.scale))
