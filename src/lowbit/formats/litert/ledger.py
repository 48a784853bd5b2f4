"""Where the bytes of a .tflite file went, and its weights as the runtime sees them: any file, not only lowbit's.

Needs no LiteRT: the file is walked by `lowbit.engines.litert_reader`, which checks every offset. Content that tensors
share is counted once. Constants that are no weights (shapes, paddings, copies of weights that no layer reads as such,
which some converters leave behind as "pseudo_qconst") have a line of their own; buffers that nothing reads are padding.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.engines.litert_reader import LiteRtFile, StoredGraph, StoredOperator, StoredTensor, read_litert
from lowbit.errors import ModelError
from lowbit.files import read_model_file
from lowbit.formats.input_bytes import FACTORS_KEY, in_float_units
from lowbit.formats.ledger import KINDS, Ledger, StoredLayer
from lowbit.formats.litert.space_to_depth import NOTE as PIXELS
from lowbit.formats.litert.space_to_depth import restored
from lowbit.formats.litert.write import LAYERS_KEY

Array = np.ndarray[Any, np.dtype[Any]]

CONV, DEPTHWISE, DEQUANTIZE, PRODUCT, TRANSPOSED = 3, 4, 6, 9, 67
# operator -> (ONNX name, input that is the weight, input that is the bias)
LAYERS = {
    CONV: ("Conv", 1, 2),
    DEPTHWISE: ("Conv", 1, 2),
    PRODUCT: ("Gemm", 1, 2),
    TRANSPOSED: ("ConvTranspose", 1, 3),
}
# From LiteRT's order of axes to that of ONNX.
AXES = {CONV: (0, 3, 1, 2), DEPTHWISE: (3, 0, 1, 2), PRODUCT: (0, 1), TRANSPOSED: (3, 0, 1, 2)}
HALF_BYTES = "int4"  # two in a byte, the first in its low half
BYTES = {"int8": "i1", "uint8": "u1", "float32": "<f4", "float16": "<f2", "int16": "<i2", "int32": "<i4"}
FLOATS = frozenset(("float32", "float16", "bfloat16", "float64"))


@dataclass(frozen=True)
class WeightUse:
    """A constant that a layer reads as its weight, at once or through a DEQUANTIZE."""

    operator: StoredOperator
    weight: StoredTensor
    bias: StoredTensor | None
    name: str


def read_litert_ledger(path: Path | str) -> Ledger:
    """Count a .tflite file; `Ledger.total` is its size to the byte.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    path = Path(path)
    file = _read(path)
    notes = _notes(file, path)
    kinds: dict[int, str] = {}
    counts = dict.fromkeys(KINDS[:7], 0)
    stored_layers: dict[str, StoredLayer] = {}
    for graph in file.graphs:
        for use in _weights(file, graph):
            kind = "float_weights" if use.weight.dtype in FLOATS else "codes"
            number = _number(use, notes.get(use.name, {}), path)
            _count(file, use.weight, kind, kinds, counts, number)
            if use.bias is not None:
                _count(file, use.bias, "biases", kinds, counts)
            layer = _stored_layer(file, use, number)
            if layer.node in stored_layers:
                # Groups of a transposed convolution are operators of their own.
                before = stored_layers[layer.node]
                layer = replace(
                    before,
                    weights=before.weights + layer.weights,
                    code_bytes=before.code_bytes + layer.code_bytes,
                    side_bytes=before.side_bytes + layer.side_bytes,
                )
            stored_layers[layer.node] = layer
        for tensor in graph.tensors:
            _count(file, tensor, "constants", kinds, counts)
    texts = {file.metadata[name] for name in file.metadata}
    spent = dict.fromkeys(KINDS, 0)
    seen: set[tuple[int, int]] = set()
    for index, span in enumerate(file.buffers):
        if (span.start, span.size) not in seen:
            spent[kinds.get(index, "metadata" if index in texts else "padding")] += span.size
            seen.add((span.start, span.size))
    for graph in file.graphs:
        for tensor in graph.tensors:
            for kind, span, item in (("scales", tensor.scale, 4), ("zero_points", tensor.zero_point, 8)):
                if (span.start, span.size) not in seen:
                    spent[kind] += span.size
                    counts[kind] += span.size // item
                    seen.add((span.start, span.size))
    total = len(file.content)
    spent["graph"] += total - sum(spent.values())
    if spent["graph"] < 0:
        raise ModelError("is a damaged .tflite file: its parts overlap.", where=str(path))
    return Ledger(spent, counts, total, tuple(stored_layers.values()))


def litert_layer_weights(path: Path | str) -> dict[str, Array]:
    """The float weight of every layer with constant weights, in the shape it has in ONNX, by name.

    The name is that of the ONNX node in files that lowbit wrote, else that of the tensor the layer gives. Decoded from
    the file's codes and scales; a product's weight is [outputs, inputs], unless the file notes that the model has it
    the other way around.

    Raises:
        ModelError: not a .tflite file, damaged, or weights of a type that is not read here.
    """
    path = Path(path)
    file = _read(path)
    notes = _notes(file, path)
    pieces: dict[str, list[Array]] = {}
    for graph in file.graphs:
        for use in _weights(file, graph):
            values = decoded(file, use.weight, str(path))
            if values.ndim != len(AXES[use.operator.code]):
                raise ModelError(f"weight '{use.name}' has {values.ndim} dimensions.", where=str(path))
            pieces.setdefault(use.name, []).append(values.transpose(AXES[use.operator.code]))
    weights = {name: _restored(np.concatenate(parts), notes.get(name, {}), path) for name, parts in pieces.items()}
    folded = file.text(FACTORS_KEY)
    return weights if folded is None else in_float_units(weights, folded)


