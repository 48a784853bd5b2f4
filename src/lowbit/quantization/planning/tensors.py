"""What each weight gets: the recipe's scheme, or another one with the reason; and why other tensors stay float."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lowbit.formats.onnx.decode_nodes import integer_bytes
from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers
from lowbit.graph.weights import BIAS_INPUTS, OtherWeight, is_factor
from lowbit.quantization.planning.bits import schemes_by_size, stored_bytes
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.planning.rules import Choice, Choices
from lowbit.quantization.planning.target import weights_for
from lowbit.schemes.codes import Scheme
from lowbit.schemes.half import Half
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear

FLOAT_BYTES = 4  # per float32 value
# Float tensors of more values are named, whatever they are; what fails `--strict` is not one value per channel.
MANY_VALUES = 1000

SIZE_REASON = "bits cost least in small layers, and win as much there"
SHARED_REASON = "layers share it along different axes"
DECODED_REASON = "its layer computes in float: only the weights are codes"
BATCH_NORM_REASON = "batch-norm statistics are never quantized"


@dataclass(frozen=True)
class TensorPlan:
    """What one initializer gets.

    Attributes:
        tensor: name of the initializer.
        layers: nodes that read it as their weight; recurrent ones with ".W" or ".R" behind their name.
        shape: its shape.
        axis: dimension of its output channels; 0 if it is no weight.
        asked: scheme that the recipe asks for, or the rule that speaks of the tensor.
        given: scheme that it gets; None if it stays float.
        reason: why `given` differs from `asked`, why a tensor that is no weight stays float, or why the codes of a
            weight are not chosen on data.
        adapted: whether `given` differs for the target's sake, or for accuracy's, which is no downgrade; see
            `Plan.adaptations`.
        share: of the bytes of all float constants of the model.
        recipe: name of the recipe that asks; empty where nothing is asked for.
        integer: whether that recipe computes in integers.
        rule: the text of the rule that named the recipe; empty for that of the whole model.
    """

    tensor: str
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int
    asked: Scheme | None
    given: Scheme | None
    reason: str = ""
    adapted: bool = False
    share: float = 0.0
    recipe: str = ""
    integer: bool = False
    rule: str = ""

    @property
    def downgraded(self) -> bool:
        """Whether something was asked for and cannot be given."""
        return self.asked != self.given and not self.adapted


def weight_plan(model: Model, name: str, users: Sequence[Layer | OtherWeight], choice: Choice) -> TensorPlan:
    """What the weight `name` of some nodes gets by its recipe alone."""
    axis = users[0].channel_axis
    nodes = tuple(dict.fromkeys(user.node for user in users))
    plan = _asked(TensorPlan(name, nodes, users[0].weight_shape, axis, None, None, rule=choice.rule), choice.recipe)
    asked = plan.asked
    if asked is None:
        return plan
    if reason := unsuited(model, name):
        return replace(plan, reason=reason)
    if isinstance(asked, Half) and not asked.holds(model.weights[name]):
        return replace(plan, reason=f"some of its values are out of reach of {asked.name}")
    if any(user.channel_axis != axis for user in users):
        if asked.per != "tensor":
            return replace(plan, given=asked.per_tensor(), reason=SHARED_REASON)
        plan = replace(plan, axis=0)
    if not plan.integer and (reason := too_small(asked, plan.shape, plan.axis)):
        return replace(plan, reason=reason)
    others = [user.reason for user in users if isinstance(user, OtherWeight)]
    plainly = f"rounded to the closest codes, without data: {others[0]}" if len(others) == len(users) else ""
    return replace(plan, given=asked, reason=plainly)


def _asked(plan: TensorPlan, recipe: Recipe) -> TensorPlan:
    """With what a recipe asks for."""
    if recipe.weights is None:
        return plan
    return replace(plan, asked=recipe.weights, recipe=recipe.name, integer=recipe.integer)


def unsuited(model: Model, name: str) -> str:
    """Why a tensor cannot become codes; empty if it can."""
    array = model.weights[name]
    if array.dtype != np.float32:
        return f"is {array.dtype}, not float32"
    return "" if np.isfinite(array).all() else "some of its values are not finite"


def too_small(scheme: Scheme, shape: tuple[int, ...], axis: int) -> str:
    """Why packed codes would take no less than float32; empty if they do."""
    cost, size = scheme.stored_bytes(shape, axis), math.prod(shape)
    if cost < size * FLOAT_BYTES:
        return ""
    return f"too small: {cost:,} bytes with scales or code book, {size * FLOAT_BYTES:,} as float32"


def wider_if_small(tensors: list[TensorPlan], recipe: Recipe) -> list[TensorPlan]:
    """With more bits in small weights, where the recipe has less than 8 and may spend some.

    What a rule speaks of stays as it is, and nothing is spent on its account.
    """
    free = [
        at
        for at, tensor in enumerate(tensors)
        if tensor.given is not None and tensor.given == tensor.asked and not tensor.rule
    ]
    if not free or recipe.bits >= recipe.widest or recipe.extra_bits <= 0:
        return tensors
    asked = [(tensor.given, tensor.shape, tensor.axis) for at in free if (tensor := tensors[at]).given is not None]
    float_bytes = None if recipe.integer else FLOAT_BYTES
    cost = _integer_bytes if recipe.integer else stored_bytes
    found = schemes_by_size(asked, recipe.extra_bits, widest=recipe.widest, float_bytes=float_bytes, cost=cost)
    changed = list(tensors)
    for at, scheme in zip(free, found, strict=True):
        if scheme != tensors[at].asked:
            changed[at] = replace(tensors[at], given=scheme, reason=SIZE_REASON, adapted=True)
    return changed


def extra_bits_spent(tensors: Sequence[TensorPlan], recipe: Recipe) -> float:
    """Bits per weight that wider schemes in small weights take, over all weights that they could have gone to."""
    weights = [tensor for tensor in tensors if tensor.given is not None and not tensor.rule]
    free = [tensor for tensor in weights if tensor.given == tensor.asked or tensor.reason == SIZE_REASON]
    cost = _integer_bytes if recipe.integer else stored_bytes
    taken = sum(
        cost(tensor.given, tensor.shape, tensor.axis) - cost(tensor.asked, tensor.shape, tensor.axis)
        for tensor in free
        if tensor.given is not None and tensor.asked is not None
    )
    return 8 * taken / max(1, sum(math.prod(tensor.shape) for tensor in free))


def _integer_bytes(scheme: Scheme, shape: tuple[int, ...], axis: int) -> int:
    """In front of an integer kernel; scales take the same whatever the width."""
    return integer_bytes(scheme, math.prod(shape))


def other_tensors(model: Model, planned: Mapping[str, object], choices: Choices) -> list[TensorPlan]:
    """Float tensors that are no weights: listed with the reason why they stay float.

    Biases of fewer than `MANY_VALUES` values are left out: every layer has one. What holds more values than that, and
    more than one per channel, was asked for.
    """
    biases = {layer.bias for layer in layers(model)}
    plans = []
    for name, array in model.weights.items():
        if name in planned or array.dtype.kind != "f" or array.size < 2:
            continue
        uses = list(model.values[name].uses())
        bias = name in biases or all(index == BIAS_INPUTS.get(user.op_type) for user, index in uses)
        if bias and array.size <= MANY_VALUES:
            continue
        if any(user.op_type == "BatchNormalization" for user, _ in uses):
            reason = BATCH_NORM_REASON
        elif bias:
            reason = "biases are no weights"
        else:
            reason = _no_weight(uses)
        per_channel = bias or max(array.shape, default=1) == array.size
        choice = choices.of(name)
        plan = TensorPlan(name, (), array.shape, 0, None, None, reason, rule=choice.rule)
        if array.size > MANY_VALUES and not per_channel:
            plan = _asked(plan, choice.recipe)
        # Half precision asks of a tensor nothing but its reach.
        if isinstance(plan.asked, Half) and reason != BATCH_NORM_REASON and plan.asked.holds(array):
            plan = replace(plan, given=plan.asked, reason="")
        plans.append(plan)
    return plans


def _no_weight(uses: Sequence[tuple[Node, int]]) -> str:
    if any(user.op_type == "Gather" and index == 0 and is_factor(user.outputs[0]) for user, index in uses):
        return "no weight: activations are multiplied with what is looked up in it, such as sines of positions"
    return "no weight; read by " + ", ".join(sorted({user.op_type for user, _ in uses}))


def with_shares(model: Model, tensors: list[TensorPlan]) -> list[TensorPlan]:
    """With the share that each has in the bytes of all float constants."""
    floats = {name: array.nbytes for name, array in model.weights.items() if array.dtype.kind == "f"}
    total = max(1, sum(floats.values()))
    return [replace(tensor, share=floats.get(tensor.tensor, 0) / total) for tensor in tensors]


def float_reason(tensor: TensorPlan) -> str:
    """Why layers of a weight compute in float that nobody asked to compute in integers."""
    return f"rule {tensor.rule}" if tensor.rule else f"recipe {tensor.recipe or 'float'} computes in float"


def weights_alone(tensor: TensorPlan, in_integers: frozenset[str]) -> TensorPlan:
    """With what is said of an integer recipe's weight that a node reads which computes in float.

    Its codes are decoded when the file is loaded, so that at least the file shrinks; else it stays float.
    """
    if tensor.given is None or not tensor.integer or any(node in in_integers for node in tensor.layers):
        return tensor
    reason = too_small(tensor.given, tensor.shape, tensor.axis)
    if reason:
        return replace(tensor, given=None, reason=reason)
    return replace(tensor, reason=tensor.reason or DECODED_REASON)


def for_target(
    tensor: TensorPlan, by_weight: Mapping[str, Sequence[Layer]], target: str, in_integers: frozenset[str]
) -> TensorPlan:
    """The widest weights that the target computes with exactly, in all integer layers that share the tensor."""
    for layer in by_weight.get(tensor.tensor, ()):
        if not isinstance(tensor.given, Linear | IntegerClusters) or layer.node not in in_integers:
            continue
        given, reason = weights_for(target, tensor.given, layer)
        if reason:
            reason = f"{tensor.reason}; {reason}" if tensor.reason else reason
            tensor = replace(tensor, given=given, reason=reason, adapted=not tensor.downgraded)
    return tensor
