"""Tables of integers in their narrowest type, equal ones once, with a Cast that runtimes compute while they load.

Attention over windows or relative positions looks biases up by tables of places, one int64 for each pair of tokens: a
third of the file of a small LeViT in int8, a fifth of a DeBERTa's. Their values seldom need more than a byte.
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft
from lowbit.graph.edit import constant

NARROW = (np.uint8, np.int8, np.uint16, np.int16, np.int32)
LEAST_SAVED = 256  # bytes; the node takes some 40


def write_integer_tables(draft: Draft) -> Draft:
    """Store constants of int64, uint64, int32 and uint32 in fewer bytes where that saves more than a node takes."""
    graph = draft.graph
    casts: dict[tuple[ir.Value, ir.DataType], ir.Node] = {}
    for value in tuple(graph.initializers.values()):
        array = constant(value)
        if array is None or array.dtype.kind not in "iu" or array.itemsize < np.dtype(np.int32).itemsize:
            continue
        # In a body a runtime may do without folding.
        if value.is_graph_output() or any(user.graph is not graph for user, _ in value.uses()):
            continue
        narrow = _narrowest(array)
        if array.nbytes - narrow.nbytes < LEAST_SAVED:
            continue
        stored = draft.names.constant(narrow)
        type_ = ir.DataType.from_numpy(array.dtype)
        if (stored, type_) not in casts:
            casts[stored, type_] = ir.node("Cast", [stored], {"to": type_})
            casts[stored, type_].outputs[0].name = draft.names.fresh("t")
        for user, index in tuple(value.uses()):
            user.replace_input_with(index, casts[stored, type_].outputs[0])
    if casts:
        graph.insert_before(graph[0], list(casts.values()))
    return draft


def _narrowest(array: np.ndarray) -> np.ndarray:
    """The same values in the first type that holds them all."""
    least, most = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for type_ in NARROW:
        limits = np.iinfo(type_)
        if limits.min <= least and most <= limits.max:
            return array.astype(type_)
    return array
