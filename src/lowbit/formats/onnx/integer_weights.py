"""Weights and biases of layers that run in integers: int8 and int32 behind DequantizeLinear.

Weights of fewer than 8 bits are stored at their own width. The nodes that unpack them to int8 are those of weight-only
files (`formats/onnx/decode_nodes.py`): ONNX Runtime and OpenVINO compute them once, while they load the file, and find
in front of DequantizeLinear what they would have found stored, so that the kernels are the same. A layer whose weight
is packed has its scales and biases in fewer bytes too: scales as weight-only files have them, biases in a byte or two
where they fit, without the factor that all have in common, and their scales as what they are, the product of those of
weight and input.
"""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.byte_tables import TYPES
from lowbit.formats.onnx.decode_nodes import (
    HALF_FROM,
    NodeChain,
    NodeDecoder,
    narrowed,
    packed_weights,
    scale_table,
    stored_levels,
)
from lowbit.formats.onnx.draft import Draft
from lowbit.formats.quantized_graph import DATA_MOVEMENT, UINT8, BiasCodes, Floats
from lowbit.graph.ops import OPS, Layer, layers
from lowbit.schemes.codes import integer_codes

MOVING = DATA_MOVEMENT | {"Concat"}
INT8, INT16, INT32 = np.iinfo(np.int8), np.iinfo(np.int16), np.iinfo(np.int32)


class Pair(NamedTuple):
    """What a DequantizeLinear reads.

    Attributes:
        codes: int8 or int32.
        scale: float32, a scalar or one per channel.
        channels: the shape of `scale`.
    """

    codes: ir.Value
    scale: ir.Value
    channels: tuple[int, ...]


def write_integer_weights(draft: Draft) -> Draft:
    """Put stored weights and biases behind DequantizeLinear in the place of the float ones."""
    quantized = draft.quantized
    running = [layer for layer in layers(quantized.model) if layer.node in quantized.integer]
    narrow = [quantized.weights[layer.weight] for layer in running if layer.weight in quantized.packed]
    decoder = NodeDecoder(draft.names, draft.tables, scale_table(narrow))
    stored = _Stored(draft, decoder, packed_weights(quantized))
    nodes = {str(node.name): node for node in draft.graph}
    for layer in running:
        node = nodes[layer.node]
        weight = stored.weight(layer, node)
        axis = layer.channel_axis
        if layer.geometry is None and weight.channels and quantized.kind.bits > UINT8.bits:
            floats = _boxed(draft, layer, node, weight)
        else:
            if layer.turned:
                turned = _turned(draft.graph, node, weight.codes, draft.names)
                weight, axis = weight._replace(codes=turned), 1 - axis
            floats = _dequantized(draft, node, weight, axis=axis)
        node.replace_input_with(OPS[layer.op].weight, floats)
        if layer.node in quantized.biases and layer.bias is not None:
            index = _place(node, layer.bias)
            bias = stored.bias(layer, node, _in_32_bits(quantized.biases[layer.node]))
            node.replace_input_with(index, _dequantized(draft, node, bias, axis=0))
    return draft


@dataclass(frozen=True)
class _Stored:
    """What layers read of the file.

    Attributes:
        draft: whose graph is changed.
        decoder: of packed weights.
        packed: their names.
        weights: those that were met, by name.
    """

    draft: Draft
    decoder: NodeDecoder
    packed: frozenset[str]
    weights: dict[str, Pair] = field(default_factory=dict)

    def weight(self, layer: Layer, node: ir.Node) -> Pair:
        """A layer's weight, unpacked in front of the layer's node."""
        if layer.weight not in self.weights:
            names, quantized = self.draft.names, self.draft.quantized
            codes = integer_codes(quantized.weights[layer.weight])
            scale = _several_or_one(codes.scale)
            levels = self._before(node, stored_levels(codes, self.decoder, packed=layer.weight in self.packed), "int8")
            narrow = layer.weight in quantized.packed
            factors = narrowed(scale, names, self.decoder.scales) if narrow else None
            stored = names.constant(scale, "s") if factors is None else self._before(node, factors, "float32")
            self.weights[layer.weight] = Pair(levels, stored, scale.shape)
        return self.weights[layer.weight]

    def bias(self, layer: Layer, node: ir.Node, bias: BiasCodes) -> Pair:
        """A layer's bias, computed in front of the layer's node."""
        names, scale = self.draft.names, _several_or_one(bias.scale)
        if layer.weight not in self.draft.quantized.packed or bias.codes.size < HALF_FROM:
            return Pair(names.constant(bias.codes, "b"), names.constant(scale, "s"), scale.shape)
        chain = _counted(bias, names)
        codes = names.constant(bias.codes, "b") if chain is None else self._before(node, chain, "int32")
        step = self._step(layer.input)
        of_weight = integer_codes(self.draft.quantized.weights[layer.weight]).scale
        if step is not None and scale.ndim and np.array_equal(step * of_weight.reshape(-1), scale):
            product = NodeChain(self.weight(layer, node).scale, names).then("Mul", step)
            return Pair(codes, self._before(node, product, "float32"), scale.shape)
        return Pair(codes, names.constant(scale, "s"), scale.shape)

    def _step(self, name: str) -> np.float32 | None:
        """The step of a tensor's codes; what only moved or was joined may have those of its source."""
        activations, values = self.draft.quantized.activations, self.draft.quantized.model.values
        while name not in activations:
            before = values[name].producer()
            source = before.inputs[0] if before is not None and before.op_type in MOVING else None
            if source is None:
                return None
            name = str(source.name)
        return np.float32(activations[name].scale)

    def _before(self, node: ir.Node, chain: NodeChain, dtype: str) -> ir.Value:
        """What a chain computes, in front of a node."""
        self.draft.graph.insert_before(node, chain.nodes)
        chain.value.dtype = TYPES[dtype]
        return chain.value


