"""Weights that several nodes share are stored once: equal copies, and those that are the transpose of another.

A language model's embedding is often its last layer too, the other way up. Exporters write it twice, or fold the
Transpose between; here the copy becomes that Transpose again, which runtimes fold when they load the file. Only where
all readers have their output channels along the same axis: else they could not share scales, and would lose more than
the copy takes.
"""

import hashlib

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import constant, free_name
from lowbit.graph.weights import WEIGHT_INPUTS, channel_axis

FEWEST = 1000  # values from which a copy is worth looking for


def merge_copies(model: ir.Model) -> None:
    """Let readers of a copied weight read the first one, in place; embeddings come before other weights."""
    graph = model.graph
    known: dict[tuple[object, ...], ir.Value] = {}
    first = next(iter(graph), None)
    for value in sorted(graph.initializers.values(), key=lambda value: not _is_embedding(value)):
        array, axis = constant(value), _axis(value)
        if array is None or first is None or axis is None or array.size < FEWEST or array.dtype.kind != "f":
            continue
        same = known.get((axis, *_key(array)))
        # Only products read what was turned, see `graph.ops`.
        products = all(user.op_type in ("MatMul", "Gemm") and index == 1 for user, index in value.uses())
        turned = known.get((1 - axis, *_key(array.T))) if array.ndim == 2 and products else None
        if same is not None:
            value.replace_all_uses_with(same)
        elif turned is not None:
            node = ir.node("Transpose", [turned], attributes={"perm": [1, 0]})
            node.outputs[0].name = free_name(graph, f"{turned.name}_turned")
            node.outputs[0].shape = ir.Shape(array.shape)
            node.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            graph.insert_before(first, node)
            value.replace_all_uses_with(node.outputs[0])
        else:
            known[axis, *_key(array)] = value
            continue
        del graph.initializers[str(value.name)]


def _is_embedding(value: ir.Value) -> bool:
    return any(user.op_type == "Gather" and index == 0 for user, index in value.uses())


def _axis(value: ir.Value) -> int | None:
    """The axis along which all readers have their output channels; None where they differ, or one reads no weight."""
    rank = len(value.shape) if value.shape is not None else 0
    if value.is_graph_output() or rank < 2:
        return None
    axes = {
        channel_axis(user, index, rank) if index in WEIGHT_INPUTS.get(user.op_type, ()) else None
        for user, index in value.uses()
    }
    return axes.pop() if len(axes) == 1 else None


def _key(array: np.ndarray) -> tuple[object, ...]:
    content = np.ascontiguousarray(array)
    return array.dtype, array.shape, hashlib.sha256(content.tobytes()).digest()
