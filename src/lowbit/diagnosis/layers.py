"""Figures of every layer in closed form: what its weights' codes and those of its input do to its output.

One pass over calibration samples gives the second moments H of a layer's inputs. With E the error of its weights, the
squared error of its outputs is tr(E H E^T), and its power tr(W H W^T); rounding the input to steps of s adds s^2 / 12
for each squared weight, and clipping it what the histogram says. The errors are relative to the power.

What that costs at the network's output is measured: the float network runs from each layer on, once with the codes of
its weights, once with those of its input. That ranks layers; files are written of the worst few (`trials`).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowbit.calibration.channels import ChannelStatistics, channel_statistics
from lowbit.calibration.histogram import Histogram
from lowbit.calibration.moments import Moments
from lowbit.calibration.statistics import Statistics, TensorStatistics, calibrate
from lowbit.data.dataset import Dataset
from lowbit.diagnosis.findings import LayerFigures
from lowbit.formats.quantized_graph import ActivationCodes
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers, single_consumer
from lowbit.graph.subgraph import ActivationGrid
from lowbit.processor import cores
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.activations import activation_codes
from lowbit.quantization.passes.candidate import plain_codes
from lowbit.quantization.passes.layerwise import LayerwisePass
from lowbit.quantization.passes.sensitivity import Rest
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.problem import objective
from lowbit.schemes.codes import Codes

# Functions of a value, behind which a layer's output has the same channels.
ACTIVATIONS = frozenset(("Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Elu", "Selu", "Celu", "Gelu", "Softplus"))
DEAD = 1e-12  # of the largest channel's power
ALIVE = 1e-3  # of the reach of the weights of the farthest channel
TINY = 1e-30
DAMAGE_SAMPLES = 32  # that each layer alone is run on

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examined:
    """A network, plain codes for it, and what calibration samples show of it.

    Attributes:
        model: the prepared float model.
        decision: which codes its tensors get.
        codes: of its weights, by name, as their schemes suggest.
        statistics: of its activations.
        activations: their codes; empty where they stay float.
        outputs: for each layer the tensor behind its activation function, which is what others read.
        figures: in execution order.
    """

    model: Model
    decision: Plan
    codes: Mapping[str, Codes]
    statistics: Statistics
    activations: Mapping[str, ActivationCodes]
    outputs: Mapping[str, str]
    figures: tuple[LayerFigures, ...]


def examined(model: Model, decision: Plan, data: Dataset, *, progress: Progress = SILENT) -> Examined:
    """All layers of a network, for the codes that a plan gives them.

    Args:
        model: the prepared float model.
        decision: made for it.
        data: calibration samples, in runs of the model.
        progress: told as the work goes on.

    Raises:
        ModelError: it computes NaN or infinite values.
        DataError: too few samples for one run.
    """
    every = layers(model)
    outputs = {layer.node: activated(model, layer) for layer in every}
    tensors = [tensor for group in decision.scale_groups for tensor in group]
    tensors += [info.name for info in model.outputs if info.dtype == np.float32]
    tensors += [name for layer in every for name in (layer.input, outputs[layer.node])]
    statistics = calibrate(model, data, tensors=tensors, progress=progress)
    channeled = [outputs[layer.node] for layer in every if _has_channels(model, layer)]
    channels = channel_statistics(model, data, list(dict.fromkeys(channeled)), progress=progress)
    codes = plain_codes(model, decision)
    activations = activation_codes(decision, statistics) if decision.integer else {}
    integer = {node.node for node in decision.nodes if node.arithmetic == "integer"}
    seen = _Seen(model, data, statistics, channels, codes, activations)
    run = LayerwisePass(model, data, [layer.node for layer in every], EFFORTS["fast"])
    figures = [
        _figures(layer, moments, outputs[layer.node], seen, in_integers=layer.node in integer)
        for layer, moments in progress.track(run, "measuring moments", total=len(run))
    ]
    damaged = _with_damage(figures, seen, integer, progress)
    return Examined(model, decision, codes, statistics, activations, outputs, damaged)


def _with_damage(
    figures: Sequence[LayerFigures], seen: "_Seen", integer: Collection[str], progress: Progress
) -> tuple[LayerFigures, ...]:
    """With the distance of the network's answers from float's, for each layer alone."""
    grids = {name: ActivationGrid(at.scale, at.zero_point, at.kind.bits) for name, at in seen.activations.items()}
    rest = Rest(seen.model, seen.data.subset(min(seen.data.count, DAMAGE_SAMPLES)), cores(), grids=grids)
    found = []
    every = list(zip(layers(seen.model), figures, strict=True))
    for layer, one in progress.track(every, "measuring damage", total=len(every)):
        codes = seen.codes.get(layer.weight)
        by_weights = 0.0 if codes is None else rest.distance_with(layer, {layer.weight: codes.decode()})
        rounds = layer.node in integer and layer.input in grids
        by_input = rest.distance_with(layer, {}, rounded=(layer.input,)) if rounds else 0.0
        found.append(replace(one, weight_damage=by_weights, input_damage=by_input))
    return tuple(found)


def activated(model: Model, layer: Layer) -> str:
    """The tensor that others read of a layer: its output, or that of the activation function behind it."""
    reader = single_consumer(model, layer.output)
    return str(reader.outputs[0].name) if reader is not None and reader.op_type in ACTIVATIONS else layer.output


def readers_of(model: Model, tensor: str) -> tuple[Layer, ...]:
    """The first layers that a tensor comes to, through sums, pools and the like."""
    by_node = {layer.node: layer for layer in layers(model)}
    found: dict[str, Layer] = {}
    pending, seen = [model.values[tensor]], {tensor}
    while pending:
        for node in pending.pop().consumers():
            if node.name in by_node:
                found[str(node.name)] = by_node[str(node.name)]
                continue
            for value in node.outputs:
                if value.name not in seen:
                    seen.add(str(value.name))
                    pending.append(value)
    return tuple(found.values())


def _has_channels(model: Model, layer: Layer) -> bool:
    """Whether dimension 1 of its output counts channels, as it does where rows of features have no positions."""
    shape = model.values[layer.output].shape
    return layer.geometry is not None or (shape is not None and len(shape) == 2)


@dataclass(frozen=True)
class _Seen:
    """What calibration samples showed of a network, and its codes."""

    model: Model
    data: Dataset
    statistics: Statistics
    channels: Mapping[str, ChannelStatistics]
    codes: Mapping[str, Codes]
    activations: Mapping[str, ActivationCodes]


def _figures(layer: Layer, moments: Moments, output: str, seen: _Seen, *, in_integers: bool) -> LayerFigures:
    """All that is known of a layer before anything is measured; `output` is what others read of it."""
    matrix = layer.to_matrix(np.asarray(seen.model.weights[layer.weight], np.float64))
    codes = seen.codes.get(layer.weight)
    error = np.zeros_like(matrix) if codes is None else layer.to_matrix(codes.decode().astype(np.float64)) - matrix
    power = max(_quadratic(matrix, moments), TINY)
    squares, mean_error = float(np.square(matrix).sum()), float(np.square(_means(error, moments)).sum())
    lost = float(np.square(error).sum())
    reach = np.abs(matrix).max(axis=2).reshape(-1)
    alive = reach[reach > reach.max(initial=0.0) * ALIVE]
    ratio, channel, dead = _channels(seen.channels.get(output))
    column, share = _column(layer, error, moments)
    clipped, noise = _rounding(layer.input, seen) if in_integers else (0.0, 0.0)
    outlier, outlier_ratio = _outlier(seen.statistics.tensors[output], seen.data)
    return LayerFigures(
        node=layer.node,
        op=layer.op,
        depthwise=layer.depthwise,
        weight_error=(_quadratic(error, moments) + mean_error) / power,
        input_error=noise * squares / power,
        mean_error=mean_error / power,
        sqnr_db=10 * math.log10(squares / lost) if squares and lost else None,
        weight_ratio=float(alive.max() / alive.min()) if alive.size else 1.0,
        channel_ratio=ratio,
        channel=channel,
        column=column,
        column_share=share,
        clipped=clipped,
        outlier=outlier,
        outlier_ratio=outlier_ratio,
        dead=dead,
    )


def _means(error: Doubles, moments: Moments) -> Doubles:
    """By how much errors of weights move the mean of each output [groups, rows]."""
    return np.asarray(np.einsum("grk,gk->gr", error, moments.input_mean))


def _quadratic(matrix: Doubles, moments: Moments) -> float:
    """tr(M H M^T); of layers too wide for second moments as if their inputs were independent and of power 1."""
    return float((objective(matrix, 0.0, moments.second) if moments.second.size else np.square(matrix)).sum())


def _channels(channels: ChannelStatistics | None) -> tuple[float, int, int]:
    """Reach of the farthest channel over the median of those that live, its number, and how many are dead."""
    if channels is None:
        return 1.0, 0, 0
    reach, power = np.asarray(channels.max_abs), np.asarray(channels.power)
    live = power > DEAD * power.max(initial=0.0)
    dead = int(np.count_nonzero(power == 0))
    if not live.any():
        return 1.0, 0, dead
    return float(reach.max() / np.median(reach[live])), int(reach.argmax()), dead


def _column(layer: Layer, error: Doubles, moments: Moments) -> tuple[int, float]:
    """The input channel that most of the error comes from, and its share; channels of a depthwise layer are its own."""
    if not moments.second.size or not error.any() or layer.depthwise:
        return 0, 0.0
    diagonal = np.einsum("gkk->gk", moments.second).astype(np.float64)
    parts = np.einsum("grk,gk->gk", np.square(error), diagonal).reshape(-1)
    by_channel = parts.reshape(-1, math.prod(layer.kernel)).sum(axis=1)
    total = float(by_channel.sum())
    return int(by_channel.argmax()), float(by_channel.max()) / total if total else 0.0


def _rounding(tensor: str, seen: _Seen) -> tuple[float, float]:
    """The share of a tensor's values that its codes clip, and the mean squared error of rounding and clipping it."""
    codes = seen.activations.get(tensor)
    if codes is None:
        return 0.0, 0.0
    low = -codes.zero_point * codes.scale
    share, clipped = _clipping(
        seen.statistics.tensors[tensor].histogram, low, low + (codes.kind.levels - 1) * codes.scale
    )
    return share, codes.scale**2 / 12 + clipped


def _clipping(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """The share of values beyond an interval, and the mean squared distance from it over all values."""
    used = np.flatnonzero(histogram.counts)
    if not used.size:
        return 0.0, 0.0
    centers, shares = histogram.centers[used], histogram.counts[used] / histogram.counts.sum()
    beyond = np.maximum(np.abs(centers - np.clip(centers, low, high)) - histogram.width / 2, 0)
    return float(shares @ (beyond > 0)), float(shares @ np.square(beyond))


def _outlier(statistics: TensorStatistics, data: Dataset) -> tuple[str, float]:
    """The sample that reaches farthest, and how many times as far as the next one."""
    reaches = np.maximum(statistics.highs, -statistics.lows)
    if len(reaches) != data.count or len(reaches) < 2:
        return "", 1.0
    second, first = np.sort(reaches)[-2:]
    ratio = float(first / second) if second > 0 else 1.0
    return data.where(int(reaches.argmax())), ratio


def worst_first(figures: Sequence[LayerFigures]) -> list[LayerFigures]:
    """By what was measured of each alone, else by the forecast."""
    return sorted(
        figures,
        key=lambda one: (one.alone is not None, (one.alone.distance or 0.0) if one.alone else one.damage),
        reverse=True,
    )