def _boxed(draft: Draft, layer: Layer, node: ir.Node, weight: Pair) -> ir.Value:
    """The floats of a product's weight by way of [1, rows, columns].

    Of a product that reads DequantizeLinear along columns ONNX Runtime 1.32 makes MatMulNBits, which rounds the other
    operand to 8 bits, whatever codes it has.
    """
    axis = draft.names.constant(np.array([0]))
    box = ir.node("Unsqueeze", [weight.codes, axis])
    box.outputs[0].name, box.outputs[0].dtype = draft.names.fresh("t"), ir.DataType.INT8
    draft.graph.insert_before(node, box)
    floats = _dequantized(draft, node, weight._replace(codes=box.outputs[0]), axis=1 + layer.channel_axis)
    matrix = ir.node("Squeeze", [floats, axis])
    matrix.outputs[0].name = draft.names.fresh("t")
    draft.graph.insert_before(node, matrix)
    return _turned(draft.graph, node, matrix.outputs[0], draft.names) if layer.turned else matrix.outputs[0]


def _in_32_bits(bias: BiasCodes) -> BiasCodes:
    """A bias in int32, with larger steps if it has more bits.

    ONNX Runtime adds those of 16-bit activations in float. A float bias it would round to int32 itself, in units of
    input scale times weight scale, and let it overflow (WeightBiasQuantization, version 1.32).
    """
    largest = np.abs(bias.codes.astype(np.float64)).max(initial=0)
    step = 2.0 ** max(0, math.ceil(math.log2(max(largest, 1) / INT32.max)))
    codes = np.rint(bias.codes / step).astype(np.int32)
    return replace(bias, codes=codes, scale=(bias.scale * np.float32(step)).astype(np.float32))


def _turned(graph: ir.Graph, before: ir.Node, matrix: ir.Value, names: Names) -> ir.Value:
    """The transpose of stored codes, which runtimes fold, or of what they decode to."""
    node = ir.node("Transpose", [matrix], attributes={"perm": [1, 0]})
    node.outputs[0].name = names.fresh("t")
    node.outputs[0].type = ir.TensorType(matrix.dtype or ir.DataType.FLOAT)
    graph.insert_before(before, node)
    return node.outputs[0]


def _counted(bias: BiasCodes, names: Names) -> NodeChain | None:
    """int32 from narrower whole numbers: how often each code has what all are multiples of; None if these are wide."""
    counts = bias.codes // bias.multiple
    for limits in (INT8, INT16):
        if limits.min <= counts.min() and counts.max() <= limits.max:
            chain = NodeChain(names.constant(counts.astype(limits.dtype), "b"), names).cast("int32")
            return chain if bias.multiple == 1 else chain.then("Mul", np.int32(bias.multiple))
    return None


def _place(node: ir.Node, name: str) -> int:
    """Which input of a node has this name."""
    return next(index for index, value in enumerate(node.inputs) if value is not None and value.name == name)


def _several_or_one(scale: Floats) -> Floats:
    """Scales as DequantizeLinear wants them: one per channel, or a scalar."""
    return scale.reshape(-1) if scale.size > 1 else scale.reshape(())


def _dequantized(draft: Draft, before: ir.Node, pair: Pair, *, axis: int) -> ir.Value:
    inputs = [pair.codes, pair.scale]
    if before.op_type in ("Gemm", "MatMul") and pair.codes.dtype is not None:
        # The zero point may be left out by the standard, but then ONNX Runtime makes no integer product.
        inputs.append(draft.names.constant(np.zeros(pair.channels, pair.codes.dtype.numpy())))
    node = ir.node("DequantizeLinear", inputs, attributes={"axis": axis} if pair.channels else {})
    node.outputs[0].name = draft.names.fresh("d")
    draft.graph.insert_before(before, node)
    return node.outputs[0]
