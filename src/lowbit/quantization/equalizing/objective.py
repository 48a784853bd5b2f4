"""What rounding costs a network whose channels are scaled by s = exp(u): one number, its gradient, its minimum.

    D(u) = sum over layers   sum over o, j of  g_o step(l, o)^2 m_j,   step(l, o) ~ |W_oj s_j / s_o|_8 / levels
         + sum over tensors  sum over c of     g_c step(t)^2,          step(t)    ~ |max_c / s_c|_8 / levels

The norms run over everything that shares a scale: a row of a weight or the whole weight, all channels of an activation;
the 8-norm stands for the largest magnitude and has a gradient. max_c is the largest magnitude of activation channel c,
m_j the mean square of input channel j. g_c is what noise in channel c costs: its share of the signal of each output
that reads it, summed. Both belong to the scaled network, m_j s_j^-2 and g_c s_c^2, so D does not depend on the scales
that a network happens to come with. Every term is a posynomial in s, so log D is convex in u and gradient descent finds
its only minimum.

Sources: the trade is that of Nagel et al. 2019 (arXiv 1906.04721), section 4.1, there between the ranges of two layers;
Boyd et al. 2007, "A tutorial on geometric programming", for the convexity; Kingma and Ba 2014 (arXiv 1412.6980) for the
descent. Gives up: noise is taken as white and its cost looks one layer ahead, so D serves to find u, not to forecast
the damage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import ChannelStatistics
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.quantization.equalizing.channel_groups import ChannelGroups
from lowbit.schemes.codes import Scheme

Array = np.ndarray[Any, np.dtype[Any]]

NORM = 8
ACTIVATION_LEVELS = 255.0
# An output's signal counts for at least this share of what independent inputs would give: outputs that are always near
# zero would otherwise seem infinitely sensitive.
LEAST_SIGNAL = 1e-3
ITERATIONS, LEARNING_RATE = 300, 0.1
# After so many iterations D is at most 4 % above its minimum (seven networks, four recipes). Where it is still this
# share of what it was, factors win too little for anybody, and the rest of the time is saved.
LOOK_AT, HOPELESS = 50, 0.75
SMALLEST_NORM = 1e-300  # keeps divisions by the norm of an all-zero row defined


@dataclass(frozen=True)
class WeightNoise:
    """The term of one layer; its first dimension is that of convolution groups.

    Attributes:
        magnitudes: |W| ^ NORM, summed over kernel positions, [groups, rows, channels].
        row_channels: the channel group that each row writes, int [groups, rows].
        column_channels: the channel group that each input channel belongs to, int [groups, channels].
        cost: g of each row, [groups, rows].
        power: m of each input channel times the number of kernel positions, [groups, channels].
        per_row: whether each row has a scale of its own; otherwise the whole weight shares one.
        levels: number of codes on one side of zero.
    """

    magnitudes: Array
    row_channels: Array
    column_channels: Array
    cost: Array
    power: Array
    per_row: bool
    levels: float

    def evaluate(self, u: Array, gradient: Array) -> float:
        """The term at u [channel groups]; its gradient is added to `gradient` [channel groups] in place."""
        up = np.exp(NORM * u[self.column_channels])
        noise = self.power * np.exp(-2 * u[self.column_channels]) / self.levels**2
        row_norms = np.maximum(np.matmul(self.magnitudes, up[:, :, None])[:, :, 0], SMALLEST_NORM)
        total_noise = noise.sum(axis=1, keepdims=True)
        if self.per_row:
            # s_o cancels: a row's scale follows it.
            steps = self.cost * row_norms ** (2 / NORM)
            by_norm, by_noise = 2 * steps * total_noise / row_norms, steps.sum(axis=1, keepdims=True)
            value = float((steps * total_noise).sum())
        else:
            down = np.exp(-NORM * u[self.row_channels])
            whole_norm = float((down * row_norms).sum())
            step = float(whole_norm ** (2 / NORM))
            cost = self.cost * np.exp(2 * u[self.row_channels])
            value = step * float((cost * total_noise).sum())
            by_norm, by_noise = 2 * value / whole_norm * down, step * cost.sum(axis=1, keepdims=True)
            _add_by_group(gradient, self.row_channels, 2 * step * cost * total_noise - by_norm * row_norms)
        by_magnitude = np.matmul(by_norm[:, None, :], self.magnitudes)[:, 0, :]
        _add_by_group(gradient, self.column_channels, by_magnitude * up - 2 * noise * by_noise)
        return value


@dataclass(frozen=True)
class ActivationNoise:
    """The term of activations that share one scale.

    Attributes:
        magnitudes: largest magnitude ^ NORM, [channels].
        channels: the channel group that each channel belongs to, int [channels].
        cost: g of each channel, [channels].
    """

    magnitudes: Array
    channels: Array
    cost: Array

    def evaluate(self, u: Array, gradient: Array) -> float:
        """The term at u [channel groups]; its gradient is added to `gradient` [channel groups] in place."""
        scaled = self.magnitudes * np.exp(-NORM * u[self.channels])
        norm = max(float(scaled.sum()), SMALLEST_NORM)
        step = norm ** (2 / NORM) / ACTIVATION_LEVELS**2
        cost = self.cost * np.exp(2 * u[self.channels])
        value = float(step * cost.sum())
        _add_by_group(gradient, self.channels, 2 * step * cost - 2 * value / norm * scaled)
        return value


NoiseTerm = WeightNoise | ActivationNoise


def noise_terms(
    model: Model,
    channel_groups: ChannelGroups,
    statistics: Mapping[str, ChannelStatistics],
    schemes: Mapping[str, Scheme],
    scale_groups: Sequence[Sequence[str]],
) -> list[NoiseTerm]:
    """The terms whose sum is D.

    Args:
        model: the prepared float model.
        channel_groups: of this model.
        statistics: by tensor, what calibration images do to its channels; tensors without them add no term.
        schemes: by weight, for the weights that will be rounded.
        scale_groups: activations that will be rounded; those in one group share a scale.
    """
    group_of = channel_groups.group_of
    measured = [
        layer for layer in channel_groups.layers.values() if layer.input in statistics and layer.output in statistics
    ]
    cost = _noise_cost(model, channel_groups, measured, statistics)
    terms: list[NoiseTerm] = []
    for layer in measured:
        scheme = schemes.get(layer.weight)
        if scheme is None:
            continue
        kernels = np.abs(_kernels(model, layer))
        groups, rows, channels, size = kernels.shape
        row_channels = group_of[layer.output].reshape(groups, rows)
        terms.append(
            WeightNoise(
                magnitudes=np.power(kernels, NORM).sum(axis=3),
                row_channels=row_channels,
                column_channels=group_of[layer.input].reshape(groups, channels),
                cost=cost[row_channels],
                power=statistics[layer.input].power.reshape(groups, channels) * size,
                per_row=scheme.per != "tensor",
                levels=scheme.half_levels,
            )
        )
    for scale_group in scale_groups:
        names = [name for name in scale_group if name in statistics]
        if names:
            max_abs = np.concatenate([statistics[name].max_abs for name in names])
            of_channel = np.concatenate([group_of[name] for name in names])
            terms.append(ActivationNoise(np.power(max_abs, NORM), of_channel, cost[of_channel]))
    return terms


def _noise_cost(
    model: Model,
    channel_groups: ChannelGroups,
    measured: Sequence[Layer],
    statistics: Mapping[str, ChannelStatistics],
) -> Array:
    """g for each channel group: its share of the signal of every output that reads it, summed."""
    cost = np.zeros(channel_groups.count)
    for layer in measured:
        squares = np.square(_kernels(model, layer)).sum(axis=3)
        groups, rows, channels = squares.shape
        power = statistics[layer.input].power.reshape(groups, channels)
        if_independent = np.matmul(squares, power[:, :, None])[:, :, 0]
        signal = np.maximum(statistics[layer.output].power.reshape(groups, rows), LEAST_SIGNAL * if_independent)
        share = np.divide(1.0, signal, out=np.zeros_like(signal), where=signal > 0)
        input_share = np.matmul(share[:, None, :], squares).reshape(-1)
        _add_by_group(cost, channel_groups.group_of[layer.input], input_share)
        if model.values[layer.output].is_graph_output():
            _add_by_group(cost, channel_groups.group_of[layer.output], share.reshape(-1))
    return cost


def evaluate(terms: Sequence[NoiseTerm], u: Array) -> tuple[float, Array]:
    """D at u, float64 [channel groups], and its gradient, of the same shape."""
    gradient = np.zeros_like(u)
    return sum(term.evaluate(u, gradient) for term in terms), gradient


def minimize(terms: Sequence[NoiseTerm], lower: Array, upper: Array) -> Array:
    """The u that minimizes D, by Adam on log D, projected onto the limits after each step.

    Where little is to be won (`HOPELESS`) it is only near the minimum.

    Args:
        terms: of D.
        lower: least u allowed, float64 [channel groups].
        upper: greatest u allowed, likewise.
    """
    u = np.clip(np.zeros_like(lower), lower, upper)
    mean, square = np.zeros_like(u), np.zeros_like(u)
    best, least, first = u, np.inf, np.inf
    for iteration in range(ITERATIONS):
        value, gradient = evaluate(terms, u)
        first = value if iteration == 0 else first
        if not 0.0 < value < np.inf or (iteration == LOOK_AT and least > HOPELESS * first):
            break
        if value < least:
            best, least = u, value
        gradient = gradient / value
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * np.square(gradient)
        correction, square_correction = 1 - 0.9 ** (iteration + 1), 1 - 0.99 ** (iteration + 1)
        move = mean / correction / (np.sqrt(square / square_correction) + 1e-12)
        u = np.clip(u - LEARNING_RATE * (1 - iteration / ITERATIONS) * move, lower, upper)
    return best


def _kernels(model: Model, layer: Layer) -> Array:
    """The weight as [groups, rows, channels, kernel positions], float64."""
    matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
    groups, rows, columns = matrix.shape
    size = int(np.prod(layer.kernel, dtype=np.int64))
    return matrix.reshape(groups, rows, columns // size, size)


def _add_by_group(sums: Array, groups: Array, values: Array) -> None:
    """Add each value to the sum of its channel group, in place; `groups` and `values` have the same number of items."""
    sums += np.bincount(groups.reshape(-1), values.reshape(-1), minlength=sums.size)
