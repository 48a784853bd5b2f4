"""From a model, a recipe and rules to a plan: what each tensor and node gets, decided before any number is touched."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lowbit.errors import SchemeError
from lowbit.formats.devices import DEVICES, ONNX_FILE
from lowbit.formats.input_bytes import reads_bytes
from lowbit.formats.opening import load
from lowbit.formats.quantized_graph import UINT8
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.arithmetic import WeightUsers, check_quantizable, integer_plan, weight_users
from lowbit.quantization.planning.halves import plan_halves
from lowbit.quantization.planning.integer import IntegerPlan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import Choices, Rules, chosen_recipes
from lowbit.quantization.planning.steps import (
    EXACT_INPUT,
    EXACT_INPUT_MIN_BITS,
    default_steps,
    named_steps,
)
from lowbit.quantization.planning.target import resolved
from lowbit.quantization.planning.tensors import (
    for_target,
    other_tensors,
    weight_plan,
    weights_alone,
    wider_if_small,
    with_shares,
)
from lowbit.quantization.solving.effort import effort_called


def plan(
    model: Model | str | Path,
    recipe: str | Recipe,
    *,
    rules: Rules = (),
    effort: str = "balanced",
    steps: Sequence[str] | None = None,
    with_images: bool = True,
) -> Plan:
    """Decide what each tensor and node gets.

    Args:
        model: the float model or its path.
        recipe: a recipe or its name.
        rules: other recipes for some layers, such as "depthwise=linear8", of which later ones win; or a function that
            is asked about every weight (`RuleLayer`) and answers a recipe, its name, or None.
        effort: how long the steps may search, a row of `EFFORTS`.
        steps: the steps to try, keys of `STEP_NAMES` in any order; None leaves the choice to recipe and effort.
        with_images: whether there will be calibration images; without them no steps are taken.

    Raises:
        SchemeError: no such recipe, effort or step, a step that no recipe uses, or a rule that is malformed or speaks
            of nothing.
        ModelError: the model has no layer that can be quantized, or is already quantized.

    >>> lowbit.plan("model.onnx", "int8", rules=["first=float"])
    <Plan int8 with first=float: 6 of 7 weights as codes, 11 of 13 nodes in integers>
    """
    model = load(model)
    recipe = parse_recipe(recipe)
    effort_called(effort)
    users = weight_users(model)
    choices = chosen_recipes(model, users, recipe, rules)
    recipes = tuple(dict.fromkeys(choices.of(name).recipe for name in users)) or (recipe,)
    if any(each.weights is not None for each in recipes):
        check_quantizable(model, users)
    recipe = _with_kind(recipe, recipes)
    tensors = [weight_plan(model, name, reading, choices.of(name)) for name, reading in users.items()]
    tensors = with_shares(model, tensors + other_tensors(model, users, choices))
    planned_steps = default_steps(recipes, effort) if steps is None else named_steps(recipes, steps)
    decision = Plan(recipe, tuple(tensors), steps=planned_steps, effort=effort, rules=choices.rules)
    if any(each.integer for each in recipes):
        decision = _with_integers(model, decision, choices, users)
        if steps is None and not _exact_input_pays(model, decision):
            decision = replace(decision, steps=tuple(step for step in decision.steps if step != EXACT_INPUT))
    else:
        decision = without_integers(replace(decision, tensors=tuple(wider_if_small(tensors, recipe))), users)
        decision = replace(decision, nodes=plan_halves(model, recipe))
    return decision if with_images else replace(decision, steps=())


def _with_integers(model: Model, decision: Plan, choices: Choices, users: WeightUsers) -> Plan:
    """With the arithmetic of each node, and what that makes of the weights."""
    float_nodes = device_floats(model, decision.recipe.target)
    float_nodes |= {name: f"rule {choice.rule}" for name, choice in choices.nodes.items() if not choice.recipe.integer}
    asked = {name for name, choice in choices.nodes.items() if choice.recipe.integer}
    free = set() if decision.recipe.integer else model.nodes.keys() - asked
    integer = integer_plan(model, decision.tensors, users, reasons=float_nodes, optional=free)
    in_integers = integer.nodes_in("integer")
    tensors = wider_if_small([weights_alone(tensor, in_integers) for tensor in decision.tensors], decision.recipe)
    return with_target(model, replace(decision, tensors=tuple(tensors)), integer, users)


def with_target(model: Model, decision: Plan, integer: IntegerPlan, users: WeightUsers) -> Plan:
    """With the nodes of an integer plan, weights that the target computes with, and steps that can be taken."""
    target = decision.target or resolved(decision.recipe.target)
    in_integers = integer.nodes_in("integer") | decision.dynamic
    layers = {name: [user for user in reading if isinstance(user, Layer)] for name, reading in users.items()}
    tensors = tuple(for_target(tensor, layers, target, in_integers) for tensor in decision.tensors)
    for_cpus = target not in DEVICES and decision.activations == UINT8
    exact = for_cpus and reads_bytes(model, integer.nodes_in("integer"))
    steps = tuple(step for step in decision.steps if step != EXACT_INPUT or exact)
    return replace(
        decision, tensors=tensors, nodes=integer.nodes, scale_groups=integer.scale_groups, steps=steps, target=target
    )


def _exact_input_pays(model: Model, decision: Plan) -> bool:
    """Whether the layers that read the input have weights that lose less by it than an exact input gains."""
    reading = {layer.weight for layer in layers(model) if layer.input == model.inputs[0].name}
    asked = [tensor.asked for tensor in decision.tensors if tensor.tensor in reading]
    return all(scheme is not None and scheme.bits >= EXACT_INPUT_MIN_BITS for scheme in asked)


def _with_kind(recipe: Recipe, used: Sequence[Recipe]) -> Recipe:
    """The recipe of the whole model with the kind of activations of those that compute in integers.

    Raises:
        SchemeError: they are of several kinds.
    """
    kinds = {each.activations: each.name for each in used if each.integer}
    if len(kinds) > 1:
        raise SchemeError(
            f"{' and '.join(kinds.values())} hold activations in different ways, and a file has one.",
            remedy="Name recipes of one kind of activations in rules.",
        )
    return replace(recipe, activations=next(iter(kinds), recipe.activations))


def device_floats(model: Model, target: str) -> dict[str, str]:
    """Nodes that stay float on a target because of their operators, and why."""
    if target not in DEVICES:
        return {}
    device = DEVICES[target]
    # A list of LiteRT's operators says nothing of ONNX nodes, which become several of these.
    reasons = {
        str(node.name): device.floats.get(node.op_type)
        or (device.cpu_reason(node.op_type) if ONNX_FILE in device.files else "")
        for node in model.graph
    }
    return {name: reason for name, reason in reasons.items() if reason}


def without_integers(decision: Plan, users: WeightUsers) -> Plan:
    """Without nodes in integers; a target there is only where inputs are quantized as they run, with its weights."""
    decision = replace(decision, nodes=(), scale_groups=())
    if not decision.dynamic:
        return replace(decision, target="")
    target = resolved(decision.target or decision.recipe.target)
    layers = {name: [user for user in reading if isinstance(user, Layer)] for name, reading in users.items()}
    tensors = tuple(for_target(tensor, layers, target, decision.dynamic) for tensor in decision.tensors)
    return replace(decision, tensors=tensors, target=target)
