"""LiteRT files that take image bytes, channels-last: the same folding as in ONNX files (`lowbit.formats.input_bytes`).

The bytes become int8 codes by a QUANTIZE that only subtracts 128, PADV2 appends the channel that is constant inside the
image, and the first convolution reads four channels. Models whose input is read by anything else get DEQUANTIZE, MUL
and ADD in front, and compute as from a float input.
"""

import numpy as np
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.formats.encoded import ActivationCodes, ByteInput, Encoded
from lowbit.formats.litert_graph import CHANNELS_LAST, SHIFT, FileGraph, Form, Order
from lowbit.formats.litert_window import pad
from lowbit.graph.edit import set_weight
from lowbit.graph.model import Model, Value

LAYOUT = "NHWC"


def for_bytes(encoded: Encoded) -> Encoded:
    """The model whose convolutions read all channels of the byte input; as it is if none of them folds it in.

    Raises:
        ModelError: channels-first bytes, which LiteRT does not compute with.
    """
    given = encoded.byte_input
    if given is None:
        return encoded
    if given.layout != LAYOUT:
        raise ModelError(
            "LiteRT files take images channels-last.",
            where=encoded.model.source,
            remedy="Leave --input-layout out, or write an ONNX file.",
        )
    if not given.layers:
        return encoded
    old = encoded.model
    copy = ir.from_proto(old.to_proto())
    image = copy.graph.inputs[0]
    how = given.preprocessing
    batch = image.shape[0] if image.shape is not None else None
    image.shape = ir.Shape([batch, _channels(given), how.height, how.width])
    weights, biases = dict(encoded.weights), dict(encoded.biases)
    for node in copy.graph:
        layer = given.layers.get(str(node.name))
        if layer is not None:
            set_weight(copy.graph, node, 1, layer.weight.decode(), wanted=f"{node.name}.bytes")
            weights[str(node.inputs[1].name if node.inputs[1] is not None else "")] = layer.weight
            biases[str(node.name)] = layer.bias
    activations = {**encoded.activations, old.input.name: ActivationCodes(1.0, given.zero_point)}
    model = Model(copy, old.trained_parameters, old.preprocessing, old.source)
    floats = {name: array for name, array in encoded.floats.items() if name in copy.graph.initializers}
    return Encoded(
        model,
        weights=weights,
        activations=activations,
        biases=biases,
        integer=encoded.integer,
        absorbed=encoded.absorbed,
        floats=floats,
        metadata=encoded.metadata,
        byte_input=given,
    )


def write_bytes(graph: FileGraph, value: Value, order: Order) -> int:
    """Index of the input tensor, uint8 [N, H, W, colors]; what reads it finds the model's own input after it."""
    given = graph.encoded.byte_input
    assert given is not None
    name, how = str(value.name), given.preprocessing
    batch = graph.batch_place(name, order)
    shape = [graph.shape(name)[0], *how.image_shape]
    codes = ActivationCodes(1.0, given.zero_point)
    outside = graph.tensor(shape, codes=codes, name=name, batch_axis=batch, dtype="uint8")
    if given.layers:
        inside = graph.tensor(shape, codes=codes, batch_axis=batch)
        graph.operator("QUANTIZE", [outside], [inside], version=2)
        more = _channels(given) - how.channels
        amounts = [(0, 0), (0, 0), (0, 0), (0, more)]
        graph.adopt(name, pad(graph, Form(inside, CHANNELS_LAST, codes), amounts, code=given.fill - SHIFT))
        return outside
    # x = ((p - z) scale - mean) / std with z = 0
    std = np.asarray(how.std, np.float64)
    factor = (how.scale / std).astype(np.float32)
    offset = (-np.asarray(how.mean, np.float64) / std).astype(np.float32)
    floats = graph.tensor(shape, batch_axis=batch)
    graph.operator("DEQUANTIZE", [outside], [floats])
    scaled, moved = graph.tensor(shape, batch_axis=batch), graph.tensor(shape, batch_axis=batch)
    graph.operator("MUL", [floats, graph.constant(factor)], [scaled])
    graph.operator("ADD", [scaled, graph.constant(offset)], [moved])
    graph.adopt(name, Form(moved, order))
    return outside


def _channels(given: ByteInput) -> int:
    return int(next(iter(given.layers.values())).weight.codes.shape[1])
