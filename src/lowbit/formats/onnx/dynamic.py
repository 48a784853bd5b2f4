"""Matrix products that quantize their input as the network runs: no calibration, int8 arithmetic, float in and out.

    q, s, z = DynamicQuantizeLinear(x)                       uint8, one scale and zero point for the whole tensor
    y = Cast(MatMulInteger(q, W, z)) * (s * scales of W) [+ bias]

ONNX Runtime makes one kernel of these (DynamicQuantizeMatMul, 3 to 8 times as fast as float). Convolutions
are left in float: its ConvInteger takes 7 to 28 times as long as Conv (version 1.32, 64 channels of 28x28). OpenVINO
takes this graph apart, which is slower than float; it has dynamic quantization of its own, a scale for each 32 inputs,
for products whose weights are int8 behind DequantizeLinear.

Source: Jacob et al. 2018 (arXiv 1712.05877), section 2, with the range of the activations taken from each input.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.draft import Draft, take_over
from lowbit.graph.ops import OPS, Layer, layers
from lowbit.schemes.linear import LinearCodes


def write_dynamic(draft: Draft) -> Draft:
    """Products in `QuantizedGraph.dynamic` as integer products of what they read; for ONNX Runtime."""
    graph, names = draft.graph, draft.names
    coded: dict[ir.Value, ir.Node] = {}
    for layer, node, codes in _products(draft):
        x = node.inputs[0]
        assert x is not None
        if x not in coded:
            coded[x] = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
            for value in coded[x].outputs:
                value.name = names.fresh("q")
            graph.insert_before(node, coded[x])
        q, scale, zero_point = coded[x].outputs
        weight = names.constant(np.ascontiguousarray(codes.codes, np.int8), "w")
        if layer.channel_axis == 0:  # folded at load
            weight = _then(graph, node, names, "Transpose", weight, perm=[1, 0])
        scales = names.constant(codes.scale if codes.scale.size > 1 else codes.scale.reshape(()), "s")
        sums = _then(graph, node, names, "MatMulInteger", q, weight, zero_point)
        product = sums.producer()
        assert product is not None
        product.name = layer.node
        sums = _then(graph, node, names, "Cast", sums, to=int(ir.DataType.FLOAT))
        value = _then(graph, node, names, "Mul", sums, _then(graph, node, names, "Mul", scale, scales))
        if node.op_type == "Gemm" and len(node.inputs) > 2 and (bias := node.inputs[2]) is not None:
            value = _then(graph, node, names, "Add", value, bias)
        take_over(graph, node, value)
    return draft


def write_compressed(draft: Draft) -> Draft:
    """The same products with int8 weights behind DequantizeLinear; for OpenVINO."""
    graph, names = draft.graph, draft.names
    for layer, node, codes in _products(draft):
        weight = names.constant(np.ascontiguousarray(codes.codes, np.int8), "w")
        scales = names.constant(codes.scale if codes.scale.size > 1 else codes.scale.reshape(()), "s")
        axis = {"axis": layer.channel_axis} if codes.scale.size > 1 else {}
        floats = _then(graph, node, names, "DequantizeLinear", weight, scales, **axis)
        if layer.turned:
            floats = _then(graph, node, names, "Transpose", floats, perm=[1, 0])
        node.replace_input_with(OPS[layer.op].weight, floats)
    return draft


def _products(draft: Draft) -> Iterator[tuple[Layer, ir.Node, LinearCodes]]:
    nodes = {str(node.name): node for node in draft.graph}
    for layer in layers(draft.quantized.model):
        codes = draft.quantized.weights.get(layer.weight)
        if layer.node in draft.quantized.dynamic and layer.geometry is None and isinstance(codes, LinearCodes):
            yield layer, nodes[layer.node], codes


def _then(
    graph: ir.Graph, before: ir.Node, names: Names, op: str, *inputs: ir.Value, **attributes: int | list[int]
) -> ir.Value:
    """What a new node gives."""
    node = ir.node(op, inputs, attributes=attributes)
    node.outputs[0].name = names.fresh("d")
    graph.insert_before(before, node)
    return node.outputs[0]