def decoded(file: LiteRtFile, tensor: StoredTensor, source: str) -> Array:
    """The float32 values of a constant.

    Raises:
        ModelError: a type that is not read here, less content than its shape needs, or zero points that fit no scale.
    """
    if tensor.dtype not in (*BYTES, HALF_BYTES):
        raise ModelError(f"weights of type {tensor.dtype} are not read.", where=source)
    if tensor.dtype == HALF_BYTES:
        halves = file.array(file.buffers[tensor.buffer], "u1")
        codes = np.stack([halves & 15, halves >> 4], axis=1).reshape(-1)[: math.prod(tensor.shape)]
        codes = (codes.astype(np.int8) ^ 8) - 8  # the fourth bit is the sign
    else:
        codes = file.array(file.buffers[tensor.buffer], BYTES[tensor.dtype])
    if codes.size != np.prod(tensor.shape, dtype=np.int64):
        raise ModelError(f"holds {codes.size} values for shape {list(tensor.shape)}.", where=source)
    codes = codes.reshape(tensor.shape)
    scale = file.array(tensor.scale, "<f4")
    if scale.size == 0:
        return codes.astype(np.float32)
    zero_point = file.array(tensor.zero_point, "<i8")
    shape = [-1 if axis == tensor.axis else 1 for axis in range(len(tensor.shape))]
    steps = codes.astype(np.int64)
    if zero_point.any():
        if zero_point.size not in (1, scale.size):
            raise ModelError(f"has {zero_point.size} zero points for {scale.size} scales.", where=source)
        steps = steps - zero_point.reshape(shape)
    return np.asarray(steps.astype(np.float32) * scale.reshape(shape))


def _read(path: Path) -> LiteRtFile:
    return read_litert(read_model_file(path), str(path))


def _weights(file: LiteRtFile, graph: StoredGraph) -> Iterator[WeightUse]:
    def constant(index: int) -> StoredTensor | None:
        tensor = graph.tensors[index] if index >= 0 else None
        return tensor if tensor is not None and file.buffers[tensor.buffer].size else None

    ours = LAYERS_KEY in file.metadata or "lowbit.layout" in file.metadata
    decoders = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if operator.code == DEQUANTIZE and operator.inputs and operator.outputs
    }
    for operator in graph.operators:
        if operator.code not in LAYERS or len(operator.inputs) < 2 or not operator.outputs:
            continue
        _, at, bias_at = LAYERS[operator.code]
        index = operator.inputs[at]
        weight = constant(index) or constant(decoders.get(index, -1))
        if weight is None or not weight.shape:
            continue
        if ours and not weight.name:
            # Helpers that lowbit made of layers, such as an average, hold no weights of the model.
            continue
        bias = constant(operator.inputs[bias_at]) if len(operator.inputs) > bias_at else None
        name = weight.name if ours else graph.tensors[operator.outputs[0]].name or weight.name
        yield WeightUse(operator, weight, bias, name)


def _count(
    file: LiteRtFile,
    tensor: StoredTensor,
    kind: str,
    kinds: dict[int, str],
    counts: dict[str, int],
    number: int | None = None,
) -> None:
    if tensor.buffer in kinds or not file.buffers[tensor.buffer].size:
        return
    kinds[tensor.buffer] = kind
    counts[kind] += math.prod(tensor.shape) if number is None else number


def _number(use: WeightUse, note: dict[str, Any], path: Path) -> int:
    """The model's weights in a constant: without the zeros that stand between them or fill up groups of pixels."""
    shape = list(use.weight.shape)
    try:
        if PIXELS in note:
            pixels, _, columns = note[PIXELS]
            shape[2:] = [columns, shape[3] // pixels]
        for axis, step in enumerate(note.get("dilations", ()), start=1):
            shape[axis] = -(-shape[axis] // step)
        return abs(math.prod(map(int, shape)))
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise _misfit(error, path) from error


def _stored_layer(file: LiteRtFile, use: WeightUse, number: int) -> StoredLayer:
    return StoredLayer(
        node=use.name,
        op=LAYERS[use.operator.code][0],
        weights=number,
        code_bytes=file.buffers[use.weight.buffer].size,
        side_bytes=use.weight.scale.size + use.weight.zero_point.size,
        initializers=(use.weight.name,),
    )


def _notes(file: LiteRtFile, path: Path) -> dict[str, dict[str, Any]]:
    text = file.text(LAYERS_KEY)
    if text is None:
        return {}
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"metadata {LAYERS_KEY!r} is damaged: {error}.", where=str(path)) from error
    if not isinstance(notes, dict) or not all(isinstance(note, dict) for note in notes.values()):
        raise ModelError(f"metadata {LAYERS_KEY!r} is damaged.", where=str(path))
    return notes


def _restored(weight: Array, note: dict[str, Any], path: Path) -> Array:
    """Undo what the writer noted: columns of a flattened image, a product turned around, pixels or a dilation."""
    try:
        if "image" in note:
            channels, height, width = (int(size) for size in note["image"])
            image = weight.reshape(len(weight), height, width, channels)
            weight = image.transpose(0, 3, 1, 2).reshape(weight.shape)
        if PIXELS in note:
            weight = restored(weight, note[PIXELS])
        if "dilations" in note:
            rows, columns = (int(step) for step in note["dilations"])
            weight = weight[:, :, ::rows, ::columns]
        return weight.T if note.get("transposed") else weight
    except (ValueError, TypeError) as error:
        raise _misfit(error, path) from error


def _misfit(error: Exception, path: Path) -> ModelError:
    return ModelError(f"metadata {LAYERS_KEY!r} does not match its weights: {error}.", where=str(path))
