"""Batch norms move into the weights before them: `W' = W f`, `b' = (b - mean) f + beta`.

For a batch norm, `f = gamma / sqrt(variance + epsilon)` per output channel (Ioffe and Szegedy 2015, section 3.1),
computed in float64 and rounded to float32 once. Some exporters write it out as Sub, Mul and Add with constants, each of
which moves in the same way. A bias that another node reads too is copied first. A weight is not: where layers share it,
it changes only if the same is done behind all of them, so that the file does not grow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import bypass, constant, flag, is_standard, set_weight
from lowbit.graph.rewrites.products import is_bias, only_use

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """What a node does to each channel: `factor * (x - mean) + shift`, each an array as the node has it.

    Attributes:
        value: the tensor x.
        factor: multiplied with.
        mean: subtracted first.
        shift: added last.
    """

    value: ir.Value
    factor: Doubles
    mean: Doubles
    shift: Doubles


@dataclass(frozen=True)
class _Fold:
    """A node that can move into the layer before it.

    Attributes:
        node: the batch norm, or Mul, Div, Add or Sub.
        value: the output of the layer.
        layer: where the weight is.
        holder: where the bias is: the layer itself, or the Add behind a MatMul.
        bias_index: of the bias among the holder's inputs; None if it cannot have one.
        factor: multiplies the weight, [channels].
        bias: the new bias, [channels].
    """

    node: ir.Node
    value: ir.Value
    layer: ir.Node
    holder: ir.Node
    bias_index: int | None
    factor: Doubles
    bias: Doubles


def fold_batch_norms(model: ir.Model) -> bool:
    """Fold every BatchNormalization that alone reads the output of a layer, in place.

    Also one that is written out: Mul, Div, Add and Sub with a constant for each channel, one after the other.

    Raises:
        ModelError: the folded weights are not finite (a negative variance, say).
    """
    changed = False
    for node in tuple(model.graph):
        fold = _possible(node) if node.graph is model.graph else None
        if fold is not None:
            changed |= _apply(model.graph, [fold, *_twins(fold)])
    return changed


def _possible(node: ir.Node) -> _Fold | None:
    """How `node` moves into the layer that computes what it reads, if there is one and the channels fit."""
    affine = affine_of(node)
    if affine is None:
        return None
    value = affine.value
    holder = value.producer() if _only_values(value) else None
    layer, bias_index = _layer_of(holder) if holder is not None else (None, None)
    weight = constant(layer.inputs[1]) if layer is not None else None
    if holder is None or layer is None or weight is None or holder.graph is not node.graph:
        return None
    if weight.ndim < 2 or (layer.op_type == "MatMul" and weight.ndim != 2):
        return None
    channels, from_end = _channels(layer, weight), weight.ndim - 1 if "Conv" in layer.op_type else 1
    if node.op_type == "BatchNormalization":
        if layer.op_type == "MatMul" and (value.shape is None or len(value.shape) != 2):
            return None  # a batch norm has its channels in axis 1, a matrix product in the last
        rank, from_end = 1, 1  # its parameters are vectors of the channels
    else:
        rank = from_end + 1 if layer.op_type != "MatMul" else 1 if value.shape is None else len(value.shape)
    factor, mean, shift = (
        _by_channel(array, channels, rank, from_end) for array in (affine.factor, affine.mean, affine.shift)
    )
    has_bias = bias_index is not None and len(holder.inputs) > bias_index
    bias_value = holder.inputs[bias_index] if bias_index is not None and has_bias else None
    bias = constant(bias_value)
    if factor is None or mean is None or shift is None or (bias_value is not None and not is_bias(bias, channels)):
        return None
    old = np.zeros(channels) if bias is None else bias.astype(np.float64).ravel()
    with np.errstate(over="ignore", invalid="ignore"):  # `_apply` refuses what comes of it
        new = (old - mean) * factor + shift
    if bias_index is None and (new.any() or node.op_type in ("Add", "Sub")):
        return None
    return _Fold(node, value, layer, holder, bias_index, np.asarray(factor), np.asarray(new))


def _only_values(value: ir.Value) -> bool:
    """Whether one node reads a tensor, and others nothing but its shape, which folding leaves as it is."""
    readers = [user for user, _ in value.uses() if user.op_type != "Shape" or not is_standard(user)]
    return len(readers) == 1 and not value.is_graph_output()


def _twins(fold: _Fold) -> list[_Fold | None]:
    """What must be folded with it, for each other node that reads the weight; None where the same is not done."""
    shared = fold.layer.inputs[1]
    if shared is None or np.all(fold.factor == 1):
        return []
    twins: list[_Fold | None] = []
    for user, index in shared.uses():
        if user is fold.layer:
            twins += [] if index == 1 else [None]
            continue
        twin = _behind(user) if index == 1 and user.graph is fold.layer.graph else None
        alike = twin is not None and _kind(twin.layer) == _kind(fold.layer) and np.array_equal(twin.factor, fold.factor)
        twins.append(twin if alike else None)
    return twins


def _behind(layer: ir.Node) -> _Fold | None:
    """What can be folded into this layer."""
    end = layer
    for _ in range(2):  # a bias may be added first
        if len(end.outputs) != 1 or not only_use(end.outputs[0]):
            return None
        (end,) = end.outputs[0].consumers()
        fold = _possible(end)
        if fold is not None and fold.layer is layer:
            return fold
    return None


def _kind(layer: ir.Node) -> tuple[str, int, int]:
    """What decides where the output channels of a weight are."""
    return layer.op_type, layer.attributes.get_int("group", 1), layer.attributes.get_int("transB", 0)


def _apply(graph: ir.Graph, folds: Sequence[_Fold | None]) -> bool:
    """Move nodes that share a weight into their layers; False if that is not possible for one of them."""
    first = folds[0]
    weight_value = first.layer.inputs[1] if first is not None else None
    weight = constant(weight_value)
    if first is None or weight is None or weight_value is None or weight_value.is_graph_output() or None in folds:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = _scale_channels(first.layer, weight, first.factor)
        if scaled is None:
            return False
        new_weight = scaled.astype(np.float32)
        biases = [fold.bias.astype(np.float32) for fold in folds if fold is not None]
    if not all(np.isfinite(array).all() for array in (new_weight, *biases)):
        if first.node.op_type != "BatchNormalization":
            return False
        raise ModelError(
            f"batch norm {first.node.name!r} gives weights that are not finite when folded into {first.layer.name!r}.",
            remedy="Check its variance: it must not be negative. Train or export the model again.",
        )
    done = [fold for fold in folds if fold is not None and can_leave(fold.node)]
    if len(done) < len(folds):
        return False
    if np.any(first.factor != 1):
        weight_value.const_value = ir.tensor(np.asarray(new_weight, order="C"), name=weight_value.name)
    for fold, bias in zip(done, biases, strict=True):
        bypass(graph, fold.node, fold.value)
        has_bias = fold.bias_index is not None and len(fold.holder.inputs) > fold.bias_index
        if fold.bias_index is not None and (has_bias or fold.node.op_type not in ("Mul", "Div")):
            set_weight(graph, fold.holder, fold.bias_index, bias, wanted=f"{weight_value.name}_bias")
    return True


def can_leave(node: ir.Node) -> bool:
    """Whether `bypass` will do it: nothing but the first output is used."""
    return not any(other.uses() or other.is_graph_output() for other in node.outputs[1:])


def affine_of(node: ir.Node) -> Affine | None:
    """A batch norm, or arithmetic with a constant; None for other nodes."""
    if not is_standard(node) or node.op_type not in ("BatchNormalization", "Mul", "Div", "Add", "Sub"):
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "BatchNormalization":
        value, parameters = node.inputs[0], [constant(parameter) for parameter in node.inputs[1:5]]
        if value is None or any(p is None for p in parameters):
            return None
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        if not gamma.shape == beta.shape == mean.shape == variance.shape:
            return None
        return Affine(value, _factor(gamma, variance, node.attributes.get_float("epsilon", 1e-5)), mean, beta)
    arrays = [constant(value) for value in node.inputs]
    at = next((at for at, array in enumerate(arrays) if array is not None and array.dtype == np.float32), None)
    if at is None or (value := node.inputs[1 - at]) is None or arrays[1 - at] is not None:
        return None
    array = np.asarray(arrays[at], np.float64)
    if node.op_type == "Mul":
        return Affine(value, array, zero, zero)
    if node.op_type == "Add":
        return Affine(value, one, zero, array)
    if node.op_type == "Sub":
        return Affine(value, one, array, zero) if at == 1 else Affine(value, -one, zero, array)
    return Affine(value, 1 / array, zero, zero) if at == 1 and np.all(array != 0) else None


def _by_channel(array: Doubles, channels: int, rank: int, from_end: int) -> Doubles | None:
    """A constant that broadcasts over a tensor of `rank` axes as one value per channel [channels]; None if it is not.

    Args:
        from_end: how many axes from the end the channels are, 1 for the last.
    """
    shape = (1,) * max(0, from_end - array.ndim) + array.shape
    others = [extent for at, extent in enumerate(shape) if at != len(shape) - from_end]
    if len(shape) > max(rank, from_end) or any(extent != 1 for extent in others):
        return None
    return np.broadcast_to(array.ravel(), (channels,)) if array.size in (1, channels) else None


def _channels(layer: ir.Node, weight: np.ndarray) -> int:
    """Number of output channels."""
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * max(1, layer.attributes.get_int("group", 1))
    return int(weight.shape[0 if layer.op_type == "Conv" or flag(layer, "transB") else -1])


def _layer_of(node: ir.Node) -> tuple[ir.Node | None, int | None]:
    """The layer that ends at `node` (itself, or a MatMul before an Add), and the index of the bias among its inputs.

    A MatMul alone has no place for one.
    """
    if not is_standard(node):
        return None, None
    if node.op_type in ("Conv", "ConvTranspose"):
        return node, 2
    if node.op_type == "Gemm":
        plain = not flag(node, "transA")
        ones = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0
        return (node, 2) if plain and ones else (None, None)
    if node.op_type == "MatMul":
        return node, None
    if node.op_type == "Add":
        for index in (0, 1):
            value = node.inputs[index]
            before = value.producer() if value is not None and only_use(value) else None
            product = before is not None and before.op_type == "MatMul" and before.graph is node.graph
            if product and constant(node.inputs[1 - index]) is not None:
                return before, 1 - index
    return None, None


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
