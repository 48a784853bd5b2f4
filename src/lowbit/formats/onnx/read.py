"""What a runtime makes of the weights in a written file: an oracle that shares no code with `decode`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.formats.input_bytes import FACTORS_KEY, in_float_units
from lowbit.formats.onnx.ledger import LAYER_INPUTS

Array = np.ndarray[Any, np.dtype[Any]]


def layer_weights(path: Path | str) -> dict[str, Array]:
    """The float weight of every layer with constant weights, by node name, computed by ONNX Runtime from the file.

    The part of the graph that computes weights from stored tensors is cut out and run on its own, whatever operators
    it uses, so this reads QDQ and packed files of any tool.

    Raises:
        ModelError: not an ONNX file.
        EngineError: the runtime cannot compute them.
    """
    try:
        proto = onnx.load(str(path))
    except Exception as error:
        raise ModelError(f"not a readable ONNX file: {error}", where=str(path)) from error
    wanted, needed = _constant_weights(proto)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    # Those that need no computing are read as they stand: by way of the runtime they would be copied four times.
    values = {name: numpy_helper.to_array(stored[name]) for name in set(wanted.values()) if name in stored}
    computed = [name for name in dict.fromkeys(wanted.values()) if name not in values]
    if computed:
        values |= _computed(proto, needed, computed)
    weights = {node: values[name] for node, name in wanted.items()}
    folded = next((entry.value for entry in proto.metadata_props if entry.key == FACTORS_KEY), None)
    return weights if folded is None else in_float_units(weights, folded)


def _computed(proto: ModelProto, needed: list[NodeProto], wanted: list[str]) -> dict[str, Array]:
    """Tensors that some nodes compute from stored ones, by running these nodes alone.

    Raises:
        EngineError: the runtime refuses them.
    """
    read = {name for node in needed for name in node.input}
    graph = helper.make_graph(
        needed,
        "weights",
        [],
        [helper.make_empty_tensor_value_info(name) for name in wanted],
        [tensor for tensor in proto.graph.initializer if tensor.name in read],
    )
    part = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return open_session(part.SerializeToString(), threads=1).run({})


def _constant_weights(proto: ModelProto) -> tuple[dict[str, str], list[NodeProto]]:
    """Weight tensor of each layer whose weight depends on stored tensors only, and the nodes that compute them."""
    constant = {tensor.name for tensor in proto.graph.initializer}
    producers: dict[str, NodeProto] = {}
    wanted: dict[str, str] = {}
    unpadded: dict[str, str] = {}
    for index, node in enumerate(proto.graph.node):
        if node.op_type in ("Pad", "Unsqueeze") and node.input[0] in constant:
            # Channels of zeros and axes of one are there for the runtime, not part of the weight
            # (`formats/onnx/channel_padding.py`, `formats/onnx/lines.py`).
            unpadded[node.output[0]] = node.input[0]
            constant.add(node.output[0])
            continue
        for position, name in enumerate(node.input):
            node.input[position] = unpadded.get(name, name)
        # Ones of an average (`formats/onnx/averages.py`) are not weights.
        if node.op_type != "ConstantOfShape" and all(name in constant for name in node.input if name):
            constant |= set(node.output)
            producers |= dict.fromkeys(node.output, node)
        weight = LAYER_INPUTS.get(node.op_type, (None, None))[0]
        if weight is not None and len(node.input) > weight and node.input[weight] in constant:
            wanted[node.name or f"{node.op_type}_{index}"] = node.input[weight]
    # Walk back from the weights: other constant chains of the graph do not matter here.
    needed: set[str] = set()
    pending = list(wanted.values())
    while pending:
        name = pending.pop()
        if name in producers and name not in needed:
            needed.add(name)
            pending += producers[name].input
    return wanted, [node for node in proto.graph.node if any(output in needed for output in node.output)]
