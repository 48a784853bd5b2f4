"""Biases of integer convolutions, added by a node of their own for OpenVINO.

OpenVINO 2026.4 reads a Conv that has a bias as a Conv and an Add, and asks the Conv for its shape, to turn the bias
[C] into [1, C, 1, 1]. Where the batch is open and something else in the network needs its size (zeros that a GRU begins
with, Range, Expand), it takes this question, the first in the graph, for its answer. Then two read the convolution,
what is behind it is not computed in its kernel, and the bias is lost: a small network for text in images falls from
24 dB of output SQNR to 2. With the Add in the file the question is never asked, and a Shape of the network's own reads
what includes the bias. Elsewhere OpenVINO makes the same kernels of both, and the same bits.

A convolution without a bias that several nodes read gets one that changes nothing: where one of them multiplies or
subtracts a constant for each channel, OpenVINO computes that in the kernel and gives it to all (x tanh(f x): 0 dB).
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.graph.ops import layers

BIAS = 2  # the input
NEXT_TO_NOTHING = np.float32(1e-30)  # of a zero nothing is left
IMAGE = 2  # axes; convolutions over lines are written as ones over images


def write_separate_biases(draft: Draft) -> Draft:
    """Take the bias out of each convolution that runs in integers, and add it behind, or one of next to nothing."""
    graph, names = draft.graph, draft.names
    axes = {
        layer.node: max(IMAGE, len(layer.kernel))
        for layer in layers(draft.quantized.model)
        if layer.geometry is not None and layer.node in draft.quantized.integer
    }
    for node in tuple(graph):
        if node.name not in axes:
            continue
        output, bias = node.outputs[0], node.inputs[BIAS] if len(node.inputs) > BIAS else None
        if bias is None and len(output.uses()) < 2:
            continue
        column = _column(bias, axes[str(node.name)], names) if bias is not None else None
        added = column.outputs[0] if column is not None else names.constant(NEXT_TO_NOTHING)
        total = ir.node("Add", [output, added])
        result = total.outputs[0]
        for user, index in tuple(output.uses()):
            if user is not total:
                user.replace_input_with(index, result)
        if output.is_graph_output():
            give_instead(graph, output, result)
        result.shape, result.dtype, result.name = output.shape, ir.DataType.FLOAT, output.name
        # A runtime infers it: 40 bytes a layer.
        output.shape, output.type, output.name = None, None, names.fresh("p")
        node.resize_inputs(BIAS)
        graph.insert_after(node, [total] if column is None else [column, total])
    return draft


def _column(bias: ir.Value, axes: int, names: Names) -> ir.Node:
    """What gives a bias [C] as [1, C, 1, ...], with so many ones behind: its codes are stored so where they can be."""
    pair = bias.producer()
    codes = pair.inputs[0] if pair is not None and pair.op_type == "DequantizeLinear" else None
    if pair is None or codes is None or codes.const_value is None:
        node = ir.node("Unsqueeze", [bias, names.constant(np.array([0, *range(2, 2 + axes)]))])
    else:
        stored = codes.const_value.numpy().reshape(1, -1, *[1] * axes)
        node = ir.node("DequantizeLinear", [names.constant(stored, "b"), *pair.inputs[1:]])
    node.outputs[0].name, node.outputs[0].dtype = names.fresh("d"), ir.DataType.FLOAT
    return node
