"""A network at one price of a bit: all layers solved in order, each at the slope that the price asks for.

A layer's own price is that of the network divided by what an error at its output costs (`sensitivity`). Its codes are
chosen on what the quantized layers before it give (`prefix`), aimed at re-fitted weights (`refit`), by `rate`. Biases
are rounded at the same price, `FINER` times finer, since an error in a mean is the same at all positions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.data.images import Images
from lowbit.formats.quantized_graph import Codes, QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.packing.contexts import MAX_ALPHABET, Layout
from lowbit.packing.entropy import choose_coding
from lowbit.progress import Progress
from lowbit.quantization.passes.layerwise import Replacement, walk
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.planning.plan import Plan, plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.rate.control import Steering
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import Floats, Single, damped
from lowbit.quantization.solving.layer import DAMPING, REFIT_DAMPING
from lowbit.quantization.solving.rate_distortion import PATHS, solve_rate
from lowbit.quantization.solving.refit import refit_bias, refit_weights
from lowbit.schemes.linear import Linear, LinearCodes

RECIPE = "rate"
FINER = 0.25
AGAIN = 2  # times that a layer may be solved at another price

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Priced:
    """What stays the same from price to price.

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
        """The plan of a model that is to be quantized at a price."""
        return plan(model, Recipe(RECIPE, Linear(8, per="tensor")), effort=effort.name, with_images=False)

    @property
    def movable(self) -> tuple[str, ...]:
        """Biases that one quantized layer reads, and nobody else, in the order of the layers."""
        readers: dict[str, int] = {}
        for layer in layers(self.model):
            if layer.bias is not None:
                readers[layer.bias] = readers.get(layer.bias, 0) + (1 if layer.node in self.sensitivity else 2)
        return tuple(name for name, count in readers.items() if count == 1)

    def solve(
        self, steering: Steering, images: Images, effort: Effort, threads: int, progress: Progress
    ) -> QuantizedGraph:
        """Codes of all layers.

        Args:
            steering: the price of each layer in turn; told what they take.
            images: calibration images.
            effort: images and positions to look at.
            threads: that share the images; 0 takes as many as there are cores.
            progress: told after every layer.
        """
        codes: dict[str, Codes] = {}
        movable = self.movable

        def solve(layer: Layer, moments: Moments) -> Replacement:
            cost, taken = self.sensitivity[layer.node].cost, 0.0
            if layer.weight not in codes:
                target, second = problem(layer, self.model.weights[layer.weight], moments)
                codes[layer.weight], taken = solved_layer(
                    layer, target, second, steering.price / cost, paths=effort.paths
                )
                for _ in range(AGAIN):
                    better = steering.better_price(layer.node, taken)
                    if better is None:
                        break
                    steering.price = better
                    codes[layer.weight], taken = solved_layer(layer, target, second, better / cost, paths=effort.paths)
            own = steering.price / cost
            decoded = codes[layer.weight].decode()
            bias: npt.NDArray[np.float32] | None = None
            if layer.bias is not None and layer.bias in movable:
                wanted = refit_bias(layer.to_matrix(decoded.astype(np.float64)), moments).reshape(-1)
                rounded = bias_codes(wanted, FINER * math.sqrt(6 * own / math.log(2)))
                codes[layer.bias], bias = rounded, rounded.decode()
                taken += _bias_bits(rounded)
            steering.passed(layer.node, taken)
            return Replacement(decoded, bias)

        walk(
            self.model,
            images,
            list(self.sensitivity),
            solve,
            positions=effort.positions,
            limit=min(effort.images, images.count),
            threads=threads,
            progress=progress,
        )
        return QuantizedGraph(self.model, weights=codes, metadata={"lowbit.recipe": RECIPE})

    def given(self, encoded: QuantizedGraph) -> Plan:
        """The plan with the widths that came out."""
        tensors = tuple(
            replace(tensor, asked=encoded.weights[tensor.tensor].scheme, given=encoded.weights[tensor.tensor].scheme)  # type: ignore[arg-type]
            if tensor.tensor in encoded.weights
            else tensor
            for tensor in self.plan.tensors
        )
        return replace(self.plan, tensors=tensors)

    def emptied(self) -> QuantizedGraph:
        """The network with every weight zero: what no price can take away."""
        codes: dict[str, Codes] = {
            tensor.tensor: Linear(2, per="tensor").from_codes(
                np.zeros(tensor.shape, np.int8), np.ones(1, np.float32), axis=tensor.axis
            )
            for tensor in self.plan.quantized
        }
        for name in self.movable:
            codes[name] = bias_codes(np.zeros(self.model.weights[name].size), 1.0)
        return QuantizedGraph(self.model, weights=codes, metadata={"lowbit.recipe": RECIPE})


def problem(layer: Layer, weight: Array, moments: Moments) -> tuple[Floats, Single]:
    """What a layer's codes [groups, rows, columns] should come close to, and H in the place of its second moments."""
    target = refit_weights(layer.to_matrix(np.asarray(weight, np.float64)), moments, damping=REFIT_DAMPING)
    return target, damped(moments.second, DAMPING, in_place=True)


def solved_layer(
    layer: Layer, target: Floats, second: Single, price: float, *, paths: int = PATHS
) -> tuple[Codes, float]:
    """Codes of one layer at a price in units of its own output error, at the width that they need; and their bits."""
    found = solve_rate(layer, target, second, price, paths=paths)
    width = max(2, int(np.abs(found.codes).max()).bit_length() + 1)
    codes = Linear(width, per="tensor").from_codes(
        layer.from_matrix(found.codes), np.array([found.step]), axis=layer.channel_axis
    )
    return codes, found.bits


def bias_codes(bias: npt.NDArray[np.floating], step: float) -> LinearCodes:
    """A bias [channels] in steps of about `step`, in whole bytes: 8 bits if that is enough, else 16."""
    reach = float(np.abs(bias).max(initial=0.0))
    step = max(step, reach / 32767, 1e-30)
    bits = 8 if reach / step < 127.5 else 16
    step = max(step, reach / (127 if bits == 8 else 32767))
    codes = np.rint(bias / np.float32(step)).astype(np.int32)
    return Linear(bits, per="tensor").from_codes(codes, np.array([step], np.float32))


def _bias_bits(codes: LinearCodes) -> float:
    """What the archive will take for them: coded like other codes, or as they are if they are of too many kinds."""
    values = codes.codes.reshape(-1).astype(np.int32)
    reach = int(values.max(initial=0)) - int(values.min(initial=0))
    if reach >= MAX_ALPHABET:
        return float(codes.bits * values.size)
    return choose_coding((values - values.min(initial=0)).astype(np.int16), Layout(values.size))[1]
