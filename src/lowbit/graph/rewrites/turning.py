"""How a node computes in another order of axes: its constants, attributes and outputs turned.

A node is turned by the order of a Transpose in front of it: it then reads what that Transpose reads. Transpositions are
written before and behind it, which is always right; what is superfluous of them cancels afterwards.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, constant, extents, free_name, is_standard

# A constant of more values is not turned where that means a second copy.
LARGEST_COPY = 1 << 12
ELEMENTWISE = frozenset(
    {"Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish"}
    | {"Tanh", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Sign"}
    | {"Floor", "Ceil", "Round", "Cast", "Not", "Identity", "Clip", "Sin", "Cos"}
)
BROADCAST = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum", "PRelu", "Where", "Equal", "Less", "Greater"}
    | {"LessOrEqual", "GreaterOrEqual", "And", "Or"}
)
REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"})


def order_of_axes(node: ir.Node) -> tuple[int, ...] | None:
    """The permutation of a Transpose: axis i of the output is axis `order[i]` of the input. None if not known."""
    dims = extents(node.inputs[0]) if node.inputs else None
    order = tuple(node.attributes.get_ints("perm", []) or (() if dims is None else range(len(dims))[::-1]))
    return order if order and sorted(order) == list(range(len(order))) else None


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes another."""
    return tuple(int(axis) for axis in np.argsort(order))


def operands(node: ir.Node) -> list[int]:
    """Which inputs are tensors that are transposed with the node."""
    several = node.op_type in BROADCAST or node.op_type == "Concat"
    return [at for at, value in enumerate(node.inputs) if value is not None] if several else [0]


def can_turn(node: ir.Node, order: Sequence[int]) -> bool:
    """Whether a node can compute the same in another order of axes."""
    rank = len(order)
    known = node.op_type in ELEMENTWISE | BROADCAST | REDUCTIONS or node.op_type in TURN
    if not known or not is_standard(node) or not node.inputs or any(value.is_graph_output() for value in node.outputs):
        return False
    values = [node.inputs[at] for at in operands(node)]
    computed = [value for value in values if constant(value) is None]
    if not computed or any(value is None or value.shape is None or len(value.shape) != rank for value in computed):
        return False
    for value in values:
        array = constant(value)
        copied = value is not None and len(value.uses()) > 1 and array is not None and array.size > LARGEST_COPY
        if array is not None and (array.ndim > rank or copied or (node.op_type == "Concat" and array.ndim != rank)):
            return False
    if node.op_type in REDUCTIONS:
        axes = _axes(node, rank)
        # Without its axes the output has the others in their order, in both layouts, or it is another tensor.
        kept = [axis for at, axis in enumerate(order) if axes is not None and at not in axes]
        return axes is not None and (_flag_or(node, "keepdims", 1) == 1 or kept == sorted(kept))
    rule = TURN.get(node.op_type)
    return rule is None or rule(node, order, False)


def _flag_or(node: ir.Node, name: str, otherwise: int) -> int:
    """An integer attribute, or what it is where it is left out."""
    return int(node.attributes.get_int(name, otherwise))


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    """Axes of a reduction, from the front; None where they are computed or not axes, or none are named."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        axes = None if array is None else [int(axis) for axis in array.ravel()]
    else:
        axes = list(node.attributes.get_ints("axes", []))
    if not axes or any(not -rank <= axis < rank for axis in axes):
        return None
    return [axis % rank for axis in axes]


def turn(graph: ir.Graph, node: ir.Node, order: Sequence[int]) -> None:
    """Let a node compute in the layout before a Transpose of this order: transposed back before, forth behind."""
    rank, back = len(order), inverse(order)
    for at in operands(node):
        value = node.inputs[at]
        array = constant(value)
        if value is None:
            continue
        if array is None:
            node.replace_input_with(at, _transposed(graph, value, back, before=node))
        elif array.size > 1 or node.op_type == "Concat":
            whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
            node.replace_input_with(at, add_initializer(graph, f"{value.name}.turned", whole.transpose(back)))
    if node.op_type in REDUCTIONS:
        axes = sorted(order[axis] for axis in _axes(node, rank) or ())
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            node.replace_input_with(1, add_initializer(graph, "axes", np.array(axes, np.int64)))
        else:
            node.attributes["axes"] = ir.AttrInt64s("axes", axes)
        if _flag_or(node, "keepdims", 1) == 0:
            return
    elif node.op_type in TURN:
        TURN[node.op_type](node, order, True)
    for output in node.outputs:
        uses = tuple(output.uses())
        if output.shape is not None:
            output.shape = ir.Shape([output.shape[axis] for axis in back])
        if uses:
            given = _transposed(graph, output, order, after=node)
            for user, index in uses:
                user.replace_input_with(index, given)


def _transposed(
    graph: ir.Graph,
    value: ir.Value,
    order: Sequence[int],
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    """What a new Transpose makes of a tensor."""
    name = free_name(graph, f"{value.name}.transposed")
    node = ir.node("Transpose", [value], attributes={"perm": list(order)}, name=name)
    output = node.outputs[0]
    output.name = name
    output.type = value.type
    output.shape = None if value.shape is None else ir.Shape([value.shape[axis] for axis in order])
    if before is not None:
        graph.insert_before(before, node)
    elif after is not None:
        graph.insert_after(after, node)
    return output


def _turn_axis(node: ir.Node, order: Sequence[int], write: bool) -> bool:
    """Operators with one axis: Concat, Softmax, Split."""
    otherwise = {"Softmax": -1, "LogSoftmax": -1}.get(node.op_type, 0)
    axis = _flag_or(node, "axis", otherwise)
    if not -len(order) <= axis < len(order):
        return False
    if write:
        node.attributes["axis"] = ir.AttrInt64("axis", order[axis])
    return True


def _turn_pad(node: ir.Node, order: Sequence[int], write: bool) -> bool:
    rank = len(order)
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or pads.size != 2 * rank or (len(node.inputs) > 3 and node.inputs[3] is not None):
        return False
    if write and (graph := node.graph) is not None and isinstance(graph, ir.Graph):
        turned = pads.reshape(2, rank)[:, list(inverse(order))].reshape(-1)
        node.replace_input_with(1, add_initializer(graph, "pads", turned))
    return True


def _turn_slice(node: ir.Node, order: Sequence[int], write: bool) -> bool:
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or any(not -len(order) <= axis < len(order) for axis in axes.ravel()):
        return False
    if write and (graph := node.graph) is not None and isinstance(graph, ir.Graph):
        turned = np.array([order[int(axis)] for axis in axes.ravel()], axes.dtype)
        node.replace_input_with(3, add_initializer(graph, "axes", turned))
    return True


# Operator -> whether it can be turned, and if asked for, its axes turned.
TURN: dict[str, Callable[[ir.Node, Sequence[int], bool], bool]] = {
    **dict.fromkeys(("Concat", "Softmax", "LogSoftmax", "Split"), _turn_axis),
    "Pad": _turn_pad,
    "Slice": _turn_slice,
}
