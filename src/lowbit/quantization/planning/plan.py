"""The plan: what will be done to each tensor and node, and why, as plain data made before any number is touched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lowbit.errors import DowngradeError, ModelError, SchemeError
from lowbit.formats.input_bytes import reads_bytes
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.integer import IntegerPlan, NodePlan, plan_integer
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.target import resolved, weights_for
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.schemes import scheme_from_json, scheme_to_json
from lowbit.schemes.codes import Scheme
from lowbit.schemes.linear import Linear

FLOAT_BYTES = 4

# Steps, in the order in which they are taken.
EXACT_INPUT = "input as image bytes"
EQUALIZATION = "equalization"
ROUNDING = "rounding and bias correction"
BIAS = "bias correction"
# What `--steps` calls them.
STEPS: dict[str, str] = {"exact-input": EXACT_INPUT, "equalization": EQUALIZATION, "rounding": ROUNDING, "bias": BIAS}
COARSE_BITS, FINE_BITS, FINEST_BITS = 4, 7, 8

BATCH_NORM_REASON = "batch-norm statistics are never quantized"


@dataclass(frozen=True)
class TensorPlan:
    """What becomes of one initializer.

    Attributes:
        tensor: name of the initializer.
        layers: nodes that read it as their weight.
        shape: its shape.
        axis: dimension of its output channels; 0 if it is not a layer's weight.
        asked: scheme that the recipe asks for.
        given: scheme that it gets; None if it stays float.
        reason: why `given` differs from `asked`; empty if it does not.
        adapted: whether it differs because the target computes otherwise: no downgrade, see `Plan.adaptations`.
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


