"""Average pools whose one window is the whole image, as the operator for that.

Exporters that know the size of the image write a mean over it as an AveragePool of that size: squeeze-and-excitation in
TensorFlow's networks, the last pool of many others. Written as a pool over windows it is a convolution of ones in files
of integers, as large as the image in LiteRT's (a network that cuts people out: 566 kB in int8, where float takes 458).
"""

import onnx_ir as ir

from lowbit.graph.edit import is_standard


def write_whole_pools(model: ir.Model) -> None:
    """Let average pools over all that there is be GlobalAveragePool, in place."""
    for node in model.graph:
        if node.op_type == "AveragePool" and is_standard(node) and _takes_all(node):
            node.op_type = "GlobalAveragePool"
            node.attributes.clear()


def _takes_all(node: ir.Node) -> bool:
    attributes, given = node.attributes, node.inputs[0]
    if given is None or given.shape is None:
        return False
    padded = attributes.get_string("auto_pad", "NOTSET").startswith("SAME") or any(attributes.get_ints("pads", []))
    spread = any(step != 1 for step in attributes.get_ints("dilations", []))
    return not padded and not spread and list(given.shape[2:]) == list(attributes.get_ints("kernel_shape", []))
