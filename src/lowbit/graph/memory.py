"""How many bytes the tensors of one sample hold at a time, counted from shapes before anything runs.

A file of 2 kB can ask for any number of them: Concats that double a tensor 25 times, a Pad of 8,000 pixels. What a
network's tensors take grows with its weights, roughly: networks that people train stay far below 256 bytes for each
byte of weights. Where images are large and weights few, as where pictures are scaled up, the user has to say the size.
"""

import math
from collections.abc import Iterator

import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import extents
from lowbit.printable import printable

LEAST_BYTES = 1 << 28  # that any network may take
PER_BYTE = 256  # bytes of tensors for each byte of the file
STORED = "lowbit.stored"  # bytes of the file, noted beside the model
BESIDE = 4  # times as many as the float network's, of a file that was made of it
FLOAT_BYTES = 4
UNSIZED = (None, ir.DataType.UNDEFINED, ir.DataType.STRING)  # counted as floats
UNTHINKABLE = 10**9 - 1  # MB: more are not counted


def allowed_bytes(model: ir.Model) -> int:
    """How many bytes the tensors of one run may hold at a time."""
    stored = model.meta.get(STORED)
    if stored is None:
        tensors = [value.const_value for value in model.graph.initializers.values()]
        stored = sum(one.nbytes for one in tensors if one is not None)
    return max(LEAST_BYTES, PER_BYTE * int(stored))


def most_bytes(graph: ir.Graph) -> int:
    """The most bytes that tensors of one sample hold at a time, if nodes run in their order; weights are not counted.

    Dimensions that are not known count as 1. Bodies of If, Loop and Scan are counted as if each ran once.
    """
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(graph):
        last.update((value, index) for value in _read(node))
    ends = set(graph.outputs)
    live = most = sum(_bytes(value) for value in graph.inputs if not value.is_initializer())
    for index, node in enumerate(graph):
        live += sum(map(_bytes, node.outputs))
        most = max(most, live + sum(most_bytes(body) for body in _bodies(node)))
        done = {value for value in (*node.inputs, *node.outputs) if value is not None and last.get(value, -1) <= index}
        live -= sum(_bytes(value) for value in done if value.producer() is not None and value not in ends)
    return most


def check_memory(model: ir.Model, source: str, *, beside: ir.Model | None = None) -> None:
    """Refuse a network whose tensors would fill the memory.

    Args:
        model: the network, with shapes.
        source: file name, for messages.
        beside: the float network that it is said to be made of, whose size the user knows.

    Raises:
        ModelError: so it is; says how the user can have it all the same.
    """
    most, allowed = most_bytes(model.graph), allowed_bytes(model)
    if beside is not None:
        allowed = max(allowed, BESIDE * most_bytes(beside.graph))
    if most <= allowed:
        return
    largest = max((value for node in model.graph for value in node.outputs), key=_bytes)
    shape = ", ".join(str(dim) if isinstance(dim, int) else "?" for dim in extents(largest) or ())
    name, megabytes = printable(str(largest.name)), min(most >> 20, UNTHINKABLE)
    raise ModelError(
        f"its tensors take {megabytes:,} MB for one sample, the largest of them, {name!r}, has the shape "
        f"[{shape}]; {allowed >> 20:,} MB are the most for a network of its size.",
        where=source,
        remedy="If that is as it should be, give the sizes of its inputs with --input-size (input_sizes= in Python).",
    )


def samples_that_fit(model: ir.Model) -> int:
    """How many samples a run may have; at least 1."""
    return max(1, allowed_bytes(model) // max(1, most_bytes(model.graph)))


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, in its bodies too."""
    yield from (value for value in node.inputs if value is not None)
    for body in _bodies(node):
        for inner in body.all_nodes():
            yield from (value for value in inner.inputs if value is not None)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _bytes(value: ir.Value) -> int:
    dims = extents(value)
    if dims is None:
        return 0
    size = FLOAT_BYTES if value.dtype in UNSIZED else value.dtype.itemsize
    return math.ceil(math.prod(dim for dim in dims if isinstance(dim, int)) * size)
