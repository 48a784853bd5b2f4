"""QuantizedGraph -> a LiteRT (.tflite) file, written without TensorFlow.

Images go in channels-last, as LiteRT computes; the metadata entry `lowbit.layout` says how the axes of the model's
inputs and outputs were turned, and `lowbit.preprocessing` speaks of the file as it is. Full-integer models become int8
operators (the uint8 codes minus 128, per-channel int8 weights, int32 biases) that XNNPACK runs in integers; weight-only
ones are stored as int8 and computed in float. A model with a byte input takes image bytes
(`formats/litert/byte_input.py`).

What is given up: one image size per file; weights in code books of floats or of more than 8 bits, for which LiteRT has
no form that it decodes once at load, and mostly the width of narrower ones (`layers.takes_half_bytes`); operators
outside `operators.OPERATORS`. All but the width are refused by name.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial

from lowbit.errors import ModelError
from lowbit.formats.input_bytes import byte_metadata
from lowbit.formats.litert.byte_input import for_bytes, write_bytes
from lowbit.formats.litert.file import load_schema, serialize
from lowbit.formats.litert.graph import CHANNELS_LAST, FUSED, LANES, FileGraph, Order, StoredValue, bounds_of
from lowbit.formats.litert.operators import OPERATORS, SIGMOID_CODES
from lowbit.formats.litert.pooling import REDUCTIONS
from lowbit.formats.litert.shapes import static_shapes
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph, float_outputs
from lowbit.graph.model import Node, Value
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.schemes.codes import Scheme

TYPES = ("float32", "int8", "uint8")
WHOLE_NUMBERS = ("INT64", "INT32", "UINT8", "BOOL")  # that a model itself takes, such as the ids of words
# Read by `lowbit.engines.litert`.
LAYOUT_KEY = "lowbit.layout"
# Read by `lowbit.formats.litert.ledger`: how a weight differs from that of the model beyond the order of axes.
LAYERS_KEY = "lowbit.layers"
# Operators whose other inputs only say how; those are read as constants, or are in the shapes already.
ONE_DATA_INPUT = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad", "Slice", "Split", "Resize", "Clip", "Transpose"}
ONE_DATA_INPUT |= {"Expand", "Tile", *REDUCTIONS}


def rewrites(output_type: str, lanes: int) -> tuple[Callable[[QuantizedGraph], QuantizedGraph], ...]:
    """What is done to the graph before it is written, first to last; see `to_litert` for the options."""
    fixed = () if output_type == "float32" else (with_fixed_codes,)
    return (partial(for_bytes, lanes=lanes), with_clamps, *fixed)


def to_litert(
    quantized: QuantizedGraph, *, input_type: str = "float32", output_type: str = "float32", lanes: int = LANES
) -> bytes:
    """The content of the .tflite file; the same input always gives the same bytes.

    Args:
        quantized: the model and its codes.
        input_type: float32, int8 or uint8: what the model's inputs hold. Codes have the scale that calibration chose
            for the (normalized) input; a byte input of `quantized` takes images instead.
        output_type: the same for its outputs.
        lanes: channels that the integer kernels which the file is for multiply at a time (`space_to_depth`).

    Raises:
        ModelError: an operator, weights or a type that LiteRT has no form for; the message names it.
        EngineError: the package `ai-edge-litert` is not installed.
    """
    for kind in (input_type, output_type):
        if kind not in TYPES:
            raise ModelError(f"LiteRT files hold {', '.join(TYPES)}, not '{kind}'.", where=quantized.model.source)
    for rewrite in rewrites(output_type, lanes):
        quantized = rewrite(quantized)
    graph = FileGraph(quantized, static_shapes(quantized.model), lanes=lanes)
    graph.float_outputs = float_outputs(quantized) if output_type == "float32" else frozenset()
    inputs, outputs, layout = _fill(graph, input_type, output_type)
    tensors = graph.tensors
    if not graph.resizable:
        tensors = [dataclasses.replace(tensor, batch_axis=None) for tensor in tensors]
    return serialize(
        tensors,
        graph.operators,
        inputs=inputs,
        outputs=outputs,
        metadata=_metadata(quantized, layout, graph.notes),
        source=quantized.model.source,
    )


def check_litert(graph: QuantizedGraph, schemes: Mapping[str, tuple[Scheme, int]]) -> None:
    """Refuse what `to_litert` would, before any weight is encoded.

    Args:
        graph: the model, with its byte input if it will have one.
        schemes: by weight, the scheme that it will get and the axis of its output channels.

    Raises:
        ModelError: an operator, weights or a layout of bytes that LiteRT has no form for; the message names it.
        EngineError: the package `ai-edge-litert` is not installed.
    """
    for rewrite in rewrites("float32", LANES):
        graph = rewrite(graph)
    _fill(FileGraph(graph, static_shapes(graph.model), schemes=schemes), "float32", "float32")
    load_schema()


def _fill(
    graph: FileGraph, input_type: str, output_type: str
) -> tuple[list[int], list[int], dict[str, dict[str, Order]]]:
    """Write inputs, operators and outputs; returns the indices of both, and how the axes of each are turned."""
    layout: dict[str, dict[str, Order]] = {"inputs": {}, "outputs": {}}
    inputs = []
    byte_input = graph.quantized.byte_input
    for value in graph.model.graph.inputs:
        if byte_input is not None:
            order = CHANNELS_LAST if byte_input.preprocessing.layout == "NCHW" else (0, 1, 2, 3)
            inputs.append(write_bytes(graph, value, order))
            continue
        order = _input_order(graph, value)
        layout["inputs"][str(value.name)] = order
        inputs.append(_input(graph, value, order, input_type))
    for node in _needed(graph):
        _write(graph, node)
    outputs = []
    for value in graph.model.graph.outputs:
        tensor, order = _output(graph, value, output_type)
        layout["outputs"][str(value.name)] = order
        outputs.append(tensor)
    return inputs, outputs, layout


def with_fixed_codes(quantized: QuantizedGraph) -> QuantizedGraph:
    """Probabilities need no calibration: LiteRT fixes their scale."""
    fixed = {
        str(value.name): SIGMOID_CODES[quantized.kind.bits]
        for value in quantized.model.graph.outputs
        if (producer := value.producer()) is not None and producer.op_type in ("Softmax", "Sigmoid")
    }
    return dataclasses.replace(quantized, activations=fixed | dict(quantized.activations))


# Operators whose kernels clamp what they compute, beside saturation.
CLAMPING = frozenset(("Conv", "Gemm", "MatMul", "Add", "Mul"))


def with_clamps(quantized: QuantizedGraph) -> QuantizedGraph:
    """A Relu or Clip that neither saturation nor a fused activation does becomes an operator on codes of its own."""
    integer, absorbed, activations = set(quantized.integer), set(quantized.absorbed), dict(quantized.activations)
    for node in quantized.model.graph:
        before = node.inputs[0] if node.inputs else None
        if node.name not in absorbed or before is None or (producer := before.producer()) is None:
            continue
        codes = activations.get(str(node.outputs[0].name))
        if codes is None or codes.kind.saturates or (producer.op_type in CLAMPING and bounds_of(node) in FUSED):
            continue
        absorbed.discard(str(node.name))
        integer.add(str(node.name))
        activations[str(before.name)] = codes
    return dataclasses.replace(
        quantized, integer=frozenset(integer), absorbed=frozenset(absorbed), activations=activations
    )


def _write(graph: FileGraph, node: Node) -> None:
    name = str(node.name)
    if name in graph.done:
        return
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        raise graph.refuse(node, "cannot be written to a LiteRT file")
    try:
        OPERATORS[node.op_type](graph, node)
    except (ValueError, IndexError, KeyError):
        # A node that does not fit what it reads has no shape that could be inferred; all else is an error of ours.
        graph.shape(str(node.outputs[0].name))
        raise


def _needed(graph: FileGraph) -> list[Node]:
    """The nodes that outputs are computed from, in order; not those that only compute shapes."""
    pending = list(graph.model.graph.outputs)
    needed: set[str] = set()
    while pending:
        node = pending.pop().producer()
        if node is None or str(node.name) in needed:
            continue
        needed.add(str(node.name))
        layer = graph.layers.get(str(node.name))
        own_weight = layer is not None and layer.turned  # written with the layer, not by the Transpose before it
        read = node.inputs[:1] if node.op_type in ONE_DATA_INPUT or own_weight else node.inputs
        pending += [value for value in read if value is not None]
    return [node for node in graph.model.graph if str(node.name) in needed]


def _input_order(graph: FileGraph, value: Value) -> Order:
    """Images become channels-last, unless the model turns them around itself or takes them so."""
    rank = len(graph.shape(str(value.name)))
    readers = [node for node, _ in value.uses()]
    turned = bool(readers) and all(
        node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", [])) == (0, 3, 1, 2) for node in readers
    )
    return CHANNELS_LAST if rank == 4 and not turned else tuple(range(rank))


def _input(graph: FileGraph, value: Value, order: Order, kind: str) -> int:
    name = str(value.name)
    if value.dtype is not None and value.dtype.name in WHOLE_NUMBERS:
        tensor = graph.tensor(
            [graph.shape(name)[axis] for axis in order],
            name=name,
            batch_axis=graph.batch_place(name, order),
            dtype=value.dtype.name.lower(),
        )
        graph.adopt(name, StoredValue(tensor, order))
        return tensor
    if kind == "float32":
        return graph.write(name, order)
    codes = _codes(graph, name, "input")
    if kind == "int8":
        return graph.write(name, order, codes=codes)
    shape = [graph.shape(name)[axis] for axis in order]
    batch = graph.batch_place(name, order)
    outside = graph.tensor(shape, codes=codes, name=name, batch_axis=batch, dtype="uint8")
    inside = graph.tensor(shape, codes=codes, batch_axis=batch)
    graph.operator("QUANTIZE", [outside], [inside], version=2)
    graph.adopt(name, StoredValue(inside, order, codes))
    return outside


def _output(graph: FileGraph, value: Value, kind: str) -> tuple[int, Order]:
    """Index of a graph output in the type asked for, and the order of its axes."""
    name = str(value.name)
    integer = kind != "float32"
    if integer:
        _codes(graph, name, "output")
    stored = graph.read(value, integer=integer)
    plain = tuple(range(len(stored.order)))
    if stored.flat or stored.order not in (plain, CHANNELS_LAST):
        stored = graph.read(value, order=plain, integer=integer)
    tensor = stored.tensor
    old = graph.tensors[tensor]
    if kind == "uint8" and stored.codes is not None:
        tensor = graph.tensor(old.shape, codes=stored.codes, batch_axis=old.batch_axis, dtype="uint8")
        graph.operator("QUANTIZE", [stored.tensor], [tensor], version=2)
        old = graph.tensors[tensor]
    graph.tensors[tensor] = dataclasses.replace(old, name=name)
    return tensor, stored.order


def _codes(graph: FileGraph, name: str, what: str) -> ActivationCodes:
    if name not in graph.quantized.activations:
        raise ModelError(
            f"{what} '{name}' has no scale, so it cannot be integers.",
            where=graph.model.source,
            remedy=f"Leave its type float32, or calibrate it: give codes for '{name}'.",
        )
    return graph.quantized.activations[name]


def _metadata(
    quantized: QuantizedGraph, layout: Mapping[str, Mapping[str, Order]], notes: Mapping[str, Mapping[str, object]]
) -> dict[str, str]:
    entries = {key: value for key, value in quantized.model.ir.metadata_props.items() if key.startswith("lowbit.")}
    entries |= quantized.metadata
    known = quantized.model.preprocessing
    if quantized.byte_input is not None:
        entries |= byte_metadata(quantized.byte_input)
    elif known is not None:
        first = next(iter(layout["inputs"].values()))
        turned = known.layout == "NCHW" and first == CHANNELS_LAST
        entries[METADATA_KEY] = dataclasses.replace(known, layout="NHWC" if turned else known.layout).to_json()
    if notes:
        entries[LAYERS_KEY] = json.dumps(notes, sort_keys=True)
    entries[LAYOUT_KEY] = json.dumps(layout, sort_keys=True)
    return entries
