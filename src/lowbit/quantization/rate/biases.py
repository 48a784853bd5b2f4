"""Biases rounded at a step, as codes that an archive makes small: of layers in float, and of layers in integers.

An integer kernel adds its bias in units of input scale times weight scale, which are far finer than a bias needs.
So its integers are multiples of a power of two that makes the step, and the file stores how often
(`formats.onnx.integer_weights`). Layers of few channels store them as they are: then low bytes are mostly zeros.
"""

import math

import numpy as np
import numpy.typing as npt

from lowbit.formats.quantized_graph import BiasCodes
from lowbit.packing.contexts import MAX_ALPHABET, Layout
from lowbit.packing.entropy import choose_coding
from lowbit.quantization.passes.activations import INT32_LIMIT
from lowbit.schemes.linear import Linear, LinearCodes

MOST_BYTE, MOST_WORD = 127, 32767


def bias_codes(bias: npt.NDArray[np.floating], scale: float) -> LinearCodes:
    """A bias [channels] at a scale of about `scale`, in whole bytes: 8 bits if that is enough, else 16."""
    reach = float(np.abs(bias).max(initial=0.0))
    scale = max(scale, reach / MOST_WORD, 1e-30)
    bits = 8 if reach / scale < MOST_BYTE + 0.5 else 16
    scale = max(scale, reach / (MOST_BYTE if bits == 8 else MOST_WORD))
    codes = np.rint(bias / np.float32(scale)).astype(np.int32)
    return Linear(bits, per="tensor").from_codes(codes, np.array([scale], np.float32))


def integer_bias(
    bias: npt.NDArray[np.floating], unit: npt.NDArray[np.floating], step: float
) -> tuple[BiasCodes, LinearCodes]:
    """A bias in the units of its layer's integer products, at a step of about `step`, and how it will be stored.

    Args:
        bias: [channels].
        unit: input scale times weight scale, [channels] or [1].
        step: about the distance of two values that it may take; larger in channels of larger units, whose codes are
            coarser too.
    """
    units = bias.astype(np.float64).reshape(-1) / unit.astype(np.float64)
    reach = float(np.abs(units).max(initial=0.0))
    wanted = np.log2(max(step / float(unit.min()), 1.0))
    multiple = 1 << max(round(wanted), math.ceil(np.log2(max(reach / MOST_WORD, 1.0))))
    bits = 8 if reach / multiple < MOST_BYTE + 0.5 else 16
    counts = np.rint(units / multiple)
    most = INT32_LIMIT // multiple * multiple
    whole = (counts * multiple).clip(-most, most).astype(np.int32)
    stored = Linear(bits, per="tensor").from_codes(counts.astype(np.int32), np.array([multiple], np.float32))
    return BiasCodes(whole, unit.astype(np.float32).reshape(-1), multiple), stored


def bias_bits(codes: LinearCodes) -> float:
    """What the archive will take for them: coded like other codes, or as they are if they are of too many kinds."""
    values = codes.codes.reshape(-1).astype(np.int32)
    reach = int(values.max(initial=0)) - int(values.min(initial=0))
    if reach >= MAX_ALPHABET:
        return float(codes.bits * values.size)
    return choose_coding((values - values.min(initial=0)).astype(np.int16), Layout(values.size))[1]
