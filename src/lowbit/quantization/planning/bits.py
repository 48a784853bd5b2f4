"""Bits by size: a narrow recipe gives small layers more bits than large ones.

Rounding the weights of a layer to b bits leaves a noise of about c 4^-b of its output's power, whatever its size, and
the noises of all layers reach the network's answer. A bit more quarters a layer's noise, and costs a byte for every
eight weights. So the least noise for a number of bytes gives a layer of a quarter of the weights one bit more: reverse
water-filling (Cover & Thomas 2006, "Elements of information theory", 10.3.3), found with a Lagrange multiplier (Shoham
& Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"). It needs no images, only shapes.

A multiplier takes all layers of one size at once, or none, and may leave most of what is to be spent. So what it leaves
is spent step by step, where a byte lowers the noise most; of layers that are alike the first ones get it.

First convolutions, depthwise layers and small classifiers are what others except from quantization by hand.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lowbit.schemes.codes import Scheme

Doubles = npt.NDArray[np.float64]
Widths = npt.NDArray[np.intp]
# Bytes that a scheme's codes of a tensor of this shape and axis take in a file.
Cost = Callable[[Scheme, tuple[int, ...], int], int]
HALVINGS = 60  # of the interval that the multiplier is in, on a logarithmic scale
ALIKE = 1e-3  # share by which gains have to differ to decide: a byte of padding is none
FREE = 1e-3  # bytes that a step which costs none counts as


def stored_bytes(scheme: Scheme, shape: tuple[int, ...], axis: int) -> int:
    """Bytes of codes that are decoded to float."""
    return scheme.stored_bytes(shape, axis)


def schemes_by_size(
    tensors: Sequence[tuple[Scheme, tuple[int, ...], int]],
    extra_bits: float,
    *,
    widest: int,
    float_bytes: int | None,
    cost: Cost = stored_bytes,
) -> list[Scheme]:
    """For each tensor its scheme, or a wider one, so that the noise of all is least.

    Args:
        tensors: scheme, shape and axis of output channels of each.
        extra_bits: what may be spent beyond the given schemes, in bits per weight over all tensors.
        widest: bits that a scheme gets at most.
        float_bytes: of a float value: no tensor becomes as large as in float; None lets it.
        cost: bytes in a file.
    """
    sizes = [math.prod(shape) for _, shape, _ in tensors]
    choices = [[scheme.with_bits(bits) for bits in range(scheme.bits, widest + 1)] for scheme, _, _ in tensors]
    noise = np.full((len(tensors), max(map(len, choices), default=0)), math.inf)
    taken = noise.copy()
    for index, ((_, shape, axis), size) in enumerate(zip(tensors, sizes, strict=True)):
        most = math.inf if float_bytes is None else float_bytes * size
        for width, scheme in enumerate(choices[index]):
            needed = cost(scheme, shape, axis)
            if width == 0 or needed < most:
                noise[index, width], taken[index, width] = 4.0**-scheme.bits, needed
    budget = taken[:, 0].sum() + extra_bits * sum(sizes) / 8
    # Noise per byte, from more than any layer could win by its first bit to less than the largest by its last.
    cheap, dear = -8.0 * math.log(2) * widest, 0.0
    for _ in range(HALVINGS):
        middle = (cheap + dear) / 2
        if _bytes(taken, _least(noise, taken, math.exp(middle))) > budget:
            cheap = middle
        else:
            dear = middle
    chosen = _filled(noise, taken, _least(noise, taken, math.exp(dear)), budget)
    return [schemes[width] for schemes, width in zip(choices, chosen, strict=True)]


def _least(noise: Doubles, taken: Doubles, price: float) -> Widths:
    """The width of each tensor with the least noise, where a byte costs as much noise as `price` [tensors]."""
    return np.asarray((noise + price * taken).argmin(axis=1))


def _filled(noise: Doubles, taken: Doubles, widths: Widths, budget: float) -> Widths:
    """Widths with what they leave of the budget spent, step by step, where a byte wins most [tensors].

    Args:
        noise: by tensor and width, infinite where a tensor cannot have it.
        taken: bytes, likewise.
        widths: where to begin [tensors].
        budget: bytes.
    """
    widths, each = widths.copy(), np.arange(len(widths))
    while True:
        left = budget - _bytes(taken, widths)
        more = taken - taken[each, widths][:, None]
        less = noise[each, widths][:, None] - noise
        won = np.where((less > 0) & (more <= left), less, 0) / np.maximum(more, FREE)
        if not won.any():
            return widths
        tensor, width = np.argwhere(won >= (1 - ALIKE) * won.max())[0]
        widths[tensor] = width


def _bytes(taken: Doubles, widths: Widths) -> float:
    return float(taken[np.arange(len(widths)), widths].sum())
