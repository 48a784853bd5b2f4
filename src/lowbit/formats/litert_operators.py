"""One function for each ONNX operator that is written as LiteRT; a new operator is one function and one row."""

import math
from collections.abc import Callable

import numpy as np

from lowbit.formats.encoded import ActivationCodes
from lowbit.formats.litert_graph import CHANNELS_LAST, NO_ACTIVATION, FileGraph, Form, Option, Order
from lowbit.formats.litert_layers import convolution, cut, product, transposed_convolution
from lowbit.formats.litert_resize import resize
from lowbit.formats.litert_shapes import reshaped_order
from lowbit.formats.litert_window import VALID, Window, pad, padded
from lowbit.graph.model import Node, Value

# LiteRT fixes scale and zero point of an int8 sigmoid: 1/256 and the lowest code.
SIGMOID_CODES = ActivationCodes(scale=1 / 256, zero_point=0)

# ONNX -> (operator, options table, whether a fused activation is among its options)
BINARY: dict[str, tuple[str, str, bool]] = {
    "Add": ("ADD", "AddOptions", True),
    "Sub": ("SUB", "SubOptions", True),
    "Mul": ("MUL", "MulOptions", True),
    "Div": ("DIV", "DivOptions", True),
    "Max": ("MAXIMUM", "MaximumMinimumOptions", False),
    "Min": ("MINIMUM", "MaximumMinimumOptions", False),
    "Pow": ("POW", "PowOptions", False),
    "Sum": ("ADD", "AddOptions", True),
}
# ONNX -> (operator, options table)
UNARY: dict[str, tuple[str, str | None]] = {
    "Relu": ("RELU", None),
    "Sigmoid": ("LOGISTIC", None),
    "Tanh": ("TANH", None),
    "HardSwish": ("HARD_SWISH", "HardSwishOptions"),
    "Exp": ("EXP", "ExpOptions"),
    "Sqrt": ("SQRT", None),
    "Abs": ("ABS", "AbsOptions"),
    "Neg": ("NEG", "NegOptions"),
    "Elu": ("ELU", None),
    "LeakyRelu": ("LEAKY_RELU", "LeakyReluOptions"),
    "Gelu": ("GELU", "GeluOptions"),
}
REDUCTIONS = {
    "ReduceMean": "MEAN",
    "GlobalAveragePool": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "GlobalMaxPool": "REDUCE_MAX",
}


def binary(graph: FileGraph, node: Node) -> None:
    """Arithmetic on two operands (or several, one after the other), broadcast as ONNX does."""
    code, table, fuses = BINARY[node.op_type]
    integer = graph.integer(node)
    name, activation = graph.target(node, fuses=fuses)
    rank = len(graph.shape(name))
    values = [value for value in node.inputs if value is not None]
    computed = [value for value in values if graph.has(str(value.name))]
    order = tuple(range(rank))
    if computed and all(len(graph.shape(str(value.name))) == rank for value in computed):
        first = graph.read(computed[0], integer=integer)
        order = order if first.flat else first.order
    codes = graph.encoded.activations[name] if integer else None
    operands = [_operand(graph, value, order, rank, integer=integer) for value in values]
    total = operands[0]
    for index, operand in enumerate(operands[1:], start=2):
        last = index == len(operands)
        shape = np.broadcast_shapes(graph.tensors[total].shape, graph.tensors[operand].shape)
        result = (
            graph.write(name, order, codes=codes)
            if last
            else graph.tensor(shape, batch_axis=graph.batch_place(name, order))
        )
        options: dict[str, Option] = {"fusedActivationFunction": activation if last else NO_ACTIVATION} if fuses else {}
        graph.operator(code, [total, operand], [result], table=table, options=options)
        total = result
    if len(operands) == 1:
        graph.adopt(name, Form(total, order))


def _operand(graph: FileGraph, value: Value, order: Order, rank: int, *, integer: bool) -> int:
    """A tensor of the full rank in this order: missing leading axes are ones."""
    array = graph.array(value)
    if array is not None and not graph.has(str(value.name)):
        if array.size == 1:
            return graph.constant(array.reshape(()).astype(np.float32))
        wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return graph.constant(wide.transpose(order).astype(np.float32), name=str(value.name))
    own = len(graph.shape(str(value.name)))
    if own == rank:
        return graph.read(value, order=order, integer=integer).tensor
    plain = graph.plain(value, integer=integer).tensor
    shape = (1,) * (rank - own) + graph.shape(str(value.name))
    batch = graph.tensors[plain].batch_axis
    return graph.reshape(plain, shape, batch_axis=None if batch is None else batch + rank - own)


