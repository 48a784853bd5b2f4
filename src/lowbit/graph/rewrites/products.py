"""Products in the form that everything behind expects: no factors, and a bias that is added, one value per channel."""

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import bypass, constant, extents, flag, is_standard, set_weight


def write_biases(model: ir.Model) -> bool:
    """Let what is subtracted from the product of a MatMul be added, as biases are, in place."""
    changed = False
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Sub" and is_standard(node) else None
        product = value.producer() if value is not None and only_use(value) else None
        array = constant(node.inputs[1]) if product is not None and product.op_type == "MatMul" else None
        if array is not None and array.dtype == np.float32:
            subtracted = node.inputs[1]
            node.op_type = "Add"
            set_weight(model.graph, node, 1, -array, wanted=f"{subtracted.name if subtracted else ''}.negative")
            changed = True
    return changed


def write_gemms(model: ir.Model) -> bool:
    """Let the product of two matrices and the bias that is added to it be one Gemm, in place.

    Integer kernels add a Gemm's bias; an Add of its own would compute in float.
    """
    changed = False
    for node in tuple(model.graph):
        if node.op_type != "Add" or not is_standard(node):
            continue
        for product, bias in (tuple(node.inputs), tuple(node.inputs)[::-1]):
            gemm = _product_of_matrices(product)
            if product is not None and gemm is not None and _fits(bias, gemm) and bypass(model.graph, node, product):
                gemm.op_type = "Gemm"
                gemm.resize_inputs(3)
                gemm.replace_input_with(2, bias)
                changed = True
                break
    return changed


def _product_of_matrices(value: ir.Value | None) -> ir.Node | None:
    """The MatMul of two matrices, the second a constant, that makes a tensor with one reader."""
    node = value.producer() if value is not None and only_use(value) else None
    if node is None or node.op_type != "MatMul" or not is_standard(node):
        return None
    weight = constant(node.inputs[1])
    return node if weight is not None and weight.ndim == 2 and len(extents(node.inputs[0]) or ()) == 2 else None


def _fits(value: ir.Value | None, product: ir.Node) -> bool:
    """Whether a constant is a bias of a product, one row of float32 like its weight."""
    bias, weight = constant(value), constant(product.inputs[1])
    if bias is None or weight is None or not bias.dtype == weight.dtype == np.float32:
        return False
    return is_bias(bias, weight.shape[1]) and bias.ndim <= 2 and (bias.ndim < 2 or bias.shape[0] == 1)


def fold_gemm_factors(model: ir.Model) -> bool:
    """Give every Gemm with constant weights alpha = beta = 1 and one bias value per channel, in place."""
    graph = model.graph
    changed = False
    for node in tuple(graph):
        if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx") or flag(node, "transA"):
            continue
        weight_value = node.inputs[1]
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        weight, bias = constant(weight_value), constant(bias_value)
        if weight_value is None or weight is None or weight.ndim != 2 or (bias_value is not None and bias is None):
            continue
        channels = weight.shape[0 if flag(node, "transB") else 1]
        alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        if alpha != 1.0:
            _set_scaled(graph, node, 1, weight_value, weight, alpha)
            node.attributes["alpha"] = ir.AttrFloat32("alpha", 1.0)
            changed = True
        if bias_value is None or bias is None:
            continue
        vector = np.broadcast_to(bias.ravel(), (channels,)) if is_bias(bias, channels) else bias
        if beta != 1.0 or vector.shape != bias.shape:
            _set_scaled(graph, node, 2, bias_value, vector, beta)
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
            changed = True
    return changed


def _set_scaled(graph: ir.Graph, node: ir.Node, index: int, value: ir.Value, array: np.ndarray, factor: float) -> None:
    scaled = (array.astype(np.float64) * factor).astype(np.float32)
    set_weight(graph, node, index, scaled, wanted=f"{value.name}_scaled")


def only_use(value: ir.Value) -> bool:
    """Whether a tensor has one reader and does not leave the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def is_bias(array: np.ndarray | None, channels: int) -> bool:
    """One value per channel of the last axis, or one for all."""
    return array is not None and (array.size == 1 or (array.size == channels == array.shape[-1]))
