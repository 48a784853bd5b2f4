"""Scales and biases as half precision holds them, where that is far below what quantization does anyway.

A file stores numbers that float16 holds exactly in two bytes (`formats.onnx.decode_nodes`), so they are rounded before
anything is judged with them: what is measured is what is written. float16 has 11 bits, so a scale moves by at most
2^-11 of itself and the outermost level of a 4-bit grid by 1/256 of a step. Values out of its range, or among its
subnormal numbers, where it is coarser, stay as they are; and so do those of layers with so few that the file keeps four
bytes each.

Scales of codes of few bits are rounded further where a layer has so many that the file keeps a byte each: to 5 bits
behind the leading one, 32 values an octave, of which a whole network rarely has more than 256
(`formats.onnx.decode_nodes`). A scale then moves by at most 3.1 %. Without images it goes down or up as its weights
like it better, which makes up for the coarseness: their squared error comes out 2 to 4 % below that on float32 scales,
since a scale that reaches to the extremes is rarely the best. With images codes are solved again on the nearest.
"""

import numpy as np
import numpy.typing as npt

from lowbit.formats.onnx.decode_nodes import BYTE_FROM, HALF_FROM
from lowbit.schemes.codes import Codes

LEAST = 2.0**-14  # float16's smallest normal number
MOST = 65504.0
HALF_BITS = 8  # codes up to which float16 is finer than they are
FEW_BITS = 4
SCALE_BITS = 5


def stored_scales(
    scales: npt.NDArray[np.float32], bits: int, *, count: int | None = None
) -> tuple[npt.NDArray[np.float32], ...]:
    """What a file may store instead of the scales of a layer whose codes have so many bits, all or none of them.

    Args:
        scales: of the layer, or of a part of it.
        bits: of the codes.
        count: scales of the whole layer, if these are a part.

    Returns:
        The nearest; behind it, where scales will be stored in a byte each, those below and above. Each scale may be
        taken from any of them.
    """
    count = scales.size if count is None else count
    if count < HALF_FROM or float(scales.min()) < LEAST or float(scales.max()) > MOST:
        return (scales,)
    if bits > FEW_BITS or count < BYTE_FROM:
        return (scales.astype(np.float16).astype(np.float32),)
    fraction, exponent = np.frexp(scales)
    steps = np.float32(2 << SCALE_BITS)  # fractions are from 0.5 to 1
    return tuple(np.ldexp(to(fraction * steps) / steps, exponent) for to in (np.rint, np.floor, np.ceil))


def narrow_bias(bias: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A bias rounded to float16; its small values may be coarser, since they are added to large ones."""
    if bias.size >= HALF_FROM and float(np.abs(bias).max()) <= MOST:
        return bias.astype(np.float16).astype(np.float32)
    return bias


def with_narrow_scales(codes: Codes, weight: npt.NDArray[np.floating]) -> Codes:
    """Codes of a weight rounded again on narrow scales, of which each takes the one with the least squared error."""
    if codes.scale is None or codes.bits > HALF_BITS:
        return codes
    return codes.rounded_on(weight, *stored_scales(codes.scale, codes.bits))
