"""Batch norms and the factors of Gemm move into the weights before them: `W' = W f`, `b' = (b - mean) f + beta`.

For a batch norm, `f = gamma / sqrt(variance + epsilon)` per output channel (Ioffe and Szegedy 2015, section 3.1),
computed in float64 and rounded to float32 once. A weight or bias that another node reads too is copied first.
"""

import numpy as np
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import bypass, constant, flag, set_weight


def fold_batch_norms(model: ir.Model) -> None:
    """Fold every BatchNormalization that alone reads the output of a layer, in place.

    Raises:
        ModelError: the folded weights are not finite (a negative variance, say).
    """
    graph = model.graph
    for norm in tuple(graph):
        if norm.op_type != "BatchNormalization" or norm.domain not in ("", "ai.onnx"):
            continue
        value = norm.inputs[0]
        parameters = [constant(parameter) for parameter in norm.inputs[1:5]]
        if value is None or any(p is None for p in parameters):
            continue
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        add = value.producer() if _only_use(value) else None
        if add is None:
            continue
        layer, bias_index = _layer_of(add)
        if layer is None or not gamma.shape == beta.shape == mean.shape == variance.shape:
            continue
        weight_value = layer.inputs[1]
        weight = constant(weight_value)
        if weight_value is None or weight is None:
            continue
        bias_value = add.inputs[bias_index] if len(add.inputs) > bias_index else None
        bias = constant(bias_value)
        factor = _factor(gamma, variance, norm.attributes.get_float("epsilon", 1e-5))
        scaled = _scale_channels(layer, weight, factor)
        if scaled is None or (bias_value is not None and not _is_bias(bias, len(gamma))):
            continue
        if layer.op_type == "MatMul" and (value.shape is None or len(value.shape) != 2):
            # A batch norm has its channels in axis 1, a matrix product in the last.
            continue
        old = np.zeros(len(gamma)) if bias is None else bias.astype(np.float64).ravel()
        shifted = (old - mean) * factor + beta
        with np.errstate(over="ignore", invalid="ignore"):
            new_weight, new_bias = scaled.astype(np.float32), shifted.astype(np.float32)
        if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
            raise ModelError(
                f"batch norm {norm.name!r} gives weights that are not finite when folded into {layer.name!r}.",
                remedy="Check its variance: it must not be negative. Train or export the model again.",
            )
        if not bypass(graph, norm, value):
            continue
        name = weight_value.name
        set_weight(graph, layer, 1, new_weight, wanted=f"{name}_folded")
        set_weight(graph, add, bias_index, new_bias, wanted=f"{name}_bias")


def fold_gemm_factors(model: ir.Model) -> None:
    """Give every Gemm with constant weights alpha = beta = 1 and one bias value per channel, in place."""
    graph = model.graph
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
        if bias_value is None or bias is None:
            continue
        vector = np.broadcast_to(bias.ravel(), (channels,)) if _is_bias(bias, channels) else bias
        if beta != 1.0 or vector.shape != bias.shape:
            _set_scaled(graph, node, 2, bias_value, vector, beta)
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _set_scaled(graph: ir.Graph, node: ir.Node, index: int, value: ir.Value, array: np.ndarray, factor: float) -> None:
    scaled = (array.astype(np.float64) * factor).astype(np.float32)
    set_weight(graph, node, index, scaled, wanted=f"{value.name}_scaled")


def _only_use(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_bias(array: np.ndarray | None, channels: int) -> bool:
    """One value per channel of the last axis, or one for all."""
    return array is not None and (array.size == 1 or (array.size == channels == array.shape[-1]))


def _layer_of(node: ir.Node) -> tuple[ir.Node | None, int]:
    """The layer that ends at `node` (itself, or a MatMul before an Add), and the index of the bias among its inputs."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return node, 2
    if node.op_type == "Gemm":
        plain = not flag(node, "transA")
        ones = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0
        return (node, 2) if plain and ones else (None, 0)
    if node.op_type == "Add":
        for index in (0, 1):
            value = node.inputs[index]
            before = value.producer() if value is not None and _only_use(value) else None
            if before is not None and before.op_type == "MatMul" and constant(node.inputs[1 - index]) is not None:
                return before, 1 - index
    return None, 0


def _factor(gamma: np.ndarray, variance: np.ndarray, epsilon: float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(gamma / np.sqrt(variance + epsilon))


def _scale_channels(layer: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray | None:
    """The weight with each output channel multiplied, in float64; None if the channels do not fit."""
    wide = weight.astype(np.float64)
    if layer.op_type == "ConvTranspose":
        groups = layer.attributes.get_int("group", 1)
        if weight.ndim < 3 or groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != len(factor):
            return None
        grouped = wide.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        by_channel = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return np.reshape(grouped * by_channel, weight.shape)
    axis = 0 if layer.op_type == "Conv" or flag(layer, "transB") else 1
    if weight.ndim < 2 or weight.shape[axis] != len(factor):
        return None
    by_channel = factor.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
    return np.asarray(wide * by_channel)
