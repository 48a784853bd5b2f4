"""The operators whose weights are quantized, as one table, and the layers that a model has of them.

A new operator is one row in `OPS`, and a branch in `Layer` if it is neither a convolution nor a matrix product.
"""

import math
from dataclasses import dataclass

import numpy as np

from lowbit.errors import ModelError
from lowbit.graph.columns import Geometry, convolution_columns, transposed_columns
from lowbit.graph.edit import constant, flag
from lowbit.graph.model import Model, Node, Value


@dataclass(frozen=True)
class Operator:
    """One row: which input is which, and where the weight has its output channels.

    Args:
        input: index of the activation input.
        weight: index of the weight.
        bias: index of the bias, or None if only an Add after the node can add one.
        channel_axis: dimension of the weight that counts output channels (of one group, for ConvTranspose).
        columns: "convolution", "transposed" or "product": how inputs become columns.
    """

    input: int
    weight: int
    bias: int | None
    channel_axis: int
    columns: str


OPS: dict[str, Operator] = {
    "Conv": Operator(input=0, weight=1, bias=2, channel_axis=0, columns="convolution"),
    "ConvTranspose": Operator(input=0, weight=1, bias=2, channel_axis=1, columns="transposed"),
    # transB=1 transposes the weight of a Gemm: channel axis 0.
    "Gemm": Operator(input=0, weight=1, bias=2, channel_axis=1, columns="product"),
    "MatMul": Operator(input=0, weight=1, bias=None, channel_axis=1, columns="product"),
}


