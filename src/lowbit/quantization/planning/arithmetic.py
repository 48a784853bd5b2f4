"""Who reads each weight, and which nodes compute in integers by what the weights are asked to become."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.graph.weights import OtherWeight, all_weights, node_of
from lowbit.quantization.planning.integer import IntegerPlan, plan_integer
from lowbit.quantization.planning.tensors import TensorPlan, float_reason

WeightUsers = Mapping[str, Sequence[Layer | OtherWeight]]


def weight_users(model: Model) -> dict[str, list[Layer | OtherWeight]]:
    """By weight, the layers and others that read it."""
    users: dict[str, list[Layer | OtherWeight]] = {}
    for weight in all_weights(model):
        users.setdefault(weight.weight, []).append(weight)
    return users


def check_quantizable(model: Model, users: Mapping[str, object]) -> None:
    """Refuse a model that is quantized already, or has nothing to quantize.

    Raises:
        ModelError: it is so.
    """
    if model.quantized:
        raise ModelError(
            "the model is already quantized.",
            where=model.source,
            remedy="Use the float model that it was made from; `lowbit measure` takes quantized files.",
        )
    if not users:
        raise ModelError(
            "the model has no constant weights (of Conv, ConvTranspose, Gemm, MatMul, Einsum, Gather, LSTM, GRU, RNN).",
            where=model.source,
            remedy="Check that the weights are stored in the model and not fed as inputs.",
        )


def integer_plan(
    model: Model,
    tensors: Sequence[TensorPlan],
    users: WeightUsers,
    *,
    reasons: Mapping[str, str],
    optional: Collection[str],
) -> IntegerPlan:
    """Which nodes compute in integers.

    Layers stay float whose weight is not float32, shared along different axes or group counts, or not asked for in
    integers.

    Args:
        model: the prepared float model.
        tensors: what each weight gets.
        users: who reads it.
        reasons: why other nodes have to stay float, by name.
        optional: nodes that nobody asked to compute in integers.
    """
    stay = dict(reasons)
    unasked = set(optional)
    for tensor in tensors:
        reading = [user for user in users.get(tensor.tensor, ()) if isinstance(user, Layer)]
        reason = _layer_reason(model, tensor, reading) if tensor.integer else float_reason(tensor)
        if reason:
            stay |= {layer.node: stay.get(layer.node, reason) for layer in reading}
        nodes = {node_of(user) for user in users.get(tensor.tensor, ())}
        unasked = unasked - nodes if tensor.integer else unasked | nodes
    made = plan_integer(model, reasons=stay, optional=unasked)
    asked = {name for name, reason in reasons.items() if reason} | unasked
    return replace(
        made, nodes=tuple(replace(node, asked="float") if node.node in asked else node for node in made.nodes)
    )


def _layer_reason(model: Model, tensor: TensorPlan, reading: Sequence[Layer]) -> str:
    """Why no integer kernel takes a weight; empty if one does."""
    if str(model.weights[tensor.tensor].dtype) != "float32":
        return f"its weight is {model.weights[tensor.tensor].dtype}, not float32"
    if tensor.given is None:
        return tensor.reason
    if len({layer.channel_axis for layer in reading}) > 1:
        return "it shares its weight along a different axis"
    if reading and reading[0].op == "ConvTranspose" and len({layer.groups for layer in reading}) > 1:
        return "it shares its weight with a layer of other groups"
    return ""
