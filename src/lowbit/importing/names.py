"""Names that the user knows, in place of those that an exporter made up."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from lowbit.importing.imported import Array

LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def rename(proto: onnx.ModelProto, new: Mapping[str, str]) -> None:
    """Give tensors of a message other names, in place, where these are free; bodies of If and Loop as well."""
    taken = {name for graph in _graphs(proto.graph) for name in _names(graph)}
    new = {old: name for old, name in new.items() if name not in taken}
    for graph in _graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = new.get(value.name, value.name)
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new.get(name, name) for name in names]


def name_layers(proto: onnx.ModelProto, weights: Iterable[tuple[str, Array]]) -> None:
    """Name weights and the layers that read them after the framework's, which are found by their values, in place.

    Exporters transpose weights as they like and call them `onnx::Conv_4160`. Weights that occur twice keep such names.

    Args:
        proto: as exported, with nothing folded into its weights yet.
        weights: name, such as `stem/kernel`, and values.
    """
    by_values: dict[bytes, str | None] = {}
    for name, values in weights:
        if values.ndim > 1:
            key = _key(values)
            by_values[key] = None if key in by_values else name
    stored = {
        tensor.name: by_values.get(_key(numpy_helper.to_array(tensor)))
        for tensor in proto.graph.initializer
        if len(tensor.dims) > 1
    }
    copies = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Identity"}
    taken: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in LAYERS and len(node.input) > 1:
            weight = copies.get(node.input[1], node.input[1])
            name = (stored.get(weight) or "").rpartition("/")[0]
            if name and name not in taken:
                node.name = name
                taken.add(name)
    rename(proto, {old: name for old, name in stored.items() if name})


def _key(values: Array) -> bytes:
    """The same for a tensor however it is transposed."""
    return hashlib.sha256(np.sort(values, axis=None).tobytes()).digest()


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [graph, *(inner for body in bodies for inner in _graphs(body))]


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    return names | {name for node in graph.node for name in node.output}
