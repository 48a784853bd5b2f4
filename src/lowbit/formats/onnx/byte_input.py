"""ONNX files that take image bytes, or find them in the floats that they take: the nodes in front.

What the first convolutions then compute is in `lowbit.formats.input_bytes`.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from lowbit.formats.input_bytes import byte_metadata
from lowbit.formats.onnx.draft import Draft
from lowbit.formats.quantized_graph import ByteInput
from lowbit.graph.preprocessing import Preprocessing

# How far a pixel value may lie from a whole number before it is rounded. ImageNet's means leave 0.47: 0.03 from the
# next number, a thousand times what float32 makes of a normalized byte, and the Add that would center it costs 1 %.
LARGEST_REST = 0.48

Array = np.ndarray[Any, np.dtype[Any]]


def write_byte_input(draft: Draft) -> Draft:
    """Turn the graph's float input into one of bytes, or find the bytes in it, if the file computes on bytes.

    The graph is as written for floats, QuantizeLinear and all. What nothing reads any more stays in it.
    """
    byte_input = draft.quantized.byte_input
    if byte_input is None:
        return draft
    graph = draft.graph
    draft.model.metadata_props.update(byte_metadata(byte_input))
    # All nodes in front go through this, so that they stand in the order in which they compute.
    front, how, image = _Front(draft), byte_input.preprocessing, graph.inputs[0]
    if byte_input.takes_floats:
        _write_folded(draft, front, byte_input, _found_bytes(front, image, how))
        return draft
    batch = image.shape[0] if image.shape is not None else None
    sizes = how.image_shape if byte_input.layout == "NHWC" else (how.channels, how.height, how.width)
    users = tuple(image.uses())
    image.shape, image.dtype = ir.Shape([batch, *sizes]), ir.DataType.UINT8
    if byte_input.layers:
        _write_folded(draft, front, byte_input, image)
    else:
        _write_normalization(front, byte_input, image, users)
    return draft


def _found_bytes(front: "_Front", image: ir.Value, how: Preprocessing) -> ir.Value:
    """uint8 [N, C, H, W] from the float input: p = x d / s + m / s, with m / s split into a zero point and the rest."""
    mean, std = np.asarray(how.mean, np.float64), np.asarray(how.std, np.float64)
    pixels, steps = mean / how.scale, how.scale / std
    zero_points = np.rint(pixels)
    rest = pixels - zero_points
    value = image
    if np.abs(rest).max() > LARGEST_REST:
        # Exactly between two whole numbers, as with a mean of 0.5, float32 noise would decide.
        value = front.then("Add", value, (rest * steps).astype(np.float32).reshape(1, -1, 1, 1))
    scale, zero_point = steps.astype(np.float32), zero_points.astype(np.uint8)
    return front.then("QuantizeLinear", value, scale, zero_point, axis=1)


def _write_folded(draft: Draft, front: "_Front", byte_input: ByteInput, image: ir.Value) -> None:
    graph, names = draft.graph, draft.names
    value = (_by_color if byte_input.zero_points else _with_constant)(front, byte_input, image)
    for node in tuple(graph):
        layer = byte_input.layers.get(str(node.name))
        if layer is None:
            continue
        node.replace_input_with(0, value)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        for index, codes, scale in (
            (1, layer.weight.levels(), layer.weight.scale),
            (2, layer.bias.codes, layer.bias.scale),
        ):
            several = scale.size > 1
            pair = ir.node(
                "DequantizeLinear",
                [names.constant(codes, "w"), names.constant(scale.reshape(-1) if several else scale.reshape(()), "s")],
                attributes={"axis": 0} if several else {},
            )
            pair.outputs[0].name = names.fresh("d")
            graph.insert_before(node, pair)
            node.replace_input_with(index, pair.outputs[0])


def _by_color(front: "_Front", byte_input: ByteInput, image: ir.Value) -> ir.Value:
    """Pixels [N, C, H, W] that count from a zero point per color."""
    how, value = byte_input.preprocessing, image
    ones, zero_points = np.ones(how.channels, np.float32), np.array(byte_input.zero_points, np.uint8)
    if byte_input.takes_floats:
        return front.then("DequantizeLinear", value, ones, zero_points, axis=1)
    if byte_input.layout == "NHWC":
        value = front.then("Transpose", value, perm=[0, 3, 1, 2])
    # Directly behind the graph's input OpenVINO would convert to float at once; a matrix of pixels keeps it from that.
    value = front.then("Reshape", value, np.array([0, how.channels, how.height * how.width]))
    value = front.then("DequantizeLinear", value, ones, zero_points, axis=1)
    return front.then("Reshape", value, np.array([0, how.channels, how.height, how.width]))


def _with_constant(front: "_Front", byte_input: ByteInput, image: ir.Value) -> ir.Value:
    """Pixels [N, C and more, H, W] that count from one zero point, with constant channels behind the colors."""
    how = byte_input.preprocessing
    total = next(iter(byte_input.layers.values())).weight.shape[1]
    more = total - how.channels
    # Turned around and padded as a matrix [colors, pixels]: between reshapes no runtime moves the padding to the
    # innermost axis, where ONNX Runtime took 171 us for it instead of 6.
    flat = byte_input.layout == "NHWC"
    value = image
    if flat:
        value = front.then("Reshape", value, np.array([0, how.height * how.width, how.channels]))
        value = front.then("Transpose", value, perm=[0, 2, 1])
    pads = np.zeros(6 if flat else 8, np.int64)
    pads[pads.size // 2 + 1] = more
    value = front.then("Pad", value, pads, np.uint8(byte_input.fill))
    if flat:
        value = front.then("Reshape", value, np.array([0, total, how.height, how.width]))
    return front.then("DequantizeLinear", value, np.float32(1.0), np.uint8(byte_input.zero_point))


def _write_normalization(
    front: "_Front", byte_input: ByteInput, image: ir.Value, users: tuple[tuple[ir.Node, int], ...]
) -> None:
    how, value = byte_input.preprocessing, image
    if byte_input.layout != how.layout:
        value = front.then("Transpose", value, perm=[0, 3, 1, 2] if how.layout == "NCHW" else [0, 2, 3, 1])
    spread = (-1, 1, 1) if how.layout == "NCHW" else (-1,)
    value = front.then("Cast", value, to=int(ir.DataType.FLOAT))
    value = front.then("Mul", value, np.float32(how.scale))
    value = front.then("Sub", value, np.asarray(how.mean, np.float32).reshape(spread))
    value = front.then("Div", value, np.asarray(how.std, np.float32).reshape(spread))
    for user, index in users:
        user.replace_input_with(index, value)


class _Front:
    """Nodes in front of what is the first node of the graph now."""

    def __init__(self, draft: Draft) -> None:
        self._graph, self._names, self._head = draft.graph, draft.names, draft.graph[0]

    def then(self, op: str, value: ir.Value, *constants: Array | np.generic, **attributes: int | list[int]) -> ir.Value:
        """Append one node; its other inputs are constants."""
        inputs = [value, *(self._names.constant(constant) for constant in constants)]
        node = ir.node(op, inputs, attributes=attributes)
        node.outputs[0].name = self._names.fresh("i")
        self._graph.insert_before(self._head, node)
        return node.outputs[0]
