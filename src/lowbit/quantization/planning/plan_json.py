"""A plan as plain data that people edit by hand: schemes by the name of a recipe, and nothing that goes without saying.

    "linear8"                                       the scheme and the arithmetic of a recipe
    {"recipe": "linear8", "per": "tensor"}          the same, with other options
    null                                            float

A tensor's `asked` is left out where it is what is `given`; so is the arithmetic of a node that follows from its weight.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any, get_type_hints

from lowbit.calibration.ranges import RANGE_RULES
from lowbit.errors import LowbitError, SchemeError
from lowbit.formats.quantized_graph import ActivationKind
from lowbit.quantization.planning.node_plan import NodePlan
from lowbit.quantization.planning.recipes import AUTO_RANGES, RECIPES, Recipe, parse_recipe
from lowbit.quantization.planning.steps import STEP_NAMES
from lowbit.quantization.planning.target import NATIVE
from lowbit.quantization.planning.tensors import SHARED_REASON, TensorPlan, float_reason
from lowbit.quantization.solving.schemes import is_of_type, scheme_from_json, scheme_to_json
from lowbit.schemes.codes import Scheme

Json = Mapping[str, Any]
ARITHMETIC = ("integer", "float", "absorbed", "float16", "float32")  # the last two in recipes of half precision
REMEDY = "Use what `lowbit plan --out` wrote, or its --json."


@contextmanager
def readable() -> Iterator[None]:
    """Whatever reading data of the wrong kind raises becomes an error for users."""
    try:
        yield
    except LowbitError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise SchemeError(f"not a valid plan: {type(error).__name__}: {error}.", remedy=REMEDY) from error


def text(value: object) -> str:
    """A value that has to be text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def texts(value: object) -> tuple[str, ...]:
    """A value that has to be a list of texts."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(text(each) for each in value)


def objects(value: object) -> list[Json]:
    """A value that has to be a list of objects."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise TypeError("a list of objects is missing")
    return value


def recipe_to_json(recipe: Recipe) -> str | dict[str, Any]:
    """A recipe by its name, with the options in which it differs from the table's."""
    usual = _usual(recipe.name)
    options = {
        field.name: getattr(recipe, field.name)
        for field in fields(Recipe)
        if field.name != "name" and (usual is None or getattr(recipe, field.name) != getattr(usual, field.name))
    }
    if options.get("weights") is not None:
        options["weights"] = scheme_to_json(options["weights"])
    if "activations" in options:
        options["activations"] = asdict(options["activations"])
    return {"recipe": recipe.name, **options} if options else recipe.name


def recipe_from_json(data: object) -> Recipe:
    """The recipe that `recipe_to_json` described.

    Raises:
        SchemeError: no such recipe, or an option that none has.
    """
    if isinstance(data, str):
        return parse_recipe(data)
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r} is no recipe")
    name = text(data["recipe"])
    options = {key: value for key, value in data.items() if key != "recipe"}
    hints = get_type_hints(Recipe)
    if options.get("weights") is not None:
        options["weights"] = scheme_from_json(options["weights"])
    if "activations" in options:
        options["activations"] = _kind(options["activations"])
    for key, value in options.items():
        fits = key in hints and (key in ("weights", "activations") or is_of_type(value, hints[key]))
        if not fits and not (hints.get(key) is float and type(value) is int):
            raise SchemeError(f"recipe '{name}' has no {key} = {value!r}.", remedy=REMEDY)
    usual = _usual(name)
    recipe = Recipe(name, **options) if usual is None else replace(usual, **options)
    if recipe.ranges not in (AUTO_RANGES, *RANGE_RULES):
        raise SchemeError(
            f"unknown range rule '{recipe.ranges}'.", remedy=f"Choose one of: {', '.join((AUTO_RANGES, *RANGE_RULES))}."
        )
    return recipe


def steps_from_json(names: Sequence[str]) -> tuple[str, ...]:
    """The steps by the names that `--steps` has for them.

    Raises:
        SchemeError: no such step.
    """
    for name in names:
        if name not in STEP_NAMES:
            raise SchemeError(f"unknown step '{name}'.", remedy=f"Choose from: {', '.join(STEP_NAMES)}.")
    return tuple(step for name, step in STEP_NAMES.items() if name in names)


def _kind(data: object) -> ActivationKind:
    """A kind of activations from its fields."""
    hints = get_type_hints(ActivationKind)
    if not isinstance(data, Mapping) or not all(
        key in hints and is_of_type(value, hints[key]) for key, value in data.items()
    ):
        raise TypeError(f"{data!r} is no kind of activations")
    kind = ActivationKind(**data)
    if kind.bits not in (8, 16):
        raise TypeError(f"activations have 8 or 16 bits, not {kind.bits}")
    return kind


def tensor_to_json(tensor: TensorPlan, base: Recipe) -> dict[str, Any]:
    """A line of the plan.

    Args:
        tensor: what it gets.
        base: the recipe of the whole model.
    """
    asking = _named(tensor.recipe, base) if tensor.recipe else None
    entry: dict[str, Any] = {"tensor": tensor.tensor, "given": _short(tensor.given, asking, base)}
    if tensor.asked != tensor.given:
        entry["asked"] = _short(tensor.asked, asking, base)
    for key in ("rule", "reason", "adapted", "axis"):
        if value := getattr(tensor, key):
            entry[key] = value
    return {
        **entry,
        "shape": list(tensor.shape),
        "layers": list(tensor.layers),
        "share": tensor.share,
    }


