"""Transpositions that cancel each other: pairs in a row are merged, and moved past operators where fewer are left.

A network written for one layout and exported for another has a Transpose before and after every convolution: NHWC
outside, NCHW inside. What stands between two of them (batch norms, activation functions, sums, Concat, Pad, means) can
run in the other layout as well. `move_transposes` takes such operators region by region, a region being what hangs
together without a Transpose in between, and turns those for which the transpositions become fewer: a cut of the graph
with the fewest transpositions across it, found by local search from the whole region. Turning a node writes
transpositions before and behind it, which is always right; what is superfluous of them then cancels.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from lowbit.graph.edit import bypass, constant, is_standard
from lowbit.graph.rewrites.turning import can_turn, inverse, operands, order_of_axes, turn

# Steps of the search: a tensor that many nodes read is looked at once for each of them.
MOST_STEPS = 200_000
MOST_ORDERS = 8
AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PADDING = frozenset({"Conv", "MaxPool", "AveragePool"})
# What it is worth, in transpositions, that another rewrite can go on.
BONUS = 0.25


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
            if order != inverse(order) or not around & crossed:
                turned |= chosen
                crossed |= around
        for node in tuple(model.graph):
            if node in turned:
                turn(model.graph, node, order)
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


def _regions(graph: ir.Graph, order: Sequence[int]) -> list[list[ir.Node]]:
    """Operators that can run in another order of axes and hang together, in execution order."""
    movable = {node: at for at, node in enumerate(graph) if can_turn(node, order)}
    regions: list[list[ir.Node]] = []
    steps = 0
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
        values = [value for node in region for value in (*node.inputs, *node.outputs) if value is not None]
        steps += sum(len(value.uses()) for value in values if constant(value) is None)
        if steps <= MOST_STEPS:
            regions.append(sorted(region, key=movable.__getitem__))
    return regions


def _neighbors(nodes: Collection[ir.Node]) -> list[ir.Node]:
    """What makes the inputs of some nodes, and what reads their outputs."""
    near = [value.producer() for node in nodes for value in node.inputs if value is not None]
    near += [reader for node in nodes for output in node.outputs for reader in output.consumers()]
    return [node for node in near if node is not None]


def _worth_turning(region: Sequence[ir.Node], order: Sequence[int]) -> set[ir.Node]:
    """The part of a region that leaves the fewest transpositions if it is turned; empty if none saves any."""
    chosen = set(region)
    touched = {
        node: [node.inputs[at] for at in operands(node) if constant(node.inputs[at]) is None] + list(node.outputs)
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
    back = inverse(order)
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
