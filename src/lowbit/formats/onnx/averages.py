"""Average pools of integer files, in the form for which runtimes have a fast integer kernel.

A mean over all positions becomes GlobalAveragePool: ONNX Runtime has no integer ReduceMean. An AveragePool over windows
becomes a depthwise convolution whose codes are all 1 and whose scale is 1 / (window size), the same sum with the same
single rounding. ONNX Runtime's integer AveragePool takes one value at a time (96 channels of 28x28, windows of 3x3: 410
us, where float takes 33 and the convolution 35), so that networks with such pools ran slower than in float; OpenVINO
takes the same time for both. The ones are made by a ConstantOfShape that runtimes fold while loading.

Where padding is not counted windows at the border are divided by less: the convolution's result is multiplied by
(window size) / (values counted), whose codes are exact; at the border this rounds a second time, which padding of half
a window makes up to 4 times as large. Pools padded further, that round their size up, or whose image size is not known
stay as they are.

A mean over lines [n, C, L] is written as one over images of width 1: OpenVINO's kernel for lines forgets the zero point
of its codes (2026.4), and answers then are those of another network.

Some of these ONNX Runtime's integer kernel cannot compute (`float_reason`). The plan leaves them in float, and a Sum of
one value behind them keeps the runtime from making an integer kernel of them nevertheless.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.draft import Draft, give_instead, put_in_place
from lowbit.formats.quantized_graph import ActivationCodes

HIGHEST = 255
LARGEST_FACTOR = 4
RANK_OF_LINES = 3  # [images, channels, length]

Activations = dict[str, ActivationCodes]


def write_averages(draft: Draft) -> Draft:
    """Rewrite the pools that run in integers, before anything is quantized; new tensors have codes too."""
    activations = dict(draft.activations)
    for node in tuple(draft.graph):
        if node.name not in draft.quantized.integer:
            given = node.inputs[0] if node.inputs else None
            if given is not None and given.name in activations and float_reason(node):
                _keep_float(draft.graph, node, draft.names)
            continue
        if node.op_type == "GlobalAveragePool" and _rank(node) == RANK_OF_LINES:
            _write_as_image(draft.graph, node, activations, draft.names)
        elif node.op_type == "ReduceMean":
            _write_global(draft.graph, node, activations, draft.names)
        elif node.op_type == "AveragePool" and (window := _window(node)) is not None:
            _write_convolution(draft.graph, node, window, activations, draft.names)
    return replace(draft, activations=activations)


def float_reason(node: ir.Node) -> str:
    """Why an average pool has to compute in float; empty if it can compute in integers, or is none."""
    if node.op_type != "AveragePool" or _window(node) is not None:
        return ""
    attributes = node.attributes
    if any(step != 1 for step in attributes.get_ints("dilations", [])):
        return "there is no integer kernel for dilated average pools of this form"
    if attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
        return ""
    if attributes.get_int("ceil_mode", 0) and attributes.get_int("count_include_pad", 0):
        return "ONNX Runtime's integer kernel counts what hangs over the border"
    return ""


@dataclass(frozen=True)
class _Window:
    """What a pool does: its channels and kernel, and how many values each output counts; None if all of them."""

    channels: int
    kernel: tuple[int, ...]
    counted: npt.NDArray[np.int64] | None


def _window(node: ir.Node) -> _Window | None:
    """The geometry of a pool over images; None for one that stays as it is."""
    given, output = node.inputs[0], node.outputs[0]
    shape = given.shape if given is not None else None
    attributes = node.attributes
    by_hand = attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int) or not by_hand:
        return None
    if attributes.get_int("ceil_mode", 0):
        return None
    kernel = tuple(attributes.get_ints("kernel_shape", []))
    pads = attributes.get_ints("pads", [0] * 4)
    if not any(pads) or attributes.get_int("count_include_pad", 0) == 1:
        return _Window(shape[1], kernel, None)
    if output.shape is None or any(not isinstance(size, int) for size in (*shape[2:], *output.shape[2:])):
        return None
    strides, dilations = attributes.get_ints("strides", [1, 1]), attributes.get_ints("dilations", [1, 1])
    lines = []
    for axis in range(2):
        size, outputs = shape[2 + axis], output.shape[2 + axis]
        assert isinstance(size, int)
        assert isinstance(outputs, int)
        first = np.arange(outputs)[:, None] * strides[axis] - pads[axis]
        places = first + np.arange(kernel[axis]) * dilations[axis]
        lines.append(((places >= 0) & (places < size)).sum(axis=1))
    counted = np.outer(*lines)
    if LARGEST_FACTOR * int(counted.min()) < math.prod(kernel):
        return None
    exact = math.lcm(*np.unique(counted).tolist()) <= HIGHEST * int(counted.min())
    return _Window(shape[1], kernel, counted) if exact else None


def _write_convolution(graph: ir.Graph, node: ir.Node, window: _Window, activations: Activations, names: Names) -> None:
    size = math.prod(window.kernel)
    one = ir.tensor(np.ones(1, np.int8))
    shape = names.constant(np.array([window.channels, 1, *window.kernel]))
    ones = ir.node("ConstantOfShape", [shape], attributes={"value": one})
    ones.outputs[0].name = names.fresh("w")
    weight = _dequantized(ones.outputs[0], np.float32(1 / size), names)
    convolution = ir.node(
        "Conv", [node.inputs[0], weight.outputs[0]], attributes={"group": window.channels}, name=node.name
    )
    for name, attribute in node.attributes.items():
        if name in ("kernel_shape", "strides", "pads", "dilations", "auto_pad"):
            convolution.attributes.add(attribute)
    new = [ones, weight, convolution]
    if window.counted is not None:
        # Codes `least / counted` in units of `size / least` are whole numbers.
        least = math.lcm(*np.unique(window.counted).tolist())
        codes = names.constant((least // window.counted).astype(np.uint8)[None, None])
        factor = _dequantized(codes, np.float32(size / least), names, zero_point=names.constant(np.uint8(0)))
        average = convolution.outputs[0]
        average.name, average.dtype, average.shape = names.fresh("p"), ir.DataType.FLOAT, node.outputs[0].shape
        _give_codes(activations, average, node.outputs[0])
        new += [factor, ir.node("Mul", [average, factor.outputs[0]], name=f"{node.name}.border")]
    put_in_place(graph, node, new)


def _give_codes(activations: Activations, new: ir.Value, of: ir.Value) -> None:
    """Let a new tensor have the codes of another, if that has some: in files for OpenVINO not all do."""
    if of.name in activations:
        activations[str(new.name)] = activations[str(of.name)]


def _dequantized(codes: ir.Value, scale: np.float32, names: Names, *, zero_point: ir.Value | None = None) -> ir.Node:
    inputs = [codes, names.constant(scale), *([] if zero_point is None else [zero_point])]
    node = ir.node("DequantizeLinear", inputs)
    node.outputs[0].name = names.fresh("d")
    return node


def _write_global(graph: ir.Graph, node: ir.Node, activations: Activations, names: Names) -> None:
    output = node.outputs[0]
    pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    new = [pool]
    if not node.attributes.get_int("keepdims", 1):
        pooled = pool.outputs[0]
        pooled.name = names.fresh("p")
        pooled.dtype = ir.DataType.FLOAT
        _give_codes(activations, pooled, output)
        new.append(ir.node("Flatten", [pooled], attributes={"axis": 1}))
    put_in_place(graph, node, new)


def _rank(node: ir.Node) -> int:
    given = node.inputs[0]
    return 0 if given is None or given.shape is None else len(given.shape)


def _write_as_image(graph: ir.Graph, node: ir.Node, activations: Activations, names: Names) -> None:
    given, output = node.inputs[0], node.outputs[0]
    assert given is not None
    axis = names.constant(np.array([RANK_OF_LINES]))
    wide = ir.node("Unsqueeze", [given, axis])
    pool = ir.node("GlobalAveragePool", [wide.outputs[0]], name=node.name)
    for made, of in ((wide, given), (pool, output)):
        made.outputs[0].name, made.outputs[0].dtype = names.fresh("p"), ir.DataType.FLOAT
        _give_codes(activations, made.outputs[0], of)
    put_in_place(graph, node, [wide, pool, ir.node("Squeeze", [pool.outputs[0], axis])])


def _keep_float(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """Put a Sum of one value behind a node: no runtime takes that out before it looks for integer kernels."""
    output = node.outputs[0]
    kept = ir.node("Sum", [output], name=f"{node.name}.float")
    value = kept.outputs[0]
    for user, index in tuple(output.uses()):
        if user is not kept:
            user.replace_input_with(index, value)
    if output.is_graph_output():
        give_instead(graph, output, value)
    value.shape, value.dtype = output.shape, ir.DataType.FLOAT
    value.name, output.name = output.name, names.fresh("p")
    graph.insert_after(node, kept)