def unary(graph: FileGraph, node: Node) -> None:
    """A function of each value alone."""
    code, table = UNARY[node.op_type]
    integer = graph.integer(node)
    name, _ = graph.target(node, fuses=False)
    x = graph.read(node.inputs[0], integer=integer)
    codes = None
    if integer:
        codes = SIGMOID_CODES if code == "LOGISTIC" else graph.encoded.activations[name]
    options: dict[str, Option] = {}
    if code == "LEAKY_RELU":
        options = {"alpha": node.attributes.get_float("alpha", 0.01)}
    elif code == "GELU":
        options = {"approximate": node.attributes.get_string("approximate", "none") == "tanh"}
    elif code == "ELU" and node.attributes.get_float("alpha", 1.0) != 1.0:
        raise graph.refuse(node, "has an alpha other than 1")
    output = graph.write(name, x.order, codes=codes, flat=x.flat)
    graph.operator(code, [x.tensor], [output], table=table, options=options)


def clip(graph: FileGraph, node: Node) -> None:
    """Clip: RELU and RELU6 where the bounds are theirs, else MAXIMUM and MINIMUM."""
    low, high = graph.bounds(node)
    x = graph.read(node.inputs[0])
    name = str(node.outputs[0].name)
    if low == 0.0 and high in (None, 6.0):
        output = graph.write(name, x.order, flat=x.flat)
        graph.operator("RELU" if high is None else "RELU6", [x.tensor], [output], table=None)
        return
    limits = [(code, bound) for code, bound in (("MAXIMUM", low), ("MINIMUM", high)) if bound is not None]
    tensor = x.tensor
    for index, (code, bound) in enumerate(limits):
        last = index == len(limits) - 1
        old = graph.tensors[tensor]
        result = (
            graph.write(name, x.order, flat=x.flat)
            if last
            else graph.derived(tensor, old.shape, batch_axis=old.batch_axis)
        )
        limit = graph.constant(np.array(bound, np.float32))
        graph.operator(code, [tensor, limit], [result], table="MaximumMinimumOptions")
        tensor = result
    if not limits:
        graph.adopt(name, x)


def hard_sigmoid(graph: FileGraph, node: Node) -> None:
    """HardSigmoid: clip(alpha x + beta, 0, 1) as relu6(6 alpha x + 6 beta) / 6."""
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    x = graph.read(node.inputs[0])
    tensor = x.tensor
    old = graph.tensors[tensor]
    steps = [("MUL", 6 * alpha, NO_ACTIVATION), ("ADD", 6 * beta, 3), ("MUL", 1 / 6, NO_ACTIVATION)]
    for index, (code, number, activation) in enumerate(steps):
        if index == 0 and math.isclose(number, 1.0, rel_tol=1e-6):
            continue
        result = (
            graph.write(str(node.outputs[0].name), x.order, flat=x.flat)
            if index == 2
            else graph.derived(tensor, old.shape, batch_axis=old.batch_axis)
        )
        factor = graph.constant(np.array(number, np.float32))
        graph.operator(code, [tensor, factor], [result], options={"fusedActivationFunction": activation})
        tensor = result


def prelu(graph: FileGraph, node: Node) -> None:
    """PRelu with a constant slope."""
    slope = graph.array(node.inputs[1])
    x = graph.read(node.inputs[0])
    rank = len(x.order)
    if slope is None or x.flat or x.order[0] != 0 or (slope.ndim == rank and slope.shape[0] != 1):
        raise graph.refuse(node, "has a slope that is computed, or differs between images")
    wide = slope.reshape((1,) * (rank - slope.ndim) + slope.shape).transpose(x.order)[0]
    output = graph.write(str(node.outputs[0].name), x.order)
    graph.operator("PRELU", [x.tensor, graph.constant(wide.astype(np.float32))], [output], table=None)


