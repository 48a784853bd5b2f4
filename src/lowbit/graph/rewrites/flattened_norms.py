"""Batch norms of the rows that a matrix product gives move in front of the Reshape that lays the rows out.

LeViT, EfficientFormer and TinyViT normalize tokens as PyTorch does: MatMul, Reshape to [rows, channels], batch norm,
Reshape back. As a Mul and an Add on the last axis the norm may come before the Reshape, where it becomes weight and
bias of the product; in float it cost OpenVINO its fusions, and behind integers the file was refused (2026.4).
"""

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, extents, is_standard
from lowbit.graph.rewrites.batch_norm import affine_of, can_leave
from lowbit.graph.rewrites.products import only_use


def move_flattened_norms(model: ir.Model) -> bool:
    """Write each batch norm behind a Reshape of a product as a Mul and an Add before it, in place."""
    graph = model.graph
    changed = False
    for node in tuple(graph):
        reshape, channels = _reshape_before(node)
        given = reshape.inputs[0] if reshape is not None else None
        norm = affine_of(node) if reshape is not None else None
        if reshape is None or given is None or norm is None or norm.factor.shape != (channels,):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            arrays = {"factor": norm.factor, "shift": norm.shift - norm.mean * norm.factor}
        if not can_leave(node) or not all(np.isfinite(array).all() for array in arrays.values()):
            continue
        factor, shift = (
            add_initializer(graph, f"{node.name}.{what}", array.astype(np.float32)) for what, array in arrays.items()
        )
        scaled = ir.node("Mul", [given, factor])
        shifted = ir.node("Add", [scaled.outputs[0], shift], name=node.name)
        for new in (scaled, shifted):
            new.outputs[0].shape, new.outputs[0].type = given.shape, given.type
        graph.insert_before(reshape, [scaled, shifted])
        reshape.replace_input_with(0, shifted.outputs[0])
        node.outputs[0].replace_all_uses_with(reshape.outputs[0], replace_graph_outputs=False)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _reshape_before(node: ir.Node) -> tuple[ir.Node | None, int]:
    """The Reshape to [rows, channels] of a product's result that a batch norm alone reads, and the channels."""
    if node.op_type != "BatchNormalization" or not is_standard(node) or node.outputs[0].is_graph_output():
        return None, 0
    value = node.inputs[0]
    reshape = value.producer() if value is not None and only_use(value) else None
    if reshape is None or reshape.op_type != "Reshape" or not is_standard(reshape) or reshape.graph is not node.graph:
        return None, 0
    rows, before = extents(value), extents(reshape.inputs[0])
    given = reshape.inputs[0]
    if rows is None or before is None or given is None or len(rows) != 2 or not isinstance(rows[-1], int):
        return None, 0
    product = given.producer() if only_use(given) else None
    if before[-1] != rows[-1] or product is None or product.op_type not in ("MatMul", "Add"):
        return None, 0
    return reshape, rows[-1]
