"""A hard swish that is written in pieces becomes the one operator.

Exporters from before operator set 14 write x * min(max(x + 3, 0), 6) / 6 as four operators, with the factor in one of
several places, or as x times a HardSigmoid. ONNX Runtime fuses the operator into the convolution in front, and not its
pieces, and LiteRT has a kernel for it. Sums are rounded in another order, so answers differ in their last bits.

Source: Howard et al. 2019, "Searching for MobileNetV3", 5.2.
"""

import math

import onnx_ir as ir

from lowbit.graph.edit import constant, extents, is_standard

SHIFT, TOP = 3.0, 6.0
SINCE = 14  # the operator set that brought HardSwish; from 13 to 14 only the outputs of BatchNormalization changed
SAME = 1e-5  # share by which a sixth may differ: exporters round it


def write_hard_swishes(model: ir.Model) -> bool:
    """Replace the last operator of each hard swish in pieces, in place; what is left of the others is not used."""
    if model.graph.opset_imports.get("", 1) < SINCE - 1 or not _may_rise(model):
        return False
    changed = False
    for node in tuple(model.graph):
        source = _input_of_swish(node)
        if source is None:
            continue
        model.graph.opset_imports[""] = max(SINCE, model.graph.opset_imports[""])
        swish = ir.node("HardSwish", [source], name=node.name)
        given, made = node.outputs[0], swish.outputs[0]
        made.type, made.shape = given.type, given.shape
        made.name, given.name = given.name, None
        given.replace_all_uses_with(made, replace_graph_outputs=True)
        model.graph.insert_before(node, swish)
        model.graph.remove(node, safe=True)
        changed = True
    return changed


def _may_rise(model: ir.Model) -> bool:
    """Whether the number of the operator set may become `SINCE`, and all means the same."""
    norms = (node for node in model.graph.all_nodes() if node.op_type == "BatchNormalization" and is_standard(node))
    return model.graph.opset_imports[""] >= SINCE or all(len(node.outputs) == 1 for node in norms)


def _input_of_swish(node: ir.Node) -> ir.Value | None:
    """The x of a node that gives x * min(max(x + 3, 0), 6) / 6; None if it gives anything else."""
    whole, factor = _scaled(node.outputs[0])
    product = whole.producer()
    if node.outputs[0].dtype != ir.DataType.FLOAT or product is None or not _is(product, "Mul"):
        return None
    for left, right in (product.inputs, product.inputs[::-1]):
        if left is None or right is None:
            return None
        gate, height = _scaled(right)
        source, top = _gated(gate)
        inner, slope = (left, 1.0) if left is source else _scaled(left)
        if source is not None and inner is source and math.isclose(factor * height * slope * top, 1, rel_tol=SAME):
            return source
    return None


def _is(node: ir.Node, *ops: str) -> bool:
    return node.op_type in ops and is_standard(node)


def _scaled(value: ir.Value) -> tuple[ir.Value, float]:
    """What a value is a multiple of by one Mul or Div, and how large a multiple."""
    node = value.producer()
    if node is None or not _is(node, "Mul", "Div"):
        return value, 1.0
    first, second = node.inputs
    by = _number(second, value)
    if node.op_type == "Div":
        return (value, 1.0) if first is None or not by else (first, 1 / by)
    if by is not None and first is not None:
        return first, by
    by = _number(first, value)
    return (value, 1.0) if by is None or second is None else (second, by)


def _gated(gate: ir.Value) -> tuple[ir.Value | None, float]:
    """The x of a gate that rises from x = -3 to x = 3, and how far from 0; None if it is no such gate."""
    node = gate.producer()
    if node is not None and _is(node, "HardSigmoid"):
        slope, middle = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        return (node.inputs[0] if middle == 0.5 and math.isclose(slope, 1 / TOP, rel_tol=SAME) else None), 1.0
    add = node.inputs[0].producer() if node is not None and _is(node, "Clip") and node.inputs[0] is not None else None
    if node is None or add is None or not _is(add, "Add"):
        return None, 0.0
    bounds = [_number(value, gate) for value in node.inputs[1:]]
    for source, shift in (add.inputs, add.inputs[::-1]):
        if bounds == [0.0, TOP] and _number(shift, gate) == SHIFT:
            return source, TOP
    return None, 0.0


def _number(value: ir.Value | None, beside: ir.Value) -> float | None:
    """A constant of one value that gives a result no further dimensions."""
    array = constant(value)
    if array is None or array.size != 1 or array.ndim > len(extents(beside) or ()):
        return None
    return float(array.item())