def batch_norm(graph: FileGraph, node: Node) -> None:
    """A BatchNormalization that no layer took in: MUL and ADD by channel."""
    x = graph.read(node.inputs[0])
    arrays = [graph.array(value) for value in node.inputs[1:5]]
    if any(array is None for array in arrays) or x.flat:
        raise graph.refuse(node, "has statistics that are computed")
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    name, activation = graph.target(node)
    shape = [-1 if axis == 1 else 1 for axis in x.order]
    old = graph.tensors[x.tensor]
    scaled = graph.derived(x.tensor, old.shape, batch_axis=old.batch_axis)
    output = graph.write(name, x.order)
    for code, values, source, result, fused in (
        ("MUL", factor, x.tensor, scaled, NO_ACTIVATION),
        ("ADD", shift - mean * factor, scaled, output, activation),
    ):
        number = graph.constant(values.reshape(shape).astype(np.float32))
        graph.operator(code, [source, number], [result], options={"fusedActivationFunction": fused})


def concatenation(graph: FileGraph, node: Node) -> None:
    """Concat; codes of another scale are requantized first."""
    integer = graph.integer(node)
    name, activation = graph.target(node, fuses=False)
    rank = len(graph.shape(name))
    values = [value for value in node.inputs if value is not None]
    first = next((graph.read(value, integer=integer) for value in values if graph.has(str(value.name))), None)
    order = tuple(range(rank)) if first is None or first.flat else first.order
    codes = graph.encoded.activations[name] if integer else None
    forms = [graph.read(value, order=order, integer=integer) for value in values]
    if codes is not None:
        forms = [graph.requantized(form, codes) for form in forms]
    axis = order.index(node.attributes.get_int("axis", 0) % rank)
    output = graph.write(name, order, codes=codes)
    options: dict[str, Option] = {"axis": axis, "fusedActivationFunction": activation}
    graph.operator("CONCATENATION", [form.tensor for form in forms], [output], options=options)


def split(graph: FileGraph, node: Node) -> None:
    """Split: one slice for each output that is read."""
    x = _unflattened(graph, node)
    rank = len(x.order)
    axis = node.attributes.get_int("axis", 0) % rank
    start = 0
    for output in node.outputs:
        size = graph.shape(str(output.name))[axis]
        if output.uses() or output.is_graph_output():
            graph.adopt(str(output.name), cut(graph, x, {x.order.index(axis): (start, size)}))
        start += size


def slices(graph: FileGraph, node: Node) -> None:
    """Slice with constant bounds, and the slices that alone read what it gives: one operator for all of them."""
    x = _unflattened(graph, node)
    ranges, steps = _bounds(graph, node, x)
    reader = _only_reader(node)
    while reader is not None and reader.op_type == "Slice" and graph.integer(reader) == graph.integer(node):
        more, strides = _bounds(graph, reader, x)
        if ranges.keys() & more.keys():
            break
        ranges, steps = ranges | more, steps | strides
        graph.done.add(str(reader.name))
        node, reader = reader, _only_reader(reader)
    graph.adopt(str(node.outputs[0].name), _sliced(graph, x, ranges, steps))


def _bounds(graph: FileGraph, node: Node, x: Form) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """By stored axis: (first, how many are kept), and the step."""
    rank = len(x.order)
    parts = [graph.array(value) for value in node.inputs[1:]]
    if any(part is None for part in parts):
        raise graph.refuse(node, "has bounds that are computed")
    lists = [part.reshape(-1).tolist() for part in parts if part is not None]
    starts, ends = lists[:2]
    axes = lists[2] if len(lists) > 2 else list(range(len(starts)))
    strides = lists[3] if len(lists) > 3 else [1] * len(starts)
    shape = graph.shape(_name(node))
    ranges, steps = {}, {}
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        at = x.order.index(axis % rank)
        size = shape[axis % rank]
        # Python reads an end before the first element as one counted from the end.
        kept = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if graph.tensors[x.tensor].batch_axis == at:
            raise graph.refuse(node, "cuts along the batch")
        ranges[at], steps[at] = (kept.start, len(kept)), step
    return ranges, steps


