"""The plan: what will be done to each tensor and node, and why, as plain data made before any number is touched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lowbit.errors import DowngradeError, ModelError, SchemeError
from lowbit.formats.input_bytes import reads_bytes
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.bits import schemes_by_size
from lowbit.quantization.planning.integer import WEIGHTED, IntegerPlan, NodePlan, plan_integer
from lowbit.quantization.planning.recipes import AUTO_RANGES, FIRST_RANGES, Recipe, parse_recipe
from lowbit.quantization.planning.steps import EXACT_INPUT, default_steps, named_steps
from lowbit.quantization.planning.target import resolved, weights_for
from lowbit.quantization.solving.effort import effort_called
from lowbit.quantization.solving.schemes import scheme_from_json, scheme_to_json
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


@dataclass(frozen=True)
class Plan:
    """The complete decision for one model and one recipe.

    Attributes:
        recipe: what was asked for.
        tensors: one per weight, and one per other float tensor that has a reason to stay float.
        nodes: for integer recipes, how each node computes; empty otherwise.
        scale_groups: activations that become uint8; those in one group share scale and zero point.
        steps: what will be tried between plain codes and the file, in order; empty without calibration images.
        effort: how long the steps may search, a row of `EFFORTS`.
        target: processor that an integer file is made for, a row of `TARGETS`; empty for other recipes.
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
    def range_rule(self) -> str:
        """The row of `RANGE_RULES` that ranges of activations follow, or begin with where the best is to be found."""
        return FIRST_RANGES if self.recipe.ranges == AUTO_RANGES else self.recipe.ranges

    @property
    def downgrades(self) -> tuple[str, ...]:
        """One sentence per weight or node that does not get what the recipe asks for."""
        tensors = [f"{plan.tensor}: {plan.reason}" for plan in self.tensors if plan.downgraded]
        nodes = [
            f"{node.node} ({node.op}) computes in float: {node.reason}"
            for node in self.nodes
            if node.arithmetic == "float" and node.op in WEIGHTED | {"Add"}
        ]
        return tuple(tensors + nodes)

    @property
    def adaptations(self) -> tuple[str, ...]:
        """What differs from the recipe by a rule of lowbit's, in one sentence each.

        `--strict` accepts them. Wider weights in small layers are more than was asked for. For a target 8 bits could be
        written, but it would not compute what the file says; naming a target (or being on one) asks for exactly this.
        """
        sentences = []
        weights = [tensor for tensor in self.quantized if tensor.layers]
        wider = {tensor.given.bits for tensor in weights if tensor.given and tensor.reason == SIZE_REASON}
        if wider:
            count = sum(tensor.reason == SIZE_REASON for tensor in weights)
            sizes = [math.prod(tensor.shape) for tensor in weights]
            bits = sum(size * tensor.given.bits for size, tensor in zip(sizes, weights, strict=True) if tensor.given)
            each = f"{min(wider)} to {max(wider)}" if len(wider) > 1 else f"{max(wider)}"
            mean = f"{bits / sum(sizes):.2f} per weight in all"
            sentences.append(f"{count} of {len(weights)} weights get {each} bits, {mean}: {SIZE_REASON}")
        for_target: dict[tuple[str, str], int] = {}
        for tensor in weights:
            if tensor.given is not None and tensor.adapted and tensor.reason != SIZE_REASON:
                key = (tensor.given.name, tensor.reason)
                for_target[key] = for_target.get(key, 0) + 1
        sentences += [
            f"{count} of {len(weights)} weights get {given} for target {self.target}: {reason}"
            for (given, reason), count in for_target.items()
        ]
        return tuple(sentences)

    def require_all(self) -> None:
        """Refuse a plan with downgrades (`--strict`).

        Raises:
            DowngradeError: there are some; it names each.
        """
        if self.downgrades:
            raise DowngradeError(
                f"recipe '{self.recipe.name}' cannot be applied everywhere; {len(self.downgrades)} "
                f"{'exception' if len(self.downgrades) == 1 else 'exceptions'}: {'; '.join(self.downgrades)}.",
                remedy="Omit --strict to accept this, or choose another recipe.",
            )

    def to_json(self) -> dict[str, Any]:
        """The complete plan as plain data for `json.dumps`; `from_json` reads it back."""
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
        """The plan that `to_json` wrote.

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
                f"not a valid plan: {type(error).__name__}: {error}.", remedy="Use the output of `lowbit plan --json`."
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
        effort: how long the steps may search, a row of `EFFORTS`.
        steps: the steps to try, keys of `STEP_NAMES` in any order; None leaves the choice to recipe and effort.
        with_images: whether there will be calibration images; without them no steps are taken.

    Raises:
        SchemeError: no such recipe, effort or step, or a step that the recipe does not use.
        ModelError: the model has no layer that can be quantized, or is already quantized.
    """
    recipe = parse_recipe(recipe)
    effort_called(effort)
    if model.quantized and recipe.weights is not None:
        raise ModelError(
            "the model is already quantized.",
            where=model.source,
            remedy="Use the float model that it was made from; `lowbit measure` takes quantized files.",
        )
    model_layers = layers(model)
    if recipe.weights is not None and not model_layers:
        raise ModelError(
            "the model has no layer with constant weights (Conv, ConvTranspose, Gemm, MatMul).",
            where=model.source,
            remedy="Check that the weights are stored in the model and not fed as inputs.",
        )
    by_weight: dict[str, list[Layer]] = {}
    for layer in model_layers:
        by_weight.setdefault(layer.weight, []).append(layer)
    tensors = [_weight_plan(model, name, users, recipe) for name, users in by_weight.items()]
    tensors += _other_tensors(model, set(by_weight), model_layers)
    planned_steps = default_steps(recipe, effort) if steps is None else named_steps(recipe, steps)
    if not with_images:
        planned_steps = ()
    if not recipe.integer:
        tensors = _wider_if_small(tensors, recipe)
        return Plan(recipe, tuple(tensors), steps=planned_steps, effort=effort)
    target = resolved(recipe.target)
    integer = _integer_plan(model, by_weight)
    in_integers = integer.nodes_in("integer")
    if not reads_bytes(model, in_integers):
        planned_steps = tuple(step for step in planned_steps if step != EXACT_INPUT)
    tensors = _wider_if_small([_only_if_integer(tensor, in_integers) for tensor in tensors], recipe)
    tensors = [_for_target(tensor, by_weight, target) for tensor in tensors]
    return Plan(recipe, tuple(tensors), integer.nodes, integer.scale_groups, planned_steps, effort, target)


