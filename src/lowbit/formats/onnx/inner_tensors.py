"""Another tool's ONNX file, looked into: every tensor inside it as an output, codes as the numbers they stand for.

Tensors that runtimes keep as integers get a DequantizeLinear of their own: those of QLinearConv and its like by the
scale and zero point that the operator itself names, those that only move values by what they move. That takes from a
runtime the chance to fuse operators across them, so what it computes is what the file says.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

from lowbit.formats.onnx.read import computed_values, layer_weights
from lowbit.formats.onnx.stored import StoredGraph
from lowbit.graph.load import read_proto

Array = np.ndarray[Any, np.dtype[Any]]
READ = "read from "
# Operator -> where its output's scale and zero point stand among its inputs.
OUTPUT_CODES = {
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearSigmoid": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QLinearReduceMean": (3, 4),
    "QLinearConcat": (0, 1),
    "QuantizeLinear": (1, 2),
}
# Operator -> its weight, with scale and zero point, among its inputs; and the axis of its output channels.
WEIGHT_CODES = {"QLinearConv": (3, 4, 5, 0), "QLinearMatMul": (3, 4, 5, 1), "QGemm": (3, 4, 5, 1)}
MOVING = frozenset(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Identity"))


def with_inner_tensors(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """The file with every tensor of its main graph among its outputs, and their names there in execution order.

    Of tensors that are no floats only those have sense whose codes are known: they are called `READ` and their name, or
    that of the float tensor which becomes codes, since that is what others read of it.

    Raises:
        ModelError: not an ONNX file.
    """
    proto = read_proto(path)
    graph, stored = proto.graph, StoredGraph(proto.graph)
    codes: dict[str, NodeProto] = {}
    names: list[str] = []
    for node in list(graph.node):
        outputs = [name for name in node.output if name and name not in stored.producers and name not in stored.tensors]
        if not outputs:
            continue
        reading = _dequantizing(node, codes, stored)
        if reading is not None:
            if node.op_type == "QuantizeLinear" and READ + node.input[0] not in names:
                reading.output[0] = reading.name = READ + node.input[0]
            codes[node.output[0]] = reading
            graph.node.append(reading)
            outputs.append(reading.output[0])
        names += outputs
    given = {value.name for value in graph.output}
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    return proto.SerializeToString(), tuple(names)


def _dequantizing(node: NodeProto, codes: dict[str, NodeProto], stored: StoredGraph) -> NodeProto | None:
    """The node that reads what another gives as the numbers that its codes stand for; None if they are not known."""
    if node.op_type in MOVING and node.input and node.input[0] in codes:
        before = codes[node.input[0]]
        parameters, domain = list(before.input[1:]), before.domain
    elif node.op_type in OUTPUT_CODES:
        parameters = [node.input[place] for place in OUTPUT_CODES[node.op_type] if place < len(node.input)]
        domain = node.domain if node.op_type == "QuantizeLinear" else ""
    else:
        return None
    if not parameters or parameters[0] not in stored.tensors or math.prod(stored.tensors[parameters[0]].dims) != 1:
        return None
    name = READ + node.output[0]
    inputs = [node.output[0], *filter(None, parameters)]
    return helper.make_node("DequantizeLinear", inputs, [name], name=name, domain=domain)


def decoded_weights(path: Path) -> dict[str, Array]:
    """The float weight of every layer of an ONNX file of any tool by the name of its node.

    Those of QLinearConv and its like are decoded here, all others by the runtime (`layer_weights`).

    Raises:
        ModelError: not an ONNX file.
        EngineError: the runtime cannot compute them.
    """
    proto = read_proto(path)
    stored = StoredGraph(proto.graph)
    return {**layer_weights(path), **dict(_integer_weights(proto, stored))}


def _integer_weights(proto: onnx.ModelProto, stored: StoredGraph) -> Iterator[tuple[str, Array]]:
    known = stored.tensors.keys() | stored.producers.keys()
    for node in stored.nodes:
        places = WEIGHT_CODES.get(node.op_type)
        if places is None or places[1] >= len(node.input):
            continue
        *inputs, axis = places
        names = [node.input[place] for place in inputs if place < len(node.input) and node.input[place]]
        if len(names) < 2 or not known.issuperset(names):
            continue
        values = {name: onnx.numpy_helper.to_array(stored.tensors[name]) for name in names if name in stored.tensors}
        computed = [name for name in names if name not in values]
        values |= computed_values(proto, stored, computed) if computed else {}
        weight, scale, *zero = (values[name].astype(np.float32) for name in names)
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        shape = [1] * weight.ndim
        shape[0 if turned else min(axis, weight.ndim - 1)] = -1
        yield node.name, (weight - (zero[0].reshape(shape) if zero else 0)) * scale.reshape(shape)