def _sliced(graph: FileGraph, x: Form, ranges: dict[int, tuple[int, int]], steps: dict[int, int]) -> Form:
    """Every n-th row and column is a 1x1 depthwise convolution with weights of 1: XNNPACK slices without steps only."""
    old = graph.tensors[x.tensor]
    strided = {at for at, step in steps.items() if step != 1}
    if x.order != CHANNELS_LAST or not strided <= {1, 2} or not strided or min(steps.values()) < 1:
        return cut(graph, x, ranges, steps)
    # With step n, `count` results need the first (count - 1) * n + 1 positions; more do no harm.
    reach = {
        at: (first, min(old.shape[at] - first, count * steps[at]) if at in strided else count)
        for at, (first, count) in ranges.items()
    }
    reach = {at: span for at, span in reach.items() if span != (0, old.shape[at])}
    if reach:
        x = cut(graph, x, reach)
    shape = list(graph.tensors[x.tensor].shape)
    for at in strided:
        shape[at] = ranges[at][1]
    result = graph.derived(x.tensor, shape)
    ones_convolution(graph, x, result, (1, 1), (steps.get(1, 1), steps.get(2, 1)), 1.0)
    return Form(result, x.order, x.codes)


def gather(graph: FileGraph, node: Node) -> None:
    """Gather with constant indices, one or a list."""
    x = _unflattened(graph, node)
    rank = len(x.order)
    indices = graph.array(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % rank
    if indices is None or indices.ndim > 1:
        raise graph.refuse(node, "has indices that are computed, or in more than one dimension")
    at = x.order.index(axis)
    size = graph.tensors[x.tensor].shape[at]
    order = x.order if indices.ndim else tuple(a - (a > axis) for a in x.order if a != axis)
    output = graph.write(str(node.outputs[0].name), order, codes=x.codes)
    wrapped = np.where(indices < 0, indices + size, indices).astype(np.int32)
    graph.operator("GATHER", [x.tensor, graph.constant(wrapped)], [output], options={"axis": at})


def pooling(graph: FileGraph, node: Node) -> None:
    """MaxPool and AveragePool over two spatial axes."""
    integer = graph.integer(node)
    x = graph.read(node.inputs[0], order=CHANNELS_LAST if len(graph.shape(_name(node))) == 4 else None, integer=integer)
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
    graph: FileGraph, node: Node, x: Form, windows: list[Window], options: dict[str, Option], name: str
) -> None:
    inside = all(window.is_valid for window in windows)
    counts_zeros = bool(node.attributes.get_int("count_include_pad", 0))
    if counts_zeros and node.attributes.get_int("ceil_mode", 0) and not inside:
        raise graph.refuse(node, "counts zeros and rounds its size up")
    same = all(window.is_same for window in windows) and not counts_zeros
    if not inside and not same:
        amounts = [(0, 0), *((window.before, window.after) for window in windows), (0, 0)]
        x = pad(graph, x, amounts)
    options["padding"] = 0 if same and not inside else VALID
    corrected = not (inside or same or counts_zeros)
    codes = graph.encoded.activations[name] if x.codes is not None else None
    if x.codes is not None and corrected:
        # The zeros around the image must not count: only the float form can be corrected for them.
        plain = graph.tensor(graph.tensors[x.tensor].shape, batch_axis=0)
        graph.operator("DEQUANTIZE", [x.tensor], [plain], version=2)
        x = Form(plain, x.order)
    if x.codes is not None and options["padding"] == VALID:
        # XNNPACK has no integer average pool.
        kernel, strides = (windows[0].extent, windows[1].extent), (windows[0].stride, windows[1].stride)
        output = graph.write(name, CHANNELS_LAST, codes=codes)
        ones_convolution(graph, x, output, kernel, strides, 1 / math.prod(kernel))
        return
    shape = graph.shape(str(node.outputs[0].name))
    stored = [shape[axis] for axis in CHANNELS_LAST]
    batch = graph.tensors[x.tensor].batch_axis
    averaged = graph.tensor(stored, codes=x.codes, batch_axis=batch)
    graph.operator("AVERAGE_POOL_2D", [x.tensor], [averaged], table="Pool2DOptions", options=options)
    if corrected:
        counts = [
            [
                sum(0 <= window.stride * i - window.before + k < window.size for k in range(window.extent))
                for i in range(window.outputs)
            ]
            for window in windows
        ]
        factor = math.prod(window.extent for window in windows) / np.outer(*counts)
        result = graph.tensor(stored, batch_axis=batch)
        constant = graph.constant(factor.reshape(1, *factor.shape, 1).astype(np.float32))
        graph.operator("MUL", [averaged, constant], [result])
        averaged = result
    form = Form(averaged, CHANNELS_LAST, x.codes)
    graph.adopt(name, graph.requantized(form, codes) if codes is not None and form.codes is not None else form)


