"""A quantized network on its way through the steps, and how it is put together from codes and ranges."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.statistics import Statistics, calibrate
from lowbit.data.dataset import Dataset
from lowbit.formats.devices import DEVICES, FLOAT_BIAS
from lowbit.formats.input_bytes import computed_values, with_exact_input
from lowbit.formats.onnx.block_kernels import has_kernel
from lowbit.formats.opening import RULES_KEY
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.graph.subgraph import ActivationGrid
from lowbit.processor import cores, give_back_memory, in_order
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.activations import activation_codes, bias_limit, fit_biases
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.steps import EXACT_INPUT
from lowbit.quantization.planning.tensors import TensorPlan
from lowbit.quantization.solving.stored_scales import HALF_BITS, narrow_bias, with_narrow_scales
from lowbit.schemes.codes import Codes

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Candidate:
    """What a step begins from, and what it makes.

    Attributes:
        plan: what is decided, with the range rule that it follows.
        base: the float model that the codes stand for: the one given, or an equalized one.
        graph: its codes.
        statistics: ranges of its activations; None where they stay float.
        note: how it was made, for people.
    """

    plan: Plan
    base: Model
    graph: QuantizedGraph
    statistics: Statistics | None
    note: str = ""

    @property
    def grids(self) -> dict[str, ActivationGrid]:
        """Grids that activations are rounded to; without the input where layers read it as image bytes."""
        grids = {
            name: ActivationGrid(at.scale, at.zero_point, at.kind.bits) for name, at in self.graph.activations.items()
        }
        if self.byte_layers:
            grids.pop(self.base.input.name, None)
        return grids

    @property
    def byte_layers(self) -> frozenset[str]:
        """Nodes that read image bytes: their codes are in other units and are not solved."""
        return frozenset(self.graph.byte_input.layers if self.graph.byte_input is not None else ())

    @property
    def byte_values(self) -> dict[str, Array]:
        """What these compute with in the units of the float network, by initializer name, where nothing else reads it.

        So all that is fitted behind them sees what their rounding costs.
        """
        values: dict[str, Array] = {}
        for layer in layers(self.base):
            if self.graph.byte_input is not None and layer.node in self.byte_layers:
                values |= computed_values(self.graph.byte_input, layer)
        return {name: value for name, value in values.items() if len(self.base.values[name].uses()) == 1}


class DecodedWeights(Mapping[str, Array]):
    """What a quantized network computes with: some tensors as they are, others decoded each time they are asked for."""

    def __init__(self, values: Mapping[str, Array], codes: Mapping[str, Codes]) -> None:
        self._values, self._codes = values, codes

    def __getitem__(self, name: str) -> Array:
        return self._codes[name].decode() if name in self._codes else self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._values, **self._codes})

    def __len__(self) -> int:
        return len({**self._values, **self._codes})

    def __contains__(self, name: object) -> bool:
        return name in self._codes or name in self._values


def plain_candidate(model: Model, plan: Plan, images: Dataset, threads: int, progress: Progress) -> Candidate:
    """Every tensor by its scheme alone, with the ranges of activations where the recipe rounds them."""
    statistics = measured_ranges(model, plan, images, threads, progress)
    codes = plain_codes(model, plan, progress)
    return Candidate(plan, model, assembled(model, plan, codes, {}, statistics), statistics)


def plain_graph(model: Model, plan: Plan, progress: Progress = SILENT) -> QuantizedGraph:
    """Every tensor by its scheme alone; biases in half precision where codes are coarser than that."""
    weights = plain_codes(model, plan, progress)
    coarse = {name for name in plan.decoded & weights.keys() if weights[name].bits <= HALF_BITS}
    biases = {layer.bias for layer in layers(model) if layer.weight in coarse and layer.bias is not None}
    floats = {name: narrow_bias(model.weights[name]) for name in sorted(biases)}
    return assembled(model, plan, weights, floats, None)


def plain_codes(model: Model, plan: Plan, progress: Progress = SILENT) -> dict[str, Codes]:
    """Every tensor by its scheme alone, as its weights suggest; scales in half precision if codes are coarser."""
    in_integers = {node.node for node in plan.nodes if node.arithmetic == "integer"}

    def encoded(tensor: TensorPlan) -> Codes:
        assert tensor.given is not None
        weight = model.weights[tensor.tensor]
        codes = tensor.given.encode(weight, tensor.axis)
        # In integer layers the file stores narrow scales only where it packs the codes as well.
        as_they_are = in_integers.intersection(tensor.layers) and tensor.tensor not in plan.packed
        return codes if as_they_are else with_narrow_scales(codes, weight)

    tensors = [tensor for tensor in plan.quantized if tensor.given is not None]
    results = in_order(encoded, tensors, threads=cores(), ahead=0)
    tracked = progress.track(results, f"encoding {plan.title}", total=len(tensors))
    return {tensor.tensor: codes for tensor, codes in zip(tensors, tracked, strict=True)}


def assembled(
    base: Model,
    plan: Plan,
    weights: Mapping[str, Codes],
    floats: Mapping[str, Array],
    statistics: Statistics | None,
    *,
    activations: Mapping[str, ActivationCodes] | None = None,
) -> QuantizedGraph:
    """A quantized graph from its parts.

    Args:
        base: the float model that the codes stand for.
        plan: which nodes run in integers.
        weights: codes, by initializer name.
        floats: new values of tensors that stay float, or of biases before they become int32, by initializer name.
        statistics: ranges of the activations; None where they stay float.
        activations: their codes, if known; else they follow from the statistics.
    """
    integer = frozenset(node.node for node in plan.nodes if node.arithmetic == "integer")
    coded = [layer for layer in layers(base) if layer.weight in weights and layer.node not in integer]
    dynamic = plan.dynamic & {layer.node for layer in coded}
    with_kernel = {layer.node for layer in coded if has_kernel(layer, weights[layer.weight].scheme)}
    blocks = plan.block_kernels & with_kernel
    if statistics is None:
        return QuantizedGraph(
            base,
            weights=weights,
            float_values=floats,
            metadata=metadata(plan),
            dynamic=dynamic,
            block_kernels=blocks,
            arithmetic="" if plan.recipe.arithmetic == "float32" else plan.recipe.arithmetic,
            in_float32=frozenset(node.node for node in plan.nodes if node.arithmetic == "float32"),
        )
    activations = activation_codes(plan, statistics) if activations is None else activations
    absorbed = frozenset(node.node for node in plan.nodes if node.arithmetic == "absorbed")
    corrected = base.with_weights(floats) if floats else base
    running = [layer for layer in layers(base) if layer.node in integer]
    weights, biases = fit_biases(corrected, running, weights, activations, bias_limit(plan))
    if plan.target in DEVICES and DEVICES[plan.target].bias == FLOAT_BIAS:
        biases = {}
    decoded = {layer.bias for layer in layers(base) if layer.weight in plan.decoded}
    return QuantizedGraph(
        corrected,
        weights=weights,
        activations=activations,
        biases=biases,
        integer=integer,
        absorbed=absorbed,
        float_values={name: value for name, value in floats.items() if name in decoded},
        metadata=metadata(plan),
        as_planned=plan.as_planned,
        packed=plan.packed,
        dynamic=dynamic,
        block_kernels=blocks,
    )


def on_bytes(graph: QuantizedGraph, plan: Plan) -> QuantizedGraph:
    """With the float input taken as image bytes, if the plan says so."""
    return with_exact_input(graph) if EXACT_INPUT in plan.steps else graph


def metadata(plan: Plan) -> dict[str, str]:
    """What a file says of its making."""
    rules = {RULES_KEY: json.dumps(plan.rules)} if plan.rules else {}
    return {"lowbit.recipe": plan.recipe.name, **rules}


def measured_ranges(model: Model, plan: Plan, images: Dataset, threads: int, progress: Progress) -> Statistics | None:
    """Ranges of the activations that the plan rounds; None where they stay float."""
    if not plan.integer:
        return None
    tensors = [tensor for group in plan.scale_groups for tensor in group]
    # Outputs too: a file may give codes, though none of the kernels before needs their scale.
    tensors += [output.name for output in model.outputs if output.dtype == np.float32]
    statistics = calibrate(
        model,
        images,
        tensors=tensors,
        threads=threads,
        histograms=plan.recipe.ranges != "minmax",
        progress=progress,
    )
    give_back_memory()
    return statistics
