"""QuantizedGraph -> ONNX: standard operators only, so that any runtime loads the file.

Weight-only tensors become a few constant nodes that runtimes fold once at load (`formats/onnx/decode_nodes.py`).
Integer models become QuantizeLinear/DequantizeLinear pairs around float operators, the form from which ONNX Runtime and
OpenVINO make integer kernels: uint8 activations, int8 weights, int32 biases. Where the two like different graphs, the
file is made for one of them (`formats/onnx/openvino.py`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lowbit.formats.input_bytes import byte_metadata
from lowbit.formats.names import Names
from lowbit.formats.onnx.averages import write_averages
from lowbit.formats.onnx.byte_input import write_byte_input
from lowbit.formats.onnx.channel_padding import widen_first_layers
from lowbit.formats.onnx.decode_nodes import HALF_FROM, decoded, halved, held_by_half, scale_table
from lowbit.formats.onnx.openvino import for_openvino
from lowbit.formats.onnx.zero_points import without_zero_points
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph, float_outputs
from lowbit.graph.model import serialize
from lowbit.graph.ops import layers
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.schemes.linear import LinearCodes

Array = np.ndarray[Any, np.dtype[Any]]


def to_onnx(encoded: QuantizedGraph, *, to: str = "onnx") -> bytes:
    """The content of the ONNX file; the same input always gives the same bytes.

    Args:
        encoded: what to write.
        to: whose kernels the graph of integers is made for: "onnx", those of ONNX Runtime, or "openvino".

    Raises:
        ModelError: the file would pass the 2 GB that protobuf allows.
    """
    encoded = without_zero_points(encoded)
    if to == "openvino":
        encoded = for_openvino(encoded)
    model = encoded.model.copy()
    names = Names(model.graph)
    for name, array in encoded.floats.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    if encoded.integer:
        _write_integer(model.graph, encoded, names)
        if to != "openvino":
            widen_first_layers(model.graph, encoded.integer, names)
    else:
        table = scale_table(encoded.weights.values())
        for name, codes in encoded.weights.items():
            value = model.graph.initializers[name]
            _replace_initializer(model.graph, value, decoded(codes, model.graph, names, table))
        for name, array in encoded.floats.items():
            if array.size >= HALF_FROM and held_by_half(array):
                _replace_initializer(model.graph, model.graph.initializers[name], halved(array, model.graph, names))
    model.metadata_props.update(encoded.metadata)
    if encoded.model.preprocessing is not None:
        # Stated by the user or by the model: the file shall say so too, then nobody has to state it again.
        model.metadata_props[METADATA_KEY] = encoded.model.preprocessing.to_json()
    if encoded.byte_input is not None:
        write_byte_input(model.graph, encoded.byte_input, names)
        model.metadata_props.update(byte_metadata(encoded.byte_input))
    _drop_unused(model.graph)
    return serialize(ir.to_proto(model), encoded.model.source)


def _replace_initializer(graph: ir.Graph, value: ir.Value, replacement: ir.Value) -> None:
    """Let `replacement` take over all uses and the name of an initializer, which leaves the graph."""
    for user, index in tuple(value.uses()):
        user.replace_input_with(index, replacement)
    name = str(value.name)
    del graph.initializers[name]
    value.name = None
    replacement.name = name


def _write_integer(graph: ir.Graph, encoded: QuantizedGraph, names: Names) -> None:
    activations = _absorb(graph, encoded)
    activations = write_averages(graph, encoded, activations, names)
    _write_weights(graph, encoded, names)
    scales: dict[ActivationCodes, tuple[ir.Value, ir.Value]] = {}
    quantized: dict[str, ir.Value] = {}
    for value in _in_order(graph, activations):
        name = str(value.name)
        codes = activations[name]
        if codes not in scales:
            scales[codes] = (
                names.constant(np.float32(codes.scale)),
                names.constant(np.uint8(codes.zero_point)),
            )
        _insert_pair(graph, value, scales[codes], quantized, names, encoded)


def _absorb(graph: ir.Graph, encoded: QuantizedGraph) -> dict[str, ActivationCodes]:
    """Take out the activations that saturation replaces; their codes move to the tensor before them."""
    floats = float_outputs(encoded)
    activations = {name: codes for name, codes in encoded.activations.items() if name not in floats}
    for node in tuple(graph):
        if node.name not in encoded.absorbed:
            continue
        before, after = node.inputs[0], node.outputs[0]
        assert before is not None
        name = str(after.name)
        codes = activations.pop(name, None)
        if after.is_graph_output():
            graph.outputs[list(graph.outputs).index(after)] = before
        for user, index in tuple(after.uses()):
            user.replace_input_with(index, before)
        graph.remove(node, safe=True)
        after.name = None
        before.name = name
        if codes is not None:
            activations[name] = codes
    return activations


def _write_weights(graph: ir.Graph, encoded: QuantizedGraph, names: Names) -> None:
    nodes = {str(node.name): node for node in graph}
    shared: dict[str, ir.Value] = {}
    for layer in layers(encoded.model):
        if layer.node not in encoded.integer:
            continue
        node = nodes[layer.node]
        codes = encoded.weights[layer.weight]
        assert isinstance(codes, LinearCodes)
        index = next(i for i, value in enumerate(node.inputs) if value is not None and value.name == layer.weight)
        if layer.weight not in shared:
            per_channel = codes.scale.size > 1
            shared[layer.weight] = names.constant(codes.codes.astype(np.int8), "w")
            shared[layer.weight + "/scale"] = names.constant(
                codes.scale.reshape(-1) if per_channel else codes.scale.reshape(()), "s"
            )
        node.replace_input_with(
            index,
            _dequantized(
                graph, node, shared[layer.weight], shared[layer.weight + "/scale"], names, axis=layer.channel_axis
            ),
        )
        if layer.node not in encoded.biases or layer.bias is None:
            continue
        bias = encoded.biases[layer.node]
        index = next(i for i, value in enumerate(node.inputs) if value is not None and value.name == layer.bias)
        scale = bias.scale.reshape(-1) if bias.scale.size > 1 else bias.scale.reshape(())
        value = _dequantized(graph, node, names.constant(bias.codes, "b"), names.constant(scale, "s"), names, axis=0)
        node.replace_input_with(index, value)


def _dequantized(
    graph: ir.Graph, before: ir.Node, codes: ir.Value, scale: ir.Value, names: Names, *, axis: int
) -> ir.Value:
    channels = scale.const_value.numpy().shape if scale.const_value is not None else ()
    inputs = [codes, scale]
    if before.op_type in ("Gemm", "MatMul") and codes.const_value is not None:
        # The zero point may be left out by the standard, but then ONNX Runtime makes no integer product.
        inputs.append(names.constant(np.zeros(channels, codes.const_value.numpy().dtype)))
    node = ir.node("DequantizeLinear", inputs, attributes={"axis": axis} if channels else {})
    node.outputs[0].name = names.fresh("d")
    graph.insert_before(before, node)
    return node.outputs[0]


def _in_order(graph: ir.Graph, activations: Mapping[str, ActivationCodes]) -> list[ir.Value]:
    """The tensors to be quantized, inputs first, then in execution order."""
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return [value for value in values if value.name in activations]


def _insert_pair(
    graph: ir.Graph,
    value: ir.Value,
    scale: tuple[ir.Value, ir.Value],
    quantized: dict[str, ir.Value],
    names: Names,
    encoded: QuantizedGraph,
) -> None:
    """Put QuantizeLinear and DequantizeLinear behind a tensor, and let all its readers read what comes out."""
    producer = value.producer()
    name = str(value.name)
    users = tuple(value.uses())
    new = []
    if producer is not None and producer.op_type == "Pad" and producer.name in encoded.integer:
        # Padding moves codes only, but ONNX Runtime has no rule for it between a pair: write it on the codes.
        assert producer.inputs[0] is not None
        producer.replace_input_with(0, quantized[str(producer.inputs[0].name)])
        if len(producer.inputs) < 3:
            producer.resize_inputs(3)
        producer.replace_input_with(2, scale[1])
        value.dtype = ir.DataType.UINT8
        codes = value
    elif producer is not None and producer.op_type in ("Relu", "Clip") and producer.name in encoded.integer:
        codes = _bounded(graph, producer, quantized, names, encoded.activations[name])
    else:
        quantize = ir.node("QuantizeLinear", [value, *scale])
        codes = quantize.outputs[0]
        codes.name = names.fresh("q")
        new.append(quantize)
    dequantize = ir.node("DequantizeLinear", [codes, *scale])
    output = dequantize.outputs[0]
    output.shape, output.dtype = value.shape, ir.DataType.FLOAT
    output.name = names.fresh("d")
    new.append(dequantize)
    if producer is None:
        graph.insert_before(graph[0], new)
    else:
        graph.insert_after(producer, new)
    quantized[str(output.name)] = codes
    for user, index in users:
        user.replace_input_with(index, output)
    if value.is_graph_output():
        graph.outputs[list(graph.outputs).index(value)] = output
        value.name, output.name = output.name, name
        quantized[name] = codes


def _bounded(
    graph: ir.Graph, node: ir.Node, quantized: dict[str, ir.Value], names: Names, scale: ActivationCodes
) -> ir.Value:
    """Relu or Clip as a Clip of codes: rounding keeps order, so that bounds round like values do."""
    bounds: list[float | None] = [0.0, None]
    if node.op_type == "Clip":
        given = [*node.inputs[1:], None, None][:2]
        bounds = [
            None if bound is None or bound.const_value is None else bound.const_value.numpy().item() for bound in given
        ]
    limits = [
        default if bound is None else int(np.clip(np.rint(bound / scale.scale) + scale.zero_point, 0, 255))
        for bound, default in zip(bounds, (0, 255), strict=True)
    ]
    assert node.inputs[0] is not None
    codes = quantized[str(node.inputs[0].name)]
    clip = ir.node("Clip", [codes, *(names.constant(np.uint8(limit)) for limit in limits)], name=f"{node.name}.codes")
    clip.outputs[0].name = names.fresh("q")
    clip.outputs[0].dtype, clip.outputs[0].shape = ir.DataType.UINT8, node.outputs[0].shape
    graph.insert_after(node, clip)
    return clip.outputs[0]


def _drop_unused(graph: ir.Graph) -> None:
    """Nodes and initializers that nothing reads any more."""
    for node in reversed(tuple(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
