"""Operators on whole numbers and truth values: comparisons, choices, positions of extremes, changes of type."""

import numpy as np

from lowbit.formats.litert.graph import FileGraph, Order, StoredValue
from lowbit.graph.edit import flag
from lowbit.graph.model import Node, Value

COMPARISONS = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
    "And": "LOGICAL_AND",
    "Or": "LOGICAL_OR",
    "Not": "LOGICAL_NOT",
}
# Types by their number in the schema's `TensorType`.
INT64 = 4
CAST_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": INT64, "bool": 6}


def comparison(graph: FileGraph, node: Node) -> None:
    """Equal, Less, And and the like: bool."""
    name = str(node.outputs[0].name)
    shape = graph.shape(name)
    order = tuple(range(len(shape)))
    parts = [_broadcastable(graph, value, len(shape)) for value in node.inputs]
    result = graph.tensor(shape, batch_axis=graph.batch_place(name, order), dtype="bool")
    graph.operator(COMPARISONS[node.op_type], parts, [result], version=1)
    graph.adopt(name, StoredValue(result, order))


def where(graph: FileGraph, node: Node) -> None:
    """Where: SELECT_V2."""
    name = str(node.outputs[0].name)
    shape = graph.shape(name)
    parts = [_broadcastable(graph, value, len(shape)) for value in node.inputs]
    graph.operator("SELECT_V2", parts, [graph.write(name, tuple(range(len(shape))))], version=1)


def _broadcastable(graph: FileGraph, value: Value | None, rank: int) -> int:
    """A value in the order of ONNX; constants keep their own type, and get all axes."""
    assert value is not None
    array = graph.array(value)
    if array is not None and not graph.has(str(value.name)):
        return graph.constant(array.reshape((1,) * (rank - array.ndim) + array.shape))
    return graph.plain(value).tensor


def position(graph: FileGraph, node: Node) -> None:
    """ArgMax and ArgMin: positions of the first largest or smallest values."""
    if flag(node, "select_last_index"):
        raise graph.refuse(node, "gives the last of equal values")
    x = graph.read_axes(node)
    axis = node.attributes.get_int("axis", 0) % len(x.order)
    at, old = x.order.index(axis), graph.tensors[x.tensor]
    left = [size for place, size in enumerate(old.shape) if place != at]
    batch = None if old.batch_axis is None else old.batch_axis - (old.batch_axis > at)
    result = graph.tensor(left, batch_axis=batch, dtype="int64")
    code, table = ("ARG_MAX", "ArgMaxOptions") if node.op_type == "ArgMax" else ("ARG_MIN", "ArgMinOptions")
    where = graph.constant(np.array(at, np.int32))
    graph.operator(code, [x.tensor, where], [result], table=table, options={"outputType": INT64})
    order: Order = tuple(a - (a > axis) for a in x.order if a != axis)
    if node.attributes.get_int("keepdims", 1):
        order = x.order
        result = graph.reshape(
            result, [1 if place == at else size for place, size in enumerate(old.shape)], batch_axis=old.batch_axis
        )
    graph.adopt(str(node.outputs[0].name), StoredValue(result, order))


def cast(graph: FileGraph, node: Node) -> None:
    """Cast between float32 and whole numbers."""
    x = graph.read(node.inputs[0])
    output = node.outputs[0]
    wanted = "float32" if output.dtype is None else output.dtype.name.lower().replace("float", "float32", 1)
    old = graph.tensors[x.tensor]
    if wanted not in CAST_TYPES or old.dtype not in CAST_TYPES:
        raise graph.refuse(node, f"makes {wanted} of {old.dtype}")
    if wanted == old.dtype:
        graph.adopt(str(output.name), x)
        return
    result = graph.tensor(old.shape, batch_axis=old.batch_axis, dtype=wanted)
    types = {"inDataType": CAST_TYPES[old.dtype], "outDataType": CAST_TYPES[wanted]}
    graph.operator("CAST", [x.tensor], [result], options=types, version=1)
    graph.adopt(str(output.name), StoredValue(result, x.order, flat=x.flat))
