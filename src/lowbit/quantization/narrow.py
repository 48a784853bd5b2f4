"""Scales and biases as half precision holds them, where that is far below what quantization does anyway.

A file stores numbers that float16 holds exactly in two bytes (`formats.unpack`), so they are rounded before anything is
judged with them: what is measured is what is written. float16 has 11 bits, so a scale moves by at most 2^-11 of itself
and the outermost level of a 4-bit grid by 1/256 of a step. Values out of its range, or among its subnormal numbers,
where it is coarser, stay as they are.

Scales of codes of few bits are rounded further, to 5 bits behind the leading one: 32 values an octave, of which a
whole network rarely has more than 256, so that the file keeps one table and a byte a channel (`formats.unpack`). A
scale moves by at most 1.6 %, 0.7 % on average; on a 4-bit grid (codes of 2.5 steps on average) that is 0.02 steps
beside the 0.29 of rounding.
"""

import numpy as np
import numpy.typing as npt

from lowbit.schemes.codes import Codes, LinearCodes

LEAST = 2.0**-14  # float16's smallest normal number
MOST = 65504.0
HALF_BITS = 8  # codes up to which float16 is finer than they are
FEW_BITS = 4
SCALE_BITS = 5


def narrow_scales(scales: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    """Scales of codes of so many bits, rounded to float16 or less, all or none of them."""
    if not (scales.size and float(scales.min()) >= LEAST and float(scales.max()) <= MOST):
        return scales
    if bits <= FEW_BITS and scales.size > 1:
        fraction, exponent = np.frexp(scales)
        steps = np.float32(2 << SCALE_BITS)  # fractions are from 0.5 to 1
        scales = np.ldexp(np.rint(fraction * steps) / steps, exponent)
    return scales.astype(np.float16).astype(np.float32)


def narrow_bias(bias: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A bias rounded to float16; its small values may be coarser, since they are added to large ones."""
    if bias.size and float(np.abs(bias).max()) <= MOST:
        return bias.astype(np.float16).astype(np.float32)
    return bias


def with_narrow_scales(codes: Codes, weight: npt.NDArray[np.floating]) -> Codes:
    """Codes of a weight rounded again on narrow scales; those of code books have theirs already."""
    if not isinstance(codes, LinearCodes) or codes.bits > HALF_BITS:
        return codes
    scale = narrow_scales(codes.scale, codes.bits)
    return codes.scheme.encode_with(weight, scale, zero_point=codes.zero_point, axis=codes.axis)
