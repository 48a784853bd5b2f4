"""What does not depend on the input is computed here, once: shape arithmetic, weights that are computed from others.

So weights that are transposed, unpacked, standardized, or the sum of a weight and a product of narrow ones (LoRA)
become one constant. A product alone stays: its factors are smaller. Only operators in the table are folded. The size of
each result is bounded before it is computed, so that a hostile graph in a small file cannot fill the memory. The
arithmetic is that of onnx's reference evaluator (numpy).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from lowbit.graph.edit import constant, replace_by_constants

SMALL_ELEMENTS = 1 << 16
# One packed byte holds at most eight weights.
LARGEST_GROWTH = 8
# Of one product: a second or so.
MOST_MACS = 1 << 33
# How far behind a product a weight is looked for that it is added to.
FORWARD_STEPS = 8
# All results together, where the weights in the file do not ask for more.
SMALL_TOTAL_BYTES = 1 << 24
# Bytes that may still be folded, noted beside the model: it is folded again and again.
ROOM = "lowbit.room"
Arrays = Sequence[np.ndarray | None]


def _broadcast(inputs: Arrays) -> int:
    return math.prod(np.broadcast_shapes(*(array.shape for array in inputs if array is not None)))


def _sum_of_sizes(inputs: Arrays) -> int:
    return sum(array.size for array in inputs if array is not None)


def _target_shape(inputs: Arrays) -> int:
    return math.prod(abs(int(dim)) for dim in _given(inputs, 0).ravel())


def _expand(inputs: Arrays) -> int:
    shape = tuple(int(dim) for dim in _given(inputs, 1).ravel())
    data = _given(inputs, 0).shape
    # Not np.broadcast_shapes, which refuses sizes beyond its integers with another kind of error.
    return math.prod(max(dim, 1) for dim in shape) * math.prod(data)


def _tile(inputs: Arrays) -> int:
    return _given(inputs, 0).size * math.prod(abs(int(count)) for count in _given(inputs, 1).ravel())


def _gather(inputs: Arrays) -> int:
    data = _given(inputs, 0)
    return _given(inputs, 1).size * max(1, data.size // max(1, min(data.shape, default=1)))


def _product(inputs: Arrays) -> int:
    left, right = _given(inputs, 0), _given(inputs, 1)
    lefts, rights = left.shape or (1,), right.shape or (1,)
    batch = math.prod(np.broadcast_shapes(lefts[:-2], rights[:-2]))
    return _if_quick(batch * math.prod(lefts[-2:-1]) * math.prod(rights[-1:] if right.ndim > 1 else ()), lefts[-1])


def _gemm(inputs: Arrays) -> int:
    # Transposed or not: of both matrices one side is shared.
    left, right = _given(inputs, 0), _given(inputs, 1)
    shared = next(side for side in left.shape if side in right.shape)
    return _if_quick(left.size * right.size // max(1, shared) ** 2, shared)


def _einsum(node: ir.Node, inputs: Arrays) -> int:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    read, arrow, made = equation.partition("->")
    if not arrow or "." in equation:
        return 1 << 62
    sizes: dict[str, int] = {}
    for index, axes in enumerate(read.split(",")):
        sizes |= dict(zip(axes, _given(inputs, index).shape, strict=True))
    size = math.prod(sizes[axis] for axis in made)
    return _if_quick(size, math.prod(sizes.values()) // max(1, size))


def _if_quick(size: int, terms: int) -> int:
    """The size of a product whose values are sums of so many terms; beyond all bounds if it takes too long."""
    return size if size * terms <= MOST_MACS else 1 << 62


def _range(inputs: Arrays) -> int:
    start, limit, delta = (float(_given(inputs, index)) for index in range(3))
    return math.ceil(abs((limit - start) / delta)) if delta else 1 << 62


def _given(inputs: Arrays, index: int) -> np.ndarray:
    array = inputs[index]
    if array is None:
        raise ValueError(f"input {index} is missing")
    return array


ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Where", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
    *("And", "Or", "Min", "Max", "Sum", "Mean", "BitShift", "BitwiseAnd"),
)
NEVER_LARGER = (
    *("Cast", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Floor", "Ceil", "Round", "Not", "Sign"),
    *("Erf", "Tanh", "Sigmoid", "Softplus", "Relu", "Softmax", "Identity"),
    *(
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Concat",
        "Slice",
        "Split",
        "Clip",
        "DequantizeLinear",
    ),
    *("ReduceSum", "ReduceProd", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
    *("InstanceNormalization", "LayerNormalization", "BatchNormalization", "Shape", "Size"),
)
# Folded only where the result is no larger than what it is made of or added to.
PRODUCTS = frozenset(("MatMul", "Gemm", "Einsum"))
# Operator -> upper bound of the number of elements of its outputs, from its constant inputs.
RESULT_SIZE: dict[str, Callable[[Arrays], int]] = {
    **dict.fromkeys(ELEMENTWISE, _broadcast),
    **dict.fromkeys(NEVER_LARGER, _sum_of_sizes),
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _target_shape,
    "Gather": _gather,
    "Range": _range,
    "MatMul": _product,
    "Gemm": _gemm,
}


def fold_constants(model: ir.Model) -> bool:
    """Replace nodes whose inputs are all constant by their results, in place.

    Of the nodes in bodies of If, Loop and Scan only those that make another weight of one, which `lift_weights` brought
    to the main graph: the result goes there too. Sizes stay: runtimes infer shapes only from constants beside a node.
    """
    main = model.graph
    opset = main.opset_imports.get("", 1)
    if ROOM not in model.meta:
        tensors = [value.const_value for value in main.initializers.values()]
        model.meta[ROOM] = max(
            SMALL_TOTAL_BYTES, LARGEST_GROWTH * sum(one.nbytes for one in tensors if one is not None)
        )
    changed = False
    for graph in (main, *main.subgraphs()):
        for node in tuple(graph):
            inputs = _all_constant(node)
            if inputs is None or (graph is not main and not _reads_weight(node, main)):
                continue
            arrays = _evaluate(node, inputs, opset, model.meta[ROOM])
            if arrays is None or (graph is not main and any(array.dtype.kind in "iub" for array in arrays)):
                continue
            model.meta[ROOM] -= sum(array.nbytes for array in arrays)
            replace_by_constants(main, node, arrays)
            changed = True
    return changed


def _all_constant(node: ir.Node) -> list[np.ndarray | None] | None:
    """The inputs of a node that can be folded; None if it cannot."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in RESULT_SIZE.keys() | PRODUCTS:
        return None
    if any(output.is_graph_output() for output in node.outputs):
        return None
    inputs = [constant(value) for value in node.inputs]
    if not inputs or any(a is None and v is not None for a, v in zip(inputs, node.inputs, strict=True)):
        return None
    return inputs


