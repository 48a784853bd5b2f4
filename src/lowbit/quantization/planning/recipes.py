"""Recipes: how a whole model is treated, by name.

A name is a family and a bit width: `int8`, `linear8`, `cluster4`; families of one width are called by their own name:
`float`, `float16`. `RECIPES` is the table of families; a new family is one function and one row.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from lowbit.calibration.ranges import RANGE_RULES
from lowbit.errors import SchemeError, did_you_mean
from lowbit.formats.devices import DEVICES
from lowbit.formats.quantized_graph import INT16, UINT8, ActivationKind
from lowbit.quantization.planning.target import MAX_BITS_WITHOUT_VNNI, NATIVE, activations_for
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Scheme
from lowbit.schemes.half import Half
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear

AUTO_RANGES = "auto"  # the rule that is closest on images that judge, of `FIRST_RANGES` and `OTHER_RANGES`
FIRST_RANGES, OTHER_RANGES = "extremes", "output"
FREE_SCALES = "free"
SCALES = (FREE_SCALES, "pow2")
AFFINE_MAX_BITS = 4  # linear recipes of up to these bits have zero points by default
BLOCK = 32  # inputs that share a scale in the block recipes
EXTRA_BITS = 0.4  # a recipe of 2 bits then takes 2.5 per weight with scales, more in networks of few weights


@dataclass(frozen=True)
class Recipe:
    """How a whole model is treated.

    Attributes:
        name: family and bit width, such as `cluster4`.
        weights: scheme of every weight; None leaves all of them float.
        integer: weights and activations both become integers, and the network computes in them.
        ranges: range rule for activations, a row of `RANGE_RULES`, or `auto`: the better of two; only used if
            `integer`.
        target: processor that the file is made for, a row of `TARGETS` or `native`; only used if `integer`.
        activations: how an integer recipe holds activations; a device may ask for another kind of as many bits.
        dynamic: layers with a fast kernel for it quantize their inputs anew at each inference.
        block_kernels: large matrix products read their codes block by block, in a kernel of ONNX Runtime.
        extra_bits: what recipes of fewer than 8 bits may spend on small layers, in bits per weight over all layers; see
            `schemes_by_size`.
        arithmetic: the float type that nodes which are not integers compute in; see `planning.halves`.

    >>> recipe = lowbit.parse_recipe("int8")
    >>> recipe.integer, recipe.bits
    (True, 8)
    """

    name: str
    weights: Scheme | None
    integer: bool = False
    ranges: str = AUTO_RANGES
    extra_bits: float = EXTRA_BITS
    target: str = NATIVE
    arithmetic: str = "float32"
    activations: ActivationKind = UINT8
    dynamic: bool = False
    block_kernels: bool = False

    @property
    def widest(self) -> int:
        """Bits that small layers get at most: more would gain next to nothing, and 8 can saturate where 7 cannot."""
        return MAX_BITS_WITHOUT_VNNI if self.integer and self.activations.bits == UINT8.bits else 8

    @property
    def bits(self) -> int:
        """Bits per weight code; 32 for float."""
        return self.weights.bits if self.weights else 32


def _float(bits: int) -> Recipe:
    return Recipe("float", None)


def _integer(bits: int) -> Recipe:
    return Recipe(f"int{bits}", Linear(bits, per="channel", symmetric=True), integer=True)


def _wide(bits: int) -> Recipe:
    # With 65,536 levels there is nothing to be won by clipping.
    weights = Linear(bits, per="channel", symmetric=True)
    return Recipe(f"a16w{bits}", weights, integer=True, ranges="minmax", activations=INT16)


def _dynamic(bits: int) -> Recipe:
    return Recipe(f"dynamic{bits}", Linear(bits, per="channel", symmetric=True), dynamic=True)


def _block(bits: int) -> Recipe:
    weights = Linear(bits, per="group", symmetric=False, group_size=BLOCK)
    return Recipe(f"block{bits}", weights, block_kernels=True, extra_bits=0.0)  # the kernel takes this width only


def _linear(bits: int) -> Recipe:
    # With few levels a grid that follows the weights' own range is worth its zero point.
    return Recipe(f"linear{bits}", Linear(bits, per="channel", symmetric=bits > AFFINE_MAX_BITS))


def _cluster(bits: int) -> Recipe:
    return Recipe(f"cluster{bits}", Clusters(bits, per="tensor", half=True, scaled=True))


def _integer_cluster(bits: int) -> Recipe:
    return Recipe(f"icluster{bits}", IntegerClusters(bits), integer=True)


def _float16(bits: int) -> Recipe:
    return Recipe("float16", Half("float16"), arithmetic="float16")


def _bfloat16(bits: int) -> Recipe:
    return Recipe("bfloat16", Half("bfloat16"), arithmetic="bfloat16")


def _float16_weights(bits: int) -> Recipe:
    return Recipe("float16w", Half("float16"))


def _bfloat16_weights(bits: int) -> Recipe:
    return Recipe("bfloat16w", Half("bfloat16"))


# family -> (bit widths, the recipe of a width, one line for `lowbit recipes`)
RECIPES: dict[str, tuple[range, Callable[[int], Recipe], str]] = {
    "float": (range(32, 33), _float, "no quantization: the prepared model as it is"),
    "float16": (range(16, 17), _float16, "half precision: weights and arithmetic, but for what would overflow"),
    "bfloat16": (
        range(16, 17),
        _bfloat16,
        "the same in bfloat16; so far only the weights, see the plan",
    ),
    "float16w": (range(16, 17), _float16_weights, "weights only: stored in half precision, arithmetic in float32"),
    "bfloat16w": (range(16, 17), _bfloat16_weights, "weights only: stored in bfloat16, arithmetic in float32"),
    "int": (range(2, 9), _integer, "full integer: weights of this width, uint8 activations, int32 biases"),
    "a16w": (
        range(4, 9),
        _wide,
        "int16 activations, weights of this width: for devices and LiteRT",
    ),
    "dynamic": (
        range(8, 9),
        _dynamic,
        "int8 weights, inputs of matrix products quantized as it runs",
    ),
    "block": (range(4, 5), _block, "weights only, a scale for each 32 inputs; large matrix products in MatMulNBits"),
    "linear": (range(2, 17), _linear, "weights only: evenly spaced levels, one scale per channel"),
    "cluster": (range(1, 9), _cluster, "weights only: one k-means code book per tensor, one scale per channel"),
    "icluster": (range(1, 8), _integer_cluster, "full integer: one k-means code book of int8 levels per tensor"),
}


def recipe_names() -> tuple[str, ...]:
    """Every recipe of the table."""
    return tuple(make(bits).name for widths, make, _ in RECIPES.values() for bits in widths)


# The recipes of the study, in the order of its table.
STUDY = ("float", "int8", "linear16", "linear8", "cluster8", "cluster4", "cluster2")


def parse_recipe(
    name: str | Recipe,
    *,
    per: str | None = None,
    group_size: int | None = None,
    symmetric: bool | None = None,
    ranges: str | None = None,
    target: str | None = None,
    extra_bits: float | None = None,
    scales: str | None = None,
) -> Recipe:
    """The recipe of this name, with the options given in place of its defaults; None keeps a default.

    Args:
        name: family and bit width, such as `int8`, `linear4` or `cluster2`, or `float`; or a recipe to change.
        per: `tensor`, `channel` or `group`: what shares a scale or a code book.
        group_size: with per="group", columns per scale of a linear recipe, or channels per code book.
        symmetric: linear recipes only: no zero points (True), or one per scale (False; the default up to 4 bits).
        ranges: range rule for activations, `auto` or a row of `RANGE_RULES`.
        target: processor that the file is made for: `native` (this machine; the default), or a row of `TARGETS`.
        extra_bits: what recipes of fewer than 8 bits may spend on small layers, in bits per weight over all layers; 0
            gives every layer the same.
        scales: integer recipes only: `free`, or `pow2`: powers of two for weights and activations, without zero points,
            and one for each tensor unless `per` says otherwise.

    Raises:
        SchemeError: no such recipe, range rule or target, or an option that the recipe does not take.

    >>> lowbit.parse_recipe("linear4", per="group", group_size=32).weights.name
    'linear4/group32/affine'
    """
    recipe = name if isinstance(name, Recipe) else _recipe_named(name)
    options = {"per": per, "group_size": group_size, "symmetric": symmetric}
    changes: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if changes:
        recipe = replace(recipe, weights=_changed_scheme(recipe, changes))
    if extra_bits is not None:
        if recipe.bits >= recipe.widest:
            raise SchemeError(
                f"recipe '{recipe.name}' gives every layer the same bits.",
                remedy=f"Omit --extra-bits, or use a recipe of fewer than {recipe.widest} bits.",
            )
        if not 0 <= extra_bits <= recipe.widest:
            raise SchemeError(
                f"there cannot be {extra_bits} extra bits per weight.",
                remedy=f"Give 0 to {recipe.widest}, such as 0.4.",
            )
        recipe = replace(recipe, extra_bits=extra_bits)
    if ranges is not None:
        recipe = _with_ranges(recipe, ranges)
    if scales is not None:
        recipe = _with_scales(recipe, scales, per)
    return recipe if target is None else _with_target(recipe, target)


def _with_ranges(recipe: Recipe, ranges: str) -> Recipe:
    if ranges not in (AUTO_RANGES, *RANGE_RULES):
        known = ", ".join((AUTO_RANGES, *RANGE_RULES))
        raise SchemeError(f"unknown range rule '{ranges}'.", remedy=f"Choose one of: {known}.")
    if not recipe.integer:
        raise SchemeError(
            f"recipe '{recipe.name}' does not quantize activations, so it has no ranges.", remedy="Omit --ranges."
        )
    return replace(recipe, ranges=ranges)


def _with_target(recipe: Recipe, target: str) -> Recipe:
    activations_for(target, recipe.activations)
    if not (recipe.integer or (recipe.dynamic and target not in DEVICES)):
        raise SchemeError(
            f"recipe '{recipe.name}' computes in float, so its file is the same for every target.",
            remedy="Omit --target.",
        )
    return replace(recipe, target=target)


def _with_scales(recipe: Recipe, scales: str, per: str | None) -> Recipe:
    """With powers of two for scales, no zero points, and one scale for each tensor unless `per` says otherwise."""
    if scales not in SCALES:
        raise SchemeError(f"unknown scales '{scales}'.", remedy=f"Choose one of: {', '.join(SCALES)}.")
    if scales == FREE_SCALES:
        return recipe
    if not recipe.integer or not isinstance(recipe.weights, Linear):
        raise SchemeError(
            f"recipe '{recipe.name}' has no integers on even levels, where powers of two would gain something.",
            remedy="Omit --scales.",
        )
    weights = replace(recipe.weights, powers=True)
    kind = replace(recipe.activations, signed=True, symmetric=True, powers=True)
    return replace(recipe, weights=weights if per else weights.per_tensor(), activations=kind)


def written_name(family: str) -> str:
    """A family with its widths: float, dynamic8, int2..8."""
    widths, make, _ = RECIPES[family]
    return make(widths[0]).name if len(widths) == 1 else f"{family}{widths[0]}..{widths[-1]}"


def _recipe_named(name: str) -> Recipe:
    called = {"float32": "float"}.get(name.strip().lower(), name.strip().lower())
    for widths, make, _ in RECIPES.values():
        for bits in widths:
            if (recipe := make(bits)).name == called:
                return recipe
    family = called.rstrip("0123456789")
    if family in RECIPES and family not in recipe_names():
        widths, make, _ = RECIPES[family]
        raise SchemeError(
            f"recipe '{name}' needs a bit width from {widths[0]} to {widths[-1]}.",
            remedy=f"For example: {make(min(8, widths[-1])).name}.",
        )
    near = did_you_mean(called, recipe_names())
    names = [written_name(family) for family in RECIPES]
    raise SchemeError(f"unknown recipe '{name}'.", remedy=f"{near}Choose one of: {', '.join(names)}.")


def _changed_scheme(recipe: Recipe, changes: dict[str, object]) -> Scheme:
    if recipe.weights is None:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise SchemeError("recipe 'float' quantizes nothing.", remedy=f"Omit {options}.")
    if isinstance(recipe.weights, Half):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise SchemeError(f"recipe '{recipe.name}' has no scales.", remedy=f"Omit {options}.")
    if recipe.integer and changes.get("per") == "group":
        raise SchemeError(
            "integer kernels only support scales per tensor or per channel.",
            remedy="Use --per channel, or a linear recipe.",
        )
    if recipe.integer and changes.get("symmetric") is False:
        raise SchemeError(
            "integer recipes need symmetric weights: a zero point would add a second sum to each product.",
            remedy="Omit --affine, or use a linear recipe.",
        )
    scheme: Any = recipe.weights
    known = {field.name for field in fields(scheme)}
    if recipe.block_kernels and changes.get("per", "group") != "group":
        raise SchemeError(
            f"recipe '{recipe.name}' has a scale for each block of inputs.",
            remedy="Omit --per, or use a linear recipe; --group-size sets the size of the blocks.",
        )
    if "symmetric" in changes and "symmetric" not in known:
        raise SchemeError("code books have no zero point.", remedy="Omit --symmetric and --affine.")
    if unknown := changes.keys() - known:
        raise SchemeError(f"recipe '{recipe.name}' has no {', '.join(sorted(unknown))}.", remedy="Omit it.")
    if "scaled" in known and changes.get("per") == "channel":
        changes |= {"scaled": False}  # a code book per channel has the range of its channel already
    changed: Scheme = replace(scheme, **changes)
    return changed
