"""Parameters and multiply-accumulates per layer; 1 MAC = 2 FLOPs.

MACs are those of Conv, ConvTranspose, Gemm and MatMul, also between two activations; biases, activation functions and
pooling are not counted. A convolution takes output values * inputs that each one sees; a transposed convolution input
values * outputs that each one reaches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import constant, flag
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.ops import OPS, layers
from lowbit.graph.parameters import count_parameters
from lowbit.graph.prepare import settle_sizes


@dataclass(frozen=True)
class LayerCost:
    """One Conv, ConvTranspose, Gemm or MatMul.

    Args:
        node: its name.
        op: its operator.
        input_shape: of its first input, all dimensions known.
        output_shape: likewise.
        weight_shape: () for a product of two activations.
        parameters: values of weight and bias; those that layers share count for the first of them.
        macs: multiply-accumulates for one run of the model.
        weight_bytes: of weight and bias as held; shared ones count for the first layer.
        dtype: of the weight, or of the activations.
        weight_min: smallest weight; 0 without weights.
        weight_max: largest weight; 0 without weights.
    """

    node: str
    op: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameters: int
    macs: int
    weight_bytes: int
    dtype: str
    weight_min: float
    weight_max: float

    @property
    def flops(self) -> int:
        """Floating-point operations: two per MAC."""
        return 2 * self.macs


@dataclass(frozen=True)
class Cost:
    """The whole model.

    Args:
        layers: in execution order.
        trained_parameters: before batch norms were folded.
        parameters: as held now.
        batch: the batch size counted for.
    """

    layers: tuple[LayerCost, ...]
    trained_parameters: int
    parameters: int
    batch: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations: two per MAC."""
        return 2 * self.macs

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights and biases of all layers."""
        return sum(layer.weight_bytes for layer in self.layers)


def cost(model: Model, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None) -> Cost:
    """Count parameters and MACs, layer by layer.

    Args:
        model: the prepared model.
        batch: batch size for inputs that do not fix it.
        shapes: full input shapes by name, needed where another dimension is not fixed.

    Raises:
        ModelError: a dimension is neither fixed nor given, or a layer's shape cannot be inferred.
    """
    sizes = _input_sizes(model, batch, shapes or {})
    graph = _with_shapes(model, sizes)
    biases = {layer.node: layer.bias for layer in layers(model)}
    counted: set[str] = set()
    costs = []
    for node in graph:
        if node.op_type in OPS and node.domain in ("", "ai.onnx") and len(node.inputs) > 1:
            costs.append(_layer_cost(node, graph, biases.get(str(node.name)), counted, model.source))
    first = sizes[model.inputs[0].name]
    return Cost(tuple(costs), model.trained_parameters, count_parameters(model.graph), first[0] if first else batch)


def _input_sizes(model: Model, batch: int, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    if batch < 1:
        raise ModelError(f"batch size must be at least 1, not {batch}.", where=model.source)
    unknown = shapes.keys() - {info.name for info in model.inputs}
    if unknown:
        names = ", ".join(info.name for info in model.inputs)
        raise ModelError(f"there is no input {min(unknown)!r}.", where=model.source, remedy=f"The inputs are {names}.")
    sizes: dict[str, tuple[int, ...]] = {}
    for info in model.inputs:
        if info.name in shapes:
            given = tuple(int(dim) for dim in shapes[info.name])
            fits = len(given) == len(info.shape) and all(
                wanted >= 1 and (not isinstance(dim, int) or dim == wanted)
                for dim, wanted in zip(info.shape, given, strict=True)
            )
            if not fits:
                raise ModelError(
                    f"the shape {list(given)} does not fit input {info.name!r}, which is {_text(info.shape)}.",
                    where=model.source,
                    remedy="Give a number for every dimension; fixed ones must match.",
                )
        else:
            first = [batch if not isinstance(dim, int) else dim for dim in info.shape[:1]]
            if not all(isinstance(dim, int) for dim in info.shape[1:]):
                raise ModelError(
                    f"input {info.name!r} is {_text(info.shape)}: its size is not fixed.",
                    where=model.source,
                    remedy=f"Give its full shape: cost(model, shapes={{{info.name!r}: (1, 3, 224, 224)}}).",
                )
            given = (*first, *(dim for dim in info.shape[1:] if isinstance(dim, int)))
        sizes[info.name] = given
    return sizes


def _with_shapes(model: Model, sizes: Mapping[str, tuple[int, ...]]) -> ir.Graph:
    """A copy of the graph with these input sizes and all shapes inferred anew; weights are not copied."""
    copy = model.ir.clone()
    for value in copy.graph.inputs:
        value.shape = ir.Shape(sizes[str(value.name)])
    for node in copy.graph:
        for output in node.outputs:
            output.shape = None
    settle_sizes(copy)
    return copy.graph


def _layer_cost(node: Node, graph: ir.Graph, bias: str | None, counted: set[str], source: str) -> LayerCost:
    row = OPS[node.op_type]
    first, second = node.inputs[row.input], node.inputs[row.weight]
    if first is None or second is None:
        raise ModelError(f"{node.op_type} {node.name!r} lacks an input.", where=source, remedy="Export it again.")
    input_shape = _shape(first, node, source)
    output_shape = _shape(node.outputs[0], node, source)
    if node.op_type == "Conv":
        macs = math.prod(output_shape) * math.prod(_shape(second, node, source)[1:])
    elif node.op_type == "ConvTranspose":
        macs = math.prod(input_shape) * math.prod(_shape(second, node, source)[1:])
    else:
        depth = input_shape[0] if flag(node, "transA") else input_shape[-1]
        macs = math.prod(output_shape) * depth
    weight = constant(second)
    if weight is None:
        # The constant may be the left factor.
        weight = constant(first)
        second = first
    parameters = weight_bytes = 0
    for name in (second.name if weight is not None else None, bias):
        array = constant(graph.initializers[name]) if name is not None else None
        if name is not None and array is not None and name not in counted:
            counted.add(name)
            parameters += array.size
            weight_bytes += array.nbytes
    dtype = np.dtype(np.float32) if second.dtype is None else second.dtype.numpy()
    has_range = weight is not None and weight.size > 0
    return LayerCost(
        str(node.name),
        node.op_type,
        input_shape,
        output_shape,
        () if weight is None else tuple(weight.shape),
        parameters,
        macs,
        weight_bytes,
        str(dtype),
        float(weight.min()) if weight is not None and has_range else 0.0,
        float(weight.max()) if weight is not None and has_range else 0.0,
    )


def _shape(value: Value, node: Node, source: str) -> tuple[int, ...]:
    dims = None if value.shape is None else [dim for dim in value.shape if isinstance(dim, int)]
    if dims is None or value.shape is None or len(dims) != len(value.shape):
        # The inputs have fixed sizes here.
        raise ModelError(
            f"the shape of {value.name!r}, at {node.op_type} {node.name!r}, cannot be inferred: it depends on the values "
            "that are computed, or on an operator of unknown shapes.",
            where=source,
            remedy="Export the model without such operators before that node.",
        )
    return tuple(dims)


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
