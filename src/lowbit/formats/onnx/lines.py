"""Integer convolutions over lines [n, C, L], written as ones over images of height 1 for OpenVINO.

OpenVINO 2026.4 computes some of them wrongly where they have one dimension, without saying so: 16 channels, 8 weights
a channel and padding by 2 give answers that have nothing to do with the network's. The same convolution over images is
right. Unsqueeze and Squeeze move no values, and stored weights keep their shape.

Kernels compute many columns at once, so the line is a row. Between two convolutions it stays an image, and what they
read is rounded as an image: a small network for sound takes 0.4 of the time.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.graph.ops import layers

AXIS = 2  # that is added
# Operators that are written on the codes of what they give (`formats/onnx/integers.py`).
ON_CODES = ("Pad", "Relu", "Clip")


def write_lines_as_images(draft: Draft) -> Draft:
    """Rewrite the convolutions over lines that run in integers; what is new has codes too."""
    activations = dict(draft.activations)
    graph, names = draft.graph, draft.names
    lines = {layer.node for layer in layers(draft.quantized.model) if layer.op == "Conv" and len(layer.kernel) == 1}
    squeezes: set[ir.Node] = set()
    for node in tuple(graph):
        if node.name not in lines & draft.quantized.integer:
            continue
        (x, weight), output = node.inputs[:2], node.outputs[0]
        assert x is not None
        assert weight is not None
        axis = names.constant(np.array([AXIS]))
        wide, kernel = ir.node("Unsqueeze", [x, axis]), ir.node("Unsqueeze", [weight, axis])
        squeezed = ir.node("Squeeze", [output, axis])
        for made, kind in ((wide, "p"), (kernel, "w")):
            made.outputs[0].name, made.outputs[0].dtype = names.fresh(kind), ir.DataType.FLOAT
        before = x.producer()
        image = wide.outputs[0]
        if before is not None and before in squeezes and before.inputs[0] is not None:
            image = before.inputs[0]
        elif x.name in activations:  # what only moved may have none (`formats/onnx/openvino.py`)
            alone = {user for user, _ in x.uses()} == {node, wide} and not x.is_graph_output()
            on_codes = before is not None and before.op_type in ON_CODES
            codes = activations.pop(str(x.name)) if alone and not on_codes else activations[str(x.name)]
            activations[str(image.name)] = codes
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
        squeezes.add(squeezed)
        node.replace_input_with(0, image)
        node.replace_input_with(1, kernel.outputs[0])
        _widen(node)
        graph.insert_before(node, [wide, kernel])
        graph.insert_after(node, squeezed)
    return replace(draft, activations=activations)


def _widen(node: ir.Node) -> None:
    """Geometry of one more axis, with windows of one."""
    for name in ("kernel_shape", "strides", "dilations"):
        if name in node.attributes:
            node.attributes.add(ir.AttrInt64s(name, [1, *node.attributes.get_ints(name)]))
    if "pads" in node.attributes:
        before, after = node.attributes.get_ints("pads")
        node.attributes.add(ir.AttrInt64s("pads", [0, before, 0, after]))
