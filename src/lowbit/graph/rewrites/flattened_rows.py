"""A Transpose before a Flatten and a product moves into the rows of the product's weight.

A network that flattens its images channels last, and whose convolutions have the channels first, transposes in between.
The product sums over all that was flattened, so the rows of its weight may as well stand in the other order.
"""

import math

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, constant, extents, flag, is_standard
from lowbit.graph.rewrites.turning import order_of_axes


def fold_flattened_transposes(model: ir.Model) -> bool:
    """Reorder the rows of weights that read a transposed and flattened image, in place."""
    changed = False
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm") and is_standard(node) and not flag(node, "transA"):
            changed |= _fold(model.graph, node)
    return changed


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    flat, weight_value = node.inputs[:2]
    weight = constant(weight_value)
    reshape = flat.producer() if flat is not None and len(flat.uses()) == 1 and not flat.is_graph_output() else None
    turned = reshape.inputs[0] if reshape is not None and reshape.op_type in ("Reshape", "Flatten") else None
    transpose = turned.producer() if turned is not None else None
    if weight is None or weight_value is None or len(weight_value.uses()) > 1 or weight_value.is_graph_output():
        return False
    if reshape is None or transpose is None or transpose.op_type != "Transpose" or not is_standard(transpose):
        return False
    source, order, after = transpose.inputs[0], order_of_axes(transpose), extents(flat)
    dims = (extents(source) or ())[1:]
    sizes = [dim for dim in dims if isinstance(dim, int) and dim > 0]
    rows = 1 if node.op_type == "Gemm" and flag(node, "transB") else 0
    if source is None or not sizes or len(sizes) < len(dims) or order is None or order[0] != 0 or weight.ndim != 2:
        return False
    count = math.prod(sizes)
    if after is None or len(after) != 2 or after[1] != count or weight.shape[rows] != count:
        return False
    by_row = weight.T if rows else weight
    pixels = by_row.reshape(*(sizes[axis - 1] for axis in order[1:]), -1)
    places = [int(axis) for axis in np.argsort(order[1:])]
    moved = pixels.transpose(*places, len(places)).reshape(by_row.shape)
    weight_value.const_value = ir.tensor(np.ascontiguousarray(moved.T if rows else moved), name=weight_value.name)
    reshape.replace_input_with(0, source)
    if reshape.op_type == "Reshape":
        # A 0 there means a dimension of what is reshaped, which is another tensor now.
        target = add_initializer(graph, f"{flat.name if flat else ''}.shape", np.array([-1, count], np.int64))
        reshape.replace_input_with(1, target)
        reshape.attributes.pop("allowzero", None)
    return True
