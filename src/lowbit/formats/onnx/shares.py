"""What each weight takes of an ONNX file, nodes and names included: what giving it another recipe would change.

To a node's weight belongs all that is stored for it alone: codes, scales, code books, its bias, and the nodes that
decode them. What several weights share, such as a table of scales, belongs to none.
"""

from collections.abc import Iterator

import onnx

from lowbit.formats.onnx.stored import StoredGraph

FIELD_BYTES = 4  # of the tag and the length in front of a node or tensor of a usual size


def bytes_by_weight(content: bytes) -> dict[str, int]:
    """Bytes of each weight by the name of the node that reads it; LSTM, GRU and RNN have two (`node.W`, `node.R`)."""
    proto = onnx.load_from_string(content)
    graph = StoredGraph(proto.graph)
    parts: dict[str, set[str]] = {}
    for read in graph.weights():
        parts.setdefault(read.name, set()).update(_behind(graph, read.value, graph.bias(read.node)))
    readers: dict[str, int] = {}
    for names in parts.values():
        for name in names:
            readers[name] = readers.get(name, 0) + 1
    return {weight: sum(_bytes(graph, name) for name in names if readers[name] == 1) for weight, names in parts.items()}


def _behind(graph: StoredGraph, *values: str) -> Iterator[str]:
    """Names of all tensors, stored or computed, that some are computed from, themselves included."""
    left = [value for value in values if value]
    seen: set[str] = set()
    while left:
        name = left.pop()
        if name in seen or not (name in graph.tensors or name in graph.producers):
            continue
        seen.add(name)
        yield name
        if name in graph.producers:
            left += graph.producers[name].input


def _bytes(graph: StoredGraph, name: str) -> int:
    part = graph.tensors.get(name) or graph.producers[name]
    return int(part.ByteSize()) + FIELD_BYTES
