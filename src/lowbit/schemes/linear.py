"""Evenly spaced values, with one scale a tensor, a channel or a group of columns.

Symmetric: `x = code * scale`, codes from -(2^(b-1) - 1) to 2^(b-1) - 1 (the lowest is left out, so that codes negate).
Affine: `x = (code - zero_point) * scale`, codes from 0 to 2^b - 1, zero exact. Jacob et al. 2018, "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", equation 1.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lowbit.errors import SchemeError
from lowbit.schemes.codes import Floats, Integers, LinearCodes, channel_shape, columns_of

PER = ("tensor", "channel", "group")
# A scale below this has no reciprocal in float32.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 4


@dataclass(frozen=True)
class Linear:
    """Evenly spaced values.

    Args:
        bits: of a code, 2 to 16.
        per: what shares a scale: "tensor", "channel", or "group" of columns of a channel.
        symmetric: no zero point.
        group_size: columns that share a scale, with per="group".

    Raises:
        SchemeError: impossible hyper-parameters.
    """

    bits: int
    per: str = "channel"
    symmetric: bool = True
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise SchemeError(f"linear codes of {self.bits} bits are not possible.", remedy="Choose 2 to 16 bits.")
        check_sharing(self.per, self.group_size)

    @property
    def name(self) -> str:
        """For people, such as `linear4/channel`."""
        group = f" of {self.group_size}" if self.group_size else ""
        return f"linear{self.bits}/{self.per}{group}" + ("" if self.symmetric else "/affine")

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code."""
        if self.symmetric:
            return 1 - (1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    def encode(self, x: Floats, axis: int = 0) -> LinearCodes:
        """Scales from the extremes, codes by rounding to nearest, ties to even.

        Args:
            x: float32 of any shape.
            axis: dimension of the output channels.

        Raises:
            SchemeError: NaN or infinite values, or groups that do not divide the columns.
        """
        x = finite_float32(x)
        grouped = grouped_shape(x.shape, axis, self)
        values = x.reshape(grouped)
        axes = scale_axes(grouped, axis, self)
        low = np.minimum(values.min(axis=axes, keepdims=True, initial=0.0), 0.0).astype(np.float64)
        high = np.maximum(values.max(axis=axes, keepdims=True, initial=0.0), 0.0).astype(np.float64)
        if self.symmetric:
            scale = np.maximum(-low, high) / self.code_range[1]
            return self.encode_with(x, usable_scale(scale), None, axis=axis)
        scale = usable_scale((high - low) / self.code_range[1])
        return self.encode_with(x, scale, np.round(-low / scale).astype(np.float32), axis=axis)

    def encode_with(self, x: Floats, scale: Floats, zero_point: Floats | None, *, axis: int = 0) -> LinearCodes:
        """Codes on a given grid, by rounding to nearest.

        Args:
            x: float32 of any shape.
            scale: float32, any shape with as many elements as the scheme has scales for x.
            zero_point: likewise; None exactly if symmetric.
            axis: dimension of the output channels.
        """
        grouped = grouped_shape(x.shape, axis, self)
        shape = scale_shape(grouped, axis, self)
        scale = np.asarray(scale, np.float32).reshape(shape)
        zero = None if zero_point is None else np.asarray(zero_point, np.float32).reshape(shape)
        exact = x.reshape(grouped).astype(np.float64) / scale
        if zero is not None:
            exact += zero
        codes = np.clip(np.rint(exact), *self.code_range)
        return LinearCodes(codes.astype(self.dtype).reshape(x.shape), scale, zero, self.bits, axis, grouped)

    def from_codes(self, codes: Integers, scale: Floats, zero_point: Floats | None, *, axis: int = 0) -> LinearCodes:
        """Codes that someone else has chosen, on a given grid; shapes as in `encode_with`."""
        if codes.min(initial=0) < self.code_range[0] - self.symmetric or codes.max(initial=0) > self.code_range[1]:
            raise SchemeError(
                f"codes from {codes.min()} to {codes.max()} do not fit {self.name}.",
                remedy=f"They must lie in {self.code_range[0]}..{self.code_range[1]}.",
            )
        grouped = grouped_shape(codes.shape, axis, self)
        shape = scale_shape(grouped, axis, self)
        zero = None if zero_point is None else np.asarray(zero_point, np.float32).reshape(shape)
        scale = np.asarray(scale, np.float32).reshape(shape)
        return LinearCodes(codes.astype(self.dtype), scale, zero, self.bits, axis, grouped)

    @property
    def dtype(self) -> type[np.integer[Any]]:
        """Type that codes are kept in."""
        if self.symmetric:
            return np.int8 if self.bits <= 8 else np.int16
        return np.uint8 if self.bits <= 8 else np.uint16

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Linear(**data)` without "scheme" gives an equal value."""
        return {"scheme": "linear", **asdict(self)}


def finite_float32(x: Floats) -> Floats:
    """x as float32.

    Raises:
        SchemeError: it holds NaN or infinity.
    """
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise SchemeError("NaN or infinite values cannot be encoded.", remedy="Check the weights of the model.")
    return x


def check_sharing(per: str, group_size: int | None) -> None:
    """Raise SchemeError unless `per` and `group_size` fit together."""
    if per not in PER:
        raise SchemeError(f"scales cannot be shared per '{per}'.", remedy=f"Choose one of: {', '.join(PER)}.")
    if (per == "group") != (group_size is not None):
        raise SchemeError("a group size and per='group' go together.", remedy="Give both, or neither.")
    if group_size is not None and group_size < 1:
        raise SchemeError(f"a group of {group_size} is not possible.", remedy="Choose at least 1.")


def usable_scale(scale: np.ndarray[Any, np.dtype[np.float64]]) -> Floats:
    """float32 scales; 1 for groups that hold nothing but (almost) zeros, whose codes are all zero then."""
    return np.where(scale < SMALLEST_SCALE, 1.0, scale).astype(np.float32)


def grouped_shape(shape: tuple[int, ...], axis: int, scheme: Linear) -> tuple[int, ...]:
    """Shape in which scales broadcast: the tensor's own, or [channels, groups, columns] for groups.

    Raises:
        SchemeError: channels are not the first dimension, or groups do not divide the columns.
    """
    if scheme.group_size is None:
        return shape
    columns = columns_of(shape, axis)
    if axis != 0 or columns % scheme.group_size:
        raise SchemeError(
            f"groups of {scheme.group_size} do not divide the {columns} columns of a tensor of shape {shape}.",
            remedy="Choose a divisor, or per='channel'.",
        )
    return shape[0], columns // scheme.group_size, scheme.group_size


def scale_shape(grouped: tuple[int, ...], axis: int, scheme: Linear) -> tuple[int, ...]:
    """Shape of the scales, for codes of shape `grouped`."""
    if scheme.per == "group":
        return grouped[0], grouped[1], 1
    return channel_shape(grouped, axis) if scheme.per == "channel" else (1,) * len(grouped)


def scale_axes(grouped: tuple[int, ...], axis: int, scheme: Linear) -> tuple[int, ...]:
    """Dimensions over which one scale stretches."""
    shape = scale_shape(grouped, axis, scheme)
    return tuple(place for place in range(len(grouped)) if shape[place] == 1)
