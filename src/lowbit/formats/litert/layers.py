"""Layers with weights: Conv, ConvTranspose, Gemm and MatMul as LiteRT has them.

Integer layers have int8 weights with a scale per channel (INT4 ones where kernels read them as fast), and int32 biases,
int64 with 16-bit activations. Codes of fewer bits take whole bytes elsewhere: LiteRT has no nodes that it would unpack
once. Weights-only codes are int8 constants behind a DEQUANTIZE, which XNNPACK carries out once, when a file is loaded.
LiteRT's own form for them, int8 weights read by an operator with float inputs, rounds the activations to 8 bits anew at
each inference: it is written where that is asked for (`QuantizedGraph.dynamic`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lowbit.formats.litert.builder import Option
from lowbit.formats.litert.graph import CHANNELS_LAST, NO_ACTIVATION, FileGraph, StoredValue, bias_type
from lowbit.formats.litert.space_to_depth import NOTE, Groups, grouped
from lowbit.formats.litert.window import VALID, Window, cut, pad, padded
from lowbit.formats.quantized_graph import ActivationCodes
from lowbit.graph.columns import Geometry, convolution_pads, transposed_sizes
from lowbit.graph.model import Node
from lowbit.graph.ops import Layer
from lowbit.schemes.codes import Codes, IntegerCodes, integer_codes
from lowbit.schemes.half import Half
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear, LinearCodes

Floats = npt.NDArray[np.float32]
HALF_BYTE = 4  # bits


def convolution(graph: FileGraph, node: Node) -> None:
    """Conv: CONV_2D, or DEPTHWISE_CONV_2D where each output sees one channel."""
    layer, geometry = _spatial_layer(graph, node)
    integer = graph.integer(node)
    x = graph.read(node.inputs[0], order=CHANNELS_LAST, integer=integer, exact=True)
    name, activation = graph.target(node)
    sizes = graph.tensors[x.tensor].shape[1:3]
    outputs = graph.shape(name)[2:]
    pads = convolution_pads(geometry, sizes)
    windows = [
        Window(extent, stride, before - margin, size, count)
        for extent, stride, (before, _), margin, size, count in zip(
            geometry.extents(), geometry.strides, pads, (0, x.margin), sizes, outputs, strict=True
        )
    ]
    depthwise = layer.depthwise
    strides = geometry.strides
    groups = None
    if integer and layer.groups == 1 and geometry.dilations[1] == 1:
        groups = grouped(windows[1], layer.weight_shape[1], graph.lanes)
    if groups is not None:
        windows[1], strides = groups.window(windows[1]), (strides[0], 1)
        shape = (-1, sizes[0], windows[1].size, groups.pixels * layer.weight_shape[1])
        x = replace(x, tensor=graph.reshape(x.tensor, shape))
        graph.notes[layer.node] = {NOTE: groups.note()}
    weight = _kernel(graph, node, layer, groups)
    bias = _bias(graph, layer, integer=integer)
    x, padding = padded(graph, x, windows)
    options: dict[str, Option] = {"padding": padding, "fusedActivationFunction": activation}
    options |= {"strideH": strides[0], "strideW": strides[1]}
    options |= {"dilationHFactor": geometry.dilations[0], "dilationWFactor": geometry.dilations[1]}
    if depthwise:
        options["depthMultiplier"] = layer.out_channels // layer.groups
    output = graph.write(name, CHANNELS_LAST, codes=graph.quantized.activations[name] if integer else None)
    code, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    graph.operator(code, [x.tensor, weight, bias], [output], table=table, options=options)


def transposed_convolution(graph: FileGraph, node: Node) -> None:
    """ConvTranspose: TRANSPOSE_CONV of the whole reach of the kernel, then cut to what the pads leave.

    Its output shape is a constant of the file, so the batch cannot be changed any more.
    """
    layer, geometry = _spatial_layer(graph, node)
    integer = graph.integer(node)
    if integer and layer.groups > 1:
        raise graph.refuse(node, "in groups has no integer form in LiteRT")
    graph.resizable = False
    x = graph.read(node.inputs[0], order=CHANNELS_LAST, integer=integer, exact=True)
    name = graph.target(node, fuses=False)[0] if integer else str(node.outputs[0].name)
    activation = graph.quantized.activations[name] if integer else None
    batch, *sizes, _ = graph.tensors[x.tensor].shape
    outputs, cuts = transposed_sizes(geometry, sizes)
    full = _reach(geometry, sizes)
    # What output_padding asks for beyond the kernel's reach is as if the input went on with zeros.
    missing = [max(0, before + count - size) for (before, _), count, size in zip(cuts, outputs, full, strict=True)]
    more = [-(-extra // stride) for extra, stride in zip(missing, geometry.strides, strict=True)]
    if any(more):
        x = pad(graph, x, [(0, 0), *((0, extra) for extra in more), (0, 0)])
        full = _reach(geometry, [size + extra for size, extra in zip(sizes, more, strict=True)])
    codes = _codes(graph, node, layer)
    weight = codes.levels() if codes is not None else _float_weight(graph, layer)
    if max(geometry.dilations) > 1:
        # TRANSPOSE_CONV has no dilation: put the zeros into the kernel.
        wide = np.zeros((*weight.shape[:2], *geometry.extents()), weight.dtype)
        wide[:, :, :: geometry.dilations[0], :: geometry.dilations[1]] = weight
        weight = wide
        graph.notes[layer.node] = {"dilations": geometry.dilations}
    bias = graph.array(node.inputs[2]) if layer.bias is not None and not integer else None
    pieces = []
    inputs = layer.weight_shape[0] // layer.groups
    each = layer.out_channels // layer.groups
    for group in range(layer.groups):
        part = x.tensor if layer.groups == 1 else cut(graph, x, {3: (group * inputs, inputs)}).tensor
        shape = [batch, *full, each]
        pieces.append(graph.tensor(shape, codes=activation, batch_axis=graph.tensors[x.tensor].batch_axis))
        values = weight[group * inputs :][:inputs].transpose(1, 2, 3, 0)
        kernel = _stored(graph, codes, values, layer, 0, integer=integer)
        read = [graph.integers(shape), kernel, part]
        if integer:
            read.append(_bias(graph, layer, integer=True))
        elif bias is not None:
            read.append(graph.constant(bias.reshape(-1)[group * each :][:each].astype(np.float32)))
        options: dict[str, Option] = {"padding": VALID, "fusedActivationFunction": NO_ACTIVATION}
        options |= {"strideH": geometry.strides[0], "strideW": geometry.strides[1]}
        graph.operator("TRANSPOSE_CONV", read, [pieces[-1]], options=options, version=3 if len(read) > 3 else 1)
    whole = pieces[0]
    if len(pieces) > 1:
        whole = graph.derived(whole, [batch, *full, layer.out_channels])
        graph.operator("CONCATENATION", pieces, [whole], options={"axis": 3})
    keep = {axis + 1: (cuts[axis][0], outputs[axis]) for axis in range(2) if full[axis] != outputs[axis]}
    stored = StoredValue(whole, CHANNELS_LAST, activation)
    graph.adopt(name, cut(graph, stored, keep) if keep else stored)


def _reach(geometry: Geometry, sizes: Sequence[int]) -> list[int]:
    """How far the kernels of a transposed convolution reach together, by spatial axis."""
    spans = zip(sizes, geometry.strides, geometry.extents(), strict=True)
    return [stride * (size - 1) + extent for size, stride, extent in spans]


def product(graph: FileGraph, node: Node) -> None:
    """Gemm, and MatMul with a constant weight: FULLY_CONNECTED; without codes for its output, float behind integers."""
    layer = graph.layers.get(str(node.name))
    if layer is None:
        if node.op_type == "MatMul":
            _batched_product(graph, node)
            return
        raise graph.refuse(node, "has weights that are not constant, or transposes its input")
    integer = graph.integer(node)
    name, activation = graph.target(node)
    codes = graph.quantized.activations.get(name) if integer and name not in graph.float_outputs else None
    x = graph.read(node.inputs[0], integer=integer, exact=True)
    rank = len(graph.shape(layer.input))
    if not x.flat and x.order[-1] != rank - 1:
        x = graph.read(node.inputs[0], order=tuple(range(rank)), integer=integer, exact=True)
    weight = _product_weight(graph, node, layer, x, integer=codes is not None)
    bias = -1
    if layer.bias is not None and layer.bias_node is None:
        bias = _bias(graph, layer, integer=codes is not None)
    source = x.tensor
    if integer and codes is None:
        # The operator has no integer inputs with a float output: the values of the codes go in as float.
        source = graph.tensor(graph.tensors[x.tensor].shape, batch_axis=graph.tensors[x.tensor].batch_axis)
        graph.operator("DEQUANTIZE", [x.tensor], [source], version=2)
    output = graph.write(name, x.order, codes=codes)
    options: dict[str, Option] = {"fusedActivationFunction": activation, "keepNumDims": rank > 2}
    inputs = [source, weight] if bias < 0 else [source, weight, bias]
    graph.operator("FULLY_CONNECTED", inputs, [output], options=options)


def _batched_product(graph: FileGraph, node: Node) -> None:
    """MatMul of two computed values."""
    if min(len(graph.shape(str(value.name))) for value in node.inputs if value is not None) < 2:
        raise graph.refuse(node, "multiplies a vector")
    factors = [graph.plain(value).tensor for value in node.inputs]
    name = str(node.outputs[0].name)
    output = graph.write(name, tuple(range(len(graph.shape(name)))))
    graph.operator("BATCH_MATMUL", factors, [output], table="BatchMatMulOptions")


def _spatial_layer(graph: FileGraph, node: Node) -> tuple[Layer, Geometry]:
    layer = graph.layers.get(str(node.name))
    if layer is None or layer.geometry is None:
        raise graph.refuse(node, "has weights that are not constant")
    if len(layer.kernel) != 2:
        raise graph.refuse(node, f"works on {len(layer.kernel)} spatial dimensions, only 2 are written")
    return layer, layer.geometry


def takes_half_bytes(layer: Layer, codes: Codes) -> bool:
    """Whether a layer's integer kernel reads codes of 4 bits, two in a byte, as fast as whole bytes.

    FULLY_CONNECTED does (0.75 of the time for one sample, 1.03 for 16). Convolutions of INT4 are not in XNNPACK: what
    runs instead took 1.33 times as long, depthwise 2.6, and rounds otherwise (ai-edge-litert 2).
    """
    product = layer.op in ("Gemm", "MatMul") and layer.weight_shape[1 - layer.channel_axis] % 2 == 0
    return product and isinstance(codes, LinearCodes) and codes.bits <= HALF_BYTE


def _codes(graph: FileGraph, node: Node, layer: Layer) -> IntegerCodes | None:
    """The codes of a layer's weight, if it has any that LiteRT can hold.

    Raises:
        ModelError: code books, group-wise scales, or another width.
    """
    codes = graph.quantized.weights.get(layer.weight)
    scheme, axis = (codes.scheme, codes.axis) if codes is not None else graph.schemes.get(layer.weight, (None, 0))
    if scheme is None or scheme == Half("float16"):
        return None
    if isinstance(scheme, Half):
        reason = f"has weights '{layer.weight}' as {scheme.name}, which LiteRT does not decode"
        raise graph.refuse(node, reason, instead="choose float16w")
    if not isinstance(scheme, Linear | IntegerClusters):
        reason = f"has weights '{layer.weight}' as {scheme.name}, which LiteRT would decode at every inference"
    elif scheme.bits > 8:
        reason = f"has {scheme.bits}-bit weights '{layer.weight}'; those of up to 8 bits can be written"
    elif (
        scheme.blocks(layer.weight_shape, axis).count not in (1, layer.weight_shape[axis]) or axis != layer.channel_axis
    ):
        reason = f"has weights '{layer.weight}' with scales per group"
    elif isinstance(scheme, Linear) and not scheme.symmetric:
        reason = f"has weights '{layer.weight}' with zero points"
        raise graph.refuse(node, reason, instead="choose int8 or linear8, or add --symmetric")
    else:
        return None if codes is None else integer_codes(codes)
    raise graph.refuse(node, reason, instead="choose int8 or linear8")


def _float_weight(graph: FileGraph, layer: Layer) -> Floats:
    codes = graph.quantized.weights.get(layer.weight)
    if codes is not None:
        return codes.decode()
    value = graph.model.values[layer.weight]
    return np.asarray(graph.array(value), np.float32)


def _kernel(graph: FileGraph, node: Node, layer: Layer, groups: Groups | None) -> int:
    """Index of a convolution's weight: [O, H, W, I], or for one input channel [1, H, W, O]."""
    codes = _codes(graph, node, layer)
    values: npt.NDArray[np.generic] = codes.levels() if codes is not None else _float_weight(graph, layer)
    values = values.transpose((1, 2, 3, 0) if layer.depthwise else (0, 2, 3, 1))
    if groups is not None:
        values = groups.weight(values)
    return _stored(graph, codes, values, layer, 3 if layer.depthwise else 0, integer=graph.integer(node))


