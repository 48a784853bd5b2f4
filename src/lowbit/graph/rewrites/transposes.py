"""Transpositions that cancel each other: pairs in a row are merged, and moved past operators where fewer are left.

A network written for one layout and exported for another has a Transpose before and after every convolution: NHWC
outside, NCHW inside. What stands between two of them (batch norms, activation functions, sums, Concat, Pad, means) can
run in the other layout as well. `move_transposes` takes such operators region by region, a region being what hangs
together without a Transpose in between, and turns those for which the transpositions become fewer: a cut of the graph
with the fewest transpositions across it, found by local search from the whole region. Turning a node writes
transpositions before and behind it, which is always right; what is superfluous of them then cancels.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lowbit.graph.edit import add_initializer, bypass, constant, extents, free_name, is_standard

LARGEST_REGION = 2000
MOST_ORDERS = 8
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
AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PADDING = frozenset({"Conv", "MaxPool", "AveragePool"})
# What it is worth, in transpositions, that another rewrite can go on.
BONUS = 0.25


def order_of_axes(node: ir.Node) -> tuple[int, ...] | None:
    """The permutation of a Transpose: axis i of the output is axis `order[i]` of the input. None if not known."""
    dims = extents(node.inputs[0]) if node.inputs else None
    order = tuple(node.attributes.get_ints("perm", []) or (() if dims is None else range(len(dims))[::-1]))
    return order if order and sorted(order) == list(range(len(order))) else None


def merge_transposes(model: ir.Model) -> bool:
    """Make one Transpose of two in a row, none where they cancel, in place."""
    changed = False
    for node in tuple(model.graph):
        value = node.inputs[0] if _is_transpose(node) else None
        before = value.producer() if value is not None else None
        if before is None or not _is_transpose(before) or (source := before.inputs[0]) is None:
            continue
        inner, outer = order_of_axes(before), order_of_axes(node)
        if inner is None or outer is None or len(inner) != len(outer):
            continue
        order = tuple(inner[axis] for axis in outer)
        if order == tuple(range(len(order))) and bypass(model.graph, node, source):
            changed = True
            continue
        node.replace_input_with(0, source)
        node.attributes["perm"] = ir.AttrInt64s("perm", order)
        changed = True
    return changed


def move_transposes(model: ir.Model) -> bool:
    """Run operators between transpositions in the other layout, where that leaves fewer of them, in place."""
    orders = Counter(order_of_axes(node) for node in model.graph if _is_transpose(node))
    changed = False
    for order, _ in orders.most_common(MOST_ORDERS):
        if order is None:
            continue
        turned: set[ir.Node] = set()
        crossed: set[ir.Node] = set()
        for region in _regions(model.graph, order):
            chosen = _worth_turning(region, order)
            around = {node for node in _neighbors(chosen) if _is_transpose(node)}
            # One that is its own inverse, between two regions, would be saved twice. The next round looks again.
            if order != _inverse(order) or not around & crossed:
                turned |= chosen
                crossed |= around
        for node in tuple(model.graph):
            if node in turned:
                _turn(model.graph, node, order)
        if turned:
            changed = True
            merge_transposes(model)
            # What nobody reads any more would count as a transposition.
            common.RemoveUnusedNodesPass()(model)
    return changed


def _is_transpose(node: ir.Node | None, order: Sequence[int] | None = None) -> bool:
    """Whether a node is a Transpose, with this order if one is given."""
    if node is None or node.op_type != "Transpose" or not is_standard(node):
        return False
    return order is None or order_of_axes(node) == tuple(order)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.argsort(order))


def _operands(node: ir.Node) -> list[int]:
    """Which inputs are tensors that are transposed with the node."""
    several = node.op_type in BROADCAST or node.op_type == "Concat"
    return [at for at, value in enumerate(node.inputs) if value is not None] if several else [0]


def _regions(graph: ir.Graph, order: Sequence[int]) -> list[list[ir.Node]]:
    """Operators that can run in another order of axes and hang together, in execution order."""
    movable = {node: at for at, node in enumerate(graph) if _can_turn(node, order)}
    regions: list[list[ir.Node]] = []
    seen: set[ir.Node] = set()
    for first in movable:
        if first in seen:
            continue
        seen.add(first)
        region, pending = [], [first]
        while pending:
            node = pending.pop()
            region.append(node)
            for other in _neighbors([node]):
                if other in movable and other not in seen:
                    seen.add(other)
                    pending.append(other)
        if len(region) <= LARGEST_REGION:
            regions.append(sorted(region, key=movable.__getitem__))
    return regions


def _neighbors(nodes: Collection[ir.Node]) -> list[ir.Node]:
    """What makes the inputs of some nodes, and what reads their outputs."""
    near = [value.producer() for node in nodes for value in node.inputs if value is not None]
    near += [reader for node in nodes for output in node.outputs for reader in output.consumers()]
    return [node for node in near if node is not None]


def _can_turn(node: ir.Node, order: Sequence[int]) -> bool:
    rank = len(order)
    known = node.op_type in ELEMENTWISE | BROADCAST | REDUCTIONS or node.op_type in TURN
    if not known or not is_standard(node) or not node.inputs or any(value.is_graph_output() for value in node.outputs):
        return False
    values = [node.inputs[at] for at in _operands(node)]
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
        return axes is not None and (flag_or(node, "keepdims", 1) == 1 or kept == sorted(kept))
    rule = TURN.get(node.op_type)
    return rule is None or rule(node, order, False)


def flag_or(node: ir.Node, name: str, otherwise: int) -> int:
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


def _worth_turning(region: Sequence[ir.Node], order: Sequence[int]) -> set[ir.Node]:
    """The part of a region that leaves the fewest transpositions if it is turned; empty if none saves any."""
    chosen = set(region)
    touched = {
        node: [node.inputs[at] for at in _operands(node) if constant(node.inputs[at]) is None] + list(node.outputs)
        for node in region
    }
    shrinks = True
    while shrinks:
        shrinks = False
        for node in (*reversed(region), *region):
            if node not in chosen:
                continue
            values = [value for value in dict.fromkeys(touched[node]) if value is not None]
            before = sum(_price(value, chosen, order) for value in values)
            chosen.discard(node)
            if sum(_price(value, chosen, order) for value in values) > before:
                chosen.add(node)
            else:
                shrinks = True
    values = [value for node in chosen for value in touched[node] if value is not None]
    return chosen if sum(_price(value, chosen, order) for value in dict.fromkeys(values)) < 0 else set()


def _price(value: ir.Value, chosen: set[ir.Node], order: Sequence[int]) -> float:
    """How many more transpositions of one tensor there are if the chosen nodes are turned."""
    readers, maker = tuple(dict.fromkeys(value.consumers())), value.producer()
    back = _inverse(order)
    inside = [reader for reader in readers if reader in chosen]
    if maker in chosen:
        if len(value.shape or ()) != len(order):
            return 0.0
        outside = [reader for reader in readers if reader not in chosen]
        undone = [reader for reader in outside if _is_transpose(reader, back)]
        # One between two chosen nodes stays.
        saved = [one for one in undone if not any(reader in chosen for reader in one.outputs[0].consumers())]
        # As good as elsewhere if a convolution can then pad by itself.
        pads = maker is not None and maker.op_type == "Pad" and any(_is_read_by(one, PADDING) for one in saved)
        return float(len(outside) > len(undone)) - len(saved) - (BONUS if pads else 0)
    if not inside:
        return 0.0
    if maker is not None and _is_transpose(maker, order):
        source = maker.inputs[0]
        between = source is not None and source.producer() in chosen
        if between or len(inside) < len(readers) or value.is_graph_output():
            return 0.0
        # As good as elsewhere if it makes way for a batch norm that can then be folded.
        return -1 - BONUS if len(inside) == 1 and _folds(inside[0], source) else -1.0
    return 0.0 if any(_is_transpose(reader, back) for reader in readers) else 1.0


def _is_read_by(node: ir.Node, operators: Collection[str]) -> bool:
    return any(reader.op_type in operators for reader in node.outputs[0].consumers())


def _folds(node: ir.Node, source: ir.Value | None) -> bool:
    maker = source.producer() if source is not None else None
    scales = node.op_type in AFFINE and any(constant(value) is not None for value in node.inputs)
    return scales and maker is not None and maker.op_type in LAYERS


def _turn(graph: ir.Graph, node: ir.Node, order: Sequence[int]) -> None:
    """Let a node compute in the layout before a Transpose of this order: transposed back before, forth behind."""
    rank, back = len(order), _inverse(order)
    for at in _operands(node):
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
        if flag_or(node, "keepdims", 1) == 0:
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
    axis = flag_or(node, "axis", otherwise)
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
        turned = pads.reshape(2, rank)[:, list(_inverse(order))].reshape(-1)
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
