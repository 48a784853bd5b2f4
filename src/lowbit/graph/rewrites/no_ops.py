"""Nodes that give what they were given: dropped.

An Add of 0 or a Mul by 1 counts only where the constant is a single number: a vector of zeros behind a product is a
bias.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import bypass, constant, extents, is_standard
from lowbit.graph.rewrites.turning import order_of_axes

FAR = (1 << 31) - 1


def remove_no_ops(model: ir.Model) -> bool:
    """Remove nodes that change nothing: Identity, Dropout in inference mode, Cast to the same type and the like."""
    graph = model.graph
    changed = False
    for node in tuple(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or not is_standard(node):
            continue
        rule = NO_OPS.get(node.op_type)
        if node.op_type in NEUTRAL:
            kept = _neutral(node)
            changed |= kept is not None and bypass(graph, node, kept)
        elif rule is not None and rule(node, source):
            changed |= bypass(graph, node, source)
    return changed | _shorten_casts(model)


def same_shape(first: ir.Value, second: ir.Value) -> bool:
    """Whether two tensors with equally many values certainly have the same shape: one dimension may be open."""
    before, after = extents(first), extents(second)
    if before is None or after is None or len(before) != len(after) or 0 in before:
        return False
    unequal = [(a, b) for a, b in zip(before, after, strict=True) if a is None or a != b]
    return not unequal or (len(unequal) == 1 and not any(isinstance(dim, int) for dim in unequal[0]))


def _cast(node: ir.Node, source: ir.Value) -> bool:
    return source.dtype is not None and node.attributes.get_int("to", 0) == int(source.dtype)


def _dropout(node: ir.Node, source: ir.Value) -> bool:
    return len(node.inputs) < 3 or node.inputs[2] is None or constant(node.inputs[2]) is not None


def _reshape(node: ir.Node, source: ir.Value) -> bool:
    return same_shape(source, node.outputs[0])


def _transpose(node: ir.Node, source: ir.Value) -> bool:
    order = order_of_axes(node)
    return order is not None and list(order) == sorted(order)


def _pad(node: ir.Node, source: ir.Value) -> bool:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _slice(node: ir.Node, source: ir.Value) -> bool:
    start, end, step = (constant(value) for value in (*node.inputs[1:3], [*node.inputs, None, None][4]))
    whole = start is not None and end is not None and not start.any() and bool((end >= FAR).all())
    return whole and (len(node.inputs) < 5 or node.inputs[4] is None or (step is not None and bool((step == 1).all())))


def _clip(node: ir.Node, source: ir.Value) -> bool:
    return all(value is None for value in node.inputs[1:]) and not node.attributes


def _alone(node: ir.Node, source: ir.Value) -> bool:
    return len(node.inputs) == 1


def _flatten(node: ir.Node, source: ir.Value) -> bool:
    return node.attributes.get_int("axis", 1) == 1 and source.shape is not None and len(source.shape) == 2


NO_OPS: dict[str, Callable[[ir.Node, ir.Value], bool]] = {
    "Identity": lambda node, source: True,
    "Cast": _cast,
    "Dropout": _dropout,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Clip": _clip,
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _alone),
}
# Operator -> the constant that changes nothing, and whether only the second input may be it.
NEUTRAL = {"Add": (0, False), "Sub": (0, True), "Mul": (1, False), "Div": (1, True)}


def _neutral(node: ir.Node) -> ir.Value | None:
    """The input that comes out unchanged, because the other is a single 0 or 1."""
    neutral, second_only = NEUTRAL[node.op_type]
    for at in (1,) if second_only else (1, 0):
        array, other = constant(node.inputs[at]), node.inputs[1 - at]
        # A constant of more axes than the tensor would add axes to it.
        if array is None or array.size != 1 or other is None or other.shape is None or constant(other) is not None:
            continue
        if array.ndim <= len(other.shape) and array.item() == neutral:
            return other
    return None


def _shorten_casts(model: ir.Model) -> bool:
    """Let a Cast read what an earlier Cast was made from, if that lost nothing."""
    changed = False
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Cast" and is_standard(node) else None
        before = value.producer() if value is not None else None
        source = before.inputs[0] if before is not None and before.op_type == "Cast" and is_standard(before) else None
        if source is not None and value is not None and _lossless(source.dtype, value.dtype):
            node.replace_input_with(0, source)
            changed = True
    return changed


def _lossless(old: ir.DataType | None, new: ir.DataType | None) -> bool:
    if old is None or new is None or ir.DataType.STRING in (old, new):
        return False
    a, b = old.numpy(), new.numpy()
    plain = all(kind.kind in "biuf" for kind in (a, b))
    # numpy calls 64-bit integers to float64 safe, which keeps 53 bits of them.
    return plain and np.can_cast(a, b, "safe") and not (a.kind in "iu" and a.itemsize == 8 and b.kind == "f")