def _stored(
    graph: FileGraph,
    codes: IntegerCodes | None,
    values: npt.NDArray[np.generic],
    layer: Layer,
    channel: int,
    *,
    integer: bool = False,
) -> int:
    """A float weight, or its codes as an int8 constant, behind a DEQUANTIZE unless the operator takes integers."""
    if codes is None:
        return graph.float_constant(layer.weight, np.asarray(values), label=layer.node)
    scale = codes.scale.reshape(-1)
    halves = integer and not graph.quantized.as_planned and takes_half_bytes(layer, codes)
    dtype = "int4" if halves else ""
    weight = graph.constant(values.astype(np.int8), name=layer.node, scale=scale, axis=channel, dtype=dtype)
    if integer or (layer.node in graph.quantized.dynamic and layer.op != "ConvTranspose" and layer.groups == 1):
        return weight  # a depthwise kernel that quantizes its input takes 3 times as long as the one for float
    result = graph.tensor(values.shape)
    graph.operator("DEQUANTIZE", [weight], [result], version=2 if scale.size == 1 else 5)
    return result


def _product_weight(graph: FileGraph, node: Node, layer: Layer, x: StoredValue, *, integer: bool) -> int:
    """Index of the weight [outputs, inputs], its columns in the order of the stored input."""
    codes = _codes(graph, node, layer)
    values: npt.NDArray[np.generic] = codes.levels() if codes is not None else _float_weight(graph, layer)
    matrix = values if layer.channel_axis == 0 else values.T
    note: dict[str, object] = {} if layer.channel_axis == 0 else {"transposed": True}
    if x.flat:
        matrix = matrix.reshape(-1, *x.flat).transpose(0, 2, 3, 1).reshape(matrix.shape)
        note["image"] = x.flat
    if note:
        graph.notes[layer.node] = note
    return _stored(graph, codes, matrix, layer, 0, integer=integer)


def _bias(graph: FileGraph, layer: Layer, *, integer: bool) -> int:
    """Index of the bias: int32 in units of input scale times weight scale, or float32."""
    known = graph.quantized.biases.get(layer.node)
    if not integer:
        if known is not None:
            return graph.constant(known.decode())
        array = graph.array(graph.model.values[layer.bias]) if layer.bias is not None else None
        values = np.zeros(layer.out_channels) if array is None else array.reshape(-1)
        return graph.constant(values.astype(np.float32))
    if known is not None:
        return graph.constant(known.codes.astype(bias_type(graph.quantized)), scale=known.scale.reshape(-1))
    codes = integer_codes(graph.quantized.weights[layer.weight])
    assert layer.bias is None or layer.bias_node is not None
    x: ActivationCodes = graph.quantized.activations[layer.input]
    scale = np.float32(x.scale) * codes.scale.reshape(-1)
    return graph.constant(np.zeros(layer.out_channels, bias_type(graph.quantized)), scale=scale)