def _scheme_or_none(scheme: Scheme | None) -> dict[str, Any] | None:
    return None if scheme is None else scheme_to_json(scheme)


def _read_scheme(data: Mapping[str, Any] | None) -> Scheme | None:
    return None if data is None else scheme_from_json(data)


def _weight_plan(model: Model, name: str, users: list[Layer], recipe: Recipe) -> TensorPlan:
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


def _wider_if_small(tensors: list[TensorPlan], recipe: Recipe) -> list[TensorPlan]:
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


def _other_tensors(model: Model, weights: set[str], model_layers: tuple[Layer, ...]) -> list[TensorPlan]:
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


def _integer_plan(model: Model, by_weight: dict[str, list[Layer]]) -> IntegerPlan:
    """Layers whose weight is not float32, or shared along different axes or group counts, stay float."""
    reasons: dict[str, str] = {}
    for name, users in by_weight.items():
        if str(model.weights[name].dtype) != "float32":
            reasons |= {layer.node: f"its weight is {model.weights[name].dtype}, not float32" for layer in users}
        elif len({layer.channel_axis for layer in users}) > 1:
            reasons |= {layer.node: "it shares its weight along a different axis" for layer in users}
        elif users[0].op == "ConvTranspose" and len({layer.groups for layer in users}) > 1:
            reasons |= {layer.node: "it shares its weight with a layer of other groups" for layer in users}
    return plan_integer(model, layer_reasons=reasons)


def _only_if_integer(tensor: TensorPlan, in_integers: frozenset[str]) -> TensorPlan:
    """Float where one of its layers computes in float: integer recipes write no weights that are decoded."""
    if tensor.given is None or all(node in in_integers for node in tensor.layers):
        return tensor
    return replace(tensor, given=None, reason="its layer computes in float")


def _for_target(tensor: TensorPlan, by_weight: dict[str, list[Layer]], target: str) -> TensorPlan:
    """The widest weights that the target computes with exactly, in all layers that share the tensor."""
    for layer in by_weight.get(tensor.tensor, ()):
        if not isinstance(tensor.given, Linear):
            break
        given, reason = weights_for(target, tensor.given, layer)
        if reason:
            reason = f"{tensor.reason}; {reason}" if tensor.reason else reason
            tensor = replace(tensor, given=given, reason=reason, adapted=not tensor.downgraded)
    return tensor
