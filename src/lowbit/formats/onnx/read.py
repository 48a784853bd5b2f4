"""What a runtime makes of the weights in a written file: an oracle that shares no code with `decode`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lowbit.engines import open_session
from lowbit.formats.input_bytes import FACTORS_KEY, in_float_units
from lowbit.formats.onnx.block_kernels import TURNED_KEY
from lowbit.formats.onnx.stored import StoredGraph
from lowbit.formats.onnx.stored_products import stored_products
from lowbit.formats.onnx.wider_groups import narrow_again
from lowbit.graph.load import read_proto

Array = np.ndarray[Any, np.dtype[Any]]


def layer_weights(path: Path | str) -> dict[str, Array]:
    """Every float weight by its name (`graph.weights.weight_name`), computed by ONNX Runtime from the file.

    The part of the graph that computes weights from stored tensors is cut out and run on its own, whatever operators
    it uses, so this reads QDQ and packed files of any tool.

    Raises:
        ModelError: not an ONNX file.
        EngineError: the runtime cannot compute them.
    """
    proto = read_proto(Path(path))
    graph = StoredGraph(proto.graph)
    wanted = _constant_weights(graph)
    stored = graph.tensors
    # Those that need no computing are read as they stand: by way of the runtime they would be copied four times.
    values = {name: numpy_helper.to_array(stored[name]) for name in set(wanted.values()) if name in stored}
    computed = [name for name in dict.fromkeys(wanted.values()) if name not in values]
    if computed:
        values |= computed_values(proto, graph, computed)
    weights = {node: values[name] for node, name in wanted.items()}
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    turned = json.loads(metadata.get(TURNED_KEY, "[]"))
    for product in stored_products(graph):
        weights[product.node.name] = product.weight.T if product.node.name in turned else product.weight
    folded = metadata.get(FACTORS_KEY)
    return weights if folded is None else in_float_units(weights, folded)


def computed_values(proto: ModelProto, graph: StoredGraph, wanted: list[str]) -> dict[str, Array]:
    """Tensors that some nodes compute from stored ones, by running these nodes alone.

    Raises:
        EngineError: the runtime refuses them.
    """
    # Walk back from the weights: other constant chains of the graph do not matter here.
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += graph.producers[name].input if name in graph.producers else []
    part = helper.make_graph(
        [
            node
            for node in graph.nodes
            if any(output in needed for output in node.output) and node.op_type != "Constant"
        ],
        "weights",
        [],
        [helper.make_empty_tensor_value_info(name) for name in wanted],
        [_named(tensor, name) for name, tensor in graph.tensors.items() if name in needed],
    )
    model = helper.make_model(part, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return open_session(model.SerializeToString(), threads=1).run({})


def _named(tensor: TensorProto, name: str) -> TensorProto:
    if tensor.name == name:
        return tensor
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _constant_weights(graph: StoredGraph) -> dict[str, str]:
    """The tensor of each weight.

    Channels of zeros and an axis of one are there for the runtime, no part of it: Pads, zeros between groups and a last
    Unsqueeze are passed over (`formats/onnx/channel_padding.py`, `wider_groups.py`, `lines.py`).
    """
    padded = {name: node.input[0] for name, node in graph.producers.items() if node.op_type == "Pad"}
    padded |= narrow_again(graph.producers)
    readers: tuple[NodeProto, ...] = tuple(graph.producers.values())
    for node in readers:
        for position, name in enumerate(node.input):
            node.input[position] = padded.get(name, name)
    widened = {name: node.input[0] for name, node in graph.producers.items() if node.op_type == "Unsqueeze"}
    return {read.name: (padded | widened).get(read.value, read.value) for read in graph.weights()}