def ones_convolution(
    graph: FileGraph, x: Form, output: int, kernel: tuple[int, int], strides: tuple[int, int], factor: float
) -> None:
    """A depthwise convolution all of whose weights are `factor`: in integers, codes of 1 with this scale."""
    channels = graph.tensors[x.tensor].shape[3]
    shape = (1, *kernel, channels)
    if x.codes is None:
        weight = graph.constant(np.full(shape, factor, np.float32))
        bias = graph.constant(np.zeros(channels, np.float32))
    else:
        scale = np.array([factor], np.float32)
        weight = graph.constant(np.ones(shape, np.int8), scale=scale, axis=3)
        bias = graph.constant(np.zeros(channels, np.int32), scale=scale * np.float32(x.codes.scale))
    options: dict[str, Option] = {"padding": VALID, "strideH": strides[0], "strideW": strides[1], "depthMultiplier": 1}
    read = [x.tensor, weight, bias]
    graph.operator("DEPTHWISE_CONV_2D", read, [output], table="DepthwiseConv2DOptions", options=options)


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
    """Mean, sum or maximum over some axes."""
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
    codes = graph.encoded.activations[name] if integer else None
    output = graph.write(name, order, codes=codes)
    stored = graph.integers(sorted(x.order.index(axis) for axis in axes))
    graph.operator(
        REDUCTIONS[node.op_type], [x.tensor, stored], [output], table="ReducerOptions", options={"keepDims": keeps}
    )


def softmax(graph: FileGraph, node: Node) -> None:
    """Softmax and LogSoftmax over one axis, which must be the last that is stored."""
    rank = len(graph.shape(_name(node)))
    modern = graph.model.ir.opset_imports.get("", 13) >= 13
    axis = node.attributes.get_int("axis", -1 if modern else 1) % rank
    if not modern and axis != rank - 1:
        raise graph.refuse(node, "runs over several axes at once (operator set below 13)")
    x = graph.read(node.inputs[0])
    if x.flat or x.order[-1] != axis:
        order = (*(other for other in range(rank) if other != axis), axis)
        x = graph.read(node.inputs[0], order=order)
    output = graph.write(str(node.outputs[0].name), x.order)
    if node.op_type == "Softmax":
        graph.operator("SOFTMAX", [x.tensor], [output], options={"beta": 1.0})
    else:
        graph.operator("LOG_SOFTMAX", [x.tensor], [output])


def padding(graph: FileGraph, node: Node) -> None:
    """Pad with zeros or by reflection; negative pads cut."""
    x = _unflattened(graph, node)
    rank = len(x.order)
    mode = node.attributes.get_string("mode", "constant")
    amounts = graph.array(node.inputs[1]) if len(node.inputs) > 1 else None
    value = graph.array(node.inputs[2]) if len(node.inputs) > 2 else None
    axes = graph.array(node.inputs[3]) if len(node.inputs) > 3 else None
    if amounts is None:
        raise graph.refuse(node, "has pads that are computed")
    if mode not in ("constant", "reflect") or (mode == "constant" and value is not None and bool(value.any())):
        raise graph.refuse(node, f"pads by {mode}" if mode != "constant" else "pads with something other than zero")
    listed = range(rank) if axes is None else [int(axis) % rank for axis in axes.reshape(-1)]
    halves = amounts.reshape(2, -1)
    by_axis = {axis: (int(halves[0, i]), int(halves[1, i])) for i, axis in enumerate(listed)}
    stored = [by_axis.get(axis, (0, 0)) for axis in x.order]
    shape = graph.tensors[x.tensor].shape
    cuts = {
        i: (max(0, -before), shape[i] - max(0, -before) - max(0, -after))
        for i, (before, after) in enumerate(stored)
        if before < 0 or after < 0
    }
    if cuts:
        x = cut(graph, x, cuts)
    grown = [(max(0, before), max(0, after)) for before, after in stored]
    if mode == "reflect":
        old = graph.tensors[x.tensor]
        sizes = [size + sum(amount) for size, amount in zip(old.shape, grown, strict=True)]
        result = graph.derived(x.tensor, sizes, batch_axis=old.batch_axis)
        table = graph.constant(np.array(grown, np.int32))
        graph.operator("MIRROR_PAD", [x.tensor, table], [result], options={"mode": 0})
        x = Form(result, x.order, x.codes)
    elif any(sum(amount) for amount in grown):
        x = pad(graph, x, grown)
    graph.adopt(str(node.outputs[0].name), x)


