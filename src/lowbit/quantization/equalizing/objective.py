"""What rounding costs a network whose channels are scaled by s = exp(u): one number, its gradient, its minimum.

    D(u) = sum over layers   sum over o, j of  g_o step(l, o)^2 m_j,   step(l, o) ~ |W_oj s_j / s_o|_8 / levels
         + sum over tensors  sum over c of     g_c step(t)^2,          step(t)    ~ |reach_c / s_c|_8 / levels

The norms run over all that shares a scale: a row of a weight or the whole of it, all channels of an activation; the
8-norm stands for the greatest magnitude and has a gradient. m_j is the power of input channel j. g_c is what noise in
channel c costs: the share that it takes, summed, of the signal of every output that reads it. Both are those of the
scaled network, m_j s_j^-2 and g_c s_c^2, so that D of a network does not depend on the scales in which it happens to be
given. Every term is a posynomial in s, so log D is convex in u and gradient descent finds its only minimum.

Sources: the trade is that of Nagel et al. 2019 (arXiv 1906.04721), section 4.1, there between the ranges of two layers;
Boyd et al. 2007, "A tutorial on geometric programming", for the convexity; Kingma and Ba 2014 (arXiv 1412.6980) for the
descent. Gives up: noise is taken as white and its cost is looked at one layer ahead, so D is for finding u, not for
forecasting the damage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import ChannelRange
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.quantization.equalizing.channel_groups import Ties
from lowbit.schemes.codes import Scheme

Array = np.ndarray[Any, np.dtype[Any]]

NORM = 8
ACTIVATION_LEVELS = 255.0
# An output's signal counts for at least this share of what independent inputs would give: outputs that are always near
# zero would otherwise seem infinitely sensitive.
LEAST_SIGNAL = 1e-3
ITERATIONS, RATE = 300, 0.1
TINY = 1e-300


@dataclass(frozen=True)
class WeightNoise:
    """The term of one layer.

    Attributes:
        reach: |W| ^ NORM summed over the kernel, [groups, rows, channels].
        rows: sets of channels (`Ties`) of the outputs, [groups, rows].
        columns: those of the inputs, [groups, channels].
        cost: g, [groups, rows].
        power: m times kernel size, [groups, channels].
        by_row: whether each row has a scale of its own.
        levels: of a code on one side of zero.
    """

    reach: Array
    rows: Array
    columns: Array
    cost: Array
    power: Array
    by_row: bool
    levels: float

    def evaluate(self, u: Array, gradient: Array) -> float:
        """The term at u; its gradient is added to `gradient`."""
        up = np.exp(NORM * u[self.columns])
        noise = self.power * np.exp(-2 * u[self.columns]) / self.levels**2
        spread = np.maximum(np.matmul(self.reach, up[:, :, None])[:, :, 0], TINY)
        total = noise.sum(axis=1, keepdims=True)
        if self.by_row:
            # s_o cancels: a row's scale follows it.
            steps = self.cost * spread ** (2 / NORM)
            per_spread, per_noise = 2 * steps * total / spread, steps.sum(axis=1, keepdims=True)
            value = float((steps * total).sum())
        else:
            down = np.exp(-NORM * u[self.rows])
            whole = float((down * spread).sum())
            step = float(whole ** (2 / NORM))
            cost = self.cost * np.exp(2 * u[self.rows])
            value = step * float((cost * total).sum())
            per_spread, per_noise = 2 * value / whole * down, step * cost.sum(axis=1, keepdims=True)
            _add(gradient, self.rows, 2 * step * cost * total - per_spread * spread)
        back = np.matmul(per_spread[:, None, :], self.reach)[:, 0, :]
        _add(gradient, self.columns, back * up - 2 * noise * per_noise)
        return value


@dataclass(frozen=True)
class ActivationNoise:
    """The term of activations that share one scale.

    Attributes:
        reach: largest magnitude ^ NORM, [channels].
        roots: sets of channels, [channels].
        cost: g, [channels].
    """

    reach: Array
    roots: Array
    cost: Array

    def evaluate(self, u: Array, gradient: Array) -> float:
        """The term at u; its gradient is added to `gradient`."""
        spread = self.reach * np.exp(-NORM * u[self.roots])
        whole = max(float(spread.sum()), TINY)
        step = whole ** (2 / NORM) / ACTIVATION_LEVELS**2
        cost = self.cost * np.exp(2 * u[self.roots])
        value = float(step * cost.sum())
        _add(gradient, self.roots, 2 * step * cost - 2 * value / whole * spread)
        return value


Term = WeightNoise | ActivationNoise


def noise_terms(
    model: Model,
    ties: Ties,
    ranges: Mapping[str, ChannelRange],
    schemes: Mapping[str, Scheme],
    groups: Sequence[Sequence[str]],
) -> list[Term]:
    """The terms of D.

    Args:
        model: the prepared float model.
        ties: of its channels.
        ranges: what the calibration images do to its channels; whatever has none is left out.
        schemes: of the weights that will be rounded.
        groups: activations that will be rounded; those in one group share a scale.
    """
    found = [layer for layer in ties.layers.values() if layer.input in ranges and layer.output in ranges]
    cost = np.zeros(ties.count)
    for layer in found:
        square = np.square(_kernels(model, layer)).sum(axis=3)
        count, rows, channels = square.shape
        power = ranges[layer.input].power.reshape(count, channels)
        alone = np.matmul(square, power[:, :, None])[:, :, 0]
        signal = np.maximum(ranges[layer.output].power.reshape(count, rows), LEAST_SIGNAL * alone)
        share = np.divide(1.0, signal, out=np.zeros_like(signal), where=signal > 0)
        _add(cost, ties.roots[layer.input], np.matmul(share[:, None, :], square).reshape(-1))
        if model.values[layer.output].is_graph_output():
            _add(cost, ties.roots[layer.output], share.reshape(-1))
    terms: list[Term] = []
    for layer in found:
        scheme = schemes.get(layer.weight)
        if scheme is None:
            continue
        kernels = np.abs(_kernels(model, layer))
        count, rows, channels, size = kernels.shape
        outputs = ties.roots[layer.output].reshape(count, rows)
        terms.append(
            WeightNoise(
                reach=np.power(kernels, NORM).sum(axis=3),
                rows=outputs,
                columns=ties.roots[layer.input].reshape(count, channels),
                cost=cost[outputs],
                power=ranges[layer.input].power.reshape(count, channels) * size,
                by_row=scheme.per != "tensor",
                levels=scheme.half_levels,
            )
        )
    for group in groups:
        names = [name for name in group if name in ranges]
        if names:
            reach = np.concatenate([ranges[name].highest for name in names])
            roots = np.concatenate([ties.roots[name] for name in names])
            terms.append(ActivationNoise(np.power(reach, NORM), roots, cost[roots]))
    return terms


def evaluate(terms: Sequence[Term], u: Array) -> tuple[float, Array]:
    """D at u [sets of channels], and its gradient."""
    gradient = np.zeros_like(u)
    return sum(term.evaluate(u, gradient) for term in terms), gradient


def minimize(terms: Sequence[Term], least: Array, most: Array) -> Array:
    """The u between `least` and `most` where D is least, by Adam on log D, projected after each step."""
    u = np.clip(np.zeros_like(least), least, most)
    mean, square = np.zeros_like(u), np.zeros_like(u)
    best, lowest = u, np.inf
    for step in range(ITERATIONS):
        value, gradient = evaluate(terms, u)
        if not 0.0 < value < np.inf:
            break
        if value < lowest:
            best, lowest = u, value
        gradient = gradient / value
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * np.square(gradient)
        move = mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-12)
        u = np.clip(u - RATE * (1 - step / ITERATIONS) * move, least, most)
    return best


def _kernels(model: Model, layer: Layer) -> Array:
    """The weight as [groups, rows, channels, kernel positions]."""
    matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
    groups, rows, columns = matrix.shape
    size = int(np.prod(layer.kernel, dtype=np.int64))
    return matrix.reshape(groups, rows, columns // size, size)


def _add(sums: Array, roots: Array, values: Array) -> None:
    sums += np.bincount(roots.reshape(-1), values.reshape(-1), minlength=sums.size)
