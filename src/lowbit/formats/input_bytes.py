"""Files that take image bytes: no float tensor between camera and classifier.

The network wants x = (p s - m) / d of the pixel p, per color. A first convolution can take p itself. With a zero point
z common to all colors

    x = a (p - z) + t        a = s / d,  t = (z s - m) / d        (a and t per color)

    W x + b = (W a) (p - z) + (sum over colors of W t) 1 + b

where "1" is 1 inside the image and 0 in its padding, since padding is x = 0. So one more input channel holds a constant
inside; the convolution's own padding (pixel value z) makes it 0 outside, and borders are as exact as everything else:
no rounded mean pixel is painted around the image. Where the kernel wants four channels anyway (`onnx/channel_padding`),
this costs nothing. The pixel is not rounded, which the float input of an integer file is.

Where the runtime subtracts a zero point per color (OpenVINO), z is the mean color rounded to whole
numbers; then t is at most half a step of the pixel, goes into the bias, and no channel is needed. The padding is off by
that half step.

Floats that were made from bytes can be turned back: with a scale and a zero point per color, QuantizeLinear gives p to
the bit. So a file that takes the model's own floats can compute on bytes as well, and its input, which one scale for
all colors would round once more, is exact; floats between the bytes are rounded to the nearest one.

Weights are rounded to nearest in their new units; the bias takes up what rounding does to an image of the mean color.
Models whose input is read by anything but integer convolutions get Cast, Mul, Sub and Div in front: the arithmetic of
`Preprocessing.apply`, bit for bit.
"""

import json
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lowbit.engines.litert_reader import read_litert
from lowbit.errors import LowbitError, ModelError
from lowbit.files import read_model_file
from lowbit.formats.quantized_graph import BiasCodes, ByteInput, ByteLayer, QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.preprocessing import LAYOUTS, METADATA_KEY, Preprocessing
from lowbit.schemes.codes import IntegerCodes, integer_codes

# {node: factor of each color}: so that whoever reads the weights can give them in the units of the float model.
FACTORS_KEY = "lowbit.byte_input"
LONGEST_JSON = 1 << 16
HIGHEST = 255
INT32_LIMIT = 2**31 - 1

Array = np.ndarray[Any, np.dtype[Any]]
# ONNX Runtime convolves uint8 directly only where input channels are a multiple of 4 and outputs 16 or more (see
# `formats.onnx.channel_padding`).
CHANNEL_MULTIPLE = 4
FEWEST_OUTPUTS = 16


def wants_more_channels(channels: int, outputs: int, *, groups: int = 1) -> bool:
    """Whether a convolution of integers gains from input channels that hold nothing."""
    return groups == 1 and channels % CHANNEL_MULTIPLE != 0 and outputs >= FEWEST_OUTPUTS


def with_byte_input(
    quantized: QuantizedGraph,
    *,
    preprocessing: Preprocessing | None = None,
    layout: str = "NHWC",
    by_color: bool = False,
) -> QuantizedGraph:
    """The same model for a file that takes uint8 images and normalizes them itself.

    Args:
        quantized: a model that takes floats.
        preprocessing: what the float model wants done to an image; by default what it says itself.
        layout: of the bytes, "NHWC" or "NCHW".
        by_color: a zero point for each color, if the mean color is one that pixels can have.

    Raises:
        ModelError: the preprocessing is not known, or does not fit the model's input; no such layout.
    """
    model = quantized.model
    how = preprocessing or model.preprocessing
    if how is None:
        raise ModelError(
            "it is not known how images become the model's input, so the file cannot do that itself.",
            where=model.source,
            remedy="Give --mean and --std, say them for good with `lowbit prepare`, or leave --input uint8 out.",
        )
    if layout not in LAYOUTS:
        raise ModelError(f"no layout is called '{layout}'.", remedy=f"Choose one of: {', '.join(LAYOUTS)}.")
    image = (how.channels, how.height, how.width) if how.layout == "NCHW" else how.image_shape
    shape = model.input.shape
    if len(shape) != 4 or any(isinstance(dim, int) and dim != size for dim, size in zip(shape[1:], image, strict=True)):
        raise ModelError(
            f"the input is {list(shape)}, which is no batch of images {list(image)}.",
            where=model.source,
            remedy="Give the preprocessing that belongs to the model.",
        )
    folded = _foldable(quantized) if how.layout == "NCHW" else ()
    pixels = np.asarray(how.mean, np.float64) / how.scale
    if by_color and folded and pixels.min() >= 0 and pixels.max() <= HIGHEST:
        each = np.rint(pixels)
        own = {layer.node: _byte_layer(quantized, layer, how, each, None) for layer in folded}
        return replace(quantized, byte_input=ByteInput(how, layout, zero_points=tuple(map(int, each)), layers=own))
    zero_point = int(np.clip(np.rint(pixels.mean()), 0, HIGHEST)) if folded else 0
    distance = _distance([_moved(model.weights[layer.weight], how, zero_point) for layer in folded], zero_point)
    convolutions = {layer.node: _byte_layer(quantized, layer, how, zero_point, distance) for layer in folded}
    return replace(
        quantized, byte_input=ByteInput(how, layout, zero_point, fill=zero_point + distance, layers=convolutions)
    )


