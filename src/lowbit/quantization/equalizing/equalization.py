"""Equalization: scale channels so that rounding to the scales that they share costs the network least.

The network computes the same when each channel c of an activation is divided by s_c, if the rows of the layers that
write it are divided by s_c too and the columns of the layers that read it multiplied
(`lowbit.quantization.equalizing.channel_groups`). What rounding costs is not the same: channels share a scale, and the
widest of them sets it for the others. So s = exp(u), where u minimizes the noise of all rounded weights and activations
together (`lowbit.quantization.equalizing.objective`).

A ReLU6 passes a factor through only where it is inactive: a channel that never exceeds b <= 6 may be stretched by at
most 6 / b, and one that may reach 6 keeps s_c = 1. Where activations stay float this must hold for every image, so b is
proven (`lowbit.quantization.equalizing.interval_bounds`). Where they are rounded, they are clipped to what calibration
images showed anyway: there b is `UNSEEN_MARGIN` times the largest value seen, and whatever exceeds it is clipped
elsewhere than at 6. Moving the bound along with each channel would take another node at run time.

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721),
section 4.1, which equalizes the weight ranges of one pair of layers after the other and treats ReLU6 as ReLU; here
residual streams, activations and rows with scales of their own are in one objective. Gives up: channels are not
rescaled across an operator that `channel_groups` does not know.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import ChannelStatistics
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.quantization.equalizing.channel_groups import ChannelGroups, find_channel_groups
from lowbit.quantization.equalizing.interval_bounds import activation_bounds
from lowbit.quantization.equalizing.objective import evaluate, minimize, noise_terms
from lowbit.schemes.codes import Scheme

Array = np.ndarray[Any, np.dtype[Any]]

# Factors beyond this, up or down, hardly help any more, and should not strain float32.
LARGEST_FACTOR = 1024.0
# How many times the largest value seen in calibration other images may reach before a rescaled channel is clipped.
UNSEEN_MARGIN = 1.25


@dataclass(frozen=True)
class Equalized:
    """The rescaled network, which computes the same in float.

    Attributes:
        model: with new weights and biases.
        factors: by tensor, what each channel was divided by, float64 [channels]; only tensors with a factor other
            than 1.
        rescaled_channels: number of channels with a factor other than 1.
        total_channels: number of all channels, those that must keep the factor 1 included.
        noise_ratio: expected rounding noise, relative to that without rescaling; 1 if it was not evaluated.
    """

    model: Model
    factors: Mapping[str, Array]
    rescaled_channels: int
    total_channels: int
    noise_ratio: float = 1.0


def equalizable(model: Model) -> tuple[str, ...]:
    """Tensors whose channel statistics equalization needs: those that may be rescaled and those next to them.

    Empty if no tensor may be rescaled.
    """
    channel_groups = find_channel_groups(model)
    tensors = set(channel_groups.tensors)
    for layer in channel_groups.layers.values():
        if not tensors.isdisjoint((layer.input, layer.output)):
            tensors |= {layer.input, layer.output}
    return tuple(name for name in channel_groups.group_of if name in tensors) if channel_groups.tensors else ()


def equalize_network(
    model: Model,
    statistics: Mapping[str, ChannelStatistics],
    schemes: Mapping[str, Scheme],
    scale_groups: Sequence[Sequence[str]] = (),
) -> Equalized:
    """Rescale channels so that the noise of all rounded weights and activations together is least.

    Args:
        model: the prepared float model.
        statistics: of the channels of each `equalizable` tensor.
        schemes: by weight, for the weights that will be rounded.
        scale_groups: activations that will be rounded; those in one group share a scale.
    """
    channel_groups = find_channel_groups(model)
    # Rounded activations are clipped to what was seen anyway.
    lower, upper = factor_limits(model, channel_groups, seen=statistics if scale_groups else None)
    terms = noise_terms(model, channel_groups, statistics, schemes, scale_groups)
    log_factors = minimize(terms, lower, upper)
    before, _ = evaluate(terms, np.zeros_like(log_factors))
    after, _ = evaluate(terms, log_factors)
    noise_ratio = after / before if before > 0 else 1.0
    return dataclasses.replace(rescaled(model, channel_groups, log_factors), noise_ratio=noise_ratio)


def factor_limits(
    model: Model, channel_groups: ChannelGroups, *, seen: Mapping[str, ChannelStatistics] | None = None
) -> tuple[Array, Array]:
    """Lower and upper limit of log s for each channel group, so that no Clip changes what the network computes.

    Args:
        model: the prepared float model.
        channel_groups: of this model.
        seen: statistics of calibration images; a channel that stayed clear of its Clip on them counts as free. Without
            them only proofs count, and the network computes the same on all images.

    Returns:
        Two arrays, float64 [channel groups]; both are 0 for a group that must keep the factor 1.
    """
    # The largest value in each group, as a share of the bound that would clip it.
    share_of_bound = np.zeros(channel_groups.count)
    bounds = activation_bounds(model) if channel_groups.clips else {}
    for source, output, clip_bound in channel_groups.clips:
        largest = bounds[source].upper
        if seen is not None and output in seen:
            largest = np.minimum(largest, UNSEEN_MARGIN * seen[output].max_abs)
        np.maximum.at(share_of_bound, channel_groups.group_of[source], np.maximum(largest, 0.0) / clip_bound)
    free = ~(channel_groups.fixed | (share_of_bound > 1.0))
    lower = np.log(np.clip(share_of_bound, 1 / LARGEST_FACTOR, 1.0))
    return np.where(free, lower, 0.0), np.where(free, np.log(LARGEST_FACTOR), 0.0)


def rescaled(model: Model, channel_groups: ChannelGroups, log_factors: Array) -> Equalized:
    """The network whose channels are divided by s = exp(`log_factors`), float64 [channel groups]."""
    group_factors = np.exp(log_factors)
    factors = {name: group_factors[groups] for name, groups in channel_groups.group_of.items()}
    changed = {name: factor for name, factor in factors.items() if not np.all(factor == 1.0)}
    return Equalized(
        model.with_weights(_weights(model, changed)),
        changed,
        rescaled_channels=sum(int(np.count_nonzero(factor != 1.0)) for factor in changed.values()),
        total_channels=sum(factor.size for factor in factors.values()),
    )


def _weights(model: Model, factors: Mapping[str, Array]) -> dict[str, Array]:
    """New weights and biases: rows divided by the factors of the output, columns multiplied by those of the input."""
    values: dict[str, Array] = {}
    for layer in layers(model):
        input_factors, output_factors = factors.get(layer.input), factors.get(layer.output)
        if input_factors is None and output_factors is None:
            continue
        matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
        groups, rows, columns = matrix.shape
        if input_factors is not None:
            # Columns run over the input channels of a convolution group, each with the positions of its kernel.
            channels = input_factors.size // groups
            column_factors = np.repeat(input_factors.reshape(groups, channels), columns // channels, axis=1)
            matrix = matrix * column_factors[:, None, :]
        if output_factors is not None:
            matrix = matrix / output_factors.reshape(groups, rows, 1)
            if layer.bias is not None:
                values[layer.bias] = (model.weights[layer.bias] / output_factors).astype(np.float32)
        values[layer.weight] = layer.from_matrix(matrix).astype(np.float32)
    return values
