"""Pooling and reductions: windows and whole axes as LiteRT has them."""

import math

import numpy as np

from lowbit.formats.litert.builder import Option
from lowbit.formats.litert.formulas import Terms
from lowbit.formats.litert.graph import CHANNELS_LAST, FileGraph, StoredValue
from lowbit.formats.litert.window import SAME, VALID, Window, ones_convolution, pad, padded
from lowbit.graph.edit import flag
from lowbit.graph.model import Node, Value

# ONNX -> (what is done to each value before, operator, what is done after)
REDUCTIONS: dict[str, tuple[str, str, str]] = {
    "ReduceMean": ("", "MEAN", ""),
    "GlobalAveragePool": ("", "MEAN", ""),
    "ReduceSum": ("", "SUM", ""),
    "ReduceMax": ("", "REDUCE_MAX", ""),
    "GlobalMaxPool": ("", "REDUCE_MAX", ""),
    "ReduceMin": ("", "REDUCE_MIN", ""),
    "ReduceProd": ("", "REDUCE_PROD", ""),
    "ReduceL1": ("ABS", "SUM", ""),
    "ReduceL2": ("SQUARE", "SUM", "SQRT"),
    "ReduceSumSquare": ("SQUARE", "SUM", ""),
    "ReduceLogSum": ("", "SUM", "LOG"),
}


def pooling(graph: FileGraph, node: Node) -> None:
    """MaxPool and AveragePool over two spatial axes."""
    integer = graph.integer(node)
    x = graph.read(node.inputs[0], order=CHANNELS_LAST if len(graph.input_shape(node)) == 4 else None, integer=integer)
    attributes = node.attributes
    kernel = list(attributes.get_ints("kernel_shape", []))
    if len(kernel) != 2 or any(step != 1 for step in attributes.get_ints("dilations", [])):
        raise graph.refuse(node, "is dilated, or not over 2 spatial dimensions")
    if any(output.uses() for output in node.outputs[1:]):
        raise graph.refuse(node, "also gives indices")
    strides = list(attributes.get_ints("strides", [1, 1]))
    name, activation = graph.target(node)
    sizes = graph.tensors[x.tensor].shape[1:3]
    outputs = graph.shape(str(node.outputs[0].name))[2:]
    windows = [
        Window(extent, stride, before, size, count)
        for extent, stride, before, size, count in zip(
            kernel, strides, _pads_before(node, sizes, kernel, strides), sizes, outputs, strict=True
        )
    ]
    if any((window.outputs - 1) * window.stride >= window.size + window.before for window in windows):
        raise graph.refuse(node, "has windows that lie outside the image, on which runtimes do not agree")
    options: dict[str, Option] = {"filterHeight": kernel[0], "filterWidth": kernel[1], "strideH": strides[0]}
    options |= {"strideW": strides[1], "fusedActivationFunction": activation}
    if node.op_type == "MaxPool":
        x, options["padding"] = padded(graph, x, windows, lowest=not _never_negative(node.inputs[0]))
        output = graph.write(name, CHANNELS_LAST, codes=x.codes)
        graph.operator("MAX_POOL_2D", [x.tensor], [output], table="Pool2DOptions", options=options)
        return
    _average(graph, node, x, windows, options, name)


