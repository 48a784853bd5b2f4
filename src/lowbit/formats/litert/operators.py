"""One function for each ONNX operator that is written as LiteRT; a new operator is one function and one row."""

import math
from collections.abc import Callable

import numpy as np

from lowbit.formats.litert.builder import Option
from lowbit.formats.litert.choices import COMPARISONS, cast, comparison, position, where
from lowbit.formats.litert.data_movement import (
    concatenation,
    depth_space,
    gather,
    identity,
    padding,
    reshape,
    slices,
    split,
    tile,
    transpose,
)
from lowbit.formats.litert.einsum import einsum
from lowbit.formats.litert.formulas import (
    FORMULAS,
    formula,
    group_norm,
    instance_norm,
    layer_norm,
    mean_variance_norm,
)
from lowbit.formats.litert.graph import NO_ACTIVATION, RELU6, FileGraph, Order, StoredValue
from lowbit.formats.litert.layers import convolution, product, transposed_convolution
from lowbit.formats.litert.pooling import REDUCTIONS, pooling, reduction
from lowbit.formats.litert.resize import resize
from lowbit.formats.quantized_graph import INT16, ActivationCodes
from lowbit.graph.model import Node, Value

# LiteRT fixes scale and zero point of a sigmoid: of int8 1/256 and the lowest code, of int16 1/32768 and no zero point.
SIGMOID_CODES = {8: ActivationCodes(1 / 256, 0), 16: ActivationCodes(1 / 32768, 32768, INT16)}

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
    "LeakyRelu": ("LEAKY_RELU", "LeakyReluOptions"),
    "Gelu": ("GELU", "GeluOptions"),
    "Sin": ("SIN", None),
    "Cos": ("COS", "CosOptions"),
    "Log": ("LOG", None),
    "Floor": ("FLOOR", None),
    "Ceil": ("CEIL", None),
    "Round": ("ROUND", None),
    "Sign": ("SIGN", "SignOptions"),
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
    codes = graph.quantized.activations[name] if integer else None
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
        if code in ("ADD", "SUB") and graph.quantized.kind.bits == 16:
            options["potScaleInt16"] = False  # scales of 16-bit codes that are powers of two are their default
        graph.operator(code, [total, operand], [result], table=table, options=options)
        total = result
    if len(operands) == 1:
        graph.adopt(name, StoredValue(total, order))


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
        codes = SIGMOID_CODES[graph.quantized.kind.bits] if code == "LOGISTIC" else graph.quantized.activations[name]
    options: dict[str, Option] = {}
    if code == "LEAKY_RELU":
        options = {"alpha": node.attributes.get_float("alpha", 0.01)}
    elif code == "GELU":
        options = {"approximate": node.attributes.get_string("approximate", "none") == "tanh"}
    output = graph.write(name, x.order, codes=codes, flat=x.flat)
    graph.operator(code, [x.tensor], [output], table=table, options=options)


def clip(graph: FileGraph, node: Node) -> None:
    """Clip: RELU and RELU6 where the bounds are theirs, else MAXIMUM and MINIMUM."""
    low, high = graph.bounds(node)
    integer = graph.integer(node)
    x = graph.read(node.inputs[0], integer=integer, exact=integer)
    name = str(node.outputs[0].name)
    if low == 0.0 and high in (None, 6.0):
        output = graph.write(name, x.order, codes=x.codes, flat=x.flat)
        graph.operator("RELU" if high is None else "RELU6", [x.tensor], [output], table=None)
        return
    limits = [(code, bound) for code, bound in (("MAXIMUM", low), ("MINIMUM", high)) if bound is not None]
    tensor = x.tensor
    for index, (code, bound) in enumerate(limits):
        last = index == len(limits) - 1
        old = graph.tensors[tensor]
        result = (
            graph.write(name, x.order, codes=x.codes, flat=x.flat)
            if last
            else graph.derived(tensor, old.shape, batch_axis=old.batch_axis)
        )
        graph.operator(code, [tensor, _limit(graph, x, bound)], [result], table="MaximumMinimumOptions")
        tensor = result
    if not limits:
        graph.adopt(name, x)


def _limit(graph: FileGraph, x: StoredValue, bound: float) -> int:
    """A bound as a constant of the type and scale of what it bounds."""
    if x.codes is None:
        return graph.constant(np.array(bound, np.float32))
    kind = x.codes.kind
    half = kind.levels // 2
    code = np.clip(np.rint(bound / x.codes.scale) + x.codes.zero_point, 0, kind.levels - 1) - half
    scale = np.array([x.codes.scale], np.float32)
    return graph.constant(np.array(code, f"int{kind.bits}"), scale=scale, zero_point=x.codes.zero_point - half)


def hard_sigmoid(graph: FileGraph, node: Node) -> None:
    """HardSigmoid: clip(alpha x + beta, 0, 1) as relu6(6 alpha x + 6 beta) / 6."""
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    x = graph.read(node.inputs[0])
    tensor = x.tensor
    old = graph.tensors[tensor]
    steps = [("MUL", 6 * alpha, NO_ACTIVATION), ("ADD", 6 * beta, RELU6), ("MUL", 1 / 6, NO_ACTIVATION)]
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
    if rank == 0:
        raise graph.refuse(node, "has no axis for its slope")
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


def softmax(graph: FileGraph, node: Node) -> None:
    """Softmax and LogSoftmax over one axis, which must be the last that is stored."""
    rank = len(graph.input_shape(node))
    if rank == 0:
        raise graph.refuse(node, "has no axis to run over")
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


OPERATORS: dict[str, Callable[[FileGraph, Node], None]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": product,
    "MatMul": product,
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(FORMULAS, formula),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("Identity", "Dropout"), identity),
    **dict.fromkeys(("MaxPool", "AveragePool"), pooling),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), depth_space),
    **dict.fromkeys(("ArgMax", "ArgMin"), position),
    **dict.fromkeys(COMPARISONS, comparison),
    **dict.fromkeys(("Expand", "Tile"), tile),
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": concatenation,
    "Einsum": einsum,
    "Gather": gather,
    "GroupNormalization": group_norm,
    "HardSigmoid": hard_sigmoid,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "PRelu": prelu,
    "Pad": padding,
    "Resize": resize,
    "Slice": slices,
    "Split": split,
    "Transpose": transpose,
    "Where": where,
}
