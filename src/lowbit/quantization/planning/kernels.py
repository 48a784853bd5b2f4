"""Operators that have integer kernels, and what rules them out: attributes, bounds, padding.

The tables list the operators for which ONNX Runtime has an integer kernel between DequantizeLinear and QuantizeLinear
(checked one by one on version 1.32, by looking at the graph that it actually runs), or the other runtimes have one
(`NOT_IN_ONNXRUNTIME`).
"""

import math
from collections.abc import Callable

from lowbit.engines import ENGINES
from lowbit.formats.onnx.averages import float_reason
from lowbit.graph.edit import constant
from lowbit.graph.model import Node, Value

# Of operators that only move codes, what keeps all values and changes their order or shape at most: as cheap in float.
ORDER_ONLY = frozenset(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"))
# Where no saturation does their work they clamp the codes themselves, in the scale of the input: results stay on its
# grid. In float between two conversions they took 3 to 6 times as long.
CLAMPS = frozenset(("Relu", "Clip"))
# Operators without weights that have integer kernels, and an output with a scale of its own.
OWN_SCALE = frozenset(
    ("Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "ReduceMean", "Sigmoid", "LeakyRelu")
)
# Of these, what costs next to nothing in float and loses most by codes that nothing computes on.
BETTER_LAST_IN_FLOAT = frozenset(("Concat", "Sigmoid"))
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# LiteRT and OpenVINO have integer kernels, ONNX Runtime has none: there a float kernel computes on the same codes.
NOT_IN_ONNXRUNTIME = ENGINES["onnxruntime"].float_kernels


def _pad_reason(node: Node) -> str:
    mode = node.attributes.get_string("mode", "constant")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if mode != "constant":
        return f"there is no integer kernel for padding mode '{mode}'"
    if value is not None and (value.const_value is None or bool(value.const_value.numpy().any())):
        return "the padding value is not a constant zero"
    return ""


def _resize_reason(node: Node) -> str:
    mode = node.attributes.get_string("mode", "nearest")
    return "" if mode == "nearest" else f"there is no integer kernel for interpolation mode '{mode}'"


def _mean_reason(node: Node) -> str:
    return "" if spatial_mean_axes(node) else "the mean is not over all spatial axes"


def attribute_reason(node: Node) -> str:
    """Why the attributes of this node rule integers out; empty if they do not."""
    check = ATTRIBUTE_CHECKS.get(node.op_type)
    return check(node) if check else ""


ATTRIBUTE_CHECKS: dict[str, Callable[[Node], str]] = {
    "Pad": _pad_reason,
    "Resize": _resize_reason,
    "ReduceMean": _mean_reason,
    "AveragePool": float_reason,
}


def spatial_mean_axes(node: Node) -> bool:
    """Whether a ReduceMean is a global average pool: over the last two of four dimensions."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is not None:
        axes = [] if value.const_value is None else value.const_value.numpy().tolist()
    else:
        axes = list(node.attributes.get_ints("axes", []))
    rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else 0
    return rank == 4 and sorted(axis % 4 for axis in axes) == [2, 3]


def activation_inputs(node: Node) -> tuple[Value | None, ...]:
    """The inputs that become codes: all operands of an Add, Mul or Concat, the first input of any other."""
    return tuple(node.inputs) if node.op_type in ("Add", "Mul", "Concat") else tuple(node.inputs[:1])


def coded_outputs(node: Node) -> tuple[Value, ...]:
    """The outputs that become codes: all parts of a Split, the first of any other (not MaxPool's int64 positions)."""
    return tuple(node.outputs) if node.op_type == "Split" else tuple(node.outputs[:1])


def limits_codes(node: Node) -> bool:
    """Whether a node is a Relu or Clip that codes can do, by saturation or by a Clip of their own."""
    return node.op_type in CLAMPS and not bounds_reason(node)


def bounds_reason(node: Node) -> str:
    """Why no codes can do a Relu or Clip; empty if they can.

    A range of codes always includes 0.0: saturation at its ends does not keep values above a bound that is above 0.0,
    and on a coarse grid the code nearest to such a bound can be that of 0.0, by which a Div must not divide.
    """
    bounds = [-math.inf, math.inf]
    for at, value in enumerate(node.inputs[1:3]):
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            return "its bounds are not constant"
        if array is not None:
            bounds[at] = float(array.item())
    return "" if bounds[0] <= 0.0 <= bounds[1] else "its bounds leave out 0, which codes cannot"
