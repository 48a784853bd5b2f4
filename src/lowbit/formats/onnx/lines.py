"""Integer convolutions over lines [n, C, L], written as ones over images of width 1 for OpenVINO.

OpenVINO 2026.4 computes some of them wrongly where they have one dimension, without saying so: 16 channels, 8 weights
a channel and padding by 2 give answers that have nothing to do with the network's. The same convolution over images is
right. Unsqueeze and Squeeze move no values, and stored weights keep their shape.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.graph.ops import layers

RANK = 3  # of lines


def write_lines_as_images(draft: Draft) -> Draft:
    """Rewrite the convolutions over lines that run in integers; what is new has codes too."""
    activations = dict(draft.activations)
    graph, names = draft.graph, draft.names
    lines = {layer.node for layer in layers(draft.quantized.model) if layer.op == "Conv" and len(layer.kernel) == 1}
    for node in tuple(graph):
        if node.name not in lines & draft.quantized.integer:
            continue
        (x, weight), output = node.inputs[:2], node.outputs[0]
        assert x is not None
        assert weight is not None
        axis = names.constant(np.array([RANK]))
        wide, kernel = ir.node("Unsqueeze", [x, axis]), ir.node("Unsqueeze", [weight, axis])
        squeezed = ir.node("Squeeze", [output, axis])
        for made, kind in ((wide, "p"), (kernel, "w")):
            made.outputs[0].name, made.outputs[0].dtype = names.fresh(kind), ir.DataType.FLOAT
        if x.name in activations:  # what only moved may have none (`formats/onnx/openvino.py`)
            activations[str(wide.outputs[0].name)] = activations[str(x.name)]
        result = squeezed.outputs[0]
        result.shape, result.dtype = output.shape, ir.DataType.FLOAT
        for user, index in tuple(output.uses()):
            if user is not squeezed:
                user.replace_input_with(index, result)
        if output.is_graph_output():
            give_instead(graph, output, result)
        result.name, output.name, output.shape = output.name, names.fresh("p"), None
        if result.name in activations:
            activations[str(output.name)] = activations[result.name]
        node.replace_input_with(0, wide.outputs[0])
        node.replace_input_with(1, kernel.outputs[0])
        _widen(node)
        graph.insert_before(node, [wide, kernel])
        graph.insert_after(node, squeezed)
    return replace(draft, activations=activations)


def _widen(node: ir.Node) -> None:
    """Geometry of one more axis, with windows of one."""
    for name in ("kernel_shape", "strides", "dilations"):
        if name in node.attributes:
            node.attributes.add(ir.AttrInt64s(name, [*node.attributes.get_ints(name), 1]))
    if "pads" in node.attributes:
        before, after = node.attributes.get_ints("pads")
        node.attributes.add(ir.AttrInt64s("pads", [before, 0, after, 0]))
