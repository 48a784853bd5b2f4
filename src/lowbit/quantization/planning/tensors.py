"""What each weight gets: the recipe's scheme, or another one with the reason; and why other tensors stay float."""

import math
from dataclasses import dataclass, replace

from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.quantization.planning.bits import schemes_by_size
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.planning.target import weights_for
from lowbit.schemes.codes import Scheme
from lowbit.schemes.linear import Linear

FLOAT_BYTES = 4  # per float32 value

SIZE_REASON = "bits cost least in small layers, and win as much there"
BATCH_NORM_REASON = "batch-norm statistics are never quantized"


@dataclass(frozen=True)
class TensorPlan:
    """What one initializer gets.

    Attributes:
        tensor: name of the initializer.
        layers: nodes that read it as their weight.
        shape: its shape.
        axis: dimension of its output channels; 0 if it is not a layer's weight.
        asked: scheme that the recipe asks for.
        given: scheme that it gets; None if it stays float.
        reason: why `given` differs from `asked`, or why a tensor that is not a layer's weight stays float.
        adapted: whether `given` differs for the target's sake, or for accuracy's, which is no downgrade; see
            `Plan.adaptations`.
    """

    tensor: str
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int
    asked: Scheme | None
    given: Scheme | None
    reason: str = ""
    adapted: bool = False

    @property
    def downgraded(self) -> bool:
        """Whether something was asked for and cannot be given."""
        return self.asked != self.given and not self.adapted


def weight_plan(model: Model, name: str, users: list[Layer], recipe: Recipe) -> TensorPlan:
    """What the weight `name` of some layers gets by the recipe alone."""
    shape = users[0].weight_shape
    axis = users[0].channel_axis
    nodes = tuple(layer.node for layer in users)
    asked = recipe.weights
    if asked is None:
        return TensorPlan(name, nodes, shape, axis, None, None)
    dtype = str(model.weights[name].dtype)
    if dtype != "float32":
        return TensorPlan(name, nodes, shape, axis, asked, None, f"is {dtype}, not float32")
    if any(layer.channel_axis != axis for layer in users):
        if asked.per != "tensor":
            given = asked.per_tensor()
            reason = "layers share it along different axes"
            return TensorPlan(name, nodes, shape, axis, asked, given, reason)
        axis = 0
    size = math.prod(shape)
    if not recipe.integer and (cost := asked.stored_bytes(shape, axis)) >= size * FLOAT_BYTES:
        reason = f"too small: {cost} bytes with scales or code book, {size * FLOAT_BYTES} as float32"
        return TensorPlan(name, nodes, shape, axis, asked, None, reason)
    return TensorPlan(name, nodes, shape, axis, asked, asked)


def wider_if_small(tensors: list[TensorPlan], recipe: Recipe) -> list[TensorPlan]:
    """With more bits in small weights, where the recipe has less than 8 and may spend some."""
    free = [at for at, tensor in enumerate(tensors) if tensor.given is not None and tensor.given == tensor.asked]
    if not free or recipe.bits >= recipe.widest or recipe.extra_bits <= 0:
        return tensors
    asked = [(tensor.given, tensor.shape, tensor.axis) for at in free if (tensor := tensors[at]).given is not None]
    float_bytes = None if recipe.integer else FLOAT_BYTES
    found = schemes_by_size(asked, recipe.extra_bits, widest=recipe.widest, float_bytes=float_bytes)
    changed = list(tensors)
    for at, scheme in zip(free, found, strict=True):
        if scheme != tensors[at].asked:
            changed[at] = replace(tensors[at], given=scheme, reason=SIZE_REASON, adapted=True)
    return changed


def other_tensors(model: Model, weights: set[str], model_layers: tuple[Layer, ...]) -> list[TensorPlan]:
    """Float tensors that are neither a layer's weight nor a bias: listed with the reason why they stay float."""
    biases = {layer.bias for layer in model_layers}
    plans = []
    for name, array in model.weights.items():
        if name in weights or name in biases or array.dtype.kind != "f" or array.size < 2:
            continue
        users = list(model.values[name].uses())
        if any(user.op_type == "BatchNormalization" for user, _ in users):
            reason = BATCH_NORM_REASON
        else:
            reason = "not a layer's weight; read by " + ", ".join(sorted({user.op_type for user, _ in users}))
        plans.append(TensorPlan(name, (), array.shape, 0, None, None, reason))
    return plans


def only_if_integer(tensor: TensorPlan, in_integers: frozenset[str]) -> TensorPlan:
    """Float where one of its layers computes in float: integer recipes write no weights that are decoded."""
    if tensor.given is None or all(node in in_integers for node in tensor.layers):
        return tensor
    return replace(tensor, given=None, reason="its layer computes in float")


def for_target(tensor: TensorPlan, by_weight: dict[str, list[Layer]], target: str) -> TensorPlan:
    """The widest weights that the target computes with exactly, in all layers that share the tensor."""
    for layer in by_weight.get(tensor.tensor, ()):
        if not isinstance(tensor.given, Linear):
            break
        given, reason = weights_for(target, tensor.given, layer)
        if reason:
            reason = f"{tensor.reason}; {reason}" if tensor.reason else reason
            tensor = replace(tensor, given=given, reason=reason, adapted=not tensor.downgraded)
    return tensor