@dataclass(frozen=True)
class Layer:
    """One weighted node, with `output = matrix @ columns + bias`.

    Args:
        node: its unique name.
        op: its operator, a key of `OPS`.
        input: name of the activation it reads.
        weight: name of the initializer that is its weight; layers can share one.
        bias: name of the initializer [output channels] that is added, or None.
        output: name of the tensor that includes the bias: the output of the node, or of the Add after a MatMul.
        bias_node: name of that Add, if there is one.
        weight_shape: as stored.
        channel_axis: dimension of the stored weight that counts output channels.
        groups: convolution groups; 1 for matrix products.
        geometry: how a convolution kernel moves; None for matrix products.
        turned: whether a Transpose stands between the weight and the node (`graph.shared_weights`).
    """

    node: str
    op: str
    input: str
    weight: str
    bias: str | None
    output: str
    bias_node: str | None
    weight_shape: tuple[int, ...]
    channel_axis: int
    groups: int = 1
    geometry: Geometry | None = None
    turned: bool = False

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size per spatial axis; () for matrix products."""
        return self.geometry.kernel if self.geometry else ()

    @property
    def out_channels(self) -> int:
        """Output channels of all groups together."""
        return self.weight_shape[self.channel_axis] * (self.groups if self.op == "ConvTranspose" else 1)

    @property
    def columns(self) -> int:
        """Number of inputs that one output value depends on."""
        return math.prod(self.weight_shape) // self.out_channels

    @property
    def depthwise(self) -> bool:
        """Whether each output channel depends on one of several input channels."""
        return self.groups > 1 and self.columns == math.prod(self.kernel)

    def to_matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as [groups, output channels per group, columns]; a view where possible."""
        if self.geometry is None:
            return (weight if self.channel_axis == 0 else weight.T)[np.newaxis]
        if self.op == "ConvTranspose":
            inner = weight.reshape(self.groups, -1, self.weight_shape[1], math.prod(self.kernel))
            return inner.swapaxes(1, 2).reshape(self.groups, self.weight_shape[1], self.columns)
        return np.reshape(weight, (self.groups, -1, self.columns))

    def from_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `to_matrix`: the weight in its stored shape."""
        if self.geometry is None:
            product = matrix[0] if self.channel_axis == 0 else matrix[0].T
            return np.asarray(product)
        if self.op == "ConvTranspose":
            inner = matrix.reshape(self.groups, self.weight_shape[1], -1, math.prod(self.kernel))
            return inner.swapaxes(1, 2).reshape(self.weight_shape)
        return np.reshape(matrix, self.weight_shape)

    def to_columns(self, x: np.ndarray) -> np.ndarray:
        """What each output value is computed from: [groups, columns, positions], with the dtype of `x`.

        Positions run over the images, and within an image over its outputs in row-major order. A view for matrix
        products and for 1x1 convolutions of one image; otherwise a copy, kernel-size times the input.

        Args:
            x: the layer's input, [N, channels, spatial...] or [..., inputs].
        """
        if self.geometry is None:
            return x.reshape(-1, x.shape[-1]).T[np.newaxis]
        to_columns = transposed_columns if self.op == "ConvTranspose" else convolution_columns
        return to_columns(x, self.geometry, self.groups)

    def to_rows(self, y: np.ndarray) -> np.ndarray:
        """The layer's output arranged like `matrix @ columns`: [groups, output channels per group, positions].

        Args:
            y: [N, output channels, spatial...] or [..., outputs].
        """
        if self.geometry is None:
            return y.reshape(-1, y.shape[-1]).T[np.newaxis]
        return np.moveaxis(y, 1, 0).reshape(self.groups, self.out_channels // self.groups, -1)


@dataclass(frozen=True)
class NotLayer:
    """A constant that looks like a weight, in a node that is not treated as a layer, and why."""

    node: str
    op: str
    weight: str
    reason: str


def layers(model: Model) -> tuple[Layer, ...]:
    """The layers of the main graph in execution order: Conv, ConvTranspose, Gemm, MatMul with a constant weight.

    Raises:
        ModelError: attributes that do not fit the weight's shape.
    """
    candidates = (_layer(node, model.source) for node in model.graph if _is_known(node))
    return tuple(layer for layer in candidates if isinstance(layer, Layer))


def not_layers(model: Model) -> tuple[NotLayer, ...]:
    """Nodes with a constant weight that `layers` leaves out, each with the reason, so that none is dropped silently."""
    items = [_layer(node, model.source) for node in model.graph if _is_known(node)]
    for node in model.graph:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            weights = [str(value.name) for value in node.inputs[1:3] if value is not None and _constant_name(value)]
            items += [NotLayer(str(node.name), node.op_type, name, "recurrent layer") for name in weights]
    for graph in model.graph.subgraphs():
        for node in graph:
            weight = node.inputs[OPS[node.op_type].weight] if _is_known(node) else None
            if weight is not None and constant(weight) is not None:
                items.append(NotLayer(str(node.name), node.op_type, str(weight.name), "inside an If or Loop"))
    return tuple(item for item in items if isinstance(item, NotLayer))


def _is_known(node: Node) -> bool:
    return node.op_type in OPS and node.domain in ("", "ai.onnx") and len(node.inputs) > 1


def _constant_name(value: Value | None) -> str | None:
    return str(value.name) if value is not None and constant(value) is not None else None


def _layer(node: Node, source: str) -> Layer | NotLayer | None:
    row = OPS[node.op_type]
    x, weight_value = node.inputs[row.input], node.inputs[row.weight]
    turned = row.columns == "product" and is_turned(weight_value)
    if turned and weight_value is not None and (maker := weight_value.producer()) is not None:
        weight_value = maker.inputs[0]
    weight = constant(weight_value)
    name = str(node.name)
    if weight_value is None or weight is None or x is None:
        first = constant(x)
        if node.op_type == "MatMul" and first is not None and first.ndim > 1:
            return NotLayer(name, node.op_type, str(x.name if x else ""), "the constant is the left factor")
        return None

    def left_out(reason: str) -> NotLayer:
        return NotLayer(name, node.op_type, str(weight_value.name), reason)

    if weight.dtype != np.float32:
        return left_out(f"the weight holds {weight.dtype}")
    if weight.size == 0:
        return left_out("the weight is empty")
    bias = node.inputs[row.bias] if row.bias is not None and len(node.inputs) > row.bias else None
    if bias is not None and constant(bias) is None:
        return left_out("the bias is computed")
    output, bias_node, groups, geometry, axis = str(node.outputs[0].name), None, 1, None, row.channel_axis
    if row.columns == "product":
        if weight.ndim != 2:
            return left_out(f"the weight has {weight.ndim} dimensions, not 2")
        if node.op_type == "Gemm":
            alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
            if flag(node, "transA") or alpha != 1.0 or (bias is not None and beta != 1.0):
                return left_out("transA, or a factor that cannot be folded")
            axis = int(turned) if flag(node, "transB") else int(not turned)
        else:
            axis = int(not turned)
            bias, add = _added_bias(node, weight.shape[axis])
            if add is not None:
                output, bias_node = str(add.outputs[0].name), str(add.name)
    else:
        groups = node.attributes.get_int("group", 1)
        geometry = _geometry(node, weight, groups, source)
    layer = Layer(
        name,
        node.op_type,
        str(x.name),
        str(weight_value.name),
        None if bias is None else str(bias.name),
        output,
        bias_node,
        tuple(weight.shape),
        axis,
        groups,
        geometry,
        turned,
    )
    if bias is not None and bias.shape is not None and math.prod(bias.shape.numpy()) != layer.out_channels:
        return left_out("the bias does not have one value per channel")
    return layer


def is_turned(value: Value | None) -> bool:
    """Whether a value is a constant matrix behind a Transpose."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "Transpose" or maker.domain not in ("", "ai.onnx"):
        return False
    matrix = constant(maker.inputs[0])
    return matrix is not None and matrix.ndim == 2 and list(maker.attributes.get_ints("perm", [1, 0])) == [1, 0]


