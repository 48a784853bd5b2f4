"""float16, bfloat16 and float64 networks become float32, and the graph notes what they were (`graph.precision`)."""

from collections import Counter

import numpy as np
import onnx_ir as ir

from lowbit.graph.precision import FLOAT, IN_FLOAT32, NAMES, NOTE, Precision
from lowbit.graph.weights import MOVING, WEIGHT_INPUTS

TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def to_float32(model: ir.Model) -> None:
    """Turn a float16, bfloat16 or float64 network into float32, inputs and outputs included, in place.

    What it was is noted in the graph's `meta`. float64 constants in a float32 network (shape arithmetic of some
    exporters) stay as they are.
    """
    read = {"BatchNormalization": (1, 2), **WEIGHT_INPUTS}
    weights = Counter(
        kind
        for node in model.graph.all_nodes()
        for index in read.get(node.op_type, ())
        if index < len(node.inputs) and (kind := _type_of_weight(node.inputs[index])) in NAMES
    )
    # A network may compute in float32 between ends of half precision, as files of lowbit do.
    narrow = {value.dtype for value in _ends(model.graph)} & {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    replaced = (set(weights) - {FLOAT}) | narrow
    if not replaced:
        return
    _note(model, weights.most_common(1)[0][0] if weights else FLOAT, replaced)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in (*graph.inputs, *graph.initializers.values()):
            _convert_value(value, replaced)
    for node in model.graph.all_nodes():
        for output in node.outputs:
            _convert_value(output, replaced)
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in replaced:
                node.attributes[name] = ir.AttrTensor(name, _float32(attribute.as_tensor()))
            elif name in TYPE_ATTRIBUTES and attribute.value in {int(kind) for kind in replaced if kind is not None}:
                node.attributes[name] = ir.AttrInt64(name, int(FLOAT))


def _type_of_weight(value: ir.Value | None) -> ir.DataType | None:
    """The type of a constant array, also behind what only moves it or gives it another type; None for others."""
    while value is not None and (maker := value.producer()) is not None and maker.op_type in MOVING - {"Cast"}:
        value = maker.inputs[0]
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Cast":
        return ir.DataType(maker.attributes.get_int("to", 1))
    attribute = maker.attributes.get("value") if maker is not None and maker.op_type == "Constant" else None
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol | None = attribute.as_tensor()
    else:
        tensor = value.const_value if value is not None and value.is_initializer() else None
    return tensor.dtype if tensor is not None and len(tensor.shape) > 0 else None


def _note(model: ir.Model, kind: ir.DataType | None, replaced: set[ir.DataType | None]) -> None:
    """Note on the graph what the network is, and on nodes that they computed in float32 between others."""
    graph = model.graph
    ends = {str(value.name): NAMES[value.dtype] for value in _ends(graph) if value.dtype in replaced}
    exact = {
        name: value.const_value.numpy()
        for name, value in graph.initializers.items()
        if kind == ir.DataType.DOUBLE and value.const_value is not None and value.const_value.dtype == kind
    }
    graph.meta[NOTE] = Precision(NAMES[kind], ends, exact)
    types: dict[ir.Value, ir.DataType | None] = {}
    for node in graph:
        given = [types.get(value, value.dtype) for value in node.inputs if value is not None]
        if FLOAT in given and kind not in given:
            node.meta[IN_FLOAT32] = True
        result = next((one for one in given if one in NAMES), None)
        for attribute in TYPE_ATTRIBUTES:
            if attribute in node.attributes:
                result = ir.DataType(node.attributes.get_int(attribute, int(FLOAT)))
        held = node.attributes.get("value")
        if node.op_type == "Constant" and held is not None and held.type == ir.AttributeType.TENSOR:
            result = held.as_tensor().dtype
        types |= {output: output.dtype if output.dtype is not None else result for output in node.outputs}


def _ends(graph: ir.Graph) -> tuple[ir.Value, ...]:
    return (*graph.inputs, *graph.outputs)


def _convert_value(value: ir.Value, replaced: set[ir.DataType | None]) -> None:
    if value.dtype in replaced:
        value.dtype = FLOAT
    if value.const_value is not None and value.const_value.dtype in replaced:
        value.const_value = _float32(value.const_value)


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    with np.errstate(over="ignore"):
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
