"""Integer convolutions over lines [n, C, L], written as ones over images of height 1 for OpenVINO.

OpenVINO 2026.4 computes some of them wrongly where they have one dimension, without saying so: 16 channels, 8 weights
a channel and padding by 2 give answers that have nothing to do with the network's. The same convolution over images is
right. Unsqueeze and Squeeze move no values, and stored weights keep their shape.

Kernels compute many columns at once, so the line is a row. Between two convolutions it stays an image, be there
a function of single values between them, and what they read is rounded as an image: a small network for sound takes
0.4 of the time, a U-Net over waves 0.75.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.graph.ops import layers

AXIS = 2  # that is added
# Operators that take any shape and make each value of the one at its place.
FUNCTIONS = ("Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Sigmoid", "Softplus", "Tanh")
# Attributes with a value for each axis, and what the added one has.
WIDENED = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
# Operators that are written on the codes of what they give (`formats/onnx/integers.py`).
ON_CODES = ("Pad", "Relu", "Clip")


def write_lines_as_images(draft: Draft) -> Draft:
    """Rewrite the convolutions over lines that run in integers; what is new has codes too."""
    activations = dict(draft.activations)
    graph, names = draft.graph, draft.names
    lines = {layer.node for layer in layers(draft.quantized.model) if len(layer.kernel) == 1}
    squeezes: set[ir.Node] = set()
    for node in tuple(graph):
        if node.name not in lines & draft.quantized.integer:
            continue
        (x, weight), output = node.inputs[:2], node.outputs[0]
        assert x is not None
        assert weight is not None
        axis = names.constant(np.array([AXIS]))
        image = _image(x, squeezes)
        if image is None:
            wide = _unsqueezed(x, axis, names.fresh("p"))
            image = wide.outputs[0]
            graph.insert_before(node, wide)
            if x.name in activations:  # what only moved may have none (`formats/onnx/openvino.py`)
                before = x.producer()
                alone = {user for user, _ in x.uses()} == {node, wide} and not x.is_graph_output()
                on_codes = before is not None and before.op_type in ON_CODES
                codes = activations.pop(str(x.name)) if alone and not on_codes else activations[str(x.name)]
                activations[str(image.name)] = codes
        kernel = _unsqueezed(weight, axis, names.fresh("w"))
        squeezed = ir.node("Squeeze", [output, axis])
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
        graph.insert_before(node, kernel)
        graph.insert_after(node, squeezed)
    return replace(draft, activations=activations)


def _unsqueezed(value: ir.Value, axis: ir.Value, name: str) -> ir.Node:
    """A tensor with one more axis."""
    node = ir.node("Unsqueeze", [value, axis])
    node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
    return node


def _image(line: ir.Value, squeezes: set[ir.Node]) -> ir.Value | None:
    """The image that a line was made of, be it through functions that nothing else reads: they then take the image."""
    functions: list[ir.Node] = []
    value, node = line, line.producer()
    while node is not None and node.op_type in FUNCTIONS and len(value.uses()) == 1 and not value.is_graph_output():
        functions.append(node)
        assert node.inputs[0] is not None
        value, node = node.inputs[0], node.inputs[0].producer()
    if node is None or node not in squeezes:
        return None
    if not functions:
        return node.inputs[0]
    functions[-1].replace_input_with(0, node.inputs[0])
    for function in functions:
        function.outputs[0].shape = None
    return line


def _widen(node: ir.Node) -> None:
    """Geometry of one more axis, with windows of one."""
    for name, value in WIDENED.items():
        if name in node.attributes:
            node.attributes.add(ir.AttrInt64s(name, [value, *node.attributes.get_ints(name)]))
    if "pads" in node.attributes:
        before, after = node.attributes.get_ints("pads")
        node.attributes.add(ir.AttrInt64s("pads", [0, before, 0, after]))