def _average(
    graph: FileGraph, node: Node, x: StoredValue, windows: list[Window], options: dict[str, Option], name: str
) -> None:
    inside = all(window.is_valid for window in windows)
    counts_zeros = flag(node, "count_include_pad")
    if counts_zeros and flag(node, "ceil_mode") and not inside:
        raise graph.refuse(node, "counts zeros and rounds its size up")
    same = all(window.is_same for window in windows) and not counts_zeros
    if not inside and not same:
        amounts = [(0, 0), *((window.before, window.after) for window in windows), (0, 0)]
        x = pad(graph, x, amounts)
    options["padding"] = SAME if same and not inside else VALID
    corrected = not (inside or same or counts_zeros)
    codes = graph.quantized.activations[name] if x.codes is not None else None
    if x.codes is not None and corrected:
        # The zeros around the image must not count: only the float form can be corrected for them.
        plain = graph.tensor(graph.tensors[x.tensor].shape, batch_axis=0)
        graph.operator("DEQUANTIZE", [x.tensor], [plain], version=2)
        x = StoredValue(plain, x.order)
    if x.codes is not None and options["padding"] == VALID:
        # XNNPACK has no integer average pool.
        kernel, strides = (windows[0].extent, windows[1].extent), (windows[0].stride, windows[1].stride)
        output = graph.write(name, CHANNELS_LAST, codes=codes)
        ones_convolution(graph, x, output, kernel, strides, 1 / math.prod(kernel))
        return
    shape = graph.shape(str(node.outputs[0].name))
    sizes = [shape[axis] for axis in CHANNELS_LAST]
    batch = graph.tensors[x.tensor].batch_axis
    averaged = graph.tensor(sizes, codes=x.codes, batch_axis=batch)
    graph.operator("AVERAGE_POOL_2D", [x.tensor], [averaged], table="Pool2DOptions", options=options)
    if corrected:
        counts = [
            [
                sum(0 <= window.stride * i - window.before + k < window.size for k in range(window.extent))
                for i in range(window.outputs)
            ]
            for window in windows
        ]
        factor = math.prod(window.extent for window in windows) / np.outer(counts[0], counts[1])
        result = graph.tensor(sizes, batch_axis=batch)
        constant = graph.constant(factor.reshape(1, *factor.shape, 1).astype(np.float32))
        graph.operator("MUL", [averaged, constant], [result])
        averaged = result
    stored = StoredValue(averaged, CHANNELS_LAST, x.codes)
    graph.adopt(name, graph.requantized(stored, codes) if codes is not None and stored.codes is not None else stored)


def _pads_before(node: Node, sizes: tuple[int, ...], kernel: list[int], strides: list[int]) -> list[int]:
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        totals = [
            max((-(-size // stride) - 1) * stride + extent - size, 0)
            for size, stride, extent in zip(sizes, strides, kernel, strict=True)
        ]
        return [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]
    return [0, 0] if auto == "VALID" else list(node.attributes.get_ints("pads", [0] * 4))[:2]


def _never_negative(value: Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type in ("Relu", "Sigmoid", "Softmax", "HardSigmoid")


def reduction(graph: FileGraph, node: Node) -> None:
    """Mean, sum, norm or extreme over some axes."""
    integer = graph.integer(node)
    name, _ = graph.target(node, fuses=False)
    x = graph.read(node.inputs[0], integer=integer)
    rank = len(x.order)
    if x.flat:
        x = graph.plain(node.inputs[0], integer=integer)
    keeps = True
    if node.op_type.startswith("Global"):
        axes = list(range(2, rank))
    else:
        given = graph.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
            raise graph.refuse(node, "has axes that are computed")
        listed = list(node.attributes.get_ints("axes", [])) if given is None else given.reshape(-1).tolist()
        axes = sorted(axis % rank for axis in listed) or list(range(rank))
        keeps = bool(node.attributes.get_int("keepdims", 1))
    left = [axis for axis in x.order if axis not in axes]
    order = x.order if keeps else tuple(sorted(left).index(axis) for axis in left)
    codes = graph.quantized.activations[name] if integer else None
    first, code, last = REDUCTIONS[node.op_type]
    t = Terms(graph)
    source = t("MUL", x.tensor, x.tensor) if first == "SQUARE" else t(first, x.tensor) if first else x.tensor
    output = graph.write(name, order, codes=codes)
    stored = graph.integers(sorted(x.order.index(axis) for axis in axes))
    result = (
        graph.derived(output, graph.tensors[output].shape, batch_axis=graph.tensors[output].batch_axis)
        if last
        else output
    )
    graph.operator(code, [source, stored], [result], table="ReducerOptions", options={"keepDims": keeps})
    if last:
        graph.operator(last, [result], [output], table=None)
