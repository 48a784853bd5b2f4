"""Parameters and multiply-accumulates per layer; 1 MAC = 2 FLOPs.

MACs are those of Conv, ConvTranspose, Gemm, MatMul, Einsum and recurrent operators, also between two activations;
biases, activation functions and pooling are not counted, and an embedding has none. A convolution takes output values *
inputs that each one sees; a transposed convolution input values * outputs that each one reaches; an Einsum one for each
combination of its indices. Bodies of If, Loop and Scan are counted as if each ran once, as far as shapes in them are
known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import constant, flag
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.ops import layers
from lowbit.graph.parameters import count_parameters
from lowbit.graph.prepare import settle_sizes
from lowbit.graph.weights import BIAS_INPUTS, RECURRENT, WEIGHT_INPUTS, is_factor, weight_name
from lowbit.printable import several

OPEN_SIDE, OPEN_LENGTH = 224, 128  # that errors name where a size is open


@dataclass(frozen=True)
class LayerCost:
    """One node that multiplies, or looks up, with its weight; a recurrent one for each of its two weights.

    Args:
        node: its name; for recurrent operators that of the weight.
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

    def __repr__(self) -> str:
        parameters = several(self.parameters, "parameter")
        return f"<Cost of {several(len(self.layers), 'layer')}: {parameters}, {self.macs:,} MACs>"

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
    for node in graph.all_nodes():
        if node.op_type in WEIGHT_INPUTS and node.domain in ("", "ai.onnx") and len(node.inputs) > 1:
            costs += _costs(node, graph, biases.get(str(node.name)), counted, model.source)
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
                example = _example(info.shape)
                size = f"{info.name}={'x'.join(map(str, example))}"
                raise ModelError(
                    f"input {info.name!r} is {_text(info.shape)}: its size is not fixed.",
                    where=model.source,
                    remedy=f"Give it, such as --input-size {size}, or shapes={{{info.name!r}: {example}}} in Python.",
                )
            given = (*first, *(dim for dim in info.shape[1:] if isinstance(dim, int)))
        sizes[info.name] = given
    return sizes


def _example(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """A shape with these fixed sizes: of an image, if it has the axes of one."""
    side = OPEN_SIDE if len(shape) == 4 else OPEN_LENGTH
    return tuple(dim if isinstance(dim, int) else (1 if place == 0 else side) for place, dim in enumerate(shape))


def _with_shapes(model: Model, sizes: Mapping[str, tuple[int, ...]]) -> ir.Graph:
    """A copy of the graph with these input sizes and all shapes inferred anew; weights are not copied."""
    copy = model.ir.clone()
    for value in copy.graph.inputs:
        value.shape = ir.Shape(sizes[str(value.name)])
    for node in copy.graph.all_nodes():
        for output in node.outputs:
            output.shape = None
    settle_sizes(copy)
    return copy.graph


def _costs(node: Node, graph: ir.Graph, bias: str | None, counted: set[str], source: str) -> list[LayerCost]:
    """The rows of a node: one, two if it is recurrent, none if nothing is known of it."""
    if node.op_type == "Gather" and (constant(node.inputs[0]) is None or not _is_embedding(node)):
        return []
    try:
        given, output = _shape(_value(node, _activation(node), source), node, source), _first_shape(node, source)
        macs = _macs(node, source)
    except ModelError:
        if node.graph is graph:
            raise
        given, output, macs = (), (), {}
    rows = []
    for index in (1, 2) if node.op_type in RECURRENT else (_weight(node),):
        value = _value(node, index, source)
        weight = constant(value)
        read = [value.name if weight is not None else None, bias if index != 2 else None]
        if bias is None and index != 2:
            read.append(_bias_name(node))
        parameters = weight_bytes = 0
        for name in read:
            array = constant(graph.initializers[name]) if name is not None and name in graph.initializers else None
            if name is not None and array is not None and name not in counted:
                counted.add(name)
                parameters += array.size
                weight_bytes += array.nbytes
        known = weight is not None and weight.size > 0
        rows.append(
            LayerCost(
                weight_name(str(node.name), node.op_type, index),
                node.op_type,
                given,
                output,
                () if weight is None else tuple(weight.shape),
                parameters,
                macs.get(index, 0),
                weight_bytes,
                str(np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()),
                float(weight.min()) if weight is not None and known else 0.0,
                float(weight.max()) if weight is not None and known else 0.0,
            )
        )
    return rows


def _is_embedding(node: Node) -> bool:
    array = constant(node.inputs[0])
    return array is not None and array.ndim > 1 and array.dtype.kind == "f" and not is_factor(node.outputs[0])


def _weight(node: Node) -> int:
    """The input that is the weight: the constant one; the last if none is."""
    places = WEIGHT_INPUTS[node.op_type]
    return next((index for index in reversed(places) if constant(node.inputs[index]) is not None), places[-1])


def _activation(node: Node) -> int:
    """The first input, or the second where the first is the weight."""
    return 1 if _weight(node) == 0 else 0


def _bias_name(node: Node) -> str | None:
    place = BIAS_INPUTS.get(node.op_type)
    value = node.inputs[place] if place is not None and place < len(node.inputs) else None
    return None if value is None else str(value.name)


def _value(node: Node, index: int, source: str) -> Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise ModelError(f"{node.op_type} {node.name!r} lacks an input.", where=source, remedy="Export it again.")
    return value


def _first_shape(node: Node, source: str) -> tuple[int, ...]:
    """The shape of the first output that is used."""
    return _shape(next((value for value in node.outputs if value.name), node.outputs[0]), node, source)


def _macs(node: Node, source: str) -> dict[int, int]:
    """Multiply-accumulates by the input that is the weight."""
    index = _weight(node)
    first, second = (_shape(_value(node, at, source), node, source) for at in (0, 1))
    output = _first_shape(node, source)
    if node.op_type == "Gather":
        return {index: 0}
    if node.op_type in RECURRENT:
        steps, batch = first[:2] if not node.attributes.get_int("layout", 0) else (first[1], first[0])
        inside = _shape(_value(node, 2, source), node, source)
        return {1: steps * batch * math.prod(second), 2: steps * batch * math.prod(inside)}
    if node.op_type == "Einsum":
        return {index: _einsum_macs(node, source)}
    if node.op_type == "Conv":
        return {index: math.prod(output) * math.prod(second[1:])}
    if node.op_type == "ConvTranspose":
        return {index: math.prod(first) * math.prod(second[1:])}
    depth = first[0] if flag(node, "transA") else first[-1]
    return {index: math.prod(output) * depth}


def _einsum_macs(node: Node, source: str) -> int:
    """One for each combination of indices; axes behind dots are taken as all different from the others."""
    operands = node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, letters in enumerate(operands):
        shape = _shape(_value(node, index, source), node, source)
        before, dots, behind = letters.partition("...")
        hidden = len(shape) - len(before) - len(behind)
        names = [*before, *(f".{at - hidden}" for at in range(hidden if dots else 0)), *behind]
        for name, size in zip(names, shape, strict=False):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values())


def _shape(value: Value, node: Node, source: str) -> tuple[int, ...]:
    dims = None if value.shape is None else [dim for dim in value.shape if isinstance(dim, int)]
    if dims is None or value.shape is None or len(dims) != len(value.shape):
        # The inputs have fixed sizes here.
        raise ModelError(
            f"the shape of {value.name!r}, at {node.op_type} {node.name!r}, cannot be inferred: it depends on the "
            "values of the input, or on an operator of unknown shapes.",
            where=source,
            remedy="Export the model without such operators before that node.",
        )
    return tuple(dims)


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
