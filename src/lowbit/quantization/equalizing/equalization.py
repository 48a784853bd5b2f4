"""Equalization: scale channels so that rounding to scales that they have to share costs the network least.

The network computes the same when each channel c of an activation is divided by s_c, if the rows of the layers that
write it are divided by s_c too and the columns of the layers that read it multiplied
(`lowbit.quantization.equalizing.channel_groups`). What rounding costs is not the same: channels share a scale, and the
widest sets it for the others. So s = exp(u), with u the minimum of the noise of all rounded weights and activations
together (`lowbit.quantization.equalizing.objective`).

A ReLU6 passes a factor through only where it is inactive: a channel that never exceeds b <= 6 may be stretched by 6 / b
at the most, and one that may reach 6 keeps s_c = 1. Where activations stay float that must hold for every image, so it
is proven (`lowbit.quantization.equalizing.interval_bounds`). Where they are rounded, they are cut off at what
calibration images showed anyway: there b is the largest value seen, and `MARGIN` beyond it; what goes beyond that is
cut off elsewhere than at 6. Letting the bound move along, as a vector, would take a node of its own at run time.

Sources: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721),
section 4.1, which equalizes the weight ranges of one pair of layers after the other and takes ReLU6 for ReLU; here
residual streams, activations and rows with scales of their own are in one objective. Gives up: nothing is done across
an operator that `ties` does not know.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import ChannelRange
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.quantization.equalizing.channel_groups import Ties, find_ties
from lowbit.quantization.equalizing.interval_bounds import activation_bounds
from lowbit.quantization.equalizing.objective import evaluate, minimize, noise_terms
from lowbit.schemes.codes import Scheme

Array = np.ndarray[Any, np.dtype[Any]]

# Factors beyond this, up or down, hardly help any more, and float32 should not be asked for more.
LARGEST_FACTOR = 1024.0
# How far beyond what calibration images show other images may go before a moved bound cuts them off.
MARGIN = 1.25


@dataclass(frozen=True)
class Equalized:
    """The rescaled network, which computes the same in float.

    Attributes:
        model: with new weights and biases.
        factors: by tensor, what each channel was divided by; tensors whose factors are all 1 are left out.
        changed: how many channels of how many were rescaled.
        noise: the forecast noise of rounding, as a share of that without rescaling; 1 if it was not asked for.
    """

    model: Model
    factors: Mapping[str, Array]
    changed: tuple[int, int]
    noise: float = 1.0


def equalizable(model: Model) -> tuple[str, ...]:
    """Tensors that may be rescaled, and those on the other side of their layers: all that `ranges` should know of."""
    ties = find_ties(model)
    wanted = set(ties.tensors)
    for layer in ties.layers.values():
        if not wanted.isdisjoint((layer.input, layer.output)):
            wanted |= {layer.input, layer.output}
    return tuple(name for name in ties.roots if name in wanted) if ties.tensors else ()


def equalize_network(
    model: Model,
    ranges: Mapping[str, ChannelRange],
    schemes: Mapping[str, Scheme],
    groups: Sequence[Sequence[str]] = (),
) -> Equalized:
    """Rescale channels so that the noise of all rounded weights and activations together is least.

    Args:
        model: the prepared float model.
        ranges: of the `equalizable` tensors.
        schemes: of the weights that will be rounded.
        groups: activations that will be rounded; those in one group share a scale.
    """
    ties = find_ties(model)
    # Where activations are rounded, they are cut off at what was seen anyway.
    least, most = factor_limits(model, ties, seen=ranges if groups else None)
    terms = noise_terms(model, ties, ranges, schemes, groups)
    found = minimize(terms, least, most)
    before, _ = evaluate(terms, np.zeros_like(found))
    after, _ = evaluate(terms, found)
    return dataclasses.replace(rescaled(model, ties, found), noise=after / before if before > 0 else 1.0)


def factor_limits(model: Model, ties: Ties, *, seen: Mapping[str, ChannelRange] | None = None) -> tuple[Array, Array]:
    """Least and greatest log s for each set of channels, so that no bound of a Clip that matters moves.

    Args:
        model: the prepared float model.
        ties: of its channels.
        seen: what calibration images did; a channel that stayed clear of its bound on them then counts as free. Without
            it only proofs count, and the network computes the same on all images.
    """
    reach = np.zeros(ties.count)
    bounds = activation_bounds(model) if ties.clips else {}
    for source, output, limit in ties.clips:
        most = bounds[source].high
        if seen is not None and output in seen:
            most = np.minimum(most, MARGIN * seen[output].highest)
        np.maximum.at(reach, ties.roots[source], np.maximum(most, 0.0) / limit)
    free = ~(ties.fixed | (reach > 1.0))
    widest = np.log(LARGEST_FACTOR)
    least = np.log(np.clip(reach, 1 / LARGEST_FACTOR, 1.0))
    return np.where(free, least, 0.0), np.where(free, widest, 0.0)


def rescaled(model: Model, ties: Ties, logarithms: Array) -> Equalized:
    """The network whose channels are divided by s = exp(`logarithms`), given for each set of channels."""
    every = np.exp(logarithms)
    factors = {name: every[roots] for name, roots in ties.roots.items()}
    moved = {name: factor for name, factor in factors.items() if not np.all(factor == 1.0)}
    changed = sum(int(np.count_nonzero(factor != 1.0)) for factor in moved.values())
    total = sum(factor.size for factor in factors.values())
    return Equalized(model.with_weights(_weights(model, moved)), moved, (changed, total))


def _weights(model: Model, factors: Mapping[str, Array]) -> dict[str, Array]:
    """New weights and biases: rows divided by the factors of the output, columns multiplied by those of the input."""
    values: dict[str, Array] = {}
    for layer in layers(model):
        given, made = factors.get(layer.input), factors.get(layer.output)
        if given is None and made is None:
            continue
        matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
        groups, rows, columns = matrix.shape
        if given is not None:
            # Columns run over the group's input channels, each with the positions of its kernel.
            channels = given.size // groups
            spread = np.repeat(given.reshape(groups, channels), columns // channels, axis=1)
            matrix = matrix * spread[:, None, :]
        if made is not None:
            matrix = matrix / made.reshape(groups, rows, 1)
            if layer.bias is not None:
                values[layer.bias] = (model.weights[layer.bias] / made).astype(np.float32)
        values[layer.weight] = layer.from_matrix(matrix).astype(np.float32)
    return values
