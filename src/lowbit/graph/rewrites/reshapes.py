"""Chains of operators that only name the axes anew: one Reshape of what the chain began with. Chains of Slice: one.

Values keep their order in Reshape, Flatten, Squeeze and Unsqueeze, and in a Transpose that only moves axes of extent 1.
So the last of them can read the tensor that the first read, if its own shape is known but for one dimension.
"""

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, bypass, constant, extents, flag, is_standard
from lowbit.graph.rewrites.turning import order_of_axes

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def merge_reshapes(model: ir.Model) -> bool:
    """Let the last of several reshaping operators in a row do the work of all, in place."""
    graph = model.graph
    changed = False
    for node in tuple(graph):
        value = node.inputs[0] if node.op_type in VIEWS and is_standard(node) and node.inputs else None
        before = value.producer() if value is not None else None
        if value is None or before is None or before.graph is not graph or not _keeps_order(before):
            continue
        source = before.inputs[0]
        if source is None or constant(source) is not None:
            continue
        if _undoes(node, before) and bypass(graph, node, source):
            changed = True
            continue
        target = _target(node, source)
        if target is None:
            continue
        node.op_type = "Reshape"
        node.attributes.clear()
        node.resize_inputs(2)
        node.replace_input_with(0, source)
        node.replace_input_with(1, add_initializer(graph, f"{node.outputs[0].name}.shape", np.array(target, np.int64)))
        changed = True
    return changed


def merge_slices(model: ir.Model) -> bool:
    """Cut along several axes at once where one Slice reads another, in place."""
    graph = model.graph
    changed = False
    for node in tuple(graph):
        value = node.inputs[0] if node.op_type == "Slice" and is_standard(node) else None
        before = value.producer() if value is not None and len(value.uses()) == 1 else None
        if value is None or before is None or before.op_type != "Slice" or not is_standard(before):
            continue
        first, second = _cuts(before), _cuts(node)
        if first is None or second is None or value.is_graph_output() or before.graph is not graph:
            continue
        rank = len(value.shape) if value.shape is not None else 0
        axes = [int(axis) % rank if rank else 0 for axis in (*first[2], *second[2])]
        if len(set(axes)) < len(axes):
            continue
        node.replace_input_with(0, before.inputs[0])
        node.resize_inputs(5)
        for at, (one, two) in enumerate(zip(first, second, strict=True), 1):
            both = np.array([*one, *two] if at != 3 else axes, np.int64)
            node.replace_input_with(at, add_initializer(graph, f"{node.outputs[0].name}.cut", both))
        changed = True
    return changed


def _cuts(node: ir.Node) -> list[np.ndarray] | None:
    """Starts, ends, axes and steps of a Slice that has them as constants; None if it does not name its axes."""
    arrays = [constant(value) for value in node.inputs[1:]]
    if len(arrays) < 3 or any(array is None for array in arrays[:3]):
        return None
    if len(arrays) == 3 or node.inputs[4] is None:
        arrays = [*arrays[:3], np.ones_like(arrays[0])]
    given = [array.ravel() for array in arrays if array is not None]
    return given if len(given) == 4 and len({len(array) for array in given}) == 1 else None


def _keeps_order(node: ir.Node) -> bool:
    if not is_standard(node) or not node.inputs:
        return False
    if node.op_type != "Transpose":
        return node.op_type in VIEWS
    order, dims = order_of_axes(node), extents(node.inputs[0])
    moved = [axis for axis in order or () if dims is None or dims[axis] != 1]
    return order is not None and dims is not None and moved == sorted(moved)


def _undoes(node: ir.Node, before: ir.Node) -> bool:
    """Whether Squeeze takes away the axes that Unsqueeze added, or the other way round."""
    if {node.op_type, before.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    axes = [constant(one.inputs[1]) if len(one.inputs) > 1 else None for one in (node, before)]
    first, second = axes
    return first is not None and second is not None and sorted(first.ravel()) == sorted(second.ravel())


def _target(node: ir.Node, source: ir.Value) -> list[int] | None:
    """The shape that a node gives, as a Reshape of `source` says it; None if more than one dimension is open."""
    if flag(node, "allowzero"):
        return None
    own, dims = extents(source) or (), extents(node.outputs[0])
    if dims is None or 0 in dims or 0 in own:
        return None
    target = []
    for at, dim in enumerate(dims):
        same = isinstance(dim, str) and at < len(own) and own[at] == dim
        target.append(dim if isinstance(dim, int) else 0 if same else -1)
    return target if target.count(-1) <= 1 else None
