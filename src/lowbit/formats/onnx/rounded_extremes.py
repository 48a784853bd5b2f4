"""Greatest and least values that are rounded next, kept apart from their rounding for OpenVINO.

OpenVINO 2026.4 computes a QuantizeLinear inside the ReduceMax, ReduceMin or GlobalMaxPool of floats in front of it, and
gets it wrong: maxima come out in steps of 31 codes, minima as 0 (a network over traffic counts falls from 41.7 dB of
output SQNR to 30.5). A Max with minus infinity between the two changes no value, and the rounding is right behind it.
The other reductions and pools, and maxima of codes, are right as they are.
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft

EXTREMES = ("ReduceMax", "ReduceMin", "GlobalMaxPool")


def write_rounded_extremes(draft: Draft) -> Draft:
    """Put a Max that changes nothing between a greatest or least value of floats and its QuantizeLinear."""
    graph, names = draft.graph, draft.names
    for node in tuple(graph):
        producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if node.op_type not in EXTREMES or (producer is not None and producer.op_type == "DequantizeLinear"):
            continue
        output = node.outputs[0]
        rounded = [(user, index) for user, index in output.uses() if user.op_type == "QuantizeLinear" and index == 0]
        if not rounded:
            continue
        apart = ir.node("Max", [output, names.constant(np.array(-np.inf, np.float32))])
        same = apart.outputs[0]
        same.shape, same.type, same.name = output.shape, output.type, names.fresh("m")
        for user, index in rounded:
            user.replace_input_with(index, same)
        graph.insert_after(node, apart)
    return draft
