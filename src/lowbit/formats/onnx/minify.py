"""The same ONNX file with the shortest names: what only people read is left out.

All tensors between inputs and outputs are renamed (one mapping for the whole file, subgraphs included, so that
shadowing stays what it was), the most used ones to the shortest names; names of nodes, notes (`doc_string`), the
producer's name, the shapes noted for inner tensors, which runtimes infer anyway, and attributes that say what the
standard assumes are dropped. Inputs, outputs, metadata and all numbers stay.
"""

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from lowbit.formats.names import DIGITS
from lowbit.graph.load import parse
from lowbit.graph.model import serialize

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


# What the standard assumes without saying so in the operator's schema: one of these each, along every axis.
UNSAID = {"strides": 1, "dilations": 1, "pads": 0}
WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def shortened(content: bytes) -> bytes:
    """An ONNX file that computes the same, bit for bit.

    Raises:
        ModelError: not an ONNX file.
    """
    model = parse(content, "file to shorten")
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    if not model.functions:
        uses = Counter(name for graph in _graphs(model.graph) for name in _names(graph) if name not in kept)
        free = _short_names(kept)
        # The most used first; of equals the one met first, so that the same file always gives the same bytes.
        _rename(model.graph, {name: next(free) for name, _ in uses.most_common()})
    _strip(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    for graph in _graphs(model.graph):
        for node in graph.node:
            kept_attributes = [attribute for attribute in node.attribute if not _assumed(node, attribute, opset)]
            if len(kept_attributes) < len(node.attribute):
                del node.attribute[:]
                node.attribute.extend(kept_attributes)
    return serialize(model, "file to shorten")


def _assumed(node: NodeProto, attribute: AttributeProto, opset: int) -> bool:
    """Whether a standard operator does the same without this attribute."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in WINDOWS and attribute.name in UNSAID:
        return set(attribute.ints) == {UNSAID[attribute.name]}
    try:
        known = onnx.defs.get_schema(node.op_type, opset, "").attributes.get(attribute.name)
    except onnx.defs.SchemaError:
        return False
    if known is None or not known.default_value.name:
        return False
    return bool(onnx.helper.get_attribute_value(known.default_value) == onnx.helper.get_attribute_value(attribute))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name


def _short_names(taken: set[str]) -> Iterator[str]:
    """a, b, ..., Z, aa, ab, ..., without those that are taken."""
    ends = [""]
    while True:
        longer = []
        for end in ends:
            for letter in LETTERS if end == "" else LETTERS + DIGITS[:10]:
                longer.append(end + letter)
                if end + letter not in taken:
                    yield end + letter
        ends = longer


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for part in _graphs(graph):
        for node in part.node:
            for fields in (node.input, node.output):
                fields[:] = [names.get(name, name) for name in fields]
        for value in (*part.input, *part.output, *part.initializer):
            value.name = names.get(value.name, value.name)
        for sparse in part.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        del part.quantization_annotation[:]


def _strip(model: ModelProto) -> None:
    for field in ("producer_name", "producer_version", "doc_string"):
        model.ClearField(field)
    for graph in _graphs(model.graph):
        del graph.value_info[:]
        graph.ClearField("doc_string")
        graph.name = "g"
        for node in graph.node:
            node.ClearField("name")
            node.ClearField("doc_string")
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.ClearField("doc_string")
