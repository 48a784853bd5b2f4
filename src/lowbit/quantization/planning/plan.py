"""The plan: what will be done to each tensor and node, and why, as plain data made before any number is touched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lowbit.errors import DowngradeError, ModelError, SchemeError
from lowbit.formats.devices import DEVICES
from lowbit.formats.input_bytes import reads_bytes
from lowbit.formats.quantized_graph import UINT8, ActivationKind
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.graph.weights import RECURRENT, OtherWeight, all_weights
from lowbit.quantization.planning.integer import IntegerPlan, NodePlan, plan_integer
from lowbit.quantization.planning.kernels import WEIGHTED
from lowbit.quantization.planning.limits import limits
from lowbit.quantization.planning.recipes import AUTO_RANGES, FIRST_RANGES, Recipe, parse_recipe
from lowbit.quantization.planning.steps import EXACT_INPUT, default_steps, named_steps
from lowbit.quantization.planning.target import activations_for, resolved
from lowbit.quantization.planning.tensors import (
    SIZE_REASON,
    TensorPlan,
    for_target,
    other_tensors,
    weight_plan,
    weights_alone,
    wider_if_small,
    with_shares,
)
from lowbit.quantization.solving.effort import effort_called
from lowbit.quantization.solving.schemes import scheme_from_json, scheme_to_json
from lowbit.schemes.codes import Scheme

WORTH_SAYING = 0.01  # share of the weights' bytes whose staying float is said first of all


@dataclass(frozen=True)
class Plan:
    """The complete decision for one model and one recipe.

    Attributes:
        recipe: what was asked for.
        tensors: one per weight, and one per other float tensor, with the reason why it stays float.
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
    def activations(self) -> ActivationKind:
        """How activations of an integer recipe are held."""
        return activations_for(self.target, self.recipe.activations) if self.target else self.recipe.activations

    @property
    def dynamic(self) -> frozenset[str]:
        """Names of the nodes whose inputs become codes as they run, where there is a fast kernel for it."""
        if not self.recipe.dynamic:
            return frozenset()
        given = [tensor for tensor in self.quantized if tensor.given is not None and tensor.given.per != "group"]
        return frozenset(node for tensor in given for node in tensor.layers)

    @property
    def as_planned(self) -> bool:
        """Whether the file is for a device's compiler, or of codes that CPUs have no kernels for."""
        return self.target in DEVICES or (self.recipe.integer and self.activations != UINT8)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the recipe cannot give, and where, in one sentence each."""
        return limits(self.recipe, self.target)

    @property
    def range_rule(self) -> str:
        """The row of `RANGE_RULES` that ranges of activations follow, or begin with where the best is to be found."""
        return FIRST_RANGES if self.recipe.ranges == AUTO_RANGES else self.recipe.ranges

    @property
    def downgrades(self) -> tuple[str, ...]:
        """One sentence per weight or node that does not get what the recipe asks for."""
        tensors = [_downgrade(plan) for plan in self.tensors if plan.downgraded]
        nodes = [
            f"{node.node} ({node.op}) computes in float: {node.reason}"
            for node in self.nodes
            if node.arithmetic == "float" and node.op in WEIGHTED | RECURRENT.keys() | {"Add", "Einsum"}
        ]
        return tuple(tensors + nodes)

    @property
    def float_share(self) -> float:
        """Share of the bytes of all float constants that were to become codes and stay float."""
        return sum(tensor.share for tensor in self.tensors if tensor.downgraded and tensor.given is None)

    @property
    def shortfall(self) -> str:
        """That the weights shrink by less than was asked for, and why; empty if they do not."""
        left = [tensor for tensor in self.tensors if tensor.downgraded and tensor.given is None]
        if self.float_share < WORTH_SAYING:
            return ""
        largest = max(left, key=lambda tensor: tensor.share)
        return f"less than asked: {_share(self.float_share)} of the weights' bytes stay float, {largest.tensor} first"

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
            held = {"activations": ActivationKind(**data["recipe"]["activations"])}
            recipe = Recipe(**data["recipe"] | held | {"weights": _read_scheme(data["recipe"]["weights"])})
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
    weights = all_weights(model)
    if recipe.weights is not None and not weights:
        raise ModelError(
            "the model has no constant weights (of Conv, ConvTranspose, Gemm, MatMul, Einsum, Gather, LSTM, GRU, RNN).",
            where=model.source,
            remedy="Check that the weights are stored in the model and not fed as inputs.",
        )
    by_weight: dict[str, list[Layer | OtherWeight]] = {}
    for weight in weights:
        by_weight.setdefault(weight.weight, []).append(weight)
    found = {name: [user for user in users if isinstance(user, Layer)] for name, users in by_weight.items()}
    of_layers = {name: users for name, users in found.items() if users}
    tensors = [weight_plan(model, name, users, recipe) for name, users in by_weight.items()]
    tensors = with_shares(model, tensors + other_tensors(model, by_weight, recipe))
    planned_steps = default_steps(recipe, effort) if steps is None else named_steps(recipe, steps)
    if not with_images:
        planned_steps = ()
    if not recipe.integer:
        tensors = wider_if_small(tensors, recipe)
        plain = Plan(recipe, tuple(tensors), steps=planned_steps, effort=effort)
        return _for_dynamic(plain, of_layers) if recipe.dynamic else plain
    target = resolved(recipe.target)
    integer = _integer_plan(model, of_layers, target)
    in_integers = integer.nodes_in("integer")
    unread = target in DEVICES or recipe.activations != UINT8
    if unread or not reads_bytes(model, in_integers):
        planned_steps = tuple(step for step in planned_steps if step != EXACT_INPUT)
    tensors = wider_if_small([weights_alone(tensor, in_integers) for tensor in tensors], recipe)
    tensors = [for_target(tensor, of_layers, target, in_integers) for tensor in tensors]
    return Plan(recipe, tuple(tensors), integer.nodes, integer.scale_groups, planned_steps, effort, target)


def _for_dynamic(plan: Plan, of_layers: Mapping[str, Sequence[Layer]]) -> Plan:
    """With weights that the target computes with exactly where inputs are quantized as they run."""
    target = resolved(plan.recipe.target)
    tensors = tuple(for_target(tensor, of_layers, target, plan.dynamic) for tensor in plan.tensors)
    return replace(plan, tensors=tensors, target=target)


def _downgrade(tensor: TensorPlan) -> str:
    if tensor.given is not None:
        return f"{tensor.tensor}: {tensor.reason}"
    return f"{tensor.tensor} ({_share(tensor.share)} of the weights' bytes) stays float: {tensor.reason}"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _scheme_or_none(scheme: Scheme | None) -> dict[str, Any] | None:
    return None if scheme is None else scheme_to_json(scheme)


def _read_scheme(data: Mapping[str, Any] | None) -> Scheme | None:
    return None if data is None else scheme_from_json(data)


def _integer_plan(model: Model, by_weight: dict[str, list[Layer]], target: str) -> IntegerPlan:
    """Layers whose weight is not float32, or shared along different axes or group counts, stay float.

    So do operators that the target's device has no integers for.
    """
    floats = DEVICES[target].floats if target in DEVICES else {}
    reasons = {str(node.name): floats[node.op_type] for node in model.graph if node.op_type in floats}
    for name, users in by_weight.items():
        if str(model.weights[name].dtype) != "float32":
            reasons |= {layer.node: f"its weight is {model.weights[name].dtype}, not float32" for layer in users}
        elif len({layer.channel_axis for layer in users}) > 1:
            reasons |= {layer.node: "it shares its weight along a different axis" for layer in users}
        elif users[0].op == "ConvTranspose" and len({layer.groups for layer in users}) > 1:
            reasons |= {layer.node: "it shares its weight with a layer of other groups" for layer in users}
    return plan_integer(model, layer_reasons=reasons)
