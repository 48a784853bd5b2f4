"""LiteRT files that take image bytes, channels-last: the same folding as in ONNX files (`lowbit.formats.input_bytes`).

An activation has one zero point in LiteRT, and each color wants its own z. So the border is painted beforehand: the
first convolution reads the bytes with z around the image, and its bias makes up for the rest, which then is the same
everywhere. Bytes become codes by way of float, since XNNPACK has no kernel for them, and in rows of [width x colors]
values, since for three channels at a time it is slow. (MobileNetV2: as fast as from a float input; painting in float,
by a Pad between two additions, took 1 to 2 % more, a fourth channel by PADV2 and a QUANTIZE of bytes, outside XNNPACK,
12.)

Models whose input is read by anything but integer convolutions with the same padding compute as from a float input,
which the file makes itself.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.litert.builder import SHIFT
from lowbit.formats.litert.graph import CHANNELS_LAST, FileGraph, Order, StoredValue
from lowbit.formats.litert.space_to_depth import grouped
from lowbit.formats.litert.window import Window, cut
from lowbit.formats.quantized_graph import (
    ActivationCodes,
    BiasCodes,
    Border,
    ByteInput,
    ByteLayer,
    QuantizedGraph,
    Sides,
)
from lowbit.graph.columns import convolution_pads
from lowbit.graph.edit import set_weight
from lowbit.graph.model import Value
from lowbit.graph.ops import Layer, layers

LAYOUT = "NHWC"
# The code 0 of int8.
MIDDLE = ActivationCodes(1.0, SHIFT)


def for_bytes(quantized: QuantizedGraph, *, lanes: int) -> QuantizedGraph:
    """The model whose convolutions read bytes with a border painted around the image, if it takes any.

    Args:
        quantized: the model.
        lanes: channels that integer kernels multiply at a time: where it takes pixels together, whole groups of them
            are painted.

    Raises:
        ModelError: channels-first bytes, which LiteRT does not compute with.
    """
    given = quantized.byte_input
    if given is None:
        return quantized
    if given.takes_floats:
        # Only QuantizeLinear of ONNX has a scale per color.
        return replace(quantized, byte_input=None)
    if given.layout != LAYOUT:
        raise ModelError(
            "LiteRT files take images channels-last.",
            where=quantized.model.source,
            remedy="Leave --input-layout out, or write an ONNX file.",
        )
    how = given.preprocessing
    by_color = with_byte_input(quantized, preprocessing=how, layout=LAYOUT, by_color=True).byte_input
    assert by_color is not None
    reading = [layer for layer in layers(quantized.model) if layer.node in by_color.layers]
    windows = [_windows(layer, (how.height, how.width)) for layer in reading]
    needed = {tuple((window.before, window.after) for window in pair) for pair in windows}
    # The border above and below grows from as many rows of the image.
    too_far = any(max(column.before, column.after) > how.height for column, _ in windows)
    if not by_color.zero_points or len(needed) != 1 or too_far:
        return replace(quantized, byte_input=ByteInput(how, LAYOUT))
    (reach,) = needed
    grown = {(reach[0], _whole_groups(reach[1], row, how.channels, lanes)) for _, row in windows}
    border = Border(reach, grown.pop() if len(grown) == 1 else reach)
    return _on_painted(quantized, replace(by_color, border=border))


def _on_painted(quantized: QuantizedGraph, byte_input: ByteInput) -> QuantizedGraph:
    """The model with the convolutions of a byte input, on an image that has its border already."""
    how, old = byte_input.preprocessing, quantized.model
    copy = ir.from_proto(old.to_proto())
    image = copy.graph.inputs[0]
    batch = image.shape[0] if image.shape is not None else None
    sizes = [size + sum(both) for size, both in zip((how.height, how.width), byte_input.border.reach, strict=True)]
    image.shape = ir.Shape([batch, how.channels, *sizes])
    weights, biases = dict(quantized.weights), dict(quantized.biases)
    for node in copy.graph:
        layer = byte_input.layers.get(str(node.name))
        if layer is not None:
            set_weight(copy.graph, node, 1, layer.weight.decode(), wanted=f"{node.name}.bytes")
            weights[str(node.inputs[1].name if node.inputs[1] is not None else "")] = layer.weight
            biases[str(node.name)] = _from_middle(layer, byte_input.zero_points)
            node.attributes.pop("auto_pad", None)
            node.attributes["pads"] = ir.AttrInt64s("pads", [0] * 4)
    activations = {**quantized.activations, old.input.name: MIDDLE}
    model = replace(old, ir=copy)
    floats = {name: array for name, array in quantized.float_values.items() if name in copy.graph.initializers}
    return replace(
        quantized,
        model=model,
        weights=weights,
        activations=activations,
        biases=biases,
        float_values=floats,
        byte_input=byte_input,
    )


def _windows(layer: Layer, sizes: tuple[int, int]) -> tuple[Window, Window]:
    """How the kernel moves over the image."""
    geometry = layer.geometry
    assert geometry is not None
    pads = convolution_pads(geometry, sizes)
    column, row = (
        Window(extent, stride, before, size, (size + before + after - extent) // stride + 1)
        for size, (before, after), extent, stride in zip(sizes, pads, geometry.extents(), geometry.strides, strict=True)
    )
    return column, row


def _whole_groups(reach: tuple[int, int], window: Window, channels: int, lanes: int) -> tuple[int, int]:
    """Padding (before, behind) of a row in whole groups of pixels, if its convolution takes such together."""
    groups = grouped(window, channels, lanes)
    if groups is None:
        return reach
    row = groups.window(window)
    return groups.pixels * row.before, groups.pixels * row.after


def _from_middle(layer: ByteLayer, zero_points: tuple[int, ...]) -> BiasCodes:
    """The bias of a convolution that counts from `MIDDLE` instead of a zero point per color."""
    sums = layer.weight.levels().astype(np.int64).sum(axis=(2, 3))
    moved = layer.bias.codes + sums @ (MIDDLE.zero_point - np.array(zero_points, np.int64))
    return BiasCodes(moved.astype(np.int32), layer.bias.scale)


def write_bytes(graph: FileGraph, value: Value, order: Order) -> int:
    """Index of the input tensor, uint8 [N, H, W, colors]; what reads it finds the model's own input after it."""
    given = graph.quantized.byte_input
    assert given is not None
    name, how = str(value.name), given.preprocessing
    batch, count = graph.batch_place(name, order), graph.shape(name)[0]
    codes = MIDDLE if given.layers else ActivationCodes(1.0, 0)
    outside = graph.tensor([count, *how.image_shape], codes=codes, name=name, batch_axis=batch, dtype="uint8")
    rows = graph.reshape(outside, (count, how.height, how.width * how.channels), batch_axis=batch)
    x = graph.tensor(graph.tensors[rows].shape, batch_axis=batch)
    graph.operator("DEQUANTIZE", [rows], [x])
    if not given.layers:
        # x = ((p - z) scale - mean) / std with z = 0
        std = np.asarray(how.std, np.float64)
        x = _by_color(graph, "MUL", x, how.scale / std)
        x = _by_color(graph, "ADD", x, -np.asarray(how.mean, np.float64) / std)
        graph.adopt(name, StoredValue(graph.reshape(x, (count, *how.image_shape), batch_axis=batch), order))
        return outside
    border = (np.array(given.zero_points) - MIDDLE.zero_point).astype(np.float32)
    painted = _painted(graph, x, given.border.painted, border)
    _, height, width = graph.tensors[painted].shape
    inside = graph.reshape(painted, (count, height, width // how.channels, how.channels), batch_axis=batch)
    margin = given.border.painted[1][0] - given.border.reach[1][0]
    graph.adopt(name, StoredValue(inside, CHANNELS_LAST, MIDDLE, margin=margin))
    return outside


def _painted(graph: FileGraph, x: int, painted: Sides, border: npt.NDArray[np.float32]) -> int:
    """Rows of pixels as codes, with a border of one code per color around them.

    Args:
        graph: the graph to write to.
        x: the pixels less `MIDDLE`, float [N, H, W x colors].
        painted: pixels above and below, to the left and to the right.
        border: the value around the image less `MIDDLE`, one per color.
    """
    ends, sides = painted
    rows = _codes(graph, x)
    if not any((*ends, *sides)):
        return rows
    # Constants have a batch of one. Nothing times a column of the image has as many as there are images.
    column = cut(graph, StoredValue(x, CHANNELS_LAST), {2: (0, 1)}).tensor
    nothing = graph.derived(column, graph.tensors[column].shape)
    graph.operator("MUL", [column, graph.constant(np.zeros(1, np.float32))], [nothing])
    pieces = [_border(graph, nothing, count * len(border), border) for count in sides]
    rows = _joined(graph, (pieces[0], rows, pieces[1]), axis=2)
    width = graph.tensors[rows].shape[2]
    pieces = []
    for count in ends:
        part = cut(graph, StoredValue(nothing, CHANNELS_LAST), {1: (0, count)}).tensor if count else nothing
        pieces.append(_border(graph, part, width if count else 0, border))
    return _joined(graph, (pieces[0], rows, pieces[1]), axis=1)


def _border(graph: FileGraph, nothing: int, length: int, border: npt.NDArray[np.float32]) -> int:
    """Codes [N, H, length] of the border, from zeros [N, H, 1]; -1 if there are none."""
    if not length:
        return -1
    line = graph.derived(nothing, (*graph.tensors[nothing].shape[:2], length))
    graph.operator("ADD", [nothing, graph.constant(np.tile(border, length // len(border)))], [line])
    return _codes(graph, line)


def _codes(graph: FileGraph, x: int) -> int:
    """QUANTIZE to `MIDDLE`."""
    codes = graph.tensor(graph.tensors[x].shape, codes=MIDDLE, batch_axis=graph.tensors[x].batch_axis)
    graph.operator("QUANTIZE", [x], [codes])
    return codes


def _joined(graph: FileGraph, pieces: tuple[int, ...], *, axis: int) -> int:
    """CONCATENATION of the tensors that are there."""
    there = [piece for piece in pieces if piece >= 0]
    if len(there) == 1:
        return there[0]
    shape = list(graph.tensors[there[0]].shape)
    shape[axis] = sum(graph.tensors[piece].shape[axis] for piece in there)
    result = graph.derived(there[0], shape)
    graph.operator("CONCATENATION", there, [result], options={"axis": axis})
    return result


def _by_color(graph: FileGraph, code: str, rows: int, values: npt.NDArray[Any]) -> int:
    """ADD or MUL one value per color to rows [N, H, W x colors]; index of the result."""
    shape, batch = graph.tensors[rows].shape, graph.tensors[rows].batch_axis
    result = graph.tensor(shape, batch_axis=batch)
    row = np.tile(values.astype(np.float32), shape[-1] // len(values))
    graph.operator(code, [rows, graph.constant(row)], [result])
    return result
