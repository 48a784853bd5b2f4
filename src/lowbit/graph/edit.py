"""Small changes to a graph that rewrites are made of; the names of its inputs and outputs always stay."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

NAMES = "lowbit.names"


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer that is not also an input which a caller could set, else None."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value.numpy()


def flag(node: ir.Node, name: str) -> bool:
    """Whether an integer attribute is present and not 0."""
    return bool(node.attributes.get_int(name, 0))


def is_standard(node: ir.Node) -> bool:
    """Whether an operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def extents(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """The dimensions of a tensor as numbers, names or None for unknown ones; None if not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def free_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or `wanted_2`, `wanted_3`, ...: the first that no tensor of the graph or a subgraph has."""
    taken = graph.meta.get(NAMES)
    if taken is None:
        taken = _names(graph)
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    if NAMES in graph.meta:
        taken.add(name)
    return name


def _names(graph: ir.Graph) -> set[str | None]:
    taken = set(graph.initializers) | {value.name for value in graph.inputs}
    return taken | {output.name for node in graph.all_nodes() for output in node.outputs}


@contextmanager
def remembered_names(graph: ir.Graph) -> Iterator[None]:
    """Remember the names of all tensors for `free_name`, which else looks through the graph for each new one.

    Meanwhile new tensors must get their names from it.
    """
    graph.meta[NAMES] = _names(graph)
    try:
        yield
    finally:
        del graph.meta[NAMES]


def add_initializer(graph: ir.Graph, wanted: str, array: np.ndarray) -> ir.Value:
    """Add a constant to the graph, named `wanted` or similarly."""
    return _register(graph, free_name(graph, wanted), array)


def _register(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_by_constants(graph: ir.Graph, node: ir.Node, arrays: Sequence[np.ndarray]) -> None:
    """Replace a node by constants of the graph, with the names of those of its outputs that are read; none leaves it.

    Of a node of the graph itself no other tensor has such a name, so no search for a free one is needed: an unpacked
    weight has a dozen such nodes. Bodies may both have it.
    """
    holder = node.graph
    assert holder is not None
    read = [output for output in node.outputs if output.uses()]
    for output, array in zip(read, arrays, strict=True):
        name = str(output.name) if holder is graph else free_name(graph, str(output.name))
        output.name = None
        output.replace_all_uses_with(_register(graph, name, array))
    holder.remove(node, safe=True)


def set_weight(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray, *, wanted: str) -> None:
    """Give `node` a constant as input `index`, changing the present one unless others read it too.

    Args:
        wanted: name of the new constant, if one is needed.
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.tensor(np.asarray(array, order="C"), name=old.name)
        old.shape = ir.Shape(array.shape)
        old.dtype = old.const_value.dtype
        return
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, add_initializer(graph, wanted, array))


def bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> bool:
    """Let `source` take over all uses of the first output of `node`, which leaves the graph.

    A graph output keeps its name. Returns False, and changes nothing, where that is impossible: the output is one of
    the graph and `source` must keep its own name, or the output belongs to a subgraph.
    """
    output = node.outputs[0]
    if any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        return False
    if output.is_graph_output():
        own = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
        if own or source.producer() is None or output not in graph.outputs:
            return False
    name, leaves = output.name, output.is_graph_output()
    shape = source.shape if source.shape is not None else output.shape
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    source.shape = shape
    if source.type is None:
        source.type = output.type
    if leaves:
        # Two values must never share a name, and the old one has left the graph already.
        output.name = None
        source.name = name
    return True
