"""A network at one Lagrange multiplier: all layers solved in order, each at the slope that the multiplier asks for.

A layer's own multiplier is that of the network divided by what an error at its output costs (`passes.sensitivity`). Its
codes are chosen on what the quantized layers before it give (`passes.layerwise`), rounded activations included, aimed
at re-fitted weights (`solving.refit`), by `solving.rate_distortion`. Biases are rounded at the same multiplier, `FINER`
times finer, since an error in a mean is the same at all positions.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from lowbit.calibration.moments import Moments
from lowbit.data.dataset import Dataset
from lowbit.formats.quantized_graph import BiasCodes, QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.progress import Progress
from lowbit.quantization.passes.candidate import Candidate
from lowbit.quantization.passes.layerwise import LayerwisePass
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.passes.steps import least_scale
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.rate.biases import bias_bits, bias_codes, integer_bias
from lowbit.quantization.rate.control import RateControl
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.layer import aim
from lowbit.quantization.solving.problem import Floats, Single
from lowbit.quantization.solving.rate_distortion import BEAM_WIDTH, Limits, solve_rate
from lowbit.quantization.solving.refit import refit_bias
from lowbit.quantization.solving.ridge import TYPICAL_BITS
from lowbit.quantization.solving.stored_scales import stored_scales
from lowbit.schemes.codes import Codes, integer_codes
from lowbit.schemes.linear import Linear

METADATA = {"lowbit.recipe": "rate"}  # what a file says of its making, besides the record
FINER = 0.25
AGAIN = 2  # times that a layer may be solved at another multiplier
OTHERS = Linear(8, per="channel")  # scheme of weights that belong to no layer

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Allocation:
    """What stays the same from multiplier to multiplier.

    Attributes:
        begin: the float model and which of its weights are quantized (`rate.beginning`), and what activations are.
        sensitivity: of each layer that is, by node.
    """

    begin: Candidate
    sensitivity: Mapping[str, Sensitivity]

    @property
    def model(self) -> Model:
        """The float model that codes stand for."""
        return self.begin.base

    @property
    def plan(self) -> Plan:
        """Which weights are quantized."""
        return self.begin.plan

    @cached_property
    def others(self) -> dict[str, Codes]:
        """Codes of weights that belong to no layer: nothing says what an error of theirs costs, so they get 8 bits."""
        of_layers = {layer.weight for layer in layers(self.model)}
        return {
            tensor.tensor: OTHERS.encode(self.model.weights[tensor.tensor], tensor.axis)
            for tensor in self.plan.quantized
            if tensor.tensor not in of_layers
        }

    @cached_property
    def of_bytes(self) -> dict[str, Codes]:
        """Codes of weights that only layers read which take image bytes; in those the file has others, of 8 bits."""
        read = {layer.weight for layer in layers(self.model) if layer.node in self.sensitivity}
        taken = {layer.weight for layer in layers(self.model) if layer.node in self.begin.byte_layers}
        return {name: codes for name, codes in self.begin.graph.weights.items() if name in taken - read}

    @cached_property
    def movable(self) -> tuple[str, ...]:
        """Biases that one quantized layer reads, and nobody else, in the order of the layers."""
        readers: Counter[str] = Counter()
        for layer in layers(self.model):
            if layer.bias is not None:
                readers[layer.bias] += 1 if layer.node in self.sensitivity else 2
        return tuple(name for name, count in readers.items() if count == 1)

    @cached_property
    def coded_biases(self) -> tuple[str, ...]:
        """Movable ones of layers that compute in float, which become codes like weights."""
        in_integers = {layer.bias for layer in layers(self.model) if layer.node in self.begin.graph.integer}
        return tuple(name for name in self.movable if name not in in_integers)

    def limits(self, layer: Layer) -> Limits:
        """What the kernels of all layers that share a weight ask of its codes."""
        integer = self.begin.graph.integer
        sharing = [each for each in layers(self.model) if each.weight == layer.weight and each.node in integer]
        if not sharing:
            return Limits()
        scheme = next(tensor.given for tensor in self.plan.quantized if tensor.tensor == layer.weight)
        assert scheme is not None
        asked = [least for each in sharing if (least := least_scale(each, self.begin)) is not None]
        one_scale = scheme.per == "tensor"
        if one_scale:
            asked = [np.full(layer.out_channels, least.max(), np.float32) for least in asked]
        return Limits(
            largest=(1 << (scheme.bits - 1)) - 1,
            least_scale=np.max(asked, axis=0) if asked else None,
            one_scale=one_scale,
            whole_bytes=True,
        )

    def solve(
        self, control: RateControl, images: Dataset, effort: Effort, threads: int, progress: Progress
    ) -> QuantizedGraph:
        """Codes of all layers.

        Args:
            control: the multiplier of each layer in turn; told what they take.
            images: calibration images.
            effort: images and positions to look at.
            threads: that share the images; 0 takes as many as there are cores.
            progress: told after every layer.
        """
        codes: dict[str, Codes] = self.others | self.of_bytes
        rounded = _Biases(self, codes)
        run = LayerwisePass(self.model, images, list(self.sensitivity), effort, grids=self.begin.grids, threads=threads)
        run.begin_with({name: item.decode() for name, item in self.others.items()} | self.begin.byte_values)
        for layer, moments in progress.track(run, "allocating bits", total=len(run)):
            cost, taken = self.sensitivity[layer.node].cost, 0.0
            if layer.weight not in codes:
                target, second = problem(layer, self.model.weights[layer.weight], moments)
                limits = self.limits(layer)
                solve = partial(solved_layer, layer, target, second, beam_width=effort.beam_width, limits=limits)
                codes[layer.weight], taken = _solved_at(control, layer.node, solve, cost)
            step = FINER * math.sqrt(6 * control.multiplier / cost / math.log(2))
            bias, bits = rounded.of(layer, moments, step)
            control.solved(layer.node, taken + bits)
            run.replace(layer, codes[layer.weight].decode(), bias)
        return self._graph(codes, rounded.integers, rounded.floats)

    def _graph(
        self, codes: Mapping[str, Codes], biases: Mapping[str, BiasCodes], floats: Mapping[str, Array]
    ) -> QuantizedGraph:
        model = self.model.with_weights(floats) if floats else self.model
        biases = dict(self.begin.graph.biases) | dict(biases)
        metadata = {**self.begin.graph.metadata, **METADATA}
        return replace(self.begin.graph, model=model, weights=codes, biases=biases, metadata=metadata)

    def given(self, encoded: QuantizedGraph) -> Plan:
        """The plan with the widths that came out."""
        tensors = tuple(
            replace(tensor, asked=encoded.weights[tensor.tensor].scheme, given=encoded.weights[tensor.tensor].scheme)
            if tensor.tensor in encoded.weights
            else tensor
            for tensor in self.plan.tensors
        )
        return replace(self.plan, tensors=tensors)

    def emptied(self) -> QuantizedGraph:
        """The network with every weight of a layer zero: what no multiplier can take away."""
        integer = {layer.weight for layer in layers(self.model) if layer.node in self.begin.graph.integer}
        codes: dict[str, Codes] = {
            tensor.tensor: Linear(8 if tensor.tensor in integer else 2, per="tensor").from_codes(
                np.zeros(tensor.shape, np.int8), np.ones(1, np.float32), axis=tensor.axis
            )
            for tensor in self.plan.quantized
        }
        codes |= self.others | self.of_bytes
        for name in self.coded_biases:
            codes[name] = bias_codes(np.zeros(self.model.weights[name].size), 1.0)
        biases = {
            node: BiasCodes(np.zeros_like(bias.codes), np.ones(1, np.float32))
            for node, bias in self.begin.graph.biases.items()
        }
        return self._graph(codes, biases, {})


@dataclass(frozen=True)
class _Biases:
    """The biases of a pass, each as its layer's file takes it.

    Attributes:
        allocation: of the pass.
        codes: of weights so far, and of biases of layers that compute in float.
        integers: by node.
        floats: those that an Add behind an integer product adds, by name.
    """

    allocation: Allocation
    codes: dict[str, Codes]
    integers: dict[str, BiasCodes] = field(default_factory=dict)
    floats: dict[str, Array] = field(default_factory=dict)

    def of(self, layer: Layer, moments: Moments, step: float) -> tuple[Array | None, float]:
        """What a layer whose weight is solved adds from now on, None for what it always did; and its bits."""
        begin, model, name = self.allocation.begin, self.allocation.model, layer.bias
        if name is None:
            return None, 0.0
        moved, weight = name in self.allocation.movable, self.codes[layer.weight]
        wanted = model.weights[name].reshape(-1)
        if moved:
            wanted = refit_bias(layer.to_matrix(weight.decode().astype(np.float64)), moments).reshape(-1)
        if layer.node in begin.graph.biases:
            unit = np.float32(begin.graph.activations[layer.input].scale) * integer_codes(weight).scale.reshape(-1)
            self.integers[layer.node], stored = integer_bias(wanted, unit, step)
            return self.integers[layer.node].decode(), bias_bits(stored)
        if not moved:
            return None, 0.0
        if layer.node in begin.graph.integer:
            self.floats[name] = wanted.astype(np.float32).reshape(model.weights[name].shape)
            return self.floats[name], 32.0 * wanted.size
        self.codes[name] = rounded = bias_codes(wanted, step)
        return rounded.decode(), bias_bits(rounded)


def problem(layer: Layer, weight: Array, moments: Moments) -> tuple[Floats, Single]:
    """What a layer's codes [groups, rows, columns] should come close to, and H in the place of its second moments."""
    return aim(layer.to_matrix(np.asarray(weight, np.float64)), moments, TYPICAL_BITS)