@dataclass(frozen=True)
class Plan:
    """The complete decision for one model and one recipe.

    Attributes:
        recipe: what was asked.
        tensors: one for each weight, and for each other float tensor that someone may ask about.
        nodes: for integer recipes, how each node computes; empty otherwise.
        scale_groups: activation tensors that become uint8; those in one group share one scale.
        steps: what will be tried between plain encoding and the file; needs calibration images.
        effort: how long the steps may search; a row of `EFFORTS`.
        target: processor that integers are made for, a row of `TARGETS`; empty where nothing computes in integers.
    """

    recipe: Recipe
    tensors: tuple[TensorPlan, ...]
    nodes: tuple[NodePlan, ...] = ()
    scale_groups: tuple[tuple[str, ...], ...] = ()
    steps: tuple[str, ...] = ()
    effort: str = "balanced"
    target: str = ""

    @property
    def quantized(self) -> tuple[TensorPlan, ...]:
        """Tensors that get a scheme."""
        return tuple(tensor for tensor in self.tensors if tensor.given is not None)

    @property
    def downgrades(self) -> tuple[str, ...]:
        """One sentence for each thing that was asked for and is not given."""
        tensors = [f"{plan.tensor}: {plan.reason}" for plan in self.tensors if plan.downgraded]
        nodes = [
            f"{node.node} ({node.op}) computes in float: {node.reason}"
            for node in self.nodes
            if node.arithmetic == "float" and node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
        ]
        return tuple(tensors + nodes)

    @property
    def adaptations(self) -> tuple[str, ...]:
        """What differs from the recipe for the target's sake, in one sentence each.

        `--strict` accepts it: 8 bits could be written, but with them the target would compute something else than the
        file says; and whoever names a target (or a machine that is one) asks for exactly this.
        """
        changed = [tensor for tensor in self.tensors if tensor.adapted]
        weights = sum(1 for tensor in self.tensors if tensor.layers)
        reasons: dict[tuple[str, str], int] = {}
        for tensor in changed:
            key = (tensor.given.name if tensor.given else "float", tensor.reason)
            reasons[key] = reasons.get(key, 0) + 1
        return tuple(
            f"{count} of {weights} weights get {given} for target {self.target}: {reason}"
            for (given, reason), count in reasons.items()
        )

    def require_all(self) -> None:
        """Refuse any difference between asked and given (`--strict`).

        Raises:
            DowngradeError: names every difference.
        """
        if self.downgrades:
            raise DowngradeError(
                f"{len(self.downgrades)} of what '{self.recipe.name}' asks for cannot be given: "
                + "; ".join(self.downgrades)
                + ".",
                remedy="Leave --strict out to accept this, or choose another recipe.",
            )

    def to_json(self) -> dict[str, Any]:
        """The whole plan as plain data for `json.dumps`; `from_json` reads it back."""
        return {
            "recipe": asdict(self.recipe) | {"weights": _scheme_or_none(self.recipe.weights)},
            "tensors": [
                asdict(tensor) | {"asked": _scheme_or_none(tensor.asked), "given": _scheme_or_none(tensor.given)}
                for tensor in self.tensors
            ],
            "nodes": [asdict(node) for node in self.nodes],
            "scale_groups": [list(group) for group in self.scale_groups],
            "steps": list(self.steps),
            "effort": self.effort,
            "target": self.target,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` described.

        Raises:
            SchemeError: something is missing or of the wrong kind; `data` may come from a hostile file.
        """
        try:
            recipe = Recipe(**data["recipe"] | {"weights": _read_scheme(data["recipe"]["weights"])})
            tensors = tuple(
                TensorPlan(
                    **tensor
                    | {"layers": tuple(tensor["layers"]), "shape": tuple(tensor["shape"])}
                    | {"asked": _read_scheme(tensor["asked"]), "given": _read_scheme(tensor["given"])}
                )
                for tensor in data["tensors"]
            )
            nodes = tuple(NodePlan(**node) for node in data["nodes"])
            groups = tuple(tuple(group) for group in data["scale_groups"])
            return Plan(recipe, tensors, nodes, groups, tuple(data["steps"]), data["effort"], data["target"])
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemeError(
                f"this is no plan: {type(error).__name__} {error}.", remedy="Give what `lowbit plan --json` printed."
            ) from error


def plan(
    model: Model,
    recipe: str | Recipe,
    *,
    effort: str = "balanced",
    steps: Sequence[str] | None = None,
    with_images: bool = True,
) -> Plan:
    """Decide what each tensor and node gets.

    Args:
        model: the prepared float model.
        recipe: a recipe or its name.
        effort: how long the steps may search.
        steps: rows of `STEPS` that will be tried; None leaves the choice to recipe and effort.
        with_images: whether there will be calibration images; without them weights are encoded plainly.

    Raises:
        SchemeError: no such recipe, effort or step, or a step that the recipe has no use for.
        ModelError: no layer of the model can be quantized, or the model is quantized already.
    """
    recipe = parse_recipe(recipe)
    if effort not in EFFORTS:
        raise SchemeError(f"no effort is called '{effort}'.", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    if model.quantized and recipe.weights is not None:
        raise ModelError(
            "the model is quantized already.",
            where=model.source,
            remedy="Give the float model it was made from; `lowbit measure` takes quantized files.",
        )
    found = layers(model)
    if recipe.weights is not None and not found:
        raise ModelError(
            "no layer with constant weights (Conv, ConvTranspose, Gemm, MatMul) was found.",
            where=model.source,
            remedy="Check that the weights are in the file and not fed as inputs.",
        )
    by_weight: dict[str, list[Layer]] = {}
    for layer in found:
        by_weight.setdefault(layer.weight, []).append(layer)
    tensors = [_weight_plan(model, name, users, recipe) for name, users in by_weight.items()]
    tensors += _others(model, set(by_weight), found)
    wanted = _steps(recipe, effort) if steps is None else _named_steps(recipe, steps)
    taken = wanted if with_images else ()
    if not recipe.integer:
        return Plan(recipe, tuple(tensors), steps=taken, effort=effort)
    target = resolved(recipe.target)
    integer = _integer_plan(model, by_weight)
    running = integer.named("integer")
    if not reads_bytes(model, running):
        taken = tuple(step for step in taken if step != EXACT_INPUT)
    tensors = [_for_target(_only_if_integer(tensor, running), by_weight, target) for tensor in tensors]
    return Plan(recipe, tuple(tensors), integer.nodes, integer.scale_groups, taken, effort, target)


def _scheme_or_none(scheme: Scheme | None) -> dict[str, Any] | None:
    return None if scheme is None else scheme_to_json(scheme)


def _read_scheme(data: Mapping[str, Any] | None) -> Scheme | None:
    return None if data is None else scheme_from_json(data)


def _steps(recipe: Recipe, effort: str) -> tuple[str, ...]:
    """What pays: with weights of 8 bits rounding to nearest leaves nothing to see (KL around 1e-5)."""
    if recipe.weights is None:
        return ()
    if recipe.integer:
        # Narrow weights of the layer that reads the image are worth more than its input's last bit: they are rounded
        # on what it computes, which those in units of bytes are not.
        exact = (EXACT_INPUT,) if recipe.bits >= FINE_BITS else ()
        # Per tensor one layer of channels of very different scale costs everything.
        tied = recipe.weights.per == "tensor"
        if effort == "fast":
            return (*exact, EQUALIZATION, BIAS) if tied else (*exact, BIAS)
        # What rounding wins with 8 bits and a scale a channel are the biases: KL on images never seen, with it and with
        # biases alone, 0.0027 and 0.0026 (ResNet20), 0.00045 and 0.00044 (a MobileNetV1), for a third of the time.
        if effort == "balanced" and not tied and recipe.bits > FINE_BITS:
            return (*exact, EQUALIZATION, BIAS)
        return (*exact, EQUALIZATION, ROUNDING)
    if recipe.bits <= COARSE_BITS:
        return (EQUALIZATION, ROUNDING)
    return (ROUNDING,) if recipe.bits <= (FINEST_BITS if effort == "best" else FINE_BITS) else ()


def _named_steps(recipe: Recipe, names: Sequence[str]) -> tuple[str, ...]:
    """The steps that were asked for, in the order in which they are taken."""
    for name in names:
        if name not in STEPS:
            raise SchemeError(f"no step is called '{name}'.", remedy=f"Choose among: {', '.join(STEPS)}, or none.")
        if recipe.weights is None or (STEPS[name] == EXACT_INPUT and not recipe.integer):
            raise SchemeError(
                f"recipe '{recipe.name}' has no use for step '{name}'.",
                remedy="Leave it out." if recipe.weights is not None else "Leave steps out.",
            )
    return tuple(step for name, step in STEPS.items() if name in names)


def _weight_plan(model: Model, name: str, users: list[Layer], recipe: Recipe) -> TensorPlan:
    shape = users[0].weight_shape
    axis = users[0].channel_axis
    nodes = tuple(layer.node for layer in users)
    asked = recipe.weights
    if asked is None:
        return TensorPlan(name, nodes, shape, axis, None, None)
    dtype = str(model.weights[name].dtype)
    if dtype != "float32":
        return TensorPlan(name, nodes, shape, axis, asked, None, f"holds {dtype}, not float32")
    if any(layer.channel_axis != axis for layer in users):
        if asked.per != "tensor":
            given = asked.per_tensor()
            return TensorPlan(name, nodes, shape, axis, asked, given, "layers share it along different axes")
        axis = 0
    size = math.prod(shape)
    if not recipe.integer and (cost := asked.stored_bytes(shape, axis)) >= size * FLOAT_BYTES:
        reason = f"tiny: {cost} bytes encoded with scales or code book, {size * FLOAT_BYTES} as float"
        return TensorPlan(name, nodes, shape, axis, asked, None, reason)
    return TensorPlan(name, nodes, shape, axis, asked, asked)


def _others(model: Model, weights: set[str], found: tuple[Layer, ...]) -> list[TensorPlan]:
    """Float tensors that are no layer's weight and no bias: named, so that nobody wonders."""
    biases = {layer.bias for layer in found}
    plans = []
    for name, array in model.weights.items():
        if name in weights or name in biases or array.dtype.kind != "f" or array.size < 2:
            continue
        users = list(model.values[name].uses())
        if any(user.op_type == "BatchNormalization" for user, _ in users):
            reason = BATCH_NORM_REASON
        else:
            reason = "not the weight of a layer, read by " + ", ".join(sorted({user.op_type for user, _ in users}))
        plans.append(TensorPlan(name, (), array.shape, 0, None, None, reason))
    return plans


def _integer_plan(model: Model, by_weight: dict[str, list[Layer]]) -> IntegerPlan:
    """A weight shared along different axes or with groups, or not float32, keeps its layers out of integers."""
    reasons: dict[str, str] = {}
    for name, users in by_weight.items():
        if str(model.weights[name].dtype) != "float32":
            reasons |= {layer.node: f"its weight holds {model.weights[name].dtype}" for layer in users}
        elif len({layer.channel_axis for layer in users}) > 1:
            reasons |= {layer.node: "shares its weight along another axis" for layer in users}
        elif users[0].op == "ConvTranspose" and len({layer.groups for layer in users}) > 1:
            reasons |= {layer.node: "shares its weight with one in groups" for layer in users}
    return plan_integer(model, layer_reasons=reasons)


def _only_if_integer(tensor: TensorPlan, running: frozenset[str]) -> TensorPlan:
    if tensor.given is None or all(node in running for node in tensor.layers):
        return tensor
    return replace(tensor, given=None, reason="its layer does not run in integers")


def _for_target(tensor: TensorPlan, by_weight: dict[str, list[Layer]], target: str) -> TensorPlan:
    """The widest weights that the target computes with exactly; a shared tensor gets what all its layers can take."""
    for layer in by_weight.get(tensor.tensor, ()):
        if not isinstance(tensor.given, Linear):
            break
        given, reason = weights_for(target, tensor.given, layer)
        if reason:
            reason = f"{tensor.reason}; {reason}" if tensor.reason else reason
            tensor = replace(tensor, given=given, reason=reason, adapted=not tensor.downgraded)
    return tensor
