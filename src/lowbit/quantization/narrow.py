"""Scales and biases as half precision holds them, where that is far below what quantization does anyway.

A file stores numbers that float16 holds exactly in two bytes (`formats.unpack`), so they are rounded before anything is
judged with them: what is measured is what is written. float16 has 11 bits, so a scale moves by at most 2^-11 of itself
and the outermost level of a 4-bit grid by 1/256 of a step. Values out of its range, or among its subnormal numbers,
where it is coarser, stay as they are.
"""

import numpy as np
import numpy.typing as npt

LEAST = 2.0**-14  # float16's smallest normal number
MOST = 65504.0


def narrow_scales(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scales rounded to float16, all or none of them."""
    if scales.size and float(scales.min()) >= LEAST and float(scales.max()) <= MOST:
        return scales.astype(np.float16).astype(np.float32)
    return scales


def narrow_bias(bias: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A bias rounded to float16; its small values may be coarser, since they are added to large ones."""
    if bias.size and float(np.abs(bias).max()) <= MOST:
        return bias.astype(np.float16).astype(np.float32)
    return bias