def _solved_at(
    control: RateControl, node: str, solve: Callable[[float], tuple[Codes, float]], cost: float
) -> tuple[Codes, float]:
    """Codes of a layer at the multiplier of `control`, which may be moved to make a miss good; and their bits."""
    codes, bits = solve(control.multiplier / cost)
    for _ in range(AGAIN):
        better = control.better_multiplier(node, bits)
        if better is None:
            break
        control.multiplier = better
        codes, bits = solve(better / cost)
    return codes, bits


def solved_layer(
    layer: Layer,
    target: Floats,
    second: Single,
    multiplier: float,
    *,
    beam_width: int = BEAM_WIDTH,
    limits: Limits = Limits(),
) -> tuple[Codes, float]:
    """Codes of one layer, with as many bits as they need, and what the coder takes for them.

    Args:
        layer: where the weight belongs.
        target: wanted weights [groups, rows, columns].
        second: H, positive definite [groups, columns, columns].
        multiplier: the layer's own output error that one bit is worth.
        beam_width: partial solutions of each row that the search keeps.
        limits: of codes and scales.
    """
    solution = solve_rate(layer, target, second, multiplier, beam_width=beam_width, limits=limits)
    width = 8 if limits.whole_bytes else max(2, int(np.abs(solution.codes).max()).bit_length() + 1)
    stored, scale = layer.from_matrix(solution.codes), solution.scale.reshape(-1)
    if np.all(scale == scale[0]):
        return Linear(width, per="tensor").from_codes(stored, scale[:1], axis=layer.channel_axis), solution.bits
    scheme = Linear(width, per="channel")
    (scale, *_) = stored_scales(scale, width)
    return scheme.from_codes(stored, scale, axis=layer.channel_axis), solution.bits
