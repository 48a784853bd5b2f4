"""Recipes: how a whole model is treated, by name.

A name is a family and a bit width: `int8`, `linear8`, `cluster4`. `RECIPES` is the one table of families; a new one is
one function and one row.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from lowbit.calibration.ranges import RANGE_RULES
from lowbit.errors import SchemeError
from lowbit.quantization.planning.target import NATIVE, resolved
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Scheme
from lowbit.schemes.linear import Linear

MOST_AFFINE_BITS = 4


@dataclass(frozen=True)
class Recipe:
    """How a whole model is treated.

    Attributes:
        name: its spelling, such as `cluster4`.
        weights: scheme of every weight; None leaves all of them float.
        integer: weights and activations both become integers and the arithmetic is done in them.
        ranges: range rule for activations (a row of `RANGE_RULES`); only read if `integer`.
        target: processor that integers are made for: a row of `TARGETS`, or `native`; only read if `integer`.
    """

    name: str
    weights: Scheme | None
    integer: bool = False
    ranges: str = "output"
    target: str = NATIVE

    @property
    def bits(self) -> int:
        """Bits a weight code takes; 32 for float."""
        return self.weights.bits if self.weights else 32


def _float(bits: int) -> Recipe:
    return Recipe("float", None)


def _integer(bits: int) -> Recipe:
    return Recipe(f"int{bits}", Linear(bits, per="channel", symmetric=True), integer=True)


def _linear(bits: int) -> Recipe:
    # With few levels a grid that follows the weights' own range is worth its zero point.
    return Recipe(f"linear{bits}", Linear(bits, per="channel", symmetric=bits > MOST_AFFINE_BITS))


def _cluster(bits: int) -> Recipe:
    return Recipe(f"cluster{bits}", Clusters(bits, per="tensor", half=True, scaled=True))


# family -> (widths, what it makes of a width, one line for `lowbit recipes`)
RECIPES: dict[str, tuple[range, Callable[[int], Recipe], str]] = {
    "float": (range(32, 33), _float, "nothing quantized: the prepared model as it stands"),
    "int": (range(2, 9), _integer, "full integer: weights of these bits, uint8 activations, int32 biases"),
    "linear": (range(2, 17), _linear, "weights only, evenly spaced values with a scale per channel"),
    "cluster": (range(1, 9), _cluster, "weights only, k-means code book per tensor and a scale per channel"),
}

# What the study compares, in the order of its table.
STUDY = ("float", "int8", "linear16", "linear8", "cluster8", "cluster4", "cluster2")


def parse_recipe(
    name: str | Recipe,
    *,
    per: str | None = None,
    group_size: int | None = None,
    symmetric: bool | None = None,
    ranges: str | None = None,
    target: str | None = None,
) -> Recipe:
    """The recipe of this name, with what was asked otherwise in place of its defaults.

    Args:
        name: family and bit width, for example `int8`, `linear4`, `cluster2`, or `float`.
        per: `tensor`, `channel` or `group`: what shares a scale or a code book.
        group_size: how many (columns of a linear scale, channels of a code book) with per="group".
        symmetric: linear only: no zero point, or one for each scale; up to 4 bits the default is one.
        ranges: range rule for activations.
        target: processor that integers are made for: `native` (this machine; the default), or a row of `TARGETS`.

    Raises:
        SchemeError: no such recipe, or a hyper-parameter that it does not take.
    """
    recipe = name if isinstance(name, Recipe) else _named(name)
    changes: dict[str, object] = {"per": per, "group_size": group_size, "symmetric": symmetric}
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes:
        recipe = replace(recipe, weights=_changed(recipe, changes))
    if ranges is not None:
        if ranges not in RANGE_RULES:
            raise SchemeError(f"no range rule '{ranges}'.", remedy=f"Choose one of: {', '.join(RANGE_RULES)}.")
        if not recipe.integer:
            raise SchemeError(
                f"recipe '{recipe.name}' leaves activations float and has no ranges.", remedy="Leave --ranges out."
            )
        recipe = replace(recipe, ranges=ranges)
    if target is not None:
        resolved(target)
        if not recipe.integer:
            raise SchemeError(
                f"recipe '{recipe.name}' computes in float, which all processors do alike.",
                remedy="Leave --target out.",
            )
        recipe = replace(recipe, target=target)
    return recipe


def _named(name: str) -> Recipe:
    match = re.fullmatch(r"([a-z]+)(\d*)", name.strip().lower())
    if match is None or match[1] not in RECIPES:
        known = ", ".join(f"{family}{widths[0]}..{widths[-1]}" for family, (widths, _, _) in RECIPES.items())
        raise SchemeError(f"no recipe '{name}'.", remedy=f"Recipes: {known.replace('float32..32', 'float')}.")
    widths, make, _ = RECIPES[match[1]]
    bits = int(match[2]) if match[2] else (32 if match[1] == "float" else 0)
    if bits not in widths:
        raise SchemeError(
            f"'{name}' asks for {match[2] or 'no'} bits; '{match[1]}' takes {widths[0]} to {widths[-1]}.",
            remedy=f"For example: {match[1]}{min(8, widths[-1])}.",
        )
    return make(bits)


def _changed(recipe: Recipe, changes: dict[str, object]) -> Scheme:
    if recipe.weights is None:
        raise SchemeError("recipe 'float' quantizes nothing.", remedy=f"Leave {', '.join(changes)} out.")
    if recipe.integer and changes.get("per") == "group":
        raise SchemeError(
            "integer kernels know scales per tensor or per channel only.",
            remedy="Use per='channel', or a linear recipe.",
        )
    if recipe.integer and changes.get("symmetric") is False:
        raise SchemeError(
            "integer kernels want symmetric weights: a zero point costs a second sum in each product.",
            remedy="Leave --affine out, or use a linear recipe.",
        )
    scheme: Any = recipe.weights
    known = {field.name for field in fields(scheme)}
    if "symmetric" in changes and "symmetric" not in known:
        raise SchemeError("a code book has no zero point.", remedy="Leave --affine out.")
    if unknown := changes.keys() - known:
        raise SchemeError(f"recipe '{recipe.name}' has no {', '.join(sorted(unknown))}.", remedy="Leave it out.")
    if "scaled" in known and changes.get("per") == "channel":
        changes |= {"scaled": False}  # its own book has its range already
    changed: Scheme = replace(scheme, **changes)
    return changed