def _reads_weight(node: ir.Node, main: ir.Graph) -> bool:
    """Whether a node of a body reads a constant of the main graph."""
    return any(value is not None and value.graph is main for value in node.inputs)


def _evaluate(node: ir.Node, inputs: Arrays, opset: int, room: int) -> list[np.ndarray] | None:
    """The node's outputs that are read, or None if they are too large or it fails (the runtime will then say why)."""
    try:
        elements = _einsum(node, inputs) if node.op_type == "Einsum" else RESULT_SIZE[node.op_type](inputs)
        largest = max((array.size for array in inputs if array is not None), default=0)
        if elements > max(SMALL_ELEMENTS, LARGEST_GROWTH * largest) and not _is_added(node, elements):
            return None
        if elements * 8 > room or (node.op_type in PRODUCTS and elements > largest and not _is_added(node, elements)):
            return None
    except Exception:  # shapes that do not fit, inputs that are missing
        return None
    return _results(node, inputs, opset)


def evaluated(node: ir.Node, inputs: Arrays, opset: int, most: int) -> list[np.ndarray] | None:
    """The outputs that are read of a node of `RESULT_SIZE`; None if they have more than `most` values, or it fails."""
    try:
        if RESULT_SIZE[node.op_type](inputs) > most:
            return None
    except Exception:  # as above
        return None
    return _results(node, inputs, opset)


def _results(node: ir.Node, inputs: Arrays, opset: int) -> list[np.ndarray] | None:
    try:
        with np.errstate(all="ignore"):
            results = _reference(node, inputs, opset)
    except Exception:  # the reference evaluator raises all kinds of errors on invalid nodes
        return None
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        return None
    arrays = [np.asarray(result) for result in results]
    return arrays if all(array.dtype.kind in "fiub" or array.dtype.name == "bfloat16" for array in arrays) else None


def _is_added(node: ir.Node, elements: int) -> bool:
    """Whether what a product gives, moved and scaled perhaps, meets a constant that is at least as large."""
    value = node.outputs[0]
    for _ in range(FORWARD_STEPS):
        uses = list(value.uses())
        if len(uses) != 1 or len(uses[0][0].outputs) != 1:
            return False
        reader, _ = uses[0]
        others = [constant(other) for other in reader.inputs if other is not None and other is not value]
        if any(other is None for other in others):
            return False
        if any(other is not None and other.size >= elements for other in others):
            return True
        value = reader.outputs[0]
    return False


def _reference(node: ir.Node, inputs: Arrays, opset: int) -> list[object]:
    from onnx.reference import ReferenceEvaluator

    message: onnx.NodeProto = ir.to_proto(node)
    del message.metadata_props[:]
    message.input[:] = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    outputs = [f"o{index}" if output.name and output.uses() else "" for index, output in enumerate(node.outputs)]
    message.output[:] = outputs
    feeds: dict[str, Any] = {f"i{index}": array for index, array in enumerate(inputs) if array is not None}
    graph = onnx.helper.make_graph(
        [message],
        "fold",
        [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
    )
    # The evaluator has DequantizeLinear from opset 19 on, which computes what that of 13 does.
    opset = max(opset, 19) if node.op_type == "DequantizeLinear" else opset
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))
    return list(evaluator.run(None, feeds))
