"""Bits by size: a narrow recipe gives small layers more bits than large ones.

Rounding the weights of a layer to b bits leaves a noise of about c 4^-b of its output's power, whatever its size, and
the noises of all layers reach the network's answer. A bit more quarters a layer's noise, and costs a byte for every
eight weights. So the least noise for a number of bytes gives a layer of a quarter of the weights one bit more: reverse
water-filling (Cover & Thomas 2006, "Elements of information theory", 10.3.3), found with a Lagrange multiplier (Shoham
& Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"). It needs no images, only shapes.

First convolutions, depthwise layers and small classifiers are what others except from quantization by hand.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lowbit.schemes.codes import Scheme

# Bytes that a scheme's codes of a tensor of this shape and axis take in a file.
Cost = Callable[[Scheme, tuple[int, ...], int], int]
HALVINGS = 60  # of the interval that the multiplier is in, on a logarithmic scale


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
    choices: list[list[tuple[Scheme, int]]] = []
    for (scheme, shape, axis), size in zip(tensors, sizes, strict=True):
        wider = [scheme.with_bits(bits) for bits in range(scheme.bits + 1, widest + 1)]
        costs = [(candidate, cost(candidate, shape, axis)) for candidate in (scheme, *wider)]
        most = math.inf if float_bytes is None else float_bytes * size
        choices.append([costs[0], *(choice for choice in costs[1:] if choice[1] < most)])
    budget = sum(options[0][1] for options in choices) + extra_bits * sum(sizes) / 8
    # Noise per byte, from more than any layer could win by its first bit to less than the largest by its last.
    cheap, dear = -8.0 * math.log(2) * widest, 0.0
    for _ in range(HALVINGS):
        middle = (cheap + dear) / 2
        if sum(cost for _, cost in _least(choices, math.exp(middle))) > budget:
            cheap = middle
        else:
            dear = middle
    return [scheme for scheme, _ in _least(choices, math.exp(dear))]


def _least(choices: list[list[tuple[Scheme, int]]], price: float) -> list[tuple[Scheme, int]]:
    """Of each tensor's choices the one with the least noise, where a byte costs as much noise as `price`."""
    chosen = []
    for options in choices:
        lagrangian = [4.0**-scheme.bits + price * cost for scheme, cost in options]
        chosen.append(options[int(np.argmin(lagrangian))])
    return chosen