def reads_bytes(model: Model, integer: Collection[str]) -> bool:
    """Whether the float input can be taken as the image bytes it was made from.

    Args:
        model: the float model.
        integer: names of the nodes that run in integers.
    """
    if len(model.inputs) != 1:
        return False
    how, shape = model.preprocessing, model.input.shape
    if how is None or how.layout != "NCHW" or how.scale <= 0 or min(how.std) <= 0:
        return False
    if not _reading(model, integer) or len(shape) != 4 or shape[1] != how.channels:
        return False
    pixels = np.asarray(how.mean, np.float64) / how.scale
    return bool(pixels.min() >= 0 and pixels.max() <= HIGHEST)


def with_exact_input(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same model, with the float input taken as the bytes it was made from, which `reads_bytes` must allow."""
    with_bytes = with_byte_input(quantized, layout="NCHW")
    assert with_bytes.byte_input is not None
    return replace(with_bytes, byte_input=replace(with_bytes.byte_input, takes_floats=True))


def _foldable(quantized: QuantizedGraph) -> tuple[Layer, ...]:
    """The integer convolutions that read the input, if nothing else does and all need the same channels."""
    reading = () if quantized.as_planned else _reading(quantized.model, quantized.integer)
    return reading if all(isinstance(quantized.weights.get(layer.weight), IntegerCodes) for layer in reading) else ()


def _reading(model: Model, integer: Collection[str]) -> tuple[Layer, ...]:
    image = model.values[model.input.name]
    reading = {str(user.name) for user, _ in image.uses()}
    convolutions = tuple(layer for layer in layers(model) if layer.input == model.input.name)
    widths = {_channels(layer) for layer in convolutions}
    suits = all(layer.op == "Conv" and layer.groups == 1 and layer.node in integer for layer in convolutions)
    if not suits or image.is_graph_output() or {layer.node for layer in convolutions} != reading or len(widths) != 1:
        return ()
    return convolutions


def _channels(layer: Layer) -> int:
    """How many input channels the convolution gets: the colors, the constant one, and what the kernel wants."""
    channels = layer.weight_shape[1] + 1
    more = -channels % CHANNEL_MULTIPLE if wants_more_channels(channels, layer.out_channels) else 0
    return channels + more


def _moved(weight: Array, how: Preprocessing, zero_point: Array | int) -> tuple[Array, Array]:
    """W a [outputs, colors, kernel...] and the sum of W t over colors [outputs, kernel...], in float64."""
    spread = (1, -1, *[1] * (weight.ndim - 2))
    factor, offset = _affine(how, zero_point)
    exact = weight.astype(np.float64)
    return exact * factor.reshape(spread), (exact * offset.reshape(spread)).sum(axis=1)


def _affine(how: Preprocessing, zero_point: Array | int) -> tuple[Array, Array]:
    """a and t of each color, counted from one zero point or one for each."""
    mean, std = np.asarray(how.mean, np.float64), np.asarray(how.std, np.float64)
    return np.float64(how.scale) / std, (zero_point * np.float64(how.scale) - mean) / std


def _distance(plans: list[tuple[Array, Array]], zero_point: int) -> int:
    """How far from the zero point the constant channel lies: as near as its weights' size allows.

    A near constant makes their rounding count less; but they must not be larger than the other weights of the output,
    which share their scale.
    """
    needed = 1.0
    for weight, inside in plans:
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), initial=0.0)
        wanted = np.abs(inside).max(axis=tuple(range(1, inside.ndim)), initial=0.0)
        used = largest > 0
        needed = max(needed, float((wanted[used] / largest[used]).max(initial=0.0)))
    room = max(zero_point, HIGHEST - zero_point)
    size = min(math.ceil(needed), room)
    return size if zero_point + size <= HIGHEST else -size


def _byte_layer(
    quantized: QuantizedGraph, layer: Layer, how: Preprocessing, zero_point: Array | int, distance: int | None
) -> ByteLayer:
    """A convolution on pixels, with a constant channel at some distance from the zero point, or none."""
    old = integer_codes(quantized.weights[layer.weight])
    weight, inside = _moved(quantized.model.weights[layer.weight], how, zero_point)
    outputs, colors = weight.shape[:2]
    wide = np.zeros((outputs, colors if distance is None else _channels(layer), *weight.shape[2:]))
    wide[:, :colors] = weight
    if distance is not None:
        wide[:, colors] = inside / distance
    bias = (
        np.zeros(outputs) if layer.bias is None else quantized.model.weights[layer.bias].astype(np.float64).reshape(-1)
    )
    codes = integer_codes(old.scheme.encode(wide.astype(np.float32)))
    # As for any integer layer: a bias must fit into int32 in units of its channel's scale.
    least = np.abs(bias) / (INT32_LIMIT * 0.5)
    if codes.scale.size == 1:
        least = least.max(keepdims=True, initial=0.0)
    if np.any(least > codes.scale):
        larger = np.maximum(codes.scale, least).astype(np.float32)
        codes = integer_codes(codes.rounded_on(wide.astype(np.float32), larger))
    # The mean color is x = 0: whatever the rounded weights make of it is wrong.
    pixel = np.full(wide.shape[1], float(distance or 0))
    pixel[:colors] = np.asarray(how.mean) / how.scale - zero_point
    taps = codes.decode().astype(np.float64).reshape(outputs, wide.shape[1], -1).sum(axis=2)
    corrected = np.rint((bias - taps @ pixel) / codes.scale).clip(-INT32_LIMIT, INT32_LIMIT).astype(np.int32)
    return ByteLayer(codes, BiasCodes(corrected, codes.scale), tuple(_affine(how, zero_point)[0].tolist()))


def computed_values(byte_input: ByteInput, layer: Layer) -> dict[str, Array]:
    """What a convolution on pixels computes with, as values of the float model's weight and bias, by initializer name.

    Exact but for the border, where the constant channel is not the whole of what the bias holds here.

    Args:
        byte_input: with a constant channel.
        layer: one of its convolutions, as the float model has it.
    """
    own = byte_input.layers[layer.node]
    factor, offset = _affine(byte_input.preprocessing, byte_input.zero_point)
    colors, exact = len(factor), own.weight.decode().astype(np.float64)
    weight = exact[:, :colors] / factor.reshape(1, -1, *[1] * (exact.ndim - 2))
    values = {layer.weight: weight.astype(np.float32)}
    if layer.bias is not None:
        taps = exact.reshape(*exact.shape[:2], -1).sum(axis=2)
        constant = taps[:, colors:].sum(axis=1) * (byte_input.fill - byte_input.zero_point)
        bias = own.bias.codes * own.bias.scale.astype(np.float64) + constant - taps[:, :colors] @ (offset / factor)
        values[layer.bias] = bias.astype(np.float32)
    return values


def byte_metadata(byte_input: ByteInput) -> dict[str, str]:
    """What the file says of itself: the units of its first weights, and that it takes images as they are if so."""
    factors = {node: layer.factors for node, layer in byte_input.layers.items()}
    entries = {FACTORS_KEY: json.dumps(factors, sort_keys=True)}
    if byte_input.takes_floats:
        return entries
    how = byte_input.preprocessing
    own = replace(how, layout=byte_input.layout, scale=1.0, mean=(0.0,) * how.channels, std=(1.0,) * how.channels)
    return {METADATA_KEY: own.to_json(), **entries}


def byte_layout(model: bytes | Path | str) -> str | None:
    """ "NHWC" or "NCHW" if the first input of a file is a batch of uint8 images, else None.

    A .tflite file with a uint8 input counts only if it says that it takes images: others hold codes of what the network
    was trained on, in a scale of their own.
    """
    if not isinstance(model, bytes) and Path(model).suffix == ".tflite":
        try:
            return "NHWC" if FACTORS_KEY in read_litert(read_model_file(model), str(model)).metadata else None
        except LowbitError:
            return None
    try:
        proto = (
            onnx.load_from_string(model)
            if isinstance(model, bytes)
            else onnx.load(str(model), load_external_data=False)
        )
    except Exception:
        # Not an ONNX file: the runtime that is asked to open it knows better what is wrong.
        return None
    constants = {tensor.name for tensor in proto.graph.initializer}
    kind = next((value.type.tensor_type for value in proto.graph.input if value.name not in constants), None)
    if kind is None or kind.elem_type != onnx.TensorProto.UINT8 or len(kind.shape.dim) != 4:
        return None
    return "NHWC" if kind.shape.dim[3].dim_value in (1, 3, 4) and kind.shape.dim[1].dim_value > 4 else "NCHW"


def in_float_units(weights: dict[str, Array], text: str) -> dict[str, Array]:
    """Weights of a file with folded normalization as the float model has them; other layers stay as they are.

    Args:
        weights: by node.
        text: the file's metadata entry `FACTORS_KEY`; what is wrong in it is passed over.
    """
    try:
        entries = json.loads(text) if len(text) <= LONGEST_JSON else {}
        result = dict(weights)
        for node, factors in entries.items():
            factor = np.asarray(factors, np.float32)
            weight = result[node]
            if factor.ndim == 1 and factor.size <= weight.shape[1] and np.isfinite(1 / factor).all():
                result[node] = weight[:, : factor.size] / factor.reshape(1, -1, *[1] * (weight.ndim - 2))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return weights
    return result