def _added_bias(node: Node, channels: int) -> tuple[Value | None, Node | None]:
    """The constant vector that an Add after a MatMul adds, and the Add, if nothing else reads the product."""
    product = node.outputs[0]
    add = _only_reader(product)
    if add is None or add.op_type != "Add" or add.domain not in ("", "ai.onnx"):
        return None, None
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    array = constant(other)
    rank = len(product.shape) if product.shape is not None else 1
    if array is None or array.size != channels or array.shape[-1:] != (channels,) or array.ndim > rank:
        return None, None
    return other, add


def _geometry(node: Node, weight: np.ndarray, groups: int, source: str) -> Geometry:
    rank = weight.ndim - 2
    attributes = node.attributes
    kernel = tuple(attributes.get_ints("kernel_shape", weight.shape[2:]))
    strides = tuple(attributes.get_ints("strides", [1] * rank))
    dilations = tuple(attributes.get_ints("dilations", [1] * rank))
    pads = tuple(attributes.get_ints("pads", [0] * 2 * rank))
    extra = tuple(attributes.get_ints("output_padding", []))
    wanted = tuple(attributes.get_ints("output_shape", []))
    auto_pad = attributes.get_string("auto_pad", "NOTSET")
    fits = (
        rank >= 1
        and groups >= 1
        and weight.shape[0] % groups == 0
        and kernel == weight.shape[2:]
        and len(strides) == len(dilations) == rank
        and len(pads) == 2 * rank
        and len(extra) in (0, rank)
        and len(wanted) in (0, rank)
        and min((*strides, *dilations)) >= 1
        and min((*pads, *extra, *wanted), default=0) >= 0
        and max((*strides, *dilations, *pads, *extra, *wanted), default=0) < 1 << 31
        and auto_pad in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    )
    if not fits:
        raise ModelError(
            f"{node.op_type} {node.name!r} has attributes that do not fit its weight of shape {list(weight.shape)}: "
            f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads}, groups {groups}, {auto_pad}.",
            where=source,
            remedy="Export the model again.",
        )
    return Geometry(kernel, strides, pads, dilations, auto_pad, extra, wanted)


def single_consumer(model: Model, tensor: str) -> Node | None:
    """The only node that reads a tensor, in the main graph; None if several or none do, or if it leaves the model."""
    return _only_reader(model.values[tensor])


def _only_reader(value: Value) -> Node | None:
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    (reader,) = value.consumers()
    # A body of If, Loop or Scan runs as often as it likes: none of its nodes can be part of a layer outside.
    return reader if reader.graph is value.graph else None
