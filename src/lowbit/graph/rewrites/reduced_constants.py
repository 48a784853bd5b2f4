"""Small constants that large ones are reduced to: computed here once, where a runtime would whenever it opens a file.

`fold_constants` keeps what it computes, so it stops where constants grow. Behind them may stand a sum or a maximum of a
few values; only these are kept here.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import constant, extents, is_standard, replace_by_constants
from lowbit.graph.rewrites.constants import RESULT_SIZE, SMALL_ELEMENTS, evaluated

MOST_ELEMENTS = 1 << 24  # of one result: 64 MB
MOST_WORK = 1 << 27  # values of all results together: a second or so
WORK = "lowbit.work"  # what is left of it, noted beside the model: it is folded again and again


def fold_reduced_constants(model: ir.Model) -> bool:
    """Replace small results of large constants that are computed from small ones, in place."""
    graph = model.graph
    known = {value for value in graph.initializers.values() if constant(value) is not None}
    cone: list[ir.Node] = []
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if read and all(value in known for value in read) and is_standard(node) and node.op_type in RESULT_SIZE:
            cone.append(node)
            known.update(node.outputs)
    wanted = set(_ends(cone))
    for node in reversed(cone):
        if node in wanted:
            wanted.update(producer for value in node.inputs if value and (producer := value.producer()) is not None)
    return bool(wanted) and _computed(model, [node for node in cone if node in wanted])


def _ends(cone: Sequence[ir.Node]) -> list[ir.Node]:
    """Nodes of a few values that read something large which is computed itself."""
    made = {value for node in cone for value in node.outputs}
    return [
        node
        for node in cone
        if all(_is_small(value) and not value.is_graph_output() for value in node.outputs)
        and any(value in made and not _is_small(value) for value in node.inputs if value is not None)
    ]


def _is_small(value: ir.Value) -> bool:
    dims = extents(value)
    sizes = [dim for dim in dims or () if isinstance(dim, int)]
    return dims is not None and len(sizes) == len(dims) and math.prod(sizes) <= SMALL_ELEMENTS


def _computed(model: ir.Model, nodes: Sequence[ir.Node]) -> bool:
    """Compute nodes in their order, and put the results that are small in their places."""
    graph = model.graph
    opset = graph.opset_imports.get("", 1)
    last = {value: node for node in nodes for value in node.inputs if value is not None}
    arrays: dict[ir.Value, np.ndarray] = {}
    changed = False
    for node in nodes:
        read = list(filter(None, node.inputs))
        given = [None if value is None else arrays.get(value, constant(value)) for value in node.inputs]
        if sum(array is not None for array in given) < len(read):
            continue  # one before it was too large
        left = model.meta.get(WORK, MOST_WORK)
        results = evaluated(node, given, opset, min(MOST_ELEMENTS, left))
        if results is None:
            continue
        model.meta[WORK] = left - sum(array.size for array in results)
        outputs = [value for value in node.outputs if value.uses()]
        if all(map(_is_small, node.outputs)) and not any(value.is_graph_output() for value in node.outputs):
            replace_by_constants(graph, node, results)
            changed = True
        else:
            arrays.update(zip(outputs, results, strict=True))
        for value in {value for value in read if last[value] is node} & arrays.keys():
            del arrays[value]
    return changed
