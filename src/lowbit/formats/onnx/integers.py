"""Integers as ONNX has them: QuantizeLinear/DequantizeLinear pairs around float operators.

Runtimes make integer kernels of what lies between: uint8 activations, int8 weights, int32 biases. Weights and biases
are in `formats/onnx/integer_weights.py`. For devices, and with 16 bits, activations are of other kinds
(`ActivationKind`), and nothing is written on codes alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.formats.quantized_graph import ActivationCodes, float_outputs

WIDE_OPSET = 21  # from which on QuantizeLinear gives 16 bits
CONTRIBUTED = "com.microsoft"  # whose operators of the same names do; ONNX Runtime and OpenVINO read them


def absorb_activations(draft: Draft) -> Draft:
    """Take out the activations that saturation replaces; their codes move to the tensor before them."""
    graph, floats, given = draft.graph, float_outputs(draft.quantized), draft.quantized.activations
    activations = {name: codes for name, codes in draft.activations.items() if name not in floats}
    for node in tuple(graph):
        if node.name not in draft.quantized.absorbed:
            continue
        before, after = node.inputs[0], node.outputs[0]
        name = str(after.name)
        if name in given and not given[name].kind.saturates:
            continue  # where codes reach below zero the compiler of the device makes one kernel of both
        assert before is not None
        codes = activations.pop(name, None)
        if after.is_graph_output():
            give_instead(graph, after, before)
        for user, index in tuple(after.uses()):
            user.replace_input_with(index, before)
        graph.remove(node, safe=True)
        after.name = None
        before.name = name
        if codes is not None:
            activations[name] = codes
    return replace(draft, activations=activations)


def write_conversions(draft: Draft) -> Draft:
    """QuantizeLinear and DequantizeLinear behind every tensor that runs in integers."""
    names = draft.names
    scales: dict[ActivationCodes, tuple[ir.Value, ir.Value]] = {}
    quantized: dict[str, ir.Value] = {}
    for value in _in_order(draft.graph, draft.activations):
        codes = draft.activations[str(value.name)]
        if codes not in scales:
            scales[codes] = names.constant(np.float32(codes.scale)), names.constant(codes.stored_zero_point)
        _insert_pair(draft, value, scales[codes], quantized)
    return draft


def _in_order(graph: ir.Graph, activations: Mapping[str, ActivationCodes]) -> list[ir.Value]:
    """The tensors to be quantized, inputs first, then in execution order."""
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return [value for value in values if value.name in activations]


def _insert_pair(
    draft: Draft, value: ir.Value, scale: tuple[ir.Value, ir.Value], quantized: dict[str, ir.Value]
) -> None:
    """Put QuantizeLinear and DequantizeLinear behind a tensor, and let its readers read what comes out.

    Nodes that compute in float read what such a node gives as it is: rounding gains them nothing, and a Div by what a
    Clip keeps above 0 must not divide by the code of 0.

    Args:
        draft: whose graph is changed.
        value: the tensor.
        scale: its scale and zero point.
        quantized: codes by tensor that has some; this one's are added.
    """
    graph, names, integer = draft.graph, draft.names, draft.quantized.integer
    producer = value.producer()
    name = str(value.name)
    on_codes = producer is not None and producer.name in integer and not draft.quantized.as_planned
    exact = _is_float(draft, name)
    domain = _domain(draft.model, scale[1])
    users = tuple((user, index) for user, index in value.uses() if not exact or user.name in integer)
    new = []
    if on_codes and producer is not None and producer.op_type == "Pad":
        # Padding moves codes only, but ONNX Runtime has no rule for it between a pair: write it on the codes.
        assert producer.inputs[0] is not None
        producer.replace_input_with(0, quantized[str(producer.inputs[0].name)])
        if len(producer.inputs) < 3:
            producer.resize_inputs(3)
        producer.replace_input_with(2, scale[1])
        value.dtype = ir.DataType.UINT8
        codes = value
    elif on_codes and producer is not None and producer.op_type in ("Relu", "Clip"):
        codes = _bounded(graph, producer, quantized, names, draft.quantized.activations[name])
    else:
        quantize = ir.node("QuantizeLinear", [value, *scale], domain=domain)
        codes = quantize.outputs[0]
        codes.name = names.fresh("q")
        new.append(quantize)
    dequantize = ir.node("DequantizeLinear", [codes, *scale], domain=domain)
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
        give_instead(graph, value, output)
        value.name, output.name = output.name, name
        quantized[name] = codes


def _domain(model: ir.Model, zero_point: ir.Value) -> str:
    """Where the operators that convert to this type are: before operator set 21 those of ONNX know no 16 bits."""
    wide = zero_point.dtype in (ir.DataType.INT16, ir.DataType.UINT16)
    if not wide or model.graph.opset_imports[""] >= WIDE_OPSET:
        return ""
    model.graph.opset_imports[CONTRIBUTED] = 1
    return CONTRIBUTED


def _is_float(draft: Draft, name: str) -> bool:
    """Whether a node of the model gives this tensor in float; tensors that were added come from integers."""
    value = draft.quantized.model.values.get(name)
    producer = value.producer() if value is not None else None
    return producer is not None and producer.name not in draft.quantized.integer | draft.quantized.absorbed


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