def reshape(graph: FileGraph, node: Node) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: nothing is moved unless the stored order of axes forces it."""
    value = node.inputs[0]
    assert value is not None
    before, after = str(value.name), str(node.outputs[0].name)
    integer = graph.integer(node)
    x = graph.read(value, integer=integer)
    flat = None
    order = None if x.flat else reshaped_order(graph.probe_shape(before), graph.probe_shape(after), x.order)
    if order is None and not x.flat and x.order == CHANNELS_LAST and len(graph.shape(after)) == 2:
        batch, channels, height, width = graph.shape(before)
        if graph.shape(after) == (batch, channels * height * width):
            order, flat = (0, 1), (channels, height, width)
    if order is None:
        x = graph.plain(value, integer=integer)
        order = tuple(range(len(graph.shape(after))))
    shape = graph.shape(after)
    stored = tuple(shape[axis] for axis in order)
    batch_axis = graph.shapes.batch_axis(after)
    place = None if batch_axis is None else order.index(batch_axis)
    tensor = x.tensor
    if stored != graph.tensors[tensor].shape:
        tensor = graph.reshape(tensor, stored, batch_axis=place)
    graph.adopt(after, Form(tensor, order, x.codes, flat))


def transpose(graph: FileGraph, node: Node) -> None:
    """Transpose: the axes of what is stored get other names."""
    x = _unflattened(graph, node)
    rank = len(x.order)
    steps = list(node.attributes.get_ints("perm", list(range(rank))[::-1]))
    graph.adopt(str(node.outputs[0].name), Form(x.tensor, tuple(steps.index(axis) for axis in x.order), x.codes))


def identity(graph: FileGraph, node: Node) -> None:
    """Operators that change nothing at inference."""
    graph.adopt(str(node.outputs[0].name), graph.read(node.inputs[0], integer=graph.integer(node)))


def depth_space(graph: FileGraph, node: Node) -> None:
    """DepthToSpace (DCR) and SpaceToDepth."""
    if node.attributes.get_string("mode", "DCR") != "DCR":
        raise graph.refuse(node, "has mode CRD, only DCR is written")
    x = graph.read(node.inputs[0], order=CHANNELS_LAST, integer=graph.integer(node))
    code = "DEPTH_TO_SPACE" if node.op_type == "DepthToSpace" else "SPACE_TO_DEPTH"
    output = graph.write(str(node.outputs[0].name), CHANNELS_LAST, codes=x.codes)
    graph.operator(code, [x.tensor], [output], options={"blockSize": node.attributes.get_int("blocksize", 0)})


def _unflattened(graph: FileGraph, node: Node) -> Form:
    """The first input in any order of its real axes."""
    integer = graph.integer(node)
    x = graph.read(node.inputs[0], integer=integer)
    return graph.plain(node.inputs[0], integer=integer) if x.flat else x


def _only_reader(node: Node) -> Node | None:
    output = node.outputs[0]
    readers = list(output.uses())
    return readers[0][0] if len(readers) == 1 and not output.is_graph_output() else None


def _name(node: Node) -> str:
    assert node.inputs[0] is not None
    return str(node.inputs[0].name)


OPERATORS: dict[str, Callable[[FileGraph, Node], None]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": product,
    "MatMul": product,
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("Identity", "Dropout"), identity),
    **dict.fromkeys(("MaxPool", "AveragePool"), pooling),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), depth_space),
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Concat": concatenation,
    "Gather": gather,
    "HardSigmoid": hard_sigmoid,
    "PRelu": prelu,
    "Pad": padding,
    "Resize": resize,
    "Slice": slices,
    "Split": split,
    "Transpose": transpose,
}
