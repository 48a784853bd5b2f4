"""Grouped convolutions with more channels in a group, for ONNX Runtime's integer kernel.

The kernel copies the inputs of each group to columns and multiplies them by a matrix of its own: with few channels in
a group most of its time is the copying, and the float kernel is faster. With several groups in one, whose weights are
zero where they do not belong to one of the old groups, the answers are the same, bit for bit. On 20 shapes of kernels 1
to 5 over lines, images and volumes (ONNX Runtime 1.32, one thread) groups of 4 channels took 0.33 to 0.52 of their time
as groups of 16, groups of 2 took 0.21, and groups of one that give two outputs 0.13; as groups of 32 hardly less, for
twice as many products.

The weight stays as it is in the file; nodes that runtimes compute while loading spread it out. Depthwise convolutions
that give one output for each channel have a kernel of their own.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx import NodeProto

from lowbit.formats.names import Names
from lowbit.formats.onnx.draft import Draft
from lowbit.graph.ops import layers

WIDTH = 16  # channels that a group reads at least
SPREAD = ("Reshape", "Cast", "Mul", "Cast", "Reshape")  # what spreads a weight out


def write_wider_groups(draft: Draft) -> Draft:
    """Merge neighboring groups of convolutions that run in integers.

    All DequantizeLinear nodes must be in place.
    """
    graph, integer, names = draft.graph, draft.quantized.integer, draft.names
    grouped = {layer.node: layer for layer in layers(draft.quantized.model) if layer.op == "Conv" and layer.groups > 1}
    for node in tuple(graph):
        if node.name not in grouped or node.name not in integer:
            continue
        layer = grouped[node.name]
        outputs, inputs = layer.weight_shape[0] // layer.groups, layer.weight_shape[1]
        merged = _merged(layer.groups, outputs, inputs)
        pair = node.inputs[1].producer() if node.inputs[1] is not None else None
        if merged == 1 or pair is None or pair.op_type != "DequantizeLinear" or pair.inputs[0] is None:
            continue
        nodes = _spread(pair.inputs[0], layer.weight_shape, layer.groups, merged, names)
        own = ir.node("DequantizeLinear", [nodes[-1].outputs[0], *pair.inputs[1:]], attributes=pair.attributes)
        own.outputs[0].name = names.fresh("d")
        graph.insert_before(node, [*nodes, own])
        node.replace_input_with(1, own.outputs[0])
        node.attributes.add(ir.AttrInt64("group", layer.groups // merged))
    return draft


def _merged(groups: int, outputs: int, inputs: int) -> int:
    """How many groups become one: the fewest that read `WIDTH` channels, all if they read less."""
    if inputs == outputs == 1:
        return 1
    return next((count for count in range(1, groups) if groups % count == 0 and count * inputs >= WIDTH), groups)


def _spread(codes: ir.Value, shape: tuple[int, ...], groups: int, merged: int, names: Names) -> list[ir.Node]:
    """Nodes from codes [outputs, inputs, kernel...] to [outputs, merged inputs, kernel...], zero between old groups.

    As [new groups, old ones in each, outputs, 1, inputs and kernel] times a one where an old group meets itself. Not
    every runtime multiplies bytes.
    """
    apart = names.constant(np.array([groups // merged, merged, shape[0] // groups, 1, -1]))
    together = names.constant(np.array([shape[0], merged * shape[1], *shape[2:]]))
    itself = names.constant(np.eye(merged, dtype=np.int32)[:, None, :, None])
    nodes = [ir.node("Reshape", [codes, apart])]
    nodes.append(ir.node("Cast", [nodes[-1].outputs[0]], {"to": ir.DataType.INT32}))
    nodes.append(ir.node("Mul", [nodes[-1].outputs[0], itself]))
    nodes.append(ir.node("Cast", [nodes[-1].outputs[0]], {"to": ir.DataType.INT8}))
    nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], together]))
    for node in nodes:
        node.outputs[0].name = names.fresh("g")
    return nodes


def narrow_again(producers: Mapping[str, NodeProto]) -> dict[str, str]:
    """The codes that `write_wider_groups` spread out, by the name of what it made of them."""
    found = {}
    for name in producers:
        source = name
        for op in reversed(SPREAD):
            node = producers.get(source)
            if node is None or node.op_type != op:
                break
            source = node.input[0]
        else:
            found[name] = source
    return found
