"""Convolutions over volumes that read few channels compute in float in ONNX Runtime's file.

Its integer kernel (1.32) copies single bytes where volumes have few channels: from one channel, as scans have, a kernel
of 3x3x3 takes 5 to 7 times as long as in float, from four 2 to 2.7 times, from eight 1.1 to 1.4, from sixteen 0.7. Only
layers that read the network's input are left in float: behind others the conversions would cost more. Their weight
keeps its codes and its bytes.
"""

import math
from dataclasses import replace

from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.ops import layers

AXES = 3
CHANNELS = 8  # that a group reads at most


def with_float_volumes(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same codes, with first layers over volumes in float."""
    inputs = {str(value.name) for value in quantized.model.graph.inputs}
    slow = [
        layer
        for layer in layers(quantized.model)
        if layer.op == "Conv"
        and layer.node in quantized.integer
        and layer.input in inputs
        and len(layer.kernel) == AXES
        and math.prod(layer.kernel) > 1
        and layer.weight_shape[1] <= CHANNELS
        and (layer.bias is not None or layer.node not in quantized.biases)
    ]
    if not slow or quantized.byte_input is not None:
        return quantized
    integer = quantized.integer - {layer.node for layer in slow}
    read = {str(value.name) for node in quantized.model.graph if node.name in integer for value in node.inputs if value}
    biases = dict(quantized.biases)
    floats = dict(quantized.float_values)
    for layer in slow:
        bias = biases.pop(layer.node, None)
        if layer.bias is not None and bias is not None:
            floats[layer.bias] = bias.decode()
    unread = {layer.input for layer in slow} - read
    activations = {name: codes for name, codes in quantized.activations.items() if name not in unread}
    return replace(quantized, integer=integer, biases=biases, float_values=floats, activations=activations)