def tensor_from_json(data: Json, base: Recipe) -> TensorPlan:
    """The line that `tensor_to_json` wrote, or that someone edited.

    What is given counts as asked for where no rule of lowbit's gives something else: then someone edited it.

    Raises:
        SchemeError: no such recipe, or options that it does not have.
    """
    name = text(data["tensor"])
    with _of_tensor(name):
        recipe, given = _read(data["given"], base)
        asking, asked = _read(data["asked"], base) if data.get("asked") is not None else (recipe, given)
    reason, adapted = text(data.get("reason", "")), data.get("adapted", False) is True
    falls_short = asked != given and not adapted and reason != SHARED_REASON
    if given is not None and (falls_short or _arithmetic(asking) != _arithmetic(recipe)):
        asking, asked, reason, adapted = recipe, given, "", False
    shape, axis, share = data["shape"], data.get("axis", 0), data["share"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise TypeError(f"{shape!r} is no shape")
    if type(axis) is not int or type(share) not in (int, float):
        raise TypeError(f"{name} has a field that is no number")
    return TensorPlan(
        name,
        texts(data["layers"]),
        tuple(shape),
        axis,
        asked,
        given,
        reason,
        adapted,
        float(share),
        asking.name if asked is not None else "",
        asking.integer and asked is not None,
        text(data.get("rule", "")),
    )


def nodes_to_json(nodes: Sequence[NodePlan], tensors: Sequence[TensorPlan]) -> list[dict[str, Any]]:
    """A line for each node; without its arithmetic where that follows from its weight."""
    weights = _weights_of(tensors)
    lines = []
    for node in nodes:
        entry: dict[str, Any] = {"node": node.node, "op": node.op}
        if node != _following(node.node, node.op, weights):
            entry["arithmetic"] = node.arithmetic
            if node.reason:
                entry["reason"] = node.reason
            if node.asked != "integer":
                entry["asked"] = node.asked
        lines.append(entry)
    return lines


def nodes_from_json(data: Sequence[Json], tensors: Sequence[TensorPlan]) -> tuple[NodePlan, ...]:
    """The nodes that `nodes_to_json` wrote, or that someone edited.

    Raises:
        SchemeError: an arithmetic that there is not, or none where no weight says it.
    """
    weights = _weights_of(tensors)
    nodes = []
    for entry in data:
        name, op = text(entry["node"]), text(entry["op"])
        if "arithmetic" in entry:
            arithmetic, asked = text(entry["arithmetic"]), text(entry.get("asked", "integer"))
            if arithmetic not in ARITHMETIC or asked not in ARITHMETIC[:2]:
                raise SchemeError(
                    f"node {name}: no arithmetic is called '{arithmetic}'.",
                    remedy=f"Choose one of: {', '.join(ARITHMETIC)}.",
                )
            nodes.append(NodePlan(name, op, arithmetic, text(entry.get("reason", "")), asked))
            continue
        node = _following(name, op, weights)
        if node is None:
            raise SchemeError(
                f"node {name} has no arithmetic, and no weight says it.",
                remedy="Write integer or float, or put the line of its weight back.",
            )
        nodes.append(node)
    return tuple(nodes)


def _weights_of(tensors: Sequence[TensorPlan]) -> dict[str, TensorPlan]:
    return {node: tensor for tensor in tensors for node in tensor.layers}


def _following(name: str, op: str, weights: Mapping[str, TensorPlan]) -> NodePlan | None:
    """How a node computes as its weight says; None if no weight says it."""
    weight = weights.get(name)
    if weight is None:
        return None
    if weight.integer:
        return NodePlan(name, op, "integer")
    return NodePlan(name, op, "float", float_reason(weight), "float")


def _usual(name: str) -> Recipe | None:
    try:
        return parse_recipe(name)
    except SchemeError:
        return None


def _named(name: str, base: Recipe) -> Recipe:
    return base if name == base.name else parse_recipe(name)


def _arithmetic(recipe: Recipe) -> Recipe:
    """All that says how layers compute; not what becomes of their weights."""
    return replace(recipe, name="", weights=None, extra_bits=0.0, ranges=AUTO_RANGES, target=NATIVE)


def _short(scheme: Scheme | None, asking: Recipe | None, base: Recipe) -> str | dict[str, Any] | None:
    """A scheme by the name of a recipe that has it, with the options in which it differs."""
    if scheme is None or asking is None:
        return None
    table = (make(bits) for widths, make, _ in RECIPES.values() for bits in widths)
    known = (asking, *(recipe for recipe in table if recipe.name != base.name))
    for recipe in known:
        if recipe.weights == scheme and _arithmetic(recipe) == _arithmetic(asking):
            return recipe.name
    options = scheme_to_json(scheme)
    if type(scheme) is type(asking.weights):
        options = {key: value for key, value in options.items() if value != scheme_to_json(asking.weights).get(key)}
    return {"recipe": asking.name, **options}


def _read(data: object, base: Recipe) -> tuple[Recipe, Scheme | None]:
    """What `_short` wrote: a recipe, and its scheme or another one."""
    if data is None:
        return base, None
    if isinstance(data, str):
        recipe = _named(data, base)
        return recipe, recipe.weights
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r} is no scheme")
    recipe = _named(text(data["recipe"]), base)
    options = {key: value for key, value in data.items() if key != "recipe"}
    if "kind" not in options:
        if recipe.weights is None:
            raise SchemeError(f"recipe '{recipe.name}' quantizes nothing.", remedy="Write null for float.")
        options = scheme_to_json(recipe.weights) | options
    return recipe, scheme_from_json(options)


@contextmanager
def _of_tensor(name: str) -> Iterator[None]:
    """Errors say which tensor they are about."""
    try:
        yield
    except SchemeError as error:
        raise SchemeError(error.what, where=f"tensor {name}", remedy=error.remedy) from error
