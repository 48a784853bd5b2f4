"""A network at one Lagrange multiplier: all layers solved in order, each at the slope that the multiplier asks for.

A layer's own multiplier is that of the network divided by what an error at its output costs (`passes.sensitivity`). Its
codes are chosen on what the quantized layers before it give (`passes.layerwise`), aimed at re-fitted weights
(`solving.refit`), by `solving.rate_distortion`. Biases are rounded at the same multiplier, `FINER` times finer, since
an error in a mean is the same at all positions.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.data.dataset import Dataset
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.packing.contexts import MAX_ALPHABET, Layout
from lowbit.packing.entropy import choose_coding
from lowbit.progress import Progress
from lowbit.quantization.passes.layerwise import LayerwisePass
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.rate.control import RateControl
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.layer import aim
from lowbit.quantization.solving.problem import Floats, Single
from lowbit.quantization.solving.rate_distortion import BEAM_WIDTH, solve_rate
from lowbit.quantization.solving.refit import refit_bias
from lowbit.quantization.solving.ridge import TYPICAL_BITS
from lowbit.quantization.solving.stored_scales import stored_scales
from lowbit.schemes.codes import Codes
from lowbit.schemes.linear import Linear, LinearCodes

METADATA = {"lowbit.recipe": "rate"}  # what a file says of its making
FINER = 0.25
AGAIN = 2  # times that a layer may be solved at another multiplier
OTHERS = Linear(8, per="channel")  # scheme of weights that belong to no layer

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Allocation:
    """What stays the same from multiplier to multiplier.

    Attributes:
        model: the float model.
        plan: which weights are quantized.
        sensitivity: of each layer that is, by node.
    """

    model: Model
    plan: Plan
    sensitivity: Mapping[str, Sensitivity]

    @staticmethod
    def planned(model: Model, effort: Effort) -> Plan:
        """The plan of a model whose bits are to be allocated."""
        return plan(model, parse_recipe("linear8", per="tensor"), effort=effort.name, with_images=False)

    @cached_property
    def others(self) -> dict[str, Codes]:
        """Codes of weights that belong to no layer: nothing says what an error of theirs costs, so they get 8 bits."""
        of_layers = {layer.weight for layer in layers(self.model)}
        return {
            tensor.tensor: OTHERS.encode(self.model.weights[tensor.tensor], tensor.axis)
            for tensor in self.plan.quantized
            if tensor.tensor not in of_layers
        }

    @property
    def movable(self) -> tuple[str, ...]:
        """Biases that one quantized layer reads, and nobody else, in the order of the layers."""
        readers: Counter[str] = Counter()
        for layer in layers(self.model):
            if layer.bias is not None:
                readers[layer.bias] += 1 if layer.node in self.sensitivity else 2
        return tuple(name for name, count in readers.items() if count == 1)

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
        codes: dict[str, Codes] = dict(self.others)
        movable = self.movable
        run = LayerwisePass(self.model, images, list(self.sensitivity), effort, threads=threads)
        run.begin_with({name: item.decode() for name, item in codes.items()})
        for layer, moments in progress.track(run, "allocating bits", total=len(run)):
            cost, taken = self.sensitivity[layer.node].cost, 0.0
            if layer.weight not in codes:
                target, second = problem(layer, self.model.weights[layer.weight], moments)
                codes[layer.weight], taken = _solved_at(control, layer, target, second, cost, effort.beam_width)
            decoded, bias = codes[layer.weight].decode(), None
            if layer.bias is not None and layer.bias in movable:
                wanted = refit_bias(layer.to_matrix(decoded.astype(np.float64)), moments).reshape(-1)
                rounded = bias_codes(wanted, FINER * math.sqrt(6 * control.multiplier / cost / math.log(2)))
                codes[layer.bias], bias = rounded, rounded.decode()
                taken += _bias_bits(rounded)
            control.solved(layer.node, taken)
            run.replace(layer, decoded, bias)
        return QuantizedGraph(self.model, weights=codes, metadata=METADATA)

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
        codes: dict[str, Codes] = {
            tensor.tensor: Linear(2, per="tensor").from_codes(
                np.zeros(tensor.shape, np.int8), np.ones(1, np.float32), axis=tensor.axis
            )
            for tensor in self.plan.quantized
        } | self.others
        for name in self.movable:
            codes[name] = bias_codes(np.zeros(self.model.weights[name].size), 1.0)
        return QuantizedGraph(self.model, weights=codes, metadata=METADATA)


def problem(layer: Layer, weight: Array, moments: Moments) -> tuple[Floats, Single]:
    """What a layer's codes [groups, rows, columns] should come close to, and H in the place of its second moments."""
    return aim(layer.to_matrix(np.asarray(weight, np.float64)), moments, TYPICAL_BITS)


def _solved_at(
    control: RateControl, layer: Layer, target: Floats, second: Single, cost: float, beam_width: int
) -> tuple[Codes, float]:
    """Codes of a layer at the multiplier of `control`, which may be moved to make a miss good; and their bits."""
    codes, bits = solved_layer(layer, target, second, control.multiplier / cost, beam_width=beam_width)
    for _ in range(AGAIN):
        better = control.better_multiplier(layer.node, bits)
        if better is None:
            break
        control.multiplier = better
        codes, bits = solved_layer(layer, target, second, better / cost, beam_width=beam_width)
    return codes, bits


def solved_layer(
    layer: Layer, target: Floats, second: Single, multiplier: float, *, beam_width: int = BEAM_WIDTH
) -> tuple[Codes, float]:
    """Codes of one layer, with as many bits as they need, and what the coder takes for them.

    Args:
        layer: where the weight belongs.
        target: wanted weights [groups, rows, columns].
        second: H, positive definite [groups, columns, columns].
        multiplier: the layer's own output error that one bit is worth.
        beam_width: partial solutions of each row that the search keeps.
    """
    solution = solve_rate(layer, target, second, multiplier, beam_width=beam_width)
    width = max(2, int(np.abs(solution.codes).max()).bit_length() + 1)
    stored, scale = layer.from_matrix(solution.codes), solution.scale.reshape(-1)
    if np.all(scale == scale[0]):
        return Linear(width, per="tensor").from_codes(stored, scale[:1], axis=layer.channel_axis), solution.bits
    scheme = Linear(width, per="channel")
    (scale, *_) = stored_scales(scale, width)
    return scheme.from_codes(stored, scale, axis=layer.channel_axis), solution.bits


def bias_codes(bias: npt.NDArray[np.floating], scale: float) -> LinearCodes:
    """A bias [channels] at a scale of about `scale`, in whole bytes: 8 bits if that is enough, else 16."""
    reach = float(np.abs(bias).max(initial=0.0))
    scale = max(scale, reach / 32767, 1e-30)
    bits = 8 if reach / scale < 127.5 else 16
    scale = max(scale, reach / (127 if bits == 8 else 32767))
    codes = np.rint(bias / np.float32(scale)).astype(np.int32)
    return Linear(bits, per="tensor").from_codes(codes, np.array([scale], np.float32))


def _bias_bits(codes: LinearCodes) -> float:
    """What the archive will take for them: coded like other codes, or as they are if they are of too many kinds."""
    values = codes.codes.reshape(-1).astype(np.int32)
    reach = int(values.max(initial=0)) - int(values.min(initial=0))
    if reach >= MAX_ALPHABET:
        return float(codes.bits * values.size)
    return choose_coding((values - values.min(initial=0)).astype(np.int16), Layout(values.size))[1]
